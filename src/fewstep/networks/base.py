"""What every raw network is."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.needs import IMAGES
from fewstep.papers import Also, Cited
from fewstep.registry import Registry

NETWORKS: Registry[Network] = Registry("network")


class Network(Cited, nn.Module):
    """``F(x, c_noise, label=None, c_noise_s=None)``: [B, *shape] -> [B, *shape].

    ``c_noise`` [B] is the transformed time of ``x``; ``c_noise_s`` [B] that of the map's end,
    for networks with ``two_time``; ``label`` [B] int64, for networks with ``num_classes > 0``:
    without it, or in rows where it is ``num_classes``, there is no class (the null class).
    """

    also_cites: ClassVar[tuple[Also, ...]] = (
        Also("label_dropout", "ho2022classifier"),
        Also("guidance_embedding", "meng2023distillation"),
        Also("interval_embedding", ("geng2025improved", "kynkaanniemi2024applying")),
        Also("scaled_by_weight", "zhou2025terminal"),
    )

    channels_last: bool = False
    """Whether its feature maps are channels last, so that its weights are best laid out alike."""

    free_rows: bool = False
    """Whether many rows take hardly longer than one, as in a small network of matrix products, so
    that a batch may be filled up; see `fewstep.sampling.rows`."""

    takes: ClassVar[tuple[str, ...]] = ("label",)
    """The fields of a `fewstep.condition.Condition` that its forward takes as keywords."""
    gives: ClassVar[tuple[str, ...]] = (IMAGES,)
    """What it can be trained to give, of the kinds in `fewstep.needs`."""

    added: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Inputs that a network may have or not, by what each is, and the weights of each. With the
    first of them at zero, where it starts, the input adds nothing: so a network starts as one whose
    weights it takes and that has no such input."""

    label_dropout: float = 0.0
    """Probability that an objective hides an example's class in training, so that the null class
    is learned, too."""

    guidance_embedding: bool = False
    """Whether it takes a guidance weight ``w``, for a student of guided teachers."""

    interval_embedding: bool = False
    """Whether it takes the interval of noise levels at which ``w`` guides."""
    scaled_by_weight: bool = False
    """Whether `FlowMap` multiplies what it gives by ``w``."""

    class_gain: float = 1.0
    """By what the numbers of a class are multiplied where they come in."""

    needs_embedding: bool = False
    """Whether it has to be told an embedding, and knows none that says nothing."""

    embeds: int = 0
    """Numbers of an embedding, such as a text's, that it is conditioned on; 0 for none."""
    embeds_scale: float = 1.0
    """Their root mean square in the data that it was trained on."""

    shape: tuple[int, ...]
    num_classes: int
    two_time: bool
    _arguments: dict[str, Any]
    _computed: tuple[int, ...] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Network:
        """Remember the arguments, so that a stored network can be rebuilt."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs).arguments
        self.__dict__["_arguments"] = {k: v for k, v in bound.items() if k != "self"}
        return self

    def _take_embedding(self, numbers: int, scale: float) -> None:
        """Be conditioned on embeddings of so many numbers, by the keyword ``embedding``."""
        self.embeds, self.embeds_scale = numbers, scale
        if numbers:
            takes: Any = (*type(self).takes, "embedding")
            self.takes = takes  # type: ignore[misc]  # which depends on this input

    def _take_guidance(self, weight: bool, interval: bool, scaled: bool) -> None:
        """Be told a guidance weight and the interval of it, and be multiplied by the weight.

        Raises:
            FewstepError: either of the others without the weight.
        """
        if (interval or scaled) and not weight:
            name = "interval_embedding" if interval else "scaled_by_weight"
            raise FewstepError(
                f"{name} of a network is of the guidance weight that it takes: give "
                "guidance_embedding=True, --network.guidance-embedding, as well."
            )
        self.guidance_embedding = weight
        self.interval_embedding, self.scaled_by_weight = interval, scaled

    def added_weights(self, what: str) -> list[nn.Parameter]:
        """The weights of one of the inputs of `added`; none where it does not have that."""
        own = dict(self.named_parameters())
        return [own[name] for name in self.added.get(what, ()) if name in own]

    @property
    def computed(self) -> tuple[int, ...]:
        """The shape that it computes on: larger than `shape` where images have to be filled up."""
        return self._computed or self.shape

    @property
    def config(self) -> dict[str, Any]:
        """Name and arguments, for storage; `fewstep.networks.from_config` is its inverse."""
        return {"name": NETWORKS.name_of(type(self)), **self._arguments}

    @classmethod
    def stored(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments that mean now what those of a stored `config` meant when it was written."""
        return arguments

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        raise NotImplementedError


def checked_label_dropout(p: float) -> float:
    """A probability of hiding a class.

    Raises:
        FewstepError: one that is not in [0, 1).
    """
    if not 0 <= p < 1:
        raise FewstepError(f"label_dropout of a network must lie in [0, 1); got {p}.")
    return p


COMPILED = "_orig_mod"  # where torch.compile keeps the module that it wraps
PARALLEL = "module"  # where DataParallel and DistributedDataParallel do


def unwrapped(F: nn.Module) -> Network:
    """The network inside what torch wraps around one: compiled, data-parallel, or both.

    Raises:
        FewstepError: there is no network inside.
    """
    inner: Any = F
    while not isinstance(inner, Network):
        parts = inner._modules
        inner = parts.get(COMPILED) or parts.get(PARALLEL)
        if inner is None:
            raise FewstepError(f"{type(F).__name__} is not a network of fewstep, nor wraps one.")
    return inner


def plain_name(name: str) -> str:
    """A weight's name without the places where compiled modules keep what they wrap."""
    return ".".join(part for part in name.split(".") if part != COMPILED)
