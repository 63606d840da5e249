"""Every scalar that depends on time: the process, and the coefficients of the two-time map."""

from fewstep.parameterization.base import (
    PARAMETERIZATIONS,
    Parameterization,
    expand,
    from_config,
    time_dtype,
)
from fewstep.parameterization.edm import EDM, PFGM, VE, SimpleEDM
from fewstep.parameterization.flows import RectifiedFlow, TrigFlow
from fewstep.parameterization.matched import Matched, match
from fewstep.parameterization.prediction import PREDICTIONS, Prediction, convert
from fewstep.parameterization.vp import VP, CosineVP, DiscreteVP, SubVP

__all__ = [
    "EDM",
    "PARAMETERIZATIONS",
    "PFGM",
    "PREDICTIONS",
    "VE",
    "VP",
    "CosineVP",
    "DiscreteVP",
    "Matched",
    "Parameterization",
    "Prediction",
    "RectifiedFlow",
    "SimpleEDM",
    "SubVP",
    "TrigFlow",
    "convert",
    "expand",
    "from_config",
    "match",
    "time_dtype",
]
