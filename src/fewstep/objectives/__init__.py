"""What is minimised: one paper, one file.

Every module of this folder is imported here, so that a new objective is one new file: the
command line, the contract tests and `fewstep list` find it.
"""

from importlib import import_module
from pkgutil import iter_modules

from fewstep.objectives.base import OBJECTIVES, Objective

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

from fewstep.needs import Needs, TeacherUse  # noqa: E402
from fewstep.objectives.autoencoder import VariationalAutoencoder  # noqa: E402
from fewstep.objectives.cd import CD  # noqa: E402
from fewstep.objectives.cmt import CMT  # noqa: E402
from fewstep.objectives.consistency import ConsistencyObjective  # noqa: E402
from fewstep.objectives.continuous import ContinuousCD, ContinuousCT  # noqa: E402
from fewstep.objectives.ct import CT  # noqa: E402
from fewstep.objectives.ddpm import DDPM  # noqa: E402
from fewstep.objectives.dfno import DFNO  # noqa: E402
from fewstep.objectives.ect import ECT  # noqa: E402
from fewstep.objectives.ict import ICT  # noqa: E402
from fewstep.objectives.kd import KD  # noqa: E402
from fewstep.objectives.lcm import LCM  # noqa: E402
from fewstep.objectives.multistep import MultistepCD, MultistepCT  # noqa: E402
from fewstep.objectives.pd import PD  # noqa: E402
from fewstep.objectives.pfgm import PFGMpp  # noqa: E402
from fewstep.objectives.rectified_flow import RF, Reflow  # noqa: E402
from fewstep.objectives.scm import SCD, SCT  # noqa: E402
from fewstep.objectives.score_matching import ScoreMatching  # noqa: E402
from fewstep.objectives.score_sde import ScoreSDE  # noqa: E402
from fewstep.objectives.stable_ct import StableConsistencyTuning  # noqa: E402
from fewstep.objectives.tcm import TCM  # noqa: E402

__all__ = [
    "CD",
    "CMT",
    "CT",
    "DDPM",
    "DFNO",
    "ECT",
    "ICT",
    "KD",
    "LCM",
    "OBJECTIVES",
    "PD",
    "RF",
    "SCD",
    "SCT",
    "TCM",
    "ConsistencyObjective",
    "ContinuousCD",
    "ContinuousCT",
    "MultistepCD",
    "MultistepCT",
    "Needs",
    "Objective",
    "PFGMpp",
    "Reflow",
    "ScoreMatching",
    "ScoreSDE",
    "StableConsistencyTuning",
    "TeacherUse",
    "VariationalAutoencoder",
]
