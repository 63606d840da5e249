"""A sampler as a list of linear combinations, which any program can follow.

Between two evaluations of the network a sampler with fixed times adds up what it has: its last
state ``x``, noises ``z`` and earlier evaluations ``d``, each times a number. Solvers of every
order, ancestral steps, churn and jumps differ in these numbers alone. They are found by running the
sampler itself on vectors of coefficients: noise and evaluations are unit vectors, and what the
sampler makes of them shows how it added them up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.parts import check_one_model
from fewstep.flow_map import FlowMap
from fewstep.parameterization import Parameterization
from fewstep.sampling import NoiseStreams, Sampler, Walk
from fewstep.trained import Trained

SMALL = 1e-13  # beside the largest coefficient: rounding
AGREE = 1e-8

Sum = list[tuple[float, str]]
"""``sum_k c_k r_k``: coefficients and what they multiply, such as "x", "z0" or "d3"."""
Evaluated = Callable[[Tensor, float, float | None], Tensor]
"""A model at points [B, ...] and a time: its map to another, or without one its denoiser."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a model at the point ``x`` and time ``t``: its map to ``s``.

    Without ``s`` it is the denoiser ``D(x, t)``.
    """

    t: float
    s: float | None
    x: Sum


@dataclass(frozen=True)
class Stage:
    """One step of a sampler: its evaluations, and the state after it."""

    evaluations: tuple[Evaluation, ...]
    state: Sum


@dataclass(frozen=True)
class Program:
    """A sampler of a denoiser, or of a map.

    Args:
        spec: of the sampler.
        stages: its steps.
        clip: whether each evaluation is clipped to [-1, 1].
    """

    spec: str
    stages: tuple[Stage, ...]
    clip: bool = False

    @property
    def json(self) -> dict[str, Any]:
        """As numbers and lists."""
        stages = [[[[e.t, e.s, e.x] for e in s.evaluations], s.state] for s in self.stages]
        return {"spec": self.spec, "clip": self.clip, "stages": stages}


def program_of(f: FlowMap, sampler: Sampler) -> Program:
    """What a sampler does with the denoiser or the map of a model.

    Raises:
        FewstepError: a sampler that chooses its own steps, that does more than add up, or that asks
            a second model.
    """
    if isinstance(sampler, Walk) and sampler.adaptive:
        raise FewstepError(
            f"{sampler.spec} chooses its own steps for every batch, and what is exported has fixed "
            "ones: take another solver, such as walk(solver=heun)."
        )
    check_one_model(sampler)
    sampler = sampler.fitted(f)
    alone = plain = sampler
    if isinstance(sampler, Walk):  # guidance and clipping are a matter of the evaluations
        alone = replace(sampler, guidance=1.0)
        plain = replace(alone, clip=False)
    clip = isinstance(sampler, Walk) and sampler.clip
    program = replace(_read(f, plain), spec=sampler.spec, clip=clip)
    if not _agrees(f, alone, program):
        raise FewstepError(
            f"{sampler.spec} does more between two evaluations than to add up what it has, which "
            "cannot be exported as fixed steps: take another sampler, such as walk(solver=heun)."
        )
    return program


def _read(f: FlowMap, sampler: Sampler) -> Program:
    """The program of a sampler, from what it makes of unit vectors."""
    size = 4 * (sampler.nfe + sampler.count) + 8
    names: list[str] = []
    asked: list[tuple[float, float | None, Tensor]] = []

    def unit(name: str) -> Tensor:
        names.append(name)
        return torch.eye(size, dtype=torch.float64)[len(names) - 1][None]

    def evaluated(x: Tensor, t: float, s: float | None) -> Tensor:
        asked.append((t, s, x[0]))
        return unit(f"d{len(asked) - 1}")

    draws = iter(range(size))
    noise = _Given(lambda: unit(f"z{next(draws)}"))
    stages: list[Stage] = []
    last: Tensor | None = None
    done = 0
    for x in sampler.states(_Stand(f, evaluated, (size,)), cast("NoiseStreams", noise)):
        made = [Evaluation(t, s, _sum(p, last, names)) for t, s, p in asked[done:]]
        stages.append(Stage(tuple(made), _sum(x[0], last, names)))
        last, done = x[0], len(asked)
    return Program("", tuple(stages))


def _sum(value: Tensor, last: Tensor | None, names: list[str]) -> Sum:
    """A vector of coefficients as a sum, with the last state in it where that leaves less."""
    terms: Sum = []
    rest = value
    if last is not None and last[0] != 0:
        share = float(value[0] / last[0])  # of the first noise, which every state holds
        without = value - share * last
        without = torch.where(without.abs() > SMALL * (share * last).abs().clamp(min=1), without, 0)
        if share and int((without != 0).sum()) < int((value != 0).sum()):
            terms, rest = [(share, "x")], without
    least = SMALL * float(rest.abs().max())
    return terms + [(float(c), n) for c, n in zip(rest, names, strict=False) if abs(c) > least]


def run(program: Program, evaluated: Evaluated, draw: Callable[[], Tensor]) -> Tensor:
    """What a program makes, in the plainest way: [B, ...]."""
    have: dict[str, Tensor] = {}

    def add(terms: Sum) -> Tensor:
        for _, name in terms:
            while name.startswith("z") and name not in have:
                have[f"z{sum(known.startswith('z') for known in have)}"] = draw()
        return torch.stack([c * have[name] for c, name in terms]).sum(0)

    count = 0
    for stage in program.stages:
        for e in stage.evaluations:
            out = evaluated(add(e.x), e.t, e.s)
            have[f"d{count}"] = out.clamp(-1, 1) if program.clip else out
            count += 1
        have["x"] = add(stage.state)
    return have["x"]


def _agrees(f: FlowMap, sampler: Sampler, program: Program) -> bool:
    """Whether a sampler and its program do the same with a model that is not linear."""

    def evaluated(x: Tensor, t: float, s: float | None) -> Tensor:
        return torch.tanh(x / (1 + t)) + (0.1 + (s or 0)) * x.roll(1, 1).cos()

    def drawn() -> _Given:
        generator = torch.Generator().manual_seed(0)
        return _Given(lambda: torch.randn(3, 5, generator=generator, dtype=torch.float64))

    *_, expected = sampler.states(_Stand(f, evaluated, (5,)), cast("NoiseStreams", drawn()))
    got = run(program, evaluated, drawn().normal)
    return bool((got - expected).abs().max() <= AGREE * expected.abs().max().clamp(min=1))


@dataclass
class _Given:
    """Noise that comes from a function; it has the face of `NoiseStreams`."""

    draw: Callable[[], Tensor]

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return self.draw()


class _Stand:
    """A model that evaluates something else, in double precision; see `fewstep.sampling.Model`."""

    latents, num_classes, classes = None, 0, ()
    device, x_dtype = torch.device("cpu"), torch.float64

    def __init__(self, f: FlowMap, evaluated: Evaluated, shape: tuple[int, ...]) -> None:
        self.p: Parameterization = f.p
        self.trained: Trained = f.trained
        self.shape = self.image_shape = shape
        self.flows = f.flows
        self._evaluated = evaluated

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        return self._evaluated(x, _number(t), None)

    def __call__(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        return self._evaluated(x, _number(t), self.p.eps if s is None else _number(s))

    def image(self, x: Tensor) -> Tensor:
        return x


def _number(t: Tensor | float) -> float:
    return float(t.flatten()[0]) if isinstance(t, Tensor) else t
