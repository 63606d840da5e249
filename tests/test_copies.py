"""Copies of training images: planted ones are found, and independent draws are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fewstep.errors import FewstepError
from fewstep.evaluation import memorisation


def draws(n: int, seed: int, side: int = 12) -> Tensor:
    """Independent smooth images of a few kinds: uint8 [n, 1, side, side]."""
    source = torch.Generator().manual_seed(seed)
    kinds = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(99))
    which = torch.randint(5, (n,), generator=source)
    coarse = kinds[which] + 0.5 * torch.randn(n, 1, 3, 3, generator=source)
    fine = interpolate(coarse, (side, side), mode="bilinear")
    fine = fine + 0.05 * torch.randn(fine.shape, generator=source)
    return (128 + 40 * fine).clamp(0, 255).to(torch.uint8)


def noisy(images: Tensor, grey: float, seed: int = 0) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + grey * noise).round().clamp(0, 255).to(torch.uint8)


TRAIN, HELD_OUT = draws(300, 1), draws(300, 2)


@pytest.mark.parametrize("seed", range(3, 13))
def test_independent_draws_are_no_copies(seed: int) -> None:
    found = memorisation(draws(400, seed), TRAIN, HELD_OUT)
    assert not found.copies
    assert abs(found.share - found.expected) < 4 * found.error
    assert found.record()["distance"] == pytest.approx(found.record()["distance_beside"], rel=0.15)
    assert "no sign of copies" in found.sentence()


@pytest.mark.parametrize(("grey", "least"), [(0, 0.999), (3, 0.95)])
def test_planted_copies_are_counted(grey: float, least: float) -> None:
    for planted in (20, 200, 400):
        new = draws(400 - planted, 20)
        samples = torch.cat([new, noisy(TRAIN[torch.arange(planted) % 300], grey)])
        found = memorisation(samples, TRAIN, HELD_OUT)
        assert found.copies
        assert least * planted / 400 - 0.01 < found.copied < planted / 400 + 0.02
        assert f"about {100 * found.copied:.0f} % of the samples are copies" in found.sentence()
        for sample, original in found.pairs(10):
            assert sample >= len(new)
            assert original == (sample - len(new)) % 300


def test_smooth_and_noisy_images_are_no_copies() -> None:
    """They lie nearer to all training images, or farther from all of them."""
    smooth = avg_pool2d(draws(400, 5).float(), 3, 1, 1, count_include_pad=False).to(torch.uint8)
    for samples in (smooth, noisy(draws(400, 5), 25)):
        assert not memorisation(samples, TRAIN, HELD_OUT).copies


def test_a_mirrored_copy_is_one_where_the_training_mirrors() -> None:
    samples = torch.cat([draws(200, 6), TRAIN[:200].flip(-1)])
    assert memorisation(samples, TRAIN, HELD_OUT).copied < 0.1
    found = memorisation(samples, TRAIN, HELD_OUT, mirrored=True)
    assert found.copied == pytest.approx(0.5, abs=0.02)
    assert {original for _, original in found.pairs(200)} == set(range(200))


def test_training_images_stand_for_held_out_ones() -> None:
    assert not memorisation(draws(400, 7), TRAIN).copies
    found = memorisation(TRAIN[:100], TRAIN)
    assert found.copied == pytest.approx(1)
    assert found.record()["beside"] == "training images"
    assert not memorisation(draws(400, 7), TRAIN, mirrored=True).copies


def test_held_out_images_that_leaked_are_left_out_and_said() -> None:
    held_out = torch.cat([HELD_OUT, TRAIN[:100]])
    found = memorisation(torch.cat([draws(300, 8), TRAIN[:100]]), TRAIN, held_out)
    assert found.leaked == pytest.approx(0.25)
    assert found.copied == pytest.approx(0.25, abs=0.02)
    assert "25.0 % of the held-out images are training images" in found.sentence()
    with pytest.raises(FewstepError, match="all among the training images"):
        memorisation(HELD_OUT, TRAIN, TRAIN[:9])


def test_the_parts_of_a_large_set_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples = draws(50, 9)
    whole = memorisation(samples, TRAIN, HELD_OUT, mirrored=True)
    monkeypatch.setattr("fewstep.evaluation.copies.TILE", 77)
    parts = memorisation(samples, TRAIN, HELD_OUT, mirrored=True)
    assert torch.equal(whole.nearest.which, parts.nearest.which)
    assert torch.allclose(whole.nearest.relative, parts.nearest.relative)
    apart = (samples[:, None].float() - TRAIN.float()).square().mean((2, 3, 4)).sqrt()
    plain = memorisation(samples, TRAIN, HELD_OUT).nearest
    assert torch.allclose(plain.distance, apart.min(1).values)
    ranked = apart.sort(1).values
    assert torch.allclose(plain.relative, ranked[:, 0] / ranked[:, 1:50].mean(1), atol=1e-5)


def test_few_held_out_images_are_said_and_large_ones_averaged_down() -> None:
    assert "fewer than 100" in memorisation(draws(40, 1), TRAIN, HELD_OUT[:20]).sentence()
    found = memorisation(draws(9, 1, 64), draws(60, 2, 64), draws(30, 3, 64))
    assert found.record()["samples"] == 9


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(FewstepError, match=r"samples are float32 \[300, 1, 12, 12\]"):
        memorisation(HELD_OUT.float(), TRAIN)
    with pytest.raises(FewstepError, match=r"one shape \[1, 12, 12\]; held_out are uint8"):
        memorisation(HELD_OUT, TRAIN, draws(9, 1, 8))
    with pytest.raises(FewstepError, match="3 or more images of train, got 2"):
        memorisation(HELD_OUT, TRAIN[:2])
