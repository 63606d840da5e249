"""Theorem 1, and what it rests on: the order of every registered solver."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fewstep.schedules import karras_grid
from fewstep.solvers import PHI, SOLVERS, Denoiser, Integrator, Solver
from fewstep.theory.check import Check, Line
from fewstep.theory.mixture import Mixture
from fewstep.theory.setting import P, widest_gap

GRIDS = (20, 40, 80, 160, 320)
QUANTILES = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)[:, None]
START, END = 2.0, 0.3
STEPS = (20, 40, 80, 160, 320, 640)


def registered() -> dict[str, Solver]:
    """Every solver that can be built by its name alone."""
    return {name: PHI.build(name) for name in PHI}


def fixed_steps() -> dict[str, Integrator]:
    """Every solver of a diffusion model that has an order and takes the steps it is given.

    DEIS with a start of its full order; the start of its paper costs the order in the end.
    """
    specs = {name: name for name in SOLVERS} | {"deis": "deis(staged=True)"}
    built = {name: SOLVERS.build(spec) for name, spec in specs.items()}
    return {n: s for n, s in built.items() if s.convergence is not None and not s.adaptive}


def theorem_1(seed: int, solvers: Mapping[str, Solver] | None = None) -> Check:
    """The sup error of the map whose CD loss is zero, for every solver."""
    data = Mixture(P)
    widths = tuple(map(widest_gap, GRIDS))
    lines = [
        Line(
            name,
            widths,
            tuple(sup_error(data, Phi, N) for N in GRIDS),
            expected=float(Phi.order),
            tolerance=0.25,
        )
        for name, Phi in (registered() if solvers is None else solvers).items()
    ]
    return Check(
        "theorem-1",
        "Theorem 1: no distillation loss, hardly any error",
        "A model whose consistency distillation loss is exactly zero is not exactly right, "
        "because its teacher's path was followed in steps. It is wrong by no more than a "
        "constant times the widest step to the power of the solver's order.",
        "L_CD(θ, θ; φ) = 0   ⟹   sup over n, x of | f_θ(x, t_n) − f(x, t_n; φ) | = O( (Δt)^p )",
        "On a line the PF-ODE maps quantiles to quantiles, so the consistency function of the "
        "mixture is known without solving anything: f(x, t) = P_{ε}⁻¹(P_t(x)).",
        "Zero loss means that f(x, t_{n+1}) equals f at the end of one solver step, so the model "
        "is built backwards on the grid: f(x, ε) = x, then f(x, t_{n+1}) = f(Φ(x), t_n), with "
        "the exact score in Φ. Its largest error over all grid times and nine quantiles at each, "
        "against the widest gap of the grid.",
        lines,
        error="largest error of f",
    )


def solver_orders(seed: int, solvers: Mapping[str, Integrator] | None = None) -> Check:
    """The error of every solver over a fixed stretch of the PF-ODE."""
    data = Mixture(P)
    lines = [
        Line(
            name,
            tuple((START - END) / n for n in STEPS),
            tuple(path_error(data, solver, n) for n in STEPS),
            expected=float(solver.convergence or 0),
            tolerance=0.25,
        )
        for name, solver in (fixed_steps() if solvers is None else solvers).items()
    ]
    return Check(
        "solvers",
        "Every solver has the order that it claims",
        "Theorem 1 takes for granted that one step of the solver of order p errs by the step to "
        "the power of p + 1. A wrong coefficient shows at once as a lower order.",
        "x_s computed in steps of h   =   x_s   +   O( h^p )",
        "Where a path from a quantile ends: at the same quantile.",
        f"Nine paths of the mixture's PF-ODE from t = {START:g} to t = {END:g} in equal steps, "
        "for every solver of a diffusion model that draws no noise and takes the steps it is "
        "given; the largest error at the end. DEIS starts with single steps of its full order. "
        "Below 1e-12 there is only rounding, and such points do not count.",
        lines,
        h="step h",
        error="largest error of the path's end",
    )


@torch.no_grad()
def sup_error(data: Mixture, Phi: Solver, N: int) -> float:
    """Largest error of the map with zero CD loss on a grid of ``N`` points."""
    grid = karras_grid(N, data.p, dtype=torch.float64)
    Q = len(QUANTILES)
    q = QUANTILES.repeat(N, 1)
    x = data.quantile(q, grid.repeat_interleave(Q))  # row n: the points that start at t_n
    for n in range(N - 1, 0, -1):  # all points that started at t_n or above make this step
        rows = slice(n * Q, None)
        t, s = (time.expand(len(x[rows])) for time in (grid[n], grid[n - 1]))
        x[rows] = Phi.step(data.velocity, x[rows], t, s)
    return float((x - data.quantile(q, grid[:1].expand(N * Q))).abs().max())


@torch.no_grad()
def path_error(data: Mixture, solver: Integrator, n: int) -> float:
    """Largest error at the end of ``n`` equal steps."""
    times = np.linspace(START, END, n + 1).tolist()
    start, end = (torch.full((len(QUANTILES),), t, dtype=torch.float64) for t in (START, END))
    x, f = data.quantile(QUANTILES, start), Denoiser(data.p, data.D)
    spend = (solver.cost,) * n if solver.to_zero else solver.evaluations(n)
    *_, x = solver.walk(f, x, times, spend, _no_noise)
    return float((x - data.quantile(QUANTILES, end)).abs().max())


def _no_noise() -> Tensor:
    raise AssertionError("a solver with an order drew noise")
