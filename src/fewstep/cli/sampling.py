"""What the commands that sample share: the options that say how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from cyclopts import Parameter

from fewstep.cli.command import Whole
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.engines import Engine
from fewstep.flow_map import FlowMap
from fewstep.guidance import Autoguided, Guided
from fewstep.models import as_map
from fewstep.precision import Precision
from fewstep.runs.opening import open_model
from fewstep.sampling import Asked, Model, Sampler, Walk

SAMPLER = Parameter(
    help="The sampler as a spec: jumps(gamma=0.5, steps=4) of a map, walk(solver=dpm3, nfe=12) of "
    "a diffusion model, ... as fewstep list samplers shows them; default the model's own. The "
    "options below say the same one by one."
)
SOLVER = Parameter(
    help="Solver of a diffusion model, by default heun: euler, ddim(eta=1), dpm3, "
    "rk45(rtol=1e-4), ... as fewstep list solvers shows them."
)
GRID = Parameter(
    help="Times of a diffusion model's steps: karras(rho=7), straight, time, quadratic or log_snr; "
    "default that of the solver's paper."
)
CLIP = Parameter(
    help="Clip the denoised image to [-1, 1] at every evaluation of a diffusion model. It keeps a "
    "model with large errors at the strongest noise from leaving the range; it harms a good one."
)
TAUS = Parameter(
    consume_multiple=True,
    negative_iterable="",
    help="Time points after the first step, decreasing; default those that came with the model.",
)
GUIDANCE = (
    "Weight of classifier-free guidance: 1 is none, more shows the class more clearly, at less "
    "variety and two network evaluations in place of one. It takes a model that was trained with "
    "--network.label-dropout, or --weak; default the model's own"
)
INTERVAL = Parameter(
    consume_multiple=True,
    negative_iterable="",
    help="Guide only at noise levels sigma/alpha between these two; default at all.",
)
WEAK = Parameter(
    help="Weaker model that --guidance leads away from, in the place of the null class "
    "(autoguidance): a run folder, checkpoint folder or model file of the same process and "
    "classes, such as an early checkpoint of the same run."
)
ENGINE = Parameter(
    help="What evaluates the network: torch; onnx, which is onnxruntime on the CPU, by graphs that "
    "are made the first time and kept in the cache; or onnx:FILE, a sampler that fewstep export "
    "wrote for this model."
)
STEPS = (
    "Network evaluations of a consistency model (default 1), or solver steps of a diffusion model "
    "(default 18)"
)
NFE = "Network evaluations to spend exactly, instead of --steps"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class How:
    """One way to sample a model."""

    sampler: Annotated[str | None, SAMPLER] = None
    steps: Annotated[Whole | None, Parameter(help=f"{STEPS}.")] = None
    nfe: Annotated[Whole | None, Parameter(help=f"{NFE}.")] = None
    taus: Annotated[tuple[float, ...] | None, TAUS] = None
    solver: Annotated[str | None, SOLVER] = None
    grid: Annotated[str | None, GRID] = None
    clip: Annotated[bool, CLIP] = False
    guidance: Annotated[float | None, Parameter(help=f"{GUIDANCE}.")] = None
    guidance_interval: Annotated[tuple[float, float] | None, INTERVAL] = None
    weak: Annotated[str | None, WEAK] = None

    def asked(self) -> Asked:
        """The same for the library.

        Raises:
            FewstepError: what contradicts itself.
        """
        return Asked(
            self.steps,
            self.nfe,
            self.taus,
            self.solver,
            self.grid,
            self.clip,
            self.sampler,
            guided(self.guidance, self.guidance_interval, self.weak),
        )


def guided(
    w: float | None, interval: tuple[float, float] | None, weak: str | None = None
) -> Guided | None:
    """The guidance of a weight, of an interval and of the place of a weaker model.

    Raises:
        FewstepError: an interval or a model without a weight; a number out of range.
    """
    if w is not None:
        return Guided(w, interval) if weak is None else Autoguided(w, interval, weak=weak)
    if interval is not None:
        raise FewstepError("--guidance-interval says where --guidance applies: give both.")
    if weak is not None:
        raise FewstepError("--weak says what --guidance leads away from: give both.")
    return None


def opening(
    engine: Engine, device: torch.device, precision: Precision | None = None
) -> Callable[[str], FlowMap]:
    """What opens the weaker model of an autoguidance; the same model once.

    Args:
        engine: what evaluates the model that is guided.
        device: where both compute.
        precision: of the network's arithmetic.
    """

    @cache
    def opened(place: str) -> FlowMap:
        if engine.name != "torch":
            raise FewstepError("autoguidance is evaluated by torch alone: leave out --engine.")
        found = open_model(place, device=device, precision=precision)
        found.trained.check_weak()
        return as_map(found, "autoguidance")

    return opened


def spent(sampler: Sampler) -> str:
    """The evaluations of an image: exact, or an adaptive solver's mean."""
    many = f"{sampler.nfe} network evaluation{'' if sampler.nfe == 1 else 's'} each"
    return f"{many} on average" if isinstance(sampler, Walk) and sampler.adaptive else many


def coarse(sampler: Sampler, f: Model) -> list[str]:
    """What to say of a walk in so few steps that another grid is better."""
    if not (isinstance(sampler, Walk) and sampler.coarse(f.p)):
        return []
    return ["in so few steps --grid straight is often better than Karras' grid (docs/samplers.md)."]
