"""Networks without memory: built on the meta device, to be measured before anything is allocated.

A model file or a run's record may ask for a network of any size. Its skeleton has the names and
shapes of all its weights and costs milliseconds, whatever their sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from fewstep.errors import FewstepError

MOST = 20_000  # weights, each a tensor, of any network that is built; ADM's have hundreds
_FILLS = {
    *(getattr(Tensor, name) for name in ("uniform_", "normal_", "zero_", "fill_", "mul_")),
    *(fill for name, fill in vars(nn.init).items() if name.endswith("_") and callable(fill)),
}


class _WithoutNumbers(TorchFunctionMode):
    """Leaves out what fills tensors: on the meta device it changes nothing.

    Torch's own way there imports 800 modules in a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            x = args[0] if args else kwargs["tensor"]
            if x.is_meta:
                return x
        if "device" not in kwargs:
            if func is torch.logspace:
                return torch.empty(args[2], device="meta")
            if func is torch.randn:
                return torch.empty(*args, device="meta")
        return func(*args, **kwargs)


@contextmanager
def skeleton(most: int = MOST) -> Iterator[None]:
    """A block in which modules are built without memory, by this thread alone.

    Args:
        most: weights, each a tensor, that may be registered in it.

    Raises:
        FewstepError: there are more.
    """
    mine, count = threading.get_ident(), 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += parameter is not None and threading.get_ident() == mine
        if count > most:
            raise FewstepError(
                f"the network has more than {most} weights, each a tensor: give it fewer blocks."
            )

    hook = register_module_parameter_registration_hook(counted)
    try:
        with torch.device("meta"), _WithoutNumbers():
            yield
    finally:
        hook.remove()


def unfinished(module: nn.Module) -> bool:
    """Whether some tensor of a module, one that is not stored included, has no memory yet."""
    return any(
        isinstance(value, Tensor) and value.is_meta
        for part in module.modules()
        for values in (part._parameters, part._buffers, part.__dict__)
        for value in values.values()
    )
