"""The training loop, for every objective.

Step ``k`` is a pure function of the weights, the optimiser's state and ``(seed, k)``: the data
order is a function of ``(seed, k)``, and before each micro-batch the random streams are set from
``(seed, k, micro-batch)``. So a run that was killed resumes to the very bits of one that was not,
and runs with the same number of micro-batches agree whatever the number of processes.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewstep.condition import Condition
from fewstep.data import Dataset, batch_indices, save_images, to_uint8
from fewstep.data.images import grid
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.objectives import Objective
from fewstep.objectives.fit import check_columns
from fewstep.precision import HALF
from fewstep.training.arithmetic import autocast, repeatable, seed_streams, set_up
from fewstep.training.checkpoint import (
    OPTIMIZER,
    Checkpoint,
    Checkpoints,
    Snapshot,
)
from fewstep.training.config import Training
from fewstep.training.ema import Averages
from fewstep.training.logbook import Logbook
from fewstep.training.meter import Meter
from fewstep.training.optimizers import make_optimizer
from fewstep.training.restored import optimizer_tensors, restore_map, restore_optimizer
from fewstep.training.score import Score
from fewstep.training.stopping import stop_signals
from fewstep.training.validation import Validation
from fewstep.training.writer import Writer


class Interrupted(Exception):
    """Training was asked to stop, and has saved its state."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted at step {step}")
        self.step = step


