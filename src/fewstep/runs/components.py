"""The components that a run is made of: their kinds, their settings, and one of each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.data.augment import NUMBERS
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.models import AnyModel
from fewstep.networks import NETWORKS, Autoencoder, Network
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.parameterization import PARAMETERIZATIONS, Parameterization, from_config
from fewstep.plugins.used import Used, used_in
from fewstep.registry import Registry
from fewstep.runs.run import COMPANIONS, Run
from fewstep.trained import Trained

REGISTRIES: dict[str, Registry[Any]] = {
    "objective": OBJECTIVES,
    "network": NETWORKS,
    "p": PARAMETERIZATIONS,
}


def objective_of(run: Run) -> type[Objective]:
    """The class of the run's objective."""
    return OBJECTIVES[run.objective.name]


def arguments_of(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The settings of an objective, network or parameterization that a user may override."""
    given = {"self", "f", "K", *COMPANIONS, "shape", "num_classes"}
    found = inspect.signature(REGISTRIES[kind][name]).parameters
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {k: v for k, v in found.items() if k not in given and v.kind not in rest}


def plugins_of(recipe: str, run: Run) -> tuple[Used, ...]:
    """The plugins that gave a run's recipe, components or reader of data."""
    reader = (run.data.data or "").partition(":")[0]
    parts = [asdict(part) for part in (run.objective, run.network, run.p)]
    return used_in(recipe, reader, *parts, asdict(run.training))


def make_network(
    run: Run,
    shape: tuple[int, ...],
    num_classes: int,
    *,
    embeds: tuple[int, float] | None = None,
) -> Network:
    """The run's network, freshly initialised.

    Args:
        run: with the settings.
        shape: of the examples.
        num_classes: of the examples.
        embeds: the numbers of their embeddings and a typical size of these, where they have some.

    Raises:
        FewstepError: embeddings for a network that takes none.
    """
    arguments = {"shape": shape, "num_classes": num_classes, **run.network.arguments}
    if run.training.augment and "augment" in arguments_of("network", run.network.name):
        arguments.setdefault("augment", NUMBERS)  # the network is told how
    if embeds is not None and "embeds" in arguments_of("network", run.network.name):
        arguments |= {"embeds": embeds[0], "embeds_scale": embeds[1]}
    elif embeds is not None and "embedding" not in NETWORKS[run.network.name].takes:
        raise FewstepError(
            f"the images have embeddings, and the network {run.network.name} takes none: choose "
            "unet, adm or dit, --network, or leave out --encoder and --embeddings."
        )
    return NETWORKS.call(run.network.name, arguments)


def make_p(run: Run) -> Parameterization:
    """The run's parameterization."""
    return from_config({"name": run.p.name, **run.p.arguments})


def make_model(
    F: Network,
    p: Parameterization,
    trained: Trained | None = None,
    info: Mapping[str, Any] | None = None,
    latents: Latents | None = None,
) -> AnyModel:
    """The model of a run's network: a map of its process, or an autoencoder, which has none."""
    if isinstance(F, Autoencoder):
        return AutoencoderModel(F, info=info)
    return FlowMap(F, p, trained=trained, info=info, latents=latents)


def make_objective(
    run: Run, f: AnyModel, models: Mapping[str, AnyModel], **others: Any
) -> Objective:
    """The run's objective.

    Args:
        run: with the settings.
        f: the map that it trains.
        models: companions by name; it is given those that its constructor asks for.
        others: settings in place of the run's.
    """
    known = inspect.signature(objective_of(run)).parameters
    asked = {name: model for name, model in models.items() if name in known}
    arguments = {"f": f, "K": run.training.steps, **run.objective.arguments, **asked, **others}
    return OBJECTIVES.call(run.objective.name, arguments)
