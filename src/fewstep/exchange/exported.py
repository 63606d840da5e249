"""Models of ours as state dicts that other projects load.

The inverse of `fewstep.exchange.sources`: the same pairs of names, read in the other direction.
What the target cannot express is refused, with the setting that it has no place for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.exchange.files.tensors import Pair, write_tensors
from fewstep.exchange.layouts import adm, song
from fewstep.exchange.origin import licence
from fewstep.flow_map import FlowMap
from fewstep.networks import ADM, UNet


@dataclass(frozen=True)
class Exported:
    """A state dict for another project.

    Args:
        tensors: by the names that they have there.
        load: lines of Python that load it there.
        notes: what was left out or should be known, a line each.
    """

    tensors: dict[str, Tensor]
    load: tuple[str, ...]
    notes: tuple[str, ...] = ()


def settings(network: UNet | ADM) -> dict[str, Any]:
    """Every argument of a network, those that it was made without among them."""
    known = inspect.signature(type(network)).parameters
    defaults = {name: p.default for name, p in known.items() if p.default is not p.empty}
    given = {k: v for k, v in network.config.items() if k != "name"}
    return {**defaults, **given, "attention": network.attention}


def to_edm(f: FlowMap) -> Exported:
    """For ``SongUNet`` or ``DhariwalUNet`` inside ``EDMPrecond`` of NVlabs/edm.

    Raises:
        FewstepError: another network or process, or a setting that these do not have.
    """
    network = f.network
    precond, numbers = _precond(f)
    _check_map("edm", f)
    if isinstance(network, UNet):
        pairs, model, arguments = _song(network)
    elif isinstance(network, ADM):
        pairs, model, arguments = _dhariwal(network)
    else:
        raise _no_place("edm", f, "SongUNet (unet) and DhariwalUNet (adm)")
    tensors = write_tensors(pairs, f.tensors())
    tensors |= dict(_filters(network, tensors))
    size, image = network.shape[1], network.shape[0]
    written = ", ".join(f"{k}={v!r}" for k, v in {**numbers, **arguments}.items())
    return Exported(
        {f"model.{name}": x for name, x in tensors.items()},
        (
            f"from training.networks import {precond}",
            f"net = {precond}({size}, {image}, label_dim={network.num_classes}, "
            f"model_type={model!r}, {written})",
            "net.load_state_dict(torch.load(PATH, weights_only=True))",
        ),
        _left(f),
    )


def to_openai(f: FlowMap) -> Exported:
    """For ``UNetModel`` of openai/consistency_models.

    Raises:
        FewstepError: another network or process, or a setting that it does not have.
    """
    network = f.network
    if not isinstance(network, ADM):
        raise _no_place("openai", f, "UNetModel (adm)")
    _check_map("openai", f)
    s = settings(network)
    _check("openai", time_scale=(s["time_scale"], 1000.0), augment=(s["augment"], 0), **_plain(s))
    if network.channels < adm.LEAST_CHANNELS:
        raise FewstepError(
            f"openai's group norms have 32 groups, which a network of {network.channels} channels "
            f"does not: from {adm.LEAST_CHANNELS} channels on they are the same."
        )
    config = f.p.config
    _check("openai", process=(config["name"], "edm"), sigma_data=(f.p.sigma_data, 0.5))
    attended = tuple(network.shape[1] // height for height in s["attention"])
    arguments = {
        "image_size": network.shape[1],
        "in_channels": network.shape[0],
        "model_channels": s["channels"],
        "out_channels": network.shape[0],
        "num_res_blocks": s["blocks"],
        "attention_resolutions": attended,
        "channel_mult": tuple(s["multipliers"]),
        "num_classes": network.num_classes or None,
        "num_head_channels": s["head_channels"] if s["heads"] is None else -1,
        "num_heads": s["heads"] or 1,
        "use_scale_shift_norm": s["scale_shift"],
        "resblock_updown": True,
    }
    written = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    return Exported(
        write_tensors(adm.pairs_openai(network, axes=2), f.tensors()),
        (
            "from cm.unet import UNetModel",
            f"model = UNetModel({written})",
            "model.load_state_dict(torch.load(PATH, weights_only=True))",
            f"diffusion = KarrasDenoiser(distillation={f.trained.maps_to_eps}, sigma_data=0.5, "
            f"sigma_min={f.p.eps!r}, sigma_max={f.p.T!r})",
        ),
        (*["its null class is left out, and with it guidance"] * f.trained.null_class, *_left(f)),
    )


STATE_DICTS: dict[str, Callable[[FlowMap], Exported]] = {"edm": to_edm, "openai": to_openai}
"""What writes a state dict for a project, by the name of the target."""


def _plain(s: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that only our networks have, and what they must be elsewhere."""
    return {
        "two_time": (s["two_time"], False),
        "guidance_embedding": (s["guidance_embedding"], False),
        "embeds": (s["embeds"], 0),
        "double_norm": (s["double_norm"], False),
    }


def _song(network: UNet) -> tuple[Iterator[Pair], str, dict[str, Any]]:
    s = settings(network)
    _check("edm", resample=(s["resample"], "block"), **_plain(s))
    _check("edm", head_channels=(s["head_channels"], None))
    attended = [h for h, yes in zip(_heights(network), _attended(network), strict=True) if yes]
    return (
        song.pairs(network),
        "SongUNet",
        {
            "augment_dim": s["augment"],
            "model_channels": s["channels"],
            "channel_mult": list(s["multipliers"]),
            "num_blocks": s["blocks"],
            "attn_resolutions": attended,
            **_dropouts(s),
            "embedding_type": s["embedding"],
            "channel_mult_noise": 2 if s["embedding"] == "fourier" else 1,
            "encoder_type": s["encoder"],
            "decoder_type": s["decoder"],
            "resample_filter": list(s["resample_filter"]),
        },
    )


