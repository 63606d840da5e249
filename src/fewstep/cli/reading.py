"""How data are read: the flags of every command that takes images besides train, which has all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from fewstep.runs.run import Data


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table are meant."""

    image_column: Annotated[
        str | None,
        Parameter(
            help="Column of the images in a Parquet file or hub data set, or array of an .npz, "
            "where several could be meant."
        ),
    ] = None
    label_column: Annotated[
        str | None,
        Parameter(
            help="Column, or array, of the classes, where several could be meant or none is "
            "called like one."
        ),
    ] = None

    def data(self, name: str | None = None) -> Data:
        """Images by name, and how they are read."""
        return Data(data=name, image_column=self.image_column, label_column=self.label_column)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading(Columns):
    """The same, and what is left out."""

    labels: Annotated[bool, Parameter(help="Use the classes, where the images have them.")] = True
    skip_bad: Annotated[
        bool, Parameter(help="Leave out files that cannot be read, instead of stopping.")
    ] = False

    def data(self, name: str | None = None) -> Data:
        return replace(super().data(name), labels=self.labels, skip_bad=self.skip_bad)
