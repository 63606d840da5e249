"""The two-time map against closed forms: for every process, every form, and every pair of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.objectives import ScoreMatching
from fewstep.parameterization import (
    EDM,
    FORMS,
    PARAMETERIZATIONS,
    PROCESSES,
    SECOND,
    VE,
    VP,
    Composed,
    CosineVP,
    DiscreteVP,
    Matched,
    Parameterization,
    RectifiedFlow,
    SimpleEDM,
    SubVP,
    TrigFlow,
    expand,
    from_config,
    match,
)
from oracles import Gaussian

PRECONDITIONINGS_FOR = {"ve": "time_itself", "trigflow": "ve", "sub_vp": "edm_denoised"}
"""With which a process is composed; the others with EDM's."""


def in_every_form() -> dict[str, Parameterization]:
    """Every registered parameterization, and every process by a preconditioning of another."""
    made: dict[str, Any] = {
        name: lambda form, cls=cls: cls(form=form)
        for name, cls in ((n, PARAMETERIZATIONS[n]) for n in PARAMETERIZATIONS)
        if cls not in (Matched, Composed)
    }
    for of in PROCESSES:
        by = PRECONDITIONINGS_FOR.get(of, "edm")
        made[f"{by} of {of}"] = lambda form, of=of, by=by: Composed(of=of, by=by, form=form)
    made["matched"] = lambda form: match(EDM(form=form), VP())
    made["straightened"] = lambda form: match(TrigFlow(form=form), RectifiedFlow())
    tried = {
        f"{name}, {form}": admitted(make, form) for name, make in made.items() for form in FORMS
    }
    return {name: p for name, p in tried.items() if p is not None}


def admitted(make: Any, form: str) -> Parameterization | None:
    """What is made in a form; None where its parts do not go together."""
    try:
        p: Parameterization = make(form)
    except FewstepError:
        return None
    return p


FORMED = in_every_form()
each = pytest.mark.parametrize("p", FORMED.values(), ids=FORMED)


def points(p: Parameterization) -> tuple[Tensor, Tensor, Tensor]:
    """Times strictly inside the process, points there, and what a network may say of them."""
    t = torch.linspace(max(p.t_min, 0.02 * p.T), 0.9 * p.T, 7, dtype=torch.float64)
    x, F = torch.randn(2, 7, 3, dtype=torch.float64)
    return t, x, F


def test_every_registered_name_is_tried() -> None:
    """Every form somewhere, EDM's shift where time is the noise level, ddim everywhere."""
    names = {name.rpartition(",")[0] for name in FORMED}
    assert set(PARAMETERIZATIONS) - {"composed"} <= names
    assert all(f"{name}, ddim" in FORMED and f"{name}, simple" in FORMED for name in names)
    shifted = {name for name in names if f"{name}, shifted" in FORMED}
    assert shifted == {"edm", "pfgm", "edm of pfgm", "matched"}


@each
def test_the_ends_of_the_map(p: Parameterization) -> None:
    """``X(x, t, t) = x`` to the bit, and ``X(x, t, 0)`` is the denoised image ``a x + b F``."""
    t, *_ = points(p)
    assert bool((p.c_skip(t, t) == 1).all()) or isinstance(p, Matched)
    torch.testing.assert_close(p.c_skip(t, t), torch.ones_like(t))
    assert bool((p.c_out(t, t) == 0).all())
    a, b = p.c_denoised(t)
    zero = torch.zeros_like(t)
    torch.testing.assert_close(p.c_skip(t, zero), a)
    torch.testing.assert_close(p.c_out(t, zero), b)
    assert bool(p.c_skip(zero, zero).isfinite().all())
    assert bool((p.c_out(zero, zero) == 0).all())


