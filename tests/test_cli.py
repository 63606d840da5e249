"""The command line as a user meets it: help, files, reproducible samples, one-line errors."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, zeros

import fewstep
from fewstep.cli import run
from fewstep.cli.listing import What
from fewstep.cli.recipe import _flags
from fewstep.distances import DISTANCES
from fewstep.evaluation import classifier
from fewstep.objectives import OBJECTIVES
from fewstep.recipes import RECIPES
from fewstep.runs.components import arguments_of
from fewstep.runs.opening import open_model
from fewstep.runs.run import COMPANIONS
from fewstep.training.metrics import read_metrics
from fewstep.training.trainer import Trainer

COMMANDS = (
    "train",
    "sample",
    "push",
    "pairs",
    "evaluate",
    "likelihood",
    "reproduce",
    "verify",
    "edit",
    "denoise",
    "interpolate",
    "serve",
    "tune-steps",
    "list",
    "completion",
)
TINY = ["--steps", "4", "--samples", "4", "--checkpoint-every", "2", "--quiet", "--device", "cpu"]
TINY += ["--network.width", "16", "--network.blocks", "1", "--network.hidden", "16"]
TINY += ["--warmup", "0"]

Answer = tuple[int, str, str]
Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a diffusion model, a consistency model and an unconditional one."""
    folder = tmp_path_factory.mktemp("runs")
    assert run(["train", "digits/edm", *TINY, "--out", str(folder / "edm")]) == 0
    teacher = ["--teacher", str(folder / "edm")]
    assert run(["train", "digits/cd", *TINY, *teacher, "--out", str(folder / "cd")]) == 0
    assert run(["train", "digits/ct", *TINY, "--no-labels", "--out", str(folder / "free")]) == 0
    return folder


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    """A copy of the diffusion run, to be damaged."""
    return Path(shutil.copytree(runs / "edm", tmp_path / "edm"))


def arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file["arr_0"], file["arr_1"]


# Help


