"""Distances and weightings: definitions and properties, for every one that is registered."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from fewstep.distances import DISTANCES, _load_backbone
from fewstep.errors import FewstepError
from fewstep.parameterization import EDM
from fewstep.weightings import WEIGHTINGS

CHEAP = [name for name in DISTANCES if name != "lpips"]


@pytest.mark.parametrize("name", CHEAP)
def test_a_distance_is_zero_at_home_positive_elsewhere_and_symmetric(name: str) -> None:
    d, a, b = DISTANCES.build(name), torch.randn(6, 3, 4, 4), torch.randn(6, 3, 4, 4)
    assert d(a, b).shape == (6,)
    assert torch.equal(d(a, a), torch.zeros(6))
    assert (d(a, b) > 0).all()
    torch.testing.assert_close(d(a, b), d(b, a))


@pytest.mark.parametrize("name", CHEAP)
def test_gradients_are_finite_where_the_images_agree(name: str) -> None:
    a = torch.randn(2, 5, requires_grad=True)
    DISTANCES.build(name)(a, a.detach()).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_definitions() -> None:
    a, b = torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0]])
    assert float(DISTANCES.build("l1")(a, b)) == pytest.approx(3.5)
    assert float(DISTANCES.build("l2")(a, b)) == pytest.approx(12.5)
    assert float(DISTANCES.build("pseudo_huber(c=12)")(a, b)) == pytest.approx(13 - 12)
    c = 0.00054 * math.sqrt(2)
    truth = math.sqrt(25 + c * c) - c
    assert float(DISTANCES.build("pseudo-huber")(a, b)) == pytest.approx(truth)


def test_pseudo_huber_keeps_small_distances() -> None:
    """The textbook form cancels in float32; here a tiny distance stays ||a-b||^2 / 2c."""
    a = torch.full((1, 4), 1e-6)
    value = float(DISTANCES.build("pseudo_huber(c=1)")(a, torch.zeros(1, 4)))
    assert value == pytest.approx(4e-12 / 2, rel=1e-4)


def test_lpips_asks_for_its_extra_or_its_weights() -> None:
    lpips = pytest.importorskip("lpips", reason="the extra fewstep[lpips] is not installed")
    assert lpips
    with pytest.raises(FewstepError, match="no file"):
        DISTANCES.build("lpips(weights='/nowhere/vgg.safetensors')")


@pytest.mark.parametrize("name", ["garbage.pt", "empty.pt", "list.pt", "other.pt", "x.safetensors"])
def test_other_files_are_no_weights_of_lpips(name: str, tmp_path: Path) -> None:
    stored = {"list.pt": [1, 2], "other.pt": {"features.0": 5}}.get(name)
    torch.save(stored, tmp_path / name)
    if stored is None:
        (tmp_path / name).write_bytes(b"" if name == "empty.pt" else b"garbage" * 9)
    with pytest.raises(FewstepError, match=f"{name} does not hold"):
        _load_backbone(nn.Linear(2, 2), tmp_path / name)


def test_lpips_without_its_extra_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    with pytest.raises(FewstepError, match=r"fewstep\[lpips\]"):
        DISTANCES.build("lpips")


def test_weightings() -> None:
    p, t, s = EDM(sigma_data=0.5), torch.tensor([0.5, 2.0]), torch.tensor([0.25, 1.0])
    values = {name: WEIGHTINGS.build(name)(t, s, p).tolist() for name in WEIGHTINGS}
    assert values["uniform"] == [1, 1]
    assert values["edm"] == pytest.approx([0.5 / 0.0625, 4.25 / 1.0])
    assert values["inverse_gap"] == pytest.approx([4, 1])
    assert values["inverse_t"] == pytest.approx([4, 2.5])


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("l3", "l1"),
        ("pseudo_hubr", "pseudo_huber"),
        ("pseudo_huber(d=1)", "Known: c"),
        ("pseudo_huber(c=-1)", "c > 0"),
        ("l2(", "name"),
        ("l2(1)", "name"),
        ("__import__('os').system('true')", "name"),
    ],
)
def test_wrong_specs_get_one_clear_line(spec: str, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint.replace("(", r"\(")):
        DISTANCES.build(spec)
