"""How the teacher of a distillation is guided."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided, checked_interval, guidance_of, towards


@dataclass(frozen=True)
class Guide:
    """A teacher and its guidance: none, one weight, or a weight of each row that the student sees.

    One weight becomes part of the student, which then needs no guidance. Of a range of weights the
    student learns all, as an input of its network: a row's weight is drawn evenly from the range
    (Meng et al. 2023; of consistency models Luo et al. 2023).

    Args:
        teacher: the diffusion model.
        fixed: guidance by one weight.
        weights: range of the weights that are drawn.
    """

    teacher: FlowMap
    fixed: Guided
    weights: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        f: FlowMap,
        teacher: FlowMap,
        guidance: Guided | float | str | None,
        weights: tuple[float, float] | None,
    ) -> Guide:
        """The guidance that an objective's arguments ask for; a range is noted in ``f.trained``.

        Raises:
            FewstepError: both, a weight on a teacher without a null class, a range for a network
                that takes no weight, or none for one that does; label dropout of a student whose
                teacher has no null class.
        """
        if guidance is not None and weights is not None:
            raise FewstepError("give one guidance weight or a range of them, not both.")
        if (weights is not None) != f.network.guidance_embedding:
            raise FewstepError(
                "a student of guided teachers of a range of weights, guidance_range=(low, high), "
                "takes the weight as an input: both or neither of guidance_range and "
                "guidance_embedding=True, --network.guidance-embedding."
            )
        fixed = guidance_of(guidance)
        if weights is not None:
            weights = checked_interval(weights)
            f.trained = replace(f.trained, weights=weights, guidance=weights[0])
        if weights is not None or not fixed.off:
            teacher.trained.check_null_class(teacher.num_classes, "the teacher")
        check_teacher_of_hidden(f, teacher)
        return cls(teacher, fixed, weights)

    def drawn(self, condition: Condition, x: Tensor) -> Condition:
        """A condition with the weights of the rows of ``x``, where there is a range of them."""
        if self.weights is None:
            return condition
        low, high = self.weights
        u = torch.rand(len(x), device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        return replace(condition, w=low + (high - low) * u)

    def D(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The teacher's guided denoiser: [B, *shape]."""
        if condition.w is None:
            return self.fixed(self.teacher).D(x, t, condition)
        plain = replace(condition, w=None)
        null, D = (self.teacher.D(x, t, c) for c in (plain.null(), plain))
        return towards(null, D, condition.w)

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """``dx/dt`` of the teacher's guided PF-ODE: [B, *shape]."""
        return self.teacher.p.velocity(x, self.D(x, t, condition), self.teacher.time(t, x))


def check_teacher_of_hidden(f: FlowMap, teacher: FlowMap) -> None:
    """Raise `FewstepError` where label dropout hides classes from a teacher that needs them."""
    if f.network.label_dropout:
        teacher.trained.check_null_class(teacher.num_classes, "the teacher", "label dropout")
