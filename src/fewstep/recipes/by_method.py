"""The settings of any method on any network, by what the method declares and its paper had.

`fewstep.recipes.images` imports this when it is asked for a run: the registries need torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fewstep.needs import IMAGES, LATENTS, TRAJECTORIES, Needs
from fewstep.objectives import OBJECTIVES
from fewstep.runs.components import arguments_of
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Component, Data, Run, component
from fewstep.spec import written
from fewstep.training.config import Training

FAMILIES = ("cifar10", "digits")
"""Where settings of a method are looked for, the nearest to other images first."""
MODERATE: dict[str, dict[str, Any]] = {
    "unet": {"channels": 64, "multipliers": (1, 2, 2), "blocks": 2},
    "adm": {"channels": 64, "multipliers": (1, 2, 2), "blocks": 2, "head_channels": 32},
    "edm2": {"channels": 64, "multipliers": (1, 2, 2), "blocks": 2, "head_channels": 32},
    "dit": {"width": 256, "blocks": 8, "heads": 4},
    "mlp": {"width": 512, "blocks": 4},
}
"""Settings of networks whose defaults are made for more than moderate time."""
SUITED = {IMAGES: "unet", TRAJECTORIES: "dfno", LATENTS: "conv_autoencoder"}
"""The network of a method where none is chosen, by what it must give."""
LABEL_DROPOUT = 0.1
RATES = (1e-4, 2e-4)
"""Between these lies the learning rate of a moderate network, whatever a large one has."""
TRAINING = Training(
    steps=100_000,
    batch=128,
    optimizer="radam",
    lr=RATES[1],
    warmup=1000,
    clip=1.0,
    ema=(0.9999,),
    flip=True,
    sample_every=1000,
    checkpoint_every=1000,
)
OF_METHOD = ("optimizer", "betas", "weight_decay", "decay")
"""Settings of a training that are a method's own."""


def run_of(objective: str, network: str | None) -> Run:
    """A run of an objective on a network; default the one that suits it.

    Raises:
        FewstepError: there is no such objective or network.
    """
    needs, known = OBJECTIVES[objective].needs, published(objective)
    return Run(
        objective=_objective(objective, known),
        network=_network(network or SUITED[needs.network], needs, known),
        p=_process(needs, known),
        data=Data(labels=needs.network != LATENTS),
        training=_training(needs, known),
    )


@dataclass(frozen=True)
class Known:
    """A recipe of an objective, and whether its images are like anybody's."""

    run: Run
    alike: bool


def published(objective: str) -> Known | None:
    """The first recipe of an objective, in the first family that has one."""
    found = first_of(objective, FAMILIES)
    return None if found is None else Known(found[1], found[0] == FAMILIES[0])


def first_of(objective: str, families: Iterable[str]) -> tuple[str, Run] | None:
    """The first family that has a recipe of an objective, and the first such recipe of it."""
    for family in families:
        for name, recipe in RECIPES.items():
            if name.startswith(f"{family}/") and (run := recipe()).objective.name == objective:
                return family, run
    return None


def _objective(name: str, known: Known | None) -> Component:
    """With the paper's settings; pseudo-Huber in the place of a distance that is a download.

    LPIPS weights the noise levels by itself; a distance of pixels leaves the small ones without a
    weight, so that a loss with none of its own gets `inverse_t`.
    """
    own = dict(known.run.objective.arguments) if known is not None and known.alike else {}
    if str(own.get("distance", "")).startswith("lpips"):
        own["distance"] = "pseudo_huber"
        weighting = arguments_of("objective", name).get("weighting")
        if weighting is not None and weighting.default == "uniform":
            own["weighting"] = "inverse_t"
    return Component(name, own)


def _network(name: str, needs: Needs, known: Known | None) -> Component:
    """Of moderate size, with the inputs that the method needs and its paper's dropout."""
    takes = arguments_of("network", name)
    if "base" in takes:  # a network that is made of another one, which has the size
        inner = _network(SUITED[IMAGES], needs, known)
        return component(name, base=written(inner.name, inner.arguments))
    paper = known.run.network.arguments if known is not None and known.alike else {}
    asked = {
        "two_time": needs.two_time,
        "label_dropout": LABEL_DROPOUT * needs.null_class,
        "guidance_embedding": paper.get("guidance_embedding", False),
        "dropout": paper.get("dropout", 0.0),
    }
    told = {key: value for key, value in asked.items() if value and key in takes}
    return Component(name, MODERATE.get(name, {}) | told)


def _process(needs: Needs, known: Known | None) -> Component:
    """The one of the method's recipe, or else one that meets its needs; the noise suits pixels."""
    end = {"eps": 0.0} if needs.eps_zero else {}
    if known is not None:
        part = known.run.p
        left = ("sigma_data",) if known.alike else ("sigma_data", "T", "time_scale", "eps")
        own = {key: value for key, value in part.arguments.items() if key not in left}
        return Component(part.name, own | end)
    own = dict(end)
    if needs.forms or needs.flow:
        own["form"] = needs.forms[0] if needs.forms else "ddim"
    return Component(needs.processes[0] if needs.processes else "edm", own)


def _training(needs: Needs, known: Known | None) -> Training:
    """The paper's optimiser, with the rate of a moderate network."""
    flip = TRAINING.flip and not needs.columns  # the noise of a pair is not mirrored with its image
    if known is None or not known.alike:
        return replace(TRAINING, flip=flip)
    paper = known.run.training
    own = {key: getattr(paper, key) for key in OF_METHOD}
    return replace(TRAINING, **own, flip=flip, lr=min(max(paper.lr, RATES[0]), RATES[1]))
