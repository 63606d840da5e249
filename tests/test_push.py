"""A model goes to the hub, with its card, and comes back the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import fewstep
from fewstep.exchange.card import card, licence_of
from fewstep.exchange.graphs.graph import Graph
from fewstep.exchange.origin import forbids_commerce
from fewstep.runs.folders import without_folders
from fewstep.sampling import sampler_for
from hub import READER, TOKEN, Hub

MODELS = Path(__file__).parent / "models"
CONSISTENCY = MODELS / "consistency.safetensors"
SCORES = {
    "setting": {"features": "inception", "reference": "/home/ann/photos"},
    "scores": [{"target": "x", "n": 100, "nfe": 2, "sampler": "jumps(steps=2)", "fd": 3.14159}],
}
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def may_write(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Hub:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that knows the folders of its machine."""
    (folder := tmp_path / "run").mkdir()
    f = fewstep.open_model(CONSISTENCY)
    f.info["weak"] = f.info["teacher"] = {"path": "/home/ann/runs/edm", "sha256": "0"}
    f.info |= {
        "encoder": "/home/ann/clip.py:encode",
        "objective": "cd(distance='lpips(weights=/home/ann/vgg.pt)')",
    }
    f.save(folder / "model.safetensors")
    record = json.loads((MODELS / "run/run.json").read_text())
    record["run"]["data"]["data"] = "hub:ann/photos:small@v1"
    record["run"]["data"] |= {"encoder": f.info["encoder"], "embeddings": "/home/ann/e.npy"}
    record["run"]["objective"]["arguments"]["distance"] = "lpips(weights=/home/ann/my vgg/vgg.pt)"
    record["run"]["teacher"] = "/home/ann/runs/edm"
    record["sources"] = {"data": {"fingerprint": "1", "path": "/home/ann/photos", "name": "photos"}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def parts(content: bytes) -> tuple[dict[str, object], str]:
    """The YAML in front of a card, and the text behind it."""
    _, above, below = content.decode().split("---\n", 2)
    return yaml.safe_load(above), below


def arrays(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["arr_0"]


def test_what_was_pushed_gives_the_same_images(call: Call, may_write: Hub, tmp_path: Path) -> None:
    code, out, err = call("push", CONSISTENCY, "--to", "hub:ann/digits", "--licence", "mit")
    assert code == 0, err
    assert f"{may_write.url}/ann/digits: 3 files" in out
    assert set(may_write.files("ann/digits")) >= {"README.md", "model.safetensors", "samples.png"}
    assert may_write.large  # weights went through large file storage
    for name, model in (("near", CONSISTENCY), ("far", "hub:ann/digits")):
        for steps in (1, 2):
            o = tmp_path / f"{name}{steps}.npz"
            assert call("sample", model, "-n", 4, "--steps", steps, "-o", o)[0] == 0
    for steps in (1, 2):
        near, far = (arrays(tmp_path / f"{name}{steps}.npz") for name in ("near", "far"))
        assert (near == far).all()
    assert fewstep.open_model("hub:ann/digits").info["origin"]["licence"] == "mit"


def test_a_card_says_what_the_model_is(call: Call, may_write: Hub, run: Path) -> None:
    (run / "scores.json").write_text(json.dumps(SCORES))
    code, out, err = call("push", run, "--to", "hub:digits@trial", "--licence", "MIT", "--private")
    assert code == 0, err
    assert "note: the card states the licence MIT." in out
    assert may_write.repos["ann/digits"].private
    files = may_write.files("ann/digits", "trial")
    said, text = parts(files["README.md"])
    assert (said["library_name"], said["license"]) == ("fewstep", "mit")
    assert said["pipeline_tag"] == "unconditional-image-generation"
    assert "fewstep" in said["tags"]
    assert (said["metrics"], said["datasets"]) == (["fid"], ["ann/photos"])
    assert "| x | `jumps(steps=2)` | 2 | 100 | 3.142 |" in text
    for words in (
        "fewstep sample hub:ann/digits@trial",
        'fewstep.open_model("hub:ann/digits@trial")',
    ):
        assert words in text
    assert "![Samples](samples.png)" in text
    assert (
        b"/home" not in files["README.md"] + files["run.json"] + files["model.safetensors"][:4000]
    )
    settings = json.loads(files["run.json"])["run"]
    assert (settings["data"]["data"], settings["teacher"]) == ("hub:ann/photos:small@v1", "edm")
    assert settings["data"]["encoder"] == "clip.py:encode"
    assert settings["objective"]["arguments"]["distance"] == "lpips(weights=vgg.pt)"
    code, out, err = call("info", "hub:ann/digits@trial")
    assert (code, "recipe" in out) == (0, True), err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digits/cd", "digits/cd"),
        ("hub:ann/cats@v1", "hub:ann/cats@v1"),
        ("https://example.org/a/b.pt", "https://example.org/a/b.pt"),
        ("cd(a=(x+y)/2, b=1/3)", "cd(a=(x+y)/2, b=1/3)"),
        ("ict(a='/home/ann/a b/x.pt', b=2)", "ict(a='x.pt', b=2)"),
        ("lpips(weights=~/vgg.pt)", "lpips(weights=vgg.pt)"),
        ("lpips(weights=../ann/vgg.pt)", "lpips(weights=vgg.pt)"),
        (r"lpips(weights=C:\Users\ann\vgg.pt)", "lpips(weights=vgg.pt)"),
        ("file:///home/ann/x", "x"),
    ],
)
def test_folders_are_taken_out_of_texts(text: str, said: str) -> None:
    assert without_folders({"a": [text]}) == {"a": [said]}


