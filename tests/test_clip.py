"""Clipping of the denoised image, and the grids that solvers walk on by default."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import (
    EDM,
    VP,
    CosineVP,
    DiscreteVP,
    Parameterization,
    RectifiedFlow,
    TrigFlow,
    expand,
    match,
)
from fewstep.sampling import NoiseStreams, Sampler, Walk, sampler_for
from fewstep.schedules import TIME_GRIDS
from fewstep.solvers import SOLVERS, Denoiser
from oracles import Exact, Gaussian

PROCESSES = [EDM(T=20.0), VP(), DiscreteVP(betas="cosine"), RectifiedFlow()]
each_process = pytest.mark.parametrize("p", PROCESSES, ids=lambda p: type(p).__name__)
each_solver = pytest.mark.parametrize("name", [*SOLVERS, "ddim(eta=1)"])


class TwoPoints(FlowMap):
    """Coordinates that are -1 or 1: ``D = tanh(alpha x / sigma^2)``, or ``gain`` times it.

    It notes the denoised that it returned.
    """

    def __init__(self, p: Parameterization, gain: float = 1.0) -> None:
        super().__init__(MLP((3,), width=4, blocks=1), p, info={"kind": "diffusion"})
        self.gain, self.evaluations = gain, 0

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        self.evaluations += 1
        t = self.time(t, x)
        return self.gain * (expand(self.p.alpha(t) / self.p.sigma(t) ** 2, x) * x).tanh()


def samples(f: FlowMap, sampler: Sampler) -> Tensor:
    return sampler(f, NoiseStreams(0, range(16), f.shape))


def walk(name: str, clip: bool) -> Walk:
    return Walk(6, "rk45(rtol=1e-2, atol=1e-2)" if name == "rk45" else name, clip=clip)


@each_process
@each_solver
def test_clipping_leaves_a_denoiser_alone_that_keeps_the_range(
    name: str, p: Parameterization
) -> None:
    f = TwoPoints(p)
    free, clipped = walk(name, False), walk(name, True)
    assert torch.equal(samples(f, clipped), samples(f, free))
    assert clipped.nfe == free.nfe


@each_process
def test_every_form_of_the_denoised_is_clipped(p: Parameterization) -> None:
    """What each form says of ``D`` is the clipped one, of a denoiser that is too large."""
    f = TwoPoints(p, gain=3.0).double()
    x, t = 3 * torch.randn(64, 3, dtype=torch.float64), torch.full((64,), 0.6, dtype=torch.float64)
    model, exact = Denoiser(p, f.D, clip=True), Denoiser(p, f.D)
    D = exact.D(x, t).clamp(-1, 1)
    assert float(exact.D(x, t).abs().max()) > 2
    assert torch.equal(model.D(x, t), D)
    alpha, sigma = expand(p.alpha(t), x), expand(p.sigma(t), x)
    torch.testing.assert_close(model.epsilon(x, t), (x - alpha * D) / sigma)
    torch.testing.assert_close(model.score(x, t), p.score(x, D, t))
    torch.testing.assert_close(model.velocity(x, t), p.velocity(x, D, t))


@pytest.mark.parametrize("name", ["euler", "heun", "ddim", "ancestral", "pc", "churn"])
def test_samples_of_an_overshooting_denoiser_stay_in_range(name: str) -> None:
    """These solvers end with the denoised image itself."""
    free, clipped = TwoPoints(VP(), gain=3.0), TwoPoints(VP(), gain=3.0)
    assert float(samples(free, Walk(6, name)).abs().max()) > 2
    assert float(samples(clipped, Walk(6, name, clip=True)).abs().max()) <= 1
    assert clipped.evaluations == free.evaluations == Walk(6, name).nfe


def test_models_that_solve_nothing_refuse_clipping() -> None:
    f = TwoPoints(EDM(T=20.0))
    assert sampler_for(f, 5, clip=True) == Walk(5, clip=True)
    for info in ({"kind": "consistency"}, {"kind": "diffusion", "sampling_steps": 2}):
        f.info = info
        with pytest.raises(FewstepError, match="clip"):
            sampler_for(f, clip=True)


# Default grids


@each_process
def test_karras_grid_has_the_same_noise_in_every_process(p: Parameterization) -> None:
    """``(sigma/alpha)^(1/7)`` is even, whatever the time of the process means."""
    start = Walk(5, "heun", "karras").times(p)[0]
    t = TIME_GRIDS.build("karras")(12, p, start)
    root = (-p.log_snr(t) / 7).exp()
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(11), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("p", "grid"),
    [
        (EDM(), "karras"),
        (VP(), "log_snr"),
        (CosineVP(), "log_snr"),
        (TrigFlow(), "time"),
        (RectifiedFlow(), "flow"),
        (match(EDM(), VP()), "log_snr"),
        (match(VP(), EDM()), "karras"),
    ],
    ids=str,
)
def test_the_process_decides_where_heun_steps(p: Parameterization, grid: str) -> None:
    assert Walk(7).times(p) == Walk(7, "heun", grid).times(p)
    assert Walk(7, "heun", "quadratic").times(p) != Walk(7).times(p)


@pytest.mark.parametrize(
    "p",
    [VP(), CosineVP(), DiscreteVP(), DiscreteVP(betas="cosine"), TrigFlow(), RectifiedFlow()],
    ids=str,
)
def test_the_default_sampler_is_right_where_no_signal_is_left(p: Parameterization) -> None:
    """Validation judges by it. Of Gaussian data the end of every noise is known: 0.3 + 0.7 z.

    The cosine chain ends at alpha = 5e-5, where Karras' grid, in ``t`` or sigma/alpha, errs more.
    """
    noise = NoiseStreams(0, range(64), (3,))
    x = sampler_for(f := Exact(Gaussian(p, m=0.3, v=0.49), "diffusion"))(f, noise)
    exact = 0.3 + 0.7 * NoiseStreams(0, range(64), (3,)).normal()
    assert float((x - exact).square().mean().sqrt()) < 0.02
