"""From nothing to samples in two steps: a small network on CIFAR-10 against the clock.

A score model first, then ECT and CD from its weights, each for a part of the seconds that are left.
"""

from __future__ import annotations

import time
from typing import Any

from fewstep.flow_map import FlowMap
from fewstep.objectives import CD, ECT, ScoreMatching
from fewstep.parameterization import EDM
from fewstep.sampling import Multistep, Sampler, Walk
from gpu_parts.race import Make, Race, prepared, trained
from gpu_parts.stage import Stage

SHARES = {"score model": 0.5, "ECT": 0.2, "CD": 0.3}  # of the seconds for training
ONE_AND_TWO: dict[str, Sampler] = {"1 step": Multistep(), "2 steps": Multistep(taus=(0.82,))}


def speedrun(stage: Stage) -> None:
    """Train, distil, score, until the time is over."""
    started = time.time()
    race = prepared(stage, started)
    edm = EDM()
    teacher = _trained(
        race,
        "score model",
        lambda f, K: ScoreMatching(f, K),
        FlowMap(race.network(), edm),
        {"Heun, 19 NFE": Walk(solver="heun", budget=19)},
        optimizer="adam",
        lr=2e-3,
        warmup=200,
        decay="cosine",
        ema=(100_000.0,),
    )
    finetune: dict[str, Any] = {"optimizer": "radam", "lr": 4e-4, "decay": "cosine"}
    finetune["ema"] = (60_000.0,)
    with stage.trying("ECT"):
        f = _student(race, teacher, EDM(eps=0.0))
        _trained(race, "ECT", lambda f, K: ECT(f, K, stages=5), f, ONE_AND_TWO, parts=2, **finetune)
    with stage.trying("CD"):
        f = _student(race, teacher, edm)
        make = lambda f, K: CD(f, K, teacher=teacher, distance="pseudo_huber")  # noqa: E731
        _trained(race, "CD", make, f, ONE_AND_TWO, parts=2, **finetune)


def _student(race: Race, teacher: FlowMap, p: EDM) -> FlowMap:
    f = FlowMap(race.network(), p)
    f.take_network(teacher.to("cpu"), "the score model")
    teacher.to(race.stage.device)
    return f


def _trained(
    race: Race, what: str, make: Make, f: FlowMap, samplers: dict[str, Sampler], **settings: Any
) -> FlowMap:
    return trained(race, what, make, f, samplers, SHARES[what] * race.seconds, **settings)
