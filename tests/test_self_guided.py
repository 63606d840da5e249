"""Maps that take the weight and the interval of their guidance as inputs, in closed form.

Of a class all images are one point, and without a class they are another. Then the velocity at
``t`` leads from ``x`` straight to a point, ``(x - point) / t``, and the guided map to any time goes
in at most three straight parts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.condition import Condition, everywhere
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.networks import MLP, Network
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.objectives.flow_maps import mean_velocity
from fewstep.parameterization import RectifiedFlow
from fewstep.sampling import sample, sampler_for
from fewstep.trained import CONSISTENCY, FLOW_MAP, Trained

P = RectifiedFlow(sigma_data=0.7)
POINTS = torch.tensor([-0.3, 0.25, 0.0], dtype=torch.float64)
"""Of the classes 0 and 1, and of no class."""
NONE_OF_THEM = 2


class Exact(Network):
    """The guided map's mean velocity, by what it is told."""

    takes = ("label", "w", "interval")
    label_dropout = 0.1
    guidance_embedding = True

    def __init__(
        self, *, intervals: bool = False, heeds: bool = True, scaled: bool = False, off: float = 0.0
    ) -> None:
        super().__init__()
        self.shape, self.num_classes, self.two_time = (1,), 2, True
        self.interval_embedding, self.heeds = intervals, heeds
        self.scaled_by_weight, self.off = scaled, off
        self.one = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.asked: list[Condition] = []

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
        w: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> Tensor:
        assert w is not None
        assert c_noise_s is not None
        assert (interval is not None) == self.interval_embedding
        self.asked.append(Condition(label, w, interval))
        if label is None:
            label = torch.full_like(w, NONE_OF_THEM, dtype=torch.int64)
        if interval is None or not self.heeds:
            interval = everywhere(w)
        u = mean(x, c_noise, c_noise_s, POINTS[label], w, interval) + self.off
        return self.one * u / (w[:, None] if self.scaled_by_weight else 1)


def mean(x: Tensor, t: Tensor, s: Tensor, own: Tensor, w: Tensor, interval: Tensor) -> Tensor:
    """``(x - X) / (t - s)``, or the velocity at ``t`` where both times are one."""
    led = torch.where(own == POINTS[NONE_OF_THEM], own, w * own)  # the null class is at 0
    begins, ends = (1 - 1 / (1 + interval.double())).unbind(1)
    high = torch.minimum(torch.maximum(ends, s), t)
    low = torch.minimum(torch.maximum(begins, s), high)
    X, now = x[:, 0], t
    for until, point in ((high, own), (low, led), (s, own)):
        X, now = point + (X - point) * torch.where(now > 0, until / now, 1.0), until
    same = t == s
    here = (x[:, 0] - torch.where((begins < t) & (t <= ends), led, own)) / t
    return torch.where(same, here, (x[:, 0] - X) / torch.where(same, 1.0, t - s))[:, None]


def built(name: str, F: Network, **settings: Any) -> Objective:
    return OBJECTIVES.call(name, {"f": FlowMap(F, P), "K": 10, **settings})


def losses(o: Objective, n: int = 512) -> Tensor:
    """Of images of the two classes and of none, which nothing hides further."""
    torch.manual_seed(0)
    label = torch.arange(n) % 3
    return o.eval()(POINTS[label][:, None], 0, Condition(label)).detach()


RANGE = {"guidance_range": (1.0, 8.0)}


@pytest.mark.parametrize(
    ("name", "settings", "network"),
    [
        ("imf", RANGE, {}),
        ("imf", RANGE | {"guidance_intervals": True}, {"intervals": True}),
        ("imf", RANGE | {"guidance_intervals": True, "auxiliary": 0.0}, {"intervals": True}),
        ("imf", RANGE | {"guidance_intervals": True}, {"intervals": True, "scaled": True}),
        ("tvm", RANGE, {}),
        ("tvm", RANGE, {"scaled": True}),
        ("tvm", {"guidance_range": (2, 2)}, {"scaled": True}),
    ],
)
def test_the_exact_guided_map_has_no_loss(
    name: str, settings: dict[str, Any], network: dict[str, Any]
) -> None:
    assert float(losses(built(name, Exact(**network), **settings)).max()) < 1e-18
    wrong = losses(built(name, Exact(**network, off=0.1), **settings))
    assert float(wrong.median()) > 1e-4


def test_a_map_that_does_not_heed_the_interval_has_a_loss() -> None:
    settings = RANGE | {"guidance_intervals": True}
    found = losses(built("imf", Exact(intervals=True, heeds=False), **settings))
    assert 0.05 < float((found > 1e-3).double().mean()) < 0.5  # half of the rows have one time


