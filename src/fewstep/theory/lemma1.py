"""Lemma 1: the score is a posterior mean, which is why consistency training needs no teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.parameterization import PARAMETERIZATIONS, Parameterization
from fewstep.theory.check import Bound, Check, Line
from fewstep.theory.mixture import Mixture
from fewstep.theory.setting import P

REPEATS = 200
SAMPLES = tuple(2**k for k in range(6, 15, 2))


def lemma_1(seed: int) -> Check:
    """By Monte Carlo from the data, and by quadrature, against the derivative of log p_t."""
    data = Mixture(P)
    generator = torch.Generator().manual_seed(seed)
    lines = [
        Line(
            f"t = {t:g}, x_t = {x_t:g}".replace("-", "−"),
            tuple(float(n) for n in SAMPLES),
            tuple(monte_carlo_error(data, x_t, t, n, generator) for n in SAMPLES),
            expected=-0.5,
            tolerance=0.07,
        )
        for x_t, t in ((-0.3, 0.4), (0.5, 1.0), (2.0, 3.0))
    ]
    bounds = [
        Bound("largest error by quadrature", quadrature_error(data), 1e-10),
        *(
            Bound(f"relative error by the exact denoiser, {name}", score_error(built), 1e-10)
            for name, built in ((n, PARAMETERIZATIONS[n]()) for n in PARAMETERIZATIONS)
        ),
    ]
    return Check(
        "lemma-1",
        "Lemma 1: the score is a mean over the data",
        "The score of the noisy data at a point is the average, over all clean images that may "
        "have led there, of the direction back to them. One image and its noise are therefore an "
        "unbiased, if noisy, stand-in for a trained diffusion model.",
        "∇ log p_t(x_t) = −E[ (x_t − x) / t² | x_t ]",
        "The data are a mixture of two Gaussians, so p_t is one, too, and the derivative of its "
        "logarithm is known.",
        "The mean over n draws of the data, each weighted with N(x_t; x, t²); root mean square "
        f"error over {REPEATS} repetitions. Sampling error must fall as the root of n. With an "
        "integral instead of draws the error must vanish.",
        lines,
        bounds,
        h="samples n",
        error="error of the score",
    )


def score(data: Mixture, x: Tensor, t: Tensor) -> Tensor:
    """``grad log p_t(x)`` by differentiating the density: [B, 1]."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(data.log_density(x, t).sum(), x)[0]


def monte_carlo_error(
    data: Mixture, x_t: float, t: float, n: int, generator: torch.Generator
) -> float:
    """Root mean square error of the weighted mean over ``n`` draws of the data."""
    x = data.sample(n * REPEATS, generator).view(REPEATS, n)
    back = (x - x_t) / t**2
    estimate = (torch.softmax(-((x - x_t) ** 2) / (2 * t**2), 1) * back).sum(1)
    point = torch.tensor([[x_t]], dtype=torch.float64)
    truth = score(data, point, torch.tensor([t], dtype=torch.float64))
    return float((estimate - truth[0, 0]).square().mean().sqrt())


def quadrature_error(data: Mixture) -> float:
    """Largest error over points and times of the same mean as an integral (trapezoidal rule)."""
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    start = torch.zeros(len(x), dtype=torch.float64)
    log_p = data.log_density(x[:, None], start)[:, 0]
    worst = 0.0
    for t in (0.1, 0.5, 2.0, 5.0):
        x_t = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
        posterior = torch.softmax(log_p - (x_t - x) ** 2 / (2 * t**2), 1)
        mean = (posterior * (x - x_t)).sum(1, keepdim=True) / t**2
        truth = score(data, x_t, torch.full((len(x_t),), t, dtype=torch.float64))
        worst = max(worst, float((mean - truth).abs().max()))
    return worst


def score_error(p: Parameterization) -> float:
    """Largest relative error of ``p.score`` with the exact denoiser, over points and times."""
    data, worst = Mixture(p), 0.0
    for part in (0.01, 0.1, 0.3, 0.9):
        x = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
        t = torch.full((len(x),), part * p.T, dtype=torch.float64)
        truth = score(data, x, t)
        error = (p.score(x, data.D(x, t), t) - truth).abs().max() / truth.abs().max()
        worst = max(worst, float(error))
    return worst
