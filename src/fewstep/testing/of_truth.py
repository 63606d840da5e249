"""What holds for every loss on data of which the truth is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.needs import TeacherUse
from fewstep.networks.dropout import dropout
from fewstep.objectives import Objective
from fewstep.testing.contract import Broken, contract, losses, must
from fewstep.testing.fitting import ELSEWHERE, POINT, Fitting
from fewstep.trained import DIFFUSION

STEPS = 300  # at most, in which the beginning of a training must get half of the way,
LONG = 100_000  # of so many
ZERO = 1e-8  # of a loss in float64


@contract
def learns(fitting: Fitting) -> None:
    """A few steps get half of the way to data at one point, and the model is at the truth there.

    It begins with random weights; or, where it starts from a teacher, with a model of other data.
    """
    needs = fitting.needs
    follows, starts = needs.teacher is TeacherUse.DISTIL, needs.teacher is not TeacherUse.NONE
    f = fitting.denoiser(ELSEWHERE) if starts else fitting.map()
    teacher = fitting.denoiser(POINT) if follows else None
    o = fitting.build(f, teacher, K=LONG).train()
    optimizers = {turn.name: torch.optim.Adam(o.weights_of(turn), lr=3e-3) for turn in o.turns(0)}
    before = _distance(o, fitting)
    for k in range(STEPS):
        batch = fitting.examples(256)
        for turn, loss in losses(o, batch, k):
            loss.mean().backward()
            optimizers[turn.name].step()
            optimizers[turn.name].zero_grad()
        o.after_step(k)
        if k % 20 == 19 and _distance(o, fitting) < 0.5 * before:
            return
    now = _distance(o, fitting)
    raise Broken(f"{STEPS} steps led from {before:.3g} to {now:.3g}, not half of the way to 0")


@torch.no_grad()
def _distance(o: Objective, fitting: Fitting) -> float:
    """Mean square of the model's error, on data at one point."""
    f, x, was = o.f, fitting.examples(256).x, o.training
    o.eval()
    if o.makes.decodes:
        y = f.F(x, x.new_zeros(len(x)))
    else:
        p, t = f.p, f.time(f.p.T if not o.makes.from_any_time else min(3.0, 0.7 * f.p.T), x)
        x_t = p.diffuse(x, t, torch.randn_like(x))
        y = f(x_t, t) if o.makes.maps_to_eps else f.D(x_t, t)
    o.train(was)
    return float((y - x).square().mean())


@contract
def vanishes_at_the_truth_alone(fitting: Fitting) -> None:
    """Data at one point: the PF-ODE is a straight line, which every solver follows exactly."""
    right, wrong = (_largest_loss(fitting, m) for m in (POINT, 0.7))
    must(right < ZERO, f"the loss of the truth is {right:.3g}")
    must(wrong > 1e3 * ZERO, f"the loss of what is not the truth is {wrong:.3g}, as at the truth")


def _largest_loss(fitting: Fitting, m: float) -> float:
    """Of the truth about data at ``m``, on data that are elsewhere unless ``m`` is their point."""
    o = fitting.build(fitting.exact(fitting.objective.makes, m), fitting.exact(DIFFUSION))
    batch = fitting.examples(64, torch.float64)
    return max(float(loss.abs().max()) for k in (0, 50, 99) for _, loss in losses(o, batch, k))


class _Recorder(nn.Module):
    """Remembers the mask that dropout at its place would apply."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = dropout(torch.ones_like(x), 0.5, self.training)
        self.masks.append(mask.detach())
        return x * mask


@contract
def shows_student_and_target_the_same_dropout(fitting: Fitting) -> None:
    """Of a map that is compared with itself, or its average, at another time."""
    check_masks(fitting, "cpu")


def check_masks(fitting: Fitting, device: str) -> None:
    """`shows_student_and_target_the_same_dropout` on a device."""
    if not (fitting.objective.makes.maps_to_eps and fitting.objective.makes.from_any_time):
        return
    f = fitting.map()
    assert isinstance(f.F.write, nn.Module)
    f.F.write = nn.Sequential(_Recorder(), f.F.write)
    o = fitting.build(f).to(device).train()
    recorders = {id(m): m for m in o.modules() if isinstance(m, _Recorder)}
    for recorder in recorders.values():
        recorder.masks.clear()
    x = fitting.examples(16).x.to(device)
    o(x, 50)
    drawn = [mask for r in recorders.values() for mask in r.masks if (mask != 1).any()]
    must(drawn, "dropout is off in training")
    same = all(torch.equal(drawn[0], mask) for mask in drawn)
    must(same, "student and target see different dropout masks")
