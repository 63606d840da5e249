"""What is made before there is something to sample: models, and pairs of noise and sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from fewstep.data.pairs import is_begun, is_pairs, read_manifest
from fewstep.errors import FewstepError
from fewstep.recipes import RECIPES
from fewstep.runs.directory import RunDirectory
from fewstep.runs.pairs import has_shard
from fewstep.runs.run import COMPANIONS, Run
from fewstep.training.metrics import read_metrics

NOT_OF_A_RECIPE = frozenset({"steps", "log", "data", *COMPANIONS})
"""Settings of a run that a stage's steps, its place and the user decide."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is: ``done`` of its steps, and a few words."""

    done: int = 0
    status: str = "starting"


@dataclass(frozen=True)
class Stage(ABC):
    """One command of fewstep, which fills a folder of its own.

    Args:
        name: of its folder.
        needs: the stages that it takes up, by the option that names their folder.
    """

    unit: ClassVar[str] = "steps"
    name: str
    needs: Mapping[str, str] = field(default_factory=dict)

    def command(self, directory: Path, shorten: float = 1.0) -> list[str]:
        """The arguments of fewstep, with every stage's folder in ``directory``.

        Args:
            directory: of the reproduction.
            shorten: factor on the steps.
        """
        needs = [part for flag, name in self.needs.items() for part in (flag, directory / name)]
        return [str(part) for part in (*self._command(directory, shorten), *needs)]

    @property
    def requires(self) -> tuple[str, ...]:
        """The stages that must have finished before this one starts."""
        return tuple(self.needs.values())

    @abstractmethod
    def _command(self, directory: Path, shorten: float) -> list[str | Path]:
        """The command without the stages that it needs."""

    @abstractmethod
    def total(self, shorten: float = 1.0) -> int:
        """What the progress is counted in: steps or pairs."""

    def check_same(self, directory: Path, shorten: float) -> None:
        """Raise `FewstepError` where what is there was made with other steps."""
        there, wanted = self.there(directory), self.total(shorten)
        if there not in (None, wanted):
            raise FewstepError(
                f"{directory / self.name} is of {there:,} {self.unit}, not {wanted:,}: --shorten "
                "was another. Give it again, or another --out."
            )

    @abstractmethod
    def there(self, directory: Path) -> int | None:
        """Of how many steps it is as it was begun; None where it was not."""

    @abstractmethod
    def finished(self, directory: Path) -> bool:
        """Whether all of it is there."""

    @abstractmethod
    def progress(self, directory: Path) -> Progress:
        """How far it is."""


@dataclass(frozen=True)
class Training(Stage):
    """A training.

    Args:
        recipe: which.
        options: further arguments of the command.
        steps: how many; default the recipe's.
    """

    recipe: str = ""
    options: tuple[str, ...] = ()
    steps: int | None = None

    @property
    def objective(self) -> str:
        return RECIPES[self.recipe]().objective.name

    def _command(self, directory: Path, shorten: float) -> list[str | Path]:
        given = shorten != 1 or self.steps is not None
        steps = ["--steps", str(self.total(shorten))] if given else []
        return ["train", self.recipe, *steps, *self.options, "--out", directory / self.name]

    def check_same(self, directory: Path, shorten: float) -> None:
        """Raise `FewstepError` where it was made with other steps, or of another recipe's settings.

        A training that has not finished compares its settings itself when it goes on.
        """
        super().check_same(directory, shorten)
        if not self.finished(directory):
            return
        then = RunDirectory(directory / self.name).run()[1].flat()
        now = Run.from_json(RECIPES[self.recipe]().to_json()).flat()
        given = {word.removeprefix("--no-").removeprefix("--") for word in self.options}
        own = {key for key in then | now if key.replace("_", "-") in given}
        for key in sorted({*then, *now} - own - NOT_OF_A_RECIPE):
            if then.get(key) != now.get(key):
                raise FewstepError(
                    f"{directory / self.name} was trained with {key} {then.get(key)}, and the "
                    f"recipe {self.recipe} says {now.get(key)} now: give another --out."
                )

    def total(self, shorten: float = 1.0) -> int:
        whole = RECIPES[self.recipe]().training.steps if self.steps is None else self.steps
        return max(1, round(whole * shorten))

    def there(self, directory: Path) -> int | None:
        home = RunDirectory(directory / self.name)
        return home.run()[1].training.steps if home.has_work else None

    def finished(self, directory: Path) -> bool:
        return RunDirectory(directory / self.name).finished

    def progress(self, directory: Path) -> Progress:
        lines = [line for line in read_metrics(directory / self.name) if "loss" in line]
        if not lines:
            return Progress()
        return Progress(int(lines[-1]["step"]), f"loss {lines[-1]['loss']:.4f}")


@dataclass(frozen=True)
class Pairs(Stage):
    """Pairs of noise and sample of a model, to distil it from.

    Args:
        model: the stage that trains it.
        n: how many.
        trajectory: states of each trajectory to keep; 0 for the sample alone.
    """

    unit: ClassVar[str] = "pairs"
    model: str = ""
    n: int = 20_000
    trajectory: int = 0

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.model, *self.needs.values())

    def _command(self, directory: Path, shorten: float) -> list[str | Path]:
        n = ["-n", str(self.total(shorten))]
        kept = ["--trajectory", str(self.trajectory)] if self.trajectory else []
        return ["pairs", directory / self.model, *n, *kept, "-o", directory / self.name]

    def total(self, shorten: float = 1.0) -> int:
        return max(1, round(self.n * shorten))

    def there(self, directory: Path) -> int | None:
        folder = directory / self.name
        return read_manifest(folder).n if is_begun(folder) else None

    def finished(self, directory: Path) -> bool:
        folder = directory / self.name
        if not is_pairs(folder):
            return False
        return all(has_shard(folder, read_manifest(folder)))

    def progress(self, directory: Path) -> Progress:
        folder = directory / self.name
        if not is_pairs(folder):
            return Progress()
        manifest = read_manifest(folder)
        made = enumerate(has_shard(folder, manifest))
        return Progress(sum(len(manifest.rows(i)) for i, there in made if there), "pairs")
