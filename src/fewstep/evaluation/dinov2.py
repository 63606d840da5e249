"""DINOv2 ViT-L/14 (Oquab et al. 2023) as a feature network: FD-DINOv2 of Stein et al. 2023."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.evaluation.features import FeatureNetwork, Features
from fewstep.evaluation.pretrained import fill, find_weights, read_weights
from fewstep.evaluation.resize import check_resize, colour_of_size

VARIABLE = "FEWSTEP_DINOV2_WEIGHTS"
NAMES = ("dinov2_vitl14_pretrain.pth", "dinov2_vitl14_pretrain.safetensors")
PUBLISHED = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
SIDE, PATCH = 224, 14
GRID = SIDE // PATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(n, tokens, width))


class _Scale(nn.Module):
    """A factor for each channel ("layer scale")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    """``x + g1 attention(norm(x))``, then ``x + g2 mlp(norm(x))``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = (nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp = nn.Sequential(OrderedDict(zip(("fc1", "act", "fc2"), layers, strict=True)))
        self.ls2 = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DINOv2(FeatureNetwork):
    """The vision transformer; its features are the class token after the last norm, [N, 1024].

    Images may be grey or colour and of any size; they are brought to 224x224 and normalised with
    ImageNet's mean and deviation. The names of the weights are those of Meta's files, which timm's
    have too. The positions, learned on a grid of 37x37 patches, are brought to 16x16 as in Meta's
    code (see `_positions`): with timm's or transformers' interpolation the features are others.

    Args:
        resize: a name in `resize.RESIZES`; the default is that of published scores.
        width: of a token, the number of features.
        depth: number of blocks.
        heads: of the attention.
        grid: patches along a side of the images that the positions are for.

    Raises:
        FewstepError: an unknown resize.
    """

    citation = "oquab2024dinov2"

    shape = None
    num_classes = 0
    batch = 64
    resize: str

    def __init__(
        self,
        resize: str = "pil_bicubic",
        *,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        grid: int = 37,
    ) -> None:
        super().__init__()
        self.name, self.num_features = "dinov2_vitl14", width
        self.resize, self.grid = check_resize(resize), grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, PATCH, PATCH)))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @classmethod
    def load(cls, path: str | Path | None = None, resize: str = "pil_bicubic") -> DINOv2:
        """The network with the published weights, in Meta's file or timm's.

        Args:
            path: of a ``.pth`` or ``.safetensors`` file. Without it, the environment variable
                ``FEWSTEP_DINOV2_WEIGHTS``; without that, Meta's file name in ``FEWSTEP_CACHE`` or
                in torch.hub's folder.
            resize: as for the class.

        Raises:
            FewstepError: no file; one that is damaged, or of another network.
        """
        what = "DINOv2 ViT-L/14"
        found = Path(path) if path else find_weights(what, VARIABLE, NAMES, PUBLISHED)
        with torch.device("meta"):
            network = cls(resize)
        # The mask token stands for hidden patches in training.
        fill(network, read_weights(found, what), found, what, extra=("mask_token",))
        return network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        x = colour_of_size(images, SIDE, self.resize) / 255
        mean, std = (x.new_tensor(value).view(3, 1, 1) for value in (MEAN, STD))
        patches = self.patch_embed((x - mean) / std).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self._positions()
        return Features(self.norm(self.blocks(x)[:, 0]))

    def _positions(self) -> Tensor:
        """The positions of the class token and of 16x16 patches: [1, 257, width].

        Bicubic without antialias, as if the target were 16.1 patches wide: Meta's code adds 0.1
        against rounding, and that stretches the grid by 0.6 %.
        """
        if self.grid == GRID:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        rest = rest.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        scale = (GRID + 0.1) / self.grid
        rest = functional.interpolate(rest, scale_factor=scale, mode="bicubic")
        return torch.cat([first, rest.flatten(2).transpose(1, 2)], 1)
