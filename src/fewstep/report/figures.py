"""The report's pictures, as PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.data import grid
from fewstep.errors import FewstepError
from fewstep.report.typeset import to_mathtext
from fewstep.theory.check import FLOOR, Check, Line
from fewstep.theory.mixture import Mixture
from fewstep.training.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Okabe and Ito, told apart by the colour-blind as well; in the order in which they are used.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4B0092", "#994F00",
           "#117733", "#882255", "#332288", "#AA4499")  # fmt: skip
MARKERS = "osD^vP*"
PIXELS = 64  # width of an image in a strip, at most
LEGEND = 8  # series that have room for their names inside a figure


def png_of(images: Tensor, columns: int) -> bytes:
    """A grid of uint8 images [N, C, H, W]."""
    pixels = grid(images, columns=columns).permute(1, 2, 0).numpy()
    return _png(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def comparison(strips: Mapping[str, Tensor], title: str) -> bytes:
    """One row of samples per method, all from the same noise and labels.

    Args:
        strips: method -> uint8 [N, C, H, W], the same N everywhere.
        title: above the figure.
    """
    images = list(strips.values())
    fig, axes = _figure(len(strips), 1, (10, 0.62 * len(strips) + 0.5))
    for ax, (name, strip) in zip(axes, strips.items(), strict=True):
        scale = max(1, PIXELS // strip.shape[-1])
        picture = grid(strip, columns=len(images[0]), scale=scale, pad=4).permute(1, 2, 0).numpy()
        ax.imshow(np.broadcast_to(picture, (*picture.shape[:2], 3)), interpolation="nearest")
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    fig.suptitle(title, fontsize=10)
    return _rendered(fig)


def curves(directory: Path, stages: Sequence[str]) -> bytes:
    """Losses, and the energy distance of samples to the data, over the training."""
    fig, (left, right) = _figure(1, 2, (10, 3.4))
    for name in stages:
        lines = read_metrics(directory / name)
        _curve(left, lines, "loss", name)
        _curve(right, lines, "energy_distance", name)
    left.set(xlabel="training step", title="training loss (each objective's own scale)")
    left.set_yscale("log")
    right.set(xlabel="training step", title="energy distance of samples to the data")
    right.set_yscale("log")
    for ax in (left, right):
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    return _rendered(fig)


def quality(
    points: Mapping[str, Sequence[tuple[int, float]]],
    baseline: float,
    real: float,
    known: str = "real test images",
) -> bytes:
    """Fréchet distance against network evaluations, one line per method.

    Args:
        points: evaluations and distance of each method.
        baseline: distance of the class-wise Gaussian.
        real: distance of the real images that `known` names.
        known: which these are.
    """
    many = len(points) > LEGEND
    fig, (ax,) = _figure(1, 1, (10, 5) if many else (7, 3.6))
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for (name, series), (colour, marker) in zip(points.items(), looks, strict=False):
        nfe, fd = zip(*sorted(series), strict=True)
        ax.plot(nfe, fd, marker=marker, color=colour, label=name, markersize=4 + many)
    ticks = _apart(sorted({nfe for series in points.values() for nfe, _ in series}))
    ax.axhline(baseline, color="grey", linestyle="--", linewidth=1)
    ax.annotate("class-wise Gaussian", (ticks[0], baseline), fontsize=8, va="bottom", color="grey")
    ax.axhline(real, color="black", linestyle=":", linewidth=1)
    ax.annotate(known, (ticks[0], real), fontsize=8, va="bottom")
    ax.set(xlabel="network evaluations per image", ylabel="Fréchet distance", xscale="log")
    ax.set_yscale("log")
    ax.set_xticks(ticks, [str(nfe) for nfe in ticks])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    if many:
        fig.legend(loc="outside right upper", frameon=False, fontsize=8)
    else:
        ax.legend(frameon=False, fontsize=8)
    return _rendered(fig)


def _apart(values: Sequence[int]) -> list[int]:
    """Those of increasing values that have room for a label on a logarithmic axis."""
    kept = list(values[:1])
    for value in values[1:]:
        if value > kept[-1] * (values[-1] / values[0]) ** 0.03:
            kept.append(value)
    return kept


def _curve(ax: Axes, lines: list[dict[str, float]], key: str, label: str) -> None:
    points = [(line["step"], line[key]) for line in lines if line.get(key, 0) > 0]
    if points:
        ax.plot(*zip(*points, strict=True), label=label, linewidth=1.2)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FewstepError(f"the report needs pip install 'fewstep[report]' ({error}).") from error
    fig = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, list(np.atleast_1d(fig.subplots(rows, columns)).flat)


def _rendered(fig: Figure) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def convergence(check: Check) -> bytes:
    """Error against step on logarithmic axes, each with a line of the slope that it must have."""
    fig, (ax,) = _figure(1, 1, (8.4, 3.9))
    colours = cycle(COLOURS)
    for line in check.lines:
        colour = "grey" if line.control else next(colours)
        _measured(ax, line, colour)
        _expected(ax, line)
    if any(0 < e < 10 * FLOOR for line in check.lines for e in line.error):
        ax.axhspan(ax.get_ylim()[0], FLOOR, color="grey", alpha=0.15, linewidth=0)
    ax.set(xlabel=check.h, ylabel=to_mathtext(check.error), xscale="log", yscale="log")
    _steps(ax, check.lines[0].h)
    ax.grid(alpha=0.25, which="major")
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(loc="outside right upper", frameon=False, fontsize=9, title="slope measured")
    return _rendered(fig)


def _measured(ax: Axes, line: Line, colour: str) -> None:
    face = "white" if line.control else colour
    slope = f"{round(line.slope, 2) + 0:.2f}".replace("-", "−")
    label = f"{to_mathtext(line.name)}: {slope}"
    ax.plot(line.h, line.error, "o", color=colour, markerfacecolor=face, markersize=6, label=label)


def _steps(ax: Axes, h: Sequence[float]) -> None:
    """Name the steps themselves, where they are too few decades for the powers of ten."""
    if max(h) < 500 * min(h):
        ax.set_xticks(h, [f"{at:,.0f}" if at >= 10 else f"{at:.2g}" for at in h])
        ax.xaxis.minorticks_off()


def _expected(ax: Axes, line: Line) -> None:
    """The expected slope through the last point above rounding."""
    points = [(h, e) for h, e in zip(line.h, line.error, strict=True) if e > FLOOR]
    if points:
        h, error = points[-1]
        fall = [error * (at / h) ** line.expected for at in line.h]
        ax.plot(line.h, fall, color="black", linewidth=0.8, alpha=0.5, zorder=1)


def paths(data: Mixture) -> bytes:
    """Paths of the PF-ODE over the density of the noisy data, ``x`` in units of its spread."""
    fig, (ax,) = _figure(1, 1, (8.4, 3.9))
    t = torch.logspace(math.log10(0.02), math.log10(data.p.T), 240, dtype=torch.float64)
    spread = (1 + t**2).sqrt()
    y = torch.linspace(-2.4, 2.4, 240, dtype=torch.float64)
    x, times = (y[:, None] * spread).reshape(-1, 1), t.repeat(len(y))
    density = data.log_density(x, times).exp().view(len(y), -1) * spread
    shade = (density / density.amax(0)).numpy()
    ax.pcolormesh(t.numpy(), y.numpy(), shade, cmap="Greys", vmax=1.6, rasterized=True)
    quantiles = torch.linspace(0.04, 0.96, 14, dtype=torch.float64)
    for q, colour in zip(quantiles, _spectrum(len(quantiles)), strict=True):
        path = data.quantile(q.expand(len(t), 1), t)[:, 0] / spread
        ax.plot(t.numpy(), path.numpy(), color=colour, linewidth=1.6)
        ax.plot(t[0], path[0], "o", color=colour, markersize=5, clip_on=False)
    _jump(ax, t.numpy(), path.numpy())
    ax.set(xscale="log", xlabel="time t", ylabel="x / √(1 + t²)", xlim=(float(t[0]), data.p.T))
    ax.spines[["top", "right"]].set_visible(False)
    return _rendered(fig)


def _jump(ax: Axes, t: np.ndarray, path: np.ndarray) -> None:
    """An arrow from a point of the path to the path's end: the consistency function."""
    at = int(0.8 * len(t))
    ax.annotate(
        "",
        (t[0], path[0]),
        (t[at], path[at]),
        arrowprops={"arrowstyle": "->", "linewidth": 1.4, "connectionstyle": "arc3,rad=0.22"},
    )
    ax.text(t[at // 2], path[0] + 0.72, "f(x, t)", fontsize=11, style="italic")


def _spectrum(n: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["turbo"](0.08 + 0.84 * i / (n - 1))) for i in range(n)]
