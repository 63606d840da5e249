"""Our samplers give the points of diffusers' schedulers, whose numbers are stored."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import Network
from fewstep.parameterization import EDM, VP, DiscreteVP, RectifiedFlow, from_config
from fewstep.sampling import Jumps, Walk, sampler_for
from fewstep.schedules import TIME_GRIDS
from fewstep.trained import CONSISTENCY, DIFFUSION

HERE = Path(__file__).parent
CASES = json.loads((HERE / "references/diffusers.json").read_text())
_spec = importlib.util.spec_from_file_location(
    "diffusers_parity", HERE.parent / "benchmarks/diffusers_parity.py"
)
assert _spec is not None
assert _spec.loader is not None
parity = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parity)


class Formula(Network):
    """The benchmark's network."""

    def __init__(self, time_scale: float) -> None:
        super().__init__()
        self.shape, self.num_classes, self.two_time = parity.SHAPE, 0, False
        self.time_scale = time_scale
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        return parity.network(x, self.time_scale * c_noise)


def map_of(case: dict[str, Any]) -> FlowMap:
    trained = DIFFUSION if case["times"] is None else CONSISTENCY
    return FlowMap(Formula(case["time_scale"]), from_config(case["process"]), trained=trained)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case['scheduler']['_class_name']}-{case['steps']}"
)
@torch.no_grad()
def test_a_walk_ends_where_the_scheduler_does(case: dict[str, Any]) -> None:
    f, times = map_of(case), case["times"]
    counts = {"steps": case["steps"]} if times is None else {"taus": tuple(times)}
    x = sampler_for(f, sampler=case["sampler"], **counts)(f, parity.streams())
    expected = torch.tensor(case["x"])
    assert float((x.flatten() - expected).abs().max()) < 3e-5 * max(1, float(expected.abs().max()))


# What makes them so


def test_the_grid_of_a_chain_is_of_its_steps() -> None:
    p = DiscreteVP()

    def indices(spec: str, N: int) -> list[int]:
        t = TIME_GRIDS.build(spec)(N, p, p.T)
        assert t.dtype == torch.float64
        return [round(float(n)) for n in t * 1000 - 1]

    assert indices("chain", 4) == [750, 500, 250, 0]
    assert indices("chain(offset=1)", 4) == [751, 501, 251, 1]
    assert indices("chain(spacing=trailing)", 4) == [999, 749, 499, 249]
    assert indices("chain(spacing=linspace)", 4) == [999, 666, 333, 0]
    assert indices("chain(beyond=True)", 4) == [800, 600, 400, 200]
    assert indices("chain(offset=1, ends=True)", 4) == [667, 334, 1, 0]
    even = TIME_GRIDS.build("chain(spacing=even)")(3, p, p.T) * 1000 - 1
    assert even.tolist() == pytest.approx([999, 499.5, 0])
    f = FlowMap(Formula(1.0), p, trained=DIFFUSION).in_process(EDM(T=100.0))
    matched = TIME_GRIDS.build("chain")(4, f.p, f.p.T)
    levels = p.noise_level(torch.tensor([0.751, 0.501, 0.251, 0.001], dtype=torch.float64))
    torch.testing.assert_close(matched, levels)
    with pytest.raises(FewstepError, match="vp_discrete, not vp"):
        TIME_GRIDS.build("chain")(4, VP(), 1.0)
    with pytest.raises(FewstepError, match="no 1000 steps"):
        TIME_GRIDS.build("chain(offset=1)")(1000, p, p.T)
    with pytest.raises(FewstepError, match="leading"):
        TIME_GRIDS.build("chain(spacing=leeding)")


def test_a_flow_may_be_shifted() -> None:
    p = RectifiedFlow()
    plain = TIME_GRIDS.build("flow")(4, p, 1.0)
    assert plain.tolist() == [1.0, 0.75, 0.5, 0.25]
    shifted = TIME_GRIDS.build("flow(shift=3.0)")(4, p, 1.0)
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))
    ends = TIME_GRIDS.build("flow(shift=2.0, last=0.1)")(4, p, 1.0)
    assert (float(ends[0]), float(ends[-1])) == pytest.approx((1.0, 0.2 / 1.1))
    for spec in ("flow(shift=0)", "flow(last=1.0)"):
        with pytest.raises(FewstepError, match="the grid flow needs"):
            TIME_GRIDS.build(spec)


def test_betas_may_be_given_number_by_number() -> None:
    betas = tuple(1e-3 * (1 + i % 3) for i in range(20))
    p = DiscreteVP(N=20, betas="given", given=betas, time_scale=19.0)
    n = torch.arange(1, 21, dtype=torch.float64)
    alpha_bar = (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0)
    torch.testing.assert_close(p.alpha(n / 20) ** 2, alpha_bar)
    assert from_config(json.loads(json.dumps(p.config))) == p
    assert "given" not in DiscreteVP().config
    with pytest.raises(FewstepError, match="20 betas"):
        DiscreteVP(N=20, betas="given", given=betas[1:])
    with pytest.raises(FewstepError, match="between 0 and 1"):
        DiscreteVP(N=20, betas="given", given=(0.0, *betas[1:]))


@torch.no_grad()
def test_jumps_may_be_clipped() -> None:
    f = FlowMap(Formula(1000.0), EDM(sigma_data=3.0), trained=CONSISTENCY)
    free = Jumps(times=(5.0, 1.0))
    states = list(Jumps(times=(5.0, 1.0), clip=True).steps(f, parity.streams()))
    assert all(float(x.abs().max()) <= 1 for x in states)
    assert float(free(f, parity.streams()).abs().max()) > 1
    with pytest.raises(FewstepError, match="gamma=1"):
        Jumps(gamma=0.5, times=(1.0,), clip=True).fitted(f)


@torch.no_grad()
def test_a_walk_may_start_from_noise_of_deviation_one() -> None:
    p = DiscreteVP(betas="scaled_linear", beta_1=0.00085, beta_N=0.012)
    f = FlowMap(Formula(1.0), p, trained=DIFFUSION)
    seen: list[Tensor] = []
    handle = f.F.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for unit in (False, True):
        Walk(2, "ddim", unit=unit)(f, parity.streams())
    handle.remove()
    z, sigma = parity.streams().normal(), float(p.sigma(torch.tensor(1.0)))
    assert sigma < 0.998
    torch.testing.assert_close(seen[0], sigma * z)
    torch.testing.assert_close(seen[2], z)
