"""The models that are served, by id, and what each of them can do."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fewstep.classes import find_class
from fewstep.data.encoders import TextReader
from fewstep.data.images import check_pictures
from fewstep.editing.tasks import TASKS, ColouriseTask
from fewstep.errors import FewstepError, FewstepWarning, unknown
from fewstep.exchange.graphs.engines import Engine, Torch
from fewstep.flow_map import FlowMap
from fewstep.hub_name import HubName, is_hub
from fewstep.models import as_sampled
from fewstep.precision import Precision
from fewstep.runs.opening import open_model
from fewstep.runs.prompts import encoder_named, takes_embeddings

DIGITS = Path("runs/reproduce-digits")
PREFERRED = ("cd", "ect", "ict", "ct", "edm")
"""Models of the digits reproduction, the one that is offered first in front."""


@dataclass(frozen=True)
class Shelf:
    """Models by id, the default first, and what evaluates them.

    Args:
        models: by id; none where trainings are watched alone.
        engine: what evaluates them.
        places: where each was opened, as far as that is known.
        readers: of the prompts of models that are told texts.
    """

    models: dict[str, FlowMap]
    engine: Engine = field(default_factory=Torch)
    places: dict[str, Path] = field(default_factory=dict)
    readers: dict[str, TextReader] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        runs: Sequence[Path],
        *,
        checkpoint: str = "last",
        ema: str | None = None,
        device: torch.device | str = "cpu",
        precision: Precision | None = None,
        engine: Engine | None = None,
        encoder: str | None = None,
    ) -> Shelf:
        """The models of runs, or those that ``reproduce digits`` has made here.

        A model's id is the name of its folder or file; where two share one, with the folder above.
        An encoder makes embeddings of the prompts of models that are told texts; default the one
        that each names.

        Raises:
            FewstepError: a run that is none, one that makes no images, or nothing to serve; an
                encoder that cannot be imported, or that no model takes.
        """
        paths = list(runs) or [DIGITS / n for n in PREFERRED if (DIGITS / n).is_dir()]
        if not paths:
            raise FewstepError(
                "there is no model to serve: name a run, or make one with fewstep reproduce digits."
            )
        engine = engine or Torch()
        models: dict[str, FlowMap] = {}
        places = dict(zip(names_for(paths), paths, strict=True))
        for name, path in places.items():
            opened = open_model(
                path, checkpoint=checkpoint, ema=ema, device=device, precision=precision
            )
            f = as_sampled(opened)
            check_pictures(as_sampled(f).image_shape, path)
            f.trained.check_known(f"serving {path}")
            models[name] = engine.model(f.eval().requires_grad_(False))
        return cls(models, engine, places, _readers(models, encoder))

    def __getitem__(self, name: str | None) -> tuple[str, FlowMap]:
        """Id and model of a name; the default for None.

        Raises:
            FewstepError: no such model, or none at all.
        """
        if not self.models:
            raise FewstepError("this server watches trainings and has no model: see fewstep serve.")
        name = next(iter(self.models)) if name is None else name
        if name not in self.models:
            raise unknown("model", name, self.models)
        return name, self.models[name]

    def default_steps(self, f: FlowMap) -> int:
        """Steps of a model where nobody asks for others."""
        return self.engine.steps or f.trained.default_steps

    def describe(self, most_steps: int) -> list[dict[str, Any]]:
        """What a client needs to know of each model."""
        return [
            {
                "id": name,
                "object": "model",
                "default": i == 0,
                "kind": f.trained.kind,
                "solves": f.trained.solves,
                "maps": f.trained.maps_to_eps and f.trained.from_any_time,
                "objective": str(f.info.get("objective", "")).partition("(")[0] or None,
                "shape": list(f.image_shape),
                "classes": class_names(f),
                "prompts": name in self.readers,
                "sampler": f.trained.sampler,
                "guides": f.trained.guides,
                "guidance": f.trained.guidance,
                "default_steps": self.default_steps(f),
                "max_steps": self.engine.steps or f.trained.steps or most_steps,
                "engine": self.engine.name,
                "tasks": tasks_of(f),
                **({"path": _shown(self.places[name])} if name in self.places else {}),
            }
            for i, (name, f) in enumerate(self.models.items())
        ]


def _shown(place: Path) -> str:
    """Where a model lies, as a command is given it in the folder of the server.

    Of one elsewhere the name alone is told: its place is nobody else's concern.
    """
    if is_hub(place) or not place.is_absolute():
        return readable(str(place))
    here = Path.cwd()
    within = place.is_relative_to(here)
    return readable(str(place.relative_to(here) if within else Path("path/to") / place.name))


def names_for(paths: Sequence[Path]) -> list[str]:
    """A name for each model: of its file or folder, with its parent's or a number if needed."""
    parents, short = zip(*map(_own_name, paths), strict=True)
    names = [
        name if short.count(name) == 1 else f"{parent}-{name}"
        for parent, name in zip(parents, short, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name}-{names[:i].count(name) + 1}"
        for i, name in enumerate(names)
    ]


