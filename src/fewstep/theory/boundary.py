"""The boundary condition, which the parameterization gives and training never has to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import PARAMETERIZATIONS, Parameterization
from fewstep.theory.check import Bound, Check, Line

STEPS = tuple(10.0**-k for k in range(4, 9))
"""Below them the map is linear: the time embedding of a VP process turns by 1 in a time of 1e-3."""


def boundary(seed: int) -> Check:
    """A network with random weights under every registered parameterization."""
    generator = torch.Generator().manual_seed(seed)
    maps = {name: random_map(PARAMETERIZATIONS[name](), generator) for name in PARAMETERIZATIONS}
    x = torch.randn(64, 3, dtype=torch.float64, generator=generator)
    return Check(
        "boundary",
        "The boundary condition holds for any network",
        "A consistency function leaves a point where it is when its path has already ended. "
        "Without this, f = 0 would have zero loss; the coefficients of the skip connection give "
        "it for free.",
        "f(x, ε) = x     and, for a two-time map,     X(x, t, t) = x",
        "The coefficients must make it true whatever the network says, so the network is given "
        "random weights.",
        "The largest |X(x, t, t) − x| over 64 points and 9 times, which must be zero. And how "
        "far the map moves a point when it starts a little later, at t = s + h: in proportion to "
        "h. The simple form (f = x at the end, F elsewhere) jumps instead, which is why "
        "continuous time cannot use it.",
        [slope_at_the_end(name, f, x) for name, f in maps.items()],
        [
            Bound(f"largest |X(x, t, t) − x|, {n}", identity_error(f, x), 1e-13)
            for n, f in maps.items()
        ],
        h="h, the time to the end",
        error="largest |X(x, s + h, s) − x|",
    )


def random_map(p: Parameterization, generator: torch.Generator) -> FlowMap:
    """A map with a random network of float64 weights on points in three dimensions."""
    F = MLP((3,), width=32, blocks=1).double()
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return FlowMap(F, p)


@torch.no_grad()
def identity_error(f: FlowMap, x: Tensor) -> float:
    """Largest ``|X(x, t, t) - x|`` over times from the smallest to near the largest."""
    times = torch.linspace(f.p.t_min, 0.95 * f.p.T, 9, dtype=torch.float64)
    return max(float((f(x, t, t) - x).abs().max()) for t in times)


@torch.no_grad()
def slope_at_the_end(name: str, f: FlowMap, x: Tensor) -> Line:
    """``|X(x, s + h, s) - x|`` against ``h`` at ``s`` a tenth of the largest time."""
    s = torch.tensor(0.1 * f.p.T, dtype=torch.float64)
    moved = tuple(float((f(x, s + h, s) - x).abs().max()) for h in STEPS)
    jumps = not f.p.continuous
    return Line(name, STEPS, moved, 0.0 if jumps else 1.0, 0.02, control=jumps)
