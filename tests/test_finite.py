"""A model whose output is not a number gives an error, never a picture or a score."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import fewstep
from fewstep.editing import Inpaint, decode, denoise, edit, encode, latents, sdedit
from fewstep.errors import NotFinite
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM
from fewstep.sampling import sampler_for
from fewstep.serving import Engine, Generation, Shelf
from fewstep.serving.app import create_app

BAD = 1  # the class whose images are not finite
NONE = float("nan")


def network_map(kind: str = "consistency", value: float = NONE) -> FlowMap:
    """A model that gives ``value`` for one of its classes and numbers for the others."""
    torch.manual_seed(0)
    F = MLP((1, 4, 4), num_classes=3, width=16, blocks=1)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        F.embed_label.weight[BAD] = value
    return FlowMap(F, EDM(), info={"kind": kind}).eval()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bytes_are_made_of_numbers_alone(value: float) -> None:
    x = torch.zeros(5, 1, 2, 2)
    x[3, 0, 1, 1] = value
    with pytest.raises(NotFinite, match="1 of 5"):
        fewstep.to_uint8(x)
    with pytest.raises(NotFinite):
        fewstep.to_uint8(torch.tensor(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["consistency", "diffusion"])
def test_one_image_of_many_is_found(kind: str, value: float) -> None:
    f = network_map(kind, value)
    with pytest.raises(NotFinite, match="1 of 2 images"):
        fewstep.sample(f, 5, sampler_for(f, 2), batch=2)
    good = torch.zeros(5, dtype=torch.int64)
    assert fewstep.sample(f, 5, sampler_for(f, 2), labels=good).isfinite().all()


def test_edits_and_walks() -> None:
    f, teacher, y = network_map(), network_map("diffusion"), torch.zeros(2, 1, 4, 4)
    labels = torch.tensor([0, BAD])
    keep = torch.ones(4, 4)
    keep[0, 0] = 0
    for call in (
        lambda: edit(f, y, Inpaint(keep), labels=labels),
        lambda: sdedit(f, y, labels=labels),
        lambda: denoise(f, y, 0.5, labels=labels),
        lambda: decode(f, latents(f, [0, 1]), labels=labels),
        lambda: encode(teacher, y, N=2, labels=labels),
        lambda: fewstep.Likelihood(N=2, solver="heun").bits_per_dim(
            teacher, y.to(torch.uint8), labels=labels
        ),
    ):
        with pytest.raises(NotFinite, match="1 of 2 images"):
            call()


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "f", "-n", "4", "-o", "x.npz"],
        ["interpolate", "f", "--from", "1", "-o", "x.png"],
        ["edit", "inpaint", "f", "in.png", "--box", *"0022", "--label", BAD, "-o", "x.png"],
        ["edit", "vary", "f", "in.png", "--label", BAD, "-o", "x.png"],
        ["denoise", "f", "in.png", "--label", BAD, "-o", "x.png"],
        ["pairs", "t", "-n", "4", "--steps", "2", "-o", "p"],
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)  # fmt: skip
def test_a_command_ends_in_one_line(
    words: list[object],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.chdir(picture.parent)
    network_map().save("f.safetensors")
    network_map("diffusion").save("t.safetensors")
    models = {"f": "f.safetensors", "t": "t.safetensors"}
    code, _, err = call(*[models.get(word, word) for word in words])  # type: ignore[call-overload]
    assert code == 2
    assert "is not finite" in err
    assert len(err.strip().splitlines()) == 1
    assert not Path(str(words[-1])).is_file()


@pytest.fixture
def client() -> Iterator[TestClient]:
    models = {"f": network_map(), "t": network_map("diffusion")}
    app = create_app(Engine(models), Shelf(models))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("generations", {"n": 3}),
        ("generations", {"n": 3, "response_format": "png"}),
        ("generations", {"class": BAD, "stream": True}),
        ("generations", {"class": BAD, "model": "t", "steps": 2}),
        ("edits", {"task": "vary", "class": BAD}),
        ("interpolations", {"from": {"seed": 0}, "to": {"seed": 1}, "class": BAD}),
    ],
)
def test_the_api_answers_500_in_the_form_of_all_errors(
    route: str, body: dict, client: TestClient, picture: Path
) -> None:
    if route == "edits":
        body = body | {"image": base64.b64encode(picture.read_bytes()).decode()}
    answer = client.post(f"/v1/images/{route}", json=body)
    assert answer.status_code == 500
    found = answer.json()["error"]
    assert "the model's output is not finite" in found["message"]
    assert (found["type"], found["code"]) == ("server_error", "not_finite")


def test_a_stream_ends_in_an_error(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step fails after the first has been shown."""
    forward, calls = FlowMap.forward, [0]

    def breaks(self: FlowMap, *a: object, **k: object) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *a, **k) * (1 if calls[0] == 1 else NONE)  # type: ignore[arg-type]

    monkeypatch.setattr(FlowMap, "forward", breaks)
    answer = client.post("/v1/images/generations", json={"steps": 2, "stream": True, "class": 0})
    kinds = [line.split(": ")[1] for line in answer.text.splitlines() if line.startswith("event")]
    assert kinds == ["image.partial", "error"]
    data = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
    assert data["error"]["code"] == "not_finite"


def test_what_shares_a_batch_with_it_is_answered() -> None:
    f = network_map()
    engine = Engine({"f": f}, wait=0.2)
    sampler = sampler_for(f, 1)
    try:
        futures = [engine.submit(Generation("f", sampler, 0, 1, [c])) for c in (0, BAD, 2)]
        assert futures[0].result(30).shape == futures[2].result(30).shape == (1, 1, 4, 4)
        with pytest.raises(NotFinite):
            futures[1].result(30)
        assert engine.counts.batches == 1
    finally:
        engine.close()
