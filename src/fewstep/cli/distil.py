"""``fewstep distil``."""

from __future__ import annotations

from typing import Any

from fewstep.cli.command import command
from fewstep.cli.within import Within
from fewstep.planning.budget import parse_budget


def distil(
    teacher: str,
    /,
    *,
    budget: str | None = None,
    method: str | None = None,
    data: str | None = None,
    within: Within | None = None,
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
        How long it may take, of all calls together: 90s, 30m, 1h30m. Default that which is being
        spent, else 10m.
    method
        Objective of the student, as fewstep train images has them; default cd.
    data
        Images like those that the model was trained on; default those that its run names.
    """
    seconds = None if budget is None else parse_budget(budget)
    from fewstep.planning.distilling import plan_distil

    asked = within or Within()
    given = {"method": method, **asked.chosen}
    folder = asked.folder(teacher, "distil")
    how: dict[str, Any] = {"data": data, "device": asked.device, "log": asked.log}
    asked.do(lambda: plan_distil(teacher, folder, seconds, given, **how), seconds)


app = command(distil)
