"""`Dataset`: examples in memory or in a mapped file, and the way from there to a training batch."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.classes import Agreement
from fewstep.data.arrays import checked_images
from fewstep.data.images import to_float
from fewstep.data.labels import numbered
from fewstep.data.order import permutation
from fewstep.data.sharded import Sharded
from fewstep.errors import FewstepError, FewstepWarning

CHUNK = 4096  # rows hashed at a time
EMBEDDING = "embedding"
DESCRIBED = frozenset({EMBEDDING})
"""Columns that say what an example shows, as its label does."""


class Column(Protocol):
    """Values of rows [M, ...] that are looked up by the numbers of the rows."""

    @property
    def shape(self) -> torch.Size: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples with optional labels. `load` and `Dataset.from_arrays` make one.

    Attributes:
        stored: uint8 [M, C, H, W] images, possibly mapped from a file, or float32 [M, *shape].
        labels: int64 [N] in `0 ... num_classes - 1`, or None.
        classes: one name per class, empty where there are no labels.
        name: short, for tables and file names.
        source: where it came from, for the record.
        skipped: how many undecodable files were left out.
        rows: which rows of `stored` the examples are, int64 [N]; None for all in order.
        pixel_hash: hash of all rows of `stored` where it is known already.
        columns: what else belongs to each row of `stored`, by name, such as the noise of a pair.
        pictures: which of a source's pictures each row of `stored` is, where that was kept.
        origin: how synthetic examples were made (see `fewstep.data.pairs`); empty for real ones.
    """

    stored: Tensor | Sharded
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = "data"
    source: str = ""
    skipped: int = 0
    rows: Tensor | None = None
    pixel_hash: str | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    pictures: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any = None,
        classes: Sequence[str] = (),
        name: str = "arrays",
        points: bool = False,
    ) -> Dataset:
        """A data set from numpy arrays or tensors.

        Args:
            images: uint8 [N, H, W, C], [N, C, H, W] or [N, H, W]; or float images in [-1, 1].
            labels: one per example, or None: text, whole numbers or truth values.
            classes: names of all classes, which numbers then count from 0; by default the classes
                are the labels that there are.
            points: take floats [N, *shape] of any range as they are, such as points [N, 2].

        Raises:
            FewstepError: any other type, shape or range; NaN or infinity; a label that is missing
                or no class.
        """
        stored = checked_images(images, points)
        checked, names = numbered(labels, len(stored), classes)
        return cls(stored, checked, names, name, source=name)

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    def __repr__(self) -> str:
        kind = "images" if self.is_images else "points"
        classes = f", {self.num_classes} classes" if self.classes else ""
        return f"<Dataset {self.name}: {len(self):,} {kind} {list(self.shape)}{classes}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, such as (3, 32, 32)."""
        return tuple(self.stored.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.classes)

    @property
    def is_images(self) -> bool:
        """Whether an example is an image [C, H, W], not a point."""
        return self.stored.ndim == 4

    @property
    def images(self) -> Tensor:
        """All examples as stored, [N, *shape]. For a subset this copies them into memory."""
        if self.rows is not None:
            return self.stored[self.rows]
        return self.stored.whole() if isinstance(self.stored, Sharded) else self.stored

    def batch(
        self, indices: Tensor, device: torch.device | str = "cpu", flip: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The examples at `indices`, ready for a network.

        Bytes are gathered on the CPU and travel as bytes; flip and conversion happen on `device`.

        Args:
            indices: int64 [B].
            flip: mirror each image left-right with probability 1/2, drawn from torch's global
                CPU generator, so that the choice is the same on every device.

        Returns:
            float32 [B, *shape] (images in [-1, 1]) and int64 [B] labels or None.

        Raises:
            FewstepError: `flip` for data that are not images.
        """
        device = torch.device(device)
        if flip and not self.is_images:
            raise FewstepError(f"{self.name}: only images can be flipped, not shape {self.shape}")
        indices = indices.cpu()
        labels = None if self.labels is None else _sent(self.labels[indices], device)
        rows = indices if self.rows is None else self.rows[indices]
        x = _sent(self.stored.index_select(0, rows), device)
        if flip:
            # Copying whole images out of both versions is several times faster than torch.where.
            chosen = torch.arange(len(x)) + len(x) * (torch.rand(len(x)) < 0.5)
            x = torch.cat([x, x.flip(-1)]).index_select(0, _sent(chosen, device))
        return (to_float(x) if x.dtype == torch.uint8 else x), labels

    def column(self, name: str, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Rows of a column, such as "noise", for the examples at `indices` [B]: [B, ...]."""
        rows = indices.cpu() if self.rows is None else self.rows[indices.cpu()]
        return _sent(self.columns[name][rows], torch.device(device))

    def embedding(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor | None:
        """What the examples at `indices` [B] show, as embeddings [B, ...]; None without them."""
        return self.column(EMBEDDING, indices, device) if EMBEDDING in self.columns else None

    def subset(self, indices: Tensor | Sequence[int]) -> Dataset:
        """The examples at `indices`, in that order, over the same storage; classes are kept."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            labels=None if self.labels is None else self.labels[indices],
            rows=indices if self.rows is None else self.rows[indices],
        )

    def stratified_split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, the second with `round(fraction N)` examples.

        Each class gives the same fraction, up to one example (largest remainders). The choice is
        a pure function of labels, fraction and seed; both parts keep the order of the whole.

        Raises:
            FewstepError: a fraction that leaves either part empty.
        """
        n = len(self)
        total = round(fraction * n)
        if not 0 < total < n:
            raise FewstepError(f"a fraction {fraction:g} of {n} examples leaves a part empty")
        labels = torch.zeros(n, dtype=torch.int64) if self.labels is None else self.labels
        counts = torch.bincount(labels)
        quota = counts * (total / n)
        take = quota.floor().long()
        remainder_first = (quota - take).argsort(descending=True, stable=True)
        take[remainder_first[: total - int(take.sum())]] += 1

        order = permutation(n, seed)
        by_class = order[labels[order].argsort(stable=True)]
        rank = torch.arange(n) - (counts.cumsum(0) - counts)[labels[by_class]]
        held_out = torch.zeros(n, dtype=torch.bool)
        held_out[by_class] = rank < take[labels[by_class]]
        return self.subset((~held_out).nonzero()[:, 0]), self.subset(held_out.nonzero()[:, 0])

    def with_classes(self, classes: Sequence[str], whose: str) -> Dataset:
        """The same examples with labels that count the classes as somebody else does.

        Args:
            classes: names in the wanted order; classes of this data set are found by name.
            whose: who counts so, for the message.

        Raises:
            FewstepError: an example's class is none of them.
        """
        agreement = Agreement(self.classes, tuple(classes))
        if self.labels is None or (agreement.identical and not agreement.by_place):
            return self
        agreement.require(f"the data set {self.source or self.name}", whose, self.labels)
        if agreement.note:
            warnings.warn(f"{whose} and {self.name}: {agreement.note}", FewstepWarning, 2)
        return replace(self, labels=agreement.translated(self.labels), classes=agreement.merged)

    def without_labels(self) -> Dataset:
        """The same examples, unlabelled."""
        return replace(self, labels=None, classes=())

    def fingerprint(self) -> str:
        """Hash of the examples and labels (not of names): equal content, equal fingerprint."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        known = self.pixel_hash if self.rows is None else None
        pixels = PixelHash(self.shape)
        if known is None:
            order = torch.arange(len(self)) if self.rows is None else self.rows
            for rows in order.split(CHUNK):
                pixels.update(self.stored[rows])
        labels = b"" if self.labels is None else self.labels.contiguous().numpy().tobytes()
        content = (known or pixels.hexdigest()).encode() + labels
        for name in sorted(set(self.columns) & DESCRIBED):
            values = self.column(name, torch.arange(len(self)))
            content += values.contiguous().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:32]


class PixelHash:
    """Hash of rows given piece by piece; how they are cut into pieces does not matter."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._hash = hashlib.sha256(repr(tuple(shape)).encode())

    def update(self, rows: Tensor) -> None:
        self._hash.update(rows.contiguous().numpy().data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """The values on the device; to CUDA from pinned memory, so that nobody waits."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
