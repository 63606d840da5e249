"""Which files of a repository are a model: its weights once, and what describes them.

A repository often holds the same weights in several formats and types, and parts that no sampler
needs. Fetched are the weights that a folder of the same files would be read from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from fewstep.errors import FewstepError, listed
from fewstep.exchange.files.weights import (
    INDEX,
    OfDiffusers,
    is_shard,
    may_be_model,
    of_diffusers,
    whole,
)
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
        FewstepError: nothing is there that could be a model, several models, one of several shards,
            or a model of another kind, such as one of language.
    """
    if inside in files:
        _check_whole(inside, shown)
        return _of_file(inside, files)
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
    weights = [f for f in files if may_be_model(f) and "/" not in f]
    if len(weights) == 1:
        return _of_file(weights[0], files)
    raise FewstepError(_unclear(files, weights, shown))


def _of_file(file: str, files: Sequence[str]) -> Pick:
    """One file; an index with its shards."""
    shards = [f for f in files if is_shard(f) and whole(f) == whole(file)]
    return Pick((file, *(shards if file.endswith(INDEX) else ())), file)


def _check_whole(file: str, shown: str) -> None:
    """Raise `FewstepError` for one of several shards, before it is fetched."""
    if is_shard(file):
        raise FewstepError(
            f"{shown} is one of several shards of a model: name the index of all, ...{INDEX}."
        )


def _unclear(files: Sequence[str], weights: Sequence[str], shown: str) -> str:
    name, at, revision = shown.partition("@")
    deeper = weights or [file for file in files if may_be_model(PurePosixPath(file).name)]
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
    """The weights among the files of one folder, as a folder on this machine is read."""
    names = {PurePosixPath(file).name: file for file in files}
    found = of_diffusers(names)
    if found is None:
        return []
    return [file for name, file in names.items() if name == found.name or _within(found, name)]


def _within(found: OfDiffusers, name: str) -> bool:
    return found.indexed and found.holds(name)


def _seems(config: Mapping[str, Any]) -> str:
    """What a configuration of another library says that it is."""
    named = config.get("architectures")
    kind = listed(named) if isinstance(named, list) and named else config.get("model_type")
    return f"it seems to be {kind} of transformers"
