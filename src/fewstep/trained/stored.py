"""Records in files, and as earlier versions wrote them among free values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from fewstep.errors import FewstepError
from fewstep.records import record_of
from fewstep.trained.made import AUTOENCODER, CONSISTENCY, DIFFUSION, GENERATOR, NESTED
from fewstep.trained.refusals import Trained

_MADE = {
    "diffusion": DIFFUSION,
    "consistency": CONSISTENCY,
    "generator": GENERATOR,
    "autoencoder": AUTOENCODER,
}


LEGACY = {
    "kind": "ends and starts",
    "sampling_steps": "steps",
    "taus": "taus",
    "classes": "classes",
    "step": "step",
}
"""Keys of `info` of earlier versions, and the fields that hold their values now."""


def json_of(trained: Trained) -> dict[str, Any]:
    """The fields of a record that say something, as JSON values; `trained_of` is the inverse."""
    empty = Trained()
    said = {f.name: getattr(trained, f.name) for f in fields(Trained)}
    return {name: value for name, value in said.items() if value != getattr(empty, name)}


def trained_of(stored: object) -> Trained:
    """The record of what `json_of` gave.

    Raises:
        FewstepError: anything else; the message names the value.
    """
    return record_of(Trained, stored, "trained")


def of_kind(kind: object, name: str = "the kind") -> Trained:
    """What the word for a kind of model means.

    Raises:
        FewstepError: another word; the message calls it ``name``.
    """
    if not isinstance(kind, str) or kind not in _MADE:
        raise FewstepError(f"{name} must be one of {', '.join(_MADE)}, got {kind!r:.60}")
    return _MADE[kind]


def from_legacy(info: Mapping[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """The record that the `info` of earlier versions holds, and what else is in it.

    Raises:
        FewstepError: a value of a legacy key that means nothing; the message names it.
    """
    values = dict(info)
    old = {name: values[name] for name in LEGACY if values.get(name) is not None}
    kind, steps = old.pop("kind", None), old.pop("sampling_steps", None)
    made = Trained() if kind is None else of_kind(kind, "info.kind")
    if steps is not None:
        made = replace(NESTED if made == DIFFUSION else made, steps=steps)
    rest = {name: value for name, value in info.items() if name not in LEGACY}
    return replace(made, **old), rest


class Info(dict[str, Any]):
    """Free values of a model. A key whose value is in its record now is refused by its name."""

    def __getitem__(self, name: str) -> Any:
        _refuse_legacy(name)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_legacy(name)
        super().__setitem__(name, value)

    def get(self, name: str, default: Any = None) -> Any:
        _refuse_legacy(name)
        return super().get(name, default)


def _refuse_legacy(name: str) -> None:
    if name in LEGACY:
        raise FewstepError(
            f"info[{name!r}] is not there any more: f.trained.{LEGACY[name]} of the record "
            "fewstep.trained.Trained."
        )
