"""SHA-256 of files and of weights, by which models, caches and scores know each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

BLOCK = 1 << 20  # bytes read at a time


def sha256_of(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_code() -> str:
    """Hash of this package's source, in hexadecimal."""
    home, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        digest.update(f"{path.relative_to(home)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def sha256_of_weights(settings: str, weights: Mapping[str, Tensor]) -> str:
    """Hash of settings, and of named weights in the order of their names, in hexadecimal.

    Args:
        settings: what the weights alone do not tell, as text.
        weights: of any shapes and types, on any device.
    """
    digest = hashlib.sha256(settings.encode())
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        whole = value.detach().cpu().contiguous().reshape(-1)
        digest.update(whole.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
