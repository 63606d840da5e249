"""Augmentation that does not leak: images are moved, and the network is told how.

Karras et al. 2022 (EDM), Appendix F.2, after Karras et al. 2020 (StyleGAN2-ADA). A network that is
told nothing would learn to make moved images. One that is told the nine numbers of every example
learns from all of them what an image looks like that was not moved, and samples are made without
the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.errors import FewstepError

NUMBERS = 9
"""Mirrored left to right; upside down; scale; cos - 1 and sin of the rotation; cos and sin of the
stretching; shift in x and y."""
SCALE, STRETCH, SHIFT = 0.2, 0.2, 0.125  # standard deviations: octaves, octaves, parts of the side


@dataclass(frozen=True)
class Augmentation:
    """``x -> (G x, numbers)`` with the geometric transformations of EDM.

    Every image is mirrored with probability 1/2. Each of the others happens with probability ``p``:
    upside down (of those, half), scaled by ``2^(0.2 z)``, rotated by any angle, stretched along an
    axis by ``2^(0.2 z)``, shifted by ``z/8`` of the side, with ``z ~ N(0, 1)``. What comes into
    view is the image's mirror image. An image that was only mirrored is not interpolated.

    Args:
        p: probability of each transformation, 0.12 to 0.15 in EDM.

    Raises:
        FewstepError: a number that is no probability.
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise FewstepError(f"augment must be a probability from 0 to 1, got {self.p}.")

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] moved, and what was done to each: [B, 9].

        The draws are from torch's global CPU generator, so that they are the same on every device.
        """
        numbers, G = self.drawn(len(x), x.shape[2:])
        numbers, G = numbers.to(x.device), G.to(x.device)
        x = mirrored(x, numbers[:, 0] > 0, -1)
        x = mirrored(x, numbers[:, 1] > 0, -2)
        moved = (numbers[:, 2:] != 0).any(1)
        return torch.where(moved[:, None, None, None], warped(x, G), x), numbers

    def drawn(self, B: int, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The numbers [B, 9], and the map [B, 2, 3] from a moved image's pixels to the image's.

        Pixels are counted from the middle.
        """
        H, W = size
        z = torch.randn(4, B)
        u = 2 * torch.rand(3, B) - 1  # signs and angles
        mirror, upside, scale, rotate, stretch, shift = self._happens(B)
        z_scale, z_stretch = z[0] * scale, z[1] * stretch
        angle, along = math.pi * u[0] * rotate, math.pi * u[1] * (torch.rand(B) < 0.5)
        shift_x, shift_y = z[2] * shift, z[3] * shift
        numbers = [
            mirror.float(),
            (upside & (u[2] < 0)).float(),
            z_scale,
            angle.cos() - 1,
            angle.sin(),
            z_stretch * along.cos(),
            z_stretch * along.sin(),
            shift_x,
            shift_y,
        ]
        longer = (STRETCH * z_stretch).exp2()
        G = scaling((SCALE * -z_scale).exp2(), (SCALE * -z_scale).exp2()) @ rotation(angle)
        G = G @ rotation(-along) @ scaling(1 / longer, longer) @ rotation(along)
        offset = -SHIFT * torch.stack([shift_x * W, shift_y * H], dim=1)[:, :, None]
        return torch.stack(numbers, dim=1), torch.cat([G, G @ offset], dim=2)

    def _happens(self, B: int) -> Tensor:
        """Which transformations happen to which image: [6, B]."""
        probabilities = torch.tensor([0.5, *[self.p] * 5])
        return torch.rand(6, B) < probabilities[:, None]


def rotation(angle: Tensor) -> Tensor:
    """Matrices [B, 2, 2] of angles [B]."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c, -s, s, c], dim=1).view(-1, 2, 2)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Matrices [B, 2, 2] of factors [B] along the axes."""
    zero = torch.zeros_like(x)
    return torch.stack([x, zero, zero, y], dim=1).view(-1, 2, 2)


def mirrored(x: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Images with the chosen ones [B] mirrored along an axis."""
    return torch.where(chosen[:, None, None, None], x.flip(axis), x)


def warped(x: Tensor, G: Tensor) -> Tensor:
    """Images [B, C, H, W] at the points that maps [B, 2, 3] give, in [-1, 1].

    Cubic interpolation on a grid twice as fine, averaged, so that a smaller image is not jagged.
    """
    B, C, H, W = x.shape
    sides = torch.tensor([W / 2, H / 2], device=x.device)
    theta = torch.cat([G[:, :, :2] * sides, G[:, :, 2:]], dim=2) / sides[:, None]
    grid = functional.affine_grid(theta.to(x.dtype), [B, C, 2 * H, 2 * W], align_corners=False)
    fine = functional.grid_sample(
        x, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return functional.avg_pool2d(fine, 2).clamp(-1, 1)
