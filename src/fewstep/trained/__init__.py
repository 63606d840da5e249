"""What training made of a model: where it may start and end, and how it is sampled.

A map's form says what its coefficients guarantee. What its network has learned is the record
`Trained`, which the objective sets on the map that it trains and the model file stores. Every
question about it, and every refusal that follows from it, is in this package: no other module knows
a model by the name of its kind. A record of which nothing is known, ``Trained()``, is that of a map
that nobody has trained: it can be sampled with a sampler that is given, and with none by itself.
"""

from __future__ import annotations

from fewstep.trained.made import (
    AUTOENCODER,
    CONSISTENCY,
    DIFFUSION,
    FLOW_MAP,
    GENERATOR,
    NESTED,
)
from fewstep.trained.record import SOLVER_STEPS
from fewstep.trained.refusals import Trained
from fewstep.trained.stored import LEGACY, Info, from_legacy, json_of, of_kind, trained_of

__all__ = [
    "AUTOENCODER",
    "CONSISTENCY",
    "DIFFUSION",
    "FLOW_MAP",
    "GENERATOR",
    "LEGACY",
    "NESTED",
    "SOLVER_STEPS",
    "Info",
    "Trained",
    "from_legacy",
    "json_of",
    "of_kind",
    "trained_of",
]
