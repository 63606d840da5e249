"""Small networks on CIFAR-10 against the clock: what the trainings of a race share.

Scores are Fréchet distances of 10,000 samples to the 50,000 training images over a ResNet-56's
features; where the images are JPEG copies, the distances compare with each other alone.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import fewstep
from fewstep.data import Dataset, to_uint8
from fewstep.distributed import Processes
from fewstep.evaluation import Evaluator, Reference
from fewstep.evaluation.resnet56 import ResNet56
from fewstep.flow_map import FlowMap
from fewstep.networks import UNet
from fewstep.objectives import Objective
from fewstep.sampling import Sampler
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer
from gpu_parts.stage import Stage

SCORING = 48.0  # seconds that scores and starts take
Make = Callable[[FlowMap, int], Objective]
"""An objective of a map and the number of training steps."""


@dataclass
class Race:
    """What all trainings share."""

    stage: Stage
    data: Dataset
    evaluator: Evaluator
    started: float
    seconds: float  # for the trainings

    def network(self, **more: Any) -> UNet:
        """Some 5 million weights."""
        small: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1}
        large: dict[str, Any] = {"channels": 64, "multipliers": (1, 2, 2), "blocks": 1}
        sizes = small if self.stage.rehearse else large
        return UNet(
            self.data.shape, num_classes=self.data.num_classes, dropout=0.0, **sizes, **more
        )

    def trainer(self, objective: Objective, steps: int, **settings: Any) -> Trainer:
        config = Training(
            steps=steps,
            batch=4 if self.stage.rehearse else 512,
            deterministic=False,
            flip=True,
            ema_rampup=0.05,
            **{"precision": "bf16", "cuda_graphs": not self.stage.rehearse, **settings},
        )
        group = Processes(device=self.stage.device)
        folder = tempfile.mkdtemp(prefix="fewstep-speedrun-")
        return Trainer(objective, self.data, config, folder, group=group, quiet=True)

    def score(self, what: str, f: FlowMap, samplers: dict[str, Sampler], **also: Any) -> None:
        """Report the Fréchet distance of samples, with the seconds since the start."""
        elapsed, n = time.time() - self.started, 16 if self.stage.rehearse else 10_000
        found: dict[str, float] = {}
        f = f.frozen_copy().in_precision("bf16")
        for name, sampler in samplers.items():
            x = fewstep.sample(f, n, sampler, seed=0, batch=min(n, 2500))
            found[f"fd {name}"] = float(self.evaluator.score(to_uint8(x)).fd)
        scoring = time.time() - self.started - elapsed
        self.stage.report(what, at_s=elapsed, scored_in_s=scoring, **found, **also)


def prepared(stage: Stage, started: float, seconds: float | None = None) -> Race:
    """Images, features and the statistics of the images.

    Args:
        stage: where the race runs.
        started: when that began.
        seconds: for the trainings; default all that are left but those of scores.
    """
    data, network = _data(stage), _features(stage).to(stage.device)
    reference = Reference.of_data(network, data)
    evaluator = Evaluator(network, reference, metrics=("fd",), group=Processes(device=stage.device))
    seconds = max(20.0, stage.left - SCORING) if seconds is None else seconds
    seconds = 0.5 if stage.rehearse else seconds
    stage.report("ready", images=len(data), preparing_s=time.time() - started, seconds=seconds)
    return Race(stage, data, evaluator, time.time(), seconds)


def _data(stage: Stage) -> Dataset:
    if stage.carried is not None and not stage.rehearse:
        return cifar10(stage.carried / "data/train.parquet")
    n = 64 if stage.rehearse else 10_000
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
    return Dataset.from_arrays(images, torch.arange(n) % 10)


def cifar10(path: Path) -> Dataset:
    """The images of a Parquet file, without the library `datasets`, which need not come along."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(_pixels, table.column("img").to_pylist(), chunksize=256))
    labels = torch.tensor(table.column("label").to_pylist())
    return Dataset.from_arrays(np.stack(pixels), labels)


def _pixels(picture: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture["bytes"])).convert("RGB"))


def _features(stage: Stage) -> ResNet56:
    if stage.carried is not None and not stage.rehearse:
        return ResNet56.load(stage.carried / "data/resnet56.safetensors")
    return ResNet56().eval().requires_grad_(False)


def trained(
    race: Race,
    what: str,
    make: Make,
    f: FlowMap,
    samplers: dict[str, Sampler],
    seconds: float,
    parts: int = 1,
    keep: Callable[[FlowMap], object] = lambda f: None,
    **settings: Any,
) -> FlowMap:
    """The running average after some seconds of training; scored ``parts`` times on the way.

    The number of steps follows from how fast the first ones are. Where later ones are slower,
    training ends early, at its last second. ``keep`` takes the average before a score.
    """
    stage = race.stage
    rate = _steps_per_second(race, make, f, **settings)
    steps = max(2 * parts, int(0.93 * seconds * rate))
    done = 0
    trainer = race.trainer(make(f, steps), steps, **settings)
    began, spent = time.time(), 0.0
    for part in range(1, parts + 1):
        start = time.time()
        for k in range(steps * (part - 1) // parts, steps * part // parts):
            if done >= 2 and spent + time.time() - start > seconds:
                break
            trainer.step(k)
            done += 1
        stage.sync()
        spent += time.time() - start
        keep(trainer.averages.first)
        race.score(
            what,
            trainer.averages.first,
            samplers,
            steps=done,
            of_steps=steps,
            training_s=spent,
            batch=trainer.config.batch,
            steps_per_s=rate,
        )
    stage.report(f"{what}: done", seconds=time.time() - began, memory_gib=stage.memory())
    return trainer.averages.first


def _steps_per_second(race: Race, make: Make, f: FlowMap, **settings: Any) -> float:
    """The rate of a throwaway copy."""
    copy = f.frozen_copy().requires_grad_(True)
    trainer = race.trainer(make(copy, 1000), 1000, **settings)
    n = 2 if race.stage.rehearse else 20
    for k in range(5 if not race.stage.rehearse else 1):
        trainer.step(k)
    race.stage.sync()
    started = time.time()
    for k in range(n):
        trainer.step(k)
    race.stage.sync()
    return n / (time.time() - started)
