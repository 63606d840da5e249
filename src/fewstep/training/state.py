"""All that a training changes: what its checkpoints hold, and what they would miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fewstep.errors import FewstepError, listed
from fewstep.named_tensors import named_tensors
from fewstep.objectives import Objective
from fewstep.stored_model import StoredModel
from fewstep.training.checkpoint import OPTIMIZER, Checkpoint, Snapshot
from fewstep.training.config import Training
from fewstep.training.ema import Averages
from fewstep.training.learner import Learner
from fewstep.training.optimizers import Adam
from fewstep.training.restored import optimizer_tensors, restore_module, restore_optimizers


class State:
    """The modules of a training, its running averages and its optimisers.

    Args:
        objective: what is minimised.
        config: names the averages.
        learners: what makes the steps of each turn.
    """

    def __init__(
        self, objective: Objective[Any], config: Training, learners: Mapping[str, Learner]
    ) -> None:
        self.objective, self.learners = objective, learners
        self.followed = {"f": objective.f} | objective.averaged()
        self.averages = {
            name: Averages(f, config, "" if name == "f" else name)
            for name, f in self.followed.items()
        }
        self._fixed = {name: (x, x._version) for name, x in self._unsaved().items()}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What training changes, by name, without the averages."""
        return self.objective.trained_modules() | self.objective.changing() | self._spikes()

    @property
    def maps(self) -> dict[str, StoredModel]:
        """Every map of a checkpoint, by name."""
        maps = {name: m for name, m in self.modules.items() if isinstance(m, StoredModel)}
        for averages in self.averages.values():
            maps |= averages.named()
        return maps

    @property
    def buffers(self) -> list[Tensor]:
        """What modules other than maps keep besides parameters; a forward pass may change it."""
        others = [m for m in self.modules.values() if not isinstance(m, StoredModel)]
        return [x for module in others for x in module.buffers()]

    def follow(self, k: int) -> None:
        """Take step ``k`` into the averages."""
        for name, f in self.followed.items():
            self.averages[name].update(f, k)

    def snapshot(self, step: int, score: float | None) -> Snapshot:
        """A copy of it all.

        Raises:
            FewstepError: the objective has changed what no checkpoint holds.
        """
        self.check()
        self._set_step(step)
        others = {n: m for n, m in self.modules.items() if not isinstance(m, StoredModel)}
        tensors = {name: named_tensors(module) for name, module in others.items()}
        tensors[OPTIMIZER] = optimizer_tensors(self._optimizers())
        default = next(iter(self.averages["f"].named()))
        return Snapshot.of(step, self.maps, tensors, default=default, score=score)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put back what a checkpoint holds.

        Raises:
            FewstepError: a file is missing or holds something else.
        """
        for name, module in self.modules.items():
            restore_module(module, checkpoint.file(name))
        for averages in self.averages.values():
            averages.restore(checkpoint.path)
        self._set_step(checkpoint.step)
        restore_optimizers(self._optimizers(), checkpoint.file(OPTIMIZER))

    def check(self) -> None:
        """Raise `FewstepError` if the objective has changed what no checkpoint holds.

        It would be as it was at the start when the run is resumed.
        """
        now = self.objective.state_dict(keep_vars=True)
        if changed := [
            name
            for name, (x, version) in self._fixed.items()
            if now.get(name) is not x or x._version != version
        ]:
            raise FewstepError(
                f"{self.objective.name} changes {listed(changed)}, which no checkpoint "
                "holds, so a resumed run would differ: return its module in changing()."
            )

    def _unsaved(self) -> dict[str, Tensor]:
        """The tensors of the objective that are in no module of a checkpoint."""
        held = {id(x) for m in self.modules.values() for x in m.state_dict(keep_vars=True).values()}
        everything = self.objective.state_dict(keep_vars=True)
        return {
            name: x
            for name, x in everything.items()
            if isinstance(x, Tensor) and id(x) not in held and not x.is_inference()
        }

    def _spikes(self) -> dict[str, nn.Module]:
        watched = {name: learner.spikes for name, learner in self.learners.items()}
        return {f"spikes_{name}": w for name, w in watched.items() if w is not None}

    def _optimizers(self) -> dict[str, Adam]:
        return {name: learner.optimizer for name, learner in self.learners.items()}

    def _set_step(self, step: int) -> None:
        for f in self.maps.values():
            f.trained = replace(f.trained, step=step)
