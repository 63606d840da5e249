"""What is in a folder of diffusers: its parts, their settings and their weights.

Nothing in it is run: ``.safetensors`` holds tensors alone, ``.bin`` is read with ``weights_only``,
and a part of another library than diffusers is not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.digest import sha256_of
from fewstep.errors import FewstepError, listed
from fewstep.exchange.files.checkpoint import read_shard
from fewstep.exchange.files.weights import STEM, OfDiffusers, of_diffusers
from fewstep.files import read_json
from fewstep.networks.diffusers.old_names import todays_names

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
DENOISERS = ("unet", "transformer")
"""What pipelines call their network."""
AUTOENCODERS = ("vae", "vqvae", "movq")
"""What they call an autoencoder."""
OF_AVERAGES = (
    "decay",
    "min_decay",
    "optimization_step",
    "update_after_step",
    "use_ema_warmup",
    "inv_gamma",
    "power",
    "model_cls",
    "shadow_params",
)
"""Settings of a running average, which diffusers' training notes beside those of the network."""


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of diffusers: a pipeline, one network, or a training's."""
    if not path.is_dir():
        return False
    pipeline = (path / INDEX).is_file()
    return pipeline or _says_class(path / CONFIG) or next(_trained(path), None) is not None


def _says_class(config: Path) -> bool:
    try:
        return config.is_file() and '"_class_name"' in config.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _trained(folder: Path) -> Iterator[str]:
    """The networks inside a checkpoint of diffusers' training scripts, its average first."""
    for name in DENOISERS:
        for inner in (f"{name}_ema", f"ema_{name}", name):
            if _says_class(folder / inner / CONFIG):
                yield inner


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FewstepError: the file is not there, damaged, or holds something else.
    """
    if not path.is_file():
        raise FewstepError(f"there is no {path}: copy the folder whole.")

    def checked(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise FewstepError("it holds no settings.")
        return value

    return read_json(path, checked, "a JSON file of diffusers")


@dataclass(frozen=True)
class Part:
    """One network of a folder.

    Args:
        folder: with its ``config.json`` and weights.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its settings."""
        return read_object(self.folder / CONFIG)

    @property
    def module(self) -> str:
        """Name of its class, as it is called today."""
        name = str(self.config.get("_class_name"))
        dit = name == "Transformer2DModel" and self.config.get("norm_type") == "ada_norm_zero"
        return "DiTTransformer2DModel" if dit else name

    @cached_property
    def _found(self) -> OfDiffusers:
        """The file of its weights, or of their index, in the best format and type."""
        there = sorted(path.name for path in self.folder.iterdir() if path.is_file())
        found = of_diffusers(there)
        if found is None:
            raise FewstepError(
                f"{self.folder} has no weights: {STEM}.safetensors or .bin. It holds "
                f"{listed(there) or 'nothing'}."
            )
        return found

    @property
    def variant(self) -> str | None:
        """Which of several kinds of its weights is read, such as fp16; None for the plain ones."""
        return self._found.variant

    @cached_property
    def files(self) -> list[Path]:
        """The files of its weights.

        Raises:
            FewstepError: there are none, or one of several is missing.
        """
        path = self.folder / self._found.name
        if not self._found.indexed:
            return [path]
        shards = read_object(path).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise FewstepError(f"{path} names no files (weight_map): copy it again.")
        names = sorted({str(name) for name in shards.values()})
        for name in names:
            if Path(name).name != name or not (self.folder / name).is_file():
                raise FewstepError(
                    f"{self.folder} lacks {name}, one of {len(names)} files of its weights: copy "
                    "it there as well."
                )
        return [self.folder / name for name in names]

    def tensors(self) -> dict[str, Tensor]:
        """Its weights, in the type that they have; in the widest where there are several."""
        found: dict[str, Tensor] = {}
        for path in self.files:
            found |= read_shard(path).tensors
        widest = reduce(torch.promote_types, {x.dtype for x in found.values()})
        return todays_names({name: x.to(widest) for name, x in found.items()})

    @cached_property
    def sha256(self) -> str:
        """Hash of its file of weights; of several files, of their names and hashes."""
        if len(self.files) == 1:
            return sha256_of(self.files[0])
        lines = "".join(f"{path.name} {sha256_of(path)}\n" for path in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Folder:
    """A pipeline, or a network by itself.

    Args:
        path: of the folder.
        kind: the pipeline's class; "" for a network by itself.
        denoiser: the network; None of an autoencoder by itself.
        autoencoder: the latent space of the network, or the autoencoder by itself.
        scheduler: file of the scheduler's settings; None where there is none.
        classes: names of its classes, by their numbers.
        notes: what was chosen, a line each.
    """

    path: Path
    kind: str = ""
    denoiser: Part | None = None
    autoencoder: Part | None = None
    scheduler: Path | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_folder(path: Path, known: Mapping[str, bool]) -> Folder:
    """What is in a folder.

    Args:
        path: of it.
        known: the classes of networks, and whether each is an autoencoder.

    Raises:
        FewstepError: a pipeline or a network that is not known; a damaged description.
    """
    if (path / INDEX).is_file():
        return _pipeline(path, known)
    inner = next(_trained(path), None) if not (path / CONFIG).is_file() else ""
    part = Part(path / inner) if inner else Part(path)
    _check_known(part, known)
    if known[part.module]:
        return Folder(path, autoencoder=part)
    places = [path / SCHEDULER, path / "scheduler" / SCHEDULER]
    places += [part.folder.parent / "scheduler" / SCHEDULER]
    scheduler = next((place for place in places if place.is_file()), None)
    notes = (f"its weights are those of {inner}",) if inner else ()
    return Folder(path, denoiser=part, scheduler=scheduler, notes=notes)


def _check_known(part: Part, known: Mapping[str, bool]) -> None:
    if part.module not in known:
        raise FewstepError(
            f"{part.folder} is diffusers' {part.module}, which is not known here: {listed(known)}."
        )


def _pipeline(path: Path, known: Mapping[str, bool]) -> Folder:
    index = read_object(path / INDEX)
    kind = index.get("_class_name")
    parts = {
        name: tuple(value)
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
    }
    _check_pipeline(path, kind, parts)
    name = next(name for name in DENOISERS if name in parts)
    average = next((n for n in (f"{name}_ema", f"ema_{name}") if (path / n).is_dir()), None)
    denoiser = Part(path / average) if average else _part(path, name)
    notes = (f"its weights are the average {average}; {name} has the raw ones",) * bool(average)
    space = next((name for name in AUTOENCODERS if name in parts), None)
    autoencoder = None if space is None else _part(path, space)
    for part in filter(None, (denoiser, autoencoder)):
        _check_known(part, known)
    places = (path / "scheduler" / SCHEDULER, path / SCHEDULER)
    return Folder(
        path,
        str(kind),
        denoiser,
        autoencoder,
        next((place for place in places if place.is_file()), None),
        _classes(index.get("id2label")),
        notes,
    )


def _part(path: Path, name: str) -> Part:
    """A part in the folder of its name, or in the pipeline's own, where early ones kept it."""
    return Part(path / name if (path / name).is_dir() else path)


