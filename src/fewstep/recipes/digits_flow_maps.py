"""Flow maps on scikit-learn's digits: one map to any time, trained in a minute or two.

All have one network, the residual MLP that is told both times, and spend as much as `digits/cd`: in
evaluations of the network, forwards 1, backwards 2, a derivative in forward mode 2. What learns
from data alone spends what CD and its teacher spend together, 15,000 evaluations an image of the
batch; what distils `digits/edm` spends what CD does, 7,200. Other hyper-parameters are our own, and
each recipe says where it leaves its paper's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.recipes.digits import DATA, TRAINING
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component

FROM_DATA, FROM_TEACHER = 15_000, 7_200  # evaluations for each image of a batch
NETWORK = component("mlp", width=256, blocks=3, highest=16.0, two_time=True)
ONE_PROCESS = component("mlp", width=256, blocks=3, two_time=True)  # that of digits/edm
P = component("rectified_flow", sigma_data=0.752, second="gap")
FLOW = component("rectified_flow", sigma_data=0.752, form="ddim")
FLOW_GAP = component("rectified_flow", sigma_data=0.752, form="ddim", second="gap")
P_DDIM = component("edm", T=20.0, sigma_data=0.752, form="ddim")
SORTED = "sorted(times=lognormal(P_mean=-0.4, P_std=1.0))"


def flow_map(objective: str, cost: float, *, lr: float = 3e-3, **arguments: Any) -> Run:
    """A flow map of the digits that is trained from scratch.

    Args:
        objective: its name.
        cost: of a step, in evaluations an image.
        lr: learning rate.
        arguments: of the objective.
    """
    return Run(
        objective=component(objective, **arguments),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=round(FROM_DATA / cost / 10) * 10, lr=lr),
    )


@RECIPES.add("digits/meanflow")
def meanflow() -> Run:
    """MeanFlow from scratch (Geng et al. 2025).

    The paper's times and weight.
    """
    return flow_map("meanflow", 3.75, times=SORTED)


@RECIPES.add("digits/imf")
def imf() -> Run:
    """Improved MeanFlow from scratch (Geng et al. 2025, the second paper).

    The paper's times, weight and auxiliary loss, on the diagonal of the network.
    """
    return flow_map("imf", 6, times=SORTED)


@RECIPES.add("digits/alphaflow")
def alphaflow() -> Run:
    """alpha-Flow from scratch (Zhang et al. 2025).

    The paper's fall of alpha over the whole training.
    """
    return flow_map("alphaflow", 3.5, times=SORTED)


@RECIPES.add("digits/soflow")
def soflow() -> Run:
    """SoFlow from scratch (Luo et al. 2025)."""
    return flow_map("soflow", 3.25)


@RECIPES.add("digits/shortcut")
def shortcut() -> Run:
    """Shortcut models from scratch (Frans et al. 2024).

    The average forgets faster than the paper's, in a training this short, and the smallest step is
    1/32.
    """
    return flow_map("shortcut", 3.25, N=32, mu=0.99)


@RECIPES.add("digits/flow-map-matching")
def flow_map_matching() -> Run:
    """Lagrangian flow map matching from scratch (Boffi et al. 2025).

    MeanFlow's times in the place of uniform ones, and no learned weight, for the reason that
    digits/flow-map-matching-progressive has: with both of the paper's a training of 600 steps ended
    at five times the Fréchet distance.
    """
    return flow_map("flow_map_matching", 4.75, by="lagrangian", learned_weight=False, times=SORTED)


@RECIPES.add("digits/flow-map-matching-progressive")
def flow_map_matching_progressive() -> Run:
    """Progressive flow map matching from scratch (Boffi et al. 2025): by composition.

    Without the paper's learned weight, which here makes the small loss of the composition count
    like that of the data's velocity: the map then agreed with itself alone, and from the 450th step
    on its loss rose to 1e7. MeanFlow's times in the place of uniform ones.
    """
    return flow_map("flow_map_matching", 3.5, by="progressive", learned_weight=False, times=SORTED)


@RECIPES.add("digits/tvm")
def tvm() -> Run:
    """Terminal velocity matching from scratch (Zhou et al. 2025).

    The paper's times. Its derivative, through which the gradient goes, makes a step cost 13
    evaluations: there are half of MeanFlow's steps. The velocity is learned by then, FD 3.91 in 17
    evaluations of Heun's solver, the longest jump is not: 0.75 of the data's variance.
    """
    return flow_map("tvm", 13)


@RECIPES.add("digits/imm")
def imm() -> Run:
    """Inductive moment matching from scratch (Zhou, Ermon, Song 2025).

    Euler's form of the map, one of the paper's three, whose network is told the time itself: the
    logarithm of the noise level has no end where samples start. The gap is wider than the paper's,
    so that what is learned near the data reaches the noise in a training this short.
    """
    return flow_map("imm", 4, k=7)


def distilled(objective: str, cost: float, p: Any, **arguments: Any) -> Run:
    """A flow map that follows digits/edm, from its weights."""
    return Run(
        objective=component(objective, **arguments),
        network=ONE_PROCESS,
        p=p,
        data=DATA,
        training=replace(TRAINING, steps=round(FROM_TEACHER / cost / 10) * 10, lr=1e-3),
    )


@RECIPES.add("digits/ayf")
def ayf() -> Run:
    """Align Your Flow, of a run of digits/edm (Sabour, Fidler, Kreis 2025).

    The teacher's network is used in the process of straight lines, and is told the gap. The times
    are lognormal like the teacher's, and their ends uniform below: the paper's seldom are at the
    weak noise that ends a sample, where the map then forgot the teacher (FD 8.5 at two steps and
    11.0 at four). Its normalisation, which makes small errors count like large ones, is milder. One
    image of 50 begins above the noise 10, so one step is learned last: its samples have too little
    variance. With more of them (P_mean 0.2) two and four steps were worse, FD 5.2 and 6.4.
    """
    times = "below(times=lognormal(P_mean=-0.6, P_std=1.4))"
    return distilled("ayf", 7, FLOW_GAP, times=times, c=1.0)


@RECIPES.add("digits/facm")
def facm() -> Run:
    """A flow-anchored consistency model, of a run of digits/edm (Peng et al. 2025).

    The teacher's network is used in the process of straight lines.
    """
    return distilled("facm", 10, FLOW)


@RECIPES.add("digits/ctm")
def ctm() -> Run:
    """A consistency trajectory model of digits/edm, without discriminator (Kim et al. 2023).

    Two steps of Heun's solver at most, where the paper has 17: the price of a step of training is
    theirs. One of 153 pairs of times leads from T to the data, so that 480 steps leave that jump
    behind: in one step its samples have 0.65 of the data's variance, where CD's have 0.80. Its
    velocity is better than the teacher's, FD 2.93 in 17 evaluations of Heun's solver.
    """
    return distilled("ctm", 15, P_DDIM, most=2, mu=0.9, P_mean=-0.6, P_std=1.4)
