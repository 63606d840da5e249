"""Where a plugin's code is, and the hash by which it is known again."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fewstep.errors import FewstepError, not_there
from fewstep.files import RECORD
from fewstep.names import OURS

INIT = "__init__.py"
INSTALLED = frozenset({"site-packages", "dist-packages"})


def is_path(which: str) -> bool:
    """Whether a plugin is named by a path, not as a module."""
    return which.endswith(".py") or "/" in which or "\\" in which or which.startswith((".", "~"))


def file_of(path: Path) -> Path:
    """The file to import for a path: the file itself, or the one that makes a folder a package.

    Raises:
        FewstepError: there is nothing, or nothing to import.
    """
    path = path.expanduser()
    if not path.exists():
        raise not_there("plugin", path)
    file = path / INIT if path.is_dir() else path
    if not file.is_file():
        raise FewstepError(
            f"the plugin {path} is a folder without {INIT}: give one of its files, or add that."
        )
    if file.suffix != ".py":
        raise FewstepError(f"the plugin {path} is no Python file: its name must end in .py.")
    return check_place(file.absolute())


def check_place(file: Path) -> Path:
    """A file of code, unless it lies in a run's folder, which may be anybody's.

    Raises:
        FewstepError: it does.
    """
    for folder in {*file.parents, *file.resolve().parents}:
        if (folder / RECORD).is_file():
            raise FewstepError(
                f"{file} lies in the run folder {folder}, from which no code is imported: copy it "
                "to a folder of your own, once you have read it."
            )
    return file


@contextmanager
def working_directory() -> Iterator[None]:
    """An installed command, unlike ``python -m``, does not search the working directory."""
    before = sys.path.copy()
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def module_file(name: str) -> Path | None:
    """The file of a module that can be imported; None where there is none."""
    if (known := sys.modules.get(name)) is not None:
        origin = getattr(known, "__file__", None)
    else:
        try:
            found = find_spec(name)
        except (ImportError, ValueError):
            return None
        origin = None if found is None else found.origin
    return None if origin is None or not Path(origin).is_file() else Path(origin)


def sources(file: Path) -> list[Path]:
    """The files of a plugin: a package's, or a file and what it imports from beside it."""
    if file.name == INIT:
        return sorted(file.parent.rglob("*.py"))
    found: dict[Path, None] = {}
    _reach(file, found)
    return sorted(found)


def _reach(file: Path, found: dict[Path, None]) -> None:
    """Add a file, and what it imports from beside it, to those that were found."""
    if file in found:
        return
    found[file] = None
    if INSTALLED & set(file.parts):  # where everything is beside everything
        return
    for name in _imports(file):
        package, module = file.parent / name / INIT, file.parent / f"{name}.py"
        if name != OURS and package.is_file():
            found.update(dict.fromkeys(sources(package)))
        elif module.is_file():
            _reach(module, found)


def _imports(file: Path) -> Iterator[str]:
    """The names of the packages and modules that a file imports, as far as it can be read."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def digest(file: Path) -> str:
    """SHA-256 of a plugin: of its file, as other programs compute it, or of all its files."""
    files = sources(file)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    if len(files) == 1:
        return hashes[0]
    named = (f"{path.name} {found}\n" for path, found in zip(files, hashes, strict=True))
    return hashlib.sha256("".join(named).encode("utf-8", "surrogateescape")).hexdigest()
