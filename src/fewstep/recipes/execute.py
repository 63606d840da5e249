"""From a run as data to a trained model."""

from __future__ import annotations

import inspect
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fewstep import data as data_sources
from fewstep import parameterization
from fewstep.classes import Agreement, listed
from fewstep.data import Dataset
from fewstep.data.pairs import is_pairs, read_manifest
from fewstep.digest import sha256_of_weights
from fewstep.distributed import processes
from fewstep.errors import FewstepError, refusals
from fewstep.flow_map import FlowMap, named_tensors
from fewstep.latents import Latents
from fewstep.networks import NETWORKS, Autoencoder
from fewstep.objectives import OBJECTIVES, Objective, TeacherUse
from fewstep.recipes.directory import MODEL, RunDirectory, open_model
from fewstep.recipes.run import Data, Run, require
from fewstep.registry import Registry
from fewstep.sampling import only_steps
from fewstep.training.checkpoint import Checkpoints
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer, mix

REGISTRIES: dict[str, Registry[Any]] = {
    "objective": OBJECTIVES,
    "network": NETWORKS,
    "p": parameterization.PARAMETERIZATIONS,
}
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
    home = RunDirectory(directory)
    group = processes(device)
    home.check_same(recipe, run)
    images = group.in_turn(lambda: load_data(run)) if data is None else data
    teacher = open_teacher(run)
    images = with_known_classes(run, images, home, teacher)
    latents = find_latents(run, images, teacher, group.device)
    dataset = images if latents is None else latents.encoded(images)
    torch.manual_seed(mix(run.training.seed))
    f = make_map(run, dataset, recipe, latents)
    objective = make_objective(run, f, teacher)
    check_pairs(objective, dataset, run)
    trainer = Trainer(
        objective,
        dataset,
        run.training,
        home.path,
        held_out=held_out(images, run.training),
        group=group,
        quiet=quiet,
    )
    if group.first:
        home.start(recipe, run)  # only now: settings that do not work leave no folder behind
    group.barrier()
    trained = trainer.run()
    if group.first and not home.finished:
        partial = home.path / f"{MODEL}.partial"
        trained.save(partial)
        os.replace(partial, home.path / MODEL)
    group.barrier()
    return trained


def load_data(run: Run) -> Dataset:
    """The images that ``run.data`` names."""
    try:
        return load(run.data)
    except FewstepError as error:
        if not getattr(OBJECTIVES[run.objective.name], "columns", ()):
            raise
        raise FewstepError(
            f"{run.objective.name} learns from pairs, which fewstep pairs makes; {error}"
        ) from error


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
    whose = f"the teacher {run.teacher}"
    if Agreement(data.classes, teacher.classes).same:
        return data.with_classes(teacher.classes, whose)
    raise FewstepError(
        f"{whose} has the classes {listed(teacher.classes)}, the data set {data.name} has "
        f"{listed(data.classes)}: a student knows the classes of its teacher. Give a teacher of "
        "these classes, or leave them out with --no-labels."
    )


def _classes_so_far(home: RunDirectory) -> tuple[str, ...]:
    """The classes of the newest checkpoint that can be read."""
    for checkpoint in reversed(Checkpoints(home.path / "checkpoints").all()):
        with suppress(FewstepError):
            return FlowMap.load(checkpoint.path / "f.safetensors").classes
    return ()


def load(settings: Data) -> Dataset:
    """The images that a record of settings names."""
    source = require(
        settings.data,
        "no data given: pass --data with a folder of images, a .parquet, .npz or .npy file, "
        "hub:NAME, or digits.",
    )
    return data_sources.load(
        source,
        size=settings.size,
        channels=settings.channels,
        labels=settings.labels,
        skip_bad=settings.skip_bad,
        image_column=settings.image_column,
        label_column=settings.label_column,
    )


def real_data(run: Run) -> Data:
    """The images that a run's model imitates: for pairs, those that their teacher was trained on.

    Raises:
        FewstepError: the pairs' manifest is damaged or does not say.
    """
    folder = Path(run.data.data or "")
    if not is_pairs(folder):
        return run.data
    known = read_manifest(folder).data
    if not known:
        raise FewstepError(f"{folder} does not say what its teacher was trained on.")
    try:
        return Data(**known)
    except TypeError as error:
        raise FewstepError(f"{folder} does not say what its teacher saw: {error}.") from error


def held_out(data: Dataset, config: Training) -> torch.Tensor:
    """A fixed draw of the images, in [-1, 1], that validation compares samples with."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(data), generator=generator)[:HELD_OUT]
    return data.batch(some, torch.device("cpu"))[0]


def find_latents(
    run: Run, data: Dataset, teacher: FlowMap | None, device: torch.device
) -> Latents | None:
    """The latent space to train in: that of the teacher, or of the run's autoencoder; or none.

    Args:
        run: with the settings.
        data: the images.
        teacher: of the run.
        device: where to encode them.

    Raises:
        FewstepError: a model that is no autoencoder; an autoencoder that is not the teacher's; what
            a latent space does not allow.
    """
    own = None if teacher is None else teacher.latents
    if run.autoencoder is None and own is None:
        return None
    if run.data.data is not None and is_pairs(Path(run.data.data)):
        raise FewstepError("pairs are of images: a model of latents cannot learn from them.")
    if run.training.flip:
        raise FewstepError("latents cannot be mirrored: leave out --flip.")
    if run.autoencoder is None:
        return None if own is None else own.to(device)
    latents = Latents.of(open_autoencoder(run.autoencoder, device), data)
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
    model = open_model(path, device=device)
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


def open_teacher(run: Run) -> FlowMap | None:
    """The model that a run starts from; None where its objective wants none.

    Raises:
        FewstepError: a teacher is missing or not wanted.
    """
    name = run.objective.name
    use = _teacher_use(run)
    if use is TeacherUse.NONE:
        if run.teacher is not None:
            raise FewstepError(f"{name} {use.value}: it takes no --teacher.")
        return None
    return open_model(require(run.teacher, f"{name} {use.value}: say which with --teacher RUN."))


def _teacher_use(run: Run) -> TeacherUse:
    return getattr(OBJECTIVES[run.objective.name], "teacher_use", TeacherUse.NONE)


def make_objective(run: Run, f: FlowMap, teacher: FlowMap | None) -> Objective:
    """The objective, with its teacher where it has one.

    A consistency model may start from a teacher of another process: its network is then used in
    the student's process by matching the signal-to-noise ratio (`fewstep.parameterization.match`).

    Raises:
        FewstepError: a teacher of another kind.
    """
    name, path, use = run.objective.name, run.teacher, _teacher_use(run)
    arguments = {"f": f, "K": run.training.steps, **run.objective.arguments}
    if teacher is None:
        return OBJECTIVES.call(name, arguments)
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
    if use is TeacherUse.DISTIL:
        arguments["teacher"] = teacher
    return OBJECTIVES.call(name, arguments)


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


def fingerprint(f: FlowMap) -> str:
    """SHA-256 of a map's weights and settings."""
    settings = json.dumps([f.network.config, f.p.config], sort_keys=True)
    return sha256_of_weights(settings, named_tensors(f.network))


def arguments_of(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The settings of an objective, network or parameterization that a user may override."""
    given = {"self", "f", "K", "teacher", "shape", "num_classes"}
    found = inspect.signature(REGISTRIES[kind][name]).parameters
    return {k: v for k, v in found.items() if k not in given}
