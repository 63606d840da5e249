"""The latent space of an autoencoder, as a diffusion model sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fewstep import networks
from fewstep.digest import sha256_of_weights
from fewstep.errors import FewstepError
from fewstep.networks import Autoencoder

if TYPE_CHECKING:
    from fewstep.data import Dataset

AT_ONCE = 256  # examples that are encoded together


class Latents(nn.Module):
    """Standardised latents ``z = (mu(x) - m) / s`` of images, and the way back ``g(m + s z)``.

    ``m`` and ``s`` are the mean and the standard deviation of each channel of ``mu(x)`` over the
    training images, so that a process with ``sigma_data = 1`` fits. The posterior's own width is
    left out: the model learns the distribution of ``mu(x)``.

    Args:
        autoencoder: trained; its weights are kept as they are.
        m, s: [C, 1, ...] of a latent [C, ...]; default 0 and 1.
    """

    citation = "vahdat2021score"

    m: Tensor
    s: Tensor

    def __init__(
        self, autoencoder: Autoencoder, m: Tensor | None = None, s: Tensor | None = None
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        C, *rest = autoencoder.latent_shape
        one = torch.ones(C, *[1 for _ in rest])
        self.register_buffer("m", torch.zeros_like(one) if m is None else m)
        self.register_buffer("s", one if s is None else s)

    @classmethod
    def of(cls, autoencoder: Autoencoder, data: Dataset) -> Latents:
        """The latents of a data set, standardised by its mean and deviation.

        They are computed, and stay, on the device of the autoencoder.
        """
        device = next(autoencoder.parameters()).device
        mu = cls(autoencoder).to(device)._encode_all(data)
        dims = [0, *range(2, mu.ndim)]
        s, m = torch.std_mean(mu.double(), dims, correction=0, keepdim=True)
        return cls(autoencoder, m[0].float(), s[0].float().clamp(min=1e-6)).to(device)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one latent."""
        return self.autoencoder.latent_shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.autoencoder.shape

    @property
    def _dtype(self) -> torch.dtype:
        """Type of the autoencoder's weights, in which it is evaluated."""
        return next(self.autoencoder.parameters()).dtype

    def encode(self, x: Tensor) -> Tensor:
        """``(mu(x) - m) / s``: [B, *image_shape] to [B, *shape]."""
        mu = self.autoencoder.encode(x.to(self._dtype))[0].to(x.dtype)
        return (mu - self.m) / self.s

    def decode(self, z: Tensor) -> Tensor:
        """``g(m + s z)``: [B, *shape] to [B, *image_shape]."""
        return self.autoencoder.decode((self.m + self.s * z).to(self._dtype)).to(z.dtype)

    def encoded(self, data: Dataset) -> Dataset:
        """The data set's latents as a data set of points in memory, with its labels.

        Raises:
            FewstepError: images of another shape than the autoencoder's.
        """
        from fewstep.data.dataset import (  # which a model's file and its help do not need
            DESCRIBED,
            Dataset,
        )

        every = torch.arange(len(data))
        described = {name: data.column(name, every) for name in DESCRIBED & set(data.columns)}
        return Dataset(
            self._encode_all(data),
            data.labels,
            data.classes,
            data.name,
            source=data.source,
            columns=described,
        )

    def _encode_all(self, data: Dataset) -> Tensor:
        if data.shape != self.image_shape:
            raise FewstepError(
                f"{data.name} has examples of shape {list(data.shape)}; the autoencoder was "
                f"trained on {list(self.image_shape)}."
            )
        z = torch.empty(len(data), *self.shape)
        with torch.inference_mode():
            for rows in torch.arange(len(data)).split(AT_ONCE):
                z[rows] = self.encode(data.batch(rows, self.m.device)[0]).cpu()
        return z

    @property
    def config(self) -> dict[str, Any]:
        """The autoencoder's name and arguments; `from_config` is its inverse."""
        return self.autoencoder.config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Latents:
        """Of an autoencoder that has not its weights yet.

        Raises:
            FewstepError: a network that is no autoencoder.
        """
        network = networks.from_config(config)
        if not isinstance(network, Autoencoder):
            raise FewstepError(f"{config['name']} is no autoencoder.")
        return cls(network)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, settings, ``m`` and ``s``."""
        return sha256_of_weights(json.dumps(self.config, sort_keys=True), self.state_dict())
