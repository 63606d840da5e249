"""Trainings that are watched: their logs as they grow, how far they are, what the server says."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep import EDM, MLP, FlowMap, save_images
from fewstep.lock import OWNER, in_use
from fewstep.recipes import RECIPES
from fewstep.runs.directory import RunDirectory
from fewstep.runs.record import Record

pytest.importorskip("fastapi", reason="needs the serve extra")

from fastapi.testclient import TestClient

from fewstep.serving import Engine, Shelf
from fewstep.serving import growing as growing_module
from fewstep.serving.app import create_app
from fewstep.serving.growing import Growing
from fewstep.serving.watched import Runs

STEPS, BATCH = 400, 32


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(step: int, loss: float = 1.0, speed: float = 320.0) -> dict[str, float]:
    return {"step": step, "loss": loss, "images_per_second": speed}


def begin(path: Path, *rows: dict[str, Any], **settings: Any) -> Path:
    """A run's folder as a training leaves it that has logged these rows."""
    run = RECIPES["digits/ct"]().override({"steps": STEPS, "batch": BATCH, **settings})
    RunDirectory(path).write(Record(recipe="digits/ct", run=run))
    (path / "metrics.jsonl").write_text(lines(*rows))
    return path


def held(path: Path, pid: int | None = None, host: str | None = None) -> None:
    """As by a process that trains in the folder."""
    note = {"pid": pid or os.getpid(), "host": host or socket.gethostname()}
    (path / OWNER).write_text(json.dumps(note))


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """A server that watches folders and has no model."""
    open_: list[TestClient] = []

    def watch(*paths: Path) -> TestClient:
        shelf = Shelf({})
        app = create_app(Engine(shelf.models), shelf, runs=Runs.open(paths))
        open_.append(TestClient(app, base_url="http://localhost"))
        return open_[-1].__enter__()

    yield watch
    for client in open_:
        client.__exit__(None, None, None)


def seen(client: TestClient) -> dict[str, dict[str, Any]]:
    return {run["id"]: run for run in client.get("/v1/runs").json()["data"]}


class Reader:
    """Keeps rows as a client does: it asks from its last row on."""

    def __init__(self, log: Growing) -> None:
        self.log, self.rows, self.epoch = log, list[dict[str, Any]](), ""

    def steps(self) -> list[float]:
        self.log.read()
        answer = self.log.after(len(self.rows) - 1, self.epoch)
        self.rows = self.rows[: answer["after"]] + answer["rows"]
        self.epoch = answer["epoch"]
        return [row["step"] for row in self.rows]


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = Reader(Growing(path))
    assert reader.steps() == []
    path.write_text(lines(row(50), row(100)) + '{"step": 15')
    assert reader.steps() == [50, 100]
    with path.open("a") as file:
        file.write("0}\n")
        file.write(lines({"step": 150, "energy_distance": float("nan")}))
    assert reader.steps() == [50, 100, 150]
    assert reader.rows[-1] == {"step": 150, "energy_distance": None}
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n" + lines(row(200)).encode())
    assert reader.steps() == [50, 100, 150, 200]
    assert reader.log.damaged == 2
    path.unlink()
    assert reader.steps() == [50, 100, 150, 200]


def test_the_lines_of_one_step_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = Reader(Growing(path))
    path.write_text(lines(row(50), row(100)))
    reader.steps()
    with path.open("a") as file:
        file.write(lines({"step": 100, "energy_distance": 0.5}, row(150)))
    assert reader.steps() == [50, 100, 150]
    assert reader.rows[1] == row(100) | {"energy_distance": 0.5}


def test_a_resumed_run_goes_back(tmp_path: Path) -> None:
    """Its log is rewritten up to the checkpoint; it may have outgrown what was read by then."""
    path = tmp_path / "metrics.jsonl"
    reader = Reader(Growing(path))
    path.write_text(lines(*(row(k) for k in range(50, 301, 50))))
    assert reader.steps()[-1] == 300
    path.write_text(lines(row(50), row(100)))
    assert reader.steps() == [50, 100]
    rewritten = [row(50), row(100), *(row(k, loss=2.0, speed=7.5) for k in range(150, 501, 50))]
    path.write_text(lines(*rewritten))
    assert reader.steps() == list(range(50, 501, 50))
    assert reader.rows[2]["loss"] == 2.0


