"""The consistency losses in continuous time: the limit of a grid with ever more points.

With the grid ``t_n = tau((n-1)/(N-1))``, neighbouring times are ``tau'/(N-1)`` apart, and two
outputs differ by that times the *tangent*, the derivative of ``f`` along a path ``x_t``,

    g = df/dt = d_t f(x_t, t) + J_x f(x_t, t) dx_t/dt                        one forward-mode pass

so that the discrete losses, taken times a power of ``N-1``, have limits (Song et al. 2023,
Appendix B; ``H`` is the Hessian of ``d(., y)`` at ``y = f``, ``tau'`` stands for
``tau'(tau^-1(t))``, times are those of the grid, and ``sg`` stops gradients):

    Theorem 3    (N-1)^2 L^N        ->  E lambda(t) tau'^2 g^T H g / 2       d twice differentiable
    Theorem 4    (N-1) L^N          ->  E lambda(t) tau' mean |g|            d = l1
    Theorems 5/6 (N-1) grad L^N     ->  grad E lambda(t) tau' f^T H sg(g)    target sg(f)

For l1 under stop-gradient the same argument gives ``grad L^N -> grad E lambda(t) f . sign(sg g)/n``
with ``n`` dimensions, without a factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout, check_dropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.guided import AlongLines, FollowsTeacher
from fewstep.parameterization import Parameterization
from fewstep.schedules import INDEX_DISTRIBUTIONS, IndexDistribution, karras_spacing
from fewstep.tangent import checked_tangent
from fewstep.trained import CONSISTENCY
from fewstep.weightings import WEIGHTINGS, Weighting, weighting_for


class ContinuousConsistency(AlongLines):
    """A consistency loss in continuous time; a subclass says along which path.

    Args:
        f: the map in training.
        K: total number of training steps.
        stop_gradient: whether the tangent is held fixed in the gradient.
        distance: ``d``, a distance or its spec.
        weighting: ``lambda_``, a weighting or its spec; of ``t`` alone.
        times: distribution of ``t``: the limit of that of the grid's points.
        tangent: how it is computed; see `FlowMap.tangent`.
    """

    makes = CONSISTENCY
    needs = Needs(continuous=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        stop_gradient: bool,
        distance: Distance | str,
        weighting: Weighting | str,
        times: IndexDistribution | str,
        tangent: str,
    ) -> None:
        super().__init__(f, K)
        self.how = checked_tangent(tangent)
        check_dropout(f.F)
        self.stop_gradient = stop_gradient
        self.d = DISTANCES.build(distance)
        self.lambda_ = weighting_for(f.p, weighting)
        self.times = INDEX_DISTRIBUTIONS.build(times)
        _check_limit(f.p, self.lambda_)

    def tangent(
        self, x_t: Tensor, t: Tensor, v: Tensor, condition: Condition = NONE
    ) -> tuple[Tensor, Tensor]:
        """``f(x_t, t)`` and ``g = d_t f + J_x f v``, both [B, *shape], with one dropout mask."""
        return self.f.tangent(x_t, t, self.f.p.eps, v, condition, how=self.how)

    def loss(self, x_t: Tensor, t: Tensor, v: Tensor, condition: Condition = NONE) -> Tensor:
        """The loss of each point ``x_t`` [B, *shape] at ``t`` [B] on a path of velocity ``v``: [B].

        Under stop-gradient it is ``lambda tau' w^T H w / 2`` with ``w = f - sg(f) + sg(g)``. Its
        gradient is that of the ``lambda tau' f^T H sg(g)`` of Theorem 5; unlike that, it is never
        negative, and it is zero where the tangent is.
        """
        weight = self.lambda_(t, t, self.f.p)
        spacing = karras_spacing(t, self.f.p)
        if not self.stop_gradient:
            y, g = self.tangent(x_t, t, v, condition)
            return weight * spacing**self.d.degree * self.d.nearby(y, g)
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            y, g = self.tangent(x_t, t, v, condition)
        with dropout:
            w = self.f(x_t, t, condition=condition) - y + g
        return weight * spacing ** (self.d.degree - 1) * self.d.nearby(y, w)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        u = torch.rand(len(x), dtype=dtype, device=x.device)
        return (self.times.quantile(u, self.f.p),)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        (t,) = times
        x_t, line = self.f.p.draw(x, t, torch.randn_like(x))
        with torch.no_grad():
            v = self.velocity(x_t, t, line, condition)
        return self.loss(x_t, t, v, condition)


def _check_limit(p: Parameterization, weighting: Weighting) -> None:
    """Raise `FewstepError` for a weighting that has no limit."""
    T = torch.tensor([p.T], dtype=torch.float64)
    if not weighting(T, T, p).isfinite().all():
        raise FewstepError(
            f"the weighting {WEIGHTINGS.name_of(type(weighting))} grows without bound as the gap "
            "between the times closes; continuous time needs one of t alone, such as uniform, "
            "edm or inverse_spacing."
        )


@OBJECTIVES.register("continuous_cd")
class ContinuousCD(FollowsTeacher, ContinuousConsistency):
    """Distil a diffusion model in continuous time: no grid and no solver.

    ``lambda_(t) tau'^2 g^T H g / 2`` (Theorem 3; l1: ``lambda_(t) tau' mean |g|``, Theorem 4), or
    with ``stop_gradient`` the ``lambda_(t) tau' f^T H sg(g)`` of Theorem 5, where ``g`` is the
    derivative of ``f`` along the teacher's PF-ODE.

    Args:
        f: the map in training, usually started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        stop_gradient: hold the tangent fixed in the gradient; without it the gradient goes
            through the tangent, which takes a quarter longer.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts; the published code has inverse_spacing.
        times: distribution of ``t``: uniform in the grid's ``tau^-1(t)``, or lognormal.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
    """

    paper = "Song, Dhariwal, Chen, Sutskever 2023, Theorems 3 to 5 (continuous-time CD)"
    citation = "song2023consistency"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=2, tangent=1, teacher=1)
    needs = Needs(teacher=TeacherUse.DISTIL, guided=True, continuous=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        stop_gradient: bool = True,
        distance: Distance | str = "l2",
        weighting: Weighting | str = "uniform",
        times: IndexDistribution | str = "uniform",
        tangent: str = "forward",
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        super().__init__(
            f,
            K,
            stop_gradient=stop_gradient,
            distance=distance,
            weighting=weighting,
            times=times,
            tangent=tangent,
        )
        self.follow_guided(teacher, guidance, guidance_range, weak)


@OBJECTIVES.register("continuous_ct")
class ContinuousCT(ContinuousConsistency):
    """Train in continuous time without a teacher, from a diffusion model's weights.

    ``lambda_(t) tau' f^T H sg(g)`` (Theorem 6), where ``g`` is the derivative of ``f`` along the
    straight path ``x_t = alpha x + sigma z`` of one image and one noise: for EDM its velocity
    ``(x_t - x)/t`` is that of the PF-ODE with the score replaced by ``-(x_t - x)/t^2``, which
    Lemma 1 makes right on average. The loss is linear in ``g``, so its gradient is right on
    average, too; without the stop-gradient, or with l1, it would not be, and the paper has no such
    loss. Nothing averages out the noise of ``g``: from random weights it is unstable.

    Args:
        f: the map in training, started from a diffusion model's weights.
        K: total number of training steps.
        distance: ``d``, how two images are compared; not l1.
        weighting: ``lambda_``, how much a time counts; the published code has inverse_spacing.
        times: distribution of ``t``: uniform in the grid's ``tau^-1(t)``, or lognormal.
        tangent: "forward" mode, or a finite "difference", for networks that have no forward mode.
    """

    paper = "Song, Dhariwal, Chen, Sutskever 2023, Theorem 6 (continuous-time CT)"
    citation = "song2023consistency"
    fixed_point = FixedPoint.MAP
    cost = Cost(forward=2, tangent=1)
    needs = Needs(teacher=TeacherUse.START, continuous=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        distance: Distance | str = "l2",
        weighting: Weighting | str = "uniform",
        times: IndexDistribution | str = "uniform",
        tangent: str = "forward",
    ) -> None:
        super().__init__(
            f,
            K,
            stop_gradient=True,
            distance=distance,
            weighting=weighting,
            times=times,
            tangent=tangent,
        )
        if self.d.degree != 2:
            raise FewstepError(
                "continuous_ct needs a distance that is twice differentiable, such as l2; under "
                f"{DISTANCES.name_of(type(self.d))} its gradient is wrong on average."
            )
