"""A model of one process in another, by matching the signal-to-noise ratio.

Let the network be trained in the process ``u`` (the source) and ``t`` be a time of another (the
target). At ``u(t)`` with ``ln(alpha/sigma)`` equal in both, ``x_t / alpha_t`` and
``x_u / alpha_u`` have the same distribution, so with ``k(t) = alpha_u / alpha_t``, which is
``sigma_u / sigma_t``,

    X_target(x, t, s) = X_source(k(t) x, u(t), u(s)) / k(s).

That is again of the form ``c_skip x + c_out F(c_in x, c_noise)``: the same network with other
coefficients. It holds for denoisers (``s = 0``, where ``k = 1``), for consistency functions
(``s = eps``) and for flow maps. Karras et al. 2022, Appendix C; Lu et al. 2022, Section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization.base import PARAMETERIZATIONS, Parameterization, from_config
from fewstep.parameterization.edm import EDM
from fewstep.parameterization.preconditioning import Preconditioning
from fewstep.parameterization.process import Process
from fewstep.parameterization.vp import VP

FAINT = 5e-3
"""Of alpha/sigma, below which the ratio of the sigmas is the better conditioned one: a time of
float32 near ``T`` says an alpha of that size to five digits, and a sigma to all."""


@PARAMETERIZATIONS.register("matched")
@dataclass(frozen=True)
class Matched(Parameterization):
    """The process of ``target`` for a network that was trained in that of ``source``.

    ``eps`` is the time of the source's ``eps`` (0 for 0), so that a consistency function keeps
    its end; ``T`` the target's, or where the source's network has seen no more noise.
    Preconditioning and form are the source's.

    Args:
        source, target: processes, or their `config`.
    """

    eps: float = field(init=False)
    T: float = field(init=False)
    sigma_data: float = field(init=False)
    form: str = field(init=False, kw_only=True)
    second: str = field(init=False, kw_only=True)
    source: Any = field(default_factory=EDM)
    target: Any = field(default_factory=VP)

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            part = getattr(self, name)
            part = from_config(part) if isinstance(part, dict) else part
            if not isinstance(part, Parameterization) or isinstance(part, Matched):
                raise FewstepError(f"matched needs a process as {name}, got {part!r}.")
            object.__setattr__(self, name, part)
        source, target = self.source, self.target
        object.__setattr__(self, "eps", self._time_of(source.eps) if source.eps else 0.0)
        object.__setattr__(self, "T", min(target.T, self._time_of(source.T)))
        for name in ("sigma_data", "form", "second"):
            object.__setattr__(self, name, getattr(source, name))
        super().__post_init__()

    def _time_of(self, u: float) -> float:
        log_snr = self.source.log_snr(torch.tensor(u, dtype=torch.float64))
        return float(self.target.time_of_log_snr(log_snr))

    def _process(self) -> Process:
        return replace(self.target.process, T=self.T)

    def _preconditioning(self) -> Preconditioning:
        return self.source.preconditioning  # of the source's time and scale: see below

    def _compose(self) -> None:
        object.__setattr__(self, "process", self._process())
        object.__setattr__(self, "preconditioning", self._preconditioning())
        object.__setattr__(self, "_form", self.source._form)

    @property
    def network_process(self) -> Process:
        return self.source.process

    def u(self, t: Tensor) -> Tensor:
        """The source's time with the signal-to-noise ratio of ``t``; 0 at 0."""
        u = self.source.time_of_log_snr(self.target.log_snr(t))
        return torch.where(t > 0, u, torch.zeros_like(u))

    def k(self, t: Tensor) -> Tensor:
        """``alpha_u / alpha_t = sigma_u / sigma_t``: from the target's ``x`` to the source's.

        Where hardly any signal is left, the first is a quotient of two zeros: see `FAINT`.
        """
        u, (alpha, sigma) = self.u(t), (self.target.alpha(t), self.target.sigma(t))
        of_alpha, of_sigma = self.source.alpha(u) / alpha, self.source.sigma(u) / sigma
        return torch.where(alpha < FAINT * sigma, of_sigma, of_alpha)

    def c_in(self, t: Tensor) -> Tensor:
        return self.source.c_in(self.u(t)) * self.k(t)

    def c_noise(self, t: Tensor) -> Tensor:
        return self.source.c_noise(self.u(t))

    def c_noise_s(self, t: Tensor, s: Tensor) -> Tensor:
        return self.source.c_noise_s(self.u(t), self.u(s))

    def c_denoised(self, t: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.source.c_denoised(self.u(t))
        return a * self.k(t), b

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        return self.source.c_skip(self.u(t), self.u(s)) * self.k(t) / self.k(s)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        return self.source.c_out(self.u(t), self.u(s)) / self.k(s)

    @property
    def config(self) -> dict[str, Any]:
        name = PARAMETERIZATIONS.name_of(type(self))
        return {"name": name, "source": self.source.config, "target": self.target.config}


def match(
    source: Parameterization,
    target: Parameterization,
    *,
    eps: float | None = None,
    **chosen: str,
) -> Parameterization:
    """The process of ``target`` for a network of ``source``; the source itself where they agree.

    Args:
        source, target: processes; a matched one counts as its own source or target.
        eps: where the map is to end, in the target's time; default where the source's ends.
        chosen: ``form`` and ``second`` of the map where they are not to be the source's.
    """
    source = source.source if isinstance(source, Matched) else source
    target = target.target if isinstance(target, Matched) else target
    if eps is not None:
        log_snr = target.log_snr(torch.tensor(eps, dtype=torch.float64))
        source = replace(source, eps=float(source.time_of_log_snr(log_snr)) if eps else 0.0)
    if chosen:
        source = replace(source, **chosen)
    return source if source == target else Matched(source, target)
