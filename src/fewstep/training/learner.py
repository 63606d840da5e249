"""What makes the steps of one turn: its parameters, their optimiser, how their gradients travel."""

from __future__ import annotations

import inspect
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewstep.distributed import Processes
from fewstep.errors import FewstepError, FewstepWarning, listed
from fewstep.networks.base import Network
from fewstep.networks.embeddings import AUGMENTATION
from fewstep.objectives import Objective
from fewstep.objectives.turns import Turn, check_turns, held_fixed
from fewstep.training.config import Training
from fewstep.training.examples import Share
from fewstep.training.optimizers import make_optimizer
from fewstep.training.recording import Recorder, helps
from fewstep.training.spikes import Spikes


class Learner:
    """One turn of an objective, in training.

    Args:
        objective: what is minimised.
        turn: the turn, as of the first step.
        config: the training's settings, which the turn's own replace.
        group: the processes that train together.
        number: of the turn, from 0; its random streams and its batches are of this number.
    """

    def __init__(
        self,
        objective: Objective[Any],
        turn: Turn,
        config: Training,
        group: Processes,
        number: int = 0,
    ) -> None:
        self.name, self.number = turn.name, number
        self.config = replace(config, **turn.overrides)
        self.weights = objective.weights_of(turn)
        self.moves_map = "f" in turn.modules
        self._others = _others(objective, self.weights)
        self._idle = _idle(objective, self.config)
        self._names = {id(p): name for name, p in objective.named_parameters()}
        self._checked = False
        self.module: nn.Module = objective
        self._in_turn = _InTurn(objective, turn)
        self.spikes = self._watched(group)
        self.recorder = Recorder(self.weights) if self._recorded(objective, group) else None
        if group.world > 1 and self.recorder is None:
            self.reduce(group.device)
        self.begin()

    def _recorded(self, objective: Objective[Any], group: Processes) -> bool:
        wanted, config = self.config.cuda_graphs, self.config
        if wanted is None:
            images = config.batch // Share.of(config, group).total
            wanted = helps(objective, images, compiled=config.compile)
        return wanted and Recorder.possible_on(group.device)

    def _watched(self, group: Processes) -> Spikes | None:
        """What looks for spikes of the gradient, where they are looked for."""
        if self.config.spike is None:
            return None
        return Spikes(self.config.spike, skip=self.config.spikes == "skip").to(group.device)

    def begin(self) -> None:
        """Start anew: an optimiser without a past."""
        self.optimizer = make_optimizer(self.weights, self.config)
        if self.recorder is not None:
            self.recorder.forget()

    def reduce(self, device: torch.device) -> None:
        """From now on take the mean of the gradients of all processes."""
        with held_fixed(self._idle):  # which no process waits for
            self.module = _reduced(self._in_turn, device)

    def alone(self) -> AbstractContextManager[None]:
        """A block in which no other parameter of the objective wants a gradient."""
        return held_fixed(self._others) if self._others else nullcontext()

    def waiting(self, wait: bool) -> AbstractContextManager[None]:
        """A block after whose backward pass gradients do not yet travel between processes."""
        if wait and isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()

    def step(self, lr: float) -> Tensor:
        """Move the parameters; the norm of their gradient, before it was clipped."""
        if not self._checked:
            self._check_used()
        norm = self.clip()
        self.optimizer.lr = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def clip(self) -> Tensor:
        """Scale the gradient down to the longest one allowed; the norm that it had."""
        gradients = [p.grad for p in self.weights if p.grad is not None]
        if self.spikes is not None:
            norm = nn.utils.get_total_norm(gradients)
            self.spikes.tame(gradients, norm)
            if self.config.clip is not None:
                nn.utils.clip_grad_norm_(self.weights, self.config.clip)
            return norm
        if self.config.clip is None:
            return nn.utils.get_total_norm(gradients)
        return nn.utils.clip_grad_norm_(self.weights, self.config.clip)

    def _check_used(self) -> None:
        """Say at the first step what of the parameters the loss does not depend on.

        Raises:
            FewstepError: several processes would wait for a gradient that never comes.
        """
        self._checked = True
        idle = {id(p) for p in self._idle}
        unused = [
            p for p in self.weights if p.requires_grad and p.grad is None and id(p) not in idle
        ]
        if not unused:
            return
        which = listed(self._names[id(p)] for p in unused)
        said = f"the loss of the turn {self.name} does not depend on {which}"
        if isinstance(self.module, DistributedDataParallel):
            raise FewstepError(
                f"{said}, and several processes wait for every gradient: freeze it with "
                "requires_grad_(False), or let another turn train it."
            )
        warnings.warn(f"{said}: the first step has not moved it.", FewstepWarning, stacklevel=2)


def learners_of(
    objective: Objective[Any], config: Training, group: Processes
) -> dict[str, Learner]:
    """What makes the steps of each turn, by its name, in their order.

    Raises:
        FewstepError: the turns do not cover what wants a gradient, or have settings that are none.
    """
    check_turns(objective)
    turns = enumerate(objective.turns(0))
    return {turn.name: Learner(objective, turn, config, group, i) for i, turn in turns}


def _others(objective: Objective[Any], weights: list[Tensor]) -> list[Tensor]:
    mine = {id(p) for p in weights}
    return [p for p in objective.parameters() if p.requires_grad and id(p) not in mine]


def _idle(objective: Objective[Any], config: Training) -> list[Tensor]:
    """Weights of an input that the training does not give: augmentations where there are none."""
    if config.augment:
        return []
    networks = [module for module in objective.modules() if isinstance(module, Network)]
    found = (x for network in networks for x in network.added_weights(AUGMENTATION))
    return [x for x in found if x.requires_grad]


class _InTurn(nn.Module):
    """An objective of which the distributed wrapper sees the modules of one turn alone."""

    def __init__(self, objective: Objective[Any], turn: Turn) -> None:
        super().__init__()
        modules = objective.trained_modules()
        self.trained = nn.ModuleList(modules[name] for name in turn.modules)
        self._objective = (objective,)  # in a tuple: no part of this module

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        return self._objective[0](*arguments, **named)


def _reduced(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """A module as several processes train it, each with the mean of their gradients."""
    devices = [device] if device.type == "cuda" else None
    # The trainer shares the buffers; torch 2.13 gave the setting another name.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {"gradient_as_bucket_view": True, sync: False}
    return DistributedDataParallel(module, device_ids=devices, **settings)