def test_a_folder_of_this_machine_is_not_looked_for_elsewhere(
    call: Call, may_write: Hub, run: Path
) -> None:
    record = json.loads((run / "run.json").read_text())
    record["run"]["data"]["data"] = "photos"  # somebody else's photos are others
    (run / "run.json").write_text(json.dumps(record))
    assert call("push", run, "--to", "hub:ann/digits", "--no-samples")[0] == 0
    assert json.loads(may_write.files("ann/digits")["run.json"])["run"]["data"]["data"] is None
    for command, flag in (("evaluate", "--reference"), ("likelihood", "--data")):
        code, _, err = call(command, "hub:ann/digits")
        assert (code, f"give {flag}" in err) == (2, True), err


def test_a_dry_run_sends_nothing(call: Call, hub: Hub) -> None:
    code, out, _ = call("push", CONSISTENCY, "--to", "hub:ann/digits", "--dry-run")
    assert code == 0
    assert "model.safetensors" in out
    assert "bytes" in out
    assert "note: the card states no licence" in out
    assert not hub.requests


def test_weights_keep_the_licence_that_they_came_with(
    call: Call, may_write: Hub, tmp_path: Path
) -> None:
    f = fewstep.open_model(CONSISTENCY)
    whence = "hub:bob/teacher@" + 40 * "1"
    f.info["lineage"] = [{"hub": whence, "licence": "CC-BY-NC-SA-4.0"}]
    f.save(path := tmp_path / "student.safetensors")
    code, _, err = call("push", path, "--to", "hub:ann/student", "--license", "mit")
    assert (code, "under CC-BY-NC-SA-4.0, which --licence mit would drop" in err) == (2, True)
    assert "ann/student" not in may_write.repos
    code, out, err = call("push", path, "--to", "hub:ann/student")
    assert (code, "for non-commercial use only" in out) == (0, True), err
    said, text = parts(may_write.files("ann/student")["README.md"])
    assert (said["license"], said["base_model"]) == ("cc-by-nc-sa-4.0", ["bob/teacher"])
    assert f"made from {whence}, under CC-BY-NC-SA-4.0" in text
    f.info["origin"] = {"file": "theirs.pkl", "licence": None}
    f.info["lineage"] = []
    f.save(path)
    code, _, err = call("push", path, "--to", "hub:ann/theirs")
    assert (code, "theirs.pkl, of a licence that is not known" in err) == (2, True)


