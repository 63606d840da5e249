"""Pictures of the methods: quality against evaluations, in sampling and in training, and seconds.

The methods with several seeds have colours, all others are grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from fewstep.report.figures import COLOURS, MARKERS, _figure, _rendered
from fewstep.report.methods_scores import STEPS, Findings, Measured, Sampled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("quality", "seconds", "training")
Look = tuple[str, str]
GREY: Look = ("#aaaaaa", "o")
Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Evaluations that were spent, and the energy distance of samples then, by the method's name."""


def pictures(findings: Findings, curves: Curves) -> dict[str, bytes]:
    """All pictures by name."""
    drawn = (quality(findings), seconds(findings), training(findings, curves))
    return dict(zip(NAMES, drawn, strict=True))


def _looks(findings: Findings) -> dict[str, Look]:
    """Colour and marker of each method; CD is black."""
    best = [m.name for m in findings.methods if m.seeds > 1]
    coloured = zip(best, cycle(COLOURS), cycle(MARKERS), strict=False)
    looks = {m.name: GREY for m in findings.methods} | {name: (c, m) for name, c, m in coloured}
    return looks | {findings.reference.name: ("black", "X")}


def _grey_first(findings: Findings) -> Iterator[tuple[Measured, Look]]:
    """The methods with their looks; those of the legend last, so that they lie above."""
    looks = _looks(findings)
    few = [findings.reference, *findings.methods]
    for method in sorted(few, key=lambda m: looks[m.name] != GREY):
        yield method, looks[method.name]


def _label(method: Measured, look: Look) -> str | None:
    return None if look == GREY else method.name


def quality(findings: Findings) -> bytes:
    """Fréchet distance against evaluations of the network for an image."""
    fig, (ax,) = _figure(1, 1, (9, 5))
    for method, look in _grey_first(findings):
        _line(ax, method, look)
    many = findings.teacher.best
    ax.errorbar(many.nfe, many.fd.mean, many.fd.std, fmt="*", color="black", markersize=11)
    name = f"{findings.teacher.name}, {many.nfe} evaluations"
    ax.axhline(many.fd.mean, color="black", linewidth=1, alpha=0.5)
    ax.annotate(name, (many.nfe, many.fd.mean), (0, 8), textcoords="offset points", ha="right",
                fontsize=8)  # fmt: skip
    _levels(ax, findings)
    ticks = [*STEPS, many.nfe]
    ax.set(xlabel="network evaluations per image", ylabel="Fréchet distance")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(ticks, [str(nfe) for nfe in ticks])
    _finish(ax)
    fig.legend(loc="outside right upper", frameon=False, fontsize=8)
    return _rendered(fig)


def _line(ax: Axes, method: Measured, look: Look) -> None:
    colour, marker = look
    nfe = [s.nfe for s in method.sampled]
    fd = [s.fd.mean for s in method.sampled]
    error = [s.fd.std or 0.0 for s in method.sampled]
    ax.errorbar(
        nfe,
        fd,
        error,
        color=colour,
        marker=marker,
        label=_label(method, look),
        capsize=2,
        markersize=4,
        linewidth=0.7 if look == GREY else 1.2,
    )


def seconds(findings: Findings) -> bytes:
    """Fréchet distance in one step, and at best, against seconds of all the training."""
    fig, axes = _figure(1, 2, (10, 4.6))
    titles = ("one step", "the best of two and four steps")
    for ax, title, steps in zip(axes, titles, ((1,), (2, 4)), strict=True):
        for method, look in _grey_first(findings):
            if method.seconds and (s := _lowest(method, steps)):
                x = method.seconds + method.seconds_before
                _point(ax, x, s, _label(method, look), look, method.name)
        ax.set(xlabel="seconds of one core, with all it builds on", title=title)
        ax.set_yscale("log")
        _finish(ax)
    axes[0].set_ylabel("Fréchet distance")
    handles = {
        name: h for ax in axes for h, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=8)
    return _rendered(fig)


def _lowest(method: Measured, steps: Sequence[int]) -> Sampled | None:
    there = [s for k in steps if (s := method.at(k))]
    return min(there, key=lambda s: s.fd.mean, default=None)


def _point(ax: Axes, x: float, s: Sampled, label: str | None, look: Look, name: str) -> None:
    colour, marker = look
    ax.errorbar(x, s.fd.mean, s.fd.std, fmt=marker, color=colour, label=label, markersize=6)
    if look == GREY:
        ax.annotate(name, (x, s.fd.mean), (4, 2), textcoords="offset points", fontsize=6,
                    color="#777777")  # fmt: skip


def training(findings: Findings, curves: Curves) -> bytes:
    """Energy distance of samples over the training, against the evaluations that it has spent."""
    fig, (ax,) = _figure(1, 1, (9, 4.6))
    for method, look in _grey_first(findings):
        if points := [(x, y) for x, y in curves.get(method.name, ()) if y > 0]:
            width = 1.4 if look != GREY else 0.7
            colour = look[0]
            ax.plot(*zip(*points, strict=True), color=colour, label=_label(method, look),
                    linewidth=width)  # fmt: skip
    ax.set(xlabel="evaluations for each image of a batch, with all that it builds on")
    ax.set(ylabel="energy distance of samples to the data", yscale="log")
    _finish(ax)
    fig.legend(loc="outside right upper", frameon=False, fontsize=8)
    return _rendered(fig)


def _levels(ax: Axes, findings: Findings) -> None:
    """What a Gaussian has, and the test images."""
    for level, name in ((findings.R, "class-wise Gaussian"), (findings.real, "real test images")):
        ax.axhline(level, color="grey", linestyle=":", linewidth=1)
        ax.annotate(name, (1, level), fontsize=8, va="bottom", color="grey")


def _finish(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator

    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5), numticks=20))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
