"""The paper's statements, measured on data whose every quantity is known.

`CHECKS` are functions that each measure one statement of Song et al. 2023 and return a `Check`.
"""

from fewstep.theory.check import Bound, Check, Line
from fewstep.theory.checks import CHECKS, verify

__all__ = ["CHECKS", "Bound", "Check", "Line", "verify"]
