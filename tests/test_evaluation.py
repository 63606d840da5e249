"""The scores against closed forms and independent implementations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor, nn

from fewstep.data import Dataset, load
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation import (
    Evaluator,
    FeatureNetwork,
    Features,
    Moments,
    ResNet56,
    class_gaussian,
    extract,
    frechet_distance,
    inception_score,
    precision_recall,
    train_classifier,
)
from fewstep.evaluation.choice import feature_network
from fewstep.evaluation.features import Extracted, check_values
from fewstep.evaluation.frechet import (
    extrapolated_frechet_distance,
    frechet_distance_infinity,
)
from fewstep.evaluation.inception_score import resampled_inception_score
from fewstep.evaluation.kernel_distance import kernel_distance, squared_mmd
from fewstep.evaluation.manifold import neighbours
from fewstep.evaluation.reference import Reference
from fewstep.evaluation.resampling import Z95, subset_errors
from fewstep.precision import has_float64


class Flat(FeatureNetwork):
    """Pixels as features, and their first ten as class scores."""

    name, shape, num_features, num_classes = "flat", (1, 4, 4), 16, 10

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Features:
        x = self.scale * images.float().flatten(1) / 255
        return Features(x, 10 * x[:, :10])


def pictures(n: int, seed: int = 0, low: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=generator)


# Fréchet distance


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_streamed_moments_are_the_moments(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x = 1e3 + torch.randn(50, 5, generator=g, dtype=torch.float64)
    cut = int(torch.randint(1, 49, (1,), generator=g))
    moments = Moments(5).update(x[:cut]).update(x[cut:])
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.covariance, x.T.cov())


def gaussian(mean: Tensor, covariance: Tensor) -> Moments:
    """Moments that are given exactly: through points whose moments they are."""
    d = len(mean)
    root = torch.linalg.cholesky(covariance)
    corners = torch.cat([torch.eye(d), -torch.eye(d)]).double() * (d - 0.5) ** 0.5
    return Moments.of(mean + corners @ root.T)


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    """Commuting covariances: |m|^2 + sum (sqrt a - sqrt b)^2 over shared eigenvectors."""
    Q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    a, b = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([4.0, 1, 0.5, 9]).double()
    m = torch.tensor([1.0, 0, -2, 0.5]).double()
    left = gaussian(torch.zeros(4).double(), Q @ a.diag() @ Q.T)
    right = gaussian(m, Q @ b.diag() @ Q.T)
    truth = float(m.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(left, right) == pytest.approx(truth)
    assert frechet_distance(left, left) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_the_textbook_formula() -> None:
    x, y = torch.randn(300, 8).double(), torch.randn(200, 8).double() @ torch.randn(8, 8).double()
    a, b = x.T.cov().numpy(), y.T.cov().numpy()
    root = np.real(sqrtm(a @ b))
    difference = (x.mean(0) - y.mean(0)).numpy()
    truth = difference @ difference + np.trace(a + b - 2 * root)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(truth, rel=1e-8)


def test_frechet_distance_of_singular_covariances_is_real_and_symmetric() -> None:
    x, y = torch.randn(5, 20), torch.randn(6, 20)
    there = frechet_distance(Moments.of(x), Moments.of(y))
    assert there == pytest.approx(frechet_distance(Moments.of(y), Moments.of(x)))
    assert there > 0


def test_frechet_distance_does_not_see_a_rotation() -> None:
    x, y = torch.randn(100, 6).double(), torch.randn(90, 6).double() + 1
    Q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    plain = frechet_distance(Moments.of(x), Moments.of(y))
    assert frechet_distance(Moments.of(x @ Q), Moments.of(y @ Q)) == pytest.approx(plain)


class OnApple(Tensor):
    """A tensor of an Apple GPU, which has no float64, as far as scores see it."""

    def double(self) -> Tensor:  # type: ignore[override]
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)


def test_features_of_an_apple_gpu_come_to_the_cpu_before_they_are_widened() -> None:
    x = torch.randn(40, 3)
    on_apple = Moments(3).update(x.as_subclass(OnApple))
    torch.testing.assert_close(on_apple.covariance, Moments.of(x).covariance)
    value = frechet_distance_infinity(x.as_subclass(OnApple), on_apple)
    assert value == frechet_distance_infinity(x, on_apple)
    assert not has_float64(torch.device("mps"))
    assert has_float64(torch.device("cuda"))


def test_bad_features_are_refused() -> None:
    with pytest.raises(FewstepError, match="NaN"):
        Moments.of(torch.full((3, 2), float("nan")))
    with pytest.raises(FewstepError, match="at least 2"):
        _ = Moments.of(torch.zeros(1, 2)).covariance


# Against torchmetrics, on the same features


def test_frechet_distance_and_inception_score_agree_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    class AsModule(nn.Module):
        num_features = 16

        def __init__(self, which: int) -> None:
            super().__init__()
            self.net, self.which = Flat(), which

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[self.which].detach()

    real, fake = pictures(400), pictures(300, 1, low=60)
    fid = FrechetInceptionDistance(feature=AsModule(0), normalize=False)
    fid.update(real, real=True)
    fid.update(fake, real=False)
    evaluator = Evaluator.of(Flat(), real)
    scores = evaluator.score(fake)
    assert scores.fd == pytest.approx(float(fid.compute()), rel=1e-4)

    score = InceptionScore(feature=AsModule(1), splits=1)
    score.update(fake)
    assert scores.inception_score == pytest.approx(float(score.compute()[0]), rel=1e-4)


def test_inception_score_bounds() -> None:
    """Certain and evenly spread over K classes: K. All the same: 1."""
    assert inception_score(1000 * torch.eye(10).repeat(5, 1), 1)[0] == pytest.approx(10)
    assert inception_score(torch.randn(1, 10).expand(50, 10), 5) == pytest.approx((1, 0))
    with pytest.raises(FewstepError, match="split"):
        inception_score(torch.zeros(3, 10), 4)


# Precision and recall


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_against_brute_force(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each score by its definition, point by point; tiles that do not divide the sets."""
    monkeypatch.setattr("fewstep.evaluation.manifold.TILE", 7)
    real, fake = torch.randn(60, 4) + 50, 0.7 * torch.randn(50, 4) + 50.4
    r, f = real.double().numpy(), fake.double().numpy()

    def radius(points: np.ndarray, i: int, k: int) -> float:
        return np.sort(np.linalg.norm(np.delete(points, i, 0) - points[i], axis=1))[k - 1]

    def inside(point: np.ndarray, centres: np.ndarray, k: int) -> list[bool]:
        return [
            bool(np.linalg.norm(point - c) <= radius(centres, i, k)) for i, c in enumerate(centres)
        ]

    found = neighbours(real, fake, k, k_density=5)
    assert found.precision.tolist() == [any(inside(x, r, k)) for x in f]
    assert found.recall.tolist() == [any(inside(x, f, k)) for x in r]
    by_fake = np.array([inside(x, r, 5) for x in f])  # [M, N]
    np.testing.assert_allclose(found.density.numpy(), by_fake.sum(1) / 5)
    assert found.coverage.tolist() == by_fake.any(0).tolist()
    precision, recall = precision_recall(real, fake, k)
    assert precision == pytest.approx(found.precision.double().mean().item())
    assert recall == pytest.approx(found.recall.double().mean().item())


