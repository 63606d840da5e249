"""What the statements about losses are measured on: one mixture, one wrong map, two losses.

``L^N`` is the mean over the grid of a `CD` or `CT` objective's own ``loss``; ``L^infinity`` that of
a continuous-time objective. Both are evaluated at quadrature nodes instead of random draws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.flow_map import FlowMap
from fewstep.objectives.consistency import ConsistencyObjective
from fewstep.objectives.continuous import ContinuousConsistency
from fewstep.parameterization import EDM
from fewstep.schedules import karras_grid
from fewstep.solvers import Solver
from fewstep.theory.mixture import Mixture, Wave
from fewstep.theory.quadrature import Nodes, legendre
from fewstep.trained import CONSISTENCY

P = EDM(T=5.0, sigma_data=0.8)
Pair = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(x, z, t, s) -> x_s``: the earlier point of the path through ``x + t z``."""


def wrong_map() -> FlowMap:
    """A consistency function that is smooth, and not that of any data."""
    return FlowMap(Wave(), P, trained=CONSISTENCY)


def solver_pair(Phi: Solver, data: Mixture, bias: float = 0.0) -> Pair:
    """One step of the solver with the exact score, as CD has it; or with one that is off."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return data.p.velocity(x, data.D(x, t) + bias, t)

    return lambda x, z, t, s: Phi.step(velocity, data.p.diffuse(x, t, z), t, s)


def noise_pair(data: Mixture) -> Pair:
    """The same image and noise at the earlier time, as CT has it."""
    return lambda x, z, t, s: data.p.diffuse(x, s, z)


def widest_gap(N: int) -> float:
    """``Delta t = max (t_{n+1} - t_n)``."""
    return float(karras_grid(N, P, dtype=torch.float64).diff().max())


def discrete_loss(
    o: ConsistencyObjective, N: int, nodes: Nodes, pair: Pair, f_minus: FlowMap | None = None
) -> Tensor:
    """``L^N(theta, theta^-)``, the mean over ``n = 1 .. N-1``: a scalar.

    Args:
        o: the objective, for ``d``, ``lambda`` and ``f``.
        N: number of grid points.
        nodes: where ``x`` and ``z`` are evaluated.
        pair: the earlier point of each path.
        f_minus: the target; default the objective's own.
    """
    grid = karras_grid(N, o.f.p, dtype=torch.float64)

    def loss(x: Tensor, z: Tensor, i: Tensor) -> Tensor:
        t, s = grid[i + 1], grid[i]
        x_t, x_s = o.f.p.diffuse(x, t, z), pair(x, z, t, s)
        if f_minus is None:
            return o.loss(x_t, t, x_s, s)
        return o.compare(x_t, t, f_minus(x_s, s).detach(), s)

    return nodes.mean(loss, N - 1).mean()


def continuous_loss(o: ContinuousConsistency, nodes: Nodes, times: int = 48) -> Tensor:
    """``L^infinity``: Gauss-Legendre nodes in ``u = tau^-1(t)`` for the time: a scalar."""
    u, weight = legendre(times)
    t_of_u = o.times.quantile(u, o.f.p)

    def loss(x: Tensor, z: Tensor, i: Tensor) -> Tensor:
        t = t_of_u[i]
        x_t, line = o.f.p.draw(x, t, z)
        return o.loss(x_t, t, o.velocity(x_t, t, line).detach())

    return nodes.mean(loss, times) @ weight


def gradient(loss: Tensor, f: FlowMap) -> Tensor:
    """The gradient of a scalar with respect to all parameters of ``f``, as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(f.parameters()))])
