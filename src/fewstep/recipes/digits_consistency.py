"""The digits by what grew from consistency models with one time: sCM, TCM, multistep, ...

Network, optimiser, data and teacher are those of `fewstep.recipes.digits`, and the training
compute is that of digits/cd: 1200 steps of 6 network evaluations an image.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from fewstep.recipes.digits import DATA, NETWORK, P_TO_ZERO, TAUS, TRAINING, P, ect
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component

SIGMA_DATA = 0.752


def angle(level: float) -> float:
    """The time of trigflow that has a noise level of EDM."""
    return round(math.atan(level / SIGMA_DATA), 4)


TRIGFLOW = component("trigflow", T=angle(20.0), sigma_data=SIGMA_DATA)
ANGLES = {steps: tuple(map(angle, taus)) for steps, taus in TAUS.items()}


def simplified(objective: str, steps: int, **arguments: Any) -> Run:
    """sCM of a diffusion model in EDM's process, whose network is used in trigflow's."""
    return Run(
        objective=component(objective, P_mean=-0.6, P_std=1.4, tangent_warmup=300, **arguments),
        network=NETWORK,
        p=TRIGFLOW,
        data=DATA,
        training=replace(TRAINING, steps=steps, lr=3e-4),
        taus=ANGLES,
    )


@RECIPES.add("digits/scd")
def scd() -> Run:
    """Simplified consistency distillation, in continuous time (sCD: Lu & Song 2024).

    The paper's tangent, its normalisation and the learned weight; the warm-up is a quarter of this
    short training, and the times are digits/cd's.
    """
    return simplified("scd", steps=1030)


@RECIPES.add("digits/sct")
def sct() -> Run:
    """Simplified consistency training, in continuous time (sCT: Lu & Song 2024).

    As digits/scd, along the path of one image and one noise; from a diffusion model's weights.
    """
    return simplified("sct", steps=1200)


@RECIPES.add("digits/tcm")
def tcm() -> Run:
    """Truncated consistency model: the second stage, on the times from 1 on (Lee et al. 2024).

    Of a run of digits/ect. The gap is that of digits/ect's last stage or so, and the times are even
    in their logarithm as in the paper; distance and weight are digits/ect's.
    """
    return Run(
        objective=component("tcm", start=0.8, q=16.0, distance="l2", weighting="edm"),
        network=NETWORK,
        p=P_TO_ZERO,
        data=DATA,
        training=replace(TRAINING, steps=1440, lr=5e-4),
        teacher="runs/digits-ect",
        taus={"2": (0.8,), "4": (5.0, 2.0, 0.8)},
    )


def multistep(objective: str, S: int, steps: int, **arguments: Any) -> Run:
    """A multistep consistency model of ``S`` segments, of digits/pd's grid."""
    return Run(
        objective=component(
            objective,
            S=S,
            N_start=32,
            N_end=128,
            anneal=600,
            **arguments,
            distance="l2",
            weighting="edm",
        ),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=steps, lr=1e-3),
    )


@RECIPES.add("digits/multistep-cd2")
def multistep_cd2() -> Run:
    """Multistep consistency distillation, sampled in 2 steps (Heek, Hoogeboom, Salimans 2024).

    Steps of the whole grid that grow over half of the training as in the paper, from 32 to 128;
    EDM's process and weight, the squared distance, and DDIM in the place of aDDIM. With aDDIM and
    steps from 16 to 64 it ended a little worse. Its two steps are as near to the end of the
    teacher's PF-ODE as CD's one, 0.08 of root mean square. But there is no new noise between them:
    they have 0.75 of the data's variance, CD's two steps 0.82.
    """
    return multistep("multistep_cd", S=2, steps=1440, eta=0.0)


@RECIPES.add("digits/multistep-cd4")
def multistep_cd4() -> Run:
    """Multistep consistency distillation, sampled in 4 steps; otherwise as digits/multistep-cd2."""
    return multistep("multistep_cd", S=4, steps=1440, eta=0.0)


@RECIPES.add("digits/multistep-ct2")
def multistep_ct2() -> Run:
    """Multistep consistency training, sampled in 2 steps; otherwise as digits/multistep-cd2.

    From a diffusion model's weights.
    """
    return multistep("multistep_ct", S=2, steps=1800)


@RECIPES.add("digits/stable-ct")
def stable_ct() -> Run:
    """Stable consistency tuning: ECT with a target of less variance (Wang, Geng, Li 2024).

    The stages, times and weight of digits/ect. The images of the target are those of the batch's
    own class. In one step it is as digits/ect, whose gaps it shares: 0.75 of the data's variance.
    """
    run = ect()
    changed = replace(run.objective, name="stable_ct")
    return replace(run, objective=changed, training=replace(run.training, steps=1800, lr=1e-3))


@RECIPES.add("digits/cmt")
def cmt() -> Run:
    """Consistency mid-training on a teacher's trajectories (Hu, Lai, Mitsufuji, Ermon 2025).

    The paper's 16 steps of DPM-Solver++; squared distance in the place of LPIPS. It is a
    consistency model; digits/cmt-ect goes on from it.
    """
    return Run(
        objective=component("cmt"),
        network=NETWORK,
        p=P_TO_ZERO,
        data=DATA,
        training=replace(TRAINING, steps=900, lr=1e-3),
        taus=TAUS,
    )


@RECIPES.add("digits/cmt-ect")
def cmt_ect() -> Run:
    """ECT at a constant gap after digits/cmt, from whose run it starts (Hu et al. 2025).

    The paper's q is 4096; so small a gap lets this short training stand still.
    """
    run = ect()
    arguments = run.objective.arguments | {"stages": 1, "q": 16.0}
    return replace(
        run,
        objective=replace(run.objective, arguments=arguments),
        training=replace(run.training, steps=600, lr=3e-4),
        init="runs/digits-cmt",
    )


@RECIPES.add("digits/lcm")
def lcm() -> Run:
    """Latent consistency distillation with the guidance weight as an input (Luo et al. 2023).

    Of a latent diffusion model that knows a null class, digits/guided-lsgm; its network is used in
    the paper's chain of 1000 steps, skipped by 20. The weights are from 1, none, to 3.
    """
    return Run(
        objective=component("lcm", guidance_range=(1.0, 3.0), weighting="edm"),
        network=replace(NETWORK, arguments=NETWORK.arguments | {"guidance_embedding": True}),
        p=component("vp_discrete", sigma_data=1.0),
        data=DATA,
        training=replace(TRAINING, steps=1440, lr=1e-3),
        teacher="runs/digits-guided-lsgm",
        taus={"2": (0.22,), "4": (0.56, 0.34, 0.14)},
    )
