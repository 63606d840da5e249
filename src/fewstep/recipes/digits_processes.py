"""The digits in the processes of other papers than EDM: DDPM, Score SDE, PFGM++.

Network, optimiser and data are those of `fewstep.recipes.digits`.
"""

from __future__ import annotations

from dataclasses import replace

from fewstep.recipes.digits import DATA, FLOW_NETWORK, NETWORK, TRAINING
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component


@RECIPES.add("digits/ddpm")
def ddpm() -> Run:
    """DDPM: denoising at 1000 discrete steps (Ho, Jain, Abbeel 2020).

    The paper's chain, uniform steps and ancestral sampler (--solver ancestral --steps 1000). The
    betas are the cosine's of Nichol & Dhariwal 2021, since with linear ones a third of the steps
    has next to no signal. The network predicts v (Salimans & Ho 2022) with EDM's weight: the
    paper's prediction of epsilon, unweighted, leaves this small network with errors of the denoised
    image that grow as sigma/alpha. Sampling starts a little below the last step, where alpha is
    5e-5, as DPM-Solver does with cosine betas (Lu et al. 2022, Appendix D.4).
    """
    return Run(
        objective=component("ddpm", weighting="edm"),
        network=FLOW_NETWORK,
        p=component(
            "vp_discrete",
            T=0.995,
            sigma_data=0.752,
            prediction="v",
            time_scale=1.0,
            betas="cosine",
        ),
        data=DATA,
        training=replace(TRAINING, steps=4000, lr=3e-3),
    )


@RECIPES.add("digits/vp")
def vp() -> Run:
    """Score SDE, variance preserving: the score in continuous time (Song et al. 2021).

    The paper's process, with its betas, and samplers (--solver pc --steps 1000). Its uniform times
    spend a third of the training where nothing is left to see, and its weight and prediction of
    epsilon suit no small network (see digits/ddpm): noise levels and weight are digits/edm's, the
    prediction is v.
    """
    return Run(
        objective=component(
            "score_sde", times="lognormal(P_mean=-0.6, P_std=1.4)", weighting="edm"
        ),
        network=FLOW_NETWORK,
        p=component("vp", sigma_data=0.752, prediction="v", time_scale=1.0),
        data=DATA,
        training=replace(TRAINING, steps=4000, lr=3e-3),
    )


@RECIPES.add("digits/ve")
def ve() -> Run:
    """Score SDE, variance exploding: the score at noise levels even in their logarithm.

    The process, smallest noise, times and samplers (--solver pc --steps 1000) of Song et al. 2021,
    up to the noise of the other digits recipes. Input, skip connection and weight are EDM's (Karras
    et al. 2022): with the paper's, of parameterization ve, this perceptron, which has no
    normalisation before its first layer, does not learn the noises above 1.
    """
    return Run(
        objective=component("score_sde", weighting="edm"),
        network=NETWORK,
        p=component("edm", eps=0.01, T=20.0, sigma_data=0.752),
        data=DATA,
        training=replace(TRAINING, steps=5000, lr=3e-3),
    )


@RECIPES.add("digits/pfgm")
def pfgm() -> Run:
    """PFGM++ with D = 128 (Xu et al. 2023), in the setting of digits/edm.

    The paper's kernel. Its D for CIFAR-10, of 48 times as many numbers, are 64 to 2048.
    """
    return Run(
        objective=component("pfgm", P_mean=-0.6, P_std=1.4),
        network=NETWORK,
        p=component("pfgm", T=20.0, sigma_data=0.752, D=128.0),
        data=DATA,
        training=replace(TRAINING, steps=2600, lr=3e-3),
    )
