"""The measurements of the paper's statements: their truths, and that each of them can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fewstep.cli import run
from fewstep.objectives import CD, CT, ContinuousCD, ContinuousCT
from fewstep.parameterization import EDM, PARAMETERIZATIONS, RectifiedFlow
from fewstep.report.typeset import to_html, to_mathtext
from fewstep.solvers import PHI
from fewstep.solvers.runge_kutta import RK4, Heun
from fewstep.theory import CHECKS, Check, Line
from fewstep.theory.boundary import boundary
from fewstep.theory.continuous import gradient_line, value_line
from fewstep.theory.lemma1 import lemma_1, quadrature_error, score_error
from fewstep.theory.mixture import ExactDenoiser, Mixture
from fewstep.theory.quadrature import hermite, legendre, nodes
from fewstep.theory.setting import (
    P,
    continuous_loss,
    discrete_loss,
    noise_pair,
    solver_pair,
    wrong_map,
)
from fewstep.theory.solvers import solver_orders, theorem_1
from fewstep.theory.theorem2 import theorem_2
from oracles import Gaussian, mixture_denoise, mixture_log_density

PROCESSES = ["edm", "trigflow", "rectified_flow"]


def points(p: Any, n: int = 9, part: float = 0.4) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1.5, 1.5, n, dtype=torch.float64)[:, None]
    return x, torch.full((n,), part * min(p.T, 5.0), dtype=torch.float64)


# The truths


@pytest.mark.parametrize("process", PROCESSES)
def test_density_and_denoiser_of_the_mixture(process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    data = Mixture(p, w=(0.3, 0.7), m=(-1.0, 0.8), v=(0.04, 0.09))
    x, t = points(p)
    torch.testing.assert_close(data.log_density(x, t)[:, 0], mixture_log_density(x, t, p))
    torch.testing.assert_close(data.D(x, t), mixture_denoise(x, t, p))
    x.requires_grad_()
    (density,) = torch.autograd.grad(data.cdf(x, t).sum(), x)
    torch.testing.assert_close(density, data.log_density(x, t).exp().detach())


@pytest.mark.parametrize("process", PROCESSES)
def test_the_flow_of_the_mixture_is_the_solution_of_its_ode(process: str) -> None:
    p = PARAMETERIZATIONS[process]()
    data, (x, t) = Mixture(p), points(p)
    end = 0.1 * min(p.T, 5.0)

    def v(t: float, x: np.ndarray) -> np.ndarray:
        at = torch.full((len(x),), t, dtype=torch.float64)
        return data.velocity(torch.from_numpy(x)[:, None], at)[:, 0].numpy()

    solution = solve_ivp(v, (float(t[0]), end), x[:, 0].numpy(), "DOP853", rtol=1e-12, atol=1e-12)
    found = data.flow(x, t, torch.full_like(t, end))
    np.testing.assert_allclose(found[:, 0].numpy(), solution.y[:, -1], rtol=1e-9, atol=1e-9)


def test_the_flow_of_one_component_is_that_of_a_gaussian() -> None:
    p = EDM(T=5.0)
    data, truth = Mixture(p, w=(1.0,), m=(0.3,), v=(0.49,)), Gaussian(p)
    x, t = points(p)
    s = torch.full_like(t, p.eps)
    torch.testing.assert_close(data.flow(x, t, s), truth.flow(x, t, s))


@pytest.mark.parametrize("p", [EDM(T=5.0), RectifiedFlow()])
def test_the_flow_is_constant_along_paths(p: Any) -> None:
    """Forward-mode derivatives: ``df/dx = p_t(x) / p_s(f)``, and ``df/dt = -v df/dx``."""
    data, (x, t) = Mixture(p), points(p)
    s, one, zero = torch.full_like(t, 0.05), torch.ones_like(x), torch.zeros_like(x)

    def f(x: Tensor, t: Tensor) -> Tensor:
        return data.flow(x, t, s)

    y, in_x = torch.func.jvp(f, (x, t), (one, torch.zeros_like(t)))
    torch.testing.assert_close(in_x, (data.log_density(x, t) - data.log_density(y, s)).exp())
    along = torch.func.jvp(f, (x, t), (data.velocity(x, t), torch.ones_like(t)))[1]
    torch.testing.assert_close(along, zero, rtol=0, atol=1e-10)


def test_quadrature_of_known_moments() -> None:
    z, w = hermite(20)
    assert [float((w * z**k).sum()) for k in (2, 3, 4)] == pytest.approx([1, 0, 3])
    u, w = legendre(12)
    assert float((w * u.exp()).sum()) == pytest.approx(np.e - 1)
    data = Mixture(P)
    found = nodes(data, 16).mean(lambda x, z, i: ((x + (i + 1)[:, None] * z) ** 2)[:, 0], 3)
    second = float((data.w * (data.m**2 + data.v)).sum())
    assert found.tolist() == pytest.approx([second + k**2 for k in (1, 2, 3)])


@pytest.mark.parametrize("name", ["cd", "ct", "continuous_cd", "continuous_ct"])
def test_quadrature_gives_the_mean_of_the_objectives_own_draws(name: str) -> None:
    data, f, rule = Mixture(P), wrong_map(), nodes(Mixture(P), 32)
    teacher = ExactDenoiser(data)
    with torch.no_grad():
        if name.startswith("continuous"):
            o: Any = ContinuousCT(f, 1) if name.endswith("ct") else None
            o = o or ContinuousCD(f, 1, teacher=teacher, stop_gradient=False)
            expected = continuous_loss(o, rule)
        else:
            o = CD(f, 1, teacher=teacher, N=12, solver="heun")
            pair = solver_pair(PHI.build("heun"), data)
            if name == "ct":
                o, pair = CT(f, 1, s0=12, s1=12), noise_pair(data)
            expected = discrete_loss(o, o.N(0), rule, pair)
        losses = o(data.sample(200_000, torch.Generator().manual_seed(17)), 0)
    error = float(losses.std()) / len(losses) ** 0.5
    assert float(losses.mean()) == pytest.approx(float(expected), abs=4 * error)
    assert error < 0.02 * float(expected)


# What is measured


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_statement_holds(check: Any) -> None:
    found: Check = check(1)
    for part in (*found.lines, *found.bounds):
        assert part.passed, part


def test_theorem_2_is_quadratic_and_tells_a_wrong_score() -> None:
    exact, control = theorem_2(0).lines
    assert exact.slope == pytest.approx(2, abs=0.1)
    assert control.control
    assert control.slope == pytest.approx(1, abs=0.1)


def test_a_slope_is_that_of_the_finest_points_above_rounding() -> None:
    h = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)
    power = tuple(3 * x**2 for x in h)
    assert Line("", h, (9.0, *power[1:5], 1e-14), 2.0, 0.01).slope == pytest.approx(2)
    assert not Line("", h, power, 1.0, 0.5).passed
    assert not Line("", h, (0.0,) * 6, 1.0, 0.5).passed  # nothing above rounding: no verdict
    assert not Line("", h, (float("nan"),) * 6, 1.0, 0.5).passed


# That it can fail


class WrongWeights(Heun):
    """Heun's method that uses too much of the first slope: of order 1."""

    b = (0.6, 0.4)


