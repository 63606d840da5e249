"""Models behind one bounded queue: requests that arrive together run as one batch.

One thread owns the models and does all their work. It takes the oldest request, waits until the
latency bound or a full batch, whichever is first, and runs all waiting requests of the same key
together. On a CPU, which requests share a batch changes no image: every image has a noise stream of
its own, and the network is always evaluated on as many rows (see `fewstep.sampling.rows.alike`).
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.data import to_uint8
from fewstep.errors import FewstepError, NotFinite
from fewstep.finite import check_finite
from fewstep.flow_map import FlowMap
from fewstep.sampling import NoiseStreams, Sampler
from fewstep.sampling.rows import alike

Pictures = Tensor | NotFinite
"""uint8 [n, C, H, W], or that the model gives none."""

OnStep = Callable[[int, Tensor], None]
"""Called after each step with its number, from 1, and the images uint8 [n, C, H, W]."""


class Busy(Exception):
    """The queue is full; ``seconds`` until it is worth another try."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full; try again in {seconds} s.")
        self.seconds = seconds


class Closed(Exception):
    """The engine is shutting down and takes no more work."""

    seconds = 10  # until it is worth another try


class Work(ABC):
    """What a request wants of a model."""

    model: str
    n: int
    """Images that it makes."""

    @property
    def key(self) -> Hashable:
        """Work of equal keys, unless None, can run as one batch."""
        return None

    @classmethod
    @abstractmethod
    def run(cls, f: FlowMap, works: Sequence[Any], most: int) -> list[Any]:
        """The results of works that are all of one key, with networks on ``most`` rows at most.

        A result that is an exception is raised for its caller alone.
        """


@dataclass(frozen=True)
class Call(Work):
    """Any function of a model, such as an edit."""

    model: str
    function: Callable[[FlowMap], Any]
    n: int = 1

    @classmethod
    def run(cls, f: FlowMap, works: Sequence[Call], most: int) -> list[Any]:
        return [work.function(f) for work in works]


@dataclass(frozen=True)
class Generation(Work):
    """Samples ``0 ... n - 1`` of a seed; the result is uint8 [n, C, H, W].

    Args:
        model: its id.
        sampler: equal samplers share batches.
        seed: decides the noise.
        n: how many.
        labels: classes, n of them; none for an unconditional model.
        embedding: what all of them are to show, [1, d] or [1, tokens, d]; None without.
        on_step: told of the images after each step.
    """

    model: str
    sampler: Sampler
    seed: int
    n: int
    labels: Sequence[int] = ()
    embedding: Tensor | None = field(default=None, compare=False)
    on_step: OnStep | None = field(default=None, compare=False)

    @property
    def key(self) -> Hashable:
        told = None if self.embedding is None else self.embedding.shape
        return ("generation", self.model, self.sampler, told)

    @classmethod
    def run(cls, f: FlowMap, works: Sequence[Generation], most: int) -> list[Pictures]:
        noise = [NoiseStreams(w.seed, [i], f.shape) for w in works for i in range(w.n)]
        told = _told(f, works)
        parts = [
            _steps(f, works[0].sampler, noise[part], told.rows(part), rows)
            for part, rows in alike(f, len(noise), most)
        ]
        counts = [w.n for w in works]
        watched = any(w.on_step for w in works)
        images: tuple[Tensor, ...] = ()
        for number, steps in enumerate(zip(*parts, strict=True), 1):
            images = tuple(steps)
            if watched:
                for work, some in zip(works, _pictures(images, counts), strict=True):
                    if work.on_step and isinstance(some, Tensor):
                        work.on_step(number, some)
        return _pictures(images, counts)


def _told(f: FlowMap, works: Sequence[Generation]) -> Condition:
    """What the model is told of each image of works of one key."""
    labels = [label for w in works for label in w.labels]
    told = [
        w.embedding.expand(w.n, *w.embedding.shape[1:]) for w in works if w.embedding is not None
    ]
    return Condition(
        label=torch.tensor(labels) if f.num_classes else None,
        embedding=torch.cat(told) if told else None,
    )


def _steps(
    f: FlowMap, sampler: Sampler, noise: Sequence[NoiseStreams], told: Condition, rows: int
) -> Iterator[Tensor]:
    """Steps of a part of a batch, filled up to ``rows`` and cut back."""
    condition = told.filled(rows).to(f.device)
    for x in sampler.steps(f, NoiseStreams.join(noise, rows), condition):
        yield x[: len(noise)]