@each
def test_the_first_step_is_the_pf_odes_where_the_form_says_so(p: Parameterization) -> None:
    """``dX/ds`` at ``s = t`` is the velocity of ``D = a x + b F``; elsewhere it is another."""
    t, x, F = points(p)

    def X(s: Tensor) -> Tensor:
        return expand(p.c_skip(t, s), x) * x + expand(p.c_out(t, s), x) * F

    _, rate = torch.func.jvp(X, (t,), (torch.ones_like(t),))
    a, b = p.c_denoised(t)
    velocity = p.velocity(x, expand(a, x) * x + expand(b, x) * F, t)
    assert p.flow == ("ddim" in p.form)
    assert torch.allclose(rate, velocity, rtol=1e-8, atol=1e-8) == p.flow


@each
@pytest.mark.parametrize("second", list(SECOND))
def test_what_a_network_is_told_is_finite(p: Parameterization, second: str) -> None:
    """At the data, at the noise, on the diagonal; and so are its derivatives in both times."""
    if isinstance(p, Matched):
        p = match(type(p.source)(form=p.form, second=second), p.target)  # type: ignore[call-arg]
    else:
        p = from_config(p.config | {"second": second})
    t = torch.tensor([p.t_min, p.T / 2, p.T, p.T, p.T], dtype=torch.float32)
    s = torch.tensor([0.0, 0.0, 0.0, p.eps, p.T], dtype=torch.float32)
    one = torch.ones_like(t)
    assert bool(p.c_noise(torch.cat([t, s])).isfinite().all())
    value, rate = torch.func.jvp(p.c_noise_s, (t, s), (one, one))
    assert bool(torch.stack([value, rate]).isfinite().all())


def test_the_second_embedding_is_of_the_end_or_of_the_gap() -> None:
    t, s = torch.tensor([0.8, 0.5]), torch.tensor([0.3, 0.5])
    p = RectifiedFlow(second="gap")
    torch.testing.assert_close(p.c_noise_s(t, s), t - s)
    torch.testing.assert_close(RectifiedFlow().c_noise_s(t, s), s)
    of_edm = match(EDM(second="gap"), RectifiedFlow())
    u = t / (1 - t), s / (1 - s)
    expected = EDM().c_noise(u[0] - u[1])
    torch.testing.assert_close(of_edm.c_noise_s(t, s), expected, rtol=1e-4, atol=1e-4)


def test_small_noise_levels_keep_their_embedding() -> None:
    """Down to a millionth of the data's deviation ``c_noise`` is the paper's, to the bit."""
    t = torch.logspace(-6.3, 2, 50)
    assert torch.equal(EDM().c_noise(t), t.log() / 4)
    assert torch.equal(VE().c_noise(t), (t / 2).log())
    assert EDM().c_noise(torch.zeros(1)) == EDM().c_noise(torch.full((1,), 5e-7))


