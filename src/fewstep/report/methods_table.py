"""The table of the methods as Markdown, written from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fewstep.report.methods_scores import Findings, Measured
from fewstep.report.methods_words import (
    CAPTIONS,
    behind,
    introduction,
    sentences,
    why_behind,
)
from fewstep.report.table import NONE, head, line

HEADER = ("method", "process", "a step", "spent", "seconds", "seeds", "FD, 1 step ↓",
          "2 steps", "4 steps", "recall, 1 step ↑", "2 steps", "4 steps")  # fmt: skip


def write_table(path: Path, findings: Findings, pictures: Mapping[str, bytes]) -> None:
    """Write the table, and its pictures beside it.

    Args:
        path: of the Markdown; a picture is called as it is, a dash, and the picture's name.
        findings: what was measured.
        pictures: PNG by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        path.with_name(_file(path, name)).write_bytes(png)
    files = {name: _file(path, name) for name in pictures}
    path.write_text(markdown(findings, files), encoding="utf-8")


def _file(path: Path, picture: str) -> str:
    return f"{path.stem}-{picture}.png"


def markdown(findings: Findings, pictures: Mapping[str, str]) -> str:
    """The whole page, with the files of its pictures."""
    return "\n".join(_lines(findings, pictures))


def _lines(findings: Findings, pictures: Mapping[str, str]) -> Iterator[str]:
    yield "# The methods since the paper"
    yield ""
    yield "Written by `fewstep reproduce digits --methods --table docs/digits-methods.md`."
    yield ""
    for paragraph in introduction(findings):
        yield paragraph
        yield ""
    yield f"{findings.machine}."
    yield ""
    yield from _scores(findings)
    for name, file in pictures.items():
        yield f"![{CAPTIONS[name].partition('.')[0]}]({file})"
        yield ""
        yield f"*{CAPTIONS[name]}*"
        yield ""
    yield "## What it says"
    yield ""
    yield from (f"- {sentence}" for sentence in sentences(findings))
    yield ""
    yield from _behind(findings)


def _scores(findings: Findings) -> Iterator[str]:
    yield "## Scores"
    yield ""
    yield (
        "A step: what a training step costs, in evaluations for each image. Spent: by the method's "
        "own training, then with all that it builds on. Seconds: of one core of the processor, "
        "likewise. A dash stands where a method does not have this number of steps."
    )
    yield ""
    yield from head(HEADER, text=2)
    yield line(_many(findings.teacher))
    for heading, group in findings.groups.items():
        if group:
            yield line([f"**From {heading}**", *[""] * (len(HEADER) - 1)])
            yield from (line(_row(method)) for method in group)
    yield ""


def _many(teacher: Measured) -> list[str]:
    """The line of the diffusion model, whose steps are many."""
    many = teacher.best
    scores = [f"{many.fd} in {many.nfe}", NONE, NONE, f"{many.recall} in {many.nfe}", NONE, NONE]
    return [*_facts(teacher), *scores]


def _row(method: Measured) -> list[str]:
    sampled = [method.at(steps) for steps in (1, 2, 4)]
    distances = [NONE if s is None else str(s.fd) for s in sampled]
    recalls = [NONE if s is None else f"{s.recall.mean:.2f}" for s in sampled]
    return [*_facts(method), *distances, *recalls]


def _facts(method: Measured) -> list[str]:
    spent = f"{method.spent:,.0f}"
    if method.built_on:
        spent += f" / {method.spent + method.built_on:,.0f}"
    seconds = [f"{s:.0f}" if method.seconds else NONE for s in _seconds(method)]
    facts = [f"`{method.name}`", method.process, f"{method.cost:.3g}", spent]
    return [*facts, " / ".join(seconds), str(method.seeds)]


def _seconds(method: Measured) -> list[float]:
    """Of its own training, and with all that it builds on."""
    whole = [method.seconds + method.seconds_before] if method.built_on else []
    return [method.seconds, *whole]


def _behind(findings: Findings) -> Iterator[str]:
    found = behind(findings)
    if not found:
        return
    yield "## What does not reach CD"
    yield ""
    yield why_behind(findings)
    yield ""
    for one in found:
        yield f"- **{one.method.name}**: {one.where}. {one.method.summary} {one.remarks}".rstrip()
    yield ""
