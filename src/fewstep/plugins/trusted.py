"""Encoders of texts that the user of this machine has named: no others are imported.

A run and a model file keep the name of their encoder, and either may come from somebody else. What
it names is imported where the user has named the same function before, on a command line or in
Python. A small file for each in the cache folder keeps that; it holds until the encoder's own file
changes. Finding this out imports nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from fewstep.cache import cache_folder, expanded
from fewstep.errors import FewstepError
from fewstep.files import replacing
from fewstep.plugins.code import working_directory

_NAMED: set[str] = set()  # in this process


def trust(name: str) -> None:
    """Let an encoder be imported, now and later on this machine, since the user names it.

    One that has no file, such as a program's own, is known to this process alone.

    Args:
        name: ``module:function``, or ``file.py:function``.
    """
    key = _key(name)
    _NAMED.add(key)
    try:
        place = _place(key)
        if code_of(name.rpartition(":")[0]) and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as partial:
                partial.write_text(json.dumps({"encoder": key}))
    except (OSError, FewstepError):
        return  # it is to be named again next time


def check_trusted(name: str) -> None:
    """Raise `FewstepError` for an encoder that only a run or a model file has named."""
    key = _key(name)
    if key in _NAMED or _place(key).is_file():
        return
    raise FewstepError(
        f"the encoder {name} is named by a run or a model, which may be anybody's, and has not "
        f"been used here as it is now: give it with --encoder {name} if you trust its code."
    )


def is_file(module: str) -> bool:
    """Whether an encoder's function is in a file that is named, not in a module."""
    return module.endswith(".py") or "/" in module or os.sep in module


def file_of(module: str) -> Path | None:
    """The file that an encoder's function is in; None where there is none. Nothing is imported."""
    if is_file(module):
        found = expanded(module)
    else:
        spec = _spec(module)
        if spec is None or spec.origin is None:
            return None
        found = Path(spec.origin)
    return found if found.is_file() else None


def code_of(module: str) -> str:
    """SHA-256 of an encoder's file; "" where it is not found, which importing it will say."""
    try:
        file = file_of(module)
        return "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, FewstepError):
        return ""


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is. `find_spec` alone imports the packages that it is in."""
    first, *others = module.split(".")
    try:
        with working_directory():
            spec, name = find_spec(first), first
    except (ImportError, ValueError):  # a name that is none; a program that was not imported
        return None
    for part in others:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec


def _key(name: str) -> str:
    """An encoder as it is now: its file and function, and the file's hash."""
    module, _, function = name.rpartition(":")
    try:
        file = file_of(module)
    except FewstepError:
        file = None
    where = os.path.abspath(module) if is_file(module) else module
    if file is not None:
        where = str(file.resolve())
    return f"{where}:{function} {code_of(module)}"


def _place(key: str) -> Path:
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return expanded(cache_folder()) / f"encoder-{digest[:24]}.json"
