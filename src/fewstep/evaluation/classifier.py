"""Small classifiers, trained on the spot, whose penultimate layer gives features.

Images of up to `SMALL` pixels a side take seconds, larger ones some minutes of one core.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from fewstep.cache import cache_folder
from fewstep.errors import FewstepError
from fewstep.evaluation.checked import read_checked, warn_damaged, write_checked
from fewstep.evaluation.features import FeatureNetwork, Features, check_images
from fewstep.progress import progress

VERSION = 3  # of the networks and their training; older caches are not used
SMALL = 16  # pixels a side; larger images get the larger classifier
STEPS = 500  # of the small classifier, and the fewest of the larger one
BATCH = 64
EPOCHS, MOST = 6, 6000  # of the larger one: passes over the images, at most so many steps


def _stage(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.SiLU()


class Classifier(FeatureNetwork):
    """Convolutions, features, and class scores of these.

    Args:
        shape: shape (C, H, W) of the images.
        num_classes: number of classes.
    """

    name = "classifier"
    form: ClassVar[str]

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        self.body = nn.Sequential(*self._layers(shape[0]))
        self.head = nn.Linear(self.num_features, num_classes)

    @abstractmethod
    def _layers(self, channels: int) -> tuple[nn.Module, ...]:
        """From images of so many channels to the features."""

    @staticmethod
    @abstractmethod
    def steps(n: int) -> int:
        """Steps of its training on ``n`` images."""

    @staticmethod
    @abstractmethod
    def batches(n: int, steps: int) -> Iterator[Tensor]:
        """Which of ``n`` images each step sees [`BATCH`], from the global random stream."""

    def forward(self, images: Tensor) -> Features:
        features = self.body(images.float() / 127.5 - 1)
        return Features(features, self.head(functional.silu(features)))


class SmallClassifier(Classifier):
    """Three convolutions and 32 features, for images of up to `SMALL` pixels: see `Classifier`."""

    form = ""
    num_features = 32

    def _layers(self, channels: int) -> tuple[nn.Module, ...]:
        return (
            *_stage(channels, 24),
            *_stage(24, 48),
            nn.MaxPool2d(2),
            *_stage(48, 64),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(1024, self.num_features),
        )

    @staticmethod
    def steps(n: int) -> int:
        return STEPS

    @staticmethod
    def batches(n: int, steps: int) -> Iterator[Tensor]:
        for _ in range(steps):
            yield torch.randint(n, (BATCH,))


class LargerClassifier(Classifier):
    """Four convolutions and 64 features, for images from 17 pixels a side on: see `Classifier`.

    The first convolution halves the image: at full size the others would cost four times as much.
    """

    form = "larger"
    num_features = 64

    def _layers(self, channels: int) -> tuple[nn.Module, ...]:
        halved = nn.Conv2d(channels, 48, 4, stride=2, padding=1, bias=False)
        return (
            *(halved, nn.BatchNorm2d(48), nn.SiLU()),
            *_stage(48, 64),
            nn.MaxPool2d(2),
            *_stage(64, 128),
            *_stage(128, 128),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(2048, self.num_features),
        )

    @staticmethod
    def steps(n: int) -> int:
        return min(max(STEPS, EPOCHS * n // BATCH), MOST)

    @staticmethod
    def batches(n: int, steps: int) -> Iterator[Tensor]:
        """Every image once before one comes again."""
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            while len(order) < BATCH:
                order = torch.cat([order, torch.randperm(n)])
            yield order[:BATCH]
            order = order[BATCH:]


def classifier_for(shape: tuple[int, ...]) -> type[Classifier]:
    """Which classifier images of a shape (C, H, W) get."""
    return SmallClassifier if max(shape[1:]) <= SMALL else LargerClassifier


def train_classifier(
    images: Tensor, labels: Tensor, *, seed: int = 0, cache: Path | None = None
) -> Classifier:
    """A classifier of labelled images, from the cache if it was trained before.

    `SmallClassifier` or `LargerClassifier`, by the size of the images. AdamW with a one-cycle rate,
    label smoothing, and shifts by a pixel, on one thread: scores by it are the same for any number
    of cores. The global random stream is left as it was.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
        seed: of the initialisation and the batches.
        cache: folder; default ``FEWSTEP_CACHE`` or ``~/.cache/fewstep``.

    Raises:
        FewstepError: images and labels that do not fit each other.
    """
    check_images(images, tuple(images.shape[1:]))
    if labels is None or len(labels) != len(images):
        raise FewstepError(f"the classifier needs a label for each of the {len(images)} images.")
    num_classes = int(labels.max()) + 1
    kind = classifier_for(tuple(images.shape[1:]))
    path = _cache_path(kind, images, labels, seed, cache)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(tuple(images.shape[1:]), num_classes)
        if not _read(network, path):
            with _one_thread():
                _train(network, images, labels)
            _write(network, path)
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that the scores of machines of several cores are comparable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(network: Classifier, images: Tensor, labels: Tensor) -> None:
    steps = network.steps(len(images))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.train()
    with progress("training the classifier", steps) as advance:
        for some in network.batches(len(images), steps):
            logits = network(_shifted(images[some])).logits
            loss = functional.cross_entropy(logits, labels[some], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(1)


def _shifted(images: Tensor) -> Tensor:
    """The batch moved by at most one pixel, all images alike; the edge is repeated."""
    height, width = images.shape[2:]
    padded = functional.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    down, right = torch.randint(3, (2,)).tolist()
    return padded[:, :, down : down + height, right : right + width]


def _cache_path(
    kind: type[Classifier], images: Tensor, labels: Tensor, seed: int, cache: Path | None
) -> Path:
    settings = f"{VERSION} {seed} {tuple(images.shape)} {kind.steps(len(images))} {BATCH}"
    digest = hashlib.sha256(f"{settings}{kind.form}".encode())
    digest.update(images.contiguous().numpy().tobytes())
    digest.update(labels.contiguous().numpy().tobytes())
    return (cache or cache_folder()) / "classifiers" / f"{digest.hexdigest()[:32]}.safetensors"


def _read(network: Classifier, path: Path) -> bool:
    """Load cached weights; False where there are none, or damaged ones, which is said."""
    if not os.path.isfile(path):
        return False
    try:
        network.load_state_dict(read_checked(path)[0])
    except (FewstepError, RuntimeError):
        warn_damaged(path, "classifier")
        return False
    return True


def _write(network: Classifier, path: Path) -> None:
    with suppress(OSError, SafetensorError):  # without a cache it is trained anew next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checked(path, network.state_dict())
