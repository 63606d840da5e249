"""A model of either sort from its file."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.flow_map import FlowMap
from fewstep.model_file import read_header
from fewstep.stored_model import StoredModel

AnyModel = FlowMap | AutoencoderModel


def as_map(model: AnyModel, what: str) -> FlowMap:
    """A model that must be a map along the PF-ODE.

    Raises:
        FewstepError: an autoencoder; the message begins with ``what`` needs the map.
    """
    model.trained.check_flow(what)
    assert isinstance(model, FlowMap)
    return model


def as_sampled(model: StoredModel) -> FlowMap:
    """A model of either sort as samplers see one: an autoencoder's asks it for no map."""
    return cast("FlowMap", model)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> AnyModel:
    """The map or the autoencoder that a model file holds.

    Raises:
        FewstepError: the file is missing, damaged, or of another version.
    """
    header = read_header(Path(path))
    sort = AutoencoderModel if header.parameterization is None else FlowMap
    return sort.load(path, device)
