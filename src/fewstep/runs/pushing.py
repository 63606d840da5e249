"""What of a run goes to the hub: the model, its card, a picture of samples, the recipe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.data import save_images, to_uint8
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.evaluation.table import COLUMNS
from fewstep.exchange.card import card, licence_of, write_card
from fewstep.exchange.origin import forbids_commerce, sources, unlicensed
from fewstep.files import RECORD, read_json, write_json
from fewstep.hub_name import HubName
from fewstep.models import AnyModel, as_sampled
from fewstep.plugins.used import Used
from fewstep.progress import working
from fewstep.runs.directory import MODEL, RunDirectory
from fewstep.runs.folders import last_part, without_folders
from fewstep.runs.opening import model_file, open_model
from fewstep.runs.record import Record, run_record
from fewstep.runs.sources import DATA, is_name
from fewstep.sampling import sample, sampler_for

SHEET = "samples.png"
FILES = ("README.md", MODEL, SHEET, RECORD)
"""All that goes to the hub, as far as a model has it."""
SMALL = 32  # pixels of images of which many are drawn
MOST = 20  # samples in a row
SETTINGS = ("steps", "batch", "optimizer", "lr", "ema", "precision", "seed")
"""Of the training, those that a card shows; `run.json` has all."""


@dataclass(frozen=True)
class Parcel:
    """Files for the hub, and what should be known of them.

    Args:
        files: by the names that they get there.
        about: what the model is, in a few words.
        notes: what was left out or should be known, a line each.
    """

    files: Mapping[str, Path]
    about: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Scored:
    """A table of scores in Markdown, and the names of those that the hub knows."""

    text: str
    measured: tuple[str, ...]


def packed(
    model: str | Path,
    folder: Path,
    name: HubName,
    *,
    checkpoint: str = "last",
    ema: str | None = None,
    licence: str | None = None,
    scores: Path | None = None,
    samples: bool = True,
) -> Parcel:
    """Write everything of a model that goes to the hub into a folder.

    Paths of this machine stay here: model, record and card name files without their folders.

    Args:
        model: run folder, checkpoint folder, model file or a name of the hub.
        folder: where to write.
        name: what it will be called, for the card.
        checkpoint, ema: which of a run's models.
        licence: to pass it on under; default what its weights came with.
        scores: JSON that `fewstep evaluate` wrote; default the run's own ``scores*.json``.
        samples: whether to draw a sheet of samples.

    Raises:
        FewstepError: no such model; a licence that may not be given; scores that are none.
    """
    f = open_model(model, checkpoint=checkpoint, ema=ema)
    notes = [_of_licence(f, licence)]
    home = RunDirectory.of(model)
    whole = home.record() if home.path.is_dir() and home.started else None
    record = None if whole is None else _without_places(whole)
    data = None if whole is None else whole.run.data.data
    _, file = model_file(model, checkpoint=checkpoint, ema=ema)
    table = _scores(home, file, scores, notes)
    f.info = without_folders(f.info)
    f.save(folder / MODEL)
    drawn = samples and _is_drawn(f)
    if drawn:
        _draw(f, folder / SHEET)
    if record is not None:
        write_json(folder / RECORD, asdict(record))
    text = card(
        f,
        title=name.repo.rpartition("/")[2],
        use=_use(f, str(name)),
        licence=licence,
        samples=_caption(f) if drawn else None,
        scores=None if table is None else table.text,
        measured=() if table is None else table.measured,
        recipe=None if record is None else _recipe(record, data or "images in memory"),
        data=data,
    )
    write_card(folder, text)
    files = {name: folder / name for name in FILES if (folder / name).is_file()}
    return Parcel(files, f.trained.name, tuple(notes))


def _of_licence(f: AnyModel, asked: str | None) -> str:
    """A line on the licence that a card will state.

    Raises:
        FewstepError: somebody else's weights under a licence that nobody knows.
    """
    own, licence = f.info.get("origin"), licence_of(f, asked)
    if licence is None and isinstance(own, dict):
        whence = next(iter(sources({"lineage": unlicensed(f.info)})), "another project")
        raise FewstepError(
            f"these weights come from {whence}, of a licence that is not known: ask its authors, "
            "and say with --licence under which they may be passed on."
        )
    if licence is None:
        return "the card states no licence: nobody knows what is allowed until --licence says it."
    only = ", for non-commercial use only" if forbids_commerce(licence) else ""
    kept = ", as its weights came" if asked is None else ""
    return f"the card states the licence {licence}{kept}{only}."


def _without_places(record: Record) -> Record:
    """A run's record without paths of this machine."""
    plain = run_record(without_folders(asdict(record)))
    named = is_name(record.run.data.data or "")  # else there may be others of that name elsewhere
    sources = plain.sources.items()
    return replace(
        plain,
        run=plain.run if named else plain.run.override({DATA: None}),
        sources={kind: replace(source, relative=None) for kind, source in sources},
        plugins=tuple(Used(**plugin.without_folder()) for plugin in record.plugins),
    )


