"""Prompts in the API: a text becomes an embedding, which the model is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import Tensor

import fewstep
from fewstep.data import to_uint8
from fewstep.data.encoders import TextReader
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import DiT
from fewstep.parameterization import EDM
from fewstep.serving import Engine, Generation, Shelf
from fewstep.serving.app import create_app
from fewstep.serving.limits import Limits

ENCODER = """
import pathlib
import torch

WORDS = ("red", "blue", "cat")
CALLS = pathlib.Path(__file__).with_suffix(".calls")


def encode(texts):
    with CALLS.open("a") as file:
        file.writelines(text + chr(10) for text in texts)
    if "nothing" in texts:
        raise ValueError("no such words")
    return torch.tensor([[float(word in text) for word in WORDS] for text in texts])


def wide(texts):
    return torch.ones(len(texts), 7)
"""


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.py"
    path.write_text(ENCODER)
    return path


def picture_map(**info: Any) -> FlowMap:
    """A consistency model that is told embeddings of three numbers."""
    torch.manual_seed(0)
    network = DiT((1, 8, 8), embeds=3, patch=4, width=32, blocks=1, heads=2)
    f = FlowMap(network, EDM(T=20.0), info={"kind": "consistency", **info})
    for weight in f.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return f.eval()


def opened(tmp_path: Path, encoder: str | None = None, **info: Any) -> Shelf:
    picture_map(**info).save(tmp_path / "words.safetensors")
    return Shelf.open([tmp_path / "words.safetensors"], encoder=encoder)


def asked(shelf: Shelf, call: Callable[[TestClient], Any]) -> Any:
    with TestClient(create_app(Engine(shelf.models), shelf), base_url="http://localhost") as client:
        return call(client)


def generated(shelf: Shelf, status: int = 200, **body: Any) -> Any:
    answer = asked(shelf, lambda client: client.post("/v1/images/generations", json=body))
    assert answer.status_code == status, answer.text
    return answer.json()


def pixels(entry: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(entry["b64_json"])))).astype(int)


def drawn(f: FlowMap, embedding: Tensor | None, n: int = 2) -> np.ndarray:
    x = fewstep.sample(f, n, steps=2, seed=5, embedding=embedding)
    return to_uint8(x)[:, 0].numpy().astype(int)


def test_a_prompt_is_what_sample_draws_of_its_embedding(tmp_path: Path, words: Path) -> None:
    shelf = opened(tmp_path, encoder=f"{words}:encode")
    (f,) = shelf.models.values()
    found = generated(shelf, n=2, seed=5, steps=2, prompt=" a red cat ")["data"]
    expected = drawn(f, torch.tensor([[1.0, 0.0, 1.0]]))
    for entry, image in zip(found, expected, strict=True):
        assert np.abs(pixels(entry) - image).max() <= 1
        stored = Image.open(BytesIO(base64.b64decode(entry["b64_json"]))).text["fewstep"]  # type: ignore[attr-defined]
        assert json.loads(stored)["prompt"] == "a red cat"
    without = generated(shelf, n=2, seed=5, steps=2)["data"]
    assert np.abs(pixels(without[0]) - drawn(f, None)[0]).max() <= 1
    assert np.abs(pixels(without[0]) - expected[0]).max() > 5
    (told,) = asked(shelf, lambda client: client.get("/v1/models").json()["data"])
    assert told["prompts"]


def test_texts_of_several_requests_share_a_batch_and_stay_apart(tmp_path: Path) -> None:
    f = picture_map()
    told = [torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])]
    sampler = fewstep.sampling.sampler_for(f, 2)
    works = [Generation("m", sampler, 5, 2, embedding=embedding) for embedding in told]
    assert works[0].key == works[1].key != Generation("m", sampler, 5, 2).key
    with torch.inference_mode():
        found = Generation.run(f, works, rows=8)
    for images, embedding in zip(found, told, strict=True):
        assert isinstance(images, Tensor)
        assert np.abs(images[:, 0].numpy().astype(int) - drawn(f, embedding)).max() <= 1


def test_a_reader_reads_a_text_once(words: Path) -> None:
    read = TextReader(f"{words}:encode")
    assert read("a blue cat").tolist() == [[0.0, 1.0, 1.0]]
    assert read("a blue cat").tolist() == read("a blue cat").tolist()
    assert words.with_suffix(".calls").read_text() == "a blue cat\n"


def test_what_the_encoder_cannot_is_said(tmp_path: Path, words: Path) -> None:
    shelf = opened(tmp_path, encoder=f"{words}:encode")
    message = generated(shelf, 400, prompt="nothing")["error"]["message"]
    assert "ValueError: no such words" in message
    message = generated(opened(tmp_path, encoder=f"{words}:wide"), 400, prompt="x")["error"][
        "message"
    ]
    assert "take embeddings [1, 3]" in message


def test_a_prompt_that_takes_too_long_is_given_up_in_words(tmp_path: Path) -> None:
    gate = Event()
    shelf = opened(tmp_path)
    shelf.readers["words"] = lambda text: gate.wait(60)  # type: ignore[assignment]
    app = create_app(Engine(shelf.models), shelf, limits=Limits(seconds=0.05))
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a red cat"})
        gate.set()
    assert answer.status_code == 504
    assert "the prompt was not read within 0.05 s" in answer.json()["error"]["message"]


def test_frames_show_the_prompt(tmp_path: Path, words: Path) -> None:
    shelf = opened(tmp_path, encoder=f"{words}:encode")
    ends = {"from": {"seed": 5}, "to": {"seed": 6}, "frames": 2, "steps": 1}
    body = {**ends, "prompt": "a red cat"}
    answer = asked(shelf, lambda client: client.post("/v1/images/interpolations", json=body))
    start = generated(shelf, n=1, seed=5, steps=1, prompt="a red cat")["data"][0]
    frame = answer.json()["data"][0]
    assert np.abs(pixels(frame) - pixels(start)).max() <= 1
    stored = Image.open(BytesIO(base64.b64decode(frame["b64_json"]))).text["fewstep"]  # type: ignore[attr-defined]
    assert json.loads(stored)["prompt"] == "a red cat"


def test_without_an_encoder_the_prompt_is_not_looked_at(tmp_path: Path, words: Path) -> None:
    answer = generated(opened(tmp_path), prompt="a red cat", seed=1)
    assert answer["notes"] == [
        "the prompt is not looked at: nothing here makes an embedding of it."
    ]
    picture_map(encoder="gone.py:encode").save(tmp_path / "words.safetensors")
    with pytest.warns(FewstepWarning, match=r"served without prompts: .*no file gone\.py"):
        shelf = Shelf.open([tmp_path / "words.safetensors"])
    assert not shelf.readers
    with pytest.raises(FewstepError, match=r"no file gone\.py"):
        opened(tmp_path, encoder="gone.py:encode")
    (tmp_path / "grey").mkdir()
    network = DiT((1, 8, 8), patch=4, width=32, blocks=1, heads=2)
    plain = FlowMap(network, EDM(), info={"kind": "consistency"})
    plain.save(tmp_path / "grey" / "model.safetensors")
    with pytest.raises(FewstepError, match="no model here is told embeddings"):
        Shelf.open([tmp_path / "grey" / "model.safetensors"], encoder=f"{words}:encode")
