"""The training images nearest to a picture, and what the server says where they are not at hand."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import EDM, MLP, FlowMap, save_images
from fewstep.errors import FewstepError
from fewstep.evaluation.copies import neighbours_of
from fewstep.recipes import RECIPES
from fewstep.runs.directory import RunDirectory
from fewstep.runs.record import Record

pytest.importorskip("fastapi", reason="needs the serve extra")

from fastapi.testclient import TestClient

from fewstep.serving import Engine, Shelf
from fewstep.serving.app import create_app
from fewstep.serving.neighbours import TrainingImages

SHAPE, N = (1, 8, 8), 40


def images(n: int = N) -> torch.Tensor:
    random = np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    return torch.from_numpy(random)


def text(image: torch.Tensor) -> str:
    file = BytesIO()
    Image.fromarray(image[0].numpy()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def distances(image: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return (image.double() - others.double()).flatten(1).square().mean(1).sqrt()


def test_the_nearest_come_first_with_their_distances() -> None:
    train = images()
    image = train[7].float().add(3 * torch.randn(SHAPE)).clamp(0, 255).round().to(torch.uint8)
    expected = distances(image, train)
    found = neighbours_of(image, train, 5)
    assert [one.which for one in found] == expected.argsort()[:5].tolist()
    assert found[0].which == 7
    for one in found:
        assert one.distance == pytest.approx(float(expected[one.which]), rel=1e-4)
    assert neighbours_of(train[3], train, 1)[0][:2] == (3, 0.0)
    assert len(neighbours_of(image, train[:4], 9)) == 4


def test_a_mirrored_original_is_found_once() -> None:
    train = images()
    found = neighbours_of(train[5].flip(-1), train, 25, mirrored=True)
    assert found[0] == (5, 0.0, True)
    assert len({one.which for one in found}) == len(found) == 25
    assert neighbours_of(train[5].flip(-1), train, 1)[0].distance > 0
    with pytest.raises(FewstepError, match="of one shape"):
        neighbours_of(torch.zeros(1, 4, 4, dtype=torch.uint8), train, 1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a model, and its images beside it."""
    save_images(images(), tmp_path / "data.npz", torch.arange(N) % 2, ["cat", "dog"])
    settings = {"data": str(tmp_path / "data.npz"), "flip": True}
    record = Record(recipe="digits/ct", run=RECIPES["digits/ct"]().override(settings))
    RunDirectory(tmp_path / "mine").write(record)
    f = FlowMap(MLP(SHAPE, width=8, blocks=1), EDM(T=20.0), info={"kind": "consistency"})
    f.save(tmp_path / "mine" / "model.safetensors")
    return tmp_path / "mine"


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    opened: list[TestClient] = []

    def serve(*places: Path, shown: bool = True) -> TestClient:
        shelf = Shelf.open(places)
        training = TrainingImages(shelf.places, shown=shown)
        app = create_app(Engine(shelf.models), shelf, training=training)
        opened.append(TestClient(app, base_url="http://localhost"))
        return opened[-1].__enter__()

    yield serve
    for client in opened:
        client.__exit__(None, None, None)


def ask(client: TestClient, status: int = 200, **body: Any) -> Any:
    answer = client.post("/v1/images/neighbours", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def about(client: TestClient) -> dict[str, Any]:
    return client.get("/v1/models").json()["data"][0]


def test_the_server_shows_training_images(run: Path, serve: Callable[..., TestClient]) -> None:
    client = serve(run)
    assert about(client)["training_images_missing"] is None
    found = ask(client, image=text(images()[9].flip(-1)), n=3)
    assert (found["images"], found["model"], len(found["data"])) == (N, "mine", 3)
    first = found["data"][0]
    assert (first["index"], first["distance"], first["mirrored"]) == (9, 0.0, True)
    assert first["class"] == "dog"
    sent = np.asarray(Image.open(BytesIO(base64.b64decode(first["b64_json"]))))
    assert (sent == images()[9, 0].numpy()).all()


def test_what_cannot_be_looked_for(run: Path, serve: Callable[..., TestClient]) -> None:
    client = serve(run)
    small = torch.zeros(1, 4, 8, dtype=torch.uint8)
    assert "has 8x4 pixels" in ask(client, 400, image=text(small))["error"]["message"]
    assert "not base64" in ask(client, 400, image="!")["error"]["message"]
    ask(client, 422, image=text(images()[0]), n=0)
    ask(client, 400, image=text(images()[0]), model="other")


def test_what_is_sent_is_looked_at_before_it_is_unpacked(
    run: Path, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(run)
    monkeypatch.setattr("fewstep.serving.images.read", lambda *given: pytest.fail("unpacked"))
    large = torch.zeros(1, 2048, 2048, dtype=torch.uint8)
    assert "has 2048x2048 pixels" in ask(client, 400, image=text(large))["error"]["message"]
    assert "values" in ask(client, 400, image=[0] * 2000)["error"]["message"]
    answer = client.post("/v1/images/neighbours", content=b"x")
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("moved", "not where they were"),
        ("alone", "served as a model alone"),
        ("hub", "data set of the hub"),
        ("hidden", "which others can reach"),
        ("memory", "images in memory"),
    ],
)
def test_why_they_are_not_at_hand_is_said(
    change: str, hint: str, run: Path, serve: Callable[..., TestClient]
) -> None:
    home = RunDirectory(run)
    if change == "moved":
        (run.parent / "data.npz").unlink()
    if change in ("hub", "memory"):
        record = home.record()
        data = "hub:somebody/cats" if change == "hub" else None
        home.write(replace(record, run=record.run.override({"data": data})))
    place = run / "model.safetensors" if change == "alone" else run
    client = serve(place, shown=change != "hidden")
    assert hint in about(client)["training_images_missing"]
    said = ask(client, 400, image=text(images()[0]))["error"]["message"]
    assert said.startswith("the training images of")
    assert hint in said


def test_the_pace_of_a_model_is_known_once_it_has_made_images(
    run: Path, serve: Callable[..., TestClient]
) -> None:
    client = serve(run)
    assert about(client)["seconds_per_image"] is None
    assert client.post("/v1/images/generations", json={"n": 2, "seed": 0}).status_code == 200
    assert 0 < about(client)["seconds_per_image"] < 60


def test_looking_for_them_holds_nothing_else_up(
    run: Path, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many requests for a large set of images one is worked on, and the others wait for it."""
    begun: list[None] = []
    go = Event()

    def nearest(*_: Any) -> dict[str, Any]:
        begun.append(None)
        go.wait(60)
        return {"data": []}

    monkeypatch.setattr(TrainingImages, "nearest", nearest)
    client, many = serve(run), 40  # more than there are threads for small work
    with ThreadPoolExecutor(many) as pool:
        asked = [pool.submit(ask, client, image=text(images()[0])) for _ in range(many)]
        while not begun:
            sleep(0.01)
        assert about(client)["id"] == "mine"
        assert len(begun) == 1
        go.set()
        assert all(one.result()["data"] == [] for one in asked)