def test_a_choice_is_stored_where_it_is_not_the_default() -> None:
    """So models of before and after the choice existed have one description."""
    assert EDM().config == {"name": "edm", "eps": 0.002, "T": 80.0, "sigma_data": 0.5}
    p = EDM(form="ddim", second="gap")
    assert p.config == EDM().config | {"form": "ddim", "second": "gap"}
    assert from_config(p.config) == p
    assert "form" not in VE(form="ddim").config
    matched = match(p, VP())
    assert from_config(matched.config) == matched
    assert (matched.form, matched.second, matched.flow) == ("ddim", "gap", True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EDM(form="diim"), "ddim"),
        (lambda: VP(form="shifted"), "choose ddim or simple"),
        (lambda: SimpleEDM(form="shifted"), "choose ddim or simple"),
        (lambda: EDM(second="t"), "second"),
        (lambda: Composed(of="ve", by="trigflow"), "not written for"),
        (lambda: Composed(of="brownian"), "brownian"),
        (lambda: from_config(EDM().config | {"form": 3}), "form"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(make: Any, message: str) -> None:
    with pytest.raises(FewstepError, match=message):
        make()


class ExactNetwork(FlowMap):
    """A two-time map whose raw network is that of the exact flow of a Gaussian, in any form.

    ``F = (X - c_skip x) / c_out``, and on the diagonal the network of the diffusion model, which is
    its limit where the form is a flow.
    """

    def __init__(self, p: Parameterization) -> None:
        super().__init__(MLP((3,), width=4, blocks=1, two_time=True), p)
        self.truth = Gaussian(p)

    def prediction(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        t = self.time(t, x)
        s = t if s is None else self.time(s, x)
        a, b = (expand(c, x) for c in self.p.c_denoised(t))
        diagonal = (self.truth.denoise(x, t) - a * x) / b
        c_skip, c_out = expand(self.p.c_skip(t, s), x), expand(self.p.c_out(t, s), x)
        return torch.where(c_out == 0, diagonal, (self.truth.flow(x, t, s) - c_skip * x) / c_out)


@each
def test_the_exact_flow_in_every_form(p: Parameterization) -> None:
    """Two jumps are one; the denoiser, velocity and score are the diffusion model's; no tangent."""
    f = ExactNetwork(p)
    t, x, _ = points(p)
    m, s = 0.6 * t, 0.3 * t
    torch.testing.assert_close(f(f(x, t, m), m, s), f(x, t, s))
    torch.testing.assert_close(f(x, t, t), x)
    D = f.truth.denoise(x, t)
    torch.testing.assert_close(f.D(x, t), D)
    torch.testing.assert_close(f.velocity(x, t), p.velocity(x, D, t))
    torch.testing.assert_close(f.score(x, t), p.score(x, D, t))
    for how in ("forward", "difference"):
        y, g = f.tangent(x, t, s, f.velocity(x, t), how=how)
        torch.testing.assert_close(y, f.truth.flow(x, t, s))
        scale = float(f.velocity(x, t).abs().max())
        torch.testing.assert_close(g, torch.zeros_like(g), rtol=0, atol=1e-6 * scale)


def random_map(p: Parameterization, **settings: Any) -> FlowMap:
    """A map with random weights on points in three dimensions."""
    f = FlowMap(MLP((3,), width=16, blocks=1, **settings), p)
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return f


@pytest.mark.parametrize("p", [EDM(form="ddim"), VP(time_scale=10.0), RectifiedFlow(second="gap")])
def test_a_difference_is_the_derivative(p: Parameterization) -> None:
    """In float64 and float32, above the end, close to it and on it, under one dropout mask."""
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 2e-2)):
        f = random_map(p, two_time=True, dropout=0.3).to(dtype).train()
        x, v = torch.randn(2, 4, 3, dtype=dtype)
        t = torch.tensor([0.9, 0.5, 0.5, 0.5], dtype=dtype) * p.T
        s = torch.tensor([0.0, 0.2, 0.49999, 0.5], dtype=dtype) * p.T
        found = {}
        for how in ("forward", "difference"):
            torch.manual_seed(0)
            found[how] = f.tangent(x, t, s, v, how=how)
        for exact, other in zip(found["forward"], found["difference"], strict=True):
            scale = float(exact.detach().abs().max())
            torch.testing.assert_close(other, exact, rtol=tolerance, atol=tolerance * scale)
    with pytest.raises(FewstepError, match="forward"):
        f.tangent(x, t, s, v, how="backward")


