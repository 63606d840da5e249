"""``fewstep denoise RUN PICTURE``."""

from __future__ import annotations

from pathlib import Path

from fewstep.cli.command import command
from fewstep.cli.job import Files, Job
from fewstep.editing.tasks import DenoiseTask


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
        Run folder, checkpoint folder, model file or hub:NAME; consistency and diffusion models
        both do it.
    picture
        Noisy picture, or folder of them.
    sigma
        Standard deviation of the noise in grey levels of 255; default an estimate from the
        picture.
    """
    task = DenoiseTask(sigma)
    job = Job(model, picture, o, what="denoising")
    found = sorted(task.level(p) for p in job.pictures)
    between = f"{found[0]:.1f}" + (f" to {found[-1]:.1f}" if len(found) > 1 else "")
    job.run(task, f"noise of {between} grey levels")


app = command(denoise)
