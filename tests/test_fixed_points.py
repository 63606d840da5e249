"""The oracles: maps of which everything is known, and what is held against them."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep import tangent
from fewstep.flow_map import FlowMap
from fewstep.needs import FixedPoint
from fewstep.networks import NETWORKS
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.parameterization import PARAMETERIZATIONS, Parameterization
from fewstep.testing import CONTRACTS, Broken, Fitting
from fewstep.testing.known import Known
from fewstep.testing.of_fixed_points import GAUSSIAN, MIXTURE, OnALine, nodes
from fewstep.theory.mixture import Mixture
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP
from oracles import slope

CONTRACT = CONTRACTS["has_the_fixed_point_it_declares"]
PROCESSES = ["edm(T=20.0, eps=0.0, form='ddim')", "rectified_flow", "trigflow", "vp"]
each = pytest.mark.parametrize("spec", PROCESSES)
LAWS = pytest.mark.parametrize("law", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])


def truth(spec: str, law: Any) -> tuple[Parameterization, Mixture, Tensor, Tensor]:
    """A process, data in it, times inside it, and points there [B, 1]."""
    p = PARAMETERIZATIONS.build(spec)
    t = torch.linspace(0.2, 0.9, 6, dtype=torch.float64) * p.T
    z = torch.linspace(-1.5, 1.5, 6, dtype=torch.float64)[:, None]
    return p, Mixture(p, **law), t, p.diffuse(0.4 * z.flip(0), t, z)


def rate(X: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, v: Tensor) -> Tensor:
    found: Tensor = torch.func.jvp(X, (x, t), (v, torch.ones_like(t)))[1]
    return found


# The truth is a flow


@each
@LAWS
def test_the_exact_map_is_a_flow(spec: str, law: Any) -> None:
    """Boundary, composition, its first step, and that the end of a path does not depend on it."""
    _, data, t, x = truth(spec, law)
    near = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(data.flow(x, t, t), x, **near)
    middle = data.flow(x, t, 0.6 * t)
    whole = data.flow(x, t, 0.1 * t)
    torch.testing.assert_close(data.flow(middle, 0.6 * t, 0.1 * t), whole, **near)
    torch.testing.assert_close(data.flow(middle, 0.6 * t, t), x, **near)
    v, still = data.velocity(x, t), torch.zeros_like(x)
    first = rate(lambda x, s: data.flow(x, t, s), x, t, still)
    torch.testing.assert_close(first, v, rtol=1e-7, atol=1e-7)
    along = rate(lambda x, t: data.flow(x, t, 0.3 * torch.ones_like(t)), x, t, v)
    torch.testing.assert_close(along, still, rtol=0, atol=1e-6)


@LAWS
def test_derivatives_of_the_exact_maps_derivative(law: Any) -> None:
    _, data, t, x = truth("rectified_flow", law)
    x.requires_grad_()

    def moving(x: Tensor) -> Tensor:
        return rate(lambda x, s: data.flow(x, t, s), x, 0.5 * t, torch.zeros_like(x))

    (found,) = torch.autograd.grad(moving(x).sum(), x)
    expected = (moving(x + 1e-5) - moving(x - 1e-5)) / 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@each
@LAWS
def test_a_known_map_is_the_truth_however_it_is_asked(spec: str, law: Any) -> None:
    p, data, t, x = truth(spec, law)
    near = {"rtol": 1e-8, "atol": 1e-8}
    s, eps = 0.3 * t, torch.full_like(t, p.eps)
    for f in (
        Known(p, DIFFUSION, data),
        Known(p, CONSISTENCY, data),
        Known(p, FLOW_MAP, data, two_time=True),
    ):
        if f.trained.maps_to_eps:
            torch.testing.assert_close(f(x, t), data.flow(x, t, eps), **near)
        if f.network.two_time:
            torch.testing.assert_close(f(x, t, s), data.flow(x, t, s), **near)
            torch.testing.assert_close(f(x, t, t), x, **near)
        if f.network.two_time or not f.trained.maps_to_eps:
            torch.testing.assert_close(f.D(x, t), data.D(x, t), **near)
            torch.testing.assert_close(f.velocity(x, t), data.velocity(x, t), **near)
        nn.init.constant_(f.F.A, 0.1)
        assert not torch.allclose(f(x, t, s), data.flow(x, t, s), **near)
        torch.testing.assert_close(f(x, t, t), x, **near)


@LAWS
def test_the_quadrature_is_an_expectation(law: Any) -> None:
    """Of what is made of one image and one noise: moments, and of a point's image the denoiser."""
    _, data, t, _ = truth("rectified_flow", law)
    x, z, weight = nodes(data, t)
    mean = float(data.w @ data.m)
    square = float(data.w @ (data.v + data.m**2))
    near = {"rel": 1e-8, "abs": 1e-8}
    for row in range(len(t)):
        w = weight[row]
        assert float(w @ x[row]) == pytest.approx(mean, **near)
        assert float(w @ x[row] ** 2) == pytest.approx(square, **near)
        assert float(w @ z[row] ** 2) == pytest.approx(1, **near)
        assert float(w @ (x[row] * z[row])) == pytest.approx(0, **near)
    x_t = (1 - t)[:, None] * x + t[:, None] * z
    D = data.D(x_t.view(-1, 1), t.repeat_interleave(x.shape[1])).view_as(x)
    odd = ((x - D) * torch.sin(3 * x_t) * weight).sum(1)
    assert odd.abs().max() < 1e-14


