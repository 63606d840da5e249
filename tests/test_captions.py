"""Texts and embeddings beside images: read, encoded, learned, and asked for."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewstep.condition import Condition
from fewstep.data import Dataset, load
from fewstep.data.captions import texts_in, vectors_in
from fewstep.data.encoders import encoded
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import DiT, from_config
from fewstep.objectives import OBJECTIVES
from fewstep.parameterization import EDM, Parameterization, RectifiedFlow
from fewstep.plugins import trusted
from fewstep.plugins.trusted import trust
from fewstep.runs.opening import open_model

COLOURS = ("red", "green", "blue")
ENCODER = """
import pathlib
import torch

WORDS = ["red", "green", "blue", "dark", "bright"]
CALLS = pathlib.Path(__file__).with_suffix(".calls")


def encode(texts):
    with CALLS.open("a") as file:
        print(len(texts), file=file)
    return torch.tensor([[2.0 * (w in text.split()) for w in WORDS] for text in texts])


def tokens(texts):
    return encode(texts)[:, None].repeat(1, 3, 1).numpy()


def fails(texts):
    raise RuntimeError("no weights")


def ends(texts):
    raise SystemExit(3)


def wrong(texts):
    return torch.ones(len(texts))


def infinite(texts):
    return torch.full((len(texts), 2), float("inf"))
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an encoder that counts five words."""
    (tmp_path / "words.py").write_text(ENCODER)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    return f"{tmp_path / 'words.py'}:encode"


def photos(folder: Path, n: int = 6) -> list[dict[str, Any]]:
    """Squares of three colours, dark and bright, and a line for each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(n):
        light = ("dark", "bright")[i % 2]
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[..., i % 3] = 80 + 160 * (i % 2)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
        text = f"a {light} {COLOURS[i % 3]} square"
        lines.append({"file_name": f"{i:03}.png", "text": text, "shade": i % 2, "at": [i, 1.0]})
    return lines


