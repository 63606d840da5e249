"""A training's state as tensors, and back from the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.errors import FewstepError, listed
from fewstep.named_tensors import check_fit, load_tensors, named_tensors
from fewstep.stored_model import StoredModel
from fewstep.training.optimizers import Adam


def optimizer_tensors(optimizers: Mapping[str, Adam]) -> dict[str, Tensor]:
    """The state of each turn's optimiser as named tensors.

    They are called ``<parameter index>.<name>``, and where there are several optimisers
    ``<turn>.<parameter index>.<name>``.
    """
    return {
        f"{_prefix(turn, optimizers)}{i}.{name}": value.detach().contiguous()
        for turn, optimizer in optimizers.items()
        for i, values in optimizer.state_of_all().items()
        for name, value in values.items()
    }


def restore_optimizers(optimizers: Mapping[str, Adam], path: Path) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        FewstepError: the file is missing or holds something else.
    """
    try:
        stored = load_file(path)
        for turn, optimizer in optimizers.items():
            prefix = _prefix(turn, optimizers)
            mine = [key for key in stored if key.startswith(prefix)]
            optimizer.restore(_numbered({k.removeprefix(prefix): stored.pop(k) for k in mine}))
        if stored:
            raise ValueError(f"it holds {listed(stored)} besides")
    except (OSError, SafetensorError, ValueError) as error:
        raise FewstepError(f"{path} is not the state of this optimiser: {error}.") from error


def _prefix(turn: str, optimizers: Mapping[str, Adam]) -> str:
    return f"{turn}." if len(optimizers) > 1 else ""


def _numbered(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """An optimiser's state by the number of the parameter."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    return state


def restore_module(module: nn.Module, path: Path) -> None:
    """Put the state of a checkpoint's module, a map or any other, into ``module``.

    Raises:
        FewstepError: the file is missing or holds another state.
    """
    if isinstance(module, StoredModel):
        return restore_map(module, path)
    tensors = _read(path)
    check_fit(named_tensors(module), {k: tuple(x.shape) for k, x in tensors.items()}, path)
    load_tensors(module, tensors)
    return None


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise FewstepError(f"cannot read the weights {path}: {error}.") from error


def restore_map(f: StoredModel, path: Path) -> None:
    """Put the weights of a checkpoint's map into ``f``.

    Raises:
        FewstepError: the file is missing or holds other weights.
    """
    tensors = {k: v.to(f.device) for k, v in _read(path).items()}
    with torch.no_grad():
        f.load_weights(tensors, path)
