"""`fewstep evaluate` and what people give it: classes, colours, sizes, floats, narrow terminals."""

from __future__ import annotations

import csv
import json
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

import fewstep
from fewstep import EDM, MLP, FlowMap
from fewstep.cli import run, targets
from fewstep.cli.verify import show as show_theory
from fewstep.data.build import Request
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation import Evaluator, FeatureNetwork, Features, Scores
from fewstep.evaluation.evaluator import GAUSSIAN
from fewstep.evaluation.images import load_images
from fewstep.evaluation.table import Line, Setting, as_json, folded, show
from fewstep.fit_name import FITS
from fewstep.planning.prepared import prepare
from fewstep.recipes import RECIPES
from fewstep.report.theory import TheoryReport
from fewstep.runs.directory import RunDirectory
from fewstep.runs.opening import is_model
from fewstep.runs.real import Real
from fewstep.runs.record import Record
from fewstep.runs.run import Data
from fewstep.sampling import shared
from fewstep.terminal import column, console
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP

OWN = "test_evaluate_targets:means"
DIGITS = fewstep.load("digits", split="test")


def means(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row means as features, and class scores that always say the first of ten classes."""
    return images.float().mean(3).flatten(1), torch.eye(10)[0].expand(len(images), -1)


def scored(tmp_path: Path, *words: object, code: int = 0) -> dict[str, dict[str, Any]]:
    """The lines of a table by target."""
    out = tmp_path / "scores.json"
    rest = ["--features", OWN, "--bootstrap", "0", "-o", str(out)]
    assert run(["evaluate", *map(str, words), *rest]) == code
    lines = json.loads(out.read_text())["scores"]
    return {Path(line["target"]).name: line for line in lines}


def write(path: Path, images: Tensor, mode: str = "L") -> Path:
    path.mkdir()
    for i, x in enumerate(images):
        Image.fromarray(x[0].numpy()).convert(mode).save(path / f"{i:04}.png")
    return path


def test_classes_agree_by_name_in_every_kind_of_file(tmp_path: Path) -> None:
    """Each class is a twelfth of the images, and the class scores always say the first."""
    labels, letters = torch.arange(360) % 12, tuple("abcdefghijkl")
    for name in ("all.npz", "folder"):
        fewstep.save_images(DIGITS.images, tmp_path / name, labels=labels)
    some = labels >= 5
    fewstep.save_images(DIGITS.images[some], tmp_path / "some", labels=labels[some])
    fewstep.save_images(DIGITS.images, tmp_path / "letters", labels=labels, classes=letters)
    fewstep.save_images(DIGITS.images, tmp_path / "cats", labels=labels % 2, classes=("cat", "dog"))
    names = [tmp_path / name for name in ("all.npz", "folder", "some", "letters", "cats")]
    evaluator = Evaluator.of(Twelve(), DIGITS.images, labels, [str(i) for i in range(12)])

    def of(path: Path) -> Scores:
        data = fewstep.load(path)
        return evaluator.score(data.images, data.labels, data.classes)

    archive, folder, half, lettered, cats = map(of, names)
    share = 1 / 12
    assert archive.class_accuracy == folder.class_accuracy == pytest.approx(share)
    assert half.class_accuracy == 0
    assert lettered.class_accuracy == pytest.approx(share)
    assert any("0 for a" in note for note in lettered.notes)
    assert cats.class_accuracy is None
    assert any("cat, dog are none" in note for note in cats.notes)
    assert not any("change class" in note for note in (*archive.notes, *folder.notes))


class Twelve(FeatureNetwork):
    """Says the first of twelve classes of every image."""

    name, shape, num_features, num_classes = "twelve", None, 8, 12

    def forward(self, images: Tensor) -> Features:
        return Features(means(images)[0], torch.eye(12)[0].expand(len(images), -1))


def test_a_model_makes_the_classes_of_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own numbers are others; of classes that it does not know it says so."""
    asked: list[Tensor] = []
    real = shared.sample

    def spy(f: FlowMap, n: int, sampler: object, **rest: Any) -> Tensor:
        asked.append(rest["labels"])
        return real(f, n, sampler, **rest)

    monkeypatch.setattr("fewstep.sampling.shared.sample", spy)
    info = {"kind": "diffusion", "classes": ["3", "2", "1", "0"]}
    F = MLP((1, 8, 8), num_classes=4, width=4, blocks=1)
    FlowMap(F, EDM(), info=info).save(tmp_path / "m.safetensors")
    pick = DIGITS.labels < 3
    assert DIGITS.labels is not None
    for name, keep in (("known.npz", pick), ("more.npz", DIGITS.labels < 5)):
        fewstep.save_images(DIGITS.images[keep], tmp_path / name, labels=DIGITS.labels[keep])
    words = ("--no-baselines", "--steps", 1, "--metrics", "fd")
    (line,) = scored(
        tmp_path, tmp_path / "m.safetensors", "--reference", tmp_path / "known.npz", *words
    ).values()
    assert torch.equal(asked[0], 3 - DIGITS.labels[pick])
    assert not any("equally often" in note for note in line["notes"])
    (line,) = scored(
        tmp_path, tmp_path / "m.safetensors", "--reference", tmp_path / "more.npz", *words
    ).values()
    assert any("does not make the reference's classes 4:" in note for note in line["notes"])


def test_a_baseline_is_never_the_reference_itself(tmp_path: Path) -> None:
    fewstep.save_images(DIGITS.images, tmp_path / "test.npz", labels=DIGITS.labels)
    fewstep.save_images(DIGITS.images[:200], tmp_path / "mine.npz", labels=DIGITS.labels[:200])
    lines = scored(tmp_path, tmp_path / "mine.npz", "--reference", tmp_path / "test.npz")
    assert "real test split" not in lines
    halves = lines["reference, half against half"]
    assert halves["fd"] > 0.01
    assert halves["n"] == 180
    assert "180 random images of the reference against the other 180" in " ".join(halves["notes"])
    assert any("scored against itself" in note for note in lines["mine.npz"]["notes"])
    lines = scored(tmp_path, tmp_path / "mine.npz", "--reference", "digits")
    assert lines["real test split"]["fd"] > 0.01
    assert not any("scored against" in n for line in lines.values() for n in line["notes"])


def test_columns_of_the_reference_and_of_its_test_split_are_named(tmp_path: Path) -> None:
    """Without names neither array would be taken for the images or for their classes."""
    for split, rows in (("train", slice(0, 200)), ("test", slice(200, 300))):
        np.savez(
            tmp_path / f"{split}.npz",
            other=np.zeros((len(DIGITS.images[rows]), 3)),
            digits=DIGITS.images[rows].numpy(),
            kind=np.array(["odd" if i % 2 else "even" for i in DIGITS.labels[rows].tolist()]),
        )
    fewstep.save_images(DIGITS.images[300:], tmp_path / "target.npz")
    words = [tmp_path / "target.npz", "--reference", tmp_path / "train.npz"]
    columns = ["--image-column", "digits", "--label-column", "kind"]
    found = scored(tmp_path, *words, *columns)
    assert (found["target.npz"]["n"], found["real test split"]["n"]) == (60, 100)
    scored(tmp_path, *words, code=2)
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(8), sigma=np.eye(8))
    scored(tmp_path, words[0], "--reference", tmp_path / "statistics.npz", *columns, code=2)


