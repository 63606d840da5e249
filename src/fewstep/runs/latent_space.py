"""The latent space that a run trains in, and the autoencoder that it comes from."""

from __future__ import annotations

from pathlib import Path

import torch

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.data import Dataset
from fewstep.data.pairs import is_pairs
from fewstep.errors import FewstepError
from fewstep.latents import Latents
from fewstep.models import AnyModel
from fewstep.networks import Autoencoder
from fewstep.runs.opening import open_model
from fewstep.runs.run import Run


def find_latents(
    run: Run,
    data: Dataset,
    origin: AnyModel | None,
    device: torch.device,
    autoencoder: AnyModel | None,
    *,
    goes_on: bool = False,
) -> Latents | None:
    """The latent space to train in: that of the origin, or of the run's autoencoder; or none.

    Args:
        run: with the settings.
        data: the images.
        origin: the teacher, the model that the run begins with, or the run so far.
        device: where to encode them.
        autoencoder: of the run, where it names one.
        goes_on: whether the origin is the run so far.

    Raises:
        FewstepError: a model that is no autoencoder; an autoencoder that is not the origin's; what
            a latent space does not allow.
    """
    own = None if origin is None else origin.latents
    if autoencoder is None and own is None:
        return None
    if run.data.data is not None and is_pairs(Path(run.data.data)):
        raise FewstepError("pairs are of images: a model of latents cannot learn from them.")
    if run.training.flip:
        raise FewstepError("latents cannot be mirrored: leave out --flip.")
    if autoencoder is None:
        return None if own is None else own.to(device)
    network = network_of(autoencoder, run.autoencoder).to(device)
    if goes_on and own is not None:  # m and s to the bit, on whatever device they were found
        return Latents(network, own.m, own.s).to(device)
    latents = Latents.of(network, data)
    if origin is not None and (own is None or own.fingerprint != latents.fingerprint):
        raise FewstepError(
            f"{run.origin} is not a model of the latents of {run.autoencoder} and these images: "
            "leave out --autoencoder, and the training is in the space of that model."
        )
    return latents


def open_autoencoder(path: str, device: torch.device | str = "cpu") -> Autoencoder:
    """A trained autoencoder.

    Raises:
        FewstepError: nothing is there, or a model that is no autoencoder.
    """
    return network_of(open_model(path, device=device), path)


def network_of(model: AnyModel, path: object) -> Autoencoder:
    """The network of a model that must be an autoencoder.

    Raises:
        FewstepError: it is none.
    """
    model.trained.check_autoencoder(path)
    assert isinstance(model, AutoencoderModel)
    return model.network
