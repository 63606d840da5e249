"""CIFAR-10 by what grew from consistency models with one time, at the papers' hyper-parameters.

Network, data and teacher are those of `fewstep.recipes.cifar10`. Where a paper does not say a
number, it is from the code published with it, or else from NVIDIA's FastGen, which reproduces the
method. Nothing here has been trained to the end by us.
"""

from __future__ import annotations

import math
from dataclasses import replace

from fewstep.recipes.cifar10 import DATA, TRAINING, ect, network
from fewstep.recipes.cifar10 import lsgm as latent_diffusion
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run, component
from fewstep.training.config import Training

TRIGFLOW = component("trigflow", T=round(math.atan(80 / 0.5), 5))
SIMPLIFIED = replace(TRAINING, steps=400_000, lr=1e-4, betas=(0.9, 0.99), ema=(500_000.0,))


def simplified(objective: str, P_std: float, dropout: float, training: Training) -> Run:
    """sCM of a run of cifar10/edm, whose network is used in trigflow's process."""
    return Run(
        objective=component(objective, P_mean=-1.0, P_std=P_std),
        network=network(dropout),
        p=TRIGFLOW,
        data=DATA,
        training=training,
        taus={"2": (1.1,)},
    )


@RECIPES.add("cifar10/sct")
def sct() -> Run:
    """Simplified consistency training in continuous time (sCT: Lu & Song 2024): FID 2.85.

    In two steps 2.06. Of a run of cifar10/edm, for which the paper has P_std = 1.8 (Appendix E.3);
    its own teacher was trained in trigflow's process, with which it is 1.4.
    """
    return simplified("sct", P_std=1.8, dropout=0.2, training=SIMPLIFIED)


@RECIPES.add("cifar10/scd")
def scd() -> Run:
    """Simplified consistency distillation in continuous time (sCD: Lu & Song 2024): FID 3.66.

    In two steps 2.52. Of a run of cifar10/edm; the paper's teacher was trained in trigflow's
    process.
    """
    return simplified("scd", P_std=1.4, dropout=0.0, training=SIMPLIFIED)


@RECIPES.add("cifar10/ect-hour")
def ect_hour() -> Run:
    """Easy consistency tuning in an hour of one GPU (Geng et al. 2024, run_ecm_1hour.sh).

    Of a run of cifar10/edm. One gap, of q = 256, for the whole training.
    """
    run = ect()
    arguments = run.objective.arguments | {"stages": 1, "q": 256.0}
    return replace(
        run,
        objective=replace(run.objective, arguments=arguments),
        training=replace(run.training, steps=8000, ema=(0.9993,), checkpoint_every=1000),
    )


@RECIPES.add("cifar10/tcm")
def tcm() -> Run:
    """Truncated consistency model, its second stage (Lee et al. 2024): FID 2.46 in one step.

    In two steps 2.05. Of a run of cifar10/ect with --batch 512 --objective.cap 0.999, the first
    stage.
    """
    return Run(
        objective=component("tcm"),
        network=network(dropout=0.2),
        p=component("edm", eps=0.0),
        data=DATA,
        training=replace(TRAINING, steps=200_000, batch=1024, lr=5e-5),
        taus={"2": (1.0,)},
    )


@RECIPES.add("cifar10/stable-ct")
def stable_ct() -> Run:
    """Stable consistency tuning of a diffusion model (Wang, Geng, Li 2024).

    Of a run of cifar10/edm. The settings are cifar10/ect's, from which the paper starts; its own
    were not published.
    """
    run = ect()
    return replace(run, objective=replace(run.objective, name="stable_ct"))


@RECIPES.add("cifar10/multistep-cd2")
def multistep_cd2() -> Run:
    """Multistep consistency distillation, sampled in 2 steps (Heek, Hoogeboom, Salimans 2024).

    Of a run of cifar10/edm. The paper's grid sizes, aDDIM, distance and weight; it has no CIFAR-10
    (ImageNet 64 x 64 in 2 steps: FID 1.9), a cosine process, whose segments are even in time, and a
    network of its own.
    """
    return Run(
        objective=component("multistep_cd", S=2),
        network=network(dropout=0.0),
        p=component("edm"),
        data=DATA,
        training=replace(TRAINING, steps=200_000, optimizer="adam", lr=1e-4),
    )


@RECIPES.add("cifar10/cmt")
def cmt() -> Run:
    """Consistency mid-training on a teacher's trajectories (Hu, Lai, Mitsufuji, Ermon 2025).

    Of a run of cifar10/edm. 38.4 million states, 16 of each of 8 walks in a batch. The distance
    needs the extra fewstep[lpips]; --objective.distance l2 does without.
    """
    return Run(
        objective=component("cmt", N=16, distance="lpips"),
        network=network(dropout=0.2),
        p=component("edm", eps=0.0),
        data=DATA,
        training=replace(TRAINING, steps=300_000, batch=128, lr=2e-4, ema=(0.999,)),
        taus={"2": (0.77569,)},
    )


@RECIPES.add("cifar10/cmt-ect")
def cmt_ect() -> Run:
    """ECT at a constant gap after mid-training (Hu et al. 2025): FID 2.74 in one step, 1.97 in two.

    From a run of cifar10/cmt.
    """
    run = ect()
    arguments = run.objective.arguments | {"stages": 1, "q": 4096.0}
    return replace(
        run,
        objective=replace(run.objective, arguments=arguments),
        training=replace(run.training, steps=100_000),
        taus={"2": (0.77569,)},
        init="runs/cifar10-cmt",
    )


@RECIPES.add("cifar10/lcm")
def lcm() -> Run:
    """Latent consistency distillation with the guidance weight as an input (Luo et al. 2023).

    Of a run of cifar10/lsgm with --labels --network.label-dropout 0.1, whose network is used in
    Stable Diffusion's chain. Skip, weights, target's decay and distance are the paper's, which has
    no CIFAR-10.
    """
    own = latent_diffusion().network
    arguments = own.arguments | {"dropout": 0.0, "guidance_embedding": True}
    return Run(
        objective=component("lcm", mu=0.95, weighting="uniform", guidance_range=(3.0, 15.0)),
        network=replace(own, arguments=arguments),
        p=component(
            "vp_discrete", sigma_data=1.0, betas="scaled_linear", beta_1=0.00085, beta_N=0.012
        ),
        data=replace(DATA, labels=True),
        training=replace(TRAINING, steps=100_000, batch=128, optimizer="adam", lr=8e-6),
    )
