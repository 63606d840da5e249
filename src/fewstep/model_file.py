"""Model files: one safetensors file that describes itself, of which nothing is taken on trust.

The safetensors metadata hold one JSON text: the network, the parameterization, the record of what
was trained, `info` and, of a latent model, the autoencoder. Nothing in it is ever executed, and
nothing is allocated before its values have the right types and the network that it asks for has the
shapes of the file's tensors.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.plugins.used import Used, used_in
from fewstep.records import value_of
from fewstep.trained import LEGACY, Trained, from_legacy, json_of, trained_of

FORMAT = 2  # version of the file's header
MAY_LACK = ("latents", "parameterization")
PROCESS = "process"  # of an autoencoder of earlier versions, in `info`: its fingerprint had it
READ = (1, 2)  # the versions that are read; the first had its record in `info`
HEADER = "fewstep"  # its key in the safetensors metadata
TYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Types of weights, as safetensors names them."""
OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file: fetch it with git lfs pull",
    b"PK\x03\x04": "a zip archive, such as torch.save and numpy.savez write, not a model file",
    b"\x80\x02": "a pickle, which is never opened: it could run any code",
    b"\x93NUMPY": "an array of numpy, not a model file",
    b"\x89PNG": "a PNG image, not a model file",
    b"\xff\xd8\xff": "a JPEG image, not a model file",
    b"PAR1": "a Parquet file, not a model file",
    b"\x89HDF": "an HDF5 file, not a model file",
    b"GGUF": "a GGUF file, the weights of a quantised language model, not a model file",
    b"\x1f\x8b": "a gzip archive, not a model file: unpack it, and give what is in it",
    b"BZh": "a bzip2 archive, not a model file: unpack it, and give what is in it",
    b"\xfd7zXZ": "an xz archive, not a model file: unpack it, and give what is in it",
    b"\x28\xb5\x2f\xfd": "a zstd archive, not a model file: unpack it, and give what is in it",
    b"7z\xbc\xaf": "a 7z archive, not a model file: unpack it, and give what is in it",
    b"Rar!": "a RAR archive, not a model file: unpack it, and give what is in it",
    b"{": "a text of JSON, such as a server's error message, not a model file",
    b"<": "a page of HTML, such as a failed download leaves, not a model file",
}
"""What other files begin with, and what they are."""
TAR = slice(257, 262)
"""Where a tar archive says that it is one."""
BEGINNING = 512


@dataclass(frozen=True)
class Header:
    """What a model file says of itself.

    Args:
        network: name and arguments of the raw network.
        parameterization: name and arguments; None for an autoencoder.
        trained: what training made of the model.
        info: free JSON values; see `fewstep.flow_map.FlowMap`.
        latents: name and arguments of the autoencoder; None for a model of images.
        plugins: code of a user's own that gave a network, process or sampler; written by itself.
    """

    network: dict[str, Any]
    parameterization: dict[str, Any] | None
    trained: Trained
    info: dict[str, Any]
    latents: dict[str, Any] | None = None
    plugins: tuple[Used, ...] = ()

    def text(self) -> str:
        """The JSON text that `read` reads.

        Raises:
            FewstepError: a value of `info` that cannot be stored, or not of its type.
        """
        check_info(self.info)
        parts = {
            "format": FORMAT,
            "network": self.network,
            "trained": json_of(self.trained),
            "info": self.info,
        }
        if self.parameterization is not None:
            parts["parameterization"] = self.parameterization
        if self.latents is not None:
            parts["latents"] = self.latents
        if used := used_in(self.network, self.parameterization, self.latents, self.trained.sampler):
            parts["plugins"] = [plugin.without_folder() for plugin in used]
        try:
            return json.dumps(parts)
        except (TypeError, ValueError, RecursionError) as error:
            raise FewstepError(f"info must hold plain JSON values: {error}.") from error

    def with_taus(self, taus: Mapping[str, tuple[float, ...]]) -> Header:
        """The same with time points that were found for these weights."""
        return replace(self, trained=replace(self.trained, taus={**self.trained.taus, **taus}))

    def line(self, parameters: int) -> str:
        """What the model is, in a line."""
        shape = " x ".join(str(n) for n in self.network.get("shape", ()))
        classes = self.network.get("num_classes")
        parts = [
            f"{self.trained.name}, {shape}" + (f" in {classes} classes" if classes else ""),
            f"{self.network.get('name')} of {parameters:,} parameters",
            "" if self.parameterization is None else str(self.parameterization.get("name")),
            "" if self.latents is None else "of latents",
            f"by {self.info['recipe']}" if self.info.get("recipe") else "",
            "" if self.trained.step is None else f"step {self.trained.step:,}",
        ]
        return ", ".join(filter(None, parts))

    @classmethod
    def read(cls, text: str) -> Header:
        """What `text` gave.

        Raises:
            FewstepError: anything else; the message names the value.
        """
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FewstepError(f"it is not JSON: {error}") from error
        if not isinstance(parts, dict) or "format" not in parts:
            raise FewstepError("it has no format")
        if parts["format"] not in READ:
            raise FewstepError(
                f"it has format {parts['format']!r}, and this fewstep reads format {FORMAT}"
            )
        for name in ("network", "parameterization", "info", "latents"):
            value = parts.get(name)
            if not (isinstance(value, dict) or (name in MAY_LACK and value is None)):
                raise FewstepError(f"{name} must be a table of values, got {_short(repr(value))}")
        if parts["format"] == 1:
            trained, info = from_legacy(parts["info"])
        else:
            trained, info = trained_of(parts.get("trained")), parts["info"]
        check_info(info)
        network, parameterization = parts["network"], parts.get("parameterization")
        if parameterization is None and not trained.decodes:
            raise FewstepError("parameterization is missing")
        if parameterization is not None and trained.decodes:
            info, parameterization = {PROCESS: parameterization, **info}, None
        plugins = value_of(tuple[Used, ...], parts.get("plugins", []), "plugins")
        return cls(network, parameterization, trained, info, parts.get("latents"), plugins)


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


