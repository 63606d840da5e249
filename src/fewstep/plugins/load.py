"""Importing the code of a user's own."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass, replace
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from fewstep.errors import FewstepError
from fewstep.names import LEDGER, Filed, loading, top
from fewstep.plugins.code import (
    INIT,
    INSTALLED,
    check_place,
    digest,
    file_of,
    is_path,
    module_file,
    sources,
    working_directory,
)

HOW = (
    'put @OBJECTIVES.register("name") above a class, say, or @RECIPES.add("name") above a function '
    "that gives a Run"
)


@dataclass(frozen=True)
class Plugin:
    """Code by which names were added.

    Args:
        name: its package or single module.
        given: as the user named it, made absolute where it is a path.
        file: of the package or module; None where there is none, as in a notebook.
        sha256: of its files when they were imported; "" where there are none.
    """

    name: str
    given: str
    file: Path | None
    sha256: str

    @property
    def gives(self) -> list[str]:
        """The names that it has registered, such as "network mine"."""
        return [str(filed) for filed in LEDGER if not filed.ours and plugin_of(filed) == self]


_LOADED: dict[str, Plugin] = {}  # by `_key`
_GAVE: dict[Filed, Plugin] = {}


def load_plugin(which: str | Path) -> Plugin:
    """Import a plugin, so that what it registers can be picked by name.

    Args:
        which: a Python file, a folder with an ``__init__.py``, or the name of a module that is
            installed or in the working directory.

    Raises:
        FewstepError: it is not there, lies in a run's folder, cannot be imported, gives a name
            that another has, or gives none.
    """
    given = os.fspath(which)
    if not given:
        raise FewstepError("no plugin is named: give a Python file or the name of a module.")
    if is_path(given):
        file = file_of(Path(given))
        home = file.parent if file.name == INIT else file
        return _loaded(Plugin(home.stem, str(home), file, digest(file)))
    with working_directory():
        plugin = _of_module(given)
        if plugin.file is not None:
            check_place(plugin.file)
        return _loaded(plugin)


def plugin_of(filed: Filed) -> Plugin:
    """The plugin that gave a name; a module that was imported without ours is one, too."""
    if filed not in _GAVE:
        _GAVE[filed] = _imported(_of_module(top(filed.module)))
    return _GAVE[filed]


def _imported(plugin: Plugin) -> Plugin:
    """A module that a program has imported, or the program itself, as --plugin would name it."""
    file = plugin.file
    if file is None or INSTALLED & set(file.parts):
        return plugin
    home = file.absolute().parent if file.name == INIT else file.absolute()
    return replace(plugin, name=home.stem, given=str(home))


def code_of(cls: type) -> str:
    """SHA-256 of the plugin that has registered a class; "" for any other class."""
    filed = next((x for x in LEDGER if x.thing is cls and not x.ours), None)
    return "" if filed is None else plugin_of(filed).sha256


def loaded() -> list[Plugin]:
    """The plugins that were asked for, in that order."""
    return list(_LOADED.values())


def _of_module(name: str) -> Plugin:
    file = module_file(top(name))
    return Plugin(top(name), name, file, "" if file is None else digest(file))


def _loaded(plugin: Plugin) -> Plugin:
    """Import a plugin, unless that was done."""
    if (key := _key(plugin)) in _LOADED:
        return _LOADED[key]
    before, modules = set(LEDGER), set(sys.modules)
    try:
        with loading():
            _import(plugin)
        gave = [x for x in LEDGER if _is_of(plugin, x, before)]
        if not gave:
            raise FewstepError(f"registers nothing: {HOW}.")
    except (Exception, SystemExit) as error:
        _undo(plugin, before, modules)
        raise FewstepError(_said(plugin, error)) from error
    _GAVE.update(dict.fromkeys(gave, plugin))
    _LOADED[key] = plugin
    return plugin


def _key(plugin: Plugin) -> str:
    """What a plugin is known by, however its path is written; a module of a package by its name."""
    inside = not is_path(plugin.given) and "." in plugin.given
    return plugin.given if plugin.file is None or inside else str(plugin.file.resolve())


def _is_of(plugin: Plugin, filed: Filed, before: set[Filed]) -> bool:
    """Whether a plugin gave a name, in a module of its own or one beside it."""
    return top(filed.module) == plugin.name or (filed not in before and not filed.ours)


def _import(plugin: Plugin) -> None:
    if plugin.file is not None and is_path(plugin.given):
        _import_file(plugin.name, plugin.file)
        return
    if plugin.file is None and not _is_there(plugin.name):
        raise FewstepError(f"is neither a file nor a module, installed or in {os.getcwd()}.")
    importlib.import_module(plugin.given)


def _import_file(name: str, file: Path) -> None:
    other = module_file(name) if name in sys.modules or _is_there(name) else file
    if other is None or not other.samefile(file):
        raise FewstepError(f"is called like another module, {other or name}: rename it.")
    package = file.name == INIT
    folder = str(file.parent.parent if package else file.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that what lies beside a plugin hides nothing
    if name not in sys.modules:
        _execute(name, file, [str(file.parent)] if package else None)


def _execute(name: str, file: Path, inside: list[str] | None) -> None:
    spec = spec_from_file_location(name, file, submodule_search_locations=inside)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _undo(plugin: Plugin, before: set[Filed], modules: set[str]) -> None:
    """Forget a plugin that failed, and what it has registered."""
    gone = {name for name in set(sys.modules) - modules if top(name) == plugin.name}
    for filed in [x for x in LEDGER if x not in before and not x.ours]:
        filed.remove()
        gone.add(filed.module)
    for name in gone:
        sys.modules.pop(name, None)


def _said(plugin: Plugin, error: BaseException) -> str:
    """Where and why a plugin failed, in a line."""
    file, line = place(plugin, error)
    beside = "" if file in (None, plugin.file) else f" {file.name}" if file else ""
    where = f"the plugin {plugin.given}" + (f",{beside} line {line}" if line else "")
    if isinstance(error, FewstepError):
        return f"{where}: {error}" if line else f"{where} {error}"
    if isinstance(error, SystemExit):
        return f"{where}: it ends the program when it is imported."
    reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{where}: {type(error).__name__}: {reason.rstrip('.')}."


def place(plugin: Plugin, error: BaseException) -> tuple[Path | None, int | None]:
    """The file and line of a plugin where an error arose; None where it arose elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno
    own = [] if plugin.file is None else sources(plugin.file)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (file := Path(frame.filename)) in own:
            return file, frame.lineno
    return None, None
