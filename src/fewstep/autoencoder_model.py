"""An autoencoder as a model of its own: images of its latents, and no map along the PF-ODE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.latents import Latents
from fewstep.model_file import PROCESS, Header
from fewstep.networks import Autoencoder, Network, unwrapped
from fewstep.stored_model import StoredModel
from fewstep.trained import AUTOENCODER, Trained


class AutoencoderModel(StoredModel):
    """``q(z|x)`` and ``g(z)``: the latent space that other models may be trained in.

    By itself it makes images of noise, ``g(z)`` of ``z ~ N(0, I)``.

    Args:
        F: the autoencoder (see `fewstep.networks`).
        trained: its record, which names it an autoencoder.
        info: free JSON values; see `StoredModel`.

    Raises:
        FewstepError: a network that is no autoencoder; the record of another model.
    """

    sort: ClassVar[str] = "an autoencoder"
    decodes: ClassVar[bool] = True

    def __init__(
        self,
        F: Network,
        *,
        trained: Trained | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(unwrapped(F), Autoencoder):
            raise FewstepError(f"{unwrapped(F).config['name']} is no autoencoder.")
        super().__init__(F, trained=trained, info=info)
        if self.trained == Trained():
            self.trained = AUTOENCODER
        self.trained.check_autoencoder("the record of an autoencoder")

    @classmethod
    def _of(cls, header: Header, F: Network, latents: Latents | None) -> AutoencoderModel:
        return cls(F, trained=header.trained, info=header.info)

    @property
    def process(self) -> None:
        return None

    @property
    def identity(self) -> list[Any]:
        """As `StoredModel.identity`; earlier versions stored an autoencoder with a process."""
        return [self.network.config, self.info.get(PROCESS)]

    @property
    def network(self) -> Autoencoder:
        """The autoencoder itself."""
        return cast("Autoencoder", unwrapped(self.F))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""
        return self.network.latent_shape

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of ``q(z|x)``: [B, *shape] to two of [B, *latent_shape]."""
        mu, log_var = self.network.encode(x.to(self.dtype))
        return mu.to(x.dtype), log_var.to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """``g(z)``: [B, *latent_shape] to [B, *shape]."""
        return self.network.decode(z.to(self.dtype)).to(z.dtype)
