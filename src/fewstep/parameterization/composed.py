"""Any process with any preconditioning that serves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization
from fewstep.parameterization.preconditioning import PRECONDITIONINGS, Preconditioning
from fewstep.parameterization.process import PROCESSES, Process


@PARAMETERIZATIONS.register("composed")
@dataclass(frozen=True)
class Composed(Parameterization):
    """A process and a preconditioning of your choice, by their specs, in any form.

    Args:
        eps: smallest time, where the consistency function is the identity.
        sigma_data: standard deviation of the data.
        of: the process, such as "vp(beta_max=10)", with its ``T``.
        by: the preconditioning, such as "edm" or "time_itself(prediction='v')".
    """

    eps: float = 0.0
    T: float = field(init=False)
    of: str = "vp"
    by: str = "edm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "T", self._process().T)
        super().__post_init__()

    def _process(self) -> Process:
        return PROCESSES.build(self.of)

    def _preconditioning(self) -> Preconditioning:
        default: Any = {"sigma_data": self.sigma_data}
        return PRECONDITIONINGS.build(self.by, **default)
