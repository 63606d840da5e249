"""Augmentation: what is told of an image is what was done to it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.data import Dataset
from fewstep.data.augment import NUMBERS, Augmentation, warped
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, UNet
from fewstep.objectives import ScoreMatching
from fewstep.parameterization import EDM
from fewstep.recipes import RECIPES
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer


def blob(size: int, x: float, y: float) -> Tensor:
    """A smooth spot at a place, counted from the middle: [1, size, size] in [-1, 1]."""
    at = torch.arange(size) - (size - 1) / 2
    return (-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / 8).exp()[None] * 2 - 1


def place(image: Tensor) -> tuple[float, float]:
    """Where the spot is."""
    at = torch.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2
    w = (image[0] + 1).double()
    return float((w.sum(0) * at).sum() / w.sum()), float((w.sum(1) * at).sum() / w.sum())


def test_without_transformations_images_are_only_mirrored() -> None:
    x = torch.rand(64, 3, 8, 12) * 2 - 1
    y, numbers = Augmentation(0.0)(x)
    assert numbers.shape == (64, NUMBERS)
    assert (numbers[:, 1:] == 0).all()
    for before, after, mirror in zip(x, y, numbers[:, 0], strict=True):
        assert torch.equal(after, before.flip(-1) if mirror else before)
    assert 0.3 < float(numbers[:, 0].mean()) < 0.7


def test_images_of_zeros_are_the_images_to_the_bit_and_others_are_moved_as_told() -> None:
    torch.manual_seed(0)
    size, x0, y0 = 32, 3.0, -2.0
    x = blob(size, x0, y0).expand(400, 1, size, size)
    y, numbers = Augmentation(0.3)(x)
    assert y.min() >= -1
    assert y.max() <= 1
    seen = 0
    for image, n in zip(y, numbers, strict=True):
        if not n.any():
            assert torch.equal(image, x[0])
        at = torch.tensor([-x0 if n[0] else x0, -y0 if n[1] else y0]).double()
        if n[5].any() or n[6].any():
            continue  # a stretched spot is no circle
        if n[2] < -0.5 or n[7:].abs().max() > 0.8:
            continue  # the mirror image of the spot comes into view
        c, s = float(n[3]) + 1, float(n[4])
        expected = torch.tensor([[c, s], [-s, c]]).double() @ at * 2 ** (0.2 * float(n[2]))
        expected += n[7:].double() * size / 8
        if expected.abs().max() < size / 2 - 6:  # in view, with its mirror image out of it
            assert place(image) == pytest.approx(expected.tolist(), abs=0.3), n
            seen += 1
    assert seen > 60


def test_a_stretched_circle_is_an_ellipse_of_the_same_area() -> None:
    torch.manual_seed(1)
    x = blob(32, 0, 0).expand(200, 1, 32, 32)
    y, numbers = Augmentation(1.0)(x)
    for image, n in zip(y, numbers, strict=True):
        if n[2].abs() > 0.5 or n[7:].abs().max() > 0.5:
            continue
        area = float((image + 1).sum() / (x[0] + 1).sum())
        assert area == pytest.approx(4 ** (0.2 * float(n[2])), rel=0.05)


def test_interpolation_keeps_a_smooth_image() -> None:
    x = blob(32, 1.0, 2.0)[None]
    G = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])
    assert float((warped(x, G) - blob(32, 0.5, 2.0)).abs().max()) < 0.03
    half_turn = torch.tensor([[[-1.0, 0, 0], [0, -1, 0]]])
    assert float((warped(x, half_turn) - blob(32, -1.0, -2.0)).abs().max()) < 0.03


def test_probabilities_are_those_asked_for() -> None:
    torch.manual_seed(0)
    numbers, _ = Augmentation(0.2).drawn(20_000, torch.Size((8, 8)))
    share = (numbers != 0).float().mean(0)
    expected = torch.tensor([0.5, 0.1, 0.2, 0.2, 0.2, 0.2, 0.1, 0.2, 0.2])
    assert (share - expected).abs().max() < 0.015
    assert float(numbers[:, 2][numbers[:, 2] != 0].std()) == pytest.approx(1, abs=0.05)
    turned = numbers[numbers[:, 4] != 0]
    angle = torch.atan2(turned[:, 4], turned[:, 3] + 1)
    assert float(angle.std()) == pytest.approx(math.pi / math.sqrt(3), abs=0.05)


def images() -> Dataset:
    return Dataset(torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8), name="noise")


def unet(augment: int = 0) -> FlowMap:
    F = UNet((1, 8, 8), channels=8, multipliers=(1,), blocks=1, dropout=0.0, augment=augment)
    return FlowMap(F, EDM())


def test_a_training_tells_its_network_how_images_were_moved(tmp_path: Path) -> None:
    f = unet(augment=NUMBERS)
    told: list[Tensor] = []
    hooked = f.network.get_submodule("condition.map_augment")
    hooked.register_forward_pre_hook(lambda module, inputs: told.append(inputs[0]))
    settings = Training(steps=2, batch=8, augment=0.5, sample_every=0)
    Trainer(ScoreMatching(f, K=2), images(), settings, tmp_path, quiet=True).run()
    assert len(told) == 2
    assert told[0].shape == (8, NUMBERS)
    assert not torch.equal(*told)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 2.0])
    plain = f.D(x, t)
    zeros = f.D(x, t, Condition(augment=torch.zeros(2, NUMBERS)))
    assert torch.equal(plain, zeros)


def test_augmentation_takes_the_place_of_mirroring() -> None:
    recipe = RECIPES["images"]
    assert recipe().training.flip
    assert not recipe(augment=0.1).training.flip
    with pytest.raises(FewstepError, match="leave out flip"):
        recipe(augment=0.1, flip=True)


def test_what_cannot_be_augmented_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match="leave out flip"):
        Training(augment=0.1, flip=True)
    with pytest.raises(FewstepError, match="probability"):
        Training(augment=1.5)
    settings = Training(steps=1, batch=8, augment=0.1)
    for f in (unet(), FlowMap(MLP((1, 8, 8)), EDM())):
        with pytest.raises(FewstepError, match=r"9 numbers .* takes 0"):
            Trainer(ScoreMatching(f, K=1), images(), settings, tmp_path)
    points = Dataset(torch.randn(32, 3), name="points")
    with pytest.raises(FewstepError, match="only images"):
        Trainer(ScoreMatching(FlowMap(MLP((3,)), EDM()), K=1), points, settings, tmp_path)
    with pytest.raises(FewstepError, match="augment=9"):
        unet(augment=NUMBERS).D(torch.zeros(1, 1, 8, 8), 1.0, Condition(augment=torch.zeros(1, 3)))


def test_a_network_that_is_told_less_begins_as_the_one_that_was_told() -> None:
    teacher, student = unet(augment=NUMBERS), unet()
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with pytest.warns(match="augmentations, this one cannot"):
        student.take_network(teacher, "the teacher")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(student.D(x, 1.0), teacher.D(x, 1.0))
