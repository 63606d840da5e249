"""Every solver's measured order of convergence, on a PF-ODE with a known flow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fewstep.parameterization import EDM, PARAMETERIZATIONS, Parameterization
from fewstep.solvers import PHI, Velocity
from oracles import Gaussian, mixture_denoise, slope


def velocity(p: Parameterization) -> Velocity:
    """Of the PF-ODE of the two-component mixture: not linear, so that no solver is lucky."""
    return lambda x, t: p.velocity(x, mixture_denoise(x, t, p), t)


def reference(p: Parameterization, x: Tensor, start: float, end: float) -> Tensor:
    """The same ODE by scipy's 8th-order method at 1e-12."""

    def v(t: float, x: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(x)[:, None]
        return velocity(p)(points, torch.full((len(x),), t, dtype=torch.float64))[:, 0].numpy()

    solution = solve_ivp(v, (start, end), x[:, 0].numpy(), method="DOP853", rtol=1e-12, atol=1e-12)
    return torch.from_numpy(solution.y[:, -1])[:, None]


@pytest.mark.parametrize("process", ["edm", "trigflow", "rectified_flow"])
@pytest.mark.parametrize("name", list(PHI))
def test_order(name: str, process: str) -> None:
    p, solver = PARAMETERIZATIONS[process](), PHI.build(name)
    x0 = torch.linspace(-2.5, 2.5, 9, dtype=torch.float64)[:, None]
    start, end = (2.0, 0.3) if process == "edm" else (0.8 * p.T, 0.3)
    truth = reference(p, x0, start, end)
    counts = [32, 64, 128, 256]
    errors = []
    for n in counts:
        x, grid = x0, torch.linspace(start, end, n + 1, dtype=torch.float64)
        for t, s in pairwise(grid):
            x = solver.step(velocity(p), x, t.expand(9), s.expand(9))
        errors.append(float((x - truth).abs().max()))
    assert slope([1 / n for n in counts], errors) == pytest.approx(solver.order, abs=0.2)


@pytest.mark.parametrize("name", list(PHI))
def test_evaluations_are_counted(name: str) -> None:
    calls = []

    def v(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return -x

    solver = PHI.build(name)
    solver.step(v, torch.ones(2, 3), torch.ones(2), torch.zeros(2))
    assert len(calls) == solver.stages


def test_times_are_per_example() -> None:
    """One step of a batch with different times is the steps of its examples."""
    truth, solver = Gaussian(EDM()), PHI.build("heun")
    x = torch.randn(3, 2, dtype=torch.float64)
    t, s = torch.tensor([5.0, 2.0, 1.0]).double(), torch.tensor([3.0, 0.5, 0.9]).double()

    def v(x: Tensor, t: Tensor) -> Tensor:
        return truth.p.velocity(x, truth.denoise(x, t), t)

    whole = solver.step(v, x, t, s)
    parts = [solver.step(v, x[i : i + 1], t[i : i + 1], s[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_heun_on_edm_is_karras_algorithm_1() -> None:
    """Written out: d = (x - D)/t; x' = x + (s - t) d; then the mean of both slopes."""
    truth = Gaussian(EDM())
    x = torch.randn(4, 2, dtype=torch.float64)
    t, s = torch.full((4,), 3.0).double(), torch.full((4,), 1.0).double()
    d = (x - truth.denoise(x, t)) / 3.0
    euler = x - 2.0 * d
    d2 = (euler - truth.denoise(euler, s)) / 1.0
    truth_step = x - 2.0 * (d + d2) / 2

    def v(x: Tensor, t: Tensor) -> Tensor:
        return truth.p.velocity(x, truth.denoise(x, t), t)

    torch.testing.assert_close(PHI.build("heun").step(v, x, t, s), truth_step)
    torch.testing.assert_close(PHI.build("euler").step(v, x, t, s), euler)
