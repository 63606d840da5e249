"""Data whose score, PF-ODE and consistency function are known: a mixture of Gaussians on a line.

At time ``t`` the mixture is one again, with means ``alpha m_k`` and variances
``alpha^2 v_k + sigma^2``. On a line the PF-ODE cannot let two paths cross and keeps the probability
on either side of one, so that its flow maps quantiles to quantiles:

    X(x, t, s) = P_s^-1(P_t(x))           P_t the distribution function of x_t

No solver is needed to know where a path ends.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.networks import Network
from fewstep.parameterization import Parameterization
from fewstep.trained import CONSISTENCY, DIFFUSION

HALVINGS = 70  # of an interval of about 30: to the last bit of a float64


class Mixture:
    """``sum_k w_k N(m_k, v_k)`` under the process ``p``; points are [B, 1], times [B], float64.

    Args:
        p: the process.
        w, m, v: weights, means and variances of the components.
    """

    def __init__(
        self,
        p: Parameterization,
        w: tuple[float, ...] = (0.4, 0.6),
        m: tuple[float, ...] = (-0.8, 0.6),
        v: tuple[float, ...] = (0.09, 0.16),
    ) -> None:
        self.p = p
        self.w, self.m, self.v = (torch.tensor(a, dtype=torch.float64) for a in (w, m, v))

    def components(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations at ``t``: [B, K] each."""
        a, sigma = self.p.alpha(t)[:, None], self.p.sigma(t)[:, None]
        return a * self.m, (a**2 * self.v + sigma**2).sqrt()

    def _logs(self, x: Tensor, t: Tensor) -> Tensor:
        """``log w_k N(x; ...)``: [B, K]."""
        mean, std = self.components(t)
        return self.w.log() - ((x - mean) / std) ** 2 / 2 - std.log() - 0.5 * math.log(2 * math.pi)

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """``log p_t(x)``: [B, 1]."""
        return self._logs(x, t).logsumexp(1, keepdim=True)

    def cdf(self, x: Tensor, t: Tensor) -> Tensor:
        """``P_t(x)``: [B, 1]."""
        mean, std = self.components(t)
        return (self.w * torch.special.ndtr((x - mean) / std)).sum(1, keepdim=True)

    def D(self, x: Tensor, t: Tensor) -> Tensor:
        """``E[x_0 | x_t = x]``, the components' posterior means by responsibility: [B, 1]."""
        a, sigma = self.p.alpha(t)[:, None], self.p.sigma(t)[:, None]
        means = (self.v * a * x + sigma**2 * self.m) / (a**2 * self.v + sigma**2)
        return (self._logs(x, t).softmax(1) * means).sum(1, keepdim=True)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """``dx/dt`` of the PF-ODE: [B, 1]."""
        return self.p.velocity(x, self.D(x, t), t)

    def quantile(self, q: Tensor, t: Tensor) -> Tensor:
        """``P_t^-1(q)`` by halving an interval: [B, 1]."""
        mean, std = self.components(t)
        low = (mean - 12 * std).amin(1, keepdim=True)
        high = (mean + 12 * std).amax(1, keepdim=True)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self.cdf(middle, t) < q
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """``X(x, t, s)``: where the PF-ODE takes ``x`` from ``t`` to ``s``; [B, 1].

        Two steps of Newton's method from the end point give the derivatives in ``x``, ``t`` and
        ``s``, also those of derivatives.
        """
        q = self.cdf(x, t)
        with torch.no_grad():
            y = self.quantile(*(forward_ad.unpack_dual(a).primal for a in (q, s)))
        for _ in range(2):
            y = y + (q - self.cdf(y, s)) / self.log_density(y, s).exp()
        return y

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` points of the data: [n, 1]."""
        k = torch.multinomial(self.w, n, replacement=True, generator=generator)
        z = torch.randn(n, dtype=torch.float64, generator=generator)
        return (self.m[k] + self.v[k].sqrt() * z)[:, None]


class Wave(Network):
    """``F(x, c) = A sin(w x + b c + c0) + B``: smooth, wrong, and with parameters to differentiate.

    Args:
        theta: ``A, w, b, c0, B``.
    """

    shape, num_classes, two_time, takes = (1,), 0, False, ()

    def __init__(self, theta: tuple[float, ...] = (0.8, 1.1, 0.7, 0.3, 0.1)) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        A, w, b, c0, B = self.theta
        return A * torch.sin(w * x + b * c_noise[:, None] + c0) + B


class ExactDenoiser(FlowMap):
    """The diffusion model of a mixture: every map is the denoiser.

    Args:
        data: the mixture.
        bias: added to the denoiser, for a model that is wrong.
    """

    def __init__(self, data: Mixture, bias: float = 0.0) -> None:
        super().__init__(Wave(), data.p, trained=DIFFUSION)
        self.data, self.bias = data, bias

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        return self.data.D(x, self.time(t, x)) + self.bias


class ExactConsistency(FlowMap):
    """The consistency function of a mixture plus ``A c_out(t, s) F(x, t)``; exact at ``A = 0``.

    ``A`` is the one parameter that training would move, and its gradient at 0 is known to be 0.
    """

    def __init__(self, data: Mixture) -> None:
        super().__init__(Wave(), data.p, trained=CONSISTENCY)
        self.data = data
        self.A = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

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
        wrong = super().forward(x, t, s) - self.p.c_skip(t, s)[:, None] * x
        return self.data.flow(x, t, s) + self.A * wrong