def test_density_and_coverage_of_equal_distributions() -> None:
    """Naeem et al. 2020: in expectation density is 1 and coverage, of many images, 1 - 2^-5."""
    found = neighbours(torch.randn(4000, 8), torch.randn(4000, 8))
    assert found.density.mean().item() == pytest.approx(1, abs=0.06)
    assert found.coverage.double().mean().item() == pytest.approx(1 - 2**-5, abs=0.012)


def test_distance_of_infinitely_many_images() -> None:
    """Two Gaussians at a known distance: few images overrate it, the line's end does not."""
    D = 24
    reference = Moments.from_statistics(torch.zeros(D), torch.eye(D), 10**6)
    truth = D * 0.1**2
    sets = torch.randn(6, 500, D) + 0.1
    plain = sum(frechet_distance(Moments.of(x), reference) for x in sets) / 6
    found = [extrapolated_frechet_distance(x, reference) for x in sets]
    assert plain - truth > 0.2
    assert abs(sum(x.value for x in found) / 6 - truth) < 0.25 * (plain - truth)
    features, (infinite, error) = sets[0], found[0]
    assert 0 < error < 0.1 * plain
    for seed in range(3):
        order = torch.randperm(500, generator=torch.Generator().manual_seed(seed))
        again = frechet_distance_infinity(features[order], reference)
        assert again == pytest.approx(infinite, abs=1e-6)
    assert plain - truth > 0.04
    assert abs(infinite - truth) < 0.35 * (plain - truth)
    with pytest.raises(FewstepError, match="at least 20"):
        frechet_distance_infinity(features[:10], reference)


