"""What holds for every loss on data of which the truth is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.networks.dropout import dropout
from fewstep.testing.contract import Broken, contract, losses, must
from fewstep.testing.fitting import ELSEWHERE, POINT, Fitting

STEPS = 200  # in which the beginning of a training must get half of the way,
LONG = 100_000  # of so many
ZERO = 1e-8  # of a loss in float64


@contract
def learns(fitting: Fitting) -> None:
    """The first steps of a training lead from the truth about other data towards these.

    The map in training is the truth about data at a point, its only weight. Its teacher, where it
    has one, is the truth about the data that it is trained on.
    """
    f = fitting.exact(fitting.objective.makes, ELSEWHERE, eps=None)
    o = fitting.build(f, fitting.exact(fitting.taught, eps=None), K=LONG).double().train()
    moved = {turn.name: torch.optim.Adam(o.weights_of(turn), lr=0.01) for turn in o.turns(0)}
    for k in range(STEPS):
        for turn, loss in losses(o, fitting.examples(64, torch.float64), k):
            moved[turn.name].zero_grad()
            loss.mean().backward()
            moved[turn.name].step()
        o.after_step(k)
        m = float(dict(o.f.network.named_parameters())["m"].detach().mean())
        if abs(m - POINT) < 0.5 * abs(ELSEWHERE - POINT):
            return
    raise Broken(f"data at {POINT} led to {m:.3g} in {STEPS} steps")


@contract
def vanishes_at_the_truth_alone(fitting: Fitting) -> None:
    """Data at one point: the PF-ODE is a straight line, which every solver follows exactly.

    Networks that are trained against one another have no such zero in common.
    """
    if len(fitting.build(fitting.map()).turns(0)) > 1:
        return
    right, wrong = (_largest_loss(fitting, m) for m in (POINT, 0.7))
    must(right < ZERO, f"the loss of the truth is {right:.3g}")
    must(wrong > 1e3 * ZERO, f"the loss of what is not the truth is {wrong:.3g}, as at the truth")


def _largest_loss(fitting: Fitting, m: float) -> float:
    """Of the truth about data at ``m``, on data that are elsewhere unless ``m`` is their point."""
    o = fitting.build(fitting.exact(fitting.objective.makes, m), fitting.exact(fitting.taught))
    batch = fitting.examples(64, torch.float64)
    return max(
        float(loss.detach().abs().max()) for k in (0, 50, 99) for _, loss in losses(o, batch, k)
    )


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
    batch = fitting.examples(16)
    columns = {name: column.to(device) for name, column in batch.columns.items()}
    o(batch.x.to(device), 50, **columns)
    drawn = [mask for r in recorders.values() for mask in r.masks if (mask != 1).any()]
    must(drawn, "dropout is off in training")
    longest = max(drawn, key=len)
    of_others = len(batch.x) - len(longest)  # where a pass is of the images that are left
    others = [mask for mask in drawn if len(mask) == of_others]
    for mask in drawn:
        known = others[0] if len(mask) == of_others else longest[: len(mask)]
        must(torch.equal(known, mask), "student and target see different dropout masks")