PIPELINES = (
    "DDPMPipeline",
    "DDIMPipeline",
    "PNDMPipeline",
    "ConsistencyModelPipeline",
    "DiTPipeline",
    "LDMPipeline",
    "ScoreSdeVePipeline",
    "KarrasVePipeline",
)
"""Those that ask a network, perhaps in a latent space, and tell it a class at most."""
TEXT = ("text_encoder", "tokenizer", "prior_text_encoder", "prior_prior", "bert")


def _check_pipeline(path: Path, kind: object, parts: Mapping[str, tuple[str, ...]]) -> None:
    """Raise `FewstepError` unless a sampler here can be in the place of a pipeline."""
    shown = kind if isinstance(kind, str) else f"a pipeline with code of its own, {kind!r:.60}"
    there = listed(f"{name}: {cls}" for name, (_, cls) in parts.items()) or "nothing"
    works = f"Pipelines that work: {', '.join(PIPELINES[:6])}"
    denoiser = next((name for name in DENOISERS if name in parts), None)
    if any(name in parts for name in TEXT):
        raise FewstepError(
            f"{path} is {shown}, which makes images of a text ({there}): that cannot be told here "
            f"yet. {works}."
        )
    if kind not in PIPELINES or denoiser is None:
        alone = f", or one network alone: {path / denoiser}" if denoiser else ""
        raise FewstepError(f"{path} is {shown}, which is not known ({there}). {works}{alone}.")
    if parts[denoiser][0] != "diffusers":
        raise FewstepError(
            f"the {denoiser} of {path} is {'.'.join(parts[denoiser])}, which is no network of "
            "diffusers, and no code of others is run."
        )


def _classes(labels: object) -> tuple[str, ...]:
    """The names of classes by their numbers; none where two have one name."""
    if not isinstance(labels, dict) or not all(str(n).isdigit() for n in labels):
        return ()
    names = tuple(str(labels[n]) for n in sorted(labels, key=int))
    return names if len(set(names)) == len(names) else ()
