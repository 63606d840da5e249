"""Data by a name instead of a path: readers, which plugins may add."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fewstep import names
from fewstep.data.dataset import Dataset
from fewstep.data.splits import NoSplit
from fewstep.errors import FewstepError

Reader = Callable[[str, str], Dataset]


class Readers:
    """Functions ``read(where, split)`` by name: ``--data NAME:WHERE`` and ``--data NAME``."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}

    def register(self, name: str) -> Callable[[Reader], Reader]:
        """Decorator that files a function under a name.

        The function gets what stands behind the colon, or "", and the split, "train", "test" or
        "val". It gives the data set, and raises `NoSplit` for a split that it has not. Any
        `FewstepError` for another split than "train" is taken for that.

        Raises:
            FewstepError: another function has the name.
        """

        def file(function: Reader) -> Reader:
            names.file("data reader", name, function, function, self._readers)
            return function

        return file

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def knows(self, source: str) -> bool:
        """Whether data are called by a reader's name, which is the same everywhere."""
        return source.partition(":")[0] in self._readers

    def read(self, source: str, split: str) -> Dataset:
        """The data of ``NAME:WHERE``.

        Raises:
            NoSplit: it has no such split.
            FewstepError: the reader gives something else.
        """
        name, _, where = source.partition(":")
        try:
            found = self._readers[name](where, split)
        except FewstepError as error:
            if split == "train" or isinstance(error, NoSplit):
                raise
            raise NoSplit(str(error)) from error
        if not isinstance(found, Dataset):
            raise FewstepError(
                f"the data reader {name!r} must give a Dataset, such as Dataset.from_arrays makes, "
                f"not {type(found).__name__}."
            )
        return found


READERS = Readers()
