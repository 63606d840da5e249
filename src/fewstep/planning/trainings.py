"""The trainings of a plan: their settings as data, and as words of a command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.needs import Needs, TeacherUse
from fewstep.objectives import OBJECTIVES
from fewstep.planning.choices import Choices
from fewstep.planning.looked_at import Looked
from fewstep.planning.rule import UNET, network_of
from fewstep.recipes import RECIPES
from fewstep.recipes.by_method import first_of
from fewstep.recipes.images import ALIASES, EDM
from fewstep.runs.components import arguments_of
from fewstep.runs.directory import RunDirectory
from fewstep.runs.recipe import IMAGES
from fewstep.runs.run import Run
from fewstep.stages.stage import Training

WARMUP = 50
NOISE = {"P_mean": -0.8, "P_std": 1.4}
"""Of the logarithm of the noise level: small images are decided at more noise than large ones."""
SMALL, T_SMALL = 32, 40.0  # side up to which less noise drowns every image
SHORTLY = ("fashion", "digits")
"""Families of recipes that train shortly, the one of larger images first."""
SHORT = ("optimizer", "betas", "decay")
"""Settings of a training that short ones of a method have in these recipes."""
PREVIEWS, SHOWN = 5, 16
EVERY = ("sample_every", "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Settings:
    """A run of the recipe ``images``: its choices, and its other settings by flat key.

    Args:
        method: what is trained.
        network: what computes it.
        others: every other setting.
        switches: further words of the command, such as ``--same-network``.
    """

    method: str
    network: str
    others: Mapping[str, Any]
    switches: tuple[str, ...] = ()

    def run(self, **more: Any) -> Run:
        """The run itself."""
        settings = {key.replace(".", "__"): value for key, value in {**self.others, **more}.items()}
        return RECIPES[IMAGES](method=self.method, network=self.network, **settings)

    def more(self, **others: Any) -> Settings:
        """With other settings, too."""
        return replace(self, others={**self.others, **others})

    @property
    def words(self) -> tuple[str, ...]:
        """The command line's words for it."""
        own = {"method": self.method, "network": self.network, **self.others}
        return (*(word for pair in own.items() for word in _words(*pair)), *self.switches)

    def stage(self, name: str, steps: int, needs: Mapping[str, str] | None = None) -> GoesOn:
        """The stage that trains it."""
        return GoesOn(name, needs or {}, IMAGES, self.words, steps)


def _words(key: str, value: Any) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return (
            [flag if value else f"--no-{flag[2:]}"]
            if key in ("labels", "flip")
            else ([flag] if value else [])
        )
    if isinstance(value, tuple | list):
        return [flag, *map(str, value)] if value else []
    return [flag, str(value)]


@dataclass(frozen=True)
class GoesOn(Training):
    """A training that may have made steps of a shorter plan already."""

    @property
    def objective(self) -> str:
        return self.options[self.options.index("--method") + 1]

    def check_same(self, directory: Path, shorten: float) -> None:
        """It may be longer now."""

    def finished(self, directory: Path) -> bool:
        home = RunDirectory(directory / self.name)
        return home.finished and home.has_made(self.total())


