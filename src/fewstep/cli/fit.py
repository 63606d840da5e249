"""``fewstep fit``."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.cli.within import Within
from fewstep.fit_name import FitName
from fewstep.planning.budget import parse_budget

LABELS = Parameter(negative="--no-labels")


def fit(
    source: str,
    /,
    *,
    budget: str | None = None,
    method: str | None = None,
    network: str | None = None,
    size: Whole | None = None,
    fit_: Annotated[FitName | None, Parameter(name="--fit")] = None,
    channels: Whole | None = None,
    labels: Annotated[bool | None, LABELS] = None,
    width: Whole | None = None,
    dropout: float | None = None,
    augment: float | None = None,
    within: Within | None = None,
) -> None:
    """Fit a generator of few steps to a folder of images, within a budget.

    It looks at the images, measures this machine for some seconds, and chooses everything by a
    stated rule: the size, the network, batch, rate, augmentation, method and lengths. A model of
    few steps is trained and gets its time points; images that were held out score it. Where the
    method needs a diffusion model, as --method cd does, that comes first. The folder has one model
    file and one page, report.html.

    Interrupt it and run it again: it goes on where it was. With a longer budget the next model
    begins with what was learned before. Any flag overrides the rule.

    Examples:
      fewstep fit photos --budget 30m
      fewstep fit photos --budget 30m --dry-run           what it would do, and why
      fewstep fit photos --budget 2h                      goes on
      fewstep sample runs/photos-fit/model.safetensors -n 64 --steps 2 -o new.png

    Parameters
    ----------
    source
        A folder of images, or a file, as --data of train takes it; subfolders are classes.
    budget
        How long it may take, of all calls together: 90s, 30m, 1h30m. Default that which is being
        spent, else 30m.
    method
        Objective of the model of few steps, as fewstep train images has them.
    network
        What computes it.
    size
        Side that images are cropped and resized to.
    fit_
        What becomes of images that are not square: crop to the middle, which is the default; crop
        to the content; pad; stretch; or tile.
    channels
        1 for grey, 3 for colour.
    labels
        Tell the model the classes, or not.
    width
        Channels of the U-Net at its first level.
    dropout
        Of the network that learns from the images.
    augment
        Probability of each augmentation of the images.
    """
    seconds = None if budget is None else parse_budget(budget)
    from fewstep.planning.fitting import plan_fit

    asked = within or Within()
    given = {
        "method": method,
        "network": network,
        "size": size,
        "fit": fit_,
        "channels": channels,
        "labels": labels,
        "width": width,
        "dropout": dropout,
        "augment": augment,
        **asked.chosen,
    }
    folder = asked.folder(source, "fit")
    how: dict[str, Any] = {"device": asked.device, "log": asked.log}
    asked.do(lambda: plan_fit(source, folder, seconds, given, **how), seconds)


app = command(fit)
