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
    teacher: AnyModel | None,
    device: torch.device,
    autoencoder: AnyModel | None,
) -> Latents | None:
    """The latent space to train in: that of the teacher, or of the run's autoencoder; or none.

    Args:
        run: with the settings.
        data: the images.
        teacher: of the run, or the model that it begins with.
        device: where to encode them.
        autoencoder: of the run, where it names one.

    Raises:
        FewstepError: a model that is no autoencoder; an autoencoder that is not the teacher's; what
            a latent space does not allow.
    """
    own = None if teacher is None else teacher.latents
    if autoencoder is None and own is None:
        return None
    if run.data.data is not None and is_pairs(Path(run.data.data)):
        raise FewstepError("pairs are of images: a model of latents cannot learn from them.")
    if run.training.flip:
        raise FewstepError("latents cannot be mirrored: leave out --flip.")
    if autoencoder is None:
        return None if own is None else own.to(device)
    latents = Latents.of(network_of(autoencoder, run.autoencoder).to(device), data)
    if teacher is not None and (own is None or own.fingerprint != latents.fingerprint):
        raise FewstepError(
            f"the teacher {run.teacher} is not a model of the latents of {run.autoencoder} and "
            "these images: a teacher of latents needs no --autoencoder, it has its own."
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
