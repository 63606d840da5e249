"""CIFAR-10 by flow maps, methods of two times, at the papers' hyper-parameters.

The network is EDM's DDPM++ (`fewstep.recipes.cifar10`), told both times. MeanFlow, SoFlow, CTM and
inductive moment matching were trained on CIFAR-10 by their authors; the others on ImageNet or on
faces alone, with a transformer, and each recipe says what it takes from where. What is known of the
numbers is from the published code, or where there is none from the paper's tables. Nothing here has
been trained to the end by us.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.recipes.cifar10 import DATA, TRAINING, network
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Component, Run, component

NUMBERS = 9  # that say how an image was augmented, `fewstep.data.augment.NUMBERS`
FLOW = component("rectified_flow", second="gap")
FOLLOWED = component("rectified_flow", form="ddim")  # by a teacher's network
MEAN = replace(
    TRAINING,
    batch=1024,
    optimizer="adam",
    lr=6e-4,
    warmup=9766,
    ema=(0.9999, 0.99995, 0.9996),
    augment=0.12,
)
"""MeanFlow's: 16,000 epochs, a warm-up of 200, EDM's augmentations."""
SEPARATE = "separate(t=lognormal(P_mean=-0.6, P_std=1.6), s=lognormal(P_mean=-4.0, P_std=1.6))"


def two_times(dropout: float, augment: bool = False) -> Component:
    """EDM's network, also told the end of the map, and how an image was augmented."""
    found, more = network(dropout), {"augment": NUMBERS} if augment else {}
    return replace(found, arguments=found.arguments | {"two_time": True} | more)


def mean_flow(objective: str, **arguments: Any) -> Run:
    """A flow map with MeanFlow's network, times and training."""
    return Run(
        objective=component(objective, times=SEPARATE, **arguments),
        network=two_times(dropout=0.2, augment=True),
        p=FLOW,
        data=DATA,
        training=MEAN,
    )


@RECIPES.add("cifar10/meanflow")
def meanflow() -> Run:
    """MeanFlow from scratch (Geng et al. 2025): FID 2.92 in one step, 2.80 by its later code.

    Of that code, its second setting, which is better than the paper's: separate times, three
    quarters of the images with two. Its augmentations neither turn images nor flip them upside
    down, these are EDM's.
    """
    return mean_flow("meanflow", apart=0.75, power=0.75, c=1e-3)


@RECIPES.add("cifar10/imf")
def imf() -> Run:
    """Improved MeanFlow from scratch (Geng et al. 2025, the second paper).

    The paper has ImageNet alone: its shares and weight, in the training of cifar10/meanflow.
    """
    return mean_flow("imf", apart=0.5, power=1.0, c=0.01)


@RECIPES.add("cifar10/alphaflow")
def alphaflow() -> Run:
    """alpha-Flow from scratch (Zhang et al. 2025).

    The paper has ImageNet alone: its fall of alpha, in the training of cifar10/meanflow.
    """
    return mean_flow("alphaflow", apart=0.5)


@RECIPES.add("cifar10/soflow")
def soflow() -> Run:
    """SoFlow from scratch (Luo, Yuan, Liu 2025): FID 2.86 in one step, 2.28 in two.

    Every image has two times, and the first gap is the whole interval.
    """
    times = "separate(t=lognormal(P_mean=-0.9, P_std=1.6), s=lognormal(P_mean=-4.0, P_std=1.6))"
    return Run(
        objective=component(
            "soflow", times=times, apart=1.0, first=1.0, last=0.0003125, power=0.75, c=1e-3
        ),
        network=two_times(dropout=0.3, augment=True),
        p=FLOW,
        data=DATA,
        training=replace(MEAN, lr=1e-4, warmup=0, ema=(0.9999,)),
    )


