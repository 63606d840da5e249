"""What ``fewstep train`` does with a run, and what it says of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.cli.faults import INTERRUPTED
from fewstep.errors import FewstepError
from fewstep.plugins.trusted import trust
from fewstep.plugins.used import among, check_used, options
from fewstep.runs.beginning import like_companion
from fewstep.runs.components import plugins_of
from fewstep.runs.described import described
from fewstep.runs.directory import RunDirectory
from fewstep.runs.dry_run import dry_run
from fewstep.runs.execute import train
from fewstep.runs.resume import ENCODER, unasked
from fewstep.runs.run import Run
from fewstep.training.stopping import Interrupted


def begin(
    run: Run,
    settings: Mapping[str, Any],
    folder: Path,
    recipe: str,
    device: str | None,
    quiet: bool,
) -> int:
    """Train a recipe's run with the settings that were given, or take it up; the exit code."""
    run = unasked(RunDirectory(folder), run, frozenset(settings))
    return _train(run, folder, recipe, device, quiet)


def alike(run: Run, settings: Mapping[str, Any], *, network: bool, process: bool) -> Run:
    """The run with the network, and the process, of the model that it begins with.

    Raises:
        FewstepError: it begins with none, or the command line says something else of them.
    """
    for flag, said, prefix in (("network", network, "network__"), ("process", process, "p__")):
        other = [key for key in settings if said and key.startswith(prefix)]
        if other:
            given = "--" + other[0].replace("__", ".").replace("_", "-")
            raise FewstepError(f"give --same-{flag} or {given}, not both.")
    return like_companion(run, network=network, process=process)


def go_on(run: Path, settings: Mapping[str, Any], device: str | None, quiet: bool) -> int:
    """Resume the run of a folder, perhaps with other settings; the exit code."""
    home = RunDirectory(run)
    record = home.record()
    if (encoder := settings.get(ENCODER)) is not None:
        trust(encoder)
    if not home.has_work:  # else the training asks for them
        check_used(record.plugins, run)
    return _train(record.run.override(settings), run, record.recipe, device, quiet)


def dry(run: Run, recipe: str, device: str | None) -> int:
    """Print what a training would need; the exit code."""
    print(dry_run(run, recipe=recipe, device=device, timed=True))
    return 0


def _train(run: Run, out: Path, recipe: str, device: str | None, quiet: bool) -> int:
    home, place = RunDirectory(out), shlex.quote(str(out))
    finished = home.started and home.has_made(run.training.steps)
    try:
        train(run, out, recipe=recipe, device=device, quiet=quiet)
    except Interrupted as stop:
        print(
            f"fewstep: interrupted at step {stop.step} of {run.training.steps}; everything is "
            f"saved. To go on: fewstep train {place}{options(plugins_of(recipe, run))}",
            file=sys.stderr,
        )
        return INTERRUPTED
    if not quiet:
        print(f"{'already trained' if finished else 'trained'}: {out}/model.safetensors")
        needed = among(described(out).needed, plugins_of(recipe, run))  # where they are now
        print(f"next: fewstep sample {place} -o samples.png{options(needed)}")
    return 0
