"""The README's commands and its Python run as they are written, in order, in a fresh folder.

Not a word of them is changed. The fast test shortens the work below them: a training ends after two
steps of four images, the classifier's after five, the search for time points looks at two points
and two fresh seeds, and of the digits there are 200. The slow test shortens nothing but the
trainings of `images/`, which take hours. Both stand in for what is around: photographs, a published
model, the port that `serve` listens on, the shell of `completion`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import foreign
from fewstep.cli import completion, tune_steps
from fewstep.data import digits
from fewstep.evaluation import classifier
from fewstep.recipes import Recipe, Run
from fewstep.runs import time_points
from fewstep.serving import server
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^    fewstep ([^#\n]+)", re.MULTILINE)
COMMANDS = COMMAND.findall(README)
TUTORIALS = ("consistency", "student", "own-images")
ELSEWHERE = ("reproduce", "fit", "--weights")  # what tests of their own run
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LEAVES = (
    "runs/digits-edm/model.safetensors",
    "runs/digits-cd/model.safetensors",
    "runs/mine/model.safetensors",
    "runs/photos/model.safetensors",
    "runs/my-cd",
    "sevens.png",
    "scores.md",
    "filled.png",
    "photos.png",
    "digits.png",
    "runs/edm-cifar10/model.safetensors",
    "cd.onnx",
    "ct.toml",
)

Call = Callable[..., tuple[int, str, str]]


def shortened(config: Training) -> Training:
    return replace(config, steps=2, batch=4, microbatches=None, samples=4, sample_every=0)


def shorten(recipes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the trainings of the recipes whose names begin so."""
    make = Recipe.__call__

    def __call__(self: Recipe, **settings: Any) -> Run:
        run = make(self, **settings)
        chosen = self.name.startswith(recipes)
        return replace(run, training=shortened(run.training)) if chosen else run

    monkeypatch.setattr(Recipe, "__call__", __call__)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with photographs, where what listens or asks the shell does not."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.jpg")
    with foreign.nvidia():
        made = foreign.write(foreign.CASES["edm-ddpmpp"], "edm-cifar10-32x32-cond-vp", tmp_path)
        assert made.name == "edm-cifar10-32x32-cond-vp.pkl"
    bind = server.bind
    monkeypatch.setattr(server, "bind", lambda host, port: bind(host, 0))
    monkeypatch.setattr(server, "serve", lambda *what, **how: None)
    monkeypatch.setattr(completion, "detect_shell", lambda: "fish")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(place: Path, call: Call) -> None:
    """Every command of the README in order, and then its Python."""
    assert len(COMMANDS) > 12
    for command in COMMANDS:
        code, _, err = call(*shlex.split(command))
        assert code == 0, f"fewstep {command}: {err}"
    (program,) = PYTHON
    exec(compile(program, "README.md", "exec"), {})
    for path in LEAVES:
        assert (place / path).exists(), path


def shorten_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten everything that takes its time."""
    shorten("", monkeypatch)
    begin = Trainer.__init__
    monkeypatch.setattr(
        Trainer,
        "__init__",
        lambda self, objective, data, config, *rest, **how: begin(
            self, objective, data, shortened(config), *rest, **how
        ),
    )
    monkeypatch.setattr(classifier, "STEPS", 5)
    search = partial(time_points.greedy_search, grid=2, rounds=0)
    monkeypatch.setattr(tune_steps, "greedy_search", lambda *what, **how: search(*what))
    monkeypatch.setattr(time_points, "FRESH", 2)
    images, labels = digits.read_digits()
    monkeypatch.setattr(digits, "read_digits", lambda: (images[:200], labels[:200]))


def test_the_readme_runs(place: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_all(monkeypatch)
    follow(place, call)


@pytest.mark.slow
def test_the_tutorials_run(place: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another in one folder; a command that two have is run once."""
    shorten_all(monkeypatch)
    texts = [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in TUTORIALS]
    commands = [line.strip() for text in texts for line in COMMAND.findall(text)]
    assert len(commands) > 20
    for command in dict.fromkeys(commands):
        if not {*command.split()} & {*ELSEWHERE} and "photos-fit" not in command:
            code, _, err = call(*shlex.split(command))
            assert code == 0, f"fewstep {command}: {err}"


@pytest.mark.slow
def test_the_readme_runs_at_its_length(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten("images", monkeypatch)
    follow(place, call)
