"""Whether the fixed point of an objective is the one that it declares.

On a line, with data of which the denoiser, the velocity and the map to any time are known, the
expectation of a loss over image and noise is a sum over quadrature nodes. Its gradient in the
directions in which a map may be wrong has no sampling error left: at the fixed point it vanishes
to rounding, or as the gap between two times closes it falls at a rate that is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fewstep.condition import NONE
from fewstep.needs import IMAGES, FixedPoint, TeacherUse
from fewstep.objectives import Objective
from fewstep.testing.contract import contract, must
from fewstep.testing.fitting import Fitting
from fewstep.testing.known import Known
from fewstep.theory import quadrature
from fewstep.theory.mixture import Mixture
from fewstep.theory.quadrature import hermite

K = 100_000  # steps of a training, at whose last step an objective is looked at
TIMES = 8  # that it draws
POINTS = 32  # of each, evenly spaced,
REACH = 6.5  # within so many standard deviations of the means
BEHIND = 10  # nodes of a Gauss-Hermite quadrature
SMOOTH = 16  # nodes of one that is the same at all times
WRONG = 0.05  # weights of a map that is not the truth
ZERO = 1e-9  # of the distance of a fixed point from the truth
GAPS = (1.0, 0.25, 0.0625)  # of the gap that an objective has at its last step
RATE = 0.8  # least power of the gap that a bias falls with
DRAWS = 48  # batches of a mean with sampling error,
BATCH = 128  # of so many images
GAUSSIAN: dict[str, tuple[float, ...]] = {"w": (1.0,), "m": (0.3,), "v": (0.49,)}
MIXTURE: dict[str, tuple[float, ...]] = {"w": (0.4, 0.6), "m": (-0.4, 0.5), "v": (0.3, 0.2)}


@contract
def has_the_fixed_point_it_declares(fitting: Fitting) -> None:
    """Of a map on a line: see `FixedPoint`, and `Objective.narrowed` of what has a limit."""
    line = OnALine(replace(fitting, shape=(1,)))
    if line.applies:
        CHECKS[fitting.objective.fixed_point](line)


@dataclass(frozen=True)
class OnALine:
    """An objective and maps of one number that are known, or nearly so."""

    fitting: Fitting

    @property
    def applies(self) -> bool:
        """Whether it has a single loss of images with Gaussian noise."""
        cls, needs = self.fitting.objective, self.fitting.needs
        if needs.network != IMAGES or needs.null_class or "pfgm" in needs.processes:
            return False
        pairs_of_maps = needs.columns == ("noise",) and cls.fixed_point is FixedPoint.MAP
        if needs.columns and not pairs_of_maps:
            return False
        return cls.fixed_point in (FixedPoint.LAW, FixedPoint.NONE) or not self.mixes

    @property
    def mixes(self) -> bool:
        """Whether the loss of an example depends on the other images of the batch.

        Then its expectation is none over one image and one noise.
        """
        o, _ = self.build(0.0, GAUSSIAN)
        x, found = torch.linspace(-1, 1, 16, dtype=torch.float64)[:, None], []
        for first in (0.0, 1.0):
            torch.manual_seed(0)
            x[0] = first
            columns = {name: torch.ones_like(x) for name in self.fitting.needs.columns}
            found.append(o(x.clone(), K - 1, **columns).detach()[1:])
        return not torch.equal(*found)

    @property
    def follows(self) -> bool:
        """Whether its target is a teacher's, without any noise of its own."""
        return self.fitting.needs.teacher is TeacherUse.DISTIL

    def build(self, wrong: float, law: dict[str, tuple[float, ...]]) -> tuple[Objective, Known]:
        """The objective on a map that is the truth about a mixture, or wrong by an amount."""
        p = self.fitting.p(None)
        data, needs = Mixture(p, **law), self.fitting.needs
        f = Known(p, self.fitting.objective.makes, data, two_time=needs.two_time)
        torch.nn.init.constant_(f.F.A, wrong)
        o = self.fitting.build(f, Known(p, self.fitting.taught, data), K=K).double()
        return o.train(), f

    def gradient(
        self, wrong: float, law: dict[str, tuple[float, ...]] = GAUSSIAN, gap: float = 1.0
    ) -> Tensor:
        """Of the expected loss, in the weights ``A`` of the map [directions]."""
        torch.manual_seed(0)
        o, f = self.build(wrong, law)
        times = o.draw_times(torch.zeros(TIMES, 1, dtype=torch.float64), K - 1)
        if gap != 1:
            times = o.narrowed(times, gap)
        times = tuple(t.double() if t.is_floating_point() else t for t in times)
        x, z, weight = nodes(f.data, times[0]) if times else nodes_of_any_time(f.data)
        rows = x.shape[1]
        columns = {name: z.flatten()[:, None] for name in self.fitting.needs.columns}
        if columns:
            x = sample_of(f.data, z)
        with Prescribed(z, rows):
            of_rows = (t.repeat_interleave(rows, 0) for t in times)
            x = x.flatten()[:, None]
            condition = o.conditioned(NONE, x)
            loss = o.loss_at(x, *of_rows, condition=condition, **columns)
        expected = (loss.view(TIMES, rows) * weight).sum()
        return torch.autograd.grad(expected, f.F.A)[0]

    def distance(self, law: dict[str, tuple[float, ...]] = GAUSSIAN, gap: float = 1.0) -> float:
        """By about how much ``A`` has to change until the gradient vanishes."""
        at, off = self.gradient(0.0, law, gap), self.gradient(WRONG, law, gap)
        return WRONG * float(at.norm() / (off - at).norm())