@RECIPES.add("cifar10/shortcut")
def shortcut() -> Run:
    """Shortcut models from scratch (Frans et al. 2024).

    The paper has ImageNet and CelebA with a transformer: its training with weight decay, of
    batches of 256.
    """
    return Run(
        objective=component("shortcut", N=128, mu=0.999),
        network=two_times(dropout=0.1),
        p=FLOW,
        data=DATA,
        training=replace(
            TRAINING, batch=256, optimizer="adamw", lr=1e-4, weight_decay=0.1, ema=(0.999,)
        ),
    )


@RECIPES.add("cifar10/flow-map-matching")
def flow_map_matching() -> Run:
    """Lagrangian flow map matching from scratch (Boffi et al. 2025).

    The paper's loss, times and shares; its rate and batch we do not know, and take those of
    cifar10/meanflow. --objective.by eulerian and progressive are its other conditions.
    """
    return Run(
        objective=component("flow_map_matching", by="lagrangian", apart=0.25),
        network=two_times(dropout=0.13),
        p=FLOW,
        data=DATA,
        training=replace(MEAN, augment=0.0, flip=True, ema=(0.9999,)),
    )


@RECIPES.add("cifar10/tvm")
def tvm() -> Run:
    """Terminal velocity matching from scratch (Zhou et al. 2025).

    The paper has ImageNet alone: the published code's times, averages and training.
    """
    return Run(
        objective=component("tvm", mu=0.99),
        network=two_times(dropout=0.0),
        p=FLOW,
        data=DATA,
        training=replace(
            TRAINING,
            steps=100_000,
            batch=2048,
            optimizer="adamw",
            lr=1e-4,
            betas=(0.9, 0.95),
            flip=True,
        ),
    )


@RECIPES.add("cifar10/imm")
def imm() -> Run:
    """Inductive moment matching from scratch (Zhou, Ermon, Song 2025): FID 3.20, in two steps 1.98.

    Euler's form of the map on straight lines, one of the paper's three; its noise has the deviation
    of the data, 0.5, and this one has 1.
    """
    return Run(
        objective=component("imm", M=4, k=15, a=1, b=5.0),
        network=two_times(dropout=0.2),
        p=FLOW,
        data=DATA,
        training=replace(TRAINING, steps=400_000, batch=4096, lr=1e-4, flip=True),
    )


@RECIPES.add("cifar10/ayf")
def ayf() -> Run:
    """Align Your Flow: a flow map distilled in continuous time (Sabour, Fidler, Kreis 2025).

    Of a run of cifar10/edm, whose network is used in the process of straight lines. The paper has
    ImageNet alone: its times, r and normalisation, and a warm-up of 10,000 steps.
    """
    return Run(
        objective=component("ayf", warmup=0.1),
        network=two_times(dropout=0.0),
        p=FOLLOWED,
        data=DATA,
        training=replace(TRAINING, steps=100_000, batch=2048, lr=1e-4, betas=(0.9, 0.99)),
    )


@RECIPES.add("cifar10/facm")
def facm() -> Run:
    """A flow-anchored consistency model, distilled (Peng et al. 2025).

    Of a run of cifar10/edm, whose network is used in the process of straight lines. The paper has
    ImageNet alone: its times, relaxation and weights, without guidance, which needs classes.
    """
    return Run(
        objective=component("facm"),
        network=two_times(dropout=0.0),
        p=FOLLOWED,
        data=DATA,
        training=replace(TRAINING, steps=100_000, batch=1024, optimizer="adamw", lr=1e-4),
        taus={"2": (0.45,)},
    )


@RECIPES.add("cifar10/ctm")
def ctm() -> Run:
    """A consistency trajectory model without its discriminator (Kim et al. 2023): FID 5.28.

    With it 1.98. Of a run of cifar10/edm. The distance needs the extra fewstep[lpips];
    --objective.distance l2 does without.
    """
    return Run(
        objective=component("ctm", N=18, most=17, mu=0.999, distance="lpips", adaptive=True),
        network=two_times(dropout=0.0),
        p=component("edm", form="ddim"),
        data=DATA,
        training=replace(TRAINING, steps=100_000, batch=2048, lr=4e-4, ema=(0.999,), flip=True),
    )
