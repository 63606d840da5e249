"""A named run, and the names: `fewstep.recipes` and plugins fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fewstep import names
from fewstep.errors import unknown
from fewstep.runs.run import Run


@dataclass(frozen=True)
class Recipe:
    """A named run: its function's docstring says what it reproduces, and whence its numbers."""

    name: str
    function: Callable[[], Run]

    @property
    def help(self) -> str:
        return self.function.__doc__ or ""

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.help.strip().split("\n", 1)[0]

    def __call__(self, **settings: Any) -> Run:
        """The run, with settings overridden; ``objective.s1`` is written ``objective__s1``."""
        return self.function().override({k.replace("__", "."): v for k, v in settings.items()})


class Recipes(Mapping[str, Recipe]):
    """The recipes by name, such as ``digits/ct``."""

    def __init__(self) -> None:
        self._recipes: dict[str, Recipe] = {}

    def add(self, name: str) -> Callable[[Callable[[], Run]], Callable[[], Run]]:
        """Decorator that files a function under a name.

        Raises:
            FewstepError: another function has the name.
        """

        def file(function: Callable[[], Run]) -> Callable[[], Run]:
            names.file("recipe", name, function, Recipe(name, function), self._recipes)
            return function

        return file

    def __getitem__(self, name: str) -> Recipe:
        if name not in self._recipes:
            raise unknown("recipe", name, self._recipes)
        return self._recipes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._recipes

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)


RECIPES = Recipes()
