"""Time points of multistep sampling by greedy ternary search (Song et al. 2023, Section 3).

The points are found one after the other, each with the earlier ones fixed. Ternary search finds
the minimum of a function with one valley; a Fréchet distance of some thousand samples has many
small ones. Hence three precautions:

- a coarse scan of the whole interval comes first, and ternary search refines its best point;
- all candidates are scored from the same noise, and scores are means over several seeds;
- points are taken only if they beat the default ones on fresh seeds, by a paired t-test.

Scan and search run on Karras' coordinate ``u = t^(1/rho)``, in which equal distances matter about
equally. With ``a`` and ``b`` the ends of the interval, the scan takes ``a + (b - a) i / (G + 1)``
for ``i = 1..G``, and each round of the search scores the thirds of the interval that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fewstep.data import to_uint8
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator
from fewstep.files import read_json, write_json
from fewstep.flow_map import FlowMap
from fewstep.parameterization import Parameterization
from fewstep.records import record_of
from fewstep.runs.real import labels_like
from fewstep.sampling import default_taus, sample, sampler_for

RHO = 7.0
MOST = 16  # steps; the time grows with their square, and the gain is in the first few points
NARROW = 1e-3  # of u; an interval below it has no room for a grid
FRESH = 8  # seeds of the verdict
T_95 = 1.895  # of Student's t with FRESH - 1 degrees of freedom, one-sided: chance keeps 1 of 20

Score = Callable[[tuple[float, ...]], float]


def greedy_search(
    p: Parameterization, steps: int, score: Score, *, grid: int = 8, rounds: int = 2
) -> tuple[float, ...]:
    """The ``steps - 1`` time points after ``T``, decreasing.

    The first ``k`` of them are the search's points for ``k + 1`` steps.

    Args:
        p: gives ``T`` and ``eps``.
        steps: network evaluations, from 2 on.
        score: of the points so far; the smaller the better.
        grid: points of the coarse scan, `G`.
        rounds: comparisons of ternary search inside the scan's best two intervals; each takes two
            scores and a third of what is left.

    Raises:
        FewstepError: numbers out of range; a point so close to ``eps`` that none fits below it.
    """
    if not 2 <= steps <= MOST:
        raise FewstepError(f"time points are searched for 2 to {MOST} steps, got {steps}.")
    if grid < 1 or rounds < 0:
        raise FewstepError(f"need grid >= 1 and rounds >= 0, got {grid} and {rounds}.")
    taus: tuple[float, ...] = ()
    lowest, u = p.t_min ** (1 / RHO), p.T ** (1 / RHO)
    while len(taus) < steps - 1:
        if u - lowest < NARROW:
            raise FewstepError(
                f"the grid is too fine below the time point {taus[-1]:.4g}: ask for at most "
                f"{len(taus) + 1} steps."
            )
        u = _lowest_point(_of_last(score, taus), lowest, u, grid, rounds)
        taus = (*taus, u**RHO)
    return taus


def _of_last(score: Score, taus: tuple[float, ...]) -> Callable[[float], float]:
    return lambda u: score((*taus, u**RHO))


def _lowest_point(
    score: Callable[[float], float], a: float, b: float, grid: int, rounds: int
) -> float:
    """The best of the points in ``(a, b)`` that the scan and the ternary search have scored."""
    scan = [a + (b - a) * i / (grid + 1) for i in range(grid + 2)]
    known = {u: score(u) for u in scan[1:-1]}
    best = scan.index(min(known, key=known.__getitem__))
    a, b = scan[best - 1], scan[best + 1]
    for _ in range(rounds):
        left, right = a + (b - a) / 3, b - (b - a) / 3
        known |= {left: score(left), right: score(right)}
        if known[left] < known[right]:
            b = right
        else:
            a = left
    return min(known, key=known.__getitem__)


@dataclass
class Scored:
    """The scores of one search, by seed and time points."""

    settings: dict[str, Any]
    scores: dict[str, float] = field(default_factory=dict)


class SearchState:
    """Scores that were computed, in a file, so that an interrupted search resumes.

    Searches with other settings, also interrupted, keep their own scores in the same file.

    Args:
        path: the file.
        settings: what the scores depend on.

    Raises:
        FewstepError: the file is unreadable.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        known = read_json(path, _searches_of, _STATE, _REMEDY) if path.exists() else []
        self._others = [search for search in known if search.settings != settings]
        mine = [search for search in known if search.settings == settings]
        self._mine = mine[0] if mine else Scored(settings)

    def score(self, taus: Sequence[float], seed: int, compute: Callable[[], float]) -> float:
        """The score of these points on a seed, computed at most once."""
        key = " ".join(["seed", str(seed), "taus", *map(repr, taus)])
        if key not in self._mine.scores:
            self._mine.scores[key] = compute()
            self._write([*self._others, self._mine])
        return self._mine.scores[key]

    def remove(self) -> None:
        """The search has ended: its result is elsewhere."""
        if self._others:
            self._write(self._others)
        else:
            self.path.unlink(missing_ok=True)

    def _write(self, searches: list[Scored]) -> None:
        write_json(self.path, {"searches": [asdict(search) for search in searches]})


