"""What a run and a model file keep of the plugins that gave their parts, and asking for them."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError, FewstepWarning
from fewstep.names import LEDGER, Filed
from fewstep.plugins.code import is_path
from fewstep.plugins.load import Plugin, plugin_of


@dataclass(frozen=True, kw_only=True)
class Used:
    """A plugin, as a run or a model file knows it.

    Args:
        name: its package or single module.
        given: what loads it: a path or the name of a module.
        sha256: of its files, as they were imported.
        gives: what was used of it, such as "network mine".
    """

    name: str
    given: str
    sha256: str
    gives: tuple[str, ...]

    def without_folder(self) -> dict[str, Any]:
        """It as JSON values, without the folder that it was in, which is nobody else's business."""
        given = Path(self.given).name if is_path(self.given) else self.given
        return asdict(replace(self, given=given))


_SAID: set[tuple[str, str]] = set()  # to have changed


def used_in(*values: Any) -> tuple[Used, ...]:
    """The plugins whose names stand in settings, which are JSON values.

    A name may be a whole text or a word of it, as in the spec ``"mine(c=1)"``.
    """
    words = {word for value in values for text in _texts(value) for word in _words(text)}
    found: dict[Plugin, list[Filed]] = {}
    for filed in LEDGER:
        if not filed.ours and filed.name in words:
            found.setdefault(plugin_of(filed), []).append(filed)
    return tuple(
        Used(name=p.name, given=p.given, sha256=p.sha256, gives=tuple(map(str, some)))
        for p, some in found.items()
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _words(text: str) -> Iterator[str]:
    yield text
    yield from re.findall(r"[^\W\d]\w*", text)


def options(used: Iterable[Used]) -> str:
    """The words that give plugins to a command, with a space before them."""
    return "".join(f" --plugin {shlex.quote(plugin.given)}" for plugin in used)


def among(needed: Iterable[Used], known: Iterable[Used]) -> tuple[Used, ...]:
    """What is known of the plugins that are needed, such as where they are."""
    where = {used.name: used for used in known}
    return tuple(where.get(used.name, used) for used in needed)


def check_outside(used: Iterable[Used], home: Path) -> None:
    """Raise `FewstepError` for a plugin in the folder of a run that is to begin with it."""
    for plugin in used:
        if Path(plugin.given).is_relative_to(home.absolute()):
            raise FewstepError(
                f"the plugin {plugin.given} lies in the run folder {home}, from which no code is "
                "imported when the run goes on: give another --out, or move the plugin."
            )


def check_used(used: Iterable[Used], whose: object) -> None:
    """Ask for plugins that are missing, and say which have changed.

    Args:
        used: that are needed.
        whose: the run or model file that needs them.

    Raises:
        FewstepError: one is missing, or no longer gives what it gave.
    """
    known = {str(filed): filed for filed in LEDGER}
    for plugin in used:
        missing = [name for name in plugin.gives if name not in known]
        if missing:
            raise FewstepError(_missing(plugin, missing, whose))
        for now in {plugin_of(known[x]) for x in plugin.gives if not known[x].ours}:
            if now.sha256 != plugin.sha256 and (plugin.name, plugin.sha256) not in _SAID:
                _SAID.add((plugin.name, plugin.sha256))
                warnings.warn(_changed(plugin, now, whose), FewstepWarning, stacklevel=2)


def _missing(plugin: Used, missing: list[str], whose: object) -> str:
    what = " and ".join(missing)
    there = Path(plugin.given).exists() or Path(plugin.given).name == plugin.given
    where = plugin.given if there else f"PATH, where {plugin.given} is now"
    return (
        f"{whose} needs the plugin {plugin.name} for its {what}: give it with --plugin {where}, or "
        "in Python with fewstep.load_plugin."
    )


def _changed(plugin: Used, now: Plugin, whose: object) -> str:
    return (
        f"the plugin {now.given} has changed since it was used for {whose}: its SHA-256 was "
        f"{plugin.sha256[:12]}, and is {now.sha256[:12]} now."
    )