def test_statistics_of_somebody_else() -> None:
    x = torch.randn(100, 5).double()
    mine = Moments.of(x)
    theirs = Moments.from_statistics(x.mean(0), x.T.cov(), 100)
    assert frechet_distance(mine, theirs) == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(theirs.covariance, mine.covariance)
    joined = theirs.update(x)
    torch.testing.assert_close(joined.covariance, torch.cat([x, x]).T.cov())
    with pytest.raises(FewstepError, match="another feature network"):
        frechet_distance(mine, Moments.of(torch.randn(9, 4)))
    for mean, cov, hint in [
        (torch.zeros(3), torch.eye(4), "belong together"),
        (torch.zeros(3), torch.full((3, 3), torch.nan), "NaN"),
        (torch.zeros(3), torch.eye(3) + torch.ones(3, 3).triu(1), "not symmetric"),
        (torch.zeros(3), -torch.eye(3), "diagonal"),
    ]:
        with pytest.raises(FewstepError, match=hint):
            Moments.from_statistics(mean, cov, 10)


def test_kernel_distance_in_closed_form() -> None:
    """Two sets by the double sums of the definition, and its mean over Gaussians."""
    x, y = torch.randn(6, 3), torch.randn(6, 3) + 1

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a.double() @ b.double()) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = sum(k(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / 30
    across = 2 * sum(k(x[i], y[j]) for i, j in pairs) / 36
    assert float(squared_mmd(x.double(), y.double())) == pytest.approx(within - across)
    value, error = kernel_distance(x, y, subsets=3, size=6)  # all of the images, thrice
    assert value == pytest.approx(within - across)
    assert np.isnan(error)
    with pytest.raises(FewstepError, match="at least 4"):
        kernel_distance(x[:3], y)
    with pytest.raises(FewstepError, match="subsets of 7"):
        kernel_distance(x, y, size=7)

    # One dimension, N(0, 1) against N(m, 1): E (1 + xy)^3 = 1 + 3 E xy + 3 E x^2 E y^2 + ...
    m = 0.5
    moment = {0: (0.0, 1.0, 0.0), 1: (m, 1 + m**2, m**3 + 3 * m)}

    def mean_kernel(a: int, b: int) -> float:
        return 1 + sum(c * p * q for c, p, q in zip((3, 3, 1), moment[a], moment[b], strict=True))

    truth = mean_kernel(0, 0) + mean_kernel(1, 1) - 2 * mean_kernel(0, 1)
    value, error = kernel_distance(torch.randn(20_000, 1), torch.randn(20_000, 1) + m)
    assert error < 0.1 * truth
    assert value == pytest.approx(truth, abs=4 * error)
    same, error = kernel_distance(torch.randn(20_000, 1), torch.randn(20_000, 1))
    assert same == pytest.approx(0, abs=4 * error)


def test_kernel_distance_knows_its_error() -> None:
    """The deviation over independent sets is what the error estimates."""
    found = [kernel_distance(torch.randn(600, 3), torch.randn(600, 3) + 0.3) for _ in range(60)]
    values, errors = (torch.tensor(x) for x in zip(*found, strict=True))
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.3)


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.image.kid")
    real, fake = torch.randn(300, 16), 1.2 * torch.randn(300, 16) + 0.1
    metric = torchmetrics.KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=2, subset_size=300
    )
    metric.real_features, metric.fake_features = [real.double()], [fake.double()]
    assert kernel_distance(real, fake, subsets=1, size=300)[0] == pytest.approx(
        float(metric.compute()[0]), rel=1e-4
    )


def test_resampled_inception_score_is_the_score_of_the_resampled() -> None:
    logits = 3 * torch.randn(300, 10)
    again = resampled_inception_score(logits)
    for some in (torch.arange(300), torch.randint(300, (300,)), torch.zeros(300).long()):
        assert again(some) == pytest.approx(inception_score(logits[some], 1)[0], rel=1e-4)


@pytest.mark.parametrize("most", [None, 500])
def test_error_of_a_mean(most: int | None) -> None:
    """The deviation of a mean over n draws is the data's deviation over sqrt(n)."""
    values = torch.randn(2000).double()
    error = subset_errors(lambda some: values[some].mean(), (2000,), 400, most=most)
    assert float(error) == pytest.approx(float(values.std()) / 2000**0.5, rel=0.12)


