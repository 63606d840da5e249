"""From a run as data to a trained model."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import torch

from fewstep import parameterization
from fewstep.classes import Agreement
from fewstep.data import Dataset
from fewstep.digest import sha256_of_code
from fewstep.distributed import Processes, processes, together
from fewstep.errors import FewstepError, listed, refusals
from fewstep.files import RECORD
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.lock import locked
from fewstep.networks import NETWORKS
from fewstep.objectives import OBJECTIVES
from fewstep.plugins.used import check_outside
from fewstep.runs.beginning import check_pairs, objective_arguments, take_weights
from fewstep.runs.components import plugins_of
from fewstep.runs.directory import Record, RunDirectory, check_free
from fewstep.runs.dry_run import check_memory
from fewstep.runs.latent_space import find_latents
from fewstep.runs.parts import Parts
from fewstep.runs.resume import Begun, begun
from fewstep.runs.run import Run
from fewstep.trained import Trained
from fewstep.training.checkpoint import Checkpoints
from fewstep.training.trainer import Trainer, mix
from fewstep.training.validation import evenly

HELD_OUT = 1024  # real images that validation compares samples with


@refusals()
def train(
    run: Run,
    directory: str | Path,
    *,
    recipe: str = "custom",
    data: Dataset | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> FlowMap:
    """Train a run in a folder, or take it up where it was left.

    Args:
        run: what to train.
        directory: the run's folder; a run of the same settings there is resumed.
        recipe: name to file it under.
        data: images in memory, instead of those that ``run.data`` names.
        device: default a GPU where there is one.
        quiet: do not show how far it is.

    Returns:
        The first running average of the trained map.

    Raises:
        FewstepError: any mistake in the settings, the data or the folder.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    home, group = RunDirectory(directory), processes(device)
    plugins = plugins_of(recipe, run)
    check_outside(plugins, home.path)
    code = {"the code": sha256_of_code(), "the plugins": [plugin.sha256 for plugin in plugins]}
    group.agree({"the recipe": recipe, **code, **run.flat()})
    check_free(home.path, RECORD)
    before = begun(home, recipe, run)
    if before is not None and (made := _made(home, before, group)) is not None:
        return made
    fresh = not home.path.exists()
    with ExitStack() as held:
        if group.first and not fresh:
            held.enter_context(locked(home.path))
        trainer, record = prepare(run, home, recipe, before, group, data, quiet=quiet)
        if group.first:  # only now: settings that do not work leave no folder behind
            held.enter_context(locked(home.path))
            home.write(record)
        group.barrier()
        try:
            with together():
                trained = trainer.run()
        except FewstepError:
            if fresh and group.first:
                home.remove_unbegun()
            raise
        if group.first:
            home.finish(home.checkpoints.of(record.run.training.steps))
        group.barrier()
    return trained


def _made(home: RunDirectory, before: Begun, group: Processes) -> FlowMap | None:
    """The model of a run that has made its steps; written anew from its checkpoint where needed."""
    training = before.record.run.training
    whole = home.has_made(training.steps)
    saved = not whole and home.checkpoints.of(training.steps).damage() is None
    group.barrier()
    if not whole and not saved:
        return None
    if saved and group.first:
        with locked(home.path):
            home.write(before.record)
            home.checkpoints.prune(training.keep)
            home.finish(home.checkpoints.of(training.steps))
    group.barrier()
    return home.model()


