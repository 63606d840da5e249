"""A training's state as tensors, and back from the files of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.training.optimizers import Adam


def optimizer_tensors(optimizer: Adam) -> dict[str, Tensor]:
    """An optimiser's state as named tensors: ``<parameter index>.<name>``."""
    return {
        f"{i}.{name}": value.detach().contiguous()
        for i, values in optimizer.state_of_all().items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: Adam, path: Path) -> None:
    """Put back what `optimizer_tensors` gave.

    Raises:
        FewstepError: the file is missing or holds something else.
    """
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for key, value in load_file(path).items():
            i, name = key.split(".", 1)
            state.setdefault(int(i), {})[name] = value
        optimizer.restore(state)
    except (OSError, SafetensorError, ValueError) as error:
        raise FewstepError(f"{path} is not the state of this optimiser: {error}.") from error


def restore_map(f: FlowMap, path: Path) -> None:
    """Put the weights of a checkpoint's map into ``f``.

    Raises:
        FewstepError: the file is missing or holds other weights.
    """
    try:
        tensors = {k: v.to(f.device) for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise FewstepError(f"cannot read the weights {path}: {error}.") from error
    with torch.no_grad():
        f.load_weights(tensors, path)