@pytest.mark.parametrize(
    "words",
    [
        *[(), *((command,) for command in COMMANDS), ("edit", "inpaint"), ("edit", "vary")],
        *(("train", name) for name in RECIPES),
    ],
)
def test_help_shows_examples(words: tuple[str, ...], call: Call) -> None:
    code, out, err = call(*words, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: fewstep {' '.join(words)}".rstrip() in out
    assert "Examples:\n  fewstep " in out
    assert out.count("Examples:") == 1


def test_the_help_of_the_program_names_every_command(call: Call) -> None:
    out = call("--help")[1]
    assert all(f"│ {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_help_of_a_recipe_explains_every_setting(recipe: str, call: Call) -> None:
    out = call("train", recipe, "--help")[1]
    wanted = RECIPES[recipe]()
    keys = ["out", "device", "quiet", "dry_run", "write_config", *wanted.flat()]
    keys = [key for key in keys if key != "network.num_classes"]  # the data set's, not the user's
    for kind in ("objective", "network", "p"):
        keys += [f"{kind}.{name}" for name in arguments_of(kind, getattr(wanted, kind).name)]
    for key in COMPANIONS:
        if not any(flag.name == key for flag in _flags(RECIPES[recipe], wanted)):
            keys.remove(key)
    if OBJECTIVES[wanted.objective.name].makes.decodes:  # an autoencoder has no process
        keys = [key for key in keys if not key.startswith("p.")]
    for key in keys:
        line = next(x for x in out.splitlines() if f"│ --{key.replace('_', '-')} " in x)
        assert len(line.strip("│ ").split()) >= 3, f"no explanation: {line}"


def test_whoever_asks_for_nothing_gets_the_help(call: Call) -> None:
    code, out, _ = call()
    assert code == 0
    assert "Usage: fewstep COMMAND" in out


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"{fewstep.__version__}\n", "")


def test_list_names_every_recipe_in_a_line(call: Call) -> None:
    code, out, _ = call("list", "recipes")
    assert code == 0
    shown = [line.split(" ", 1)[0] for line in out.splitlines()[1:] if line]
    assert shown == list(RECIPES)


def test_list_shows_all_lists_and_the_papers(call: Call) -> None:
    text = " ".join(call("list")[1].split())
    assert all(what in text for what in get_args(What))
    for name in OBJECTIVES:
        words = OBJECTIVES[name].paper.split()  # a table may break a line between any two words
        assert all(word in text for word in words), name


# train


def test_a_training_leaves_its_files(runs: Path) -> None:
    home = runs / "edm"
    record = json.loads((home / "run.json").read_text())
    assert record["recipe"] == "digits/edm"
    assert record["run"]["training"]["steps"] == 4
    assert read_metrics(home)[-1]["step"] == 4
    assert (home / "model.safetensors").is_file()
    assert Image.open(home / "samples/step-00000004.png").size[0] > 8
    assert list(home.glob("events.out.tfevents.*"))
    assert {p.name for p in (home / "checkpoints").iterdir()} == {"step-00000002", "step-00000004"}


def test_the_end_of_a_training_says_what_comes_next(tmp_path: Path, call: Call) -> None:
    words = [word for word in TINY if word != "--quiet"]
    code, out, err = call("train", "digits/edm", *words, "--out", tmp_path / "a")
    assert (code, err) == (0, "")
    model, command = out.splitlines()
    assert model == f"trained: {tmp_path}/a/model.safetensors"
    assert command == f"next: fewstep sample {tmp_path}/a -o samples.png"
    assert call("sample", tmp_path / "a", "-n", 4, "-o", tmp_path / "samples.png")[0] == 0


def test_a_finished_training_is_not_repeated(
    runs: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Trainer, k: int) -> tuple[Tensor, Tensor]:
        raise AssertionError("a finished run was trained on")

    monkeypatch.setattr(Trainer, "step", refuse)
    before = (runs / "edm/model.safetensors").read_bytes()
    code, out, err = call("train", runs / "edm")
    assert (code, err) == (0, "")
    assert out.startswith(f"already trained: {runs}/edm/model.safetensors\n")
    assert (runs / "edm/model.safetensors").read_bytes() == before


def test_an_interrupted_training_goes_on_by_its_path(
    runs: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_asked_to_stop", lambda self, stop, done: done == 3)
        code, out, err = call("train", "digits/edm", *TINY, "--out", tmp_path / "a")
    assert (code, out) == (130, "")
    assert "interrupted at step 3 of 4" in err
    assert f"fewstep train {tmp_path}/a" in err
    code, out, err = call("train", tmp_path / "a")
    assert code == 0
    assert err == f"{tmp_path}/a: resuming at step 3 of 4\n"
    whole = (runs / "edm/model.safetensors").read_bytes()
    assert (tmp_path / "a/model.safetensors").read_bytes() == whole


def test_other_settings_do_not_go_into_the_same_folder(runs: Path, call: Call) -> None:
    code, _, err = call("train", "digits/edm", *TINY, "--lr", "0.5", "--out", runs / "edm")
    assert code == 2
    assert "lr was 0.003, now 0.5" in err
    assert "--out" in err
    code, _, err = call("train", "digits/ct", *TINY, "--out", runs / "edm")
    assert code == 2
    assert "digits/edm" in err


def test_whole_numbers_may_be_written_with_an_exponent(tmp_path: Path, call: Call) -> None:
    words = ["--batch", "1.6e1", "--out", tmp_path / "a"]
    assert call("train", "digits/ct", *TINY, *words)[0] == 0
    record = json.loads((tmp_path / "a/run.json").read_text())
    assert record["run"]["training"]["batch"] == 16


# sample


def test_a_grid(runs: Path, tmp_path: Path, call: Call) -> None:
    code, out, err = call("sample", runs / "cd", "-n", 5, "-o", tmp_path / "x.png")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/x.png: 5 images, 1 network evaluation each")
    tile = 64 + 1  # 8x8 enlarged eightfold, and its border
    assert Image.open(tmp_path / "x.png").size == (3 * tile + 1, 2 * tile + 1)


def test_a_grid_in_half_precision(runs: Path, tmp_path: Path, call: Call) -> None:
    """Near that of float32, and not the same."""
    f = open_model(runs / "cd")
    for weight in f.weights:
        torch.nn.init.normal_(weight, std=0.1)
    f.save(tmp_path / "awake.safetensors")
    for precision in ("fp32", "bf16"):
        words = ["--precision", precision, "-o", tmp_path / f"{precision}.npz"]
        assert call("sample", tmp_path / "awake.safetensors", "-n", 20, *words)[0] == 0
    exact, rounded = (
        np.load(tmp_path / f"{name}.npz")["arr_0"].astype(float) for name in ("fp32", "bf16")
    )
    assert 0 < np.abs(exact - rounded).mean() < 3
    code, _, err = call("sample", runs / "cd", "--precision", "fp8")
    assert code == 2
    assert "fp8" in err


def test_a_folder_of_pictures(runs: Path, tmp_path: Path, call: Call) -> None:
    assert call("sample", runs / "cd", "-n", 12, "-o", tmp_path / "new/folder")[0] == 0
    files = sorted((tmp_path / "new/folder").rglob("*.png"), key=lambda p: p.name)
    assert [p.name for p in files] == [f"{i:05d}.png" for i in range(12)]
    assert [p.parent.name for p in files] == [str(i % 10) for i in range(12)]
    assert Image.open(files[0]).size == (8, 8)


def test_a_flat_folder_of_pictures(runs: Path, tmp_path: Path, call: Call) -> None:
    assert call("sample", runs / "free", "-n", 3, "-o", tmp_path / "x")[0] == 0
    names = sorted(p.name for p in (tmp_path / "x").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]


def test_an_archive(runs: Path, tmp_path: Path, call: Call) -> None:
    assert call("sample", runs / "cd", "-n", 7, "-o", tmp_path / "x.npz")[0] == 0
    images, labels = arrays(tmp_path / "x.npz")
    assert images.shape == (7, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == list(range(7))


@pytest.mark.parametrize("suffix", ["png", "npz"])
def test_a_seed_gives_the_same_file_whatever_the_batch(
    suffix: str, runs: Path, tmp_path: Path, call: Call
) -> None:
    def made(name: str, *words: object) -> bytes:
        path = tmp_path / f"{name}.{suffix}"
        assert call("sample", runs / "cd", "-n", 10, *words, "-o", path)[0] == 0
        return path.read_bytes() if suffix == "png" else arrays(path)[0].tobytes()

    whole = made("whole")
    assert made("parts", "--batch", 3) == whole
    assert made("single", "--batch", 1) == whole
    assert made("other", "--seed", 1) != whole


def test_a_label_by_number_and_by_name(runs: Path, copy: Path, tmp_path: Path, call: Call) -> None:
    model = fewstep.FlowMap.load(copy / "model.safetensors")
    names = ("zero", "one", "two", "three", "four", "five", *"6789")
    model.trained = replace(model.trained, classes=names)
    model.save(tmp_path / "named.safetensors")
    made = []
    for label in ("5", "five"):
        path = tmp_path / f"{label}.npz"
        words = ["-n", 3, "--steps", 2, "--label", label, "-o", path]
        assert call("sample", tmp_path / "named.safetensors", *words)[0] == 0
        images, labels = arrays(path)
        assert labels.tolist() == [5, 5, 5]
        made.append(images)
    assert np.array_equal(*made)
    code, _, err = call("sample", tmp_path / "named.safetensors", "--label", "fice")
    assert code == 2
    assert "Did you mean 'five'?" in err


@pytest.mark.parametrize(
    ("model", "words", "evaluations"),
    [
        ("cd", "", 1),
        ("cd", "--steps 2", 2),
        ("cd", "--taus 0.8", 2),
        ("cd", "--steps 3 --taus 5 0.8", 3),
        ("edm", "", 35),
        ("edm", "--steps 5", 9),
        ("edm", "--steps 5 --solver euler", 5),
        ("edm", "--steps 1", 1),
        ("edm", "--solver dpm3 --nfe 12", 12),
        ("edm", "--solver pc --nfe 6 --grid log_snr", 6),
        ("edm", "--solver ddim(eta=1) --nfe 3", 3),
        ("cd", "--nfe 2", 2),
        ("edm", "--checkpoint 2 --ema f --steps 2", 3),
    ],
)
def test_the_number_of_network_evaluations(
    model: str, words: str, evaluations: int, runs: Path, tmp_path: Path, call: Call
) -> None:
    code, out, _ = call("sample", runs / model, "-n", 2, *words.split(), "-o", tmp_path / "x.png")
    assert code == 0
    assert f"2 images, {evaluations} network evaluation{'s' * (evaluations > 1)} each" in out


def test_likelihood_prints_bits_with_their_error(runs: Path, call: Call) -> None:
    words = ["--solver", "rk4", "--steps", 5, "--probes", 1]
    code, out, _ = call("likelihood", runs / "edm", "-n", 6, *words)
    assert code == 0
    found = re.match(r"(\S+) ± (\S+) bits/dim: 6 images, 1 random dir\S+, 20 network eval", out)
    assert found
    assert float(found[2]) > 0
    assert call("likelihood", runs / "edm", "-n", 6, *words, "--batch", 4)[1] == out
    assert " ± " not in call("likelihood", runs / "edm", "-n", 1, *words)[1]


def test_the_stored_time_points_are_the_default(runs: Path, tmp_path: Path, call: Call) -> None:
    for name, words in (("a", ["--steps", 2]), ("b", ["--taus", 0.8])):
        path = tmp_path / f"{name}.npz"
        assert call("sample", runs / "cd", "-n", 4, *words, "-o", path)[0] == 0
    assert np.array_equal(arrays(tmp_path / "a.npz")[0], arrays(tmp_path / "b.npz")[0])


def test_two_processes_make_the_samples_of_one(runs: Path, tmp_path: Path, call: Call) -> None:
    words = ["sample", runs / "cd", "-n", 9, "--device", "cpu", "-o"]
    assert call(*words, tmp_path / "one.npz")[0] == 0
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "fewstep", *map(str, words), str(tmp_path / "two.npz")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("9 images") == 1
    one, two = arrays(tmp_path / "one.npz"), arrays(tmp_path / "two.npz")
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


# evaluate


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that is trained in no time."""
    monkeypatch.setattr(classifier, "STEPS", 5)


@pytest.mark.usefixtures("quick")
def test_a_run_an_archive_and_a_folder_in_one_table(runs: Path, tmp_path: Path, call: Call) -> None:
    archive, folder, table = (tmp_path / name for name in ("x.npz", "x", "scores.csv"))
    for path in (archive, folder):
        assert call("sample", runs / "cd", "-n", 60, "-o", path)[0] == 0
    code, out, err = call(
        *("evaluate", runs / "cd", archive, folder, "--steps", 1, 2, "-n", 60),
        *("--bootstrap", 0, "-o", table),
    )
    assert (code, err) == (0, "")
    assert "real test split" in out
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows[2:]] == [
        str(path) for path in (runs / "cd", runs / "cd", archive, folder)
    ]
    assert [row["nfe"] for row in rows[2:]] == ["1", "2", "", ""]
    assert {row["n"] for row in rows[2:]} == {"60"}
    assert all(np.isfinite(float(row["fd"])) for row in rows)
    # The folder holds the very images of the archive, sorted by class.
    one, other = (float(row["fd"]) for row in rows[4:])
    assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.usefixtures("quick")
def test_a_diffusion_model_is_evaluated_with_the_solver_that_was_asked_for(
    runs: Path, tmp_path: Path, call: Call
) -> None:
    words = ["-n", 30, "--steps", 3, "--solver", "euler"]
    path = tmp_path / "x.csv"
    words += ["--bootstrap", 0, "--no-baselines"]
    assert call("evaluate", runs / "edm", *words, "-o", path)[0] == 0
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("target", "nfe", "n")] == [str(runs / "edm"), "3", "30"]


# Mistakes. One line on stderr, no traceback, exit code 2.


def refused(answer: Answer, *expected: str) -> None:
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    assert err.startswith("fewstep: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for words in expected:
        assert words in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", ["trian", "Did you mean 'train'"]),
        ("edit denoise", ["denoise is a command of its own: fewstep denoise"]),
        ("train digits/ictt", ["digits/ictt", "Did you mean 'digits/ict'"]),
        ("train digits", ["recipe or run folder 'digits'"]),
        ("train", ["RECIPE-OR-RUN"]),
        ("train RUNS/edn", ["/edn'", "/edm'?"]),
        ("train digits/ct --stpes 3", ["--stpes", "Did you mean --steps"]),
        ("train digits/ct --objective.s2 3", ["--objective.s2", "--objective.s1"]),
        ("train digits/ct --lr fast", ["--lr", "fast"]),
        ("train digits/ct --steps 1.5", ["--steps", "'1.5' is not a whole number"]),
        ("train digits/ct --steps many", ["--steps", "'many' is not a whole number"]),
        ("train digits/ct --betas 0.9", ["--betas", "2"]),
        ("train digits/ct --labels False", ["'False'", "--no-name"]),
        ("train digits/ct --optimizer adan", ["--optimizer", "adan", '"adam"']),
        ("train digits/ct --objective.distance l3", ["distance 'l3'", "Did you mean 'l2'"]),
        ("train digits/ct --objective.weighting edn", ["weighting 'edn'", "'edm'"]),
        ("train digits/ct --objective.times unform", ["'unform'", "'uniform'"]),
        ("train digits/ct --data digit", ["no such data: digit", "Did you mean 'digits'"]),
        ("train digits/ct --device tpu", ["device 'tpu'", "cuda"]),
        ("train digits/ct --out TEXT/x", ["TEXT/x"]),
        ("train TEXT", ["TEXT", "not a run folder"]),
        ("train RUNS", ["RUNS", "not a run folder", "run.json"]),
        ("train digits/cd", ["--teacher"]),
        ("train digits/cd --teacher RUNS/nothing", ["RUNS/nothing"]),
        ("train digits/cd --teacher TEXT", ["TEXT", "cannot read the model"]),
        ("train digits/cd --teacher RUNS", ["RUNS", "neither"]),
        ("train digits/cd --teacher RUNS/cd", ["RUNS/cd", "diffusion"]),
        ("train digits/cd --teacher RUNS/edm", ["RUNS/edm", "do not fit", "same settings"]),
        ("train digits/ect --teacher RUNS/free --no-labels", ["RUNS/free", "diffusion"]),
        ("train digits/ct --teacher RUNS/edm", ["--teacher"]),
        ("train images --method ct", ["--data"]),
        ("train images --method cdd", ["method", "Did you mean 'cd'"]),
        ("train images --method=ect --objective.N 4", ["objective.N"]),
        ("sample", ["MODEL"]),
        ("sample RUNS/edn", ["RUNS/edn", "Did you mean 'RUNS/edm'"]),
        ("sample RUNS", ["RUNS", "neither a run folder"]),
        ("sample TEXT", ["TEXT", "cannot read the model"]),
        ("sample RUNS/edm surplus", ["'surplus'"]),
        ("sample RUNS/edm --solver huen", ["solver 'huen'", "Did you mean 'heun'"]),
        ("sample RUNS/edm --solver heun --nfe 12", ["heun", "12", "11 or 13"]),
        ("sample RUNS/edm --solver rk45 --nfe 12", ["rk45", "rtol"]),
        ("sample RUNS/edm --solver rk45 --steps 12", ["rk45", "rtol"]),
        ("sample RUNS/edm --nfe 11 --steps 6", ["not both"]),
        ("sample RUNS/edm --nfe 0", ["at least 1 network evaluation", "0"]),
        ("sample RUNS/edm --grid karas", ["time grid 'karas'", "Did you mean 'karras'"]),
        ("sample RUNS/cd --solver dpm3", ["consistency model", "--steps"]),
        ("sample RUNS/cd --grid time", ["consistency model", "--steps"]),
        ("sample RUNS/cd --clip", ["--taus", "consistency model"]),
        ("sample RUNS/cd --sampler jump", ["sampler 'jump'", "Did you mean 'jumps'"]),
        ("sample RUNS/cd --sampler jumps(gamma=0.5,steps=2)", ["gamma=0.5", "take gamma=1"]),
        ("sample RUNS/cd --sampler jumps(steps=2) --steps 2", ["steps is given twice"]),
        ("sample RUNS/cd --sampler jumps --solver heun", ["no argument solver", "gamma"]),
        ("sample RUNS/cd --sampler walk", ["consistency model"]),
        ("sample RUNS/cd --sampler jumps(", ["cannot read 'jumps('"]),
        ("sample RUNS/edm --sampler jumps(steps=2)", ["diffusion model"]),
        ("sample RUNS/edm --sampler heun", ["walk(solver=heun)"]),
        ("sample RUNS/edm --solver jumps(steps=2)", ["jumps is a sampler", "--sampler jumps("]),
        ("sample RUNS/cd --sampler multistep", ["jumps(times=(0.8,))"]),
        ("sample RUNS/edm --sampler walk(solver=churn(S_chrun=1))", ["S_churn"]),
        ("sample RUNS/edm --sampler walk(solver=rk45,steps=3)", ["rk45", "rtol"]),
        ("sample RUNS/edm --sampler walk(steps=3,nfe=5)", ["not both"]),
        ("sample RUNS/edm --sampler prior", ["autoencoder"]),
        ("evaluate RUNS/cd --sampler jump", ["sampler 'jump'"]),
        ("sample RUNS/edm --label 12", ["class '12'", "0, 1, 2"]),
        ("sample RUNS/free --label 1", ["unconditional", "takes no label"]),
        ("sample RUNS/cd --steps 3 --taus 0.5 0.8", ["decrease", "0.5, 0.8"]),
        ("sample RUNS/cd --taus 50", ["T=20", "50"]),
        ("sample RUNS/cd --taus 0.001", ["eps=0.002", "0.001"]),
        ("sample RUNS/cd --taus nan", ["nan"]),
        ("sample RUNS/cd --taus soon", ["--taus", "soon"]),
        ("sample RUNS/cd --steps 3 --taus 0.8", ["3 steps", "2 time points"]),
        ("sample RUNS/edm --taus 0.8", ["diffusion"]),
        ("sample RUNS/cd --steps 0", ["at least 1 step", "0"]),
        ("sample RUNS/edm --steps -2", ["at least 1 step", "-2"]),
        ("likelihood RUNS/cd", ["diffusion", "consistency"]),
        ("likelihood RUNS/edn", ["Did you mean 'RUNS/edm'"]),
        ("likelihood RUNS/edm --split half", ["half"]),
        ("likelihood RUNS/edm --data nowhere", ["nowhere"]),
        ("likelihood RUNS/edm --image-column x", ["digits has no columns"]),
        ("tune-steps RUNS/cd --reference digits --label-column x", ["digits has no columns"]),
        ("export RUNS/cd --to edm -o x.pt --no-labels", ["for --to onnx"]),
        ("likelihood RUNS/edm -n 0", ["-n", "360"]),
        ("likelihood RUNS/edm -n 361", ["-n", "360"]),
        ("likelihood RUNS/edm --probes -1", ["probes"]),
        ("likelihood RUNS/edm --solver pc", ["rk45", "pc"]),
        ("likelihood RUNS/edm --solver rk4 --steps 0", ["N >= 1"]),
        ("likelihood RUNS/edm --batch 0", ["batch"]),
        ("sample RUNS/edm -n 0", ["at least 1", "0"]),
        ("sample RUNS/edm -n -3", ["at least 1", "-3"]),
        ("sample RUNS/edm -n -3 --label 3", ["at least 1", "-3"]),
        ("sample RUNS/edm -n 2.5", ["-n", "'2.5' is not a whole number"]),
        ("sample RUNS/edm --batch 0", ["batch", "0"]),
        ("sample RUNS/edm --seed -1", ["seed", "-1"]),
        ("sample RUNS/edm --checkpoint 77", ["'77'", "last, best, 2, 4"]),
        ("sample RUNS/edm --ema 0.5", ["'0.5'", "ema-38400, f"]),
        ("sample RUNS/edm -o x.jpg", ["x.jpg", ".png", ".npz"]),
        ("sample RUNS/edm -o TEXT/x.png", ["TEXT/x.png", "TEXT is not a folder"]),
        ("sample RUNS/edm -o TEXT", ["TEXT", ".txt"]),
        ("sample RUNS/edm -o RUNS", ["RUNS is not empty"]),
        ("evaluate", ["nothing to evaluate"]),
        ("evaluate RUNS/edm RUNS/edn", ["RUNS/edn", "Did you mean 'RUNS/edm'"]),
        ("evaluate RUNS/cd -n 0", ["-n 0"]),
        ("evaluate RUNS/cd -n -4", ["-n -4"]),
        ("evaluate RUNS/cd --steps 1 x", ["--steps", '"x"']),
        ("evaluate RUNS/cd -o scores.txt", ["scores.txt", ".csv"]),
        ("evaluate RUNS/cd --reference digit", ["digit", "'digits'"]),
        ("evaluate RUNS/cd --features nets.safetensors", ["nets.safetensors"]),
        ("evaluate TEXT", ["TEXT", "--reference"]),
        ("evaluate RUNS/free --features classifier", ["labels", "--features"]),
        ("evaluate RUNS/cd --features incepton", ["'incepton'", "'inception'"]),
        ("evaluate RUNS/cd --features classifier --metrics fdd", ["'fdd'", "'fd'"]),
        ("evaluate RUNS/cd --bootstrap 1", ["--bootstrap", "1"]),
        ("reproduce cifar", ["cifar", '"digits"']),
        ("reproduce", ["WHAT"]),
        ("reproduce digits --shorten 0", ["shorten", "0"]),
        ("list recipez", ["recipez", '"recipes"']),
    ],
)
def test_a_mistake_is_answered_by_one_line(
    words: str,
    expected: list[str],
    runs: Path,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no model\n")

    def filled(word: str) -> str:
        return word.replace("RUNS", str(runs)).replace("TEXT", str(text))

    refused(call(*filled(words).split()), *map(filled, expected))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"], "a mistake left something behind"


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"format": 99, "fewstep": "9.9.9"}', ["9.9.9", "format 99", "reads format 1"]),
        ("", ["run.json", "not the record of a run"]),
        ("{", ["run.json", "not the record of a run"]),
        ("[]", ["run.json", "not the record of a run"]),
        ("\x00\ufffd", ["run.json", "not the record of a run"]),
    ],
)
def test_an_unreadable_run_is_named(
    command: str, record: str, expected: list[str], copy: Path, call: Call
) -> None:
    (copy / "run.json").write_text(record)
    refused(call(command, copy), str(copy), *expected)


@pytest.mark.parametrize("record", ['{"format": 1}', '{"format": 1, "run": {"training": {}}}'])
def test_a_record_with_parts_missing_is_named(record: str, copy: Path, call: Call) -> None:
    (copy / "run.json").write_text(record)
    refused(call("train", copy), str(copy), "not the record of a run", "has no 'recipe'")


def test_a_setting_of_another_version_is_named(copy: Path, call: Call) -> None:
    record = json.loads((copy / "run.json").read_text())
    record["run"]["training"]["momentum"] = 0.9
    (copy / "run.json").write_text(json.dumps(record))
    refused(call("train", copy), str(copy), "momentum")


def test_a_damaged_model_file_is_named(copy: Path, call: Call) -> None:
    model = copy / "model.safetensors"
    content = model.read_bytes()
    for damaged in (b"", content[:300], content[:-10], b"\xff" * 500):
        model.write_bytes(damaged)
        reason = "cannot read the model" if damaged else "is empty"
        refused(call("sample", model), str(model), reason)


@pytest.mark.parametrize("header", [None, "{", "[]", '{"format": 1}', '{"format": 7}'])
def test_a_file_that_describes_no_model_is_named(
    header: str | None, tmp_path: Path, call: Call
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": zeros(1)}, path, metadata=None if header is None else {"fewstep": header})
    refused(call("sample", path), str(path))


def test_a_run_whose_only_checkpoints_are_damaged_is_named(copy: Path, call: Call) -> None:
    for path in copy.glob("checkpoints/*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-10])
    code, _, err = call("sample", copy)
    assert code == 2
    assert "no checkpoint" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_wrong_distance_names_every_right_one(call: Call, tmp_path: Path) -> None:
    words = ["--objective.distance", "nearness", "--out", tmp_path / "a"]
    refused(call("train", "digits/ct", *words), *DISTANCES)


def test_an_interrupt_is_no_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewstep.cli.call", stop)
    assert call("list") == (130, "", "fewstep: interrupted.\n")
