"""What a user wants to see, in words or as an embedding, as a model is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.data.captions import checked_vectors, vectors_of_file
from fewstep.data.encoders import encoded
from fewstep.errors import FewstepError
from fewstep.plugins.trusted import trust
from fewstep.sampling.labels import check_embedding

ENCODER = "encoder"
"""Key of a model's ``info`` that names the encoder of the texts that it was trained with."""


@dataclass(frozen=True)
class Wanted:
    """What is to be shown.

    Args:
        prompts: texts, of which the samples take turns.
        file: embeddings in place of texts.
        encoder: of the texts, which the user names; default the one that the model names, where
            the user has named it before.
    """

    prompts: tuple[str, ...] = ()
    file: Path | None = None
    encoder: str | None = None


def embedding_for(f: Any, wanted: Wanted, n: int) -> Tensor | None:
    """The embeddings of ``n`` samples: [n, d] or [n, tokens, d]; None where nothing is asked for.

    Raises:
        FewstepError: texts and a file; a model that takes neither; texts for a model that names no
            encoder, or one that cannot be imported or that the user has never named; an embedding
            that does not fit.
    """
    if wanted.prompts and wanted.file is not None:
        raise FewstepError("give --prompt or --embedding, not both.")
    if wanted.file is not None:
        return check_embedding(f, _of_file(wanted.file, n), n)
    if not wanted.prompts:
        return None
    takes_none = torch.zeros(1, 1)  # which a model without embeddings refuses as any other
    if not takes_embeddings(f):
        check_embedding(f, takes_none, n)
    found = encoded(_encoder(f, wanted), wanted.prompts)
    return check_embedding(f, found[torch.arange(n) % len(found)], n)


def _of_file(file: Path, n: int) -> Tensor:
    array = vectors_of_file(file)
    found = checked_vectors(str(file), array[None] if array.ndim == 1 else array, None)
    if len(found) not in (1, n):
        raise FewstepError(
            f"{file} holds {len(found):,} embeddings for {n:,} images: -n {len(found)}."
        )
    return found


def takes_embeddings(f: Any) -> bool:
    """Whether a model is told embeddings."""
    return bool(getattr(getattr(f, "network", None), "embeds", 0))


def encoder_named(f: Any, name: str | None = None) -> str | None:
    """The encoder of a model's texts; None without.

    Args:
        f: the model.
        name: of an encoder that the user names, which is trusted; default the model's own.
    """
    if name:
        trust(name)
    found = name or f.info.get(ENCODER)
    return str(found) if found else None


def _encoder(f: Any, wanted: Wanted) -> str:
    name = encoder_named(f, wanted.encoder)
    if name is None:
        raise FewstepError(
            "this model was trained with embeddings and names no encoder of texts: give "
            "--embedding FILE, or --encoder module:function."
        )
    return name
