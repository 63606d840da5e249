"""``docs/methods.md``: every method, from what its objective says of itself.

    python -m fewstep.report.handbook docs/methods.md

Formula and explanation are the docstring's; paper, needs, cost and minimum are the declarations of
the class; published figures are those of two tables, and ours what ``fewstep reproduce digits
--methods`` has measured and stored. Nothing on the page is written by hand.
"""

from __future__ import annotations

import csv
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fewstep.files import replacing
from fewstep.names import OURS
from fewstep.needs import TeacherUse
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.papers import bibtex, several
from fewstep.recipes import RECIPES, Recipe
from fewstep.report.methods_plan import FAMILY
from fewstep.report.methods_scores import STORED, Findings
from fewstep.report.published import DATASETS, published

COMMAND = "python -m fewstep.report.handbook docs/methods.md"
HEAD = f"""\
# Methods

This page is written by `{COMMAND}`, from the docstrings
and the declarations of `src/fewstep/objectives`. [families.md](families.md) says in plain words
how to choose among the methods, and how to train with each.

`x` is an image, `z` a noise, `x_t = alpha x + sigma z`. `D` is the denoiser in training, `f` the
consistency function, `f_minus` its target, `X` the flow map, `u` its mean velocity, `v` the
velocity. `d` is a distance between two images, `lambda_` a weight, and `sg` stops the gradient. `g`
is a derivative along a path. [notation.md](notation.md) has every symbol.

What a step costs is counted in evaluations of the network for each image: forwards 1, backwards 2,
a derivative in forward mode 2, an evaluation of the teacher 1. FD is the Fréchet distance on
scikit-learn's digits, at equal networks and equal training compute, in one, two and four steps. It
is a mean ± its standard deviation over seeds; a number alone is of one seed. The cost is that of
the default settings: the digits' recipes of `lcm` and `ctm`, whose distances stand here, cost 6 and
15.
[digits-methods.md](digits-methods.md) is the whole comparison.
"""
GROUPS = {
    "diffusion": "Diffusion models",
    "consistency": "Consistency models",
    "flow_map": "Flow maps",
    "steps": "Models for their own number of steps",
    "autoencoder": "Autoencoders",
}
STEPS = ("1", "2", "4")
QUOTED = {
    "CD": "cd",
    "CT": "ct",
    "PD": "pd",
    "Knowledge Distillation": "kd",
    "DFNO": "dfno",
    "1-Rectified Flow": "rf",
    "EDM": "score_matching",
    "DDPM": "ddpm",
    "Score SDE": "score_sde",
}
"""Methods of Tables 1 and 2 of Song et al. 2023, and the objectives that they are."""
TEACHERS = {
    TeacherUse.START: "digits-edm",
    TeacherUse.DISTIL: "digits-edm",
    TeacherUse.REFINE: "digits-ect",
}


@dataclass(frozen=True)
class Method:
    """An objective as the page shows it."""

    name: str
    cls: type[Objective[Any]]

    @property
    def group(self) -> str:
        """The key of its heading."""
        made = self.cls.makes
        return "steps" if made.steps is not None and not made.decodes else made.kind or "steps"

    @property
    def text(self) -> str:
        """The docstring without its arguments, and its module's where it names that."""
        own = (inspect.getdoc(self.cls) or "").partition("\nArgs:")[0].strip()
        if "module's head" not in own:
            return own
        module = inspect.getdoc(inspect.getmodule(self.cls)) or ""
        return f"{own}\n\n{module.partition(chr(10) * 2)[2].strip()}"

    @property
    def formula(self) -> str:
        """The first formula of the docstring: the loss of one image."""
        return re.findall(r"``(.+?)``", self.text)[0]

    @property
    def needs(self) -> str:
        return ", ".join(self.cls.needs.words) or "images alone"

    @property
    def cost(self) -> str:
        """What a step costs, with its parts."""
        cost = self.cls.cost
        if cost is None:
            return "nobody has said"
        parts = {
            "forwards": cost.forward,
            "backwards": cost.backward,
            "derivatives in forward mode": cost.tangent,
            "of the teacher": cost.teacher,
        }
        said = ", ".join(f"{count:g} {what}" for what, count in parts.items() if count)
        return f"{cost.evaluations:g} evaluations of the network for each image: {said}"

    @property
    def minimum(self) -> str:
        return self.cls.fixed_point.value

    @property
    def paper(self) -> str:
        """Who wrote it, with links."""
        found = (re.search(r"\b\d{4}\.\d{4,5}\b", bibtex(c)) for c in several(self.cls.citation))
        numbers = [number[0] for number in found if number]
        links = [f"[arXiv:{number}](https://arxiv.org/abs/{number})" for number in numbers]
        return ". ".join([self.cls.paper, *links])

    @property
    def recipes(self) -> list[Recipe]:
        return [r for r in RECIPES.values() if r().objective.name == self.name]

    @property
    def commands(self) -> list[str]:
        """How its recipes of the digits are trained."""
        return [command(r) for r in self.recipes if r.name.startswith(FAMILY)]