def test_columns_labels_and_broken_files_of_a_target(tmp_path: Path) -> None:
    """What its messages advise is taken; columns are the reference's where that has any."""
    images, labels = DIGITS.images.numpy(), np.array(["odd", "even"])[DIGITS.labels.numpy() % 2]
    np.savez(tmp_path / "table.npz", other=images, digits=images, kind=labels)
    (tmp_path / "real").mkdir()
    np.savez(tmp_path / "real" / "train.npz", images=images, labels=labels)
    folder = write(tmp_path / "samples", DIGITS.images[:40])
    (folder / "broken.png").write_bytes(b"no picture")
    both = [tmp_path / "table.npz", folder]
    columns = ["--image-column", "digits", "--label-column", "kind"]
    against = ["--reference", "digits", "--no-baselines"]
    found = scored(tmp_path, *both, *against, *columns, "--skip-bad")
    assert (found["table.npz"]["n"], found["samples"]["n"]) == (360, 40)
    assert found["samples"]["notes"][0].startswith("1 files cannot be read")
    scored(tmp_path, *both, *against, *columns, "--no-labels", code=2)
    against[1] = tmp_path / "table.npz"
    for target in (tmp_path / "real" / "train.npz", folder):
        found = scored(tmp_path, target, *against, *columns, "--skip-bad")
        assert found[target.name]["fd"] is not None
    np.savez(tmp_path / "bad.npz", images=images, labels=np.full((360, 2), 0.5))
    scored(tmp_path, tmp_path / "bad.npz", "--reference", "digits", "--no-baselines", code=2)
    scored(tmp_path, tmp_path / "bad.npz", "--reference", "digits", "--no-baselines", "--no-labels")


