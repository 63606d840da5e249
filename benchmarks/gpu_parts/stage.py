"""What the parts share: the device, its lock, timing, and results that are on disk at once."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

H100_BF16 = 989e12  # dense, of the SXM card
Step = Callable[[], object]


@dataclass
class Stage:
    """Where a part runs and what it may use.

    Args:
        result: its file of results, a JSON list of records.
        lock: file that is locked while the device is timed, so that parts may run side by side.
        deadline: when the part must have ended, in seconds of `time.time`.
        rehearse: tiny sizes on the CPU.
        carried: folder with the data that came along; None without.
        quiet: cores that only a process that times the device uses.
    """

    result: Path
    lock: Path
    deadline: float
    rehearse: bool
    carried: Path | None
    quiet: tuple[int, ...] = ()
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.rehearse else torch.device("cuda", 0)

    @property
    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.time()

    def report(self, what: str, **values: Any) -> None:
        """Add a record and write them all."""
        self.records.append({"what": what, **values})
        partial = self.result.with_suffix(".partial")
        partial.write_text(json.dumps(self.records, indent=1))
        os.replace(partial, self.result)
        print(json.dumps(self.records[-1])[:600], flush=True)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Report what goes wrong inside, and go on."""
        self.tidy()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.report(what, failed=f"{type(error).__name__}: {error}"[:500])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else times the device meanwhile, nor computes on the cores of this process."""
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.sync()
            with on_cores(self.quiet):
                yield

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Give the memory back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> float:
        """Most memory that tensors had since `tidy`, in GiB."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0


@contextmanager
def on_cores(cores: tuple[int, ...]) -> Iterator[None]:
    """All threads of this process on these cores; without any, where they are."""
    before = os.sched_getaffinity(0) if cores else set()
    _move(cores)
    try:
        yield
    finally:
        _move(tuple(before))


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of an attribute meanwhile."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _move(cores: tuple[int, ...]) -> None:
    for thread in os.listdir("/proc/self/task") if cores else ():
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread), cores)


def first_call(stage: Stage, step: Step) -> float:
    """Seconds of the first call, which compiles; another try where others hold the memory."""
    for attempt in range(12):
        started = time.perf_counter()
        try:
            step()
            stage.sync()
            return time.perf_counter() - started
        except torch.cuda.OutOfMemoryError:
            if attempt == 11:
                raise
            stage.tidy()
            time.sleep(3)
    raise AssertionError


def timed(stage: Stage, step: Step, seconds: float = 2.5, most: int = 60) -> dict[str, float]:
    """Milliseconds of a step: of the device's queue and of the host alone.

    ``ms`` is the median over three series of steps that are issued without waiting; ``host_ms``
    the median time to issue one step into an empty queue. Where it is the larger, the device waits.
    """
    issued, whole = [], []
    while len(whole) < 8:
        started = time.perf_counter()
        step()
        issued.append(time.perf_counter() - started)
        stage.sync()
        whole.append(time.perf_counter() - started)
        if stage.rehearse or (len(whole) > 2 and sum(whole) > seconds / 2):
            break
    issued, whole = issued[len(issued) // 3 :], whole[len(whole) // 3 :]  # the first ones warm up
    n = max(1, min(most, int(seconds / statistics.median(whole))) // 3)
    series = []
    for _ in range(1 if stage.rehearse else 3):
        started = time.perf_counter()
        for _ in range(n):
            step()
        stage.sync()
        series.append((time.perf_counter() - started) / n)
    return {
        "ms": 1e3 * statistics.median(series),
        "ms_least": 1e3 * min(series),
        "host_ms": 1e3 * statistics.median(issued),
        "steps": n * len(series),
    }


def profiled(stage: Stage, step: Step, rows: int = 24) -> dict[str, Any]:
    """Kernels of one step by the time that they take on the device."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = stage.device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        step()
        stage.sync()
    events = profiler.key_averages()
    times = {
        e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count)
        for e in events
    }
    top = sorted(times.items(), key=lambda item: -item[1][0])[:rows]
    return {
        "kernels_ms": sum(t for t, _ in times.values()) / 1e3,
        "launches": sum(n for _, n in times.values()),
        "top": [[short(name), round(t / 1e3, 3), n] for name, (t, n) in top],
    }


def short(kernel: str) -> str:
    """A kernel's name without what is the same in all of them."""
    for word in ("void ", "at::native::", "(anonymous namespace)::", "gpu_kernel_impl_nocast<"):
        kernel = kernel.replace(word, "")
    return kernel[:100]
