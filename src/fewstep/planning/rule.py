"""The rule by which a plan is chosen; docs/fit.md states it for people.

Sizes and widths are such that a diffusion model sees enough images in its time, of larger images
more. For sizes that is estimated from the speed of a small network here; widths are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewstep.errors import FewstepError
from fewstep.planning.choices import YOURS, Choice, Choices
from fewstep.planning.looked_at import Looked, Source
from fewstep.runs.components import arguments_of
from fewstep.training.config import Precision

TEACHER, FEW, AFTER = 0.55, 0.30, 0.15
"""Shares of a budget: the diffusion model, the model of few steps, time points and scores. A method
that needs no diffusion model has the first two, and sees as many images at its dearer steps as that
model in its share, or a few more."""
SIDES = (64, 32, 16)
"""Sizes of images that are tried, the largest first, below the images' own."""
SEEN = 40  # images for each number of theirs that make a size worth it for a small network
HOPELESS = 500  # images below which a size is refused before any is read
WIDE = 100_000  # images that a network of `NARROW` channels sees before a wider one is better
NARROW = 24
HOPED = 4.0  # times what is estimated, which a width is never faster
POWER = 1.5  # of the width in the time of a step: small networks do not fill a processor
CHANNELS = (128, 96, 64, 48, 32, 24, 16)
PASSES = 300  # times that images are seen, from which on they would be learned by heart
AUGMENT, DROPOUT = 0.12, 0.1  # what keeps a training from that
BATCH = {"cpu": 32, "cuda": 256}
RATE, SLOWER = 2e-3, 32  # learning rate, and the width from which on it falls as the width grows
CAREFUL, SLOWER_CAREFUL = 1e-3, 48  # of a diffusion model, what follows it, and other networks
METHOD, DISTILS, UNET = "soflow", "cd", "unet"


Pace = Callable[..., tuple[Precision, float]]
"""The faster precision of a network, by its name and arguments, and its images a second in it."""


@dataclass(frozen=True)
class Speed:
    """Of a diffusion model's training here, measured on a small network.

    Args:
        images: a second, of a U-Net of `NARROW` channels.
        side: of these images.
        threads: of the CPU, with which it was fastest.
    """

    images: float
    side: int
    threads: int

    def of(self, side: int, channels: int = NARROW) -> float:
        """Images a second of another size and width, by about how much there is to compute."""
        return self.images * (self.side / side) ** 2 * (NARROW / channels) ** POWER


def check_threads(given: Mapping[str, Any]) -> None:
    """Raise `FewstepError` for a user's number of threads with which nothing can be computed."""
    if (n := given.get("threads")) is not None and n < 1:
        raise FewstepError(f"threads must be at least 1, got {n}.")


def network_of(side: int, channels: int, dropout: float = 0.0) -> dict[str, Any]:
    """Arguments of a U-Net for images of a side: halved until 8 pixels or fewer are left."""
    levels = max(1, min(4, round(math.log2(side / 8)) + 1))
    multipliers = (1, 2, 2, 3)[:levels] if side > 16 else (1, 2, 2)[:levels]
    filled = math.ceil(side / 2 ** (levels - 1)) * 2 ** (levels - 1)  # as the U-Net computes
    attention = tuple(filled >> i for i in range(levels) if 4 <= filled >> i <= 8)
    own = {"channels": channels, "multipliers": multipliers, "blocks": 1, "attention": attention}
    return own | ({"dropout": dropout} if dropout else {})


