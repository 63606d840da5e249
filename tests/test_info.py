"""``fewstep info``: what a model says of itself, and how two differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fewstep.cli import run
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM
from fewstep.runs.described import described, differences
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, Trained

MODELS = Path(__file__).parent / "models"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*words: object) -> tuple[int, str, str]:
        code = run(["info", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return called


def test_a_model_file(call: Call) -> None:
    code, out, _ = call(MODELS / "consistency.safetensors")
    assert code == 0
    first, *rest = out.splitlines()
    assert first.endswith(
        ": a consistency model, 1 x 4 x 4 in 3 classes, mlp of 928 parameters, edm, by digits/cd, "
        "step 600"
    )
    text = " ".join(" ".join(rest).split())
    for fact in (
        "starts any ends eps",
        "time points 2: 0.8",
        "classes zero one two",
        "edm(eps=0.002, T=20.0, sigma_data=0.5)",
        "objective cd data digits",
        "teacher runs/digits-edm, SHA-256 000000000000",
        "5,464 bytes, 928 parameters in float32",
    ):
        assert fact in text, fact
    assert f"fewstep sample {MODELS / 'consistency.safetensors'} -n 64 --steps 2 -o" in out


def test_an_unfinished_run_that_was_moved(call: Call, tmp_path: Path) -> None:
    moved = tmp_path / "else where"
    shutil.copytree(MODELS / "run", moved)
    code, out, _ = call(moved)
    assert code == 0
    text = " ".join(out.split())
    for fact in ("an autoencoder, 1 x 8 x 8", "2 of 4 steps, batch 8", "process none"):
        assert fact in text, fact
    assert f"fewstep train '{moved}'" in out
    said = json.loads(call(moved, "--json")[1])
    assert (said["kind"], said["finished"], said["trained"]["step"]) == ("autoencoder", False, 2)
    assert said["settings"]["network.latents"] == 3
    shutil.rmtree(moved / "checkpoints")
    code, out, _ = call(moved)
    assert code == 0
    assert "a run without a model yet, there is no checkpoint yet" in out
    assert json.loads(call(moved, "--json")[1])["note"] == "there is no checkpoint yet"


def test_a_checkpoint_folder(call: Call) -> None:
    folder = MODELS / "run" / "checkpoints" / "step-00000002"
    assert call(folder)[1].count("ema-38400.safetensors") == 1
    assert "f.safetensors" in call(folder, "--ema", "f")[1]


def test_two_runs_differ_in_settings_and_records(call: Call, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(MODELS / "run", other)
    assert "say the same of themselves" in call(MODELS / "run", other)[1]
    record = json.loads((other / "run.json").read_text())
    record["run"]["training"]["lr"] = 0.5
    record["run"]["network"]["arguments"]["width"] = 9
    (other / "run.json").write_text(json.dumps(record))
    differ = json.loads(call(MODELS / "run", other, "--json")[1])["differ"]
    assert differ == {"lr": [0.002, 0.5], "network.width": [8, 9]}
    lines = call(MODELS / "run", other)[1].splitlines()[1:]
    found = sorted(line.split() for line in lines)
    assert found == [["lr", "0.002", "0.5"], ["network.width", "8", "9"]]
    pairs = differences(*(described(MODELS / f"{n}.safetensors") for n in ("latent", "generator")))
    assert pairs["trained.starts"] == (None, "T")
    assert pairs["trained.ends"] == ("denoiser", "eps")


def test_time_points_that_were_found_are_the_models(call: Call, tmp_path: Path) -> None:
    from fewstep.runs.stored_taus import keep_taus

    file = tmp_path / "f.safetensors"
    shutil.copy(MODELS / "consistency.safetensors", file)
    keep_taus(tmp_path, file, {"2": [1.5]}, [2])
    assert "2: 1.5" in call(file)[1]


@pytest.mark.parametrize(
    ("trained", "commands"),
    [
        (Trained(), ["-n 64 --sampler walk", "-n 64 --sampler jumps"]),
        (replace(DIFFUSION, null_class=True, classes=("a b", "c")), ["-n 64 --guidance 2"]),
        (replace(DIFFUSION, classes=("a b", "c")), ["--label 'a b'"]),
        (replace(CONSISTENCY, classes=("a", "b")), ["-n 64 --steps 1", "--steps 4 --label a"]),
        (FLOW_MAP, ["-n 64 --steps 1", "-n 64 --steps 4"]),
    ],
)
def test_commands_can_be_pasted(trained: Trained, commands: list[str], tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    network = MLP((1, 2, 2), num_classes=len(trained.classes), width=8, blocks=1)
    FlowMap(network, EDM(), trained=trained).save(file)
    found = described(file).commands
    for command in commands:
        assert any(f"{command} -o" in line for line in found), found


def test_a_weight_that_is_an_input_is_shown(call: Call, tmp_path: Path) -> None:
    trained = replace(CONSISTENCY, weights=(1.0, 4.0), guidance=1.0)
    FlowMap(MLP((3,), width=8, blocks=1), EDM(), trained=trained).save(tmp_path / "f.safetensors")
    assert "it takes a guidance weight from 1 to 4" in call(tmp_path / "f.safetensors")[1]


def test_nothing_to_show_is_one_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no model at all, only text of some length")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    for path, words in {
        tmp_path / "none": "there is no run or model",
        tmp_path: "neither a run folder, a checkpoint nor a model file",
        tmp_path / "text.safetensors": "cannot read the model",
        tmp_path / "broken": "run.json",
    }.items():
        code, out, err = call(path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


def test_repr_is_a_short_form() -> None:
    f = FlowMap(MLP((1, 4, 4), width=8, blocks=1), EDM(), trained=CONSISTENCY)
    n = sum(p.numel() for p in f.parameters())
    assert repr(f).startswith("<FlowMap: a consistency model, 1 x 4 x 4, mlp of ")
    assert f"{n:,} parameters, edm>" in repr(f)
