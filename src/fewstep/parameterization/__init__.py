"""Every scalar that depends on time: the process, and the coefficients of the two-time map."""

from fewstep.parameterization.agreement import differences
from fewstep.parameterization.base import (
    PARAMETERIZATIONS,
    SECOND,
    Parameterization,
    from_config,
)
from fewstep.parameterization.composed import Composed
from fewstep.parameterization.edm import EDM, PFGM, VE, SimpleEDM
from fewstep.parameterization.flows import RectifiedFlow, TrigFlow
from fewstep.parameterization.form import FORMS, Form
from fewstep.parameterization.matched import Matched, match
from fewstep.parameterization.preconditioning import PRECONDITIONINGS, Preconditioning
from fewstep.parameterization.prediction import PREDICTIONS, Prediction, convert
from fewstep.parameterization.process import PROCESSES, Process, expand, per_row, time_dtype
from fewstep.parameterization.vp import VP, CosineVP, DiscreteVP, SubVP

__all__ = [
    "EDM",
    "FORMS",
    "PARAMETERIZATIONS",
    "PFGM",
    "PRECONDITIONINGS",
    "PREDICTIONS",
    "PROCESSES",
    "SECOND",
    "VE",
    "VP",
    "Composed",
    "CosineVP",
    "DiscreteVP",
    "Form",
    "Matched",
    "Parameterization",
    "Preconditioning",
    "Prediction",
    "Process",
    "RectifiedFlow",
    "SimpleEDM",
    "SubVP",
    "TrigFlow",
    "convert",
    "differences",
    "expand",
    "from_config",
    "match",
    "per_row",
    "time_dtype",
]
