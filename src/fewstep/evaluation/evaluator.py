"""Scores of image sets against one reference, with the baselines that give them a meaning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.distributed import Processes
from fewstep.errors import FewstepError, unknown
from fewstep.evaluation.baselines import class_gaussian
from fewstep.evaluation.bootstrap import bootstrap_error
from fewstep.evaluation.features import Extracted, FeatureNetwork, check_images, extract
from fewstep.evaluation.frechet import Moments, frechet_distance, frechet_distance_infinity
from fewstep.evaluation.inception_score import inception_score, resampled_inception_score
from fewstep.evaluation.kernel_distance import kernel_distance
from fewstep.evaluation.manifold import neighbours
from fewstep.evaluation.reference import Reference

SPLIT = 500  # fewest images in a part of the inception score: fewer bias it down
FEW = 2048  # below so many images a Fréchet distance over Inception features is hardly comparable
UNEVEN = 0.1  # total variation between class proportions that is worth a remark
TEST, GAUSSIAN = "real test split", "class-wise pixel Gaussian"

METRICS = {
    "fd": "Fréchet distance (FID over Inception features)",
    "is": "inception score",
    "pr": "precision and recall, k = 3",
    "dc": "density and coverage, k = 5",
    "kid": "kernel distance (KID) with its standard error",
    "sfd": "Fréchet distance of spatial features (sFID)",
    "fd_infinity": "Fréchet distance extrapolated to infinitely many images",
}
BASIC = ("fd", "is", "pr")


@dataclass(frozen=True)
class Scores:
    """The scores of a set of images; NaN for one that was not asked for or cannot be had.

    Args:
        n: number of images.
        fd: Fréchet distance to the reference; lower is better.
        inception_score: higher is better.
        inception_score_std: its deviation over the splits.
        precision: share of images that look real, in 0..1.
        recall: share of the reference that the images cover, in 0..1.
        compared: images on each side for the scores by neighbours and the kernel distance.
        class_accuracy: share of images that the classifier takes for their label.
        density: real neighbourhoods that an image lies in, over k; about 1 for real images.
        coverage: share of real neighbourhoods that hold an image, in 0..1.
        kid: kernel distance; lower is better.
        kid_error: its standard error.
        sfd: Fréchet distance of the spatial features.
        fd_infinity: Fréchet distance of infinitely many images.
        errors: bootstrap standard errors of other scores, by name.
        notes: what a reader should know before comparing these scores with others.
    """

    n: int
    fd: float = math.nan
    inception_score: float = math.nan
    inception_score_std: float = math.nan
    precision: float = math.nan
    recall: float = math.nan
    compared: int = 0
    class_accuracy: float | None = None
    density: float = math.nan
    coverage: float = math.nan
    kid: float = math.nan
    kid_error: float = math.nan
    sfd: float = math.nan
    fd_infinity: float = math.nan
    errors: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise `FewstepError` for a name that is not of `METRICS`."""
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)


