"""What a model file holds: a network with its weights, and what it says of itself.

`StoredModel` is the base of `FlowMap`, a map along the PF-ODE, and of `AutoencoderModel`. It is
stored as one safetensors file that describes itself: the weights, and in the header the network,
the parameterization of a map, the record of what was trained and `info`, as JSON. Nothing in it is
ever executed.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewstep import networks
from fewstep.classes import names_for
from fewstep.digest import sha256_of_weights
from fewstep.distributed import checked_device
from fewstep.errors import FewstepError, refusals
from fewstep.files import replacing, write_tensors
from fewstep.latents import Latents
from fewstep.model_file import HEADER, Header, ModelFile, not_a_model, open_model_file
from fewstep.named_tensors import (
    LATENTS,
    check_decoder,
    check_fit,
    decoder_of,
    load_tensors,
    named_tensors,
    own_names,
    with_added,
)
from fewstep.networks import Network, skeleton, unfinished, unwrapped
from fewstep.plugins.used import check_used
from fewstep.precision import Precision, dtype_of, has_float64
from fewstep.trained import Info, Trained, from_legacy

if TYPE_CHECKING:
    from typing import Self

MORE = 1000  # weights that a network may have beyond its file's, so that the first is named


class StoredModel(nn.Module):
    """A network that knows what it was trained for.

    Args:
        F: raw network (see `fewstep.networks`).
        trained: what training made of it; default a record of which nothing is known. An objective
            sets it on the model that it trains.
        info: free JSON values that travel with the weights, such as the recipe. The keys that
            earlier versions had (``kind``, ``classes``, ...) become the record.
        latents: the latent space that ``x`` lives in; None where ``x`` is the image itself.

    Raises:
        FewstepError: a network of another shape than the latents; a record in both ways.
    """

    sort: ClassVar[str]
    """What it is, for a sentence."""
    decodes: ClassVar[bool] = False
    """Whether it is an autoencoder, and no map along the PF-ODE."""

    def __init__(
        self,
        F: Network,
        *,
        trained: Trained | None = None,
        info: Mapping[str, Any] | None = None,
        latents: Latents | None = None,
    ) -> None:
        super().__init__()
        shape = unwrapped(F).shape
        if latents is not None and latents.shape != shape:
            raise FewstepError(
                f"the network maps shape {list(shape)}, the latents have {list(latents.shape)}."
            )
        self.F = F
        self.trained, self.info = trained or Trained(), info or {}
        if trained is not None and self.trained is not trained:
            raise FewstepError("give what was trained as trained or in info, not both.")
        self.latents = latents

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "F":  # another network has other weights
            self.__dict__.pop("weights", None)
        super().__setattr__(name, value)

    @property
    def info(self) -> Info:
        """Free JSON values that travel with the weights."""
        return self._info

    @info.setter
    def info(self, values: Mapping[str, Any]) -> None:
        old, rest = from_legacy(values)
        self.trained = old if old != Trained() else self.trained
        self._info = Info(rest)

    @property
    def network(self) -> Network:
        """The raw network itself, where ``F`` is one that torch compiled or made data-parallel."""
        return unwrapped(self.F)

    @property
    def free_rows(self) -> bool:
        """Whether many rows take hardly longer than one, in the network and in the decoder."""
        decoder = None if self.latents is None else self.latents.autoencoder
        return self.network.free_rows and (decoder is None or decoder.free_rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one ``x``."""
        return self.network.shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image; that of ``x`` unless the model lives in a latent space."""
        return self.shape if self.latents is None else self.latents.image_shape

    def image(self, x: Tensor) -> Tensor:
        """The images of points ``x`` at time 0: [B, *shape] to [B, *image_shape]."""
        return x if self.latents is None else self.latents.decode(x)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for an unconditional model."""
        return self.network.num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each class; their numbers where the file has no names."""
        return names_for(self.num_classes, self.trained.classes)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @cached_property
    def weights(self) -> list[Tensor]:
        """The parameters of ``F``; walking a large network for them takes milliseconds."""
        return list(self.F.parameters())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's weights, in which it is evaluated."""
        if torch.compiler.is_compiling():  # which does not know cached properties
            return next(self.F.parameters()).dtype
        return self.weights[0].dtype

    @property
    def x_dtype(self) -> torch.dtype:
        """Type of the points of a walk: that of the weights, and at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def in_precision(self, precision: Precision) -> Self:
        """Keep the network's weights, and compute it, in fp32, bf16 or fp16; in place.

        Times, frequencies, the coefficients of a parameterization and so the steps of a sampler
        stay in float32, and what comes out is float32: only ``F`` is rounded.

        Raises:
            FewstepError: another precision.
        """
        dtype = dtype_of(precision)
        for weight in self.weights:
            weight.data = weight.data.to(dtype)
        return self

    def frozen_copy(self) -> Self:
        """A copy without gradients, such as a running average; the latent space is shared."""
        shared = {} if self.latents is None else {id(self.latents): self.latents}
        return copy.deepcopy(self, shared).requires_grad_(False)

    @torch.no_grad()
    def average_(self, f: StoredModel, mu: float) -> None:
        """``theta <- mu theta + (1 - mu) theta_f`` in place; buffers, which never change, stay."""
        torch._foreach_lerp_(self.weights, f.weights, 1 - mu)

    def tensors(self) -> dict[str, Tensor]:
        """Every weight under its name in a model file, whatever torch has wrapped around it."""
        decoder = {} if self.latents is None else named_tensors(self.latents)
        return named_tensors(self.network) | {LATENTS + name: x for name, x in decoder.items()}

    def header(self) -> dict[str, str]:
        """The safetensors metadata that describes this model.

        Raises:
            FewstepError: a value of `info` that cannot be stored.
        """
        return {HEADER: self._described_by().text()}

    def _described_by(self) -> Header:
        latents = None if self.latents is None else self.latents.config
        return Header(self.network.config, self.process, self.trained, self.info, latents)

    def __repr__(self) -> str:
        numbers = sum(x.numel() for x in named_tensors(self.network).values())
        return f"<{type(self).__name__}: {self._described_by().line(numbers)}>"

    def save(self, path: str | Path) -> None:
        """Write weights, in their own type, and description as one file, whole or not at all.

        Raises:
            FewstepError: the disk is full or not writable; a value of `info` that cannot be stored.
        """
        tensors = {k: v.detach().contiguous() for k, v in self.tensors().items()}
        try:
            with replacing(Path(path)) as partial:
                write_tensors(partial, tensors, self.header())
        except (SafetensorError, OSError) as error:
            raise FewstepError(f"cannot write the model {path}: {error}.") from error

    @classmethod
    @refusals()
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read what `save` wrote, in the type of its weights.

        Raises:
            FewstepError: the file is missing, damaged, of another version or sort; a latent
                model without its decoder; or the device is not there.
        """
        path, device = Path(path), checked_device(device)
        with open_model_file(path, device) as file:
            cls._check_sort(file)
            names = own_names(file.shapes)
            check_decoder(file.header.latents is not None, names, path)
            f = cls._described(file, skeleton(most=len(names) + MORE))
            check_fit(f.tensors(), {own: file.shapes[name] for own, name in names.items()}, path)
            f._check_types({own: file.types[name] for own, name in names.items()}, device, path)
            f._fill({own: file.tensor(names[own], how) for own, how in f._layouts().items()})
            if unfinished(f):  # a tensor that no file stores, but the arguments decide
                weights, f = f.tensors(), cls._described(file, nullcontext())
                f._fill(weights)
        return f.to(device).eval()

    @classmethod
    def _described(cls, file: ModelFile, building: AbstractContextManager[None]) -> Self:
        """The model that a file's header describes, whose networks are built in a block."""
        header = file.header
        check_used(header.plugins, file.path)
        try:
            with building:
                F = networks.from_config(header.network)
                latents = None if header.latents is None else Latents.from_config(header.latents)
            if header.trained.known and F.label_dropout:  # of which earlier versions noted nothing
                header = replace(header, trained=replace(header.trained, null_class=True))
            f = cls._of(header, F, latents)
            f._check_classes()
        except Exception as error:  # whatever values of any type may lead to
            raise not_a_model(file.path, error) from error
        return f

    @classmethod
    def _check_sort(cls, file: ModelFile) -> None:
        """Raise `FewstepError` for a file of another sort of model."""
        if (file.header.parameterization is None) != cls.decodes:
            what = "a map along the PF-ODE" if cls.decodes else "an autoencoder"
            raise FewstepError(f"{file.path} is {what}, not {cls.sort}: open_model opens either.")

    @classmethod
    @abstractmethod
    def _of(cls, header: Header, F: Network, latents: Latents | None) -> Self:
        """The model of a header, whose networks are there."""

    @property
    @abstractmethod
    def process(self) -> dict[str, Any] | None:
        """Name and arguments of the parameterization; None of a model that has none."""

    @property
    def identity(self) -> list[Any]:
        """What a fingerprint of the model covers besides its weights."""
        return [self.network.config, self.process]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the network's weights and of what `identity` says."""
        settings = json.dumps(self.identity, sort_keys=True)
        return sha256_of_weights(settings, named_tensors(self.network))

    def _check_classes(self) -> None:
        """Raise `FewstepError` where the record names other classes than the network has."""
        names, n = self.trained.classes, self.num_classes
        if names and len(names) != n:
            raise FewstepError(f"trained.classes has {len(names)} names, the network {n} classes")

    def _check_types(
        self, types: Mapping[str, torch.dtype], device: torch.device | str, source: object
    ) -> None:
        """Raise `FewstepError` unless the weights of each network have one type."""
        names = [name for name, _ in self.named_parameters()]
        for part in ("F.", "latents."):
            mine = [name.removeprefix("F.") for name in names if name.startswith(part)]
            found = {str(types[name]).removeprefix("torch.") for name in mine}
            if len(found) > 1:
                raise FewstepError(
                    f"the weights of {source} have several types, {' and '.join(sorted(found))}: "
                    "save it in one, such as by f.float()."
                )
        if not has_float64(torch.device(device)) and torch.float64 in types.values():
            raise FewstepError(f"{source} is a float64 model, which an Apple GPU does not have.")

    def _layouts(self) -> dict[str, torch.memory_format]:
        """How the numbers of each weight lie in memory: as the feature maps that it meets.

        One that meets a single channel has both layouts, and the choice decides the sum's order.
        """
        last = self.network.channels_last
        return {
            name: torch.channels_last
            if last and x.ndim == 4 and x.shape[1] > 1 and not name.startswith(LATENTS)
            else torch.contiguous_format
            for name, x in self.tensors().items()
        }

    def _fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Make tensors of the right names and shapes the weights, as they are."""
        load_tensors(self.network, tensors, assign=True)
        self.__dict__.pop("weights", None)
        if self.latents is not None:
            load_tensors(self.latents, decoder_of(tensors), assign=True)

    def load_weights(self, tensors: Mapping[str, Tensor], source: object) -> None:
        """Copy weights into ``F``, and into the decoder of a latent model; they must fit exactly.

        Raises:
            FewstepError: names or shapes differ, and the message names the first; a latent model
                without its decoder.
        """
        tensors = {own: tensors[name] for own, name in own_names(tensors).items()}
        check_decoder(self.latents is not None, tensors, source)
        check_fit(self.tensors(), {name: tuple(x.shape) for name, x in tensors.items()}, source)
        load_tensors(self.network, tensors)
        if self.latents is not None:
            load_tensors(self.latents, decoder_of(tensors))

    def take_network(self, other: StoredModel, source: object) -> None:
        """Take over the weights of another model's network; they must fit.

        A network that is told more than the other one, such as the end of a map, begins as that
        one: the weights of what the other is not told become zero, which is said.

        Raises:
            FewstepError: names or shapes differ; the message names them.
        """
        self.take_tensors(named_tensors(other.network), source)

    def take_tensors(self, theirs: Mapping[str, Tensor], source: object) -> None:
        """Take over a network's weights by their names, as `take_network` does.

        Raises:
            FewstepError: names or shapes differ; the message names them.
        """
        mine = named_tensors(self.network)
        theirs = with_added(mine, theirs, self.network.added, source)
        check_fit(mine, {name: tuple(x.shape) for name, x in theirs.items()}, source)
        load_tensors(self.network, theirs)
