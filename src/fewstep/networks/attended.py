"""At which heights of its maps a U-Net has self-attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewstep.errors import FewstepError


def heights_of(height: int, levels: int) -> list[int]:
    """Of the maps of every level, the first of which are as high as the image, filled up."""
    lowest = math.ceil(height / 2 ** (levels - 1))
    return [lowest << level for level in reversed(range(levels))]


@dataclass(frozen=True)
class Attended:
    """Which heights of maps have self-attention.

    Args:
        default: those that have it where none are asked for.
        former: which these were in earlier versions, whose stored networks do not name them; None
            where they were the same.
    """

    default: range
    former: tuple[int, ...] | None = None

    def among(self, asked: Sequence[int] | None, heights: Sequence[int]) -> tuple[int, ...]:
        """The heights that are asked for, or the default ones.

        Raises:
            FewstepError: one that no map has.
        """
        if asked is None:
            return tuple(height for height in heights if height in self.default)
        for height in asked:
            if height not in heights:
                raise FewstepError(
                    f"attention at {height} never occurs in this U-Net, whose maps have the "
                    f"heights {list(heights)}: choose among these, or () for the middle alone."
                )
        return tuple(asked)

    def named(self, heights: Sequence[int]) -> dict[str, Any]:
        """The default heights as an argument, where earlier versions had others."""
        then = tuple(height for height in heights if height in (self.former or self.default))
        now = self.among(None, heights)
        return {} if now == then else {"attention": now}

    def stored(self, arguments: Mapping[str, Any], heights: Sequence[int]) -> dict[str, Any]:
        """Arguments that mean now what those of a stored network meant.

        Earlier versions took any heights, and those that no map has were without effect.
        """
        given = arguments.get("attention")
        if given is None and not self.named(heights):
            return dict(arguments)
        had = (self.former or ()) if given is None else given
        kept = tuple(height for height in had if height in heights)
        return {**arguments, "attention": had if len(kept) == len(had) else kept}