def write(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def embeddings(data: Dataset) -> Tensor:
    found = data.embedding(torch.arange(len(data)))
    assert found is not None
    return found


def test_texts_of_a_folder(tmp_path: Path, words: str) -> None:
    folder = tmp_path / "photos"
    write(folder, photos(folder)[::-1])  # in another order than the files
    data = load(folder, encoder=words)
    expected = torch.zeros(6, 5)
    for i in range(6):
        expected[i, [i % 3, 3 + i % 2]] = 2
    assert torch.equal(embeddings(data), expected)
    part = data.subset([4, 1])
    assert torch.equal(embeddings(part), expected[[4, 1]])
    load(folder, encoder=words)
    assert (tmp_path / "words.calls").read_text() == "6\n"  # once, and kept
    assert load(folder, encoder=words.replace(":encode", ":tokens")).columns["embedding"].shape == (
        torch.Size([6, 3, 5])
    )
    other = [{**line, "text": "red"} for line in photos(folder)]
    write(folder, other)
    assert load(folder, encoder=words).fingerprint() != data.fingerprint()


@pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
def test_other_ways_to_write_texts(tmp_path: Path, words: str) -> None:
    folder = tmp_path / "photos"
    lines = photos(folder)
    wanted = embeddings(_of(folder, lines, words))
    (folder / "metadata.jsonl").unlink()
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file_name", "caption"])
        table.writeheader()
        for line in lines:
            table.writerow({"file_name": line["file_name"], "caption": line["text"]})
    assert torch.equal(embeddings(load(folder, encoder=words)), wanted)
    (folder / "metadata.csv").unlink()
    for line in lines:
        (folder / line["file_name"]).with_suffix(".txt").write_text(line["text"] + "\n")
    assert torch.equal(embeddings(load(folder, encoder=words)), wanted)
    inside = tmp_path / "all"
    (inside / "train").mkdir(parents=True)
    for line in lines:
        (folder / line["file_name"]).rename(inside / "train" / line["file_name"])
    write(inside, [{**line, "file_name": f"train/{line['file_name']}"} for line in lines])
    assert torch.equal(embeddings(load(inside, encoder=words)), wanted)


def test_texts_of_several_lines_are_whole(tmp_path: Path, words: str) -> None:
    folder = tmp_path / "photos"
    lines = [{**line, "text": "red\u2028blue"} for line in photos(folder)]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    wanted = embeddings(load(folder, encoder=words))
    assert wanted[0].tolist() == [2, 0, 2, 0, 0]
    (folder / "metadata.jsonl").unlink()
    table = ["file_name,text", *(f'{line["file_name"]},"red\nblue"' for line in lines)]
    (folder / "metadata.csv").write_text("\n".join(table))
    assert torch.equal(embeddings(load(folder, encoder=words)), wanted)
    (folder / "metadata.csv").write_text("file_name,text\n000.png,red, not blue\n")
    with pytest.raises(FewstepError, match=r"csv, line 2: more values than columns.* quotes"):
        load(folder, encoder=words)


def _of(folder: Path, lines: list[dict[str, Any]], encoder: str) -> Dataset:
    write(folder, lines)
    return load(folder, encoder=encoder)


def test_pictures_without_a_line_are_said_and_have_no_embedding(tmp_path: Path, words: str) -> None:
    folder = tmp_path / "photos"
    lines = photos(folder)
    write(folder, lines[2:])
    with pytest.warns(FewstepWarning, match=r"no line for 2 of 6 pictures \(such as 000\.png\)"):
        data = load(folder, encoder=words)
    assert not embeddings(data)[:2].any()
    assert embeddings(data)[2:].any(1).all()
    write(folder, [*lines, {"file_name": "lost.png", "text": "red"}])
    with pytest.warns(FewstepWarning, match=r"names 1 pictures that are not there .*lost\.png"):
        load(folder, encoder=words)


def test_embeddings_follow_their_pictures(tmp_path: Path, words: str) -> None:
    folder = tmp_path / "photos"
    write(folder, photos(folder))
    (folder / "001.png").write_bytes(b"broken")
    wide = Image.open(folder / "002.png").resize((16, 8))
    wide.save(folder / "002.png")
    data = load(folder, encoder=words, skip_bad=True, size=8, fit="tile")
    assert len(data) == 6
    assert embeddings(data).argmax(1).tolist() == [0, 2, 2, 0, 1, 2]
    again = load(folder, encoder=words, skip_bad=True, size=8, fit="tile")
    assert torch.equal(embeddings(again), embeddings(data))
    assert torch.equal(embeddings(load(data.subset([3, 0]), size=4)), embeddings(data)[[3, 0]])
    parts = load(data.subset([3, 0]), size=4, fit="tile")
    assert torch.equal(embeddings(parts), embeddings(data)[[3] * 4 + [0] * 4])
    given = torch.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "e.npy", given.numpy())
    np.savez(tmp_path / "a.npz", np.zeros((3, 8, 8), np.uint8))
    cut = load(tmp_path / "a.npz", size=4, fit="tile", embeddings=str(tmp_path / "e.npy"))
    assert torch.equal(embeddings(cut), given.repeat_interleave(4, 0))
    np.save(tmp_path / "e.npy", np.arange(24.0).reshape(12, 2))
    anew = load(cut, embeddings=str(tmp_path / "e.npy"))  # of tiles each is a picture here
    assert embeddings(anew)[:, 0].tolist() == list(range(0, 24, 2))


def test_what_is_missing_in_a_table_is_no_number_and_no_text(tmp_path: Path) -> None:
    photos(tmp_path, 3)
    (tmp_path / "metadata.csv").write_text("file_name,age\n000.png,3\n001.png, \n002.png,5\n")
    assert embeddings(load(tmp_path, embeddings="age")).tolist() == [[3], [0], [5]]
    lines = [{"age": float("nan"), "of": ""}, {"age": 3.0, "of": "a"}, {"age": None}]
    assert texts_in("x", lines, ["age"]) == ["", "3.0", ""]
    assert texts_in("x", lines, ["age", "of"]) == ["", "age: 3.0, of: a", ""]
    assert vectors_in("x", lines, ["age"]).tolist() == [[0], [3], [0]]


@pytest.mark.parametrize("rest", ["", "x" * 200_000])
def test_a_quote_that_is_not_closed_is_found(tmp_path: Path, rest: str) -> None:
    photos(tmp_path, 3)
    (tmp_path / "metadata.csv").write_text(
        f'file_name,text\n000.png,red\n001.png,"blue\n002.png,green {rest}\n'
    )
    with pytest.raises(FewstepError, match=r"metadata\.csv, line 3: .*double quote"):
        load(tmp_path, embeddings="text")


