"""Networks of diffusers on their way back: as the pipeline that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.exchange.diffusers.parts import Part, Pipeline
from fewstep.exchange.diffusers.process import scheduled
from fewstep.flow_map import FlowMap
from fewstep.networks.diffusers.autoencoder import DiffusersAutoencoder
from fewstep.networks.diffusers.network import DiffusersNetwork
from fewstep.parameterization import from_config

PLACES = {"UNet2DModel": "unet", "UNet2DConditionModel": "unet"}
"""What pipelines call a network; the others are called transformer."""
LATENTS = {"LDMPipeline": "vqvae"}
"""What they call an autoencoder, where it is not vae."""


def wrapped(network: DiffusersNetwork | DiffusersAutoencoder) -> Part:
    """A network of diffusers as a component, its weights under their own names."""
    inside: Any = network.net
    settings = {name: value for name, value in inside.config.items() if name[:1] != "_"}
    module = type(inside).__name__
    return Part("diffusers", module, settings, _tensors(inside))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def returned(f: FlowMap) -> Pipeline | None:
    """The pipeline that a model came from; None where it did not come, or is another by now."""
    network, origin = f.network, f.info.get("origin")
    if not isinstance(network, DiffusersNetwork) or not isinstance(origin, Mapping):
        return None
    kind, scheduler = origin.get("pipeline"), origin.get("scheduler")
    if not isinstance(kind, str) or not isinstance(scheduler, Mapping):
        return None
    if not _is_still(f, scheduler) or not _is_whole(f):
        return None
    parts = {PLACES.get(network.module, "transformer"): wrapped(network)}
    if f.latents is not None:
        autoencoder = f.latents.autoencoder
        assert isinstance(autoencoder, DiffusersAutoencoder)
        parts[LATENTS.get(kind, "vae")] = wrapped(autoencoder)
    settings = {name: value for name, value in scheduler.items() if name[:1] != "_"}
    parts["scheduler"] = Part("diffusers", str(scheduler.get("_class_name")), settings)
    return Pipeline(kind, parts, _call(f), _notes(origin), origin.get("sampler"), _more(f), True)


def _is_still(f: FlowMap, scheduler: Mapping[str, Any]) -> bool:
    """Whether the model is of the process and the kind that its scheduler says."""
    try:
        said = scheduled(scheduler, latent=f.latents is not None, source="its scheduler")
    except FewstepError:
        return False
    mine, theirs = f.p.config, from_config(dict(said.process)).config
    return mine == theirs and f.trained.maps_to_eps == said.consistency


def _is_whole(f: FlowMap) -> bool:
    """Whether the latent space, where there is one, is diffusers', too."""
    return f.latents is None or isinstance(f.latents.autoencoder, DiffusersAutoencoder)


def _call(f: FlowMap) -> tuple[str, ...]:
    return ("num_inference_steps=1",) if f.trained.maps_to_eps else ("num_inference_steps=50",)


def _notes(origin: Mapping[str, Any]) -> tuple[str, ...]:
    sampler = origin.get("sampler")
    return (f"its pipeline samples as {sampler} does here",) if sampler else ()


def _more(f: FlowMap) -> dict[str, Any]:
    """Values of the index: the names of classes, by their numbers."""
    names = f.trained.classes
    return {"id2label": {str(i): name for i, name in enumerate(names)}} if names else {}
