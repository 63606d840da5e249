"""Where a model's weights are from, and under which licence.

A model's `info` has its own ``origin``, of weights that were imported, and the ``lineage``: the
origins of the models that it was made from, such as a teacher's. Both stay with the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fewstep.exchange.hub.fetching import fetched, names_licence
from fewstep.hub_name import is_hub

Origin = dict[str, Any]
"""``source``, ``hub``, ``file``, ``sha256``, ``project``, ``licence``; those that are known."""
_COMMERCE = re.compile(r"(^|[-_ ])nc($|[-_ ])|non-?commercial|research", re.IGNORECASE)


def lineage(info: Mapping[str, Any]) -> list[Origin]:
    """The origins of a model: its own first, then those of what it was made from."""
    own, others = info.get("origin"), info.get("lineage")
    found = [own, *(others if isinstance(others, list | tuple) else ())]
    return [origin for origin in found if isinstance(origin, dict)]


def licences(info: Mapping[str, Any]) -> tuple[str, ...]:
    """The licences that a model's weights came with, each once, its own first."""
    named = (licence_from(origin) for origin in lineage(info))
    return tuple(dict.fromkeys(name for name in named if name is not None))


def licence_from(origin: Origin) -> str | None:
    """The licence of an origin; None where it names none, as files of earlier versions may."""
    named = origin.get("licence")
    return named if isinstance(named, str) and names_licence(named) else None


def licence(info: Mapping[str, Any]) -> str | None:
    """The licence that a model's weights are bound to: one that forbids commerce before others.

    None where the licence of any origin is not known: nobody may put that of another over it.
    """
    named = licences(info)
    bound = next((name for name in named if forbids_commerce(name)), None)
    return bound or (None if unlicensed(info) else next(iter(named), None))


def unlicensed(info: Mapping[str, Any]) -> list[Origin]:
    """The origins of a model whose licence is not known."""
    return [origin for origin in lineage(info) if licence_from(origin) is None]


def sources(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a model's weights were published, each once: names of the hub, addresses, files."""
    named = [o.get("hub") or o.get("source") or o.get("file") for o in lineage(info)]
    return tuple(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def forbids_commerce(licence: str) -> bool:
    """Whether a licence, by its name, is for non-commercial use only."""
    return bool(_COMMERCE.search(licence))


def of_hub(name: str | PurePath, info: Mapping[str, Any]) -> Origin:
    """The origin of a model of the hub: that of its file, where from, and the card's licence."""
    found, own = fetched(name), info.get("origin")
    before: Origin = own if isinstance(own, dict) else {}
    return {
        **before,
        "source": before.get("source") or found.name,
        "hub": found.name,
        "licence": licence_from(before) or found.licence,
    }


def exact(name: str, info: Mapping[str, Any]) -> str:
    """The name that a model was opened by, of the hub with its commit; paths as they are."""
    own = info.get("origin")
    return own["hub"] if is_hub(name) and isinstance(own, dict) and own.get("hub") else name


def with_hub(name: object, info: Mapping[str, Any]) -> dict[str, Any]:
    """A model's `info` with its origin, where its name is one of the hub."""
    if isinstance(name, str | PurePath) and is_hub(name):
        return {**info, "origin": of_hub(name, info)}
    return dict(info)


def made_from(info: Mapping[str, Any], *others: Mapping[str, Any]) -> list[Origin]:
    """The lineage of a model that was made from others: theirs, behind its own, each once."""
    before = info.get("lineage")
    known: list[Origin] = list(before) if isinstance(before, list) else []
    for origin in (origin for other in others for origin in lineage(other)):
        if origin not in known:
            known.append(origin)
    return known
