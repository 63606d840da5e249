"""Pictures of the plane: the density, the paths of the PF-ODE, and what each method makes of them.

Every noise has the colour of the Gaussian in which its path ends. So a map that is right keeps the
colours apart, and a colour in a wrong place is a wrong end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fewstep.data.toy2d import MODES, centres, points
from fewstep.flow_map import FlowMap
from fewstep.report.figures import COLOURS, MARKERS, _figure, _rendered, _spectrum
from fewstep.report.toy2d_scores import STEPS, samplers_of, samples, targets
from fewstep.theory.plane import log_density, nearest, path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fewstep.report.toy2d import Method

SHOWN = 2000
EDGE = 1.35
FAR = 20.0  # noise level at which paths begin


def density() -> bytes:
    """The density, and points of it."""
    fig, (left, right) = _figure(1, 2, (7.2, 3.5))
    side = torch.linspace(-EDGE, EDGE, 200, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    grid = torch.stack([x.flatten(), y.flatten()], 1)
    shade = log_density(grid, torch.zeros(len(grid), dtype=torch.float64)).exp().view(200, 200)
    left.pcolormesh(side.numpy(), side.numpy(), shade.numpy(), cmap="Greys", rasterized=True)
    drawn = points(SHOWN, 11)
    _points(right, drawn, nearest(drawn))
    for ax, title in ((left, "the density"), (right, "points of it")):
        _plain(ax, title)
    return _rendered(fig)


def paths() -> bytes:
    """Paths of the PF-ODE from noise (left) to data (right), the noise shrunk to one size."""
    n = 160
    z = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    level = torch.full((n,), FAR, dtype=torch.float64)
    states = path(FAR * z, level, torch.full_like(level, 0.002), 240)
    levels = torch.logspace(np.log10(FAR), np.log10(0.002), len(states), dtype=torch.float64)
    shrunk = states / (1 + levels**2).sqrt()[:, None, None]
    colours = _colours(nearest(states[-1]))
    fig, axes = _figure(1, 4, (10, 2.8))
    stops = [0, 105, 140, len(states) - 1]
    for ax, stop in zip(axes, stops, strict=True):
        for i in range(n):
            ax.plot(*shrunk[: stop + 1, i].T.numpy(), color=colours[i], linewidth=0.5, alpha=0.5)
        horizontal, vertical = shrunk[stop].T.numpy()
        ax.scatter(horizontal, vertical, c=colours, s=9, linewidths=0)
        _plain(ax, f"noise level {float(levels[stop]):.2g}", 2.6 if stop < 140 else EDGE)
    return _rendered(fig)


def method(f: FlowMap) -> bytes:
    """A model's samples with each sampler, in the colours of where the exact map ends."""
    exact = targets(f, SHOWN)
    shown = list(samplers_of(f))
    fig, axes = _figure(1, len(STEPS) + 1, (10, 2.7))
    for ax, (steps, sampler) in zip(axes, shown, strict=False):
        x = samples(f, sampler, SHOWN)
        _points(ax, x, nearest(x if exact is None else exact))
        _plain(ax, f"{steps} step{'s' * (steps > 1)}")
    if len(shown) <= len(STEPS) and exact is not None:
        _points(axes[len(shown)], exact, nearest(exact))
        _plain(axes[len(shown)], "the exact map")
    for ax in axes[len(shown) + 1 :]:
        ax.set_axis_off()
    return _rendered(fig)


def quality(methods: Sequence[Method], floor: float) -> bytes:
    """Distance to the density against evaluations of the network, one line per method."""
    fig, (ax,) = _figure(1, 1, (9, 0.5 + 0.17 * len(methods) + 3))
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for found, (colour, marker) in zip(methods, looks, strict=False):
        nfe = [s.nfe for s in found.scores]
        distance = [s.distance for s in found.scores]
        ax.plot(nfe, distance, marker=marker, color=colour, label=found.name, markersize=4)
    ax.axhline(floor, color="black", linestyle=":", linewidth=1)
    ax.annotate("the density itself", (1, floor), fontsize=8, va="bottom")
    ax.set(xlabel="evaluations of the network", ylabel="sliced Wasserstein distance")
    ax.set(xscale="log", yscale="log")
    ticks = sorted({s.nfe for found in methods for s in found.scores})
    ax.set_xticks(ticks, [str(nfe) for nfe in ticks])
    ax.minorticks_off()
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside right upper", frameon=False, fontsize=8)
    return _rendered(fig)


def _colours(which: Tensor) -> np.ndarray:
    return np.array(_spectrum(MODES))[which.numpy()]


def _points(ax: Axes, x: Tensor, which: Tensor) -> None:
    horizontal, vertical = x.T.numpy()
    ax.scatter(horizontal, vertical, c=_colours(which), s=3, linewidths=0, alpha=0.7)


def _plain(ax: Axes, title: str, edge: float = EDGE) -> None:
    m = centres().T.numpy()
    if edge == EDGE:
        ax.plot(*m, "+", color="black", markersize=4, linewidth=0.5, alpha=0.6)
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