def test_the_denoiser_of_a_two_time_network_is_on_the_diagonal() -> None:
    """What a network says of the whole way to the data is no denoiser: that is its first step."""
    f = random_map(RectifiedFlow(), two_time=True)
    x, t = torch.randn(5, 3), torch.full((5,), 0.7)
    F_x = f.F(x, t, c_noise_s=t)
    torch.testing.assert_close(f.prediction(x, t), F_x)
    torch.testing.assert_close(f.D(x, t), x - 0.7 * F_x)
    torch.testing.assert_close(f.velocity(x, t), F_x, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(f(x, t, 0.0), f.D(x, t), atol=1e-2)


PAIRED: dict[str, Parameterization] = {
    **{name: PARAMETERIZATIONS[name]() for name in PARAMETERIZATIONS},
    "edm, other data": EDM(T=20.0, sigma_data=1.3),
    "edm, ddim": EDM(eps=0.0, form="ddim"),
    "vp of other betas": VP(beta_max=12.0, prediction="v"),
    "sub-vp of other betas": SubVP(beta_max=12.0, prediction="velocity"),
    "cosine of another offset": CosineVP(s=0.02, prediction="x0"),
    "a short chain": DiscreteVP(N=100, betas="cosine", prediction="score"),
    "trigflow of other data": TrigFlow(sigma_data=1.0),
    "a shorter flow": RectifiedFlow(T=0.9),
}
"""Sources and targets; the distribution function of a Gaussian is what they all must agree on."""


def levels(p: Parameterization, t: Tensor) -> Tensor:
    """``arctan(sigma / alpha)``, which has no infinity where no signal is left."""
    return torch.atan2(p.sigma(t), p.alpha(t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRED)
def test_every_process_in_every_other(name: str, dtype: torch.dtype) -> None:
    """From the first time to the last: the network's point, its time, and the denoised image.

    The standardised point of a Gaussian is the same in both processes. Where its denoiser is the
    truth of the source, that of the target follows.
    """
    tolerance = {torch.float32: 2e-4, torch.float64: 1e-6}[dtype]
    source = PAIRED[name]
    for other, target in PAIRED.items():
        p = match(source, target)
        if not isinstance(p, Matched):
            continue  # the same process
        source_, target_ = p.source, p.target
        t = torch.tensor([p.t_min, 0.3 * p.T, 0.9 * p.T, p.T], dtype=dtype)
        u, wide = p.u(t), t.double()
        close: dict[str, Any] = {
            "rtol": tolerance,
            "atol": tolerance,
            "msg": lambda m, o=other: f"{o}: {m}",
        }
        torch.testing.assert_close(levels(source_, u), levels(target_, t), **close)
        truth, known = Gaussian(target_), Gaussian(source_)
        a, s = expand(target_.alpha(wide), t[:, None]), expand(target_.sigma(wide), t[:, None])
        z = torch.randn(4, 2, dtype=torch.float64)
        x = a * truth.m + (a**2 * truth.v + s**2).sqrt() * z
        # what the network sees, and what it says of it where it is the truth of its own process
        y = expand(p.c_in(t), x) * x.to(dtype)
        x_u, wide_u = (y / expand(source_.c_in(u), x)).double(), u.double()
        a, s = expand(source_.alpha(wide_u), x), expand(source_.sigma(wide_u), x)
        torch.testing.assert_close((x_u - a * known.m) / (a**2 * known.v + s**2).sqrt(), z, **close)
        torch.testing.assert_close(p.c_noise(t), source_.c_noise(u), **close)
        a, b = source_.c_denoised(wide_u)
        F = (known.denoise(x_u, wide_u) - expand(a, x) * x_u) / expand(b, x)
        a, b = p.c_denoised(t)
        D = expand(a, x) * x.to(dtype) + expand(b, x) * F.to(dtype)
        loose: dict[str, Any] = {"rtol": 20 * tolerance, "atol": 20 * tolerance}
        torch.testing.assert_close(D, truth.denoise(x, wide).to(dtype), **(close | loose))


def test_what_only_a_two_time_network_is_told_is_refused_of_another() -> None:
    p = EDM(second="gap")
    ScoreMatching(FlowMap(MLP((3,), width=8, blocks=1, two_time=True), p), K=1)
    with pytest.raises(FewstepError, match=r"second='gap'.* takes one time"):
        ScoreMatching(FlowMap(MLP((3,), width=8, blocks=1), p), K=1)
