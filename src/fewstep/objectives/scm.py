"""Simplified consistency models, sCM: sCT and sCD (Lu & Song 2024, arXiv 2410.11081).

Consistency in continuous time, made stable. The process is trigflow, ``x_t = cos(t) x + sin(t) z``
with ``z ~ N(0, sd^2)``, and ``f(x_t, t) = cos(t) x_t - sin(t) sd F``. Along a path of velocity
``v`` the derivative of ``f``, times ``cos t``, is the tangent (Eq. 6 with the warm-up of
Section 4.1 and Algorithm 1)

    g = -cos^2 t (sd F - v) - r cos t sin t (x_t + sd dF/dt),      r = min(1, k / H)

and with ``g / (|g| + c)`` in its place and a learned weight ``w`` the loss of ``n`` dimensions is

    e^w / n |F - sg(F) - sg(g)|^2 - w                              (Eq. 8)

``|g|`` is the root mean square over the dimensions, as in the authors' network code. A map whose
network predicts something else than ``F`` is compared in ``F`` all the same, so that any diffusion
model, used in this process by matching the signal-to-noise ratio, is a teacher; EDM's
preconditioning is trigflow's up to the sign of ``F`` and the network's time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError, unknown
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout, check_dropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.guided import AlongLines, FollowsTeacher
from fewstep.objectives.learned_weight import LearnedWeight
from fewstep.parameterization import expand
from fewstep.precision import widest
from fewstep.schedules import KarrasGrid, LogNormal
from fewstep.solvers import start_with_snr
from fewstep.tangent import TANGENTS
from fewstep.trained import CONSISTENCY
from fewstep.whole import whole

DISCRETE = "discrete"
WAYS = (*TANGENTS, DISCRETE)


class SimplifiedConsistency(AlongLines):
    """The loss of sCM; a subclass says along which path.

    Args:
        f: the map in training.
        K: total number of training steps.
        P_mean, P_std: of ``ln(sigma/alpha)``, which is ``ln(sd tan t)``.
        tangent_warmup: ``H``, training steps over which the unstable part of the tangent comes in.
        c: what is added to the tangent's length before it is divided by that.
        tangent: "forward" mode; a finite "difference"; or "discrete", a step of a grid (dsCM).
        N: points of that grid.
    """

    makes = CONSISTENCY

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        P_mean: float,
        P_std: float,
        tangent_warmup: int,
        c: float,
        tangent: str,
        N: int,
    ) -> None:
        super().__init__(f, K)
        if tangent not in WAYS:
            raise unknown("way to a tangent", tangent, WAYS)
        if whole(tangent_warmup, "tangent_warmup") < 0 or not c > 0 or whole(N, "N") < 2:
            raise FewstepError(
                f"{self.name} needs tangent_warmup >= 0, c > 0 and N >= 2, got {tangent_warmup}, "
                f"{c} and {N}."
            )
        check_dropout(f.F)
        self.how, self.N = tangent, N
        self.tangent_warmup, self.c = tangent_warmup, c
        self.times = LogNormal(P_mean, P_std)
        self.w = LearnedWeight()

    def trained_modules(self) -> dict[str, nn.Module]:
        return super().trained_modules() | {"w": self.w}

    def r(self, k: int) -> float:
        """The part of the whole tangent in step ``k``."""
        return min(1.0, k / self.tangent_warmup) if self.tangent_warmup else 1.0

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        t = self.times.sample(x, self.f.p)
        r = torch.full_like(t, self.r(k))
        if self.how != DISCRETE:
            return t, r
        return *self._on_grid(t), r

    def _on_grid(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The points of the grid of noise levels right above and below times [B]."""
        p = self.f.p
        # decreasing for samplers                                                          [N]
        grid = KarrasGrid()(self.N, p, start_with_snr(p)).flip(0).to(t.dtype).to(t.device)
        i = torch.searchsorted(grid, t).clamp(1, self.N - 1)
        return grid[i], grid[i - 1]

    def predicted(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """``sd F``: the velocity of the PF-ODE of which ``f(x, t)`` were the denoiser, [B, ...]."""
        a, b = self.f.p.c_denoised(wide := widest(t))
        skip, out = (wide.cos() - a) / wide.sin(), -b / wide.sin()
        F = self.f.prediction(x, t, 0.0, condition)
        return expand(skip.to(x.dtype), x) * x + expand(out.to(x.dtype), x) * F

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t, *before, r) = self.f.p, times
        x_t, line = p.draw(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with torch.no_grad():
            v = self.velocity(x_t, t, line, condition)
            with dropout:
                F_sg, g = self.tangent(x_t, t, v, r, condition, *before)
        g = g / (g.flatten(1).square().mean(1).sqrt() + self.c).reshape(-1, *[1] * (g.ndim - 1))
        with dropout:
            error = (self.predicted(x_t, t, condition) - F_sg) / p.sigma_data - g
        return self.w(error.flatten(1).square().mean(1), p, t)

    def tangent(
        self,
        x: Tensor,
        t: Tensor,
        v: Tensor,
        r: Tensor,
        condition: Condition,
        before: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``sd F`` and ``g`` at points ``x`` [B, *shape] of times ``t`` [B]; both [B, *shape].

        ``cos t sin t`` goes into the derivative from its start (Section 4.1, "JVP rearrangement").
        """
        if before is not None:
            return self._difference(x, t, before, v, r, condition)
        cos, sin = t.cos(), t.sin()
        F, dF = self.f.derivative(
            lambda x, t: self.predicted(x, t, condition),
            *(x, t, 0.0, v),
            how=self.how,
            rate=cos * sin,
        )
        stable = expand(cos.square(), x) * (F - v)
        return F, -stable - expand(r, x) * (expand(cos * sin, x) * x + dF)

    def _difference(
        self, x: Tensor, t: Tensor, s: Tensor, v: Tensor, r: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """`tangent` from ``F`` at ``t`` and at the ``s`` before it (dsCM, Appendix E)."""
        h = t - s
        cos, sin = expand(h.cos(), x), expand(h.sin(), x)
        F = self.predicted(x, t, condition)
        with_masks = self.predicted(cos * x - sin * v, s, condition)
        stable = expand(s.cos(), x) * (F - v)
        rest = expand(r * s.sin(), x) * (x + (cos * F - with_masks) / sin)
        return F, -expand(t.cos(), x) * (stable + rest)

    def schedule(self, k: int) -> dict[str, float]:
        return {"r": self.r(k)}

    def remarks(self) -> Iterator[str]:
        if self.tangent_warmup >= self.K:
            yield (
                f"the unstable part of the tangent, which makes a consistency model, comes in over "
                f"the first {self.tangent_warmup:,} steps, and this training of {self.K:,} ends "
                f"with {self.r(self.K - 1):.0%} of it: give --objective.tangent-warmup "
                f"{self.K // 4}, a quarter of them, or more steps."
            )


@OBJECTIVES.register("scd")
class SCD(FollowsTeacher, SimplifiedConsistency):
    """Distil a diffusion model into a simplified, continuous-time consistency model (sCD).

    ``e^w |F - sg(F) - g/(|g| + c)|^2 / n - w`` with the tangent ``g`` of this module's head along
    the teacher's PF-ODE, ``v = sd F_teacher``.

    Args:
        f: the map in training, started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        P_mean, P_std: mean and standard deviation of ``ln(sigma/alpha)``.
        tangent_warmup: training steps over which the unstable part of the tangent comes in.
        c: what is added to the tangent's length before it is divided by that.
        tangent: "forward" mode; a finite "difference", for networks that have no forward mode; or
            "discrete", a step of EDM's grid of noise levels (the paper's dsCM).
        N: points of that grid.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``; the paper's is
            from 1 to 2.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
    """

    paper = "Lu & Song 2024, Algorithm 1 (simplified consistency distillation, sCD)"
    citation = "lu2024simplifying"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=2, tangent=1, teacher=1)
    needs = Needs(
        teacher=TeacherUse.DISTIL,
        guided=True,
        processes=("trigflow",),
        continuous=True,
        eps_zero=True,
    )

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        P_mean: float = -1.0,
        P_std: float = 1.4,
        tangent_warmup: int = 10_000,
        c: float = 0.1,
        tangent: str = "forward",
        N: int = 1024,
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        super().__init__(
            f,
            K,
            P_mean=P_mean,
            P_std=P_std,
            tangent_warmup=tangent_warmup,
            c=c,
            tangent=tangent,
            N=N,
        )
        self.follow_guided(teacher, guidance, guidance_range, weak)


@OBJECTIVES.register("sct")
class SCT(SimplifiedConsistency):
    """Train a simplified, continuous-time consistency model without a teacher (sCT).

    ``e^w |F - sg(F) - g/(|g| + c)|^2 / n - w`` with the tangent ``g`` of this module's head along
    the path of one image and one noise, ``v = cos(t) z - sin(t) x``. It starts from a diffusion
    model's weights.

    Args:
        f: the map in training, started from a diffusion model's weights.
        K: total number of training steps.
        P_mean, P_std: mean and standard deviation of ``ln(sigma/alpha)``; from a model that was
            trained as EDM's the paper has a ``P_std`` of 1.8.
        tangent_warmup: training steps over which the unstable part of the tangent comes in.
        c: what is added to the tangent's length before it is divided by that.
        tangent: "forward" mode; a finite "difference", for networks that have no forward mode; or
            "discrete", a step of EDM's grid of noise levels (the paper's dsCM).
        N: points of that grid.
    """

    paper = "Lu & Song 2024, Algorithm 1 (simplified consistency training, sCT)"
    citation = "lu2024simplifying"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=2, tangent=1)
    needs = Needs(teacher=TeacherUse.START, processes=("trigflow",), continuous=True, eps_zero=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        P_mean: float = -1.0,
        P_std: float = 1.4,
        tangent_warmup: int = 10_000,
        c: float = 0.1,
        tangent: str = "forward",
        N: int = 1024,
    ) -> None:
        super().__init__(
            f,
            K,
            P_mean=P_mean,
            P_std=P_std,
            tangent_warmup=tangent_warmup,
            c=c,
            tangent=tangent,
            N=N,
        )
