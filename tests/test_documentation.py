"""What the documents name exists, and what they show runs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep
from fewstep.cli import app
from fewstep.cli.train import offer_chosen
from fewstep.objectives import OBJECTIVES
from fewstep.training.validation import energy_distance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def modules() -> Iterator[object]:
    for found in pkgutil.walk_packages(fewstep.__path__, "fewstep."):
        if not found.name.endswith("__main__"):
            try:
                yield importlib.import_module(found.name)
            except ModuleNotFoundError as missing:
                if missing.name != "triton":  # which kernels of GPUs are written in
                    raise


def symbols() -> Iterator[str]:
    """The code column of the table of symbols."""
    for line in (ROOT / "docs" / "notation.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[2].startswith("`"):
            yield from re.findall(r"`([\w.]+)`", cells[2].partition(" without")[0])


def losses() -> Iterator[str]:
    """A line for each objective: its name, the first formula of its docstring, what it needs."""
    for name in OBJECTIVES:
        loss = re.search(r"``(.+?)``", inspect.getdoc(OBJECTIVES[name]) or "")
        assert loss, name
        formula = loss[1].replace("|", r"\|")
        yield f"| `{name}` | `{formula}` | {', '.join(OBJECTIVES[name].needs.words) or 'data'} |"


def test_the_methods_say_what_they_minimise() -> None:
    """Each loss as its docstring has it, and what the objective says that it needs."""
    told = (ROOT / "docs" / "methods.md").read_text().splitlines()
    assert [line for line in losses() if line not in told] == []


def has(cls: type, name: str) -> bool:
    """Whether instances of the class have the attribute: declared, inherited or set in a method."""
    return any(
        name in vars(base)
        or name in getattr(base, "__annotations__", {})
        or re.search(rf"self\.{name}\b[^=\n]*=", inspect.getsource(base))
        for base in cls.__mro__
        if base.__module__.startswith("fewstep")
    )


def test_every_symbol_of_the_notation_exists() -> None:
    names: dict[str, object] = {}
    arguments: set[str] = set()
    for module in modules():
        for name, value in vars(module).items():
            if not str(getattr(value, "__module__", "")).startswith("fewstep"):
                continue
            names[name] = value
            if inspect.isclass(value):
                for method in filter(inspect.isfunction, vars(value).values()):
                    arguments |= set(inspect.signature(method).parameters)
    found = list(symbols())
    assert len(found) > 20
    for symbol in found:
        owner, _, attribute = symbol.partition(".")
        if not attribute:
            assert owner in names or owner in arguments, symbol
        else:
            cls = names[owner]
            assert inspect.isclass(cls), symbol
            assert has(cls, attribute), symbol


def commands() -> list[str]:
    """Every line of the documents that calls fewstep."""
    return sorted(
        {
            line.strip().partition("  ")[0].partition(" #")[0]
            for document in DOCUMENTS
            for line in document.read_text().splitlines()
            if line.startswith("    fewstep ")
        }
    )


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_documents_parses(command: str) -> None:
    _, bound, _ = app.meta.parse_args(shlex.split(command)[1:], exit_on_error=False)
    if not bound.arguments.get("plugin"):  # without which its recipes are not known
        offer_chosen(bound.arguments["words"], {})
        app.parse_args(bound.arguments["words"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files_exist(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    for path in re.findall(r"`((?:src|docs|tests|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_layers_are_those_that_are_enforced() -> None:
    told = (ROOT / "docs" / "architecture.md").read_text().partition("## Layers")[2]
    drawn = [line[4:].split("  ")[0] for line in told.splitlines() if line.startswith("    ")]
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    assert drawn == contract["layers"]


def test_every_extra_is_documented() -> None:
    told = (ROOT / "docs" / "releases.md").read_text()
    extras = set(PROJECT["project"]["optional-dependencies"]) - {"dev"}
    assert {name for name in extras if f"| `{name}` |" not in told} == set()


def test_every_document_is_linked() -> None:
    texts = {path: path.read_text() for path in DOCUMENTS}
    for document in DOCUMENTS[1:]:
        link = re.compile(rf"\]\((docs/)?{re.escape(document.name)}[)#]")
        others = (text for path, text in texts.items() if path != document)
        assert any(map(link.search, others)), document.name


def test_public_names_exist() -> None:
    assert all(hasattr(fewstep, name) for name in fewstep.__all__)
    with pytest.raises(AttributeError):
        _ = fewstep.no_such_name


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(example.read_text().splitlines()) <= 60
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    assert list(tmp_path.rglob("*.png"))


def test_a_loop_of_your_own_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands in the document, but for the number of steps."""
    monkeypatch.chdir(tmp_path)
    loop = PYTHON.findall((ROOT / "docs" / "training-loop.md").read_text())[0]
    space: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(loop.replace("steps=300", "steps=25"), space)
    f = fewstep.open_model("my-model.safetensors")
    assert len(loop.split("\n\nobjective = ")[1].splitlines()) < 20
    scores = []
    for model in (fewstep.FlowMap(fewstep.MLP(f.shape, num_classes=10), f.p), f):
        x = fewstep.sample(model, 64, "jumps")
        real = space["data"].batch(torch.arange(100))[0]
        scores.append(energy_distance(x, real))
    assert scores[1] < 0.9 * scores[0]


def test_no_module_imports_the_package_as_a_whole() -> None:
    """Its names are those of every floor: such an import would run back up."""
    for path in sorted((ROOT / "src" / "fewstep").rglob("*.py")):
        for line in path.read_text().splitlines():
            source, _, names = line.strip().partition(" import ")
            assert line.strip() != "import fewstep", path
            assert source != "from fewstep" or not {*names.split(", ")} & {*fewstep.__all__}, path
