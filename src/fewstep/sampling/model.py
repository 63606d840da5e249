"""The small face of a model: all that a sampler asks of one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fewstep.condition import NONE, Condition
from fewstep.parameterization import Parameterization
from fewstep.trained import Trained


class Model(Protocol):
    """What can be sampled: a `fewstep.FlowMap`, or anything with the same few names.

    Every other callable becomes one by `fewstep.as_model`. Times are numbers or tensors [B].
    """

    @property
    def p(self) -> Parameterization:
        """The process."""

    @property
    def trained(self) -> Trained:
        """What it may be asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one ``x``."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image; that of ``x`` but in a latent space."""

    @property
    def latents(self) -> object | None:
        """The latent space that ``x`` lives in; None where ``x`` is the image itself."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for an unconditional model."""

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each class."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def x_dtype(self) -> torch.dtype:
        """Type of the points of a walk."""

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """The denoiser ``E[x_0 | x_t = x]``: [B, *shape]."""

    def __call__(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        """The map ``X(x, t, s)``, without ``s`` that to ``eps``: [B, *shape]."""

    def image(self, x: Tensor) -> Tensor:
        """The images of points at time 0: [B, *shape] to [B, *image_shape]."""


def flows(f: Model) -> bool:
    """Whether ``D`` is the denoiser at every time: a flow map of ours says so by its form.

    The denoiser of a model from elsewhere was given as such.
    """
    return bool(getattr(f, "flows", True))


def free_rows(f: Model) -> bool:
    """Whether many rows take hardly longer than one: a model of ours knows it of its network."""
    return bool(getattr(f, "free_rows", False))