def paced(settings: Settings, steps: int, folder: Path) -> Settings:
    """With previews and checkpoints so often as suits its length; those of a run that goes on."""
    home = RunDirectory(folder)
    if home.started:
        before = home.run()[1].training
        own = {name: getattr(before, name) for name in EVERY}
    else:
        parts = {"sample_every": PREVIEWS, "checkpoint_every": 20, "log_every": 50}
        own = {name: max(1, steps // parts[name]) for name in EVERY}
        own["sample_every"] -= own["sample_every"] % own["checkpoint_every"]  # each is also saved
    return settings.more(**own)


def teacher(choices: Choices, looked: Looked, data: str) -> Settings:
    """The diffusion model."""
    network = choices["network"]
    own = _network(choices, "dropout" in arguments_of("network", network))
    flip = choices["flip"] and not choices["augment"]  # which mirrors, too
    return Settings(
        EDM,
        network,
        {
            **_training(choices, data, bool(looked.classes)),
            **own,
            **{f"p.{key}": value for key, value in _process(choices, looked).items()},
            **{f"objective.{key}": value for key, value in NOISE.items()},
            "optimizer": "adam",
            "flip": flip,
            "augment": choices["augment"],
        },
    )


def few_steps(choices: Choices, looked: Looked, data: str) -> Settings:
    """The model of few steps, in the settings that short trainings of its method have.

    One that learns from images alone has what keeps the diffusion model from learning few of them
    by heart; one that follows that model inherits it.
    """
    method, network = choices["method"], choices["network"]
    needs = OBJECTIVES[ALIASES.get(method, method)].needs
    alone = learns_alone(needs)
    augment = choices["augment"] if alone else 0.0
    run = RECIPES[IMAGES](method=method, network=network)
    process = arguments_of("p", run.p.name)
    own = {k: v for k, v in _process(choices, looked).items() if k in process}
    if run.p.name != EDM:
        own.pop("T", None)
    return Settings(
        method,
        network,
        {
            **_training(choices, data, bool(looked.classes)),
            **_network(choices, alone and "dropout" in arguments_of("network", network)),
            **({"network.two_time": True} if needs.two_time else {}),
            **{f"p.{key}": value for key, value in own.items()},
            **short(method),
            "flip": choices["flip"] and not needs.columns and not augment,
            "augment": augment,
        },
    )


def learns_alone(needs: Needs) -> bool:
    """Whether a method learns from images, with neither a teacher nor what one has made."""
    return needs.teacher is TeacherUse.NONE and not needs.columns


def short(method: str) -> dict[str, Any]:
    """Settings of a method's short trainings: of Fashion-MNIST's recipe, or else of the digits'.

    Distances and weights of papers are for networks and times of another order: with them a small
    network starves some of the noise levels. What such a recipe leaves as it is, is so here, too.
    """
    objective = ALIASES.get(method, method)
    if (found := first_of(objective, SHORTLY)) is None:
        return {}
    run = found[1]
    paper = RECIPES[IMAGES](method=method).objective.arguments
    usual = {key: arguments_of("objective", objective)[key].default for key in paper}
    own = {f"objective.{k}": v for k, v in {**usual, **run.objective.arguments}.items()}
    return own | {key: getattr(run.training, key) for key in SHORT}


def check_method(method: str, *, refines: bool = False) -> None:
    """Raise `FewstepError` for a method that a plan cannot have.

    Args:
        method: its name.
        refines: whether there may be a consistency model to refine; from images alone none is.
    """
    RECIPES[IMAGES].choosing({"method": method})
    cls = OBJECTIVES[ALIASES.get(method, method)]
    if cls.makes.decodes or cls.needs.other_columns:
        raise FewstepError(f"{method} makes no images from noise: choose another --method.")
    if cls.needs.teacher is TeacherUse.REFINE and not refines:
        raise FewstepError(
            f"{method} refines a consistency model: fit one, then fewstep distil it with --method "
            f"{method}."
        )
    if not cls.makes.maps_to_eps and cls.makes.steps is None:
        raise FewstepError(
            f"{method} trains a diffusion model, which takes many steps; the model of few steps is "
            "by another --method, such as cd or ect."
        )


def _training(choices: Choices, data: str, labels: bool) -> dict[str, Any]:
    return {
        "data": data,
        "labels": labels,
        "batch": choices["batch"],
        "lr": choices["lr"],
        "precision": choices["precision"],
        "ema": tuple(choices["ema"]),
        "warmup": WARMUP,
        "seed": choices["seed"],
        "samples": SHOWN,
        "keep": 1,
    }


def _network(choices: Choices, dropout: bool) -> dict[str, Any]:
    if choices["network"] != UNET:
        return {}
    own = network_of(choices["size"], choices["width"], choices["dropout"] * dropout)
    return {f"network.{key}": value for key, value in own.items()} | {
        "network.dropout": own.get("dropout", 0.0)
    }


def _process(choices: Choices, looked: Looked) -> dict[str, float]:
    T = T_SMALL if choices["size"] <= SMALL else 80.0
    return {"sigma_data": round(looked.spread, 2), "T": T}
