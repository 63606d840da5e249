"""Spikes of the gradient: found against its running scale, damped or stepped over, and counted.

With ``n_k`` the norm of the gradient of step ``k`` and ``s_k`` its scale, the geometric mean of the
norms so far with a memory of some `MEMORY` steps,

    n_k > spike s_k        is a spike, from step `UNWATCHED` on.

"damp" scales its gradient to the norm ``spike s_k``; "skip" makes it zero, so that the step is that
of the optimiser's moments alone. Into the scale it goes as ``spike s_k``, so that a training whose
gradient grows for good is followed. Nothing waits for the device: a step without a spike has its
gradient times one, which are the same bits.

A norm that is not finite is no spike. It ends the training, as ever (`fewstep.training.meter`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MEMORY = 100
UNWATCHED = 20  # steps, in which a scale is found first


class Spikes(nn.Module):
    """The rule above, and its state, which checkpoints hold.

    Args:
        spike: how many times the running scale a norm is a spike from.
        skip: whether its step is passed over rather than damped.
    """

    log_scale: Tensor
    seen: Tensor
    count: Tensor

    def __init__(self, spike: float, *, skip: bool) -> None:
        super().__init__()
        self.spike, self.skip = spike, skip
        self.register_buffer("log_scale", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def tame(self, gradients: Sequence[Tensor], norm: Tensor) -> None:
        """Change gradients of this norm in their place, if they are a spike."""
        limit = self.spike * self.log_scale.exp()
        found = norm.isfinite() & (norm > limit) & (self.seen >= UNWATCHED)
        calm = torch.zeros_like(limit) if self.skip else limit / norm
        torch._foreach_mul_(list(gradients), torch.where(found, calm, torch.ones_like(limit)))
        self._remember(torch.where(found, limit, norm))
        self.count += found

    def _remember(self, norm: Tensor) -> None:
        """Take a norm into the scale; a zero or infinite one says nothing of it."""
        tells = norm.isfinite() & (norm > 0)
        self.seen += tells
        share = 1 / self.seen.clamp(1, MEMORY)
        change = share * (torch.where(tells, norm, torch.ones_like(norm)).log() - self.log_scale)
        self.log_scale += torch.where(tells, change, torch.zeros_like(change))
