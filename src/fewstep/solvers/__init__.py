"""One step of the PF-ODE: the ``Phi`` of the papers. A solver is data where it can be."""

from fewstep.solvers.denoised import ddim_step, denoised_of_step
from fewstep.solvers.runge_kutta import SOLVERS, RungeKutta, Solver, Velocity

__all__ = ["SOLVERS", "RungeKutta", "Solver", "Velocity", "ddim_step", "denoised_of_step"]
