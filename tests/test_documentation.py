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
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import fewstep
from fewstep.cli import app
from fewstep.cli.train import offer_chosen
from fewstep.objectives import OBJECTIVES
from fewstep.report import handbook
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


page = cache(handbook.page)  # for all methods once


def test_the_page_of_methods_is_what_the_methods_say() -> None:
    """Written anew from docstrings, declarations and stored scores, it is the same."""
    told = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert told == page(), f"write it anew: {handbook.COMMAND}"


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_page_says_all_of_every_method(name: str) -> None:
    method = handbook.Method(name, OBJECTIVES[name])
    (section,) = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", page(), re.MULTILINE | re.DOTALL)
    assert f"`{method.formula}`" in section
    for what in (method.needs, method.cost, method.minimum, "arxiv.org/abs/"):
        assert what.replace("|", r"\|") in section, what
    assert all(f"`{recipe.name}`" in section for recipe in method.recipes)
    assert method.recipes


def test_figures_that_were_measured_stand_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"digits/cd": {"1": "5.40 ± 0.20", "2": "4.10"}}
    monkeypatch.setattr(handbook, "scores", lambda: found)
    text = handbook.page()
    assert "| ours | `digits/cd`: FD 5.40 ± 0.20 in 1, 4.10 in 2 steps |" in text
    assert "| 5.40 ± 0.20, 4.10, – |" in text


def test_every_published_figure_is_of_an_objective() -> None:
    assert handbook.quoted().keys() <= set(OBJECTIVES)
    assert "CIFAR-10: FID 3.55 (1 NFE), 2.93 (2 NFE), Song et al., 2023" in handbook.quoted()["cd"]


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


def test_every_picture_of_the_documents_is_one_and_small() -> None:
    pictures = [p for p in (ROOT / "docs").glob("**/*") if p.suffix in (".png", ".webp")]
    own = [p for p in pictures if "_build" not in p.parts]
    assert len(own) > 8
    for path in own:
        with Image.open(path) as picture:
            picture.load()
            assert getattr(picture, "n_frames", 1) > 10 or path.suffix == ".png", path
    films = ROOT.glob("docs/pictures/*.*")
    assert sum(path.stat().st_size for path in films) < 1_500_000


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
