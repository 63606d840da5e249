"""Any callable as a model: a denoiser or a map from elsewhere, to be sampled and scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fewstep.classes import names_for
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.parameterization import Parameterization, per_row
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, Trained

Evaluated = Callable[..., Tensor]


def as_model(
    p: Parameterization,
    shape: Sequence[int],
    *,
    D: Evaluated | None = None,
    f: Evaluated | None = None,
    X: Evaluated | None = None,
    num_classes: int = 0,
    classes: Sequence[str] = (),
    null_class: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    decode: Callable[[Tensor], Tensor] | None = None,
    image_shape: Sequence[int] | None = None,
) -> Wrapped:
    """A model of a callable from elsewhere, which samplers and the evaluator take.

        model = fewstep.as_model(fewstep.EDM(), (3, 32, 32), D=denoiser)
        images = fewstep.sample(model, 64)

    A callable is given points ``x`` [B, *shape], times [B] and, of a conditional model, the class
    of each row [B], in this order; it returns [B, *shape].

    Args:
        p: the process, whose times these are.
        shape: of one ``x``.
        D: a denoiser ``D(x, t) = E[x_0 | x_t = x]``: a diffusion model.
        f: a consistency function ``f(x, t)``, the map to ``eps``.
        X: a map ``X(x, t, s)`` from any time to any lower one; with ``D`` it has a denoiser too.
        num_classes: default as many as ``classes``; 0 for an unconditional model.
        classes: their names.
        null_class: whether None in place of the classes means none, so that it can be guided.
        device: where it computes; default that of the callable's weights, or the CPU.
        dtype: type of the points, float32 or float64.
        decode: makes images [B, *image_shape] of points at time 0, in a latent space.
        image_shape: of one image; default ``shape``.

    Raises:
        FewstepError: no callable, or several that contradict each other.
    """
    given = {"D": D, "f": f, "X": X}
    known = {name: call for name, call in given.items() if call is not None}
    if not known or (f is not None and len(known) > 1):
        raise FewstepError(
            "a model is made of a denoiser D, a consistency function f, or a map X (which may come "
            f"with its D), got {' and '.join(known) or 'none of them'}."
        )
    for name, call in known.items():
        if not callable(call):
            raise FewstepError(f"{name} of a model must be callable, got {call!r:.60}.")
    names = tuple(classes)
    return Wrapped(
        p,
        tuple(shape),
        known,
        names_for(num_classes or len(names), names or None),
        null_class,
        device,
        dtype,
        decode,
        tuple(image_shape or shape),
    )


class Wrapped(nn.Module):
    """What `as_model` makes; see `fewstep.sampling.Model`."""

    def __init__(
        self,
        p: Parameterization,
        shape: tuple[int, ...],
        calls: dict[str, Evaluated],
        classes: tuple[str, ...],
        null_class: bool,
        device: torch.device | str | None,
        dtype: torch.dtype,
        decode: Callable[[Tensor], Tensor] | None,
        image_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.p, self.shape, self.image_shape, self.classes = p, shape, image_shape, classes
        self.calls, self.null_class = calls, null_class
        self.parts = nn.ModuleList(c for c in calls.values() if isinstance(c, nn.Module))
        self.latents = decode
        self.x_dtype = torch.promote_types(dtype, torch.float32)
        self._device = device

    @property
    def trained(self) -> Trained:
        """What the callables are."""
        made = DIFFUSION if "D" in self.calls else CONSISTENCY
        made = FLOW_MAP if "X" in self.calls else made
        return replace(made, null_class=self.null_class)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for an unconditional model."""
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        if self._device is not None:
            return torch.device(self._device)
        weight = next(self.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device

    def image(self, x: Tensor) -> Tensor:
        """The images of points at time 0."""
        return x if self.latents is None else self.latents(x)

    def D(self, x: Tensor, t: Tensor | float, condition: Condition = NONE) -> Tensor:
        """The denoiser.

        Raises:
            FewstepError: none was given.
        """
        return self._evaluated("D", x, per_row(t, x), condition=condition)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        s: Tensor | float | None = None,
        condition: Condition = NONE,
    ) -> Tensor:
        """The map from ``t`` to ``s``, by default to ``eps``."""
        t, s = per_row(t, x), per_row(self.p.eps if s is None else s, x)
        if "X" in self.calls:
            return self._evaluated("X", x, t, s, condition=condition)
        return self._evaluated("f", x, t, condition=condition)

    def _evaluated(self, name: str, x: Tensor, *times: Tensor, condition: Condition) -> Tensor:
        if name not in self.calls:
            raise FewstepError(f"this model has no {name}, only {' and '.join(self.calls)}.")
        label = [condition.label] if self.num_classes else []
        out = self.calls[name](x, *times, *label)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise FewstepError(f"{name} of a model must return {list(x.shape)}, got {shape}.")
        return out.to(x.dtype)
