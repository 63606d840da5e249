"""Which process this is, of how many: set by ``torchrun``, else one."""

from __future__ import annotations

import atexit
import functools
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from fewstep.errors import FewstepError, refusals

T = TypeVar("T")
Call = TypeVar("Call", bound=Callable[..., Any])

WAIT = 120.0  # seconds for the first process to be there
BROKEN = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out|store", re.IGNORECASE
)


@contextmanager
def together() -> Iterator[None]:
    """Say in one line that other processes are gone; why, they say themselves.

    Raises:
        FewstepError: a message to or from another process failed.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not BROKEN.search(str(error)):
            raise
        raise FewstepError(
            "another process of this group has ended, so this one ends too: the reason stands in "
            "the other's output."
        ) from error


def _collective(call: Call) -> Call:
    """A method that exchanges messages."""

    @functools.wraps(call)
    def checked(*arguments: Any, **named: Any) -> Any:
        with together():
            return call(*arguments, **named)

    return checked  # type: ignore[return-value]


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

    def agree(self, facts: dict[str, Any]) -> None:
        """Compare what must be the same in every process, such as the settings.

        Raises:
            FewstepError: in every process, if one differs; the message names what and where.
        """
        if self.world == 1:
            return
        found: list[Any] = [None] * self.world
        self._all_gather(found, facts)
        for rank, theirs in enumerate(found):
            for name in found[0].keys() | theirs.keys():
                here, there = found[0].get(name), theirs.get(name)
                if here != there:
                    raise FewstepError(
                        f"the processes do not train the same: {name} is {there!r} in process "
                        f"{rank} and {here!r} in process 0. Start all with one command."
                    )

    @_collective
    def _all_gather(self, parts: list[Any], thing: Any) -> None:
        dist.all_gather_object(parts, thing)

    @_collective
    def max(self, x: torch.Tensor) -> float:
        """Largest value over the processes."""
        if self.world > 1:
            x = x.clone()
            dist.all_reduce(x, op=dist.ReduceOp.MAX)
        return float(x.item())

    @_collective
    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over the processes."""
        if self.world > 1:
            dist.all_reduce(x)
            x /= self.world
        return x

    @_collective
    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        """Make tensors, in place, what they are in the first process."""
        if self.world == 1:
            return
        for x in tensors:
            sent = x.detach().contiguous()
            dist.broadcast(sent, 0)
            x.detach().copy_(sent)

    def mean_of_all(self, tensors: Sequence[torch.Tensor]) -> None:
        """Mean over the processes of many dense tensors, each in place; they travel as one."""
        if self.world == 1:
            return
        flat = [x.as_strided((x.numel(),), (1,)) for x in tensors]  # in the order of memory
        means = self.mean(torch.cat(flat)).split([x.numel() for x in flat])
        torch._foreach_copy_(flat, list(means))

    def share(self, n: int) -> range:
        """This process's part of ``n`` things: every ``world``-th."""
        return range(self.rank, n, self.world)

    def gather_shares(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """All ``n`` things in order from every process's `share`, in the first process."""
        if self.world == 1:
            return x
        parts = self.gather(x)
        return self._in_order(parts, n) if self.first else x

    @_collective
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
        self._all_gather(parts, x)
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

    def as_one(self, make: Callable[[], T]) -> T:
        """What ``make`` gives, where it succeeds in every process: they go on, or fail, as one.

        Without this, a process whose part fails would leave the others waiting for it.

        Raises:
            FewstepError: in every process, that of the first one in which ``make`` raised it, or in
                which the machine refused a file or memory.
        """
        if self.world == 1:
            with refusals(memory=True):
                return make()
        made: list[T] = []
        failed: FewstepError | None = None
        try:
            with refusals(memory=True):
                made.append(make())
        except FewstepError as error:
            failed = error
        found: list[FewstepError | None] = [None] * self.world
        self._all_gather(found, failed)
        for first in found:
            if first is not None:
                raise first
        return made[0]

    @_collective
    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()


def processes(device: str | None = None) -> Processes:
    """Join the group that ``torchrun`` made, if any.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps"; default a GPU where there is one.

    Raises:
        FewstepError: the device does not exist; the variables that torchrun sets are not as it
            sets them; the first process is not there.
    """
    world, local = _number("WORLD_SIZE", 1, least=1), _number("LOCAL_RANK", 0)
    if world > 1:
        _check_member(world)
    chosen = pick_device(device, local)
    if world == 1:
        return Processes(device=chosen)
    if not dist.is_initialized():
        _wait_for_first()
        with _joining():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        # Left to the interpreter's end, gloo's threads now and then abort a process that is done,
        # and torchrun then kills the others.
        atexit.register(_leave)
    return Processes(dist.get_rank(), world, chosen)


def _number(name: str, default: int, least: int = 0) -> int:
    """A whole number from the environment."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal() or int(value) < least:
        raise FewstepError(
            f"{name}={value!r} is not a whole number of at least {least}: torchrun sets it for "
            "every process that it starts; unset it where there is one process."
        )
    return int(value)


def _check_member(world: int) -> None:
    """Raise `FewstepError` unless the environment says which of ``world`` processes this is."""
    absent = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(n)]
    if absent:
        raise FewstepError(
            f"WORLD_SIZE={world} says that {world} processes work together, but "
            f"{', '.join(absent)} is not set: start them with torchrun, or unset WORLD_SIZE."
        )
    rank, port = _number("RANK", 0), _number("MASTER_PORT", 0, least=1)
    if rank >= world:
        raise FewstepError(f"RANK={rank} of WORLD_SIZE={world}: ranks count from 0 to {world - 1}.")
    if port > 65535:
        raise FewstepError(f"MASTER_PORT={port} is not a port.")


def _wait_for_first() -> None:
    """Wait until the first process listens; torch itself would wait for half an hour in silence.

    Raises:
        FewstepError: it does not within two minutes.
    """
    if _number("RANK", 0) == 0 or os.environ.get("TORCHELASTIC_RUN_ID"):
        return
    host, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT", 0)
    started = time.monotonic()
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):
                return
        except OSError as error:
            if time.monotonic() - started > WAIT:
                raise FewstepError(
                    f"the first process is not at MASTER_ADDR={host}, MASTER_PORT={port} "
                    f"({error}): start it, or correct them."
                ) from error
        time.sleep(0.5)


@contextmanager
def _joining() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FewstepError(f"the processes could not join: {reason}") from error


LEAVING = 0.5  # s


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        # A thread of gloo that lets go of its last tensors needs the interpreter; on a busy machine
        # it comes late, and at the interpreter's end it would abort the process.
        time.sleep(LEAVING)


def pick_device(name: str | None = None, local_rank: int = 0) -> torch.device:
    """The device that was asked for, or the best there is."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = checked_device(name)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(checked_device(device))
        torch.backends.cudnn.allow_tf32 = False  # float32 means it, in convolutions as well
    return device


def checked_device(name: str | torch.device) -> torch.device:
    """A device that is there.

    Raises:
        FewstepError: it is not there, or is none.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise FewstepError(f"unknown device {name!r}: use cpu, cuda, cuda:1, mps.") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise FewstepError(f"device '{device}' was asked for, but torch sees no CUDA GPU here.")
        count = torch.cuda.device_count()
        if device.index is not None and device.index >= count:
            raise FewstepError(f"{device} was asked for, but there are {count} GPUs here, from 0.")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise FewstepError("device 'mps' was asked for, but torch sees no Apple GPU here.")
    return device
