"""A model as a folder that a pipeline of diffusers loads.

A network that diffusers has, in a process that one of its pipelines walks, becomes that pipeline:

- a consistency model of EDM's process with ADM's U-Net: ``ConsistencyModelPipeline``;
- a diffusion model of DDPM's chain with ADM's U-Net and no classes: ``DDIMPipeline``;
- a network of diffusers itself, in the process that it came with: the pipeline that it came from.

Everything else becomes a pipeline of this package (`fewstep.exchange.diffusers.pipeline`), in a
folder whose code imports it. The files are written without diffusers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.errors import FewstepError, refusals
from fewstep.exchange.card import card, write_card
from fewstep.exchange.diffusers import names as diffusers_names
from fewstep.exchange.diffusers.back import returned, wrapped
from fewstep.exchange.diffusers.parts import Part, Pipeline
from fewstep.exchange.origin import licences
from fewstep.files import replacing, write_json, write_tensors
from fewstep.flow_map import FlowMap
from fewstep.networks import ADM
from fewstep.networks.diffusers.network import DiffusersNetwork
from fewstep.sampling import default_taus
from fewstep.version import __version__

VERSION = "0.30.0"
"""Of diffusers, whose formats the files have."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Where a component keeps its weights; the hub's downloads look for this name."""
CONFIGS = {"scheduler": "scheduler_config.json"}
INDEX = "model_index.json"
MADE_BY = "_fewstep_version"
"""Key of the index that tells an export from other pipelines."""
RHO = 7.0
POINTS = 1 + 2520 * 400
"""Points of the grid of times. ``N`` steps fall on Karras' times for every ``N`` that divides 2520,
1 to 10 among them, and any other time is within 2e-6 of a point."""
NEAR = 2e-5
BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
"""What a network predicts, as diffusers' schedulers call it."""


@dataclass(frozen=True)
class WrittenPipeline:
    """A pipeline's folder.

    Args:
        kind: class of the pipeline.
        load: lines of Python that load and sample it.
        notes: what was left out or should be known, a line each.
        difference: the largest of an image's numbers from this package's; None where it was not
            looked at.
    """

    kind: str
    load: tuple[str, ...]
    notes: tuple[str, ...] = ()
    difference: float | None = None


@refusals()
def write_pipeline(f: FlowMap, folder: Path) -> WrittenPipeline:
    """Write a model as a pipeline's folder.

    Raises:
        FewstepError: the folder holds something else, or cannot be written; a model whose points
            are no images.
    """
    if len(f.image_shape) != 3:
        raise FewstepError(
            f"a pipeline of diffusers makes images, and this model points of {list(f.image_shape)}."
        )
    make_room(folder)
    try:
        pipeline = counterpart(f)
    except FewstepError as reason:
        written = _write_own(f, folder, str(reason))
    else:
        written = _write_theirs(f, pipeline, folder)
    write_card(folder, _card(f, folder, written))
    terms = [f"its weights are under {licence}" for licence in licences(f.info)]
    return replace(written, notes=(*written.notes, *terms))


def _card(f: FlowMap, folder: Path, written: WrittenPipeline) -> str:
    """The folder's README.md, with licence and origin."""
    lines = [line.replace("FOLDER", repr(folder.name)) for line in written.load]
    use = "\n".join(["```python", *lines, "```"])
    return card(f, title=folder.name, use=use, library="diffusers")


