"""A model of the hub, wherever a model is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fewstep
from fewstep.evaluation import classifier
from fewstep.exchange.hub.fetching import forget
from fewstep.runs.directory import RunDirectory
from fewstep.serving.shelf import names_for
from hub import Hub

MODELS = Path(__file__).parent / "models"
CARD = b"---\nlicense: cc-by-nc-4.0\n---\n# Digits\n"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def names(hub: Hub) -> dict[str, str]:
    """Names of the hub with the commits that they stand for."""
    files = {
        "consistency": {"README.md": CARD},
        "diffusion": {"README.md": CARD},
        "autoencoder": {},
    }
    return {
        f"hub:ann/{name}": hub.add(
            f"ann/{name}",
            {**more, "model.safetensors": (MODELS / f"{name}.safetensors").read_bytes()},
        )
        for name, more in files.items()
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of the models' shape and classes."""
    path, numbers = tmp_path / "images.npz", np.random.default_rng(0)
    pixels = numbers.integers(0, 256, (96, 4, 4, 1), np.uint8)
    np.savez(path, arr_0=pixels, arr_1=np.array(["zero", "one", "two"] * 32))
    return path


def done(answer: tuple[int, str, str]) -> str:
    """What a command printed that went well."""
    code, out, err = answer
    assert code == 0, err
    return out


