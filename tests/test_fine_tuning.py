"""``--init`` with other classes and sizes: what the new network takes of the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.cli import run
from fewstep.condition import Condition
from fewstep.data import save_images
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import NETWORKS
from fewstep.parameterization import EDM
from fewstep.runs.beginning import take_weights
from fewstep.runs.directory import RunDirectory
from fewstep.trained import Trained

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"width": 8, "blocks": 1},
    "dit": {"width": 16, "blocks": 1, "heads": 1},
    "unet": {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0},
    "adm": {"channels": 32, "multipliers": (1,), "blocks": 1, "head_channels": 32},
    "edm2": {"channels": 32, "multipliers": (1,), "blocks": 1, "head_channels": 32},
    "dfno": {"base": "unet(channels=8, multipliers=(1,), blocks=1, dropout=0.0)"},
}


def model(network: str, *classes: str, side: int = 8, channels: int = 3) -> FlowMap:
    arguments = {"shape": (channels, side, side), "num_classes": len(classes), **SMALL[network]}
    F = NETWORKS.call(network, arguments)
    for p in F.parameters():  # also those that begin at zero, so that every input counts
        torch.nn.init.normal_(p, std=0.3)
    return FlowMap(F.eval(), EDM(), trained=Trained(classes=classes))


def at(f: FlowMap, label: int | None, side: int = 8) -> Tensor:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    of = None if label is None else torch.full((2,), label)
    with torch.no_grad():
        return f(x, torch.tensor(1.0), condition=Condition(label=of))


@pytest.mark.parametrize("network", ["mlp", "dit", "unet", "adm", "dfno"])
def test_a_class_that_both_know_is_kept_and_a_new_one_is_their_mean(network: str) -> None:
    old, new = model(network, "cat", "dog", "eel"), model(network, "dog", "ant")
    with pytest.warns(FewstepWarning, match="classes cat, dog, eel: dog is kept, ant begins as"):
        take_weights(new, old, "runs/old")
    torch.testing.assert_close(at(new, 0), at(old, 1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(at(new, None), at(old, None), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(at(new, 1), at(new, 0))


def test_the_numbers_of_magnitude_preserving_layers_fit_too() -> None:
    old, new = model("edm2", "cat", "dog", "eel"), model("edm2", "dog", "ant")
    with pytest.warns(FewstepWarning, match="dog is kept"):
        take_weights(new, old, "runs/old")
    rows = (f.network.get_parameter("embed_label.weight") for f in (old, new))
    was, now = rows
    assert torch.equal(now[:, 0], was[:, 1])


@pytest.mark.parametrize("network", ["mlp", "dit", "unet", "adm"])
def test_classes_of_a_model_without_begin_as_no_class(network: str) -> None:
    old, new = model(network), model(network, "cat", "dog")
    with pytest.warns(FewstepWarning, match="knows no classes, this run cat, dog"):
        take_weights(new, old, "runs/old")
    torch.testing.assert_close(at(new, 1), at(old, None))


def test_the_classes_of_a_model_are_left_out_of_one_without() -> None:
    old, new = model("dit", "cat", "dog"), model("dit")
    with pytest.warns(FewstepWarning, match="knows 2 classes, this run none"):
        take_weights(new, old, "runs/old")
    torch.testing.assert_close(at(new, None), at(old, None))


def test_numbers_that_nobody_named_are_no_names_of_others() -> None:
    old, new = model("mlp", "0", "1", "2"), model("mlp", "cat", "dog")
    with pytest.warns(FewstepWarning, match="classes 0, 1, 2: cat, dog begin as their mean"):
        take_weights(new, old, "runs/old")
    torch.testing.assert_close(at(new, 0), at(new, 1))


@pytest.mark.parametrize("network", ["dit", "unet"])
def test_images_of_another_size_are_taken_where_the_network_allows(network: str) -> None:
    old, new = model(network), model(network, side=16)
    with pytest.warns(FewstepWarning, match="images of 8x8, this run has 16x16"):
        take_weights(new, old, "runs/old")
    assert at(new, None, side=16).isfinite().all()


def test_a_network_of_one_size_says_so() -> None:
    said = r"mlp of runs/old is made for.*8x8, not 16x16.*--size 8"
    with pytest.warns(FewstepWarning, match="16x16"), pytest.raises(FewstepError, match=said):
        take_weights(model("mlp", side=16), model("mlp"), "runs/old")
    with pytest.raises(FewstepError, match="only height and width"):
        take_weights(model("dit", channels=1), model("dit"), "runs/old")


def test_a_run_is_tuned_to_other_classes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    for name, classes in (("old", ("cat", "dog")), ("new", ("ant", "cat", "elk"))):
        for i in range(12):
            folder = tmp_path / name / classes[i % len(classes)]
            folder.mkdir(parents=True, exist_ok=True)
            save_images(pixels[i : i + 1], folder / f"{i}.png")
    words = ["train", "images", "--network", "mlp", "--network.width", "8", "--network.blocks", "1"]
    words += ["--steps", "2", "--batch", "4", "--sample-every", "0", "--checkpoint-every", "1"]
    assert run([*words, "--quiet", "--data", "old", "--out", "a"]) == 0
    said = "a knows the classes cat, dog: cat is kept, ant, elk begin as their mean."
    with pytest.warns(FewstepWarning, match=said):
        assert run([*words, "--quiet", "--data", "new", "--init", "a", "--out", "b"]) == 0
    assert RunDirectory("b").model().trained.classes == ("ant", "cat", "elk")
    assert run(["train", "b", "--steps", "3"]) == 0
    assert RunDirectory("b").model().trained.step == 3
