"""The Inception-v3 of 2015-12-05: the features behind published FIDs and inception scores.

The architecture of Szegedy et al. 2015, *Rethinking the Inception Architecture for Computer
Vision*, as it is in the TensorFlow graph ``classify_image_graph_def.pb`` of
``inception-2015-12-05.tgz``. It differs from the paper and from later Inception-v3 networks,
torchvision's among them:

- average pools leave the padding out of the mean;
- the pool of the last block takes the maximum;
- there are 1008 classes, of which 1000 are ImageNet's;
- images are resized inside, by `resize.tf1_bilinear`, and scaled by ``(x - 128) / 128``.

Its blocks ``mixed`` .. ``mixed_10`` are ``Mixed_5b`` .. ``Mixed_7c`` here: the names of the
published PyTorch weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.evaluation.features import FeatureNetwork, Features
from fewstep.evaluation.pretrained import fill, find_weights, read_weights
from fewstep.evaluation.resize import check_resize, colour_of_size

VARIABLE = "FEWSTEP_INCEPTION_WEIGHTS"
STEMS = ("weights-inception-2015-12-05-6726825d", "pt_inception-2015-12-05-6726825d")
PUBLISHED = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SIDE = 299
SPATIAL_CHANNELS = 7  # of mixed_6/conv: 7 x 17 x 17 = 2023, about as many as the pool has


class _Layer(NamedTuple):
    """A convolution of a block: its name in the weights, channels, kernel, stride."""

    name: str
    channels: int
    kernel: tuple[int, int] | int
    stride: int = 1


_Pool = Callable[[Tensor], Tensor]
_Step = _Layer | list[_Layer] | _Pool
"""A step of a branch: a convolution, several on the same input whose outputs are joined, a pool."""

_average: _Pool = partial(
    functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False
)
_maximum: _Pool = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)
_halve: _Pool = partial(functional.max_pool2d, kernel_size=3, stride=2)


class _Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: tuple[int, int] | int,
        stride: int = 1,
        padding: tuple[int, int] | int = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class _Mixed(nn.Module):
    """Branches on one input, whose outputs are joined along the channels."""

    def __init__(self, channels: int, *branches: Sequence[_Step]) -> None:
        super().__init__()
        self.branches = branches
        for branch in branches:
            width = channels
            for layers in map(_layers, branch):
                for name, channels_out, kernel, stride in layers:
                    # Blocks keep the size, or halve it without padding.
                    padding = 0 if stride > 1 else _half(kernel)
                    layer = _Convolution(width, channels_out, kernel, stride, padding)
                    self.add_module(name, layer)
                width = sum(layer.channels for layer in layers) or width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._branch(x, branch) for branch in self.branches], 1)

    def _branch(self, x: Tensor, branch: Sequence[_Step]) -> Tensor:
        for step in branch:
            if callable(step):
                x = step(x)
            else:
                outputs = [self.get_submodule(layer.name)(x) for layer in _layers(step)]
                x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        return x


def _layers(step: _Step) -> list[_Layer]:
    if isinstance(step, _Layer):
        return [step]
    return step if isinstance(step, list) else []


def _half(kernel: tuple[int, int] | int) -> tuple[int, int] | int:
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def _a(channels: int, pooled: int) -> _Mixed:
    """35x35: 224 channels and ``pooled``."""
    return _Mixed(
        channels,
        [_Layer("branch1x1", 64, 1)],
        [_Layer("branch5x5_1", 48, 1), _Layer("branch5x5_2", 64, 5)],
        [
            _Layer("branch3x3dbl_1", 64, 1),
            _Layer("branch3x3dbl_2", 96, 3),
            _Layer("branch3x3dbl_3", 96, 3),
        ],
        [_average, _Layer("branch_pool", pooled, 1)],
    )


def _b(channels: int) -> _Mixed:
    """35x35 to 17x17: 480 channels more."""
    return _Mixed(
        channels,
        [_Layer("branch3x3", 384, 3, 2)],
        [
            _Layer("branch3x3dbl_1", 64, 1),
            _Layer("branch3x3dbl_2", 96, 3),
            _Layer("branch3x3dbl_3", 96, 3, 2),
        ],
        [_halve],
    )


def _c(inner: int) -> _Mixed:
    """17x17: 768 channels, of which the first 192 are ``branch1x1``."""
    across, down = (1, 7), (7, 1)
    return _Mixed(
        768,
        [_Layer("branch1x1", 192, 1)],
        [
            _Layer("branch7x7_1", inner, 1),
            _Layer("branch7x7_2", inner, across),
            _Layer("branch7x7_3", 192, down),
        ],
        [
            _Layer("branch7x7dbl_1", inner, 1),
            _Layer("branch7x7dbl_2", inner, down),
            _Layer("branch7x7dbl_3", inner, across),
            _Layer("branch7x7dbl_4", inner, down),
            _Layer("branch7x7dbl_5", 192, across),
        ],
        [_average, _Layer("branch_pool", 192, 1)],
    )


def _d(channels: int) -> _Mixed:
    """17x17 to 8x8: 512 channels more."""
    return _Mixed(
        channels,
        [_Layer("branch3x3_1", 192, 1), _Layer("branch3x3_2", 320, 3, 2)],
        [
            _Layer("branch7x7x3_1", 192, 1),
            _Layer("branch7x7x3_2", 192, (1, 7)),
            _Layer("branch7x7x3_3", 192, (7, 1)),
            _Layer("branch7x7x3_4", 192, 3, 2),
        ],
        [_halve],
    )


def _e(channels: int, pool: _Pool) -> _Mixed:
    """8x8: 2048 channels; two of the branches fork at their ends."""

    def fork(name: str) -> list[_Layer]:
        return [_Layer(f"{name}a", 384, (1, 3)), _Layer(f"{name}b", 384, (3, 1))]

    return _Mixed(
        channels,
        [_Layer("branch1x1", 320, 1)],
        [_Layer("branch3x3_1", 384, 1), fork("branch3x3_2")],
        [
            _Layer("branch3x3dbl_1", 448, 1),
            _Layer("branch3x3dbl_2", 384, 3),
            fork("branch3x3dbl_3"),
        ],
        [pool, _Layer("branch_pool", 192, 1)],
    )


class InceptionV3(FeatureNetwork):
    """The network; images may be grey or colour and of any size.

    What it says of images:

    ``features`` [N, 2048]
        ``pool_3``, the mean of the last block's output: FID, precision and recall.
    ``logits`` [N, 1008]
        The pool times the weights of the last layer, *without its bias*: what the inception score
        of Salimans et al. 2016, the evaluation suite of Dhariwal and Nichol 2021 and
        torch-fidelity (``logits_unbiased``) are computed from. The classifier's own logits,
        torch-fidelity's ``logits``, are these plus ``fc.bias``.
    ``spatial`` [N, 2023]
        The first 7 channels of ``mixed_6/conv``, 17x17, in the order row, column, channel: sFID as
        Dhariwal and Nichol compute it. ``mixed_6`` is `Mixed_6d` and ``mixed_6/conv`` its
        ``branch1x1`` after the ReLU: in the graph the operations ``mixed_6/conv/Conv2D``,
        ``/batchnorm``, ``/CheckNumerics`` and ``/control_dependency`` come before the one whose
        name is the bare ``mixed_6/conv``, and ``mixed_6/join`` follows.

    Args:
        resize: a name in `resize.RESIZES`. ``tf1_bilinear`` is that of the graph and of most
            published scores; ``clean`` that of clean-fid.

    Raises:
        FewstepError: an unknown resize.
    """

    citation = "szegedy2016rethinking"

    name = "inception_v3"
    shape = None
    num_features = 2048
    num_classes = 1008
    batch = 64
    resize: str

    def __init__(self, resize: str = "tf1_bilinear") -> None:
        super().__init__()
        self.resize = check_resize(resize)
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b = _a(192, 32)
        self.Mixed_5c = _a(256, 64)
        self.Mixed_5d = _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b = _c(128)
        self.Mixed_6c = _c(160)
        self.Mixed_6d = _c(160)
        self.Mixed_6e = _c(192)
        self.Mixed_7a = _d(768)
        self.Mixed_7b = _e(1280, _average)
        self.Mixed_7c = _e(2048, _maximum)
        self.fc = nn.Linear(2048, 1008)

    @classmethod
    def load(cls, path: str | Path | None = None, resize: str = "tf1_bilinear") -> InceptionV3:
        """The network with the published weights.

        The files of torch-fidelity and of pytorch-fid are the same bytes, with the names of the
        layers as here; a safetensors file with these names is read as well.

        Args:
            path: of the file. Without it, the environment variable ``FEWSTEP_INCEPTION_WEIGHTS``;
                without that, a file of a usual name in ``FEWSTEP_CACHE`` or in torch.hub's folder.
            resize: as for the class.

        Raises:
            FewstepError: no file; one that is damaged, or of another network.
        """
        what = "the Inception-v3 of 2015-12-05"
        names = [f"{stem}{ending}" for ending in (".pth", ".safetensors") for stem in STEMS]
        found = Path(path) if path else find_weights(what, VARIABLE, names, PUBLISHED)
        with torch.device("meta"):
            network = cls(resize)
        # Converters that start from torchvision's network leave its second classifier in the file.
        fill(network, read_weights(found, what), found, what, extra=("AuxLogits.",))
        return network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        x = (colour_of_size(images, SIDE, self.resize) - 128) / 128
        x = _halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        pool = x.mean((2, 3))
        return Features(pool, functional.linear(pool, self.fc.weight), spatial)
