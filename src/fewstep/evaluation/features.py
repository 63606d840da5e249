"""What a feature network is, and how images stream through one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewstep.digest import sha256_of_weights
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.evaluation.frechet import Moments
from fewstep.mode import evaluating
from fewstep.papers import Cited
from fewstep.plugins.load import code_of
from fewstep.progress import progress
from fewstep.registry import Registry

FEATURE_NETWORKS: Registry[FeatureNetwork] = Registry("feature network")
"""Feature networks of plugins."""


class Features(NamedTuple):
    """What a feature network says of images."""

    features: Tensor
    """float32 [N, D]."""
    logits: Tensor | None = None
    """float32 [N, K], of a network that classifies."""
    spatial: Tensor | None = None
    """float32 [N, E], of a network that also says where in the image things are."""


class FeatureNetwork(Cited, nn.Module):
    """Maps images to feature vectors, and to class scores if it is a classifier.

    A subclass sets the attributes and gives `forward`, which sees uint8 [B, C, H, W].
    """

    name: str
    shape: tuple[int, ...] | None
    """Shape (C, H, W) of the images that it takes; None for any size, grey or colour."""
    num_features: int
    num_classes: int
    """0 for a network that does not classify."""
    classes: tuple[str, ...] | None = None
    """What its classes are called; None where they are those that the reference has."""
    resize: str | None = None
    """How it brings images to its own size: a name in `resize.RESIZES`; None if it does not."""
    batch: int = 512
    """Images that `extract` gives it at a time."""

    @abstractmethod
    def forward(self, images: Tensor) -> Features: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, resize and a plugin's code: equal where scores are comparable."""
        settings = self.name + (self.resize or "") + code_of(type(self))
        return sha256_of_weights(settings, self.state_dict())

    @property
    def fingerprint_is_whole(self) -> bool:
        """Whether the fingerprint tells all that decides the features.

        Code of one's own may call what it does not see.
        """
        return not code_of(type(self))


def check_images(images: Tensor, shape: tuple[int, ...] | None, what: str = "the images") -> None:
    """Raise `FewstepError` unless ``images`` are uint8 [N, *shape] with N >= 1.

    Without a shape they may have any size, and 1 or 3 channels.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise FewstepError(
            f"{what} must be uint8 [N, C, H, W], got {images.dtype} {tuple(images.shape)}."
        )
    if shape is None:
        if images.shape[1] not in (1, 3) or not images.numel():
            raise FewstepError(f"{what} must have 1 or 3 channels, got {tuple(images.shape)}.")
    elif tuple(images.shape[1:]) != tuple(shape) or not len(images):
        raise FewstepError(
            f"{what} must be some of shape {tuple(shape)}, got {tuple(images.shape)}."
        )


def check_values(found: Features, name: str) -> None:
    """Raise `FewstepError` for NaN or infinity; a class may have probability zero, ``-inf``."""
    if not found.features.isfinite().all():
        raise FewstepError(f"the features of {name} have NaN or infinite values.")
    if found.logits is not None and not found.logits.amax(1).isfinite().all():
        raise FewstepError(f"the class scores of {name} have NaN or infinite values.")


class Extracted(NamedTuple):
    """What a feature network says of all images of a set, on the CPU."""

    features: Tensor
    """float32 [N, D]."""
    logits: Tensor | None
    """float32 [N, K]."""
    spatial: Moments | None
    """Of the spatial features, which are too many to keep."""


def extract(
    network: FeatureNetwork,
    images: Tensor,
    batch: int | None = None,
    group: Processes | None = None,
) -> Extracted:
    """Features of all images, batch by batch.

    Args:
        network: on its device.
        images: uint8 [N, C, H, W] on the CPU.
        batch: images at a time; default the network's own.
        group: the processes that share the work; the first one gets all features, the others
            their own.
    """
    check_images(images, network.shape)
    group = group or Processes()
    if len(images) < group.world:
        raise FewstepError(f"{len(images)} images are too few for {group.world} processes.")
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    share = torch.tensor(group.share(len(images)), dtype=torch.int64)
    mine = images if group.world == 1 else images[share]
    batches = mine.split(batch or network.batch)
    with evaluating(network):
        features, logits, spatial = group.as_one(
            lambda: _extracted(network, batches, device, group)
        )
    n, all_logits = len(images), None
    if logits.rows is not None:
        all_logits = group.gather_shares(logits.rows, n)
    assert features.rows is not None
    return Extracted(
        group.gather_shares(features.rows, n), all_logits, _merged(group.gather(spatial))
    )


def _extracted(
    network: FeatureNetwork, batches: Sequence[Tensor], device: torch.device, group: Processes
) -> tuple[_Rows, _Rows, Moments | None]:
    """Features, class scores and the moments of spatial features of this process's images."""
    n = sum(map(len, batches))
    features, logits = _Rows(n), _Rows(n)
    spatial: Moments | None = None
    with torch.inference_mode(), progress("features", n) as advance:
        for some in batches:
            found = network(some.to(device, non_blocking=True))
            check_values(found, network.name)
            features.add(found.features)
            if found.logits is not None:
                logits.add(found.logits)
            if found.spatial is not None:
                spatial = (spatial or Moments(found.spatial.shape[1])).update(found.spatial)
            advance(len(some) if group.first else 0)
    return features, logits, spatial


class _Rows:
    """Batches [B, D] written into one tensor [n, D], so that they are never held twice."""

    def __init__(self, n: int) -> None:
        self.n, self.filled = n, 0
        self.rows: Tensor | None = None

    def add(self, batch: Tensor) -> None:
        if self.rows is None:
            self.rows = torch.empty(self.n, batch.shape[1])
        self.rows[self.filled : self.filled + len(batch)] = batch
        self.filled += len(batch)


def _merged(parts: list[Moments | None]) -> Moments | None:
    """The moments of all processes as one."""
    found = [part for part in parts if part is not None]
    for part in found[1:]:
        found[0].merge(part)
    return found[0] if found else None
