"""Checkpoints: written atomically, verified by checksum, never a pickle.

A checkpoint is a folder ``step-00001000`` of safetensors files (every map as a model file that
can be sampled as it is, the state of other modules that are trained, and the optimisers' state)
and ``checkpoint.json`` with the step, the metrics and the SHA-256 of every file. It is written
under another name and renamed when it is complete and on the disk, so a folder of this name is a
whole checkpoint or a damaged disk.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from fewstep.digest import sha256_of
from fewstep.errors import FewstepError
from fewstep.files import read_json, sync, sync_folder, write_json, write_tensors
from fewstep.records import record_of
from fewstep.stored_model import StoredModel
from fewstep.training.score import Score

FORMAT = 1
MANIFEST = "checkpoint.json"
OPTIMIZER = "optimizer"  # the file that is no module
PARTIAL = ".partial"
DAMAGED = ".damaged"
SUFFIX = ".safetensors"
_NAME = re.compile(r"step-(\d{8,})$")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    Args:
        format: version of the checkpoint.
        step: number of steps made.
        default: the map to sample unless another is asked for.
        sha256: of every file, by its name.
        score: the validation's, lower is better; None where there is none.
        influences: of each sample and each real image on the score.
        modules: names of the files that hold modules which are no maps.
    """

    format: int
    step: int
    default: str
    sha256: dict[str, str]
    score: float | None = None
    influences: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    modules: tuple[str, ...] = ()

    @property
    def maps(self) -> list[str]:
        """The names of the maps, sorted."""
        names = {name.removesuffix(SUFFIX) for name in self.sha256}
        return sorted(names - {OPTIMIZER, *self.modules})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    path: Path
    step: int

    @classmethod
    def at(cls, path: Path) -> Checkpoint:
        """The checkpoint of a folder, which may have any name.

        Raises:
            FewstepError: the folder holds no manifest of a checkpoint.
        """
        named = _NAME.match(path.name)
        step = _manifest(path).step if named is None else int(named[1])
        return cls(path, step)

    @property
    def manifest(self) -> Manifest:
        """What it says of itself.

        Raises:
            FewstepError: it cannot be read, or says nothing of the kind.
        """
        return _manifest(self.path)

    @property
    def score(self) -> Score | None:
        """The validation's score, lower is better; None where there is none to read."""
        if self.fault() or (found := self.manifest).score is None:
            return None
        return Score(found.score, *(found.influences or ()))

    def file(self, name: str) -> Path:
        """The file of a map or another module."""
        return self.path / f"{name}{SUFFIX}"

    def fault(self) -> str | None:
        """What is wrong with its manifest, or None."""
        try:
            manifest = self.manifest
        except FewstepError as error:
            return str(error)
        if manifest.format != FORMAT:
            return f"it has format {manifest.format}, this fewstep reads {FORMAT}"
        if manifest.step != self.step:
            return f"it is called step {self.step} and holds step {manifest.step}"
        for name in (manifest.default, OPTIMIZER):
            if f"{name}{SUFFIX}" not in manifest.sha256:
                return f"its {MANIFEST} names no {name}.safetensors"
        return None

    def damage(self) -> str | None:
        """What is wrong with it, or None where every checksum agrees."""
        if fault := self.fault():
            return fault
        try:
            for name, expected in self.manifest.sha256.items():
                if sha256_of(self.path / name) != expected:
                    return f"{name} does not match its checksum"
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def intact(self) -> Checkpoint:
        """Itself.

        Raises:
            FewstepError: it is damaged.
        """
        if damage := self.damage():
            raise FewstepError(
                f"the checkpoint {self.path} is damaged ({damage}): use another one."
            )
        return self


def _manifest(path: Path) -> Manifest:
    def parse(stored: object) -> Manifest:
        return record_of(Manifest, stored, "the checkpoint")

    return read_json(path / MANIFEST, parse, "the manifest of a checkpoint")


