"""Theorems 3 to 6: the losses in continuous time are the limits of those on a grid."""

from __future__ import annotations

from typing import Any

import torch

from fewstep.objectives import CD
from fewstep.objectives.continuous import ContinuousCD, ContinuousConsistency, ContinuousCT
from fewstep.solvers import PHI
from fewstep.theory.check import Bound, Check, Line
from fewstep.theory.mixture import ExactConsistency, ExactDenoiser, Mixture
from fewstep.theory.quadrature import nodes
from fewstep.theory.setting import (
    P,
    Pair,
    continuous_loss,
    discrete_loss,
    gradient,
    noise_pair,
    solver_pair,
    wrong_map,
)

GRIDS = (20, 40, 80, 160, 320)
SPACINGS = tuple(1 / (N - 1) for N in GRIDS)
DISTANCES = {"l2": "l2", "pseudo-Huber, c = 0.3": "pseudo_huber(c=0.3)", "l1": "l1"}


def theorems_3_and_4(seed: int) -> Check:
    """Values: ``(N-1)^degree L^N`` against the loss in continuous time."""
    data = Mixture(P)
    return Check(
        "theorems-3-4",
        "Theorems 3 and 4: distillation has a limit without a grid",
        "As the grid gets finer, neighbouring outputs get closer, and the distance sees only its "
        "own curvature at zero. Scaled up by the square of the number of intervals, the loss "
        "tends to the squared derivative of f along the path; with l1, which has a kink instead "
        "of a curvature, by the number of intervals, to its absolute value. Here t = τ(u) is the "
        "time at the part u of the grid, τ′ its derivative at that time, H the matrix of second "
        "derivatives of d at zero distance, and g the derivative along the path.",
        "(N−1)² L_{CD}^N  →  E[ ½ λ(t) τ′² gᵀ H g ]          g = ∂f/∂t + ∂f/∂x · dx_t/dt\n"
        "(N−1)  L_{CD}^N  →  E[ λ(t) τ′ |g| ]               for d = l1",
        "Both sides, for a smooth f that is wrong: the limit by automatic differentiation along "
        "the exact score's path, without any grid. And at the consistency function of the "
        "mixture the limit is zero, and so is its gradient.",
        "The relative gap between the scaled loss on a grid (Euler's method) and the objective "
        "`continuous_cd`, both integrated by quadrature. The grid's own spacing is off by the "
        "order of 1/N, so the gap must fall as 1/N.",
        [value_line(data, name, spec) for name, spec in DISTANCES.items()],
        truth_bounds(data, seed),
        h="1 / (N − 1)",
        error="relative gap to the limit",
    )


def theorems_5_and_6(seed: int) -> Check:
    """Gradients under stop-gradient, of distillation and of training."""
    data = Mixture(P)
    pairs = {
        "distillation": solver_pair(PHI.build("euler"), data),
        "training": noise_pair(data),
    }
    smooth = {name: spec for name, spec in DISTANCES.items() if name != "l1"}
    return Check(
        "theorems-5-6",
        "Theorems 5 and 6: the gradient, too, and without a teacher",
        "With the target under stop-gradient the loss itself has nothing to tell in the limit, "
        "but its gradient does: it is the gradient of f times the fixed derivative along the "
        "path. It is linear in that derivative, so one image and one noise give it right on "
        "average.",
        "(N−1) ∇_θ L^N(θ, θ⁻)  →  ∇_θ E[ λ(t) τ′ f_θᵀ H g_{θ⁻} ]\n"
        "distillation:  dx_t/dt = −t ∇ log p_t(x_t)          training:  dx_t/dt = (x_t − x) / t",
        "The gradient of the limit with respect to the five parameters of a smooth wrong f. Both "
        "theorems have the same limit.",
        "The norm of the difference between the gradient on a grid, times N − 1, and that of the "
        "objective `continuous_cd`, relative to its norm; by quadrature. With l1 the gradient is "
        "that of f times the sign of the derivative, without a factor N − 1. A sign is not linear, "
        "so for training with l1, as a control, the gap must stay: `continuous_ct` refuses l1.",
        [
            *(
                gradient_line(data, f"{method}, {name}", pair, distance)
                for name, distance in smooth.items()
                for method, pair in pairs.items()
            ),
            gradient_line(data, "distillation, l1", pairs["distillation"], "l1"),
            *(
                gradient_line(data, f"{method}, λ = 1/τ′", pair, "l2", "inverse_spacing")
                for method, pair in pairs.items()
            ),
            gradient_line(data, "training, l1", pairs["training"], "l1", control=True),
        ],
        [
            Bound(f"relative difference of both limits, {n}", difference(data, d), 1e-5)
            for n, d in smooth.items()
        ],
        h="1 / (N − 1)",
        error="relative gap of the gradient",
    )


