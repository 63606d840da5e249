"""From a request's body to its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from torch import Tensor

from fewstep.data import to_uint8
from fewstep.editing import decode, latents, walk
from fewstep.editing.task import How
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.sampling import Asked, Sampler, default_taus
from fewstep.sampling.labels import check_embedding
from fewstep.serving.aside import aside
from fewstep.serving.edits import Editing, task_of
from fewstep.serving.engine import Busy, Call, Engine, Work
from fewstep.serving.faults import FAULTS, fault
from fewstep.serving.forms import Upload
from fewstep.serving.generating import Generating
from fewstep.serving.images import (
    base64_png,
    enlarge,
    from_base64,
    picture_of,
    scale_of,
)
from fewstep.serving.limits import Limits
from fewstep.serving.neighbours import TrainingImages
from fewstep.serving.packed import answer, class_name, event, png_answer, seed_of, settings_of
from fewstep.serving.schemas import (
    End,
    GenerationBody,
    InterpolationBody,
    NeighboursBody,
)
from fewstep.serving.shelf import Shelf, class_asked, class_names, class_number
from fewstep.threads import compute_alone

KEPT = 256  # samplers that were asked for
HELD = 8  # of the largest pictures that may wait at once

T = TypeVar("T")
Fit = Callable[[FlowMap, Asked], Sampler]
"""Makes of what is asked for the sampler of a model."""


class Disconnected(Exception):
    """The client left before its answer was ready."""


class Answers:
    """The routes' work.

    Args:
        engine: runs the models.
        shelf: the models.
        limits: what a request may ask for.
        training: the images that the models were trained on.
    """

    def __init__(
        self, engine: Engine, shelf: Shelf, limits: Limits, training: TrainingImages
    ) -> None:
        self.engine, self.shelf, self.limits = engine, shelf, limits
        self.training = training
        self._samplers: dict[tuple[str, Asked, Fit], Sampler] = {}
        self._held = 0
        # Looks through images, one request after another.
        self._aside = ThreadPoolExecutor(1, initializer=compute_alone)

    def models(self) -> list[dict[str, Any]]:
        """What a client needs to know of each model."""
        return [about | self._at_hand(about) for about in self.shelf.describe(self.limits.steps)]

    def _at_hand(self, about: dict[str, Any]) -> dict[str, Any]:
        """What this server knows of a model besides."""
        step, name = self.engine.pace.get(about["id"]), about["id"]
        return {
            "seconds_per_image": None if step is None else step * about["default_steps"],
            "training_images_missing": self.training.missing(name),
            "max_n": self.limits.n,
            "max_pixels": self.limits.pixels,
        }

    async def neighbours(self, body: NeighboursBody) -> Response:
        """The training images nearest to a picture."""
        name, f = self.shelf[body.model]
        C, H, W = f.image_shape

        def image() -> Tensor:
            self.training.check(name)
            return picture_of(from_base64(body.image, "image"), C, (H, W), "image").pixels

        sent = await asyncio.to_thread(image)
        started = time.monotonic()
        looking = asyncio.get_running_loop().run_in_executor(
            self._aside, self.training.nearest, name, sent, body.n
        )  # one that has begun goes on, and what it has read is kept
        late = "the training images are still being read: ask again in a while."
        found = await self._in_time(looking, late)
        whole = {"model": name, "seconds": round(time.monotonic() - started, 4), **found}
        return Response(json.dumps(whole, separators=(",", ":")), media_type="application/json")

    async def _sampler(
        self, name: str, body: GenerationBody | InterpolationBody, steps: int | None, fit: Fit
    ) -> Sampler:
        """The sampler of a model that a request asks for; made once, and aside.

        Raises:
            FewstepError: one that the model does not admit, that spends more than the limit, or
                that cannot say beforehand what it spends.
        """
        asked = Asked(steps, sampler=body.sampler, guidance=_guided(body))
        key = name, asked, fit
        if key not in self._samplers:
            sampler = await asyncio.to_thread(self._fitted, *key)
            if len(self._samplers) >= KEPT:
                self._samplers.pop(next(iter(self._samplers)))
            self._samplers[key] = sampler
        return self._samplers[key]

    def _fitted(self, name: str, asked: Asked, fit: Fit) -> Sampler:
        self.limits.check_asked(asked)
        sampler = fit(self.shelf.models[name], asked)
        self.limits.check_sampler(sampler)
        return sampler

    async def _in_time(self, work: Awaitable[T], late: str) -> T:
        """What comes of work within the limit.

        Raises:
            TimeoutError: it takes longer; in the words for that.
        """
        try:
            return await asyncio.wait_for(work, self.limits.seconds)
        except asyncio.TimeoutError:  # which Python 3.10 has apart
            raise TimeoutError(late) from None

    async def _read(self, name: str, f: FlowMap, prompt: str | None) -> Tensor | None:
        """The embedding of a prompt, for a model that is told texts.

        Raises:
            FewstepError: the encoder fails, or makes another kind of embeddings than the model's.
            TimeoutError: it takes too long.
        """
        text, reader = (prompt or "").strip(), self.shelf.readers.get(name)
        if reader is None or not text:
            return None
        reading = asyncio.to_thread(lambda: check_embedding(f, reader(text), 1))
        late = f"the prompt was not read within {self.limits.seconds:g} s: ask again in a while."
        return await self._in_time(reading, late)

    async def generations(self, body: GenerationBody, request: Request) -> Response:
        """Images, as one answer or as a stream of events."""
        name, f = self.shelf[body.model]
        steps = body.steps if body.sampler else body.steps or self.shelf.default_steps(f)
        self.limits.check(body.n, steps)
        sampler = await self._sampler(name, body, steps, self.shelf.engine.sampler)
        embedding = await self._read(name, f, body.prompt)
        job = Generating(name, f, body, sampler, self.limits, self.shelf.engine.name, embedding)
        if body.stream:
            events = job.events(lambda work: self.result(work, request))
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
        embedding = await self._read(name, f, body.prompt)
        told = embedding is not None
        seed, (label, notes) = seed_of(body), class_asked(f, body.label, body.prompt, read=told)
        task = task_of(body)
        how = How(
            body.n,
            body.steps,
            None,
            seed,
            _one_class(f, label),
            embedding,
            advance=lambda _: None,  # no bar in a server's log
        )
        job = await asyncio.to_thread(Editing.of, f, sent, task, how, self.limits)
        notes = notes + job.notes
        started = time.monotonic()
        with self._holding(job.held):
            results = await self.result(Call(name, job, body.n), request)
        seconds = time.monotonic() - started
        steps, engine = task.evaluations(how), self.shelf.engine.between
        settings = {
            "task": body.task,
            **body.settings(),
            **settings_of(name, seed, steps, class_name(f, how.label), engine),
            **({"prompt": (body.prompt or "").strip()} if told else {}),
            **({"notes": notes} if notes else {}),
        }
        if body.response_format == "png":
            return await aside(job.pixels, lambda: png_answer(*job.sheet(results, settings)))
        return await aside(
            job.pixels,
            lambda: answer(
                name, seed, steps, seconds, job.entries(results, settings), notes, engine=engine
            ),
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
        native = f.image_shape[1], f.image_shape[2]
        scale = scale_of(body.size, native, body.frames, self.limits.pixels)
        sampler: Sampler | None = None
        if body.sampler or _guided(body) or f.trained.guidance or f.trained.maps_to_any:
            sampler = await self._sampler(name, body, body.steps, _own_sampler)
        steps = body.steps or (sampler.count if sampler else f.trained.default_steps)
        embedding = await self._read(name, f, body.prompt)
        told = embedding is not None
        wanted, notes = class_asked(f, body.label, body.prompt, read=told)
        label = _end_class(f, wanted, body.start)

        def frames(f: FlowMap) -> Tensor:
            ends = [latents(f, [end.index], end.seed) for end in (body.start, body.to)]
            z = walk(torch.cat(ends), body.frames)
            how: dict[str, Any] = {"N": steps} if f.trained.solves else {}
            how = {"sampler": sampler} if sampler else how or {"taus": default_taus(f, steps)}
            how |= {"labels": label, "embedding": embedding}
            return to_uint8(decode(f, z, seed=body.start.seed, **how))

        started = time.monotonic()
        images = await self.result(Call(name, frames, body.frames), request)
        seconds = time.monotonic() - started
        engine = self.shelf.engine.between
        common = settings_of(name, body.start.seed, steps, class_name(f, label), engine)
        common |= {"sampler": sampler.spec} if sampler else {}
        common |= {"from": body.start.model_dump(), "to": body.to.model_dump()}
        common |= {"prompt": (body.prompt or "").strip()} if told else {}
        return await aside(
            scale**2 * images[:, 0].numel(),
            lambda: answer(
                name,
                body.start.seed,
                steps,
                seconds,
                [
                    {"b64_json": base64_png(enlarge(x, scale), {**common, "frame": i}), "index": i}
                    for i, x in enumerate(images)
                ],
                notes,
                engine=engine,
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


async def _all(first: str, others: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    try:
        async for one in others:
            yield one
    except Disconnected:
        return
    except Exception as exc:  # the answer has begun: what went wrong is its last event
        yield event("error", fault(exc)[1])
        if not isinstance(exc, tuple(FAULTS)):
            raise


async def _leaving(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


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


def _own_sampler(f: FlowMap, asked: Asked) -> Sampler:
    """The sampler between two images, which the engine of samples may not have."""
    return asked.of(f)


def _guided(body: GenerationBody | InterpolationBody) -> Guided | None:
    """The guidance that is asked for.

    Raises:
        FewstepError: an interval without a weight; either out of range.
    """
    if body.guidance is not None:
        return Guided(body.guidance, body.guidance_interval)
    if body.guidance_interval is not None:
        raise FewstepError("guidance_interval says where guidance applies: give both.")
    return None