def prepare(
    run: Run,
    home: RunDirectory,
    recipe: str,
    before: Begun | None,
    group: Processes,
    data: Dataset | None = None,
    *,
    quiet: bool = False,
) -> tuple[Trainer, Record]:
    """All that a training needs, and its record.

    Args:
        run: what to train; its data and models may be elsewhere by now.
        home: the run's folder.
        recipe: name to file it under.
        before: what the folder holds of it.
        group: the processes that train together.
        data: images in memory.
        quiet: no progress bar.

    Raises:
        FewstepError: any mistake in the settings, the data or the models.
    """
    if before is None:
        record = Record(recipe=recipe, run=run, plugins=plugins_of(recipe, run))
    else:
        record = before.record
    parts = Parts(run, home, before, group, data)
    images = parts.images()
    teacher, init = parts.model("teacher"), parts.model("init")
    images = with_known_classes(record.run, images, home, teacher or init)
    autoencoder = parts.model("autoencoder")
    named = record.run
    latents = find_latents(named, images, teacher or init, group.device, autoencoder)
    if group.world > 1:
        group.agree({"the data set": f"{images.name} of hash {images.fingerprint()}"})
    dataset = images if latents is None else latents.encoded(images)
    _check_memory(named, dataset, group)
    torch.manual_seed(mix(run.training.seed))
    f = make_map(named, dataset, recipe, latents)
    arguments = objective_arguments(named, f, teacher)
    if init is not None:
        take_weights(f, init, named.init)
    objective = OBJECTIVES.call(named.objective.name, arguments)
    check_pairs(objective, dataset, named)
    notes = [] if before is None or not before.changed else [before.note(objective, arguments)]
    real, real_labels = held_out(images)
    trainer = Trainer(
        objective,
        dataset,
        named.training,
        home.path,
        held_out=real,
        held_out_labels=real_labels,
        group=group,
        quiet=quiet,
        notes=[*parts.notes, *notes],
    )
    return trainer, replace(record, sources=parts.sources)


def _check_memory(run: Run, data: Dataset, group: Processes) -> None:
    """Warn, before anything is allocated, of a training that does not fit the memory."""
    if group.first:
        classes = data.num_classes if run.data.labels and data.labels is not None else 0
        here = group.world if group.device.type != "cuda" else 1
        check_memory(run, tuple(data.shape), classes, group.device, here)


def with_known_classes(
    run: Run, data: Dataset, home: RunDirectory, teacher: FlowMap | None
) -> Dataset:
    """The images with classes numbered as by the run's own checkpoints, or else by its teacher.

    A network knows a class by its number alone. The same names in another order are renumbered.

    Raises:
        FewstepError: images of a class that the run or the teacher does not know, or a teacher of
            classes that no image has.
    """
    if not run.data.labels or data.labels is None:
        return data
    if so_far := _classes_so_far(home):
        return data.with_classes(so_far, f"the run {home.path}")
    if teacher is None or not teacher.num_classes:
        return data
    whose = f"the model {run.init}" if run.teacher is None else f"the teacher {run.teacher}"
    if Agreement(data.classes, teacher.classes).same:
        return data.with_classes(teacher.classes, whose)
    raise FewstepError(
        f"{whose} has the classes {listed(teacher.classes)}, the data set {data.name} has "
        f"{listed(data.classes)}: a model knows the classes of the one that it begins with. Give "
        "one of these classes, or leave them out with --no-labels."
    )


def _classes_so_far(home: RunDirectory) -> tuple[str, ...]:
    """The classes of the newest checkpoint that can be read."""
    for checkpoint in reversed(Checkpoints(home.path / "checkpoints").all()):
        with suppress(FewstepError):
            return FlowMap.load(checkpoint.path / "f.safetensors").classes
    return ()


def held_out(data: Dataset) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A fixed draw of the images, in [-1, 1], that validation compares samples with; their labels.

    The classes have the proportions that they have in the data, in the first few as in all.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data), generator=generator)
    if data.labels is not None:
        order = evenly(data.labels, order)
    return data.batch(order[:HELD_OUT], torch.device("cpu"))


def make_map(run: Run, data: Dataset, recipe: str, latents: Latents | None = None) -> FlowMap:
    """The map in training, freshly initialised."""
    classes = data.num_classes if run.data.labels and data.labels is not None else 0
    arguments = {"shape": tuple(data.shape), "num_classes": classes, **run.network.arguments}
    F = NETWORKS.call(run.network.name, arguments)
    p = parameterization.from_config({"name": run.p.name, **run.p.arguments})
    trained = Trained(taus=run.taus, classes=tuple(data.classes) if classes else ())
    info = {"recipe": recipe, "objective": str(run.objective), "data": data.name}
    return FlowMap(F, p, trained=trained, info=info, latents=latents)
