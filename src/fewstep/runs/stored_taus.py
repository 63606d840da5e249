"""Time points that a search found, kept beside the model in ``taus.json``.

    {SHA-256 of the model file: {"file": its name, "taus": {"2": [τ_1], "3": [τ_1, τ_2]}}}

Points suit the weights that they were found for. The weights are told by their hash, so that the
points follow a copy of the model file, and are not used once the file holds other weights.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.digest import sha256_of
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.files import read_json, write_json
from fewstep.records import value_of

TAUS = "taus.json"
Taus = dict[str, list[float]]


def read_taus(home: Path, file: Path) -> Taus:
    """The time points of a model file, by the number of steps; empty where none were found.

    Warns where the folder has points of other weights that a user would expect here: of the same
    file as it was before, or of another checkpoint of the run.

    Args:
        home: the folder that keeps them: of the run, or of the model file.
        file: the model file.

    Raises:
        FewstepError: the file with the time points cannot be read.
    """
    path = home / TAUS
    known = _entries(path)
    if not known:
        return {}
    digest = sha256_of(file)
    if digest in known:
        return known[digest]["taus"]
    name = _name(home, file)
    if home != file.parent or name in {entry["file"] for entry in known.values()}:
        warnings.warn(
            f"the time points in {path} are of other weights than {file}, and are not used: "
            "`fewstep tune-steps` finds new ones.",
            FewstepWarning,
            stacklevel=3,
        )
    return {}


def keep_taus(home: Path, file: Path, taus: Taus, counts: list[int]) -> None:
    """Keep what a search found.

    Args:
        home: the folder that keeps them.
        file: the model file.
        taus: by the number of steps.
        counts: the numbers of steps that were searched; points of others stay.

    Raises:
        FewstepError: the file is not readable or not writable.
    """
    name, digest, known = _name(home, file), sha256_of(file), _entries(home / TAUS)
    before = known[digest]["taus"] if digest in known else {}
    after = {k: v for k, v in before.items() if int(k) not in counts} | taus
    others = {key: entry for key, entry in known.items() if entry["file"] != name}
    others.pop(digest, None)
    if known or after:
        write_json(home / TAUS, others | ({digest: {"file": name, "taus": after}} if after else {}))


def _name(home: Path, file: Path) -> str:
    """What a file is called in a folder's time points; one of the hub's cache by its own name."""
    return file.relative_to(home).as_posix() if file.is_relative_to(home) else file.name


def _entries(path: Path) -> dict[str, Any]:
    """What the file holds, by hash; nothing where there is no file."""
    if not path.exists():
        return {}
    remedy = "Please delete it, and `fewstep tune-steps` makes it anew."
    return read_json(path, _entries_of, "a file of time points", remedy)


@dataclass(frozen=True)
class _Entry:
    """What is kept of a model file."""

    file: str
    taus: dict[str, tuple[float, ...]]


def _entries_of(stored: Any) -> dict[str, Any]:
    known: dict[str, _Entry] = value_of(dict[str, _Entry], stored, "it")
    for entry in known.values():
        for steps, taus in entry.taus.items():
            if len(taus) != int(steps) - 1:
                raise FewstepError(f"{steps} steps with {len(taus)} time points.")
    return dict(stored)
