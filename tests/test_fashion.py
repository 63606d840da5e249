"""`fewstep reproduce fashion`: the plan of a budget, the words of the page, a rehearsal."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.data import Dataset, load
from fewstep.errors import FewstepError
from fewstep.evaluation import train_classifier
from fewstep.evaluation.classifier import BATCH, LargerClassifier, SmallClassifier, classifier_for
from fewstep.evaluation.features import extract
from fewstep.evaluation.scores import Scores
from fewstep.files import write_json
from fewstep.planning import throughput
from fewstep.planning.shares import makespan, seconds_of
from fewstep.report import fashion_plan
from fewstep.report.fashion import Fashion, best, reproduce_fashion
from fewstep.report.fashion_plan import ROWS, SHARES, SHOWN, TRAINED, Layout, layout
from fewstep.report.scoring import Result
from fewstep.report.story import GAUSSIAN, HELD_OUT, TRAINING
from fewstep.stages.stage import Stage, Training

MADE = Layout(3600.0, "cpu", "bf16", {"edm": 80, "cd": 20, "soflow": 100}, {})
AFTER_A = {"--teacher": "a"}


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    """A folder of IDX files as Fashion-MNIST's, with the digits' pictures in them."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for split, name in (("train", "train"), ("test", "t10k")):
        data = load("digits", split=split)
        x, y = data.images[:240, 0].numpy(), data.labels[:240].byte().numpy()  # type: ignore[index]
        images = struct.pack(">HBB3I", 0, 8, 3, *x.shape) + x.tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">HBBI", 0, 8, 1, len(y)) + y.tobytes()
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    return folder


@pytest.mark.parametrize(("workers", "end"), [(1, 8.0), (2, 5.0), (3, 4.0)])
def test_stages_end_when_the_last_of_them_does(workers: int, end: float) -> None:
    """a 2, then b 1 and d 2 on it; c 3 alone. Two at a time: a c, then b in 2..3, d in 3..5."""
    stages: list[Stage] = [
        *(Training("a"), Training("c")),
        *(Training("b", AFTER_A), Training("d", AFTER_A)),
    ]
    lengths = {"a": 2.0, "b": 1.0, "c": 3.0, "d": 2.0}
    assert makespan(stages, lengths, workers) == end
    given = seconds_of(stages, lengths, 100.0, workers)
    assert makespan(stages, given, workers) == pytest.approx(100)
    assert given["c"] / given["b"] == pytest.approx(3)


def test_a_stage_that_waits_for_nothing_that_comes_is_named() -> None:
    with pytest.raises(FewstepError, match="wait for a, which"):
        makespan([Training("b", AFTER_A)], {"b": 1.0}, 2)


def timed(seconds: dict[str, float], half: float) -> Callable[..., float]:
    """Steps that take so long, and ``half`` of that in bf16."""

    def of(run: Any, data: Dataset, **how: Any) -> float:
        factor = half if run.training.precision == "bf16" else 1.0
        return factor * seconds[run.objective.name]

    return of


