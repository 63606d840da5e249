"""The networks of a model as parts that somebody else evaluates: a recording, or an engine.

A model is arithmetic around at most two networks: the one that it evaluates at every step, and in
a latent space the decoder. `answered_by` is the same model with other answers in their places.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Autoguided
from fewstep.latents import Latents
from fewstep.networks import Autoencoder, Network

N = TypeVar("N", bound=Network)
Model = FlowMap | AutoencoderModel

OPTIONAL = ("c_noise_s", "label", "w", "interval")
"""What a network may be told besides ``x`` and ``c_noise``, in the order of a part's inputs."""


@dataclass(frozen=True)
class Part:
    """A network with so many inputs, or a decoder.

    Args:
        network: of the model.
        decodes: whether it is the decoder of an autoencoder.
        told: of `OPTIONAL`, what the network is told.
    """

    network: Network
    decodes: bool = False
    told: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name among the parts of a model."""
        return "decoder" if self.decodes else "_".join(["network", *self.told])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs."""
        return ("z",) if self.decodes else ("x", "c_noise", *self.told)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights, and of what it is given."""
        return next(self.network.parameters()).dtype

    def example(self, rows: int) -> tuple[Tensor, ...]:
        """Inputs of so many rows, the same each time."""
        generator = torch.Generator().manual_seed(0)
        if self.decodes:
            assert isinstance(self.network, Autoencoder)
            z = torch.randn(rows, *self.network.latent_shape, generator=generator)
            return (z.to(self.dtype),)
        x = torch.randn(rows, *self.network.shape, generator=generator).to(self.dtype)
        times = torch.linspace(0.1, 1.0, rows)
        label = torch.arange(rows) % max(1, self.network.num_classes)
        interval = torch.stack([times / 3, 2 + times], 1)
        more = {"c_noise_s": times / 2, "label": label, "w": 1 + times, "interval": interval}
        return (x, times, *(more[name] for name in self.told))  # no tensor twice

    def module(self) -> nn.Module:
        """The part as a module of its inputs, for any number of rows."""
        return _Decoding(self.network) if self.decodes else _Evaluating(self.network, self.told)


class _Evaluating(nn.Module):
    def __init__(self, network: Network, told: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.told = network, told

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        c_noise, *more = of_rows(x, given)
        return self.network(x, c_noise, **dict(zip(self.told, more, strict=True)))


def of_rows(x: Tensor, given: Iterable[Tensor]) -> Iterator[Tensor]:
    """What a network is told, for as many rows as ``x`` has, where it is the same for all."""
    return (value.expand(x.shape[0], *value.shape[1:]) for value in given)


class _Decoding(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        network: Any = self.network
        return network.decode(z)


Answer = Callable[..., Tensor]
"""What stands in the place of a part: its inputs to its output."""


def check_told_by_class(f: Any) -> None:
    """Raise `FewstepError` for a model that is told more than a class, which no graph has.

    Without its embedding it would be sampled as if nothing were wanted, and nobody would see.
    """
    network = getattr(f, "network", None)
    if getattr(network, "embeds", 0):
        raise FewstepError(
            "this model is told what is wanted by an embedding, such as a text's, for which graphs "
            "have no input: sample it with torch."
        )


def check_one_model(sampler: object) -> None:
    """Raise `FewstepError` for a sampler that asks a second model, which no export has."""
    if isinstance(getattr(sampler, "guidance", None), Autoguided):
        raise FewstepError(
            "autoguidance asks a second model, and what is exported has one: leave it out, or "
            "distil the guided model, --weak MODEL --objective.guidance W."
        )


def parts_of(f: Model) -> list[Part]:
    """The parts that a model asks, whatever is done with it."""
    if isinstance(f, AutoencoderModel):
        return [Part(f.network, decodes=True)]
    F = f.network
    has = {"c_noise_s": F.two_time, "label": F.num_classes}
    has |= {"w": F.guidance_embedding, "interval": F.interval_embedding}
    network = Part(F, told=tuple(name for name in OPTIONAL if has[name]))
    return [network, *([] if f.latents is None else [Part(f.latents.autoencoder, decodes=True)])]


def answered_by(f: Model, answer: Callable[[Part], Answer]) -> Model:
    """The model, whose parts are evaluated by something else.

    Args:
        f: the model; it shares its weights with the result.
        answer: what evaluates a part; asked for once per evaluation.
    """
    if isinstance(f, AutoencoderModel):
        return AutoencoderModel(_decoding(f.network, answer), trained=f.trained, info=f.info)
    network, latents = f.network, f.latents
    if latents is not None:
        latents = Latents(_decoding(latents.autoencoder, answer), latents.m, latents.s)

    def forward(x: Tensor, c_noise: Tensor, **given: Tensor) -> Tensor:
        if network.num_classes and "label" not in given:  # which is the null class
            given["label"] = torch.full((len(x),), network.num_classes, device=x.device)
        part = Part(network, told=tuple(name for name in OPTIONAL if name in given))
        return answer(part)(x, c_noise, *(given[name] for name in part.told))

    F = _with_method(network, "forward", forward)
    return FlowMap(F, f.p, trained=f.trained, info=f.info, latents=latents).eval()


def _decoding(autoencoder: Autoencoder, answer: Callable[[Part], Answer]) -> Autoencoder:
    part = Part(autoencoder, decodes=True)
    return _with_method(autoencoder, "decode", lambda z: answer(part)(z))


def _with_method(network: N, name: str, method: Callable[..., Tensor]) -> N:
    """A network of the same weights and settings with another method of this name."""
    own = copy.copy(network)
    vars(own)[name] = method
    return own
