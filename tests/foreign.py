"""Files as other projects write them, made without their code."""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
CASES = json.loads((HERE / "references/exchange.json").read_text())
_spec = importlib.util.spec_from_file_location(
    "exchange_parity", HERE.parent / "benchmarks/exchange_parity.py"
)
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)


# Pickles as NVIDIA's code writes them, without its code


class Persistent:
    """An object that is pickled as a call of the reconstructor with its source text."""

    def __init__(self, kind: str, **state: Any) -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('the source text of a pickle was run')",
            "class_name": kind,
            "state": state,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextmanager
def nvidia() -> Iterator[None]:
    """A block in which the module exists whose name their pickles hold."""
    module: Any = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("the authors' reconstructor was called")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    sys.modules["torch_utils"] = types.ModuleType("torch_utils")
    sys.modules["torch_utils.persistence"] = module
    try:
        yield
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]


def nested(tensors: dict[str, Tensor], kind: str, **state: Any) -> Persistent:
    """A module with its tensors, and those of the modules in it."""
    own, inner = {}, dict[str, dict[str, Tensor]]()
    for name, x in tensors.items():
        first, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(first, {})[rest] = x
        else:
            own[name] = x
    modules = OrderedDict((name, nested(part, "Layer")) for name, part in inner.items())
    return Persistent(kind, _parameters=own, _buffers={}, _modules=modules, **state)


def weights_of(case: dict[str, Any]) -> dict[str, Tensor]:
    """The numbers that the authors' network was filled with."""
    return {
        name: filter_of(case, tuple(shape))
        if name.endswith("resample_filter")
        else parity.numbers_of(name, tuple(shape))
        for name, shape in case["shapes"].items()
    }


def filter_of(case: dict[str, Any], shape: tuple[int, ...]) -> Tensor:
    taps = torch.tensor(case["kwargs"].get("resample_filter", [1.0, 1.0])).float()
    return (taps.outer(taps) / taps.sum() ** 2).reshape(shape)


def write(case: dict[str, Any], name: str, folder: Path) -> Path:
    """The file that the authors would have published."""
    if case["kind"] in ("openai", "guided"):
        path = folder / f"{name}.pt"
        torch.save(weights_of(case), path)
        return path
    inside = "unet" if case["kind"] == "Precond" else "model"
    network = nested(weights_of(case), "Network", _init_kwargs=case["kwargs"])
    outer = Persistent(
        case["kind"],
        _modules=OrderedDict([(inside, network)]),
        _init_kwargs=case["kwargs"],
        sigma_data=0.5,
        sigma_min=0.002,
    )
    path = folder / f"{name}.pkl"
    path.write_bytes(pickle.dumps({"ema": outer, "loss_fn": Persistent("Loss", P_mean=-1.2)}))
    return path


def served(folder: Path) -> list[Path]:
    """A consistency model as locuslab/ect stores one, and a diffusion model as NVlabs/edm does."""
    case = CASES["edm-ncsnpp"]
    with nvidia():
        return [
            write({**case, "kind": kind}, name, folder)
            for kind, name in (("ECMPrecond", "few"), ("EDMPrecond", "many"))
        ]