def _pictures(parts: Sequence[Tensor], counts: list[int]) -> list[Pictures]:
    """The images of each work as bytes, or that they are none."""
    return [_bytes(some) for some in torch.cat([part.cpu() for part in parts]).split(counts)]


def _bytes(images: Tensor) -> Pictures:
    try:
        return to_uint8(check_finite(images))
    except NotFinite as error:
        return error


@dataclass
class _Entry:
    work: Work
    future: Future
    arrived: float


@dataclass
class Counts:
    """What the engine has done, for the metrics."""

    batches: int = 0
    requests: int = 0
    images: int = 0
    cancelled: int = 0
    seconds: float = 0.0


class Engine:
    """The worker thread and its queue.

    Args:
        models: by id.
        max_batch: images in a batch at most; a single request may be larger.
        wait: seconds that the oldest request waits for others.
        capacity: requests that may wait.

    Raises:
        FewstepError: a limit that cannot be.
    """

    def __init__(
        self,
        models: dict[str, FlowMap],
        *,
        max_batch: int = 64,
        wait: float = 0.002,
        capacity: int = 256,
    ) -> None:
        if max_batch < 1 or capacity < 1 or not 0 <= wait <= 1:
            raise FewstepError(
                "serving needs max_batch >= 1, capacity >= 1 and 0 <= wait <= 1 s, got "
                f"{max_batch}, {capacity} and {wait:g}."
            )
        self.models, self.max_batch, self.wait, self.capacity = models, max_batch, wait, capacity
        self.counts = Counts()
        self.pace: dict[str, float] = {}  # seconds per image and step of a model's last images
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="fewstep-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether new work is refused."""
        return self._closed

    def submit(self, work: Work) -> Future:
        """Put work into the queue; cancel the future to take it out again.

        Raises:
            Busy: the queue is full.
            Closed: the engine is shutting down.
        """
        with self._changed:
            if self._closed:
                raise Closed("the server is shutting down.")
            if len(self._queue) >= self.capacity:
                self._drop_cancelled()
            if len(self._queue) >= self.capacity:
                raise Busy(self._retry_after())
            future: Future = Future()
            self._queue.append(_Entry(work, future, time.monotonic()))
            self._changed.notify()
        return future

    def close(self, timeout: float | None = None) -> bool:
        """Take no more work, finish what was accepted; whether all of it was done in time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _retry_after(self) -> int:
        done = self.counts
        images = sum(entry.work.n for entry in self._queue)
        return max(1, round(images * done.seconds / max(1, done.images)))

    def _drop_cancelled(self) -> None:
        kept = [entry for entry in self._queue if not entry.future.cancelled()]
        self.counts.cancelled += len(self._queue) - len(kept)
        self._queue = deque(kept)

    def _serve(self) -> None:
        with torch.inference_mode():
            while batch := self._next():
                self._run(batch)

    def _next(self) -> list[_Entry]:
        """The next batch; empty when closed and done."""
        with self._changed:
            while True:
                self._drop_cancelled()
                if not self._queue:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                left = self._queue[0].arrived + self.wait - time.monotonic()
                batch = self._matching()
                full = sum(entry.work.n for entry in batch) >= self.max_batch
                if full or left <= 0 or self._closed or batch[0].work.key is None:
                    break
                self._changed.wait(left)
            taken = {id(entry) for entry in batch}
            self._queue = deque(entry for entry in self._queue if id(entry) not in taken)
        running = [entry for entry in batch if entry.future.set_running_or_notify_cancel()]
        return running or self._next()

    def _matching(self) -> list[_Entry]:
        """The oldest request and those that can run with it, up to a full batch."""
        first, *others = self._queue
        batch, images = [first], first.work.n
        if first.work.key is None:
            return batch
        for entry in others:
            if images >= self.max_batch:
                break
            if entry.work.key == first.work.key and images + entry.work.n <= self.max_batch:
                batch.append(entry)
                images += entry.work.n
        return batch

    def _run(self, batch: list[_Entry]) -> None:
        works = [entry.work for entry in batch]
        started = time.monotonic()
        try:
            f = self.models[works[0].model]
            results = type(works[0]).run(f, works, self.max_batch)
        except BaseException as error:  # the thread must live on, and each caller hears of it
            for entry in batch:
                entry.future.set_exception(error)
            return
        seconds = time.monotonic() - started
        self.counts.seconds += seconds
        if isinstance(first := works[0], Generation):
            images = sum(work.n for work in works)
            self.pace[first.model] = seconds / (images * first.sampler.count)
        self.counts.batches += 1
        self.counts.requests += len(works)
        self.counts.images += sum(work.n for work in works)
        for entry, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)
