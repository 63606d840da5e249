"""From a run as data to a trained model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from fewstep.data import Dataset
from fewstep.digest import sha256_of_code
from fewstep.distributed import Processes, processes, together
from fewstep.errors import FewstepError, refusals
from fewstep.files import RECORD
from fewstep.lock import locked
from fewstep.models import AnyModel
from fewstep.plugins.trusted import trust
from fewstep.plugins.used import check_outside
from fewstep.runs.build import Build
from fewstep.runs.components import plugins_of
from fewstep.runs.directory import RunDirectory, check_free
from fewstep.runs.resume import Begun, begun
from fewstep.runs.run import Run


@refusals()
def train(
    run: Run,
    directory: str | Path,
    *,
    recipe: str = "custom",
    data: Dataset | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> AnyModel:
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
    if before is None and run.data.encoder is not None:
        trust(run.data.encoder)  # no record names it, but whoever calls this
    if before is not None and (made := _made(home, before, group)) is not None:
        return made
    fresh = not home.path.exists()
    with ExitStack() as held:
        if group.first and not fresh:
            held.enter_context(locked(home.path))
        trainer, record = Build(run, home, recipe, before, group, data).trainer(quiet=quiet)
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


def _made(home: RunDirectory, before: Begun, group: Processes) -> AnyModel | None:
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
