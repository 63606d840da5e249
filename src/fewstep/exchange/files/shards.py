"""Weights in several files: an index of shards, and folders in which there may be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.errors import FewstepError, listed
from fewstep.exchange.files.weights import ENDINGS, INDEX, is_shard, may_be_model, whole
from fewstep.files import read_json

MOST = 10_000  # files of a folder that are looked at


def index_of(shard: Path) -> Path | None:
    """The index that a shard is in; None where it is not beside it."""
    beside = sorted(shard.parent.glob(f"*{INDEX}"))
    return next((index for index in beside if whole(index.name) == whole(shard.name)), None)


def one_of_several(shard: Path) -> FewstepError:
    """The error for a shard that is given alone."""
    index = index_of(shard)
    give = f"give {index}" if index else "give the folder that holds all of them and their index"
    return FewstepError(f"{shard} is one of several shards of a model: {give}.")


def shards_of(index: Path) -> list[Path]:
    """The files that an index names.

    Raises:
        FewstepError: the index is none; a shard is not beside it.
    """
    return [index.parent / name for name in sorted(set(_read_places(index).values()))]


def read_shards(index: Path, read: Callable[[Path], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All tensors of the shards of an index.

    Args:
        index: which shard holds what.
        read: the tensors of one file.

    Raises:
        FewstepError: the index is none; a shard is missing, damaged, or not beside it.
    """
    places = _read_places(index)
    tensors: dict[str, Tensor] = {}
    for shard in shards_of(index):
        if not shard.is_file():
            raise FewstepError(
                f"{index} speaks of {shard.name}, which is not there: copy all shards."
            )
        tensors |= read(shard)
    if missing := [name for name in places if name not in tensors]:
        raise FewstepError(f"the shards of {index} have no {listed(missing)}: copy them again.")
    return {name: tensors[name] for name in places}


def _read_places(index: Path) -> dict[str, str]:
    found: dict[str, str] = read_json(index, _places, "an index of shards", "Copy it again.")
    return found


def _places(content: Any) -> dict[str, str]:
    places = content["weight_map"]
    if not isinstance(places, dict) or not places:
        raise FewstepError("it says of no tensor where it is.")
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name or not name:
            raise FewstepError(f"it says that a shard is {name!r:.60}, and shards lie beside it.")
    return {str(tensor): name for tensor, name in places.items()}


def _files(folder: Path) -> list[Path]:
    found = (path for _, path in zip(range(MOST), folder.iterdir(), strict=False))
    return sorted(path for path in found if path.is_file())


def weights_in(folder: Path) -> list[Path]:
    """The files and indices of weights in a folder, by their names."""
    here = _files(folder)
    found = [path for path in here if may_be_model(path.name)]
    return sorted(found, key=lambda path: not path.name.endswith(INDEX))


def in_folder(folder: Path) -> Path:
    """The one file, or index, of weights in a folder.

    Raises:
        FewstepError: there is none, or there are several: the message names them.
    """
    here, found = _files(folder), weights_in(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise FewstepError(
            f"{folder} holds several models, {listed(path.name for path in found)}: give one of "
            "them."
        )
    if shards := [path for path in here if is_shard(path.name)]:
        raise FewstepError(
            f"{folder} holds shards of a model ({listed(path.name for path in shards)}) and no "
            f"index, ...{INDEX}: copy that, too."
        )
    raise FewstepError(
        f"{folder} holds no weights ({', '.join(ENDINGS)}), but "
        f"{listed(path.name for path in here) or 'nothing'}."
    )
