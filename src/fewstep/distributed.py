"""Which process this is, of how many: set by ``torchrun``, else one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from fewstep.errors import FewstepError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The group that trains, samples or scores together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised in any process."""
        if self.world == 1:
            return flag
        return bool(self.max(torch.tensor(float(flag), device=self.device)))

    def max(self, x: torch.Tensor) -> float:
        """Largest value over the processes."""
        if self.world > 1:
            x = x.clone()
            dist.all_reduce(x, op=dist.ReduceOp.MAX)
        return float(x.item())

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over the processes."""
        if self.world > 1:
            dist.all_reduce(x)
            x /= self.world
        return x

    def share(self, n: int) -> range:
        """This process's part of ``n`` things: every ``world``-th."""
        return range(self.rank, n, self.world)

    def gather_shares(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """All ``n`` things in order from every process's `share`, in the first process."""
        if self.world == 1:
            return x
        parts = self.gather(x)
        return self._in_order(parts, n) if self.first else x

    def gather(self, thing: Any) -> list[Any]:
        """Every process's thing, in the first process; elsewhere only its own."""
        if self.world == 1:
            return [thing]
        parts: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(thing, parts)
        return [thing] if parts is None else parts

    def all_gather_shares(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """All ``n`` things in order from every process's `share`, in every process."""
        if self.world == 1:
            return x
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, x)
        return self._in_order(parts, n)

    def _in_order(self, parts: list[torch.Tensor], n: int) -> torch.Tensor:
        whole = parts[0].new_empty(n, *parts[0].shape[1:])
        for rank, part in enumerate(parts):
            whole[rank :: self.world] = part
        return whole

    def in_turn(self, make: Callable[[], T]) -> T:
        """What ``make`` gives: in the first process, then, with its cache, in the others."""
        if not self.first:
            self.barrier()
        try:
            return make()
        finally:
            if self.first:
                self.barrier()

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()


def processes(device: str | None = None) -> Processes:
    """Join the group that ``torchrun`` made, if any.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps"; default a GPU where there is one.

    Raises:
        FewstepError: the device does not exist.
    """
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    chosen = pick_device(device, local)
    if world == 1:
        return Processes(device=chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        # Left to the interpreter's end, gloo's threads now and then abort a process that is done,
        # and torchrun then kills the others.
        atexit.register(_leave)
    return Processes(dist.get_rank(), world, chosen)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def pick_device(name: str | None = None, local_rank: int = 0) -> torch.device:
    """The device that was asked for, or the best there is."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FewstepError(f"unknown device {name!r}: use cpu, cuda, cuda:1, mps.") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FewstepError(f"device {name!r} was asked for, but torch sees no CUDA GPU here.")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # float32 means it, in convolutions as well
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise FewstepError("device 'mps' was asked for, but torch sees no Apple GPU here.")
    return device
