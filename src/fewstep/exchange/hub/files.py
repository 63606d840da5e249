"""Which files of a repository are a model: its weights once, and what describes them.

A repository often holds the same weights in several formats and types, and parts that no sampler
needs. Fetched are safetensors before pickles, and the type that the authors trained in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from fewstep.errors import FewstepError, listed
from fewstep.files import RECORD

DESCRIPTIONS = (
    "README.md",
    "LICENSE*",
    "model_index.json",
    "config.json",
    "*/config.json",
    "*_config.json",
    "*.index.json",
    RECORD,
    "taus.json",
)
"""Small files that say what the others are."""
MODEL = "model.safetensors"
FOREIGN = (".safetensors", ".pkl", ".pt", ".pth")
FORMATS = (".safetensors", ".bin")  # of diffusers, best first
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema|[a-z]*int8)(?=[-.])")
NOT_SAMPLED = ("safety_checker", "feature_extractor", "image_processor")
"""Parts of a pipeline that no image is made with."""


@dataclass(frozen=True)
class Pick:
    """What is fetched of a repository.

    Args:
        files: with the weights.
        inside: the file or folder that is the model; "" for the whole repository.
    """

    files: tuple[str, ...]
    inside: str = ""


def is_like(file: str, patterns: Iterable[str]) -> bool:
    """Whether a file has a name of one of the patterns."""
    return any(fnmatchcase(file, pattern) for pattern in patterns)


def chosen(files: Sequence[str], inside: str, config: Mapping[str, Any], shown: str) -> Pick:
    """The model among the files of a repository.

    Args:
        files: all names.
        inside: the file or folder that is asked for; "" for the whole repository.
        config: what its config.json says; nothing where there is none.
        shown: the repository's name, for messages.

    Raises:
        FewstepError: nothing is there that could be a model, several models, or one of another
            kind, such as a model of language.
    """
    if inside in files:
        return Pick((inside,), inside)
    below = f"{inside}/" if inside else ""
    within = [file.removeprefix(below) for file in files if file.startswith(below)]
    if not within:
        raise FewstepError(f"{shown}: there is no {inside!r} in it, but {listed(files)}.")
    pick = _of_folder(within, config, shown)
    return Pick(
        tuple(below + file for file in pick.files), "/".join(filter(None, (inside, pick.inside)))
    )


def _of_folder(files: Sequence[str], config: Mapping[str, Any], shown: str) -> Pick:
    if "model_index.json" in files or "_class_name" in config:
        return Pick(tuple(_of_diffusers(files)))
    if "architectures" in config or "model_type" in config:
        raise FewstepError(f"{shown} is no model of images that is known: {_seems(config)}.")
    if RECORD in files and MODEL not in files:  # a run folder with its checkpoints
        return Pick(tuple(file for file in files if file.startswith("checkpoints/")))
    if MODEL in files:
        return Pick((MODEL,))
    weights = [f for f in files if f.endswith(FOREIGN) and "/" not in f]
    if len(weights) == 1:
        return Pick((weights[0],), weights[0])
    raise FewstepError(_unclear(files, weights, shown))


def _unclear(files: Sequence[str], weights: Sequence[str], shown: str) -> str:
    name, at, revision = shown.partition("@")
    deeper = weights or [file for file in files if file.endswith(FOREIGN)]
    if deeper:
        return (
            f"{shown} holds several models ({listed(deeper)}): name one, {name}/FILE{at}{revision}."
        )
    return f"{shown} holds no weights that can be read, but {listed(files) or 'nothing'}."


def _of_diffusers(files: Sequence[str]) -> list[str]:
    """The weights of each part of a pipeline, once."""
    found: list[str] = []
    for folder in sorted({str(PurePosixPath(file).parent) for file in files}):
        parts = PurePosixPath(folder).parts
        if parts and parts[0] in NOT_SAMPLED:
            continue
        here = [file for file in files if str(PurePosixPath(file).parent) == folder]
        found += _once(here)
        found += [f for f in here if f.endswith((".json", ".txt", ".model"))]
    return found


def _once(files: Sequence[str]) -> list[str]:
    """The weights among the files of one folder in the best format, in the type of the training."""
    for ending in FORMATS:
        weights = [f for f in files if f.endswith(ending)]
        plain = [f for f in weights if not _VARIANT.search(PurePosixPath(f).name)]
        if found := plain or weights:
            first = min({_whole(f) for f in found}, key=_rank)
            return [f for f in found if _whole(f) == first]
    return []


def _whole(file: str) -> str:
    """The name of weights, without which of several files it is."""
    return _SHARD.sub("", PurePosixPath(file).name)


def _rank(name: str) -> tuple[bool, int, str]:
    return not name.startswith("diffusion_"), len(name), name


def _seems(config: Mapping[str, Any]) -> str:
    """What a configuration of another library says that it is."""
    named = config.get("architectures")
    kind = listed(named) if isinstance(named, list) and named else config.get("model_type")
    return f"it seems to be {kind} of transformers"
