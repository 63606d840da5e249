"""Consistency trajectory models: distil jumps from any time to any other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.adaptive import balance
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import FlowMapObjective, mean_square
from fewstep.objectives.guided import FollowsTeacher
from fewstep.parameterization import time_dtype
from fewstep.schedules import LogNormal, karras_grid
from fewstep.solvers import PHI, Solver
from fewstep.tracing import in_graph
from fewstep.weightings import Weighting, weighting_for


@OBJECTIVES.register("ctm")
class CTM(FollowsTeacher, FlowMapObjective):
    """``d(X_minus(X(x_t, t, s), s, eps), X_minus(sg X(x_u, u, s), s, eps))`` and a diffusion loss.

    ``s <= u < t`` are on Karras' grid, and ``n`` steps of the teacher's solver lead from ``x_t`` to
    ``x_u``. Both jumps to ``s`` are compared where they lead in the data, by the running average
    ``X_minus``, through which the gradient goes (Kim et al. 2023, Eq. 6 to 8). The diffusion loss
    ``dsm lambda_(r) mean (D(x_r, r) - x)^2`` keeps the network a diffusion model on the diagonal
    (Eq. 9); of a guided teacher its guided ``D`` stands for ``x``, which is not guided. With
    ``adaptive`` it is also weighed by the ratio of the gradients that both losses have in the last
    layer, ``|d L_CTM| / (|d L_DSM| + 1e-4)``, as in the published code. The paper's adversarial
    loss is left out.

    The cost is that of ``most`` steps of the solver for every image, which a compiled or recorded
    loss makes. Elsewhere an image makes its own ``n`` alone, on average 3.7 of the default 17, and
    a step costs 18 evaluations an image.

    Args:
        f: the map in training, started from the teacher's weights.
        K: total number of training steps.
        teacher: the diffusion model; frozen here.
        N: number of grid points.
        most: largest ``n``; smaller ones are drawn less often, as ``n``.
        solver: one-step solver of the teacher's PF-ODE, or its spec.
        mu: decay of ``X_minus``; 0 makes it a copy of the map as each step finds it.
        distance: ``d``, how two images are compared.
        dsm: weight of the diffusion loss.
        adaptive: whether it is balanced by gradients as well, which takes two further backward
            passes of a part of the network; not of a compiled loss.
        P_mean: mean of ``ln(sigma/alpha)`` of the diffusion loss's times.
        P_std: its standard deviation.
        weighting: ``lambda_`` of the diffusion loss.
        guidance: weight of the teacher's classifier-free guidance, or a spec such as
            ``guided(w=2, interval=(0.3, 5))``; it becomes part of the student.
        guidance_range: instead, range of the weights that are drawn for the teacher and that the
            student takes as an input, on a network with ``guidance_embedding``.
        weak: a weaker diffusion model that guides the teacher in the place of its null class:
            autoguidance.
    """

    paper = "Kim, Lai, Liao, Murata, Takida, Uesaka, He, Mitsufuji, Ermon 2023, Eq. 6 to 9 (CTM)"
    citation = "kim2023consistency"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=5, backward=3, teacher=34)
    needs = Needs(teacher=TeacherUse.DISTIL, guided=True, two_time=True, flow=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        N: int = 18,
        most: int = 17,
        solver: Solver | str = "heun",
        mu: float = 0.999,
        distance: Distance | str = "l2",
        dsm: float = 1.0,
        adaptive: bool = False,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        weighting: Weighting | str = "edm",
        guidance: float | str | None = None,
        guidance_range: tuple[float, float] | None = None,
        weak: FlowMap | None = None,
    ) -> None:
        super().__init__(f, K, times="sorted", mu=mu, through=True)
        if N < 2 or not 1 <= most < N or not dsm >= 0:
            raise FewstepError(
                f"ctm needs N >= 2, 1 <= most < N and dsm >= 0, got {N}, {most} and {dsm}."
            )
        self.follow_guided(teacher, guidance, guidance_range, weak)
        self.N, self.most, self.dsm, self.adaptive = N, most, dsm, adaptive
        self.Phi, self.d = PHI.build(solver), DISTANCES.build(distance)
        self.noise, self.lambda_ = LogNormal(P_mean, P_std), weighting_for(f.p, weighting)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        u = torch.rand(3, len(x), dtype=torch.float64)  # on the CPU: not every device has it
        i = 1 + (u[0] * (self.N - 1)).floor()  # of t
        j = (u[1] * i).floor()  # of s, below
        largest = (i - j).clamp(max=self.most)
        n = (((1 + 4 * u[2] * largest * (largest + 1)).sqrt() - 1) / 2).ceil().clamp(min=1)
        stops = torch.arange(self.most + 1)
        way = (i[:, None] - torch.minimum(stops, n[:, None])).long()  # of t = u_0 > u_1 > ... u
        r = self.noise.sample(x, self.f.p, least=0.0)
        grid = karras_grid(self.N, self.f.p, dtype=time_dtype(x))
        return grid[way].to(x.device), grid[j.long()].to(x.device), r

    def narrowed(self, times: tuple[Tensor, ...], gap: float) -> tuple[Tensor, ...]:
        way, s, r = times
        t = way[:, :1]
        return t + gap * (way - t), s, r

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        f, (way, s, r) = self.f, times
        t, u = way[:, 0], way[:, -1]
        x_t = f.p.diffuse(x, t, torch.randn_like(x))
        dropout = SharedDropout()
        with torch.no_grad():
            x_u = self.solved(x_t, way, condition)
            with dropout:
                y = f(x_u, u, s, condition)
            with dropout:
                target = self.f_minus(y, s, condition=condition)
        with dropout:
            y = f(x_t, t, s, condition)
        with dropout:
            loss = self.d(self.f_minus(y, s, condition=condition), target)
        if not self.dsm:
            return loss
        x_r = f.p.diffuse(x, r, torch.randn_like(x))
        clean = x if self.guide.off else self.denoised(x_r, r, condition)
        with dropout:
            square = mean_square(f.D(x_r, r, condition) - clean)
        diffusion = self.lambda_(r, torch.zeros_like(r), f.p) * square
        return loss + self.dsm * self.share(loss, diffusion) * diffusion

    @torch.no_grad()
    def denoised(self, x_r: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """What the guided teacher denoises to, which no image of the data is on average."""
        return self.guide.D(x_r, r, condition)

    def share(self, loss: Tensor, diffusion: Tensor) -> Tensor | float:
        """The adaptive weight of the diffusion loss."""
        if not self.adaptive:
            return 1.0
        last = [weight for weight in self.f.weights if weight.ndim > 1][-1]
        return balance(loss.mean(), diffusion.mean(), last)

    def compile_loss(self, *, deterministic: bool = True) -> None:
        if self.adaptive:
            raise FewstepError(
                "the adaptive weight of ctm takes gradients inside of its loss, which a compiled "
                "loss cannot: leave out --compile, or give --objective.no-adaptive."
            )
        super().compile_loss(deterministic=deterministic)

    def solved(self, x: Tensor, way: Tensor, condition: Condition) -> Tensor:
        """The teacher's solution at the end of the times ``way`` [B, most + 1]: [B, *shape].

        A row that has arrived stands still. Where shapes may depend on numbers only the others are
        computed: those with most steps to go come first, and ever fewer of the first rows move.
        """
        going = way[:, :-1] > way[:, -1:]  # [B, most]
        if in_graph():
            return self._walked(x, way, condition, [len(x)] * going.shape[1])
        order = going.sum(1).argsort(descending=True)
        moving = going.sum(0).tolist()
        found = self._walked(x[order], way[order], condition.rows(order), moving)
        return found[order.argsort()]

    def _walked(
        self, x: Tensor, way: Tensor, condition: Condition, moving: Sequence[int]
    ) -> Tensor:
        """The same where in each step so many of the first rows move."""
        for t, s, n in zip(way.unbind(1)[:-1], way.unbind(1)[1:], moving, strict=True):
            x = torch.cat([self._step(x[:n], t[:n], s[:n], condition.rows(slice(n))), x[n:]])
        return x

    def _step(self, x: Tensor, t: Tensor, s: Tensor, condition: Condition) -> Tensor:
        return self.Phi.step(lambda x, t: self.guide.velocity(x, t, condition), x, t, s)
