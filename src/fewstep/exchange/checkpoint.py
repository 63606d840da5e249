"""Files of weights from other projects: what is in them, whatever they were written with.

Nothing in a file is run: ``.pt`` is read by torch with ``weights_only``, safetensors holds tensors
alone, and the pickles of NVIDIA's code go through `fewstep.exchange.pickles`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep import model_file
from fewstep.digest import sha256_of
from fewstep.errors import FewstepError, listed
from fewstep.exchange.pickles import Record, read_pickle
from fewstep.model_file import check_is_file

FIRST = ("ema", "model_ema", "ema_model", "net", "model", "state_dict", "module")
"""Under which name a file with several parts keeps the weights to use, best first."""
WEIGHTS = (b"PK\x03\x04", b"\x80\x02")  # what torch.save and pickle begin with
OTHERS = {start: what for start, what in model_file.OTHERS.items() if start not in WEIGHTS}
"""What files without weights begin with, and what they are."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")


@dataclass(frozen=True)
class Checkpoint:
    """The weights of another project's file.

    Args:
        path: of the file.
        tensors: by the names that they have there.
        network: the object that they were pickled in; None for a plain state dict.
        part: which part of the file they are; empty for all of it.
        left: the other parts.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    network: Record | None = None
    part: str = ""
    left: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal."""
        return sha256_of(self.path)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(x.numel() for x in self.tensors.values())


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights of a ``.pt``, ``.pth``, ``.safetensors`` or ``.pkl`` file.

    Raises:
        FewstepError: it is something else, damaged, one of several shards, or calls code.
    """
    if path.is_file() and _SHARD.search(path.name):
        raise FewstepError(
            f"{path} is one of several shards of a model: give the folder that holds all of them."
        )
    return read_shard(path)


def read_shard(path: Path) -> Checkpoint:
    """As `read_checkpoint`, of a file that may hold a part of a model's weights."""
    check_is_file(path, OTHERS)
    with path.open("rb") as file:
        start = file.read(16)
    for known, read in READERS:
        if known(start):
            return _chosen(path, read(path))
    raise FewstepError(
        f"{path} holds no weights that can be read: give a .pt, .pth, .safetensors or .pkl file."
    )


def is_foreign(path: Path) -> bool:
    """Whether a file holds weights of another project, as far as its beginning tells."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        return not _is_ours(path)
    return any(known(start) for known, _ in READERS)


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(str(path), framework="pt") as file:
            return model_file.HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True  # damaged: our own reader says so


def _read_zip(path: Path) -> Any:
    """What `torch.save` wrote, without running anything."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        what = f"it calls {found[1]}" if found else "it holds more than weights"
        raise FewstepError(
            f"{path} is refused: {what}. Only weights are read, and nothing in it was run. Save "
            "the state dict alone: torch.save(model.state_dict(), ...)."
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise FewstepError(f"cannot read {path}: {_short(error)}. Copy it again.") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            if model_file.HEADER in (file.metadata() or {}):
                raise FewstepError(f"{path} is a model of fewstep already: nothing to import.")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FewstepError(f"cannot read {path}: {_short(error)}. Copy it again.") from error


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:200]


READERS: tuple[tuple[Callable[[bytes], bool], Callable[[Path], Any]], ...] = (
    (lambda start: start.startswith(b"PK\x03\x04"), _read_zip),
    (lambda start: start[8:9] == b"{", _read_safetensors),
    (lambda start: start[:1] == b"\x80", read_pickle),
)
"""How a file begins, and what reads it."""


def _chosen(path: Path, content: Any) -> Checkpoint:
    """The weights among what a file holds.

    Raises:
        FewstepError: there are none.
    """
    if isinstance(content, Record):
        return Checkpoint(path, dict(content.tensors()), content)
    if _is_weights(content):
        return Checkpoint(path, _plain(content))
    if isinstance(content, Mapping):
        parts = {str(name): part for name, part in content.items() if _is_part(part)}
        named = [name for name in FIRST if name in parts] or list(parts)
        if named:
            chosen, left = parts[named[0]], tuple(name for name in parts if name != named[0])
            inner = _chosen(path, chosen)
            return Checkpoint(path, inner.tensors, inner.network, named[0], left)
        raise FewstepError(f"{path} holds no weights, but {listed(content) or 'nothing'}.")
    raise FewstepError(f"{path} holds no weights, but a {type(content).__name__}.")


def _is_part(value: Any) -> bool:
    network = isinstance(value, Record) and any(True for _ in value.tensors())
    return network or _is_weights(value)


def _is_weights(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) and isinstance(x, Tensor) for k, x in value.items())


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what data-parallel training puts before all of them."""
    first = "module."
    if all(name.startswith(first) for name in tensors):
        return {name.removeprefix(first): x for name, x in tensors.items()}
    return dict(tensors)
