"""A network and a parameterization: a callable ``f(x, t, s)`` along the PF-ODE.

`FlowMap` is every model of the package but an autoencoder by itself. Its record ``f.trained`` says
which of its end points mean something (see `fewstep.trained`): a diffusion model is its denoiser
``f.D``; a consistency model is ``f(x, t)``, the map to ``s = eps``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep import parameterization
from fewstep.condition import NONE, Condition, everywhere, told
from fewstep.errors import FewstepError
from fewstep.latents import Latents
from fewstep.model_file import Header
from fewstep.networks import Autoencoder, Network, unwrapped
from fewstep.parameterization import Parameterization, expand, per_row
from fewstep.stored_model import StoredModel
from fewstep.tangent import Map, derivative, derivative_by_end
from fewstep.trained import Trained


class FlowMap(StoredModel):
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

    sort: ClassVar[str] = "a map along the PF-ODE"

    def __init__(
        self,
        F: Network,
        p: Parameterization,
        *,
        trained: Trained | None = None,
        info: Mapping[str, Any] | None = None,
        latents: Latents | None = None,
    ) -> None:
        if isinstance(unwrapped(F), Autoencoder):
            raise FewstepError(
                f"{unwrapped(F).config['name']} is an autoencoder, which is no map along the "
                "PF-ODE: give it to fewstep.AutoencoderModel."
            )
        super().__init__(F, trained=trained, info=info, latents=latents)
        if self.trained.decodes:
            raise FewstepError("the record is that of an autoencoder, and this is a map.")
        self.p = p

    @classmethod
    def _of(cls, header: Header, F: Network, latents: Latents | None) -> FlowMap:
        assert header.parameterization is not None
        p = parameterization.from_config(header.parameterization)
        return cls(F, p, trained=header.trained, info=header.info, latents=latents)

    @property
    def process(self) -> dict[str, Any]:
        return self.p.config

    def evaluate_network(
        self, x: Tensor, c_noise: Tensor, c_noise_s: Tensor | None, condition: Condition = NONE
    ) -> Tensor:
        """``F(x, c_noise)``, computed in the type of its weights; the result has that of ``x``.

        Of a network that is `scaled_by_weight` it is ``w F``, so that every coefficient of the
        map is multiplied by the guidance weight of the row.
        """
        if self.network.guidance_embedding:
            condition = self._with_default_guidance(condition, c_noise)
        given = condition.of(self.network.takes)
        if c_noise_s is not None:
            given["c_noise_s"] = c_noise_s
        F_x = self.F(x.to(self.dtype), c_noise, **given).to(x.dtype)
        w = condition.w if self.network.scaled_by_weight else None
        return F_x if w is None else expand(w.to(x.dtype), x) * F_x

    def _with_default_guidance(self, condition: Condition, c_noise: Tensor) -> Condition:
        """With the model's own weight where none is given, which guides at all noise levels."""
        w = self.trained.guidance
        if condition.w is None and w is not None:
            condition = replace(condition, w=torch.full_like(c_noise, w))
        if self.network.interval_embedding and condition.w is not None:
            return condition.within(everywhere(c_noise))
        return condition

    def time(self, t: Tensor | float, x: Tensor) -> Tensor:
        """``t`` as one time per example [B], in at least float32, on the device of ``x``."""
        return per_row(t, x)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """``X(x, t, s)``; without ``s`` the consistency function ``f(x, t) = X(x, t, eps)``.

        The network is evaluated in the type of its weights, all else in that of ``x`` or, of
        times and coefficients, at least in float32. The result has the type of ``x``.

        Args:
            x: points at time ``t`` [B, *shape].
            t: times of ``x``, [B] or a number.
            s: times to map to, [B] or a number; default ``eps``.
            condition: what the network is conditioned on, such as the class of each row.
            label: the class of each row, int64 [B]: short for ``condition=Condition(label)``.

        Raises:
            FewstepError: whole numbers in the place of the times ``s``, such as classes.
        """
        if isinstance(s, Tensor) and not s.is_floating_point():
            raise FewstepError("s is the time to map to; a class is given as label=...")
        condition = told(condition, label)
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

    @property
    def flows(self) -> bool:
        """Whether ``D`` is the denoiser: of a map to any time, where its form is a flow's."""
        return self.p.flow or not self.trained.maps_to_any

    def D(
        self,
        x: Tensor,
        t: Tensor | float,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """The denoiser ``E[x_0 | x_t = x]`` of a diffusion model.

        It is the map to the data, ``X(x, t, 0)``. A two-time network is the diffusion model on the
        diagonal: then it is ``a(t) x + b(t) F(x, t, t)`` with what the network predicts.
        """
        condition = told(condition, label)
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
            FewstepError: another ``how``; a network without forward mode.
        """
        s = self.time(self.p.eps if s is None else s, x)
        return self.derivative(lambda x, t: self(x, t, s, condition), x, t, s, v, how=how)

    def derivative(
        self,
        X: Map,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        v: Tensor,
        *,
        how: str = "forward",
        rate: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``X(x, t)`` and ``d_t X + J_x X v`` of a function of this model's network; see `tangent`.

        Args:
            X: takes points [B, *shape] and times [B] and asks the network.
            x: points at time ``t`` [B, *shape].
            t: times of ``x``, [B] or a number.
            s: the earliest time that ``X`` may be asked at, [B] or a number.
            v: ``dx/dt`` of the path through ``x`` [B, *shape].
            how: "forward" mode, which is exact, or a finite "difference".
            rate: what the derivative is multiplied by, [B]; see `fewstep.tangent.forward`.

        Raises:
            FewstepError: another ``how``; a network without forward mode.
        """
        t, s, name = self.time(t, x), self.time(s, x), type(self.network).__name__
        return derivative(how, name, X, x, t, s, v, rate)

    def rate(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        condition: Condition = NONE,
        *,
        how: str = "forward",
    ) -> tuple[Tensor, Tensor]:
        """``X(x, t, s)`` and ``dX/ds``: how the image of a point moves with the time it is of.

        Of the true flow it is the velocity there, ``velocity(X, s)``: every Lagrangian loss is made
        of it. Unlike `tangent` it is meant for gradients to go through.

        Args:
            x: points at time ``t`` [B, *shape].
            t: times of ``x``, [B] or a number.
            s: times to map to, [B] or a number.
            condition: what the network is conditioned on.
            how: "forward" mode or a finite "difference".

        Raises:
            FewstepError: another ``how``; a network without forward mode.
        """
        t, s, name = self.time(t, x), self.time(s, x), type(self.network).__name__
        return derivative_by_end(how, name, lambda s: self(x, t, s, condition), s, t)

    def score(
        self,
        x: Tensor,
        t: Tensor | float,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """``grad log p_t(x)`` of a diffusion model."""
        t = self.time(t, x)
        return self.p.score(x, self.D(x, t, told(condition, label)), t)

    def velocity(
        self,
        x: Tensor,
        t: Tensor | float,
        condition: Condition = NONE,
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """``dx/dt`` of the PF-ODE of a diffusion model."""
        t = self.time(t, x)
        return self.p.velocity(x, self.D(x, t, told(condition, label)), t)

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
