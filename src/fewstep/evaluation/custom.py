"""A user's own function as a feature network."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError, unknown
from fewstep.evaluation.features import FeatureNetwork, Features
from fewstep.plugins.code import check_place, module_file


def load_callable(spec: str) -> CallableFeatures:
    """The function that ``module:function`` names, as a feature network.

    The module is imported, from the working directory too. The function gets images uint8
    [N, C, H, W], C = 1 or 3, on the CPU or, if it is a module with weights, on their device. It
    returns features [N, F] or a pair of features and class scores [N, K], as tensors or arrays.

    Raises:
        FewstepError: a text of another form; no such module or function.
    """
    module_name, colon, name = spec.partition(":")
    if not (module_name and colon and name):
        raise FewstepError(f"cannot read {spec!r}: write module:function.")
    module = _import(module_name)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise unknown(f"function of the module {module_name!r}", name, known)
    function = getattr(module, name)
    if not callable(function):
        raise FewstepError(f"{spec!r} is not a function but {type(function).__name__}.")
    return CallableFeatures(spec, function)


def _import(name: str) -> Any:
    try:
        with _working_directory_on_path():
            if (file := module_file(name.partition(".")[0])) is not None:
                check_place(file)
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise FewstepError(
                f"there is no module {name!r} in {os.getcwd()} or among the installed ones."
            ) from error
        raise FewstepError(f"the module {name!r} needs {error.name!r}: install it.") from error


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """An installed command, unlike ``python -m``, does not search the working directory."""
    before = sys.path.copy()
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


class CallableFeatures(FeatureNetwork):
    """A function as a feature network; use `load_callable`.

    Args:
        name: ``module:function``.
        function: the function; a `torch.nn.Module` brings its weights along.
    """

    shape = None

    def __init__(self, name: str, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.name, self.function = name, function
        self.num_features, self.num_classes = 0, 0  # known with the first batch

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the name, the function's source and its weights, if it is a module.

        It does not see what the function calls or reads: see `fingerprint_is_whole`.
        """
        return hashlib.sha256((self._source() + super().fingerprint).encode()).hexdigest()

    @property
    def fingerprint_is_whole(self) -> bool:
        return False

    def _source(self) -> str:
        is_module = isinstance(self.function, torch.nn.Module)
        try:
            return inspect.getsource(type(self.function) if is_module else self.function)
        except (OSError, TypeError):  # built in, compiled or made at run time
            return ""

    def forward(self, images: Tensor) -> Features:
        found = self.function(images)
        pair = found if isinstance(found, tuple) else (found, None)
        if len(pair) != 2:
            raise FewstepError(
                f"{self.name} must return features or a pair of features and class scores, "
                f"got {len(pair)} values."
            )
        features = self._checked("features", pair[0], len(images), self.num_features)
        logits = None
        if pair[1] is not None:
            logits = self._checked("class scores", pair[1], len(images), self.num_classes)
            self.num_classes = logits.shape[1]
        self.num_features = features.shape[1]
        return Features(features, logits)

    def _checked(self, what: str, values: Any, n: int, width: int) -> Tensor:
        """The values as float32 [n, width]; a width of 0 is any."""
        try:
            x = torch.as_tensor(values).float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise FewstepError(f"the {what} of {self.name} are no tensor: {error}") from error
        if x.ndim != 2 or len(x) != n or x.shape[1] != (width or x.shape[1]) or not x.shape[1]:
            wanted = f"[{n}, {width or 'F'}]"
            raise FewstepError(
                f"the {what} of {self.name} must have the shape {wanted}, got {list(x.shape)}."
            )
        return x