def test_a_test_split_has_the_shape_of_the_reference_or_is_left_out(
    tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    x = torch.randint(256, (30, 1, 16, 12), dtype=torch.uint8)
    write(tmp_path / "mine", x)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train", x)
    write(tmp_path / "data" / "test", x.mT.contiguous())
    words = ("--features", OWN, "--bootstrap", "0", "--metrics", "fd")
    out = tmp_path / "table.json"
    with pytest.warns(FewstepWarning, match="the test split is left out: it has images of shape"):
        code, *_ = call(
            "evaluate", tmp_path / "mine", "--reference", tmp_path / "data", *words, "-o", out
        )
    assert code == 0
    names = [line["target"] for line in json.loads(out.read_text())["scores"]]
    assert names == ["reference, half against half", GAUSSIAN, str(tmp_path / "mine")]


@pytest.mark.parametrize("size", [16, None])
def test_a_test_split_is_laid_on_the_canvas_of_a_padded_reference(
    tmp_path: Path, size: int | None
) -> None:
    for split, sizes in (("train", ((8, 16), (16, 8))), ("test", ((8, 16), (8, 16)))):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i, shape in enumerate(sizes):
            pixels = np.random.default_rng([i, split == "test"]).integers(
                0, 256, shape, dtype=np.uint8
            )
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{i}.png")
    settings = Data(data=str(tmp_path / "data"), size=size, fit="pad")
    home = RunDirectory(tmp_path / "run")
    home.path.mkdir()
    run_of = replace(RECIPES["images"](data="x"), data=settings)
    home.write(Record(recipe="images", run=run_of, plugins=()))
    for reference in (Data(), Data(data=str(tmp_path / "data"))):
        with pytest.warns(FewstepWarning):
            real = Real.of(tmp_path / "run", reference)
        test = real.test_split()
        assert test is not None
        assert test.shape == (1, 16, 16)
        assert (test.images[1, 0, 4:12].numpy() == pixels).all()
    small = Real.of(tmp_path / "run", Data(size=8)).test_split()
    assert small is not None
    assert small.shape == (1, 8, 8)
    if size is not None:
        prepared = prepare(str(tmp_path / "data"), size, fit="pad")
        assert (prepared.test.images[1, 0, 4:12].numpy() == pixels).all(), "the source's own"


def test_arrays_are_brought_to_a_size_as_load_does(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x)
    for fit in FITS:
        request = Request(size=8, fit=fit)
        found = load_images(tmp_path / "x.npz", print, request)
        assert torch.equal(found.images, fewstep.load(tmp_path / "x.npz", size=8, fit=fit).images)


def test_a_baseline_that_cannot_be_scored_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., tuple[int, str, str]]
) -> None:
    def fails(*_: object) -> Tensor:
        raise FewstepError("no draws.")

    monkeypatch.setattr("fewstep.evaluation.evaluator.class_gaussian", fails)
    fewstep.save_images(DIGITS.images[:100], tmp_path / "x.npz")
    words = ("--features", OWN, "--bootstrap", "0", "--metrics", "fd", "--reference", "digits")
    with pytest.warns(FewstepWarning, match=r"a baseline is left out: no draws\."):
        code, out, _ = call("evaluate", tmp_path / "x.npz", *words)
    assert code == 0
    assert "real test split" in out


