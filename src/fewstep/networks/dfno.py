"""A network for whole trajectories: temporal Fourier layers between the blocks of another network.

Zheng, Nie, Vahdat, Azizzadenesheli, Anandkumar 2023 (DFNO), Section 3.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.errors import FewstepError
from fewstep.needs import IMAGES, TRAJECTORIES
from fewstep.networks import layers, mlp
from fewstep.networks.base import NETWORKS, Network


class TemporalFourier(nn.Module):
    """``h + IDFT(R DFT(silu(h)))`` over the times of a trajectory: [B, M, C, ...] to the same.

    The product with ``R``, a complex matrix [C, C] for each of the lowest ``modes`` frequencies, is
    a circular convolution over the ``M`` times. ``R = 0`` at initialisation.

    Args:
        channels: ``C``.
        times: ``M``.
        modes: frequencies that are kept; at most, and by default, all ``M // 2 + 1``.
    """

    def __init__(self, channels: int, times: int, modes: int | None = None) -> None:
        super().__init__()
        self.M = times
        self.modes = min(modes or times, times // 2 + 1)
        # The real parts of all frequencies, then the imaginary ones.
        self.R = nn.Parameter(torch.zeros(2 * self.modes, channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        dtype = torch.promote_types(h.dtype, torch.float32)  # half precision has no FFT
        u = functional.silu(h).to(dtype)
        if torch.compiler.is_exporting():  # to formats that have no complex numbers
            return h + self._in_real_numbers(u).to(h.dtype)
        real, imaginary = self.R.to(dtype).chunk(2)
        v = torch.fft.rfft(u, dim=1)[:, : self.modes]
        v = torch.einsum("bmi...,mio->bmo...", v, torch.complex(real, imaginary))
        return h + torch.fft.irfft(v, n=self.M, dim=1).to(h.dtype)

    def _in_real_numbers(self, u: Tensor) -> Tensor:
        """``IDFT(R DFT(u))`` with cosines and sines in the place of the Fourier transform."""
        k, m = torch.arange(self.modes), torch.arange(self.M)
        angle = (2 * math.pi / self.M * torch.outer(k, m).double()).to(u.device)
        cos, sin = angle.cos().to(u.dtype), angle.sin().to(u.dtype)
        twice = torch.where((k == 0) | (2 * k == self.M), 1, 2).to(u) / self.M
        real, imaginary = self.R.to(u.dtype).chunk(2)
        x = u.flatten(3) if u.ndim > 3 else u[..., None]  # [B, M, C, pixels]
        a, b = (torch.einsum("km,bmip->bkip", by, x) for by in (cos, -sin))
        c = torch.einsum("bkip,kio->bkop", a, real) - torch.einsum("bkip,kio->bkop", b, imaginary)
        d = torch.einsum("bkip,kio->bkop", a, imaginary) + torch.einsum("bkip,kio->bkop", b, real)
        by_cos, by_sin = (by * twice[:, None] for by in (cos, sin))
        v = torch.einsum("km,bkop->bmop", by_cos, c) - torch.einsum("km,bkop->bmop", by_sin, d)
        return v.reshape(u.shape)


class InTime(nn.Module):
    """A residual block of another network, followed by a temporal Fourier layer.

    Its maps [B M, C, ...] hold the ``M`` times of each trajectory one after another.
    """

    def __init__(self, block: nn.Module, temporal: TemporalFourier) -> None:
        super().__init__()
        self.block, self.temporal = block, temporal

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        h = self.block(h, e)
        return self.temporal(h.unflatten(0, (-1, self.temporal.M))).flatten(0, 1)


@NETWORKS.register("dfno")
class FourierOperator(Network):
    """Whole trajectories in one pass: another network on all times, coupled by Fourier layers.

    The other network sees the same noise ``M`` times over, and as its end time the place ``j / M``
    on the trajectory; its blocks are followed by `TemporalFourier` layers (DFNO, Section 3). One
    pass costs ``M`` evaluations of it. As a network, ``F`` is the last time: the image.

    Args:
        shape: shape of one example.
        num_classes: number of classes; 0 for an unconditional network.
        base: the other network, an mlp or unet with its settings, such as "mlp(width=256)".
        times: ``M``, the states of a trajectory.
        modes: frequencies over time that are kept; default all.
        label_dropout: probability that training hides an example's class.
    """

    citation = "zheng2023fast"

    gives = (IMAGES, TRAJECTORIES)

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        num_classes: int = 0,
        base: Annotated[str, NETWORKS] = "mlp",
        times: int = 4,
        modes: int | None = None,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if times < 1 or (modes is not None and modes < 1):
            raise FewstepError(f"DFNO needs times and modes >= 1, got {times} and {modes}.")
        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, False
        self.M = times
        common = {"shape": shape, "num_classes": num_classes, "label_dropout": label_dropout}
        stream = torch.get_rng_state()
        self.base = NETWORKS.build(base, two_time=True, **common)
        if isinstance(self.base, mlp.MLP):
            tell_apart(self.base, stream)
        self.label_dropout, self.class_gain = self.base.label_dropout, self.base.class_gain
        self.free_rows = self.base.free_rows
        if not insert(self.base, times, modes):
            raise FewstepError(f"DFNO is made from an mlp or a unet, not from {base}.")

    def trajectory(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        """``F`` at all times, the last of them the image: [B, *shape] to [B, M, *shape]."""
        B, M = x.shape[0], self.M  # len() would fix it in an exported network
        place = torch.arange(1, M + 1, device=x.device, dtype=c_noise.dtype) / M
        condition: dict[str, Any] = {"c_noise_s": place.repeat(B)}
        if label is not None:
            condition["label"] = label.repeat_interleave(M)
        x, c_noise = x.repeat_interleave(M, 0), c_noise.repeat_interleave(M)
        return self.base(x, c_noise, **condition).unflatten(0, (B, M))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
    ) -> Tensor:
        return self.trajectory(x, c_noise, label)[:, -1]


def tell_apart(base: mlp.MLP, stream: Tensor) -> None:
    """Start the embedding of the places at random: at zero, as of end times, all would be alike.

    The numbers are those that the layer drew when the network was built from a state of the random
    stream, before it was set to zero: they follow those of the layer before it.
    """
    if base.embed_s is not None:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(stream)
            nn.Linear(base.embed_t.in_features, base.embed_t.out_features)
            base.embed_s.reset_parameters()


def insert(network: nn.Module, times: int, modes: int | None) -> int:
    """Put a temporal Fourier layer after every residual block; how many there are."""
    count = 0
    for blocks in [part for part in network.modules() if isinstance(part, nn.ModuleList)]:
        for i, block in enumerate(blocks):
            if isinstance(block, mlp.Block):
                channels = block.W2.out_features
            elif isinstance(block, layers.Block):
                channels = block.conv1.out_channels
            else:
                continue
            blocks[i] = InTime(block, TemporalFourier(channels, times, modes))
            count += 1
    return count
