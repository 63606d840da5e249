"""The training loop, for every objective.

Step ``k`` is a pure function of the weights, the optimisers' state and ``(seed, k)``: the data
order is a function of the seed, the step, the turn and its repeat, and before each micro-batch the
random streams are set from these and its number. So a run that was killed resumes to the very bits
of one that was not, and runs with the same number of micro-batches agree whatever the number of
processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, cast

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition, told
from fewstep.data import Dataset, save_images, to_uint8
from fewstep.data.images import grid
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.lock import locked
from fewstep.objectives import Objective
from fewstep.objectives.base import M
from fewstep.objectives.turns import Turn
from fewstep.precision import HALF
from fewstep.stored_model import StoredModel
from fewstep.training.arithmetic import autocast, repeatable, set_up
from fewstep.training.batches import Batches
from fewstep.training.checkpoint import Checkpoint, Checkpoints
from fewstep.training.config import Training
from fewstep.training.ema import Averages
from fewstep.training.learner import Learner, learners_of
from fewstep.training.logbook import Logbook
from fewstep.training.loggers import loggers_of
from fewstep.training.meter import Meter
from fewstep.training.remarks import remarks
from fewstep.training.score import Score
from fewstep.training.state import State
from fewstep.training.stopping import Interrupted, stop_signals
from fewstep.training.validation import Validation
from fewstep.training.writer import Writer


class Trainer(Generic[M]):
    """Trains an objective's map on a data set.

    Args:
        objective: what is minimised; moved to the device of `group`.
        data: training images; with labels where the map is conditional.
        config: how.
        directory: where the checkpoints, logs and samples go.
        held_out: real images [m, *shape] in [-1, 1] to validate against; without them there is
            no best checkpoint.
        held_out_labels: their classes [m], which the samples of the validation have, too.
        held_out_condition: the same, and whatever else is known of them.
        group: the processes that train together.
        quiet: do not show how far it is.
        notes: lines that the user should read before it starts.
        about: settings of the whole run, for the loggers; default those of the training.
    """

    def __init__(
        self,
        objective: Objective[M],
        data: Dataset,
        config: Training,
        directory: str | Path,
        *,
        held_out: Tensor | None = None,
        held_out_labels: Tensor | None = None,
        held_out_condition: Condition = NONE,
        group: Processes | None = None,
        quiet: bool = False,
        notes: Sequence[str] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.group = group or Processes()
        self.config, self.quiet = config, quiet
        self.notes = notes
        self.loggers = loggers_of(config.log) if self.group.first else {}
        self.about = about or {"objective": objective.name, **asdict(config)}
        self.directory = Path(directory)
        self.objective = objective.to(self.group.device)
        # Convolutions are fastest with channels last; only 4-dimensional weights are touched.
        objective._apply(_channels_last)
        self.batches = Batches(objective, data, config, self.group)
        self.data = self.batches.data
        _check_type(objective.f)
        _set_guidance(objective.f, config.guidance)
        self.group.spread(objective.state_dict().values())
        self.learners = learners_of(objective, config, self.group)
        self.state = State(objective, config, self.learners)
        self._buffers = self.state.buffers
        self._told: dict[str, float] = {}
        set_up(config.precision, deterministic=config.deterministic)
        if config.compile:
            self._compile()
        objective.train()
        self.checkpoints = Checkpoints(self.directory / "checkpoints", config.keep)
        self.validate: Validation | None = None
        if held_out is not None and objective.f.trained.known:  # else nobody knows a sampler
            n = max(2, config.samples)
            shown = told(held_out_condition, held_out_labels)
            self.validate = Validation(held_out, n, told=shown)

    @property
    def averages(self) -> Averages:
        """The running averages of the map."""
        return self.state.averages["f"]

    def _compile(self) -> None:
        """Compile every loss; its backward pass must find the setting of when it was compiled."""
        deterministic, names = self.config.deterministic, self.objective.losses()
        self.objective.compile_loss(deterministic=deterministic)
        alike = repeatable(self.group.device, deterministic=deterministic)
        for name in names:
            setattr(self.objective, name, alike(getattr(self.objective, name)))

    def run(self) -> M:
        """Train to the end, from the newest intact checkpoint if there is one.

        Returns:
            The first running average.

        Raises:
            FewstepError: the loss or the gradient is not finite; the checkpoint cannot be written;
                another process is training in the folder.
            Interrupted: SIGINT or SIGTERM came; everything is saved.
        """
        with locked(self.directory) if self.group.first else nullcontext():
            return self._run()

    def _run(self) -> M:
        start = self._restore()
        config, first = self.config, self.group.first
        log = Logbook(
            self.directory,
            start=start,
            steps=config.steps,
            title=self.directory.name,
            active=first,
            quiet=self.quiet,
            loggers=self.loggers,
            config=self.about,
        )
        self.checkpoints.tell = log.say
        for learner in self.learners.values():
            if learner.recorder is not None:
                learner.recorder.tell = log.say
        if first and 0 < start < config.steps:
            log.say(f"{self.directory}: resuming at step {start} of {config.steps}")
        if first and start >= config.steps:
            log.say(
                f"{self.directory} has made {start} steps already, of {config.steps}: nothing is "
                "trained. For other settings give another folder."
            )
        recorded = any(learner.recorder for learner in self.learners.values())
        said = remarks(config, self.objective, self.data, self.group.device, recorded=recorded)
        for note in (*self.notes, *said):
            log.say(note)
        with log, stop_signals() as stop, Writer(self.checkpoints) as writer:
            self._loop(start, log, stop, writer)
        self.group.barrier()
        return cast("M", self.averages.first)

    def _loop(self, start: int, log: Logbook, stop: threading.Event, writer: Writer) -> None:
        config = self.config
        meter, score = Meter(self.group, start, list(self.learners)), None
        shown = self._of_map()
        for k in range(start, config.steps):
            meter.add(k, self.step(k))
            if k == start:
                self.state.check()
            done = k + 1
            log.advance(done, lambda: meter.glance(shown, config.batch))
            last = done == config.steps
            if done % config.log_every == 0 or last:
                self._log(done, log, meter)
            if self.validate and config.sample_every and (done % config.sample_every == 0 or last):
                meter.check()
                score = self.group.as_one(partial(self._preview, done, log))
            stopping = self._asked_to_stop(stop, done)
            if done % config.checkpoint_every == 0 or last or stopping:
                meter.check()
                self._save(done, score, writer)
                meter.saved, score = done, None
            if stopping and not last:
                writer.join()
                raise Interrupted(done)

    def step(self, k: int) -> dict[str, Tensor]:
        """One step: the loss and the gradient's norm [2] of each turn that it has, by its name."""
        objective = self.objective
        if k and k == objective.round_of(k)[0]:
            for learner in self.learners.values():
                learner.begin()
        if not objective.f.training:  # somebody sampled it
            objective.train()
        made = {}
        for turn in objective.turns(k):
            learner = self._learner(turn)
            with learner.alone():
                took = [self._take(learner, turn, k, repeat) for repeat in range(turn.repeat)]
            if took:
                made[turn.name] = took[0] if len(took) == 1 else torch.stack(took).mean(0)
        objective.after_step(k)
        self.group.spread(self._buffers)
        self.state.follow(k)
        return made

    def _learner(self, turn: Turn) -> Learner:
        try:
            return self.learners[turn.name]
        except KeyError:
            raise FewstepError(
                f"{self.objective.name} has no turn {turn.name!r} in step 0: name it "
                "there, with repeat=0 until it begins."
            ) from None

    def _take(self, learner: Learner, turn: Turn, k: int, repeat: int) -> Tensor:
        """A step of a turn's optimiser, with a batch of its own: loss and gradient's norm [2]."""
        config, device, objective = self.config, self.group.device, self.objective
        losses = []
        for part in self.batches.parts(learner.number, k, turn.repeat, repeat):
            x, condition, columns = part.x, part.condition, part.columns
            if learner.recorder is not None:
                condition, times = objective.drawn(x, k, condition, turn)
                words = (turn.loss, (x, *times), condition, columns)
                losses.append(learner.recorder(self._backward, *words))
                continue
            with learner.waiting(not part.last), autocast(config.precision, device):
                loss = learner.module(x, k, condition, turn, **columns).mean() / self._parts
                with repeatable(device, deterministic=config.deterministic):
                    loss.backward()
            losses.append(loss.detach())
        if learner.recorder is not None:
            self.group.mean_of_all([p.grad for p in learner.weights if p.grad is not None])
        norm = learner.step(self.rate(learner, k))
        return torch.stack([torch.stack(losses).sum(), norm])

    def _backward(
        self,
        loss: Callable[..., Tensor],
        tensors: Sequence[Tensor],
        condition: Condition,
        columns: Mapping[str, Tensor],
    ) -> Tensor:
        """Add the gradients of a micro-batch; its part of the loss. A recorder calls it."""
        config, device = self.config, self.group.device
        with autocast(config.precision, device):
            mean = loss(*tensors, condition=condition, **columns).mean() / self._parts
            with repeatable(device, deterministic=config.deterministic):
                mean.backward()
        return mean.detach()

    @property
    def _parts(self) -> int:
        """Micro-batches of a batch in this process."""
        return len(self.batches.share.mine)

    def rate(self, learner: Learner, k: int) -> float:
        """The learning rate of a turn in step ``k``, in the objective's round."""
        return learner.config.lr_at(k, *self.objective.round_of(k))

    def _of_map(self) -> str:
        """The turn whose numbers stand for the training's: the first that moves the map."""
        return next(name for name, learner in self.learners.items() if learner.moves_map)

    def _numbers(self, meter: Meter, done: int) -> dict[str, float]:
        """What the log says of the steps since the last time."""
        reading, shown = meter.read(), self._of_map()
        numbers: dict[str, float] = {}
        for name, (loss, norm) in reading.means.items():
            of, learner = "" if name == shown else f"_{name}", self.learners[name]
            rate = self.rate(learner, done - 1)
            numbers |= {f"loss{of}": loss, f"gradient_norm{of}": norm, f"lr{of}": rate}
            if learner.spikes is not None:
                numbers[f"spikes{of}"] = float(learner.spikes.count)
        speed = reading.steps * self.config.batch / reading.seconds
        return numbers | {"images_per_second": speed, **self.objective.schedule(done - 1)}

    def _log(self, done: int, log: Logbook, meter: Meter) -> None:
        """Write what there is to say of the last steps; say that there were spikes."""
        numbers = self._numbers(meter, done)
        log.write(done, numbers)
        found = {name: n for name, n in numbers.items() if name.startswith("spikes")}
        for name, n in found.items():
            if n > self._told.get(name, 0.0):
                self._told[name] = n
                log.say(f"step {done}: {n:.0f} gradients so far were spikes, {self._what_became}")

    @property
    def _what_became(self) -> str:
        return "and skipped." if self.config.spikes == "skip" else "and damped."

    def _preview(self, done: int, log: Logbook) -> float | None:
        """Write a sample grid; return the score of the samples."""
        if not self.group.first or self.validate is None:
            return None
        x, score = self.validate(self.averages.first)
        error = {"energy_distance_error": score.error} if isinstance(score, Score) else {}
        log.write(done, {"energy_distance": score, **error})
        if x.ndim == 4:
            images = to_uint8(x[:64])
            folder = self.directory / "samples"
            folder.mkdir(exist_ok=True)
            save_images(images, folder / f"step-{done:08d}.png")
            log.picture(done, grid(images))
        return score

    def _asked_to_stop(self, stop: threading.Event, done: int) -> bool:
        """Whether to stop after this step; several processes agree at every line of the log."""
        if self.group.world > 1 and done % self.config.log_every:
            return False
        return self.group.any(stop.is_set())

    def _save(self, done: int, score: float | None, writer: Writer) -> None:
        if self.group.first:
            writer.write(self.state.snapshot(done, score))

    def _restore(self) -> int:
        """Put back the newest intact checkpoint; the number of steps it has made."""
        checkpoint: Checkpoint | None = self.checkpoints.latest()
        if checkpoint is None:
            return 0
        self.state.restore(checkpoint)
        self.group.barrier()
        if self.group.first:
            self.checkpoints.prune()  # what a process that was killed had no time to drop
        return checkpoint.step


def _set_guidance(f: StoredModel, w: float | None) -> None:
    """Note the weight that a map is sampled with where none is asked for.

    Raises:
        FewstepError: a map that cannot be guided.
    """
    if w is not None:
        f.trained.check_guidance(f.num_classes or f.network.embeds, w)
        if w != 1 and f.trained.maps_to_any:  # whose own sampler, jumps, takes no other weight
            f.trained.check_takes_weight(w)
        f.trained = replace(f.trained, guidance=w)


def _check_type(f: StoredModel) -> None:
    """Raise `FewstepError` for half precision, in which small steps of the weights are lost."""
    if f.dtype in HALF:
        raise FewstepError(
            f"the weights are {str(f.dtype).removeprefix('torch.')}, which loses small steps: call "
            "f.float() before the objective is made; Training(precision='bf16') computes faster."
        )


def _channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
