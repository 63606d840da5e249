"""``fewstep push RUN --to hub:NAME``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fewstep.cli.command import command
from fewstep.exchange.hub.pushing import check_target, with_owner
from fewstep.exchange.hub.pushing import push as push_files
from fewstep.runs.pushing import packed

if TYPE_CHECKING:
    from fewstep.runs.pushing import Parcel


def push(
    model: Path,
    /,
    *,
    to: str,
    licence: Annotated[str | None, Parameter(name=("--licence", "--license"))] = None,
    private: Annotated[bool, Parameter(negative="")] = False,
    replace: Annotated[bool, Parameter(negative="")] = False,
    scores: Path | None = None,
    samples: bool = True,
    message: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    checkpoint: str = "last",
    ema: str | None = None,
) -> None:
    """Put a model on the Hugging Face hub, with its card.

    One commit with the model file, a card with scores, samples and recipe, and the run's settings
    without the folders of this machine. It is then a model wherever one is asked for, as hub:NAME.
    The token is that of hf auth login, or HF_TOKEN. Weights that were imported keep their licence.

    Examples:
      fewstep push runs/digits-cd --to hub:ann/digits-cd --licence mit --dry-run
      fewstep push runs/digits-cd --to hub:ann/digits-cd --licence mit --private
      fewstep push runs/digits-cd --to hub:ann/digits-cd@trial --replace
      fewstep sample hub:ann/digits-cd -n 16 -o samples.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME.
    to
        hub:OWNER/NAME, or hub:OWNER/NAME@BRANCH; without OWNER yours.
    licence
        What it is passed on under, such as mit or cc-by-4.0; default what its weights came with.
    private
        Make the repository private, where it is new.
    replace
        Commit to a repository that has files already; its earlier commits stay.
    scores
        JSON that evaluate -o wrote; default the newest scores*.json of the run folder.
    samples
        Draw a sheet of samples.
    message
        Of the commit.
    dry_run
        Show what would go there, and how large it is; nothing is sent.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    """
    name = check_target(to)
    name = name if dry_run else with_owner(name)
    with TemporaryDirectory() as folder:
        parcel = packed(
            model,
            Path(folder),
            name,
            checkpoint=checkpoint,
            ema=ema,
            licence=licence,
            scores=scores,
            samples=samples,
        )
        for note in parcel.notes:
            print(f"note: {note}")
        _show(parcel)
        if dry_run:
            print(f"{name}: nothing is sent, for --dry-run")
            return
        pushed = push_files(
            name,
            parcel.files,
            private=private,
            anew=replace,
            message=message or f"A model of fewstep: {parcel.about}",
        )
    print(f"{pushed.url}: {len(parcel.files)} files")
    print(f"fewstep sample {pushed.name} -n 16 -o samples.png")


def _show(parcel: Parcel) -> None:
    for file, path in parcel.files.items():
        print(f"  {file:<18} {path.stat().st_size:>14,} bytes")


app = command(push)
