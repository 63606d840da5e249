"""The way from a run, which is data, to its training, walked once: see `Build`."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.data import Dataset
from fewstep.data.dataset import EMBEDDING
from fewstep.data.described import scale_of
from fewstep.distributed import Processes
from fewstep.exchange.origin import made_from
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.models import AnyModel, load_model
from fewstep.needs import LATENTS
from fewstep.networks import Autoencoder, Network
from fewstep.objectives import Objective
from fewstep.objectives.fit import check_process
from fewstep.runs.beginning import (
    begin_from_teacher,
    beside_teacher,
    check_pairs,
    take_weights,
)
from fewstep.runs.components import (
    make_network,
    make_objective,
    make_p,
    objective_of,
    plugins_of,
)
from fewstep.runs.directory import RunDirectory
from fewstep.runs.dry_run import check_memory
from fewstep.runs.images import classes_in, held_out, with_known_classes
from fewstep.runs.latent_space import find_latents
from fewstep.runs.parts import Parts
from fewstep.runs.record import Record
from fewstep.runs.resume import Begun
from fewstep.runs.run import COMPANIONS, Run
from fewstep.trained import AUTOENCODER, Trained
from fewstep.training.arithmetic import mix
from fewstep.training.trainer import Trainer


class Build:
    """All that a training is made of, each thing from those before it, in the order of `STOPS`.

    Args:
        run: what to train; its data and models may be elsewhere by now.
        home: the run's folder.
        recipe: name to file it under.
        before: what the folder holds of it.
        group: the processes that train together.
        data: images in memory.
    """

    images: Dataset
    """With their classes numbered as the models that it begins with know them."""
    models: dict[str, AnyModel]
    """The companions that it has, by the setting that names each."""
    latents: Latents | None
    """The space to train in; None where that is the images' own."""
    data: Dataset
    """What is trained on: the images, or their latents."""
    f: AnyModel
    """The map in training."""
    objective: Objective

    def __init__(
        self,
        run: Run,
        home: RunDirectory,
        recipe: str,
        before: Begun | None,
        group: Processes,
        data: Dataset | None = None,
    ) -> None:
        if before is None:
            self.record = Record(recipe=recipe, run=run, plugins=plugins_of(recipe, run))
        else:
            self.record = before.record
        self.run, self.home, self.before, self.group = self.record.run, home, before, group
        self.parts = Parts(run, home, before, group, data)

    def trainer(self, *, quiet: bool = False) -> tuple[Trainer, Record]:
        """Walk; the training, and the record of what it was made from.

        Args:
            quiet: no progress bar.

        Raises:
            FewstepError: any mistake in the settings, the data or the models.
        """
        for stop in STOPS:
            stop(self)
        real, told = held_out(self.images)
        trainer = Trainer(
            self.objective,
            self.data,
            self.run.training,
            self.home.path,
            held_out=real,
            held_out_condition=told,
            group=self.group,
            quiet=quiet,
            notes=[*self.parts.notes, *self._changes()],
            about=self._about(),
        )
        return trainer, replace(self.record, sources=self.parts.sources)

    def check_process(self) -> None:
        """Refuse one that does not fit before any data are read."""
        needs = objective_of(self.run).needs
        if needs.network != LATENTS:
            check_process(self.run.objective.name, needs, make_p(self.run))

    def find_images(self) -> None:
        self.images = self.parts.images()

    def find_models(self) -> None:
        found = {name: self.parts.model(name) for name in COMPANIONS}
        self.models = {name: model for name, model in found.items() if model is not None}

    def number_classes(self) -> None:
        self.images = with_known_classes(self.run, self.images, self.home, self._origin())

    def enter_latent_space(self) -> None:
        autoencoder = self.models.get("autoencoder")
        self.latents = find_latents(
            self.run,
            self.images,
            self._origin(),
            self.group.device,
            autoencoder,
            goes_on=self._so_far is not None,
        )
        if self.group.world > 1:
            images = f"{self.images.name} of hash {self.images.fingerprint()}"
            self.group.agree({"the data set": images})
        self.data = self.images if self.latents is None else self.latents.encoded(self.images)

    def check_memory(self) -> None:
        """Warn, before anything is allocated, of a training that does not fit the memory."""
        if self.group.first:
            classes, device = classes_in(self.run, self.data), self.group.device
            here = self.group.world if device.type != "cuda" else 1
            check_memory(self.run, tuple(self.data.shape), classes, device, here)

    def make_map(self) -> None:
        """Freshly initialised."""
        torch.manual_seed(mix(self.run.training.seed))
        run, data, classes = self.run, self.data, classes_in(self.run, self.data)
        F = make_network(run, tuple(data.shape), classes, embeds=self._embeds())
        if F.computed != F.shape:
            self.parts.notes.append(_of_filling(F))
        trained = Trained(taus=run.taus, classes=tuple(data.classes) if classes else ())
        info = {"recipe": self.record.recipe, "objective": str(run.objective), "data": data.name}
        info |= {"encoder": run.data.encoder} if run.data.encoder else {}
        if isinstance(F, Autoencoder):
            self.f = AutoencoderModel(F, trained=replace(AUTOENCODER, taus=run.taus), info=info)
        else:
            self.f = FlowMap(F, make_p(run), trained=trained, info=info, latents=self.latents)

    def begin_with_models(self) -> None:
        others = [model.info for model in self.models.values()]
        before = self.f.info if self._so_far is None else self._so_far.info
        if origins := made_from(before, *others, self.data.origin):
            self.f.info["lineage"] = origins
        followed = self.models.get("teacher")
        if "teacher" in self.models:
            self.models["teacher"] = begin_from_teacher(self.run, self.f, self.models["teacher"])
        if "weak" in self.models:
            self.models["weak"] = beside_teacher(self.run, self.f, self.models["weak"], followed)
        if "init" in self.models:
            take_weights(self.f, self.models["init"], self.run.init)

    def make_objective(self) -> None:
        self.objective = make_objective(self.run, self.f, self.models)
        check_pairs(self.objective, self.data, self.run)

    def _embeds(self) -> tuple[int, float] | None:
        """How many numbers an image's embedding has, and their size, as the model before had it."""
        if EMBEDDING not in self.images.columns:
            return None
        column, origin = self.images.columns[EMBEDDING], self._origin()
        if origin is not None and origin.network.embeds:
            return column.shape[-1], origin.network.embeds_scale
        return column.shape[-1], scale_of(column)

    def _origin(self) -> AnyModel | None:
        """The model that it begins with, or itself so far: it has the same classes and latents."""
        return self.models.get("teacher") or self.models.get("init") or self._so_far

    @cached_property
    def _so_far(self) -> AnyModel | None:
        """The map of its newest intact checkpoint, in the place of companions that were passing.

        Raises:
            FewstepError: there are checkpoints, and none is intact.
        """
        passed = [n for n, c in COMPANIONS.items() if c.passing and getattr(self.run, n)]
        if self.before is None or self.models.keys() >= set(passed):
            return None
        checkpoints = self.home.checkpoints
        checkpoints.tell = lambda line: None  # the training itself says which are damaged
        newest = checkpoints.latest()
        return None if newest is None else load_model(newest.file("f"))

    def _about(self) -> dict[str, Any]:
        """What loggers keep of the run: its parts by name, and every setting."""
        parts = {kind: getattr(self.run, kind).name for kind in ("objective", "network", "p")}
        return {"recipe": self.record.recipe, **parts, **self.run.flat()}

    def _changes(self) -> list[str]:
        """A line on settings that are others now than when it began."""
        if self.before is None or not self.before.changed:
            return []
        then = replace(self.run, training=self.before.before)
        return [self.before.note(self.objective, make_objective(then, self.f, self.models))]


def _of_filling(F: Network) -> str:
    theirs, ours = (f"{shape[2]}x{shape[1]}" for shape in (F.shape, F.computed))
    return f"note: the network fills images of {theirs} up to {ours} inside; samples are {theirs}"


STOPS = (
    Build.check_process,
    Build.find_images,
    Build.find_models,
    Build.number_classes,
    Build.enter_latent_space,
    Build.check_memory,
    Build.make_map,
    Build.begin_with_models,
    Build.make_objective,
)
"""The way, in its order: images, companions, latents, map, objective."""