def arrays(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["arr_0"]


@pytest.mark.usefixtures("names")
def test_a_model_of_the_hub_gives_the_images_of_its_file(call: Call, tmp_path: Path) -> None:
    local, far = tmp_path / "local.npz", tmp_path / "far.npz"
    done(call("sample", MODELS / "consistency.safetensors", "-n", 4, "-o", local))
    done(call("sample", "hub:ann/consistency", "-n", 4, "-o", far))
    assert (arrays(local) == arrays(far)).all()


def test_python_opens_it_and_it_says_where_it_is_from(names: dict[str, str]) -> None:
    f = fewstep.open_model("hub:ann/consistency")
    exact = f"hub:ann/consistency@{names['hub:ann/consistency']}"
    assert f.info["origin"] == {"source": exact, "hub": exact, "licence": "cc-by-nc-4.0"}
    same = fewstep.open_model("https://huggingface.co/ann/consistency")
    assert torch.equal(fewstep.sample(f, n=2, seed=1), fewstep.sample(same, n=2, seed=1))


def test_info_and_export_and_import_take_it(
    call: Call, tmp_path: Path, names: dict[str, str]
) -> None:
    out = done(call("info", "hub:ann/diffusion"))
    assert f"hub:ann/diffusion@{names['hub:ann/diffusion']}" in out
    assert "cc-by-nc-4.0" in out
    assert "fewstep sample hub:ann/diffusion" in out
    said = json.loads(call("info", "hub:ann/diffusion", "--json")[1])
    assert said["origin"]["licence"] == "cc-by-nc-4.0"
    out = done(call("import", "hub:ann/diffusion", "-o", tmp_path / "mine"))
    assert "a copy of hub:ann/diffusion@" in out
    code, _, err = call("import", "hub:ann/diffusion", "--size", 9, "-o", tmp_path / "other")
    assert (code, "leave out" in err) == (2, True)
    assert fewstep.open_model(tmp_path / "mine").info["origin"]["licence"] == "cc-by-nc-4.0"
    code, _, err = call("export", "hub:ann/consistency", "--to", "edm", "-o", tmp_path / "e.pt")
    assert (code, "no place for the network mlp" in err) == (2, True)


@pytest.mark.usefixtures("names")
def test_it_is_scored_and_searched_and_measured(
    call: Call, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "STEPS", 5)
    few = ["--device", "cpu", "-n", 16]
    table = tmp_path / "scores.json"
    scores = ["--reference", images, "--metrics", "fd", "--bootstrap", 0, "--no-baselines"]
    done(call("evaluate", "hub:ann/consistency", *scores, *few, "-o", table))
    assert "hub:ann/consistency" in table.read_text()
    done(call("likelihood", "hub:ann/diffusion", "--data", images, "--split", "train", "-n", 2))
    search = ["--steps", 2, "--grid", 2, "--rounds", 1, "--seeds", 1, "--reference", images]
    done(call("tune-steps", "hub:ann/consistency", *search, *few))
    done(call("pairs", "hub:ann/diffusion", "-n", 4, "-o", tmp_path / "pairs"))
    manifest = json.loads((tmp_path / "pairs/pairs.json").read_text())
    assert manifest["path"].startswith("hub:ann/diffusion@")
    assert [origin["licence"] for origin in manifest["lineage"]] == ["cc-by-nc-4.0"]


@pytest.mark.usefixtures("names")
def test_it_edits_pictures_and_interpolates(call: Call, tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    done(call("sample", "hub:ann/consistency", "-n", 1, "-o", digits))
    picture, label = next(digits.rglob("*.png")), ("--label", 0)
    o = ("-o", tmp_path / "o.png")
    box = ("--box", 0, 0, 4, 4)
    done(call("edit", "inpaint", "hub:ann/consistency", picture, *box, *label, *o))
    done(call("denoise", "hub:ann/diffusion", picture, "--sigma", 0.5, *label, *o))
    teacher = ("--teacher", "hub:ann/diffusion")
    words = ("--from", picture, "--to", 3, "--frames", 3, *label, *teacher)
    done(call("interpolate", "hub:ann/consistency", *words, *o))


def test_a_training_keeps_the_commit_of_its_teacher(
    call: Call, tmp_path: Path, hub: Hub, names: dict[str, str], images: Path
) -> None:
    teacher, run = "hub:ann/diffusion", tmp_path / "cd"
    tiny = ["--steps", 3, "--samples", 8, "--checkpoint-every", 1, "--quiet", "--device", "cpu"]
    tiny += ["--network.width", 8, "--network.blocks", 1, "--network.hidden", 8]
    tiny += ["--data", images, "--batch", 8, "--warmup", 0, "--p.sigma_data", 0.5]
    words = ["train", "digits/cd", *tiny, "--teacher", teacher, "--out", run]
    done(call(*words))
    exact = f"{teacher}@{names[teacher]}"
    record = RunDirectory(run).record()
    assert (record.run.teacher, record.sources["teacher"].path) == (teacher, exact)
    info = fewstep.open_model(run).info
    assert info["teacher"]["path"] == exact
    assert [origin["licence"] for origin in info["lineage"]] == ["cc-by-nc-4.0"]
    hub.add(
        "ann/diffusion", {"model.safetensors": (MODELS / "consistency.safetensors").read_bytes()}
    )
    forget()
    shutil.rmtree(run / "checkpoints/step-3", ignore_errors=True)
    (run / "model.safetensors").unlink()
    done(call("train", run, "--steps", 5, "--quiet"))  # with the very teacher
    assert RunDirectory(run).record().sources["teacher"].path == exact


@pytest.mark.usefixtures("names")
def test_mistakes_with_names_of_the_hub_are_one_line(call: Call, tmp_path: Path) -> None:
    for words, said in {
        ("sample", "hub:"): "names no model of the hub",
        ("sample", "hub:ann/nothing"): "there is no model 'ann/nothing'",
        ("evaluate", "hub:ann/nothing", "--reference", "digits"): "there is no model",
        ("sample", "hf://ann/diffusion"): "of the hub is written hub:ann/diffusion.",
        ("info", "huggingface.co/ann/diffusion"): "is written hub:ann/diffusion.",
        ("train", "hub:ann/diffusion"): "--init hub:ann/diffusion",
        ("train", "digits/ct", "--out", "hub:ann/mine"): "fewstep push",
        ("import", "hub:ann/diffusion", "-o", "hub:ann/mine"): "fewstep push",
        ("sample", "hub:ann/autoencoder/x"): "there is no 'x' in it",
        ("serve", "hub:ann/autoencoder@v3"): "has no revision 'v3'",
    }.items():
        code, _, err = call(*words)
        assert (code, said in err, err.count("\n")) == (2, True, 1), err


def test_a_served_model_has_the_name_of_its_repository() -> None:
    paths = map(Path, ("hub:ann/digits@v1", "hub:bob/digits", "hub:gpt2", "hub:x/y/z.safetensors"))
    assert names_for(list(paths)) == ["ann-digits", "bob-digits", "gpt2", "z"]


def test_a_folder_of_diffusers_is_a_model_of_the_hub(call: Call, hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from diffusers import DDPMScheduler

    from test_diffusers_in import stored, unet

    folder = stored(tmp_path / "ddpm", "DDPMPipeline", unet=unet(), scheduler=DDPMScheduler())
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    card = b"---\nlicense: apache-2.0\n---\n"
    sha = hub.add("ann/ddpm", {**files, "README.md": card, "unet/model.onnx": b"large"})
    near, far = tmp_path / "near.npz", tmp_path / "far.npz"
    done(call("sample", folder, "-n", 1, "--steps", 2, "-o", near))
    done(call("sample", "hub:ann/ddpm", "-n", 1, "--steps", 2, "-o", far))
    assert (arrays(near) == arrays(far)).all()
    assert not any("onnx" in path for _, path in hub.requests)
    done(call("import", "hub:ann/ddpm", "-o", tmp_path / "mine"))
    origin = fewstep.open_model(tmp_path / "mine").info["origin"]
    assert (origin["hub"], origin["licence"]) == (f"hub:ann/ddpm@{sha}", "apache-2.0")
