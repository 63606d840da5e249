"""`fewstep distil`: the plan from a diffusion model to one of few steps, within a budget.

The folder holds a copy of the diffusion model and of the images, so that it can be moved. A
longer budget makes a new model of few steps.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep.data import Dataset, NoSplit, load
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.models import as_map
from fewstep.needs import Needs, TeacherUse
from fewstep.planning import rule, trainings
from fewstep.planning.choices import Choices, choices_of
from fewstep.planning.fitting import PAIRS, budget_of, needs_of, next_round, pairs, timed
from fewstep.planning.looked_at import Looked, look, of_path
from fewstep.planning.measured import brief
from fewstep.planning.plan import DATA, FEW, Plan, few_of
from fewstep.planning.prepared import TEST, TRAIN, Prepared, held_out
from fewstep.planning.round import Round, Timed
from fewstep.planning.state import State, read_state
from fewstep.planning.throughput import fastest_precision, fastest_threads
from fewstep.planning.trainings import SHOWN, Settings
from fewstep.recipes import RECIPES
from fewstep.recipes.images import EDM
from fewstep.runs.components import arguments_of
from fewstep.runs.directory import MODEL, RunDirectory
from fewstep.runs.opening import open_model
from fewstep.runs.parts import load as load_settings
from fewstep.runs.parts import real_data
from fewstep.runs.recipe import IMAGES
from fewstep.runs.run import Component, Run
from fewstep.runs.sources import fingerprint
from fewstep.stages.clock import ALL, Clock
from fewstep.stages.how import How

TEACHER = "teacher.safetensors"
BUDGET = 600.0  # seconds, where nobody says another
RATES = (1e-4, 1e-3)
SMALL = 2e6  # weights of a network that learns at the higher of these rates


def plan_distil(
    teacher: str,
    directory: Path,
    budget: float | None,
    given: Mapping[str, Any],
    *,
    data: str | None = None,
    device: str | None = None,
    log: Sequence[str] = (),
) -> Plan:
    """Look at the model and its images, measure this machine, and decide; nothing is written.

    Args:
        teacher: run folder, model file, imported file or hub:NAME of a diffusion model.
        directory: of the distillation; what was begun there goes on.
        budget: seconds, of all calls together; default that which is being spent, else `BUDGET`.
        given: the user's choices by name; None for what is left to the rule.
        data: images like those that the model was trained on; default those that its run names.
        device: where to train; default a GPU where there is one.
        log: loggers of the trainings.

    Raises:
        FewstepError: a model that is of few steps already, or no diffusion model; a budget that is
            too short or spent; choices that do not agree with what was begun.
    """
    rule.check_threads(given)
    began = time.perf_counter()
    begun, where = read_state(directory, "distil"), pick_device(device)
    budget = budget_of(begun, budget, directory, BUDGET)
    choices = Choices(given, choices_of(begun.choices) if begun else {})
    method = str(choices.make("method", rule.DISTILS, "it follows the model, and needs few steps"))
    trainings.check_method(method, refines=True)
    needs = needs_of(method)
    f = as_map(open_model(teacher), "a distillation")
    _check_teacher(f, teacher, method, needs)
    key = fingerprint(f)
    if begun is None:
        prepared = _images(f, teacher, data)
        state = State(kind="distil", source=of_path(teacher), fingerprint=key)
    else:
        prepared, state = None, begun
        if key != begun.fingerprint:
            raise FewstepError(
                f"{directory} is a distillation of another model than {teacher} ({begun.source}): "
                "give another --out."
            )
    if prepared is not None:
        images, looked = prepared.train, prepared.looked
    else:
        images = load(str(directory / DATA / TRAIN))
        apart = len(load(str(directory / DATA / TEST)))
        looked = look(images, apart, "The images are those that this distillation began with.")
    _choose(choices, f, looked, where)
    student = _student(f, choices, needs, str(directory / DATA / TRAIN), looked)
    _choose_pace(choices, _shown(student, f, needs), images, where, brief(budget))
    student = student.more(precision=choices.make("precision", None, ""))
    state = next_round(state, budget)
    stages = _stages(student, f, needs, few_of(state), directory)
    how = How(device=device, threads=choices["threads"], log=tuple(log))
    made = Round(directory, budget, stages, rule.AFTER, images, how)
    if not state.steps:
        made.check(budget - Clock(directory)[ALL])
    weights = sum(x.numel() for x in f.network.parameters())
    said = (f"{teacher} is {f.trained.name} of {weights:,} weights.", *looked.words[:1])
    lead = f"{teacher} became a model that makes images in one or a few evaluations of its network"
    return Plan(
        title=f"{Path(teacher).name} in few steps",
        lead=f"{lead}: {MODEL}.",
        said=said,
        choices=choices,
        round=made,
        state=replace(state, choices=choices.record()),
        teacher=directory / TEACHER,
        prepared=prepared,
        copied=f,
        began=began,
    )


def _choose_pace(
    choices: Choices, run: Run, images: Dataset, where: torch.device, seconds: float
) -> None:
    """The threads and the precision in which the student is fastest here.

    Args:
        choices: to be made.
        run: a training of the student.
        images: to train on.
        where: the device.
        seconds: how long to measure each.
    """
    if not choices.has("threads"):
        threads, _ = fastest_threads(run, images, where, seconds=seconds)
        choices.make("threads", threads, "with so many a step is fastest here")
    threads = choices.make("threads", None, "")
    if not choices.has("precision"):
        found, _ = fastest_precision(run, images, where, threads=threads, seconds=seconds)
        rule.choose_precision(choices, found)


def _check_teacher(f: FlowMap, path: str, method: str, needs: Needs) -> None:
    """Raise `FewstepError` for a model that needs no distillation, or that is none to distil."""
    trained = f.trained
    if needs.teacher is TeacherUse.REFINE:
        if not trained.maps_to_eps:
            raise FewstepError(
                f"{method} refines a consistency model, and {path} is {trained.name}: distil it "
                "first, by the default method."
            )
        return
    if trained.maps_to_eps or trained.steps is not None:
        raise FewstepError(
            f"{path} is {trained.name}: it makes images in a few steps already, and there is "
            f"nothing to distil. fewstep sample {path} does it; fewstep tune-steps finds its times."
        )
    trained.check_teacher(f"the model {path}", follow=needs.teacher is TeacherUse.DISTIL)


def _images(f: FlowMap, teacher: str, data: str | None) -> Prepared:
    """Images like those that the model was trained on.

    Raises:
        FewstepError: there are none; they are of another shape than the model's, or without its
            classes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)
        found = _given(f, data) if data is not None else _of_run(teacher)
    if found is None:
        raise FewstepError(
            f"{teacher} does not say what it was trained on: give images like those with --data, "
            f"or its own samples: fewstep sample {teacher} -n 2000 -o samples, --data samples."
        )
    train, test = found
    if tuple(train.shape) != tuple(f.image_shape):
        raise FewstepError(
            f"the images are of shape {tuple(train.shape)}, the model's of {tuple(f.image_shape)}: "
            "give others with --data."
        )
    if not f.num_classes:
        train, test = train.without_labels(), test.without_labels()
    elif train.labels is None:
        raise FewstepError(f"{teacher} knows classes: give --data whose folders are its classes.")
    else:
        train, test = (part.with_classes(f.classes, teacher) for part in (train, test))
    why = (
        "The images are those that the model learned from." if data is None else f"They are {data}."
    )
    return Prepared(train, test, look(train, len(test), why))


