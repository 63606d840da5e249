"""Few-step models of one EDM teacher on CIFAR-10, each of equal seconds: ECT, sCM, MeanFlow.

All have the small network of the speedrun, its optimiser and the teacher's weights. Each is scored
by the sampler of its paper in one step and in two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from gpu_parts.stage import Stage

TEACHER = "teacher.safetensors"
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


def teacher(stage: Stage, seconds: float) -> None:
    """The diffusion model; its average is kept beside the results."""
    diffuse(prepared(stage, time.time(), seconds))


def diffuse(race: Race) -> None:
    """Train the teacher, and score it."""
    found = trained(
        race,
        "teacher",
        lambda f, K: ScoreMatching(f, K),
        FlowMap(race.network(), EDM()),
        {"Heun, 19 NFE": Walk(solver="heun", budget=19)},
        race.seconds,
        optimizer="adam",
        lr=2e-3,
        warmup=200,
        decay="cosine",
        ema=(100_000.0,),
    )
    found.frozen_copy().to("cpu").save(race.stage.result.parent / TEACHER)


def method(stage: Stage, name: str, seconds: float) -> None:
    """One of `METHODS`, from the teacher that lies beside the results."""
    compare(prepared(stage, time.time(), seconds), name)


def rehearse(stage: Stage, names: list[str]) -> None:
    """All parts in one process, as tiny as can be."""
    race = prepared(stage, time.time(), 0.0)
    diffuse(race)
    for name in names:
        compare(race, name)


def compare(race: Race, name: str) -> None:
    """Train a method in the first way that works, and score it."""
    stage, ways = race.stage, ATTEMPTS
    kept = stage.result.parent / TEACHER
    for precision, tangent in ways if METHODS[name].derivative else ways[:1]:
        before = len(stage.records)
        with stage.trying(f"{name}, {precision}, {tangent}"):
            _train(race, name, kept, precision, tangent)
        if not any("failed" in record for record in stage.records[before:]):
            return


def _train(race: Race, name: str, kept: Path, precision: str, tangent: str) -> None:
    own, teacher = METHODS[name], FlowMap.load(kept)
    chosen = {"form": own.p.form, "second": own.p.second} if own.two_time else {}
    same = type(own.p) is type(teacher.p)
    p = own.p if same else match(teacher.p, own.p, eps=own.p.eps, **chosen)
    f = FlowMap(race.network(two_time=own.two_time), p)
    f.take_network(teacher, "the teacher")
    followed = teacher.to(race.stage.device) if same else teacher.in_process(p)
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
