"""The published models: what their files do not say of themselves.

A state dict has no licence and does not say how it was trained. Both are looked up here by the
name of the file, and checked by the number of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

OPENAI = "https://github.com/openai/consistency_models"
GUIDED = "https://github.com/openai/guided-diffusion"
EDM = "https://github.com/NVlabs/edm"
EDM2 = "https://github.com/NVlabs/edm2"
ECT = "https://github.com/locuslab/ect"
CITED = {
    OPENAI: "song2023consistency",
    GUIDED: "dhariwal2021diffusion",
    EDM: "karras2022elucidating",
    EDM2: "karras2024analyzing",
    ECT: "geng2024consistency",
}
"""The paper of what was published there."""
NON_COMMERCIAL = "CC-BY-NC-SA-4.0"


@dataclass(frozen=True)
class Published:
    """A published model.

    Args:
        source: where it was published.
        licence: SPDX name of the licence of the project's files.
        consistency: whether it is a consistency model; else it is a diffusion model.
        parameters: number of its network's, without those of a variance; None where it was not
            counted.
        settings: arguments of the network that its weights do not tell.
        process: name and arguments of the process that its weights do not tell.
        heads_lead: whether its queries, keys and values are ordered by head first.
    """

    source: str
    licence: str
    consistency: bool = False
    parameters: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    process: dict[str, Any] = field(default_factory=dict)
    heads_lead: bool = False


NVIDIA = ("edm-cifar10-", "edm-ffhq-", "edm-afhqv2-", "edm-imagenet-", "baseline-", "edm2-img")
"""What the names of NVIDIA's own files begin with; other pickles are somebody's trainings."""
IMAGENET64, LSUN256 = 295_899_267, 526_304_771
"""Parameters of the two networks of Song et al. 2023."""
LINEAR = {"name": "vp_discrete", "N": 1000, "betas": "linear"}
COSINE = {"name": "vp_discrete", "N": 1000, "betas": "cosine"}


def _of_paper() -> dict[str, Published]:
    """The twelve models of Song et al. 2023."""
    found = {}
    for data, parameters in {
        "imagenet64": IMAGENET64,
        "bedroom256": LSUN256,
        "cat256": LSUN256,
    }.items():
        for name in (f"cd_{data}_l2", f"cd_{data}_lpips", f"ct_{data}"):
            found[name] = Published(OPENAI, "MIT", consistency=True, parameters=parameters)
        found[f"edm_{data}_ema"] = Published(OPENAI, "MIT", parameters=parameters)
    return found


def _of_adm() -> dict[str, Published]:
    """ADM's diffusion models (Dhariwal & Nichol 2021), with the flags that their README gives."""
    plain: dict[str, Any] = {"time_scale": 1.0}
    new = Published(GUIDED, "MIT", parameters=IMAGENET64, settings=plain, process=COSINE)
    old = Published(GUIDED, "MIT", settings=plain, process=LINEAR, heads_lead=True)
    uncond = replace(old, parameters=ADM256_UNCOND)
    lsun = ("bedroom", "cat", "horse", "horse_nodropout")
    return {
        "64x64_diffusion": new,
        "128x128_diffusion": replace(old, parameters=ADM128, settings={**plain, "heads": 4}),
        "256x256_diffusion": replace(old, parameters=ADM256),
        "512x512_diffusion": replace(old, parameters=ADM512),
        "256x256_diffusion_uncond": uncond,
        **{f"lsun_{name}": uncond for name in lsun},
    }


ADM128, ADM256, ADM256_UNCOND, ADM512 = 421_522_691, 553_831_171, 552_807_171, 558_994_179
"""Parameters of ADM's networks (Dhariwal & Nichol 2021, Table 10, in millions)."""
DDPMPP, NCSNPP = 55_733_891, 56_397_827
"""Those of EDM's networks for CIFAR-10: 55.7 and 56.4 million (Karras et al. 2022, Table 7)."""
PICKLES = {
    "edm-cifar10-32x32-uncond-vp": DDPMPP,
    "edm-cifar10-32x32-cond-vp": DDPMPP + 1408,
    "edm-cifar10-32x32-uncond-ve": NCSNPP,
    "edm-cifar10-32x32-cond-ve": NCSNPP + 2816,
    "edm-ffhq-64x64-uncond-vp": 61_805_571,
    "edm-ffhq-64x64-uncond-ve": 62_761_091,
    "edm-afhqv2-64x64-uncond-vp": 61_805_571,
    "edm-afhqv2-64x64-uncond-ve": 62_761_091,
    "edm-imagenet-64x64-cond-adm": IMAGENET64,
    "edm2-img512-xs": 124_713_125,
    "edm2-img512-s": 280_212_709,
    "edm2-img512-m": 497_807_653,
    "edm2-img512-l": 777_497_957,
    "edm2-img512-xl": 1_119_283_621,
    "edm2-img512-xxl": 1_523_164_645,
    "edm2-img64-s": 280_209_253,
}
"""Parameters of NVIDIA's networks, by how the names of their files begin; the longest counts."""


PUBLISHED = _of_paper() | _of_adm()
"""By the name of the file, without its ending."""


def published(path: Path) -> Published | None:
    """The published model that a file is named after; None where it is none of them."""
    return PUBLISHED.get(path.stem)


def pickled(path: Path, precond: str) -> Published:
    """Where a pickle of NVIDIA's code is from, by its name and the class of its preconditioning."""
    if precond == "ECMPrecond":
        return Published(ECT, "", consistency=True)
    source = EDM2 if precond == "Precond" else EDM
    licence = NON_COMMERCIAL if path.stem.startswith(NVIDIA) else ""
    return Published(source, licence, parameters=_counted(path.stem))


def _counted(stem: str) -> int | None:
    """Parameters of the network that a file of NVIDIA's is named after."""
    fits = [name for name in PICKLES if stem == name or stem.startswith(f"{name}-")]
    return PICKLES[max(fits, key=len)] if fits else None