# What is declared is held


def declared(name: str, point: FixedPoint) -> Fitting:
    """An objective that says that its fixed point is another."""

    class Other(OBJECTIVES[name]):  # type: ignore[name-defined, misc]
        fixed_point = point

    return Fitting(Other)


def moved(name: str) -> Fitting:
    """An objective whose loss pulls the weights of the map to one side as well."""

    class Other(OBJECTIVES[name]):  # type: ignore[name-defined, misc]
        def loss_at(self, x: Tensor, *times: Tensor, **others: Any) -> Tensor:
            pull: Tensor = next(self.f.parameters()).sum()
            return super().loss_at(x, *times, **others) + 1e-2 * pull

    return Fitting(Other)


@pytest.mark.parametrize("name", ["ct", "cd", "ect"])
def test_a_gap_that_leaves_a_bias_is_no_exact_map(name: str) -> None:
    with pytest.raises(Broken, match=r"of a Gaussian the fixed point is .* away from the truth"):
        CONTRACT(declared(name, FixedPoint.MAP))


@pytest.mark.parametrize("name", ["score_matching", "kd", "continuous_cd", "scd"])
def test_a_loss_that_pulls_to_one_side_has_another_fixed_point(name: str) -> None:
    with pytest.raises(Broken, match="away from the truth"):
        CONTRACT(moved(name))


@pytest.mark.parametrize("name", ["ct", "cd"])
def test_a_bias_that_stays_is_no_limit(name: str) -> None:
    with pytest.raises(Broken, match=r"closes the gap the bias is .*, with the power -"):
        CONTRACT(moved(name))


@pytest.mark.parametrize(("name", "mixes"), [("ct", False), ("tcm", False), ("stable_ct", True)])
def test_a_loss_that_mixes_its_batch_is_no_sum_over_nodes(name: str, mixes: bool) -> None:
    assert OnALine(Fitting(OBJECTIVES[name], shape=(1,))).mixes == mixes


def on_a_line(name: str, **settings: Any) -> OnALine:
    return OnALine(Fitting(OBJECTIVES[name], settings, shape=(1,)))


def exact(*arguments: str) -> list[str]:
    """The objectives of an exact map with such arguments."""
    return [
        name
        for name in OBJECTIVES
        if OBJECTIVES[name].fixed_point is FixedPoint.MAP
        and {*arguments} <= {*inspect.signature(OBJECTIVES[name]).parameters}
    ]


@pytest.mark.parametrize("name", exact("tangent"))
def test_by_differences_an_exact_map_is_the_same_to_their_error(name: str) -> None:
    assert on_a_line(name, tangent="difference").distance() < 1e-6


@pytest.mark.parametrize("by", ["lagrangian", "eulerian", "progressive"])
def test_every_condition_of_a_flow_holds_of_the_exact_map(by: str) -> None:
    assert on_a_line("flow_map_matching", by=by).distance() < 1e-12


@pytest.mark.parametrize("name", exact("tangent", "N", "c"))
def test_a_continuous_loss_is_the_limit_of_that_on_a_grid(name: str) -> None:
    """Fixed point and gradient, at the rate of the grid's spacing; ``c`` makes all of it smooth."""
    grids = [64, 256, 1024]
    lines = [on_a_line(name, tangent="discrete", N=N, c=10.0) for N in grids]
    gaps = [1 / N for N in grids]
    assert slope(gaps, [line.distance() for line in lines]) == pytest.approx(1, abs=0.15)
    limit = on_a_line(name, c=10.0).gradient(0.5)
    apart = [float((line.gradient(0.5) - limit).norm()) for line in lines]
    assert slope(gaps, apart) > 0.8


