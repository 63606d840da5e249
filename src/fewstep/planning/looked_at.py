"""What a set of images is: how many, how large, of which classes and colours, which alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fewstep.data import Dataset
from fewstep.data.sources import sizes_of
from fewstep.errors import FewstepError, listed
from fewstep.runs.parts import request_of
from fewstep.runs.run import Data

FEWEST = 16  # images below which there is nothing to hold out and little to learn
A_FEW = 5  # images a class, on average, below which classes say nothing
SEEN = 1000  # images that are compared with each other
SIDE = 8  # to which they are averaged down for that
BLOCK = 256  # images that are compared with others at a time
ALIKE = 2.5  # grey levels of 255, root mean square, below which two images are nearly one
MIRRORED = 1.15  # how much farther a mirrored image may be from the others than the image is


@dataclass(frozen=True)
class Source:
    """Images as their headers say, before any is decoded.

    Args:
        name: of the folder or file.
        sizes: how many images have each (height, width).
        colour: whether any stores colour.
    """

    name: str
    sizes: Counter[tuple[int, int]]
    colour: bool

    @classmethod
    def of(cls, name: str, how: Data | None = None) -> Source:
        """Look at the training images of a folder or file.

        Args:
            name: of it.
            how: names of columns.

        Raises:
            FewstepError: nothing there; fewer images than can be learned from.
        """
        request = request_of(replace(how or Data(), labels=False, skip_bad=True), "train")
        found = sizes_of(name, request)
        if len(found) < FEWEST:
            raise FewstepError(
                f"{name} holds {len(found)} image{'s' * (len(found) != 1)} that can be read: a "
                f"generator is fitted to {FEWEST} at least, some of which are held out. Add more, "
                "or tune a trained model to these: fewstep train images --init MODEL --data PATH."
            )
        return cls(name, Counter((h, w) for h, w, _ in found), any(c for *_, c in found))

    @property
    def n(self) -> int:
        return sum(self.sizes.values())

    @property
    def side(self) -> int:
        """The shorter side of the median image."""
        sides = sorted(Counter(min(size) for size in self.sizes.elements()).elements())
        return sides[len(sides) // 2]

    @property
    def words(self) -> str:
        """How many images there are and of which sizes, in a few words."""
        common = [f"{w}x{h}" for (h, w), _ in self.sizes.most_common(3)]
        several = f" and {len(self.sizes) - 3:,} other sizes" * (len(self.sizes) > 3)
        kind = "colour" if self.colour else "grey"
        return f"{self.n:,} {kind} images of {', '.join(common)}{several} in {self.name}"


@dataclass(frozen=True)
class Looked:
    """Images in the size that they are trained in.

    Args:
        n: how many there are to train on.
        held_out: how many are kept for the scores.
        classes: their names; empty where classes are not used.
        why: what is to be said of the classes.
        skipped: files that could not be read.
        alike: share of the images that are nearly another one.
        mirrors: whether a mirrored image looks like one of the set.
        spread: standard deviation of the pixels, in [-1, 1].
    """

    n: int
    held_out: int
    classes: tuple[str, ...]
    why: str
    skipped: int
    alike: float
    mirrors: bool
    spread: float

    @property
    def words(self) -> tuple[str, ...]:
        """Sentences for the plan."""
        said = [f"{self.n:,} images train, {self.held_out:,} are held out for the scores."]
        said.append(self.why)
        if self.skipped:
            said.append(f"{self.skipped:,} files cannot be read as images and are left out.")
        if self.alike > 0.01:
            said.append(f"{100 * self.alike:.0f} % of the images are nearly another one.")
        return tuple(said)


def classes_worth(data: Dataset) -> tuple[bool, str]:
    """Whether a model should be told the classes, and why."""
    if data.labels is None or not data.classes:
        return False, (
            "There are no classes: subfolders would name them, or a column (--label-column)."
        )
    names = listed(data.classes)
    if len(data.classes) == 1:
        return False, f"The one class {names} says nothing, so the model is not told it."
    if len(data) < A_FEW * len(data.classes):
        return False, (
            f"{len(data.classes):,} classes of {len(data) / len(data.classes):.1f} images each are "
            "too many for so few: the model is not told them."
        )
    return True, f"{len(data.classes):,} classes: {names}."


def look(train: Dataset, held_out: int, why: str) -> Looked:
    """What there is to say of the training images."""
    images = train.images[_spaced(len(train))]
    x = _small(images)
    apart, turned = _nearest(x, x), _nearest(_small(images.flip(-1)), x)
    return Looked(
        n=len(train),
        held_out=held_out,
        classes=train.classes,
        why=why,
        skipped=train.skipped,
        alike=float((apart < ALIKE).double().mean()),
        mirrors=float(turned.median()) <= MIRRORED * float(apart.median()) + 1e-9,
        spread=float(images.float().div(127.5).std()),
    )


def groups(images: Tensor) -> Tensor:
    """A number for each image uint8 [N, C, H, W], the same for those that are nearly one: [N].

    Chains are one group. Images differ by at least as much as their means, so that only those of
    about the same mean are compared.
    """
    x = _small(images)
    mean, order = x.mean(1).sort()
    x, links = x[order], [torch.empty(0, 2, dtype=torch.int64)]
    for start in range(0, len(x), BLOCK):
        some = x[start : start + BLOCK]
        last = mean[start + len(some) - 1] + ALIKE
        others = x[start : int(torch.searchsorted(mean, last, right=True))]
        near = torch.cdist(some, others) < ALIKE * x.shape[1] ** 0.5
        if int(near.sum()) > len(some):  # not each itself alone
            links.append(start + _links(near))
    return _connected(order[torch.cat(links)], len(x))


def _links(near: Tensor) -> Tensor:
    """Few pairs [m, 2] that connect what is near [n, N]; the first n of the N are the rows."""
    common = near.float() @ near.T.float()
    group, order = _connected(common.nonzero(), len(near)).sort(stable=True)
    same = group[1:] == group[:-1]
    rows = torch.stack([order[:-1][same], order[1:][same]], 1)
    some = near.any(0).nonzero()[:, 0]
    return torch.cat([rows, torch.stack([near.byte().argmax(0)[some], some], 1)])


def _connected(pairs: Tensor, n: int) -> Tensor:
    """A number for each of ``n`` things, the same for those that pairs [m, 2] connect: [n]."""
    from scipy.sparse import coo_array  # here: its import takes a while
    from scipy.sparse.csgraph import connected_components

    a, b = pairs.numpy().T
    found = connected_components(coo_array((np.ones(len(a)), (a, b)), (n, n)), directed=False)[1]
    return torch.from_numpy(found).long()


def _spaced(n: int) -> Tensor:
    return torch.linspace(0, n - 1, min(n, SEEN)).round().long()


def _small(images: Tensor) -> Tensor:
    """Images as rows of pixels of at most 8x8, in grey levels."""
    h, w = (min(side, SIDE) for side in images.shape[2:])
    return adaptive_avg_pool2d(images.float(), (h, w)).flatten(1)


def _nearest(x: Tensor, others: Tensor) -> Tensor:
    """Root mean square distance of each row to the nearest other row, not to its own place: [n]."""
    d = torch.cdist(x, others) / x.shape[1] ** 0.5
    return d.fill_diagonal_(torch.inf).min(1).values


def of_path(name: str) -> str:
    """A folder or file as it is named from anywhere; other sources by their name."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def is_of(name: str, begun: str) -> bool:
    """Whether what is named now is what a folder was begun with, which may have been moved since.

    Args:
        name: as the user gives it now.
        begun: as `of_path` gave it then.
    """
    if of_path(name) == begun:
        return True
    here, then = Path(name), Path(begun)
    if here.exists() and then.exists():
        return here.samefile(then)
    return here.name == then.name


def called(name: str) -> str:
    """What a folder made from a source is called: as the source's own folder or file is."""
    path = Path(name).resolve()
    if path.exists():
        return path.name if path.is_dir() else path.stem
    return Path(name.partition(":")[2] or name).stem.replace(":", "-")
