"""The optimisers: Adam, AdamW and RAdam, each as one kernel over all parameters.

The kernels and the form of the state are those of torch's fused `torch.optim.Adam` and `AdamW`, and
the results equal theirs to the bit. What is left out is their shell: it imports torch's compiler,
which takes nearly as long as importing torch, and looks at every parameter anew at each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.training.config import Training


class Adam:
    """Adam (Kingma & Ba 2015); with ``decoupled`` AdamW (Loshchilov & Hutter 2019).

    With gradients ``g``, ``m <- beta1 m + (1 - beta1) g`` and ``v <- beta2 v + (1 - beta2) g^2``,

        theta <- theta - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    where ``weight_decay`` times theta is added to ``g``, or decoupled taken off theta.

    Args:
        parameters: what is trained.
        lr: learning rate of the next step; set it between steps.
        betas: decay of the averages of the gradients and of their squares.
        eps: keeps the division finite.
        weight_decay: pull towards zero.
        decoupled: AdamW's form of it.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [p for p in self.parameters if p.grad is not None]
        for parts in _by_type(moved).values():
            self._move(parts)

    def _move(self, parameters: list[Tensor]) -> None:
        states = [self._state_of(p) for p in parameters]
        counts = [state["step"] for state in states]
        lr, eps = self.rates()
        torch._foreach_add_(counts, 1)
        self._kernel(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            counts,
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )

    def rates(self) -> tuple[float, float]:
        """``lr`` and ``eps`` of the step that comes."""
        return self.lr, self.eps

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        if p not in self.state:
            count = torch.zeros((), dtype=torch.float32, device=p.device)
            m, v = torch.zeros_like(p), torch.zeros_like(p)
            self.state[p] = {"step": count, "exp_avg": m, "exp_avg_sq": v}
        return self.state[p]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def state_of_all(self) -> dict[int, dict[str, Tensor]]:
        """The state by the number of the parameter; empty where there was no step."""
        numbered = enumerate(self.parameters)
        return {i: dict(self.state[p]) for i, p in numbered if p in self.state}

    @torch.no_grad()
    def restore(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Put back what `state_of_all`, or an optimiser of torch, gave.

        The kernels walk a parameter and its moments in one order of memory, so that the moments
        are copied into the order of their parameter.

        Raises:
            ValueError: the state of other parameters, or of another optimiser.
        """
        self.state = {}
        for i, values in state.items():
            if not 0 <= i < len(self.parameters):
                raise ValueError(f"there is no parameter {i}")
            p = self.parameters[i]
            own = self._state_of(p)
            if values.keys() != own.keys():
                raise ValueError(f"parameter {i} has {', '.join(values)}, not {', '.join(own)}")
            for name, value in values.items():
                if value.shape != own[name].shape:
                    shapes = f"{list(value.shape)}, not {list(own[name].shape)}"
                    raise ValueError(f"{name} of parameter {i} has the shape {shapes}")
                own[name].copy_(value)
        self._restored()

    def _restored(self) -> None:
        """What follows from a new state."""


def _by_type(parameters: list[Tensor]) -> dict[tuple[Any, ...], list[Tensor]]:
    """The parameters that one kernel can move together."""
    parts: dict[tuple[Any, ...], list[Tensor]] = {}
    for p in parameters:
        parts.setdefault((p.device, p.dtype), []).append(p)
    return parts


class RAdam(Adam):
    """Rectified Adam (Liu et al. 2019) through Adam's kernel.

    RAdam is Adam with another learning rate and another ``eps``: with ``rho`` the length of the
    average of squares and ``c = 1 - beta2^t``, its step is

        rho > 5:   lr r m / (sqrt(v / c) + eps / sqrt(c)),   r the rectification
        else:      lr m,                                     m the corrected mean of the gradients

    and the second is the first with an ``eps`` that nothing in ``v`` can be seen beside. It agrees
    with `torch.optim.RAdam` to rounding, has the same state, and does without its thousands of
    small reads of every parameter's own step count.
    """

    def __init__(self, parameters: Iterable[Tensor], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self._steps = 0

    def step(self) -> None:
        super().step()
        self._steps += 1

    def rates(self) -> tuple[float, float]:
        return as_adam(self.lr, self.eps, self.betas[1], self._steps + 1)

    def _restored(self) -> None:
        """Read the number of steps once: a read waits for the device."""
        self._steps = max((int(state["step"]) for state in self.state.values()), default=0)


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


def make_optimizer(parameters: Iterable[Tensor], config: Training) -> Adam:
    """The optimiser of these parameters."""
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "weight_decay": config.weight_decay,
    }
    match config.optimizer:
        case "radam":
            return RAdam(parameters, **settings)
        case "adam":
            return Adam(parameters, **settings)
        case "adamw":
            return Adam(parameters, **settings, decoupled=True)
