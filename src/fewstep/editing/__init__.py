"""Zero-shot editing with a consistency model: no task is trained for.

`edit` is Algorithm 4 of Song et al. 2023 for any `Operator`: inpainting, colours, resolution, ...
`sdedit` starts from strokes, `variation` from an image, `denoise` from a noisy image; `decode`,
`walk` and `slerp` move between noises, and `encode` finds the noise of an image.
"""

from fewstep.editing.custom import Linear, Matrix
from fewstep.editing.denoise import denoise, noise_level, time_of
from fewstep.editing.edit import edit, editing_times, sdedit, start_time, variation
from fewstep.editing.latent import decode, encode, latents, mix, slerp, walk
from fewstep.editing.operators import (
    OPERATORS,
    Colourise,
    Deblur,
    Inpaint,
    Operator,
    Outpaint,
    SuperResolve,
)

__all__ = [
    "OPERATORS",
    "Colourise",
    "Deblur",
    "Inpaint",
    "Linear",
    "Matrix",
    "Operator",
    "Outpaint",
    "SuperResolve",
    "decode",
    "denoise",
    "edit",
    "editing_times",
    "encode",
    "latents",
    "mix",
    "noise_level",
    "sdedit",
    "slerp",
    "start_time",
    "time_of",
    "variation",
    "walk",
]