def test_numbers_are_embeddings(tmp_path: Path, words: str) -> None:
    folder = tmp_path / "photos"
    write(folder, photos(folder))
    expected = torch.tensor([[i % 2, i, 1.0] for i in range(6)])
    assert torch.equal(embeddings(load(folder, embeddings="shade, at")), expected)
    np.save(tmp_path / "e.npy", expected.numpy())
    assert torch.equal(embeddings(load(folder, embeddings=str(tmp_path / "e.npy"))), expected)
    arrays = Dataset.from_arrays(np.zeros((6, 8, 8, 3), np.uint8))
    assert torch.equal(embeddings(load(arrays, embeddings=str(tmp_path / "e.npy"))), expected)
    together = load(folder, encoder=words, text_column="shade, text")
    assert embeddings(together)[0].tolist() == [2, 0, 0, 2, 0]
    np.save(tmp_path / "e.npy", expected[:4].numpy())
    with pytest.raises(FewstepError, match=r"e\.npy holds 4 embeddings for 6 pictures"):
        load(folder, embeddings=str(tmp_path / "e.npy"))


def test_texts_of_a_table(tmp_path: Path, words: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "photos"
    lines = photos(folder)
    table = pa.table(
        {
            "image": [{"bytes": (folder / line["file_name"]).read_bytes()} for line in lines],
            "caption": [line["text"] for line in lines],
            "vector": [[float(i), 1.0] for i in range(6)],
        }
    )
    parquet.write_table(table, tmp_path / "train.parquet")
    with_texts = load(tmp_path / "train.parquet", encoder=words)
    assert embeddings(with_texts).argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    given = load(tmp_path / "train.parquet", embeddings="vector")
    assert embeddings(given)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(FewstepError, match=r"train\.parquet: .*'captoin'.*'caption'"):
        load(tmp_path / "train.parquet", encoder=words, text_column="captoin")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{", r"metadata\.jsonl, line 1: no JSON"),
        ("[1]", r"line 1: not an object"),
        ('{"text": "red"}', r"line 1: it names no picture"),
        ('{"file_name": "000.png", "text": "a"}\n' * 2, r"line 2: 000\.png has a line already"),
        ('{"file_name": "x.png", "text": "a"}', r"no line for any picture, such as 000\.png"),
        ('{"file_name": "000.png", "colour": "a"}', r"no column called text.*of colour"),
        ('{"file_name": "000.png", "text": {}}', r"'text' holds dict, no texts"),
        ('{"file_name": "000.png", "text": " "}', r"holds no text at all"),
    ],
)
@pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
def test_lines_that_cannot_be_used(tmp_path: Path, words: str, lines: str, message: str) -> None:
    folder = tmp_path / "photos"
    photos(folder)
    (folder / "metadata.jsonl").write_text(lines)
    with pytest.raises(FewstepError, match=message):
        load(folder, encoder=words)


def test_nothing_beside_the_pictures(tmp_path: Path, words: str) -> None:
    photos(tmp_path / "photos")
    with pytest.raises(FewstepError, match=r"no metadata\.jsonl and no metadata\.csv"):
        load(tmp_path / "photos", encoder=words)
    with pytest.raises(FewstepError, match="no texts beside its images"):
        load("digits", encoder=words)
    write(tmp_path / "photos", photos(tmp_path / "photos"))
    with pytest.raises(FewstepError, match="an encoder of yours"):
        load(tmp_path / "photos", text_column="text")
    with pytest.raises(FewstepError, match="leave out either"):
        load(tmp_path / "photos", encoder=words, embeddings="shade")
    write(tmp_path / "photos", [{**line, "shade": None} for line in photos(tmp_path / "photos")])
    with pytest.raises(FewstepError, match="the column 'shade' is empty"):
        load(tmp_path / "photos", embeddings="shade")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words", "is named module:function"),
        ("no_such_module:encode", "cannot be imported: ModuleNotFoundError"),
        ("os:system", "a module of Python itself"),
        ("{}:missing", "has no function missing"),
        ("{}:fails", "fails on 'a red square': RuntimeError: no weights"),
        ("{}:ends", "fails on 'a red square': SystemExit: 3"),
        ("{}:wrong", r"must give floats \[1, d\].* not float32 \[1\]"),
        ("{}:infinite", "NaN or infinity"),
        ("gone.py:encode", r"no file gone\.py"),
    ],
)
def test_an_encoder_that_cannot_be_used(words: str, name: str, message: str) -> None:
    name = name.format(words.rpartition(":")[0])
    trust(name)
    with pytest.raises(FewstepError, match=message):
        encoded(name, ["a red square"])


