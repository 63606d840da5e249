"""Distances ``d(a, b) -> [B]`` between batches of images, for the consistency losses.

Every distance is zero where ``a = b`` and positive elsewhere.
"""

from __future__ import annotations

import math
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.files import SHAPELESS
from fewstep.papers import Cited
from fewstep.registry import Registry

DISTANCES: Registry[Distance] = Registry("distance")


class Distance(Cited, nn.Module):
    """``d(a, b)``: [B, *shape] twice -> [B].

    Close by, every distance is a power: ``d(y + h v, y) = h^degree nearby(y, v) + o(h^degree)``.
    """

    degree: ClassVar[int] = 2
    """2 where the distance is twice differentiable, as all but l1 are."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def nearby(self, y: Tensor, v: Tensor) -> Tensor:
        """``v^T H(y) v / 2`` with ``H(y)`` the Hessian of ``d(., y)`` at ``y``: [B].

        ``H`` is that of Theorem 3 of Song et al. 2023. It is applied to ``v`` by differentiating
        the gradient along ``v``; no matrix is built.
        """
        gradient = torch.func.grad(lambda a: self(a, y).sum())
        H_v = torch.func.jvp(gradient, (y,), (v,))[1]
        return (v * H_v).flatten(1).sum(1) / 2


@DISTANCES.register("l1")
class L1(Distance):
    """``mean |a - b|`` over the dimensions of an example."""

    degree = 1

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).abs().mean(1)

    def nearby(self, y: Tensor, v: Tensor) -> Tensor:
        return v.flatten(1).abs().mean(1)


@DISTANCES.register("l2")
class L2(Distance):
    """``mean (a - b)^2`` over the dimensions of an example."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).square().mean(1)

    def nearby(self, y: Tensor, v: Tensor) -> Tensor:
        return v.flatten(1).square().mean(1)


@DISTANCES.register("pseudo_huber")
class PseudoHuber(Distance):
    """``sqrt(||a - b||^2 + c^2) - c``, between l2 (small) and l1 (large); iCT, Section 3.3.

    Args:
        c: where it turns from quadratic to linear; default ``0.00054 sqrt(dimensions)``.
    """

    citation = "song2023improved"

    def __init__(self, c: float | None = None) -> None:
        super().__init__()
        if c is not None and not c > 0:
            raise FewstepError(f"the pseudo-Huber distance needs c > 0, got {c}.")
        self.c = c

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        squares = (a - b).flatten(1).square().sum(1)
        c = self.c or 0.00054 * math.sqrt(a[0].numel())
        # The difference of two close roots, written as a quotient to keep small distances exact.
        return squares / ((squares + c * c).sqrt() + c)


@DISTANCES.register("lpips")
class LPIPS(Distance):
    """Learned perceptual distance (Zhang et al. 2018), on images resized to at least 224 pixels.

    Needs the extra ``fewstep[lpips]``. The linear heads ship with it; the VGG-16 backbone is read
    from ``weights`` (a ``state_dict`` saved as safetensors or by torch), or fetched by the
    package's own loader where the network allows that.

    Args:
        net: "vgg", "alex" or "squeeze".
        weights: path of the backbone's weights.
    """

    citation = "zhang2018unreasonable"

    def __init__(self, net: str = "vgg", weights: str | None = None) -> None:
        super().__init__()
        try:
            import lpips
        except ImportError as error:
            raise FewstepError(
                f"the lpips distance needs pip install 'fewstep[lpips]' ({error})."
            ) from error
        self.model = lpips.LPIPS(net=net, pnet_rand=weights is not None, verbose=False)
        if weights is not None:
            _load_backbone(self.model.net, Path(weights))
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> LPIPS:
        """Stay in evaluation mode: the heads have dropout."""
        return super().train(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.ndim != 4 or a.shape[1] not in (1, 3):
            raise FewstepError(f"lpips compares grey or colour images, got {tuple(a.shape)}.")
        size = max(224, *a.shape[2:])
        a, b = (
            functional.interpolate(
                x.expand(-1, 3, -1, -1), (size, size), mode="bilinear", antialias=True
            )
            for x in (a, b)
        )
        return self.model(a, b).flatten()


def _load_backbone(net: nn.Module, path: Path) -> None:
    """Copy convolution weights, in order, from a torchvision-style ``features.*`` state dict."""
    if not path.is_file():
        raise FewstepError(f"there is no file {path} with the weights of the lpips backbone.")
    target = [v for k, v in net.state_dict().items() if not k.startswith("scaling_layer")]
    source = _features(path)[: len(target)]
    if [v.shape for v in source] != [v.shape for v in target]:
        raise FewstepError(f"{path} does not hold the weights of this lpips backbone.")
    with torch.no_grad():
        for mine, given in zip(target, source, strict=False):
            mine.copy_(given)


def _features(path: Path) -> list[Tensor]:
    """The tensors of a file that are called ``features.*``, in order; none of a file of others."""
    try:
        stored = _tensors(path)
        named = {k: v for k, v in stored.items() if k.startswith("features.")}
    except (*SHAPELESS, SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        why = type(error).__name__
        raise FewstepError(f"{path} does not hold weights of an lpips backbone ({why}).") from error
    return [v for v in named.values() if isinstance(v, Tensor)]


def _tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(str(path))
    return torch.load(path, map_location="cpu", weights_only=True)
