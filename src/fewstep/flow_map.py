"""A network and a parameterization: a callable ``f(x, t, s)`` along the PF-ODE.

`FlowMap` is every model of the package. What was trained (``info["kind"]``) says which of its
end points mean something: a diffusion model is its denoiser ``f.D``; a consistency model is
``f(x, t)``, the map to ``s = eps``.

A flow map is stored as one safetensors file that describes itself: the weights, and in the
header the network, the parameterization and `info`, as JSON. Nothing in it is ever executed.
"""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fewstep import networks, parameterization
from fewstep.classes import names_for
from fewstep.errors import FewstepError
from fewstep.files import replacing, write_tensors
from fewstep.latents import Latents
from fewstep.networks import Network
from fewstep.parameterization import Parameterization, expand
from fewstep.precision import HALF, Precision, dtype_of

FORMAT = 1  # version of the file's header
HEADER = "fewstep"  # its key in the safetensors metadata
LATENTS = "latents."  # what the names of the autoencoder's tensors begin with


class FlowMap(nn.Module):
    """``X(x, t, s) = c_skip(t, s) x + c_out(t, s) F(c_in(t) x, c_noise(t)[, c_noise(s)])``.

    Args:
        F: raw network (see `fewstep.networks`).
        p: parameterization: the process and the coefficients.
        info: free JSON values that travel with the weights: ``kind`` ("diffusion",
            "consistency", "generator" for a map from ``T`` alone, or "autoencoder"), ``classes``
            (names), ``taus`` (good time points), ``sampling_steps`` (the one number of steps that a
            distilled model has), the recipe, ...
        latents: the latent space that ``x`` lives in; None where ``x`` is the image itself.

    Raises:
        FewstepError: a network of another shape than the latents.
    """

    def __init__(
        self,
        F: Network,
        p: Parameterization,
        *,
        info: dict[str, Any] | None = None,
        latents: Latents | None = None,
    ) -> None:
        super().__init__()
        if latents is not None and latents.shape != F.shape:
            raise FewstepError(
                f"the network maps shape {list(F.shape)}, the latents have {list(latents.shape)}."
            )
        self.F = F
        self.p = p
        self.info = dict(info or {})
        self.latents = latents

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one ``x``."""
        return self.F.shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image; that of ``x`` unless the model lives in a latent space."""
        return self.F.shape if self.latents is None else self.latents.image_shape

    def image(self, x: Tensor) -> Tensor:
        """The images of points ``x`` at time 0: [B, *shape] to [B, *image_shape]."""
        return x if self.latents is None else self.latents.decode(x)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for an unconditional model."""
        return self.F.num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each class; their numbers where the file has no names."""
        return names_for(self.num_classes, self.info.get("classes"))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @cached_property
    def weights(self) -> list[Tensor]:
        """The parameters of ``F``; walking a large network for them takes milliseconds."""
        return list(self.F.parameters())

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

    def evaluate_network(self, x: Tensor, c_noise: Tensor, **condition: Any) -> Tensor:
        """``F(x, c_noise)``, computed in the type of its weights where that is a half one."""
        dtype = self.weights[0].dtype
        if dtype not in HALF:
            return self.F(x, c_noise, **condition)
        return self.F(x.to(dtype), c_noise, **condition).to(x.dtype)

    def time(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``t`` as one time per example [B], in at least float32, on the device of ``x``."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.as_tensor(t, dtype=dtype, device=x.device).expand(len(x))

    def forward(
        self, x: Tensor, t: Tensor | float, s: Tensor | float | None = None, **condition: Any
    ) -> Tensor:
        """``X(x, t, s)``; without ``s`` the consistency function ``f(x, t) = X(x, t, eps)``.

        Args:
            x: points at time ``t`` [B, *shape].
            t: times of ``x``, [B] or a number.
            s: times to map to, [B] or a number; default ``eps``.
            condition: what the network is conditioned on, such as ``label`` [B].
        """
        p = self.p
        t, s = self.time(t, x), self.time(p.eps if s is None else s, x)
        if self.F.two_time:
            condition["c_noise_s"] = p.c_noise(s)
        F_x = self.evaluate_network(expand(p.c_in(t), x) * x, p.c_noise(t), **condition)
        return expand(p.c_skip(t, s), x) * x + expand(p.c_out(t, s), x) * F_x

    def D(self, x: Tensor, t: Tensor | float, **condition: Any) -> Tensor:
        """The denoiser ``E[x_0 | x_t = x] = X(x, t, 0)`` of a diffusion model."""
        return self(x, t, 0.0, **condition)

    def score(self, x: Tensor, t: Tensor | float, **condition: Any) -> Tensor:
        """``grad log p_t(x)`` of a diffusion model."""
        t = self.time(t, x)
        return self.p.score(x, self.D(x, t, **condition), t)

    def velocity(self, x: Tensor, t: Tensor | float, **condition: Any) -> Tensor:
        """``dx/dt`` of the PF-ODE of a diffusion model."""
        t = self.time(t, x)
        return self.p.velocity(x, self.D(x, t, **condition), t)

    def in_process(self, p: Parameterization) -> FlowMap:
        """This model as one of the process of ``p``, by matching the signal-to-noise ratio.

        The network is shared, not copied; see `fewstep.parameterization.matched`. Stored time
        points move to the times of the same noise.

        Raises:
            FewstepError: the model was distilled for a few times of its own process.
        """
        if self.info.get("sampling_steps") is not None:
            raise FewstepError(
                "this model was distilled for the steps of its own process and knows no other."
            )
        matched = parameterization.match(self.p, p)

        def moved(tau: float) -> float:
            log_snr = self.p.log_snr(torch.tensor(tau, dtype=torch.float64))
            return float(matched.time_of_log_snr(log_snr))

        taus = {
            n: [moved(tau) for tau in points] for n, points in self.info.get("taus", {}).items()
        }
        info = self.info | ({"taus": taus} if taus else {})
        return FlowMap(self.F, matched, info=info, latents=self.latents)

    def frozen_copy(self) -> FlowMap:
        """A copy without gradients, such as a running average; the latent space is shared."""
        shared = {} if self.latents is None else {id(self.latents): self.latents}
        return copy.deepcopy(self, shared).requires_grad_(False)

    @torch.no_grad()
    def average_(self, f: FlowMap, mu: float) -> None:
        """``theta <- mu theta + (1 - mu) theta_f`` in place; buffers, which never change, stay."""
        torch._foreach_lerp_(self.weights, f.weights, 1 - mu)

    def header(self) -> dict[str, str]:
        """The safetensors metadata that describes this map."""
        return {
            HEADER: json.dumps(
                {
                    "format": FORMAT,
                    "network": self.F.config,
                    "parameterization": self.p.config,
                    "info": self.info,
                    **({} if self.latents is None else {"latents": self.latents.config}),
                }
            )
        }

    def save(self, path: str | Path) -> None:
        """Write weights and description as one safetensors file, whole or not at all.

        Raises:
            FewstepError: the disk is full or not writable.
        """
        tensors = self.F.state_dict()
        if self.latents is not None:
            tensors |= {LATENTS + k: v for k, v in self.latents.state_dict().items()}
        tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
        try:
            with replacing(Path(path)) as partial:
                write_tensors(partial, tensors, self.header())
        except (SafetensorError, OSError) as error:
            raise FewstepError(f"cannot write the model {path}: {error}.") from error

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> FlowMap:
        """Read what `save` wrote.

        Raises:
            FewstepError: the file is missing, damaged, of another version, or not a flow map; a
                latent model without its decoder.
        """
        path = Path(path)
        header, tensors = _read(path, str(device))
        try:
            if header["format"] != FORMAT:
                raise FewstepError(
                    f"{path} has format {header['format']}; this fewstep reads format {FORMAT}."
                )
            F = networks.from_config(header["network"])
            p = parameterization.from_config(header["parameterization"])
            space = header.get("latents")
            latents = None if space is None else Latents.from_config(space)
            f = cls(F, p, info=header["info"], latents=latents)
        except (KeyError, TypeError) as error:
            raise FewstepError(
                f"the header of {path} does not describe a model ({type(error).__name__}: {error})."
            ) from error
        f.load_weights(tensors, path)
        return f.to(device).eval()

    def load_weights(self, tensors: dict[str, Tensor], source: object) -> None:
        """Put weights into ``F``, and into the decoder of a latent model; they must fit exactly.

        Raises:
            FewstepError: names or shapes differ, and the message names the first; a latent model
                without its decoder.
        """
        decoder = {k.removeprefix(LATENTS): v for k, v in tensors.items() if k.startswith(LATENTS)}
        if self.latents is not None:
            if not decoder:
                raise FewstepError(
                    f"{source} is a model of latents, but without the autoencoder that decodes "
                    f"them (no tensor {LATENTS}*). Copy the model file whole, or train it again."
                )
            _fill(self.latents, decoder, source)
            tensors = {k: v for k, v in tensors.items() if not k.startswith(LATENTS)}
        _fill(self.F, tensors, source)

    def take_network(self, other: FlowMap, source: object) -> None:
        """Take over the weights of another map's network; they must fit exactly.

        Raises:
            FewstepError: names or shapes differ; the message names the first.
        """
        _fill(self.F, other.F.state_dict(), source)


def _fill(module: nn.Module, tensors: dict[str, Tensor], source: object) -> None:
    mine = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    for name in sorted(mine.keys() | tensors.keys()):
        there = tuple(tensors[name].shape) if name in tensors else "absent"
        if there != mine.get(name, "absent"):
            raise FewstepError(
                f"the weights of {source} do not fit this network: {name!r} is {there} there "
                f"and {mine.get(name, 'absent')} here. Give the network the same settings."
            )
    module.load_state_dict(tensors)


def _read(path: Path, device: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FewstepError(f"there is no model file {path}.")
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            header = (file.metadata() or {}).get(HEADER)
            if header is None:
                raise FewstepError(f"{path} is a safetensors file but not a fewstep model.")
            return json.loads(header), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise FewstepError(f"cannot read the model {path}: {error}.") from error
