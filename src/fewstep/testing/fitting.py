"""A map, data and companions that fit an objective, built from what it says that it needs.

Nothing here knows an objective by its name. The data are one point, of which the truth is known in
closed form (`fewstep.testing.truth`), and the networks have some thousand weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.data import Dataset
from fewstep.data.sharded import Sharded
from fewstep.flow_map import FlowMap
from fewstep.models import as_sampled
from fewstep.needs import LATENTS, TRAJECTORIES, Needs, TeacherUse
from fewstep.networks import MLP, FourierOperator, MLPAutoencoder, Network
from fewstep.objectives import Objective
from fewstep.objectives.fit import suited
from fewstep.parameterization import Parameterization
from fewstep.runs.components import make_model
from fewstep.testing.truth import Exact, Gaussian, exact_network
from fewstep.trained import CONSISTENCY, DIFFUSION, Trained

POINT = 0.4  # the data
ELSEWHERE = -0.4  # where a map begins that has to learn them
Example = Callable[[Tensor], Tensor]
"""A column from examples x [B, *shape]: [B, ...]."""


@dataclass(frozen=True)
class Fitting:
    """What fits an objective.

    Args:
        objective: its class.
        settings: arguments of its constructor, where the defaults are not to be tested.
        columns: examples of columns that pairs of noise and image do not have, by name.
        shape: of one example.
    """

    objective: type[Objective]
    settings: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Example] = field(default_factory=dict)
    shape: tuple[int, ...] = (3,)

    @property
    def needs(self) -> Needs:
        """What the objective says."""
        return self.objective.needs

    def p(self, eps: float | None = None) -> Parameterization:
        """The parameterization: EDM's where any will do.

        Args:
            eps: its end, where it need not be 0.
        """
        return suited(self.needs, eps)

    def network(self, num_classes: int = 0, dropout: float = 0.0) -> Network:
        """A small network, with random weights everywhere."""
        needs, inside = self.needs, f"width=16, blocks=1, dropout={dropout}"
        classes: dict[str, Any] = {"num_classes": num_classes}
        if needs.null_class and num_classes:
            classes["label_dropout"] = 0.1
        if needs.network == LATENTS:
            return random(MLPAutoencoder(self.shape, latents=2, width=16, blocks=1))
        if needs.network == TRAJECTORIES:
            return random(FourierOperator(self.shape, base=f"mlp({inside})", **classes))
        two_time = needs.two_time
        own: dict[str, Any] = {"width": 16, "blocks": 1, "dropout": dropout, "two_time": two_time}
        return random(MLP(self.shape, **own, **classes))

    @property
    def num_classes(self) -> int:
        """How many classes a conditional network has; an autoencoder has none."""
        return 0 if self.needs.network == LATENTS else 4

    def map(self, **network: Any) -> FlowMap:
        """An untrained map, or an autoencoder, of which nobody asks what only a map has."""
        return as_sampled(make_model(self.network(**network), self.p()))

    def build(self, f: FlowMap, teacher: FlowMap | None = None, K: int = 100) -> Objective:
        """The objective on a map; its teacher, where it has one, is by default a copy of that."""
        arguments: dict[str, Any] = {"f": f, "K": K, **self.settings}
        if self.needs.teacher.asked:
            arguments["teacher"] = f.frozen_copy() if teacher is None else teacher
        return self.objective(**arguments)

    @property
    def taught(self) -> Trained:
        """What its teacher is."""
        return CONSISTENCY if self.needs.teacher is TeacherUse.REFINE else DIFFUSION

    def examples(self, n: int, dtype: torch.dtype = torch.float32) -> Examples:
        """Images at one point, and pairs that lead to them."""
        x = torch.full((n, *self.shape), POINT, dtype=dtype)
        own = {name: make(x) for name, make in self.columns.items()}
        names = [name for name in self.needs.columns if name not in own]
        return Examples(x, Gaussian(self.p(), POINT, 0.0).columns(names, torch.randn_like(x)) | own)

    def data(self, n: int) -> Dataset:
        """A data set of ``n`` random images and the columns of pairs, with classes."""
        pixels = torch.randint(0, 256, (n, *self.shape), dtype=torch.uint8)
        labels = torch.arange(n) % self.num_classes if self.num_classes else None
        found = Dataset.from_arrays(pixels, labels)
        columns = {name: Sharded([value]) for name, value in self.examples(n).columns.items()}
        return replace(found, columns=columns)

    def exact(self, trained: Trained, m: float = POINT, *, eps: float | None = 1e-6) -> FlowMap:
        """The truth about data at the point ``m``, in float64.

        Args:
            trained: what it is taken for.
            m: the point.
            eps: the end of the map, where it need not be 0; None is the usual one.
        """
        p = self.p(eps)
        F = exact_network(self.needs.network, p, m, self.shape)
        if F is None:
            return Exact(p, trained, m, self.shape)
        return as_sampled(make_model(F, p, trained)).double()


@dataclass(frozen=True)
class Examples:
    """What a batch of training is made of: images [B, *shape], and columns by name."""

    x: Tensor
    columns: dict[str, Tensor]


def random(network: Network) -> Network:
    """The network with every weight drawn, also those that begin at zero."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network