def test_intervals_cover_what_they_say() -> None:
    """Of 40 pairs of sets at least 85 % of the intervals hold the mean; 95 % is meant.

    `docs/scores.md` has the shares over more pairs.
    """
    names = ("fd", "precision", "recall", "density", "coverage")
    values, errors = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        real, fake = (torch.randn(90, 4, generator=generator) for _ in range(2))
        evaluator = Evaluator(
            Flat(),
            Reference("x", 90, Moments.of(real), "", features=real),
            metrics=("fd", "pr", "dc"),
            replicates=20,
        )
        scores = evaluator._scored(Extracted(fake, None, None), None, [])
        values.append([getattr(scores, name) for name in names])
        errors.append([scores.errors[name] for name in names])
    value, error = (torch.tensor(x, dtype=torch.float64) for x in (values, errors))
    held = ((value - value.mean(0)).abs() <= Z95 * error).double().mean(0)
    assert (held >= 0.85).all(), dict(zip(names, held.tolist(), strict=True))


def test_a_set_has_no_distance_to_itself() -> None:
    """Also where covariances are singular, or features differ in scale by many orders."""
    for x in (torch.randn(50, 200), torch.randn(300, 8).double() * 10.0 ** torch.arange(8)):
        moments, other = Moments.of(x), Moments.of(x.flip(0))
        for a, b in ((moments, moments), (moments, other)):
            scale = float(moments.covariance.trace())
            assert 0 <= frechet_distance(a, b) <= 1e-12 * scale
    a, b = torch.tensor([1e-4, 1.0, 1e8]), torch.tensor([4e-4, 1.0, 1e8])
    zero = torch.zeros(3)
    given = (Moments.from_statistics(zero, torch.diag(x), 10) for x in (a, b))
    assert frechet_distance(*given) == pytest.approx(1e-4, rel=1e-2, abs=1e-7)


