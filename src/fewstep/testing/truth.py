"""Closed-form truths: data whose denoiser, PF-ODE flow and consistency function are known.

For data ``N(m, v I)`` and a process with ``x_t = alpha x + sigma z``:

    D(x, t)    = (v alpha x + sigma^2 m) / (v alpha^2 + sigma^2)          (posterior mean)
    flow t->s  : the standardised point (x - alpha m) / sqrt(v alpha^2 + sigma^2) is constant

With ``v = 0`` the data are one point ``m``, and every line of the flow leads straight to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import LATENTS, TRAJECTORIES
from fewstep.networks import MLP, FourierOperator, MLPAutoencoder, Network
from fewstep.parameterization import Parameterization, expand
from fewstep.trained import Trained

STATES = 4  # of a trajectory of pairs


class Gaussian:
    """Data ``N(m, v I)``; ``v = 0`` is a single point."""

    def __init__(self, p: Parameterization, m: float | Tensor = 0.3, v: float = 0.49) -> None:
        self.p, self.m, self.v = p, m, v

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t = x]``."""
        a, s = expand(self.p.alpha(t), x), expand(self.p.sigma(t), x)
        return (self.v * a * x + s**2 * self.m) / (self.v * a**2 + s**2)

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The point of time ``s`` on the line of the PF-ODE through ``x`` at ``t``."""

        def mean_and_std(r: Tensor) -> tuple[Tensor, Tensor]:
            a, b = expand(self.p.alpha(r), x), expand(self.p.sigma(r), x)
            return a * self.m, (self.v * a**2 + b**2).sqrt()

        (mean_t, std_t), (mean_s, std_s) = mean_and_std(t), mean_and_std(s)
        return mean_s + (x - mean_t) * std_s / std_t

    def sample(self, *shape: int) -> Tensor:
        """Draws of the data."""
        return self.m + self.v**0.5 * torch.randn(*shape, dtype=torch.float64)

    def columns(self, names: Sequence[str], z: Tensor) -> Columns:
        """Pairs of the flow: noises ``z`` [B, *shape], states on the way from them, their times.

        Raises:
            FewstepError: a column that pairs do not have.
        """
        left = 1 - torch.arange(1, STATES + 1, dtype=z.dtype) / STATES
        s = (self.p.T * left**4).expand(len(z), STATES)
        x_T = self.p.prior(z)
        T = z.new_full((len(z),), self.p.T)
        states = [self.flow(x_T, T, s[:, j]) for j in range(STATES)]
        known = {"noise": z, "trajectory": torch.stack(states, 1), "times": s}
        if missing := [name for name in names if name not in known]:
            raise FewstepError(
                f"pairs have no column {missing[0]!r}, but {', '.join(known)}: give examples, "
                f"Fitting(objective, columns={{{missing[0]!r}: lambda x: ...}})."
            )
        return {name: known[name] for name in names}


Columns = dict[str, Tensor]


class Point(MLP):
    """A network with a point ``m`` for its one weight that matters."""

    def __init__(self, m: float, shape: tuple[int, ...]) -> None:
        super().__init__(shape, width=4, blocks=1, two_time=True)
        self.m = nn.Parameter(torch.full(shape, m, dtype=torch.float64))


class Exact(FlowMap):
    """A map that is the truth about data at one point, in whatever way it is asked.

    Its denoiser, its map to any time and its raw prediction ``F(x, t, s)`` agree. The point is its
    weight: training moves it.

    Args:
        p: the parameterization.
        trained: what it is taken for.
        m: the point.
        shape: of one example.
    """

    F: Point

    def __init__(
        self, p: Parameterization, trained: Trained, m: float, shape: tuple[int, ...]
    ) -> None:
        super().__init__(Point(m, shape), p, trained=trained)
        self.double()

    @property
    def truth(self) -> Gaussian:
        """About data at its point."""
        return Gaussian(self.p, self.F.m, 0.0)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        t, s = self.time(t, x), self.time(self.p.eps if s is None else s, x)
        return self.truth.flow(x, t, s)

    def D(
        self,
        x: Tensor,
        t: Tensor | float,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        return self.truth.denoise(x, self.time(t, x))

    def prediction(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        """``F`` of ``D = a x + b F``; of a map between two times that of ``X``."""
        t = self.time(t, x)
        a, b = (expand(c, x) for c in self.p.c_denoised(t))
        on_diagonal = (self.D(x, t) - a * x) / b
        if s is None or self.p.form == "ddim":  # whose step with D = m is the flow itself
            return on_diagonal
        s = self.time(s, x)
        near = s >= t * (1 - 1e-6)
        c_skip, c_out = expand(self.p.c_skip(t, s), x), expand(self.p.c_out(t, s), x)
        between = (self(x, t, s) - c_skip * x) / c_out.where(~expand(near, x), 1)
        return torch.where(expand(near, x), on_diagonal, between)


class ExactOperator(FourierOperator):
    """A network whose trajectories lead to one point, its weight, in a process."""

    def __init__(self, p: Parameterization, m: float, shape: tuple[int, ...]) -> None:
        super().__init__(shape, base="mlp(width=4, blocks=1)", times=STATES)
        self.p, self.m = p, nn.Parameter(torch.full(shape, m, dtype=torch.float64))

    def trajectory(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        p, T = self.p, x.new_full((len(x),), self.p.T)
        end = torch.full_like(T, p.eps)
        x_T = x / expand(p.c_in(T), x)
        F = (self.m - expand(p.c_skip(T, end), x) * x_T) / expand(p.c_out(T, end), x)
        return F[:, None].expand(-1, STATES, *F.shape[1:])


class ExactAutoencoder(MLPAutoencoder):
    """An autoencoder of one point, its weight; its latents say nothing."""

    def __init__(self, m: float, shape: tuple[int, ...]) -> None:
        super().__init__(shape, latents=1, width=4, blocks=1)
        self.m = nn.Parameter(torch.full(shape, m, dtype=torch.float64))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zero = x.new_zeros(len(x), *self.latent_shape)
        return zero, zero

    def decode(self, z: Tensor) -> Tensor:
        return self.m.expand(len(z), *self.shape)


def exact_network(
    gives: str, p: Parameterization, m: float, shape: tuple[int, ...]
) -> Network | None:
    """The true network of data at one point, where it is not a map between times."""
    if gives == TRAJECTORIES:
        return ExactOperator(p, m, shape)
    return ExactAutoencoder(m, shape) if gives == LATENTS else None
