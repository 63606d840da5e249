"""``fewstep evaluate TARGET [TARGET ...]``."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.cli.reading import Reading
from fewstep.cli.sampling import ENGINE, GUIDANCE, INTERVAL, WEAK, guided, opening
from fewstep.cli.targets import Samplers, Targets
from fewstep.data import Dataset
from fewstep.data.columns import NoColumns
from fewstep.data.tables import ENDING as TABLES
from fewstep.distributed import Processes, processes
from fewstep.errors import FewstepError, FewstepWarning, not_there
from fewstep.evaluation import Evaluator, Scores
from fewstep.evaluation.choice import feature_network
from fewstep.evaluation.evaluator import TEST
from fewstep.evaluation.reference import check_file
from fewstep.evaluation.scores import METRICS, check_metrics
from fewstep.evaluation.table import Line, Setting, check_format, show, write
from fewstep.exchange.graphs.engines import engine_of
from fewstep.exchange.hub.fetching import local
from fewstep.precision import Precision
from fewstep.runs.parts import request_of
from fewstep.runs.real import Real
from fewstep.runs.run import Data
from fewstep.version import __version__

ANY_NUMBER = Parameter(consume_multiple=True, negative_iterable="", show_default=False)


def evaluate(
    *targets: Path,
    reference: str | None = None,
    features: str | None = None,
    weights: Path | None = None,
    resize: str | None = None,
    size: Whole | None = None,
    channels: Whole | None = None,
    reading: Reading | None = None,
    metrics: Annotated[tuple[str, ...], ANY_NUMBER] = tuple(METRICS),
    bootstrap: Whole = 50,
    baselines: bool = True,
    steps: Annotated[tuple[Whole, ...], ANY_NUMBER] = (),
    nfe: Annotated[tuple[Whole, ...], ANY_NUMBER] = (),
    sampler: Annotated[tuple[str, ...], ANY_NUMBER] = (),
    solver: str | None = None,
    grid: str | None = None,
    clip: bool = False,
    guidance: Annotated[tuple[float, ...], Parameter(help=f"{GUIDANCE}."), ANY_NUMBER] = (),
    guidance_interval: Annotated[tuple[float, float] | None, INTERVAL] = None,
    weak: Annotated[str | None, WEAK] = None,
    n: Annotated[Whole | None, Parameter(alias="-n")] = None,
    seed: Whole = 0,
    checkpoint: str = "last",
    ema: str | None = None,
    out: Annotated[tuple[Path, ...], Parameter(alias="-o"), ANY_NUMBER] = (),
    save_reference: Path | None = None,
    batch: Whole | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    engine: Annotated[str, ENGINE] = "torch",
) -> None:
    """Score models or images in one table: FID, KID, inception score, precision, recall and more.

    A model is sampled with the reference's class proportions, as many images as the reference has.
    Beside the targets stand two baselines: the real test split, and a Gaussian fitted to the pixels
    of each class; a reference without one is compared with itself, half against half. Classes agree
    by name. The features of a reference are kept in the cache.

    A target that cannot be scored, or not in the memory that there is, is named, the others are
    written and shown nonetheless, and the command ends with code 2.

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
        Run folders, checkpoints, model files; or images: a folder, .npz, .npy or .parquet, also
        floats in [-1, 1] or [0, 1].
    reference
        Real images, as --data of train takes them; or statistics of them: an .npz with mu and
        sigma, a batch of ADM's suite, a .safetensors. Default the images that the first run
        trained on.
    features
        inception, dinov2, resnet56, classifier (a small one, trained on the reference in seconds),
        or module:function for your own. Default classifier for images of several classes and of up
        to 16 pixels, otherwise inception.
    weights
        File of the feature network's published weights; default where it looks for them.
    resize
        How images are brought to the feature network's size: tf1_bilinear, clean, pil_bicubic.
        Default as its published scores do it.
    size
        Crop the centre of all images, targets' and reference's, to a square and resize to this.
    channels
        Read all images in grey, 1, or in colour, 3. Default as the reference is; images that would
        lose their colour are refused.
    metrics
        Which scores: fd, is, pr (precision and recall), dc (density and coverage), kid, sfd,
        fd_infinity. Default all that can be had.
    bootstrap
        Draws of random parts of the images for the 95 % intervals; 0 for none.
    baselines
        Also score the baselines.
    steps
        Network evaluations of a consistency model (default 1), or solver steps of a diffusion
        model (default 18); several give a line each.
    nfe
        Network evaluations to spend exactly, instead of --steps; several give a line each.
    sampler
        The sampler as a spec, such as jumps(gamma=0.5) or walk(solver=dpm3), as fewstep list
        samplers shows them; default the model's own. Several give a line each.
    solver
        Solver of a diffusion model, by default heun, as fewstep list solvers shows them.
    grid
        Times of a diffusion model's steps; default that of the solver's paper.
    clip
        Clip the denoised image to [-1, 1] at every evaluation of a diffusion model.
    n
        Images per model; default as many as the reference has, where it is images or says so.
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
        Images that a model makes at once; default 256, or 32
        on a CPU where the network is no mlp.
    device
        Where to compute: cpu, cuda or mps; default a GPU where there is one.
    precision
        Arithmetic of the network: fp32, bf16 or fp16; default that of its weights. Times and noise
        stay in float32.
    """
    guides = tuple(g for w in guidance or (None,) if (g := guided(w, guidance_interval, weak)))
    samplers = Samplers(steps, nfe, solver, grid, clip, sampler, guides)
    check_metrics(metrics)
    _check(targets, out, n, bootstrap)
    if save_reference is not None:
        check_file(save_reference)
    by = engine_of(engine, precision)
    group = processes(by.device(device))
    wanted = replace((reading or Reading()).data(reference), size=size, channels=channels)
    real, theirs = group.in_turn(lambda: _reference(targets, wanted))
    network = group.in_turn(
        lambda: feature_network(features, weights=weights, resize=resize, data=real.data)
    ).to(group.device)
    against = real.as_seen_by(network, group)
    if save_reference is not None and group.first:
        against.save(save_reference)
    evaluator = Evaluator(network, against, metrics=metrics, replicates=bootstrap, group=group)
    scored = Targets(
        evaluator=evaluator,
        group=group,
        samplers=samplers,
        n=n,
        seed=seed,
        checkpoint=checkpoint,
        ema=ema,
        batch=batch,
        wanted=request_of(wanted, "train"),
        theirs=theirs,
        precision=precision,
        engine=by,
        open=opening(by, group.device, precision),
    )
    lines, failures = _scored(scored, targets, group)
    if baselines and not group.any(not lines):
        lines = [*_baselines(evaluator, group.in_turn(real.test_split), group), *lines]
    if lines and group.first:
        setting = _setting(evaluator)
        for path in out:
            write(path, lines, setting)
        show(lines, setting)
    if failures:
        raise _failed(failures, len(targets))


def _reference(targets: Sequence[Path], wanted: Data) -> tuple[Real, bool]:
    """The real images, and whether they have no columns, so that those named are the targets'.

    Raises:
        FewstepError: see `Real.of`; columns are named, and neither they nor a target have any.
    """
    try:
        return Real.of(targets[0], wanted), False
    except NoColumns:
        if not any(target.suffix.lower() in (TABLES, ".npz") for target in targets):
            raise
        return Real.of(targets[0], replace(wanted, image_column=None, label_column=None)), True


def _scored(
    scored: Targets, targets: Sequence[Path], group: Processes
) -> tuple[list[Line], list[tuple[Path, FewstepError]]]:
    """The lines of all targets, and those that failed: what fails in one process fails in all."""
    lines: list[Line] = []
    failures: list[tuple[Path, FewstepError]] = []
    for target in targets:
        try:
            group.as_one(partial(lines.extend, scored.lines(target)))
        except FewstepError as error:  # noqa: PERF203 - the other targets are scored nonetheless
            traceback.clear_frames(error.__traceback__)  # whose variables hold a model
            failures.append((target, error))
    return lines, failures


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
        if not local(target).exists():
            raise not_there("run, model or folder of images", target)


def _baselines(evaluator: Evaluator, test: Dataset | None, group: Processes) -> Iterator[Line]:
    """Real images, best those of a test split that is not the reference itself; and a Gaussian.

    A baseline that cannot be scored is left out, which is said: it costs the targets nothing.
    """
    for baseline in (partial(_real, evaluator, test), evaluator.gaussian):
        try:
            found = group.as_one(baseline)
        except FewstepError as error:
            warnings.warn(f"a baseline is left out: {error}", FewstepWarning, stacklevel=2)
            continue
        yield from (Line(name, scores) for name, scores in found.items())


def _real(evaluator: Evaluator, test: Dataset | None) -> dict[str, Scores]:
    if test is None or evaluator.holds(test.images):
        return evaluator.halves()
    return {TEST: evaluator.score(test.images, test.labels, test.classes)}


def _failed(failures: Sequence[tuple[Path, FewstepError]], of: int) -> FewstepError:
    """One error for the targets that could not be scored."""
    if of == 1:
        return failures[0][1]
    each = "; ".join(f"{target}: {error}" for target, error in failures)
    return FewstepError(f"{len(failures)} of {of} targets could not be scored: {each}")


def _setting(evaluator: Evaluator) -> Setting:
    network, reference = evaluator.network, evaluator.reference
    return Setting(
        features=network.name,
        weights=network.fingerprint,
        resize=network.resize,
        reference=reference.name,
        n=reference.n,
        replicates=evaluator.replicates,
        versions={"fewstep": __version__, "torch": version("torch")},
    )


app = command(evaluate)
