"""Variational autoencoders: small latent spaces for diffusion models to live in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.needs import LATENTS
from fewstep.networks.base import NETWORKS, Network
from fewstep.networks.norm import group_norm

LOG_VAR = (-20.0, 10.0)
"""Bounds of ``ln sigma^2``, so that no exponential overflows early in training."""


class Autoencoder(Network):
    """An encoder ``q(z|x) = N(mu(x), diag sigma^2(x))`` and a decoder ``g(z)``.

    Called as a network it reconstructs, ``g(mu(x))``. It knows neither time nor class.

    Args:
        shape: shape of one example.
        latent_shape: shape of one latent, of no more numbers than an example.
        encoder: from [B, *shape] to [B, 2 c, ...], ``mu`` and ``ln sigma^2`` one after the other.
        decoder: from [B, *latent_shape] to [B, *shape].
        num_classes: must be 0.

    Raises:
        FewstepError: a latent that is larger than an example; classes.
    """

    takes = ()
    gives = (LATENTS,)
    latent_shape: tuple[int, ...]

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_shape: tuple[int, ...],
        encoder: nn.Module,
        decoder: nn.Module,
        num_classes: int,
    ) -> None:
        super().__init__()
        if num_classes:
            raise FewstepError(
                "an autoencoder knows no classes, the model of its latents does: train it with "
                "--no-labels."
            )
        if min(latent_shape) < 1 or math.prod(latent_shape) > math.prod(shape):
            raise FewstepError(
                f"a latent of shape {list(latent_shape)} must have at least 1 number, and no more "
                f"than an example of shape {list(shape)}."
            )
        self.shape, self.num_classes, self.two_time = tuple(shape), 0, False
        self.latent_shape = latent_shape
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``mu(x)`` and ``ln sigma^2(x)``: both [B, *latent_shape]."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return mu, log_var.clamp(*LOG_VAR)

    def decode(self, z: Tensor) -> Tensor:
        """``g(z)``: [B, *latent_shape] to [B, *shape]."""
        return self.decoder(z).view(-1, *self.shape)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        return self.decode(self.encode(x)[0])


class DenseBlock(nn.Module):
    """``h + W2 silu(W1 norm(h))``, with ``W2 = 0`` at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.W1, self.W2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.W2.weight)
        nn.init.zeros_(self.W2.bias)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.W2(functional.silu(self.W1(self.norm(h))))


def dense(inputs: int, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """A residual MLP of vectors."""
    inner = (DenseBlock(width) for _ in range(blocks))
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), *inner, nn.Linear(width, outputs))


@NETWORKS.register("mlp_autoencoder")
class MLPAutoencoder(Autoencoder):
    """Variational autoencoder of two residual MLPs, for points and tiny images.

    Args:
        shape: shape of one example.
        num_classes: must be 0.
        latents: numbers in a latent.
        width: width of the residual streams.
        blocks: residual blocks of the encoder, and of the decoder.
    """

    citation = "kingma2014auto"
    free_rows = True

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        latents: int = 16,
        width: int = 256,
        blocks: int = 2,
    ) -> None:
        if min(latents, width, blocks) < 1:
            raise FewstepError("the autoencoder needs latents, width, blocks >= 1.")
        size = math.prod(shape)
        super().__init__(
            shape,
            (latents,),
            dense(size, 2 * latents, width, blocks),
            dense(latents, size, width, blocks),
            num_classes,
        )


class ConvBlock(nn.Module):
    """``h + conv(silu(norm(conv(silu(norm(h))))))``, with the last convolution 0 at first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm0, self.conv0 = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1, self.conv1 = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        for parameter in self.conv1.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        u = self.conv0(self.norm0.silu(h))
        return self.skip(h) + self.conv1(self.norm1.silu(u))


@NETWORKS.register("conv_autoencoder")
class ConvAutoencoder(Autoencoder):
    """Convolutional variational autoencoder whose latents are maps, for images of any size.

    Each level after the first halves the side; the KL-regularised autoencoder of latent diffusion
    (Rombach et al. 2022), without its attention and its adversary.

    Args:
        shape: shape of one image (C, H, W).
        num_classes: must be 0.
        latents: channels of a latent.
        channels: channels of the first level.
        multipliers: of the channels, one per level.
        blocks: residual blocks of a level.
    """

    citation = ("kingma2014auto", "rombach2022high")

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        latents: int = 4,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
    ) -> None:
        factor = 2 ** (len(multipliers) - 1)
        if min(latents, channels, blocks, *multipliers) < 1 or channels % 4:
            raise FewstepError(
                "the autoencoder needs latents, blocks, multipliers >= 1 and channels that are a "
                "multiple of 4."
            )
        if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
            raise FewstepError(
                f"images of shape {list(shape)} cannot be halved {len(multipliers) - 1} times: "
                "give fewer network.multipliers or another size."
            )
        widths = [channels * m for m in multipliers]
        super().__init__(
            shape,
            (latents, shape[1] // factor, shape[2] // factor),
            _encoder(shape[0], 2 * latents, widths, blocks),
            _decoder(latents, shape[0], widths, blocks),
            num_classes,
        )


def _level(inputs: int, outputs: int, blocks: int) -> list[nn.Module]:
    return [ConvBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]


def _encoder(inputs: int, outputs: int, widths: Sequence[int], blocks: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1)]
    for level, width in enumerate(widths):
        above = widths[max(level - 1, 0)]
        if level:
            layers.append(nn.Conv2d(above, above, 3, stride=2, padding=1))
        layers += _level(above, width, blocks)
    return nn.Sequential(*layers, *_written(widths[-1], outputs))


def _decoder(inputs: int, outputs: int, widths: Sequence[int], blocks: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        below = widths[min(level + 1, len(widths) - 1)]
        if level < len(widths) - 1:
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        layers += _level(below, widths[level], blocks)
    return nn.Sequential(*layers, *_written(widths[0], outputs))


def _written(width: int, outputs: int) -> list[nn.Module]:
    return [group_norm(width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1)]


def kl_to_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """``KL(N(mu, diag e^log_var) || N(0, I)) = 1/2 sum (mu^2 + e^log_var - 1 - log_var)``: [B].

    Kingma & Welling 2014, Appendix B; in nats.
    """
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).flatten(1).sum(1)


def draw(mu: Tensor, log_var: Tensor) -> Tensor:
    """A sample ``mu + sigma epsilon`` of ``q(z|x)``, through which gradients flow."""
    return mu + (0.5 * log_var).exp() * torch.randn_like(mu)
