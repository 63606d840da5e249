"""``fewstep evaluate TARGET [TARGET ...]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from torch import Tensor

import fewstep
from fewstep.cli.command import Whole, command
from fewstep.data import Dataset, load, to_uint8
from fewstep.distributed import Processes, processes
from fewstep.errors import FewstepError, not_there
from fewstep.evaluation import Evaluator, FeatureNetwork, Reference
from fewstep.evaluation.choice import feature_network
from fewstep.evaluation.evaluator import METRICS, check_metrics
from fewstep.evaluation.reference import holds_statistics
from fewstep.evaluation.table import Line, Setting, check_format, show, write
from fewstep.flow_map import FlowMap
from fewstep.precision import Precision
from fewstep.progress import progress
from fewstep.recipes.directory import RunDirectory, open_model
from fewstep.recipes.execute import real_data
from fewstep.recipes.parts import load as load_settings
from fewstep.sampling import Sampler, sample, sampler_for

ANY_NUMBER = Parameter(consume_multiple=True, negative_iterable="", show_default=False)


def evaluate(
    *targets: Path,
    reference: str | None = None,
    features: str | None = None,
    weights: Path | None = None,
    resize: str | None = None,
    metrics: Annotated[tuple[str, ...], ANY_NUMBER] = tuple(METRICS),
    bootstrap: Whole = 50,
    baselines: bool = True,
    steps: Annotated[tuple[Whole, ...], ANY_NUMBER] = (),
    nfe: Annotated[tuple[Whole, ...], ANY_NUMBER] = (),
    solver: str = "heun",
    grid: str | None = None,
    clip: bool = False,
    n: Annotated[Whole | None, Parameter(alias="-n")] = None,
    seed: Whole = 0,
    checkpoint: str = "last",
    ema: str | None = None,
    out: Annotated[tuple[Path, ...], Parameter(alias="-o"), ANY_NUMBER] = (),
    save_reference: Path | None = None,
    batch: Whole | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> None:
    """Score models or images in one table: FID, KID, inception score, precision, recall and more.

    A model is sampled with the reference's class proportions, as many images as the reference has.
    Beside the targets stand two baselines: the real test split, and a Gaussian fitted to the pixels
    of each class. The features of a reference are kept in the cache.

    Examples:
      fewstep evaluate runs/digits-cd runs/digits-ict --steps 1 2
      fewstep evaluate runs/digits-edm --steps 5 18 --solver heun -o scores.csv scores.md
      fewstep evaluate samples.npz --reference photos/ --features inception
      fewstep evaluate samples.npz --reference VIRTUAL_imagenet64_labeled.npz --metrics fd sfd pr
      fewstep evaluate runs/cifar10-ect --features resnet56 --weights resnet56.safetensors
      torchrun --nproc-per-node 8 -m fewstep evaluate runs/cifar10-ect --steps 1 2

    Parameters
    ----------
    targets
        Run folders, checkpoints, model files; or images: a folder, .npz, .npy or .parquet.
    reference
        Real images, as --data of train takes them; or statistics of them: an .npz with mu and
        sigma, a batch of ADM's suite, a .safetensors. Default the images that the first run
        trained on.
    features
        inception, dinov2, resnet56, classifier (a small one, trained on the reference in seconds),
        or module:function for your own. Default classifier for labelled images of up to 16
        pixels, otherwise inception.
    weights
        File of the feature network's published weights; default where it looks for them.
    resize
        How images are brought to the feature network's size: tf1_bilinear, clean, pil_bicubic.
        Default as its published scores do it.
    metrics
        Which scores: fd, is, pr (precision and recall), dc (density and coverage), kid, sfd,
        fd_infinity. Default all that can be had.
    bootstrap
        Draws for the 95 % intervals; 0 for none.
    baselines
        Also score the baselines.
    steps
        Network evaluations of a consistency model (default 1), or solver steps of a diffusion
        model (default 18); several give a line each.
    nfe
        Network evaluations to spend exactly, instead of --steps; several give a line each.
    solver
        Solver of a diffusion model, as fewstep list samplers shows them.
    grid
        Times of a diffusion model's steps; default that of the solver's paper.
    clip
        Clip the denoised image to [-1, 1] at every evaluation of a diffusion model.
    n
        Images per model; default as many as the reference has.
    seed
        Seed of the samples.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average; default the first.
    out
        Also write the table: any of .csv, .json, .md.
    save_reference
        Also write the reference's statistics: .safetensors, or .npz with mu and sigma.
    batch
        Images that a model makes at once; default 256, or 32 where
        convolutions run on a CPU.
    device
        Where to compute: cpu, cuda or mps; default a GPU where there is one.
    precision
        Arithmetic of the network: fp32, bf16 or fp16; default that of its weights. Times and noise
        stay in float32.
    """
    check_metrics(metrics)
    _check(targets, out, n, bootstrap)
    group = processes(device)
    real = _Real.of(targets[0], reference, group)
    network = group.in_turn(
        lambda: feature_network(features, weights=weights, resize=resize, data=real.data)
    ).to(group.device)
    against = real.as_seen_by(network, group)
    if save_reference is not None and group.first:
        against.save(save_reference)
    evaluator = Evaluator(network, against, metrics=metrics, replicates=bootstrap, group=group)
    samplers = Samplers(steps, nfe, solver, grid, clip)
    models = Models(evaluator, group, samplers, n, seed, checkpoint, ema, batch, precision)
    lines = [*(_baselines(evaluator, real.test) if baselines else ())]
    for target in targets:
        lines += models.lines(target) if is_model(target) else [_of_images(evaluator, target)]
    if not group.first:
        return
    setting = _setting(evaluator)
    show(lines, setting)
    for path in out:
        write(path, lines, setting)


def _check(targets: Sequence[Path], out: Sequence[Path], n: int | None, bootstrap: int) -> None:
    if not targets:
        raise FewstepError("nothing to evaluate: give run folders, model files or images.")
    for path in out:
        check_format(path)
    if n is not None and n < 1:
        raise FewstepError(f"the number of images must be at least 1, got -n {n}.")
    if bootstrap < 0 or bootstrap == 1:
        raise FewstepError(f"--bootstrap must be 0 or at least 2 draws, got {bootstrap}.")
    for target in targets:
        if not target.exists():
            raise not_there("run, model or folder of images", target)


def is_model(path: Path) -> bool:
    """Whether a target is a model to sample, rather than images."""
    return path.suffix == ".safetensors" or any(
        (path / name).is_file() for name in ("run.json", "checkpoint.json")
    )


@dataclass(frozen=True)
class _Real:
    """The real images: a data set with its test split where there is one, or statistics."""

    statistics: str | None
    data: Dataset | None = None
    test: Dataset | None = None

    @classmethod
    def of(cls, first: Path, reference: str | None, group: Processes) -> _Real:
        """What ``--reference`` names, or the images that the first target trained on.

        Raises:
            FewstepError: no reference was given and the first target has none.
        """
        if reference is not None and holds_statistics(reference):
            return cls(reference)
        home = RunDirectory(first)
        if reference is not None:
            source, data = reference, group.in_turn(lambda: load(reference))
        elif home.started:
            images = real_data(home.here())
            source, data = str(images.data), group.in_turn(lambda: load_settings(images))
        else:
            raise FewstepError(f"{first} does not say what it was trained on: give --reference.")
        C, _, size = data.shape
        try:
            test = group.in_turn(lambda: load(source, split="test", size=size, channels=C))
        except FewstepError:
            test = None  # a data set without a test split has one baseline fewer
        return cls(None, data, test)

    def as_seen_by(self, network: FeatureNetwork, group: Processes) -> Reference:
        if self.data is None:
            return Reference.load(str(self.statistics), network)
        return Reference.of_data(network, self.data, group=group)


@dataclass(frozen=True)
class Samplers:
    """How a model is sampled, once for each count of steps or of network evaluations."""

    steps: tuple[int, ...]
    nfe: tuple[int, ...]
    solver: str
    grid: str | None
    clip: bool = False

    def __post_init__(self) -> None:
        if self.steps and self.nfe:
            raise FewstepError("give --steps or --nfe, not both.")

    def of(self, f: FlowMap) -> list[Sampler]:
        """A sampler for each count; the default one where there is none."""
        make = partial(sampler_for, f, solver=self.solver, grid=self.grid, clip=self.clip)
        samplers = [make(N) for N in self.steps] + [make(nfe=nfe) for nfe in self.nfe]
        return samplers or [make()]


@dataclass(frozen=True)
class Models:
    """Samples models and scores the samples."""

    evaluator: Evaluator
    group: Processes
    samplers: Samplers
    n: int | None
    seed: int
    checkpoint: str
    ema: str | None
    batch: int | None
    precision: Precision | None = None

    def lines(self, target: Path) -> Iterator[Line]:
        """One line for each way to sample."""
        f = open_model(
            target,
            checkpoint=self.checkpoint,
            ema=self.ema,
            device=self.group.device,
            precision=self.precision,
        )
        for sampler in self.samplers.of(f):
            images, labels = self._samples(f, sampler)
            scores = self.evaluator.score(images, labels)
            yield Line(self._named(target), scores, sampler.nfe, self.seed)

    def _named(self, target: Path) -> str:
        return str(target) if self.precision in (None, "fp32") else f"{target} ({self.precision})"

    def _samples(self, f: FlowMap, sampler: Sampler) -> tuple[Tensor, Tensor | None]:
        count = self.n or self.evaluator.n
        labels = self._labels(f, count)
        share = self.group.share(count)
        with progress("sampling", len(share)) as advance:
            x = sample(
                f,
                count,
                sampler,
                seed=self.seed,
                labels=labels,
                batch=self.batch,
                indices=share,
                progress=advance if self.group.first else None,
            )
        return self.group.all_gather_shares(to_uint8(x).cpu(), count), labels

    def _labels(self, f: FlowMap, count: int) -> Tensor | None:
        if not f.num_classes:
            return None
        if self.evaluator.labels is None:  # statistics of images: each class equally often
            return torch.arange(count) % f.num_classes
        return self.evaluator.labels_for(count)


def _of_images(evaluator: Evaluator, target: Path) -> Line:
    given = load(target)
    return Line(str(target), evaluator.score(given.images, given.labels))


def _baselines(evaluator: Evaluator, test: Dataset | None) -> Iterator[Line]:
    known = (test.images, test.labels) if test is not None else (None, None)
    for name, scores in evaluator.baselines(*known).items():
        yield Line(name, scores)


def _setting(evaluator: Evaluator) -> Setting:
    network, reference = evaluator.network, evaluator.reference
    return Setting(
        features=network.name,
        weights=network.fingerprint,
        resize=network.resize,
        reference=reference.name,
        n=reference.n,
        replicates=evaluator.replicates,
        versions={"fewstep": fewstep.__version__, "torch": version("torch")},
    )


app = command(evaluate)
