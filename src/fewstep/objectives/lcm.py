"""Latent consistency models."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.consistency import ConsistencyObjective
from fewstep.objectives.guided import FollowsTeacher
from fewstep.parameterization import time_dtype
from fewstep.parameterization.chain import Chain
from fewstep.solvers import ddim_step
from fewstep.weightings import Weighting
from fewstep.whole import whole


@OBJECTIVES.register("lcm")
class LCM(FollowsTeacher, ConsistencyObjective):
    """Distil a guided, discrete diffusion model, such as one of latents, over skipped steps.

    ``lambda_(n+k, n) d(f(x_{n+k}, w, n+k), f_minus(x_hat_n, w, n))`` where ``x_hat_n`` is one DDIM
    step over ``k`` steps of the chain by the teacher that is guided with the weight ``w`` of the
    row, ``D_null + w (D - D_null)``. The steps ``n + k`` are ``k, 2k, ..., N``, each with the same
    probability; the first has the end of the map before it, and a process that ends earlier, as of
    a teacher that knows less noise, its end for the last. Guidance is part of what the student
    learns: its samples need one network evaluation a step.

    The paper's ``w`` is less by one, ``D + w (D - D_null)``: its range [2, 14] is (3, 15) here.
    Its ``c_skip`` and ``c_out`` are 0 and 1 but for the first steps: the form "simple".

    Args:
        f: the map in training, started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        skip: ``k``, steps of the chain that a step of the grid makes.
        mu: decay of ``f_minus``, in the paper 0.95; 0 makes it ``f`` under stop-gradient.
        distance: ``d``, how two images are compared; the published script has a Huber loss, too.
        weighting: ``lambda_``, how much a time counts. The paper's is uniform, on the chain of
            Stable Diffusion, where ``alpha`` ends at 0.07. DDPM's linear betas lead to 0.006, where
            the image has 160 times the error of a network that predicts epsilon.
        guidance: one weight of the teacher's classifier-free guidance, which becomes part of the
            student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.

    Raises:
        FewstepError: a ``skip`` that does not divide the number of steps.
    """

    paper = "Luo, Tan, Huang, Li, Zhao 2023, Algorithm 1 (latent consistency distillation)"
    citation = "luo2023latent"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2, teacher=1)
    needs = Needs(teacher=TeacherUse.DISTIL, guided=True, processes=("vp_discrete",))

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        skip: int = 20,
        mu: float = 0.0,
        distance: Distance | str = "l2",
        weighting: Weighting | str = "min_snr",
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        if not 0 <= mu < 1:
            raise FewstepError(f"lcm needs 0 <= mu < 1, got mu={mu}.")
        decay = (lambda k: mu) if mu else None
        super().__init__(f, K, mu=decay, distance=distance, weighting=weighting)
        self.follow_guided(teacher, guidance, guidance_range, weak)
        N = cast("Chain", f.p.process).N
        if not 1 <= whole(skip, "skip") < N or N % skip:
            raise FewstepError(f"skip must divide the {N} steps of the chain, got {skip}.")
        self.skip, self.steps = skip, N

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        p, width = self.f.p, self.skip / self.steps
        grid = math.ceil(p.T / width * (1 - 1e-6))  # fewer where the process ends earlier
        i = torch.randint(1, grid + 1, (len(x),)).to(x.device, time_dtype(x))
        return (i * width).clamp(max=p.T), ((i - 1) * width).clamp(min=p.t_min)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t, s) = self.f.p, times
        x_t = p.diffuse(x, t, torch.randn_like(x))
        with torch.no_grad():
            x_s = ddim_step(x_t, self.guide.D(x_t, t, condition), t, s, p)
        return self.loss(x_t, t, x_s, s, condition)
