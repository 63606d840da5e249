"""``fewstep evaluate TARGET [TARGET ...]``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fewstep.data import Dataset, load, to_uint8
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, FeatureNetwork, ResNet56, Scores, train_classifier
from fewstep.flow_map import FlowMap
from fewstep.progress import progress
from fewstep.recipes.directory import RunDirectory, open_model
from fewstep.recipes.execute import load_data
from fewstep.sampling import sample, sampler_for
from fewstep.training.distributed import pick_device

COLUMNS = ("n", "fd", "inception_score", "precision", "recall", "class_accuracy")


def evaluate(
    *targets: Path,
    reference: str | None = None,
    features: str = "classifier",
    steps: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative_iterable="")] = (),
    solver: str = "heun",
    n: Annotated[int | None, Parameter(alias="-n")] = None,
    seed: int = 0,
    checkpoint: str = "last",
    ema: str | None = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    batch: int = 256,
    device: str | None = None,
) -> None:
    """Score models or images in one table: Fréchet distance, inception score, precision, recall.

    A model is sampled with the reference's class proportions, as many images as the reference has.
    Beside the targets stand two baselines: the real test split, and a Gaussian fitted to the pixels
    of each class.

    Examples:
      fewstep evaluate runs/digits-cd runs/digits-ict --steps 1 2
      fewstep evaluate runs/digits-edm --steps 5 18 --solver heun -o scores.csv
      fewstep evaluate samples.npz --reference digits
      fewstep evaluate runs/cifar10-ect --features resnet56.safetensors -n 10000

    Parameters
    ----------
    targets
        Run folders, checkpoints, model files; or images: a folder, .npz, .npy or .parquet.
    reference
        Real images, as --data of train takes them; default those that the first run trained on.
    features
        "classifier", a small one trained on the reference in seconds, or a path to the weights
        of a CIFAR ResNet-56.
    steps
        Network evaluations of a consistency model (default 1), or solver steps of a diffusion
        model (default 18); several give a line each.
    solver
        Solver of a diffusion model.
    n
        Images per model; default as many as the reference has.
    seed
        Seed of the samples.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average; default the first.
    out
        Also write the table as .csv.
    batch
        Images at once.
    device
        Where to compute: cpu, cuda or mps; default a GPU where there is one.
    """
    if not targets:
        raise FewstepError("nothing to evaluate: give run folders, model files or images.")
    if out is not None and out.suffix != ".csv":
        raise FewstepError(f"the table is written as .csv, not {out}.")
    where = pick_device(device)
    real, test = reference_images(targets[0], reference)
    evaluator = Evaluator(feature_network(features, real), real.images, real.labels)
    results = list(_baselines(evaluator, test))
    for target in targets:
        if not is_model(target):
            given = load(target)
            results.append((str(target), None, evaluator.score(given.images, given.labels)))
            continue
        f = open_model(target, checkpoint=checkpoint, ema=ema, device=where)
        for count in steps or (18 if f.info.get("kind") == "diffusion" else 1,):
            sampler = sampler_for(f, count, solver=solver)
            images, labels = _images_of(
                f, evaluator, n, sampler_steps=count, solver=solver, seed=seed, batch=batch
            )
            results.append((str(target), sampler.nfe, evaluator.score(images, labels)))
    show(results)
    if out is not None:
        write(out, results)


def is_model(path: Path) -> bool:
    """Whether a target is a model to sample, rather than images."""
    return path.suffix == ".safetensors" or any(
        (path / name).is_file() for name in ("run.json", "checkpoint.json")
    )


def reference_images(first: Path, reference: str | None) -> tuple[Dataset, Dataset | None]:
    """The real images, and their test split where there is one.

    Raises:
        FewstepError: no reference was given and the first target has none.
    """
    home = RunDirectory(first)
    if reference is not None:
        real = load(reference)
    elif home.started:
        run = home.run()[1]
        reference, real = run.data.data, load_data(run)
    else:
        raise FewstepError(f"{first} does not say what it was trained on: give --reference.")
    try:
        return real, load(str(reference), split="test", size=real.shape[-1], channels=real.shape[0])
    except FewstepError:
        return real, None  # a data set without a test split has one baseline fewer


def feature_network(name: str, real: Dataset) -> FeatureNetwork:
    """The feature network that ``--features`` names."""
    if name != "classifier":
        return ResNet56.load(name)
    if real.labels is None:
        raise FewstepError(
            f"{real.name} has no labels to train a classifier on: give --features a path to the "
            "weights of a CIFAR ResNet-56."
        )
    return train_classifier(real.images, real.labels)


def _baselines(
    evaluator: Evaluator, test: Dataset | None
) -> Iterator[tuple[str, int | None, Scores]]:
    known = (test.images, test.labels) if test is not None else (None, None)
    for name, scores in evaluator.baselines(*known).items():
        yield name, None, scores


def _images_of(
    f: FlowMap,
    evaluator: Evaluator,
    n: int | None,
    *,
    sampler_steps: int,
    solver: str,
    seed: int,
    batch: int,
) -> tuple[Tensor, Tensor | None]:
    labels: Tensor | None = None
    count = n or evaluator.n
    if f.num_classes:
        labels = evaluator.labels_for(count)
    with progress(f"sampling, {sampler_steps} steps", count) as advance:
        sampler = sampler_for(f, sampler_steps, solver=solver)
        x = sample(f, count, sampler, seed=seed, labels=labels, batch=batch, progress=advance)
    return to_uint8(x), labels


def show(results: list[tuple[str, int | None, Scores]]) -> None:
    """Print the table."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("target")
    for name in ("NFE", "n", "FD", "IS", "precision", "recall", "class %"):
        table.add_column(name, justify="right")
    for name, nfe, s in results:
        accuracy = "" if s.class_accuracy is None else f"{100 * s.class_accuracy:.1f}"
        numbers = (
            f"{s.fd:.3f}",
            f"{s.inception_score:.2f}",
            f"{s.precision:.3f}",
            f"{s.recall:.3f}",
        )
        table.add_row(name, str(nfe or ""), str(s.n), *numbers, accuracy)
    Console().print(table)


def write(path: Path, results: list[tuple[str, int | None, Scores]]) -> None:
    """Write the table as CSV."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["target", "nfe", *COLUMNS])
            for name, nfe, s in results:
                writer.writerow([name, nfe, *(getattr(s, column) for column in COLUMNS)])
    except OSError as error:
        raise FewstepError(f"cannot write {path}: {error}.") from error
