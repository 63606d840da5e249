"""``--config FILE``: the flags of a command from a TOML or YAML file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from cyclopts import App
from cyclopts.argument import Argument, ArgumentCollection, update_argument_collection

from fewstep.annotations import fits, kind_of
from fewstep.errors import FewstepError, refusal

PLUGIN = "plugin"  # which is read before the commands are known
LISTS = (tuple, list, Sequence)
TEXTS = (str, Path)


class Config:
    """The settings of a file.

    Args:
        path: of a .toml, .yaml or .yml file: a table of settings, in which ``[objective]`` with an
            ``N`` is the same as ``objective.N``.

    Raises:
        FewstepError: no such file, or not one of settings.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.settings = path, dict[str, Any]()
        for key, value in _all_of(path):
            if (name := _spelled(key)) in self.settings:
                raise FewstepError(f"{path}: {key} is set twice.")
            self.settings[name] = value

    def plugins(self) -> tuple[str, ...]:
        """The plugins that it names.

        Raises:
            FewstepError: they are no texts.
        """
        given = self.settings.get(PLUGIN, [])
        several = [given] if isinstance(given, str) else given
        if not isinstance(several, list) or not all(isinstance(which, str) for which in several):
            raise FewstepError(f"{self.path}: {PLUGIN} must be a text or a list of texts.")
        return tuple(several)

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Give a command the settings that the command line leaves open.

        Raises:
            FewstepError: a setting that the command does not have, or of another type.
        """
        flags = {name: argument for argument in arguments for name in _names_of(argument)}
        for name, value in self.settings.items():
            if name == PLUGIN:
                continue
            if name not in flags:
                raise FewstepError(f"{self.path}: {_unknown(name, flags, commands)}")
            if value is None and flags[name].field_info.default is None:
                continue  # which is what it is without
            _check(self.path, _key(name), value, flags[name].hint)
            update_argument_collection(
                {name: value}, str(self.path), arguments, root_keys=(), allow_unknown=False
            )


def _all_of(path: Path) -> list[tuple[str, Any]]:
    """The settings of a file, which an alias of YAML may have put inside themselves."""
    try:
        return list(_flat(_read(path)))
    except RecursionError:
        raise FewstepError(f"{path}: its tables stand too deep inside each other.") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refusal(error) from error
    except ValueError as error:
        raise FewstepError(f"{path} is no text in UTF-8: {error}.") from error
    ending = path.suffix.lower()
    if ending == ".toml":
        found = _toml(path, text)
    elif ending in (".yaml", ".yml"):
        found = _yaml(path, text)
    else:
        raise FewstepError(f"{path}: a file of settings ends in .toml, .yaml or .yml.")
    if not isinstance(found, dict):
        raise FewstepError(f"{path} holds no settings: write a name and a value on each line.")
    return found


def _toml(path: Path, text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise FewstepError(f"{path} is not TOML: {error}.") from error


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise FewstepError(f"{path} needs: pip install 'fewstep[yaml]'") from error
    try:
        _check_once(path, yaml.compose(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise FewstepError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error


def _check_once(path: Path, node: Any) -> None:
    """Raise `FewstepError` for a key that stands twice in a table: YAML would take the last."""
    if node is None or node.id != "mapping":
        return
    seen = set[str]()
    for key, value in node.value:
        if (name := str(key.value)) in seen:
            raise FewstepError(f"{path}: {name} is set twice.")
        seen.add(name)
        _check_once(path, value)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _spelled(key: str) -> str:
    """A key as its flag is spelled; the name of a component, in its table, is the component's."""
    return key.removeprefix("--").removesuffix(".name").replace("_", "-")


def _names_of(argument: Argument) -> Iterator[str]:
    for name in argument.names:
        if name.startswith("--") and name not in argument.negatives:
            yield name.removeprefix("--")


def _key(name: str) -> str:
    """A flag as a key."""
    return name.replace("-", "_")


def _unknown(name: str, flags: Mapping[str, Argument], commands: tuple[str, ...]) -> str:
    """The line for a setting that a command does not have, with the nearest one that it has."""
    near = get_close_matches(name, flags, n=1, cutoff=0.5)
    hint = f" Did you mean {_key(near[0])!r}?" if near else ""
    help_ = " ".join(("fewstep", *commands, "--help"))
    return f"unknown setting {_key(name)!r}.{hint} {help_} shows all of them."


def _check(path: Path, key: str, value: Any, hint: Any) -> None:
    """Raise `FewstepError` for a value that is not of the type of its flag."""
    if _is(value, hint):
        return
    raise FewstepError(f"{path}: {key} must be {_kind(hint)}, got {value!r:.60}.")


def _kind(hint: Any) -> str:
    if _takes(hint, LISTS):
        return "a list"
    return "a text" if _takes(hint, TEXTS) else kind_of(hint)


def _is(value: Any, hint: Any) -> bool:
    """Whether a value has a type; of a list the command line checks what is in it."""
    if isinstance(value, list) or _takes(hint, LISTS):
        return isinstance(value, list) and _takes(hint, LISTS)
    if _takes(hint, TEXTS):
        return isinstance(value, str)
    return any(fits(reading, hint) for reading in _readings(value))


def _readings(value: Any) -> Iterator[Any]:
    """A value, and the number that it is: 1e5 may be whole, and YAML has 1e-3 as a text."""
    yield value
    if isinstance(value, str):
        with suppress(ValueError):
            yield from _readings(float(value))
    elif isinstance(value, float) and value.is_integer():
        yield int(value)


def _takes(hint: Any, types: tuple[Any, ...]) -> bool:
    """Whether an annotation, or a part of its union, is one of some types."""
    if get_origin(hint) in (Union, UnionType):
        return any(_takes(part, types) for part in get_args(hint))
    return hint in types or get_origin(hint) in types
