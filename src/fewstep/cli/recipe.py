"""The command of one recipe, with every setting as a typed flag."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from cyclopts import App, Group, Parameter

from fewstep.cli.command import whole
from fewstep.names import OURS, top
from fewstep.needs import TeacherUse
from fewstep.recipes import RECIPES, Recipe, Run
from fewstep.runs.components import REGISTRIES, arguments_of, objective_of
from fewstep.runs.run import COMPANIONS

HEADINGS = {
    name: Group.create_ordered(title, sort_key=0)
    for name, title in {
        "run": "Run",
        "data": "Data",
        "training": "Training",
        "objective": "Objective",
        "network": "Network",
        "p": "Parameterization",
    }.items()
}
OUT = "Run folder; default runs/ and the recipe's name."
DEVICE = "Where to compute: cpu, cuda, cuda:1 or mps; default a GPU where there is one."
QUIET = "Do not show how far it is."
DRY_RUN = (
    "Show the network's size and cost, the memory and time of a training here and on 8 GPUs, and "
    "what it asks for; then stop."
)
WRITE_CONFIG = (
    "Write every setting, with those that are given here, to a new .toml or .yaml file that "
    "--config reads, or without a name to the terminal; then stop."
)
SAME = {
    "same_network": "Train the network of the model that the run begins with, teacher or init, "
    "with that model's settings, instead of the recipe's.",
    "same_process": "Train in that model's process, with its parameters, instead of the recipe's.",
}
CHOICES = {
    "method": "What is trained: a diffusion model (edm), or a model of few steps and how.",
    "network": "What computes it; default the one that suits the method.",
}
"""Help of what a recipe lets one choose."""
PASSING = ("quiet", "dry_run", "write_config", *SAME)
"""Flags that are no settings of a training."""


def __getattr__(name: str) -> App:
    """The command of the recipe ``name``, by which ``fewstep train`` imports it."""
    if name not in RECIPES:
        raise AttributeError(f"there is no recipe {name!r}")
    return command_of(RECIPES[name])


def _type_of(hint: Any) -> Any:
    """What the command line parses: a component is given by its spec, as text."""
    if get_origin(hint) in (Union, types.UnionType) and str in get_args(hint):
        return str if type(None) not in get_args(hint) else str | None
    if inspect.isclass(hint) and hint not in (bool, int, float, str, Path, tuple, list):
        return str
    return hint


@cache
def _descriptions(cls: Any) -> dict[str, str]:
    """Help of a class's arguments: from the Args of its docstring, or below its fields."""
    parsed = docstring_parser.parse_from_object(cls)
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}


def _flag(
    key: str, hint: Any, default: Any, description: str | None, heading: str
) -> inspect.Parameter:
    help_ = (description or "").replace("`", "")
    counts = hint is int or hint == (int | None)
    first = help_.partition(" ")[0]
    if "_" not in first and not first.endswith(","):  # symbols keep their case
        help_ = help_[:1].upper() + help_[1:]
    parameter = Parameter(
        name="--" + key.replace("_", "-"),
        help=help_,
        group=HEADINGS[heading],
        negative=None if default is True else "",
        negative_iterable="no-" if key == "log" else "",  # a run that goes on may log no longer
        consume_multiple=(0, 1) if key == "write_config" else True,
        converter=whole if counts else None,
    )
    annotation: Any = Annotated[_type_of(hint), parameter]
    return inspect.Parameter(
        key.replace(".", "__"),
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=annotation,
    )


def _record_flags(record: Any, heading: str) -> Iterator[inspect.Parameter]:
    """Flags of a settings record, such as `Training`."""
    cls: Any = type(record)
    hints, descriptions = get_type_hints(cls), _descriptions(cls)
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        yield _flag(field.name, hints[field.name], value, descriptions.get(field.name), heading)


def _component_flags(run: Run, kind: str) -> Iterator[inspect.Parameter]:
    """Flags of the run's objective, network or parameterization."""
    part = getattr(run, kind)
    cls: Any = REGISTRIES[kind][part.name]
    hints = _hints(cls)
    descriptions: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own = top(base.__module__) in (OURS, top(cls.__module__))  # torch's say nothing here
        if base.__doc__ and own:
            descriptions |= _descriptions(base)
    for name, parameter in arguments_of(kind, part.name).items():
        value = part.arguments.get(name, parameter.default)
        hint = hints.get(name, _like(value))
        yield _flag(f"{kind}.{name}", hint, value, descriptions.get(name), kind)