class WrongNode(RK4):
    """Runge-Kutta with the third slope taken at the wrong time."""

    c = (0.0, 0.5, 0.6, 1.0)


class Boastful(Heun):
    """Heun's method that claims order 3."""

    order = 3


@pytest.mark.parametrize("wrong", [WrongWeights, WrongNode, Boastful])
@pytest.mark.parametrize("check", [theorem_1, solver_orders])
def test_a_wrong_solver_is_caught(check: Any, wrong: type[Heun]) -> None:
    found = check(0, {"wrong": wrong(), "heun": Heun()})
    assert [line.passed for line in found.lines] == [False, True]
    assert not found.passed


def test_a_wrong_parameterization_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted(EDM):
        def c_skip(self, t: Tensor, s: Tensor) -> Tensor:
            return super().c_skip(t, s) * 1.001

        def score(self, x: Tensor, D: Tensor, t: Tensor) -> Tensor:
            return super().score(x, D, t) * 1.001

    monkeypatch.setitem(PARAMETERIZATIONS._classes, "shifted", Shifted)
    failed = [b.name for b in boundary(0).bounds if not b.passed]
    assert len(failed) == 1
    assert failed[0].endswith("shifted")
    assert score_error(Shifted()) == pytest.approx(1e-3, rel=0.01)


