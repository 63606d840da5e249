"""Published weights of feature networks: where they are, whether they are whole, what they fit."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.cache import cache_folder, expanded
from fewstep.digest import sha256_of
from fewstep.errors import FewstepError

# The convention of torch.hub: name-<first hex digits of the file's SHA-256>.pth
HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")


def find_weights(what: str, variable: str, names: Sequence[str], published: str) -> Path:
    """The file that an environment variable names, or the first of the usual ones in the caches.

    Args:
        what: the network, for the message.
        variable: the environment variable.
        names: file names to look for, in order.
        published: where the files can be downloaded, for the message.

    Raises:
        FewstepError: none of them is there.
    """
    if given := os.environ.get(variable):
        return Path(given)
    folders = cache_folders()
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise FewstepError(
        f"no weights of {what}: neither {variable} is set nor is one of {', '.join(names)} in "
        f"{' or '.join(map(str, folders))}. Download it from {published}."
    )


def cache_folders() -> tuple[Path, Path]:
    """Our cache, ``FEWSTEP_CACHE`` or ``~/.cache/fewstep``, and torch.hub's checkpoints."""
    return cache_folder(), Path(torch.hub.get_dir()) / "checkpoints"


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a PyTorch file, of which no code is run.

    Raises:
        FewstepError: no such file, not a file of tensors, or not the file that its name says.
    """
    path = expanded(path)
    if not path.is_file():
        raise FewstepError(f"there is no file {path} with the weights of {what}.")
    _check_hash(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol: what matters is an error
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises errors of any kind
        reason = str(error).partition("\n")[0]
        raise FewstepError(f"cannot read the weights {path}: {reason}") from error
    if not (isinstance(weights, dict) and all(torch.is_tensor(v) for v in weights.values())):
        raise FewstepError(f"{path} does not hold named tensors, the weights of {what}.")
    return weights


def _check_hash(path: Path) -> None:
    if not (named := HASH.search(path.name)):
        return
    found = sha256_of(path)
    if not found.startswith(named[1]):
        raise FewstepError(
            f"{path} is damaged or another file: by its name its SHA-256 begins with {named[1]}, "
            f"but it begins with {found[: len(named[1])]}. Download it again."
        )


def fill(
    network: nn.Module, weights: dict[str, Tensor], path: Path, what: str, extra: Sequence[str] = ()
) -> None:
    """Give a network the weights of a file, in float32; it may have been made without memory.

    Args:
        network: may be on the meta device.
        weights: of the file.
        path: of the file, for the message.
        what: the network, for the message.
        extra: beginnings of names that the file may have and the network does not need.

    Raises:
        FewstepError: a name is missing, superfluous or of another shape; the first one is named.
    """
    state = network.state_dict()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    mine = {name: value for name, value in state.items() if name not in counters}
    theirs = {
        name: value
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(tuple(extra))
    }
    for name in sorted(mine.keys() | theirs.keys()):
        here, there = (tuple(w[name].shape) if name in w else None for w in (mine, theirs))
        if here != there:
            raise FewstepError(
                f"{path} does not hold the weights of {what}: {name!r} should be "
                f"{'absent' if here is None else here} and is "
                f"{'absent' if there is None else there}."
            )
    ready = {name: value.float().contiguous() for name, value in theirs.items()}
    # A count of training steps, which some files have: with it equal weights would look unequal.
    ready |= {name: torch.tensor(0) for name in counters}
    network.load_state_dict(ready, assign=True)
