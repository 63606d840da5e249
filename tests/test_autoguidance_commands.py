"""Autoguidance on the command line: sampling, tables, and students of a guided teacher."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.cli.sampling import opening
from fewstep.cli.targets import Samplers
from fewstep.errors import FewstepWarning
from fewstep.exchange.graphs.engines import Torch
from fewstep.guidance import Autoguided
from fewstep.models import as_map
from fewstep.runs.opening import open_model
from fewstep.sampling import sample

matched = pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
Call = Callable[..., tuple[int, str, str]]

TINY = ["--samples", 4, "--checkpoint-every", 2, "--quiet", "--device", "cpu", "--batch", 16]
TINY += ["--network.width", 16, "--network.blocks", 1, "--network.hidden", 16, "--warmup", 0]
TINY += ["--steps", 4, "--keep", 3]
EARLY = "edm/checkpoints/step-00000002"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: a diffusion model of digits, and a flow map of its autoguided flow."""
    from fewstep.cli import run

    folder = tmp_path_factory.mktemp("made") / "project"
    guided = ["--teacher", folder / "edm", "--weak", folder / EARLY]
    guided += ["--objective.guidance-range", 1, 3, "--network.guidance-embedding"]
    for name, more in (("edm", []), ("ayf", guided)):
        line = ["train", f"digits/{name}", *TINY, *more, "--out", folder / name]
        with warnings.catch_warnings():  # of the teacher's process, which is another
            warnings.simplefilter("ignore", FewstepWarning)
            assert run([str(word) for word in line]) == 0
    return folder


def test_a_run_is_sampled_away_from_its_early_checkpoint(
    made: Path, tmp_path: Path, call: Call
) -> None:
    out, weak = tmp_path / "a.png", made / EARLY
    how = ["--steps", 3, "-n", 4, "-o", out]
    code, said, err = call("sample", made / "edm", "--weak", weak, "--guidance", 2, *how)
    assert (code, "10 network evaluations each" in said) == (0, True), err
    spec = json.loads(Image.open(out).text["fewstep"])["sampler"]
    guide = Autoguided(2.0, weak=open_model(weak))
    expected = sample(open_model(made / "edm"), 4, steps=3, guidance=guide)
    again = tmp_path / "b.png"
    how = ["-n", 4, "-o", again]
    assert call("sample", made / "edm", "--sampler", spec, *how)[0] == 0, "by its own record"
    assert again.read_bytes() == out.read_bytes()
    assert not torch.equal(expected, sample(open_model(made / "edm"), 4, steps=3))
    code, _, err = call("pairs", made / "edm", "--weak", weak, "--guidance", 2, "--steps", 2,
                        "-n", 4, "-o", tmp_path / "pairs")  # fmt: skip
    assert code == 0, err
    kd = ["train", "digits/kd", "--data", tmp_path / "pairs", "--teacher", made / "edm", *TINY]
    assert call(*kd, "--out", tmp_path / "kd")[0] == 0
    told = call("cite", tmp_path / "kd")[1]
    assert "karras2024guiding" in told
    assert "ho2022classifier" not in told


def test_a_table_has_a_line_for_each_weight(made: Path) -> None:
    f, by = as_map(open_model(made / "edm"), "a test"), Torch()
    guides = tuple(Autoguided(w, weak=str(made / EARLY)) for w in (1.0, 2.0))
    samplers = Samplers((2,), (), guidance=guides).of(f, by, opening(by, f.device))
    assert [sampler.nfe for _, sampler in samplers] == [3, 6]
    for w, (said, _) in zip((1, 2), samplers, strict=True):
        assert said == f"autoguided(w={w}.0, weak='{made / EARLY}')"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weak", "gone", "--guidance", 2], "gone"),
        (["--weak", "edm"], "--weak says what --guidance leads away from: give both"),
        (["--weak", "ayf", "--guidance", 2], "the weak model has the process rectified_flow"),
        (["--weak", "edm", "--guidance", 2, "--engine", "onnx"], "leave out --engine"),
        (["--weak", "edm", "--guidance", -2], "a guidance weight is a number from 0 on"),
    ],
)
def test_mistakes_of_sampling_are_answered_by_one_line(
    words, said: str, made: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    code, _, err = call("sample", "edm", *words, "-o", tmp_path / "a.png")
    assert (code, said in err, err.count("\n")) == (2, True, 1), err


def test_a_student_of_an_autoguided_teacher_keeps_all_of_its_record(
    made: Path, tmp_path: Path, call: Call
) -> None:
    record = json.loads((made / "ayf/run.json").read_text())
    weak = open_model(made / EARLY)
    assert record["sources"]["weak"]["fingerprint"] == weak.fingerprint
    f = open_model(made / "ayf")
    assert f.info["weak"]["sha256"] == weak.fingerprint
    assert f.trained.weights == (1.0, 3.0)
    images = [sample(f, 4, steps=2, guidance=w) for w in (1.0, 3.0)]
    assert not torch.equal(*images)
    for what in (made / "ayf", made / "ayf/model.safetensors"):
        told = call("cite", what)[1]
        for key in ("sabour2025align", "karras2024guiding", "meng2023distillation"):
            assert key in told
        assert "ho2022classifier" not in told
    shown = call("info", made / "ayf/model.safetensors")[1]
    assert weak.fingerprint[:12] in shown


@matched
def test_a_killed_student_goes_on_wherever_its_models_are(
    made: Path, tmp_path: Path, call: Call
) -> None:
    whole = (made / "ayf/model.safetensors").read_bytes()
    moved = Path(shutil.copytree(made, tmp_path / "elsewhere"))
    hidden = made.rename(made.parent / "hidden")
    try:
        for weak, said in ((None, ""), (moved / "edm", "the weak"), (tmp_path / "no", "is gone")):
            (moved / "ayf/model.safetensors").unlink()
            shutil.rmtree(moved / "ayf/checkpoints/step-00000004", ignore_errors=True)
            more = [] if weak is None else ["--weak", weak]
            code, _, err = call("train", moved / "ayf", *more, "--quiet")
            assert (code, said in err) == (2 if said else 0, True), err
            if not said:
                assert (moved / "ayf/model.safetensors").read_bytes() == whole
            else:
                (moved / "ayf/model.safetensors").write_bytes(whole)
    finally:
        hidden.rename(made)


@matched
@pytest.mark.parametrize(
    ("recipe", "words", "said"),
    [
        ("digits/ayf", ["--weak", EARLY], "give the weight too"),
        ("digits/cd", ["--weak", "no", "--objective.guidance", 2], "no"),
        (
            "digits/cd",
            ["--weak", "ayf", "--objective.guidance", 2],
            "the weak model has the process",
        ),
        ("digits/pd", ["--weak", EARLY], "--weak"),
    ],
)
def test_mistakes_of_training_are_answered_by_one_line(
    recipe: str,
    words,
    said: str,
    made: Path,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(made)
    line = ["train", recipe, "--teacher", "edm", *words, *TINY, "--out", tmp_path / "run"]
    code, _, err = call(*line)
    assert (code, said in err) == (2, True), err
    assert err.splitlines()[-1].startswith("fewstep: ")
