"""An objective of several networks: a one-step generator against a fake score and a critic."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fewstep.condition import NONE, Condition
from fewstep.data import Dataset
from fewstep.flow_map import FlowMap
from fewstep.needs import Needs, TeacherUse
from fewstep.networks import MLP
from fewstep.objectives import Objective
from fewstep.objectives.turns import Turn
from fewstep.parameterization import EDM
from fewstep.trained import GENERATOR
from fewstep.training.config import Training

CONFIG = Training(
    steps=14,
    batch=16,
    lr=2e-3,
    warmup=3,
    clip=1.0,
    ema=(0.9, 100.0),
    log_every=3,
    sample_every=0,
    checkpoint_every=3,
)


class Matching(Objective):
    """Distribution matching: the gradient ``fake.D - teacher.D`` at the generator's noised samples.

    ``fake`` learns the score of the samples, twice a step; ``critic``, a bare network with batch
    normalisation, tells them from images, every other step; then the generator ``f`` follows both.
    """

    makes = GENERATOR
    needs = Needs(teacher=TeacherUse.DISTIL)
    paper = "Yin et al. 2024, Algorithm 1, with a critic"

    def __init__(self, f: FlowMap, K: int, *, teacher: FlowMap) -> None:
        super().__init__(f, K)
        self.teacher = self.hold(teacher)
        self.fake = teacher.frozen_copy().requires_grad_()
        width = math.prod(f.shape)
        self.critic = nn.Sequential(
            nn.Flatten(), nn.Linear(width, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 1)
        )

    def trained_modules(self) -> dict[str, nn.Module]:
        return {"f": self.f, "fake": self.fake, "critic": self.critic}

    def turns(self, k: int) -> tuple[Turn, ...]:
        return (
            Turn("fake", self.fake_loss, repeat=2, optimizer="adam", betas=(0.5, 0.9)),
            Turn("critic", self.critic_loss, repeat=k % 2, lr=5e-4, clip=0.5),
            Turn("f", self.loss_at),
        )

    def draw_times(self, x: Tensor, k: int) -> tuple[Tensor, ...]:
        return ((0.1 + 2 * torch.rand(len(x))).to(x.device),)

    def samples(self, x: Tensor, condition: Condition) -> Tensor:
        T = self.f.p.T
        return self.f(T * torch.randn_like(x), T, condition=condition)

    def loss_at(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        y = self.samples(x, condition)
        with torch.no_grad():
            y_t = self.f.p.diffuse(y, *times, torch.randn_like(y))
            gap = self.fake.D(y_t, *times, condition) - self.teacher.D(y_t, *times, condition)
        matched = (y - (y - gap).detach()).square().flatten(1).mean(1) / 2
        return matched + 0.1 * softplus(-self.critic(y)[:, 0])

    def fake_loss(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        with torch.no_grad():
            y = self.samples(x, condition)
        y_t = self.f.p.diffuse(y, *times, torch.randn_like(y))
        return (self.fake.D(y_t, *times, condition) - y).square().flatten(1).mean(1)

    def critic_loss(
        self, x: Tensor, *times: Tensor, condition: Condition = NONE, **columns: Tensor
    ) -> Tensor:
        with torch.no_grad():
            y = self.samples(x, condition)
        return (softplus(self.critic(y)) + softplus(-self.critic(x)))[:, 0]


def points(n: int = 50) -> Dataset:
    """Points about (0.6, -0.4, 0.2)."""
    x = torch.tensor([0.6, -0.4, 0.2]) + 0.1 * torch.randn(
        n, 3, generator=torch.Generator().manual_seed(1)
    )
    return Dataset.from_arrays(x, points=True)


def matching(seed: int = 0) -> Matching:
    """The objective; its teacher is always the same, as if it were read from a file."""
    maps = []
    for own in (1000, seed):
        torch.manual_seed(own)
        f = FlowMap(MLP((3,), width=16, blocks=1, dropout=0.1), EDM(T=5.0))
        for parameter in f.parameters():
            nn.init.normal_(parameter, std=0.3)
        maps.append(f)
    return Matching(maps[1], CONFIG.steps, teacher=maps[0])
