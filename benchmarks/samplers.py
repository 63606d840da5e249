"""Every solver's error against its network evaluations, on data whose denoiser is known exactly.

    python benchmarks/samplers.py

The data are a mixture of two normal distributions on a line, the processes EDM's (``T = 80``) and
VP, the grids each solver's default. Deterministic solvers: root mean square distance of where a
sample ends from where the PF-ODE takes it, over 256 quantiles of the start. Stochastic solvers:
Wasserstein-1 distance from the data of 20,000 coordinates, 250 to a sample; as many draws of the
data themselves have 0.007.
Prints Markdown tables and writes benchmarks/results/samplers.json.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.parameterization import EDM, VP, Parameterization, expand
from fewstep.sampling import Walk
from fewstep.solvers import SOLVERS, Denoiser

RESULTS = Path(__file__).parent / "results" / "samplers.json"
PROCESSES: dict[str, Parameterization] = {"EDM": EDM(), "VP": VP()}
BUDGETS = (5, 9, 13, 25, 49, 97)
ODE_SOLVERS = ["ddim", "heun", "midpoint", "rk4", "dpm1", "dpm2", "dpm3", "dpmpp_2m"]
ODE_SOLVERS += [f"deis(order={r})" for r in (1, 2, 3)]
ADAPTIVE = [f"rk45(rtol={tol}, atol={tol})" for tol in (1e-2, 1e-3, 1e-4, 1e-5)]
SDE_SOLVERS = ["ddim(eta=0.5)", "ancestral", "euler_maruyama", "pc", "churn"]
SDE_BUDGETS = (25, 49, 99, 201, 1001)  # pc spends even counts: one evaluation fewer
WEIGHT, MEAN, STD = (
    torch.tensor(values, dtype=torch.float64)[:, None]
    for values in ((0.3, 0.7), (-1.0, 0.8), (0.2, 0.3))
)


def denoiser(p: Parameterization) -> Denoiser:
    """The posterior mean of the mixture, by the responsibilities of its components."""

    def D(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = expand(p.alpha(t), x), expand(p.sigma(t), x)
        w, m, v = (value[..., None] for value in (WEIGHT, MEAN, STD**2))
        variance = alpha**2 * v + sigma**2
        log = w.log() - variance.log() / 2 - (x - alpha * m) ** 2 / (2 * variance)
        means = (alpha * v * x + sigma**2 * m) / variance
        return (log.softmax(0) * means).sum(0)

    return Denoiser(p, D)


def run(p: Parameterization, spec: str, budget: int | None, x: Tensor) -> tuple[Tensor, int, float]:
    """Where ``x`` ends, the evaluations spent, and the time of the end."""
    solver, walk, f = SOLVERS.build(spec), Walk(solver=spec, budget=budget), denoiser(p)
    t = walk.times(p)
    spend = () if budget is None else solver.split(budget)
    generator = torch.Generator().manual_seed(0)
    *_, x = solver.walk(f, x, t, spend, lambda: torch.randn(x.shape, generator=generator).double())
    return x, round(f.spent), t[-1]


def exact(p: Parameterization, x: Tensor, end: float) -> Tensor:
    """The PF-ODE by scipy's method of order 8; to 0 by the denoiser of a tiny time."""
    f, low = denoiser(p), end or 1e-6

    def v(t: float, x: np.ndarray) -> np.ndarray:
        return f.velocity(torch.from_numpy(x)[:, None], t)[:, 0].numpy()

    done = solve_ivp(v, (p.T, low), x[:, 0].numpy(), method="DOP853", rtol=1e-10, atol=1e-10)
    x = torch.from_numpy(done.y[:, -1])[:, None]
    return x if end else f.D(x, low)


def data_quantiles(n: int) -> Tensor:
    """The ``n`` middle quantiles of the data, by inverting the distribution function."""
    x = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    cdf = (WEIGHT * torch.special.ndtr((x - MEAN) / STD)).sum(0)
    q = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.from_numpy(np.interp(q.numpy(), cdf.numpy(), x.numpy()))


def ode_errors(p: Parameterization) -> dict[str, dict[int, float]]:
    z = torch.special.ndtri((torch.arange(256, dtype=torch.float64) + 0.5) / 256)
    x = p.prior(z)[:, None]
    truths: dict[float, Tensor] = {}
    table: dict[str, dict[int, float]] = {}
    for spec, budget in [(s, b) for s in ODE_SOLVERS for b in BUDGETS] + [
        (s, None) for s in ADAPTIVE
    ]:
        try:
            got, nfe, end = run(p, spec, budget, x)
        except FewstepError:
            continue  # a count that the solver cannot spend
        truth = truths.setdefault(end, exact(p, x, end) if end not in truths else x)
        table.setdefault(spec, {})[nfe] = float((got - truth).square().mean().sqrt())
    return table


def sde_distances(p: Parameterization) -> dict[str, dict[int, float]]:
    x_T = p.prior(torch.randn(80, 250, generator=torch.Generator().manual_seed(1)).double())
    truth = data_quantiles(x_T.numel())
    table: dict[str, dict[int, float]] = {}
    for spec in SDE_SOLVERS:
        for budget in SDE_BUDGETS:
            x, _, _ = run(p, spec, budget - (spec == "pc"), x_T)
            distance = (x.flatten().sort().values - truth).abs().mean()
            table.setdefault(spec, {})[budget] = float(distance)
    return table


def markdown(title: str, table: dict[str, dict[int, float]]) -> str:
    budgets = sorted({nfe for row in table.values() for nfe in row})
    lines = [f"| {title} | {' | '.join(map(str, budgets))} |", "|---|" + "---:|" * len(budgets)]
    for spec, row in table.items():
        cells = [f"{row[nfe]:.1e}" if nfe in row else "" for nfe in budgets]
        lines.append(f"| `{spec}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    result: dict[str, object] = {}
    for name, p in PROCESSES.items():
        errors, distances = ode_errors(p), sde_distances(p)
        fixed = {spec: row for spec, row in errors.items() if spec not in ADAPTIVE}
        print(markdown(f"{name}: error at NFE", fixed), end="\n\n")
        for spec in ADAPTIVE:
            ((nfe, error),) = errors[spec].items()
            print(f"{spec}: {nfe} NFE on average, error {error:.1e}")
        print("\n" + markdown(f"{name}: W1 at NFE", distances), end="\n\n")
        result[name] = {"error": errors, "wasserstein": distances}
    result["machine"] = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