_STATE = "the state of a search"
_REMEDY = "Please delete it to start anew."


def _searches_of(stored: Any) -> list[Scored]:
    searches = stored.get("searches", [stored])  # earlier versions kept one alone
    return [record_of(Scored, search, "a search") for search in searches]


@dataclass(frozen=True)
class Verdict:
    """Found against default time points.

    Args:
        default: the model's own time points.
        found: those of the search.
        searched: mean Fréchet distances of both on the seeds of the search.
        fresh: Fréchet distances of both on each of the seeds that the search did not see.
    """

    default: tuple[float, ...]
    found: tuple[float, ...]
    searched: tuple[float, float]
    fresh: tuple[tuple[float, float], ...]

    @property
    def gain(self) -> float:
        """Mean fall of the Fréchet distance on the fresh seeds."""
        return mean(before - after for before, after in self.fresh)

    @property
    def error(self) -> float:
        """Standard error of the gain; the noise is the same on both sides of each difference."""
        return stdev(before - after for before, after in self.fresh) / math.sqrt(len(self.fresh))

    @property
    def better(self) -> bool:
        """Whether the gain is above zero at the 95 % level, one-sided."""
        return self.gain > T_95 * self.error


@dataclass(frozen=True)
class Search:
    """The search for one model.

    Args:
        f: a consistency model.
        evaluator: gives the Fréchet distance.
        state: scores that are known.
        n: samples per seed, at least 2; in the reference's class proportions.
        seed: first seed; the search takes ``seeds`` of them, the verdict the `FRESH` next ones.
        seeds: how many seeds a score of the search is the mean of.
        batch: samples made at once; default that of `sample`.
        sampler: spec of the jumps that the points are for; default the model's own.
        advance: called with the network evaluations per sample of each score.
    """

    f: FlowMap
    evaluator: Evaluator
    state: SearchState
    n: int
    seed: int = 1
    seeds: int = 5
    batch: int | None = None
    sampler: str | None = None
    advance: Callable[[int], None] = field(default=lambda count: None)

    def fd(self, taus: tuple[float, ...], seed: int) -> float:
        """Fréchet distance of multistep samples with these time points."""
        found = self.state.score(taus, seed, lambda: self._fd(taus, seed))
        self.advance(len(taus) + 1)
        return found

    def mean_fd(self, taus: tuple[float, ...]) -> float:
        """Mean Fréchet distance over the seeds of the search: the same noise for all points."""
        return mean(self.fd(taus, self.seed + i) for i in range(self.seeds))

    def verdict(self, found: tuple[float, ...]) -> Verdict:
        """The found points against the default ones, on the search's seeds and on fresh ones."""
        default = default_taus(self.f, len(found) + 1)
        first = self.seed + self.seeds
        return Verdict(
            default,
            found,
            (self.mean_fd(default), self.mean_fd(found)),
            tuple((self.fd(default, s), self.fd(found, s)) for s in range(first, first + FRESH)),
        )

    def cost(self, counts: Sequence[int], grid: int, rounds: int) -> int:
        """Network evaluations per sample of a search and its verdicts, as `advance` counts them."""
        scores = (grid + 2 * rounds) * self.seeds
        search = scores * sum(range(2, max(counts) + 1))
        return search + sum(2 * (self.seeds + FRESH) * count for count in counts)

    def _fd(self, taus: tuple[float, ...], seed: int) -> float:
        labels, _ = labels_like(self.evaluator, self.f, self.n)
        sampler = sampler_for(self.f, len(taus) + 1, taus=taus, sampler=self.sampler)
        x = sample(self.f, self.n, sampler, seed=seed, labels=labels, batch=self.batch)
        return float(self.evaluator.score(to_uint8(x)).fd)
