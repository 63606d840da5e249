"""The optimisers, each in torch's fused form: one kernel over all parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewstep.training.config import Training


class RAdam(torch.optim.Adam):
    """Rectified Adam (Liu et al. 2019) through Adam's fused kernel.

    RAdam is Adam with another learning rate and another ``eps``: with ``rho`` the length of the
    average of squares and ``c = 1 - beta2^t``, its step is

        rho > 5:   lr r m / (sqrt(v / c) + eps / sqrt(c)),   r the rectification
        else:      lr m,                                     m the corrected mean of the gradients

    and the second is the first with an ``eps`` that nothing in ``v`` can be seen beside. It agrees
    with `torch.optim.RAdam` to rounding, has the same state, and does without its thousands of
    small reads of every parameter's own step count.
    """

    def __init__(self, parameters: Iterable[Tensor], **settings: Any) -> None:
        super().__init__(parameters, **settings, fused=True)
        self._steps: int | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._steps = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        t = self._made() + 1
        own = [{"lr": group["lr"], "eps": group["eps"]} for group in self.param_groups]
        for group in self.param_groups:
            group["lr"], group["eps"] = as_adam(group["lr"], group["eps"], group["betas"][1], t)
        try:
            loss = super().step(closure)
        finally:
            for group, values in zip(self.param_groups, own, strict=True):
                group.update(values)
        self._steps = t
        return loss

    def _made(self) -> int:
        """Steps made so far; read from the state once, since a read waits for the device."""
        if self._steps is None:
            counts = (int(state["step"]) for state in self.state.values() if "step" in state)
            self._steps = next(counts, 0)
        return self._steps


def as_adam(lr: float, eps: float, beta2: float, t: int) -> tuple[float, float]:
    """Learning rate and ``eps`` with which Adam's step ``t`` (from 1) is that of RAdam."""
    c = 1 - beta2**t
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / c
    if rho <= 5:
        return lr * UNSEEN, UNSEEN
    r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return lr * r, eps / math.sqrt(c)


UNSEEN = 1e15  # as eps: far above any gradient, and the step m / UNSEEN far from float32's least


def make_optimizer(parameters: Iterable[Tensor], config: Training) -> Optimizer:
    """The optimiser of these parameters."""
    kinds: dict[str, Any] = {
        "radam": RAdam,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    settings = {"lr": config.lr, "betas": config.betas, "weight_decay": config.weight_decay}
    fused = {} if config.optimizer == "radam" else {"fused": True}
    return kinds[config.optimizer](list(parameters), **settings, **fused)
