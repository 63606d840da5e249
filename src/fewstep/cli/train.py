"""``fewstep train RECIPE``: one command per recipe, with every setting as a typed flag."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import docstring_parser
from cyclopts import App, Parameter

from fewstep.objectives import OBJECTIVES, TeacherUse
from fewstep.recipes import RECIPES, Recipe, Run
from fewstep.recipes.directory import RunDirectory
from fewstep.recipes.execute import REGISTRIES, arguments_of, train
from fewstep.training.trainer import Interrupted

INTERRUPTED = 130

app = App(
    name="train",
    help_format="plaintext",
    help="""\
Train a model by a recipe, or resume a run.

Every setting of a recipe is a flag: fewstep train RECIPE --help shows them. A run folder that
exists is resumed, by the same command or by its path.

Examples:
  fewstep train digits/ct --steps 2000 --lr 1e-3
  fewstep train digits/cd --teacher runs/digits-edm --objective.N 12
  fewstep train images/edm --data photos/ --size 32 --out runs/photos
  fewstep train runs/photos
  torchrun --nproc-per-node 8 -m fewstep train cifar10/ect --teacher runs/cifar10-edm""",
)


@app.default
def resume(run: Path, /, *, device: str | None = None, quiet: bool = False) -> int:
    """Take up the run in the folder RUN where it was left.

    Parameters
    ----------
    run
        Run folder, or the name of a recipe.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    quiet
        No progress bar.
    """
    if not run.exists():
        RECIPES[str(run)]  # raises with the nearest recipe's name
    recipe, settings = RunDirectory(run).run()
    return _train(settings, run, recipe, device, quiet)


def _train(run: Run, out: Path, recipe: str, device: str | None, quiet: bool) -> int:
    finished = RunDirectory(out).finished
    try:
        train(run, out, recipe=recipe, device=device, quiet=quiet)
    except Interrupted as stop:
        print(
            f"fewstep: interrupted at step {stop.step} of {run.training.steps}; everything is "
            f"saved. To go on: fewstep train {out}",
            file=sys.stderr,
        )
        return INTERRUPTED
    if not quiet:
        print(f"{'already trained' if finished else 'trained'}: {out}/model.safetensors")
        print(f"next: fewstep sample {out} -o samples.png")
    return 0


def _type_of(hint: Any) -> Any:
    """What the command line parses: a component is given by its spec, as text."""
    if get_origin(hint) in (Union, types.UnionType) and str in get_args(hint):
        return str if type(None) not in get_args(hint) else str | None
    return hint


def _descriptions(cls: Any) -> dict[str, str]:
    """Help of a class's arguments: from the Args of its docstring, or below its fields."""
    parsed = docstring_parser.parse_from_object(cls)
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed.params}


def _flag(
    key: str, hint: Any, default: Any, description: str | None, group: str
) -> inspect.Parameter:
    name = "--" + key.replace("_", "-")
    annotation = Annotated[_type_of(hint), Parameter(name=name, help=description, group=group)]
    return inspect.Parameter(
        key.replace(".", "__"),
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=annotation,
    )


def _record_flags(record: Any, group: str) -> Iterator[inspect.Parameter]:
    """Flags of a settings record, such as `Training`."""
    hints, descriptions = get_type_hints(type(record)), _descriptions(type(record))
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        yield _flag(field.name, hints[field.name], value, descriptions.get(field.name), group)


def _component_flags(run: Run, kind: str) -> Iterator[inspect.Parameter]:
    """Flags of the run's objective, network or parameterization."""
    part = getattr(run, kind)
    cls: Any = REGISTRIES[kind][part.name]
    hints = get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
    descriptions = _inherited_descriptions(cls)
    title = {"objective": "Objective", "network": "Network", "p": "Parameterization"}[kind]
    for name, parameter in arguments_of(kind, part.name).items():
        value = part.arguments.get(name, parameter.default)
        group = f"{title}: {part.name}"
        yield _flag(f"{kind}.{name}", hints[name], value, descriptions.get(name), group)


def _inherited_descriptions(cls: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= _descriptions(base) if base.__doc__ else {}
    return found


def _flags(run: Run) -> Iterator[inspect.Parameter]:
    if getattr(OBJECTIVES[run.objective.name], "teacher_use", None) is not TeacherUse.NONE:
        text = "Run folder or model file of the diffusion model to start from."
        yield _flag("teacher", str | None, run.teacher, text, "Data")
    yield from _record_flags(run.data, "Data")
    yield from _record_flags(run.training, "Training")
    for kind in ("objective", "network", "p"):
        yield from _component_flags(run, kind)


def _command(recipe: Recipe) -> Callable[..., int]:
    """The command of one recipe."""
    defaults = recipe()

    def command(
        *, out: Path | None = None, device: str | None = None, quiet: bool = False, **settings: Any
    ) -> int:
        folder = out or Path("runs") / recipe.name.replace("/", "-")
        return _train(recipe(**settings), folder, recipe.name, device, quiet)

    text = {
        "out": f"Run folder; default runs/{recipe.name.replace('/', '-')}.",
        "device": "cpu, cuda, cuda:1 or mps; default a GPU where there is one.",
        "quiet": "No progress bar.",
    }
    own = [
        _flag("out", Path | None, None, text["out"], "Run"),
        _flag("device", str | None, None, text["device"], "Run"),
        _flag("quiet", bool, False, text["quiet"], "Run"),
    ]
    flags = [*own, *_flags(defaults)]
    command.__signature__ = inspect.Signature(flags, return_annotation=int)  # type: ignore[attr-defined]
    command.__annotations__ = {flag.name: flag.annotation for flag in flags}
    command.__doc__ = recipe.help
    return command


for _recipe in RECIPES.values():
    app.command(_command(_recipe), name=_recipe.name, help=_recipe.help)
