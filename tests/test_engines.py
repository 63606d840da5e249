"""Engines: the same images by whatever evaluates the network, and files that fit their model."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import nn

from fewstep.cache import cache_folder
from fewstep.data import to_uint8
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.engines import ENGINES, Engine, _key, engine_of
from fewstep.exchange.graphs.graph import Graph
from fewstep.exchange.graphs.parts import parts_of
from fewstep.exchange.graphs.runtime import opened
from fewstep.exchange.graphs.written import write_onnx
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.networks import MLP, MLPAutoencoder
from fewstep.parameterization import EDM
from fewstep.sampling import Asked, sample, sampler_for
from fewstep.serving.app import create_app
from fewstep.serving.engine import Engine as Worker
from fewstep.serving.shelf import Shelf
from fewstep.trained import CONSISTENCY, Trained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def filled(module: nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    return module.eval()


def small(trained: Trained = CONSISTENCY, seed: int = 0) -> FlowMap:
    latents = Latents(filled(MLPAutoencoder((1, 4, 4), latents=5, width=16, blocks=1)))
    F = filled(MLP((5,), num_classes=3, width=16, blocks=1), seed)
    return FlowMap(F, EDM(T=20.0), trained=trained, latents=latents)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the small model in a file, and the model beside it."""
    folder = tmp_path_factory.mktemp("exported")
    f = small()
    f.info["origin"] = {"file": "x.pt", "licence": "CC-BY-NC-4.0", "project": "theirs"}
    f.save(folder / "model.safetensors")
    write_onnx(Graph(f, sampler_for(f, 2)), folder / "two.onnx")
    return folder


def made(engine: Engine, f: FlowMap, asked: Asked) -> torch.Tensor:
    model = engine.model(f)
    return sample(model, 5, engine.sampler(model, asked), seed=3)


def test_onnxruntime_makes_the_images_of_torch() -> None:
    """Any sampler, with the noise of a seed; the decoder of a latent space runs there too."""
    f = small()
    engine = engine_of("onnx")
    for steps in (1, 3):
        expected = made(ENGINES["torch"](), f, Asked(steps=steps))
        torch.testing.assert_close(made(engine, f, Asked(steps=steps)), expected, atol=1e-4, rtol=0)
    kept = list((cache_folder() / "graphs").glob("*.onnx"))
    assert len(kept) == 2  # network and decoder
    kept[0].write_bytes(b"damaged")
    again = made(engine_of("onnx"), f, Asked(steps=3))
    torch.testing.assert_close(again, expected, atol=1e-4, rtol=0)
    assert len({_key(part) for model in (f, small(seed=1)) for part in parts_of(model)}) == 3


def test_an_exported_sampler_is_an_engine_for_its_model_alone(exported: Path) -> None:
    f = FlowMap.load(exported / "model.safetensors")
    engine = engine_of(f"onnx:{exported / 'two.onnx'}")
    expected = made(ENGINES["torch"](), f, Asked(steps=2))
    for asked in (Asked(), Asked(steps=2), Asked(sampler="jumps(steps=2)")):
        torch.testing.assert_close(made(engine, f, asked), expected, atol=1e-4, rtol=0)
    with pytest.raises(FewstepError, match=r"two.onnx holds jumps.*, and jumps was asked for"):
        engine.sampler(f, Asked(steps=1))
    with pytest.raises(FewstepError, match="is of another model"):
        engine.model(small(seed=1))
    with pytest.raises(FewstepError, match="one sampler"):
        engine.check_any_time()


def test_a_file_says_what_it_is_of(exported: Path) -> None:
    about = opened(exported / "two.onnx").about
    f = FlowMap.load(exported / "model.safetensors")
    assert about["model"] == f.fingerprint
    assert about["sampler"] == sampler_for(f, 2).spec
    assert about["licence"] == "CC-BY-NC-4.0"
    assert about["origin"]["project"] == "theirs"
    assert about["image_shape"] == [1, 4, 4]


ALONE = """
import json, sys
sys.modules["torch"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
noise = np.load(sys.argv[2])
(images,) = session.run(None, {"noise": noise, "label": np.array([0, 2])})
np.save(sys.argv[3], images)
print(session.get_modelmeta().custom_metadata_map["fewstep"])
"""


def test_a_file_runs_without_torch(exported: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 2, 5), dtype=np.float32)
    np.save(tmp_path / "noise.npy", noise)
    words = [exported / "two.onnx", tmp_path / "noise.npy", tmp_path / "images.npy"]
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, *words], capture_output=True, text=True, check=True
    )
    assert json.loads(ran.stdout)["kind"] == "sampler"
    f = FlowMap.load(exported / "model.safetensors")
    with torch.no_grad():
        graph = Graph(f, sampler_for(f, 2))
        expected = graph(torch.from_numpy(noise), torch.tensor([0, 2]))
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), expected.numpy(), atol=1e-4)


