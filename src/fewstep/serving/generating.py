"""One request for images, as one answer or as a stream of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi.responses import Response
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.sampling import Sampler
from fewstep.serving.aside import aside
from fewstep.serving.engine import Generation, OnStep, Work
from fewstep.serving.images import base64_png, enlarge, scale_of, sheet
from fewstep.serving.limits import Limits
from fewstep.serving.packed import (
    answer,
    class_name,
    envelope,
    event,
    png_answer,
    seed_of,
    settings_of,
)
from fewstep.serving.schemas import GenerationBody
from fewstep.serving.shelf import class_asked, class_number

T = TypeVar("T")


class Generating:
    """One request for images.

    Args:
        name, f: the model.
        body: what is asked.
        sampler: the one asked for.
        limits: what may be asked.
        engine: name of what evaluates the model.
        embedding: of the prompt, where the model is told texts.

    Raises:
        FewstepError: a size or a class that does not fit.
    """

    def __init__(
        self,
        name: str,
        f: FlowMap,
        body: GenerationBody,
        sampler: Sampler,
        limits: Limits,
        engine: str,
        embedding: Tensor | None = None,
    ) -> None:
        self.name, self.f, self.body, self.sampler = name, f, body, sampler
        self.engine, self.embedding = engine, embedding
        self.steps = sampler.count
        self.frames = body.n * (self.steps if body.strip else 1)
        native = f.image_shape[1], f.image_shape[2]
        self.scale = scale_of(body.size, native, self.frames, limits.pixels)
        self.seed = seed_of(body)
        label, self.notes = class_asked(f, body.label, body.prompt, read=embedding is not None)
        number = class_number(f, label)
        self.labels: tuple[int, ...] = ()
        if f.num_classes:
            whole = (i % f.num_classes for i in range(body.n))
            self.labels = tuple(whole) if number is None else (number,) * body.n

    @property
    def pixels(self) -> int:
        """Pixels of the answer."""
        H, W = self.f.image_shape[1:]
        return self.frames * H * W * self.scale**2

    def work(self, on_step: OnStep | None = None) -> Generation:
        """What the engine is asked for."""
        return Generation(
            self.name, self.sampler, self.seed, self.body.n, self.labels, self.embedding, on_step
        )

    def settings(self, i: int) -> dict[str, Any]:
        """What a PNG says of how it was made."""
        label = self.labels[i] if self.labels else None
        name = class_name(self.f, label)
        common = settings_of(self.name, self.seed, self.steps, name, self.engine)
        read = {} if self.embedding is None else {"prompt": (self.body.prompt or "").strip()}
        return common | {"sampler": self.sampler.spec, "index": i} | read

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
        made = self.name, self.seed, self.steps, seconds, data, self.notes
        return answer(*made, engine=self.engine)

    def sheet(self, images: Tensor) -> Response:
        """The answer as one picture."""
        pixels = enlarge(sheet(list(images)), self.scale)
        return png_answer(pixels, self.settings(0) | {"n": self.body.n})

    async def events(self, result: Callable[[Work], Awaitable[Any]]) -> AsyncIterator[str]:
        """``image.partial`` after every step, ``image.completed``, and ``done`` with the whole.

        Args:
            result: waits for what the engine makes of work.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[int, Tensor] | None] = asyncio.Queue()
        strips: list[Tensor] = []

        def on_step(number: int, x: Tensor) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (number, x))

        started = time.monotonic()
        running = asyncio.ensure_future(result(self.work(on_step)))
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
            yield await self._aside(partial(event, "image.completed", data[-1]))
        made = self.name, self.seed, self.steps, seconds, data, self.notes
        whole = envelope(*made, self.engine)
        yield await self._aside(partial(event, "done", whole))

    async def _aside(self, work: Callable[[], T]) -> T:
        """Work on one image of the answer."""
        return await aside(self.pixels, work)

    def partial(self, number: int, i: int, image: Tensor) -> str:
        """The event of an image after a step."""
        b64 = base64_png(enlarge(image, self.scale), self.settings(i))
        about = {"index": i, "step": number, "steps": self.steps}
        return event("image.partial", about | {"b64_json": b64})