class Evaluator:
    """Scores images against a reference with one feature network.

    A generator should make images with `labels`, or `labels_for` another number: then it is
    compared at equal counts and equal class proportions.

    Args:
        network: feature network.
        reference: the real images as this network sees them.
        metrics: which scores, of `METRICS`; those that the reference or the network cannot give
            are left out.
        replicates: draws of the bootstrap for the standard errors; 0 for none.
        group: the processes that share the work; the scores are the first one's.

    Raises:
        FewstepError: an unknown metric.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        reference: Reference,
        *,
        metrics: Sequence[str] = BASIC,
        replicates: int = 0,
        group: Processes | None = None,
    ) -> None:
        check_metrics(metrics)
        self.network, self.reference, self.metrics = network, reference, tuple(metrics)
        self.replicates, self.group = replicates, group or Processes()

    @classmethod
    def of(
        cls,
        network: FeatureNetwork,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        metrics: Sequence[str] = BASIC,
        replicates: int = 0,
    ) -> Evaluator:
        """An evaluator whose reference are these images uint8 [N, C, H, W], with labels [N]."""
        reference = Reference.of(network, images, labels)
        return cls(network, reference, metrics=metrics, replicates=replicates)

    @property
    def n(self) -> int:
        """Number of reference images.

        Raises:
            FewstepError: the reference is a file of statistics that does not say.
        """
        if self.reference.n is None:
            raise FewstepError(
                f"{self.reference.name} does not say of how many images it is: give a number."
            )
        return self.reference.n

    @property
    def labels(self) -> Tensor | None:
        """Classes of the reference images [N]."""
        return self.reference.labels

    @property
    def fingerprint(self) -> str:
        """Hash of the network, the reference and the scores: equal where scores can be compared."""
        digest = hashlib.sha256(f"{self.network.fingerprint} {self.metrics}".encode())
        digest.update(self.reference.moments.mean.numpy().tobytes())
        digest.update(self.reference.moments.covariance.numpy().tobytes())
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
        check_images(images, self._shape())
        if labels is not None and len(labels) != len(images):
            raise FewstepError(f"{len(images)} images but {len(labels)} labels.")
        found = extract(self.network, images, group=self.group)
        if not self.group.first:
            return Scores(n=len(images))
        scores: dict[str, object] = {}
        errors: dict[str, float] = {}
        for part, error in self._parts(found, labels):
            scores |= part
            errors |= error
        notes = tuple(self._notes(len(images), labels))
        return Scores(n=len(images), errors=errors, notes=notes, **scores)  # type: ignore[arg-type]

    def baselines(
        self, test_images: Tensor | None = None, test_labels: Tensor | None = None
    ) -> dict[str, Scores]:
        """Scores of the real test split, where given, and of `class_gaussian` draws."""
        scores = {}
        if test_images is not None:
            scores[TEST] = self.score(test_images, test_labels)
        if self.reference.images is not None:
            labels = self.labels
            wanted = torch.zeros(self.n).long() if labels is None else labels
            draws = class_gaussian(self.reference.images, labels, wanted)
            scores[GAUSSIAN] = self.score(draws, labels)
        return scores

    def _shape(self) -> tuple[int, ...] | None:
        """What images must be: as the network takes them, else as the reference's are."""
        if self.network.shape is None and self.reference.images is not None:
            return tuple(self.reference.images.shape[1:])
        return self.network.shape

    def _parts(
        self, found: Extracted, labels: Tensor | None
    ) -> Iterator[tuple[dict[str, object], dict[str, float]]]:
        """The scores one kind after another, each with its standard errors."""
        if "fd" in self.metrics or "fd_infinity" in self.metrics:
            yield self._frechet(found.features)
        if "is" in self.metrics and found.logits is not None:
            yield self._inception(found.logits)
        if self.reference.features is not None and {"pr", "dc", "kid"} & set(self.metrics):
            real = self.reference.features
            n = min(len(found.features), len(real))
            fake = _subset(found.features, labels, n)
            yield from self._by_images(_subset(real, self.labels, n), fake)
        if "sfd" in self.metrics and found.spatial is not None and self.reference.spatial:
            yield {"sfd": frechet_distance(found.spatial, self.reference.spatial)}, {}
        accuracy = self._accuracy(found.logits, labels)
        if accuracy is not None:
            yield {"class_accuracy": accuracy}, {}

    def _frechet(self, features: Tensor) -> tuple[dict[str, object], dict[str, float]]:
        reference = self.reference.moments
        scores: dict[str, object] = {"fd": frechet_distance(Moments.of(features), reference)}
        if "fd_infinity" in self.metrics and len(features) >= 20:
            scores["fd_infinity"] = frechet_distance_infinity(features, reference)

        def again(some: Tensor) -> float:
            return frechet_distance(Moments.of(features[some]), reference)

        return scores, self._error("fd", again, len(features))

    def _inception(self, logits: Tensor) -> tuple[dict[str, object], dict[str, float]]:
        # The splits are taken in order, and images may come sorted by class.
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
        mean, deviation = inception_score(logits[order], min(10, max(1, len(order) // SPLIT)))
        scores: dict[str, object] = {"inception_score": mean, "inception_score_std": deviation}
        if not self.replicates:
            return scores, {}
        again = resampled_inception_score(logits)
        return scores, self._error("inception_score", again, len(logits))

    def _by_images(
        self, real: Tensor, fake: Tensor
    ) -> Iterator[tuple[dict[str, object], dict[str, float]]]:
        """The scores that see every image of both sets, of which there are equally many."""
        if "kid" in self.metrics:
            value, error = kernel_distance(real, fake)
            yield {"kid": value, "kid_error": error, "compared": len(fake)}, {}
        wanted = [
            *(("precision", "recall") if "pr" in self.metrics else ()),
            *(("density", "coverage") if "dc" in self.metrics else ()),
        ]
        if not wanted:
            return
        device = next(iter(self.network.parameters()), real).device
        found = neighbours(real.to(device), fake.to(device))
        for name in wanted:
            values = getattr(found, name).double().cpu()
            yield (
                {name: float(values.mean()), "compared": len(fake)},
                self._mean_error(name, values),
            )

    def _mean_error(self, name: str, values: Tensor) -> dict[str, float]:
        return self._error(name, lambda some: float(values[some].mean()), len(values))

    def _error(self, name: str, statistic: Callable[[Tensor], float], n: int) -> dict[str, float]:
        if not self.replicates:
            return {}
        return {name: bootstrap_error(statistic, n, self.replicates)}

    def _accuracy(self, logits: Tensor | None, labels: Tensor | None) -> float | None:
        """None unless the network was trained on the classes of the reference."""
        if labels is None or logits is None or self.labels is None:
            return None
        if logits.shape[1] != int(self.labels.max()) + 1:
            return None
        return float((logits.argmax(1) == labels).double().mean())

    def _notes(self, n: int, labels: Tensor | None) -> Iterator[str]:
        D = len(self.reference.moments.mean)
        for count, whose in ((n, "images"), (self.reference.n, "reference images")):
            if count is not None and count <= D:
                yield (
                    f"{count} {whose} for {D} features: their covariance is singular, and the "
                    f"Fréchet distance is too high. Use more than {max(D, FEW)}."
                )
            elif count is not None and count < FEW and D >= FEW // 2:
                yield f"{count} {whose}: with fewer than {FEW} the Fréchet distance is too high."
        if self.reference.n is not None and n < self.reference.n // 2:
            yield (
                f"{n} images against {self.reference.n}: fewer images have a larger Fréchet "
                "distance; compare at equal numbers, or read fd_infinity."
            )
        if labels is not None and self.labels is not None:
            apart = _total_variation(labels, self.labels)
            if apart > UNEVEN:
                yield (
                    f"{100 * apart:.0f} % of the images would have to change class to match the "
                    "reference's proportions: part of the distance is that."
                )


def _total_variation(a: Tensor, b: Tensor) -> float:
    size = int(max(a.max(), b.max())) + 1
    p, q = (x.bincount(minlength=size).double() / len(x) for x in (a, b))
    return float((p - q).abs().sum() / 2)


def _subset(features: Tensor, labels: Tensor | None, n: int) -> Tensor:
    """``n`` of the features: a fixed random draw, with the class proportions of the whole."""
    total = len(features)
    if n == total:
        return features
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    if labels is None:
        return features[order[:n].sort().values]
    # Rank of each image within its class, as a fraction: the lowest n take every class alike.
    rank = torch.empty(total, dtype=torch.float64)
    for label in labels.unique():
        here = order[labels[order] == label]
        rank[here] = (torch.arange(len(here)).double() + 0.5) / len(here)
    return features[rank.argsort(stable=True)[:n].sort().values]
