"""``fewstep train RECIPE``: one command per recipe, made when it is asked for.

Nothing here imports torch: the list of recipes and a name that is wrong do not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from fewstep.cli.command import Whole, more, unfolded
from fewstep.errors import FewstepError, not_there
from fewstep.hub_name import is_hub
from fewstep.recipes import RECIPES
from fewstep.runs.recipe import FORMER, IMAGES


def resume(
    run: Annotated[Path, Parameter(name="RECIPE-OR-RUN")],
    /,
    *,
    steps: Whole | None = None,
    lr: float | None = None,
    data: str | None = None,
    teacher: str | None = None,
    weak: str | None = None,
    autoencoder: str | None = None,
    encoder: str | None = None,
    log: Annotated[
        tuple[str, ...] | None, Parameter(negative_iterable="no-", consume_multiple=True)
    ] = None,
    device: str | None = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a model by a recipe, or resume a run.

    Every setting of a recipe is a flag: fewstep train RECIPE --help shows them. A run folder that
    exists is resumed, by the same command or by its path. When a run goes on, --steps and --lr may
    be others, --log may name other loggers, and --data, --teacher, --weak, --autoencoder and
    --encoder may say where those are now.

    Examples:
      fewstep train digits/ct --steps 2000 --lr 1e-3
      fewstep train digits/cd --teacher runs/digits-edm --objective.N 12
      fewstep train images --data photos/ --size 32 --out runs/photos
      fewstep train runs/photos
      fewstep train runs/photos --steps 200000
      fewstep train images --data more/ --size 32 --init runs/photos --out runs/more
      torchrun --nproc-per-node 8 -m fewstep train cifar10/ect --teacher runs/cifar10-edm

    Parameters
    ----------
    run
        The name of a recipe, or a run folder to resume.
    steps
        Of a run folder: steps in all, where they are to be others than it was started with.
    lr
        Of a run folder: learning rate from now on.
    data
        Of a run folder: where its images are now.
    teacher
        Of a run folder: where its teacher is now.
    weak
        Of a run folder: where the weaker model that guides its teacher is now.
    autoencoder
        Of a run folder: where its autoencoder is now.
    encoder
        Of a run folder: where the encoder of its texts is now, module:function. What a run names
        is imported only where you have named it before.
    log
        Of a run folder: loggers from now on, such as wandb; --no-log ends all.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    quiet
        Do not show how far it is.
    """
    if not run.exists():
        raise no_recipe(run)
    from fewstep.cli.training import go_on

    asked = {
        "steps": steps,
        "lr": lr,
        "data": data,
        "teacher": teacher,
        "weak": weak,
        "autoencoder": autoencoder,
        "encoder": encoder,
        "log": log,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    return go_on(run, given, device, quiet)


def no_recipe(named: Path) -> FewstepError:
    """The error for a name that is neither that of a recipe nor of a run folder."""
    if is_hub(named):
        return FewstepError(
            f"{named} is a model of the hub, and no run to resume: begin a run with its weights, "
            f"fewstep train RECIPE --init {named}, or with it as --teacher."
        )
    error = not_there("recipe or run folder", named, RECIPES)
    return FewstepError(f"{error} A recipe of your own needs --plugin.")


app = App(name="train", help_format="plaintext", help_epilogue=more(resume))
app.default(resume)


def offer_recipes() -> None:
    """Make every recipe a command, as far as it is none yet."""
    for name, recipe in RECIPES.items():
        if name not in app:
            app.command(
                f"fewstep.cli.recipe:{name}", name=name, help=unfolded(cleandoc(recipe.help))
            )


def in_new_words(words: Sequence[str]) -> Sequence[str]:
    """A command line in which a recipe has its name of version 0.1, as it is written now."""
    name = words[1] if len(words) > 1 else ""
    if name not in FORMER or Path(name).exists():  # which may be a run folder
        return words
    now = [IMAGES, *(word for pair in FORMER[name].items() for word in (f"--{pair[0]}", pair[1]))]
    print(f"note: {name} is now written {' '.join(now)}.", file=sys.stderr)
    return [words[0], *now, *words[2:]]


def offer_chosen(words: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Give a recipe's command the flags of what a command line chooses, such as its method.

    Args:
        words: of the command line.
        settings: of a file, by flag.

    Raises:
        FewstepError: a choice that the recipe does not have.
    """
    name = words[1] if words[:1] == ("train",) and len(words) > 1 else ""
    if name not in RECIPES or not RECIPES[name].choices:
        return
    recipe = RECIPES[name]
    found = {choice: _given(choice, words) or settings.get(choice) for choice in recipe.choices}
    from fewstep.cli.recipe import command_of

    chosen = command_of(recipe.choosing({k: str(v) for k, v in found.items() if v}))
    del app[name]  # only now: what is wrong with the choices leaves the command as it was
    app.command(chosen)


def _given(flag: str, words: Sequence[str]) -> str | None:
    """The value of a flag on a command line, the last where it stands there twice."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == f"--{flag}":
            found = following
        elif word.startswith(f"--{flag}="):
            found = word.partition("=")[2]
    return found


offer_recipes()
