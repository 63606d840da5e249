"""Tensors in a file that says whether it is whole: what evaluation keeps and reads back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.digest import sha256_of_weights
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.files import SHAPELESS, replacing, write_tensors

NOTE, CHECK = "note", "sha256"


def write_checked(
    path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None
) -> None:
    """Write a safetensors file with a note and a checksum of both.

    Raises:
        OSError, SafetensorError: the place is not writable, or full.
    """
    text = json.dumps(note or {})
    metadata = {NOTE: text, CHECK: sha256_of_weights(text, tensors)}
    with replacing(path) as partial:
        write_tensors(partial, tensors, metadata)


def read_checked(path: Path, *, foreign: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the note of a safetensors file.

    Args:
        path: the file.
        foreign: also take a file without a checksum, which others have written.

    Raises:
        FewstepError: no such file, or a damaged one.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = metadata.get(NOTE, "{}")
        known = metadata.get(CHECK)
        if known != sha256_of_weights(text, tensors) and not (foreign and known is None):
            raise FewstepError("it does not match its checksum")
        note = json.loads(text)
        if not isinstance(note, dict):
            raise FewstepError("its note is of another form")
    except (SafetensorError, *SHAPELESS) as error:
        raise FewstepError(f"cannot read {path}: {error}.") from error
    return tensors, note


def warn_damaged(path: Path, what: str) -> None:
    """Say that something kept is damaged, and made anew."""
    warnings.warn(f"{path} is damaged: the {what} is made anew.", FewstepWarning, stacklevel=3)
