"""`fewstep evaluate`: formats, stored statistics, one's own features, several processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import fewstep
from fewstep import EDM, MLP, FlowMap
from fewstep.cli import run

OWN = "test_evaluate:means"


def means(images: Tensor) -> Tensor:
    """A user's own features: the mean of every row."""
    return images.float().mean(3).flatten(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small diffusion model, not trained, with an output that depends on its input."""
    torch.manual_seed(0)
    F = MLP((1, 8, 8), num_classes=10, width=16, blocks=1)
    torch.nn.init.normal_(F.write.weight, std=0.3)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    FlowMap(F, EDM(T=20.0, sigma_data=0.752), info={"kind": "diffusion"}).save(path)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(path, arr_0=images)
    return path


def evaluate(*words: object) -> None:
    assert run(["evaluate", *map(str, words)]) == 0


def test_tables_are_written_in_every_format(model: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"x{suffix}" for suffix in (".csv", ".json", ".md")]
    words = ["--reference", "digits", "--features", OWN, "--bootstrap", 4, "--steps", 3]
    evaluate(model, *words, "--solver", "euler", "-n", 40, "--seed", 5, "-o", *paths)
    with paths[0].open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    told = json.loads(paths[1].read_text())
    line = told["scores"][-1]
    for found in (row, line):
        assert (found["target"], str(found["nfe"])) == (str(model), "3")
        assert (str(found["n"]), str(found["seed"])) == ("40", "5")
    assert float(row["fd"]) == line["fd"]
    low, high = line["intervals"]["fd"]
    assert low < line["fd"] < high
    assert told["setting"]["features"] == row["features"] == OWN
    assert len(told["setting"]["weights"]) == 64
    assert told["setting"]["n"] == 1437
    assert told["setting"]["versions"]["fewstep"] == fewstep.__version__
    markdown = paths[2].read_text().splitlines()
    assert markdown[0].startswith("| target | NFE | n | FD ↓ |")
    assert len({line.count("|") for line in markdown[:5]}) == 1
    assert f"{line['fd']:.3f} ±" in markdown[4]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saved_statistics_stand_in_for_the_reference(
    archive: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stats, path = tmp_path / f"stats{suffix}", tmp_path / "x.json"
    words = ["--features", OWN, "--bootstrap", 0, "-o", path]
    evaluate(archive, "--reference", "digits", "--save-reference", stats, *words)
    whole = json.loads(path.read_text())["scores"][-1]
    assert "real test split" in capsys.readouterr().out
    evaluate(archive, "--reference", stats, *words)
    assert "real test split" not in capsys.readouterr().out
    (found,) = json.loads(path.read_text())["scores"]
    assert found["fd"] == pytest.approx(whole["fd"])
    assert found["precision"] is None
    assert whole["precision"] is not None


def test_what_was_not_asked_for_is_not_shown(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(archive, "--reference", "digits", "--features", OWN, "--metrics", "fd", "pr")
    out = capsys.readouterr().out
    assert "FD" in out
    assert "recall" in out
    assert "KID" not in out
    assert "cover." not in out
    assert f"features {OWN}" in out
    assert "60 images against 1437" in out


def test_two_processes_score_as_one(model: Path, tmp_path: Path) -> None:
    words = [model, "--reference", "digits", "--features", OWN, "--steps", 2, "-n", 51]
    words += ["--device", "cpu", "--bootstrap", 5]
    evaluate(*words, "-o", tmp_path / "one.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "29611", "-m", "fewstep", "evaluate", *map(str, words)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [*command, "-o", str(tmp_path / "two.json")],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert [line["target"] for line in one["scores"]] == [line["target"] for line in two["scores"]]
    for a, b in zip(one["scores"], two["scores"], strict=True):
        for name in ("n", "fd", "kid", "precision", "recall", "density", "coverage", "fd_error"):
            assert a[name] == pytest.approx(b[name], rel=1e-5), name


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["--features", "incepton"], ["incepton", "inception"]),
        (["--features", "inception"], ["FEWSTEP_INCEPTION_WEIGHTS"]),
        (["--features", "resnet56"], ["--weights", "FEWSTEP_RESNET56_WEIGHTS"]),
        (["--features", "classifier", "--weights", "x.pth"], ["classifier", "no weights"]),
        (["--features", OWN, "--resize", "clean"], ["no resize"]),
        (["--features", "test_evaluate:meens"], ["meens", "means"]),
        (["--features", OWN, "--metrics", "fid"], ["fid", "fd"]),
        (["--features", OWN, "--bootstrap", "1"], ["--bootstrap"]),
        (["--features", OWN, "-o", "x.txt"], ["x.txt", ".csv, .json, .md"]),
        (["--features", OWN, "--save-reference", "x.pkl"], ["x.pkl", ".npz"]),
    ],
)
def test_a_mistake_is_answered_by_one_line(
    archive: Path, words: list[str], hints: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(archive), "--reference", "digits", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(hint in err for hint in hints), err


def test_images_that_cannot_be_compared_are_refused(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = archive.read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((9, 16, 16, 1), np.uint8))
    np.savez(tmp_path / "nan.npz", arr_0=np.full((9, 8, 8, 1), np.nan, np.float32))
    np.savez(tmp_path / "far.npz", arr_0=np.full((9, 8, 8, 1), 300.0, np.float32))
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for size in (8, 9):
        Image.fromarray(np.zeros((size, size), np.uint8)).save(mixed / f"{size}.png")
    for name, hint in [
        ("mixed", "--size"),
        ("cut.npz", "cut.npz"),
        ("large.npz", "(1, 8, 8)"),
        ("nan.npz", "NaN"),
        ("far.npz", "300"),
    ]:
        words = ["evaluate", tmp_path / name, "--reference", "digits", "--features", OWN]
        assert run([*map(str, words), "--no-baselines"]) == 2, name
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert hint in err
