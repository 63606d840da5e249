"""Run folders: they move, go on, are told apart, and end with the same files after any accident."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.recipes import RECIPES
from fewstep.runs.directory import RunDirectory
from fewstep.runs.opening import model_file, open_model
from fewstep.runs.real import Real
from fewstep.runs.run import Data
from fewstep.runs.sources import Source, here
from fewstep.training.checkpoint import Checkpoints
from fewstep.training.metrics import read_metrics
from fewstep.training.trainer import Trainer

TINY = ["--samples", 4, "--checkpoint-every", 2, "--quiet", "--device", "cpu", "--batch", 16]
TINY += ["--network.width", 16, "--network.blocks", 1, "--network.hidden", 16, "--warmup", 0]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: a diffusion model of digits, and a consistency model distilled from it."""
    from fewstep.cli import run

    folder = tmp_path_factory.mktemp("made") / "project"
    words = [*TINY, "--steps", 6, "--keep", 3]
    for name, more in (("edm", []), ("cd", ["--teacher", folder / "edm"])):
        line = ["train", f"digits/{name}", *words, *more, "--out", folder / name]
        assert run([str(word) for word in line]) == 0
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be moved and damaged."""
    return Path(shutil.copytree(made, tmp_path / "project"))


def unfinish(run: Path, *steps: int) -> None:
    """Leave a run as if it had been killed after its second step."""
    (run / "model.safetensors").unlink()
    for step in steps or (4, 6):
        shutil.rmtree(run / f"checkpoints/step-{step:08d}")


def refused(answer: tuple[int, str, str], *words: object) -> None:
    code, _, err = answer
    assert code == 2, err
    assert err.startswith("fewstep: ")
    assert err.count("\n") == 1
    assert all(str(word) in err for word in words), err


# Where things are


def test_a_project_that_was_moved_goes_on_from_anywhere(
    project: Path, made: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinish(project / "cd")
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(made.parent / "hidden", ignore_errors=True)
    hidden = made.rename(made.parent / "hidden")  # neither where it was
    try:
        code, _, err = call("train", "elsewhere/cd", "--quiet")
    finally:
        hidden.rename(made)
    assert (code, "is now" in err) == (0, True)
    same = [path / "cd/model.safetensors" for path in (made, moved)]
    assert same[0].read_bytes() == same[1].read_bytes(), "the place is no part of the model"


def test_what_lies_beside_a_run_comes_before_what_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "b")
    home, before = tmp_path / "a/runs/x", str(tmp_path / "old/photos")
    source = Source(fingerprint="1", path=before, relative="../../photos")
    beside = str(tmp_path / "a/photos")
    assert source.places(home, "photos") == [beside, before, "photos"]
    run = RECIPES["images"](data="photos")
    with pytest.warns(FewstepWarning, match=f"taken from {beside}; there is also photos"):
        assert here(run, home, {"data": source}).data.data == beside


def test_a_teacher_that_was_moved_is_named(project: Path, tmp_path: Path, call: Call) -> None:
    unfinish(project / "cd")
    (project / "cd").rename(tmp_path / "cd")
    record = json.loads((tmp_path / "cd/run.json").read_text())
    record["sources"]["teacher"]["path"] = str(tmp_path / "gone")
    record["run"]["teacher"] = "gone"
    (tmp_path / "cd/run.json").write_text(json.dumps(record))
    refused(call("train", tmp_path / "cd"), "teacher gone", "is gone", "--teacher PATH")
    other = ["--teacher", project / "edm/checkpoints/step-00000002"]
    refused(call("train", tmp_path / "cd", *other), "is not the one", "step 2", "step 6")
    code, _, err = call("train", tmp_path / "cd", "--teacher", project / "edm", "--quiet")
    assert code == 0, err
    assert FlowMap.load(tmp_path / "cd/model.safetensors").trained.step == 6
    unfinish(tmp_path / "cd")
    assert call("train", tmp_path / "cd", "--quiet")[0] == 0, "where it is now was kept"


def pictures(folder: Path, n: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / ("cat" if i % 2 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return folder


UNET = ["--samples", 4, "--checkpoint-every", 2, "--quiet", "--device", "cpu", "--batch", 4]
UNET += ["--network.channels", 8, "--network.blocks", 1, "--network.attention", 4]


def train_pictures(call: Call, photos: Path, out: Path, *more: object) -> tuple[int, str, str]:
    words = [*UNET, "--data", photos, "--size", 8, "--out", out]
    return call("train", "images", "--method", "edm", *words, *more)


def test_images_that_changed_are_noticed(tmp_path: Path, call: Call) -> None:
    photos, run = pictures(tmp_path / "photos"), tmp_path / "run"
    assert train_pictures(call, photos, run, "--steps", 4)[0] == 0
    for change in ("added", "removed", "changed", "renamed"):
        shutil.rmtree(photos)
        pictures(photos)
        if change == "added":
            shutil.copy(photos / "cat/01.png", photos / "cat/99.png")
        elif change == "removed":
            (photos / "cat/03.png").unlink()
        elif change == "changed":
            Image.new("L", (8, 8), 7).save(photos / "cat/03.png")
        else:
            (photos / "cat").rename(photos / "zebra")
        refused(call("train", run, "--steps", 6), str(photos), "12 images", "--init", "--out")
    shutil.rmtree(photos)
    refused(call("train", run, "--steps", 6), "data", str(photos), "--data PATH")
    moved = pictures(tmp_path / "moved")
    code, _, err = call("train", run, "--steps", 6, "--data", moved, "--quiet")
    assert (code, "step 4" in err) == (0, True)
    assert open_model(run).info["data"] == "photos", "its first name"
    assert RunDirectory(run).here().data.data == str(moved)


def test_a_run_without_checkpoints_is_a_model_and_is_never_trained_again(
    project: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in (project / "edm", project / "cd"):
        for path in run.iterdir():
            if path.name not in ("run.json", "model.safetensors"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert call("sample", project / "cd", "-n", 2, "-o", tmp_path / "x.png")[0] == 0
    refused(
        call("sample", project / "cd", "--checkpoint", "best", "-o", tmp_path / "y.png"), "last"
    )
    teacher = ["--teacher", project / "edm", "--steps", 2, "--out", tmp_path / "again"]
    assert call("train", "digits/cd", *TINY, *teacher)[0] == 0
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("trained again"))
    code, out, _ = call("train", project / "cd")
    assert (code, out.splitlines()[0]) == (0, f"already trained: {project}/cd/model.safetensors")
    refused(call("train", project / "cd", "--steps", 9), "no checkpoint to go on from", "--init")
    (project / "cd/model.safetensors").write_bytes(b"")
    refused(call("train", project / "cd"), "damaged", "no checkpoint is left")


def test_a_reference_is_read_in_the_size_of_the_run(project: Path, tmp_path: Path) -> None:
    file = project / "edm/run.json"
    record = json.loads(file.read_text())
    record["run"]["data"]["size"] = 8
    file.write_text(json.dumps(record))
    (photos := tmp_path / "photos").mkdir()
    for i, side in enumerate((16, 24)):
        Image.new("L", (side, side)).save(photos / f"{i}.png")
    with pytest.warns(FewstepWarning, match="resized to 8x8, as those of"):
        real = Real.of(project / "edm", Data(data=str(photos)))
    assert real.data is not None
    assert real.data.shape == (1, 8, 8)


# Going on with other settings


def test_more_steps_go_on_from_the_last_checkpoint(project: Path, call: Call) -> None:
    run = project / "edm"
    code, out, err = call("train", run, "--steps", 10, "--lr", 1e-4)
    assert (code, out.splitlines()[0]) == (0, f"trained: {run}/model.safetensors")
    assert "resuming at step 6 of 10" in err
    note = next(line for line in err.splitlines() if line.startswith("note: from step 6 on"))
    assert "steps 6 -> 10" in note
    assert "-> 0.0001;" in note
    assert open_model(run).trained.step == 10
    record = RunDirectory(run).record()
    assert [(c.setting, c.step, c.after) for c in record.changes] == [
        ("steps", 6, 10),
        ("lr", 6, 1e-4),
    ]
    same = ["train", "digits/edm", *TINY, "--keep", 3, "--out", run]
    assert call(*same)[0] == 0, "what was not asked for stays"
    refused(call(*same, "--steps", 6), "has made 10 steps already", "--steps 6")
    refused(call("train", run, "--batch", 3), "does not take --batch", "--steps and --lr")
    refused(call("train", "--resume", run), "a recipe or a run before --resume", "train RUN")
    refused(call(*same, "--seed", 3, "--flip"), "seed was 0, now 3", "flip was False, now True")


def test_a_killed_run_that_goes_on_further_ends_with_the_same_bits(
    project: Path, tmp_path: Path, call: Call
) -> None:
    whole = Path(shutil.copytree(project / "edm", tmp_path / "whole"))
    assert call("train", whole, "--steps", 10, "--quiet")[0] == 0
    cut = project / "edm"
    assert call("train", cut, "--steps", 10, "--quiet")[0] == 0
    unfinish(cut, 8, 10)
    assert call("train", cut, "--quiet")[0] == 0
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_run_begins_with_the_weights_of_another(
    project: Path, tmp_path: Path, call: Call
) -> None:
    out = tmp_path / "new"
    words = [*TINY, "--steps", 2, "--lr", 1e-30, "--init", project / "edm", "--out", out]
    assert call("train", "digits/ct", *words)[0] == 0
    old, new = open_model(project / "edm"), open_model(out)
    for a, b in zip(old.F.parameters(), new.F.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    source = RunDirectory(out).record().sources["init"]
    assert len(source.fingerprint) == 64
    assert source.path == str(project / "edm")
    shutil.rmtree(project / "edm")
    unfinish(out, 2)
    shutil.copytree(project / "cd/checkpoints/step-00000002", out / "checkpoints/step-00000002")
    assert RunDirectory(out).here().init == str(project / "edm")


def test_weights_that_do_not_fit_are_named(project: Path, tmp_path: Path, call: Call) -> None:
    wide = [word if word != 16 else 8 for word in TINY]
    words = ["--steps", 2, "--init", project / "edm", "--out", tmp_path / "new"]
    refused(call("train", "digits/ct", *wide, *words), str(project / "edm"), "do not fit")
    assert not (tmp_path / "new").exists()


# Accidents


def test_a_run_that_was_killed_before_its_model_ends_with_the_same_files(
    project: Path, made: Path, call: Call
) -> None:
    run = project / "cd"
    whole = (made / "cd/model.safetensors").read_bytes()
    for damaged in (None, b"", whole[:1000]):
        (run / "model.safetensors").unlink()
        if damaged is not None:
            (run / "model.safetensors").write_bytes(damaged)
        shutil.copytree(run / "checkpoints/step-00000002", run / "checkpoints/step-00000003")
        manifest = json.loads((run / "checkpoints/step-00000003/checkpoint.json").read_text())
        text = json.dumps(manifest | {"step": 3})
        (run / "checkpoints/step-00000003/checkpoint.json").write_text(text)
        code, out, _ = call("train", run)
        assert (code, out.splitlines()[0]) == (0, f"trained: {run}/model.safetensors")
        assert (run / "model.safetensors").read_bytes() == whole
        kept = [c.step for c in Checkpoints(run / "checkpoints").all()]
        assert kept == [3, 4, 6], "what it had no time to drop"
        shutil.rmtree(run / "checkpoints/step-00000003")
        shutil.copytree(made / "cd/checkpoints/step-00000002", run / "checkpoints/step-00000002")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_every_chosen_checkpoint_is_checked(project: Path) -> None:
    run = project / "edm"
    folder = run / "checkpoints/step-00000004"
    name = Checkpoints(run / "checkpoints").all()[-1].manifest.default
    flip_a_bit(folder / f"{name}.safetensors")
    with pytest.raises(FewstepError, match=r"step-00000004 is damaged .*checksum"):
        model_file(run, checkpoint="4")
    with pytest.raises(FewstepError, match=r"step-00000004 is damaged .*checksum"):
        model_file(folder)
    manifest = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(manifest | {"score": -1e9}))
    with pytest.raises(FewstepError, match="is damaged"):
        model_file(run, checkpoint="best")


@pytest.mark.parametrize("name", ["step-00000005", "step-00000009"])
def test_a_checkpoint_under_another_name_is_not_taken_for_its_step(
    name: str, project: Path, made: Path, call: Call
) -> None:
    run = project / "edm"
    unfinish(run, 4)
    (run / "checkpoints/step-00000006").rename(run / f"checkpoints/{name}")
    code, _, err = call("train", run, "--quiet")
    assert code == 0, err
    assert "holds step 6" in err
    same = [path / "edm/model.safetensors" for path in (project, made)]
    assert same[0].read_bytes() == same[1].read_bytes()


SHAPES = ["[]", "null", "5", '"x"', "{}", '{"format": 1}', "[" * 50_000, "9" * 5000, "\0\0"]


@pytest.mark.parametrize("text", SHAPES)
def test_a_manifest_of_any_shape_is_a_damaged_checkpoint(
    text: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = project / "edm/checkpoints/step-00000006"
    good = json.loads((newest / "checkpoint.json").read_text())
    parts = [good | {"sha256": value} for value in ([], None, {}, {"x": 5}, {"../run.json": "0"})]
    for damaged in (text, *map(json.dumps, parts)):
        (newest / "checkpoint.json").write_text(damaged)
        assert model_file(project / "edm")[1].parent.name == "step-00000004"
        assert "step-00000006 is damaged" in capsys.readouterr().err
    Checkpoints(project / "edm/checkpoints").best()
    assert "may be the best" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"objective": {"name": "edm", "arguments": []}},
        {"objective": 5},
        {"data": {}, "training": {"optimizer": "sgd"}},
        {"training": {"steps": 10**30}},
        {"training": {"betas": [0.9]}},
        {"teacher": 7},
        {"taus": {"2": "x"}},
        {"surprise": 1},
    ],
)
def test_a_record_of_another_shape_is_one_line(
    change: dict[str, Any], project: Path, call: Call
) -> None:
    record = json.loads((project / "edm/run.json").read_text())
    record["run"] |= change
    (project / "edm/run.json").write_text(json.dumps(record))
    for command in ("train", "sample"):
        refused(call(command, project / "edm"), "run.json", "not the record of a run")


@pytest.mark.parametrize("text", SHAPES)
def test_a_record_that_is_none_is_one_line(text: str, project: Path, call: Call) -> None:
    (project / "edm/run.json").write_text(text)
    refused(call("train", project / "edm"), "run.json", "not the record of a run")


@pytest.mark.parametrize("garbage", [b"garbage", b"\0" * 40, b"\xff\xfe", b'{"loss": 1}', b"[1]"])
def test_a_damaged_line_of_the_log_is_left_out_and_said(garbage: bytes, project: Path) -> None:
    log = project / "edm/metrics.jsonl"
    lines = read_metrics(project / "edm")
    log.write_bytes(garbage + b"\n" + log.read_bytes())
    with pytest.warns(FewstepWarning, match=r"metrics\.jsonl has 1 damaged line, left out"):
        assert read_metrics(project / "edm") == lines


def test_a_log_that_cannot_be_written_is_one_line(
    project: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    unfinish(project / "edm")
    for place in ("__init__", "numbers", "close"):
        with monkeypatch.context() as patch:
            patch.setattr(f"fewstep.training.events.Events.{place}", full)
            code, _, err = call("train", project / "edm", "--quiet")
        assert code == 2
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("fewstep: cannot write the log of the run folder")
        assert "No space left" in err.splitlines()[-1]


def test_a_training_that_fails_at_once_leaves_nothing_that_blocks_the_right_one(
    tmp_path: Path, call: Call
) -> None:
    words = ["train", "digits/ct", *TINY, "--steps", 4, "--out", tmp_path / "a/run"]
    refused(call(*words, "--lr", 1e30), "not finite at step")
    assert not (tmp_path / "a/run").exists()
    run = tmp_path / "a/run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    refused(call(*words, "--lr", 1e30), "not finite at step")
    assert (run / "run.json").is_file()
    assert call(*words)[0] == 0
    assert (run / "notes.txt").read_text() == "mine"


def test_a_folder_of_another_kind_is_left_alone(project: Path, tmp_path: Path, call: Call) -> None:
    for words in (
        ["verify", "-o", project / "edm"],
        ["reproduce", "digits", "--out", project / "edm"],
    ):
        refused(call(*words), str(project / "edm"), "holds a run")
    assert call("pairs", project / "edm", "-n", 2, "--steps", 2, "-o", tmp_path / "p")[0] == 0
    refused(call("train", "digits/ct", *TINY, "--out", tmp_path / "p"), "holds pairs")


def test_weights_of_an_unknown_run_are_neither_used_nor_overwritten(
    project: Path, call: Call
) -> None:
    run, words = project / "edm", ["train", "digits/edm", *TINY, "--steps", 6]
    (run / "run.json").unlink()
    refused(call(*words, "--out", run), str(run), "no run.json", "another --out")
    refused(call("sample", run, "-o", project / "x.png"), f"It holds {run}/model.safetensors")
    (run / "model.safetensors").unlink()
    refused(call(*words, "--out", run), "no run.json")
    refused(call("sample", run, "-o", project / "x.png"), f"It holds {run}/checkpoints/step-00000")


@pytest.mark.parametrize("out", [".", "run", "cat/run"])
def test_a_run_is_not_among_its_own_images(out: str, tmp_path: Path, call: Call) -> None:
    photos = pictures(tmp_path / "photos")
    refused(train_pictures(call, photos, photos / out, "--steps", 2), "its own data", "--out")
    assert sorted(path.name for path in photos.iterdir()) == ["cat", "dog"]


def test_of_one_model_nothing_can_be_chosen(project: Path) -> None:
    file = project / "edm/model.safetensors"
    with pytest.warns(FewstepWarning, match=r"checkpoint 'best' and ema 'f' is for run folders"):
        open_model(file, checkpoint="best", ema="f")


def test_a_device_that_is_not_there_is_named(project: Path) -> None:
    for device in ("gpu", "cuda:99", "mps"):
        with pytest.raises(FewstepError, match=f"device '?{device}"):
            open_model(project / "edm", device=device)


def test_files_of_a_run_have_the_rights_of_the_umask(project: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in project.rglob("*.safetensors"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path
