"""Whether a network of one parameterization means the same in another."""

from __future__ import annotations

from typing import Any

from fewstep.parameterization.base import Parameterization
from fewstep.parameterization.preconditioning import PRECONDITIONINGS, Preconditioning
from fewstep.parameterization.process import PROCESSES, Process, differing


def differences(a: Parameterization, b: Parameterization) -> dict[str, tuple[Any, Any]]:
    """By name, what a network would take differently in ``a`` and in ``b``: both values.

    These are the process, but for its end ``T``, and the preconditioning. Where a map ends and in
    which form are no part of it: the same network serves all.
    """
    return (
        _of("process", a.network_process, b.network_process)
        | _of("process", a.process, b.process)
        | _of("preconditioning", a.preconditioning, b.preconditioning)
    )


def _of(
    what: str, a: Process | Preconditioning, b: Process | Preconditioning
) -> dict[str, tuple[Any, Any]]:
    if type(a) is type(b):
        return differing(a, b)
    return {what: (_name(a), _name(b))}


def _name(part: Process | Preconditioning) -> str:
    registry: Any = PROCESSES if isinstance(part, Process) else PRECONDITIONINGS
    return registry.name_of(type(part))