def test_a_wrong_denoiser_is_caught_by_lemma_1() -> None:
    class Skewed(Mixture):
        def log_density(self, x: Tensor, t: Tensor) -> Tensor:
            return super().log_density(x, t) * 1.01

    assert quadrature_error(Mixture(P)) < 1e-12
    assert quadrature_error(Skewed(P)) > 1e-4


def test_a_wrong_factor_of_the_grid_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Mixture(P)
    assert value_line(data, "l2", "l2").passed
    pair = noise_pair(data)
    assert gradient_line(data, "ct", pair, "l2").passed
    right = torch.ones_like
    monkeypatch.setattr("fewstep.objectives.continuous.karras_spacing", lambda t, p: 5.0 * right(t))
    assert not value_line(data, "l2", "l2").passed
    assert not gradient_line(data, "ct", pair, "l2").passed


def test_a_path_that_is_not_the_data_is_caught() -> None:
    """Training whose earlier point has another noise level: its gradient has another limit."""
    data = Mixture(P)
    assert not gradient_line(data, "", lambda x, z, t, s: P.diffuse(x, s, 0.9 * z), "l2").passed


# The command


def test_the_command_writes_a_page_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fewstep.theory.checks.CHECKS", (boundary, theorem_1))
    assert run(["verify", "-o", str(tmp_path / "a"), "--seed", "3"]) == 0
    assert "Theorem 1" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "a/theory.json").read_text())
    assert numbers["passed"]
    slopes = {x["name"]: x["slope"] for c in numbers["checks"] for x in c["lines"]}
    assert set(slopes) == {*PHI, *PARAMETERIZATIONS}
    page = (tmp_path / "a/theory.html").read_text()
    assert page.count("data:image/png") == 3
    assert "http" not in page
    assert "✗ fails" not in page
    pictures = {path.stem for path in (tmp_path / "a").glob("*.png")}
    assert pictures == {"paths", "boundary", "theorem-1"}


def test_the_same_seed_measures_the_same() -> None:
    assert lemma_1(5) == lemma_1(5)
    assert lemma_1(5).lines[0].error != lemma_1(6).lines[0].error


def test_the_command_fails_with_a_wrong_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fewstep.theory.checks.CHECKS", (theorem_1,))
    monkeypatch.setattr(Heun, "b", (0.6, 0.4))
    assert run(["verify", "-o", str(tmp_path)]) == 1
    assert "fails" in capsys.readouterr().out
    assert "✗ fails" in (tmp_path / "theory.html").read_text()
    assert not json.loads((tmp_path / "theory.json").read_text())["passed"]


def test_a_place_that_is_a_file_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["verify", "-o", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_formulas_are_typeset() -> None:
    assert to_html("L_{CD}^N < x_t, f_θ(x)") == (
        "L<sub>CD</sub><sup>N</sup> &lt; x<sub>t</sub>, f<sub>θ</sub>(x)"
    )
    assert to_html("`continuous_cd` and rectified_flow") == (
        "<code>continuous_cd</code> and rectified_flow"
    )
    assert to_mathtext("| L_CD |, edm_simple") == "| L$_{\\mathrm{CD}}$ |, edm_simple"
