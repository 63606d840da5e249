"""What models and records say, without the folders of the machine that they were made on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fewstep.hub_name import is_hub
from fewstep.runs.run import COMPANIONS

PLACES = (*COMPANIONS, "path", "encoder", "embeddings", "target", "reference")
"""Keys of values that name files and folders, which need not be absolute."""
_FOLDERS = re.compile(
    r"(?<![\w.:/\\~)\]*+-])(?:file://)?"  # neither in a word, an address, a name nor a formula
    r"(?:~[\w-]*|[A-Za-z]:|\.{1,2})?[\\/](?=\S)"
    r"(?:[^,;:=()\[\]{}<>|'\"\n]*[\\/])?"
)
"""The folders of a path within a text, such as an argument of a spec."""


def without_folders(value: Any, key: str = "") -> Any:
    """A JSON value in which of every path its last part is left; tuples become lists.

    Paths are the values of `PLACES`, and whatever in another text is absolute or begins with a
    point or ``~``. Names of the hub, addresses and names such as ``digits/cd`` stay.

    Args:
        value: of a model's `info`, a record or scores.
        key: that it stands under.
    """
    if isinstance(value, Mapping):
        return {name: without_folders(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    return last_part(value) if key in PLACES else _FOLDERS.sub("", value)


def last_part(place: str) -> str:
    """A name of the hub as it is, and of a path the last part."""
    return place if is_hub(place) else PurePath(place).name