def _is_drawn(f: AnyModel) -> bool:
    """Whether a model makes pictures by a sampler of its own."""
    pictures = len(f.image_shape) == 3 and f.image_shape[0] in (1, 3)
    return pictures and f.trained.known and not f.trained.decodes


def _draw(f: AnyModel, path: Path) -> None:
    """A sheet of samples, all classes in turn."""
    few = max(f.image_shape) > SMALL
    columns = 4 if few else f.num_classes if 0 < f.num_classes <= MOST else 10
    drawn = as_sampled(f).to(pick_device(None))
    with working("drawing samples"):
        images = sample(drawn, n=columns * (4 if few else 5), seed=0)
    save_images(to_uint8(images), path, columns=columns)
    drawn.cpu()


def _caption(f: AnyModel) -> str:
    sampler = sampler_for(as_sampled(f), None)
    count = f"{sampler.nfe} network evaluation" + "s" * (sampler.nfe != 1)
    return f"![Samples]({SHEET})\n\n*Samples of seed 0 by `{sampler.spec}`: {count} each.*"


def _use(f: AnyModel, name: str) -> str:
    """How a model is used, on the command line and in Python."""
    label = f" --label {shlex.quote(f.trained.classes[0])}" if f.trained.classes else ""
    steps = "" if f.trained.steps is not None or f.trained.solves else " --steps 2"
    if f.trained.decodes:
        return f"```sh\nfewstep info {name}\nfewstep train RECIPE --autoencoder {name}\n```"
    return (
        "With the Python package fewstep and its extra `hub`:\n\n"
        f"```sh\nfewstep sample {name} -n 16{steps}{label} -o samples.png\n```\n\n"
        f'```python\nimport fewstep\n\nf = fewstep.open_model("{name}")\n'
        'x = fewstep.sample(f, n=16, seed=0)\nfewstep.save_images(fewstep.to_uint8(x), "x.png")\n'
        "```"
    )


def _recipe(record: Record, data: str) -> str:
    """How a run was trained, on what: the main settings, and where all of them are."""
    run = record.run
    rows = {
        "recipe": record.recipe,
        "objective": str(run.objective),
        "network": str(run.network),
        "process": str(run.p),
        "data": last_part(data),
        **{name: getattr(run.training, name) for name in SETTINGS},
    }
    lines = "\n".join(f"| {name} | `{value}` |" for name, value in rows.items())
    return f"| setting | value |\n|---|---|\n{lines}\n\n`{RECORD}` has every setting."


def _scores(home: RunDirectory, file: Path, given: Path | None, notes: list[str]) -> Scored | None:
    """The table of the scores of a model; None where there are none."""
    found = [given] if given else sorted(home.path.glob("scores*.json"), key=_written)
    if not found:
        return None
    path = found[-1]
    if given is None and _written(path) < _written(file):
        notes.append(f"{path} is older than the model, and left out: --scores {path} takes it.")
        return None
    return read_json(path, _table, "scores that fewstep evaluate -o wrote as .json")


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _table(stored: Any) -> Scored:
    stored = without_folders(stored)
    setting, rows = stored["setting"], stored["scores"]
    columns = [c for c in COLUMNS if any(row.get(c.field) is not None for row in rows)]
    if not columns:
        raise FewstepError("it has no scores.")
    titles = ["images of", "sampler", "NFE", "n", *(f"{c.title} {c.better}" for c in columns)]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for row in rows:
        how = f"`{row['sampler']}`" if row.get("sampler") else ""
        lines.append(
            [
                row["target"],
                how,
                str(row.get("nfe") or ""),
                str(row["n"]),
                *_cells(row, columns),
            ]
        )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    about = f"Features {setting['features']}, reference {setting['reference']}."
    fid = setting["features"].startswith("inception")
    measured = [c.field for c in columns if c.field != "fd" or fid]
    return Scored(f"{text}\n\n{about}", tuple(measured))


def _cells(row: Mapping[str, Any], columns: Sequence[Any]) -> list[str]:
    values = [(c, row.get(c.field)) for c in columns]
    return [
        "" if v is None else f"{v * (100 if c.percent else 1):.{c.decimals}f}{' %' * c.percent}"
        for c, v in values
    ]
