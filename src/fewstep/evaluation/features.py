"""What a feature network is, and how images stream through one."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewstep.errors import FewstepError
from fewstep.progress import progress


class Features(NamedTuple):
    """What a feature network says of images."""

    features: Tensor
    """float32 [N, D]."""
    logits: Tensor | None
    """float32 [N, K], of a network that classifies."""


class FeatureNetwork(nn.Module):
    """Maps images to feature vectors, and to class scores if it is a classifier.

    A subclass sets the attributes and gives `forward`, which sees uint8 [B, C, H, W].
    """

    name: str
    shape: tuple[int, ...]
    """Shape (C, H, W) of the images that it takes."""
    num_features: int
    num_classes: int
    """0 for a network that does not classify."""

    @abstractmethod
    def forward(self, images: Tensor) -> Features: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: scores are comparable only where it is the same."""
        digest = hashlib.sha256(self.name.encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def check_images(images: Tensor, shape: tuple[int, ...], what: str = "the images") -> None:
    """Raise `FewstepError` unless ``images`` are uint8 [N, *shape] with N >= 1."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise FewstepError(
            f"{what} must be uint8 [N, C, H, W], got {images.dtype} {tuple(images.shape)}."
        )
    if tuple(images.shape[1:]) != tuple(shape) or not len(images):
        raise FewstepError(
            f"{what} must be some of shape {tuple(shape)}, got {tuple(images.shape)}."
        )


def extract(network: FeatureNetwork, images: Tensor, batch: int = 512) -> Features:
    """Features of all images: [N, D] and [N, K] on the CPU, batch by batch."""
    check_images(images, network.shape)
    network.eval()
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode(), progress("features", len(images)) as advance:
        for some in images.split(batch):
            found = network(some.to(device, non_blocking=True))
            logits = None if found.logits is None else found.logits.float().cpu()
            parts.append(Features(found.features.float().cpu(), logits))
            advance(len(some))
    scores = [p.logits for p in parts if p.logits is not None]
    return Features(torch.cat([p.features for p in parts]), torch.cat(scores) if scores else None)