def test_copies_of_the_reference_are_in_every_ball_that_they_touch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image is in its own ball and in those of which it is the k-th neighbour: (k + 1) / k."""
    real = torch.randn(300, 16) * 3 + 40
    for tile in (4096, 128, 37):
        monkeypatch.setattr("fewstep.evaluation.manifold.TILE", tile)
        found = neighbours(real, real * (1 + 1e-7 * torch.randn(300, 1)))
        assert float(found.density.mean()) == pytest.approx(1.2, abs=1e-12)
        assert all(bool(x.all()) for x in (found.precision, found.recall, found.coverage))


def test_a_class_may_be_impossible() -> None:
    certain = torch.where(torch.eye(4).bool(), 0.0, -torch.inf).repeat(5, 1)
    assert inception_score(certain, 1)[0] == pytest.approx(4)
    assert resampled_inception_score(certain)(torch.arange(20)) == pytest.approx(4)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(FewstepError, match="class scores of x"):
            check_values(Features(torch.zeros(2, 3), torch.full((2, 4), bad)), "x")
    with pytest.raises(FewstepError, match="class scores of x"):
        check_values(Features(torch.zeros(2, 3), torch.full((2, 4), -torch.inf)), "x")


def test_precision_and_recall_tell_quality_from_variety() -> None:
    real = torch.randn(500, 2)
    assert precision_recall(real, 0.05 * torch.randn(500, 2))[0] > 0.95
    assert precision_recall(real, 0.05 * torch.randn(500, 2))[1] < 0.1
    assert precision_recall(real, 8 * torch.randn(500, 2))[0] < 0.3
    with pytest.raises(FewstepError, match="k=3"):
        precision_recall(real, real[:3])


# Baselines


def test_class_gaussian_has_the_moments_of_each_class() -> None:
    labels = torch.arange(4000) % 2
    images = (128 + 20 * torch.randn(4000, 1, 2, 2) + 30 * labels[:, None, None, None]).byte()
    draws = class_gaussian(images, labels, labels)
    for label in (0, 1):
        x, y = (z[labels == label].flatten(1).float() for z in (images, draws))
        torch.testing.assert_close(y.mean(0), x.mean(0), atol=2.5, rtol=0)
        torch.testing.assert_close(y.T.cov(), x.T.cov(), atol=45.0, rtol=0.12)
    assert torch.equal(draws, class_gaussian(images, labels, labels))
    assert not torch.equal(draws, class_gaussian(images, labels, labels, seed=1))


def test_class_gaussian_stays_in_the_span_of_few_images() -> None:
    """Three images span a plane around their mean: a fourth direction has no variance."""
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    images[0, 0, 0, 0], images[1, 0, 0, 1] = 200, 200
    draws = class_gaussian(images, None, torch.zeros(500).long())
    assert (draws[:, 0, 1] == 0).all()
    assert float(draws[:, 0, 0].float().std()) > 20


def test_class_gaussian_draws_in_blocks_what_it_draws_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = pictures(12), pictures(50) // 4 + 96  # of 16 pixels; none is clipped
    wanted = torch.zeros(90).long()
    whole = class_gaussian(few, None, wanted)
    monkeypatch.setattr("fewstep.evaluation.baselines.HELD", 160)
    assert int((class_gaussian(few, None, wanted).int() - whole.int()).abs().max()) <= 1
    draws = class_gaussian(many, None, torch.zeros(20_000).long())
    x, y = (z.flatten(1).float() for z in (many, draws))
    torch.testing.assert_close(y.mean(0), x.mean(0), atol=1.0, rtol=0)
    torch.testing.assert_close(y.T.cov(), x.T.cov(), atol=16.0, rtol=0.05)
    large = torch.zeros(1, 3, 256, 256, dtype=torch.uint8).expand(30_000, -1, -1, -1)
    with pytest.raises(FewstepError, match="30,000 images of 196,608 values would take hours"):
        class_gaussian(large, None, torch.zeros(30_000).long())


# The evaluator


def test_the_reference_scores_perfectly_against_itself() -> None:
    images, labels = pictures(60), torch.arange(60) % 3
    scores = Evaluator.of(Flat(), images, labels).score(images, labels)
    assert scores.fd == pytest.approx(0, abs=1e-9)
    assert (scores.precision, scores.recall, scores.n, scores.compared) == (1, 1, 60, 60)


def test_sets_of_other_sizes_are_compared_at_equal_counts() -> None:
    labels = torch.arange(90) % 3
    evaluator = Evaluator.of(Flat(), pictures(90), labels)
    assert evaluator.score(pictures(40, 1), torch.arange(40) % 3).compared == 40
    assert evaluator.score(pictures(200, 1)).compared == 90


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_labels_keep_the_proportions(counts: list[int], n: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    nothing = Moments(1)
    reference = Reference("x", len(labels), nothing, "", labels=labels)
    got = Evaluator(Flat(), reference).labels_for(n).bincount(minlength=len(counts)).double()
    assert got.sum() == n
    assert ((got - torch.tensor(counts).double() * n / len(labels)).abs() < 1).all()


def test_extracting_does_not_depend_on_the_batch() -> None:
    images = pictures(33)
    whole, parts = extract(Flat(), images), extract(Flat(), images, batch=8)
    assert torch.equal(whole.features, parts.features)
    assert whole.logits is not None
    assert torch.equal(whole.logits, parts.logits)


@pytest.mark.parametrize(
    ("images", "hint"),
    [
        (torch.zeros(4, 1, 4, 4), "uint8"),
        (torch.zeros(4, 3, 4, 4, dtype=torch.uint8), "shape"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), "shape"),
    ],
)
def test_wrong_images_are_refused(images: Tensor, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        Evaluator.of(Flat(), pictures(10)).score(images)


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(FewstepError, match="labels"):
        Evaluator.of(Flat(), pictures(10)).score(pictures(10), torch.zeros(9))
    with pytest.raises(FewstepError, match="no labels"):
        Evaluator.of(Flat(), pictures(10)).labels_for(5)


def test_one_class_cannot_be_told_from_another() -> None:
    one = Dataset.from_arrays(pictures(20), torch.zeros(20).long(), ["cat"])
    with pytest.raises(FewstepError, match="one class"):
        feature_network("classifier", data=one)
    with pytest.raises(FewstepError, match="Inception"):  # the default, whose weights are not there
        feature_network(data=one, weights="nowhere")
    assert one.labels is not None
    sees_one = Flat()
    sees_one.forward = lambda images: Features(images.flatten(1).float(), torch.zeros(20, 1))
    scores = Evaluator.of(sees_one, one.images, one.labels).score(one.images, one.labels)
    assert scores.class_accuracy is None


# Feature networks


def test_digits_classifier_and_what_its_distance_means(tmp_path: Path) -> None:
    """At least 98 % on the test split; real images are nearer than a Gaussian, than the means."""
    train, test = load("digits"), load("digits", split="test")
    state = torch.get_rng_state()
    network = train_classifier(train.images, train.labels, cache=tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    found = extract(network, test.images)
    assert float((found.logits.argmax(1) == test.labels).double().mean()) >= 0.98
    evaluator = Evaluator.of(network, train.images, train.labels)
    baselines = evaluator.baselines(test.images, test.labels)
    real, gauss = (baselines[name].fd for name in ("real test split", "class-wise pixel Gaussian"))
    means = torch.stack([train.images[train.labels == i].float().mean(0) for i in range(10)])
    mean_images = means.round().byte()[train.labels]
    noise = torch.randint(256, train.images.shape, dtype=torch.uint8)
    assert real < 0.5 * gauss
    assert gauss < evaluator.score(mean_images).fd < evaluator.score(noise).fd

    again = train_classifier(train.images, train.labels, cache=tmp_path)
    assert again.fingerprint == network.fingerprint


@pytest.mark.parametrize("threads", [1, 3])
def test_classifier_is_the_same_for_any_number_of_cores(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.evaluation.classifier.STEPS", 20)
    train, before = load("digits"), torch.get_num_threads()
    one = train_classifier(train.images, train.labels, cache=tmp_path / "a")
    torch.set_num_threads(threads)
    try:
        several = train_classifier(train.images, train.labels, cache=tmp_path / "b")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert several.fingerprint == one.fingerprint


def test_classifier_is_deterministic_and_its_cache_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.evaluation.classifier.STEPS", 3)
    images, labels = pictures(40), torch.arange(40) % 4
    first = train_classifier(images, labels, cache=tmp_path)
    (cached,) = (tmp_path / "classifiers").iterdir()
    whole = cached.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    for damaged in (b"damaged", whole[:900], flipped):
        cached.write_bytes(damaged)
        torch.rand(3)
        with pytest.warns(FewstepWarning, match="classifier is made anew"):
            again = train_classifier(images, labels, cache=tmp_path)
        assert again.fingerprint == first.fingerprint
        assert train_classifier(images, labels, cache=tmp_path).fingerprint == first.fingerprint
    other = train_classifier(images, labels, seed=1, cache=tmp_path)
    assert other.fingerprint != first.fingerprint
    assert len(list((tmp_path / "classifiers").iterdir())) == 2
    unwritable = tmp_path / "file"
    unwritable.write_text("")
    assert train_classifier(images, labels, cache=unwritable).fingerprint == first.fingerprint
    with pytest.raises(FewstepError, match="label"):
        train_classifier(images, labels[:3], cache=tmp_path)


def test_resnet56_has_the_published_size_and_names_wrong_weights(tmp_path: Path) -> None:
    assert sum(p.numel() for p in ResNet56().parameters()) == 853_018
    with pytest.raises(FewstepError, match="no file"):
        ResNet56.load(tmp_path / "nothing.safetensors")
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(FewstepError, match=r"bn1\.bias"):
        ResNet56.load(tmp_path / "w.safetensors")


@pytest.mark.slow
def test_resnet56_reproduces_the_table_of_its_data(cifar10: Path) -> None:
    """The README beside the weights: FD 0.027 and IS 8.78 for the test set, accuracy 83.20 %."""
    import pyarrow.parquet as pq
    from PIL import Image
    from safetensors.torch import load_file

    table = pq.read_table(cifar10 / "test.parquet")
    images = np.stack(
        [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["img"].to_pylist()]
    )
    labels = torch.tensor(table["label"].to_pylist())
    network = ResNet56.load(cifar10 / "resnet56.safetensors")
    found = extract(network, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert float((found.logits.argmax(1) == labels).double().mean()) == pytest.approx(0.8320)
    stats = load_file(cifar10 / "resnet56_stats.safetensors")
    mine = Moments.of(found.features)
    torch.testing.assert_close(mine.mean, stats["test.mean"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.covariance, stats["test.cov"], rtol=1e-3, atol=1e-5)
    train = Moments(112)
    train.n, train.mean, train._scatter = (
        50_000,
        stats["train.mean"],
        stats["train.cov"] * 49_999,
    )
    assert frechet_distance(mine, train) == pytest.approx(0.027, abs=0.0006)
    assert inception_score(found.logits, 1)[0] == pytest.approx(8.78, abs=0.02)
