"""scikit-learn's 8x8 handwritten digits: every method in a minute or two of one CPU core.

Hyper-parameters are our own, found on these digits with the residual MLP; each recipe says where
it leaves its paper's. `sigma_data` is the digits' standard deviation on [-1, 1], and `T = 20` is
enough noise to drown 64 pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Data, Run, component
from fewstep.training.config import Training

NETWORK = component("mlp", width=256, blocks=3)
P = component("edm", T=20.0, sigma_data=0.752)
P_TO_ZERO = component("edm", **P.arguments, eps=0.0)
FLOW = component("rectified_flow", sigma_data=0.752)
FLOW_NETWORK = component("mlp", width=256, blocks=3, highest=16.0)  # t is in [0, 1]
DATA = Data(data="digits")
TRAINING = Training(
    batch=128,
    optimizer="adam",
    lr=2e-3,
    betas=(0.9, 0.99),
    warmup=60,
    decay="cosine",
    clip=1.0,
    ema=(300 * 128.0,),
    log_every=50,
    sample_every=250,
    samples=256,
    checkpoint_every=500,
)
TAUS = {"2": (0.8,), "4": (5.0, 1.5, 0.5)}


@RECIPES.add("digits/edm")
def edm() -> Run:
    """The diffusion model: denoising score matching in EDM's form (Karras et al. 2022).

    Differs from the paper's CIFAR-10 setting in the distribution of noise levels, which follows
    the digits' larger standard deviation.
    """
    return Run(
        objective=component("score_matching", P_mean=-0.6, P_std=1.4),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=2600, lr=3e-3),
    )


@RECIPES.add("digits/autoencoder")
def autoencoder() -> Run:
    """A variational autoencoder, in whose latent space digits/lsgm lives (Kingma & Welling 2014).

    Sixteen numbers for 64 pixels, and networks so small that they cannot learn the 1437 training
    images by heart: at four times the width, what the decoder makes of latents of other images is
    nearer to a training image than those images are. Network and beta are our own.
    """
    return Run(
        objective=component("autoencoder", beta=0.02),
        network=component("mlp_autoencoder", latents=16, width=64, blocks=1),
        p=P,
        data=replace(DATA, labels=False),
        training=replace(TRAINING, steps=1500),
    )


@RECIPES.add("digits/lsgm")
def lsgm() -> Run:
    """LSGM in its practical form: a diffusion model of latents (Vahdat, Kreis, Kautz 2021).

    The autoencoder is trained first and then left as it is, while the paper trains both together;
    the diffusion model is EDM's, the paper's is variance preserving with a mixed score.
    """
    return Run(
        objective=component("score_matching", P_mean=-0.6, P_std=1.4),
        network=NETWORK,
        p=component("edm", T=20.0, sigma_data=1.0),
        data=DATA,
        training=replace(TRAINING, steps=2600, lr=3e-3),
        autoencoder="runs/digits-autoencoder",
    )


@RECIPES.add("digits/guided-lsgm")
def guided_lsgm() -> Run:
    """digits/lsgm that knows a null class, for classifier-free guidance (Ho & Salimans 2022).

    A tenth of the labels is hidden in training, as in that paper.
    """
    run = lsgm()
    network = replace(run.network, arguments=run.network.arguments | {"label_dropout": 0.1})
    return replace(run, network=network)


def from_teacher(objective: str, **arguments: Any) -> Run:
    """A consistency model from a diffusion model's weights, weighted by noise level as that was."""
    times = "lognormal(P_mean=-0.6, P_std=1.4)"
    return Run(
        objective=component(objective, **arguments, distance="l2", weighting="edm", times=times),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=1200, lr=1e-3),
        taus=TAUS,
    )


@RECIPES.add("digits/cd")
def cd() -> Run:
    """Consistency distillation of a diffusion model (Song et al. 2023, Algorithm 2).

    The paper's N = 18, Heun and mu = 0. The weight is EDM's and the times are lognormal: with the
    paper's weight of 1 and uniform times a small network starves the small times.
    """
    return from_teacher("cd", N=18)


@RECIPES.add("digits/continuous-cd")
def continuous_cd() -> Run:
    """Consistency distillation in continuous time (Song et al. 2023, Theorem 5).

    No grid and no solver; weight and times of digits/cd. Started from the teacher's weights it
    is stable with nothing more than the clipping of the gradient's norm that all recipes have.
    """
    return from_teacher("continuous_cd")


@RECIPES.add("digits/continuous-ct")
def continuous_ct() -> Run:
    """Consistency training in continuous time (Song et al. 2023, Theorem 6).

    Starts from a diffusion model's weights, which it follows no further: from random weights the
    same training ends at five times the Fréchet distance. Weight and times of digits/cd.
    """
    return from_teacher("continuous_ct")


@RECIPES.add("digits/ect")
def ect() -> Run:
    """Easy consistency tuning of a diffusion model (Geng et al. 2024).

    Four stages instead of eight, since more of them undo in this short a training what the
    diffusion model knew, and EDM's weight and times.
    """
    return Run(
        objective=component(
            "ect", stages=4, P_mean=-0.6, P_std=1.4, distance="l2", weighting="edm"
        ),
        network=NETWORK,
        p=P_TO_ZERO,
        data=DATA,
        training=replace(TRAINING, steps=1500),
        taus=TAUS,
    )


