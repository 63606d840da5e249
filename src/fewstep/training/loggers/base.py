"""What a logger is."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import numpy as np

from fewstep.errors import FewstepError
from fewstep.registry import Registry

PROJECT = "fewstep"
"""The project or experiment where none is asked for."""

Outcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Facts:
    """What a logger is told when a training begins.

    Args:
        name: what the training is called.
        config: its settings, by flat key.
        id: under which it was logged before; None where it begins.
        say: tells the user something.
    """

    name: str
    config: Mapping[str, Any]
    id: str | None
    say: Callable[[str], None]


class Logger(ABC):
    """A place where the course of a training is kept, through its own library.

    Everything is called in one thread, which is none of the training's. Whatever a method raises
    ends the logger, with one line, and not the training.
    """

    library: ClassVar[str]
    """The module that is imported when the training begins."""
    extra: ClassVar[str]
    """That brings it: ``pip install 'fewstep[EXTRA]'``."""

    def check(self) -> None:
        """Raise `FewstepError` where the library is not installed; it is not imported yet."""
        if find_spec(self.library) is None:
            raise FewstepError(
                f"the logger {self.extra} needs its library: pip install 'fewstep[{self.extra}]'."
            )

    @abstractmethod
    def start(self, facts: Facts) -> str:
        """Begin, or go on.

        Returns:
            The id under which a resumed training goes on.
        """

    @abstractmethod
    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log numbers of a step, by name."""

    @abstractmethod
    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture uint8 [H, W, 3]."""

    @abstractmethod
    def finish(self, step: int, scores: Mapping[str, float], outcome: Outcome) -> None:
        """Log the scores that the training ends with, and end.

        Args:
            step: the last one.
            scores: by name.
            outcome: how it ended; an interrupted one may go on.
        """


def new_name(name: str) -> str:
    """A name that no other training has, of one that others may have."""
    return f"{name}-{secrets.token_hex(3)}"


LOGGERS: Registry[Logger] = Registry("logger")
