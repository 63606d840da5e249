"""What one training step computes, and how long that takes on this machine."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fewstep.errors import FewstepWarning
from fewstep.models import AnyModel
from fewstep.needs import BACKWARD, TANGENT
from fewstep.networks import MLP, FourierOperator, Network
from fewstep.networks.forward_mode import forward_mode
from fewstep.objectives import Objective
from fewstep.parameterization import Parameterization
from fewstep.runs.activations import evaluated
from fewstep.runs.components import make_model, make_objective, objective_of
from fewstep.runs.run import COMPANIONS, Run
from fewstep.tracing import as_graph

ROWS = 16  # of the batch that evaluations are counted on, unless a loss takes more
REAL = 200e9  # operations, forwards and backwards of one image, up to which the network is timed
AT_ONCE = 50e9  # operations of one timed step, unless one image has more
OF_CONVOLUTION = 2 / 3  # share of a plain convolution's speed that a whole U-Net reaches


@dataclass(frozen=True)
class Evaluations:
    """Of the network, for each image of a step.

    Args:
        trained: with gradient.
        others: without: of the target and of the teacher.
        kept: how often an evaluation's activations are held for the backward pass.
    """

    trained: float
    others: float
    kept: float

    @property
    def cost(self) -> float:
        """In evaluations without gradient."""
        return (1 + BACKWARD) * self.trained + self.others


def build_objective(run: Run, f: AnyModel) -> Objective:
    """The run's objective with ``f`` for its companions, and without a learned distance.

    Of a companion that it need not have, only where the run names one.
    """
    known = inspect.signature(objective_of(run)).parameters
    asked = [name for name in COMPANIONS if name in known]
    models = {n: _companion(f) for n in asked if getattr(run, n) or _is_needed(known[n])}
    if "distance" in known:  # a learned one has weights that would have to be there
        return make_objective(run, f, models, distance="l2")
    return make_objective(run, f, models)


def _is_needed(argument: inspect.Parameter) -> bool:
    return argument.default is inspect.Parameter.empty


def _companion(f: AnyModel) -> AnyModel:
    """What stands for a model that is not looked at: it can be guided, if it has classes."""
    model = f.frozen_copy()
    model.trained = replace(model.trained, null_class=f.num_classes > 0)
    return model


def evaluations(run: Run, F: Network, p: Parameterization) -> Evaluations:
    """Counted in a step of the run's objective with a tiny network in the place of ``F``."""
    if objective_of(run).makes.decodes:
        return Evaluations(1, 0, 1)
    M = _times(F)
    return counted(build_objective(run, make_model(_stand_in(F), p)).train(), p, M)


def counted(objective: Objective, p: Parameterization, M: int = 1) -> Evaluations:
    """Counted in the first step of an objective on points of four numbers.

    Args:
        objective: on an mlp, or on a dfno that is made from one.
        p: the parameterization of its map.
        M: states of a trajectory.
    """
    rows = max(ROWS, objective.fewest.images)
    found = {"trained": 0.0, "others": 0.0, "kept": 0.0}

    def count(module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        derived = any(forward_mode(x) for x in (*args, *named.values()) if x is not None)
        cost = (1 + TANGENT * derived) * len(args[0]) / (rows * M)
        found["trained" if torch.is_grad_enabled() else "others"] += cost
        found["kept"] += cost * torch.is_grad_enabled()

    for part in objective.modules():
        if isinstance(part, MLP):
            part.register_forward_pre_hook(count, with_kwargs=True)
    x = torch.zeros(rows, 4)
    columns = {
        "noise": torch.ones(rows, 4),
        "trajectory": torch.ones(rows, M, 4),
        "times": torch.full((rows, M), p.t_min),
    }
    # Of a column that a reader of the user's gives nobody knows the shape: a number an example.
    given = {name: columns.get(name, torch.ones(rows)) for name in objective.needs.columns}
    most, turns = 0.0, objective.turns(0)
    with torch.random.fork_rng(devices=[]):
        for turn in turns:
            for _ in range(turn.repeat):
                found["kept"] = 0.0
                sure = len(turns) == 1 and given.keys() <= columns.keys()
                alone = nullcontext() if sure else _counting(turn.name)
                with objective.only(turn), alone, as_graph():
                    objective(x, 0, turn=turn, **given)
                most = max(most, found["kept"])
    return Evaluations(found["trained"], found["others"], most)


@contextmanager
def _counting(turn: str) -> Iterator[None]:
    """A block whose loss may not admit what stands for the real network and columns."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        warnings.warn(
            f"the turn {turn} is not in the estimate: its loss could not be computed with a small "
            "network in the place of the map's and a number in that of each further column "
            f"({str(error).splitlines()[0][:120]}).",
            FewstepWarning,
            stacklevel=4,
        )


def _stand_in(F: Network) -> Network:
    if isinstance(F, FourierOperator):
        return FourierOperator((4,), base="mlp(width=8, blocks=1)", times=F.M)
    return MLP(
        (4,),
        num_classes=F.num_classes,
        width=8,
        blocks=1,
        label_dropout=F.label_dropout,
        two_time=F.two_time,
        guidance_embedding=F.guidance_embedding,
        interval_embedding=F.interval_embedding,
        scaled_by_weight=F.scaled_by_weight,
    )


def _times(F: Network) -> int:
    return F.M if isinstance(F, FourierOperator) else 1


@dataclass(frozen=True)
class Speed:
    """Of this machine.

    Args:
        flops: operations a second.
        how: what was measured.
    """

    flops: float
    how: str


def speed(
    make: Callable[[], Network], flops: int, images: int, device: torch.device, *, bf16: bool
) -> Speed:
    """Operations a second of a network, forwards and backwards.

    The network itself is timed where an image takes few operations, else one convolution.

    Args:
        make: builds it.
        flops: operations of one evaluation of one image.
        images: of a micro-batch.
        device: where.
        bf16: under autocast.
    """
    whole = (1 + BACKWARD) * max(flops, 1)
    if whole > REAL and device.type != "cuda":
        seconds = _seconds(*_convolution(device), device, bf16)
        return Speed(
            OF_CONVOLUTION * 3 * 2 * 9 * 128 * 128 * 32 * 32 * 4 / seconds,
            f"the speed of a convolution here, of which a U-Net reaches {OF_CONVOLUTION:.0%}",
        )
    n = int(min(images, max(1, AT_ONCE * (1 if device.type == "cpu" else 100) // whole)))
    F = make().to(device).train()
    x = torch.randn(n, *F.shape, device=device)
    seconds = _seconds(lambda x: evaluated(F, x), x, device, bf16)
    return Speed(whole * n / seconds, f"two steps of {n} images, forwards and backwards")


def _convolution(device: torch.device) -> tuple[nn.Module, Tensor]:
    layer = nn.Conv2d(128, 128, 3, padding=1, device=device)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(4, 128, 32, 32, device=device, requires_grad=True)
    return layer, x.to(memory_format=torch.channels_last)


def _seconds(
    call: Callable[[Tensor], Tensor], x: Tensor, device: torch.device, bf16: bool
) -> float:
    """Of the faster of two runs, after one that does not count."""
    took = []
    for _ in range(3):
        _wait(device)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            y = call(x)
        y.float().square().mean().backward()
        _wait(device)
        took.append(time.perf_counter() - start)
    return min(took[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
