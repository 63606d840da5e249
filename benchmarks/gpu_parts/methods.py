"""Few-step models of one EDM teacher on CIFAR-10, each of equal seconds: ECT, sCM, MeanFlow.

All have the small network of the speedrun, its optimiser and the teacher's weights. Each is scored
by the sampler of its paper in one step and in two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fewstep.flow_map import FlowMap
from fewstep.objectives import ECT, Objective, ScoreMatching
from fewstep.objectives.meanflow import MeanFlow
from fewstep.objectives.scm import SCD, SCT
from fewstep.parameterization import EDM, Parameterization, RectifiedFlow, TrigFlow, match
from fewstep.sampling import Jumps, Multistep, Sampler, Walk
from gpu_parts.race import Race, prepared, trained
from gpu_parts.runner import TEACHER
from gpu_parts.stage import Stage

MIDDLE = 0.821  # noise level of the second step
ANGLE = math.atan(MIDDLE / 0.5)
TIMES = "separate(t=lognormal(P_mean=-0.6, P_std=1.6), s=lognormal(P_mean=-4.0, P_std=1.6))"
WARMUP = 0.1  # part of sCM's training in which its tangent comes in
FINETUNE: dict[str, Any] = {
    "optimizer": "radam",
    "lr": 4e-4,
    "decay": "cosine",
    "ema": (60_000.0,),
}
SHARE = 0.34  # of the seconds, for the teacher
AROUND = {"teacher": 32.0, "method": 22.0}  # seconds that first steps and scores take
LEAST = 5.0  # seconds of a training
ATTEMPTS = (("bf16", "forward"), ("tf32", "forward"), ("tf32", "difference"))
"""Arithmetic and way to a derivative; the next one where one fails."""


@dataclass(frozen=True)
class Method:
    """A training that starts from the teacher's weights.

    Args:
        p: its process.
        make: its objective, of a map, the number of steps and the teacher.
        two_steps: how it is sampled in two.
        derivative: whether it takes one.
        two_time: whether its network is told both times.
    """

    p: Parameterization
    make: Callable[..., Objective]
    two_steps: Sampler
    derivative: bool = True
    two_time: bool = False


def _simplified(cls: Callable[..., Objective], P_std: float, follows: bool) -> Callable[..., Any]:
    def make(f: FlowMap, K: int, teacher: FlowMap, tangent: str) -> Objective:
        more = {"teacher": teacher} if follows else {}
        warmup = max(1, int(WARMUP * K))
        return cls(f, K, P_std=P_std, tangent_warmup=warmup, tangent=tangent, **more)

    return make


METHODS = {
    "ect": Method(
        EDM(eps=0.0),
        lambda f, K, teacher, tangent: ECT(f, K, stages=5),
        Multistep(taus=(MIDDLE,)),
        derivative=False,
    ),
    "scd": Method(
        TrigFlow(T=math.atan(80 / 0.5)), _simplified(SCD, 1.4, True), Multistep(taus=(ANGLE,))
    ),
    "sct": Method(
        TrigFlow(T=math.atan(80 / 0.5)), _simplified(SCT, 1.8, False), Multistep(taus=(ANGLE,))
    ),
    "meanflow": Method(
        RectifiedFlow(form="ddim", second="gap"),
        lambda f, K, teacher, tangent: MeanFlow(
            f, K, times=TIMES, apart=0.75, power=0.75, c=1e-3, tangent=tangent
        ),
        Jumps(gamma=0.0, N=2),
        two_time=True,
    ),
}
"""By name; settings are those of the papers' CIFAR-10 recipes."""


def race(stage: Stage, names: Sequence[str], kept: Path | None) -> None:
    """Train and score, one after another; each method has the same seconds.

    Args:
        stage: where, and until when.
        names: of `METHODS`.
        kept: a teacher of an earlier race, in the place of one that is trained.
    """
    ready = prepared(stage, time.time(), 0.0)
    of_teacher, of_methods = shares(stage.left, len(names), trains=kept is None)
    if stage.rehearse:
        of_teacher = of_methods = ready.seconds
    teacher = (
        diffuse(replace(ready, seconds=of_teacher)) if kept is None else FlowMap.load(kept).float()
    )
    for name in names:
        compare(replace(ready, seconds=of_methods), name, teacher)


def shares(left: float, n: int, *, trains: bool) -> tuple[float, float]:
    """Seconds of training of the teacher and of each of ``n`` methods, of all that are left."""
    teacher = SHARE * left if trains else 0.0
    own = {"teacher": teacher, "method": (left - teacher) / n}
    found = [max(LEAST, seconds - AROUND[who]) for who, seconds in own.items()]
    return found[0], found[1]


def diffuse(race: Race) -> FlowMap:
    """Train the diffusion model; its average is kept beside the results before it is scored."""

    def keep(f: FlowMap) -> None:
        half = f.frozen_copy().to("cpu", torch.float16)  # 10 MB, which every machine gives back
        half.save(race.stage.result.parent / TEACHER)

    found = trained(
        race,
        "teacher",
        lambda f, K: ScoreMatching(f, K),
        FlowMap(race.network(), EDM()),
        {"Heun, 19 NFE": Walk(solver="heun", budget=19)},
        race.seconds,
        keep=keep,
        optimizer="adam",
        lr=2e-3,
        warmup=200,
        decay="cosine",
        ema=(100_000.0,),
    )
    return found.frozen_copy().to("cpu")


def compare(race: Race, name: str, teacher: FlowMap) -> None:
    """Train a method in the first way that works, and score it."""
    stage, ways = race.stage, ATTEMPTS
    for precision, tangent in ways if METHODS[name].derivative else ways[:1]:
        before = len(stage.records)
        with stage.trying(f"{name}, {precision}, {tangent}"):
            _train(race, name, teacher, precision, tangent)
        if not any("failed" in record for record in stage.records[before:]):
            return


def _train(race: Race, name: str, teacher: FlowMap, precision: str, tangent: str) -> None:
    own, teacher = METHODS[name], teacher.frozen_copy()  # which goes where the training is
    chosen = {"form": own.p.form, "second": own.p.second} if own.two_time else {}
    same = type(own.p) is type(teacher.p)
    p = own.p if same else match(teacher.p, own.p, eps=own.p.eps, **chosen)
    f = FlowMap(race.network(two_time=own.two_time), p)
    f.take_network(teacher, "the teacher")
    followed = teacher if same else teacher.in_process(p)
    make = partial(own.make, teacher=followed, tangent=tangent)
    samplers = {"1 step": Multistep(), "2 steps": own.two_steps}
    settings = {**FINETUNE, "precision": precision}
    trained(
        race,
        name,
        make,
        f,
        samplers,
        race.seconds,
        parts=1 if race.stage.rehearse else 2,
        **settings,
    )
    race.stage.report(
        f"{name}: how",
        precision=precision,
        tangent=tangent if own.derivative else "none",
        weights=sum(w.numel() for w in f.weights),
        card=torch.cuda.get_device_name() if race.stage.device.type == "cuda" else "CPU",
    )
