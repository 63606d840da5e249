"""The library diffusers: its classes of networks, by their names and settings."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from fewstep.errors import FewstepError, listed

Settings = Mapping[str, Any] | str
"""Those of a ``config.json``, or their text."""


def library() -> Any:
    """The package diffusers.

    Raises:
        FewstepError: it is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise FewstepError(
            f"a network of diffusers needs pip install 'fewstep[diffusers]' ({error})."
        ) from error


def settings_of(config: Settings) -> dict[str, Any]:
    """Settings from themselves or their text, without what diffusers notes beside them.

    Raises:
        FewstepError: text that is no JSON object.
    """
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError as error:
            raise FewstepError(f"config of a network of diffusers is no JSON: {error}.") from error
        if not isinstance(config, Mapping):
            raise FewstepError("config of a network of diffusers must be a JSON object.")
    return {name: value for name, value in config.items() if not name.startswith("_")}


def module_class(name: str) -> type[nn.Module]:
    """The class of a network, by its name there.

    Raises:
        FewstepError: diffusers has none of that name.
    """
    try:
        found = getattr(library(), name, None) if name.isidentifier() else None
    except (RuntimeError, ImportError):  # a part of diffusers that needs more than is here
        found = None
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise FewstepError(
            f"diffusers {library().__version__} has no network {name!r:.60}: give one such as "
            "UNet2DModel, DiTTransformer2DModel or AutoencoderKL, or update diffusers."
        )
    return found


def known_settings(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a class of this diffusers takes."""
    known = inspect.signature(module_class(name).__init__).parameters
    return {setting: value for setting, value in config.items() if setting in known}


def built(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A network, freshly initialised.

    Raises:
        FewstepError: settings with which it cannot be built.
    """
    unknown = [setting for setting in config if setting not in known_settings(name, config)]
    if unknown:
        raise FewstepError(
            f"diffusers' {name} takes no {listed(unknown)}: leave that out of its config."
        )
    try:
        return module_class(name)(**config)
    except (TypeError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FewstepError(f"diffusers' {name} cannot be built from its config: {reason}") from None
