"""From noise to data in steps. A solver is data where it can be.

`SOLVERS` are all of them, by name; `PHI` are the one-step methods among them that are also
the ``Phi`` of the papers.
"""

from fewstep.solvers.adaptive import AdaptiveRK45, rk45
from fewstep.solvers.denoised import ddim_step, denoised_of_step
from fewstep.solvers.exponential import DEIS, DPM1, DPM2, DPM3, DPMpp2M, data_prediction
from fewstep.solvers.integrator import (
    SOLVERS,
    Denoiser,
    Draw,
    Integrator,
    Level,
    default_grid,
    start_with_snr,
)
from fewstep.solvers.runge_kutta import PHI, RungeKutta, Solver, Velocity
from fewstep.solvers.stochastic import DDIM, Ancestral, Churn, EulerMaruyama, PredictorCorrector

__all__ = [
    "DDIM",
    "DEIS",
    "DPM1",
    "DPM2",
    "DPM3",
    "PHI",
    "SOLVERS",
    "AdaptiveRK45",
    "Ancestral",
    "Churn",
    "DPMpp2M",
    "Denoiser",
    "Draw",
    "EulerMaruyama",
    "Integrator",
    "Level",
    "PredictorCorrector",
    "RungeKutta",
    "Solver",
    "Velocity",
    "data_prediction",
    "ddim_step",
    "default_grid",
    "denoised_of_step",
    "rk45",
    "start_with_snr",
]
