"""One step from a noisy image to a clean one, at any noise level, known or estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.editing.batches import (
    Labels,
    Progress,
    check_images,
    check_pixels,
    in_batches,
)
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.parameterization import Parameterization, expand

MAD_OF_NORMAL = 0.6744897501960817  # median of |z|, z ~ N(0, 1)
BISECTIONS = 80  # float64 is exhausted before


def denoise(
    f: FlowMap,
    x: Tensor,
    sigma: Tensor | float | None = None,
    *,
    labels: Labels = None,
    embedding: Tensor | None = None,
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """``f(alpha(t) x, t)`` at the time ``t`` with ``sigma(t) / alpha(t) = sigma``.

    Song et al. 2023, Section 6: single-step denoising; for EDM it is ``f(x, sigma)``. A consistency
    model gives a plausible clean image, the end of the PF-ODE's trajectory; a diffusion model gives
    its denoiser, the mean over clean images, which has the smaller squared error and less detail.

    Args:
        f: a consistency or a diffusion model.
        x: clean images in [-1, 1] plus white Gaussian noise [B, *f.shape]. Do not clip them.
        sigma: standard deviation of the noise, [B] or one for all; default `noise_level` of each
            image.
        labels: class of each image, [B] or one for all; for conditional models alone.
        embedding: what is wanted, such as a text's, [B, ...] or [1, ...] for all; for models that
            are told embeddings.
        batch: how many at once; a matter of memory and speed only.
        progress: called with the number of images that each batch added.

    Returns:
        [B, *f.shape] on the CPU, not clipped.

    Raises:
        FewstepError: images or labels that do not fit, a negative noise level or one above ``T``'s.
    """
    check_pixels(f, "denoising")
    check_images(f, x)
    f.trained.check_known("denoising")
    f.trained.check_any_time("denoising")
    sigma = noise_level(x) if sigma is None else torch.as_tensor(sigma, dtype=torch.float64)
    t = time_of(f.p, sigma.expand(len(x)))

    def part(rows: slice, condition: Condition) -> Tensor:
        noisy = x[rows].to(f.device)
        at = f.time(t[rows].to(noisy), noisy)
        noisy = expand(f.p.alpha(at), noisy) * noisy
        end = None if f.trained.maps_to_eps else 0.0
        return f(noisy, at, end, condition)

    return in_batches(f, len(x), part, labels, batch, progress, embedding)


def time_of(p: Parameterization, sigma: Tensor) -> Tensor:
    """The time ``t`` with ``sigma(t) / alpha(t) = sigma``, by bisection: [B] to [B], float64.

    At least `Parameterization.t_min`, where the map is nearly the identity.

    Raises:
        FewstepError: a level that is negative, not a number, or above the one at ``T``.
    """
    sigma = sigma.double()
    low = torch.full_like(sigma, p.t_min)
    high = torch.full_like(sigma, p.T)
    most = float(p.noise_level(high).max())
    if not ((sigma >= 0) & (sigma <= most)).all():
        raise FewstepError(
            f"this model knows noise levels from 0 to {most:g} (on data in [-1, 1]), got "
            f"{', '.join(f'{s:g}' for s in sigma.unique().tolist()[:3])}."
        )
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = p.sigma(middle) < sigma * p.alpha(middle)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def noise_level(x: Tensor) -> Tensor:
    """Estimated standard deviation of white noise in images [B, C, H, W]: [B].

    The median of the absolute diagonal details ``(a - b - c + d)/2`` of the finest Haar wavelet
    (2x2 blocks of all channels), over 0.6745 (Donoho & Johnstone 1994). White noise keeps its
    level in these details, and smooth images leave hardly a trace in them; the median is deaf to
    few edges. With ``n = C H W / 4`` details the estimate scatters by about ``1.17 / sqrt(n)``
    of its value: 4 % for 32 x 32 pixels in colour, 29 % for 8 x 8 in grey. Texture as fine as a
    pixel, and pictures as small as the digits, are partly taken for noise: it then errs upward.

    Raises:
        FewstepError: not images, or smaller than 2 x 2.
    """
    if x.ndim != 4 or min(x.shape[2:]) < 2:
        raise FewstepError(
            "the noise level is estimated from images [B, C, H, W] of at least 2x2 pixels, got "
            f"shape {list(x.shape)}: give it."
        )
    H, W = (n - n % 2 for n in x.shape[2:])
    x = x[..., :H, :W].double()
    rows = x[..., ::2, :] - x[..., 1::2, :]
    details = (rows[..., ::2] - rows[..., 1::2]) / 2
    return details.abs().flatten(1).median(1).values / MAD_OF_NORMAL
