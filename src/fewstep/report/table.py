"""``table.md``: the paper's table, with what the digits reached and the command that runs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewstep.report.page import by_group, machine
from fewstep.report.plan import Plan, Row
from fewstep.report.published import DATASETS, Published, find, published
from fewstep.report.relations import RELATIONS
from fewstep.report.scoring import Result
from fewstep.stages.clock import Clock

RECIPES = {
    "EDM": "fewstep train {dataset}/edm",
    "CD": "fewstep train {dataset}/cd --teacher runs/{dataset}-edm",
    "CT": "fewstep train {dataset}/ct",
}
"""Recipes of the larger data sets, by the method's name in the paper's table."""
OUTSIDE = "fewstep evaluate samples.npz --reference {dataset}/ --features inception"
"""For what enters by its samples alone."""
NONE = "–"


@dataclass(frozen=True)
class Table:
    """What the table is made of.

    Args:
        plan: what was trained and sampled.
        results: of the plan's rows and of the baselines.
        R: Fréchet distance of the class-wise Gaussian.
        directory: of the reproduction.
        clock: the seconds of each stage.
    """

    plan: Plan
    results: Sequence[Result]
    R: float
    directory: Path
    clock: Clock

    def write(self, path: Path) -> None:
        """Write it as Markdown."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(self._lines()), encoding="utf-8")

    def relations(self) -> list[str]:
        """What was expected of the rows that the plan has, and what was found."""
        fd = {key: r.scores.fd for key, r in self._found.items()}
        return [r.sentence(fd) for r in RELATIONS if {r.better, r.worse} <= fd.keys()]

    @property
    def _rows(self) -> dict[str, Row]:
        return {row.key: row for row in self.plan.rows}

    @property
    def _found(self) -> dict[str, Result]:
        return {r.key: r for r in self.results if r.key}

    def _lines(self) -> Iterator[str]:
        yield "# The table"
        yield ""
        yield from self._introduction()
        yield from self._scores()
        yield from self._relations()
        yield from self._papers()
        yield from self._commands()

    def _introduction(self) -> Iterator[str]:
        n = max(r.scores.n for r in self.results)
        yield "Written by `fewstep reproduce digits --full --table docs/table.md`."
        yield ""
        yield (
            "Every method of the comparison in Song et al. 2023 on one data set (scikit-learn's "
            f"8x8 digits), with one residual MLP, one seed and one evaluator: {n} samples each, "
            "FD the Fréchet distance over the features of a small digit classifier, IS, precision "
            "and recall by the same features. A Gaussian fitted to the pixels of each class has "
            f"{self.R:.2f}; FD differs by up to half a point between seeds. Beside them stands "
            "what the papers published on CIFAR-10, where networks, images and features are "
            "others: compare the order, not the size."
        )
        yield ""
        total = sum(self.clock[stage.name] for stage in self.plan.stages)
        yield (
            f"{machine()}. Stages ran side by side, a core each; together they took "
            f"{total / 60:.0f} core minutes, and everything {self.clock['all'] / 60:.0f} minutes."
        )
        yield ""

    def _scores(self) -> Iterator[str]:
        yield "## Scores"
        yield ""
        yield (
            "Training: seconds of the method's own training, then with everything that it builds "
            "on (teacher, pairs, autoencoder). Sampling: milliseconds per image."
        )
        yield ""
        header = ["method", "NFE", "FD ↓", "IS ↑", "precision ↑", "recall ↑", "training, s",
                  "ms/image", "CIFAR-10 FID", "CIFAR-10 IS"]  # fmt: skip
        yield from head(header, text=1)
        for group, results in by_group(self.results):
            yield line([f"**{group}**", *[""] * 9])
            for r in results:
                yield line(self._score(r))
        yield ""

    def _score(self, r: Result) -> list[str]:
        s, row = r.scores, self._rows.get(r.key or "")
        there = find("cifar10", *row.published) if row and row.published else None
        return [
            r.method,
            str(r.nfe or NONE),
            f"{s.fd:.2f}",
            f"{s.inception_score:.2f}",
            f"{s.precision:.2f}",
            f"{s.recall:.2f}",
            self._seconds(row) if row else NONE,
            NONE if r.seconds is None else f"{1000 * r.seconds:.2f}",
            NONE if there is None else f"{there.fid:g} (NFE {there.nfe})",
            NONE if there is None else _score(there.inception_score),
        ]

    def _seconds(self, row: Row) -> str:
        own = self.clock[row.stage]
        whole = sum(self.clock[stage.name] for stage in self.plan.all_required(row.stage))
        return f"{own:.0f}" if whole == own else f"{own:.0f} / {whole:.0f}"

    def _relations(self) -> Iterator[str]:
        yield "## What the paper's table makes one expect"
        yield ""
        for sentence in self.relations():
            yield f"- {sentence}"
        yield ""

    def _papers(self) -> Iterator[str]:
        yield "## Every row of the paper's tables"
        yield ""
        yield (
            "Figures of Tables 1 and 2 of Song et al. 2023, who quote the papers named. For "
            "CIFAR-10 the command is the one that made the digits' score beside it, for the other "
            "data sets the recipe with the paper's hyper-parameters. What has no recipe there, "
            "such as GANs, flows and VAEs, enters by its samples: a folder or .npz of images, "
            "scored into the same table."
        )
        yield ""
        here = {row.published: row for row in self.plan.rows if row.published}
        for dataset, title in DATASETS.items():
            yield f"### {title}"
            yield ""
            yield from head(
                ["method", "paper", "NFE", "FID", "IS", "precision", "recall", "digits FD",
                 "command"], text=2
            )  # fmt: skip
            for p in published():
                if p.dataset == dataset:
                    yield line(self._paper(p, here.get((p.method, p.nfe))))
            yield ""

    def _paper(self, p: Published, row: Row | None) -> list[str]:
        fd = NONE if row is None else f"{self._found[row.key].scores.fd:.2f}"
        return [
            p.method,
            p.reference,
            str(p.nfe),
            f"{p.fid:g}",
            *(_score(value) for value in (p.inception_score, p.precision, p.recall)),
            fd,
            f"`{self._command(p, row)}`",
        ]

    def _command(self, p: Published, row: Row | None) -> str:
        if p.dataset == "cifar10" and row is not None:
            return self._evaluate(row)
        command = OUTSIDE if p.dataset == "cifar10" else RECIPES.get(p.method, OUTSIDE)
        return command.format(dataset=p.dataset)

    def _evaluate(self, row: Row) -> str:
        return " ".join(["fewstep evaluate", str(self.directory / row.stage), *row.options])

    def _commands(self) -> Iterator[str]:
        yield "## The commands"
        yield ""
        yield "What was trained and made, in an order that works:"
        yield ""
        for stage in self.plan.stages:
            yield f"    fewstep {shlex.join(stage.command(self.directory))}"
        yield ""
        yield "And scored:"
        yield ""
        for row in self.plan.rows:
            yield f"    {self._evaluate(row)}"
        yield ""


def head(names: Sequence[str], text: int) -> Iterable[str]:
    """The head of a table whose first ``text`` columns, and a last of commands, hold words."""
    words = [i < text or name == "command" for i, name in enumerate(names)]
    return line(names), "|" + "|".join("---" if word else "---:" for word in words) + "|"


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _score(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
