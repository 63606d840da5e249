"""What every edit shares: its images and labels are checked, and it is done batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.finite import check_finite
from fewstep.flow_map import FlowMap
from fewstep.mode import evaluating
from fewstep.sampling import check_labels
from fewstep.sampling.labels import check_embedding
from fewstep.whole import whole

Labels = Tensor | int | str | Sequence[int | str] | None
Progress = Callable[[int], None]
BYTES = 16  # above it positive numbers are bytes, not data in [-1, 1] with some noise
Part = Callable[[slice, Condition], Tensor]
"""Does the rows of a batch, given the network's condition for them."""


def check_images(f: FlowMap, x: Tensor) -> None:
    """Raise `FewstepError` unless ``x`` is floats [B, *f.shape], all finite, B >= 1."""
    if not x.is_floating_point() or tuple(x.shape[1:]) != f.shape or len(x) == 0:
        raise FewstepError(
            f"this model edits floats of shape [B, {', '.join(map(str, f.shape))}] with B >= 1, "
            f"got {str(x.dtype).removeprefix('torch.')} {list(x.shape)}."
        )
    if not x.isfinite().all():
        raise FewstepError("images to edit must be finite numbers.")


def check_reference(f: FlowMap, y: Tensor) -> None:
    """`check_images` for pictures to begin with, which are of the range of the data.

    Raises:
        FewstepError: as there; pictures of 0 to 255.
    """
    check_images(f, y)
    if len(f.shape) == 3 and float(y.min()) >= 0 and float(y.max()) > BYTES:
        raise FewstepError(
            f"images to edit lie in [-1, 1], these reach from {float(y.min()):g} to "
            f"{float(y.max()):g}: give y / 127.5 - 1 of bytes."
        )


def check_pixels(f: FlowMap, what: str) -> None:
    """Raise `FewstepError` for an autoencoder, or for a model whose ``x`` is no image."""
    f.trained.check_flow(what)
    if f.latents is not None:
        raise FewstepError(
            f"{what} works on pixels; this model works on the latents of an autoencoder."
        )


def check_consistency(f: FlowMap, what: str) -> None:
    """Raise `FewstepError` for a diffusion model, whose ``f(x, t)`` is a blurred mean."""
    check_pixels(f, what)
    f.trained.check_maps(what)


def labels_for(f: FlowMap, labels: Labels, n: int) -> Tensor | None:
    """The class of each of ``n`` images [n]; None for an unconditional model.

    Raises:
        FewstepError: no class for a conditional model, one for an unconditional model, or one that
            the model does not have.
    """
    if labels is None:
        if f.num_classes:
            raise FewstepError(
                f"this model is conditional: give each image's class, 0..{f.num_classes - 1}."
            )
        return None
    if isinstance(labels, str | list | tuple):
        return check_labels(f, labels, n)
    numbers = torch.as_tensor(labels)
    return check_labels(f, numbers.expand(n) if numbers.ndim == 0 else numbers, n)


def in_batches(
    f: FlowMap,
    n: int,
    part: Part,
    labels: Labels,
    batch: int,
    progress: Progress | None = None,
    embedding: Tensor | None = None,
) -> Tensor:
    """What ``part`` makes of ``n`` images, batch by batch, put together on the CPU [n, ...].

    Raises:
        FewstepError: labels, an embedding or a batch size that do not fit.
        NotFinite: the model gives NaN or infinities.
    """
    done = []
    wanted = Condition(label=labels_for(f, labels, n), embedding=check_embedding(f, embedding, n))
    for rows, condition in _batches(f, n, wanted, batch, progress):
        with torch.inference_mode(), evaluating(f):
            done.append(check_finite(part(rows, condition).cpu()))
    return torch.cat(done)


def _batches(
    f: FlowMap, n: int, wanted: Condition, batch: int, progress: Progress | None
) -> Iterator[tuple[slice, Condition]]:
    """Rows of each batch of ``n`` images, and the condition of the network for them."""
    if whole(batch, "the batch") < 1:
        raise FewstepError(f"the batch must hold at least 1 image, got {batch}.")
    for start in range(0, n, batch):
        rows = slice(start, min(start + batch, n))
        yield rows, wanted.rows(rows).to(f.device)
        if progress:
            progress(rows.stop - start)
