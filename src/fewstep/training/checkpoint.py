"""Checkpoints: written atomically, verified by checksum, never a pickle.

A checkpoint is a folder ``step-00001000`` of safetensors files (every map as a model file that
can be sampled as it is, and the optimiser's state) and ``checkpoint.json`` with the step, the
metrics and the SHA-256 of every file. It is written under another name and renamed when it is
complete and on the disk, so a folder of this name is a whole checkpoint or a damaged disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from fewstep.digest import sha256_of
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap

FORMAT = 1
MANIFEST = "checkpoint.json"
PARTIAL = ".partial"
_NAME = re.compile(r"step-(\d{8})$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.path / MANIFEST).read_text())

    @property
    def score(self) -> float | None:
        """The validation's score, lower is better; None where there is none to read."""
        try:
            return self.manifest["score"]
        except (OSError, ValueError, KeyError):
            return None

    def damage(self) -> str | None:
        """What is wrong with it, or None where every checksum agrees."""
        try:
            manifest = self.manifest
            if manifest["format"] != FORMAT:
                return f"it has format {manifest['format']}, this fewstep reads {FORMAT}"
            for name, expected in manifest["sha256"].items():
                if sha256_of(self.path / name) != expected:
                    return f"{name} does not match its checksum"
        except (OSError, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        return None


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        directory: the folder that holds them.
        keep: how many to keep besides the best.
        tell: called with a line that the user should read; default it goes to stderr.
    """

    def __init__(
        self, directory: Path, keep: int = 2, tell: Callable[[str], None] | None = None
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.tell = tell or _to_stderr

    def all(self) -> list[Checkpoint]:
        """Every complete checkpoint, oldest first."""
        named = ((path, _NAME.match(path.name)) for path in self.directory.glob("step-*"))
        found = [Checkpoint(path, int(match.group(1))) for path, match in named if match]
        return sorted(found, key=lambda c: c.step)

    def latest(self) -> Checkpoint | None:
        """The newest intact checkpoint; a damaged one is passed over and the user told.

        Raises:
            FewstepError: there are checkpoints, and none is intact.
        """
        found = self.all()
        for checkpoint in reversed(found):
            damage = checkpoint.damage()
            if damage is None:
                return checkpoint
            self.tell(f"checkpoint {checkpoint.path} is damaged ({damage}); trying the one before.")
        if found:
            raise FewstepError(
                f"no checkpoint in {self.directory} is intact. Delete that folder to start anew."
            )
        return None

    def best(self) -> Checkpoint | None:
        """The checkpoint with the lowest score, if any has one."""
        scored = [(c.score, -c.step, c) for c in self.all() if c.score is not None]
        return min(scored)[2] if scored else None

    def save(
        self,
        step: int,
        maps: dict[str, FlowMap],
        tensors: dict[str, dict[str, Tensor]],
        *,
        default: str,
        score: float | None = None,
    ) -> Checkpoint:
        """Write a checkpoint, then drop the old ones.

        Args:
            step: number of steps made.
            maps: maps by name; each becomes ``<name>.safetensors``.
            tensors: further files, by name.
            default: the map to sample unless another is asked for.
            score: lower is better; decides which one is the best.

        Raises:
            FewstepError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        final = self.directory / f"step-{step:08d}"
        partial = final.with_name(final.name + PARTIAL)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, f in maps.items():
                f.save(partial / f"{name}.safetensors")
            for name, values in tensors.items():
                save_file(values, partial / f"{name}.safetensors")
            manifest = {
                "format": FORMAT,
                "step": step,
                "score": score,
                "default": default,
                "sha256": {p.name: sha256_of(p) for p in sorted(partial.iterdir())},
            }
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
            for path in [*partial.iterdir(), partial]:
                _sync(path)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            _sync(self.directory)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise FewstepError(self._unwritable(final, error)) from error
        self._prune()
        return Checkpoint(final, step)

    def _unwritable(self, path: Path, error: Exception) -> str:
        kept = self.all()
        rest = f"The last good one is {kept[-1].path}." if kept else "There is no earlier one."
        return f"could not write the checkpoint {path}: {error}. {rest}"

    def _prune(self) -> None:
        best = self.best()
        for checkpoint in self.all()[: -self.keep]:
            if checkpoint != best:
                shutil.rmtree(checkpoint.path, ignore_errors=True)
        for partial in self.directory.glob(f"step-*{PARTIAL}"):
            shutil.rmtree(partial, ignore_errors=True)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors: ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": value.detach().contiguous()
        for i, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, path: Path) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:  # fused kernels walk all of them in one order
                values[name] = torch.empty_like(parameter).copy_(value)


def restore_map(f: FlowMap, path: Path) -> None:
    """Put the weights of a checkpoint's map into ``f``."""
    tensors = {k: v.to(f.device) for k, v in load_file(path).items()}
    with torch.no_grad():
        f.load_weights(tensors, path)
