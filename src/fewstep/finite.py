"""Not a number is never a picture: what a model gives is looked at where it is handed out."""

from __future__ import annotations

from torch import Tensor

from fewstep.errors import NotFinite

OUTPUT = "the model's output"


def check_finite(x: Tensor, what: str = OUTPUT) -> Tensor:
    """``x`` [N, ...] as it came, if all of it is finite.

    Clipping would make a picture of an infinity, and rounding to bytes one of NaN.

    Args:
        what: whose numbers they are, for the message.

    Raises:
        NotFinite: NaN or an infinity; the message counts the rows that hold one.
    """
    good = x.isfinite()
    if bool(good.all()):
        return x
    rows = good.flatten(1).all(1) if x.ndim > 1 else good.reshape(-1)
    cause = (
        " Its weights are damaged, come from a training that diverged, or were computed with too "
        "little precision."
        if what == OUTPUT
        else ""
    )
    raise NotFinite(
        f"{what} is not finite (NaN or infinity) in {int((~rows).sum())} of "
        f"{len(rows)} images.{cause}"
    )
