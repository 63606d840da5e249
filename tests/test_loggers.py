"""Loggers beside TensorBoard, on small stand-ins for their libraries that take what those take."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewstep.errors import FewstepError
from fewstep.training.config import Training
from fewstep.training.logbook import Logbook
from fewstep.training.loggers import LOGGERS, Facts, Logger, Outcome, loggers_of
from fewstep.training.loggers import aside as aside_module
from fewstep.training.loggers.told import IDS
from fewstep.training.stopping import Interrupted

Call = Callable[..., tuple[int, str, str]]

WANDB = """
runs = []

class Settings:
    def __init__(self, *, console=None, silent=False, init_timeout=90.0, finish_timeout=0.0):
        self.silent = silent

class Image:
    def __init__(self, data):
        self.shape = data.shape

class Config(dict):
    def update(self, values, allow_val_change=False):
        assert allow_val_change
        super().update(values)

class Run:
    offline = True
    def __init__(self, **given):
        self.given, self.config, self.summary, self.rows = given, Config(), {}, []
        self.exit_code = None
    def log(self, data, step=None):
        assert not self.rows or step >= self.rows[-1][0]
        self.rows.append((step, data))
    def finish(self, exit_code=None):
        self.exit_code = exit_code

silent = False

def setup(settings):
    global silent
    silent = settings.silent

def init(*, project, entity, name, id, resume, settings):
    assert resume == "allow" and silent
    if project == "closed":
        raise RuntimeError("No API key configured.\\nUse wandb login.")
    runs.append(Run(project=project, name=name, id=id))
    return runs[-1]
"""

MLFLOW = """
from mlflow.entities import Metric, Param
runs = {}

class MlflowClient:
    def __init__(self, tracking_uri=None):
        self.tracking_uri = tracking_uri
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        return "7"
    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        id = f"{len(runs):032x}"
        runs[id] = {"rows": [], "images": [], "params": {}, "status": "RUNNING"}
        return type("Run", (), {"info": type("Info", (), {"run_id": id})})
    def update_run(self, run_id, status=None, name=None):
        runs[run_id]["status"] = status
    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        assert len(params) <= 100
        for p in params:
            assert len(p.value) <= 500 and p.key not in runs[run_id]["params"]
            runs[run_id]["params"][p.key] = p.value
        runs[run_id]["rows"] += [(m.step, {m.key: m.value}) for m in metrics]
    def log_image(self, run_id, image, artifact_file=None, key=None, step=None):
        runs[run_id]["images"].append((step, key, image.shape))
    def set_terminated(self, run_id, status=None):
        runs[run_id]["status"] = status
"""

ENTITIES = """
from collections import namedtuple
Metric = namedtuple("Metric", "key value timestamp step")
Param = namedtuple("Param", "key value")
"""

TRACKIO = """
runs = []

class Image:
    def __init__(self, value):
        assert value.dtype == "uint8" and value.ndim == 3
        self.shape = value.shape

class Run:
    def __init__(self, **given):
        self.given, self.rows, self.over = given, [], False
    def log(self, metrics, step=None):
        self.rows.append((step, metrics))
    def finish(self):
        self.over = True

def init(project, name=None, group=None, space_id=None, config=None, resume="never", embed=True):
    runs.append(Run(project=project, name=name, config=config, resume=resume))
    return runs[-1]
