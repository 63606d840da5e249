"""Where commands write, and that they leave alone what they read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fewstep.errors import FewstepError
from fewstep.exchange.files.shards import shards_of, weights_in
from fewstep.exchange.files.weights import INDEX, STEM


def files_of(source: Path) -> list[Path]:
    """The files that a model may be read from: one, the weights of a folder, those of an index."""
    if source.is_dir():
        return [*weights_in(source), *source.glob(f"*/{STEM}*")]
    return shards_of(source) if source.name.endswith(INDEX) else [source]


def check_not_read(out: Path, read: Iterable[Path]) -> None:
    """Raise `FewstepError` for a place whose file is one of those that are read.

    Args:
        out: where something is written.
        read: the files.
    """
    if out.exists() and out.resolve() in {path.resolve() for path in read}:
        raise FewstepError(f"{out} is the model itself: give another name.")
