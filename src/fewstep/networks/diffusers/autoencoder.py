"""Autoencoders of the library diffusers, with their own weights under their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError, listed
from fewstep.networks.autoencoder import LOG_VAR, Autoencoder
from fewstep.networks.base import NETWORKS
from fewstep.networks.diffusers.library import Settings, built, settings_of


@NETWORKS.register("diffusers_autoencoder")
class DiffusersAutoencoder(Autoencoder):
    """An autoencoder of the library diffusers: its AutoencoderKL, or its VQModel.

    A VQModel has no width: its latents are the points before they are quantised, which decoding
    does.

    Args:
        shape: shape ``(C, H, W)`` of an image.
        num_classes: must be 0.
        module: name of its class in diffusers.
        config: its settings, as in ``config.json``; also as text.

    Raises:
        FewstepError: diffusers is not installed or has no such autoencoder; settings that do not
            fit the shape.
    """

    citation = "vonplaten2022diffusers"

    net: Any
    """The autoencoder of diffusers."""

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_classes: int = 0,
        module: str = "AutoencoderKL",
        config: Settings = "{}",
    ) -> None:
        if module not in AUTOENCODERS:
            raise FewstepError(
                f"diffusers' {module} is no autoencoder that is known: {listed(AUTOENCODERS)}."
            )
        net: Any = built(module, settings_of(config))
        settings: Mapping[str, Any] = net.config
        latents = latent_shape(module, settings, shape)
        # encoder and decoder are inside the network, under its own names
        super().__init__(tuple(shape), latents, nn.Identity(), nn.Identity(), num_classes)
        self.net, self._width = net, AUTOENCODERS[module]
        if settings["in_channels"] != shape[0] or settings["out_channels"] != shape[0]:
            raise FewstepError(
                f"diffusers' {module} of this config has images of {settings['in_channels']} "
                f"channels, not {shape[0]}."
            )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self._width:
            (mu,) = self.net.encode(x, return_dict=False)
            return mu, torch.full_like(mu, LOG_VAR[0])
        (q,) = self.net.encode(x, return_dict=False)
        return q.mean, q.logvar.clamp(*LOG_VAR)

    def decode(self, z: Tensor) -> Tensor:
        decoded = self.net.decode(z, return_dict=False)
        return decoded[0]


AUTOENCODERS = {"AutoencoderKL": True, "VQModel": False}
"""Those that are known, and whether they are variational."""


def halvings(config: Mapping[str, Any]) -> int:
    """How often an autoencoder halves an image."""
    return len(config["block_out_channels"]) - 1


def latent_shape(
    module: str, config: Mapping[str, Any], shape: Sequence[int]
) -> tuple[int, int, int]:
    """Shape of a latent of an autoencoder's images.

    Raises:
        FewstepError: images that cannot be halved so often.
    """
    factor = 2 ** halvings(config)
    if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
        raise FewstepError(
            f"images of shape {list(shape)} cannot be halved {halvings(config)} times, as "
            f"diffusers' {module} of this config does: give another size."
        )
    channels = config.get("vq_embed_dim") or config["latent_channels"]
    return channels, shape[1] // factor, shape[2] // factor