def test_an_encoder_in_a_package_that_is_no_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn_package").mkdir()
    (tmp_path / "torn_package" / "__init__.py").write_text("def (")
    (tmp_path / "torn_package" / "texts.py").write_text("")
    with pytest.raises(FewstepError, match="named by a run or a model"):
        encoded("torn_package.texts:encode", ["a red square"])
    trust("torn_package.texts:encode")
    with pytest.raises(FewstepError, match="cannot be imported: SyntaxError"):
        encoded("torn_package.texts:encode", ["a red square"])


NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
    "adm": {"channels": 8, "multipliers": [1], "blocks": 1, "head_channels": 4},
    "dit": {"width": 16, "blocks": 1, "heads": 2},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_takes_embeddings(name: str) -> None:
    torch.manual_seed(0)
    F = from_config({"name": name, "shape": (3, 4, 4), "embeds": 5, **NETWORKS[name]})
    for weight in F.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    F.eval()
    x, t, e = torch.randn(4, 3, 4, 4), torch.zeros(4), torch.randn(4, 5)
    told, plain = F(x, t, embedding=e), F(x, t)
    assert not torch.allclose(told, plain)
    assert torch.allclose(F(x, t, embedding=torch.zeros(4, 5)), plain)
    padded = torch.cat([e[:, None], e[:, None], torch.zeros(4, 2, 5)], dim=1)
    assert torch.allclose(F(x, t, embedding=padded), told, atol=1e-6)
    large = from_config(F.config | {"embeds_scale": 10.0}).eval()
    large.load_state_dict(F.state_dict())
    assert torch.allclose(large(x, t, embedding=10 * e), told, atol=1e-5)
    with pytest.raises(FewstepError, match=r"embeddings \[B, 5\].*got \[4, 6\]"):
        F(x, t, embedding=torch.randn(4, 6))
    deaf = from_config({"name": name, "shape": (3, 4, 4), **NETWORKS[name]})
    assert "embedding" in F.takes
    assert "embedding" not in deaf.takes


def test_hidden_embeddings_are_zero() -> None:
    torch.manual_seed(1)
    both = Condition(label=torch.zeros(400, dtype=torch.int64), embedding=torch.ones(400, 2, 3))
    hidden = both.hiding(0.25, 7)
    assert hidden.label is not None
    assert hidden.embedding is not None
    gone = hidden.label == 7
    assert 60 < int(gone.sum()) < 140
    assert torch.equal(hidden.embedding.flatten(1).any(1), ~gone)
    alone = Condition(embedding=torch.ones(400, 3)).hiding(0.25, 0)
    wanted = alone.wanted(0)
    assert wanted is not None
    assert 60 < int((~wanted).sum()) < 140


Call = Callable[..., tuple[int, str, str]]


SMALL = "--network unet --network.channels 8 --network.multipliers 1 --network.blocks 1 --warmup 2"
SMALL += " --network.attention [] --samples 4 --lr 1e-2 --device cpu --quiet"
HIDE = ["--network.label-dropout", 0.1]


@pytest.mark.slow
def test_a_model_learns_what_texts_say(tmp_path: Path, words: str, call: Call) -> None:
    folder, run, out = tmp_path / "photos", tmp_path / "run", tmp_path / "out.npz"
    write(folder, photos(folder, 60))
    how = ["--data", folder, "--encoder", words, *SMALL.split(), *HIDE, "--batch", 32]
    assert call("train", "images", "--method", "edm", *how, "--steps", 150, "--out", run)[0] == 0
    ask = ["-n", 12, "--steps", 5, "-o", out, "--prompt"]
    asked = call("sample", run, *ask, "a bright red square", "--prompt", "a dark blue square")
    assert asked[0] == 0, asked
    colours = np.load(out)["arr_0"].mean((1, 2))
    assert (colours[::2].argmax(1) == 0).mean() > 0.8
    assert (colours[1::2].argmax(1) == 2).mean() > 0.8
    assert colours[::2].max(1).mean() > colours[1::2].max(1).mean() + 60
    np.save(tmp_path / "e.npy", np.array([0, 2, 0, 0, 2], np.float32))
    guided = ["-n", 6, "--steps", 5, "--guidance", 1.5, "-o", out]
    assert call("sample", run, *guided, "--embedding", tmp_path / "e.npy")[0] == 0
    assert (np.load(out)["arr_0"].mean((1, 2)).argmax(1) == 1).mean() > 0.8


