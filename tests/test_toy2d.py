"""Points of the plane: the exact map, the scores, the plan, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from fewstep import FlowMap, sample
from fewstep.cli import run
from fewstep.data import load
from fewstep.data.toy2d import MODES, RADIUS, STD, centres, points
from fewstep.errors import FewstepError
from fewstep.evaluation.sliced import sliced_wasserstein
from fewstep.needs import LATENTS
from fewstep.networks import MLP
from fewstep.objectives import OBJECTIVES
from fewstep.parameterization import EDM, PARAMETERIZATIONS
from fewstep.recipes import RECIPES
from fewstep.recipes import toy2d as recipes
from fewstep.report import toy2d
from fewstep.report.toy2d_scores import Score, floor, score
from fewstep.sampling import as_model, sampler_for
from fewstep.stages.stage import Training
from fewstep.theory import plane
from fewstep.trained import CONSISTENCY


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_data_are_what_they_are_called():
    train, test = load("toy2d"), load("toy2d", split="test")
    assert train.shape == (2,)
    assert len(train) == 65_536
    assert len(test) == 16_384
    assert not torch.equal(train.images[:100], test.images[:100])
    assert train.images.var(0) == pytest.approx([0.25, 0.25], rel=0.02)
    share = torch.bincount(plane.nearest(train.images), minlength=MODES) / len(train)
    assert share == pytest.approx([1 / MODES] * MODES, rel=0.05)
    with pytest.raises(FewstepError, match="toy2d alone"):
        load("toy2d:ring")


def test_the_denoiser_is_the_gradient_of_the_density():
    """Tweedie's formula, with the gradient by autograd."""
    y = torch.randn(64, 2, dtype=torch.float64, requires_grad=True)
    r = torch.rand(64, dtype=torch.float64) + 0.05
    (gradient,) = torch.autograd.grad(plane.log_density(y, r).sum(), y)
    expected = y + (r**2)[:, None] * gradient
    torch.testing.assert_close(plane.denoise(y, r), expected.detach())


def test_the_density_has_a_mass_of_one():
    side = torch.linspace(-3, 3, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    mass = plane.log_density(grid, torch.full((len(grid),), 0.3)).exp().sum() * 0.01**2
    assert float(mass) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["edm", "vp", "trigflow", "rectified_flow"])
def test_the_exact_map_is_that_of_a_fine_walk(name):
    """The samplers' own solver, with the exact denoiser in each process, ends there too."""
    p = PARAMETERIZATIONS.build(name)

    def D(x, t):
        alpha, sigma = p.alpha(t).clamp(min=1e-6), p.sigma(t)
        return plane.denoise(x / alpha[:, None], sigma / alpha)

    f = as_model(p, (2,), D=D, dtype=torch.float64)
    x = sample(f, 32, "walk(solver=rk4, steps=300)", seed=3)
    from fewstep.sampling import NoiseStreams

    z = NoiseStreams(3, range(32), (2,)).normal(dtype=torch.float64)
    T, end = (torch.full((32,), t, dtype=torch.float64) for t in (p.T, p.eps))
    exact = plane.flow(p, p.prior(z), T, end).clamp(-1, 1)
    torch.testing.assert_close(x, exact, atol=3e-3, rtol=0)