@pytest.mark.parametrize(("half", "precision"), [(0.5, "bf16"), (0.95, "fp32")])
@pytest.mark.parametrize(("workers", "together"), [(1, 2.0), (2, 1.0), (3, 1.0)])
def test_a_budget_is_parted_among_the_trainings(
    half: float,
    precision: str,
    workers: int,
    together: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {"score_matching": 1.0, "cd": 2.0, "soflow": 0.5}
    for module in (fashion_plan, throughput):
        monkeypatch.setattr(module, "seconds_per_step", timed(seconds, half))
    data = load("digits")
    made = layout(tmp_path / "run", data, 3600.0, workers=workers, device="cpu")
    assert made.precision == precision
    spent = {name: made.steps[name] * made.seconds[name] for name in SHARES}
    beside = fashion_plan.BESIDE if workers > 1 else 1.0
    assert spent["soflow"] * together * beside == pytest.approx(TRAINED * 3600, rel=0.01)
    assert spent["edm"] / spent["soflow"] == pytest.approx(SHARES["edm"], rel=0.01)
    for module in (fashion_plan, throughput):
        monkeypatch.setattr(module, "seconds_per_step", None)
    for again in (None, 3600.0):  # as it was begun, and nothing is timed once more
        assert layout(tmp_path / "run", data, again, workers=workers, device="cpu") == made
    with pytest.raises(FewstepError, match=r"begun with a budget of 1h, not 2h: .*--out"):
        layout(tmp_path / "run", data, 7200.0, workers=workers, device="cpu")


def test_a_folder_goes_on_where_its_steps_were_timed(tmp_path: Path) -> None:
    write_json(tmp_path / fashion_plan.PLAN, asdict(replace(MADE, device="cuda:0")))
    with pytest.raises(FewstepError, match=r"was begun on cuda:0, .*not on cpu: .*--out"):
        layout(tmp_path, load("digits"), None, workers=1, device="cpu")
    assert layout(tmp_path, load("digits"), None, workers=1, device=None).device == "cuda:0"


def test_a_plan_that_was_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"budget": "long"}')
    with pytest.raises(FewstepError, match=r"plan\.json"):
        layout(tmp_path, load("digits"), None, workers=1, device="cpu")


def test_every_training_has_its_images_its_steps_and_few_looks() -> None:
    plan = MADE.plan("there")
    for stage in plan.stages:
        words = stage.command(Path("out"))
        assert words[words.index("--data") + 1] == "there"
        assert words[words.index("--steps") + 1] == str(MADE.steps[stage.name])
        assert words[words.index("--precision") + 1] == "bf16"
        assert int(words[words.index("--sample-every") + 1]) == MADE.steps[stage.name] // 4
    assert plan.stage("cd").requires == ("edm",)
    assert {row.stage for row in ROWS} == {stage.name for stage in plan.stages}
    assert set(SHOWN) <= {row.key for row in ROWS}


def test_less_time_asks_for_less() -> None:
    short = replace(MADE, budget=600.0)
    assert (MADE.of(2000, 500), short.of(2000, 500), short.of(9000, 500)) == (2000, 500, 1500)


def story() -> Fashion:
    return Fashion(MADE, "there", load("digits"), load("digits", split="test"))


def results(fd: dict[str, float], accuracy: float) -> list[Result]:
    """Rows of so large distances, 3.0 where none is given."""

    def of(method: str, key: str | None, distance: float, right: float) -> Result:
        scores = Scores(
            n=100, fd=distance, precision=0.8, recall=0.7, class_accuracy=right, inception_score=7.0
        )
        return Result("group", method, 3 if key else None, scores, 0.1 if key else None, key)

    real = [
        of(HELD_OUT, None, 0.1, 0.92),
        of(TRAINING, None, 0.2, 0.97),
        of(GAUSSIAN, None, 8, 0.9),
    ]
    return [*real, *(of(row.method, row.key, fd.get(row.key, 3.0), accuracy) for row in ROWS)]


@pytest.mark.parametrize(
    ("many", "two", "one", "accuracy", "reached"),
    [
        (1.9, 2.0, 5.0, 0.9, 5),
        (1.9, 2.9, 5.0, 0.9, 4),
        (1.9, 2.0, 8.5, 0.9, 4),
        (1.9, 2.0, 5.0, 0.86, 4),
        (7.9, 3.0, 5.0, 0.9, 4),
        (8.1, 3.0, 5.0, 0.9, 3),  # a teacher of noise has nothing that one could be near to
    ],
)
def test_the_page_says_which_targets_were_reached(
    many: float, two: float, one: float, accuracy: float, reached: int
) -> None:
    fd = {"edm-heun-straight-9": many, "cd-heun-1": 9.0, "cd-heun-2": 3.1}
    fd |= {"soflow-heun-1": one, "soflow-heun-2": two}
    found = results(fd, accuracy)
    assert best(found, 2)[0] == "SoFlow"
    lines = story().targets(found, 8.0)
    assert len(lines) == 5
    assert sum(line.endswith(", reached.") for line in lines) == reached


