"""A variational autoencoder, whose latent space a diffusion model is then trained in."""

from __future__ import annotations

from torch import Tensor

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.needs import LATENTS, Cost, FixedPoint, Needs
from fewstep.networks.autoencoder import draw, kl_to_standard_normal
from fewstep.objectives.base import OBJECTIVES, Objective
from fewstep.trained import AUTOENCODER


@OBJECTIVES.register("autoencoder")
class VariationalAutoencoder(Objective[AutoencoderModel]):
    """``(|x - g(z)|^2 + beta KL(q(z|x) || N(0, I))) / d`` with ``z ~ q(z|x)``, ``d`` pixels.

    The first stage of LSGM in its practical form: the autoencoder is trained before the score
    model, with a small ``beta`` that only keeps the latents smooth and bounded. LSGM (Vahdat,
    Kreis, Kautz 2021) goes on to train both together, its cross entropy in place of the KL. With
    ``beta = 2 s^2`` it is the negative ELBO of a Gaussian decoder of standard deviation ``s``, up
    to constants and a factor (Kingma & Welling 2014, Eq. 3).

    Args:
        f: the autoencoder in training.
        K: total number of training steps.
        beta: weight of the KL divergence; images are in [-1, 1].

    Raises:
        FewstepError: a negative ``beta``.
    """

    makes = AUTOENCODER
    needs = Needs(network=LATENTS)
    paper = "Kingma & Welling 2014; first stage of Vahdat, Kreis, Kautz 2021 (LSGM)"
    citation = "kingma2014auto"
    fixed_point = FixedPoint.NONE
    cost = Cost()

    def __init__(self, f: AutoencoderModel, K: int, *, beta: float = 0.01) -> None:
        super().__init__(f, K)
        if beta < 0:
            raise FewstepError(f"beta weighs a divergence and must be at least 0, got {beta:g}.")
        self.beta = beta

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        network = self.f.network
        mu, log_var = network.encode(x)
        error = (x - network.decode(draw(mu, log_var))).square().flatten(1)
        return error.mean(1) + self.beta / error.shape[1] * kl_to_standard_normal(mu, log_var)
