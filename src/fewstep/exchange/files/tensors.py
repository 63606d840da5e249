"""How the tensors of one network are named and laid out in another project's, in both directions.

Every tensor of a network of ours is paired with the tensor of theirs that it is, and with how its
numbers lie there. Every way of lying can be undone, so that what was imported can be exported:
copies and permutations to the bit, and a scale to one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fewstep.errors import FewstepError, listed

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class How:
    """How the numbers of a tensor lie elsewhere.

    Args:
        read: theirs to ours.
        write: ours to theirs; the inverse.
    """

    read: Change
    write: Change


def _same(x: Tensor) -> Tensor:
    return x


def _transposed(x: Tensor) -> Tensor:
    return x.t()


COPY = How(_same, _same)
TRANSPOSED = How(_transposed, _transposed)
"""A matrix whose rows are the other's columns."""


def pointwise(axes: int) -> How:
    """A linear layer that is a convolution of one pixel there, with ``axes`` further dimensions."""

    def read(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1) if x.ndim > 1 else x

    def write(x: Tensor) -> Tensor:
        return x.reshape(*x.shape, *[1] * axes) if x.ndim > 1 else x

    return How(read, write)


def scaled(factor: float) -> How:
    """Theirs times ``factor``, such as frequencies in periods that are angles here (``2 pi``)."""
    return How(lambda x: x * factor, lambda x: x / factor)


PERIODS = scaled(2 * math.pi)


def heads_first(heads: int, plain: How, *, last: bool) -> How:
    """Rows of queries, keys and values that begin with the head there: here (three, head, d).

    Args:
        heads: number of heads.
        plain: how the tensor lies there but for the order of its rows.
        last: whether the order is (head, d, three), as in EDM, or (head, three, d), as in ADM.
    """
    there = (heads, -1, 3) if last else (heads, 3, -1)
    three = 2 if last else 1

    def read(x: Tensor) -> Tensor:
        x = plain.read(x)
        return x.reshape(*there, *x.shape[1:]).movedim(three, 0).reshape(x.shape)

    def write(x: Tensor) -> Tensor:
        y = x.reshape(3, heads, -1, *x.shape[1:]).movedim(0, three).reshape(x.shape)
        return plain.write(y)

    return How(read, write)


@dataclass(frozen=True)
class Pair:
    """One tensor: its name here, its name there, and how it lies there."""

    ours: str
    theirs: str
    how: How = COPY


def read_tensors(
    pairs: Iterable[Pair],
    theirs: Mapping[str, Tensor],
    *,
    unused: Callable[[str], bool],
    source: object,
) -> dict[str, Tensor]:
    """Our tensors from theirs.

    Args:
        pairs: all tensors of the network here.
        theirs: the file's tensors by name.
        unused: whether a tensor of this name holds nothing that is learned, such as a filter.
        source: the file, for messages.

    Raises:
        FewstepError: a tensor is missing, or one would be left out; the message names it.
    """
    pairs = list(pairs)
    missing = [pair.theirs for pair in pairs if pair.theirs not in theirs]
    known = {pair.theirs for pair in pairs}
    left = [name for name in theirs if name not in known and not unused(name)]
    if missing or left:
        parts = [f"it has no {listed(missing)}"] * bool(missing)
        parts += [f"nothing here is its {listed(left)}"] * bool(left)
        raise FewstepError(f"the weights of {source} do not fit their network: {'; '.join(parts)}.")
    return {pair.ours: _read(pair, theirs[pair.theirs], source).contiguous() for pair in pairs}


def _read(pair: Pair, x: Tensor, source: object) -> Tensor:
    try:
        return pair.how.read(x)
    except (RuntimeError, IndexError) as error:
        raise FewstepError(
            f"{pair.theirs} of {source} has the shape {list(x.shape)}, which its network never has."
        ) from error


def write_tensors(pairs: Iterable[Pair], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors from ours, in the type that they have."""
    return {pair.theirs: pair.how.write(ours[pair.ours]).contiguous() for pair in pairs}
