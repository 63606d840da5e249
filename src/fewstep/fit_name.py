"""What a user may do with pictures that are not square; `fewstep.data.fits` does it."""

from __future__ import annotations

from typing import Literal, get_args

FitName = Literal["crop", "content", "pad", "stretch", "tile"]
FITS = get_args(FitName)
