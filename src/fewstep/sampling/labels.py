"""Which class each sample has: one for all, one per sample, or the classes in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.classes import find_class
from fewstep.errors import FewstepError, listed
from fewstep.guidance import embeds
from fewstep.sampling.model import Model
from fewstep.whole import whole

Label = int | str
"""A class by its number or its name."""
Labels = Label | Sequence[Label] | NDArray[Any] | Tensor
"""One class for all, or one per sample."""


def balanced_labels(n: int, num_classes: int) -> Tensor:
    """Labels of ``n`` samples that take the classes in turn: 0, 1, ..., 0, 1, ... [n]."""
    return torch.arange(n) % num_classes


def class_number(f: Model, label: Label) -> int:
    """The number of the class that a user means; see `fewstep.classes.find_class`.

    Raises:
        FewstepError: an unconditional model, or a class that it does not have.
    """
    if not f.num_classes:
        raise FewstepError("this model is unconditional: it takes no label.")
    return find_class(f.classes, _plain(label))


def check_labels(f: Model, labels: Labels | None, n: int) -> Tensor | None:
    """The number of each sample's class [n]; None for an unconditional model.

    Args:
        f: the model.
        labels: one class, by name or number, for all; or a list, an array or a tensor with a class
            for each, in which numbers count the model's classes from 0; default all in turn.
        n: the number of samples.

    Raises:
        FewstepError: no samples; labels for an unconditional model, of another number than ``n``,
            or that the model does not have.
    """
    n = whole(n, "the number of samples")
    if n < 1:
        raise FewstepError(f"the number of samples must be at least 1, got {n}.")
    if labels is None:
        return balanced_labels(n, f.num_classes) if f.num_classes else None
    if not f.num_classes:
        raise FewstepError("this model is unconditional: it takes no label.")
    if _is_one(labels):
        return torch.full((n,), class_number(f, _scalar(labels)))
    shape = np.shape(labels)
    if shape != (n,):
        raise FewstepError(
            f"{n} samples take one label for all or {n} labels, got {list(shape)} of 0.."
            f"{f.num_classes - 1}."
        )
    return torch.tensor(_numbers(f, labels), dtype=torch.int64)


def check_embedding(f: Model, embedding: Tensor | None, n: int) -> Tensor | None:
    """The embedding of each sample [n, ...]; None where none is given.

    Args:
        f: the model.
        embedding: [n, d] or [n, tokens, d], or [1, ...] for all.
        n: the number of samples.

    Raises:
        FewstepError: an embedding for a model that takes none, or of another size or number.
    """
    if embedding is None:
        return None
    takes = getattr(getattr(f, "network", None), "takes", ())
    if "embedding" not in takes:
        raise FewstepError(
            "this model was trained without texts and embeddings: it takes no prompt and no "
            "embedding."
        )
    d, shape = embeds(f) or embedding.shape[-1], list(embedding.shape)
    if embedding.ndim not in (2, 3) or shape[-1] != d or shape[0] not in (1, n):
        raise FewstepError(
            f"{n} samples of this model take embeddings [{n}, {d}] or [{n}, tokens, {d}], or one "
            f"for all [1, ...]; got {shape}."
        )
    return embedding.expand(n, *shape[1:])


def _is_one(labels: Any) -> bool:
    return isinstance(labels, str | int | float) or np.ndim(labels) == 0


def _scalar(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label


def _numbers(f: Model, labels: Any) -> Iterable[int]:
    """The number of each label; a number is one already."""
    values = labels.tolist() if hasattr(labels, "tolist") else [_scalar(x) for x in labels]
    names = {name: find_class(f.classes, name) for name in set(values) if isinstance(name, str)}
    numbers = [names[x] if isinstance(x, str) else _plain(x) for x in values]
    for i, number in enumerate(numbers):
        if not 0 <= number < f.num_classes:
            raise FewstepError(
                f"label {i} is {number}, but the model's classes are 0..{f.num_classes - 1}: "
                f"{listed(f.classes)}."
            )
    return numbers


def _plain(label: Any) -> Any:
    """A name, or a whole number as an int.

    Raises:
        FewstepError: neither.
    """
    if isinstance(label, str):
        return label
    number = label if isinstance(label, int | float) else np.nan
    if isinstance(label, bool) or not float(number).is_integer():
        raise FewstepError(f"a label is a class's name or its number, got {label!r}.")
    return int(number)
