"""Your own images by any method on any network: ``fewstep train images --method M --network N``.

No method is known here by name. What it needs it declares (`fewstep.needs`), and its settings are
those of the CIFAR-10 recipe that has its objective, or where there is none its own, in the process
of the digits' recipe: see `fewstep.recipes.by_method`.
"""

from __future__ import annotations

from collections.abc import Iterable

from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run

EDM = "edm"
ALIASES = {EDM: "score_matching"}
"""What everybody calls an objective, in every family of recipes."""


def methods() -> Iterable[str]:
    """Every objective, and what one of them is called by everybody."""
    from fewstep.objectives import OBJECTIVES

    return (*ALIASES, *OBJECTIVES)


def networks() -> Iterable[str]:
    """Every network."""
    from fewstep.networks import NETWORKS

    return tuple(NETWORKS)


@RECIPES.add("images", method=methods, network=networks)
def images(method: str = EDM, network: str | None = None) -> Run:
    """Your own images, by any method on any network.

    Say which with --method and --network, and where the images are with --data. The other flags
    are those of the method and network that were chosen: fewstep train images --method ect --help
    shows them. Settings are the papers' for CIFAR-10, with a smaller network, no distance that has
    to be downloaded, and a length that one GPU finishes in hours; nothing is tuned on your images.
    """
    from fewstep.recipes.by_method import run_of  # and torch, which a list of recipes does without

    return run_of(ALIASES.get(method, method), network)
