"""What every objective is.

An objective is a module that holds the map in training and whatever else its paper needs. Its
``forward(x, k, condition)`` returns one loss per example, in two parts: ``draw_times`` is what
depends on the step ``k``, a few small operations; ``loss_at`` is all the rest, a function of
tensors alone, which compiles as one graph for the whole training. The trainer calls
``after_step(k)`` when the weights have moved.

An objective with further networks to train names them in ``trained_modules`` and says in ``turns``
which loss moves which; see `fewstep.objectives.turns`.

Symbols: ``f`` the map in training, ``f_minus`` its stop-gradient running average, ``teacher`` a
frozen diffusion model, ``d`` the distance, ``lambda_`` the weighting, ``k`` the training step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, Fewest, FixedPoint, Needs
from fewstep.objectives.fit import check_map
from fewstep.objectives.teachers import check_follows, in_process_of
from fewstep.objectives.turns import Turn, held_fixed
from fewstep.papers import Also, Cited
from fewstep.registry import Registry
from fewstep.stored_model import StoredModel
from fewstep.trained import Trained

if TYPE_CHECKING:
    from typing import Self

OBJECTIVES: Registry[Objective[Any]] = Registry("objective")
M = TypeVar("M", bound=StoredModel, default=FlowMap)
Held = TypeVar("Held", bound=nn.Module)


class Objective(Cited, nn.Module, ABC, Generic[M]):
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
    fixed_point: ClassVar[FixedPoint] = FixedPoint.NONE
    """Where its minimum is."""
    cost: ClassVar[Cost | None] = None
    """What a step costs at its default settings; None where nobody has said."""
    citation: ClassVar[str] = ""
    """Key of the paper in `fewstep.papers`, or a BibTeX entry of its own; "" is none."""
    also_cites: ClassVar[tuple[Also, ...]] = (
        Also("guidance", "ho2022classifier", lambda w: w not in (None, 1), unless="weak"),
        Also("guidance_range", "ho2022classifier", unless="weak"),
        Also("guidance_range", "meng2023distillation"),
        Also("weak", "karras2024guiding"),
        Also("omega", "ho2022classifier", lambda omega: omega != 1),
        Also("interval", "kynkaanniemi2024applying"),
    )

    f: M

    def __init__(self, f: M, K: int) -> None:
        super().__init__()
        check_map(self.name, self.needs, f)
        made = f.trained.made(self.makes)
        f.trained = replace(made, null_class=made.null_class or f.network.label_dropout > 0)
        self.f = f
        self.K = K
        self._held: list[nn.Module] = []

    @property
    def name(self) -> str:
        """The name that a user picks it by; of a class that is not registered, its own."""
        cls = type(self)
        return OBJECTIVES.name_of(cls) if OBJECTIVES.holds(cls) else cls.__name__

    @property
    def fewest(self) -> Fewest:
        """How many images must be computed at once; by default one."""
        return Fewest()

    def remarks(self) -> Iterator[str]:
        """What of its settings is worth a line before a training of ``K`` steps: one for each."""
        return iter(())

    def hold(self, model: Held) -> Held:
        """A model that is asked and never trained, such as a teacher: frozen, its dropout off.

        It stays so whatever mode the objective is in.
        """
        self._held.append(model.requires_grad_(False).eval())
        return model

    def follow(self, teacher: FlowMap) -> FlowMap:
        """A teacher whose PF-ODE the map in training follows: held, and in that map's process.

        Raises:
            FewstepError: a model of other images, or one that no other process can use; one that
                was trained for something else.
        """
        assert isinstance(self.f, FlowMap), "only a map follows a teacher"
        check_follows(teacher)
        return self.hold(in_process_of(self.f, teacher, "the teacher"))

    def train(self, mode: bool = True) -> Self:
        """Into training mode, all but what `hold` was given."""
        super().train(mode)
        for model in self._held:
            model.eval()
        return self

    def trained_modules(self) -> dict[str, nn.Module]:
        """All that is trained, by name; the map is the first, as ``f``."""
        return {"f": self.f}

    def turns(self, k: int) -> tuple[Turn, ...]:
        """The parts of training step ``k``, one after another; by default `loss_at` moves all.

        Those of step 0 are all there are: a later step may repeat one more or less often, or
        leave it out, but not add one.
        """
        return (Turn("f", self.loss_at, tuple(self.trained_modules())),)

    def weights_of(self, turn: Turn) -> list[Tensor]:
        """The parameters that a turn moves, in a fixed order; those that are frozen among them."""
        modules = self.trained_modules()
        return list(dict.fromkeys(p for name in turn.modules for p in weights_of(modules[name])))

    def only(self, turn: Turn) -> AbstractContextManager[None]:
        """A block in which no parameter but those of the turn wants a gradient."""
        mine = set(self.weights_of(turn))
        others = (p for m in self.trained_modules().values() for p in weights_of(m))
        fixed = [p for p in dict.fromkeys(others) if p.requires_grad and p not in mine]
        return held_fixed(fixed) if fixed else nullcontext()

    def forward(
        self,
        x: Tensor,
        k: int,
        condition: Condition = NONE,
        turn: Turn | None = None,
        **columns: Tensor,
    ) -> Tensor:
        """Loss of each example of ``x`` [B, *shape] in a turn of training step ``k``: [B].

        Args:
            x: images.
            k: the step, from 0.
            condition: of each image.
            turn: one of ``turns(k)``; default the first.
            columns: those that the objective needs, such as the noise of each pair.
        """
        turn = turn or self.turns(k)[0]
        condition, times = self.drawn(x, k, condition, turn)
        return turn.loss(x, *times, condition=condition, **columns)

    def drawn(
        self, x: Tensor, k: int, condition: Condition, turn: Turn
    ) -> tuple[Condition, tuple[Tensor, ...]]:
        """What the loss of a turn takes besides ``x``: all of it that depends on the step ``k``.

        Raises:
            FewstepError: fewer images than `fewest`.
        """
        self.fewest.check(len(x))
        condition = self.conditioned(condition, x)
        return condition, (turn.draw_times or self.draw_times)(x, k)

    def conditioned(self, condition: Condition, x: Tensor) -> Condition:
        """What every model of the loss sees: in training some classes are hidden, from all alike.

        How many is the network's `label_dropout`; of these rows it learns the null class. A
        subclass may add what it draws for the rows of ``x``.
        """
        F = self.f.network
        return condition.hiding(F.label_dropout, F.num_classes) if self.training else condition

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        """What `loss_at` takes of step ``k``, such as a time per example; by default nothing."""
        return ()

    def narrowed(self, times: tuple[Tensor, ...], gap: float) -> tuple[Tensor, ...]:
        """Times as drawn, but nearer to those at which the fixed point is the exact map.

        Of an objective whose fixed point is `FixedPoint.LIMIT`; the contracts measure how the bias
        falls. By default the last time moves towards the first.

        Args:
            times: of each example, as `draw_times` gives them.
            gap: how wide the gap becomes, as a part of what it is.
        """
        first, *between, last = times
        return first, *between, first + gap * (last - first)

    @abstractmethod
    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        """Loss of each example of ``x`` [B, *shape] at the times that were drawn: [B]."""

    def losses(self) -> list[str]:
        """The names of the methods that compute the turns' losses.

        Raises:
            FewstepError: a loss that is no method of the objective.
        """
        for turn in self.turns(0):
            if getattr(turn.loss, "__self__", None) is not self:
                raise FewstepError(
                    f"the loss of the turn {turn.name} is no method of {self.name}, so "
                    "it cannot be compiled."
                )
        return list(dict.fromkeys(turn.loss.__name__ for turn in self.turns(0)))

    def compile_loss(self, *, deterministic: bool = True) -> None:
        """Compile every turn's loss, with all networks in it, as one graph where that is possible.

        Args:
            deterministic: choose kernels without timing them, so that a later process chooses the
                same and computes the same bits.

        Raises:
            FewstepError: a loss that is no method of the objective.
        """
        known = torch._inductor.list_options()
        options: dict[str, Any] = {"deterministic": True} if "deterministic" in known else {}
        for name in self.losses():
            loss = getattr(self, name)
            setattr(self, name, torch.compile(loss, options=options if deterministic else None))

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

    def changing(self) -> dict[str, nn.Module]:
        """All that training changes, by name: `trained_modules`, and what follows them.

        A checkpoint holds each map as a model file, and the state of any other module as tensors.
        """
        return self.trained_modules()

    def averaged(self) -> dict[str, StoredModel]:
        """The models that running averages follow: by default every one that is trained."""
        trained = self.trained_modules()
        return {name: m for name, m in trained.items() if isinstance(m, StoredModel)}


def weights_of(module: nn.Module) -> list[Tensor]:
    """The parameters that training moves: of a map those of its network."""
    return module.weights if isinstance(module, StoredModel) else list(module.parameters())
