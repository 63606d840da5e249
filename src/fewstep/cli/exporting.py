"""``fewstep export RUN --to TARGET -o FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from fewstep.cli.command import command
from fewstep.runs.directory import open_model


def export(
    model: Path,
    /,
    *,
    to: Literal["edm", "openai"],
    out: Annotated[Path, Parameter(alias="-o")],
    checkpoint: str = "last",
    ema: str | None = None,
) -> None:
    """Write a model for another project.

    edm and openai are state dicts with the names of NVlabs/edm and openai/consistency_models; the
    lines that load them there are printed.

    Examples:
      fewstep export runs/cifar10-ect --to edm -o ect.pt
      fewstep export runs/imagenet64-cd --to openai -o cd.pt

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file.
    to
        edm or openai.
    out
        File to write.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    """
    import torch

    from fewstep.exchange.exported import STATE_DICTS
    from fewstep.files import replacing

    exported = STATE_DICTS[to](open_model(model, checkpoint=checkpoint, ema=ema))
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as partial:
        torch.save(exported.tensors, partial)
    for note in exported.notes:
        print(f"note: {note}.")
    print(f"{out}: {len(exported.tensors)} tensors. It is loaded there by")
    for line in exported.load:
        print(f"  {line.replace('PATH', repr(str(out)))}")


app = command(export)
