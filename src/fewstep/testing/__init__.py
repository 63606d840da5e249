"""Contracts that hold for every objective, whoever wrote it.

    from fewstep.testing import CONTRACTS, Fitting

    @pytest.mark.parametrize("name", CONTRACTS)
    def test_mine(name):
        CONTRACTS[name](Fitting(Mine))

Or, without writing a test: ``python -m fewstep.testing my_methods.py``. A map, data and a teacher
that fit are built from what the objective says that it needs.
"""

from fewstep.testing import of_fixed_points, of_losses, of_runs, of_truth
from fewstep.testing.contract import CONTRACTS, Broken
from fewstep.testing.fitting import Fitting
from fewstep.testing.truth import Exact, Gaussian

__all__ = [
    "CONTRACTS",
    "Broken",
    "Exact",
    "Fitting",
    "Gaussian",
    "of_fixed_points",
    "of_losses",
    "of_runs",
    "of_truth",
]
