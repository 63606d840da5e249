"""What a model computes, as one graph: a whole sampler, or the map itself.

A graph of a sampler has its times and steps as constants: what runs it needs neither this package
nor, for ONNX, Python. The noise is an input, so that a graph gives the very images that the
sampler gives for a seed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from fewstep.condition import EVERYWHERE, Condition
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.parts import (
    Answer,
    Model,
    Part,
    answered_by,
    check_one_model,
    check_told_by_class,
)
from fewstep.exchange.graphs.recorded import evaluation, record
from fewstep.exchange.origin import licence
from fewstep.flow_map import FlowMap
from fewstep.sampling import NoiseStreams, Sampler, Walk
from fewstep.version import __version__

Run = Callable[..., Tensor]
"""The result of a graph from its inputs, in their order."""


@dataclass
class Given:
    """Noise that is given: the draws of every step, side by side [B, draws, *shape].

    It has the face of `fewstep.sampling.NoiseStreams`.
    """

    draws: Tensor
    taken: int = 0

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The next draw [B, *shape]."""
        self.taken += 1
        return self.draws[:, self.taken - 1].to(device, dtype)


@dataclass
class Counted:
    """Noise of which the number of draws is counted, and the numbers are zero."""

    shape: tuple[int, ...]
    taken: int = 0

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The next draw."""
        self.taken += 1
        return torch.zeros(1, *self.shape, dtype=dtype, device=device)


@dataclass(frozen=True)
class Plan:
    """A graph whose networks are not looked into.

    Args:
        graph: torch's functions of the inputs; each evaluation of a network is a call of a module,
            which is not there yet.
        constants: the module whose buffers are the graph's constants.
        parts: the networks, by the names of their modules.
    """

    graph: fx.Graph
    constants: nn.Module
    parts: dict[str, Part]

    def with_modules(self, module: Callable[[Part], nn.Module]) -> nn.Module:
        """The graph as a module whose parts are those that ``module`` gives."""
        made = Replay(self.graph)
        for name, value in self.constants.named_buffers():
            made.register_buffer(name, value)
        for name, part in self.parts.items():
            made.add_module(name, module(part))
        return made


class Replay(nn.Module):
    """A recorded graph, to be run with other inputs."""

    def __init__(self, graph: fx.Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Tensor:
        return fx.Interpreter(self, graph=self.graph).run(*inputs)


class Computation(nn.Module):
    """What can be written as a graph: a function of named tensors [B, ...] and of a model.

    Args:
        f: the model.
    """

    output: str
    """Name of what it gives."""
    precision: str = "fp32"
    """Of its networks' arithmetic."""
    exact: Computation
    """The same in float32."""

    def __init__(self, f: Model) -> None:
        super().__init__()
        check_told_by_class(f)
        self.f = f.eval()
        self.identity = identity_of(f)
        vars(self)["exact"] = self  # and no part of it

    @abstractmethod
    def inputs(self, rows: int) -> dict[str, Tensor]:
        """Inputs of so many rows by their names, the same each time."""

    @abstractmethod
    def computed(self, f: Model, **inputs: Tensor) -> Tensor:
        """The output [B, ...], by a model that stands for its own."""

    @property
    @abstractmethod
    def about(self) -> str:
        """What it is, in a few words."""

    @property
    def said(self) -> dict[str, Any]:
        """What a file of it says of itself, as JSON values."""
        f = self.f
        return {
            "fewstep": __version__,
            **self.identity,
            "precision": self.precision,
            "inputs": self.names,
            "output": self.output,
            "shape": list(f.shape),
            "image_shape": list(f.image_shape),
            "classes": list(f.classes),
            "objective": f.info.get("objective"),
            "origin": f.info.get("origin"),
            "lineage": f.info.get("lineage", []),
            "licence": licence(f.info),
        }

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return list(self.inputs(1))

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output [B, ...] from inputs [B, ...] in the order of their names."""
        return self.computed(self.f, **dict(zip(self.names, inputs, strict=True)))

    def example(self, rows: int) -> tuple[Tensor, ...]:
        """Inputs of so many rows, in the order of their names."""
        return tuple(self.inputs(rows).values())

    @torch.no_grad()
    def plan(self) -> Plan:
        """The graph of it.

        Raises:
            FewstepError: what it does depends on the numbers of its inputs.
        """
        parts: dict[str, Part] = {}

        def answer(part: Part) -> Answer:
            parts[part.name] = part
            return lambda *given: evaluation(part.name, *given)

        f = answered_by(self.f, answer)

        def run(*given: Tensor) -> Tensor:
            return self.computed(f, **dict(zip(self.names, given, strict=True)))

        graph, constants = record(run, self.inputs(1))
        return Plan(graph, constants, parts)

    def _condition(self, rows: int) -> dict[str, Tensor]:
        """Classes and weights of so many rows, as far as the model takes them."""
        label = torch.arange(rows) % max(1, self.f.num_classes)
        return {"label": label} if self.f.num_classes else {}


class Graph(Computation):
    """``images = graph(noise[, label][, guidance][, interval])`` of a model and a sampler.

    Args:
        f: the model.
        sampler: which; not one that chooses its own steps.

    Raises:
        FewstepError: an adaptive sampler, one that the model does not admit, or autoguidance.
    """

    output = "images"

    def __init__(self, f: Model, sampler: Sampler) -> None:
        super().__init__(f)
        if isinstance(sampler, Walk) and sampler.adaptive:
            raise FewstepError(
                f"{sampler.spec} chooses its own steps for every batch, and a graph has fixed "
                "ones: take another solver, such as walk(solver=heun)."
            )
        check_one_model(sampler)
        self.sampler = sampler.fitted(cast("FlowMap", f))
        self.guidance = weight_of(f, self.sampler)
        self.interval = interval_of(f, self.sampler)
        self.draws = self._count()

    @property
    def about(self) -> str:
        return self.sampler.spec

    @property
    def said(self) -> dict[str, Any]:
        own = {"kind": "sampler", "sampler": self.sampler.spec, "nfe": self.sampler.nfe}
        own |= {"steps": self.sampler.count, "draws": self.draws, "guidance": self.guidance}
        own |= {"interval": None if self.interval == EVERYWHERE else self.interval}
        return super().said | own

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of one row of the noise: the number of draws, and the shape of each."""
        return (self.draws, *self.f.shape)

    @torch.no_grad()
    def _count(self) -> int:
        """How often the sampler draws noise."""
        noise = Counted(self.f.shape)
        still = answered_by(self.f, lambda part: lambda x, *_: torch.zeros_like(x))
        given = {"label": torch.zeros(1, dtype=torch.int64)} if self.f.num_classes else {}
        deque(self._states(still, noise, Condition(**given)), maxlen=0)
        return noise.taken

    def inputs(self, rows: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(rows, *self.noise_shape, generator=generator)
        given = {"noise": noise, **self._condition(rows)}
        if self.guidance is not None:
            given["guidance"] = torch.full((rows,), self.guidance)
        if self.interval is not None:
            given["interval"] = torch.tensor([self.interval] * rows)
        return given

    def computed(self, f: Model, **inputs: Tensor) -> Tensor:
        """Images [B, *image_shape] in [-1, 1]."""
        condition = _told(inputs)
        (x,) = deque(self._states(f, Given(inputs["noise"]), condition), maxlen=1)
        return f.image(x).clamp(-1, 1)

    def _states(self, f: Model, noise: Any, condition: Condition) -> Any:
        return self.sampler.states(cast("FlowMap", f), cast("NoiseStreams", noise), condition)


class MapGraph(Computation):
    """``x0 = map(x, t[, s][, label][, guidance][, interval])``: one evaluation, at any time.

    Of a consistency model it is ``f(x, t)``, the map to ``eps``; of a diffusion model the denoiser
    ``D(x, t)``; of a map to any time ``X(x, t, s)``. In a latent space the result is a latent.

    Args:
        f: the model.

    Raises:
        FewstepError: nobody says what it was trained for.
    """

    output = "x0"

    @property
    def said(self) -> dict[str, Any]:
        return super().said | {"kind": "map", "map": self.about}

    def __init__(self, f: FlowMap) -> None:
        super().__init__(f)
        f.trained.check_known("the map")

    @property
    def about(self) -> str:
        t = self.f.trained
        return "X(x, t, s)" if t.maps_to_any else "f(x, t)" if t.maps_to_eps else "D(x, t)"

    def inputs(self, rows: int) -> dict[str, Tensor]:
        f = cast("FlowMap", self.f)
        t = f.p.T * torch.linspace(0.9, 0.3, rows)
        x = torch.randn(rows, *f.shape, generator=torch.Generator().manual_seed(0))
        given = {"x": t.reshape(-1, *(1 for _ in f.shape)) * x, "t": t}
        if f.trained.maps_to_any:
            given["s"] = t / 2
        given |= self._condition(rows)
        if f.trained.weights is not None:
            given["guidance"] = torch.full((rows,), weight_of(f, None) or 1.0)
        if f.trained.around is not None:
            given["interval"] = torch.tensor([EVERYWHERE] * rows)
        return given

    def computed(self, f: Model, **inputs: Tensor) -> Tensor:
        """Points [B, *shape] at time ``s``, ``eps`` or 0."""
        f, condition = cast("FlowMap", f), _told(inputs)
        x, t = inputs["x"], inputs["t"]
        if f.trained.maps_to_eps or f.trained.maps_to_any:
            return f(x, t, inputs.get("s"), condition)
        return f.D(x, t, condition)


def _told(inputs: dict[str, Tensor]) -> Condition:
    """What the inputs of a graph say of its rows, by their names there."""
    given = {name: inputs.get(name) for name in ("label", "guidance", "interval")}
    return Condition(label=given["label"], w=given["guidance"], interval=given["interval"])


def identity_of(f: Model) -> dict[str, str | None]:
    """What tells a model again: hashes of its network and of its decoder."""
    return {
        "model": f.fingerprint,
        "decoder": None if f.latents is None else f.latents.fingerprint,
    }


def weight_of(f: Model, sampler: Sampler | None) -> float | None:
    """The guidance weight that stands for a graph's input by default; None where it has none.

    It is an input of a network that has learned it, and of a walk under guidance.
    """
    asked = getattr(sampler, "guidance", None)
    if f.trained.weights is not None:
        default = f.trained.guidance if f.trained.guidance is not None else f.trained.weights[0]
        return default if asked is None else asked.w
    if isinstance(sampler, Walk) and sampler.guided is not None and sampler.guided.doubles:
        return sampler.guided.w
    return None


def interval_of(f: Model, sampler: Sampler) -> tuple[float, float] | None:
    """The interval of guidance that stands for a graph's input by default; None where it has none.

    It is an input of jumps of a network that has learned it.
    """
    if f.trained.around is None or isinstance(sampler, Walk):
        return None
    asked = getattr(sampler, "guidance", None)
    return EVERYWHERE if asked is None else asked.interval or EVERYWHERE
