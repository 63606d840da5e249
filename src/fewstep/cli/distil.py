"""``fewstep distil``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.planning.budget import duration, parse_budget


def distil(
    teacher: str,
    /,
    *,
    budget: str = "10m",
    method: str | None = None,
    data: str | None = None,
    out: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    batch: Whole | None = None,
    lr: float | None = None,
    flip: bool | None = None,
    precision: str | None = None,
    threads: Whole | None = None,
    seed: Whole | None = None,
    features: str | None = None,
    weights: Path | None = None,
    device: str | None = None,
) -> None:
    """Distil a diffusion model into one of few steps, within a budget.

    The model may be a run of fewstep, or of another project: whatever fewstep import reads, or
    hub:OWNER/NAME. The student has its network. The page shows quality against steps, the same
    noises in many steps and in few, and what to use when.

    Interrupt it and run it again: it goes on where it was. Any flag overrides the rule.

    Examples:
      fewstep distil runs/photos-edm --budget 10m
      fewstep distil runs/photos-edm --budget 10m --method ect
      fewstep distil edm-cifar10-32x32-cond-vp.pkl --data cifar10/train.parquet --budget 2h
      fewstep distil runs/photos-edm --budget 30m --dry-run

    Parameters
    ----------
    teacher
        Run folder, model file or hub:NAME of a diffusion model.
    budget
        How long it may take, of all calls together: 90s, 30m, 1h30m.
    method
        Objective of the student, as fewstep train images has them; default cd.
    data
        Images like those that the model was trained on; default those that its run names.
    out
        Folder for everything; default runs/NAME-distil.
    dry_run
        Show the plan with its reasons, and stop.
    batch
        Images of a step.
    lr
        Learning rate.
    flip
        Mirror half of the images.
    precision
        fp32, tf32 or bf16.
    threads
        Of the CPU, for the training.
    seed
        Of the training.
    features
        Feature network of the scores, as evaluate takes it; default a classifier that is trained
        on the images.
    weights
        File of the feature network's published weights.
    device
        cpu, cuda or mps; default a GPU where there is one.
    """
    seconds = parse_budget(budget)
    from fewstep.planning.distilling import plan_distil
    from fewstep.planning.looked_at import called
    from fewstep.report.fitted import Features
    from fewstep.report.fitted import distil as distilled

    folder = out or Path("runs") / f"{called(teacher)}-distil"
    given: dict[str, Any] = {
        "method": method,
        "batch": batch,
        "lr": lr,
        "flip": flip,
        "precision": precision,
        "threads": threads,
        "seed": seed,
    }
    how: dict[str, Any] = {"data": data, "device": device}
    if dry_run:
        for line in plan_distil(teacher, folder, seconds, given, **how).lines():
            print(line)
        return
    page = distilled(teacher, folder, seconds, given, features=Features(features, weights), **how)
    print(f"\n{duration(page.seconds)} in all. The model is {page.model}; open {page.path}")


app = command(distil)
