"""Files of weights from other projects: what is in them, whatever they were written with.

Nothing in a file is run: ``.pt`` is read by torch with ``weights_only``, safetensors holds tensors
alone, and the pickles of NVIDIA's code go through `fewstep.exchange.files.pickles`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
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
from fewstep.exchange.files.averages import with_names
from fewstep.exchange.files.chosen import inner_part
from fewstep.exchange.files.pickles import Record, read_pickle
from fewstep.exchange.files.shards import in_folder, one_of_several, read_shards
from fewstep.exchange.files.weights import INDEX, is_shard
from fewstep.model_file import check_is_file

WEIGHTS = (b"PK\x03\x04", b"\x80\x02")  # what torch.save and pickle begin with
OTHERS = {start: what for start, what in model_file.OTHERS.items() if start not in WEIGHTS}
"""What files without weights begin with, and what they are."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
EARLY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What torch.save began files with before 1.6."""
_EARLY_PICKLE = re.compile(rb"\(?[a-z]*c[\w.]+\n\w+\n|[(\]})l]")
"""How pickles begin that say no protocol."""


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


Fits = Callable[[Mapping[str, Tensor]], bool]


def read_checkpoint(path: Path, fits: Fits = lambda tensors: True) -> Checkpoint:
    """The weights of a ``.pt``, ``.pth``, ``.ckpt``, ``.safetensors`` or ``.pkl`` file.

    What a file is follows from how it begins, whatever its name. Of several shards the index is
    given, and of a folder the one file in it that holds weights.

    Args:
        path: of the file.
        fits: whether a state dict is of a network that is known: of several, such a one is taken.

    Raises:
        FewstepError: it is something else, damaged, one of several shards, or calls code.
    """
    if path.is_dir():
        path = in_folder(path)
    if path.name.endswith(INDEX):
        check_is_file(path, {})
        return Checkpoint(path, read_shards(path, lambda shard: read_shard(shard).tensors))
    if path.is_file() and is_shard(path.name):
        raise one_of_several(path)
    return read_shard(path, fits)


def read_shard(path: Path, fits: Fits = lambda tensors: True) -> Checkpoint:
    """As `read_checkpoint`, of a file that may hold a part of a model's weights."""
    check_is_file(path, OTHERS)
    with path.open("rb") as file:
        start = file.read(64)
    for known, read in READERS:
        if known(start):
            return _chosen(path, read(path), fits)
    raise FewstepError(
        f"{path} holds no weights that can be read, but {_otherwise(start)}: give a .pt, .pth, "
        ".ckpt, .safetensors or .pkl file."
    )


def _otherwise(start: bytes) -> str:
    """What a file is that no reader knows."""
    if _EARLY_PICKLE.match(start):
        return "a pickle of an early protocol, of which nothing was run"
    return "a text" if start.isascii() and start.decode().isprintable() else "other bytes"


def is_foreign(path: Path) -> bool:
    """Whether a file holds weights of another project, as far as its beginning tells."""
    if not path.is_file() or not path.stat().st_size:
        return False
    if path.name.endswith(INDEX):
        return True
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
    """What `torch.save` wrote, without running anything.

    Raises:
        FewstepError: another archive, or one that is cut short; it holds more than weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FewstepError(
            f"cannot read {path}: it has no end, and is damaged or cut short. Copy it again."
        ) from error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        raise FewstepError(
            f"{path} is a program of TorchScript, which is never run: save the state dict of its "
            "model alone, torch.save(model.state_dict(), ...)."
        )
    if "data.pkl" not in inner:
        arrays = all(name.endswith(".npy") for name in names)
        what = "an archive of numpy's arrays" if names and arrays else "a zip archive"
        raise FewstepError(
            f"{path} is {what} of {listed(names) or 'nothing'}, and no weights of torch: unpack "
            "it, and give the file with the weights."
        )
    return _read_torch(path, mmap=True)


def _read_early(path: Path) -> Any:
    """What `torch.save` wrote before 1.6."""
    return _read_torch(path, mmap=False)


def _read_torch(path: Path, *, mmap: bool) -> Any:
    try:
        if path.suffix == ".safetensors":  # of which torch believes the name
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        what = f"it calls {found[1]}" if found else "it holds more than weights"
        raise FewstepError(
            f"{path} is refused: {what}. Only weights are read, and nothing in it was run. Save "
            "the state dict alone: torch.save(model.state_dict(), ...)."
        ) from error
    except DAMAGED as error:
        raise FewstepError(
            f"cannot read {path}: {_short(error)}. It is damaged or cut short: copy it again."
        ) from error


DAMAGED = (RuntimeError, EOFError, LookupError, ValueError, OSError, TypeError, AttributeError)
"""What a damaged file may raise where torch reads it."""


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            if model_file.HEADER in (file.metadata() or {}):
                raise FewstepError(f"{path} is a model of fewstep already: nothing to import.")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FewstepError(
            f"cannot read {path}: {_short(error)}. It is damaged or cut short: copy it again."
        ) from error


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:200]


READERS: tuple[tuple[Callable[[bytes], bool], Callable[[Path], Any]], ...] = (
    (lambda start: start.startswith(b"PK\x03\x04"), _read_zip),
    (lambda start: start[8:9] == b"{", _read_safetensors),
    (lambda start: start.startswith(EARLY_TORCH), _read_early),
    (lambda start: start[:1] == b"\x80", read_pickle),
)
"""How a file begins, and what reads it."""


def _chosen(path: Path, content: Any, fits: Fits) -> Checkpoint:
    """The weights among what a file holds.

    Raises:
        FewstepError: there are none.
    """
    whole = with_names(content, _is_weights)
    part = inner_part(whole, _is_part, lambda value: isinstance(value, Record) or fits(_of(value)))
    if part is None:
        held = listed(content) if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise FewstepError(f"{path} holds no weights, but {held or 'nothing'}.")
    network = part.content if isinstance(part.content, Record) else None
    return Checkpoint(path, _of(part.content), network, part.name, part.left)


def _of(part: Any) -> dict[str, Tensor]:
    """The tensors of a part."""
    if isinstance(part, Record):
        return dict(part.tensors())
    return {str(k): x for k, x in part.items() if isinstance(x, Tensor)}


def _is_part(value: Any) -> bool:
    network = isinstance(value, Record) and any(True for _ in value.tensors())
    return network or _is_weights(value)


def _is_weights(value: Any) -> bool:
    """Whether a table is a state dict: tensors by name, and numbers or texts beside them."""
    if not isinstance(value, Mapping) or not value:
        return False
    tensors = [isinstance(x, Tensor) for x in value.values()]
    plain = (str, int, float, bool, type(None), Tensor)
    return 2 * sum(tensors) > len(tensors) and all(isinstance(x, plain) for x in value.values())