@torch.no_grad()
def value_line(data: Mixture, name: str, distance: str) -> Line:
    """``|(N-1)^degree L^N / L^infinity - 1|`` against ``1/(N-1)``."""
    f, teacher, points = wrong_map(), ExactDenoiser(data), nodes(data, 32)
    euler = solver_pair(PHI.build("euler"), data)
    o = ContinuousCD(f, 1, teacher=teacher, stop_gradient=False, distance=distance)
    on_grid = CD(f, 1, teacher=teacher, distance=distance)
    limit = continuous_loss(o, points)
    losses = [(N - 1) ** o.d.degree * discrete_loss(on_grid, N, points, euler) for N in GRIDS]
    return Line(
        name, SPACINGS, tuple(float((loss / limit - 1).abs()) for loss in losses), 1.0, 0.15
    )


def gradient_line(
    data: Mixture,
    name: str,
    pair: Pair,
    distance: str,
    weighting: str = "uniform",
    *,
    control: bool = False,
) -> Line:
    """``||(N-1)^(degree-1) grad L^N - limit|| / ||limit||`` against ``1/(N-1)``; by Theorem 5.

    A control is expected to stay away from the limit.
    """
    f, points, teacher = wrong_map(), nodes(data, 32), ExactDenoiser(data)
    form: dict[str, Any] = {"distance": distance, "weighting": weighting}
    limit = gradient(continuous_loss(ContinuousCD(f, 1, teacher=teacher, **form), points), f)
    o = CD(f, 1, teacher=teacher, **form)
    gaps = []
    for N in GRIDS:
        scale = (N - 1) ** (o.d.degree - 1)
        found = scale * gradient(discrete_loss(o, N, points, pair), f)
        gaps.append(float((found - limit).norm() / limit.norm()))
    return Line(name, SPACINGS, tuple(gaps), 0.0 if control else 1.0, 0.15, control=control)


def difference(data: Mixture, distance: str) -> float:
    """Relative difference of the gradients of continuous-time distillation and training."""
    f, points = wrong_map(), nodes(data, 32)
    objectives = (
        ContinuousCD(f, 1, teacher=ExactDenoiser(data), distance=distance),
        ContinuousCT(f, 1, distance=distance),
    )
    cd, ct = (gradient(continuous_loss(o, points), f) for o in objectives)
    return float((cd - ct).norm() / cd.norm())


def truth_bounds(data: Mixture, seed: int) -> list[Bound]:
    """Loss and gradient at the consistency function, with and without stop-gradient."""
    bounds = []
    for stop_gradient in (False, True):
        loss, size = loss_at_the_truth(data, seed, stop_gradient)
        words = "with" if stop_gradient else "without"
        bounds += [
            Bound(f"loss at the truth, {words} stop-gradient", loss, 1e-12),
            Bound(f"gradient at the truth, {words} stop-gradient", size, 1e-6),
        ]
    return bounds


def loss_at_the_truth(data: Mixture, seed: int, stop_gradient: bool) -> tuple[float, float]:
    """Largest loss, and gradient in ``A``, over points in the bulk of the data."""
    generator = torch.Generator().manual_seed(seed)
    f = ExactConsistency(data)
    o: ContinuousConsistency = ContinuousCD(
        f, 1, teacher=ExactDenoiser(data), stop_gradient=stop_gradient
    )
    u = torch.rand(256, dtype=torch.float64, generator=generator)
    q = 0.001 + 0.998 * torch.rand(256, 1, dtype=torch.float64, generator=generator)
    t = o.times.quantile(u, data.p)
    x_t = data.quantile(q, t)
    losses = o.loss(x_t, t, data.velocity(x_t, t))
    (slope,) = torch.autograd.grad(losses.mean(), f.A)
    return float(losses.detach().max()), float(slope.abs())
