"""A network and a parameterization: a callable ``f(x, t, s)`` along the PF-ODE.

`FlowMap` is every model of the package. Its record ``f.trained`` says which of its end points
mean something (see `fewstep.trained`): a diffusion model is its denoiser ``f.D``; a consistency
model is ``f(x, t)``, the map to ``s = eps``.

A flow map is stored as one safetensors file that describes itself: the weights, and in the
header the network, the parameterization, the record and `info`, as JSON. Nothing in it is ever
executed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewstep import networks, parameterization
from fewstep.classes import names_for
from fewstep.condition import NONE, Condition
from fewstep.distributed import checked_device
from fewstep.errors import FewstepError, refusals, unknown
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
from fewstep.networks import Autoencoder, Network, skeleton, unfinished, unwrapped
from fewstep.parameterization import Parameterization, expand, per_row
from fewstep.plugins.used import check_used
from fewstep.precision import Precision, dtype_of
from fewstep.tangent import TANGENTS
from fewstep.trained import Info, Trained, from_legacy

MORE = 1000  # weights that a network may have beyond its file's, so that the first is named


class FlowMap(nn.Module):
    """``X(x, t, s) = c_skip(t, s) x + c_out(t, s) F(c_in(t) x, c_noise(t)[, c_noise_s(t, s)])``.

    Args:
        F: raw network (see `fewstep.networks`).
        p: parameterization: the process and the coefficients.
        trained: what training made of it; default a record of which nothing is known. An objective
            sets it on the map that it trains.
        info: free JSON values that travel with the weights, such as the recipe. The keys that
            earlier versions had (``kind``, ``classes``, ...) become the record.
        latents: the latent space that ``x`` lives in; None where ``x`` is the image itself.

    Raises:
        FewstepError: a network of another shape than the latents; a record in both ways.
    """

    def __init__(
        self,
        F: Network,
        p: Parameterization,
        *,
        trained: Trained | None = None,
        info: dict[str, Any] | None = None,
        latents: Latents | None = None,
    ) -> None:
        super().__init__()
        shape = unwrapped(F).shape
        if latents is not None and latents.shape != shape:
            raise FewstepError(
                f"the network maps shape {list(shape)}, the latents have {list(latents.shape)}."
            )
        self.F = F
        self.p = p
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

    def in_precision(self, precision: Precision) -> FlowMap:
        """Keep the network's weights, and compute it, in fp32, bf16 or fp16; in place.

        Times, frequencies, the coefficients of the parameterization and so the steps of a sampler
        stay in float32, and what comes out is float32: only ``F`` is rounded.

        Raises:
            FewstepError: another precision.
        """
        dtype = dtype_of(precision)
        for weight in self.weights:
            weight.data = weight.data.to(dtype)
        return self

    def evaluate_network(
        self, x: Tensor, c_noise: Tensor, c_noise_s: Tensor | None, condition: Condition = NONE
    ) -> Tensor:
        """``F(x, c_noise)``, computed in the type of its weights; the result has that of ``x``."""
        given = condition.of(self.network.takes)
        if c_noise_s is not None:
            given["c_noise_s"] = c_noise_s
        return self.F(x.to(self.dtype), c_noise, **given).to(x.dtype)

    def time(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``t`` as one time per example [B], in at least float32, on the device of ``x``."""
        return per_row(t, x)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        """``X(x, t, s)``; without ``s`` the consistency function ``f(x, t) = X(x, t, eps)``.

        The network is evaluated in the type of its weights, all else in that of ``x`` or, of
        times and coefficients, at least in float32. The result has the type of ``x``.

        Args:
            x: points at time ``t`` [B, *shape].
            t: times of ``x``, [B] or a number.
            s: times to map to, [B] or a number; default ``eps``.
            condition: what the network is conditioned on, such as the class of each row.
        """
        t, s = self.time(t, x), self.time(self.p.eps if s is None else s, x)
        return self.of_prediction(self.prediction(x, t, s, condition), x, t, s).to(x.dtype)

    def prediction(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        """``F(c_in(t) x, c_noise(t)[, c_noise_s(t, s)])``, the raw network: [B, *shape].

        Without ``s`` it is on the diagonal ``s = t``, where the network of a flow map is that of a
        diffusion model.
        """
        t = self.time(t, x)
        s = t if s is None else self.time(s, x)
        return self.evaluate_network(*self.seen(x, t, s), condition)

    def seen(self, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the network sees of points at ``t`` [B] on the way to ``s`` [B].

        ``c_in(t) x``, ``c_noise(t)``, and of a two-time network ``c_noise_s(t, s)``.
        """
        p, two_time = self.p, self.network.two_time
        return expand(p.c_in(t), x) * x, p.c_noise(t), p.c_noise_s(t, s) if two_time else None

    def of_prediction(self, F_x: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """``X = c_skip(t, s) x + c_out(t, s) F_x`` for times [B]."""
        return expand(self.p.c_skip(t, s), x) * x + expand(self.p.c_out(t, s), x) * F_x

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """The denoiser ``E[x_0 | x_t = x]`` of a diffusion model.

        It is the map to the data, ``X(x, t, 0)``. A two-time network is the diffusion model on the
        diagonal: then it is ``a(t) x + b(t) F(x, t, t)`` with what the network predicts.
        """
        if not self.network.two_time:
            return self(x, t, 0.0, condition)
        t = self.time(t, x)
        a, b = self.p.c_denoised(t)
        F_x = self.prediction(x, t, t, condition)
        return (expand(a, x) * x + expand(b, x) * F_x).to(x.dtype)

    def tangent(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None,
        v: Tensor,
        condition: Condition = NONE,
        *,
        how: str = "forward",
    ) -> tuple[Tensor, Tensor]:
        """``X(x, t, s)`` and its derivative ``d_t X + J_x X v`` along a path of velocity ``v``.

        Of the true flow it is zero along the PF-ODE, ``v = velocity``: the end of a path does not
        depend on where on it one starts. Continuous-time consistency, MeanFlow and every other
        Eulerian loss are made of it. With ``u = F`` and ``X = x - (t - s) u`` of a rectified flow
        it is ``v - u - (t - s) du/dt``.

        Args:
            x: points at time ``t`` [B, *shape].
            t: times of ``x``, [B] or a number.
            s: times to map to, [B] or a number, which are held fixed; None is ``eps``.
            v: ``dx/dt`` of the path through ``x`` [B, *shape].
            condition: what the network is conditioned on.
            how: "forward" mode, which is exact, or a finite "difference", for networks without it.

        Raises:
            FewstepError: another ``how``.
        """
        if how not in TANGENTS:
            raise unknown("way to a tangent", how, TANGENTS)
        t, s = self.time(t, x), self.time(self.p.eps if s is None else s, x)
        return TANGENTS[how](lambda x, t: self(x, t, s, condition), x, t, s, v)

    def score(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """``grad log p_t(x)`` of a diffusion model."""
        t = self.time(t, x)
        return self.p.score(x, self.D(x, t, condition), t)

    def velocity(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """``dx/dt`` of the PF-ODE of a diffusion model."""
        t = self.time(t, x)
        return self.p.velocity(x, self.D(x, t, condition), t)

    def in_process(self, p: Parameterization) -> FlowMap:
        """This model as one of the process of ``p``, by matching the signal-to-noise ratio.

        The network is shared, not copied; see `fewstep.parameterization.matched`. Stored time
        points move to the times of the same noise.

        Raises:
            FewstepError: the model was distilled for a few times of its own process.
        """
        self.trained.check_other_process()
        matched = parameterization.match(self.p, p)

        def moved(tau: float) -> float:
            log_snr = self.p.log_snr(torch.tensor(tau, dtype=torch.float64))
            return float(matched.time_of_log_snr(log_snr))

        trained = self.trained.moved(moved)
        return FlowMap(self.F, matched, trained=trained, info=self.info, latents=self.latents)

    def frozen_copy(self) -> FlowMap:
        """A copy without gradients, such as a running average; the latent space is shared."""
        shared = {} if self.latents is None else {id(self.latents): self.latents}
        return copy.deepcopy(self, shared).requires_grad_(False)

    @torch.no_grad()
    def average_(self, f: FlowMap, mu: float) -> None:
        """``theta <- mu theta + (1 - mu) theta_f`` in place; buffers, which never change, stay."""
        torch._foreach_lerp_(self.weights, f.weights, 1 - mu)

    def tensors(self) -> dict[str, Tensor]:
        """Every weight under its name in a model file, whatever torch has wrapped around it."""
        decoder = {} if self.latents is None else named_tensors(self.latents)
        return named_tensors(self.network) | {LATENTS + name: x for name, x in decoder.items()}

    def header(self) -> dict[str, str]:
        """The safetensors metadata that describes this map.

        Raises:
            FewstepError: a value of `info` that cannot be stored.
        """
        latents = None if self.latents is None else self.latents.config
        header = Header(self.network.config, self.p.config, self.trained, self.info, latents)
        return {HEADER: header.text()}

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
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> FlowMap:
        """Read what `save` wrote, in the type of its weights.

        Raises:
            FewstepError: the file is missing, damaged, of another version, or not a flow map; a
                latent model without its decoder; or the device is not there.
        """
        path, device = Path(path), checked_device(device)
        with open_model_file(path, device) as file:
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
    def _described(cls, file: ModelFile, building: AbstractContextManager[None]) -> FlowMap:
        """The map that a file's header describes, whose networks are built in a block."""
        header = file.header
        check_used(header.plugins, file.path)
        try:
            p = parameterization.from_config(header.parameterization)
            with building:
                F = networks.from_config(header.network)
                latents = None if header.latents is None else Latents.from_config(header.latents)
            trained = header.trained
            if trained.known and F.label_dropout:  # of which earlier versions noted nothing
                trained = replace(trained, null_class=True)
            f = cls(F, p, trained=trained, info=header.info, latents=latents)
            f._check_record()
        except Exception as error:  # whatever values of any type may lead to
            raise not_a_model(file.path, error) from error
        return f

    def _check_record(self) -> None:
        """Raise `FewstepError` where the record says of the network what it is not."""
        names, n = self.trained.classes, self.num_classes
        if names and len(names) != n:
            raise FewstepError(f"trained.classes has {len(names)} names, the network {n} classes")
        if self.trained.decodes and not isinstance(self.network, Autoencoder):
            raise FewstepError("the record is an autoencoder's, the network is another one")

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
        if torch.device(device).type == "mps" and torch.float64 in types.values():
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

    def take_network(self, other: FlowMap, source: object) -> None:
        """Take over the weights of another map's network; they must fit.

        A network that is told more than the other one, such as the end of a map, begins as that
        one: the weights of what the other is not told become zero, which is said.

        Raises:
            FewstepError: names or shapes differ; the message names them.
        """
        mine, theirs = (named_tensors(f.network) for f in (self, other))
        theirs = with_added(mine, theirs, self.network.added, source)
        check_fit(mine, {name: tuple(x.shape) for name, x in theirs.items()}, source)
        load_tensors(self.network, theirs)
