"""Names of files with weights: which may hold a model, and which of several is to be read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

INDEX = ".index.json"
"""How the name of an index of shards ends."""
ENDINGS = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin")
"""Of files that may hold weights."""
OF_TRAINING = (
    "optimizer*",
    "scheduler*",
    "scaler*",
    "training_args*",
    "random_state*",
    "rng_state*",
)
"""What training scripts keep beside a model."""
STEM = "diffusion_pytorch_model"
"""What diffusers calls the weights of a network."""
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
_SINGLE = re.compile(rf"{STEM}(\.(?P<variant>\w+))?\.(?P<format>safetensors|bin)")
_SHARDED = re.compile(rf"{STEM}\.(?P<format>safetensors|bin)\.index(\.(?P<variant>\w+))?\.json")


def is_shard(name: str) -> bool:
    """Whether a file is one of several, by its name."""
    return bool(_SHARD.search(name))


def whole(name: str) -> str:
    """The name that weights in several files would have in one."""
    return _SHARD.sub("", name).removesuffix(INDEX)


def may_be_model(name: str) -> bool:
    """Whether a file, by its name, may be a model: weights, or the index of their shards."""
    if any(fnmatchcase(name, pattern) for pattern in OF_TRAINING) or is_shard(name):
        return False
    return name.endswith((*ENDINGS, INDEX))


@dataclass(frozen=True)
class OfDiffusers:
    """Weights of a network of diffusers, or the index of their shards.

    Args:
        name: of the file.
        variant: which of several kinds they are, such as fp16; None for those of the training.
        format: safetensors or bin.
    """

    name: str
    variant: str | None
    format: str

    @property
    def indexed(self) -> bool:
        """Whether the file is an index."""
        return self.name.endswith(".json")

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """The best first: plain ones before variants, then safetensors before pickles."""
        return (
            self.variant is not None,
            self.variant == "non_ema",
            self.format == "bin",
            self.indexed,
        )

    def holds(self, shard: str) -> bool:
        """Whether the name of a shard is one of this index."""
        match = _SINGLE.fullmatch(whole(shard)) if is_shard(shard) else None
        return match is not None and match.groupdict() == {
            "variant": self.variant,
            "format": self.format,
        }


def of_diffusers(names: Iterable[str]) -> OfDiffusers | None:
    """The weights to read among the files of a folder; None where it has none."""
    matches = [(n, _SINGLE.fullmatch(n) or _SHARDED.fullmatch(n)) for n in sorted(names)]
    found = [OfDiffusers(n, m["variant"], m["format"]) for n, m in matches if m]
    return min(found, key=lambda weights: weights.rank, default=None)
