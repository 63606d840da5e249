"""What a plan has chosen, and why; what a user has chosen instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fewstep.errors import FewstepError

YOURS = "you said so"


@dataclass(frozen=True)
class Choice:
    """A value and the reason for it, in words."""

    value: Any
    why: str


@dataclass
class Choices:
    """Choices by name, in the order in which they were made.

    Args:
        given: what the user has chosen, by name; None for what is left to the rule.
        kept: what an earlier call has chosen, which stays.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Choice] = field(default_factory=dict)
    made: dict[str, Choice] = field(default_factory=dict)

    def make(self, name: str, value: Any, why: str) -> Any:
        """Choose a value; the user's comes first, and then an earlier call's.

        Raises:
            FewstepError: the user's is another one than an earlier call began with.
        """
        if name not in self.made:
            self.made[name] = self._decided(name) or Choice(value, why)
        return self.made[name].value

    def _decided(self, name: str) -> Choice | None:
        given, kept = self.given.get(name), self.kept.get(name)
        if kept is not None and given is not None and _plain(given) != _plain(kept.value):
            flag = "--" + name.replace("_", "-")
            raise FewstepError(
                f"this folder was begun with {name} {kept.value}, and {flag} {given} is another: "
                "leave it out to go on, or give another --out."
            )
        if kept is not None:
            return kept
        return None if given is None else Choice(given, YOURS)

    def has(self, name: str) -> bool:
        """Whether somebody has chosen already."""
        return self._decided(name) is not None

    def __getitem__(self, name: str) -> Any:
        return self.made[name].value

    def record(self) -> dict[str, list[Any]]:
        """As JSON values."""
        return {name: [choice.value, choice.why] for name, choice in self.made.items()}


def choices_of(stored: Mapping[str, Any]) -> dict[str, Choice]:
    """What `Choices.record` gave."""
    return {name: Choice(value, str(why)) for name, (value, why) in stored.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