def _hints(cls: Any) -> dict[str, Any]:
    """The annotations of a component's settings; none where a plugin's cannot be read."""
    try:
        return get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
    except (NameError, AttributeError, TypeError):
        return {}


def _like(value: Any) -> Any:
    """The type of a setting that a plugin does not annotate: that of its default, or text."""
    if value is None:
        return str | None
    return type(value) if isinstance(value, bool | int | float) else str


def _changes(settings: Mapping[str, Any], flags: Iterable[inspect.Parameter]) -> dict[str, Any]:
    """The settings that are others than the recipe's; those of a whole file are most often not."""
    before = {flag.name: flag.default for flag in flags}
    return {key: value for key, value in settings.items() if _plain(value) != _plain(before[key])}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(run: Run, recipe: Recipe, where: tuple[Path, ...], **given: Any) -> None:
    """Write every setting of a run, and what was given of the rest, as a file for --config."""
    from fewstep.cli.written import write
    from fewstep.plugins.load import loaded

    flags = [flag for flag in _flags(recipe, run) if flag.name not in PASSING]
    flags = [flag.replace(default=given.get(flag.name, flag.default)) for flag in flags]
    write(next(iter(where), None), recipe.name, flags, [plugin.given for plugin in loaded()])


def _choices(recipe: Recipe, run: Run) -> Iterator[inspect.Parameter]:
    """What decides which the other flags are; the default is what the command was made for."""
    made = {"method": run.objective.name, "network": run.network.name}
    for name, known in recipe.choices.items():
        value = recipe.defaults.get(name) or made.get(name)
        yield _flag(name, Literal[tuple(known())], value, CHOICES.get(name), "run")


def _flags(recipe: Recipe, run: Run) -> Iterator[inspect.Parameter]:
    yield from _choices(recipe, run)
    yield _flag("out", Path | None, None, OUT, "run")
    yield _flag("device", str | None, None, DEVICE, "run")
    yield _flag("quiet", bool, False, QUIET, "run")
    yield _flag("dry_run", bool, False, DRY_RUN, "run")
    yield _flag("write_config", tuple[Path, ...] | None, None, WRITE_CONFIG, "run")
    for name, companion in COMPANIONS.items():
        if companion.taken(objective_of(run).needs):
            yield _flag(name, str | None, getattr(run, name), companion.help, "data")
    for name, help_ in SAME.items():
        yield _flag(name, bool, False, help_, "data")
    yield from _record_flags(run.data, "data")
    yield from _record_flags(run.training, "training")
    has_process = not objective_of(run).makes.decodes
    for kind in ("objective", "network", *("p",) * has_process):
        yield from _component_flags(run, kind)


def _example(recipe: Recipe, run: Run) -> str:
    """A command line that works for the recipe."""
    words = ["fewstep train", recipe.name]
    words += [f"--{choice} {name}" for choice, name in recipe.chosen.items()]
    use = objective_of(run).needs.teacher
    if use is not TeacherUse.NONE and not (use is TeacherUse.START and run.init):
        family = recipe.name.partition("/")[0]
        by = "ect" if use is TeacherUse.REFINE else "edm"
        words.append(f"--teacher {run.teacher or f'runs/{family}-{by}'}")
    if run.data.data is None:
        words.append("--data photos/" if run.data.size else "--data photos/ --size 32")
    return " ".join(words)


def command_of(recipe: Recipe) -> App:
    """The command of one recipe."""

    def command(
        *,
        out: Path | None = None,
        device: str | None = None,
        quiet: bool = False,
        dry_run: bool = False,
        write_config: tuple[Path, ...] | None = None,
        same_network: bool = False,
        same_process: bool = False,
        **settings: Any,
    ) -> int:
        run = recipe(**_changes(settings, flags))
        if write_config is not None:
            _write(run, recipe, write_config, out=out, device=device)
            return 0
        from fewstep.cli import training  # the trainer, which help and mistakes do not need

        if same_network or same_process:
            run = training.alike(run, settings, network=same_network, process=same_process)
        if dry_run:
            return training.dry(run, recipe.name, device)
        folder = out or Path("runs") / recipe.folder
        return training.begin(run, settings, folder, recipe.name, device, quiet)

    run = recipe()
    flags = list(_flags(recipe, run))
    signature = inspect.Signature(flags, return_annotation=int)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {flag.name: flag.annotation for flag in flags}
    example = _example(recipe, run)
    examples = f"Examples:\n  {example}\n  {example} --steps 2000 --lr 1e-3"
    app = App(name=recipe.name, help_format="plaintext", help_epilogue=examples)
    app.default(command)
    return app
