"""The published models: our networks have as many parameters as their authors say."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

import foreign
from fewstep.exchange.exported import to_edm
from fewstep.exchange.layouts.published import PICKLES, PUBLISHED, pickled
from fewstep.exchange.sources import import_model
from fewstep.flow_map import FlowMap
from fewstep.networks import ADM, EDM2UNet, Network, UNet, skeleton
from fewstep.networks.adm import IMAGENET64, LSUN256
from fewstep.parameterization import EDM

CIFAR: dict[str, Any] = {"channels": 128, "multipliers": (2, 2, 2), "blocks": 4, "augment": 9}
FACES: dict[str, Any] = {**CIFAR, "multipliers": (1, 2, 2, 2)}
NCSNPP: dict[str, Any] = {
    "embedding": "fourier",
    "encoder": "residual",
    "resample_filter": (1, 3, 3, 1),
}
ADM256: dict[str, Any] = {"channels": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2}
ADM128 = {**ADM256, "multipliers": (1, 1, 2, 3, 4), "heads": 4}
ADM512 = {**ADM256, "multipliers": (0.5, 1, 1, 2, 2, 4, 4)}
EDM2: dict[str, Any] = {"multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (16, 8)}
IMAGES = (3, 32, 32), (3, 64, 64), (3, 128, 128), (3, 256, 256), (3, 512, 512)
OF_32, OF_64, OF_128, OF_256, OF_512 = IMAGES
MANY = {"num_classes": 1000}

# Millions of parameters: Karras et al. 2022, Table 7; Dhariwal & Nichol 2021, Table 10 (of its
# LSUN models, too); Karras et al. 2024 (EDM2), Table 2; Song et al. 2023's code.
COUNTED: dict[str, tuple[type[Network], Any, dict[str, Any], float]] = {
    "edm-cifar10-32x32-uncond-vp": (UNet, OF_32, CIFAR, 55.7),
    "edm-cifar10-32x32-cond-vp": (UNet, OF_32, {**CIFAR, "num_classes": 10}, 55.7),
    "edm-cifar10-32x32-uncond-ve": (UNet, OF_32, CIFAR | NCSNPP, 56.4),
    "edm-cifar10-32x32-cond-ve": (UNet, OF_32, {**CIFAR, **NCSNPP, "num_classes": 10}, 56.4),
    "edm-ffhq-64x64-uncond-vp": (UNet, OF_64, FACES, 61.8),
    "edm-ffhq-64x64-uncond-ve": (UNet, OF_64, FACES | NCSNPP, 62.8),
    "edm-afhqv2-64x64-uncond-vp": (UNet, OF_64, FACES, 61.8),
    "edm-afhqv2-64x64-uncond-ve": (UNet, OF_64, FACES | NCSNPP, 62.8),
    "edm-imagenet-64x64-cond-adm": (ADM, OF_64, IMAGENET64 | MANY, 295.9),
    "edm2-img512-xs": (EDM2UNet, (4, 64, 64), {**EDM2, **MANY, "channels": 128}, 124.7),
    "edm2-img512-s": (EDM2UNet, (4, 64, 64), {**EDM2, **MANY, "channels": 192}, 280.2),
    "edm2-img512-m": (EDM2UNet, (4, 64, 64), {**EDM2, **MANY, "channels": 256}, 497.8),
    "edm2-img512-l": (EDM2UNet, (4, 64, 64), {**EDM2, **MANY, "channels": 320}, 777.5),
    "edm2-img512-xl": (EDM2UNet, (4, 64, 64), {**EDM2, **MANY, "channels": 384}, 1119.3),
    "edm2-img512-xxl": (EDM2UNet, (4, 64, 64), {**EDM2, **MANY, "channels": 448}, 1523.2),
    "edm2-img64-s": (EDM2UNet, OF_64, {**EDM2, **MANY, "channels": 192}, 280.2),
    "cd_imagenet64_l2": (ADM, OF_64, IMAGENET64 | MANY, 295.9),
    "ct_bedroom256": (ADM, OF_256, LSUN256, 526.3),
    "64x64_diffusion": (ADM, OF_64, IMAGENET64 | MANY, 295.9),
    "128x128_diffusion": (ADM, OF_128, ADM128 | MANY, 421.5),
    "256x256_diffusion": (ADM, OF_256, ADM256 | MANY, 553.8),
    "256x256_diffusion_uncond": (ADM, OF_256, ADM256, 552.8),
    "lsun_bedroom": (ADM, OF_256, ADM256, 552.8),
    "512x512_diffusion": (ADM, OF_512, ADM512 | MANY, 559.0),
}


@pytest.mark.parametrize("name", list(COUNTED))
def test_a_published_network_has_as_many_parameters(name: str) -> None:
    kind, shape, settings, millions = COUNTED[name]
    with skeleton():
        F = kind(shape, **settings)
    count = sum(x.numel() for x in F.parameters())
    assert round(count / 1e6, 1) == millions
    known = PUBLISHED.get(name)
    assert count == (PICKLES[name] if known is None else known.parameters)


def test_every_name_is_counted() -> None:
    assert set(PICKLES) <= set(COUNTED)
    assert all(known.parameters for known in PUBLISHED.values())
    counts = {known.parameters for known in PUBLISHED.values()}
    assert counts == {PUBLISHED[name].parameters for name in COUNTED if name in PUBLISHED}
    assert pickled(Path("edm2-img512-xs-2147483-0.135.pkl"), "Precond").parameters == 124_713_125
    assert pickled(Path("edm2-img512-xxl-0939524-0.015.pkl"), "Precond").parameters == (
        1_523_164_645
    )
    assert pickled(Path("mine.pkl"), "EDMPrecond").parameters is None


def test_a_pickle_with_the_name_of_another_model_is_noted(tmp_path: Path) -> None:
    F = UNet((3, 8, 8), channels=16, multipliers=(1,), blocks=1, attention=())
    exported = to_edm(FlowMap(F, EDM()))
    tensors = {key.removeprefix("model."): x for key, x in exported.tensors.items()}
    inner = OrderedDict([("model", foreign.nested(tensors, "Network"))])
    path = tmp_path / "edm-cifar10-32x32-uncond-vp.pkl"
    with foreign.nvidia():
        path.write_bytes(pickle.dumps({"ema": foreign.Persistent("EDMPrecond", _modules=inner)}))
    imported = import_model(path)
    assert any("55,733,891" in note for note in imported.notes)
    assert imported.f.info["origin"]["licence"] is None
