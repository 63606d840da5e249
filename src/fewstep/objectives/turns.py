"""The turns of a step: which modules move, by which loss, and how often.

Most objectives train one map by one loss: one turn. An objective with several networks that are
trained against one another, such as a generator and a discriminator, has a turn for each, with an
optimiser of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fewstep.errors import FewstepError, listed
from fewstep.whole import whole

if TYPE_CHECKING:
    from fewstep.objectives.base import Objective

OVERRIDES = ("lr", "betas", "optimizer", "weight_decay", "warmup", "decay", "clip")


@dataclass(frozen=True)
class Turn:
    """One of the parts of a training step.

    Args:
        name: what logs and checkpoints call it.
        loss: a method of the objective that takes what `Objective.loss_at` takes and gives the loss
            of each example [B].
        trains: names of the modules that it moves, of `Objective.trained_modules`; by default the
            one that is called as the turn. The others are held fixed meanwhile.
        repeat: steps of the optimiser in this step of the training, each with a batch of its own;
            0 for none.
        draw_times: in the place of `Objective.draw_times`.
        lr: in the place of the training's, as are all that follow.
        betas: decays of the optimiser's moments.
        optimizer: its name.
        weight_decay: pull towards zero.
        warmup: steps of the training over which the learning rate rises.
        decay: what the learning rate does then.
        clip: largest norm of the gradient; `math.inf` for no limit.
    """

    name: str
    loss: Callable[..., Tensor]
    trains: tuple[str, ...] = ()
    repeat: int = 1
    draw_times: Callable[[Tensor, int], tuple[Tensor, ...]] | None = None
    lr: float | None = None
    betas: tuple[float, float] | None = None
    optimizer: str | None = None
    weight_decay: float | None = None
    warmup: int | None = None
    decay: str | None = None
    clip: float | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that it moves."""
        return self.trains or (self.name,)

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that differ from the training's."""
        given = {name: getattr(self, name) for name in OVERRIDES}
        return {name: value for name, value in given.items() if value is not None}


@contextmanager
def held_fixed(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Parameters that want a gradient, without one in this block."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def check_turns(objective: Objective) -> None:
    """Raise `FewstepError` unless every parameter that wants a gradient is moved in some turn.

    Also for names that no file can have, modules that are no part of the objective, and turns that
    train nothing or the same as another in name.
    """
    modules, turns = objective.trained_modules(), objective.turns(0)
    _check_names(objective, modules, turns)
    for turn in turns:
        _check_turn(objective, turn, modules)
    taken = {name for turn in turns for name in turn.modules}
    if idle := [name for name in modules if name not in taken]:
        raise FewstepError(
            f"no turn of {objective.name} trains {listed(idle)}: name it in a Turn's trains, or "
            "leave it out of trained_modules()."
        )
    _check_forgotten(objective, modules)


def _check_names(
    objective: Objective, modules: dict[str, nn.Module], turns: tuple[Turn, ...]
) -> None:
    if next(iter(modules), None) != "f" or modules["f"] is not objective.f:
        raise FewstepError(
            f"the first of trained_modules() of {objective.name} must be its map, as f."
        )
    changing = objective.changing()
    names = [*modules, *changing, *(turn.name for turn in turns)]
    for name in names:
        if not name.isidentifier() or name == "optimizer":
            raise FewstepError(
                f"{objective.name} calls a module or a turn {name!r}: a file is named so, it "
                "must be an identifier, and not optimizer."
            )
    called = [turn.name for turn in turns]
    if not turns or len(set(called)) < len(called):
        raise FewstepError(
            f"{objective.name} needs turns of different names, got {listed(called) or 'none'}."
        )
    own = {id(module) for module in objective.modules()}
    if strange := [n for n, m in {**modules, **changing}.items() if id(m) not in own]:
        raise FewstepError(
            f"{listed(strange)} is no part of {objective.name}, so no device and no mode reaches "
            "it: make it an attribute (self.name = module), not an entry of a list or dict."
        )
    if other := [name for name, m in changing.items() if modules.get(name, m) is not m]:
        raise FewstepError(
            f"{listed(other)} is one module in trained_modules() of {objective.name} and another "
            "in changing()."
        )


def _check_turn(objective: Objective, turn: Turn, modules: dict[str, nn.Module]) -> None:
    if unknown := [name for name in turn.modules if name not in modules]:
        raise FewstepError(
            f"the turn {turn.name} of {objective.name} trains {listed(unknown)}, which "
            f"trained_modules() does not name; it names {listed(modules)}."
        )
    if whole(turn.repeat, f"repeat of the turn {turn.name}") < 0:
        raise FewstepError(f"the turn {turn.name} cannot be repeated {turn.repeat} times.")
    if not any(p.requires_grad for p in objective.weights_of(turn)):
        raise FewstepError(
            f"nothing that the turn {turn.name} of {objective.name} trains wants a gradient: "
            "call requires_grad_() of its module."
        )


def _check_forgotten(objective: Objective, modules: dict[str, nn.Module]) -> None:
    moved = {id(p) for turn in objective.turns(0) for p in objective.weights_of(turn)}
    wanting = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    if forgotten := [name for name, p in wanting.items() if id(p) not in moved]:
        raise FewstepError(
            f"{objective.name} has parameters that want a gradient and that no optimiser would "
            f"move: {listed(forgotten)}. Name their module in trained_modules(), or freeze it with "
            "requires_grad_(False)."
        )
