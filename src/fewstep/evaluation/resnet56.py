"""The 56-layer CIFAR ResNet of He et al. 2015, Section 4.2, as a feature network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.evaluation.features import FeatureNetwork, Features
from fewstep.evaluation.pretrained import fill, read_weights

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; "option A", without weights, where it halves."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride, self.pad = channels // channels_in, (channels - channels_in) // 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(h + x)


class ResNet56(FeatureNetwork):
    """The network, with the means of its three stages' outputs as 16 + 32 + 64 features.

    Weights have the names of the usual PyTorch implementation: ``conv1``, ``bn1``,
    ``layerS.K.{conv1,bn1,conv2,bn2}``, ``linear``. Images are colour, 32x32.
    """

    citation = "he2016deep"

    name = "resnet56"
    shape = (3, 32, 32)
    num_features = 112
    num_classes = 10
    classes = CIFAR10
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(9)))
        self.layer2 = nn.Sequential(_Block(16, 32), *(_Block(32, 32) for _ in range(8)))
        self.layer3 = nn.Sequential(_Block(32, 64), *(_Block(64, 64) for _ in range(8)))
        self.linear = nn.Linear(64, 10)
        # The weights were trained with the constants of ImageNet.
        for key, value in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(key, torch.tensor(value).view(3, 1, 1), persistent=False)

    @classmethod
    def load(cls, path: str | Path) -> ResNet56:
        """The network with weights from a safetensors file.

        Raises:
            FewstepError: no such file, or one that does not hold this network's weights.
        """
        path, what, network = Path(path), "a CIFAR ResNet-56", cls()
        fill(network, read_weights(path, what), path, what)
        return network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        x = (images.float() / 255 - self.mean) / self.std
        x = functional.relu(self.bn1(self.conv1(x)))
        means = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            means.append(x.mean((2, 3)))
        return Features(torch.cat(means, 1), self.linear(means[-1]))
