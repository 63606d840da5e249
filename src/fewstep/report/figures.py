"""The report's pictures, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from fewstep.data import grid
from fewstep.errors import FewstepError
from fewstep.training.logbook import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        picture = grid(strip, columns=len(images[0]), scale=8, pad=4).permute(1, 2, 0).numpy()
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
    points: Mapping[str, Sequence[tuple[int, float]]], baseline: float, real: float
) -> bytes:
    """Fréchet distance against network evaluations, one line per method."""
    fig, (ax,) = _figure(1, 1, (7, 3.6))
    for name, series in points.items():
        nfe, fd = zip(*sorted(series), strict=True)
        ax.plot(nfe, fd, "o-", label=name, markersize=4)
    ax.axhline(baseline, color="grey", linestyle="--", linewidth=1)
    ax.annotate("class-wise Gaussian", (1, baseline), fontsize=8, va="bottom", color="grey")
    ax.axhline(real, color="black", linestyle=":", linewidth=1)
    ax.annotate("real test images", (1, real), fontsize=8, va="bottom")
    ax.set(xlabel="network evaluations per image", ylabel="Fréchet distance", xscale="log")
    ax.set_yscale("log")
    evaluations = sorted({nfe for series in points.values() for nfe, _ in series})
    ax.set_xticks(evaluations, [str(nfe) for nfe in evaluations])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return _rendered(fig)


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