def test_texts_go_with_a_model_from_training_to_sampling(
    tmp_path: Path, words: str, call: Call
) -> None:
    folder, teacher, student = tmp_path / "photos", tmp_path / "edm", tmp_path / "ect"
    write(folder, photos(folder))
    small = [*SMALL.split(), *HIDE, "--batch", 4, "--steps", 2]
    how = ["--data", folder, "--encoder", words, *small]
    assert call("train", "images", "--method", "edm", *how, "--out", teacher)[0] == 0
    more = ["--teacher", teacher, "--out", student]
    assert call("train", "images", "--method", "ect", *how, *more)[0] == 0
    assert call("train", student, "--steps", 3, "--quiet")[0] == 0
    out = tmp_path / "out.npz"
    ask = ["sample", student, "-n", 2, "-o", out]
    pictures = []
    for prompt in ("red", "blue", "red"):
        assert call(*ask, "--prompt", prompt)[0] == 0
        pictures.append(np.load(out)["arr_0"])
    assert (pictures[0] == pictures[2]).all()
    assert (pictures[0] != pictures[1]).any()
    np.save(tmp_path / "e.npy", np.array([2, 0, 0, 0, 0], np.float32))
    assert call(*ask, "--embedding", tmp_path / "e.npy")[0] == 0
    assert (np.load(out)["arr_0"] == pictures[0]).all()

    _refused(call(*ask, "--engine", "onnx"), "for which graphs have no input")
    _refused(call(*ask, "--prompt", "red", "--embedding", out), "not both")
    (tmp_path / "words.py").unlink()
    _refused(call(*ask, "--prompt", "new words"), "words.py")
    plain = ["--data", folder, "--no-labels", *SMALL.split(), "--teacher", teacher]
    other = call("train", "images", "--method", "ect", *plain, "--out", tmp_path / "other")
    _refused(other, "embeds 5")


def test_the_scale_of_embeddings_stays_when_a_tuned_model_goes_on(
    tmp_path: Path, words: str, call: Call
) -> None:
    folder, first, tuned = tmp_path / "photos", tmp_path / "first", tmp_path / "tuned"
    lines = photos(folder)
    write(folder, lines)
    small = ["--data", folder, "--embeddings", "at", *SMALL.split(), *HIDE, "--batch", 4]
    train = ["train", "images", "--method", "edm", *small, "--steps", 2, "--out"]
    assert call(*train, first)[0] == 0
    write(folder, [line | {"at": [10 * x for x in line["at"]]} for line in lines])
    assert call(*train, tuned, "--init", first)[0] == 0
    assert call("train", tuned, "--steps", 3, "--quiet")[0] == 0
    scales = [open_model(path).network.embeds_scale for path in (first, tuned)]
    assert scales[0] == scales[1]


