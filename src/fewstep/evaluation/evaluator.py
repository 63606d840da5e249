"""Scores of image sets against one reference, with the baselines that give them a meaning."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.evaluation.baselines import class_gaussian
from fewstep.evaluation.features import FeatureNetwork, Features, check_images, extract
from fewstep.evaluation.frechet import Moments, frechet_distance
from fewstep.evaluation.inception_score import inception_score
from fewstep.evaluation.manifold import precision_recall

SPLIT = 500  # fewest images in a part of the inception score: fewer bias it down
TEST, GAUSSIAN = "real test split", "class-wise pixel Gaussian"


@dataclass(frozen=True)
class Scores:
    """The scores of a set of images.

    Args:
        n: number of images.
        fd: Fréchet distance to the reference; lower is better.
        inception_score: higher is better; 0 where the feature network does not classify.
        inception_score_std: its deviation over the splits.
        precision: share of images that look real, in 0..1.
        recall: share of the reference that the images cover, in 0..1.
        compared: images on each side for precision and recall.
        class_accuracy: share of images that the classifier takes for their label.
    """

    n: int
    fd: float
    inception_score: float
    inception_score_std: float
    precision: float
    recall: float
    compared: int
    class_accuracy: float | None = None


class Evaluator:
    """Scores images against a reference with one feature network.

    A generator should make images with `labels`, or `labels_for` another number: then it is
    compared at equal counts and equal class proportions.

    Args:
        network: feature network.
        images: the reference, uint8 [N, C, H, W].
        labels: their classes [N].
        k: neighbours for precision and recall.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        k: int = 3,
    ) -> None:
        check_images(images, network.shape, "the reference images")
        self.network, self.images, self.labels = network, images, labels
        self.k = k
        self._real = extract(network, images).features
        self._moments = Moments.of(self._real)

    @property
    def n(self) -> int:
        """Number of reference images."""
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        """Hash of the network and the reference: the same where scores can be compared."""
        digest = hashlib.sha256(self.network.fingerprint.encode())
        digest.update(self._real.numpy().tobytes())
        return digest.hexdigest()

    def labels_for(self, n: int) -> Tensor:
        """Classes for ``n`` images in the reference's proportions, by largest remainder [n].

        The classes take turns as in the reference; for its own number they are its labels.

        Raises:
            FewstepError: the reference has no labels.
        """
        if self.labels is None:
            raise FewstepError("the reference images have no labels to take proportions from.")
        if n == self.n:
            return self.labels
        share = self.labels.bincount().double() * n / self.n
        counts = share.floor().long()
        counts[(share - counts).argsort(descending=True)[: n - int(counts.sum())]] += 1
        return torch.arange(len(counts)).repeat_interleave(counts)

    def score(self, images: Tensor, labels: Tensor | None = None) -> Scores:
        """Score images uint8 [M, C, H, W]; with ``labels`` also whether they show their class.

        Raises:
            FewstepError: another shape or type than the reference; labels that do not fit.
        """
        check_images(images, self.network.shape)
        if labels is not None and len(labels) != len(images):
            raise FewstepError(f"{len(images)} images but {len(labels)} labels.")
        found = extract(self.network, images)
        fake, real = self._equal_counts(found.features, labels)
        precision, recall = precision_recall(real, fake, self.k)
        mean, deviation = self._inception_score(found)
        return Scores(
            n=len(images),
            fd=frechet_distance(Moments.of(found.features), self._moments),
            inception_score=mean,
            inception_score_std=deviation,
            precision=precision,
            recall=recall,
            compared=len(fake),
            class_accuracy=_accuracy(found, labels),
        )

    def baselines(
        self, test_images: Tensor | None = None, test_labels: Tensor | None = None
    ) -> dict[str, Scores]:
        """Scores of the real test split, where given, and of `class_gaussian` draws."""
        scores = {}
        if test_images is not None:
            scores[TEST] = self.score(test_images, test_labels)
        wanted = torch.zeros(self.n).long() if self.labels is None else self.labels
        scores[GAUSSIAN] = self.score(class_gaussian(self.images, self.labels, wanted), self.labels)
        return scores

    def _inception_score(self, found: Features) -> tuple[float, float]:
        if found.logits is None:
            return 0.0, 0.0
        # The splits are taken in order, and images may come sorted by class.
        order = torch.randperm(len(found.logits), generator=torch.Generator().manual_seed(0))
        splits = min(10, max(1, len(order) // SPLIT))
        return inception_score(found.logits[order], splits)

    def _equal_counts(self, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both sets cut to the smaller one's size, by a fixed draw in each class's proportion."""
        n = min(len(fake), self.n)
        return fake[_subset(len(fake), labels, n)], self._real[_subset(self.n, self.labels, n)]


def _subset(total: int, labels: Tensor | None, n: int) -> Tensor:
    """``n`` of ``total`` indices: a fixed random draw, with the class proportions of the whole."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    if n == total:
        return torch.arange(total)
    if labels is None:
        return order[:n].sort().values
    # Rank of each image within its class, as a fraction: the lowest n take every class alike.
    rank = torch.empty(total, dtype=torch.float64)
    for label in labels.unique():
        here = order[labels[order] == label]
        rank[here] = (torch.arange(len(here)).double() + 0.5) / len(here)
    return rank.argsort(stable=True)[:n].sort().values


def _accuracy(found: Features, labels: Tensor | None) -> float | None:
    if labels is None or found.logits is None:
        return None
    return float((found.logits.argmax(1) == labels).double().mean())