def _given(f: FlowMap, data: str) -> tuple[Dataset, Dataset]:
    channels, height, width = f.image_shape
    size = height if height == width else None
    how: dict[str, Any] = {"size": size, "channels": channels, "labels": f.num_classes > 0}
    train = load(data, skip_bad=True, **how)
    try:
        return train, load(data, split="test", **how)
    except NoSplit:
        return held_out(train)


def _of_run(teacher: str) -> tuple[Dataset, Dataset] | None:
    """The images that a run was trained on, and those that were held out."""
    try:
        home = RunDirectory.of(teacher)
        settings = real_data(home.here()) if home.started else None
        if settings is None or settings.data is None:
            return None
        train = load_settings(settings)
    except FewstepError:
        return None
    try:
        return train, load_settings(settings, "test")
    except NoSplit:
        return held_out(train)


def _choose(choices: Choices, f: FlowMap, looked: Looked, where: torch.device) -> None:
    weights = sum(x.numel() for x in f.network.parameters())
    choices.make("batch", min(rule.BATCH.get(where.type, 32), max(16, looked.n)), "what suits it")
    rate = min(max(RATES[1] * math.sqrt(SMALL / weights), RATES[0]), RATES[1])
    choices.make("lr", float(f"{rate:.2g}"), f"of {weights:,} weights: the more, the lower")
    looks = "look like" if looked.mirrors else "do not look like"
    choices.make("flip", looked.mirrors and f.latents is None, f"mirrored images {looks} others")
    choices.make("seed", 0, "another number gives another model")


