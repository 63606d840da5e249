"""What ``fewstep reproduce digits --methods`` trains: all since the paper, at equal compute.

The plan names no method. It takes the recipes of the digits whose paper was posted with consistency
models or later, and finds what each needs by what it declares: a model to begin with, by the folder
that its recipe fills. Each gets the training compute of CD, counted in evaluations of the network,
or where it learns from data alone that of CD and its teacher. A recipe that spends another amount
is trained for other steps than its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from fewstep.errors import FewstepError, unknown
from fewstep.needs import LATENTS, FixedPoint, TeacherUse
from fewstep.papers import Citation, bibtex, several
from fewstep.recipes import RECIPES, Run
from fewstep.runs.components import objective_of
from fewstep.runs.dry_run import dry_run
from fewstep.runs.run import COMPANIONS
from fewstep.stages.stage import Stage, Training

FAMILY = "digits/"
TEACHER, MEASURE = "digits/edm", "digits/cd"
"""The diffusion model of those that name none, and the recipe that says what all may spend."""
SONG = (2303, 1469)
"""arXiv's number of consistency models (Song et al. 2023): what has a later one is since then."""
NUMBER = re.compile(r"\b(\d{4})\.(\d{4,5})\b")
NEAR = 0.02
"""Of the compute: a recipe that spends so nearly what it may is left as it is."""


@dataclass(frozen=True)
class Method:
    """A recipe and its training.

    Args:
        recipe: its name.
        training: the stage.
        before: what it builds on, those needed first at the front.
        cost: of a step, in evaluations of the network for each image of the batch.
        spent: by its own training, in the same.
        built_on: by the trainings that it builds on.
    """

    recipe: str
    training: Training
    before: tuple[Stage, ...]
    cost: float
    spent: float
    built_on: float

    @property
    def name(self) -> str:
        """Of the recipe within its family."""
        return self.recipe.removeprefix(FAMILY)

    @property
    def run(self) -> Run:
        return RECIPES[self.recipe]()

    @property
    def decoded(self) -> bool:
        """Whether it makes codes of an autoencoder, which it builds on."""
        return any(_makes_codes(name) for name in _chain(self.recipe))

    def seed(self, seed: int) -> Training:
        """The training with another seed, of the same models that it begins with."""
        if seed == 0:
            return self.training
        options = (*self.training.options, "--seed", str(seed))
        return replace(self.training, name=f"{self.training.name}-seed{seed}", options=options)


def recipes() -> tuple[str, ...]:
    """The recipes of consistency models and of all that came since, but diffusion models."""
    return tuple(name for name in RECIPES if name.startswith(FAMILY) and _is_since(name))


def _is_since(recipe: str) -> bool:
    cls = objective_of(RECIPES[recipe]())
    pairs = bool(cls.needs.columns)  # which others made, at a compute that nobody has counted
    return posted(cls.citation) >= SONG and not pairs and not _is_foundation(recipe)


def posted(citation: Citation) -> tuple[int, int]:
    """arXiv's number of the latest of some papers: year and month, and a count in the month."""
    found = [NUMBER.search(bibtex(paper)) for paper in several(citation)]
    return max(((int(n[1]), int(n[2])) for n in found if n), default=(0, 0))


def _is_foundation(recipe: str) -> bool:
    """Whether a recipe makes a diffusion model, or an autoencoder for one."""
    makes_diffusion = objective_of(RECIPES[recipe]()).fixed_point is FixedPoint.DENOISER
    return makes_diffusion or _makes_codes(recipe)


def _makes_codes(recipe: str) -> bool:
    """Whether a recipe makes an autoencoder."""
    return objective_of(RECIPES[recipe]()).needs.network == LATENTS