def test_the_exact_map_keeps_the_law():
    z = torch.randn(4096, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    T, end = torch.full((4096,), 20.0, dtype=torch.float64), torch.zeros(4096, dtype=torch.float64)
    x = plane.flow(EDM(T=20.0, eps=0.0), 20 * z, T, end)
    assert sliced_wasserstein(x, points(4096, 9)) < 2 * floor() + 0.01


def test_the_sliced_distance_of_a_shift_and_of_a_scale():
    """A shift by m moves every direction by m . w, whose mean square is |m|^2 / d; N(0, a^2 I) and
    N(0, I) are |a - 1| apart in every direction."""
    x = torch.randn(4_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shifted = sliced_wasserstein(x, x + numbers(3, 4), directions=500)
    assert shifted == pytest.approx(5 / math.sqrt(2), rel=0.05)
    assert sliced_wasserstein(x, 1.5 * x) == pytest.approx(0.5, rel=0.05)
    with pytest.raises(FewstepError, match="alike in number"):
        sliced_wasserstein(x, x[:10])


def test_the_truth_scores_as_the_density_does():
    p = EDM(T=20.0)
    f = as_model(p, (2,), D=lambda x, t: plane.denoise(x, t), dtype=torch.float64)
    found = score(f, 100, sampler_for(f, 100))
    assert found.distance < 2 * floor()
    assert found.modes == MODES
    assert found.rms is not None
    assert found.rms < 0.01
    coarse = score(f, 2, sampler_for(f, 2))
    assert coarse.rms is not None
    assert coarse.rms > 0.1
    assert coarse.distance > 5 * floor()


def test_every_objective_that_takes_points_has_a_recipe():
    admitted = {
        name
        for name in OBJECTIVES
        if (needs := OBJECTIVES[name].needs).network != LATENTS
        and not (needs.other_columns or needs.null_class)
    }
    assert set(recipes.OBJECTIVES) == admitted - {"lcm"}  # of guidance, and so of classes
    for name in recipes.OBJECTIVES:
        run = RECIPES[recipes.name_of(name)]()
        cost = OBJECTIVES[name].cost
        assert run.objective.name == name
        assert cost is not None
        spent = run.training.steps * cost.evaluations
        assert spent == pytest.approx(recipes.EVALUATIONS, rel=0.02)


def test_the_plan_finds_teachers_of_the_same_process():
    stages = {stage.name: stage for stage in toy2d.plan()}
    assert [s.name for s in stages.values() if isinstance(s, Training)]
    assert dict(stages["cd"].needs) == {"--teacher": "score_matching"}
    assert dict(stages["reflow"].needs) == {"--teacher": "rf", "--data": "pairs-rf"}
    assert dict(stages["tcm"].needs) == {"--teacher": "ect"}
    order = list(stages)
    for stage in stages.values():
        assert all(order.index(name) < order.index(stage.name) for name in stage.requires)
    with pytest.raises(FewstepError, match="objective of toy2d"):
        toy2d.plan(["sinkhorn"])


def test_a_score_outside_its_band_is_told():
    found = Score(1, 1, "jumps", 0.10, 8, None, None)
    assert not toy2d._outside(found, {"1": (0.11, 0.001)})  # a tenth of the mean is no change
    assert toy2d._outside(found, {"1": (0.2, 0.01)})
    assert not toy2d._outside(found, {"2": (0.2, 0.01)})


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    out = tmp_path / "toy"
    code = run(["reproduce", "toy2d", "--only", "rf", "--shorten", "0.01", "--out", str(out)])
    assert code == 0, capsys.readouterr().err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "rf" in page
    assert page.count("data:image/png;base64,") >= 4
    (score, *_) = json.loads((out / "scores.json").read_text())["rf"]
    assert score["steps"] == 1
    assert score["distance"] > 0
    assert (out / "pictures" / "rf.png").read_bytes().startswith(b"\x89PNG")


def test_centres_are_on_a_ring_of_the_variance_of_images():
    assert centres().norm(dim=1) == pytest.approx([RADIUS] * MODES)
    assert pytest.approx(0.25) == RADIUS**2 / 2 + STD**2
    assert FlowMap(MLP((2,)), EDM()).shape == (2,)


def test_options_of_the_other_reproduction_are_refused(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert run(["reproduce", "toy2d", "--full", "--out", out]) == 2
    assert "has no --full" in capsys.readouterr().err
    assert run(["reproduce", "digits", "--only", "cd", "--out", out]) == 2
    assert "give --methods as well" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["samples.png", "samples"])
def test_points_are_written_as_numbers(place, tmp_path, capsys):
    """No picture is made of them: the message has the ending that holds them, and what it holds."""
    f = FlowMap(MLP((2,), width=8, blocks=1), EDM(), trained=CONSISTENCY)
    model = tmp_path / "points.safetensors"
    f.save(model)
    assert run(["sample", str(model), "-n", "3", "-o", str(tmp_path / place)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fewstep: {model} makes points of shape [2], not images; give -o ")
    assert said.count("\n") == 1
    out = tmp_path / "points.npz"
    assert run(["sample", str(model), "-n", "3", "-o", str(out)]) == 0
    assert "3 points" in capsys.readouterr().out
    with np.load(out) as file:
        assert file["arr_0"].dtype == np.float32
        torch.testing.assert_close(torch.from_numpy(file["arr_0"]), sample(f, 3, seed=0))