def sides(source: Source) -> Iterator[int]:
    """Sizes to choose from, the largest first: the images' own where it is small, and smaller."""
    (height, width), own = next(iter(source.sizes)), source.side
    whole = len(source.sizes) == 1 and height == width and own % 4 == 0
    if whole and own <= SIDES[0] and own not in SIDES:
        yield own
    yield from (side for side in SIDES if side <= own)
    if own < SIDES[-1] and not whole:
        yield max(8, own // 4 * 4)


def choose_size(choices: Choices, source: Source, speed: Speed, seconds: float) -> int:
    """The largest size of which a training sees enough images."""
    channels = int(choices.make("channels", 3 if source.colour else 1, "as the images are"))
    found, seen, wanted = 0, 0.0, 0
    for side in sides(source):
        found, seen = side, TEACHER * seconds * speed.of(side)
        wanted = SEEN * channels * side**2
        if seen >= wanted:
            break
    enough = f"{wanted:,} or more are enough" if seen >= wanted else f"{wanted:,} would be enough"
    why = (
        f"the images are {source.side} pixels wide; of this size the training sees about "
        f"{_about(seen)} images; {enough}"
    )
    size = int(choices.make("size", found, why))
    if size > found and (seen := TEACHER * seconds * speed.of(size)) < HOPELESS:
        raise FewstepError(
            f"of images of {size} pixels the training would see about {_about(seen)} in "
            f"this time: leave out --size, which makes it {found}, or give a longer --budget."
        )
    return size


def choose_network(
    choices: Choices, looked: Looked, speed: Speed, pace: Pace, seconds: float
) -> None:
    """The network, its size, precision and dropout, and the training's augmentation.

    Args:
        choices: to be made.
        looked: the images.
        speed: of a small network, to leave out widths that are hopeless.
        pace: measures a network here.
        seconds: of the whole budget.

    Raises:
        FewstepError: the user has chosen what the network has no use for.
    """
    why = "convolutions learn most from few images in little time"
    network = str(choices.make("network", UNET, why))
    if network == UNET:
        own = choices.given.get("width")
        widths = CHANNELS if own is None else (own,)
        found, precision, seen = _widest(widths, choices["size"], speed, pace, seconds)
        why = f"the widest that sees enough images here, about {_about(seen)}"
        choices.make("width", found, why)
    else:
        _refuse(choices, ("width",), network)
        precision, images = pace(network)
        seen = TEACHER * seconds * images
    choose_precision(choices, precision)
    keep_from_copies(choices, seen / looked.n)
    looks = "look like" if looked.mirrors else "do not look like"
    choices.make("flip", looked.mirrors, f"mirrored images {looks} the others")


def keep_from_copies(choices: Choices, passes: float) -> None:
    """Augmentation and dropout, where images are seen so often that they are learned by heart.

    Where they are not, both would only make the training slower.

    Args:
        choices: to be made, the network among those that are.
        passes: how often a training sees each image.

    Raises:
        FewstepError: the user has chosen what the network has no use for.
    """
    network, often = choices["network"], passes > PASSES
    times = f"about {_about(passes)} times" if passes >= 1.5 else "once at most"
    seen = f"each image is seen {times}"
    why = f"{seen}, {'and would be' if often else 'too seldom to be'} learned by heart"
    if network == UNET:
        choices.make("dropout", DROPOUT if often else 0.0, why)
    else:
        _refuse(choices, ("dropout",), network)
    if "augment" in arguments_of("network", network):
        told = f"{seen}: moved, turned and scaled; the network is told how, so samples are not"
        choices.make("augment", AUGMENT if often else 0.0, told if often else why)
    else:
        _refuse(choices, ("augment",), network)
        choices.make("augment", 0.0, f"{network} cannot be told of it")


def reopened(kept: Mapping[str, Choice]) -> dict[str, Choice]:
    """The choices of a shorter training that a longer one keeps.

    All but augmentation and dropout, of which there was none, where that was not the user's choice.
    """
    names = ("augment", "dropout")
    return {k: c for k, c in kept.items() if k not in names or c.value or c.why == YOURS}


def _widest(
    widths: Sequence[int], size: int, speed: Speed, pace: Pace, seconds: float
) -> tuple[int, Precision, float]:
    """The widest U-Net that sees enough images, its precision, and how many it sees."""
    *wide, narrowest = widths
    for channels in wide:
        enough = WIDE * channels / NARROW
        if HOPED * TEACHER * seconds * speed.of(size, channels) < enough:
            continue
        precision, images = pace(UNET, **network_of(size, channels))
        if (seen := TEACHER * seconds * images) >= enough:
            return channels, precision, seen
    precision, images = pace(UNET, **network_of(size, narrowest))
    return narrowest, precision, TEACHER * seconds * images


def _refuse(choices: Choices, names: Iterable[str], network: str) -> None:
    """Raise `FewstepError` for the user's choices that a network has no use for."""
    for name in names:
        if choices.given.get(name) is not None:
            raise FewstepError(
                f"{network} has no use for --{name} here: leave that out, or take --network {UNET}."
            )


def choose_precision(choices: Choices, found: Precision) -> None:
    """The arithmetic that was found to be worth it."""
    worth = "it is the faster one here" if found == "bf16" else "bf16 is not much faster here"
    choices.make("precision", found, worth)


def choose_training(choices: Choices, looked: Looked, device: torch.device, *, alone: bool) -> None:
    """Batch, rate and averages.

    Args:
        choices: to be made.
        looked: the images.
        device: where.
        alone: whether the method learns from images alone, see `trainings.learns_alone`.
    """
    batch = min(BATCH.get(device.type, 32), max(16, looked.n))
    choices.make("batch", batch, f"what suits {device.type}")
    unet = choices["network"] == UNET
    rate, slower = (RATE, SLOWER) if alone and unet else (CAREFUL, SLOWER_CAREFUL)
    if unet:
        rate *= slower / max(slower, choices["width"])
    why = "what suits a small network; the wider it is, the lower"
    choices.make("lr", float(f"{rate:.2g}"), why)
    choices.make("ema", [0.9999], "an average over the last twentieth takes the noise of the rate")


def choose_method(choices: Choices) -> str:
    """The method of few steps."""
    why = "in equal time it was better than CD in one, two and four steps (docs/fit.md)"
    return str(choices.make("method", METHOD, why))


def _about(n: float) -> str:
    """A number with two digits that count."""
    if n < 1:
        return "0"
    digits = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return f"{round(n / digits) * digits:,.0f}"
