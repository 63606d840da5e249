"""The moving pictures of the documentation, made by the program itself.

    fewstep reproduce digits
    fewstep reproduce fashion
    python docs/pictures/make.py runs/reproduce-digits runs/reproduce-fashion

The pictures of the plane are exact: the data are `fewstep.data.toy2d`, whose paths from noise are
known (`fewstep.theory.plane`). The digits are samples of a diffusion model and of a consistency
model that was distilled from it, from the same noises; the clothes are of a diffusion model and a
flow map.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import fewstep
from fewstep.condition import Condition
from fewstep.report.figures import _spectrum
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.sampler import Sampler
from fewstep.theory.plane import denoise, log_density, nearest, path

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
FAR, NEAR = 20.0, 0.002  # noise levels
SIDE, EDGE = 340, 2.4  # pixels of a picture, and half of the plane that it shows
PACE, REST = 60, 1500  # milliseconds of a frame, and of the last
SHOWN = 56  # pixels of the picture for the side of an image


def main(of_digits: Path, of_clothes: Path) -> None:
    """Make every picture, beside this file."""
    save("digits", digits(of_digits), pace=140)
    save("clothes", clothes(of_clothes), pace=260)
    steps().save(HERE / "steps.png", optimize=True)
    save("paths", [frame(lambda ax, k=k: paths(ax, k)) for k in stops(48)])
    save("one-path", [frame(lambda ax, k=k: one_path(ax, k)) for k in stops(40)])


def save(name: str, frames: Sequence[Image.Image], pace: int = PACE) -> None:
    """An endless film, whose last frame rests."""
    times = [pace] * (len(frames) - 1) + [REST]
    frames[0].save(
        HERE / f"{name}.webp", save_all=True, append_images=frames[1:], duration=times, loop=0,
        quality=60, method=6,
    )  # fmt: skip


# The plane


def stops(count: int) -> list[int]:
    """States of a path of 240 steps, between the noise levels where most happens, and its ends."""
    first, last = 24, 170
    inner = (round(first + (last - first) * i / (count - 3)) for i in range(count - 2))
    return [0, *inner, 240]


def noises(n: int, seed: int = 3) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def states(n: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Paths from noise to data [241, n, 2] as they are shown, and their levels [241]."""
    level = torch.full((n,), FAR, dtype=torch.float64)
    found = path(FAR * noises(n, seed), level, torch.full_like(level, NEAR), 240)
    return shown(found, levels()), levels()


def levels() -> Tensor:
    ends = torch.tensor([FAR, NEAR], dtype=torch.float64).log()
    return torch.linspace(float(ends[0]), float(ends[1]), 241, dtype=torch.float64).exp()


def shown(x: Tensor, level: Tensor) -> Tensor:
    """Points at their levels, the noise shrunk to one size."""
    return x / (1 + level**2).sqrt()[:, None, None]


def frame(draw: Callable[[Axes], None]) -> Image.Image:
    """A picture of the plane."""
    fig = plt.figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
    draw(fig.add_axes((0, 0, 1, 1)))
    return rendered(fig)


def rendered(fig: plt.Figure) -> Image.Image:
    written = BytesIO()
    fig.savefig(written, format="png")
    plt.close(fig)
    return Image.open(written).convert("RGB")


def plain(ax: Axes, edge: float = EDGE) -> None:
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def shade(ax: Axes, edge: float = EDGE) -> None:
    """The density of the data."""
    side = torch.linspace(-edge, edge, 240, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    grid = torch.stack([x.flatten(), y.flatten()], 1)
    density = log_density(grid, torch.zeros(len(grid), dtype=torch.float64)).exp().view(240, 240)
    ax.pcolormesh(side.numpy(), side.numpy(), density.numpy(), cmap="Greys", vmax=4)


def colours(ends: Tensor) -> list[object]:
    spectrum = _spectrum(8)
    return [spectrum[int(which)] for which in nearest(ends)]


def paths(ax: Axes, k: int) -> None:
    """Noise that becomes data: points, and the way that each has come."""
    found, level = states(220)
    of = colours(found[-1])
    for i, colour in enumerate(of):
        ax.plot(*found[: k + 1, i].T.numpy(), color=colour, linewidth=0.5, alpha=0.35)
    ax.scatter(*found[k].T.numpy(), c=of, s=9, linewidths=0)
    ax.text(-2.3, 2.15, f"noise {level[k]:.3g}", fontsize=9)
    plain(ax)


def one_path(ax: Axes, k: int) -> None:
    """One path, a point that goes along it, and where the consistency function takes it."""
    found, level = states(400)
    which = most_bent(found)
    line, end = found[:, which], found[-1, which]
    shade(ax)
    ax.plot(*line.T.numpy(), color="0.55", linewidth=1.2)
    for point in (line[k], end):
        ax.scatter(*point.numpy(), c=colours(found[-1])[which : which + 1], s=60, zorder=3)
    if (line[k] - end).norm() > 0.15:
        ax.annotate(
            "", end.tolist(), line[k].tolist(),
            arrowprops={"arrowstyle": "-|>", "color": "black", "shrinkB": 5, "linewidth": 1.4},
        )  # fmt: skip
    ax.text(-2.3, 2.15, f"noise {level[k]:.3g}", fontsize=9)
    plain(ax)


def most_bent(found: Tensor) -> int:
    """Of long paths [241, n, 2] the one that goes farthest from the line between its ends."""
    chord = found[-1] - found[0]
    away = found - found[0]
    across = (chord[:, 0] * away[..., 1] - chord[:, 1] * away[..., 0]).abs().amax(0)
    long = (chord.norm(dim=1) > 1.2) & (found.abs().amax((0, 2)) < 0.8 * EDGE)
    return int((across / chord.norm(dim=1) * long).argmax())


def steps() -> Image.Image:
    """What one and four steps of a diffusion model give, and one jump of the exact map."""
    fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.65), dpi=100, layout="constrained")
    z = FAR * noises(600, 8)
    level = torch.full((len(z),), FAR, dtype=torch.float64)
    exact = path(z, level, torch.full_like(level, NEAR), 240)[-1]
    kinds = {
        "diffusion, 1 step": euler(z, 1),
        "diffusion, 4 steps": euler(z, 4),
        "consistency, 1 step": exact,
    }
    for ax, (title, x) in zip(axes, kinds.items(), strict=True):
        shade(ax, 1.3)
        ax.scatter(*x.T.numpy(), c=colours(exact), s=4, linewidths=0)
        ax.set_title(title, fontsize=10)
        plain(ax, 1.3)
    return rendered(fig)


