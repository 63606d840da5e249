"""What every objective is, and what the consistency losses share.

An objective is a module that holds the map in training and whatever else its paper needs. Its
``forward(x, k, condition)`` returns one loss per example, in two parts: ``draw_times`` is what
depends on the step ``k``, a few small operations; ``loss_at`` is all the rest, a function of
tensors alone, which compiles as one graph for the whole training. The trainer calls
``after_step(k)`` when the weights have moved. The distributed wrapper goes around the objective.

Symbols: ``f`` the map in training, ``f_minus`` its stop-gradient running average, ``teacher`` a
frozen diffusion model, ``d`` the distance, ``lambda_`` the weighting, ``k`` the training step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.distances import DISTANCES, Distance
from fewstep.flow_map import FlowMap
from fewstep.needs import Needs
from fewstep.networks.dropout import SharedDropout, check_dropout
from fewstep.objectives.fit import check_map
from fewstep.parameterization import Parameterization, time_dtype
from fewstep.registry import Registry
from fewstep.schedules import GridSize, IndexDistribution
from fewstep.trained import CONSISTENCY, Trained
from fewstep.weightings import WEIGHTINGS, Weighting

OBJECTIVES: Registry[Objective] = Registry("objective")


class Objective(nn.Module, ABC):
    """A loss and what it needs.

    Args:
        f: the map in training.
        K: total number of training steps, which the schedules are stretched over.
    """

    makes: ClassVar[Trained] = Trained()
    """What the trained map can do, such as `fewstep.trained.CONSISTENCY`; it is set on ``f``. A map
    of which nothing is said can be sampled with a sampler that is given alone."""
    paper: ClassVar[str]
    """Authors, year, and where in the paper."""
    needs: ClassVar[Needs] = Needs()
    """What must be there before the first step."""

    def __init__(self, f: FlowMap, K: int) -> None:
        super().__init__()
        check_map(self.name, self.needs, f)
        f.trained = f.trained.made(self.makes)
        self.f = f
        self.K = K

    @property
    def name(self) -> str:
        """The name that a user picks it by; of a class that is not registered, its own."""
        cls = type(self)
        return OBJECTIVES.name_of(cls) if OBJECTIVES.holds(cls) else cls.__name__

    def forward(self, x: Tensor, k: int, condition: Condition = NONE, **columns: Tensor) -> Tensor:
        """Loss of each example of ``x`` [B, *shape] at training step ``k``: [B].

        ``columns`` are those that the objective needs, such as the noise of each pair.
        """
        condition = self.conditioned(condition)
        return self.loss_at(x, *self.draw_times(x, k), condition=condition, **columns)

    def conditioned(self, condition: Condition) -> Condition:
        """What every model of the loss sees: in training some classes are hidden, from all alike.

        How many is the network's `label_dropout`; of these rows it learns the null class.
        """
        F = self.f.network
        return condition.hiding(F.label_dropout, F.num_classes) if self.training else condition

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        """What `loss_at` takes of step ``k``, such as a time per example; by default nothing."""
        return ()

    @abstractmethod
    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        """Loss of each example of ``x`` [B, *shape] at the times that were drawn: [B]."""

    def compile_loss(self, *, deterministic: bool = True) -> None:
        """Compile `loss_at`, with every network in it, as one graph where that is possible.

        Args:
            deterministic: choose kernels without timing them, so that a later process chooses the
                same and computes the same bits.
        """
        known = torch._inductor.list_options()
        options: dict[str, Any] = {"deterministic": True} if "deterministic" in known else {}
        self.loss_at = torch.compile(  # type: ignore[method-assign]
            self.loss_at, options=options if deterministic else None
        )

    def after_step(self, k: int) -> None:
        """Called once the optimiser has made step ``k``."""

    def round_of(self, k: int) -> tuple[int, int | None]:
        """First step of the round of step ``k``, and first step after it; None for the last.

        A round is a training of its own: the learning rate starts anew, and the optimiser with it.
        """
        return 0, None

    def schedule(self, k: int) -> dict[str, float]:
        """The values that the step ``k`` used, such as ``N(k)`` and ``mu(k)``, for the log."""
        return {}

    def changing(self) -> dict[str, FlowMap]:
        """The maps that training changes and a checkpoint must hold, by name."""
        return {"f": self.f}


class ConsistencyObjective(Objective):
    """``lambda_(t, s) d(f(x_t, t), f_minus(x_s, s))`` over neighbouring times ``s < t``.

    Args:
        f: the map in training.
        K: total number of training steps.
        mu: decay ``mu(k)`` of ``f_minus``; without it ``f_minus`` is ``f`` under stop-gradient.
        distance: ``d``, a distance or its spec.
        weighting: ``lambda_``, a weighting or its spec.
    """

    makes = CONSISTENCY

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        mu: Callable[[int], float] | None,
        distance: Distance | str,
        weighting: Weighting | str,
    ) -> None:
        super().__init__(f, K)
        check_dropout(f.F)
        self.mu = mu
        self._f_minus = f.frozen_copy() if mu else None
        self.d = DISTANCES.build(distance)
        self.lambda_ = WEIGHTINGS.build(weighting)

    @property
    def f_minus(self) -> FlowMap:
        """The target map; call it without gradients."""
        return self.f if self._f_minus is None else self._f_minus

    def loss(
        self, x_t: Tensor, t: Tensor, x_s: Tensor, s: Tensor, condition: Condition = NONE
    ) -> Tensor:
        """``lambda_(t, s) d(f(x_t, t), f_minus(x_s, s))``: [B]."""
        dropout = SharedDropout()
        with dropout, torch.no_grad():
            target = self.f_minus(x_s, s, condition=condition)
        with dropout:
            return self.compare(x_t, t, target, s, condition)

    def compare(
        self, x_t: Tensor, t: Tensor, target: Tensor, s: Tensor, condition: Condition = NONE
    ) -> Tensor:
        """``lambda_(t, s) d(f(x_t, t), target)``: [B]."""
        return self.lambda_(t, s, self.f.p) * self.d(self.f(x_t, t, condition=condition), target)

    def after_step(self, k: int) -> None:
        if self._f_minus is not None and self.mu is not None:
            self._f_minus.average_(self.f, self.mu(k))

    def changing(self) -> dict[str, FlowMap]:
        return {"f": self.f} | ({"f_minus": self._f_minus} if self._f_minus is not None else {})


def neighbours(
    N: int, times: IndexDistribution, p: Parameterization, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Neighbouring times ``t_{n+1}``, ``t_n`` of the grid of ``N`` for each example of ``x``."""
    return times.neighbours(N, p, x, time_dtype(x))


class ConsistencyTraining(ConsistencyObjective):
    """``lambda_(t_{n+1}, t_n) d(f(x + t_{n+1} z, t_{n+1}), f_minus(x + t_n z, t_n))``.

    One image ``x`` and one noise ``z`` at two neighbouring times of a grid stand in for a step of
    the PF-ODE: no teacher. A subclass sets ``N`` and ``times``.
    """

    N: GridSize
    times: IndexDistribution

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return neighbours(self.N(k), self.times, self.f.p, x)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        t_next, t_n = times
        z = torch.randn_like(x)
        x_n, x_next = self.f.p.diffuse(x, t_n, z), self.f.p.diffuse(x, t_next, z)
        return self.loss(x_next, t_next, x_n, t_n, condition)

    def schedule(self, k: int) -> dict[str, float]:
        return {"N": self.N(k)} | ({"mu": self.mu(k)} if self.mu else {})
