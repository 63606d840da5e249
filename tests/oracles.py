"""Closed-form truths: data whose denoiser, PF-ODE flow and consistency function are known.

For data ``N(m, v I)`` and a process with ``x_t = alpha x + sigma z``:

    D(x, t)    = (v alpha x + sigma^2 m) / (v alpha^2 + sigma^2)          (posterior mean)
    flow t->s  : the standardised point (x - alpha m) / sqrt(v alpha^2 + sigma^2) is constant
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM, Parameterization
from fewstep.testing import Gaussian


class Exact(FlowMap):
    """A flow map that is the truth: the denoiser of a diffusion model, or the PF-ODE's flow."""

    def __init__(self, truth: Gaussian, kind: str, dim: int = 3) -> None:
        super().__init__(MLP((dim,), width=4, blocks=1), truth.p, info={"kind": kind})
        self.truth = truth
        self.double()

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        t, s = self.time(t, x), self.time(self.p.eps if s is None else s, x)
        if not self.trained.maps_to_eps:
            return self.truth.denoise(x, t)
        return self.truth.flow(x, t, s)


def network_map(kind: str = "consistency", num_classes: int = 0) -> FlowMap:
    """A small network with weights, in EDM's time."""
    F = MLP((2, 3), num_classes=num_classes, width=16, blocks=1)
    f = FlowMap(F, EDM(T=20.0), info={"kind": kind})
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return f


def columns_for(names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Columns of pairs with the samples ``x`` [B, ...]: random noise, states that lead to ``x``."""
    states = torch.stack([x + s * torch.randn_like(x) for s in (5.0, 1.0, 0.2, 0.0)], 1)
    times = torch.tensor((5.0, 1.0, 0.2, 0.0), dtype=x.dtype).expand(len(x), 4)
    known = {"noise": torch.randn_like(x), "trajectory": states, "times": times}
    return {name: known[name] for name in names}


def mixture_log_density(x: Tensor, t: Tensor, p: Parameterization) -> Tensor:
    """``log p_t`` of a two-component mixture in one dimension, x [B, 1], t [B] -> [B]."""
    a, s = p.alpha(t), p.sigma(t)
    logs = [
        w.log() + torch.distributions.Normal(a * m, (a**2 * v + s**2).sqrt()).log_prob(x[:, 0])
        for w, m, v in _MIXTURE
    ]
    return torch.logsumexp(torch.stack(logs), 0)


def mixture_denoise(x: Tensor, t: Tensor, p: Parameterization) -> Tensor:
    """``E[x_0 | x_t]`` of the same mixture: the components' posterior means, by responsibility."""
    a, s = p.alpha(t), p.sigma(t)
    logs, means = [], []
    for w, m, v in _MIXTURE:
        var = a**2 * v + s**2
        logs.append(w.log() + torch.distributions.Normal(a * m, var.sqrt()).log_prob(x[:, 0]))
        means.append((v * a * x[:, 0] + s**2 * m) / var)
    return (torch.softmax(torch.stack(logs), 0) * torch.stack(means)).sum(0)[:, None]


_MIXTURE = [
    tuple(torch.tensor(value, dtype=torch.float64) for value in component)
    for component in ((0.3, -1.0, 0.04), (0.7, 0.8, 0.09))
]


def slope(h: list[float], error: list[float]) -> float:
    """Slope of log error against log step: the measured order of convergence."""
    x, y = torch.tensor(h).double().log(), torch.tensor(error).double().log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