def make_room(folder: Path) -> None:
    """Remove the pipeline that an earlier export left in a folder.

    Raises:
        FewstepError: the folder holds anything else.
    """
    if folder.is_file():
        raise FewstepError(f"{folder} is a file, and a pipeline is a folder: give another name.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if MADE_BY not in _index(folder):
        raise FewstepError(f"{folder} holds something else than an export: give another folder.")
    (folder / INDEX).unlink()
    for name in WRITTEN:
        (folder / name).unlink(missing_ok=True)


def _index(folder: Path) -> dict[str, Any]:
    """What the index of a pipeline's folder holds; nothing where there is none."""
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# diffusers' own pipelines


def counterpart(f: FlowMap) -> Pipeline:
    """The pipeline of diffusers that a model is.

    Raises:
        FewstepError: there is none; the message says what it has no place for.
    """
    if (came := returned(f)) is not None:
        return came
    if f.latents is not None:
        raise FewstepError("it has no pipeline of this kind with an autoencoder")
    network, name = f.network, f.network.config["name"]
    if isinstance(network, ADM):
        _check_is("embeds", network.embeds, 0)
        _check_is("shape", network.shape, network.computed)  # no images filled up inside
        unet = Part("diffusers", "UNet2DModel", diffusers_names.settings(network), _weights(f))
    elif isinstance(network, DiffusersNetwork) and network.module == "UNet2DModel":
        unet = wrapped(network)
    else:
        raise FewstepError(f"it has no network like {name}, and its UNet2DModel is adm alone")
    kind, scheduler, notes, sampler = (_consistency if f.trained.maps_to_eps else _diffusion)(f)
    calls = _calls(f) if sampler is None else ("num_inference_steps=50",)
    parts = {"unet": unet, "scheduler": scheduler}
    return Pipeline(kind, parts, calls, (*notes, *_left(f)), sampler)


def _weights(f: FlowMap) -> dict[str, Tensor]:
    assert isinstance(f.network, ADM)
    return diffusers_names.tensors(f.network, f.tensors())


Sampled = tuple[str, Part, tuple[str, ...], str | None]
"""Class of a pipeline, its scheduler, notes, and the sampler of ours that is the same."""


def _consistency(f: FlowMap) -> Sampled:
    """`Jumps` of a consistency function, as ``CMStochasticIterativeScheduler`` makes them."""
    trained, p = f.trained, f.p
    if trained.maps_to_any or not trained.from_any_time or trained.steps is not None:
        raise FewstepError(
            f"its ConsistencyModelPipeline samples no {trained.name.split(' ', 1)[1]}"
        )
    _check_is("process", p.config["name"], "edm")
    _check_is("form", p.form, "shifted")
    _check_is("time_scale", f.network.time_scale, 1000.0)
    config = {
        "num_train_timesteps": POINTS,
        "sigma_min": p.eps,
        "sigma_max": p.T,
        "sigma_data": p.sigma_data,
        "s_noise": 1.0,
        "rho": RHO,
        "clip_denoised": False,
    }
    scheduler = Part("diffusers", "CMStochasticIterativeScheduler", config)
    return "ConsistencyModelPipeline", scheduler, (), None


def _diffusion(f: FlowMap) -> Sampled:
    """The DDIM steps of DDPM's chain."""
    p, config = f.p, f.p.config
    if f.num_classes:
        raise FewstepError("its DDIMPipeline takes no classes")
    if not f.trained.denoises:
        raise FewstepError(f"its DDIMPipeline samples no {f.trained.name.split(' ', 1)[1]}")
    _check_is("process", config["name"], "vp_discrete")
    _check_is("T", p.T, 1.0)
    if config["prediction"] not in PREDICTIONS:
        raise FewstepError(f"its schedulers know no prediction={config['prediction']!r}")
    steps = config["N"]
    scale = config["time_scale"] * f.network.time_scale
    _check_is("time_scale (of process and network)", scale, float(steps - 1))
    scheduler = {
        "num_train_timesteps": steps,
        "beta_schedule": BETAS.get(config["betas"], "linear"),
        "trained_betas": config.get("given"),
        "beta_start": config["beta_1"],
        "beta_end": config["beta_N"],
        "prediction_type": PREDICTIONS[config["prediction"]],
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing",
    }
    note = (
        "its DDIM steps are those of walk(solver=ddim, grid=flow, steps=N) here, for N that "
        f"divides {steps}; DDPM's are at eta=1"
    )
    part = Part("diffusers", "DDIMScheduler", scheduler)
    return "DDIMPipeline", part, (note,), "walk(solver=ddim, grid=flow)"


def _check_is(name: str, mine: object, theirs: object) -> None:
    """Raise `FewstepError` for a setting that a pipeline has no place for."""
    if mine != theirs:
        raise FewstepError(
            f"its pipeline for this network knows {name}={theirs!r} alone, not {mine!r}"
        )


# Times


def place_of(t: float, f: FlowMap) -> int:
    """The point of the scheduler's grid nearest to a time, counted from ``T``."""
    first, last = f.p.T ** (1 / RHO), f.p.eps ** (1 / RHO)
    return round((POINTS - 1) * (first - t ** (1 / RHO)) / (first - last))


def _time_at(place: int, f: FlowMap) -> float:
    first, last = f.p.T ** (1 / RHO), f.p.eps ** (1 / RHO)
    return (first + place / (POINTS - 1) * (last - first)) ** RHO


def timesteps(f: FlowMap, steps: int) -> list[int]:
    """The argument ``timesteps`` with which its pipeline jumps from a model's own times."""
    return [*(place_of(t, f) for t in reversed(default_taus(f, steps))), 0]


def call_for(f: FlowMap, steps: int) -> str:
    """The argument of a pipeline for so many jumps at a model's own times."""
    even = [_time_at(i * (POINTS // steps), f) for i in range(1, steps)]
    near = zip(even, default_taus(f, steps), strict=True)
    if all(abs(mine - own) <= NEAR * own for mine, own in near):
        return f"num_inference_steps={steps}"
    return f"num_inference_steps=None, timesteps={timesteps(f, steps)}"


def _calls(f: FlowMap) -> tuple[str, ...]:
    """Of the numbers of steps that a model has points for, and of one and two."""
    return tuple(call_for(f, n) for n in sorted({1, 2, *map(int, f.trained.taus)}))


def _left(f: FlowMap) -> Iterator[str]:
    """What a pipeline has no place for."""
    if names := f.trained.classes:
        yield f"the names of its {len(names)} classes are left out: classes are numbers there"
    if f.trained.null_class:
        yield "its null class is left out, and with it guidance"


# Folders


def _write_theirs(f: FlowMap, pipeline: Pipeline, folder: Path) -> WrittenPipeline:
    _write(pipeline.kind, pipeline.parts, folder, pipeline.more)
    label = f", class_labels=[0, {f.num_classes - 1}]" if f.num_classes else ""
    count = "batch_size=2, " if label else "batch_size=16, "
    if "transformer" in pipeline.parts:  # whose pipeline counts the classes
        count = ""
    calls = [f"images = pipe({count}{call}{label}).images" for call in pipeline.calls]
    load = (
        f"from diffusers import {pipeline.kind}",
        f"pipe = {pipeline.kind}.from_pretrained(FOLDER)",
        *calls,
    )
    from fewstep.exchange.diffusers.check import difference

    different = None if pipeline.came else difference(f, pipeline, folder)
    return WrittenPipeline(pipeline.kind, load, pipeline.notes, different)


def _write(
    kind: str | list[str],
    parts: Mapping[str, Part],
    folder: Path,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Every file of a pipeline, the index last: a folder without it is none."""
    for name, part in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        config = {"_class_name": part.kind, "_diffusers_version": VERSION, **part.config}
        write_json(folder / name / CONFIGS.get(name, "config.json"), config)
        if part.tensors is not None:
            tensors = {key: x.detach().contiguous() for key, x in part.tensors.items()}
            with replacing(folder / name / WEIGHTS) as partial:
                write_tensors(partial, tensors, {"format": "pt"})
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": VERSION}
    index |= {MADE_BY: __version__, **(more or {})}
    index |= {name: [part.library, part.kind] for name, part in parts.items()}
    write_json(folder / INDEX, index)


NETWORKS = ("unet", "transformer", "vae", "vqvae", "movq", "model")
WRITTEN = (
    "pipeline.py",
    "README.md",
    "scheduler/scheduler_config.json",
    *(f"{part}/{name}" for part in NETWORKS for name in ("config.json", WEIGHTS)),
    "model/fewstep_model.py",
)
"""All files that an export may leave beside the index."""
OWN_PIPELINE, OWN_MODEL = "FewstepPipeline", "FewstepModel"
CODE = '''"""{what} of the package fewstep (pip install fewstep)."""

from fewstep.exchange.diffusers.pipeline import {name}

__all__ = ["{name}"]
'''
"""Of folders that others keep: the module that it imports stays where it is."""


def _write_own(f: FlowMap, folder: Path, reason: str) -> WrittenPipeline:
    """A pipeline whose code imports this package."""
    inside = folder / "model"
    inside.mkdir(parents=True, exist_ok=True)
    for path, what, name in (
        (folder / "pipeline.py", "The pipeline", OWN_PIPELINE),
        (inside / "fewstep_model.py", "The model", OWN_MODEL),
    ):
        with replacing(path) as partial:
            partial.write_text(CODE.format(what=what, name=name), encoding="utf-8")
    f.save(inside / WEIGHTS)
    _write(["pipeline", OWN_PIPELINE], {"model": Part("fewstep_model", OWN_MODEL, {})}, folder)
    label = ", class_labels=0" if f.num_classes else ""
    scale = ", guidance_scale=2.0" if f.trained.guides else ""
    return WrittenPipeline(
        OWN_PIPELINE,
        (
            "from diffusers import DiffusionPipeline",
            "pipe = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)",
            f"images = pipe(batch_size=16, num_inference_steps={f.trained.default_steps}"
            f"{label}{scale}).images",
        ),
        (
            f"diffusers has no pipeline for this model: {reason}. The folder's own code imports "
            "fewstep, which has to be installed where it is loaded",
        ),
    )


def own_weights(folder: Path) -> Path | None:
    """The model file in a folder with a pipeline of this package; None in any other folder."""
    own = OWN_PIPELINE in (_index(folder).get("_class_name") or ())
    return folder / "model" / WEIGHTS if own else None