@pytest.mark.parametrize("own", [None, "MIT"])
def test_no_licence_covers_weights_of_an_unknown_one(own: str | None) -> None:
    f = fewstep.open_model(CONSISTENCY)
    f.info["origin"] = {"file": "own.pkl", "licence": own}
    f.info["lineage"] = [{"file": "other.pkl", "licence": None if own else "MIT"}]
    assert licence_of(f) is None
    assert licence_of(f, "cc-by-4.0") == "cc-by-4.0"
    f.info["lineage"].append({"file": "third.pkl", "licence": "CC-BY-NC-4.0"})
    assert licence_of(f) == "CC-BY-NC-4.0"


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("CC-BY-NC-SA-4.0", True),
        ("cc-by-nc-4.0", True),
        ("nvidia-non-commercial", True),
        ("mit", False),
        ("apache-2.0", False),
        ("cc-by-4.0", False),
        ("openrail", False),
    ],
)
def test_licences_that_forbid_commerce_are_known_by_their_names(
    licence: str, forbids: bool
) -> None:
    assert forbids_commerce(licence) is forbids


def test_a_licence_without_a_name_on_the_hub_is_another_one() -> None:
    f = fewstep.open_model(CONSISTENCY)
    assert licence_of(f) is None
    text = card(f, title="x", use="y", licence='My own: "free"')
    said, _ = parts(text.encode())
    assert (said["license"], said["license_name"]) == ("other", 'My own: "free"')


def test_what_is_there_is_not_replaced_silently(call: Call, may_write: Hub) -> None:
    first = may_write.add("ann/digits", {"model.safetensors": b"precious"})
    code, _, err = call("push", CONSISTENCY, "--to", "hub:ann/digits")
    assert (code, "exists already (1 files): --replace" in err) == (2, True)
    assert may_write.files("ann/digits") == {"model.safetensors": b"precious"}
    code, _, err = call("push", CONSISTENCY, "--to", "hub:ann/digits", "--replace")
    assert code == 0, err
    assert may_write.files("ann/digits")["model.safetensors"] != b"precious"
    assert may_write.files("ann/digits", first)["model.safetensors"] == b"precious"


def test_what_keeps_a_push_back_is_one_line(
    call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: object) -> str:
        code, _, err = call("push", CONSISTENCY, "--no-samples", "--to", *words)
        assert (code, err.count("\n")) == (2, 1), err
        return err

    assert "needs a token: set HF_TOKEN" in said("hub:ann/digits")
    assert "needs a token" in said("hub:digits")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not know the token" in said("hub:ann/digits")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "the token may not write to hub:ann/digits" in said("hub:ann/digits")
    assert "names a commit" in said(f"hub:ann/digits@{40 * '1'}")
    assert "names a file" in said("hub:ann/digits/model.pkl")
    assert "names no model of the hub" in said("ann digits")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: unset it" in said("hub:ann/digits")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached: check the connection" in said("hub:ann/digits")


def test_licence_and_origin_go_with_every_export(call: Call, tmp_path: Path) -> None:
    f = fewstep.open_model(CONSISTENCY)
    whence = {"hub": "hub:bob/teacher@" + 40 * "1", "licence": "CC-BY-NC-SA-4.0"}
    f.info["lineage"] = [whence]
    graph = Graph(f, sampler_for(f, 1))
    assert (graph.said["licence"], graph.said["lineage"]) == ("CC-BY-NC-SA-4.0", [whence])
    f.save(path := tmp_path / "student.safetensors")
    code, _, err = call("export", path, "--to", "diffusers", "-o", tmp_path / "pipeline")
    assert code == 0, err
    said, text = parts((tmp_path / "pipeline/README.md").read_bytes())
    assert (said["library_name"], said["license"]) == ("diffusers", "cc-by-nc-sa-4.0")
    assert "from_pretrained('pipeline'" in text
    assert fewstep.open_model(tmp_path / "pipeline").info["lineage"] == [whence]


def test_large_files_go_as_chunks_where_the_library_has_them(
    call: Call, may_write: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    words = ("push", CONSISTENCY, "--licence", "mit", "--no-samples", "--to")
    assert call(*words, "hub:ann/whole")[0] == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    may_write.chunks = str(tmp_path / "chunks")
    code, _, err = call(*words, "hub:ann/chunks")
    assert code == 0, err
    sent = [path for command, path in may_write.requests if command == "PUT"]
    assert len(sent) == 1  # the second time the service for chunks had them
    whole = may_write.files("ann/whole")["model.safetensors"]  # known to the hub by its hash
    assert may_write.files("ann/chunks")["model.safetensors"] == whole
    assert sum(p.stat().st_size for p in (tmp_path / "chunks").rglob("xorbs/*")) > 1000
