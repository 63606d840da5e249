"""Progressive distillation."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.errors import FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.objectives.teachers import check_alike, check_follows, check_teacher_of_hidden
from fewstep.parameterization import time_dtype
from fewstep.schedules import HalvingN, nested_times
from fewstep.solvers import ddim_step, denoised_of_step
from fewstep.trained import NESTED
from fewstep.weightings import Weighting, weighting_for


@OBJECTIVES.register("pd")
class PD(Objective):
    """Halve a sampler's steps, round by round: one step of the student is two of its teacher.

    ``lambda_(t) d(D(x_t, t), x_tilde)``, where two DDIM steps of the teacher lead from ``x_t`` over
    ``t'`` to ``x_t''`` at ``t''``, and ``x_tilde`` is what the student has to predict to get there
    in one:

        x_tilde = (x_t'' - r x_t) / (alpha'' - r alpha_t),    r = sigma'' / sigma_t

    which for EDM is ``x_t - t (x_t'' - x_t) / (t'' - t)``. In the round of ``N`` student steps the
    times are those of `fewstep.schedules.nested_times`, each with the same probability. At the end
    of a round its student becomes the teacher of the next, and optimiser and learning rate start
    anew.

    Args:
        f: the map in training, started from the teacher's weights; afterwards it samples in
            ``final_steps`` DDIM steps alone.
        K: total number of training steps, over all rounds.
        teacher: the diffusion model; in later rounds a frozen copy of the student.
        start_steps: the teacher's steps in the first round.
        final_steps: the student's steps in the last, ``start_steps`` halved once or more.
        distance: ``d``, how two images are compared.
        weighting: ``lambda_``, how much a time counts; the paper's truncated SNR is
            ``max(alpha^2 / sigma^2, 1)``.
    """

    makes = NESTED
    paper = "Salimans & Ho 2022, Algorithm 2 (progressive distillation)"
    citation = "salimans2022progressive"
    fixed_point = FixedPoint.LIMIT
    cost = Cost(teacher=2)
    needs = Needs(teacher=TeacherUse.DISTIL)
    teacher: FlowMap

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        teacher: FlowMap,
        start_steps: int = 16,
        final_steps: int = 1,
        distance: Distance | str = "l2",
        weighting: Weighting | str = "truncated_snr",
    ) -> None:
        super().__init__(f, K)
        self.N = HalvingN(start_steps, final_steps, K)
        f.trained = replace(f.trained, steps=final_steps)
        check_alike(teacher, f, "the teacher")
        check_follows(teacher)
        self.teacher = self.hold(_in_network_of(f, teacher))
        check_teacher_of_hidden(f, teacher, "the teacher")
        self.d = DISTANCES.build(distance)
        self.lambda_ = weighting_for(f.p, weighting)

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        N = self.N(k)
        # T = t_0 > ... > t_2N                                                         [2 N + 1]
        times = nested_times(2 * N, self.f.p).to(time_dtype(x)).to(x.device)
        i = 2 * torch.randint(N, (len(x),)).to(x.device)
        return times[i], times[i + 1], times[i + 2]

    def narrowed(self, times: tuple[Tensor, ...], gap: float) -> tuple[Tensor, ...]:
        t = times[0]
        return t, *(t + gap * (s - t) for s in times[1:])

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        p, (t, t_1, t_2) = self.f.p, times
        x_t = p.diffuse(x, t, torch.randn_like(x))
        with torch.no_grad():
            x_1 = ddim_step(x_t, self.teacher.D(x_t, t, condition), t, t_1, p)
            x_2 = ddim_step(x_1, self.teacher.D(x_1, t_1, condition), t_1, t_2, p)
            x_tilde = denoised_of_step(x_t, x_2, t, t_2, p)
        return self.lambda_(t, t_2, p) * self.d(self.f.D(x_t, t, condition), x_tilde)

    def after_step(self, k: int) -> None:
        if self.N(k + 1) != self.N(k):
            self.teacher.F.load_state_dict(self.f.F.state_dict())

    def round_of(self, k: int) -> tuple[int, int]:
        return self.N.round_of(k)

    def schedule(self, k: int) -> dict[str, float]:
        return {"N": self.N(k)}

    def changing(self) -> dict[str, nn.Module]:
        return super().changing() | {"teacher": self.teacher}


def _in_network_of(f: FlowMap, teacher: FlowMap) -> FlowMap:
    """A teacher in the network of the student, whose weights it has after a round.

    A student may be told more than its first teacher, such as the end of a map. That adds nothing
    at first: the teacher stays the same to the bit.
    """
    if not teacher.tensors().keys() < f.tensors().keys():
        return teacher
    fitting = f.frozen_copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)  # the student's start has said so
        fitting.take_network(teacher, "the teacher")
    fitting.trained = teacher.trained
    return fitting
