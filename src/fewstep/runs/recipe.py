"""A named run, and the names: `fewstep.recipes` and plugins fill them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fewstep import names
from fewstep.errors import unknown
from fewstep.plugins.trusted import trust
from fewstep.runs.run import Run


@dataclass(frozen=True)
class Recipe:
    """A named run: its function's docstring says what it reproduces, and whence its numbers.

    Args:
        name: such as ``digits/ct``.
        function: gives the run; its docstring is the help.
        choices: arguments of the function, which decide what settings there are, with the names
            that each may have.
        chosen: those that were given.
    """

    name: str
    function: Callable[..., Run]
    choices: Mapping[str, Callable[[], Iterable[str]]] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def help(self) -> str:
        return self.function.__doc__ or ""

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.help.strip().split("\n", 1)[0]

    @property
    def defaults(self) -> dict[str, str]:
        """What each choice is, where it was made or the function says so."""
        own = {name: inspect.signature(self.function).parameters[name] for name in self.choices}
        named = {name: p.default for name, p in own.items() if isinstance(p.default, str)}
        return {**named, **self.chosen}

    @property
    def folder(self) -> str:
        """Name of the folder that a run of it goes into: of the recipe and of its choices."""
        return "-".join([self.name.replace("/", "-"), *self.defaults.values()])

    def choosing(self, chosen: Mapping[str, str]) -> Recipe:
        """The recipe of some choices, by argument.

        Raises:
            FewstepError: a name that there is none to choose of.
        """
        for argument, name in chosen.items():
            if name not in (known := tuple(self.choices[argument]())):
                raise unknown(argument, name, known)
        return replace(self, chosen={**self.chosen, **chosen})

    def __call__(self, **settings: Any) -> Run:
        """The run, with settings overridden; ``objective.s1`` is written ``objective__s1``."""
        chosen = {name: settings.pop(name) for name in self.choices if name in settings}
        made = self.choosing(chosen)
        run = self.function(**made.chosen)
        run = run.override({k.replace("__", "."): v for k, v in settings.items()})
        if run.data.encoder is not None:  # named by the user, or by the recipe, which is code
            trust(run.data.encoder)
        return run


class Recipes(Mapping[str, Recipe]):
    """The recipes by name, such as ``digits/ct``."""

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}

    def add(
        self, name: str, **choices: Callable[[], Iterable[str]]
    ) -> Callable[[Callable[..., Run]], Callable[..., Run]]:
        """Decorator that files a function under a name.

        Args:
            name: of the recipe.
            choices: what may be given for each of the function's arguments.

        Raises:
            FewstepError: another function has the name.
        """

        def file(function: Callable[..., Run]) -> Callable[..., Run]:
            names.file("recipe", name, function, Recipe(name, function, choices), self._recipes)
            return function

        return file

    def __getitem__(self, name: str) -> Recipe:
        if name not in self._recipes:
            if name in FORMER:
                return self._recipes[IMAGES].choosing(FORMER[name])
            raise unknown("recipe", name, self._recipes)
        return self._recipes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._recipes

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)


IMAGES = "images"
FORMER = {f"{IMAGES}/{method}": {"method": method} for method in ("edm", "cd", "ect", "ct", "ict")}
"""What a recipe of version 0.1 chooses of the recipe that took its place, by its former name."""


RECIPES = Recipes()
