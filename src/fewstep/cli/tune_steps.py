"""``fewstep tune-steps RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
from cyclopts import Parameter, Token

from fewstep.cli.command import Whole, command, whole
from fewstep.cli.likelihood import check_batch
from fewstep.cli.reading import Reading
from fewstep.digest import sha256_of
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator
from fewstep.evaluation.choice import feature_network
from fewstep.lock import locked
from fewstep.models import as_map
from fewstep.progress import progress
from fewstep.runs.opening import load_any, model_file
from fewstep.runs.real import Real
from fewstep.runs.run import Data
from fewstep.runs.stored_taus import TAUS, keep_taus
from fewstep.runs.time_points import FRESH, MOST, Search, SearchState, Verdict, greedy_search
from fewstep.sampling import sampler_for


def counts_of(type_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Whole numbers and ranges of them: ``2 4`` is 2 and 4, ``2..4`` is 2, 3 and 4."""
    found: list[int] = []
    for token in tokens:
        first, dots, last = token.value.partition("..")
        if dots and first.isdecimal() and last.isdecimal() and int(first) <= int(last) <= MOST:
            found += range(int(first), int(last) + 1)
        else:
            found.append(whole(int, [token]))
    return tuple(found)


LONGEST = 1000  # points, rounds or seeds of a search

Counts = Annotated[
    tuple[int, ...],
    Parameter(converter=counts_of, consume_multiple=True, negative_iterable=""),
]


def tune_steps(
    model: Path,
    /,
    *,
    steps: Counts = (2, 3, 4),
    sampler: str | None = None,
    reference: str | None = None,
    reading: Reading | None = None,
    features: str | None = None,
    weights: Path | None = None,
    n: Annotated[Whole | None, Parameter(alias="-n")] = None,
    grid: Whole = 8,
    rounds: Whole = 2,
    seeds: Whole = 5,
    seed: Whole = 1,
    checkpoint: str = "last",
    ema: str | None = None,
    batch: Whole | None = None,
    device: str | None = None,
) -> None:
    """Find the time points of a few steps by Fréchet distance, and keep them with the model.

    One point after the other, by a coarse scan and ternary search inside its best interval. Points
    that are better than the default ones on fresh seeds, beyond chance, are kept in taus.json
    beside the model, where sample, evaluate, edit and serve find them; else the default ones stay.

    Interrupted, it goes on where it was with the same command.

    Examples:
      fewstep tune-steps runs/digits-cd
      fewstep tune-steps runs/digits-cd --steps 2 3
      fewstep tune-steps runs/cifar10-ect --steps 2 -n 10000 --features inception
      fewstep sample runs/digits-cd --steps 2

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME of a consistency model.
    steps
        Numbers of network evaluations to find time points for, 2 to 16, such as 2 4 or 2..4.
    sampler
        The jumps that the points are for, as a spec, such as jumps(gamma=0.5); default the model's
        own.
    reference
        Real images or statistics to score against, as evaluate takes them. Default the images
        that the run trained on.
    features
        Feature network, as evaluate takes it. Default classifier for images of several classes and
        of up to 16 pixels, otherwise inception.
    weights
        File of the feature network's published weights; default where it looks for them.
    n
        Samples per score and seed; default as many as the reference has.
    grid
        Points of the coarse scan.
    rounds
        Comparisons of the ternary search; each takes a third off the interval.
    seeds
        Seeds that a score of the search is the mean of.
    seed
        The first of them; the fresh ones follow the last.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average; default the first.
    batch
        Samples made at once; default 256, or 32
        on a CPU where the network is no mlp.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    """
    counts = _checked(steps, n, seeds)
    for flag, number in (("grid", grid), ("rounds", rounds), ("seeds", seeds)):
        if number > LONGEST:
            raise FewstepError(f"--{flag} takes at most {LONGEST}, got {number}.")
    if batch is not None:
        check_batch(batch)
    on = pick_device(device)
    home, file = model_file(model, checkpoint=checkpoint, ema=ema)
    f = as_map(load_any(file, on), "a search of time points")
    f.trained.check_time_points(model)
    evaluator = _evaluator(model, (reading or Reading()).data(reference), features, weights, on)
    n = n or evaluator.n
    settings = {"model": sha256_of(file), "evaluator": evaluator.fingerprint, "n": n}
    if sampler is not None:
        settings["sampler"] = sampler_for(f, sampler=sampler, taus=()).spec
    with locked(home):
        state = SearchState(home / f"tune-steps-{file.stem}.json", settings)
        search = Search(f, evaluator, state, n, seed, seeds, batch, sampler)
        with progress("searching", search.cost(counts, grid, rounds)) as advance:
            search = replace(search, advance=advance)
            taus = greedy_search(f.p, counts[-1], search.mean_fd, grid=grid, rounds=rounds)
            verdicts = {count: search.verdict(taus[: count - 1]) for count in counts}
        for count, verdict in verdicts.items():
            print(_sentence(count, verdict, seeds))
        found = {str(count): list(v.found) for count, v in verdicts.items() if v.better}
        keep_taus(home, file, found, counts)
        state.remove()
    if found:
        print(f"{home / TAUS}: time points for {', '.join(found)} steps")


def _checked(steps: tuple[int, ...], n: int | None, seeds: int) -> list[int]:
    """The numbers of steps in order, each once."""
    counts = sorted(set(steps))
    if not counts or counts[0] < 2 or counts[-1] > MOST:
        given = " ".join(map(str, steps))
        raise FewstepError(f"--steps takes numbers from 2 to {MOST}, got {given}.")
    if n is not None and n < 2:
        raise FewstepError(f"a Fréchet distance needs at least 2 samples, got -n {n}.")
    if seeds < 1:
        raise FewstepError(f"the search needs at least 1 seed, got --seeds {seeds}.")
    return counts


def _evaluator(
    model: Path,
    reference: Data,
    features: str | None,
    weights: Path | None,
    device: torch.device,
) -> Evaluator:
    """Scores the Fréchet distance alone.

    Raises:
        FewstepError: no reference was given and the model does not say what it was trained on.
    """
    real = Real.of(model, reference)
    network = feature_network(features, weights=weights, data=real.data).to(device)
    return Evaluator(network, real.as_seen_by(network), metrics=["fd"])


def _sentence(count: int, verdict: Verdict, seeds: int) -> str:
    """Both sets of time points, both pairs of distances, and which points it is."""
    default, found = (
        ", ".join(f"{tau:.4g}" for tau in taus) for taus in (verdict.default, verdict.found)
    )
    lines = [f"{count} steps: {default} -> {found}"]
    fresh = [mean(side) for side in zip(*verdict.fresh, strict=True)]
    for (before, after), number, which in (
        (verdict.searched, seeds, "seeds of the search"),
        (fresh, FRESH, "fresh seeds"),
    ):
        lines.append(f"  Fréchet distance {before:.3f} -> {after:.3f}, mean of {number} {which}")
    result = "kept" if verdict.better else "no better, the default points stay"
    lines.append(f"  gain {verdict.gain:.3f}, standard error {verdict.error:.3f}: {result}")
    return "\n".join(lines)


app = command(tune_steps)
