"""Grids and schedules against their definitions, written out."""

from __future__ import annotations

import math

import pytest
import torch

from fewstep.errors import FewstepError
from fewstep.parameterization import EDM
from fewstep.schedules import (
    DoublingN,
    LogNormal,
    LogNormalIndex,
    SigmoidGap,
    SquareRootN,
    TargetDecay,
    UniformIndex,
    karras_grid,
)


def test_karras_grid() -> None:
    p = EDM()
    t = karras_grid(18, p)
    assert (float(t[0]), float(t[-1])) == (pytest.approx(0.002), 80.0)
    i = torch.arange(18).double()
    a, b = 0.002 ** (1 / 7), 80 ** (1 / 7)
    torch.testing.assert_close(t, ((a + i / 17 * (b - a)) ** 7).float())
    assert (t[1:] > t[:-1]).all()
    with pytest.raises(FewstepError, match="at least 2"):
        karras_grid(1, p)


def test_ct_grid_size_grows_from_s0_to_s1() -> None:
    N = SquareRootN(2, 150, 800_000)
    assert N(0) == 2  # ceil(sqrt(s0^2) - 1) + 1 = s0
    assert N(800_000) == 151  # ceil(sqrt((s1+1)^2) - 1) + 1 = s1 + 1
    sizes = [N(k) for k in range(0, 800_001, 5000)]
    assert sizes == sorted(sizes)
    k = 123_456
    assert N(k) == math.ceil(math.sqrt(k / 800_000 * (151**2 - 4) + 4) - 1) + 1


def test_target_decay_uses_the_number_of_points() -> None:
    """mu(k) = exp(s0 ln(mu0) / N(k)): with N(k), not N(k) - 1."""
    N = SquareRootN(2, 150, 1000)
    mu = TargetDecay(2, 0.9, N)
    assert mu(0) == pytest.approx(0.9)  # N(0) = s0
    for k in (1, 500, 1000):
        assert mu(k) == pytest.approx(0.9 ** (2 / N(k)))
    with pytest.raises(FewstepError, match="mu0"):
        TargetDecay(2, 1.0, N)


def test_ict_grid_size_doubles() -> None:
    """iCT, Table 1 and Section 3.4: 11, 21, ..., 1281, each for K' = 50,000 of 400,000 steps."""
    N = DoublingN(10, 1280, 400_000)
    assert [N(50_000 * i) for i in range(8)] == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert N(49_999) == 11
    assert N(400_000) == 1281


@pytest.mark.parametrize("wrong", [(0, 5, 10), (6, 5, 10), (1, 5, 0)])
def test_wrong_ranges_are_refused(wrong: tuple[int, int, int]) -> None:
    for schedule in (SquareRootN, DoublingN):
        with pytest.raises(FewstepError, match="s0"):
            schedule(*wrong)


def test_lognormal_indices_have_the_mass_of_their_interval() -> None:
    t = karras_grid(12, EDM())
    weights = LogNormalIndex(-1.1, 2.0).probabilities(t, EDM())
    draws = torch.exp(-1.1 + 2.0 * torch.randn(400_000))
    inside = draws[(draws >= t[0]) & (draws < t[-1])]
    counts = torch.histogram(inside, t).hist
    torch.testing.assert_close(weights / weights.sum(), counts / counts.sum(), atol=4e-3, rtol=0)


def test_indices_cover_the_grid() -> None:
    """Each interval as often as the others, and its two ends together."""
    p, x = EDM(), torch.zeros(40_000, 1)
    t = karras_grid(5, p)
    t_next, t_n = UniformIndex().neighbours(5, p, x, torch.float32)
    n = torch.searchsorted(t, t_n)
    assert torch.equal(t[n], t_n)
    assert torch.equal(t[n + 1], t_next)
    torch.testing.assert_close(n.bincount() / 40_000, torch.full((4,), 0.25), atol=0.015, rtol=0)


def test_lognormal_moments() -> None:
    log_t = LogNormal(-1.2, 1.2).sample(torch.zeros(200_000, 1), EDM(), least=0.0).log()
    assert float(log_t.mean()) == pytest.approx(-1.2, abs=0.015)
    assert float(log_t.std()) == pytest.approx(1.2, abs=0.015)


def test_ect_gap_shrinks_by_q_from_stage_to_stage() -> None:
    r, t = SigmoidGap(K=800, stages=8, q=2.0), torch.tensor([0.01, 1.0, 10.0, 80.0])
    for stage in range(8):
        ratio = 1 - (1 + 8 * torch.sigmoid(-t)) / 2.0 ** (stage + 1)
        torch.testing.assert_close(r(t, 100 * stage), (t * ratio).clamp(min=0))
    assert (r(t, 0)[:2] == 0).all()  # at first the target is the data: a diffusion model's loss
    assert ((t - r(t, 799)) / t < 0.04).all()
    assert torch.equal(r(t, 800), r(t, 799))


def test_one_interval_at_the_start() -> None:
    """s0 = 1: the grid needs its two ends from the first step on."""
    N = SquareRootN(s0=1, s1=20, K=100)
    assert [N(0), N(1), N(99)] == [2, 3, 21]


def test_a_grid_for_double_precision_is_not_a_rounded_one() -> None:
    p = EDM()
    double, single = karras_grid(18, p, dtype=torch.float64), karras_grid(18, p)
    assert double.dtype == torch.float64
    assert not torch.equal(double, single.double())
    torch.testing.assert_close(double.float(), single, rtol=0, atol=0)