def test_a_target_that_cannot_be_scored_does_not_lose_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewstep.save_images(DIGITS.images, tmp_path / "all.npz")
    fewstep.save_images(DIGITS.images[:5], tmp_path / "five.npz")
    fewstep.save_images(DIGITS.images[:1], tmp_path / "one.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "all.npz").read_bytes()[:900])
    given = [tmp_path / f"{name}.npz" for name in ("one", "all", "cut", "five")]
    lines = scored(tmp_path, *given, "--reference", "digits", "--no-baselines", code=2)
    assert list(lines) == ["one.npz", "all.npz", "five.npz"]
    assert lines["one.npz"]["fd"] is None
    assert any("1 images are too few for fd (from 2)" in n for n in lines["one.npz"]["notes"])
    out, err = capsys.readouterr()
    assert "all.npz" in out
    assert "1 of 4 targets could not be scored" in err
    assert "cut.npz" in err
    assert err.count("\n") == 1
    five = lines["five.npz"]
    assert five["fd"] > 0
    assert five["precision"] is not None
    assert five["density"] is None
    assert any("too few for dc (from 6), fd_infinity (from 20)" in n for n in five["notes"])


def test_a_target_that_memory_or_a_file_refuses_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does its model fill the memory of the next one."""
    real, alive = targets.load_images, []

    def load(path: Path, *rest: Any) -> Any:
        if path.stem == "gone":
            raise PermissionError(13, "Permission denied", str(path))
        if path.stem == "large":
            filled = torch.zeros(3)
            alive.append(weakref.ref(filled))
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return real(path, *rest)

    monkeypatch.setattr(targets, "load_images", load)
    given = [tmp_path / f"{name}.npz" for name in ("gone", "large", "all")]
    for path in given:
        fewstep.save_images(DIGITS.images, path)
    lines = scored(tmp_path, *given, "--reference", "digits", "--no-baselines", code=2)
    assert list(lines) == ["all.npz"]
    assert alive[0]() is None
    err = capsys.readouterr().err
    assert "2 of 3 targets could not be scored" in err
    assert "gone.npz': Permission denied" in err
    assert "memory does not suffice (CUDA out of memory" in err


def test_names_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for strange in ("photos [red] of :cat:", "[/b]"):
        show([Line(strange, Scores(n=3, notes=(f"{strange} is few.",)))],
             Setting("f", "0" * 64, None, strange, None, 0))  # fmt: skip
        out = capsys.readouterr().out
        assert out.count(strange) == 4
        show_theory(TheoryReport(Path(strange), (), 1.0))
        assert f"Open {strange}" in capsys.readouterr().out
        with Progress(column("{task.description}"), console=console(stderr=True)) as bar:
            bar.add_task(strange)
        assert strange in capsys.readouterr().err


def test_colours_sizes_and_floats_are_brought_to_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = DIGITS.images
    write(tmp_path / "grey", x)
    write(tmp_path / "rgb", x, "RGB")
    signed = x.float().numpy() / 127.5 - 1
    np.savez(tmp_path / "signed.npz", arr_0=signed)
    np.save(tmp_path / "unit.npy", (x.float() / 255).permute(0, 2, 3, 1).double().numpy())
    names = ("grey", "rgb", "signed.npz", "unit.npy")
    words = ("--reference", "digits", "--no-baselines", "--metrics", "fd")
    lines = scored(tmp_path, *(tmp_path / name for name in names), *words)
    grey, *others = (lines[name] for name in names)
    said = ("read as grey", "rounded to bytes", "floats in [0, 1], taken for images")
    for line, words_said in zip(others, said, strict=True):
        assert line["fd"] == grey["fd"]
        assert any(words_said in note for note in line["notes"]), line["notes"]
    back = scored(tmp_path, tmp_path / "grey", "--reference", tmp_path / "rgb", *words[2:])
    assert back["grey"]["fd"] == pytest.approx(0, abs=1e-6)
    capsys.readouterr()

    coloured = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8)
    fewstep.save_images(coloured, tmp_path / "coloured.npz")
    np.savez(tmp_path / "wide.npz", arr_0=np.full((9, 8, 8, 1), 1.5, np.float32))
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((9, 16, 16, 1), np.uint8))
    for name, hint in (
        ("coloured.npz", "--channels 1"),
        ("wide.npz", "[-1, 1] or [0, 1]"),
        ("large.npz", "--size 8"),
    ):
        code = run(["evaluate", str(tmp_path / name), *words, "--features", OWN])
        err = capsys.readouterr().err
        assert (code, err.count("\n")) == (2, 1), err
        assert hint in err
    given = (tmp_path / "coloured.npz", tmp_path / "large.npz")
    sized = scored(tmp_path, *given, *words, "--channels", 1, "--size", 8)
    assert all(line["fd"] > 0 for line in sized.values())


def test_a_note_is_shown_once_with_all_that_it_is_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [Line(name, Scores(n=3, fd=1.5, notes=("few.",))) for name in ("a", "b", "a")]
    show(lines, Setting("f", "0" * 64, None, "r", None, 0))
    assert capsys.readouterr().out.splitlines()[-1] == "note: a, b: few."


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_a_narrow_table_keeps_what_was_scored_and_every_score(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"fd": 1.25, "inception_score": 7.25, "precision": 0.875, "recall": 0.625, "kid": 0.5}
    scores = Scores(n=360, density=1.125, coverage=0.375, fd_infinity=-1e-9, **values)
    lines = [Line("/a/long/path/of/some/folders/all.npz", scores, 2, 0), Line("mine", scores)]
    setting = Setting("classifier", "0" * 64, None, "digits", 1437, 0)
    monkeypatch.setenv("COLUMNS", str(columns))
    show(lines, setting)
    table = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert max(map(len, table)) <= columns
    mine = " ".join(line for line in table if line.startswith("mine"))
    for text in ("1.250", "7.25", "0.875", "0.625", "0.50000", "1.125", "0.375"):
        assert text in mine
    assert "-0.000" not in mine
    heads = [line for line in table if line.startswith("target")]
    assert len(heads) == mine.count("mine")
    assert all(head.split()[1] == "NFE" for head in heads), "which of a model's lines it is"
    assert any("all.npz" in line for line in table)
    monkeypatch.delenv("COLUMNS")
    show(lines, setting)  # no terminal: as wide as it is
    assert "/a/long/path/of/some/folders/all.npz    2" in capsys.readouterr().out


def test_a_name_is_folded_at_slashes_and_spaces() -> None:
    assert folded("real test split", 9) == "real \ntest \nsplit"
    assert folded("runs/" + "x" * 12, 8) == "runs/\nxxxxxxxx\nxxxx"


def test_a_table_is_written_where_it_is_asked_for_or_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(write(tmp_path / "x", DIGITS.images[:20]))
    words = ["evaluate", images, "--reference", "digits", "--features", OWN, "--no-baselines"]
    words += ["--bootstrap", "0", "--metrics", "fd", "-o"]
    assert run([*words, str(tmp_path / "new/folder/A.CSV"), str(tmp_path / "new/b.md")]) == 0
    assert (tmp_path / "new/folder/A.CSV").read_text().startswith("target,")
    (tmp_path / "c.json").mkdir()
    capsys.readouterr()
    for bad in ("c.json", "x/0000.png/d.json"):
        assert run([*words, str(tmp_path / bad)]) == 2
        said = capsys.readouterr()
        assert said.out == "", "nothing was scored"
        assert str(tmp_path / bad) in said.err


def test_a_table_is_written_before_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.cli.evaluate.show", None)  # whatever keeps it from the screen
    fewstep.save_images(DIGITS.images[:40], tmp_path / "x.npz")
    words = ("--reference", "digits", "--no-baselines", "--metrics", "fd")
    assert list(scored(tmp_path, tmp_path / "x.npz", *words, code=70)) == ["x.npz"]


def test_scores_are_json_for_everybody() -> None:
    scores = Scores(n=3, fd=1.5, errors={"fd": math.nan, "recall": 0.1}, notes=("said",))
    text = as_json([Line("x", scores)], Setting("f", "0" * 64, None, "r", None, 0))
    json.loads(text, parse_constant=pytest.fail)
    again = json.loads(json.dumps(scores.record(), allow_nan=False))
    assert str(Scores.from_record(again)) == str(scores)
    with pytest.raises((TypeError, LookupError)):
        Scores.from_record({"n": 3, "errors": {}})


def test_csv_has_nothing_where_there_is_no_score(tmp_path: Path) -> None:
    fewstep.save_images(DIGITS.images[:40], tmp_path / "x.npz")
    words = [tmp_path / "x.npz", "--reference", "digits", "--features", OWN, "--metrics", "fd"]
    out = tmp_path / "t.csv"
    assert run(["evaluate", *map(str, words), "--no-baselines", "-o", str(out)]) == 0
    with out.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["precision"] == ""


def test_samplers_by_spec_give_a_line_each(tmp_path: Path) -> None:
    fewstep.save_images(DIGITS.images[:60], tmp_path / "real.npz")
    for name, trained in (("edm", DIFFUSION), ("fm", FLOW_MAP), ("cm", CONSISTENCY)):
        f = FlowMap(MLP((1, 8, 8), width=4, blocks=1, two_time=name == "fm"), EDM(T=20.0))
        f.trained = trained
        f.save(tmp_path / f"{name}.safetensors")
    edm, fm, cm = (tmp_path / f"{name}.safetensors" for name in ("edm", "fm", "cm"))
    words = ("--reference", tmp_path / "real.npz", "--no-baselines", "--metrics", "fd")
    specs = ("jumps(times=(2.0,))", "jumps(gamma=0)")
    lines = scored(tmp_path, fm, *words, "--sampler", specs[1], "jumps", "--steps", 1, 3)
    found = [(name, line["nfe"]) for name, line in lines.items()]
    assert [nfe for _, nfe in found] == [3, 3]  # the last of each name
    assert found[0][0] == f"{fm.name} (jumps(gamma=0.0))"
    assert lines[found[0][0]]["sampler"].startswith("jumps(gamma=0.0, times=(")
    lines = scored(tmp_path, edm, cm, *words, "--solver", "euler", "--steps", 2)
    assert lines[edm.name]["sampler"] == "walk(steps=2, solver=euler)"
    assert lines[cm.name]["sampler"].startswith("jumps(times=")
    left_out = "a consistency model takes no solver: --solver left out."
    assert left_out in lines[cm.name]["notes"]
    assert left_out not in lines[edm.name]["notes"]
    (line,) = scored(tmp_path, cm, *words, "--sampler", specs[0]).values()
    assert (line["sampler"], line["nfe"]) == (specs[0], 2)


def test_models_of_every_kind_are_told_from_images(tmp_path: Path) -> None:
    """A folder that `fewstep import` made, and what others saved, are sampled and not searched."""
    for name in ("imported", "pipeline", "images"):
        (tmp_path / name).mkdir()
    FlowMap(MLP((1, 2, 2), num_classes=0), EDM()).save(tmp_path / "imported" / "model.safetensors")
    (tmp_path / "pipeline" / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    torch.save({"x": torch.zeros(2)}, tmp_path / "theirs.pt")
    np.savez(tmp_path / "images.npz", arr_0=np.zeros((2, 4, 4, 1), np.uint8))
    models = ["imported", "imported/model.safetensors", "pipeline", "theirs.pt", "hub:ann/x"]
    assert all(is_model(Path(name) if ":" in name else tmp_path / name) for name in models)
    assert not any(is_model(tmp_path / name) for name in ("images", "images.npz", "nothing"))
