"""A data set whose examples have embeddings, by their texts or given as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fewstep.cache import expanded
from fewstep.data.build import Request
from fewstep.data.captions import (
    ENDINGS,
    Line,
    checked_vectors,
    named_columns,
    text_columns,
    texts_in,
    vectors_in,
    vectors_of_file,
)
from fewstep.data.dataset import EMBEDDING, Column, Dataset
from fewstep.data.encoders import encoded
from fewstep.errors import FewstepError, listed


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of rows, of which many may have the same.

    Args:
        table: the different ones, float32 [U, ...].
        which: of them each row has, int64 [M].
    """

    table: Tensor
    which: Tensor

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self.which), *self.table.shape[1:]])

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.table[self.which[rows]]


def scale_of(column: Column) -> float:
    """Root mean square of the numbers of embeddings that are not zero; 1 where all are."""
    table = column.table if isinstance(column, Embeddings) else column[torch.arange(len(column))]
    there = table[(table != 0).flatten(1).any(1)]
    return float(there.double().square().mean().sqrt()) if len(there) else 1.0


class Written(Protocol):
    """A collection of pictures beside which something is written."""

    origin: str

    @property
    def columns(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def lines(self, names: Sequence[str]) -> Sequence[Line]: ...


def described(
    data: Dataset, request: Request, source: Callable[[], Any], cache: Path | None
) -> Dataset:
    """The data set with the embeddings that a request asks for, if any.

    Args:
        data: what was read.
        request: how.
        source: gives the collection that it was read from; None of arrays.
        cache: folder of encoded texts.

    Raises:
        FewstepError: nothing is written beside the pictures, or something else; no encoder.
    """
    if not request.described:
        return data
    if request.embeddings and (request.encoder or request.text_column):
        raise FewstepError(
            "embeddings are given, or made of texts by an encoder: leave out either --embeddings "
            "or --encoder and --text-column"
        )
    found = source()
    if found is None:  # its examples themselves are described
        data = replace(data, pictures=None)
    if request.embeddings is None:
        return _by_texts(data, request, _checked(data, found), cache)
    path = expanded(request.embeddings)
    if path.suffix.lower() in ENDINGS:
        n = len(data.stored) if found is None else len(found)
        return with_embeddings(data, checked_vectors(str(path), vectors_of_file(path), n))
    written = _checked(data, found)
    names = named_columns(written.columns, request.embeddings, written.origin)
    array = vectors_in(written.origin, written.lines(names), names)
    return with_embeddings(data, checked_vectors(written.origin, array, len(written)))


def _checked(data: Dataset, found: Any) -> Written:
    if not hasattr(found, "lines"):
        raise FewstepError(
            f"{data.source or data.name} has no texts beside its images: these are in a folder of "
            "images with metadata.jsonl, or in a Parquet file; give embeddings as a file, "
            "--embeddings FILE.npy"
        )
    written: Written = found
    return written


def _by_texts(data: Dataset, request: Request, source: Written, cache: Path | None) -> Dataset:
    names = text_columns(source.columns, request.text_column, source.origin)
    texts = texts_in(source.origin, source.lines(names), names)
    if request.encoder is None:
        raise FewstepError(
            f"{source.origin}: the column {listed(names)} holds texts, of which an encoder of "
            "yours makes embeddings: name it, --encoder module:function"
        )
    if not any(texts):
        raise FewstepError(f"{source.origin}: the column {listed(names)} holds no text at all")
    different = list(dict.fromkeys(texts))
    places = {text: i for i, text in enumerate(different)}
    table = encoded(request.encoder, different, cache)
    return with_embeddings(data, table, torch.tensor([places[text] for text in texts]))


def with_embeddings(data: Dataset, table: Tensor, which: Tensor | None = None) -> Dataset:
    """The data set with an embedding of every example.

    Args:
        data: with `pictures`, where not every picture has become an example.
        table: embeddings, float32 [U, ...].
        which: of them each picture has [P]; default each its own.

    Raises:
        FewstepError: another number of pictures.
    """
    which = torch.arange(len(table)) if which is None else which
    rows = data.pictures if data.pictures is not None else torch.arange(len(data.stored))
    if len(rows) and int(rows.max()) >= len(which):
        raise FewstepError(f"{data.name} has {len(rows):,} pictures and {len(which):,} embeddings")
    found = Embeddings(table, which[rows])
    return replace(data, columns={**data.columns, EMBEDDING: found})
