"""Every scalar that depends on time: a process, a preconditioning and a form of the map.

Every model of this package is a *two-time map* along the PF-ODE of its process,

    X(x, t, s) = c_skip(t, s) x + c_out(t, s) F(c_in(t) x, c_noise(t)[, c_noise_s(t, s)])

with ``c_skip(t, t) = 1`` and ``c_out(t, t) = 0``, so that ``X(x, t, t) = x`` whatever ``F`` is:

- ``s = 0``: the denoiser ``D(x, t) = E[x_0 | x_t]`` of a diffusion model;
- ``s = eps``: the consistency function ``f(x, t)``, with ``f(x, eps) = x``;
- free ``s``: a flow map.

Three choices make it: the `Process` (``alpha``, ``sigma``), the `Preconditioning` (``c_in``,
``c_noise``, and what ``F`` means: ``D = a x + b F``), and the `Form` (how ``s`` enters ``c_skip``
and ``c_out``). A `Parameterization` is one of each under a name, such as `EDM`, with the end
``eps`` of its consistency functions. `Composed` takes any three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from fewstep.errors import FewstepError, unknown
from fewstep.parameterization.form import FORMS, Form
from fewstep.parameterization.preconditioning import LARGEST, Preconditioning
from fewstep.parameterization.process import Process
from fewstep.registry import Registry

PARAMETERIZATIONS: Registry[Parameterization] = Registry("parameterization")

SECOND: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "s": lambda t, s: s,
    "gap": lambda t, s: t - s,
}
"""What a two-time network is told of the end of its map, besides ``t``."""


@dataclass(frozen=True)
class Parameterization(ABC):
    """A process and the coefficients of the two-time map along its PF-ODE.

    Args:
        eps: smallest time, where the consistency function is the identity.
        T: largest time, where samples start from noise.
        sigma_data: standard deviation of the data (0.5 for images scaled to [-1, 1] in EDM).
        form: how the end of the map enters it: shifted (EDM's alone), simple or ddim.
        second: what a two-time network is told of the end: "s" itself, or the "gap" ``t - s``.

    Raises:
        FewstepError: a value out of range; a form that the process does not admit.
    """

    eps: float = 0.002
    T: float = 80.0
    sigma_data: float = 0.5
    form: str = field(default="ddim", kw_only=True)
    second: str = field(default="s", kw_only=True)
    process: Process = field(init=False, repr=False, compare=False)
    preconditioning: Preconditioning = field(init=False, repr=False, compare=False)
    _form: Form = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.eps < self.T <= LARGEST:
            raise FewstepError(f"need 0 <= eps < T <= {LARGEST:g}, got eps={self.eps}, T={self.T}.")
        if not 1 / LARGEST <= self.sigma_data <= LARGEST:
            raise FewstepError(
                f"need sigma_data between {1 / LARGEST:g} and {LARGEST:g}, got {self.sigma_data}."
            )
        if self.second not in SECOND:
            raise unknown("second embedding", self.second, SECOND)
        self._compose()

    def _compose(self) -> None:
        """Set the three choices, once."""
        process, preconditioning = self._process(), self._preconditioning()
        preconditioning.check(process)
        form = FORMS.call(self.form, {"process": process, "preconditioning": preconditioning})
        object.__setattr__(self, "process", process)
        object.__setattr__(self, "preconditioning", preconditioning)
        object.__setattr__(self, "_form", form)

    @abstractmethod
    def _process(self) -> Process:
        """The process that the arguments describe."""

    @abstractmethod
    def _preconditioning(self) -> Preconditioning:
        """The preconditioning that the arguments describe."""

    @property
    def network_process(self) -> Process:
        """The process whose time and scale the network sees; of a matched one its source's."""
        return self.process

    # The map

    def c_in(self, t: Tensor) -> Tensor:
        """Scale of the network's input."""
        return self.preconditioning.c_in(t, self.process)

    def c_noise(self, t: Tensor) -> Tensor:
        """The network's time argument, finite for all ``t >= 0``."""
        return self.preconditioning.c_noise(t, self.process)

    def c_noise_s(self, t: Tensor, s: Tensor) -> Tensor:
        """What a two-time network is told of the end ``s`` of a map from ``t``; see `SECOND`."""
        return self.c_noise(SECOND[self.second](t, s))

    def c_denoised(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``a(t), b(t)`` of the denoised ``D = a x + b F``: what the network predicts."""
        return self.preconditioning.coefficients(t, self.process)

    def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
        """Weight of ``x`` in the map from ``t`` to ``s``; 1 at ``s = t``."""
        return self._form.c_skip(t, s)

    def c_out(self, t: Tensor, s: Tensor) -> Tensor:
        """Weight of the network in the map from ``t`` to ``s``; 0 at ``s = t``."""
        return self._form.c_out(t, s)

    @property
    def flow(self) -> bool:
        """Whether ``dX/ds`` at ``s = t`` is the PF-ODE's velocity; see `Form`."""
        return self._form.flow

    @property
    def continuous(self) -> bool:
        """Whether the map has a derivative in ``t`` where it ends."""
        return self._form.continuous

    # The process

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data in ``x_t``."""
        return self.process.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise in ``x_t``."""
        return self.process.sigma(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt."""
        return self.process.alpha_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt."""
        return self.process.sigma_dot(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """``lambda(t) = ln(alpha / sigma)``; see `Process.log_snr`."""
        return self.process.log_snr(t)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`."""
        return self.process.time_of_log_snr(log_snr)

    def noise_level(self, t: Tensor) -> Tensor:
        """``sigma / alpha``; see `Process.noise_level`."""
        return self.process.noise_level(t)

    def time_of_noise_level(self, level: Tensor) -> Tensor:
        """The inverse of `noise_level`."""
        return self.process.time_of_noise_level(level)

    def drift(self, t: Tensor) -> Tensor:
        """``alpha'/alpha``: the forward SDE's drift is this times ``x``."""
        return self.process.drift(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """``g(t)`` of the forward SDE; see `Process.diffusion`."""
        return self.process.diffusion(t)

    def reverse_drift(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """Drift of the reverse SDE; see `Process.reverse_drift`."""
        return self.process.reverse_drift(x, D, t)

    def diffuse(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """``x_t = alpha(t) x + sigma(t) z``: a sample of the process at time ``t`` [B, ...]."""
        return self.process.diffuse(x, t, z)

    def draw(self, x: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_t = alpha x + sigma z`` and its velocity ``v = alpha' x + sigma' z``: [B, ...]."""
        return self.process.draw(x, t, z)

    def renoise(self, x: Tensor, s: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """From time ``s`` to a later ``t``: a draw of ``p(x_t | x_s)``; see `Process.renoise`."""
        return self.process.renoise(x, s, t, z)

    def prior(self, z: Tensor) -> Tensor:
        """``x_T``, where sampling starts, from ``z ~ N(0, I)`` [B, ...]."""
        return self.process.prior(z)

    def score(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """``grad log p_t(x) = (alpha D - x) / sigma^2`` from the denoised ``D``."""
        return self.process.score(x, D, t)

    def velocity(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
        """``dx/dt`` of the PF-ODE from the denoised ``D``; for EDM ``(x - D) / t``."""
        return self.process.velocity(x, D, t)

    @property
    def straight(self) -> bool:
        """Whether solvers of its PF-ODE step uniformly in ``t``."""
        return self.process.straight

    @property
    def time_is_noise_level(self) -> bool:
        """Whether ``t`` is ``sigma / alpha`` itself."""
        return self.process.time_is_noise_level

    @property
    def grid(self) -> str:
        """Grid of solvers of its PF-ODE, a spec of `fewstep.schedules.TIME_GRIDS`."""
        return self.process.grid

    @property
    def t_min(self) -> float:
        """Smallest time that a grid of noise levels uses: ``eps``, or 0.002 where ``eps`` is 0."""
        return self.eps or min(0.002, self.T / 100)

    @property
    def config(self) -> dict[str, Any]:
        """Name and arguments, for storage; `from_config` is its inverse.

        `form` and `second` are there only where they are not the default, so that models of before
        and after they existed have one description.
        """
        arguments = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        for f in fields(self):
            if f.kw_only and f.init and arguments[f.name] == f.default:
                del arguments[f.name]
        return {"name": PARAMETERIZATIONS.name_of(type(self)), **arguments}


def from_config(config: dict[str, Any]) -> Parameterization:
    """The parameterization that `Parameterization.config` describes.

    Raises:
        FewstepError: an unknown name or argument, or a value of another type or out of range.
    """
    arguments = dict(config)
    name = arguments.pop("name")
    types: Any = {f.name: f.type for f in fields(PARAMETERIZATIONS[name])}
    for argument, value in arguments.items():
        accepted = TYPES.get(types.get(argument), object)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise FewstepError(
                f"{argument} of the parameterization {name!r} must be of type {types[argument]}, "
                f"got {value!r}."
            )
    return PARAMETERIZATIONS.call(name, arguments)


TYPES: dict[str, Any] = {"float": int | float, "int": int, "str": str}
"""What a field's annotation accepts."""
