"""Scores of image sets against one reference, with the baselines that give them a meaning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from fewstep.classes import Agreement
from fewstep.distributed import Processes
from fewstep.errors import FewstepError, listed
from fewstep.evaluation.baselines import class_gaussian
from fewstep.evaluation.copies import pixel_keys, share_of_copies
from fewstep.evaluation.features import Extracted, FeatureNetwork, check_images, extract
from fewstep.evaluation.frechet import (
    Moments,
    extrapolated_frechet_distance,
    frechet_distance,
    quick_frechet_distance,
)
from fewstep.evaluation.inception_score import inception_score, resampled_inception_score
from fewstep.evaluation.kernel_distance import kernel_distance
from fewstep.evaluation.manifold import neighbours
from fewstep.evaluation.notes import (
    NEEDED,
    on_copies,
    on_counts,
    on_extrapolation,
    on_missing,
    on_proportions,
)
from fewstep.evaluation.reference import Reference
from fewstep.evaluation.resampling import SHARE, subset_errors
from fewstep.evaluation.scores import BASIC, Scores, check_metrics
from fewstep.precision import has_float64

SPLIT = 500  # fewest images in a part of the inception score: fewer bias it down
TEST, GAUSSIAN = "real test split", "class-wise pixel Gaussian"
HALVES = "reference, half against half"
MOST = 1000  # images on each side of which the errors of scores by neighbours are taken
LARGEST = 1 << 32  # bytes of a reference in which copies are looked for


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
        classes: Sequence[str] = (),
        *,
        metrics: Sequence[str] = BASIC,
        replicates: int = 0,
    ) -> Evaluator:
        """An evaluator whose reference are these images uint8 [N, C, H, W], with labels [N]."""
        reference = Reference.of(network, images, labels, classes)
        return cls(network, reference, metrics=metrics, replicates=replicates)

    @property
    def n(self) -> int:
        """Number of reference images.

        Raises:
            FewstepError: the reference is a file of statistics that does not say.
        """
        if self.reference.n is None:
            raise FewstepError(
                f"{self.reference.name} does not say of how many images its statistics are: give "
                "the number of samples with -n. Published scores are mostly of -n 50000."
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

        For the reference's own number they are its labels in their order, else sorted.

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

    def score(
        self, images: Tensor, labels: Tensor | None = None, classes: Sequence[str] = ()
    ) -> Scores:
        """Score images uint8 [M, C, H, W]; with ``labels`` also whether they show their class.

        Args:
            images: to score.
            labels: class of each [M].
            classes: what the labels' numbers are called; default as in the reference.

        Raises:
            FewstepError: another shape or type than the reference; labels that do not fit.
        """
        check_images(images, self._shape())
        if labels is not None and len(labels) != len(images):
            raise FewstepError(f"{len(images)} images but {len(labels)} labels.")
        found = extract(self.network, images, group=self.group)
        if not self.group.first:
            return Scores(n=len(images))
        labels, notes = self._in_our_classes(labels, classes)
        notes += on_copies(share_of_copies(images, self._keys))
        return self._scored(found, labels, notes)

    def baselines(
        self,
        test_images: Tensor | None = None,
        test_labels: Tensor | None = None,
        test_classes: Sequence[str] = (),
    ) -> dict[str, Scores]:
        """Scores of the real test split, where given, and of `class_gaussian` draws."""
        scores = {}
        if test_images is not None:
            scores[TEST] = self.score(test_images, test_labels, test_classes)
        return scores | self.gaussian()

    def gaussian(self) -> dict[str, Scores]:
        """Scores of `class_gaussian` draws, where the reference is images."""
        images, labels = self.reference.images, self.labels
        if images is None:
            return {}
        wanted = torch.zeros(len(images)).long() if labels is None else labels
        draws = class_gaussian(images, labels, wanted)
        return {GAUSSIAN: self.score(draws, labels)}

    def halves(self) -> dict[str, Scores]:
        """Scores of a random half of the reference against the other half, where there are two.

        What real images reach where no others are at hand: with half as many on each side, so that
        the Fréchet distance is larger than it would be of all.
        """
        features, labels = self.reference.features, self.labels
        if features is None or len(features) < 2 * max(NEEDED["fd"], 2) or not self.group.first:
            return {}
        here = torch.zeros(len(features), dtype=torch.bool)
        here[_chosen(labels, len(features), len(features) // 2)] = True
        (a, ours), (b, theirs) = (
            (features[rows], None if labels is None else labels[rows]) for rows in (~here, here)
        )
        half = Reference(self.reference.name, len(a), Moments.of(a), "", features=a, labels=ours)
        evaluator = Evaluator(self.network, half, metrics=self.metrics, replicates=self.replicates)
        notes = [f"{len(b)} random images of the reference against the other {len(a)}."]
        return {HALVES: evaluator._scored(Extracted(b, None, None), theirs, notes)}

    @cached_property
    def _keys(self) -> frozenset[bytes]:
        """By which images of the reference are recognised."""
        images = self.reference.images
        if images is None or images.numel() > LARGEST:
            return frozenset()
        return frozenset(pixel_keys(images))

    def holds(self, images: Tensor) -> bool:
        """Whether most of the images [N, C, H, W] are of the reference itself."""
        return share_of_copies(images, self._keys) > 0.5

    def _in_our_classes(
        self, labels: Tensor | None, classes: Sequence[str]
    ) -> tuple[Tensor | None, list[str]]:
        """Labels by the reference's numbers, -1 for a class that it lacks, and what to say."""
        if labels is None or self.labels is None or not classes:
            return labels, []
        agreement = Agreement(tuple(classes), self.reference.classes)
        notes = [f"{agreement.note}."] if agreement.note else []
        ours = agreement.translated(labels)
        lost = labels.cpu()[ours < 0].unique().tolist()
        if lost:
            notes.append(
                f"the classes {listed([classes[i] for i in lost])} are none of the reference's "
                f"({listed(self.reference.classes)}): class accuracy is without them."
            )
        return ours, notes

    def _scored(self, found: Extracted, labels: Tensor | None, notes: list[str]) -> Scores:
        n = len(found.features)
        scores: dict[str, object] = {}
        errors: dict[str, float] = {}
        for part, error in self._parts(found, labels):
            scores |= part
            errors |= error
        notes = [
            *notes,
            *on_counts(n, self.reference),
            *on_missing(self._fewest(n), self.metrics),
            *on_extrapolation(n, found.features.shape[1], self.metrics),
            *on_proportions(labels, self.labels),
        ]
        return Scores(n=n, errors=errors, notes=tuple(notes), **scores)  # type: ignore[arg-type]

    def _fewest(self, n: int) -> int:
        """Images on the side that has fewer."""
        real = self.reference.features
        return n if real is None else min(n, len(real))

    def _shape(self) -> tuple[int, ...] | None:
        """What images must be: as the network takes them, else as the reference's are."""
        if self.network.shape is None and self.reference.images is not None:
            return tuple(self.reference.images.shape[1:])
        return self.network.shape

    def _parts(
        self, found: Extracted, labels: Tensor | None
    ) -> Iterator[tuple[dict[str, object], dict[str, float]]]:
        """The scores one kind after another, each with its standard errors."""
        n = self._fewest(len(found.features))
        wanted = {metric for metric in self.metrics if n >= NEEDED.get(metric, 1)}
        if wanted & {"fd", "fd_infinity"}:
            yield self._frechet(found.features, wanted)
        if "is" in wanted and found.logits is not None:
            yield self._inception(found.logits)
        if self.reference.features is not None and wanted & {"pr", "dc", "kid"}:
            real = self.reference.features
            rows = _chosen(self.labels, len(real), n), _chosen(labels, len(found.features), n)
            yield from self._by_images(real[rows[0]], found.features[rows[1]], wanted)
        if "sfd" in wanted and found.spatial is not None and self.reference.spatial:
            yield {"sfd": frechet_distance(found.spatial, self.reference.spatial)}, {}
        accuracy = self._accuracy(found.logits, labels)
        if accuracy is not None:
            yield {"class_accuracy": accuracy}, {}

    def _frechet(
        self, features: Tensor, wanted: set[str]
    ) -> tuple[dict[str, object], dict[str, float]]:
        reference = self.reference.moments

        def again(some: Tensor) -> float:
            return quick_frechet_distance(Moments.of(features[some]), reference)

        scores: dict[str, object] = {"fd": frechet_distance(Moments.of(features), reference)}
        errors = self._errors(("fd",), again, (len(features),))
        if "fd_infinity" in wanted:
            scores["fd_infinity"], of_parts = extrapolated_frechet_distance(features, reference)
            if "fd" in errors:
                errors["fd_infinity"] = math.hypot(errors["fd"], of_parts)
        return scores, errors

    def _inception(self, logits: Tensor) -> tuple[dict[str, object], dict[str, float]]:
        # The splits are taken in order, and images may come sorted by class.
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
        mean, deviation = inception_score(logits[order], min(10, max(1, len(order) // SPLIT)))
        scores: dict[str, object] = {"inception_score": mean, "inception_score_std": deviation}
        if not self.replicates:
            return scores, {}
        again = resampled_inception_score(logits)
        return scores, self._errors(("inception_score",), again, (len(logits),))

    def _by_images(
        self, real: Tensor, fake: Tensor, metrics: set[str]
    ) -> Iterator[tuple[dict[str, object], dict[str, float]]]:
        """The scores that see every image of both sets, of which there are equally many."""
        if "kid" in metrics:
            value, error = kernel_distance(real, fake)
            yield {"kid": value, "kid_error": error, "compared": len(fake)}, {}
        names = [
            *(("precision", "recall") if "pr" in metrics else ()),
            *(("density", "coverage") if "dc" in metrics else ()),
        ]
        if not names:
            return
        device = next(iter(self.network.parameters()), real).device
        if has_float64(device):  # in which the distances are
            real, fake = real.to(device), fake.to(device)
        ks = (3, 5) if "dc" in metrics else (3, 3)

        def means(*rows: Tensor) -> Tensor:
            """The scores of all images, or of some of both sets."""
            a, b = (
                (x[part] for x, part in zip((real, fake), rows, strict=True))
                if rows
                else (real, fake)
            )
            found = neighbours(a, b, *ks)
            return torch.stack([getattr(found, name).cpu().double().mean() for name in names])

        scores = dict(zip(names, means().tolist(), strict=True))
        few = round(SHARE * len(fake)) < NEEDED["dc" if "dc" in metrics else "pr"]
        errors = {} if few else self._errors(names, means, (len(real), len(fake)), MOST)
        yield {**scores, "compared": len(fake)}, errors

    def _errors(
        self,
        names: Sequence[str],
        statistic: Callable[..., Tensor | float],
        sizes: Sequence[int],
        most: int | None = None,
    ) -> dict[str, float]:
        """Standard errors by name; none where they were not asked for or images are too few."""
        if not self.replicates or min(sizes) < 3:
            return {}
        found = subset_errors(statistic, sizes, self.replicates, most=most)
        return dict(zip(names, found.reshape(-1).tolist(), strict=True))

    def _accuracy(self, logits: Tensor | None, labels: Tensor | None) -> float | None:
        """None unless the network tells the classes of the reference, two at least, apart."""
        if labels is None or logits is None or self.labels is None:
            return None
        if logits.shape[1] < 2 or logits.shape[1] != int(self.labels.max()) + 1:
            return None
        shown, known = self._predicted(logits), labels >= 0
        if not known.any() or bool((shown < 0).all()):
            return None
        return float((shown == labels)[known].double().mean())

    def _predicted(self, logits: Tensor) -> Tensor:
        """Classes [N] by the reference's numbers, as those are called that the network knows."""
        names = self.network.classes
        if names is None or not self.reference.classes:
            return logits.argmax(1)
        return Agreement(names, self.reference.classes).translated(logits.argmax(1))


def _chosen(labels: Tensor | None, total: int, n: int) -> Tensor:
    """Which ``n`` of the images: a fixed random draw, with the class proportions of the whole."""
    if n == total:
        return torch.arange(total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    if labels is None:
        return order[:n].sort().values
    # Rank of each image within its class, as a fraction: the lowest n take every class alike.
    rank = torch.empty(total, dtype=torch.float64)
    for label in labels.unique():
        here = order[labels[order] == label]
        rank[here] = (torch.arange(len(here)).double() + 0.5) / len(here)
    return rank.argsort(stable=True)[:n].sort().values
