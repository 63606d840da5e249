"""The files that the documents write, as they stand there: a method and a network of one's own."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import fewstep
from fewstep.evaluation import classifier
from fewstep.names import LEDGER
from fewstep.objectives import OBJECTIVES
from fewstep.plugins import load
from fewstep.testing import CONTRACTS, Fitting

Call = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parents[1] / "docs"
TINY = ["--steps", "4", "--samples", "4", "--checkpoint-every", "2", "--warmup", "0", "--quiet"]
SMALL = ["--network.width", "16", "--network.blocks", "1", "--device", "cpu"]


def code_of(document: str) -> str:
    """The first file of Python that a document shows."""
    found = re.search(r"```python\n(.*?)```", (DOCS / document).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder with both files; what they register is forgotten at the end."""
    home = tmp_path_factory.mktemp("mine")
    (home / "mean_flow.py").write_text(code_of("add-a-method.md"))
    (home / "plain.py").write_text(code_of("plugins.md"))
    before = set(LEDGER)
    yield home
    for filed in [x for x in LEDGER if x not in before and not x.ours]:
        filed.remove()
    load._LOADED.clear()
    for name in ("mean_flow", "plain"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A short training of the method, from the command line."""
    out = folder / "runs/mf"
    words = ["train", "digits/mean-flow", "--plugin", str(folder / "mean_flow.py")]
    assert fewstep.cli.run([*words, *TINY, *SMALL, "--out", str(out)]) == 0
    return out


def test_a_method_is_a_file_of_sixty_lines() -> None:
    lines = code_of("add-a-method.md").splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100


SLOW = ("compiles_as_one_graph",)


@pytest.mark.parametrize(
    "contract",
    [pytest.param(x, marks=[pytest.mark.slow] if x in SLOW else []) for x in CONTRACTS],
)
def test_the_method_keeps_every_contract(contract: str, folder: Path) -> None:
    fewstep.load_plugin(folder / "mean_flow.py")
    CONTRACTS[contract](Fitting(OBJECTIVES["mean_flow"]))


def test_the_method_is_listed_explained_and_counted(folder: Path, call: Call) -> None:
    mine = ("--plugin", folder / "mean_flow.py")
    line = next(x for x in call("list", "objectives", *mine)[1].splitlines() if "mean_flow" in x)
    assert "Geng, Deng, Bai, Kolter, He 2025" in line
    assert "needs a two-time network, the process rectified_flow" in line
    assert "--objective.apart FLOAT" in call("train", "digits/mean-flow", "--help", *mine)[1]
    words = ("train", "digits/mean-flow", *SMALL, "--batch", 8, "--dry-run")
    code, out, _ = call(*words, *mine)
    assert code == 0
    assert " parameters\n" in out


def test_a_map_that_does_not_fit_is_refused(folder: Path, call: Call) -> None:
    words = ("train", "digits/mean-flow", "--plugin", folder / "mean_flow.py")
    code, _, err = call(*words, *TINY, *SMALL, "--network.no-two-time", "--out", folder / "no")
    assert (code, err.count("\n")) == (2, 1)
    assert "mean_flow trains a map between any two times" in err
    assert not (folder / "no").exists()


def test_the_method_goes_on_with_the_same_bits(run: Path, folder: Path, call: Call) -> None:
    again = Path(shutil.copytree(run, folder / "runs/again"))
    shutil.rmtree(again / "checkpoints/step-00000004")
    wanted = (again / "model.safetensors").read_bytes()
    (again / "model.safetensors").unlink()
    assert call("train", again, "--quiet", "--plugin", folder / "mean_flow.py")[0] == 0
    assert (again / "model.safetensors").read_bytes() == wanted


@pytest.mark.parametrize("gamma", [0, 0.5, 1])
def test_the_method_is_sampled_with_every_share_of_new_noise(
    gamma: float, run: Path, folder: Path, call: Call
) -> None:
    words = ("sample", run, "-n", 4, "--steps", 2, "-o", folder / "a.npz")
    code, out, _ = call(*words, "--sampler", f"jumps(gamma={gamma})")
    assert code == 0
    assert "4 images, 2 network evaluations each" in out


def test_the_method_is_sampled_without_new_noise_by_default(run: Path) -> None:
    f = fewstep.open_model(run)
    assert f.trained.maps_to_any
    x = [fewstep.sample(f, n=4, steps=2, seed=0, sampler=s) for s in (None, "jumps(gamma=0)")]
    assert torch.equal(*x)


def test_the_method_is_scored_and_described(
    run: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "STEPS", 5)
    words = ("evaluate", run, "--steps", 1, 2, "-n", 32, "--bootstrap", 0, "--metrics", "fd")
    code, out, _ = call(*words)
    assert code == 0
    assert len(re.findall(r"  [12] +32 ", out)) == 2, "a line for one step and one for two"
    told = call("info", run)[1]
    assert f"{run}: a flow map, 1 x 8 x 8 in 10 classes" in told
    assert "\n  sampler     jumps(gamma=0)" in told
    plugin = run.parents[1] / "mean_flow.py"
    gives = "objective mean_flow and recipe digits/mean-flow"
    assert f"\n  plugin      {plugin}, for its {gives}\n" in told


def test_a_network_of_one_s_own(folder: Path, call: Call) -> None:
    mine, out = ("--plugin", folder / "plain.py"), folder / "runs/plain"
    words = ("train", "digits/plain", *TINY, "--device", "cpu", "--network.width", 8, "--out", out)
    assert call(*words, *mine)[0] == 0
    f = fewstep.open_model(out)
    assert f.network.config["width"] == 8
    assert fewstep.sample(f, n=3, steps=2, seed=0).shape == (3, 1, 8, 8)
