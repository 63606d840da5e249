"""A model's map, its process and its decoder as graphs: what a program needs that walks by itself.

`fewstep.exchange.graph` has a whole sampler inside one graph, which is best where nothing but
images is wanted. An editor stops between the steps; it takes the map alone,

    y = map(x, t[, s][, label][, w])

and the process, ``alpha, sigma = process(t)``, from which all that it does with noise follows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.exchange.onnx_graph import quiet, require_onnx
from fewstep.exchange.runtime import opened
from fewstep.exchange.written import TOLERANCE
from fewstep.files import replacing
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.parameterization import Parameterization

ROWS = 3  # of the example that is traced


class MapGraph(nn.Module):
    """The map ``X(x, t, s)`` of a model; of one that ends in one place, without ``s``.

    A consistency model maps to ``eps``, a diffusion model to its denoiser ``D(x, t)``. Inputs, in
    this order: ``x`` [B, *shape], ``t`` [B], for a map to any time ``s`` [B], for a conditional
    model ``label`` int64 [B], where one past the last class is no class, and for one that takes a
    guidance weight ``w`` [B].

    Args:
        f: the model.
    """

    def __init__(self, f: FlowMap) -> None:
        super().__init__()
        self.f = f.eval().float()
        trained = f.trained
        self.names = ["x", "t"]
        self.names += ["s"] * trained.maps_to_any
        self.names += ["label"] * bool(f.num_classes)
        self.names += ["w"] * (trained.weights is not None)

    def forward(self, x: Tensor, t: Tensor, *others: Tensor) -> Tensor:
        """``X(x, t, s)``: [B, *shape]."""
        given = dict(zip(self.names[2:], others, strict=True))
        condition = Condition(label=given.get("label"), w=given.get("w"))
        if not self.f.trained.maps_to_eps:
            return self.f.D(x, t, condition)
        return self.f(x, t, given.get("s"), condition)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs, the same each time."""
        f, noise = self.f, torch.Generator().manual_seed(0)
        t = torch.linspace(f.p.T, f.p.T / 4, ROWS)
        made = {
            "x": torch.randn(ROWS, *f.shape, generator=noise),
            "t": t,
            "s": t / 2,
            "label": torch.arange(ROWS) % max(f.num_classes, 1),
            "w": torch.full((ROWS,), 1.0 if f.trained.guidance is None else f.trained.guidance),
        }
        return tuple(made[name] for name in self.names)


class ProcessGraph(nn.Module):
    """``alpha(t), sigma(t)`` of a process at times float64 [B]."""

    names = ("t",)

    def __init__(self, p: Parameterization) -> None:
        super().__init__()
        self.p = p

    def forward(self, t: Tensor) -> Tensor:
        """[2, B], float64."""
        return torch.stack([self.p.alpha(t), self.p.sigma(t)]).double()

    def example(self) -> tuple[Tensor, ...]:
        """Times over all of the process."""
        return (torch.linspace(self.p.t_min, self.p.T, 7, dtype=torch.float64),)


class DecoderGraph(nn.Module):
    """Images [B, *image_shape] of points at time 0 in a latent space."""

    names = ("x",)

    def __init__(self, latents: Latents, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.latents, self.shape = latents, shape

    def forward(self, x: Tensor) -> Tensor:
        """What the autoencoder makes of latents."""
        return self.latents.decode(x)

    def example(self) -> tuple[Tensor, ...]:
        """Latents, the same each time."""
        return (torch.randn(ROWS, *self.shape, generator=torch.Generator().manual_seed(0)),)


PartGraph = MapGraph | ProcessGraph | DecoderGraph


@torch.no_grad()
def write(graph: PartGraph, path: Path, say: Callable[[str], Any] = lambda _: None) -> float:
    """A graph as an ONNX file; the largest difference from this package's own, relative to it.

    Raises:
        FewstepError: the packages that write and run it are not installed; it computes something
            else.
    """
    require_onnx()
    inputs = graph.example()
    batch = Dim("batch", min=1, max=65_536)
    shapes = {name: {0: batch} for name in graph.names}
    say(f"tracing {path.stem}")
    program = torch.export.export(
        graph, inputs, dynamic_shapes=_shapes(graph, shapes), strict=False
    )
    with quiet():
        made = torch.onnx.export(
            program,
            inputs,
            input_names=list(graph.names),
            output_names=["y"],
            dynamo=True,
            verbose=False,
        )
    if made is None:
        raise FewstepError(f"torch wrote no ONNX graph of {path.stem}.")
    with replacing(path) as partial:
        made.save(str(partial), external_data=False)
    expected = graph(*inputs)
    difference = (opened(path)(*inputs) - expected).abs().max() / expected.abs().max().clamp(min=1)
    if not difference <= TOLERANCE:
        raise FewstepError(
            f"the graph of {path.stem} differs by {difference:.1e} from this package's own, and "
            f"{TOLERANCE:g} is the most: it is not to be used."
        )
    return float(difference)


def _shapes(graph: PartGraph, shapes: dict[str, Any]) -> Any:
    """As the arguments of ``forward`` are given: a `MapGraph` has some that have no names."""
    rows = tuple(shapes[name] for name in graph.names)
    others = isinstance(graph, MapGraph) and len(rows) > 2
    return (*rows[:2], rows[2:]) if others else rows
