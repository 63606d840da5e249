"""Truncated consistency models."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import Distance
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, Fewest, FixedPoint, Needs, TeacherUse
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.consistency import ConsistencyObjective
from fewstep.objectives.teachers import in_process_of
from fewstep.parameterization import expand
from fewstep.schedules import SigmoidGap, StudentT
from fewstep.weightings import Weighting


@OBJECTIVES.register("tcm")
class TCM(ConsistencyObjective):
    """The second stage of a truncated consistency model: the later times alone, once more.

    ``lambda_(t, r) d(f(x_t, t), sg f_trunc(x_r, r))`` for ``t >= t'``, where ``f_trunc`` is the
    map in training from ``t'`` on and the frozen consistency model of the first stage below. What
    the network spent on the earlier times is free for those that samples start at. A part of each
    batch is at ``t = t'`` itself, where the target is always the frozen model, the boundary
    condition that forbids a collapse; its mean loss is added ``boundary_weight`` times.

    Afterwards the map knows the times from ``t'`` on alone, which is all that samples of one or two
    steps ask for.

    Args:
        f: the map in training, started from the first stage's weights.
        K: total number of training steps.
        teacher: the consistency model of the first stage, such as ECT's; frozen here.
        start: ``t'``, as a noise level ``sigma/alpha``.
        boundary: part of the batch at ``t'``.
        boundary_weight: weight of its mean loss.
        stages: how many times the gap between the times shrinks; with 1 it is constant.
        q: factor by which it shrinks; the published code's limit is 1000.
        df, scale: of Student's t distribution of ``ln(sigma/alpha)``, from ``t'`` on.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts.

    Raises:
        FewstepError: a time ``t'`` outside of the process, or shares that are none; a first stage
            without a null class for a map with label dropout.
    """

    paper = "Lee, Xu, Geffner, Fanti, Kreis, Vahdat, Nie 2024 (TCM), the second stage"
    citation = "lee2024truncated"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(forward=2, teacher=1)
    needs = Needs(teacher=TeacherUse.REFINE)
    teacher: FlowMap

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        start: float = 1.0,
        boundary: float = 0.25,
        boundary_weight: float = 0.1,
        stages: int = 1,
        q: float = 1000.0,
        df: float = 0.01,
        scale: float = 0.2,
        distance: Distance | str = "pseudo_huber(c=1e-8)",
        weighting: Weighting | str = "inverse_gap",
    ) -> None:
        super().__init__(f, K, mu=None, distance=distance, weighting=weighting)
        if not (0 <= boundary < 1 and boundary_weight >= 0):
            raise FewstepError(
                f"tcm needs 0 <= boundary < 1 and boundary_weight >= 0, got {boundary} and "
                f"{boundary_weight}."
            )
        self.start = self._time_of(start)
        self.boundary, self.boundary_weight = boundary, boundary_weight
        if teacher.trained.known:
            teacher.trained.check_refined("the teacher of tcm")
        self.teacher = self.hold(in_process_of(f, teacher, "the teacher"))
        self.r = SigmoidGap(K, stages, q)
        self.times = StudentT(df, scale, start)
        f.trained = replace(f.trained, earliest=self.start)

    def _time_of(self, start: float) -> float:
        p = self.f.p
        time = float(p.time_of_noise_level(torch.tensor(start, dtype=torch.float64)))
        if not (start > 0 and p.t_min < time < p.T):
            raise FewstepError(
                f"start, a noise level, must lie inside the process of t={p.t_min:g} to {p.T:g}; "
                f"{start} is at t={time:g}."
            )
        return time

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        p = self.f.p
        t = self.times.sample(x, p).clamp(min=self.start)
        t[: self._at_boundary(len(t))] = self.start
        return t, p.time_of_noise_level(self.r(p.noise_level(t), k)).clamp(p.t_min)

    @property
    def fewest(self) -> Fewest:
        if not self.boundary:
            return Fewest()
        least = int(0.5 / min(self.boundary, 1 - self.boundary))
        images = next(n for n in count(max(1, least)) if 0 < self._at_boundary(n) < n)
        return Fewest(images, f"tcm has {self.boundary:.0%} of the images at its boundary")

    def _at_boundary(self, rows: int) -> int:
        """How many of the first rows of a batch are at ``t'``; data are in random order."""
        return round(self.boundary * rows)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t, r) = self.f.p, times
        z, dropout = torch.randn_like(x), SharedDropout()
        with dropout, torch.no_grad():
            x_r = p.diffuse(x, r, z)
            early = self.teacher(x_r, r, condition=condition)
            late = self.f(x_r, r, condition=condition)
            target = torch.where(expand(r < self.start, x), early, late)
        with dropout:
            loss = self.compare(p.diffuse(x, t, z), t, target, r, condition)
        return loss * self._shares(loss)

    def _shares(self, loss: Tensor) -> Tensor:
        """Of each row, so that both means are those of their own rows: [B]."""
        B, n = len(loss), self._at_boundary(len(loss))
        at_boundary = self.boundary_weight * B / n if n else 0.0
        return torch.cat([loss.new_full((n,), at_boundary), loss.new_full((B - n,), B / (B - n))])
