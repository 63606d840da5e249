"""``fewstep train images``: any method on any network, by what the method declares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.cli import run
from fewstep.data import Dataset
from fewstep.errors import FewstepError
from fewstep.networks import NETWORKS
from fewstep.objectives import OBJECTIVES
from fewstep.planning.throughput import seconds_per_step
from fewstep.recipes import RECIPES
from fewstep.runs.components import objective_of
from fewstep.runs.directory import RunDirectory

IMAGES = RECIPES["images"]
SMALL = {
    "mlp": {"network__width": 16, "network__blocks": 1},
    "dfno": {"network__base": "mlp(width=16, blocks=1)"},
    "conv_autoencoder": {"network__channels": 8, "network__multipliers": (1, 2)},
}
QUICK = {"batch": 8, "sample_every": 0}


def pictures(classes: int = 2) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    return Dataset.from_arrays(pixels, [i % classes for i in range(12)] if classes else None)


@pytest.mark.parametrize("method", ["edm", *OBJECTIVES])
def test_every_method_makes_a_step_on_images(method: str) -> None:
    network = IMAGES(method=method).network.name
    network = "mlp" if network == "unet" else network
    made = IMAGES(method=method, network=network, **QUICK, **SMALL[network])
    assert objective_of(made) is OBJECTIVES["score_matching" if method == "edm" else method]
    assert seconds_per_step(made, pictures(), device="cpu", seconds=0) > 0


@pytest.mark.parametrize("network", ["adm", "dit", "edm2", "unet"])
def test_every_network_of_images_makes_a_step(network: str) -> None:
    tiny = {"adm": {"network__channels": 32, "network__multipliers": (1,), "network__blocks": 1}}
    tiny |= {"edm2": tiny["adm"], "unet": tiny["adm"]}
    tiny["dit"] = {"network__width": 16, "network__blocks": 1, "network__heads": 1}
    made = IMAGES(method="ect", network=network, **QUICK, **tiny[network])
    assert seconds_per_step(made, pictures(0), device="cpu", seconds=0) > 0


def test_settings_are_the_papers_with_a_rate_for_a_moderate_network() -> None:
    ict, edm = IMAGES(method="ict"), IMAGES()
    assert ict.objective == RECIPES["cifar10/ict"]().objective
    assert (edm.objective.name, edm.training.optimizer, edm.training.lr) == (
        *("score_matching", "adam"),
        2e-4,
    )
    cd = IMAGES(method="cd").objective.arguments
    assert (cd["distance"], cd["weighting"]) == ("pseudo_huber", "inverse_t")
    assert IMAGES(method="kd").training.flip is False
    assert IMAGES(method="lcm").network.arguments["guidance_embedding"] is True
    assert IMAGES(method="meanflow").network.arguments["two_time"] is True


def test_a_choice_that_is_none_names_the_nearest() -> None:
    with pytest.raises(FewstepError, match=r"unknown method 'stable-ct'.*Did you mean 'stable_ct'"):
        IMAGES(method="stable-ct")
    with pytest.raises(FewstepError, match=r"unknown network 'unit'.*Did you mean 'unet'"):
        IMAGES(network="unit")
    assert set(NETWORKS) == set(IMAGES.choices["network"]())


def test_a_choice_that_is_none_leaves_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run(["train", "images", "--method=etc"]) == 2
        assert "unknown method 'etc'" in capsys.readouterr().err
    assert run(["train", "images", "--method=ect", "--objective.N", "4"]) == 2
    assert "--objective.N" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["edm", "cd", "ect", "ct", "ict"])
def test_a_former_name_is_the_recipe_of_today(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RECIPES[f"images/{method}"]() == IMAGES(method=method)
    assert f"images/{method}" not in RECIPES
    assert run(["train", f"images/{method}", "--data", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert f"note: images/{method} is now written images --method {method}." in said
    assert "nowhere" in said


def test_a_method_is_chosen_on_the_command_line_and_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(4):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(f"photos/{i}.png")
    rest = ["--data", "photos", "--steps", "1", "--batch", "2", "--sample-every", "0", "--quiet"]
    small = ["--network", "mlp", "--network.width", "8", "--network.blocks", "1", "--warmup", "0"]
    assert run(["train", "images", *small, *rest[:-1]]) == 0
    printed = capsys.readouterr()
    assert "half of the images are mirrored" in printed.out + printed.err
    choice = ["--method=ect", *small, "--objective.q", "4"]
    assert run(["train", "images", *choice, "--write-config", "ect.toml"]) == 0
    assert 'method = "ect"' in Path("ect.toml").read_text()
    assert 'name = "mlp"' in Path("ect.toml").read_text().partition("[network]")[2]
    teacher = ["--teacher", "runs/images-edm-mlp"]
    assert run(["train", "images", "--config", "ect.toml", *teacher, *rest, "--out", "few"]) == 0
    made = RunDirectory("few").record()
    assert (made.recipe, made.run.objective.name, made.run.network.name) == ("images", "ect", "mlp")
    assert made.run.objective.arguments["q"] == 4
    assert run(["train", "few"]) == 0, "a folder is taken up by its path alone"
    capsys.readouterr()
    assert run(["train", "images", *small, "--objective.q", "4", *rest]) == 2
    assert "--objective.q" in capsys.readouterr().err
