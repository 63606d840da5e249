"""Guidance: away from a poorer denoiser, and further than the model goes by itself.

    D_w(x, t, c) = D_away(x, t, c) + w (D(x, t, c) - D_away(x, t, c))

Of classifier-free guidance, `Guided`, ``D_away`` is the model itself with the null class, ``D(x,
t)`` (Ho & Salimans 2022, Eq. 6, whose ``w`` is ours less 1). Of autoguidance, `Autoguided`, it is a
weaker model, which is told the same class (Karras et al. 2024). With ``w = 1`` there is no guidance
and no cost; ``w = 0`` is ``D_away`` alone. At noise levels outside of an interval there is none,
either (Kynkaanniemi et al. 2024). Velocity and score are the same linear function of ``D`` in both
terms, so the formula guides them as well.
"""

from fewstep.guidance.autoguided import Autoguided, Weak, check_weak
from fewstep.guidance.guided import (
    GUIDANCES,
    Denoising,
    Guidable,
    Guided,
    GuidedModel,
    Open,
    check_empty_embedding,
    checked_interval,
    checked_weights,
    embeds,
    guidance_of,
    inside,
    towards,
)

__all__ = [
    "GUIDANCES",
    "Autoguided",
    "Denoising",
    "Guidable",
    "Guided",
    "GuidedModel",
    "Open",
    "Weak",
    "check_empty_embedding",
    "check_weak",
    "checked_interval",
    "checked_weights",
    "embeds",
    "guidance_of",
    "inside",
    "towards",
]