def methods(only: Sequence[str] = ()) -> tuple[Method, ...]:
    """The diffusion model, CD, and the others in the order of their recipes.

    Args:
        only: names of the others, such as ``meanflow``; none is all.

    Raises:
        FewstepError: a name that no recipe has.
    """
    known = recipes()
    for name in only:
        if FAMILY + name not in known:
            raise unknown("method", name, [recipe.removeprefix(FAMILY) for recipe in known])
    chosen = [FAMILY + name for name in only] or known
    return tuple(method(recipe) for recipe in dict.fromkeys((TEACHER, MEASURE, *chosen)))


def stages(methods: Iterable[Method], seeds: int = 1) -> tuple[Stage, ...]:
    """All that methods need, each stage once, and their trainings with so many seeds."""
    found: dict[str, Stage] = {}
    for one in methods:
        for stage in (*one.before, *(one.seed(seed) for seed in range(seeds))):
            found.setdefault(stage.name, stage)
    return tuple(found.values())


def method(recipe: str) -> Method:
    """A recipe at the compute that it may spend."""
    own = [name for name in _chain(recipe) if not _is_foundation(name)]
    factor = budget(recipe) / sum(map(spends, own)) if own else 1.0
    if abs(factor - 1) <= NEAR:
        factor = 1.0
    *before, (_, training) = _stages(recipe, factor).items()
    return Method(
        recipe,
        training,
        tuple(stage for _, stage in before),
        cost_of(recipe),
        training.total() * cost_of(recipe),
        sum(stage.total() * cost_of(name) for name, stage in before),
    )


def budget(recipe: str) -> float:
    """What a method may spend: as CD, and as CD's teacher besides where it has no such teacher."""
    taught = any(_is_foundation(name) for name in _chain(recipe))
    return spends(MEASURE) + (0 if taught else spends(TEACHER))


def spends(recipe: str) -> float:
    """Evaluations of the network for each image of a batch, over a whole training."""
    return RECIPES[recipe]().training.steps * cost_of(recipe)


@cache
def cost_of(recipe: str) -> float:
    """Evaluations of the network for each image of a training step, as a step makes them."""
    return dry_run(RECIPES[recipe](), recipe=recipe).evaluations


def _chain(recipe: str) -> list[str]:
    """A recipe, last, after those of all models that it builds on."""
    found = [name for other in begins_with(recipe).values() for name in _chain(other)]
    return list(dict.fromkeys([*found, recipe]))


def _stages(recipe: str, factor: float) -> dict[str, Training]:
    """The trainings of a chain by their recipes; those of diffusion models are never changed."""
    stages: dict[str, Training] = {}
    needs = {}
    for flag, other in begins_with(recipe).items():
        stages |= _stages(other, factor)
        needs[flag] = stages[other].name
    name = recipe.removeprefix(FAMILY)
    if factor == 1 or _is_foundation(recipe):
        return stages | {recipe: Training(name, needs, recipe)}
    steps = round(RECIPES[recipe]().training.steps * factor)
    return stages | {recipe: Training(f"{name}-{steps}", needs, recipe, steps=steps)}


def begins_with(recipe: str) -> dict[str, str]:
    """The recipes of the models that a recipe begins with, by the option that names the run.

    Raises:
        FewstepError: a run that no recipe makes.
    """
    run = RECIPES[recipe]()
    places = {name: place for name in COMPANIONS if (place := getattr(run, name)) is not None}
    use = objective_of(run).needs.teacher
    started = use is TeacherUse.START and "init" in places
    if use is not TeacherUse.NONE and "teacher" not in places and not started:
        places["teacher"] = _place(TEACHER)
    return {f"--{name}": _recipe_at(place, recipe) for name, place in places.items()}


def _place(recipe: str) -> str:
    """The folder that a recipe fills where no other is given."""
    return f"runs/{recipe.replace('/', '-')}"


def _recipe_at(place: str, recipe: str) -> str:
    for name in RECIPES:
        if _place(name) == place:
            return name
    raise FewstepError(f"{recipe} begins with {place}, and no recipe fills a folder of this name.")
