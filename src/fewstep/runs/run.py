"""A training as data: what is trained on what, how, in a form that is stored and overridden.

Nothing here imports torch, so that the command line can show every recipe at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fewstep.errors import FewstepError, unknown
from fewstep.fit_name import FitName
from fewstep.needs import LATENTS, Needs, TeacherUse
from fewstep.records import record_of
from fewstep.training.config import Training


@dataclass(frozen=True)
class Companion:
    """A model that a run may begin with.

    Args:
        help: what it is.
        taken: whether an objective of such needs has a use for it.
        passing: whether its part is done once the run has begun.
    """

    help: str
    taken: Callable[[Needs], bool] = lambda needs: True
    passing: bool = False


def companion(help: str, **settings: Any) -> Any:
    """The field of a run that names a `Companion`."""
    return field(default=None, metadata={"companion": Companion(help, **settings)})


@dataclass(frozen=True)
class Component:
    """A class by its registered name, and the arguments that differ from its defaults."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = self.arguments.items()  # JSON has no tuples: a run that goes on says the same
        inside = ", ".join(f"{k}={tuple(v) if isinstance(v, list) else v!r}" for k, v in given)
        return f"{self.name}({inside})" if inside else self.name


def component(name: str, **arguments: Any) -> Component:
    """``component("mlp", width=256)``."""
    return Component(name, arguments)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images to train on."""

    data: str | None = None
    """"digits", "fashion-mnist", a folder of images, a .parquet, .npz, .npy or IDX file, or
    hub:NAME."""
    size: int | None = None
    """Side that images are cropped and resized to; default their own, which must be one."""
    fit: FitName = "crop"
    """What becomes of pictures that are not square: crop to the middle; crop to the content, the
    square with the most detail; pad, the whole picture with its longer side of that size; stretch;
    or tile, squares of that size side by side, without resizing."""
    channels: int | None = None
    """1 for grey, 3 for colour; default what the images are."""
    labels: bool = True
    """Condition on the class, where the images have classes."""
    image_column: str | None = None
    """Column of the images in a Parquet file or hub data set, or array of an .npz, where several
    could be meant."""
    label_column: str | None = None
    """Column, or array, of the classes, where several could be meant or none is called like one."""
    encoder: str | None = None
    """Makes embeddings of the texts beside the images, to be conditioned on: module:function, or
    file.py:function, which is given a list of texts and gives floats [n, d] or [n, tokens, d]."""
    text_column: str | None = None
    """Column of the texts in metadata.jsonl or a table, where it is not called text, caption,
    prompt or description; several, separated by commas, are put together."""
    embeddings: str | None = None
    """Embeddings in place of an encoder: an .npy or .safetensors with a row for each image, or
    columns of numbers in metadata.jsonl or a table, separated by commas."""
    skip_bad: bool = False
    """Leave out files that cannot be read, and count them, instead of stopping."""

    def without_texts(self) -> Data:
        """The same images, without what is written of them: no encoder is asked."""
        return replace(self, encoder=None, text_column=None, embeddings=None)

    def read_as(self, how: Data) -> Data:
        """The same images, read as somebody else says where he says anything.

        Args:
            how: names of columns; labels and broken files that are to be left out.
        """
        return replace(
            self,
            labels=self.labels and how.labels,
            skip_bad=self.skip_bad or how.skip_bad,
            image_column=how.image_column or self.image_column,
            label_column=how.label_column or self.label_column,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training.

    Args:
        objective: what is minimised.
        network: the raw network; its shape and classes come from the data.
        p: the parameterization.
        data: the images.
        training: how.
        teacher, weak, autoencoder, init: models to begin with: see `COMPANIONS`.
        taus: time points for several sampling steps, by the number of steps; stored with the model.
    """

    objective: Component
    network: Component
    p: Component
    data: Data
    training: Training
    teacher: str | None = companion(
        "Run folder, model file or hub:NAME of the diffusion model to start from.",
        taken=lambda needs: needs.teacher is not TeacherUse.NONE,
    )
    weak: str | None = companion(
        "Run folder, model file or hub:NAME of a weaker diffusion model that guides the teacher in "
        "the place of its null class (autoguidance), such as an early checkpoint of its run.",
        taken=lambda needs: needs.guided,
    )
    autoencoder: str | None = companion(
        "Run folder, model file or hub:NAME of the autoencoder in whose latent space to train.",
        taken=lambda needs: needs.network != LATENTS,
    )
    init: str | None = companion(
        "Run folder, model file or hub:NAME whose weights to begin with, whatever it was trained "
        "for.",
        passing=True,
    )
    taus: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The model that it begins with, whose classes and latents it shares, as users call it."""
        return f"the model {self.init}" if self.teacher is None else f"the teacher {self.teacher}"

    def flat(self) -> dict[str, Any]:
        """Every setting that differs from a component's default, under its flat key."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in COMPANIONS}
        settings |= asdict(self.data) | asdict(self.training)
        for prefix in ("objective", "network", "p"):
            part: Component = getattr(self, prefix)
            settings |= {f"{prefix}.{k}": v for k, v in part.arguments.items()}
        return settings

    def override(self, settings: Mapping[str, Any]) -> Run:
        """A copy with other settings, by flat key: ``{"steps": 10, "objective.s1": 20}``.

        Augmentation mirrors half of the images, too: with ``augment`` alone ``flip`` ends.

        Raises:
            FewstepError: unknown key; the message has the nearest valid one.
        """
        run, together = self, dict[str, dict[str, Any]]()
        for key, value in settings.items():
            if record := self._record_of(key):  # whose values may be right together alone
                together.setdefault(record, {})[key] = value
            else:
                run = run._set(key, value)
        if (own := together.get("training", {})).get("augment"):
            own.setdefault("flip", False)
        for record, values in together.items():
            changed: Any = {record: replace(getattr(run, record), **values)}
            run = replace(run, **changed)
        return run

    def _record_of(self, key: str) -> str | None:
        """The record of settings that a key belongs to."""
        for record in ("training", "data"):
            if key in {f.name for f in dataclasses.fields(getattr(self, record))}:
                return record
        return None

    def _set(self, key: str, value: Any) -> Run:
        prefix, dot, name = key.partition(".")
        if dot and prefix in ("objective", "network", "p"):
            part: Component = getattr(self, prefix)
            changed: Any = {prefix: replace(part, arguments=part.arguments | {name: value})}
            return replace(self, **changed)
        if key in COMPANIONS:
            other: Any = {key: value}
            return replace(self, **other)
        raise unknown("setting", key, self.flat())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, stored: Any) -> Run:
        """What `to_json` gave.

        Raises:
            FewstepError: something else.
        """
        return record_of(cls, stored, "run")


COMPANIONS: dict[str, Companion] = {
    f.name: f.metadata["companion"] for f in dataclasses.fields(Run) if f.metadata
}
"""The models that a run may begin with, by the setting that names each."""


def require(value: Any, what: str) -> Any:
    """``value``, or a `FewstepError` that says what is missing."""
    if value is None:
        raise FewstepError(what)
    return value
