"""Theorem 2: the loss of consistency training is that of distillation, up to o(Delta t)."""

from __future__ import annotations

import torch

from fewstep.flow_map import FlowMap
from fewstep.objectives import CD
from fewstep.solvers import PHI
from fewstep.theory.check import Check, Line
from fewstep.theory.mixture import ExactDenoiser, Mixture, Wave
from fewstep.theory.quadrature import nodes
from fewstep.theory.setting import (
    P,
    discrete_loss,
    noise_pair,
    solver_pair,
    widest_gap,
    wrong_map,
)

GRIDS = (20, 40, 80, 160, 320)
BIAS = 0.3


@torch.no_grad()
def theorem_2(seed: int) -> Check:
    """The gap between both losses with the exact score and Euler's method."""
    data, points = Mixture(P), nodes(Mixture(P), 32)
    f, f_minus = wrong_map(), FlowMap(Wave((0.6, 0.9, 0.5, 0.5, -0.6)), P)
    o, euler = CD(f, 1, teacher=ExactDenoiser(data)), PHI.build("euler")
    ct = [discrete_loss(o, N, points, noise_pair(data), f_minus) for N in GRIDS]

    def line(name: str, bias: float, expected: float) -> Line:
        pair = solver_pair(euler, data, bias)
        cd = [discrete_loss(o, N, points, pair, f_minus) for N in GRIDS]
        gaps = tuple(float((a - b).abs()) for a, b in zip(cd, ct, strict=True))
        widths = tuple(map(widest_gap, GRIDS))
        return Line(name, widths, gaps, expected, 0.15, control=bias != 0)

    lines = [line("exact score", 0.0, 2.0), line(f"denoiser off by {BIAS:g}", BIAS, 1.0)]
    return Check(
        "theorem-2",
        "Theorem 2: training without a teacher has the same loss",
        "One image and one noise at two neighbouring times may stand in for a step of the "
        "teacher's path: the two losses differ by less than the step. The first-order terms "
        "cancel, since by Lemma 1 the noise points along the path on average.",
        "L_CD(θ, θ⁻; φ) = L_CT(θ, θ⁻) + o(Δt)",
        "With a teacher that has the exact score, only the difference of the two losses is left. "
        "f_θ and f_{θ⁻} are two different smooth functions, neither the consistency function, so "
        "that the losses themselves do not vanish. Both are smooth, so the gap is quadratic.",
        "Both losses for d = l2, λ = 1 and Euler's method, integrated over data and noise by "
        "Gauss-Hermite quadrature instead of drawn, so that gaps far below any sampling error "
        f"show. As a control, a teacher whose denoiser is off by {BIAS:g}: the first-order terms "
        "no longer cancel, and the slope must be 1.",
        lines,
        error="| L_CD − L_CT |",
    )