@dataclass(frozen=True)
class Content:
    """What one file of a checkpoint will hold: tensors, and for a map what describes it."""

    tensors: Mapping[str, Tensor]
    header: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A checkpoint before it is written: copies in main memory, which no later step changes.

    Args:
        step: number of steps made.
        contents: of the files, by name.
        default: the map to sample unless another is asked for.
        score: lower is better; decides which one is the best.
    """

    step: int
    contents: Mapping[str, Content] = field(default_factory=dict)
    default: str
    score: float | None = None

    @property
    def modules(self) -> list[str]:
        """The names of the modules that are no maps."""
        bare = [name for name, content in self.contents.items() if content.header is None]
        return [name for name in bare if name != OPTIMIZER]

    @classmethod
    def of(
        cls,
        step: int,
        maps: Mapping[str, StoredModel],
        tensors: Mapping[str, dict[str, Tensor]],
        *,
        default: str,
        score: float | None = None,
    ) -> Snapshot:
        """Of maps, each of which becomes ``<name>.safetensors``, and further files by name."""
        contents = {name: Content(_copied(f.tensors()), f.header()) for name, f in maps.items()}
        contents |= {name: Content(_copied(values)) for name, values in tensors.items()}
        return cls(step=step, contents=contents, default=default, score=score)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        directory: the folder that holds them.
        keep: how many to keep besides the best, and the lowest score's if that is another.
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

    def of(self, step: int) -> Checkpoint:
        """The checkpoint of a step, which need not be there."""
        return Checkpoint(self.directory / f"step-{step:08d}", step)

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
                f"no checkpoint in {self.directory} is intact. To train anew, move that folder "
                "away; a finished model.safetensors beside it is a model by itself."
            )
        return None

    def best(self) -> Checkpoint | None:
        """The newest checkpoint that none has a surely lower score than, if any has a score.

        The user is told where another has the lower one, and of checkpoints whose manifest cannot
        be read: one of them may have been the best.
        """
        for checkpoint in self.all():
            if fault := checkpoint.fault():
                self.tell(f"checkpoint {checkpoint.path} may be the best, but: {fault}")
        scored = self._scored()
        if not scored:
            return None
        (lowest, least), (best, score) = _lowest(scored), _newest_of_the_best(scored)
        if best != lowest:
            self.tell(
                f"no checkpoint of {self.directory.parent} is surely the best: step {lowest.step} "
                f"has an energy distance of {least:.4g}, step {best.step} of {score:.4g}, and the "
                f"error of the difference is {score.error_of_difference(least):.2g}. The newer is "
                "taken."
            )
        return best

    def _scored(self) -> list[tuple[Checkpoint, Score]]:
        return [(c, score) for c in self.all() if (score := c.score) is not None]

    def write(self, snapshot: Snapshot) -> Checkpoint:
        """Write a checkpoint, then drop the old ones; any thread may do it.

        Raises:
            FewstepError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        final = self.of(snapshot.step).path
        partial = final.with_name(final.name + PARTIAL)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write_json(partial / MANIFEST, asdict(_written(snapshot, partial)))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            sync_folder(self.directory)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise FewstepError(self._unwritable(final, error)) from error
        self.prune()
        return Checkpoint(final, snapshot.step)

    def _unwritable(self, path: Path, error: Exception) -> str:
        kept = self.all()
        rest = f"The last good one is {kept[-1].path}." if kept else "There is no earlier one."
        return f"could not write the checkpoint {path}: {str(error).rstrip('.')}. {rest}"

    def set_aside(self, step: int) -> None:
        """Give the checkpoints behind a step, which were passed over, names that do not count.

        Else they would be the newest, and those of the steps that are made again would be dropped.
        `prune` drops them once these steps are made.

        Raises:
            FewstepError: the folder is not writable.
        """
        for checkpoint in self.all():
            if checkpoint.step > step:
                aside = checkpoint.path.with_name(checkpoint.path.name + DAMAGED)
                try:
                    shutil.rmtree(aside, ignore_errors=True)
                    checkpoint.path.rename(aside)
                except OSError as error:
                    raise FewstepError(f"cannot rename {checkpoint.path}: {error}.") from error
                self.tell(f"{checkpoint.path} is now {aside.name}, until its step is made again.")

    def prune(self, keep: int | None = None) -> None:
        """Drop all but the newest, the best and the lowest, and what killed processes were writing.

        What `set_aside` has renamed is dropped, too, where a checkpoint of its step or a later one
        is there.

        Args:
            keep: how many of the newest; default as many as ever.
        """
        scored = self._scored()
        kept = [choose(scored)[0] for choose in (_lowest, _newest_of_the_best) if scored]
        for checkpoint in self.all()[: -(keep or self.keep)]:
            if checkpoint not in kept:
                shutil.rmtree(checkpoint.path, ignore_errors=True)
        for partial in self.directory.glob(f"step-*{PARTIAL}"):
            shutil.rmtree(partial, ignore_errors=True)
        newest = max((checkpoint.step for checkpoint in self.all()), default=0)
        for aside in self.directory.glob(f"step-*{DAMAGED}"):
            if (named := _NAME.match(aside.stem)) and int(named[1]) <= newest:
                shutil.rmtree(aside, ignore_errors=True)


def _lowest(scored: list[tuple[Checkpoint, Score]]) -> tuple[Checkpoint, Score]:
    return min(scored, key=lambda item: (item[1], -item[0].step))


def _newest_of_the_best(scored: list[tuple[Checkpoint, Score]]) -> tuple[Checkpoint, Score]:
    """The newest that the lowest score is not surely below."""
    least = _lowest(scored)[1]
    return max(
        (item for item in scored if item[1] == least or not least.tells(item[1])),
        key=lambda item: item[0].step,
    )


def _written(snapshot: Snapshot, folder: Path) -> Manifest:
    """Write every file of a checkpoint to the disk; the checkpoint's manifest."""
    sha256 = {}
    for name, content in sorted(snapshot.contents.items()):
        path = folder / f"{name}{SUFFIX}"
        tensors = {k: v.detach().contiguous() for k, v in content.tensors.items()}
        sha256[path.name] = write_tensors(path, tensors, content.header)
        sync(path)
    return Manifest(
        format=FORMAT,
        step=snapshot.step,
        default=snapshot.default,
        sha256=sha256,
        score=snapshot.score,
        influences=_influences(snapshot.score),
        modules=tuple(sorted(snapshot.modules)),
    )


def _influences(score: float | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    return (score.of_samples, score.of_images) if isinstance(score, Score) else None
