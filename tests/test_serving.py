"""The HTTP API and its engine, in this process: answers, batches, limits, one clear error each."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import foreign
from fewstep.cli.launch import Place
from fewstep.data import to_uint8
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.networks import MLP, UNet
from fewstep.parameterization import EDM
from fewstep.sampling import Walk, sample, sampler_for
from fewstep.serving import (
    Busy,
    Call,
    Closed,
    Engine,
    Generation,
    Shelf,
    answers,
    images,
)
from fewstep.serving.answers import Limits
from fewstep.serving.app import create_app
from fewstep.serving.images import from_base64, png
from fewstep.serving.server import Settings, bind
from fewstep.serving.shelf import names_for

CANVAS = (8, 12)
NAMES = ["ant", "bee", "cat"]
LIMITS = Limits(n=8, steps=20, body=200_000, pixels=100_000, parts=64)


def network_map(channels: int, classes: int = 0, kind: str = "consistency") -> FlowMap:
    f = FlowMap(
        MLP((channels, *CANVAS), num_classes=classes, width=16, blocks=1),
        EDM(T=20.0),
        info={"kind": kind, "classes": NAMES[:classes]},
    )
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return f.eval()


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    torch.manual_seed(0)
    return Shelf(
        {
            "grey": network_map(1, 3),
            "colour": network_map(3),
            "teacher": network_map(1, 3, "diffusion"),
        }
    )


@pytest.fixture(scope="module")
def client(shelf: Shelf) -> Iterator[TestClient]:
    app = create_app(Engine(shelf.models), shelf, limits=LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def post(client: TestClient, what: str, status: int = 200, **body: Any) -> Any:
    answer = client.post(f"/v1/images/{what}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(client: TestClient, what: str, status: int = 400, **body: Any) -> str:
    """The message of an error, which has the shape that all have."""
    found = post(client, what, status, **body)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"message", "type", "param", "code"}
    return found["error"]["message"]


def pixels(b64: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(b64))))


def settings(b64: str) -> dict[str, Any]:
    return json.loads(Image.open(BytesIO(base64.b64decode(b64))).text["fewstep"])  # type: ignore[attr-defined]


def drawn(size: tuple[int, int] = CANVAS, mode: str = "RGB", format_: str = "PNG") -> bytes:
    random = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(random).convert(mode).save(file, format=format_)
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Generations


def test_models_are_described(client: TestClient) -> None:
    found = client.get("/v1/models").json()["data"]
    grey, colour, teacher = found
    assert [m["id"] for m in found] == ["grey", "colour", "teacher"]
    assert grey["classes"] == NAMES
    assert colour["classes"] is None
    assert (grey["default"], colour["default"]) == (True, False)
    assert "colourise" in colour["tasks"]
    assert "colourise" not in grey["tasks"]
    assert teacher["tasks"] == ["denoise"]
    assert (teacher["default_steps"], teacher["max_steps"]) == (18, 20)
    assert (teacher["max_n"], teacher["max_pixels"]) == (8, 100_000)


@pytest.mark.parametrize(("model", "steps"), [("grey", 1), ("grey", 3), ("teacher", 4)])
def test_images_are_those_of_sample(
    model: str, steps: int, client: TestClient, shelf: Shelf
) -> None:
    found = post(client, "generations", model=model, n=5, seed=7, steps=steps)
    f = shelf.models[model]
    expected = to_uint8(sample(f, 5, sampler_for(f, steps), seed=7))
    assert [d["class"] for d in found["data"]] == ["ant", "bee", "cat", "ant", "bee"]
    for i, entry in enumerate(found["data"]):
        assert np.abs(pixels(entry["b64_json"]).astype(int) - expected[i, 0].numpy()).max() <= 1
        assert settings(entry["b64_json"]) == {
            "fewstep": settings(entry["b64_json"])["fewstep"],
            "model": model,
            "seed": 7,
            "steps": steps,
            "class": entry["class"],
            "engine": "torch",
            "sampler": sampler_for(f, steps).spec,
            "index": i,
        }


@pytest.mark.parametrize(
    ("model", "body", "spec", "steps"),
    [
        ("grey", {"sampler": "jumps(times=(2.0, 0.5))"}, "jumps(times=(2.0, 0.5))", 3),
        ("grey", {"sampler": "jumps", "steps": 1}, "jumps", 1),
        (
            "teacher",
            {"sampler": "walk( nfe=6, solver=dpm3 )"},
            "walk(solver=dpm3, nfe=6)",
            3,
        ),
        ("teacher", {"sampler": "walk(solver=ddim(eta=1))", "steps": 4}, None, 4),
    ],
)
def test_images_are_made_by_the_sampler_asked_for(
    model: str, body: dict[str, Any], spec: str | None, steps: int, client: TestClient, shelf: Shelf
) -> None:
    found = post(client, "generations", model=model, n=2, seed=7, strip=True, **body)
    f = shelf.models[model]
    sampler = sampler_for(f, body.get("steps"), sampler=body["sampler"])
    expected = to_uint8(sample(f, 2, sampler, seed=7))
    for i, entry in enumerate(found["data"]):
        assert np.abs(pixels(entry["b64_json"]).astype(int) - expected[i, 0].numpy()).max() <= 1
        told = settings(entry["b64_json"])
        assert told["sampler"] == (spec or sampler.spec)
        assert told["steps"] == len(entry["strip"]) == found["steps"] == steps
    again = post(client, "generations", model=model, n=2, seed=7, sampler=told["sampler"])
    assert [d["b64_json"] for d in again["data"]] == [d["b64_json"] for d in found["data"]]


def test_images_and_frames_are_guided_as_asked() -> None:
    f = network_map(1, 3, "diffusion")
    f.trained = replace(f.trained, null_class=True)
    shelf = Shelf({"guided": f, "teacher": network_map(1, 3, "diffusion")})
    app = create_app(Engine(shelf.models), shelf, limits=LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        described = client.get("/v1/models").json()["data"]
        assert [(m["guides"], m["guidance"]) for m in described] == [(True, None), (False, None)]
        asked = {"guidance": 2.5, "guidance_interval": [0.3, 5.0]}
        found = post(client, "generations", n=2, seed=7, steps=4, **asked)
        expected = to_uint8(sample(f, 2, steps=4, seed=7, guidance=Guided(2.5, (0.3, 5.0))))
        for i, entry in enumerate(found["data"]):
            made = pixels(entry["b64_json"]).astype(int)
            assert np.abs(made - expected[i, 0].numpy()).max() <= 1
            told = settings(entry["b64_json"])["sampler"]
            assert told == "walk(steps=4, guidance=guided(w=2.5, interval=(0.3, 5.0)))"
        ends: dict[str, Any] = {"from": {"seed": 7}, "to": {"seed": 8}, "class": 0}
        frames = post(client, "interpolations", frames=2, steps=4, **ends, **asked)["data"]
        first = pixels(frames[0]["b64_json"]).astype(int)
        assert np.abs(first - expected[0, 0].numpy()).max() <= 1
        message = refused(client, "generations", model="teacher", guidance=2)
        assert "needs a null class" in message
        assert "give both" in refused(client, "generations", guidance_interval=[0.3, 5.0])


@pytest.mark.parametrize("much", ["steps=10000", "nfe=3000", "steps=20, solver=pc(correctors=99)"])
def test_what_takes_too_much_is_refused_before_it_is_fitted(
    much: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = network_map(1, 3, "diffusion")
    f.trained = replace(f.trained, null_class=True)
    shelf = Shelf({"guided": f})
    monkeypatch.setattr(Walk, "fitted", lambda *given: pytest.fail("it was fitted"))
    spec = f"walk(guidance=guided(w=2, interval=(0.1, 3)), {much})"
    ends = {"from": {"seed": 0}, "to": {"seed": 1}, "frames": 2}
    app = create_app(Engine(shelf.models), shelf, limits=LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        for what, body in (("generations", {}), ("interpolations", ends)):
            message = refused(client, what, sampler=spec, **body)
            assert "at most 80" in message


def test_a_sampler_is_fitted_aside(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def fitted(self: Walk, f: FlowMap) -> Walk:
        threads.append(threading.current_thread().name)
        return self

    monkeypatch.setattr(Walk, "fitted", fitted)
    post(client, "generations", model="teacher", sampler="walk(steps=7)")
    assert threads[0].startswith("aside")


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("generations", {"n": 4, "steps": 3, "strip": True}),
        ("interpolations", {"from": {"seed": 0}, "to": {"seed": 1}, "frames": 8}),
    ],
)
def test_the_pixels_of_an_answer_are_bounded_without_a_size(
    what: str, body: dict[str, Any], shelf: Shelf
) -> None:
    app = create_app(Engine(shelf.models), shelf, limits=replace(LIMITS, pixels=700))
    with TestClient(app, base_url="http://localhost") as client:
        assert "at most 700" in refused(client, what, **body)
        assert post(client, "generations", n=4)["data"]


@pytest.mark.parametrize("label", [1, "bee", "1"])
def test_a_class_by_number_or_name(label: int | str, client: TestClient) -> None:
    found = post(client, "generations", n=2, seed=1, **{"class": label})
    by_prompt = post(client, "generations", n=2, seed=1, prompt="bee")
    assert [d["class"] for d in found["data"]] == ["bee", "bee"]
    assert found["data"] == by_prompt["data"]


def test_the_seed_is_told_and_decides(client: TestClient) -> None:
    first = post(client, "generations")
    again = post(client, "generations", seed=first["seed"])
    other = post(client, "generations", seed=first["seed"] + 1)
    assert first["data"] == again["data"]
    assert first["data"] != other["data"]


def test_size_repeats_pixels(client: TestClient) -> None:
    small = pixels(post(client, "generations", seed=1)["data"][0]["b64_json"])
    large = pixels(post(client, "generations", seed=1, size="36x24")["data"][0]["b64_json"])
    assert (large == small.repeat(3, 0).repeat(3, 1)).all()


def test_a_png_of_all(client: TestClient) -> None:
    body = {"n": 5, "seed": 1, "response_format": "png"}
    answer = client.post("/v1/images/generations", json=body)
    assert answer.headers["content-type"] == "image/png"
    found = np.asarray(Image.open(BytesIO(answer.content)))
    assert found.shape == (16, 36)
    single = post(client, "generations", n=5, seed=1)["data"][4]["b64_json"]
    assert (found[8:, 12:24] == pixels(single)).all()


@pytest.mark.parametrize("model", ["grey", "teacher"])
def test_a_strip_ends_in_the_image(model: str, client: TestClient) -> None:
    found = post(client, "generations", model=model, n=2, seed=3, steps=4, strip=True)
    for entry in found["data"]:
        assert len(entry["strip"]) == 4
        assert (pixels(entry["strip"][-1]) == pixels(entry["b64_json"])).all()
        assert (pixels(entry["strip"][0]) != pixels(entry["b64_json"])).any()
        assert [settings(step)["step"] for step in entry["strip"]] == [1, 2, 3, 4]


def test_a_stream_shows_every_step(client: TestClient) -> None:
    body = {"n": 2, "seed": 3, "steps": 3, "stream": True, "strip": True}
    with client.stream("POST", "/v1/images/generations", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [block.split("\n") for block in answer.read().decode().strip().split("\n\n")]
    kinds = [kind.removeprefix("event: ") for kind, _ in events]
    data = [json.loads(line.removeprefix("data: ")) for _, line in events]
    assert kinds == ["image.partial"] * 6 + ["image.completed"] * 2 + ["done"]
    assert [(d["step"], d["index"]) for d in data[:6]] == [
        (step, i) for step in (1, 2, 3) for i in (0, 1)
    ]
    plain = post(client, "generations", n=2, seed=3, steps=3, strip=True)
    assert data[-1]["data"] == plain["data"] == data[6:8]


# Batches


def test_what_arrives_together_runs_together_and_changes_nothing() -> None:
    f = network_map(1, 3)
    engine = Engine({"f": f}, max_batch=16, wait=0.2)
    work = [
        Generation("f", sampler_for(f, 2), seed, n, [i % 3 for i in range(n)])
        for seed, n in ((0, 1), (5, 4), (0, 3), (9, 2))
    ]
    try:
        together = [future.result(30) for future in [engine.submit(w) for w in work]]
        assert engine.counts.batches == 1
        assert engine.counts.images == 10
        alone = [engine.submit(w).result(30) for w in work]
        assert engine.counts.batches == 5
    finally:
        engine.close()
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("attention", [(), (4,)])
def test_batches_change_no_bit_of_a_convolutional_network(attention: tuple[int, ...]) -> None:
    F = UNet((3, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=attention)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    f = FlowMap(F, EDM(), info={"kind": "consistency"}).eval()
    work = [Generation("f", sampler_for(f, 1), seed, 1) for seed in range(7)]
    with torch.inference_mode():
        together = Generation.run(f, work, 64)
        alone = [Generation.run(f, [w], 64)[0] for w in work]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_other_steps_make_another_batch_and_large_requests_go_alone() -> None:
    f = network_map(1)
    engine = Engine({"f": f}, max_batch=4, wait=0.05)
    try:
        futures = [
            engine.submit(Generation("f", sampler_for(f, steps), 0, n))
            for steps, n in ((1, 3), (2, 1), (1, 1), (1, 9))
        ]
        assert [len(future.result(30)) for future in futures] == [3, 1, 1, 9]
        assert engine.counts.batches == 3
    finally:
        engine.close()


class Gate:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self.open, self.running = threading.Event(), threading.Event()

    def __call__(self, f: FlowMap) -> str:
        self.running.set()
        assert self.open.wait(30)
        return "done"


@pytest.fixture
def gated() -> Iterator[tuple[Engine, Gate, Future]]:
    """An engine that is busy until its gate opens, with room for two more requests."""
    engine, gate = Engine({"f": network_map(1)}, capacity=2), Gate()
    future = engine.submit(Call("f", gate))
    assert gate.running.wait(30)
    yield engine, gate, future
    gate.open.set()
    engine.close()


def test_a_full_queue_refuses(gated: tuple[Engine, Gate, Future]) -> None:
    engine, gate, first = gated
    waiting = [engine.submit(Call("f", lambda f: None)) for _ in range(2)]
    with pytest.raises(Busy) as busy:
        engine.submit(Call("f", lambda f: 2))
    assert busy.value.seconds >= 1
    waiting[0].cancel()  # makes room
    last = engine.submit(Call("f", lambda f: "last"))
    gate.open.set()
    assert (first.result(30), last.result(30)) == ("done", "last")


def test_closing_finishes_what_was_accepted(gated: tuple[Engine, Gate, Future]) -> None:
    engine, gate, first = gated
    second = engine.submit(Call("f", lambda f: "second"))
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine.closed:
        time.sleep(0.001)
    with pytest.raises(Closed):
        engine.submit(Call("f", lambda f: None))
    gate.open.set()
    closing.join(30)
    assert (first.result(0), second.result(0)) == ("done", "second")


def test_cancelled_work_does_not_run(gated: tuple[Engine, Gate, Future]) -> None:
    engine, gate, _ = gated
    ran: list[int] = []
    future = engine.submit(Call("f", lambda f: ran.append(1)))
    assert future.cancel()
    gate.open.set()
    assert engine.submit(Call("f", lambda f: "next")).result(30) == "next"
    assert ran == []
    assert engine.counts.cancelled == 1


def test_an_error_in_a_model_reaches_its_caller_alone() -> None:
    engine = Engine({"f": network_map(1)})

    def broken(f: FlowMap) -> None:
        raise ZeroDivisionError

    try:
        with pytest.raises(ZeroDivisionError):
            engine.submit(Call("f", broken)).result(30)
        assert engine.submit(Call("f", lambda f: "fine")).result(30) == "fine"
    finally:
        engine.close()


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"capacity": 0}, {"wait": -1}, {"wait": 2}])
def test_limits_of_the_engine(wrong: dict[str, Any]) -> None:
    with pytest.raises(FewstepError, match="serving needs"):
        Engine({}, **wrong)


def served(gate: Gate, limits: Limits, capacity: int = 1) -> tuple[Engine, TestClient]:
    f = network_map(1)
    engine = Engine({"f": f}, capacity=capacity)
    engine.submit(Call("f", gate))
    assert gate.running.wait(30)
    app = create_app(engine, Shelf({"f": f}), limits=limits)
    return engine, TestClient(app, base_url="http://localhost")


def test_a_busy_server_says_when_to_come_back() -> None:
    gate = Gate()
    engine, client = served(gate, LIMITS)
    with client:
        engine.submit(Call("f", lambda f: None))
        answer = client.post("/v1/images/generations", json={})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "busy"
        gate.open.set()


def test_a_request_that_takes_too_long_is_given_up() -> None:
    gate = Gate()
    engine, client = served(gate, Limits(seconds=0.05))
    with client:
        answer = client.post("/v1/images/generations", json={})
        assert answer.status_code == 504
        assert "0.05 s" in answer.json()["error"]["message"]
        gate.open.set()
    assert engine.counts.images == 1  # the gate's: what was given up did not run


def test_a_server_that_shuts_down_says_so() -> None:
    f = network_map(1)
    engine = Engine({"f": f})
    app = create_app(engine, Shelf({"f": f}))
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/health").json() == {"status": "ok", "engine": "torch"}
        engine.close()
        assert client.get("/health").status_code == 503
        assert client.post("/v1/images/generations", json={}).status_code == 503


def test_imported_models_are_served(tmp_path: Path) -> None:
    """Their files as other projects write them, without an import before."""
    shelf = Shelf.open(foreign.served(tmp_path))
    app = create_app(Engine(shelf.models), shelf, limits=LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        few, many = client.get("/v1/models").json()["data"]
        assert [few["id"], many["id"]] == ["few.pkl", "many.pkl"]
        assert "inpaint" in few["tasks"]
        assert many["tasks"] == ["denoise"]
        for name, steps in (("few.pkl", 2), ("many.pkl", 3)):
            found = post(client, "generations", model=name, n=2, seed=7, steps=steps)
            expected = to_uint8(sample(shelf.models[name], 2, steps=steps, seed=7))
            for entry, image in zip(found["data"], expected, strict=True):
                made = pixels(entry["b64_json"]).astype(int)
                assert np.abs(made - image.permute(1, 2, 0).numpy()).max() <= 1
        hole = Image.new("1", (16, 16))
        hole.paste(1, (2, 2, 6, 8))
        file = BytesIO()
        hole.save(file, format="PNG")
        image = drawn((16, 16))
        edit = {"image": text(image), "mask": text(file.getvalue()), "steps": 2, "seed": 3}
        (entry,) = post(client, "edits", model="few.pkl", task="inpaint", **edit)["data"]
        kept = ~np.asarray(hole)
        before = np.asarray(Image.open(BytesIO(image)))
        assert (pixels(entry["b64_json"])[kept] == before[kept]).all()
        noisy = {"task": "denoise", "image": text(image), "sigma": 12.5}
        (entry,) = post(client, "edits", model="many.pkl", **noisy)["data"]
        assert pixels(entry["b64_json"]).shape == (16, 16, 3)


# Edits and interpolations


def test_inpainting_keeps_what_the_mask_leaves(client: TestClient) -> None:
    image = drawn((20, 30))
    hole = np.zeros((20, 30), dtype=bool)
    hole[4:12, 5:20] = True
    file = BytesIO()
    Image.fromarray(hole).save(file, format="PNG")
    fields = {"model": "colour", "n": "2", "seed": "4"}
    files = {"image": ("a.png", image), "mask": ("m.png", file.getvalue())}
    answer = client.post("/v1/images/edits", data=fields, files=files)
    assert answer.status_code == 200, answer.text
    form = answer.json()
    before = np.asarray(Image.open(BytesIO(image)))
    results = [pixels(entry["b64_json"]) for entry in form["data"]]
    for result in results:
        assert (result[~hole] == before[~hole]).all()
        assert (result[hole] != before[hole]).mean() > 0.5
    assert (results[0] != results[1]).any()
    url = "data:image/png;base64," + text(image)
    body = {"model": "colour", "n": 2, "seed": 4, "image": url, "mask": text(file.getvalue())}
    assert post(client, "edits", **body)["data"] == form["data"]
    told = settings(form["data"][1]["b64_json"])
    assert (told["task"], told["seed"], told["index"], told["steps"]) == ("inpaint", 4, 1, 8)


@pytest.mark.parametrize(
    ("task", "extra", "size"),
    [
        ("superresolve", {"factor": 2}, (40, 60)),
        ("outpaint", {"left": 4}, (20, 45)),
        ("colourise", {}, (20, 30)),
        ("deblur", {"blur": 0.7}, (20, 30)),
        ("strokes", {"strength": 0.5, "steps": 3}, (20, 30)),
        ("vary", {"fit": "tile"}, (20, 30)),
        ("denoise", {"sigma": 12.5}, (20, 30)),
    ],
)
def test_every_task(
    task: str, extra: dict[str, Any], size: tuple[int, int], client: TestClient
) -> None:
    image = text(drawn((20, 30)))
    found = post(client, "edits", model="colour", task=task, image=image, seed=1, **extra)
    again = post(client, "edits", model="colour", task=task, image=image, seed=1, **extra)
    assert pixels(found["data"][0]["b64_json"]).shape == (*size, 3)
    assert found["data"] == again["data"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_every_mode(mode: str, client: TestClient) -> None:
    image = drawn(mode=mode, format_="JPEG" if mode == "CMYK" else "PNG")
    post(client, "edits", task="vary", image=text(image), **{"class": 0})


def test_a_png_of_an_edit(client: TestClient) -> None:
    body = {"task": "vary", "model": "colour", "image": text(drawn()), "response_format": "png"}
    answer = client.post("/v1/images/edits", json=body)
    assert Image.open(BytesIO(answer.content)).size == CANVAS[::-1]


@pytest.mark.parametrize("model", ["grey", "teacher"])
def test_frames_pass_from_one_image_to_the_other(model: str, client: TestClient) -> None:
    ends = {"from": {"seed": 1, "index": 0}, "to": {"seed": 2, "index": 3}}
    how = {"model": model, "steps": 3 if model == "teacher" else 1, "class": 0}
    found = post(client, "interpolations", frames=5, size="24x16", **ends, **how)["data"]
    assert len(found) == 5
    assert pixels(found[0]["b64_json"]).shape == (16, 24)
    assert found == post(client, "interpolations", frames=5, size="24x16", **ends, **how)["data"]
    if model == "teacher":
        return  # decoding ends where encoding begins, and sampling one step later
    start = post(client, "generations", n=1, seed=1, size="24x16", **how)["data"][0]
    apart = pixels(start["b64_json"]).astype(int) - pixels(found[0]["b64_json"])
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize(
    ("model", "spec"), [("grey", "jumps(times=(2.0,))"), ("teacher", "walk(steps=3, solver=dpm2)")]
)
def test_frames_begin_with_the_sample_of_the_same_sampler(
    model: str, spec: str, client: TestClient
) -> None:
    ends = {"from": {"seed": 1, "index": 0}, "to": {"seed": 1, "index": 0}}
    how = {"model": model, "sampler": spec, "class": 0}
    found = post(client, "interpolations", frames=2, **ends, **how)
    assert settings(found["data"][0]["b64_json"])["sampler"] == spec
    start = post(client, "generations", n=1, seed=1, **how)["data"][0]
    apart = pixels(start["b64_json"]).astype(int) - pixels(found["data"][0]["b64_json"])
    assert np.abs(apart).max() <= 1
    assert found["steps"] == {"grey": 2, "teacher": 3}[model]


# A client's mistakes


def blank() -> bytes:
    file = BytesIO()
    Image.new("L", CANVAS[::-1]).save(file, format="PNG")
    return file.getvalue()


IMAGE = text(drawn())
MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("generations", {"model": "gray"}, "Did you mean 'grey'"),
    ("generations", {"n": 9}, "at most 8 images"),
    ("generations", {"steps": 21}, "at most 20 steps"),
    ("generations", {"sampler": "jumps(steps=21)"}, "at most 20 steps"),
    ("generations", {"sampler": "jump"}, "Did you mean 'jumps'"),
    ("generations", {"sampler": "jumps(gamma=0, steps=2)"}, "take gamma=1"),
    ("generations", {"sampler": "walk"}, "consistency model"),
    ("generations", {"sampler": "jumps(steps=2)", "steps": 2}, "steps is given twice"),
    ("generations", {"sampler": "jumps(steps=__import__('os'))"}, "cannot read"),
    ("generations", {"sampler": "jumps(" + "(" * 300}, "cannot read"),
    ("generations", {"model": "teacher", "sampler": "heun"}, "walk(solver=heun)"),
    ("generations", {"model": "teacher", "sampler": "walk(solver=rk45)"}, "chooses its own steps"),
    (
        "generations",
        {"model": "teacher", "sampler": "walk(solver=pc(correctors=99), steps=20)"},
        "at most 80",
    ),
    (
        "generations",
        {"model": "teacher", "sampler": "walk(nfe=99999)"},
        "takes 99999 network evaluations",
    ),
    ("generations", {"class": 3}, "'3'"),
    ("generations", {"class": "dog"}, "'dog'"),
    ("generations", {"prompt": "dog"}, "'dog'"),
    ("generations", {"model": "colour", "class": 0}, "unconditional"),
    ("generations", {"size": "9x9"}, "whole multiple of the model's 12x8"),
    ("generations", {"size": "12x16"}, "whole multiple"),
    ("generations", {"size": "0x0"}, "whole multiple"),
    ("generations", {"size": "large"}, "such as"),
    ("generations", {"size": "4800x3200"}, "at most 100,000"),
    ("edits", {"image": IMAGE, "task": "draw"}, "draw"),
    ("edits", {"image": IMAGE, "class": 0}, "either a mask or a box"),
    ("edits", {"image": IMAGE, "mask": text(drawn((5, 5))), "class": 0}, "the mask has 5x5"),
    ("edits", {"image": "%%", "task": "vary", "class": 0}, "image is not base64"),
    ("edits", {"image": "", "task": "vary", "class": 0}, "empty file"),
    ("edits", {"image": text(b"no"), "task": "vary", "class": 0}, "it is none of PNG"),
    ("edits", {"image": text(drawn()[:90]), "task": "vary", "class": 0}, "cannot read image"),
    ("edits", {"image": text(drawn((400, 400), "1")), "task": "vary", "class": 0}, "at most 100,"),
    ("edits", {"image": text(drawn((250, 250), "1")), "task": "deblur", "class": 0}, "too large"),
    ("edits", {"image": IMAGE, "task": "vary"}, "is conditional"),
    ("edits", {"image": IMAGE, "task": "vary", "class": 7}, "'7'"),
    ("edits", {"image": IMAGE, "task": "vary", "class": 0, "factor": 2}, "factor"),
    ("edits", {"image": IMAGE, "task": "superresolve", "class": 0, "factor": 5}, "divide"),
    ("edits", {"image": IMAGE, "task": "colourise", "class": 0}, "no colours"),
    ("edits", {"image": IMAGE, "task": "vary", "model": "teacher", "class": 0}, "distil"),
    ("edits", {"image": IMAGE, "task": "denoise", "class": 0, "sigma": 1e9}, "noise levels"),
    ("edits", {"image": IMAGE, "task": "outpaint", "class": 0, "top": 8}, "leave nothing"),
    (
        "edits",
        {"image": text(drawn((90, 90))), "task": "outpaint", "class": 0, "top": 7, "left": 11},
        "too large",
    ),
    (
        "edits",
        {"image": IMAGE, "mask": text(drawn((8, 12), "1")), "class": 0, "size": "13x8"},
        "whole",
    ),
    ("edits", {"image": IMAGE, "mask": text(blank()), "class": 0}, "covers nothing"),
    ("edits", {"image": IMAGE, "mask": IMAGE, "task": "vary", "class": 0}, "takes none"),
    ("interpolations", {"from": {"seed": 0}, "to": {"seed": 1}, "frames": 9}, "at most 8"),
    ("interpolations", {"from": {"seed": 0}, "to": {"seed": 1}, "frames": 3, "class": 5}, "'5'"),
    (
        "interpolations",
        {"from": {"seed": 0}, "to": {"seed": 1}, "frames": 3, "sampler": "walk"},
        "consistency model",
    ),
]


@pytest.mark.parametrize(("what", "body", "hint"), MISTAKES)
def test_a_mistake_is_told(what: str, body: dict[str, Any], hint: str, client: TestClient) -> None:
    assert hint in refused(client, what, **body)


@pytest.mark.parametrize(
    ("what", "body", "hint"),
    [
        ("generations", {"n": 0}, "n: "),
        ("generations", {"steps": 0}, "steps: "),
        ("generations", {"seed": -1}, "seed: "),
        ("generations", {"sede": 1}, "sede: "),
        ("generations", {"class": True}, "class"),
        ("generations", {"response_format": "gif"}, "response_format: "),
        ("edits", {}, "image: "),
        ("edits", {"image": IMAGE, "strength": 2}, "strength: "),
        ("interpolations", {"from": {"seed": 0}}, "to: "),
    ],
)
def test_a_wrong_field_is_named(
    what: str, body: dict[str, Any], hint: str, client: TestClient
) -> None:
    assert hint in refused(client, what, 422, **body)


def test_an_animation_is_refused(client: TestClient) -> None:
    frames = [Image.fromarray(np.full(CANVAS, i, np.uint8)) for i in (0, 90)]
    file = BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    body = {"image": text(file.getvalue()), "task": "vary", "class": 0}
    assert "2 frames" in refused(client, "edits", **body)


def test_forms_that_do_not_fit(client: TestClient) -> None:
    def hint(**how: Any) -> tuple[int, str]:
        answer = client.post("/v1/images/edits", **how)
        return answer.status_code, answer.json()["error"]["message"]

    image = {"image": ("a.png", drawn())}
    assert hint(data={"task": "vary"}, files={"other": ("a.png", b"x")})[0] == 400
    assert "twice" in hint(data={"task": ["vary", "vary"]}, files=image)[1]
    assert "text" in hint(data={"mask": "x"}, files=image)[1]
    assert hint(content=b"x", headers={"content-type": "text/plain"})[0] == 415
    assert hint(content=b"{", headers={"content-type": "application/json"})[0] == 400
    assert hint(content=b"[" * 100_000, headers={"content-type": "application/json"})[0] == 400


def test_a_bomb_is_refused_by_its_header(client: TestClient) -> None:
    file = BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, format="PNG")
    assert len(file.getvalue()) < LIMITS.body
    body = {"image": text(file.getvalue()), "task": "vary", "class": 0}
    assert "30000x30000" in refused(client, "edits", **body) or "none of" in refused(
        client, "edits", **body
    )


def test_a_large_body_is_refused(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    headers = {"content-type": "application/json"}
    for content in (b"x" * 300_000, chunks()):
        answer = client.post("/v1/images/generations", content=content, headers=headers)
        assert answer.status_code == 413
        assert "200,000" in answer.json()["error"]["message"]


def test_what_is_not_there(client: TestClient) -> None:
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/../pyproject.toml").status_code == 404
    assert client.get("/%2e%2e/app.py").status_code == 404


@pytest.mark.parametrize(
    "form",
    [
        lambda d: base64.encodebytes(d).decode(),
        lambda d: base64.encodebytes(d).decode().replace("\n", "\r\n"),
        lambda d: "\ufeff \n" + text(d) + "\n",
        lambda d: "DATA:image/png;BASE64," + text(d),
        lambda d: " data:image/png;charset=utf-8;base64,\n" + base64.encodebytes(d).decode(),
        lambda d: base64.urlsafe_b64encode(d).decode(),
        lambda d: text(d).rstrip("="),
    ],
)
def test_base64_as_people_send_it(form: Any) -> None:
    for data in (bytes(range(256)), b"", b"a", b"\xfb\xff" * 1_000_000):
        assert from_base64(form(data), "image") == data


@pytest.mark.parametrize("wrong", ["%%", "A", "AA=A", "é", "data:text/plain,AAAA", "AAAA====AAAA"])
def test_what_is_no_base64(wrong: str) -> None:
    with pytest.raises(FewstepError, match="image is"):
        from_base64(wrong, "image")


GETS = ["/health", "/metrics", "/v1/models", "/openapi.json", "/", "/docs/", "/docs/docs.js"]


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(path: str, client: TestClient) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert client.head("/v1/nothing").status_code == 404


@pytest.mark.parametrize("route", ["generations", "edits", "interpolations"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_method_that_a_route_does_not_take(route: str, method: str, client: TestClient) -> None:
    answer = client.request(method, f"/v1/images/{route}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.json()["error"]["code"] == "method"


@pytest.mark.parametrize("path", GETS)
def test_what_is_there_to_be_read_is_not_written(path: str, client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("origin", ["http://[", "http://[::g]", "null", "http://localhost:1", "é"])
def test_any_origin_but_ones_own_is_refused(origin: str, client: TestClient) -> None:
    answer = client.get("/health", headers={"origin": origin.encode()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin")


def test_a_wish_for_a_part_of_a_page(client: TestClient) -> None:
    for part in ("bytes=9-1", "bytes=0-5", "bytes=x", "lines=1-2"):
        answer = client.get("/docs/", headers={"range": part})
        assert answer.text == client.get("/docs/").text


def test_a_defect_has_the_form_of_all_errors(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Generation, "run", broken)
    app = create_app(Engine(shelf.models), shelf)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.post("/v1/images/generations", json={})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text


def test_bodies_without_pictures_are_small(client: TestClient) -> None:
    assert "65,536" in refused(client, "generations", 413, prompt="x" * 70_000)
    many = {"image": IMAGE, "x": list(range(5000))}
    assert "more than 1,000 values" in refused(client, "edits", **many)


def test_what_waits_does_not_fill_the_memory(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    app = create_app(Engine(shelf.models), shelf)
    monkeypatch.setattr(app, "most", 150)
    with TestClient(app, base_url="http://localhost") as own:
        monkeypatch.setattr(app, "_held", 16 * 150 - 50)
        answer = own.post("/v1/images/generations", json={"user": "x" * 100})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "busy")
        assert own.post("/v1/images/generations", json={"n": 1}).status_code == 200
        assert app._held == 16 * 150 - 50
    monkeypatch.setattr(answers, "HELD", 0)
    body = {"image": IMAGE, "task": "vary", "class": 0}
    gate = Gate()
    engine, one = served(gate, LIMITS, capacity=4)
    with one:
        first = threading.Thread(target=post, args=(one, "edits"), kwargs={**body, "class": None})
        first.start()
        while not engine.waiting:
            time.sleep(0.001)
        assert "queue is full" in refused(one, "edits", 429, image=IMAGE, task="vary")
        gate.open.set()
        first.join(30)


def test_uploads_touch_no_disk(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
    image = drawn((900, 900))
    assert len(image) > 2_000_000
    with TestClient(create_app(Engine(shelf.models), shelf), base_url="http://localhost") as client:
        answer = client.post(
            "/v1/images/edits",
            data={"model": "colour", "task": "vary", "steps": "1"},
            files={"image": ("a.png", image)},
        )
    assert answer.status_code == 200, answer.text


def test_large_answers_are_packed_aside(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    """The loop that answers everybody neither enlarges nor packs what is large."""
    threads: list[str] = []

    def watched(*a: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return png(*a)

    monkeypatch.setattr(images, "png", watched)
    post(client, "generations", n=2, steps=2)
    (loop,) = set(threads)
    threads.clear()
    for body in ({}, {"stream": True}, {"strip": True, "n": 1}):
        how = {"size": "240x160", "n": 2, "steps": 2, **body}
        assert client.post("/v1/images/generations", json=how).status_code == 200
        assert loop not in threads
    ends = {"from": {"seed": 1}, "to": {"seed": 2}}
    post(client, "interpolations", frames=2, size="240x160", **ends)
    assert loop not in threads


@pytest.mark.parametrize("factor", [5, 64])
def test_a_factor_is_refused_before_anything_is_made(factor: int, client: TestClient) -> None:
    started = time.process_time()
    body = {"image": IMAGE, "task": "superresolve", "class": 0, "factor": factor}
    assert "does not divide" in refused(client, "edits", **body)
    assert time.process_time() - started < 0.5


# Clients of OpenAI's API


def holed(size: tuple[int, int] = CANVAS) -> tuple[np.ndarray, np.ndarray]:
    """A picture in colour, and it again with a transparent hole in its lower half."""
    rgba = np.full((*size, 4), 255, np.uint8)
    rgba[..., :3] = np.random.default_rng(0).integers(0, 256, (*size, 3))
    erased = rgba.copy()
    erased[size[0] // 2 :, :, 3] = 0
    return rgba, erased


def file_of(values: np.ndarray) -> BytesIO:
    file = BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    file.seek(0)
    file.name = "picture.png"
    return file


def test_the_client_of_openai(shelf: Shelf, client: TestClient) -> None:
    openai = pytest.importorskip("openai")
    known = openai.OpenAI(
        base_url="http://localhost/v1", api_key="any", http_client=client, max_retries=0
    )
    assert [m.id for m in known.models.list()] == list(shelf.models)
    made = known.images.generate(
        model="grey", prompt="bee", n=2, size="24x16", response_format="b64_json", user="me"
    )
    assert [pixels(entry.b64_json).shape for entry in made.data] == [(16, 24)] * 2
    whole, erased = holed()
    for sent in (
        {"image": file_of(whole), "mask": file_of(erased)},
        {"image": [file_of(whole)], "mask": file_of(erased)},
        {"image": file_of(erased)},
    ):
        found = known.images.edit(
            model="colour", prompt="a cat", n=2, size="24x16", response_format="b64_json", **sent
        )
        for entry in found.data:
            result = pixels(entry.b64_json)[::2, ::2]
            assert (result[:4] == whole[:4]).all()
            assert (result[4:, :, :3] != whole[4:, :, :3]).mean() > 0.5
            assert (result[4:, :, 3] == 255).all()
        assert "the prompt is not looked at" in found.notes[0]
        assert "transparen" in found.notes[1]
    with pytest.raises(openai.BadRequestError, match="Known: ant, bee, cat"):
        known.images.edit(model="grey", prompt="a cat", image=file_of(erased))
    with pytest.raises(openai.BadRequestError, match="more than one image"):
        known.images.edit(model="grey", prompt="cat", image=[file_of(whole), file_of(erased)])


def test_what_marks_a_mask_can_be_said(client: TestClient) -> None:
    whole, erased = holed()
    body = {"image": text(file_of(whole).read()), "mask": text(file_of(erased).read())}
    painted = post(client, "edits", model="colour", marks="painted", seed=1, **body)
    result = pixels(painted["data"][0]["b64_json"])
    assert (result[4:] == whole[4:]).all()
    assert painted["notes"] == []
    assert "marks" in refused(client, "edits", 422, marks="white", **body)


def test_an_answer_says_what_is_lost(client: TestClient) -> None:
    found = post(client, "edits", task="vary", image=IMAGE, **{"class": 0})
    assert found["notes"] == [
        "image is in colour, but the model makes grey images: the result is grey."
    ]
    assert settings(found["data"][0]["b64_json"])["notes"] == found["notes"]
    deep = np.random.default_rng(0).integers(0, 65536, CANVAS).astype(np.uint16)
    mask = np.zeros(CANVAS, bool)
    mask[2, 3] = True
    sent = {"image": text(file_of(deep).read()), "mask": text(file_of(mask).read()), "class": 0}
    kept = post(client, "edits", steps=1, **sent)
    assert (pixels(kept["data"][0]["b64_json"])[~mask] == deep[~mask]).all()
    assert kept["notes"] == []


# Who may come in


def test_a_token(shelf: Shelf) -> None:
    app = create_app(Engine(shelf.models), shelf, token="correct-horse")
    with TestClient(app, base_url="http://localhost") as client:
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "correct-horse"}):
            for path in ("/v1/models", "/metrics"):
                answer = client.get(path, headers=header)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "token"
        right = {"authorization": "Bearer correct-horse"}
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get("/").status_code == 200


def test_other_pages_cannot_use_the_server(client: TestClient) -> None:
    foreign = client.post(
        "/v1/images/generations", json={}, headers={"origin": "http://evil.example"}
    )
    assert foreign.status_code == 403
    own = client.post("/v1/images/generations", json={}, headers={"origin": "http://localhost"})
    assert own.status_code == 200
    rebound = client.get("/v1/models", headers={"host": "evil.example"})
    assert rebound.status_code == 421
    assert "Open it as localhost" in rebound.json()["error"]["message"]
    for host in ("127.0.0.1:8000", "127.0.1.1:8000", "[::1]:8000", "localhost"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_open_addresses_need_a_token(host: str) -> None:
    with pytest.raises(FewstepError, match="--token"):
        Settings(host=host)
    assert not Settings(host=host, token="correct-horse").local
    assert not Settings(host=host, open_to_all=True).local


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings(host=host).local


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70_000}, {"token": "short"}, {"token": "schlüssel!"}, {"token": "one\ntwo three"}],
)
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(FewstepError):
        Settings(**wrong)


def test_a_port_in_use() -> None:
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(FewstepError, match="--port"):
            bind("127.0.0.1", port)


# The rest


def test_metrics_count(client: TestClient) -> None:
    before = client.get("/metrics").text
    post(client, "generations", n=3)
    after = client.get("/metrics").text

    def value(metrics: str, name: str) -> float:
        return float(
            next(line for line in metrics.splitlines() if line.startswith(name)).split()[1]
        )

    assert value(after, "fewstep_images_total") == value(before, "fewstep_images_total") + 3
    assert 'fewstep_requests_total{route="/v1/images/generations",status="200"}' in after
    assert 'fewstep_request_seconds_bucket{route="/v1/images/generations",le="+Inf"}' in after


def test_the_api_describes_itself(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert {"/v1/images/generations", "/v1/images/edits", "/v1/models"} <= set(found["paths"])
    page = client.get("/docs").text  # follows the redirect
    assert "openapi.json" in page
    assert client.get("/docs", follow_redirects=False).headers["location"] == "docs/"
    script = client.get("/docs/docs.js").text
    assert not [at for at in ('href="/', 'fetch("/') if at in page + script], "behind a prefix, too"


def test_an_address_carries_the_token_as_it_is() -> None:
    url = Place(token="a+b&c=d #%e").url(8000)
    assert parse_qs(urlsplit(url).query) == {"token": ["a+b&c=d #%e"]}
    assert not urlsplit(url).fragment


def test_names_of_models(tmp_path: Path) -> None:
    f = network_map(1)
    for name in ("a/x", "b/x", "b/y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        f.save(tmp_path / f"{name}.safetensors")
    paths = [tmp_path / f"{name}.safetensors" for name in ("a/x", "b/x", "b/y", "b/y")]
    assert list(Shelf.open(paths).models) == ["a-x", "b-x", "b-y-1", "b-y-2"]
    runs = [tmp_path / "cd-0.9", tmp_path / "cd-0.99"]
    assert [names_for([run]) for run in runs] == [["cd-0.9"], ["cd-0.99"]]


def test_a_model_is_shown_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    network_map(1).save(tmp_path / "runs" / "mine.safetensors")
    monkeypatch.chdir(tmp_path)

    def shown(place: Path) -> str:
        return Shelf.open([place]).describe(8)[0]["path"]

    assert shown(Path("runs/mine.safetensors")) == "runs/mine.safetensors"
    assert shown(tmp_path / "runs" / "mine.safetensors") == "runs/mine.safetensors"
    place = tmp_path / "runs" / "mine.safetensors"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert shown(place) == "path/to/mine.safetensors", "where it lies is nobody else's concern"


def test_nothing_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FewstepError, match="reproduce digits"):
        Shelf.open([])
    with pytest.raises(FewstepError, match="absent"):
        Shelf.open([tmp_path / "absent"])
