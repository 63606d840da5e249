"""``fewstep import SOURCE -o RUN``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.errors import FewstepError
from fewstep.exchange.files.checkpoint import is_foreign
from fewstep.files import check_writable
from fewstep.hub_name import is_hub
from fewstep.models import AnyModel
from fewstep.runs.directory import MODEL, check_free
from fewstep.runs.opening import open_model


def import_(
    source: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    kind: Annotated[Literal["diffusion", "consistency"] | None, Parameter(name="--as")] = None,
    size: Whole | None = None,
    process: str | None = None,
    heads: Whole | None = None,
    head_channels: Whole | None = None,
    attention_order: Literal["heads-first", "three-first"] | None = None,
    earliest: float | None = None,
) -> None:
    """Make a model of this package from another project's weights.

    Reads openai/consistency_models and guided-diffusion (.pt), NVlabs/edm, edm2, locuslab/ect and
    TCM (.pkl), state dicts or safetensors with their names, and folders of diffusers. Nothing in a
    file is ever run. The same can be given wherever a model is asked for, such as --teacher.

    Examples:
      fewstep import edm-cifar10-32x32-cond-vp.pkl -o runs/edm-cifar10
      fewstep import cd_imagenet64_l2.pt -o runs/cd-imagenet64
      fewstep import ddpm-church-256 -o runs/church
      fewstep import hub:owner/name -o runs/theirs
      fewstep sample runs/cd-imagenet64 -n 16 --label 207 -o dogs.png
      fewstep import my.pt --as diffusion --size 64 --process "edm(sigma_data=0.5)" -o runs/mine
      fewstep train cifar10/ect --data train.parquet --teacher edm-cifar10-32x32-uncond-vp.pkl

    Parameters
    ----------
    source
        The other project's file, or a name of the hub.
    out
        Folder for the model, or a file that ends in .safetensors.
    kind
        What it was trained as: diffusion or consistency; default what the file or its name says.
    size
        Side of its images, where the file does not say.
    process
        Its process, as name(argument=value, ...); default what the file or its name says.
    heads
        Attention heads at every width, where ADM's network has a number of them.
    head_channels
        Channels of an attention head, where it is not 64.
    attention_order
        Order of queries, keys and values in openai's files, where it is not known.
    earliest
        Earliest time that a consistency model has learned to start at; default its end. The second
        stage of TCM has learned the times from 1 on.
    """
    from fewstep.exchange.hub.fetching import local
    from fewstep.exchange.origin import with_hub
    from fewstep.exchange.sources import Wanted, import_model
    from fewstep.parameterization import PARAMETERIZATIONS
    from fewstep.trained import of_kind

    settings = {"heads": heads, "head_channels": head_channels}
    wanted = Wanted(
        consistency=None if kind is None else of_kind(kind).maps_to_eps,
        size=size,
        network={name: value for name, value in settings.items() if value is not None},
        process=None if process is None else PARAMETERIZATIONS.build(process).config,
        heads_lead=None if attention_order is None else attention_order == "heads-first",
        earliest=earliest,
    )
    if size is not None and size < 1:
        raise FewstepError(f"--size must be at least 1 pixel, got {size}.")
    folder, path = (out.parent, out) if out.suffix == ".safetensors" else (out, out / MODEL)
    check_free(folder, "")
    check_writable(path)
    if is_hub(source) and _is_ours(local(source)):
        if wanted != Wanted():
            raise FewstepError(
                f"{source} is a model of fewstep, which says itself what it is: leave out all "
                "flags but --out."
            )
        f: AnyModel = open_model(source)
        summary, sampler = f"a copy of {f.info['origin']['hub']}", None
    else:
        imported = import_model(local(source), wanted)
        for note in imported.notes:
            print(f"note: {note}.")
        f = imported.f
        f.info = with_hub(source, f.info)
        summary, sampler = imported.summary, imported.sampler
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        print(f"note: it takes the place of the {path.name} that was there.")
    f.save(path)
    print(f"{path}: {summary}")
    print(f"fewstep sample {shlex.quote(str(out))} -n 16 -o samples.png")
    if sampler is not None:
        print(f'as diffusers samples it, with its number of steps: --sampler "{sampler}"')


def _is_ours(place: Path) -> bool:
    """Whether files of the hub are of this package already."""
    file = place / MODEL if place.is_dir() else place
    return file.is_file() and not is_foreign(file)


app = command(import_)
