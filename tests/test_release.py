"""The package as others install it: what is in the wheel, and what sampling needs besides."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from fewstep.errors import FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.moved import MOVED
from fewstep.networks import MLP
from fewstep.parameterization import EDM
from fewstep.runs.opening import open_model
from fewstep.trained import CONSISTENCY
from fewstep.version import __version__

ROOT = Path(__file__).parent.parent
NEEDED = {"torch", "numpy", "PIL", "safetensors"}
FOREIGN = re.compile(r"^([A-Za-z][\w.-]*)")

ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Refuse())
"""


def program() -> str:
    """The program of docs/releases.md."""
    text = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    return text.partition("```python\n")[2].partition("```")[0]


def blocked() -> set[str]:
    """Modules of every dependency but the four."""
    named = {"scipy", "filelock", "cyclopts", "rich", "tensorboardX", "sklearn", "matplotlib"}
    more = {"pyarrow", "datasets", "jinja2", "fastapi", "uvicorn", "onnx", "onnxruntime", "yaml"}
    return (named | more) - NEEDED


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "-o", str(out), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_wheel_and_source_hold_the_package_and_nothing_that_is_made(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    ours = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src/fewstep").rglob("*.py")}
    assert ours <= set(names)
    assert {"fewstep/py.typed", "fewstep/serving/page/index.html"} <= set(names)
    assert all(name.startswith(("fewstep/", "fewstep-")) for name in names)
    meta = zipfile.ZipFile(wheel).read(f"fewstep-{__version__}.dist-info/METADATA").decode()
    assert f"Version: {__version__}" in meta
    assert "License-Expression: MIT" in meta
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = archive.getnames()
    assert f"fewstep-{__version__}/CHANGELOG.md" in held
    assert not [name for name in held if re.search(r"\.venv|/runs/run-|\.pyc$|\.pt$", name)]


def test_sampling_needs_four_packages(built: Path, tmp_path: Path) -> None:
    """The program of the documentation, from the wheel alone, where no other can be imported."""
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    f = FlowMap(MLP((1, 8, 8), num_classes=3, width=16, blocks=1), EDM(), trained=CONSISTENCY)
    f.save(tmp_path / "model.safetensors")
    (tmp_path / "sixteen.py").write_text(ALONE.format(blocked=blocked()) + program())
    done = subprocess.run(
        [sys.executable, "sixteen.py", "model.safetensors", "."],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sixteen.png").is_file()
    assert (tmp_path / "one-class.png").is_file()


def test_the_version_is_one() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in project
    assert f"version: {__version__}" in citation
    assert len([line for line in program().splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("old", list(MOVED))
def test_a_module_that_moved_is_found_under_its_old_name(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(FewstepWarning, match=re.escape(f"{old} is {MOVED[old]} now")):
        found = import_module(old)
    now = import_module(MOVED[old])
    names = [name for name in vars(now) if not name.startswith("_")]
    assert names
    assert all(getattr(found, name) is getattr(now, name) for name in names)


def test_names_of_a_module_that_was_divided_are_found_under_the_old_one() -> None:
    sys.modules.pop("fewstep.recipes.directory", None)
    with pytest.warns(FewstepWarning, match="is fewstep.runs.directory now"):
        found = import_module("fewstep.recipes.directory")
    assert found.open_model is open_model
    assert found.RunDirectory is import_module("fewstep.runs.directory").RunDirectory
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = found.no_such_name
    with pytest.raises(AttributeError):
        _ = found.nothing_of_the_kind


def test_what_is_nowhere_is_found_nowhere() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("fewstep.recipes.nothing_of_the_kind")
