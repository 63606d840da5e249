"""Pickles of networks, read without running anything that is in them.

A pickle is a program: it names callables, and calls them. NVIDIA's research code (StyleGAN to EDM2)
pickles whole networks, each object as the call ``_reconstruct_persistent_obj(meta)`` whose ``meta``
holds the *source text* of the network's module, which their loader executes. Here every name that a
pickle may call is in one short list:

- the reconstructor and every class of the authors' own modules become a `Record`: a name and a
  state, nothing else; the source text is dropped;
- a tensor is rebuilt from its storage, which torch reads with ``weights_only``;
- any other name is refused, and the message says which.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError

DEEPEST = 64  # objects within objects; the networks have about 6
RECONSTRUCTOR = "torch_utils.persistence._reconstruct_persistent_obj"
AUTHORS = ("training.", "torch_utils.", "dnnlib.", "_imported_module_")
"""Modules of NVIDIA's research code. Nothing of them is imported: their classes become records."""
LAYERS = ("torch.nn.modules.",)
"""Layers of torch, which become records as well."""


class Record:
    """What an object of a pickle was called, and its state; it can do nothing.

    Args:
        arguments: what the pickle would have called it with.
    """

    name: ClassVar[str] = ""
    """Module and class that the pickle names."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: dict[str, Any] = {}

    def __new__(cls, *arguments: Any) -> Record:
        """With a state, also where a pickle makes the object without calling it."""
        self = super().__new__(cls)
        self.arguments, self.state = arguments, {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, dict) else {"": state}

    @property
    def kind(self) -> str:
        """The class alone, without its module."""
        return type(self).name.rpartition(".")[2]

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that a persistent object remembers of its construction."""
        found = self.state.get("_init_kwargs")
        return dict(found) if isinstance(found, dict) else {}

    def part(self, name: str) -> Record | None:
        """A module inside of it; None where there is none of this name."""
        found = self._children().get(name)
        return found if isinstance(found, Record) else None

    def _children(self) -> dict[str, Any]:
        found = self.state.get("_modules")
        return dict(found) if isinstance(found, dict) else {}

    def tensors(self, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
        """Parameters and stored buffers by the names that torch's ``state_dict`` gives them.

        Raises:
            FewstepError: modules within modules without end.
        """
        if depth > DEEPEST:
            raise FewstepError("its modules lie in each other without end")
        for group in ("_parameters", "_buffers"):
            found = self.state.get(group)
            for name, x in (found if isinstance(found, dict) else {}).items():
                if isinstance(x, Tensor):
                    yield f"{prefix}{name}", x
        for name, child in self._children().items():
            if isinstance(child, Record):
                yield from child.tensors(f"{prefix}{name}.", depth + 1)


def record_class(name: str) -> type[Record]:
    """The class of the records of one name."""
    return type("Record", (Record,), {"name": name})


def reconstructed(meta: Any) -> Record:
    """A persistent object as a record; the source text in ``meta`` is not looked at."""
    if not isinstance(meta, dict):
        raise FewstepError("a persistent object has no description")
    record = record_class(str(meta.get("class_name")))()
    record.__setstate__(meta.get("state"))
    return record


def storage_of(content: bytes) -> Any:
    """A tensor's storage, as torch reads it with ``weights_only``."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def tensor_of(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """The tensor of a part of a storage; without hooks or gradients."""
    rebuilt: Tensor = torch._utils._rebuild_tensor_v2(
        storage, offset, size, stride, False, OrderedDict()
    )
    return rebuilt


def parameter_of(data: Any, *_: Any) -> Any:
    """A parameter's tensor."""
    return data


NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")


def number_of(dtype: Any, content: Any) -> Any:
    """A number of numpy as Python's, from its type's record and its bytes."""
    code = dtype.arguments[0] if isinstance(dtype, Record) and dtype.arguments else None
    if code not in NUMBERS or not isinstance(content, bytes):
        raise FewstepError(f"it holds a number of the unknown type {code!r}")
    return np.frombuffer(content, code, count=1)[0].item()


CALLABLE: dict[str, Callable[..., Any]] = {
    RECONSTRUCTOR: reconstructed,
    "dnnlib.util.EasyDict": dict,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": tensor_of,
    "torch._utils._rebuild_parameter": parameter_of,
    "torch.storage._load_from_bytes": storage_of,
    "torch.Size": tuple,
    "numpy.dtype": record_class("numpy.dtype"),
    "numpy.core.multiarray.scalar": number_of,
    "numpy._core.multiarray.scalar": number_of,
}
"""All that a pickle may call."""


class Reader(pickle.Unpickler):
    """An unpickler for which every name outside `CALLABLE` is a record, or refused."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle stands for; never the thing itself."""
        full = f"{module}.{name}"
        if full in CALLABLE:
            return CALLABLE[full]
        if full.startswith((*AUTHORS, *LAYERS)):
            return record_class(full)
        raise FewstepError(f"it calls {full}, which no network needs")

    def persistent_load(self, pid: Any) -> Any:
        """Nothing: networks have none."""
        raise FewstepError("it refers to objects outside the file")


def read_pickle(path: Path) -> Any:
    """The objects of a pickle: plain values, tensors and records.

    Raises:
        FewstepError: it calls what no network needs, is damaged, or is no pickle.
    """
    try:
        with path.open("rb") as file:
            return read_objects(file)
    except FewstepError as error:
        raise FewstepError(f"{path} is refused: {error}. Nothing in it was run.") from error
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever a damaged or hostile program may lead to
        what = " ".join(str(error).split())[:200]
        raise FewstepError(
            f"cannot read the pickle {path}: {what or type(error).__name__}. It is damaged or cut "
            "short, or no pickle of a network: copy it again."
        ) from error


def read_objects(file: BinaryIO) -> Any:
    """The objects of an open pickle."""
    return Reader(file).load()