def test_a_log_that_goes_back_in_itself_is_that_of_the_later_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = Reader(Growing(path))
    path.write_text(lines(row(50), row(100), row(150)))
    reader.steps()
    with path.open("a") as file:
        file.write(lines(row(100, loss=3.0)))
    assert reader.steps() == [50, 100]
    assert reader.rows[-1]["loss"] == 3.0


def test_an_answer_is_bounded_and_so_is_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing_module, "SENT", 3)
    monkeypatch.setattr(growing_module, "MOST", 8)
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*(row(k) for k in range(1, 8))))
    reader = Reader(Growing(path))
    assert [len(reader.steps()) for _ in range(4)] == [3, 5, 7, 7]
    with path.open("a") as file:
        file.write(lines({"step": 8, "energy_distance": 0.1}, row(9)))
    for _ in range(3):
        reader.steps()
    assert [r["step"] for r in reader.rows] == [2, 4, 6, 8, 9]
    assert reader.rows[3]["energy_distance"] == 0.1


def test_how_far_a_training_is(tmp_path: Path, watch: Callable[..., TestClient]) -> None:
    path = begin(tmp_path / "mine", teacher="/home/somebody/secret/edm")
    client = watch(path)
    assert seen(client)["mine"]["state"] == "stopped"
    held(path)
    assert seen(client)["mine"]["state"] == "starting"
    (path / "metrics.jsonl").write_text(lines(row(50, speed=160.0), row(100, speed=480.0)))
    now = seen(client)["mine"]
    assert (now["state"], now["step"], now["steps"]) == ("running", 100, STEPS)
    # 300 steps of 32 images at the mean of 1/160 and 1/480 s each
    assert now["seconds_left"] == pytest.approx(300 * 32 * (1 / 160 + 1 / 480) / 2)
    assert now["teacher"] == "edm"
    assert "secret" not in json.dumps(now)
    held(path, pid=2**22 + 1)  # of a process that was killed
    assert seen(client)["mine"]["state"] == "stopped"
    held(path, pid=1, host="elsewhere")
    assert in_use(path)
    f = FlowMap(MLP((1, 8, 8), width=8, blocks=1), EDM(T=20.0))
    f.trained = replace(f.trained, step=STEPS)
    f.save(path / "model.safetensors")
    assert seen(client)["mine"]["state"] == "finished"
    shutil.rmtree(path)
    gone = seen(client)["mine"]
    assert (gone["state"], gone["rows"]) == ("gone", 2)
    assert client.get("/v1/runs/log", params={"run": "mine"}).json()["total"] == 2


def test_stages_appear_as_they_begin(tmp_path: Path, watch: Callable[..., TestClient]) -> None:
    home = tmp_path / "fit"
    begin(home / "teacher", row(50))
    client = watch(home, begin(tmp_path / "other"))
    assert list(seen(client)) == ["fit/teacher", "other"]
    begin(home / "few" / "student", row(50))
    found = seen(client)
    assert [(run["group"], run["name"]) for run in found.values()] == [
        ("fit", "teacher"),
        ("", "other"),
        ("fit", "few/student"),
    ]
    log = client.get("/v1/runs/log", params={"run": "fit/few/student"}).json()
    assert log["rows"] == [row(50)]


def test_a_plan_is_watched_before_its_first_stage(
    tmp_path: Path, watch: Callable[..., TestClient]
) -> None:
    home = tmp_path / "fit"
    home.mkdir()
    (home / "plan.json").write_text("{}")
    client = watch(home)
    assert seen(client) == {}
    begin(home / "teacher")
    assert list(seen(client)) == ["fit/teacher"]


