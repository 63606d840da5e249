"""From a run as data to a trained model."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep import parameterization
from fewstep.classes import Agreement, listed
from fewstep.data import Dataset
from fewstep.data.ignored import RECORD
from fewstep.data.pairs import is_pairs, read_manifest
from fewstep.digest import sha256_of_code
from fewstep.distributed import Processes, processes, together
from fewstep.errors import FewstepError, FewstepWarning, refusals
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.lock import locked
from fewstep.networks import NETWORKS, Autoencoder
from fewstep.objectives import OBJECTIVES, Objective, TeacherUse
from fewstep.recipes.directory import Record, RunDirectory, check_free, open_model
from fewstep.recipes.parts import Parts, teacher_use
from fewstep.recipes.resume import Begun, begun
from fewstep.recipes.run import Data, Run
from fewstep.recipes.sources import fingerprint, is_there
from fewstep.records import record_of
from fewstep.sampling import only_steps
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
    group.agree({"the recipe": recipe, "the code": sha256_of_code(), **run.flat()})
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
    record = Record(recipe=recipe, run=run) if before is None else before.record
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
    from fewstep.recipes.dry_run import check_memory  # which reads this module

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


def real_data(run: Run) -> Data:
    """The images that a run's model imitates: for pairs, those that their teacher was trained on.

    Raises:
        FewstepError: the pairs' manifest is damaged or does not say.
    """
    folder = Path(run.data.data or "")
    if not is_pairs(folder):
        return run.data
    manifest = read_manifest(folder)
    if not manifest.data:
        raise FewstepError(f"{folder} does not say what its teacher was trained on.")
    data: Data = record_of(Data, manifest.data, f"the data of {folder}")
    if manifest.beside and not is_there(data.data or ""):
        return replace(data, data=os.path.normpath(folder / manifest.beside))
    return data


def held_out(data: Dataset) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A fixed draw of the images, in [-1, 1], that validation compares samples with; their labels.

    The classes have the proportions that they have in the data, in the first few as in all.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data), generator=generator)
    if data.labels is not None:
        order = evenly(data.labels, order)
    return data.batch(order[:HELD_OUT], torch.device("cpu"))


def find_latents(
    run: Run,
    data: Dataset,
    teacher: FlowMap | None,
    device: torch.device,
    autoencoder: FlowMap | None,
) -> Latents | None:
    """The latent space to train in: that of the teacher, or of the run's autoencoder; or none.

    Args:
        run: with the settings.
        data: the images.
        teacher: of the run, or the model that it begins with.
        device: where to encode them.
        autoencoder: of the run, where it names one.

    Raises:
        FewstepError: a model that is no autoencoder; an autoencoder that is not the teacher's; what
            a latent space does not allow.
    """
    own = None if teacher is None else teacher.latents
    if autoencoder is None and own is None:
        return None
    if run.data.data is not None and is_pairs(Path(run.data.data)):
        raise FewstepError("pairs are of images: a model of latents cannot learn from them.")
    if run.training.flip:
        raise FewstepError("latents cannot be mirrored: leave out --flip.")
    if autoencoder is None:
        return None if own is None else own.to(device)
    latents = Latents.of(network_of(autoencoder, run.autoencoder).to(device), data)
    if teacher is not None and (own is None or own.fingerprint != latents.fingerprint):
        raise FewstepError(
            f"the teacher {run.teacher} is not a model of the latents of {run.autoencoder} and "
            "these images: a teacher of latents needs no --autoencoder, it has its own."
        )
    return latents


def open_autoencoder(path: str, device: torch.device | str = "cpu") -> Autoencoder:
    """A trained autoencoder.

    Raises:
        FewstepError: nothing is there, or a model that is no autoencoder.
    """
    return network_of(open_model(path, device=device), path)


def network_of(model: FlowMap, path: object) -> Autoencoder:
    """The network of a model that must be an autoencoder.

    Raises:
        FewstepError: it is none.
    """
    network = model.network
    if not isinstance(network, Autoencoder):
        raise FewstepError(
            f"{path} is a {model.info.get('kind')} model, not an autoencoder: train one, such as "
            "digits/autoencoder."
        )
    return network


def make_map(run: Run, data: Dataset, recipe: str, latents: Latents | None = None) -> FlowMap:
    """The map in training, freshly initialised."""
    classes = data.num_classes if run.data.labels and data.labels is not None else 0
    arguments = {"shape": tuple(data.shape), "num_classes": classes, **run.network.arguments}
    F = NETWORKS.call(run.network.name, arguments)
    p = parameterization.from_config({"name": run.p.name, **run.p.arguments})
    info: dict[str, Any] = {
        "kind": getattr(OBJECTIVES[run.objective.name], "kind", None),
        "recipe": recipe,
        "objective": str(run.objective),
        "data": data.name,
        "classes": list(data.classes) if classes else [],
        "taus": {k: list(v) for k, v in run.taus.items()},
    }
    return FlowMap(F, p, info=info, latents=latents)


def objective_arguments(run: Run, f: FlowMap, teacher: FlowMap | None) -> dict[str, Any]:
    """The arguments of the objective, with its teacher where it has one, whose weights ``f`` takes.

    A consistency model may start from a teacher of another process: its network is then used in
    the student's process by matching the signal-to-noise ratio (`fewstep.parameterization.match`).

    Raises:
        FewstepError: a teacher of another kind.
    """
    path, use = run.teacher, teacher_use(run)
    arguments = {"f": f, "K": run.training.steps, **run.objective.arguments}
    if teacher is None:
        return arguments
    if use is TeacherUse.DISTIL and only_steps(teacher) is not None:
        raise FewstepError(
            f"the teacher {path} was distilled itself and has no PF-ODE to follow: give the "
            "diffusion model."
        )
    if f.info["kind"] == "consistency" and type(teacher.p) is not type(f.p):
        f.p = parameterization.match(teacher.p, f.p, eps=f.p.eps)
        teacher = teacher.in_process(f.p)
    check_teacher(teacher, f, path)
    f.take_network(teacher, path)
    f.info["teacher"] = {"path": str(path), "sha256": fingerprint(teacher)}
    in_float32(teacher, path)
    if use is TeacherUse.DISTIL:
        arguments["teacher"] = teacher
    return arguments


def in_float32(f: FlowMap, path: object) -> None:
    """Turn the weights of a model that training begins with into those that it computes with."""
    if f.dtype != torch.float32:
        warnings.warn(
            f"the weights of {path} are {str(f.dtype).removeprefix('torch.')}; training goes on "
            "from them in float32.",
            FewstepWarning,
            stacklevel=2,
        )
        f.float()


def take_weights(f: FlowMap, other: FlowMap, path: object) -> None:
    """Begin with the weights of another model; how it was trained does not matter.

    Raises:
        FewstepError: a model of other images, classes or latents, or another network.
    """
    for what in ("shape", "num_classes"):
        if (theirs := getattr(other, what)) != (ours := getattr(f, what)):
            raise FewstepError(
                f"the model {path} has {what} {theirs}, this run has {ours}: they must agree."
            )
    f.take_network(other, path)
    in_float32(other, path)
    if type(other.p) is not type(f.p):
        warnings.warn(
            f"{path} is of the process {type(other.p).__name__}, this run of {type(f.p).__name__}: "
            "the weights have to learn new noise levels.",
            FewstepWarning,
            stacklevel=2,
        )


def check_teacher(teacher: FlowMap, f: FlowMap, path: object) -> None:
    """Raise `FewstepError` unless the student can start from the teacher's weights."""
    if teacher.info.get("kind") != "diffusion":
        raise FewstepError(
            f"the teacher {path} is a {teacher.info.get('kind')} model; a diffusion model is "
            "needed, such as a run of digits/edm."
        )
    pairs = {
        "shape": (teacher.shape, f.shape),
        "num_classes": (teacher.num_classes, f.num_classes),
        "parameterization": (type(teacher.p).__name__, type(f.p).__name__),
        "sigma_data": (teacher.p.sigma_data, f.p.sigma_data),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise FewstepError(
                f"the teacher {path} has {what} {theirs}, this run has {ours}: they must agree."
            )


def check_pairs(objective: Objective, data: Dataset, run: Run) -> None:
    """Raise `FewstepError` where an objective would learn from pairs of another teacher."""
    teacher = objective.f.info.get("teacher")
    made_by = data.origin.get("teacher")
    if not objective.columns or made_by is None:
        return
    if teacher is None:
        objective.f.info["teacher"] = {"path": data.origin["path"], "sha256": made_by}
    elif teacher["sha256"] != made_by:
        raise FewstepError(
            f"the pairs {data.source} were made by another model ({data.origin['path']}) than the "
            f"teacher {run.teacher}: make pairs with the teacher, or give it as --teacher."
        )