def _own_name(path: Path) -> tuple[str, str]:
    """The name of the folder above a model, and its own; of one of the hub its owner's."""
    place = Path(HubName.of(path).place) if is_hub(path) else path.resolve()
    return readable(place.parent.name), readable(place.name.removesuffix(".safetensors"))


def readable(name: str) -> str:
    """A name as text that can be sent: the name of a file may hold any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def class_names(f: FlowMap) -> list[str] | None:
    """The classes of a conditional model."""
    if not f.num_classes:
        return None
    return list(f.classes)


def tasks_of(f: FlowMap) -> list[str]:
    """Names of the edits that a model can do."""
    if f.latents is not None or not f.trained.from_any_time:
        return []
    if not f.trained.maps_to_eps:
        return ["denoise"]
    return [n for n in TASKS if f.shape[0] == 3 or TASKS[n] is not ColouriseTask]


def class_number(f: FlowMap, label: int | str | None) -> int | None:
    """A class by number or name; None for none.

    Raises:
        FewstepError: an unconditional model, or a class that it does not have.
    """
    if label is None:
        return None
    if not f.num_classes:
        raise FewstepError("this model is unconditional: it takes no class.")
    return find_class(f.classes, label)


def _readers(models: dict[str, FlowMap], encoder: str | None) -> dict[str, TextReader]:
    """What reads prompts, for each model that is told texts; an encoder is imported once.

    A model whose own encoder is not to be had is served without prompts, and that is said.

    Raises:
        FewstepError: the user's cannot be imported, or no model takes it.
    """
    told = {name: f for name, f in models.items() if takes_embeddings(f)}
    if encoder is not None and not told:
        raise FewstepError("no model here is told embeddings: leave out --encoder.")
    made: dict[str, TextReader] = {}
    found: dict[str, TextReader] = {}
    for model, f in told.items():
        if (name := encoder_named(f, encoder)) is None:
            continue
        try:
            found[model] = made[name] = made.get(name) or TextReader(name)
        except FewstepError as error:
            if encoder is not None:
                raise
            said = f"{model} is served without prompts: {error}"
            warnings.warn(said, FewstepWarning, stacklevel=3)
    return found


def class_asked(
    f: FlowMap, label: int | str | None, prompt: str | None, *, read: bool = False
) -> tuple[int | str | None, list[str]]:
    """The class that a request asks for, by field or by prompt, and what is to be said of it.

    Args:
        f: the model.
        label: the field.
        prompt: that of the request.
        read: whether the model is told the prompt itself.
    """
    prompt = (prompt or "").strip()
    if label is not None or read or not prompt:
        return label, []
    if takes_embeddings(f):
        return None, ["the prompt is not looked at: nothing here makes an embedding of it."]
    if class_names(f) is None:
        return None, ["the prompt is not looked at: this model has no classes."]
    return prompt, []