def test_samples_are_sent_up_to_the_newest_step(
    tmp_path: Path, watch: Callable[..., TestClient]
) -> None:
    path = begin(tmp_path / "mine", row(50), row(100))
    for step in (50, 100, 150):  # the last is of before the run went back
        (path / "samples").mkdir(exist_ok=True)
        images = torch.full((4, 1, 8, 8), step, dtype=torch.uint8)
        save_images(images, path / "samples" / f"step-{step:08d}.png")
    (path / "samples" / ".step-00000100.png.partial").touch()
    client = watch(path)
    assert seen(client)["mine"]["samples"] == [50, 100]
    got = client.get("/v1/runs/sample", params={"run": "mine", "step": 50})
    assert got.headers["content-type"] == "image/png"
    assert got.content == (path / "samples" / "step-00000050.png").read_bytes()
    for run, step, hint in (
        ("mine", 75, "has no samples of step 75"),
        ("mein", 50, "Did you mean 'mine'"),
        ("../mine", 50, "unknown run"),
    ):
        said = client.get("/v1/runs/sample", params={"run": run, "step": step})
        assert said.status_code == 400
        assert hint in said.json()["error"]["message"]
    assert client.get("/v1/runs/sample", params={"run": "mine", "step": -1}).status_code == 422
    assert client.get("/v1/runs/log", params={"run": "mein"}).status_code == 400


def test_a_folder_that_may_not_be_looked_into_is_passed_over(
    tmp_path: Path, watch: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    begin(tmp_path / "mine", row(10))
    stat = Path.stat

    def refusing(self: Path, **how: Any) -> os.stat_result:
        if "locked" in self.relative_to(tmp_path).parts[:-1] if tmp_path in self.parents else ():
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **how)

    monkeypatch.setattr(Path, "stat", refusing)
    assert [run["name"] for run in seen(watch(tmp_path)).values()] == ["mine"]


def test_a_folder_of_any_name_is_watched(tmp_path: Path, watch: Callable[..., TestClient]) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    begin(odd, row(10))
    client = watch(tmp_path)
    ((id, run),) = seen(client).items()
    assert run["name"] == "caf\\udce9"
    assert len(client.get("/v1/runs/log", params={"run": id}).json()["rows"]) == 1
    assert list(seen(watch(odd))) == ["caf\\udce9"]


def test_the_newest_runs_are_watched(
    tmp_path: Path, watch: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.serving.watched.MANY", 2)
    for i, name in enumerate("abc"):
        os.utime(begin(tmp_path / name, row(10)) / "run.json", (1000 + i, 1000 + i))
    client = watch(tmp_path)
    assert [run["name"] for run in seen(client).values()] == ["b", "c"]
    assert client.get("/v1/runs").json()["left_out"] == 1
    os.utime(begin(tmp_path / "d", row(10)) / "run.json", (2000, 2000))
    assert [run["name"] for run in seen(client).values()] == ["c", "d"]
    assert client.get("/v1/runs").json()["left_out"] == 2


def test_a_server_of_trainings_has_no_model(
    tmp_path: Path, watch: Callable[..., TestClient]
) -> None:
    client = watch(begin(tmp_path / "mine"))
    assert client.get("/v1/models").json()["data"] == []
    answer = client.post("/v1/images/generations", json={})
    assert (answer.status_code, "no model" in answer.text) == (400, True)


def test_a_damaged_record_is_told_and_the_log_still_read(
    tmp_path: Path, watch: Callable[..., TestClient]
) -> None:
    path = begin(tmp_path / "mine", row(50))
    (path / "run.json").write_text("{")
    client = watch(path)
    now = seen(client)["mine"]
    assert (now["state"], now["rows"]) == ("damaged", 1)
    assert now["why"].startswith("run.json ")
    assert str(tmp_path) not in now["why"]


def test_runs_of_served_models_are_watched_too(tmp_path: Path) -> None:
    run = begin(tmp_path / "mine", row(50))
    file = tmp_path / "other.safetensors"
    file.touch()
    found, left_out = Runs.of_models({"mine": run, "other": file}).look()
    assert ([r["id"] for r in found], left_out) == (["mine"], 0)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("nothing", "there is no run folder"),
        ("mein", "Did you mean"),
        ("empty", "is neither a run's folder"),
        ("photos", "is neither a run's folder"),
        ("model.safetensors", "is a file, which has no log"),
        ("hub:me/mine", "name a run's folder"),
        (None, "there is no run in runs/"),
    ],
)
def test_what_cannot_be_watched(
    given: str | None,
    hint: str,
    tmp_path: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "mine")
    for folder in ("empty", "photos"):
        (tmp_path / folder).mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "model.safetensors").touch()
    code, _, err = call("watch", *([given] if given else []))
    assert code == 2
    assert hint in err
    assert len(err.strip().splitlines()) == 1
