"""Zero-shot editing: operators by properties, Algorithm 4 written out, closed forms, seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewstep.data import to_float, to_uint8
from fewstep.editing import (
    OPERATORS,
    Colourise,
    Deblur,
    Inpaint,
    Operator,
    Outpaint,
    SuperResolve,
    decode,
    denoise,
    edit,
    editing_times,
    encode,
    latents,
    noise_level,
    sdedit,
    slerp,
    start_time,
    time_of,
    variation,
    walk,
)
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import (
    EDM,
    PARAMETERIZATIONS,
    VP,
    CosineVP,
    Parameterization,
    RectifiedFlow,
    TrigFlow,
)
from fewstep.sampling import Multistep, NoiseStreams, sample
from fewstep.solvers import PHI
from oracles import Exact, Gaussian, slope

P = EDM(T=20.0)
IMAGES = (3, 4, 6)


def network_map(
    shape: tuple[int, ...] = IMAGES, num_classes: int = 0, kind: str = "consistency", p: Any = P
) -> FlowMap:
    f = FlowMap(MLP(shape, num_classes=num_classes, width=16, blocks=1), p, info={"kind": kind})
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return f


def pictures(n: int, shape: tuple[int, ...] = IMAGES) -> Tensor:
    return to_float(torch.randint(0, 256, (n, *shape), dtype=torch.uint8))


def tasks(shape: tuple[int, ...] = IMAGES) -> dict[str, Operator]:
    return {
        "inpaint": Inpaint(torch.rand(shape[1:]) < 0.5),
        "outpaint": Outpaint(1, 0, 2, 1),
        "colourise": Colourise(),
        "superresolve": SuperResolve(2),
        "deblur": Deblur(1.2),
    }


NAMES = list(OPERATORS)


# Operators


@st.composite
def operators(draw: st.DrawFn) -> tuple[Operator, tuple[int, ...]]:
    """An operator of every kind, and the shape of images that it takes."""
    name = draw(st.sampled_from(NAMES))
    p = draw(st.integers(2, 4))
    C = 3 if name == "colourise" else draw(st.integers(1, 3))
    H, W = (p * draw(st.integers(1, 4)) for _ in range(2))
    made: dict[str, Operator] = {
        "inpaint": Inpaint(torch.rand(H, W) < 0.5),
        "outpaint": Outpaint(draw(st.integers(0, H - 1)), 0, 0, draw(st.integers(0, W - 1))),
        "colourise": Colourise(),
        "superresolve": SuperResolve(p),
        "deblur": Deblur(draw(st.floats(0, 3)), draw(st.floats(0.01, 1))),
    }
    return made[name], (draw(st.integers(1, 3)), C, H, W)


def test_every_operator_is_tested() -> None:
    assert list(tasks()) == NAMES


@settings(deadline=None, max_examples=150)
@given(operators())
def test_operators_are_orthogonal_and_invertible(drawn: tuple[Operator, tuple[int, ...]]) -> None:
    A, shape = drawn
    x, y = torch.randn(2, *shape, dtype=torch.float64)
    u = A(x)
    exact = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(A.inverse(u), x, **exact)
    torch.testing.assert_close(A(A.inverse(u)), u, **exact)
    torch.testing.assert_close(u.flatten() @ A(y).flatten(), x.flatten() @ y.flatten())
    torch.testing.assert_close(A(2 * x - y), 2 * u - A(y), rtol=0, atol=1e-11)
    single = A.inverse(A(x.float()))
    torch.testing.assert_close(single, x.float(), rtol=0, atol=1e-5)
    assert A.known(shape).expand(u.shape).dtype == torch.bool


@settings(deadline=None, max_examples=100)
@given(operators())
def test_what_is_observed_decides_what_is_known(drawn: tuple[Operator, tuple[int, ...]]) -> None:
    """The reference of an observation has the known coordinates of what was observed."""
    A, shape = drawn
    x = torch.randn(*shape, dtype=torch.float64)
    y = A.reference(A.observe(x))
    assert y.shape == x.shape
    known = A.known(shape).expand(A(x).shape)
    torch.testing.assert_close(A(y)[known], A(x)[known], rtol=1e-9, atol=1e-9)
    if not isinstance(A, Deblur):  # whose observation also has the frequencies below the floor
        torch.testing.assert_close(A.observe(y), A.observe(x), rtol=1e-9, atol=1e-9)


def test_the_first_coordinates_are_those_of_the_paper() -> None:
    grey = torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64)
    torch.testing.assert_close(Colourise().Q[0], grey / grey.norm())
    torch.testing.assert_close(SuperResolve(3).Q[0], torch.full((9,), 1 / 3, dtype=torch.float64))
    x = pictures(2)
    u = SuperResolve(2)(x)
    torch.testing.assert_close(u[:, :, 0], 2 * torch.nn.functional.avg_pool2d(x, 2))
    assert u.shape == (2, 3, 4, 2, 3)


def test_the_cosine_transform_diagonalises_a_reflecting_blur() -> None:
    """A three-point kernel, applied with reflecting edges, multiplies each DCT-II coefficient."""
    x = torch.randn(1, 1, 1, 9, dtype=torch.float64)
    padded = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    blurred = 0.25 * padded[..., :-2] + 0.5 * padded[..., 1:-1] + 0.25 * padded[..., 2:]
    gains = 0.5 + 0.5 * torch.cos(torch.arange(9) * math.pi / 9)
    A = Deblur(1.0)
    torch.testing.assert_close(A(blurred), A(x) * gains)


def test_deblurring_grows_noise_by_no_more_than_it_says() -> None:
    A = Deblur(1.5, floor=0.2)
    noise = torch.randn(4, 1, 8, 8)
    assert float(A.reference(noise).norm() / noise.norm()) <= 1 / 0.2


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: SuperResolve(1), "at least 2"),
        (lambda: SuperResolve(5)(torch.zeros(1, 1, 8, 8)), "5 does not divide images of 8x8"),
        (lambda: SuperResolve(2)(torch.zeros(1, 8)), r"\[B, C, H, W\]"),
        (lambda: Colourise()(torch.zeros(1, 1, 8, 8)), "3 channels"),
        (lambda: Outpaint(-1), ">= 0"),
        (lambda: Outpaint(4, 4).known((1, 1, 8, 8)), "leave nothing"),
        (lambda: Inpaint(torch.ones(4, 4)).known((1, 1, 8, 8)), r"\[4, 4\] does not fit"),
        (lambda: Inpaint(torch.ones(1, 1, 1, 8, 8)).known((1, 1, 8, 8)), "does not fit"),
        (lambda: Deblur(-1), "blur >= 0"),
        (lambda: Deblur(1, 0), "floor"),
        (lambda: OPERATORS.build("superresolve(p=1)"), "at least 2"),
    ],
)
def test_operators_that_cannot_be_are_refused(make: Any, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        make()


# Algorithm 4


@pytest.mark.parametrize("name", NAMES)
def test_the_edit_is_algorithm_4(name: str) -> None:
    f, y, A, taus = network_map(), pictures(3), tasks()[name], (20.0, 5.0, 0.5)
    got = edit(f, y, A, taus, seed=3)
    noise = NoiseStreams(3, range(3), f.shape)
    Omega = (~A.known(tuple(y.shape))).float()
    with torch.no_grad():
        x = A.inverse(A(y) * (1 - Omega)) + 20.0 * noise.normal()
        x = f(x, 20.0)
        x = A.inverse(A(y) * (1 - Omega) + A(x) * Omega)
        for tau in taus[1:]:
            x = f(x + (tau**2 - 0.002**2) ** 0.5 * noise.normal(), tau)
            x = A.inverse(A(y) * (1 - Omega) + A(x) * Omega)
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_known_stays(name: str) -> None:
    f, y, A = network_map(), pictures(5), tasks()[name]
    x = edit(f, y, A, steps=3)
    known = A.known(tuple(y.shape)).expand(A(y).shape)
    if name in ("inpaint", "outpaint"):
        assert torch.equal(A(x)[known], A(y)[known])
        pixels = known.expand(y.shape)
        assert torch.equal(to_uint8(x)[pixels], to_uint8(y)[pixels])
    else:
        torch.testing.assert_close(A(x)[known], A(y)[known], rtol=0, atol=1e-4)
    assert not torch.allclose(A(x)[~known], A(y)[~known])


@pytest.mark.parametrize("A", [SuperResolve(2), Colourise()])
def test_bytes_keep_what_is_known_to_their_rounding(A: Operator) -> None:
    """Images inside [-1, 1]: rounding moves a mean of pixels by at most half a step."""
    torch.manual_seed(1)
    x = pictures(4).double() * 0.9
    back = to_float(to_uint8(x)).double()
    assert float((A.observe(back) - A.observe(x)).abs().max()) <= 0.5 / 127.5 + 1e-6


def test_what_is_unknown_in_the_reference_changes_nothing() -> None:
    f, y, A = network_map(), pictures(4), SuperResolve(2)
    other = A.reference(A.observe(y))
    torch.testing.assert_close(edit(f, y, A), edit(f, other, A), rtol=1e-3, atol=1e-3)


def test_a_mask_of_ones_gives_the_image_and_of_zeros_a_sample() -> None:
    f, y = network_map(), pictures(4)
    assert torch.equal(edit(f, y, Inpaint(torch.ones(4, 6))), y)
    free = edit(f, y, Inpaint(torch.zeros(4, 6)), (20.0, 1.0), seed=2)
    want = sample(f, 4, Multistep((1.0,)), seed=2)
    torch.testing.assert_close(free.clamp(-1, 1), want, rtol=0, atol=1e-5)


def test_every_image_may_have_its_own_mask() -> None:
    f, y = network_map(), pictures(4)
    keep = torch.rand(4, 1, 4, 6) < 0.5
    together = edit(f, y, Inpaint(keep), steps=2, batch=3)
    for i in range(4):
        alone = edit(f, y[i : i + 1], Inpaint(keep[i, 0]), steps=2, indices=[i])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_an_edit_depends_on_seed_index_and_class_alone(batch: int) -> None:
    f, y, A = network_map(num_classes=3), pictures(7), SuperResolve(2)
    labels = torch.arange(7) % 3
    whole = edit(f, y, A, steps=3, seed=5, labels=labels)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(
        edit(f, y, A, steps=3, seed=5, labels=labels, batch=batch), whole, **close
    )
    part = edit(f, y[2::3], A, steps=3, seed=5, labels=labels[2::3], indices=range(2, 7, 3))
    torch.testing.assert_close(part, whole[2::3], **close)
    assert not torch.allclose(edit(f, y, A, steps=3, seed=6, labels=labels), whole)
    assert not torch.allclose(edit(f, y, A, steps=3, seed=5, labels=(labels + 1) % 3), whole)
    assert torch.equal(
        edit(f, y, A, steps=2, labels=1), edit(f, y, A, steps=2, labels=torch.ones(7).long())
    )


def test_your_own_operator() -> None:
    class Reverse(Operator):
        """Pixels in reverse order, of which the first half is known."""

        def __call__(self, x: Tensor) -> Tensor:
            return x.flatten(1).flip(1)

        def inverse(self, u: Tensor) -> Tensor:
            return u.flip(1).reshape(-1, *IMAGES)

        def known(self, shape: tuple[int, ...]) -> Tensor:
            return (torch.arange(math.prod(shape[1:])) < 36)[None]

    f, y = network_map(), pictures(3)
    x = edit(f, y, Reverse())
    assert torch.equal(x.flatten(1)[:, -36:], y.flatten(1)[:, -36:])
    assert float(Reverse().observe(y).flatten(1)[:, :36].abs().max()) == 0


@pytest.mark.parametrize("name", [n for n in PARAMETERIZATIONS if n != "edm_simple"])
def test_the_part_to_be_generated_has_the_distribution_of_the_data(name: str) -> None:
    """Pixels of N(m, v I) are independent: what is generated must be N(m, v) whatever is kept."""
    truth = Gaussian(PARAMETERIZATIONS[name](), m=0.3, v=0.25)
    f = Exact(truth, "consistency", dim=12)
    y = 0.9 * torch.ones(3000, 12, dtype=torch.float64)
    keep = torch.arange(12) < 4
    x = edit(f, y, Inpaint(keep), steps=4)
    assert torch.equal(x[:, :4], y[:, :4])
    assert x.isfinite().all()
    assert float(x[:, 4:].mean()) == pytest.approx(0.3, abs=0.02)
    assert float(x[:, 4:].var()) == pytest.approx(0.25, abs=0.02)
    # Independent of the start y, of the kept part, and of one another.
    correlation = torch.corrcoef(x[:, 4:].T) - torch.eye(8)
    assert float(correlation.abs().max()) < 0.08


@pytest.mark.parametrize("wrong", ["t_1", "order", "eps", "none", "nan"])
def test_wrong_times_are_refused(wrong: str) -> None:
    taus = {
        "t_1": (30.0, 1.0),
        "order": (1.0, 2.0),
        "eps": (1.0, 0.001),
        "none": (),
        "nan": (float("nan"),),
    }[wrong]
    with pytest.raises(FewstepError, match="decreasing times from at most T=20"):
        edit(network_map(), pictures(1), SuperResolve(2), taus)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda f: edit(f, pictures(1), SuperResolve(2), steps=0), "at least 1 step"),
        (lambda f: edit(f, pictures(1, (3, 8, 8)), SuperResolve(2)), r"\[B, 3, 4, 6\]"),
        (lambda f: edit(f, torch.zeros(1, *IMAGES).byte(), SuperResolve(2)), "uint8"),
        (lambda f: edit(f, torch.full((1, *IMAGES), torch.nan), SuperResolve(2)), "finite"),
        (lambda f: edit(f, torch.zeros(0, *IMAGES), SuperResolve(2)), "B >= 1"),
        (lambda f: edit(f, pictures(1), SuperResolve(2), labels=1), "unconditional"),
        (lambda f: edit(f, pictures(2), SuperResolve(2), indices=[1]), "2 images need 2"),
        (lambda f: edit(f, pictures(2), SuperResolve(2), batch=0), "at least 1 image"),
        (lambda f: edit(f, pictures(2), SuperResolve(2), seed=-1), "seed"),
        (lambda f: sdedit(f, pictures(1), strength=0.0), "strength"),
        (lambda f: sdedit(f, pictures(1), strength=1.5), "strength"),
        (lambda f: variation(f, pictures(1)[0], n=0), "variations"),
        (lambda f: encode(f, pictures(1)), "distilled from"),
        (lambda f: decode(f, latents(f, [0]), taus=(30.0,)), "T=20"),
        (lambda f: walk(latents(f, [0]), 5), "2 latents"),
        (lambda f: denoise(f, pictures(1), -0.1), "from 0 to 20"),
        (lambda f: denoise(f, pictures(1), 21.0), "from 0 to 20"),
        (lambda f: denoise(f, pictures(1), float("nan")), "from 0 to 20"),
        (lambda f: noise_level(torch.zeros(3, 5)), "give it"),
        (lambda f: noise_level(torch.zeros(3, 1, 1, 5)), "2x2"),
    ],
)
def test_wrong_calls_are_refused(call: Any, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        call(network_map())


def test_conditional_models_need_a_class_that_they_have() -> None:
    f = network_map(num_classes=3)
    with pytest.raises(FewstepError, match=r"conditional.*0\.\.2"):
        edit(f, pictures(2), SuperResolve(2))
    for labels in (3, -1, torch.tensor([0, 1, 2]), torch.tensor([0, 5])):
        with pytest.raises(FewstepError, match=r"0\.\.2"):
            edit(f, pictures(2), SuperResolve(2), labels=labels)


def test_diffusion_models_are_refused() -> None:
    f = network_map(kind="diffusion")
    for call in (lambda: edit(f, pictures(1), Colourise()), lambda: sdedit(f, pictures(1))):
        with pytest.raises(FewstepError, match="distil it first"):
            call()


# Strokes and variations


def test_times() -> None:
    assert start_time(EDM(), 1.0) == 80
    assert start_time(EDM(), 0.6) == pytest.approx(5.38, rel=0.1)  # the paper's, from strokes
    a, b = 0.002 ** (1 / 7), 80 ** (1 / 7)
    assert start_time(EDM(), 0.4) == (a + 0.4 * (b - a)) ** 7
    f = network_map()
    f.trained = replace(f.trained, taus={"2": (0.7,)})
    assert editing_times(f, 2) == (20, 0.7)
    for strength in (0.05, 0.5, 1):
        for steps in (1, 2, 5):
            taus = editing_times(f, steps, strength)
            assert len(taus) == steps
            assert all(a > b > P.eps for a, b in pairwise(taus))


@pytest.mark.parametrize("p", [TrigFlow(), RectifiedFlow(), VP(), CosineVP()], ids=repr)
def test_a_strength_drowns_as_much_in_every_process(p: Parameterization) -> None:
    """In times it would be a noise level of 0.11 for TrigFlow, and 0.18 for straight lines."""
    for strength, level in ((0.4, 0.97), (0.6, 5.84), (0.9, 46)):
        t = torch.tensor(start_time(p, strength), dtype=torch.float64)
        assert float(p.noise_level(t)) == pytest.approx(level, rel=0.6)
    f = network_map(p=p)
    assert editing_times(f, 3)[0] == start_time(p, 1) == p.T
    taus = editing_times(f, 40, 0.05)
    assert all(a > b > p.eps for a, b in pairwise(taus))


def test_strokes_are_noised_by_the_noise_level_and_left_whole() -> None:
    """A known defect of earlier code: noise scaled by the index of the time."""
    f, y = network_map(), pictures(3)
    got = sdedit(f, y, (5.0, 2.0), seed=1)
    noise = NoiseStreams(1, range(3), f.shape)
    with torch.no_grad():
        x = f(y + 5.0 * noise.normal(), 5.0)
        x = f(x + (4 - 0.002**2) ** 0.5 * noise.normal(), 2.0)
    torch.testing.assert_close(got, x)


def test_variations_grow_with_the_strength() -> None:
    truth = Gaussian(EDM(), m=0.0, v=0.25)
    f = Exact(truth, "consistency", dim=50)
    y = truth.sample(50)
    away = [
        float((variation(f, y, strength, n=20) - y).square().mean().sqrt())
        for strength in (0.05, 0.3, 0.6, 1.0)
    ]
    assert away == sorted(away)
    assert away[0] < 0.02
    assert away[-1] == pytest.approx(float((0.25 + y.square().mean()).sqrt()), rel=0.1)
    both = variation(f, y, 0.5, n=2)
    assert not torch.allclose(both[0], both[1])


# Denoising


@pytest.mark.parametrize("kind", ["consistency", "diffusion"])
@pytest.mark.parametrize("name", [n for n in PARAMETERIZATIONS if n != "edm_simple"])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_the_error_of_denoising_is_that_of_the_closed_form(
    name: str, kind: str, sigma: float
) -> None:
    """On N(m, v): the posterior mean errs by v s^2/(v + s^2), the PF-ODE by 2 v (1 - r)."""
    v = 0.25
    truth = Gaussian(PARAMETERIZATIONS[name](), m=0.3, v=v)
    f = Exact(truth, kind, dim=10)
    x = truth.sample(5000, 10)
    noisy = x + sigma * torch.randn_like(x)
    error = float((denoise(f, noisy, sigma) - x).square().mean())
    r = (v / (v + sigma**2)) ** 0.5
    want = v * sigma**2 / (v + sigma**2) if kind == "diffusion" else 2 * v * (1 - r)
    assert error == pytest.approx(want, rel=0.05)


def test_every_image_may_have_its_own_noise_level() -> None:
    f, x = network_map(), pictures(4)
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0])
    together = denoise(f, x, sigma, batch=3)
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], denoise(f, x[i : i + 1], float(sigma[i])))


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_the_time_of_a_noise_level(name: str) -> None:
    p = PARAMETERIZATIONS[name]()
    t = torch.linspace(0.01, 0.9 * p.T, 20, dtype=torch.float64)
    torch.testing.assert_close(time_of(p, p.sigma(t) / p.alpha(t)), t, rtol=1e-9, atol=1e-9)
    assert float(time_of(p, torch.zeros(1))) == pytest.approx(p.t_min)


def test_no_noise_is_left_alone() -> None:
    f, x = network_map(p=EDM(eps=0.0)), pictures(2)
    torch.testing.assert_close(denoise(f, x, 0.0), x, rtol=0, atol=0.02)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_the_noise_level_of_smooth_images_is_found(sigma: float) -> None:
    """Within 3 % on average; single 32 x 32 images in colour scatter by 4 %."""
    i = torch.linspace(0, 3, 32)
    smooth = torch.stack([torch.sin(i[:, None] + k) * torch.cos(i - k) for k in range(3)])
    smooth[:, :, 16:] -= 0.5  # one edge does not disturb the median
    found = noise_level(smooth + sigma * torch.randn(200, 3, 32, 32))
    assert float(found.mean()) == pytest.approx(sigma, rel=0.03)
    assert float(found.std() / found.mean()) == pytest.approx(1.17 / 768**0.5, rel=0.3)


def test_odd_sizes_and_the_default_level() -> None:
    f = network_map((1, 5, 7))
    x = pictures(3, (1, 5, 7))
    torch.testing.assert_close(denoise(f, x), denoise(f, x, noise_level(x)))


# Latents


def test_slerp_keeps_the_ends_and_the_length() -> None:
    a, b = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    path = slerp(a, b, torch.linspace(0, 1, 7))
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    lengths = path.flatten(1).norm(dim=1)
    assert float((lengths / lengths[0] - 1).abs().max()) < 0.03
    line = 0.5 * (a + b)
    assert float(line.norm()) < 0.75 * float(a.norm())


def test_slerp_is_that_of_the_circle() -> None:
    got = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3)
    torch.testing.assert_close(got, torch.tensor([3**0.5 / 2, 0.5]))
    torch.testing.assert_close(slerp(torch.ones(2), 3 * torch.ones(2), 0.5), 2 * torch.ones(2))


def test_a_walk_passes_through_its_latents() -> None:
    z = torch.randn(3, 2, 5)
    path = walk(z, 4)
    assert path.shape == (7, 2, 5)
    torch.testing.assert_close(path[::3], z)
    loop = walk(z, 4, closed=True)
    assert loop.shape == (9, 2, 5)
    torch.testing.assert_close(loop[:7], path)


def test_latents_are_those_of_the_samples() -> None:
    f = network_map()
    x = decode(f, latents(f, [3, 8], seed=2), taus=())
    torch.testing.assert_close(x.clamp(-1, 1), sample(f, 9, seed=2)[[3, 8]], rtol=0, atol=1e-5)


def test_all_frames_share_the_noise_of_later_steps() -> None:
    f = network_map()
    z = latents(f, [0]).expand(3, *f.shape)
    x = decode(f, z, taus=(1.0,), batch=2)
    torch.testing.assert_close(x, x[:1].expand_as(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(decode(f, z, taus=(1.0,), batch=1), x, rtol=0, atol=1e-5)
    x = decode(f, z, sampler="jumps(times=(1.0,))").clamp(-1, 1)
    first = sample(f, 1, "jumps(times=(1.0,))")
    torch.testing.assert_close(x, first.expand_as(x), rtol=0, atol=1e-5)
    x = decode(f, z[:1], taus=(1.0,)).clamp(-1, 1)
    torch.testing.assert_close(x, first, rtol=0, atol=1e-5)  # the noise of later steps is new
    with pytest.raises(FewstepError, match="not both"):
        decode(f, z, taus=(1.0,), sampler="jumps")
    with pytest.raises(FewstepError, match="a diffusion model"):
        decode(network_map(kind="diffusion"), z, taus=(1.0,))


@pytest.mark.parametrize("name", ["euler", "heun", "midpoint", "rk4"])
def test_encoding_and_decoding_gives_the_image_back(name: str) -> None:
    """The error of the round trip falls with N at the solver's order or faster.

    Even orders do better by one: forth and back, their leading errors cancel.
    """
    truth = Gaussian(EDM(eps=0.02, T=10.0), m=0.3, v=0.49)
    f = Exact(truth, "diffusion")
    x = truth.sample(16, 3)
    counts = [24, 48, 96]
    errors = []
    for N in counts:
        z = encode(f, x, N=N, solver=name)
        errors.append(float((decode(f, z, N=N, solver=name) - x).abs().max()))
    assert errors[0] < 0.3
    order = slope([1 / N for N in counts], errors)
    assert order > PHI.build(name).order - 0.15


def test_the_latents_of_data_are_those_of_the_flow() -> None:
    truth = Gaussian(TrigFlow(), m=0.3, v=0.25)
    f = Exact(truth, "diffusion", dim=10)
    x = truth.sample(1000, 10)
    z = encode(f, x, N=60)
    assert float(z.mean()) == pytest.approx(0, abs=0.02)
    assert float(z.std()) == pytest.approx(1, abs=0.02)
    start, end = torch.full((1000,), 0.002).double(), torch.full((1000,), truth.p.T).double()
    torch.testing.assert_close(truth.p.prior(z), truth.flow(x, start, end), rtol=0, atol=2e-3)


def test_a_consistency_model_decodes_what_its_teacher_encodes() -> None:
    truth = Gaussian(EDM(T=10.0), m=0.3, v=0.25)
    teacher, f = Exact(truth, "diffusion"), Exact(truth, "consistency")
    x = truth.sample(20, 3)
    torch.testing.assert_close(decode(f, encode(teacher, x, N=100)), x, rtol=0, atol=1e-3)


def test_arguments_that_are_something_else_are_refused() -> None:
    f, y = network_map(), pictures(2)
    keep = torch.zeros(4, 6)
    for wrong, hint in (
        ({"y": (y + 1) * 127.5}, r"\[-1, 1\]"),
        ({"steps": 1.5}, "whole number"),
        ({"batch": 2.0}, "whole number"),
        ({"seed": None}, "whole number"),
    ):
        with pytest.raises(FewstepError, match=hint):
            edit(f, **{"y": y, "A": Inpaint(keep), "steps": 1, **wrong})  # type: ignore[arg-type]
    for soft in (keep + 0.5, torch.arange(24).reshape(4, 6)):
        with pytest.raises(FewstepError, match="threshold"):
            Inpaint(soft)
    for hard in (keep + 1, keep.bool(), (keep.byte() + 1) * 255):
        assert Inpaint(hard).keep.dtype == torch.bool


def test_classes_by_name() -> None:
    f, y = network_map(num_classes=2), pictures(2)
    f.trained = replace(f.trained, classes=("cat", "dog"))
    A = Inpaint(torch.zeros(4, 6))
    expected = edit(f, y, A, steps=1, labels=torch.tensor([1, 0]))
    assert torch.equal(edit(f, y, A, steps=1, labels=["dog", "cat"]), expected)
    assert torch.equal(edit(f, y, A, steps=1, labels=[1, 0]), expected)
    assert torch.equal(variation(f, y[0], label="dog", n=2), variation(f, y[0], label=1, n=2))