def test_weights_and_intervals_are_drawn_as_in_the_paper() -> None:
    F = Exact(intervals=True)
    o = built("imf", F, guidance_intervals=True, **RANGE).eval()
    assert (o.f.trained.weights, o.f.trained.around) == ((1.0, 8.0), 1.0)
    n = 6000
    label = torch.arange(n) % 3
    condition, (t, s) = o.drawn(POINTS[label][:, None], 0, Condition(label), o.turns(0)[0])
    assert condition.w is not None
    assert condition.interval is not None
    known, near = label < NONE_OF_THEM, 4 / (2 * n / 3) ** 0.5
    assert bool((condition.w[~known] == 1).all())
    share = condition.w[known].log() / torch.tensor(8.0).log()
    assert float(share.mean()) == pytest.approx(0.5, abs=near * 12**-0.5)
    times = 1 - 1 / (1 + condition.interval)
    assert 0 <= float(times[:, 0].min()) < 0.01 < 0.49 < float(times[:, 0].max()) <= 0.5
    assert 0.5 <= float(times[:, 1].min()) < 0.51 < 0.99 < float(times[:, 1].max()) <= 1
    assert float(times.mean()) == pytest.approx(0.5, abs=near * 12**-0.5)
    o.loss_at(POINTS[label][:, None], t, s, condition=condition)
    between, own, *_, null = F.asked  # its own velocity where two times need it
    assert own.w is not None
    assert null.w is not None
    inside, first = (times[:, 0] < t) & (t <= times[:, 1]), len(own.w)
    assert first == n / 2
    assert torch.equal(own.w, torch.where(inside | (t == s), condition.w, 1.0)[:first])
    assert bool((null.w == 1).all())
    for whole, rows in ((own.interval, first), (null.interval, n)):
        assert whole is not None
        assert torch.equal(whole, everywhere(condition.w[:rows]))
    told = torch.where((t == s)[:, None], everywhere(condition.w), condition.interval)
    assert between.interval is not None
    assert torch.equal(between.interval, told)


def test_tvm_counts_rows_without_their_class_in_full() -> None:
    """They are not guided: ``w = 1``, by which their squares are divided, too."""

    def found(**settings: Any) -> Tensor:
        F = MLP((1,), width=8, blocks=1, two_time=True, num_classes=2, label_dropout=0.1)
        torch.manual_seed(1)
        for parameter in F.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return losses(built("tvm", F.double(), **settings))

    plain, guided = found(), found(guidance=2.0)
    hidden = torch.arange(len(plain)) % 3 == NONE_OF_THEM
    assert torch.equal(plain[hidden], guided[hidden])
    assert float((plain - guided)[~hidden].abs().median()) > 0.01


# Sampling

MADE = replace(FLOW_MAP, null_class=True, weights=(1.0, 8.0), guidance=1.0, around=1.0)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("interval", "end"), [(None, 3.0), ((0.0, 2.0), 3.0), ((0.5, 2.0), 1.0)])
def test_weight_and_interval_are_sampled_in_one_evaluation(
    interval: tuple[float, float] | None, end: float, scaled: bool
) -> None:
    """The image is where the last of the straight parts leads."""
    F = Exact(intervals=True, scaled=scaled)
    f = FlowMap(F, P, trained=MADE)
    for label, own in ((0, -0.3), (1, 0.25)):
        x = sample(f, 4, seed=3, label=label, guidance=Guided(3.0, interval))
        torch.testing.assert_close(x, torch.full_like(x, end * own))
        assert told(F) == (3.0, *(interval or (0.0, torch.inf)))
    assert len(F.asked) == 2
    sample(f, 1, label=0)
    assert told(F) == (1.0, 0.0, torch.inf)


def told(F: Exact) -> tuple[float, ...]:
    """Weight and interval of the last evaluation, which are those of every row."""
    condition = F.asked[-1]
    assert condition.w is not None
    assert condition.interval is not None
    (rows,) = torch.cat([condition.w[:, None], condition.interval], 1).unique(dim=0)
    return tuple(rows.tolist())


@pytest.mark.parametrize("scaled", [False, True])
def test_a_walk_tells_the_network_its_weight_at_every_time(scaled: bool) -> None:
    """One evaluation a step, and outside of the interval the weight 1."""
    F = Exact(scaled=scaled)
    f = FlowMap(F, P, trained=replace(MADE, around=None))
    for interval, end in ((None, 3.0), ((0.4, 1.5), 1.0)):
        F.asked.clear()
        sampler = sampler_for(f, 6, sampler="walk(solver=euler)", guidance=Guided(3.0, interval))
        x = sample(f, 2, seed=1, label=1, sampler=sampler)
        torch.testing.assert_close(x, torch.full_like(x, end * 0.25))
        assert len(F.asked) == sampler.nfe == 6
        levels = [
            t / (1 - t) if t < 1 else torch.inf for t in (1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)
        ]
        expected = [3.0 if interval is None or 0.4 < n <= 1.5 else 1.0 for n in levels]
        assert [float(c.w[0]) for c in F.asked if c.w is not None] == expected
    late = FlowMap(F, P, trained=replace(MADE, weights=(2.0, 4.0), guidance=2.0))
    F.asked.clear()
    x = sample(late, 1, label=1, sampler="walk(nfe=7)")
    torch.testing.assert_close(x, torch.full_like(x, 2 * 0.25))  # the model's own weight, once
    assert len(F.asked) == 7
    with pytest.raises(FewstepError, match="weights from 2 on: leave out the interval"):
        sampler_for(late, sampler="walk", guidance=Guided(3.0, (0.5, 2.0)))
    with pytest.raises(FewstepError, match="guidance weights from 2 to 4, got 1"):
        sampler_for(late, sampler="walk(guidance=1)")