def test_engines_that_are_none_are_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    for text, said in (
        ("onnxx", "unknown engine 'onnxx'"),
        ("torch:x", "unknown engine"),
        (f"onnx:{tmp_path / 'none.onnx'}", "there is no ONNX file"),
        (f"onnx:{tmp_path / 'text.onnx'}", "text.onnx is no ONNX graph that onnxruntime runs"),
    ):
        with pytest.raises(FewstepError) as error:
            engine_of(text)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(FewstepError, match="no sampler that fewstep export"):
        engine_of(f"onnx:{next((cache_folder() / 'graphs').glob('*.onnx'))}")
    with pytest.raises(FewstepError, match="computes on the CPU"):
        engine_of("onnx").device("cuda")
    with pytest.raises(FewstepError, match="leave out --precision"):
        engine_of(f"onnx:{exported / 'two.onnx'}", "fp16")
    with pytest.raises(FewstepError, match="bfloat16"):
        engine_of("onnx").model(small().in_precision("bf16"))


def test_commands_and_settings_name_the_engine(exported: Path, tmp_path: Path, call: Any) -> None:
    model, file = exported / "model.safetensors", f"onnx:{exported / 'two.onnx'}"
    for engine, more in (("torch", ["--steps", "2"]), ("onnx", ["--steps", "2"]), (file, [])):
        out = tmp_path / f"{engine[:5].strip(':')}{len(more)}.npz"
        code, said, _ = call("sample", model, "-n", "6", "--engine", engine, "-o", out, *more)
        assert code == 0
        assert ("on onnx" in said) == (engine != "torch")
    first, *others = [np.load(path)["arr_0"].astype(int) for path in sorted(tmp_path.glob("*.npz"))]
    for images in others:
        assert (images != first).mean() < 0.01
        assert abs(images - first).max() <= 1
    code, _, said = call(
        "sample", model, "--engine", file, "--steps", "3", "-o", tmp_path / "x.png"
    )
    assert code == 2
    assert said.count("\n") == 1


def test_pictures_and_answers_name_the_engine(exported: Path, tmp_path: Path, call: Any) -> None:
    model, file = exported / "model.safetensors", exported / "two.onnx"
    code, _, said = call(
        "sample", model, "-n", "3", "--engine", f"onnx:{file}", "-o", tmp_path / "x"
    )
    assert code == 0, said
    for i, name in enumerate("012"):
        picture: Any = Image.open(tmp_path / "x" / name / f"{i:05d}.png")
        found = json.loads(picture.text["fewstep"])
        assert (found["index"], found["class"], found["seed"]) == (i, name, 0)
        assert found["engine"].startswith("onnx:two.onnx")
        assert found["sampler"] == opened(file).about["sampler"]


def test_a_grid_says_the_class_that_was_asked_for(
    exported: Path, tmp_path: Path, call: Any
) -> None:
    model, out = exported / "model.safetensors", tmp_path / "x.png"
    for given, name in (((), None), (("--label", "1"), "1")):
        assert call("sample", model, "-n", "3", *given, "-o", out)[0] == 0
        picture: Any = Image.open(out)
        assert json.loads(picture.text["fewstep"]).get("class") == name


def test_a_server_names_its_engine_and_makes_its_images(exported: Path) -> None:
    f = FlowMap.load(exported / "model.safetensors")
    for name, steps in (("onnx", 3), (f"onnx:{exported / 'two.onnx'}", 2)):
        engine = engine_of(name)
        shelf = Shelf({"small": engine.model(f)}, engine)
        app = create_app(Worker(shelf.models), shelf)
        with TestClient(app, base_url="http://localhost") as client:
            assert client.get("/health").json()["engine"] == engine.name
            about = client.get("/v1/models").json()["data"][0]
            assert about["engine"] == engine.name
            asked = {"n": 2, "seed": 3} | ({"steps": steps} if name == "onnx" else {})
            answer = client.post("/v1/images/generations", json=asked).json()
            assert (answer["engine"], answer["steps"]) == (engine.name, steps)
            expected = to_uint8(sample(f, 2, steps=steps, seed=3)).int()
            for image, entry in zip(expected, answer["data"], strict=True):
                picture: Any = Image.open(BytesIO(base64.b64decode(entry["b64_json"])))
                assert json.loads(picture.text["fewstep"])["engine"] == engine.name
                assert abs(torch.tensor(np.array(picture)).int() - image[0]).max() <= 1
            if name != "onnx":
                said = client.post("/v1/images/generations", json={"steps": 3}).json()["error"]
                assert "holds jumps" in said["message"]
