"""Knowledge distillation."""

from __future__ import annotations

from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, FixedPoint, Needs, TeacherUse
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.trained import GENERATOR


@OBJECTIVES.register("kd")
class KD(Objective):
    """Regress on a teacher's samples: ``d(f(sigma(T) z, T), x)`` over its pairs ``(z, x)``.

    ``x`` is the solution of the teacher's PF-ODE that starts from ``sigma(T) z``, made beforehand
    by ``fewstep pairs``. The minimiser for the squared distance is the flow from ``T`` to the data
    itself. For a rectified flow this is its one-step distillation, where ``f = z - F(z, T)`` (Liu
    et al. 2022).

    Args:
        f: the map in training, started from the teacher's weights; afterwards it generates in one
            step, from ``T`` alone.
        K: total number of training steps.
        distance: ``d``, how two images are compared.
    """

    makes = GENERATOR
    paper = "Luhman & Luhman 2021 (knowledge distillation); of flows Liu, Gong, Liu 2022"
    citation = "luhman2021knowledge"
    fixed_point = FixedPoint.MAP
    cost = Cost()
    needs = Needs(teacher=TeacherUse.START, columns=("noise",), every_class=True)

    def __init__(self, f: FlowMap, K: int, *, distance: Distance | str = "l2") -> None:
        super().__init__(f, K)
        self.d = DISTANCES.build(distance)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        x_T = self.f.p.prior(columns["noise"])
        return self.d(self.f(x_T, self.f.p.T, condition=condition), x)