def learned(trained: Trained = MADE, **network: Any) -> FlowMap:
    settings = {"two_time": True, "num_classes": 3, "label_dropout": 0.1} | network
    F = MLP((1,), width=8, blocks=1, guidance_embedding=True, **settings)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return FlowMap(F, P, trained=trained)


def test_a_model_file_says_which_intervals_it_takes(tmp_path: Path) -> None:
    f = learned(interval_embedding=True, scaled_by_weight=True)
    f.save(tmp_path / "f.safetensors")
    again = FlowMap.load(tmp_path / "f.safetensors")
    assert again.trained == f.trained
    assert again.trained.around == 1.0
    images = [
        sample(model, 4, steps=2, label=1, guidance=guidance)
        for model in (f, again)
        for guidance in (Guided(3.0), Guided(3.0, (0.5, 2.0)), Guided(4.0, (0.5, 2.0)))
    ]
    assert all(torch.equal(images[i], images[i + 3]) for i in range(3))
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[1], images[2])


def test_the_scale_is_the_weight_of_each_row() -> None:
    plain, scaled = learned(), learned(scaled_by_weight=True)
    scaled.F.load_state_dict(plain.F.state_dict())
    x, t, w = torch.randn(3, 1), torch.full((3,), 0.8), torch.tensor([1.0, 2.0, 5.0])
    condition, s = Condition(torch.arange(3), w), torch.full((3,), 0.3)
    u = mean_velocity(plain, x, t, s, condition)
    torch.testing.assert_close(mean_velocity(scaled, x, t, s, condition), w[:, None] * u)
    X = x - 0.5 * w[:, None] * u
    torch.testing.assert_close(scaled(x, t, s, condition), X)
    torch.testing.assert_close(scaled(x, t, t, condition), x)
    v = mean_velocity(scaled, x, t, t, condition)
    torch.testing.assert_close(scaled.velocity(x, t, condition), v)
    torch.testing.assert_close(scaled.rate(x, t, t, condition)[1], v)


# What does not fit


@pytest.mark.parametrize(
    ("name", "settings", "network", "fault"),
    [
        ("imf", RANGE | {"guidance_intervals": True}, {}, "both or neither of guidance_intervals"),
        ("imf", RANGE, {"interval_embedding": True}, "both or neither of guidance_intervals"),
        ("imf", {"guidance_intervals": True}, {"interval_embedding": True}, "give both"),
        ("tvm", RANGE, {"interval_embedding": True}, "both or neither of guidance_intervals"),
        ("tvm", RANGE, {"guidance_embedding": False}, "both or neither of guidance_range"),
        ("tvm", {}, {}, "both or neither of guidance_range"),
        ("tvm", RANGE | {"guidance": 2.0}, {}, "or a range of them, not both"),
        ("tvm", {"guidance_range": (0.5, 2.0)}, {}, "weights from 1 on, not from 0.5"),
        ("tvm", {"guidance_range": (3.0, 2.0)}, {}, "0 <= low <= high"),
        ("tvm", RANGE, {"label_dropout": 0.0}, "label-dropout 0.1, or leave out the guidance"),
    ],
)
def test_what_a_map_cannot_learn_is_refused(
    name: str, settings: dict[str, Any], network: dict[str, Any], fault: str
) -> None:
    own = {"guidance_embedding": True, "label_dropout": 0.1} | network
    F = MLP((1,), width=8, blocks=1, two_time=True, num_classes=3, **own)
    with pytest.raises(FewstepError, match=fault):
        built(name, F, **settings)


@pytest.mark.parametrize("name", ["interval_embedding", "scaled_by_weight"])
def test_what_is_of_a_weight_needs_one(name: str) -> None:
    network: Any = {name: True}
    with pytest.raises(FewstepError, match=f"{name} of a network .* guidance_embedding=True"):
        MLP((1,), width=8, blocks=1, **network)


def test_intervals_that_were_not_learned_are_refused() -> None:
    f = learned(interval_embedding=True)
    sampler_for(f, guidance=Guided(3.0, (0.5, 1.0)))
    for interval in ((1.5, 2.0), (0.1, 0.9)):
        with pytest.raises(
            FewstepError, match="intervals of guidance around the noise level 1, got"
        ):
            sampler_for(f, guidance=Guided(3.0, interval))
    none = learned(replace(MADE, around=None))
    for w in (1.0, 3.0):
        with pytest.raises(FewstepError, match="at every noise level: leave out the interval"):
            sampler_for(none, guidance=Guided(w, (0.5, 2.0)))
    sampler_for(none, guidance=Guided(3.0, (0.0, torch.inf)))
    with pytest.raises(FewstepError, match=r"trained\.around must be a noise level"):
        replace(CONSISTENCY, around=1.0)
