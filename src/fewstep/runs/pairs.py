"""Pairs (noise, sample) of a trained diffusion model, for the methods that learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.data.pairs import (
    MANIFEST,
    Manifest,
    is_begun,
    is_pairs,
    read_manifest,
    read_shard,
    shard_path,
    write_manifest,
    write_shard,
)
from fewstep.distributed import Processes
from fewstep.errors import FewstepError
from fewstep.exchange.hub.fetching import local
from fewstep.exchange.origin import exact, lineage
from fewstep.finite import check_finite
from fewstep.flow_map import FlowMap
from fewstep.lock import FILES as LOCK_FILES
from fewstep.lock import is_empty, locked
from fewstep.mode import evaluating
from fewstep.progress import progress
from fewstep.runs.directory import RunDirectory
from fewstep.runs.parts import real_data
from fewstep.runs.sources import Source, fingerprint, placed
from fewstep.sampling import (
    Asked,
    NestedDDIM,
    NoiseStreams,
    Sampler,
    Walk,
    check_labels,
    default_batch,
)

SHARD = 4096  # pairs in a file
FIRST = 2**32  # pair i has the noise stream of sample FIRST + i, so that no sample is a pair


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which pairs to make.

    Args:
        n: how many.
        solver: solver of the PF-ODE; default heun.
        steps: its steps; default as many as sampling takes.
        how: the sampler, instead of ``solver`` and ``steps``.
        seed: decides the noise.
        trajectory: states of each trajectory to keep, the sample among them; 0 for none.
        batch: pairs at once, a matter of memory and speed; default that of `sample`.
        shard: pairs in a file.
    """

    n: int
    solver: str | None = None
    steps: int | None = None
    how: Asked | None = None
    seed: int = 0
    trajectory: int = 0
    batch: int | None = None
    shard: int = SHARD

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("batch", 1), ("shard", 1), ("seed", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise FewstepError(f"{name} must be at least {least}, got {value}.")
        if self.trajectory < 0:
            raise FewstepError(f"trajectory must be at least 1 state, got {self.trajectory}.")

    @property
    def asked(self) -> Asked:
        """The sampler."""
        return self.how or Asked(self.steps, solver=self.solver)


def make_pairs(
    f: FlowMap,
    folder: str | Path,
    wish: Wish,
    *,
    model: str | Path = "",
    group: Processes | None = None,
) -> Manifest:
    """Make the pairs of a folder that are not there yet.

    Pair ``i`` depends on the model, the sampler, the seed and ``i`` alone, up to the rounding of
    the network's arithmetic; a folder that is taken up again ends with the same bits.

    Args:
        f: the diffusion model.
        folder: where the pairs are or go.
        wish: which.
        model: run folder or file that ``f`` came from, for the record.
        group: the processes that share the shards.

    Returns:
        The manifest of the folder.

    Raises:
        FewstepError: not a diffusion model; the folder holds other pairs or cannot be written.
    """
    folder, group = Path(folder), group or Processes()
    manifest, sampler, kept = _plan(f, wish, Path(model), folder)
    _check_folder(folder, manifest)
    with ExitStack() as held:
        if group.first:
            held.enter_context(locked(folder))
            _check_folder(folder, manifest)
            if not is_begun(folder):
                write_manifest(folder, manifest)
            held.callback(_remove_unbegun, folder)
        group.barrier()
        batch = wish.batch or default_batch(f)
        group.as_one(lambda: _make(f, folder, manifest, sampler, kept, batch, group))
    return manifest


def _check_folder(folder: Path, manifest: Manifest) -> None:
    """Raise `FewstepError` where a folder holds other pairs, or anything else.

    A manifest without pairs is of a command that was refused or killed, and is replaced.
    """
    if is_begun(folder):
        manifest.check_same(folder, read_manifest(folder))
    elif not is_pairs(folder) and folder.exists() and not is_empty(folder):
        raise FewstepError(f"{folder} holds something else than pairs: give another folder.")


def _remove_unbegun(folder: Path) -> None:
    """Remove the manifest, and the folder, of a command that has made no pair."""
    if not is_begun(folder):
        with suppress(OSError):
            for path in (folder / MANIFEST, *(folder / name for name in LOCK_FILES)):
                path.unlink(missing_ok=True)
            folder.rmdir()


def has_shard(folder: Path, manifest: Manifest) -> Iterator[bool]:
    """Of every shard, whether it is there; shards appear whole."""
    return (shard_path(folder, i).exists() for i in range(manifest.shards))


def _make(
    f: FlowMap,
    folder: Path,
    manifest: Manifest,
    sampler: Sampler,
    kept: list[int],
    batch: int,
    group: Processes,
) -> None:
    """Make this process's share of the shards that are missing."""
    missing = [i for i in group.share(manifest.shards) if not _is_whole(folder, manifest, i)]
    total = sum(len(manifest.rows(i)) for i in missing)
    with progress("making pairs", total) as advance:
        for i in missing:
            parts = []
            for part in _batches(f, manifest, sampler, kept, _split(manifest.rows(i), batch)):
                parts.append(part)
                advance(len(part["noise"]) if group.first else 0)
            shard = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
            write_shard(folder, manifest, i, shard)


def _plan(f: FlowMap, wish: Wish, model: Path, folder: Path) -> tuple[Manifest, Sampler, list[int]]:
    """The manifest, the sampler, and which of its states a trajectory keeps."""
    f.trained.check_pairs(model)
    if f.latents is not None:
        raise FewstepError(f"pairs are of images; {model} works on an autoencoder's latents.")
    sampler = wish.asked.of(f)
    if not sampler.deterministic:
        raise FewstepError(f"pairs need a deterministic sampler, not {_solver_of(wish, sampler)}.")
    after = sampler.reached(f.p)
    steps = len(after)
    if wish.trajectory > steps:
        raise FewstepError(
            f"a trajectory of {wish.trajectory} states needs at least as many steps, got {steps}."
        )
    M = wish.trajectory
    kept = [-(-(j + 1) * steps // M) - 1 for j in range(M)]
    manifest = Manifest(
        teacher=fingerprint(f),
        solver=_solver_of(wish, sampler),
        steps=steps,
        seed=wish.seed,
        n=wish.n,
        shard=wish.shard,
        shape=tuple(f.shape),
        conditional=bool(f.num_classes),
        times=tuple(after[step] for step in kept),
        process=f.p.config,
        path=exact(str(model), f.info),
        classes=f.classes,
        sampler=sampler.spec,
        lineage=tuple(lineage(f.info)),
        **_data_of(model, folder),
    )
    return manifest, sampler, kept


def _solver_of(wish: Wish, sampler: Sampler) -> str:
    """The solver, or the whole sampler where that and the steps do not say everything."""
    solver = str(wish.asked.solver or "heun")
    if isinstance(sampler, NestedDDIM) or sampler == Walk(getattr(sampler, "N", None), solver):
        return solver
    return sampler.spec


def _data_of(model: Path, folder: Path) -> dict[str, Any]:
    """The real images that a model was trained on, as a record, and their way from a folder."""
    place = local(model)
    home = RunDirectory(place if place.is_dir() else place.parent)
    if not home.started:
        return {}
    images = real_data(home.here())
    where = placed(Source(fingerprint=""), images.data, folder)
    return {"data": asdict(images) | {"data": where.path or None}, "beside": where.relative}


def _is_whole(folder: Path, manifest: Manifest, i: int) -> bool:
    """Whether a shard is there; one that is damaged is made again."""
    if not shard_path(folder, i).exists():
        return False
    try:
        read_shard(folder, manifest, i)
    except FewstepError:
        return False
    return True


def _split(rows: range, batch: int) -> list[range]:
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def _batches(
    f: FlowMap, manifest: Manifest, sampler: Sampler, kept: list[int], parts: list[range]
) -> Iterator[dict[str, Tensor]]:
    """The tensors of a shard, batch by batch, on the CPU."""
    labels = check_labels(f, None, manifest.n)
    for rows in parts:
        streams = range(FIRST + rows.start, FIRST + rows.stop)
        made = {"noise": NoiseStreams(manifest.seed, streams, f.shape).normal()}
        label = None if labels is None else labels[rows.start : rows.stop]
        if label is not None:
            made["label"] = label
        condition = Condition(label=label).to(f.device)
        noise = NoiseStreams(manifest.seed, streams, f.shape)
        with torch.inference_mode(), evaluating(f):
            states = [check_finite(x.float().cpu()) for x in sampler.steps(f, noise, condition)]
        made["sample"] = states[-1]
        if kept:
            made["trajectory"] = torch.stack([states[step] for step in kept], 1)
        yield made
