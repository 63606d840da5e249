"""Autoguidance: a weaker model in the place of the null class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.guidance.guided import GUIDANCES, Denoising, Guidable, Guided, Open, embeds
from fewstep.registry import spec_of
from fewstep.trained import Trained

if TYPE_CHECKING:
    from typing import Self

DIGITS = 12  # of a fingerprint in a spec


@dataclass(frozen=True)
class Weak:
    """The weaker model of autoguidance.

    Args:
        place: where it is, as a spec names it; "" of a model that a program gives.
        model: the model itself, once it is opened.
    """

    place: str
    model: Guidable | None = None

    def __repr__(self) -> str:  # as it stands in a spec
        return repr(self.place)


@GUIDANCES.register("autoguided")
@dataclass(frozen=True)
class Autoguided(Guided):
    """Autoguidance: away from a weaker model of the same process, which is told the same class.

    The weaker model is one of the same data that has learned less, such as an early checkpoint of
    the same run, or one of a smaller network. The model needs no class and no null class.

    Args:
        w: weight, at least 0; 1 is no guidance, 0 the weaker model alone.
        interval: noise levels at which the model is guided, as of `Guided`; default all.
        weak: the weaker model. In a spec it is text, the place of the model, which the command line
            opens; in Python the model itself.
        sha256: first digits of its fingerprint, which a sampler's record has; a place that holds
            another model is refused.

    Raises:
        FewstepError: a weight or an interval out of range.
    """

    citation = "karras2024guiding"

    weak: Weak | Guidable | str = field(kw_only=True)
    sha256: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.weak
        if isinstance(given, str):
            object.__setattr__(self, "weak", Weak(given))
        elif not isinstance(given, Weak):
            object.__setattr__(self, "weak", Weak("", given))

    @property
    def other(self) -> Guidable:
        """The weaker model.

        Raises:
            FewstepError: it is named and not opened.
        """
        assert isinstance(self.weak, Weak)
        if self.weak.model is None:
            raise FewstepError(
                f"the weak model {self.weak.place or 'of this guidance'} is named, and nobody has "
                "opened it: give --weak MODEL --guidance W, or in Python autoguidance with the "
                "model itself, Autoguided(w, weak=fewstep.open_model(PATH))."
            )
        return self.weak.model

    def opened(self, open: Open) -> Self:
        """This autoguidance with the model of its place.

        Raises:
            FewstepError: another model is there than its record tells.
        """
        assert isinstance(self.weak, Weak)
        if self.weak.model is not None:
            return self
        model = open(self.weak.place)
        digest = str(getattr(model, "fingerprint", ""))[:DIGITS]
        if not digest.startswith(self.sha256[:DIGITS]):
            raise FewstepError(
                f"the weak model {self.weak.place} (SHA-256 {digest}) is not the one that was "
                f"asked for (SHA-256 {self.sha256})."
            )
        return replace(self, weak=replace(self.weak, model=model), sha256=digest)

    def check(self, f: Guidable) -> None:
        f.trained.check_autoguided()
        check_weak(self.other, f, "the model")
        if self.other.device != f.device:
            raise FewstepError(
                f"the weak model is on {self.other.device}, the model on {f.device}: bring both to "
                "one device."
            )

    def check_input(self, trained: Trained) -> None:
        raise FewstepError(
            "autoguidance leads a walk along the denoiser, and jumps of a map ask no weak model: "
            "leave it out, or give --sampler walk to a flow map."
        )

    def away(self, f: Denoising, x: Tensor, t: Tensor | float, condition: Condition) -> Tensor:
        return self.other.D(x, t, condition)


def check_weak(weak: Guidable, f: Guidable, whose: str) -> None:
    """Raise `FewstepError` unless a weaker model can guide another.

    It must be a denoiser at every time, of the same process, images and classes. What its network
    is, and how that is preconditioned, does not matter.

    Args:
        weak: the weaker model.
        f: the one that is guided.
        whose: that is, such as "the teacher".
    """
    weak.trained.check_weak()
    flow = bool(getattr(weak, "flows", True))  # of a model from elsewhere D is given as such
    weak.trained.check_diagonal("the weak model of autoguidance", flow=flow)
    for what, theirs, ours in _compared(weak, f):
        if theirs != ours:
            raise FewstepError(
                f"the weak model has {what} {theirs}, {whose} {ours}: autoguidance takes two "
                "models that agree in it, such as an early checkpoint of the same run."
            )
    if weak.p.T < f.p.T * (1 - 1e-6):
        raise FewstepError(
            f"the weak model knows noise up to T={weak.p.T:g} alone, {whose} up to T={f.p.T:g}."
        )


def _compared(weak: Guidable, f: Guidable) -> Iterator[tuple[str, Any, Any]]:
    """What must agree: its name, and that of both."""
    if not weak.p.process.same(f.p.process):
        yield "the process", spec_of(weak.p.process), spec_of(f.p.process)
    yield "the shape", list(weak.shape), list(f.shape)
    yield "as number of classes", weak.num_classes, f.num_classes
    numbers = tuple(map(str, range(f.num_classes)))
    if numbers not in (weak.classes, f.classes):  # of one that gives them no names
        yield "the classes", ", ".join(weak.classes), ", ".join(f.classes)
    yield "as size of embeddings", embeds(weak), embeds(f)
    yield "the latent space", _space(weak), _space(f)


def _space(f: Guidable) -> str:
    """What tells a latent space again; "none" of a model of images."""
    if f.latents is None:
        return "none"
    return str(getattr(f.latents, "fingerprint", "its own"))[:DIGITS]
