"""Settings from files: read, written, and what their mistakes look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewstep.cli.config import Config
from fewstep.cli.recipe import PASSING, _changes, _flags
from fewstep.cli.written import text_of
from fewstep.recipes import RECIPES

Call = Callable[..., tuple[int, str, str]]
TINY = ["--steps", "2", "--samples", "4", "--warmup", "0", "--quiet", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def record(folder: str) -> Any:
    """What a run began with, but for the place of the run itself."""
    return json.loads(Path(folder, "run.json").read_text())


# What is read


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_a_file_gives_flags_and_flags_come_before_it(ending: str, call: Call) -> None:
    texts = {
        "toml": "steps = 3\nlr=1e-4\nweight-decay = 0.5\nbetas = [0, 0.5]\nobjective.P_mean = -1",
        "yaml": "steps: 3\nlr: 1e-4\nweight_decay: 0.5\nbetas: [0, 0.5]\nobjective.P_mean: -1",
    }
    file = written(f"a.{ending}", texts[ending])
    assert call("train", "digits/edm", *TINY, "--out", "run", "--config", file)[0] == 0
    run = record("run")["run"]
    got = run["training"]
    assert (got["steps"], got["lr"], got["weight_decay"], got["betas"]) == (2, 1e-4, 0.5, [0, 0.5])
    assert run["objective"]["arguments"]["P_mean"] == -1


def test_every_command_takes_a_file(call: Call) -> None:
    assert call("train", "digits/edm", *TINY, "--out", "run")[0] == 0
    file = written("a.toml", 'n = 3\nlabel = "7"\nsteps = 2\nout = "b.npz"')
    assert call("sample", "run", "--config", file)[1].startswith("b.npz: 3 images, 3 network")
    assert call("sample", "run", "--config", file, "-n", "2")[1].startswith("b.npz: 2 images")
    assert "unknown setting 'n'" in call("list", "--config", file)[2]


def test_a_file_names_plugins(call: Call) -> None:
    code = (
        "from fewstep import RECIPES\n@RECIPES.add('digits/of-file')\ndef mine():\n    'Mine.'\n"
        "    return RECIPES['digits/edm']()\n"
    )
    written("of_file.py", code)
    file = written("a.toml", 'plugin = "of_file.py"')
    assert "digits/of-file" in call("list", "recipes", "--config", file)[1]


WRONG = {
    "a.toml: lrr = 1": "a.toml: unknown setting 'lrr'. Did you mean 'lr'? fewstep train digits/edm "
    "--help shows all of them.",
    "a.toml: [network]\nwdth = 1": "a.toml: unknown setting 'network.wdth'. Did you mean "
    "'network.width'? fewstep train digits/edm --help shows all of them.",
    "a.yaml: no_labels: true": "a.yaml: unknown setting 'no_labels'. Did you mean 'labels'? "
    "fewstep train digits/edm --help shows all of them.",
    'a.toml: lr = "fast"': "a.toml: lr must be a number, got 'fast'.",
    "a.toml: lr = true": "a.toml: lr must be a number, got True.",
    "a.toml: steps = 1.5": "a.toml: steps must be a whole number, got 1.5.",
    "a.toml: data = 5": "a.toml: data must be a text, got 5.",
    "a.yaml: labels: maybe": "a.yaml: labels must be True or False, got 'maybe'.",
    "a.toml: betas = 0.9": "a.toml: betas must be a list, got 0.9.",
    'a.toml: betas = [0.9, "x"]': 'Invalid value for [betas] from a.toml: unable to convert "x" '
    "into float.",
    "a.toml: lr = 1\nlr =": "a.toml is not TOML: Invalid value (at end of document).",
    "a.toml: weight_decay = 1\nweight-decay = 2": "a.toml: weight-decay is set twice.",
    "a.yaml: lr: 1\nlr: 2": "a.yaml: lr is set twice.",
    "a.yaml: p: {T: 1, T: 2}": "a.yaml: T is set twice.",
    "a.yaml: p: &a {T: *a}": "a.yaml: its tables stand too deep inside each other.",
    f"a.toml: p{'.p' * 3000} = 1": "a.toml: its tables stand too deep inside each other.",
    "a.yaml: - lr": "a.yaml holds no settings: write a name and a value on each line.",
    "a.toml: plugin = 3": "a.toml: plugin must be a text or a list of texts.",
    "a.json: {}": "a.json: a file of settings ends in .toml, .yaml or .yml.",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_a_line_with_its_file_and_key(case: str, call: Call) -> None:
    name, _, text = case.partition(": ")
    words = ("train", "digits/edm", "--steps", "1", "--config", written(name, text))
    assert call(*words) == (2, "", f"fewstep: {WRONG[case]}\n")
    assert not Path("runs").exists()


def test_a_file_that_cannot_be_read_is_a_line(call: Call) -> None:
    assert call("list", "--config", "no.toml")[2].startswith(
        "fewstep: cannot use 'no.toml': No such"
    )
    Path("a.toml").write_bytes(b"\xff\xfe")
    assert call("list", "--config", "a.toml")[2].startswith("fewstep: a.toml is no text in UTF-8")


# What is written


@pytest.mark.parametrize("ending", ["toml", "yaml"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_read_as_it_was_written(recipe: str, ending: str) -> None:
    flags = [
        flag for flag in _flags(RECIPES[recipe], RECIPES[recipe]()) if flag.name not in PASSING
    ]
    file = Path(f"a.{ending}")
    file.write_text(text_of(recipe, flags, [], file))
    settings = {key.replace("-", "_"): value for key, value in Config(file).settings.items()}
    wanted = {flag.name.replace("__", "."): flag.default for flag in flags}
    assert settings.keys() == {key for key, value in wanted.items() if value is not None}
    for key, value in settings.items():
        read = float(value) if isinstance(wanted[key], float) else value  # YAML has 1e-05 as text
        assert read == (list(wanted[key]) if isinstance(read, list) else wanted[key]), key


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_a_training_from_the_written_file_is_the_same_run(ending: str, call: Call) -> None:
    changed = (*TINY, "--network.width", "16", "--objective.P-std", "1e-5", "--ema", "1000", "--lr")
    assert call("train", "digits/edm", *changed, "1e-5", "--out", "given")[0] == 0
    words = ("train", "digits/edm", *changed, "1e-5", "--write-config", f"a.{ending}")
    assert call(*words)[1].startswith(f"a.{ending}: train from it with fewstep train digits/edm")
    assert not Path("runs").exists()
    assert (
        call("train", "digits/edm", "--config", f"a.{ending}", "--quiet", "--out", "read")[0] == 0
    )
    assert record("read") == record("given")
    assert (
        call(*words)[2]
        == f"fewstep: a.{ending} is there already: give another name, or remove it.\n"
    )


def test_settings_are_shown_where_no_file_is_named(call: Call) -> None:
    code, out, err = call("train", "digits/edm", "--write-config", "--seed", "7")
    assert (code, err) == (0, "")
    assert "\n# Optimiser steps.\nsteps = 2600\n" in out
    assert "\nseed = 7\n" in out
    assert "ends in .toml, .yaml" in call("train", "digits/edm", "--write-config", "a.txt")[2]


def test_a_value_that_is_the_recipe_s_own_is_no_change() -> None:
    recipe = RECIPES["cifar10/edm"]
    flags = list(_flags(recipe, recipe()))
    same = {flag.name: flag.default for flag in flags if flag.name not in PASSING}
    assert _changes(same | {"network__multipliers": [2, 2, 2], "lr": 1.0}, flags) == {"lr": 1.0}