def test_what_a_run_or_a_model_names_is_imported_once_the_user_has_named_it(
    tmp_path: Path, words: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = tmp_path / "photos", tmp_path / "run"
    write(folder, photos(folder))
    how = ["--data", folder, "--encoder", words, *SMALL.split(), *HIDE, "--batch", 4]
    assert call("train", "images", "--method", "edm", *how, "--steps", 2, "--out", run)[0] == 0
    file, calls = tmp_path / "words.py", tmp_path / "words.calls"

    def elsewhere(cache: str) -> None:
        """As another process; with another cache as another machine."""
        monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / cache))
        monkeypatch.setattr(trusted, "_NAMED", set())

    file.write_text(f"{ENCODER}\nCALLS.write_text('imported')\n")
    calls.unlink()
    ask = ["sample", run, "-n", 1, "--steps", 2, "-o", tmp_path / "out.npz", "--prompt", "red"]
    go_on = ["train", run, "--quiet", "--device", "cpu", "--steps"]
    elsewhere("other")
    why = f"the encoder {words} is named by a run or a model, which may be anybody's"
    _refused(call(*ask), why)
    _refused(call(*go_on, 3), f"give it with --encoder {words} if you trust its code")
    assert not calls.exists(), "nothing of it was run"
    assert call(*ask, "--encoder", words)[0] == 0
    assert calls.exists()
    elsewhere("other")
    assert call(*ask[:-1], "green")[0] == 0, "it was named here before"
    assert call(*go_on, 3)[0] == 0
    elsewhere("third")
    moved = tmp_path / "moved.py"
    file.rename(moved)
    _refused(call(*go_on, 4), "there is no file")
    assert call(*go_on, 4, "--encoder", f"{moved}:encode")[0] == 0, "which has moved"
    moved.write_text(f"{ENCODER}\nWORDS = WORDS[::-1]\n")
    elsewhere("third")
    _refused(call(*ask[:-1], "blue"), "has not been used here as it is now")
    _refused(call(*go_on, 5, "--encoder", f"{moved}:encode"), "are not those that")
    (tmp_path / "out.npz").unlink()
    inside = run / "words.py"
    inside.write_text(ENCODER)
    _refused(call(*ask, "--encoder", f"{inside}:encode"), "from which no code is imported")


def test_where_a_module_is_is_found_without_importing_what_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_package" / "inner").mkdir(parents=True)
    for place in ("a_package/__init__.py", "a_package/inner/__init__.py"):
        (tmp_path / place).write_text("raise SystemExit('imported')")
    text = tmp_path / "a_package" / "inner" / "texts.py"
    text.write_text("")
    assert trusted.file_of("a_package.inner.texts") == text
    assert trusted.file_of("a_package.missing") is None
    assert trusted.file_of("no_such_package.texts") is None
    with pytest.raises(FewstepError, match="named by a run or a model"):
        encoded("a_package.inner.texts:encode", ["a red square"])


def test_the_example_of_the_documents_runs(
    tmp_path: Path, words: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "WORDS" in block
    )
    train, sample = (
        shlex.split(line)[1:]
        for line in page.splitlines()
        if line.startswith("    fewstep") and ("--encoder" in line or "--prompt" in line)
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.py").write_text(code)
    write(tmp_path / "photos", photos(tmp_path / "photos"))
    small = SMALL.replace("--network unet ", "").split()
    answer = call(*train, *small, "--batch", 4, "--steps", 2)
    assert answer[0] == 0, answer
    answer = call(*sample, "-n", 1, "--steps", 2)
    assert answer[0] == 0, answer
    assert Image.open("red.png").text["fewstep"].count("dark red")


def _refused(answer: tuple[int, str, str], what: str) -> None:
    code, _, err = answer
    assert code == 2
    assert what in err


def test_a_network_without_such_an_input(tmp_path: Path, words: str, call: Call) -> None:
    folder = tmp_path / "photos"
    write(folder, photos(folder))
    how = ["--data", folder, "--encoder", words, "--batch", 4, "--quiet", "--device", "cpu"]
    how += ["--network", "mlp", "--steps", 2, "--out", tmp_path / "run"]
    refusal = "the network mlp takes none: choose unet, adm or dit"
    _refused(call("train", "images", "--method", "edm", *how), refusal)


@pytest.mark.parametrize(
    ("name", "process"), [("imm", RectifiedFlow(form="ddim")), ("stable_ct", EDM(eps=0.0))]
)
def test_what_compares_images_of_one_class_takes_no_embeddings(
    name: str, process: Parameterization
) -> None:
    sizes = {"patch": 2, "width": 8, "blocks": 1, "heads": 1}
    F = DiT((1, 4, 4), embeds=3, two_time=name == "imm", **sizes)
    objective, x = OBJECTIVES[name](FlowMap(F, process), 10), torch.randn(4, 1, 4, 4)
    told = Condition(embedding=torch.ones(4, 3))
    with pytest.raises(FewstepError, match=rf"^{name} .*leave out --encoder"):
        objective.loss_at(x, *objective.draw_times(x, 0), condition=told)
