"""What a program needs beside the map of a model to walk and edit by itself, as graphs.

`fewstep.exchange.graphs.graph.Graph` has a whole sampler inside one graph, which is best where
nothing but images is wanted. An editor stops between the steps: it takes `MapGraph`, and from here
the process, from which all that it does with noise follows, and the decoder of a latent space.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fewstep.exchange.graphs.graph import Computation
from fewstep.exchange.graphs.parts import Model
from fewstep.flow_map import FlowMap


class ProcessGraph(Computation):
    """``levels = process(t)``: ``alpha`` and ``sigma`` at times [B], as [B, 2].

    In float32, the type in which samplers compute them: not every program that runs ONNX has
    all functions in another.
    """

    output = "levels"

    @property
    def about(self) -> str:
        return "the process"

    def inputs(self, rows: int) -> dict[str, Tensor]:
        p = cast("FlowMap", self.f).p
        return {"t": torch.linspace(p.T, p.t_min, rows)}

    def computed(self, f: Model, **inputs: Tensor) -> Tensor:
        """[B, 2]."""
        p, t = cast("FlowMap", f).p, inputs["t"]
        return torch.stack([p.alpha(t), p.sigma(t)], 1)


class DecoderGraph(Computation):
    """``images = decoder(z)`` of points at time 0 in a latent space [B, *shape]."""

    output = "images"

    @property
    def about(self) -> str:
        return "the decoder"

    def inputs(self, rows: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return {"z": torch.randn(rows, *self.f.shape, generator=generator)}

    def computed(self, f: Model, **inputs: Tensor) -> Tensor:
        """Images [B, *image_shape]."""
        return f.image(inputs["z"])
