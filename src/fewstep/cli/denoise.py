"""``fewstep denoise RUN PICTURE``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fewstep.cli.command import command
from fewstep.cli.job import Files, Job
from fewstep.data import to_float
from fewstep.editing import denoise as denoise_images
from fewstep.editing import noise_level
from fewstep.editing.pictures import join
from fewstep.errors import FewstepError

STEP = 127.5  # grey levels per unit of data in [-1, 1]


def denoise(model: Path, picture: Path, /, *, sigma: float | None = None, o: Files) -> None:
    """Remove white noise of a known or estimated level, in one step.

    A picture larger than the model's images is denoised in pieces. The estimate is good for
    photographs, and too high for pictures of few pixels: give --sigma where you know it.

    Examples:
      fewstep denoise runs/photos noisy.png -o clean.png
      fewstep denoise runs/digits-cd noisy.png --sigma 25 --label 3 -o clean.png

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file; consistency and diffusion models both do it.
    picture
        Noisy picture, or folder of them.
    sigma
        Standard deviation of the noise in grey levels of 255; default an estimate from the
        picture.
    """
    job = Job(model, picture, o)
    tiles = job.tiles("tile")
    levels = [_level(p.pixels, sigma) for p in job.pictures]
    each = torch.cat([level.expand(len(t)) for level, t in zip(levels, tiles, strict=True)])
    parts = job.run(denoise_images, tiles, each)
    results = [join(part, p.size, "tile") for p, part in zip(job.pictures, parts, strict=True)]
    found = sorted(STEP * float(level) for level in levels)
    between = f"{found[0]:.1f}" + (f" to {found[-1]:.1f}" if len(found) > 1 else "")
    job.write(results, f"noise of {between} grey levels")


def _level(pixels: Tensor, sigma: float | None) -> Tensor:
    """The level given, or that of a picture [C, H, W], on data in [-1, 1]: [1]."""
    if sigma is None:
        return noise_level(to_float(pixels)[None])
    if not sigma >= 0:
        raise FewstepError(f"--sigma must be at least 0, got {sigma:g}.")
    return torch.tensor([sigma / STEP], dtype=torch.float64)


app = command(denoise)
