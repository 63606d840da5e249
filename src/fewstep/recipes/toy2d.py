"""Points of the plane with a known density: every objective in half a minute of one CPU core.

All have one network, one optimiser and one amount of computing, counted in evaluations of the
network. The process is what the objective needs, or its paper's, and so are its settings. So
nothing here is tuned, and a method shows what it does by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.needs import TRAJECTORIES, Needs
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Component, Data, Run, component
from fewstep.training.config import Training

OBJECTIVES = (
    *("score_matching", "score_sde", "ddpm", "pfgm", "rf", "reflow", "kd", "dfno", "pd"),
    *("cd", "continuous_cd", "scd", "multistep_cd", "cmt"),
    *("ect", "stable_ct", "tcm", "continuous_ct", "sct", "multistep_ct", "ct", "ict"),
    *("ctm", "ayf", "facm", "meanflow", "imf", "alphaflow", "soflow", "shortcut"),
    *("flow_map_matching", "tvm", "imm"),
)
"""Of every objective but those of autoencoders and of guidance, which points without classes have
no use for."""
PROCESSES = {"rf": "rectified_flow", "reflow": "rectified_flow"}  # of their papers
EVALUATIONS = 6_000  # of the network for each example of a batch
WIDTH, BLOCKS = 128, 3
TRAINING = Training(
    batch=512,
    optimizer="adam",
    lr=1e-3,
    betas=(0.9, 0.99),
    warmup=50,
    decay="cosine",
    clip=1.0,
    ema=(100 * 512.0,),
    log_every=50,
    sample_every=0,
    checkpoint_every=1_000,
)


def name_of(objective: str) -> str:
    """The recipe of an objective."""
    return f"toy2d/{objective.replace('_', '-')}"


def run_of(objective: str) -> Run:
    """The training of an objective, by what it declares."""
    from fewstep.objectives import OBJECTIVES as KNOWN
    from fewstep.objectives.fit import suited

    cls = KNOWN[objective]
    assert cls.cost is not None
    needs = cls.needs
    if objective in PROCESSES:
        needs = replace(needs, processes=(PROCESSES[objective],))
    config: dict[str, Any] = dict(suited(needs).config)
    return Run(
        objective=component(objective),
        network=_network(needs, config["name"]),
        p=component(config.pop("name"), **config),
        data=Data(data="toy2d", labels=False),
        training=replace(TRAINING, steps=round(EVALUATIONS / cls.cost.evaluations)),
    )


def _network(needs: Needs, process: str) -> Component:
    if needs.network == TRAJECTORIES:
        return component("dfno", base=f"mlp(width={WIDTH}, blocks={BLOCKS})")
    own: dict[str, Any] = {"two_time": True} if needs.two_time else {}
    if process == "rectified_flow":
        own["highest"] = 16.0  # frequencies of a time in [0, 1]
    return component("mlp", width=WIDTH, blocks=BLOCKS, **own)


def _add(objective: str) -> None:
    def run() -> Run:
        return run_of(objective)

    run.__doc__ = f"Points of the plane: {objective}, with its paper's settings."
    RECIPES.add(name_of(objective))(run)


for _objective in OBJECTIVES:
    _add(_objective)
