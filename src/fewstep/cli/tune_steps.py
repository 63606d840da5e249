"""``fewstep tune-steps RUN``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.data import load, to_uint8
from fewstep.distributed import pick_device
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator
from fewstep.evaluation.choice import feature_network
from fewstep.flow_map import FlowMap
from fewstep.progress import progress
from fewstep.recipes.directory import TAUS, model_file
from fewstep.recipes.time_points import SearchState, greedy_ternary_search, write_json
from fewstep.sampling import default_taus, sample, sampler_for


def tune_steps(
    model: Path,
    /,
    *,
    steps: Annotated[str, Parameter()] = "2..4",
    reference: str = "digits",
    n: Annotated[Whole, Parameter(alias="-n")] = 1000,
    rounds: Whole = 8,
    seed: Whole = 1,
    device: str | None = None,
) -> None:
    """Find the time points of multistep sampling by Fréchet distance, and keep them.

    They are stored in taus.json of the run folder, where `fewstep sample --steps 2` finds them.
    An interrupted search resumes. Points that are no better than the default ones on
    other noise (the next seed) are not kept.

    Examples:
      fewstep tune-steps runs/digits-cd
      fewstep tune-steps runs/digits-cd --steps 2..3 -n 500

    Parameters
    ----------
    model
        Run folder, checkpoint folder or model file of a consistency model.
    steps
        Network evaluations: a number or a range such as 2..4.
    reference
        Real images to score against.
    n
        Samples per score.
    rounds
        Comparisons per time point; each narrows it down by a third.
    seed
        Noise of the search; scores with another seed are a held-out check.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    """
    counts = counts_of(steps)
    home, file = model_file(model)
    f = FlowMap.load(file, pick_device(device))
    if f.info.get("kind") == "diffusion":
        raise FewstepError(f"{model} is a diffusion model: time points are for consistency models.")
    data = load(reference)
    evaluator = Evaluator.of(feature_network(data=data), data.images, data.labels, metrics=["fd"])
    labels = evaluator.labels_for(n) if f.num_classes else None

    def fd(taus: tuple[float, ...], seed: int) -> float:
        x = sample(f, n, sampler_for(f, len(taus) + 1, taus=taus), seed=seed, labels=labels)
        return float(evaluator.score(to_uint8(x)).fd)

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    settings = {"model": digest, "evaluator": evaluator.fingerprint, "n": n, "seed": seed}
    state = SearchState(home / "tune-steps.json", settings)
    found = dict(f.info.get("taus", {}))
    with progress("scoring", sum(2 * rounds * (count - 1) for count in counts)) as advance:

        def score(taus: tuple[float, ...]) -> float:
            result = state.score(taus, lambda: fd(taus, seed))
            advance(1)
            return result

        for count in counts:
            found[str(count)] = greedy_ternary_search(f.p, count, rounds, score)
    for count in counts:
        taus = tuple(found[str(count)])
        before, after = fd(default_taus(f, count), seed + 1), fd(taus, seed + 1)
        points = ", ".join(f"{tau:.4g}" for tau in taus)
        print(f"{count} steps: {points}; held-out Fréchet distance {before:.4g} -> {after:.4g}")
        if after >= before:  # the search fitted the noise of its seed
            found[str(count)] = list(default_taus(f, count))
            print(f"{count} steps: no better on other noise, so the default points are kept")
    write_json(home / TAUS, {"model": str(file.relative_to(home)), "sha256": digest, "taus": found})


def counts_of(text: str) -> list[int]:
    """``"2..4"`` -> [2, 3, 4].

    Raises:
        FewstepError: not a number or range, or below 2.
    """
    first, _, last = text.partition("..")
    try:
        counts = list(range(int(first), int(last or first) + 1))
    except ValueError:
        counts = []
    if not counts or counts[0] < 2:
        raise FewstepError(f"--steps must be a number or range from 2 on, like 2..4; got {text!r}.")
    return counts


app = command(tune_steps)
