"""What turns noise into images.

Every sample has a noise stream of its own, which depends on the seed and the sample's index
alone: a sample is the same whatever batch, process or device it is made on (to the rounding of
the network's arithmetic), and two models sampled with one seed start from the same noise.
"""

from fewstep.sampling.choice import Asked, sampler_for
from fewstep.sampling.distilled import NestedDDIM, Prior
from fewstep.sampling.draw import sample, sample_batches
from fewstep.sampling.jumps import Jumps, Multistep, along, check_taus, default_taus
from fewstep.sampling.labels import Label, Labels, balanced_labels, check_labels, class_number
from fewstep.sampling.model import Model, flows
from fewstep.sampling.noise import NoiseStreams
from fewstep.sampling.rows import default_batch
from fewstep.sampling.sampler import SAMPLERS, Sampler
from fewstep.sampling.walk import COARSE, ODE, Walk
from fewstep.sampling.wrapped import as_model

__all__ = [
    "COARSE",
    "ODE",
    "SAMPLERS",
    "Asked",
    "Jumps",
    "Label",
    "Labels",
    "Model",
    "Multistep",
    "NestedDDIM",
    "NoiseStreams",
    "Prior",
    "Sampler",
    "Walk",
    "along",
    "as_model",
    "balanced_labels",
    "check_labels",
    "check_taus",
    "class_number",
    "default_batch",
    "default_taus",
    "flows",
    "sample",
    "sample_batches",
    "sampler_for",
]