class Law(Objective):
    """``f(x_t, t)`` is to have the mean and the square of the images."""

    makes = CONSISTENCY
    fixed_point = FixedPoint.LAW
    paper = "2024"
    off = 0.0

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return (0.5 + torch.rand(len(x), dtype=torch.float64),)

    def loss_at(self, x: Tensor, *times: Tensor, **others: Any) -> Tensor:
        y = self.f(self.f.p.diffuse(x, times[0], torch.randn_like(x)), times[0])
        other = x.roll(len(x) // 2, 0) + self.off
        error = y.mean() - other.mean(), y.square().mean() - other.square().mean()
        return (error[0].square() + error[1].square()).expand(len(x))


def test_a_law_is_held_within_the_errors_of_a_mean() -> None:
    class Off(Law):
        off = 0.3

    CONTRACT(Fitting(Law))
    with pytest.raises(Broken, match=r"a map wrong by 0\.0 is .* errors"):
        CONTRACT(Fitting(Off))


# Derivatives along a path


@pytest.mark.parametrize(
    "spec",
    [
        "mlp(width=16, blocks=2)",
        "dit(width=16, blocks=2, heads=2, positions='rope')",
        "unet(channels=8, multipliers=(1,), blocks=1, attention=(4,), dropout=0.0)",
    ],
)
def test_a_difference_is_of_second_order(spec: str) -> None:
    """What it is away from forward mode falls with the square of the step."""
    f = FlowMap(NETWORKS.build(spec, shape=(1, 4, 4)), PARAMETERIZATIONS.build("trigflow"))
    for parameter in f.parameters():
        nn.init.normal_(parameter, std=0.3)
    f = f.double().eval()
    x, v = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    t, s = torch.tensor([0.5, 0.9, 1.3], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    _, exact = tangent.forward(f, x, t, s, v)
    steps, errors = [0.02, 0.01, 0.005], []
    for step in steps:
        _, found = tangent.difference(f, x, t, s, v, step=step)
        errors.append(float((found - exact).norm()))
    assert slope(steps, errors) == pytest.approx(2, abs=0.1)
    torch.testing.assert_close(tangent.difference(f, x, t, s, v)[1], exact, rtol=1e-6, atol=1e-6)


# In two processes

PROGRAM = """
import inspect, sys, warnings
from dataclasses import replace
from pathlib import Path
import torch
from fewstep.distributed import processes
from fewstep.objectives import OBJECTIVES
from fewstep.testing import Fitting
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer
warnings.simplefilter("ignore")
group, folder = processes("cpu"), Path(sys.argv[1])
config = Training(
    steps=8, batch=16, lr=1e-2, optimizer="adam", warmup=0, clip=None, ema=(0.9,),
    microbatches=2, sample_every=0, checkpoint_every=8,
)
for name in OBJECTIVES:
    if not OBJECTIVES[name].cost.tangent:
        continue
    for how in ("forward", "difference"):
        settings = {"tangent": how}
        if "stop_gradient" in inspect.signature(OBJECTIVES[name]).parameters:
            settings["stop_gradient"] = False  # the gradient goes through the derivative
        fitting = Fitting(OBJECTIVES[name], settings, shape=(1, 2, 2))
        torch.manual_seed(0)
        data = fitting.data(32)
        torch.manual_seed(group.rank)  # the first process shares its weights
        o = fitting.build(fitting.map(num_classes=fitting.num_classes), K=config.steps)
        start = {key: x.clone() for key, x in o.f.F.state_dict().items()}
        Trainer(o, data, config, folder / name / how, quiet=True, group=group).run()
        if group.rank == 0:
            torch.save((start, o.f.F.state_dict()), folder / f"{name}-{how}.pt")
"""


def run(folder: Path, world: int) -> dict[str, Any]:
    """What a program of several processes ends with: weights at first and at last, by training."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    common |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            env=os.environ | common | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]
    errors = [process.communicate(timeout=500)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * world, errors
    return {path.stem: torch.load(path) for path in folder.glob("*.pt")}


@pytest.mark.slow
def test_gradients_through_a_derivative_are_those_of_all_processes(tmp_path: Path) -> None:
    """Two processes train as one with two micro-batches, and by differences as by forward mode."""
    one, two = (run(tmp_path / str(world), world) for world in (1, 2))
    derivatives = [name for name in OBJECTIVES if OBJECTIVES[name].cost.tangent]
    assert one.keys() == two.keys()
    assert {name.rpartition("-")[0] for name in one} == set(derivatives)
    for name, (start, end) in one.items():
        by_forward = two[f"{name.rpartition('-')[0]}-forward"][1]
        torch.testing.assert_close(two[name][1], end, rtol=1e-3, atol=1e-4, msg=name)
        moved = torch.cat([(end[key] - start[key]).flatten() for key in end])
        apart = torch.cat([(end[key] - by_forward[key]).flatten() for key in end])
        assert moved.abs().max() > 0.02, name
        assert apart.norm() < 0.1 * moved.norm(), name