def test_the_words_of_the_page_are_of_its_numbers() -> None:
    found = results({"edm-heun-straight-9": 1.9, "soflow-heun-2": 2.0}, 0.9)
    told = story()
    assert "1.90" in told.lead(found, 8.0)
    assert "SoFlow has 2.00" in told.lead(found, 8.0)
    assert "92.0 % of the real test images" in told.how(found, 8.0)
    assert any("edm 80" in line and "1h" in line for line in told.remarks(found, 8.0))


def test_without_the_images_it_says_where_to_get_them(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSTEP_DATA", raising=False)
    monkeypatch.setattr("fewstep.data.fashion_mnist.INSTALLED", tmp_path / "nowhere")
    code, _, err = call("reproduce", "fashion", "--out", tmp_path / "run")
    assert code == 2
    assert re.search(r"^fewstep: Fashion-MNIST is not in .*dataset-fashion-mnist.*--data", err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fashion", "--full"], "fashion has no --full"),
        (["fashion", "--shorten", "0.5"], "fashion has no --shorten"),
        (["digits", "--budget", "10m"], "digits has no --budget"),
        (["toy2d", "--data", "x"], "toy2d has no --data"),
        (["fashion", "--budget", "90"], "write 90m for minutes"),
    ],
)
def test_options_of_other_reproductions_are_refused(
    words: list[str], said: str, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = call("reproduce", *words)
    assert code == 2
    assert said in err


def test_images_of_more_than_16_pixels_get_the_larger_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert classifier_for((1, 16, 16)) is SmallClassifier
    assert classifier_for((3, 16, 17)) is LargerClassifier
    assert [LargerClassifier.steps(n) for n in (100, 60_000, 10**6)] == [500, 5625, 6000]
    seen = torch.cat(list(LargerClassifier.batches(100, 5)))
    assert len(seen) == 5 * BATCH
    assert seen[:300].bincount().tolist() == [3] * 100  # every image once before one comes again
    monkeypatch.setattr("fewstep.evaluation.classifier.STEPS", 2)
    images = torch.randint(256, (70, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(70) % 3
    network = train_classifier(images, labels, cache=tmp_path)
    assert isinstance(network, LargerClassifier)
    assert extract(network, images).features.shape == (70, 64)
    assert train_classifier(images, labels, cache=tmp_path).fingerprint == network.fingerprint


@pytest.mark.slow
def test_a_rehearsal_writes_the_page_and_does_nothing_twice(
    idx: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "run"
    words = ("reproduce", "fashion", "--data", idx, "--budget", "5s", "--out", out)
    code, printed, _ = call(*words)
    assert code == 0
    assert str(out / "report.html") in printed.replace("\n", "")
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Nearest training images" in html
    assert "What it should reach" in html
    for name in ("comparison", "quality", "curves", "neighbours", "copies", "interpolation"):
        assert (out / f"{name}.png").is_file()
    models = {path: path.stat().st_mtime_ns for path in out.glob("*/model.safetensors")}
    assert len(models) == 3
    scores = (out / "scores.json").read_bytes()
    assert reproduce_fashion(out, str(idx)).results
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert (out / "scores.json").read_bytes() == scores


@pytest.mark.slow
def test_the_classifier_recognises_fashion_mnist(fashion_mnist: Path, tmp_path: Path) -> None:
    train, test = load(fashion_mnist), load(fashion_mnist, split="test")
    assert train.labels is not None
    network = train_classifier(train.images, train.labels, cache=tmp_path)
    logits = extract(network, test.images).logits
    assert logits is not None
    assert float((logits.argmax(1) == test.labels).double().mean()) >= 0.92