def _student(f: FlowMap, choices: Choices, needs: Needs, data: str, looked: Looked) -> Settings:
    """The model of few steps: the teacher's network, in the process of the method."""
    method = choices["method"]
    network, own, switches = _network(f, needs)
    base = RECIPES[IMAGES](method=method, network=network)
    others = {
        "data": data,
        "labels": f.num_classes > 0,
        "batch": choices["batch"],
        "lr": choices["lr"],
        "seed": choices["seed"],
        "samples": SHOWN,
        "keep": 1,
        "warmup": trainings.WARMUP,
        **own,
        **_process(f, base),
        **trainings.short(method),
        "flip": choices["flip"] and not needs.columns,
    }
    return Settings(method, network, others, switches)


def _network(f: FlowMap, needs: Needs) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """The teacher's network, as settings where the student is told more, else as it is.

    Raises:
        FewstepError: a network that cannot be told the end of a map.
    """
    name, config = f.network.config["name"], f.network.config
    if not needs.two_time or f.network.two_time:
        return name, {}, ("--same-network",)
    takes = arguments_of("network", name)
    if "two_time" not in takes:
        raise FewstepError(f"the network {name} takes one time, and the method needs two.")
    own = {f"network.{key}": value for key, value in config.items() if key in takes}
    return name, own | {"network.two_time": True}, ()


def _process(f: FlowMap, base: Run) -> dict[str, Any]:
    """Numbers of the process that the teacher's has, too."""
    takes = arguments_of("p", base.p.name)
    found: dict[str, Any] = {}
    if "sigma_data" in takes:
        found["p.sigma_data"] = float(f.p.sigma_data)
    if base.p.name == EDM:
        level = float(f.p.noise_level(torch.tensor(f.p.T, dtype=torch.float64)))
        found["p.T"] = float(f"{min(80.0, level):.4g}")
    return found


def _stages(student: Settings, f: FlowMap, needs: Needs, few: str, directory: Path) -> list[Timed]:
    shown = _shown(student, f, needs)
    stages: list[Timed] = []
    paths = {} if needs.teacher is TeacherUse.NONE else {"--teacher": TEACHER}
    if needs.columns:
        paths["--data"] = name = few.replace(FEW, PAIRS)
        stages.append(pairs(name, "trajectory" in needs.columns, shown, TEACHER))
    own = timed(student, few, rule.TEACHER + rule.FEW, directory, paths)
    return [*stages, replace(own, run=shown)]


def _shown(student: Settings, f: FlowMap, needs: Needs) -> Run:
    """The student's run with its network written out, for timing it."""
    run = student.run()
    if "--same-network" not in student.switches:
        return run
    left = ("name", "shape", "num_classes")
    own = {k: v for k, v in f.network.config.items() if k not in left}
    return replace(run, network=Component(student.network, own))
