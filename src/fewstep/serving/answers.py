"""From a request's body to its answer."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from torch import Tensor

from fewstep import __version__
from fewstep.data import to_uint8
from fewstep.editing import decode, latents, walk
from fewstep.editing.tasks import How
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.sampling import Sampler, default_steps, default_taus, sampler_for
from fewstep.serving.aside import aside
from fewstep.serving.edits import Editing, task_of, wanted
from fewstep.serving.engine import Busy, Call, Engine, Generation, OnStep, Work
from fewstep.serving.faults import FAULTS, fault
from fewstep.serving.forms import Upload
from fewstep.serving.images import (
    base64_png,
    enlarge,
    parse_size,
    png,
    sheet,
)
from fewstep.serving.schemas import (
    Body,
    End,
    GenerationBody,
    InterpolationBody,
)
from fewstep.serving.shelf import Shelf, class_names, class_number, is_diffusion

T = TypeVar("T")

HELD = 8  # of the largest pictures that may wait at once


class Disconnected(Exception):
    """The client left before its answer was ready."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Args:
        n: images.
        steps: network evaluations of each, or solver steps.
        body: bytes of a request.
        pixels: of an uploaded picture, and of all pictures of an answer together.
        parts: images of the model's size that an edit cuts its pictures into.
        seconds: from the request to the answer.
    """

    n: int = 64
    steps: int = 64
    body: int = 20_000_000
    pixels: int = 16_777_216
    parts: int = 1024
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise FewstepError(f"the limit {name} must be above 0, got {value:g}.")

    def check(self, n: int, steps: int | None) -> None:
        """Raise `FewstepError` for too many images or steps."""
        if n > self.n:
            raise FewstepError(f"n={n}: this server makes at most {self.n} images per request.")
        if steps is not None and steps > self.steps:
            raise FewstepError(f"steps={steps}: this server takes at most {self.steps} steps.")


class Answers:
    """The routes' work.

    Args:
        engine: runs the models.
        shelf: the models.
        limits: what a request may ask for.
    """

    def __init__(self, engine: Engine, shelf: Shelf, limits: Limits) -> None:
        self.engine, self.shelf, self.limits = engine, shelf, limits
        self._samplers: dict[tuple[str, int], Sampler] = {}
        self._held = 0

    def sampler(self, name: str, steps: int) -> Sampler:
        """The sampler of a model for a number of steps; made once."""
        if (name, steps) not in self._samplers:
            self._samplers[name, steps] = sampler_for(self.shelf.models[name], steps)
        return self._samplers[name, steps]

    async def generations(self, body: GenerationBody, request: Request) -> Response:
        """Images, as one answer or as a stream of events."""
        name, f = self.shelf[body.model]
        job = _Generating(self, name, f, body)
        if body.stream:
            events = job.events(request)
            first = await anext(events)  # an error that is known now is an answer, not an event
            return StreamingResponse(_all(first, events), media_type="text/event-stream")
        strips: list[Tensor] = []
        started = time.monotonic()
        on_step = (lambda _, x: strips.append(x)) if body.strip else None
        images = await self.result(job.work(on_step), request)
        seconds = time.monotonic() - started
        if body.response_format == "png":
            return await aside(job.pixels, lambda: job.sheet(images))
        return await aside(job.pixels, lambda: job.answer(images, strips, seconds))

    async def edits(self, sent: Upload, request: Request) -> Response:
        """A picture, edited."""
        body = sent.body
        name, f = self.shelf[body.model]
        self.limits.check(body.n, body.steps)
        seed, (label, notes) = _seed(body), wanted(f, body.label, body.prompt)
        task = task_of(body)
        how = How(
            body.n,
            body.steps,
            None,
            seed,
            _one_class(f, label),
            advance=lambda _: None,  # no bar in a server's log
        )
        job = await asyncio.to_thread(Editing.of, f, sent, task, how, self.limits)
        notes = notes + job.notes
        started = time.monotonic()
        with self._holding(job.held):
            results = await self.result(Call(name, job, body.n), request)
        seconds = time.monotonic() - started
        steps = task.evaluations(how)
        settings = {
            "task": body.task,
            **body.settings(),
            **_settings(name, seed, steps, _class_name(f, how.label)),
            **({"notes": notes} if notes else {}),
        }
        if body.response_format == "png":
            return await aside(
                job.pixels, lambda: _png(enlarge(sheet(results), job.scale), settings)
            )
        return await aside(
            job.pixels,
            lambda: _answer(name, seed, steps, seconds, job.entries(results, settings), notes),
        )

    @contextmanager
    def _holding(self, pixels: int) -> Iterator[None]:
        """Count decoded pictures that wait, which may not fill the memory.

        Raises:
            Busy: there are too many.
        """
        if self._held and self._held + pixels > HELD * self.limits.pixels:
            raise Busy(1)
        self._held += pixels
        try:
            yield
        finally:
            self._held -= pixels

    async def interpolations(self, body: InterpolationBody, request: Request) -> Response:
        """The frames between two images, ends included."""
        name, f = self.shelf[body.model]
        self.limits.check(body.frames, body.steps)
        steps = body.steps or default_steps(f)
        scale = parse_size(
            body.size, (f.image_shape[1], f.image_shape[2]), self.limits.pixels // body.frames
        )
        label = _end_class(f, body.label, body.start)

        def frames(f: FlowMap) -> Tensor:
            ends = [latents(f, [end.index], end.seed) for end in (body.start, body.to)]
            z = walk(torch.cat(ends), body.frames)
            how: dict[str, Any] = {"N": steps} if is_diffusion(f) else {}
            how = how or {"taus": default_taus(f, steps)}
            return to_uint8(decode(f, z, seed=body.start.seed, labels=label, **how))

        started = time.monotonic()
        images = await self.result(Call(name, frames, body.frames), request)
        seconds = time.monotonic() - started
        common = _settings(name, body.start.seed, steps, _class_name(f, label))
        common |= {"from": body.start.model_dump(), "to": body.to.model_dump()}
        return await aside(
            scale**2 * images[:, 0].numel(),
            lambda: _answer(
                name,
                body.start.seed,
                steps,
                seconds,
                [
                    {"b64_json": base64_png(enlarge(x, scale), {**common, "frame": i}), "index": i}
                    for i, x in enumerate(images)
                ],
            ),
        )

    async def result(self, work: Work, request: Request) -> Any:
        """What the engine makes of work, unless the client leaves or the time is over.

        Raises:
            TimeoutError: the limit on seconds.
            Disconnected: the client left; work that has not begun is dropped.
        """
        future = self.engine.submit(work)
        wrapped = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(_leaving(request))
        try:
            done, _ = await asyncio.wait(
                {wrapped, leaving},
                timeout=self.limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if wrapped in done:
                return wrapped.result()
            if leaving in done:
                raise Disconnected
            raise TimeoutError(f"the answer was not ready within {self.limits.seconds:g} s.")
        finally:
            leaving.cancel()
            wrapped.cancel()


class _Generating:
    """One request for images."""

    def __init__(self, answers: Answers, name: str, f: FlowMap, body: GenerationBody) -> None:
        self.answers, self.name, self.f, self.body = answers, name, f, body
        self.steps = body.steps or default_steps(f)
        limits = answers.limits
        limits.check(body.n, self.steps)
        self.frames = body.n * (self.steps if body.strip else 1)
        self.scale = parse_size(
            body.size, (f.image_shape[1], f.image_shape[2]), limits.pixels // self.frames
        )
        self.seed = _seed(body)
        label, self.notes = wanted(f, body.label, body.prompt)
        number = class_number(f, label)
        self.labels: tuple[int, ...] = ()
        if f.num_classes:
            whole = (i % f.num_classes for i in range(body.n))
            self.labels = tuple(whole) if number is None else (number,) * body.n
        self.sampler = answers.sampler(name, self.steps)

    @property
    def pixels(self) -> int:
        """Pixels of the answer."""
        H, W = self.f.image_shape[1:]
        return self.frames * H * W * self.scale**2

    def work(self, on_step: OnStep | None = None) -> Generation:
        """What the engine is asked for."""
        return Generation(self.name, self.sampler, self.seed, self.body.n, self.labels, on_step)

    def settings(self, i: int) -> dict[str, Any]:
        """What a PNG says of how it was made."""
        label = self.labels[i] if self.labels else None
        common = _settings(self.name, self.seed, self.steps, _class_name(self.f, label))
        return common | {"index": i}

    def image(self, x: Tensor, i: int, strips: Sequence[Tensor]) -> dict[str, Any]:
        """One entry of the answer's data."""
        settings = self.settings(i)
        entry = {
            "b64_json": base64_png(enlarge(x, self.scale), settings),
            "seed": self.seed,
            "index": i,
            "class": settings["class"],
        }
        if strips:
            entry["strip"] = [
                base64_png(enlarge(step[i], self.scale), settings | {"step": number})
                for number, step in enumerate(strips, 1)
            ]
        return entry

    def answer(self, images: Tensor, strips: Sequence[Tensor], seconds: float) -> Response:
        """The answer in JSON."""
        data = [self.image(x, i, strips) for i, x in enumerate(images)]
        return _answer(self.name, self.seed, self.steps, seconds, data, self.notes)

    def sheet(self, images: Tensor) -> Response:
        """The answer as one picture."""
        pixels = enlarge(sheet(list(images)), self.scale)
        return _png(pixels, self.settings(0) | {"n": self.body.n})

    async def events(self, request: Request) -> AsyncIterator[str]:
        """``image.partial`` after every step, ``image.completed``, and ``done`` with the whole."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[int, Tensor] | None] = asyncio.Queue()
        strips: list[Tensor] = []

        def on_step(number: int, x: Tensor) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (number, x))

        started = time.monotonic()
        running = asyncio.ensure_future(self.answers.result(self.work(on_step), request))
        running.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (step := await queue.get()) is not None:
                number, x = step
                strips.append(x)
                for i, image in enumerate(x):
                    yield await self._aside(partial(self.partial, number, i, image))
            images = running.result()
        finally:
            running.cancel()
        shown = strips if self.body.strip else []
        seconds = time.monotonic() - started
        data = []
        for i, image in enumerate(images):
            data.append(await self._aside(partial(self.image, image, i, shown)))
            yield await self._aside(partial(_event, "image.completed", data[-1]))
        whole = _envelope(self.name, self.seed, self.steps, seconds, data, self.notes)
        yield await self._aside(partial(_event, "done", whole))

    async def _aside(self, work: Callable[[], T]) -> T:
        """Work on one image of the answer."""
        return await aside(self.pixels, work)

    def partial(self, number: int, i: int, image: Tensor) -> str:
        """The event of an image after a step."""
        b64 = base64_png(enlarge(image, self.scale), self.settings(i))
        about = {"index": i, "step": number, "steps": self.steps}
        return _event("image.partial", about | {"b64_json": b64})


async def _all(first: str, others: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    try:
        async for event in others:
            yield event
    except Disconnected:
        return
    except Exception as exc:  # the answer has begun: what went wrong is its last event
        yield _event("error", fault(exc)[1])
        if not isinstance(exc, tuple(FAULTS)):
            raise


async def _leaving(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _envelope(
    name: str,
    seed: int,
    steps: int,
    seconds: float,
    data: list[dict[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "created": int(time.time()),
        "model": name,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 4),
        "notes": list(notes),
        "data": data,
    }


def _answer(
    name: str,
    seed: int,
    steps: int,
    seconds: float,
    data: list[dict[str, Any]],
    notes: Sequence[str] = (),
) -> Response:
    whole = _envelope(name, seed, steps, seconds, data, notes)
    return Response(json.dumps(whole, separators=(",", ":")), media_type="application/json")


def _png(pixels: Tensor, settings: dict[str, Any]) -> Response:
    return Response(png(pixels, settings), media_type="image/png")


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _settings(name: str, seed: int, steps: int, label: str | None) -> dict[str, Any]:
    return {"fewstep": __version__, "model": name, "seed": seed, "steps": steps, "class": label}


def _seed(body: Body) -> int:
    return secrets.randbelow(2**31) if body.seed is None else body.seed


def _class_name(f: FlowMap, label: int | None) -> str | None:
    names = class_names(f)
    return None if label is None or names is None else names[label]


def _one_class(f: FlowMap, label: int | str | None) -> int | None:
    """The class of an edit, which a conditional model must be told."""
    number = class_number(f, label)
    names = class_names(f)
    if number is None and names:
        raise FewstepError(f"this model is conditional: give the class, one of {', '.join(names)}.")
    return number


def _end_class(f: FlowMap, label: int | str | None, start: End) -> int | None:
    """The class of an interpolation: the one asked for, or that of the image it starts from."""
    number = class_number(f, label)
    if number is None and f.num_classes:
        return start.index % f.num_classes
    return number
