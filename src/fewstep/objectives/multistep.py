"""Multistep consistency models: a consistency model in each of a few segments of the time.

Between a diffusion model, of as many segments as steps, and a consistency model, of one. The times
are a grid of ``S`` segments of ``N/S`` steps each. From ``x_t`` one step of the grid leads to
``x_s`` (`adjusted_ddim`), and the map's own prediction from there to the end of the segment, whose
point the map is to reach from ``x_t`` in one DDIM step (Heek, Hoogeboom, Salimans 2024,
Algorithms 1 to 3):

    z_ref = DDIM_{s -> end}(sg D(x_s, s), x_s)
    loss  = lambda_(t) d(D(x_t, t), invDDIM_{t -> end}(z_ref, x_t))

The model is sampled by ``S`` DDIM steps from end to end. It needs no boundary condition: at
``s = end`` the target is that of a diffusion model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout, check_dropout
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.objectives.guided import FollowsTeacher
from fewstep.parameterization import Parameterization, expand, time_dtype
from fewstep.schedules import GeometricN, nested_times
from fewstep.solvers import ddim_step, denoised_of_step
from fewstep.trained import NESTED
from fewstep.weightings import Weighting, weighting_for
from fewstep.whole import whole


def adjusted_ddim(
    x_t: Tensor, D: Tensor, t: Tensor, s: Tensor, p: Parameterization, variance: Tensor
) -> Tensor:
    """aDDIM: a DDIM step whose noise makes up for the spread that the mean ``D`` has lost.

    ``x_s = alpha_s D + sqrt(sigma_s^2 + n/|e|^2 (alpha_s - alpha_t sigma_s/sigma_t)^2 variance) e``
    with ``e = (x_t - alpha_t D) / sigma_t`` of ``n`` dimensions.

    Args:
        x_t: points [B, *shape].
        D: their denoised [B, *shape].
        t: times of the points [B].
        s: earlier times [B].
        p: the process.
        variance: of the image given ``x_t``, a mean over the dimensions [B].
    """
    e = (x_t - expand(p.alpha(t), D) * D) / expand(p.sigma(t), D)
    gap = p.alpha(s) - p.alpha(t) * p.sigma(s) / p.sigma(t)
    size = e.flatten(1).square().mean(1).clamp(min=torch.finfo(e.dtype).tiny)
    std = (p.sigma(s).square() + gap.square() * variance / size).sqrt()
    return expand(p.alpha(s), D) * D + expand(std, D) * e


class MultistepConsistency(Objective):
    """The loss of this module's head; a subclass says what stands for the clean image.

    Args:
        f: the map in training.
        K: total number of training steps.
        S: segments, the steps that the model is sampled in.
        N_start, N_end: steps of the whole grid at first and in the end.
        anneal: training steps from the first to the last.
        eta: part of the squared error of the clean image that is taken for its variance.
        uniform: segments even in the process's time; default those of `nested_times`.
        distance: ``d``, a distance or its spec.
        weighting: ``lambda_``, a weighting or its spec.
    """

    makes = NESTED

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        S: int,
        N_start: int,
        N_end: int,
        anneal: int,
        eta: float,
        uniform: bool,
        distance: Distance | str,
        weighting: Weighting | str,
    ) -> None:
        super().__init__(f, K)
        if not 1 <= whole(S, "S") <= N_start or eta < 0:
            raise FewstepError(
                f"{self.name} needs 1 <= S <= N_start and eta >= 0, got {S}, {N_start} and {eta}."
            )
        check_dropout(f.F)
        self.S, self.N = S, GeometricN(N_start, N_end, anneal)
        self.eta, self.uniform = eta, uniform
        sampler = "nested_ddim(uniform=True)" if uniform else NESTED.sampler
        f.trained = replace(f.trained, steps=S, sampler=sampler)
        self.d = DISTANCES.build(distance)
        self.lambda_ = weighting_for(f.p, weighting)

    @abstractmethod
    def clean(self, x: Tensor, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """What the step from ``x_t`` takes for the clean image: [B, *shape]."""

    def inner(self, k: int) -> int:
        """Steps of a segment at training step ``k``."""
        return max(1, round(self.N(k) / self.S))

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        n = self.inner(k)
        # from the data to T                                                          [S n + 1]
        grid = nested_times(self.S * n, self.f.p, uniform=self.uniform).flip(0)
        grid = grid.to(time_dtype(x)).to(x.device)
        segment = torch.randint(self.S, (len(x),)).to(x.device)
        i = segment * n + torch.randint(1, n + 1, (len(x),)).to(x.device)
        return grid[i], grid[i - 1], grid[segment * n]

    def narrowed(self, times: tuple[Tensor, ...], gap: float) -> tuple[Tensor, ...]:
        t = times[0]
        return t, *(t + gap * (s - t) for s in times[1:])

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t, s, end) = self.f.p, times
        x_t, dropout = p.diffuse(x, t, torch.randn_like(x)), SharedDropout()
        with dropout, torch.no_grad():
            D = self.clean(x, x_t, t, condition)
            variance = self.eta * (D - x).flatten(1).square().mean(1)
            x_s = adjusted_ddim(x_t, D, t, s, p, variance)
            seen = s.clamp(min=p.t_min)  # of the segment whose end is 0 itself
            onwards = ddim_step(x_s, self.f.D(x_s, seen, condition), seen, end, p)
            x_end = torch.where(expand(s <= end, x), x_s, onwards)
            target = denoised_of_step(x_t, x_end, t, end, p)
        with dropout:
            return self.lambda_(t, end, p) * self.d(self.f.D(x_t, t, condition), target)

    def schedule(self, k: int) -> dict[str, float]:
        return {"N": self.inner(k) * self.S}

    def remarks(self) -> Iterator[str]:
        N = self.N
        if N.steps > self.K and self.inner(self.K - 1) < self.inner(N.steps):
            yield (
                f"the grid grows to {N.s1:,} steps over the first {N.steps:,} of a training, and "
                f"this one of {self.K:,} ends with {self.inner(self.K - 1) * self.S:,}: give "
                f"--objective.anneal {max(1, self.K // 2)}, half of them, or more steps."
            )


@OBJECTIVES.register("multistep_cd")
class MultistepCD(FollowsTeacher, MultistepConsistency):
    """Distil a diffusion model into a consistency model of a few segments.

    ``lambda_(t) d(D(x_t, t), invDDIM(z_ref, x_t))`` with ``z_ref`` at the end of the segment of
    ``t``, where the map leads from the point of aDDIM's step of the teacher: see this module's
    head.

    Args:
        f: the map in training, started from the teacher's weights; afterwards it samples in ``S``
            DDIM steps alone.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        S: segments, the steps that the model is sampled in.
        N_start, N_end: steps of the whole grid at first and in the end.
        anneal: training steps from the first to the last.
        eta: part of the squared error of the teacher that is taken for the image's variance, in
            aDDIM; 0 is DDIM.
        uniform: segments even in the process's time, as in the paper's VP process; default those of
            progressive distillation's grid.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
    """

    paper = "Heek, Hoogeboom, Salimans 2024 (multistep consistency distillation)"
    citation = "heek2024multistep"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2, teacher=1)
    needs = Needs(teacher=TeacherUse.DISTIL, guided=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        S: int = 2,
        N_start: int = 64,
        N_end: int = 1280,
        anneal: int = 100_000,
        eta: float = 0.75,
        uniform: bool = False,
        distance: Distance | str = "pseudo_huber(c=1e-8)",
        weighting: Weighting | str = "snr_plus_one",
        guidance: float | str | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        super().__init__(
            f,
            K,
            S=S,
            N_start=N_start,
            N_end=N_end,
            anneal=anneal,
            eta=eta,
            uniform=uniform,
            distance=distance,
            weighting=weighting,
        )
        self.follow_guided(teacher, guidance, weak=weak)

    def clean(self, x: Tensor, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.guide.D(x_t, t, condition)


@OBJECTIVES.register("multistep_ct")
class MultistepCT(MultistepConsistency):
    """Train a consistency model of a few segments without a teacher.

    ``lambda_(t) d(D(x_t, t), invDDIM(z_ref, x_t))`` with ``z_ref`` at the end of the segment of
    ``t``, where the map leads from the step of the grid towards the image itself: see this module's
    head. It starts from a diffusion model's weights, as in the paper.

    Args:
        f: the map in training, started from a diffusion model's weights; afterwards it samples in
            ``S`` DDIM steps alone.
        K: total number of training steps.
        S: segments, the steps that the model is sampled in.
        N_start, N_end: steps of the whole grid at first and in the end.
        anneal: training steps from the first to the last.
        uniform: segments even in the process's time, as in the paper's VP process; default those of
            progressive distillation's grid.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.
    """

    paper = "Heek, Hoogeboom, Salimans 2024 (multistep consistency training)"
    citation = "heek2024multistep"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2)
    needs = Needs(teacher=TeacherUse.START)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        S: int = 2,
        N_start: int = 64,
        N_end: int = 1280,
        anneal: int = 100_000,
        uniform: bool = False,
        distance: Distance | str = "pseudo_huber(c=1e-8)",
        weighting: Weighting | str = "snr_plus_one",
    ) -> None:
        super().__init__(
            f,
            K,
            S=S,
            N_start=N_start,
            N_end=N_end,
            anneal=anneal,
            eta=0.0,
            uniform=uniform,
            distance=distance,
            weighting=weighting,
        )

    def clean(self, x: Tensor, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return x
