"""Inductive moment matching: the law of a map's images, not their pairing with noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.needs import Cost, Fewest, FixedPoint, Needs
from fewstep.networks.dropout import SharedDropout
from fewstep.objectives.base import OBJECTIVES
from fewstep.objectives.flow_maps import FlowMapObjective
from fewstep.parameterization import Parameterization
from fewstep.schedules import TimePairs
from fewstep.whole import whole

SMALLEST = 30  # power of two that divides the gap; by more there is none in float32
LEAST = 1e-8  # distance of two images, whose root has no slope at 0


@OBJECTIVES.register("imm")
class IMM(FlowMapObjective):
    """``lambda_(t) MMD^2`` of the images ``X(x_t, t, s)`` and ``sg X(x_r, r, s)`` of a few rows.

    ``x_r`` is ``x_t`` at an earlier ``r`` on the line of the same image and noise. Groups of ``M``
    rows share their times, and within a group, over pairs ``j, k`` of one class,

        MMD^2 = mean_jk k(y_t^j, y_t^k) + k(y_r^j, y_r^k) - 2 k(y_t^j, y_r^k)
        k(a, b) = exp(-|a - b| / (D |c_out(t, s)|)),        D numbers of an image

    Where it vanishes at every ``s < r < t`` both have one law, by induction that of the data (Zhou,
    Ermon, Song 2025, Eq. 8, 11 and 12). With classes the rows of a group are of one class where
    there are enough of it, and pairs of two classes do not count, which would know the mixture of
    their laws alone. ``r = max(s, eta^-1(eta(t) - eta_max / 2^k))`` with the noise level ``eta =
    sigma/alpha``, and ``lambda_ = sigmoid(b - log(alpha^2/sigma^2)) (-d/dt log(alpha^2/sigma^2))
    alpha^a / (2 (alpha^2 + sigma^2))``. ``M = 1`` is consistency training.

    Args:
        f: the map in training.
        K: total number of training steps.
        M: rows of a group.
        times: distribution of ``t`` and ``s``.
        latest: largest ``t``, where the noise level is bounded.
        eta_max: of the gap between ``t`` and ``r``.
        k: of the gap.
        a: of the weight.
        b: of the weight.
    """

    paper = "Zhou, Ermon, Song 2025, Algorithm 1, Eq. 11 to 13 (inductive moment matching)"
    citation = "zhou2025inductive"
    fixed_point = FixedPoint.LAW
    cost = Cost(forward=2)
    needs = Needs(two_time=True, flow=True)

    def __init__(
        self,
        f: FlowMap,
        K: int,
        *,
        M: int = 4,
        times: TimePairs | str = "below(times=uniform)",
        latest: float = 0.994,
        eta_max: float = 160.0,
        k: int = 15,
        a: int = 1,
        b: float = 5.0,
    ) -> None:
        super().__init__(f, K, times=times)
        counts = whole(M, "M") >= 1 and 0 <= whole(k, "k") <= SMALLEST
        if not (counts and 0 < eta_max < math.inf and 0 < latest <= 1):
            raise FewstepError(
                f"imm needs M >= 1, k from 0 to {SMALLEST}, eta_max > 0 and latest in (0, 1], got "
                f"{M}, {k}, {eta_max} and {latest}."
            )
        self.M, self.latest, self.gap, self.a, self.b = M, latest, eta_max / 2**k, a, b

    @property
    def fewest(self) -> Fewest:
        return Fewest(self.M, f"imm compares images in groups of {self.M}")

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        p, M = self.f.p, self.M
        groups = math.ceil(len(x) / M)
        t, s = self.pair(x[:groups])
        most = p.T if p.time_is_noise_level else self.latest * p.T
        t = t.clamp(max=most)
        r = p.time_of_noise_level((p.noise_level(t) - self.gap).clamp(min=0.0))
        s = torch.minimum(s, t)
        r = torch.minimum(torch.maximum(r, s), t)
        return tuple(u.repeat_interleave(M)[: len(x)] for u in (t, s, r))

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        if condition.embedding is not None:
            raise FewstepError(
                "imm compares images of one class, or of none, and images of embeddings have no "
                "others of their own: leave out --encoder and --embeddings, or train by meanflow."
            )
        f, (order, place) = self.f, by_class(condition.label)
        t, s, r = (u[place] for u in times)
        z, dropout = torch.randn_like(x), SharedDropout()
        with dropout, torch.no_grad():
            y_r = f(f.p.diffuse(x, r, z), r, s, condition)
        with dropout:
            y_t = f(f.p.diffuse(x, t, z), t, s, condition)
        scale = y_t[0].numel() * f.p.c_out(t, s).abs().clamp(min=LEAST)
        label = None if condition.label is None else condition.label[order]
        found = discrepancy(y_t[order], y_r[order], scale[order], self.M, label)[place]
        return weight(f.p, t, self.a, self.b) * found


def by_class(label: Tensor | None) -> tuple[Tensor | slice, Tensor | slice]:
    """The rows sorted by class, and of each its place among them; without classes as they are."""
    if label is None:
        return slice(None), slice(None)
    order = label.argsort(stable=True)
    return order, order.argsort()


def discrepancy(
    y: Tensor, other: Tensor, scale: Tensor, M: int, label: Tensor | None = None
) -> Tensor:
    """``MMD^2`` of each row's group, of ``M`` rows one after another, by Laplace's kernel: [B].

    Args:
        y: images of the map [B, *shape].
        other: what they are to be distributed as [B, *shape].
        scale: of a distance, for each row the same in its group [B].
        M: rows of a group; the last may have fewer.
        label: classes of the rows [B]; pairs of different ones do not count.
    """
    groups = -(-len(y) // M)
    missing = groups * M - len(y)
    there = pad(torch.ones_like(scale), (0, missing)).view(groups, M)
    pairs = there[:, :, None] * there[:, None]  # [groups, M, M]
    if label is not None:
        of = pad(label, (0, missing)).view(groups, M)
        pairs = pairs * (of[:, :, None] == of[:, None])
    a, b = (pad(z.flatten(1), (0, 0, 0, missing)).view(groups, M, -1) for z in (y, other))
    width = scale[::M, None, None]
    kernel = _laplace(a, a, width) + _laplace(b, b, width) - 2 * _laplace(a, b, width)
    found = (pairs * kernel).sum((1, 2)) / pairs.sum((1, 2))
    return found.repeat_interleave(M)[: len(y)]


def _laplace(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    square = (a[:, :, None] - b[:, None]).square().sum(-1)
    return (-square.clamp(min=LEAST**2).sqrt() / width).exp()


def weight(p: Parameterization, t: Tensor, a: int, b: float) -> Tensor:
    """``lambda_`` at times ``t``: [B]."""
    alpha, sigma = p.alpha(t), p.sigma(t)
    log_snr = 2 * p.log_snr(t)
    falling = 2 * (p.sigma_dot(t) / sigma - p.alpha_dot(t) / alpha)
    return torch.sigmoid(b - log_snr) * falling * alpha**a / (2 * (alpha**2 + sigma**2))