def euler(z: Tensor, count: int) -> Tensor:
    """Euler's method on the exact PF-ODE, on Karras' grid: [n, 2]."""
    grid = torch.linspace(FAR ** (1 / 7), NEAR ** (1 / 7), count + 1, dtype=torch.float64) ** 7
    x = z
    for now, after in pairwise(grid):
        D = denoise(x, now.expand(len(x)))
        x = x + (after - now) * (x - D) / now
    return x


# Images


def digits(runs: Path) -> list[Image.Image]:
    """The states of a diffusion model, and below them the one jump of a consistency model."""
    many = Line(runs / "edm", fewstep.Walk(18), "diffusion")
    return film([many, Line(runs / "cd", fewstep.Jumps(), "consistency")])


def clothes(runs: Path) -> list[Image.Image]:
    """The states of a diffusion model, and below them the four jumps of a flow map."""
    many = Line(runs / "edm", fewstep.Walk(12, grid="straight"), "diffusion")
    return film([many, Line(runs / "soflow", fewstep.Jumps(N=4, gamma=0), "flow map")])


@dataclass(frozen=True)
class Line:
    """A row of a film: a model, how it is sampled, and what it is called."""

    run: Path
    sampler: Sampler
    who: str


def film(lines: Sequence[Line]) -> list[Image.Image]:
    """All from the same ten noises; a row that has ended stands still."""
    states = [walked(line) for line in lines]
    return [
        sheet([row(line, x, k) for line, x in zip(lines, states, strict=True)])
        for k in range(max(map(len, states)))
    ]


def row(line: Line, states: Sequence[Tensor], k: int) -> tuple[Tensor, str]:
    """What stands after ``k`` steps, and how many evaluations of the network it took."""
    last = len(states) - 1
    k = min(k, last)
    n = 2 * k - (k == last) if isinstance(line.sampler, fewstep.Walk) else k
    return states[k], f"{line.who}: {n} evaluation{'' if n == 1 else 's'}"


def walked(line: Line) -> list[Tensor]:
    """The noise, and what stands after each step, shrunk to the size of images, of each class."""
    f = fewstep.open_model(line.run)
    own = line.sampler.fitted(f)
    with torch.inference_mode():
        one_of_each = Condition(label=torch.arange(10))
        found = list(own.steps(f, NoiseStreams(0, range(10), f.shape), one_of_each))
    noise = NoiseStreams(0, range(10), f.shape).normal()
    times = own.reached(f.p) if len(found) > 1 else [0.0]
    straight = f.p.straight  # whose states all have the size of images
    sizes = [1.0 if straight else (1 + (t / f.p.sigma_data) ** 2) ** 0.5 for t in times]
    return [noise, *(x / size for x, size in zip(found, sizes, strict=True))]


def sheet(rows: Sequence[tuple[Tensor, str]]) -> Image.Image:
    """Rows of images with a line of words above each."""
    side, gap, words = SHOWN, 3, 20
    picture = Image.new("RGB", (10 * (side + gap), len(rows) * (side + words + gap)), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    for i, (x, said) in enumerate(rows):
        top = i * (side + words + gap)
        pen.text((2, top + 1), said, fill="black", font=font)
        for j, image in enumerate(((x.clamp(-1, 1) + 1) * 127.5).byte().squeeze(1)):
            tile = Image.fromarray(image.numpy()).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(tile.convert("RGB"), (j * (side + gap), top + words))
    return picture


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