class Trainer:
    """Trains an objective's map on a data set.

    Args:
        objective: what is minimised; moved to the device of `group`.
        data: training images; with labels where the map is conditional.
        config: how.
        directory: where the checkpoints, logs and samples go.
        held_out: real images [m, *shape] in [-1, 1] to validate against; without them there is
            no best checkpoint.
        held_out_labels: their classes [m], which the samples of the validation have, too.
        group: the processes that train together.
        quiet: do not show how far it is.
        notes: lines that the user should read before it starts.
    """

    def __init__(
        self,
        objective: Objective,
        data: Dataset,
        config: Training,
        directory: str | Path,
        *,
        held_out: Tensor | None = None,
        held_out_labels: Tensor | None = None,
        group: Processes | None = None,
        quiet: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self.group = group or Processes()
        self.config, self.quiet = config, quiet
        self.notes = notes
        self.directory = Path(directory)
        self.objective = objective.to(self.group.device)
        # Convolutions are fastest with channels last; only 4-dimensional weights are touched.
        objective._apply(_channels_last)
        self.parts = _share_of(config, self.group)
        self.data = data = fitted(data, objective.f)
        check_columns(objective.name, objective.needs, data, config.flip)
        _check_type(objective.f)
        self.averages = Averages(objective.f, config)
        self.optimizer = make_optimizer(objective.f.weights, config)
        set_up(config.precision, deterministic=config.deterministic)
        if config.compile:
            objective.compile_loss(deterministic=config.deterministic)
            # Its backward pass must find the setting that it was compiled under.
            alike = repeatable(self.group.device, deterministic=config.deterministic)
            objective.loss_at = alike(objective.loss_at)  # type: ignore[method-assign]
        self.module = objective.train() if self.group.world == 1 else self.in_step()
        self.checkpoints = Checkpoints(self.directory / "checkpoints", config.keep)
        self.validate: Validation | None = None
        if held_out is not None:
            n = max(2, config.samples)
            self.validate = Validation(held_out, n, labels=held_out_labels)

    def in_step(self) -> DistributedDataParallel:
        """The objective as several processes train it, each with the mean of their gradients."""
        devices = [self.group.device] if self.group.device.type == "cuda" else None
        # Buffers never change, so none has to travel; torch 2.13 gave the setting another name.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        settings: dict[str, Any] = {"gradient_as_bucket_view": True, sync: False}
        return DistributedDataParallel(self.objective.train(), device_ids=devices, **settings)

    def run(self) -> FlowMap:
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

    def _run(self) -> FlowMap:
        start = self._restore()
        config, first = self.config, self.group.first
        log = Logbook(
            self.directory,
            start=start,
            steps=config.steps,
            title=self.directory.name,
            active=first,
            quiet=self.quiet,
        )
        self.checkpoints.tell = log.say
        if first and 0 < start < config.steps:
            log.say(f"{self.directory}: resuming at step {start} of {config.steps}")
        if first and start >= config.steps:
            log.say(
                f"{self.directory} has made {start} steps already, of {config.steps}: nothing is "
                "trained. For other settings give another folder."
            )
        for note in (*self.notes, *_remarks(config, self.data)):
            log.say(note)
        with log, stop_signals() as stop, Writer(self.checkpoints) as writer:
            self._loop(start, log, stop, writer)
        self.group.barrier()
        return self.averages.first

    def _loop(self, start: int, log: Logbook, stop: threading.Event, writer: Writer) -> None:
        config = self.config
        meter, score = Meter(self.group, saved=start), None
        for k in range(start, config.steps):
            meter.add(k, *self.step(k))
            done = k + 1
            log.advance(done, lambda: meter.glance(config.batch))
            last = done == config.steps
            if done % config.log_every == 0 or last:
                log.write(done, self._numbers(meter, done))
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

    def step(self, k: int) -> tuple[Tensor, Tensor]:
        """One step of the optimiser: the loss and the gradient's norm, both scalars."""
        config, objective = self.config, self.objective
        if k and k == objective.round_of(k)[0]:
            self.optimizer = make_optimizer(objective.f.weights, config)
        if not objective.f.training:  # somebody sampled it
            objective.train()
        indices = batch_indices(len(self.data), config.batch, k, config.seed)
        losses = []
        for part, micro in enumerate(indices.chunk(self.parts.total)):
            if part not in self.parts.mine:
                continue
            seed_streams(mix(config.seed, k, part), self.group.device)
            x, label = self.data.batch(micro, self.group.device, config.flip)
            condition = Condition(label=label if objective.f.num_classes else None)
            columns = {
                name: self.data.column(name, micro, self.group.device)
                for name in objective.needs.columns
            }
            with self._sync_only_at(part), autocast(config.precision, self.group.device):
                loss = self.module(x, k, condition, **columns).mean() / len(self.parts.mine)
                with repeatable(self.group.device, deterministic=config.deterministic):
                    loss.backward()
            losses.append(loss.detach())
        norm = self._clip()
        self.optimizer.lr = self.rate(k)
        self.optimizer.step()
        self.optimizer.zero_grad()
        objective.after_step(k)
        self.averages.update(objective.f, k)
        return torch.stack(losses).sum(), norm

    def rate(self, k: int) -> float:
        """The learning rate of step ``k`` in the objective's round."""
        return self.config.lr_at(k, *self.objective.round_of(k))

    def _sync_only_at(self, part: int) -> AbstractContextManager[object]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        if isinstance(self.module, DistributedDataParallel) and part != self.parts.mine[-1]:
            return self.module.no_sync()
        return nullcontext()

    def _clip(self) -> Tensor:
        weights = self.objective.f.weights
        if self.config.clip is None:
            return nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        return nn.utils.clip_grad_norm_(weights, self.config.clip)

    def _numbers(self, meter: Meter, done: int) -> dict[str, float]:
        """What the log says of the steps since the last time."""
        steps, seconds, loss, norm = meter.read()
        return {
            "loss": loss,
            "gradient_norm": norm,
            "lr": self.rate(done - 1),
            "images_per_second": steps * self.config.batch / seconds,
            **self.objective.schedule(done - 1),
        }

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
        if not self.group.first:
            return
        maps = {**self.objective.changing(), **self.averages.named()}
        for f in maps.values():
            f.trained = replace(f.trained, step=done)
        state = {OPTIMIZER: optimizer_tensors(self.optimizer)}
        default = next(iter(self.averages.named()))
        writer.write(Snapshot.of(done, maps, state, default=default, score=score))

    def _restore(self) -> int:
        """Put back the newest intact checkpoint; the number of steps it has made."""
        checkpoint: Checkpoint | None = self.checkpoints.latest()
        if checkpoint is None:
            return 0
        for name, f in self.objective.changing().items():
            restore_map(f, checkpoint.file(name))
        self.averages.restore(checkpoint.path)
        for f in [*self.objective.changing().values(), *self.averages.named().values()]:
            f.trained = replace(f.trained, step=checkpoint.step)
        restore_optimizer(self.optimizer, checkpoint.file(OPTIMIZER))
        self.group.barrier()
        if self.group.first:
            self.checkpoints.prune()  # what a process that was killed had no time to drop
        return checkpoint.step


def fitted(data: Dataset, f: FlowMap) -> Dataset:
    """The data with classes numbered as the model's are, where the model has names for them.

    Raises:
        FewstepError: data of another shape, without labels for a conditional model, or with
            classes that it does not have.
    """
    if tuple(data.shape) != tuple(f.shape):
        raise FewstepError(
            f"the model is of shape {list(f.shape)}, but {data.name} has {list(data.shape)}."
        )
    if not f.num_classes:
        return data
    if data.labels is None:
        raise FewstepError(
            f"the model is conditional on {f.num_classes} classes, but {data.name} has no labels. "
            "Give the images class folders, or train without labels."
        )
    if f.trained.classes:
        return data.with_classes(f.classes, "the model")
    if data.num_classes > f.num_classes:
        raise FewstepError(
            f"the model is conditional on {f.num_classes} classes, but {data.name} has "
            f"{data.num_classes}."
        )
    return data


def _remarks(config: Training, data: Dataset) -> Iterator[str]:
    """What of the settings and the images is worth a line before a training starts."""
    if config.warmup > config.steps // 4:
        yield (
            f"note: the learning rate rises over the first {config.warmup:,} steps, and this "
            f"training has {config.steps:,}: a warm-up of a twentieth, --warmup "
            f"{config.steps // 20}, learns more from them."
        )
    if config.batch > len(data):
        yield (
            f"note: a batch of {config.batch} is more than the {len(data)} images of "
            f"{data.name}; some appear in it more than once."
        )
    if data.skipped:
        yield (f"note: images of {data.name} that cannot be read and are left out: {data.skipped}.")


class Parts:
    """Which micro-batches of how many this process computes."""

    def __init__(self, total: int, mine: list[int]) -> None:
        self.total, self.mine = total, mine


def _check_type(f: FlowMap) -> None:
    """Raise `FewstepError` for half precision, in which small steps of the weights are lost."""
    if f.dtype in HALF:
        raise FewstepError(
            f"the weights are {str(f.dtype).removeprefix('torch.')}, which loses small steps: call "
            "f.float() before the objective is made; Training(precision='bf16') computes faster."
        )


def _share_of(config: Training, group: Processes) -> Parts:
    total = config.microbatches or group.world
    if total % group.world:
        raise FewstepError(
            f"microbatches={total} must be a multiple of the {group.world} processes."
        )
    if config.batch % total:
        raise FewstepError(f"batch={config.batch} must be a multiple of {total} micro-batches.")
    return Parts(total, list(range(group.rank, total, group.world)))


def _channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x


def mix(*numbers: int) -> int:
    """A seed that differs for every tuple of numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))