@RECIPES.add("digits/kd")
def kd() -> Run:
    """Knowledge distillation of a diffusion model (Luhman & Luhman 2021), on its pairs.

    Make the pairs first: fewstep pairs runs/digits-edm -o runs/pairs. The paper's squared distance
    and start from the teacher's weights; its pairs come from DDIM, these from Heun's solver.
    """
    return Run(
        objective=component("kd", distance="l2"),
        network=NETWORK,
        p=P_TO_ZERO,
        data=Data(data="runs/pairs"),
        training=replace(TRAINING, steps=2500),
    )


def progressive(final_steps: int, steps: int) -> Run:
    """Progressive distillation from 64 steps down to ``final_steps``."""
    return Run(
        objective=component("pd", start_steps=64, final_steps=final_steps),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=steps, lr=1e-3),
    )


@RECIPES.add("digits/pd")
def pd() -> Run:
    """Progressive distillation of a diffusion model down to one step (Salimans & Ho 2022).

    The paper's truncated SNR and rounds, from 64 steps: each a training of its own, whose learning
    rate falls to 0.
    """
    return progressive(final_steps=1, steps=1800)


@RECIPES.add("digits/pd2")
def pd2() -> Run:
    """Progressive distillation of a diffusion model down to two steps (Salimans & Ho 2022).

    As digits/pd without its last round.
    """
    return progressive(final_steps=2, steps=1400)


@RECIPES.add("digits/rf1")
def rf1() -> Run:
    """1-rectified flow from scratch (Liu, Gong, Liu 2022).

    The paper's loss and uniform times.
    """
    return Run(
        objective=component("rf"),
        network=FLOW_NETWORK,
        p=FLOW,
        data=DATA,
        training=replace(TRAINING, steps=2600, lr=3e-3),
    )


def reflow(k: int) -> Run:
    """The flow ``k`` from that before and its pairs."""
    return Run(
        objective=component("reflow"),
        network=FLOW_NETWORK,
        p=FLOW,
        data=Data(data=f"runs/pairs-rf{k - 1}"),
        training=replace(TRAINING, steps=2600),
        teacher=f"runs/digits-rf{k - 1}",
    )


@RECIPES.add("digits/rf2")
def rf2() -> Run:
    """2-rectified flow: reflow of the first on its pairs (Liu, Gong, Liu 2022, Algorithm 1).

    Make the pairs first: fewstep pairs runs/digits-rf1 -o runs/pairs-rf1.
    """
    return reflow(2)


@RECIPES.add("digits/rf3")
def rf3() -> Run:
    """3-rectified flow: reflow of the second on its pairs (Liu, Gong, Liu 2022, Algorithm 1).

    Make the pairs first: fewstep pairs runs/digits-rf2 -o runs/pairs-rf2.
    """
    return reflow(3)


def distilled_flow(k: int) -> Run:
    """One step of the flow ``k``, from its pairs."""
    return Run(
        objective=component("kd", distance="l2"),
        network=FLOW_NETWORK,
        p=FLOW,
        data=Data(data=f"runs/pairs-rf{k}"),
        training=replace(TRAINING, steps=2500),
        teacher=f"runs/digits-rf{k}",
    )


@RECIPES.add("digits/rf1-distill")
def rf1_distill() -> Run:
    """One-step distillation of the 1-rectified flow (Liu, Gong, Liu 2022).

    On its pairs: fewstep pairs runs/digits-rf1 -o runs/pairs-rf1.
    """
    return distilled_flow(1)


@RECIPES.add("digits/rf2-distill")
def rf2_distill() -> Run:
    """One-step distillation of the 2-rectified flow (Liu, Gong, Liu 2022).

    On its pairs: fewstep pairs runs/digits-rf2 -o runs/pairs-rf2.
    """
    return distilled_flow(2)


@RECIPES.add("digits/rf3-distill")
def rf3_distill() -> Run:
    """One-step distillation of the 3-rectified flow (Liu, Gong, Liu 2022).

    On its pairs: fewstep pairs runs/digits-rf3 -o runs/pairs-rf3.
    """
    return distilled_flow(3)


@RECIPES.add("digits/dfno")
def dfno() -> Run:
    """Whole trajectories of a diffusion model in one pass (DFNO: Zheng et al. 2023).

    Make them first: fewstep pairs runs/digits-edm --trajectory 4 -o runs/trajectories. The paper's
    distance, weight and four times; its network starts from the teacher's weights, this one from
    scratch. The weight is bounded by 10 instead of the paper's 10,000: these trajectories end at
    the data itself, where alpha/sigma has no bound, and the last state would be all that counts.
    """
    return Run(
        objective=component("dfno", largest=10.0),
        network=component("dfno", base="mlp(width=256, blocks=3)", times=4, modes=2),
        p=P_TO_ZERO,
        data=Data(data="runs/trajectories"),
        training=replace(TRAINING, steps=1000),
    )


@RECIPES.add("digits/ct")
def ct() -> Run:
    """Plain consistency training from scratch (Song et al. 2023, Algorithm 3).

    The paper's losses, weight, times and schedules, with a final grid that fits the short training.
    """
    return Run(
        objective=component("ct", s0=2, s1=20, mu0=0.9, distance="l2", weighting="uniform"),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=2500),
        taus=TAUS,
    )


@RECIPES.add("digits/ict")
def ict() -> Run:
    """Improved consistency training from scratch (Song & Dhariwal 2023).

    The paper's recipe, with a grid and times that fit the short training and the digits.
    """
    return Run(
        objective=component("ict", s0=4, s1=32, P_mean=-0.6, P_std=1.4),
        network=NETWORK,
        p=P,
        data=DATA,
        training=replace(TRAINING, steps=2500),
        taus=TAUS,
    )
