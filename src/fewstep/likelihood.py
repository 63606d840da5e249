"""How probable images are under a diffusion model: the exact likelihood of its PF-ODE.

Along ``dx/dt = v(x, t)`` the density changes by the divergence of the velocity, so that with
``x_T`` the end of the path that starts in ``x`` at the smallest time

    log p(x) = log p_T(x_T) + int_{t_min}^T div v(x_t, t) dt,       p_T = N(0, sigma(T)^2 I)

(Song et al. 2021, Eq. 39; Chen et al. 2018). The divergence is the trace of ``dv/dx``, exact in
as many backward passes as there are dimensions, or Hutchinson's estimate ``z . (dv/dx) z`` with
random signs ``z``, unbiased and one pass (its Eq. 40; Skilling 1989; Hutchinson 1990).

**Bits per dimension.** A pixel ``y`` in 0..255 is ``y / 127.5 - 1`` to a model, and its
probability is the density's integral over the pixel's bin, ``y - 1/2`` to ``y + 1/2``. With ``u``
uniform in the bins (dequantisation; Theis et al. 2016) and ``D`` dimensions

    -log2 P(y) / D  <=  -E log2 p((y + u) / 127.5 - 1) / D + log2(127.5)

where the constant is the change of units: a bin of width 1 in ``y`` is one of 1/127.5 in ``x``.
Images that are uniform noise have 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.finite import check_finite
from fewstep.flow_map import FlowMap
from fewstep.mode import evaluating
from fewstep.precision import widest
from fewstep.sampling import NoiseStreams, check_labels
from fewstep.schedules import power_grid
from fewstep.solvers import SOLVERS, AdaptiveRK45, Denoiser, Integrator, Solver, rk45

EXACT_UP_TO = 64  # dimensions: beyond it a random estimate is far cheaper than its error matters
SCALE = 127.5  # grey levels per unit of x


@dataclass(frozen=True)
class Likelihood:
    """Log-density and bits per dimension by the PF-ODE of a diffusion model.

    Args:
        probes: random directions of Hutchinson's estimate for each image; 0 for the exact trace;
            None for the exact trace of up to 64 dimensions and else one direction.
        solver: ``rk45(rtol=..., atol=...)``, or a one-step method such as rk4 on a fixed grid.
        N: steps of a one-step method, on Karras' grid.

    Raises:
        FewstepError: no such solver, or fewer than one step or zero directions.
    """

    probes: int | None = None
    solver: Integrator | str = "rk45"
    N: int = 50

    def __post_init__(self) -> None:
        if not isinstance(SOLVERS.build(self.solver), AdaptiveRK45 | Solver):
            raise FewstepError(
                f"a likelihood needs rk45 or a one-step solver of the PF-ODE, not {self.solver}."
            )
        if (self.probes is not None and self.probes < 0) or self.N < 1:
            raise FewstepError(f"need probes >= 0 and N >= 1, got {self.probes} and {self.N}.")

    def directions(self, f: FlowMap) -> int:
        """Random directions for a model; 0 for the exact trace."""
        if self.probes is not None:
            return self.probes
        return 0 if math.prod(f.shape) <= EXACT_UP_TO else 1

    def log_density(
        self, f: FlowMap, x: Tensor, noise: NoiseStreams, condition: Condition = NONE
    ) -> tuple[Tensor, float]:
        """``log p(x)`` in nats [B], of the model's distribution at its smallest time ``t_min``.

        Args:
            f: a diffusion model.
            x: points [B, *f.shape], taken for points of the process at ``t_min``.
            noise: a stream per point, for random directions.
            condition: of the network, such as the class of each point.

        Returns:
            The log-densities, and the network evaluations per point (their mean).

        Raises:
            FewstepError: a consistency model, or one that was distilled for a few times.
            NotFinite: the model gives NaN or infinities.
        """
        f.trained.check_denoises("a likelihood")
        f.trained.check_diagonal("a likelihood", flow=f.flows)
        if f.latents is not None:
            raise FewstepError(
                "a likelihood is of pixels; this model has one of an autoencoder's latents alone."
            )
        model = Denoiser(f.p, lambda x, t: f.D(x, t, condition))
        signs = [noise.normal(x.device).sign().to(x) for _ in range(self.directions(f))]
        state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)

        def rate(state: Tensor, t: Tensor) -> Tensor:
            v, divergence = with_divergence(
                model.velocity, state[:, :-1].reshape(x.shape), t, signs
            )
            return torch.cat([v.flatten(1), divergence[:, None]], 1)

        with evaluating(f):
            state, spent = self._solve(rate, state, f)
        x_T, gained = widest(state[:, :-1]), widest(state[:, -1])
        sigma = float(f.p.sigma(torch.tensor(f.p.T, dtype=torch.float64)))
        square = (x_T / sigma).square().sum(1)
        prior = -(square + x_T.shape[1] * math.log(2 * math.pi * sigma**2)) / 2
        return check_finite(prior + gained, "the log-density"), spent

    def _solve(
        self, rate: Callable[[Tensor, Tensor], Tensor], state: Tensor, f: FlowMap
    ) -> tuple[Tensor, float]:
        solver = SOLVERS.build(self.solver)
        if isinstance(solver, AdaptiveRK45):
            state, spent = rk45(rate, state, f.p.t_min, f.p.T, solver.rtol, solver.atol)
            return state, float(spent.mean())
        assert isinstance(solver, Solver)
        t = power_grid(self.N + 1, f.p.t_min, f.p.T, 7.0).tolist()
        for now, after in pairwise(t):
            state = solver.step(rate, state, f.time(now, state), f.time(after, state))
        return state, float(self.N * solver.cost)

    def bits_per_dim(
        self,
        f: FlowMap,
        images: Tensor,
        *,
        indices: Sequence[int] | None = None,
        labels: Tensor | None = None,
        seed: int = 0,
    ) -> tuple[Tensor, float]:
        """Bits per dimension of 8-bit images [B], an upper bound in expectation; see the module.

        Args:
            f: a diffusion model of images.
            images: uint8 [B, *f.shape].
            indices: the images' numbers, which with ``seed`` decide the dequantisation.
            labels: class of each [B]; for a conditional model alone, and then needed.
            seed: of the dequantisation and the random directions.

        Returns:
            The bits, and the network evaluations per image (their mean).

        Raises:
            FewstepError: not such images or labels; a consistency model.
        """
        _check(f, images, labels)
        labels = check_labels(f, labels, len(images))
        noise = NoiseStreams(seed, range(len(images)) if indices is None else indices, f.shape)
        u = torch.special.ndtr(noise.normal(f.device, f.x_dtype)) - 0.5  # uniform in (-1/2, 1/2)
        x = (images.to(f.device) + u) / SCALE - 1
        condition = Condition(label=labels).to(f.device)
        log_p, spent = self.log_density(f, x, noise, condition)
        D = math.prod(f.shape)
        return (-log_p / (math.log(2) * D) + math.log2(SCALE)).cpu(), spent


def with_divergence(
    v: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, signs: Sequence[Tensor] = ()
) -> tuple[Tensor, Tensor]:
    """``v(x, t)`` [B, ...] and its divergence in ``x`` [B].

    Args:
        v: velocities of points at times, each row a function of its own point alone.
        signs: directions ``z`` [B, ...] of Hutchinson's estimate, the mean of
            ``z . (dv/dx) z``; none for the exact trace.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        value = v(x, t.clone())
        directions = signs or _basis(x)
        parts = [
            (torch.autograd.grad(value, x, z, retain_graph=True)[0] * z).flatten(1).sum(1)
            for z in directions
        ]
    total = torch.stack(parts).sum(0)
    return value.detach(), total / len(signs) if signs else total


def _basis(x: Tensor) -> list[Tensor]:
    """The unit vectors of one point's space, each for every point: D times [B, ...]."""
    D = x[0].numel()
    return [row.reshape(x.shape[1:]).expand_as(x) for row in torch.eye(D).to(x)]


def _check(f: FlowMap, images: Tensor, labels: Tensor | None) -> None:
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != f.shape or len(images) == 0:
        raise FewstepError(
            f"bits per dimension are of 8-bit images [B, {', '.join(map(str, f.shape))}], got "
            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}."
        )
    if f.num_classes and labels is None:
        raise FewstepError("this model is conditional: its likelihood needs each image's class.")
