"""Data sets that have a paper, recognised by what they are called."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import NamedTuple

from fewstep.papers import Citation


class Known(NamedTuple):
    """A data set.

    Args:
        name: what people call it.
        citation: of its paper; "" where there is none to cite.
        called: what files, folders, recipes and data sets of the hub with it are called, without
            signs and in small letters.
    """

    name: str
    citation: Citation
    called: str


KNOWN = (
    Known("Fashion-MNIST", "xiao2017fashion", "fashionmnist"),
    Known("EMNIST", "cohen2017emnist", "emnist"),
    Known("KMNIST", "clanuwat2018deep", "kmnist"),
    Known("QMNIST", "yadav2019cold", "qmnist"),
    Known("MNIST", "lecun1998gradient", "mnist"),
    Known("CIFAR-10", "krizhevsky2009learning", "cifar10"),
    Known("ImageNet", "deng2009imagenet", "imagenet"),
    Known("LSUN", "yu2015lsun", "lsun"),
    Known("scikit-learn's digits", "alpaydin1998optical", "digits"),
    Known("points of the plane, made by fewstep", "", "toy2d"),
)
"""Of two that fit, the first counts."""
WHOLE = ("digits", "toy2d")  # words that mean these data alone where nothing else stands there


def known_data(given: str, recipe: str = "") -> Known | None:
    """The data set that somebody named; None where it is none of `KNOWN`.

    Args:
        given: path, pattern of files, reader or name of the hub.
        recipe: of the training, whose family may be made for one data set.
    """
    parts = [*PurePath(given).parts[-3:], recipe.partition("/")[0]]
    words = [re.sub(r"[^a-z0-9]", "", part.lower()) for part in parts]
    for known in KNOWN:
        if known.called in WHOLE:
            if given == known.called:
                return known
        elif any(known.called in word for word in words):
            return known
    return None