def nodes(data: Mixture, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``x`` and noises ``z`` that meet in points of the times ``t`` [T], and weights.

    Every point ``alpha x + sigma z`` is reached from all components, and there from `BEHIND` images
    of each on both sides of their mean: so what vanishes on average does so at every point.

    Returns:
        ``x``, ``z`` and weights, [T, Q] each; the weights sum to 1 in each row.
    """
    t = t.double().reshape(len(t), -1)[:, 0]
    mean, std = data.components(t)  # of every component [T, K]
    low, high = ((mean + side * REACH * std) for side in (-1, 1))
    ways = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    point = torch.lerp(low.amin(1, True), high.amax(1, True), ways)  # [T, P]
    across, w = hermite(BEHIND)
    u = ((point[:, :, None] - mean[:, None]) / std[:, None])[..., None]  # [T, P, K, 1]
    cos = (data.p.alpha(t)[:, None] * data.v.sqrt() / std)[:, None, :, None]
    sin = (data.p.sigma(t)[:, None] / std)[:, None, :, None]
    x = data.m[:, None] + data.v.sqrt()[:, None] * (cos * u - sin * across)
    z = sin * u + cos * across
    weight = (data.w / std)[:, None, :, None] * (-u.square() / 2).exp() * w
    x, z, weight = (a.flatten(1) for a in (x, z, weight.expand_as(x)))
    return x, z, weight / weight.sum(1, keepdim=True)


def nodes_of_any_time(data: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a loss that draws its times itself: exact for what is smooth in ``x``, ``z``."""
    found = quadrature.nodes(data, SMOOTH)
    x, z, weight = (a.flatten().expand(TIMES, -1) for a in (found.x, found.z, found.weight))
    return x, z, weight


def sample_of(data: Mixture, z: Tensor) -> Tensor:
    """The images [T, Q] that the PF-ODE makes of noises."""
    p, flat = data.p, z.flatten()[:, None]
    t = torch.full((len(flat),), p.T, dtype=torch.float64)
    return data.flow(p.prior(flat), t, torch.full_like(t, p.eps)).view_as(z)


class Prescribed(TorchFunctionMode):
    """What a loss draws like its images are the nodes; what it draws for each row is of its time.

    Args:
        z: noises of the nodes [T, Q].
        rows: nodes of a time, ``Q``.
    """

    def __init__(self, z: Tensor, rows: int) -> None:
        super().__init__()
        self.z, self.rows = z.flatten()[:, None], rows

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.randn_like and args[0].shape == self.z.shape:
            return self.z
        found = func(*args, **(kwargs or {}))
        if func in (torch.rand, torch.rand_like, torch.randn, torch.randn_like):
            return self._of_times(found)
        return found

    def _of_times(self, drawn: Tensor) -> Tensor:
        if drawn.ndim == 0 or len(drawn) != len(self.z):
            return drawn
        return drawn[:: self.rows].repeat_interleave(self.rows, 0).double()


def _vanishes(line: OnALine) -> None:
    laws = {"a Gaussian": GAUSSIAN}
    if line.fitting.objective.fixed_point is FixedPoint.DENOISER or line.follows:
        # Elsewhere a weight that depends on the error moves the point where a line's velocity is
        # not spread evenly about its mean.
        laws["a mixture"] = MIXTURE
    for name, law in laws.items():
        found = line.distance(law)
        must(found < ZERO, f"of {name} the fixed point is {found:.2g} away from the truth")


def _falls(line: OnALine) -> None:
    found = [line.distance(gap=gap) for gap in GAPS]
    if max(found) < ZERO:
        return
    rate = max(_power(found, 0), _power(found, -2))
    said = ", ".join(f"{value:.2g}" for value in found)
    must(
        rate > RATE,
        f"as `narrowed` closes the gap the bias is {said}, with the power {rate:.2g} of it",
    )


def _power(bias: list[float], since: int) -> float:
    """Of the gap, with which the bias falls to the smallest."""
    return math.log(bias[since] / bias[-1]) / math.log(GAPS[since] / GAPS[-1])


def _keeps_the_law(line: OnALine) -> None:
    for wrong, least, most in ((0.0, 0.0, 4.0), (8 * WRONG, 6.0, float("inf"))):
        found = _in_errors(line, wrong)
        must(
            least <= found <= most, f"the gradient of a map wrong by {wrong} is {found:.2g} errors"
        )


def _in_errors(line: OnALine, wrong: float) -> float:
    """The largest part of the mean gradient over random batches, in its standard errors."""
    torch.manual_seed(0)
    o, f = line.build(wrong, GAUSSIAN)
    generator = torch.Generator().manual_seed(1)
    gradients = []
    for _ in range(DRAWS):
        loss = o(f.data.sample(BATCH, generator), K - 1)
        gradients.append(torch.autograd.grad(loss.mean(), f.F.A)[0])
    drawn = torch.stack(gradients)
    return float((drawn.mean(0) / (drawn.std(0) / DRAWS**0.5)).abs().max())


CHECKS: dict[FixedPoint, Callable[[OnALine], None]] = {
    FixedPoint.DENOISER: _vanishes,
    FixedPoint.MAP: _vanishes,
    FixedPoint.LIMIT: _falls,
    FixedPoint.LAW: _keeps_the_law,
    FixedPoint.NONE: lambda line: None,
}