def command(recipe: Recipe) -> str:
    """The command that trains a recipe of the digits, with the model that it asks for."""
    run = recipe()
    use = OBJECTIVES[run.objective.name].needs.teacher
    asks = use is not TeacherUse.NONE and run.teacher is None and run.init is None
    teacher = f" --teacher runs/{TEACHERS[use]}" if asks else ""
    return f"fewstep train {recipe.name}{teacher}"


@cache
def scores() -> dict[str, dict[str, str]]:
    """What was measured, by recipe and number of steps; nothing before it was."""
    file = Path(str(files("fewstep.report").joinpath(STORED)))
    found = Findings.read(file).all if file.is_file() else ()
    return {FAMILY + m.name: {str(s.steps): str(s.fd) for s in m.sampled} for m in found}


@cache
def quoted() -> dict[str, list[str]]:
    """Published figures of each objective, a sentence for each data set and source."""
    lines: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for row in published():
        if row.method in QUOTED and row.fid < 100:
            key = QUOTED[row.method], DATASETS[row.dataset], row.reference
            lines.setdefault(key, []).append((row.nfe, f"{row.fid:g}"))
    text = files("fewstep.report").joinpath("published_since.csv").read_text(encoding="utf-8")
    for line in csv.DictReader(text.splitlines()):
        key = line["objective"], line["dataset"], line["source"]
        lines.setdefault(key, []).append((int(line["nfe"]), line["fid"]))
    found: dict[str, list[str]] = {}
    for (objective, dataset, source), values in lines.items():
        fids = ", ".join(f"{fid} ({nfe} NFE)" for nfe, fid in sorted(values))
        found.setdefault(objective, []).append(f"{dataset}: FID {fids}, {source}")
    return found


def page() -> str:
    """The whole page."""
    groups: dict[str, list[Method]] = {key: [] for key in GROUPS}
    for name in filter(_is_ours, OBJECTIVES):
        method = Method(name, OBJECTIVES[name])
        groups[method.group].append(method)
    parts = [HEAD, *_overview([m for some in groups.values() for m in some])]
    for key, some in groups.items():
        parts.append(f"## {GROUPS[key]}\n")
        parts += [part for method in some for part in _section(method)]
    return "\n".join(parts).rstrip() + "\n"


def _is_ours(name: str) -> bool:
    """Whether an objective is of this package, and of no plugin."""
    return OBJECTIVES[name].__module__.partition(".")[0] == OURS


def _overview(methods: list[Method]) -> Iterator[str]:
    yield "| objective | loss of one image | needs | a step | FD, 1, 2, 4 steps |"
    yield "|---|---|---|---:|---|"
    for method in methods:
        cost = method.cls.cost
        cells = [
            f"[`{method.name}`](#{method.name})",
            f"`{method.formula}`",
            method.needs,
            "" if cost is None else f"{cost.evaluations:g}",
            _best(method),
        ]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _best(method: Method) -> str:
    """Our figures of its first recipe that has some."""
    for recipe in method.recipes:
        found = scores().get(recipe.name, {})
        if any(steps in found for steps in STEPS):
            return ", ".join(found.get(steps, "–") for steps in STEPS)
    return "–"


def _section(method: Method) -> Iterator[str]:
    yield f"### {method.name}\n"
    yield markdown(method.text) + "\n"
    facts = {
        "paper": method.paper,
        "needs": method.needs,
        "a step costs": method.cost,
        "minimum": method.minimum,
        "published": "; ".join(quoted().get(method.name, [])) or "nothing that can be compared",
        "ours": "; ".join(_ours(method)) or "[the table](table.md), where it has a row",
        "recipes": ", ".join(f"`{recipe.name}`" for recipe in method.recipes),
        "file": f"`{_file(method.cls)}`",
    }
    yield "| | |\n|---|---|"
    for what, said in facts.items():
        yield f"| {what} | {said.replace('|', chr(92) + '|')} |"
    yield ""
    if method.commands:
        yield "\n".join(f"    {line}" for line in method.commands) + "\n"


def _ours(method: Method) -> Iterator[str]:
    for recipe in method.recipes:
        if found := scores().get(recipe.name):
            numbers = sorted(found, key=int)
            said = ", ".join(f"{found[n]} in {n}" for n in numbers)
            yield f"`{recipe.name}`: FD {said} step{'s' * (numbers[-1] != '1')}"


def _file(cls: type) -> str:
    return f"src/{(cls.__module__).replace('.', '/')}.py"


def markdown(docstring: str) -> str:
    """A docstring in Markdown: one backtick where it has two, folded to the width of the docs."""
    text = re.sub(r"``(.+?)``", r"`\1`", docstring, flags=re.DOTALL)
    return "\n\n".join(_folded(paragraph) for paragraph in text.split("\n\n"))


def _folded(paragraph: str) -> str:
    if paragraph.startswith(("    ", "- ", "|")):
        return paragraph
    return textwrap.fill(" ".join(paragraph.split()), 120, break_on_hyphens=False)


def main(arguments: list[str]) -> None:
    """Write the page to a file, or without one to the screen."""
    if not arguments:
        print(page(), end="")
        return
    with replacing(Path(arguments[0])) as partial:
        partial.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