INFO: dict[str, tuple[Callable[[object], bool], str]] = {
    "recipe": (_is_text, "a text"),
    "objective": (_is_text, "a text"),
    "data": (_is_text, "a text"),
    "teacher": (lambda value: value is None or isinstance(value, dict), "a table of values"),
}
"""The values of `info` that the package reads, and what they must be. Others are free."""


def check_info(info: dict[str, Any]) -> None:
    """Raise `FewstepError` unless the values that are read have their types and places."""
    if strays := [name for name in LEGACY if name in info]:
        raise FewstepError(
            f"info.{strays[0]} is a field of the record: trained.{LEGACY[strays[0]]}"
        )
    for name, (fits, what) in INFO.items():
        if name in info and not fits(info[name]):
            raise FewstepError(f"info.{name} must be {what}, got {_short(repr(info[name]))}")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


class ModelFile:
    """An open model file.

    Args:
        path: of the file.
        file: as safetensors opened it.
        header: what it says of itself.
    """

    def __init__(self, path: Path, file: Any, header: Header) -> None:
        self.path, self._file, self.header = path, file, header
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        """Shapes of the tensors, by name."""
        self.types = {name: self._type(name, part.get_dtype()) for name, part in slices.items()}
        """Types of the tensors, by name."""

    def _type(self, name: str, stored: str) -> torch.dtype:
        if stored not in TYPES:
            raise FewstepError(
                f"{name!r} of {self.path} is {stored}: weights are {', '.join(TYPES)}."
            )
        return TYPES[stored]

    def tensor(self, name: str, layout: torch.memory_format) -> Tensor:
        """A tensor in memory of its own: the file may be cut or overwritten afterwards."""
        return self._file.get_tensor(name).clone(memory_format=layout)


@contextmanager
def open_model_file(path: Path, device: torch.device | str = "cpu") -> Iterator[ModelFile]:
    """A model file; its tensors are read to `device` when they are asked for.

    Raises:
        FewstepError: the file is missing, damaged, of another version, or something else.
    """
    try:
        check_is_file(path)
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            text = (file.metadata() or {}).get(HEADER)
            if text is None:
                raise FewstepError(f"{path} is a safetensors file but not a fewstep model.")
            try:
                header = Header.read(text)
            except FewstepError as error:
                raise not_a_model(path, error) from error
            yield ModelFile(path, file, header)
    except FewstepError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise FewstepError(
            f"cannot read the model {path}: {error}. It is damaged, cut short or no model: copy it "
            "again."
        ) from error


def read_header(path: Path) -> Header:
    """What a model file says of itself.

    Raises:
        FewstepError: the file is missing, damaged, of another version, or something else.
    """
    with open_model_file(path) as file:
        return file.header


def not_a_model(path: Path, error: Exception) -> FewstepError:
    """The error for a header from which no model can be built."""
    named = "" if isinstance(error, FewstepError) else f"{type(error).__name__}: "
    what = _short(f"{named}{error}".partition("\n")[0], 200).rstrip(".")
    return FewstepError(f"the header of {path} does not describe a model: {what}.")


def check_is_file(path: Path, others: Mapping[bytes, str] = OTHERS) -> None:
    """Raise `FewstepError` unless there is a file, and none of another kind that is recognised.

    Args:
        path: of the file.
        others: what files begin with that are not wanted, and what they are.
    """
    if not path.exists():
        raise FewstepError(f"there is no model file {path}.")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "folder" if stat.S_ISDIR(mode) else "pipe or device"
        raise FewstepError(f"{path} is a {what}, not a model file.")
    with path.open("rb") as file:
        start = file.read(BEGINNING)
    if not start:
        raise FewstepError(f"{path} is empty: its writing was cut off. Make or copy it again.")
    if start[TAR] == b"ustar":
        raise FewstepError(f"{path} is a tar archive: unpack it, and give what is in it.")
    for magic, what in others.items():
        if start.lstrip().startswith(magic) and not _is_safetensors(start):
            raise FewstepError(f"{path} is {what}.")


def _is_safetensors(start: bytes) -> bool:
    """Whether 8 bytes of length and a brace begin a file."""
    return start[8:9] == b"{"