"""

FILES = {
    "wandb.py": WANDB,
    "mlflow/__init__.py": MLFLOW,
    "mlflow/entities.py": ENTITIES,
    "trackio.py": TRACKIO,
}
NAMES = ("wandb", "mlflow", "trackio")
SHAPE = (10, 12, 3)


def _forget() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] in NAMES]:
        del sys.modules[name]


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """The stand-ins in place of the libraries; gives the module of a name."""
    home = tmp_path / "libraries"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(textwrap.dedent(text))
    _forget()
    monkeypatch.syspath_prepend(str(home))
    yield importlib.import_module
    _forget()


def book(folder: Path, start: int, *specs: str, steps: int = 200) -> Logbook:
    made = loggers_of(specs)
    config = {"objective": "ct", "lr": 1e-3, "long": "x" * 900}
    return Logbook(
        folder, start=start, steps=steps, title="mine", quiet=True, loggers=made, config=config
    )


def some(log: Logbook, *steps: int) -> None:
    """Lines of steps, with samples in every second one."""
    for step in steps:
        log.write(step, {"loss": 1.0 / step, "images_per_second": float(step)})
        if step % 100 == 0:
            log.write(step, {"energy_distance": 10.0 / step})
            log.picture(step, torch.zeros(1, *SHAPE[:2], dtype=torch.uint8))


def losses(rows: list[tuple[int, Mapping[str, Any]]]) -> list[tuple[int, float]]:
    return [(step, row["loss"]) for step, row in rows if "loss" in row]


def test_a_resumed_run_goes_on_under_its_id_without_steps_twice(
    tmp_path: Path, libraries: Callable[[str], Any]
) -> None:
    """It was killed at step 150 and goes on from its checkpoint of step 50."""
    run = tmp_path / "run"
    killed = book(run, 0, *NAMES)
    some(killed, 50, 100, 150)
    for aside in killed._told._asides.values():  # what was given was taken, and no more
        aside.end()
    ids = {spec: known["id"] for spec, known in json.loads((run / IDS).read_text()).items()}
    with book(run, 50, *NAMES) as log:
        some(log, 100, 150, 200)
    known = json.loads((run / IDS).read_text())
    assert known == {spec: {"id": id, "step": 150} for spec, id in ids.items()}
    expected = [(k, 1.0 / k) for k in (50, 100, 150, 200)]

    first, second = libraries("wandb").runs
    assert first.given == second.given == {"project": "fewstep", "name": "mine", "id": ids["wandb"]}
    assert losses(first.rows + second.rows) == expected
    assert (first.exit_code, second.exit_code) == (None, 0)
    assert second.summary["final_energy_distance"] == 0.05
    assert second.config["lr"] == 1e-3
    assert [s for s, row in first.rows + second.rows if "samples" in row] == [100, 200]

    (only,) = libraries("mlflow").runs.values()
    assert losses(only["rows"]) == expected
    assert only["images"] == [(k, "samples", SHAPE) for k in (100, 200)]
    assert (only["status"], only["params"]["objective"]) == ("FINISHED", "ct")

    first, second = libraries("trackio").runs
    assert first.given["name"] == second.given["name"] == ids["trackio"]
    assert losses(first.rows + second.rows) == expected
    assert second.over
    best = {"final_energy_distance": 0.05, "best_energy_distance": 0.05, "best_step": 200.0}
    assert second.rows[-1] == (200, best)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_that_is_killed_again_before_it_was_there_tells_no_step_twice(
    earlier: bool, tmp_path: Path, libraries: Callable[[str], Any]
) -> None:
    """It goes on from its checkpoint of step 50 both times."""
    for start, *steps in ((0, 50, 100, 150, 200), (50, 100), (50, 100, 150, 200, 250)):
        log = book(tmp_path, start, "trackio")
        some(log, *steps)
        for aside in log._told._asides.values():
            aside.end()
        known = json.loads((tmp_path / IDS).read_text())
        if earlier and not start:  # a file of an earlier version
            (tmp_path / IDS).write_text(json.dumps({s: x["id"] for s, x in known.items()}))
    runs = libraries("trackio").runs
    assert len({run.given["name"] for run in runs}) == 1
    told = [step for run in runs for step, _ in losses(run.rows)]
    assert told == [50, 100, 150, 200, 250]


def test_a_logger_that_is_named_later_is_told_of_all(
    tmp_path: Path, libraries: Callable[[str], Any]
) -> None:
    with book(tmp_path, 0) as log:
        some(log, 50, 100)
    with book(tmp_path, 100, "trackio(project='cats')") as log:
        some(log, 150)
    (run,) = libraries("trackio").runs
    assert run.given["project"] == "cats"
    assert losses(run.rows) == [(k, 1.0 / k) for k in (50, 100, 150)]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(Interrupted(50), 130, "KILLED"), (FewstepError("not finite"), 1, "FAILED")],
)
def test_how_it_ended_is_told(
    error: Exception, code: int, status: str, tmp_path: Path, libraries: Callable[[str], Any]
) -> None:
    def train() -> None:
        with book(tmp_path, 0, "wandb", "mlflow") as log:
            some(log, 50)
            raise error

    with pytest.raises(type(error)):
        train()
    assert libraries("wandb").runs[0].exit_code == code
    assert next(iter(libraries("mlflow").runs.values()))["status"] == status


def test_a_training_goes_on_without_a_logger_that_fails(
    tmp_path: Path, libraries: Callable[[str], Any], call: Call
) -> None:
    words = ("train", "digits/ct", "--steps", 2, "--log-every", 1, "--sample-every", 2)
    words += ("--samples", 4, "--out", tmp_path / "run")
    code, _, err = call(*words, "--log", "wandb(project=closed)", "trackio")
    assert code == 0
    said = [line for line in err.splitlines() if "logger" in line]
    assert said == [
        "note: the logger wandb(project=closed) is left out from here on: No API key configured. "
        "Use wandb login."
    ]
    (run,) = libraries("trackio").runs
    assert [step for step, row in run.rows if "loss" in row] == [1, 2]
    config = run.given["config"]
    assert (config["recipe"], config["objective"], config["steps"]) == ("digits/ct", "ct", 2)
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["run"]["training"]
    assert kept["log"] == ["wandb(project=closed)", "trackio"]
    # A run that goes on may have other loggers, or none, and more steps.
    code, _, err = call("train", tmp_path / "run", "--steps", 3, "--log", "mlflow", "--quiet")
    assert (code, len(libraries("mlflow").runs)) == (0, 1)
    code, _, err = call("train", tmp_path / "run", "--steps", 4, "--no-log", "--quiet")
    assert (code, len(libraries("mlflow").runs)) == (0, 1)


@LOGGERS.register("standing_still")
class StandingStill(Logger):
    """Takes a call and does not come back."""

    library, extra = "time", "none"

    def start(self, facts: Facts) -> str:
        time.sleep(2)
        return "one"

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, image: np.ndarray) -> None: ...

    def finish(self, step: int, scores: Mapping[str, float], outcome: Outcome) -> None: ...


def test_a_logger_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aside_module, "LAST", 0.1)
    began = time.monotonic()
    with book(tmp_path, 0, "standing_still") as log:
        some(log, 50, 100)
    assert time.monotonic() - began < 2
    assert "has not taken everything" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("specs", "hint"),
    [
        (["wandb"], "the logger wandb needs its library: pip install 'fewstep[wandb]'"),
        (["mlfow"], "Did you mean 'mlflow'"),
        (["wandb(team=me)"], "unknown argument of the logger 'wandb' 'team'"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    specs: list[str], hint: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.training.loggers.base.find_spec", lambda name: None)
    code, _, err = call("train", "digits/ct", "--log", *specs, "--out", tmp_path / "run")
    assert code == 2
    assert hint in err
    assert not (tmp_path / "run").exists()


def test_the_loggers_are_a_tuple_of_specs() -> None:
    with pytest.raises(FewstepError, match="takes a tuple of specs"):
        Training(log="wandb")  # type: ignore[arg-type]
