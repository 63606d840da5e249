"""Maps of which everything is known: on a line, of data that are a mixture of Gaussians.

The exact denoiser and the exact map to any time are in closed form (`fewstep.theory.mixture`).
What is added to the network's output, ``A_1 sin(...) + A_2 sin(...)``, makes a map that is nearly
true: ``A = 0`` is the truth, and ``A`` are the weights that a training would move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewstep.condition import NONE, Condition
from fewstep.flow_map import FlowMap
from fewstep.networks import Network
from fewstep.parameterization import Parameterization, expand
from fewstep.theory.mixture import Mixture
from fewstep.trained import Trained

WAVES = ((1.1, 0.7, 0.3, 0.3), (0.6, -0.5, 0.4, 1.4))
"""Of the point, of its time and of the end of the map; and the phase: of each direction."""
NEAR = 1e-9  # of t: times that are the same


class Waves(Network):
    """``sum_j A_j sin(a_j x + b_j c + c_j c_s + phase_j)`` with the weights ``A``, at first 0."""

    takes = ()

    def __init__(self, *, two_time: bool = False) -> None:
        super().__init__()
        self.shape, self.num_classes, self.two_time = (1,), 0, two_time
        self.A = nn.Parameter(torch.zeros(len(WAVES), dtype=torch.float64))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        y = torch.zeros_like(x)
        for A, (a, b, c, phase) in zip(self.A, WAVES, strict=True):
            end = 0.0 if c_noise_s is None else c * c_noise_s[:, None]
            y = y + A * torch.sin(a * x + b * c_noise[:, None] + end + phase)
        return y


class Known(FlowMap):
    """The truth about a mixture and what its weights ``A`` add to the network's output.

    Args:
        p: the parameterization.
        trained: what it is taken for: a diffusion model is the denoiser, another map the flow.
        data: the mixture.
        two_time: whether the network is told the end of the map.
    """

    F: Waves

    def __init__(
        self, p: Parameterization, trained: Trained, data: Mixture, *, two_time: bool = False
    ) -> None:
        super().__init__(Waves(two_time=two_time), p, trained=trained)
        self.data, self.denoises = data, not trained.maps_to_eps
        self.double()

    def prediction(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        """``F`` of the true map, or on the diagonal and of a diffusion model of the denoiser."""
        t = self.time(t, x)
        s = t if s is None else self.time(s, x)
        return self._true(x, t, s) + super().prediction(x, t, s, condition)

    def _true(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        a, b = (expand(c, x) for c in self.p.c_denoised(t))
        if self.denoises:
            return (self.data.D(x, t) - a * x) / b
        if not self.network.two_time:
            s = torch.full_like(t, self.p.eps)
        same = s >= t * (1 - NEAR)
        end = torch.where(same, 0.5 * t, s)
        c_skip, c_out = (expand(c(t, end), x) for c in (self.p.c_skip, self.p.c_out))
        between = (self.data.flow(x, t, end) - c_skip * x) / c_out
        if not self.network.two_time:
            return between
        return torch.where(expand(same, x), (self.data.D(x, t) - a * x) / b, between)