def _heights(network: UNet) -> list[int]:
    return [network.shape[1] >> level for level in range(len(network.encoder.levels))]


def _attended(network: UNet) -> list[bool]:
    names = network.state_dict()
    levels = range(len(network.encoder.levels))
    return [f"encoder.levels.{i}.0.attention.qkv.weight" in names for i in levels]


def _dhariwal(network: ADM) -> tuple[Iterator[Pair], str, dict[str, Any]]:
    s = settings(network)
    _check("edm", time_scale=(s["time_scale"], 1.0), scale_shift=(s["scale_shift"], True))
    _check("edm", heads=(s["heads"], None), head_channels=(s["head_channels"], 64), **_plain(s))
    return (
        adm.pairs_dhariwal(network),
        "DhariwalUNet",
        {
            "augment_dim": s["augment"],
            "model_channels": s["channels"],
            "channel_mult": list(s["multipliers"]),
            "num_blocks": s["blocks"],
            "attn_resolutions": list(s["attention"]),
            **_dropouts(s),
        },
    )


def _dropouts(s: dict[str, Any]) -> dict[str, float]:
    """Those of activations, and of classes, by which a network has learned to do without one."""
    return {name: s[name] for name in ("dropout", "label_dropout")}


def _filters(network: UNet | ADM, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The low-pass filters that EDM's networks store beside every layer that resamples."""
    taps = torch.tensor(settings(network).get("resample_filter", (1, 1)), dtype=torch.float32)
    kernel = (taps.outer(taps) / taps.sum() ** 2)[None, None]
    modules = {name.rsplit(".", 2)[0] for name in tensors if name.count(".") > 2}
    for module in sorted(modules):
        if module.endswith(("_down", "_up")):
            yield f"{module}.conv0.resample_filter", kernel.clone()
            yield f"{module}.skip.resample_filter", kernel.clone()
    for name in sorted(tensors):
        if name.endswith("_aux_residual.weight"):
            yield f"{name.removesuffix('weight')}resample_filter", kernel.clone()
    written = sorted(name for name in tensors if name.endswith("_aux_conv.weight"))
    sides = sorted(int(name.split(".")[1].split("x")[0]) for name in written)
    for side in sides[1:]:
        yield f"dec.{side}x{side}_aux_up.resample_filter", kernel.clone()


def _precond(f: FlowMap) -> tuple[str, dict[str, Any]]:
    """EDM's preconditioning of a model's process, and its arguments."""
    config = f.p.config
    if config["name"] == "edm" and not f.trained.maps_to_eps:
        return "EDMPrecond", {"sigma_data": f.p.sigma_data}
    if config["name"] == "edm":  # of locuslab/ect, with the shifted skip connection
        return "ECMPrecond", {"sigma_data": f.p.sigma_data, "sigma_min": f.p.eps}
    if config["name"] == "ve":
        return "VEPrecond", {"sigma_min": f.p.t_min, "sigma_max": f.p.T}
    if config["name"] == "vp":
        _check("edm", prediction=(config["prediction"], "epsilon"))
        low, high = config["beta_min"], config["beta_max"]
        numbers = {"beta_min": low, "beta_d": high - low, "epsilon_t": f.p.eps}
        return "VPPrecond", {**numbers, "M": config["time_scale"] + 1}
    raise _no_place("edm", f, "the processes edm, ve and vp")


def _left(f: FlowMap) -> tuple[str, ...]:
    """What no state dict has a place for."""
    found = []
    if f.trained.taus:
        found.append("its time points are left out")
    if names := f.trained.classes:
        found.append(f"the names of its {len(names)} classes are left out")
    if (named := licence(f.info)) is not None:
        found.append(f"its weights are under {named}")
    return tuple(found)


def _check(target: str, **values: tuple[Any, Any]) -> None:
    """Raise `FewstepError` for a setting that a target has no place for."""
    for name, (mine, theirs) in values.items():
        if mine != theirs:
            raise FewstepError(
                f"this model has {name}={mine!r}, and {target} knows {name}={theirs!r} alone: it "
                "cannot be exported there."
            )


def _check_map(target: str, f: FlowMap) -> None:
    """Raise `FewstepError` for a model that is more, or another map, than a network and its EDM."""
    latents = None if f.latents is None else f.latents.autoencoder.config["name"]
    _check(target, latents=(latents, None))
    if f.trained.maps_to_eps:
        _check(target, process=(f.p.config["name"], "edm"), form=(f.p.form, "shifted"))
    _check_not_filled(target, f)


def _check_not_filled(target: str, f: FlowMap) -> None:
    """Raise `FewstepError` for a network that fills up its images, which others' do not."""
    if f.network.computed != f.network.shape:
        sizes = (f"{s[2]}x{s[1]}" for s in (f.network.shape, f.network.computed))
        raise FewstepError(
            f"this model's network fills images of {' up to '.join(sizes)} inside, which those of "
            f"{target} do not: it cannot be exported there."
        )


def _no_place(target: str, f: FlowMap, known: str) -> FewstepError:
    return FewstepError(
        f"{target} has no place for the network {f.network.config['name']} in the process "
        f"{f.p.config['name']}: it knows {known}."
    )
