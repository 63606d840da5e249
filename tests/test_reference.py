"""References: images, their cached features, and everybody's files of statistics."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation import Evaluator, FeatureNetwork, Features, Moments, Reference
from fewstep.evaluation.evaluator import GAUSSIAN
from fewstep.evaluation.reference import holds_statistics
from fewstep.evaluation.scores import METRICS


class Plain(FeatureNetwork):
    """The first 12 pixels as features, the others as spatial ones, three class scores."""

    name, shape, num_features, num_classes = "plain", (1, 4, 4), 12, 3
    calls = 0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images: Tensor) -> Features:
        type(self).calls += 1
        x = self.scale * images.flatten(1).float() / 255
        return Features(x[:, :12], 5 * x[:, :3], x[:, 8:])


def pictures(n: int, seed: int = 0, low: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=generator)


def dataset(n: int = 60) -> Dataset:
    return Dataset.from_arrays(pictures(n), torch.arange(n) % 3)


def same_scores(a: Reference, b: Reference) -> bool:
    fakes = pictures(50, 1, low=60)
    x, y = (Evaluator(Plain(), r, metrics=("fd", "sfd")).score(fakes) for r in (a, b))
    return x.fd == pytest.approx(y.fd) and x.sfd == pytest.approx(y.sfd, nan_ok=True)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saved_statistics_give_the_same_distances(tmp_path: Path, suffix: str) -> None:
    reference = Reference.of_data(Plain(), dataset(), cache=tmp_path / "cache")
    path = tmp_path / f"stats{suffix}"
    reference.save(path)
    assert holds_statistics(path)
    assert not list(tmp_path.glob("*.partial"))
    again = Reference.load(path, Plain())
    assert same_scores(reference, again)
    scores = Evaluator(Plain(), again, metrics=tuple(METRICS)).score(pictures(50))
    assert math.isnan(scores.precision)  # statistics know no single image
    assert math.isnan(scores.kid)


def test_features_are_cached_by_content_and_network(tmp_path: Path) -> None:
    first = Reference.of_data(Plain(), dataset(), cache=tmp_path)
    calls = Plain.calls
    again = Reference.of_data(Plain(), dataset(), cache=tmp_path)
    assert Plain.calls == calls
    assert torch.equal(first.features, again.features)
    assert torch.equal(again.labels, dataset().labels)
    Reference.of_data(Plain(2.0), dataset(), cache=tmp_path)
    Reference.of_data(Plain(), dataset(59), cache=tmp_path)
    files = list((tmp_path / "statistics").iterdir())
    assert len(files) == 3
    whole = {file: file.read_bytes() for file in files}
    flipped = {file: x[:-900] + bytes([x[-900] ^ 16]) + x[-899:] for file, x in whole.items()}
    for damaged in ({file: x[:100] for file, x in whole.items()}, flipped):
        for file, content in damaged.items():
            file.write_bytes(content)
        calls = Plain.calls
        with pytest.warns(FewstepWarning, match="statistics is made anew"):
            found = Reference.of_data(Plain(), dataset(), cache=tmp_path)
        assert same_scores(first, found)
        assert Plain.calls > calls
    (tmp_path / "no folder").write_text("")
    assert same_scores(first, Reference.of_data(Plain(), dataset(), cache=tmp_path / "no folder"))


def test_files_of_the_other_suites(tmp_path: Path) -> None:
    """pytorch-fid, clean-fid and EDM: mu, sigma. ADM: also mu_s, sigma_s and a batch of images."""
    images = pictures(60)
    x = images.flatten(1).double() / 255
    mu, sigma = x[:, :12].mean(0).numpy(), x[:, :12].T.cov().numpy()
    mu_s, sigma_s = x[:, 8:].mean(0).numpy(), x[:, 8:].T.cov().numpy()
    np.savez(tmp_path / "edm.npz", mu=mu, sigma=sigma)
    nhwc = images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "adm.npz", arr_0=nhwc, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    truth = Reference.of(Plain(), images)
    edm, adm = (Reference.load(tmp_path / f"{name}.npz", Plain()) for name in ("edm", "adm"))
    assert edm.spatial is None
    assert edm.n is None
    assert adm.n is None, "its statistics may be of more images than it has"
    for reference in (edm, adm):
        with pytest.raises(FewstepError, match=r"of how many images .* with -n"):
            _ = Evaluator(Plain(), reference).n
    assert set(Evaluator(Plain(), adm).baselines()) == {GAUSSIAN}
    assert same_scores(truth, adm)
    fakes = pictures(60, 1, low=60)
    everything = tuple(METRICS)
    a, b, c = (Evaluator(Plain(), r, metrics=everything).score(fakes) for r in (truth, adm, edm))
    assert (a.precision, a.recall, a.density) == (b.precision, b.recall, b.density)
    assert a.kid == b.kid
    one = Evaluator(Plain(), truth, metrics=("sfd",)).score(fakes[:1])
    assert math.isnan(one.sfd)
    assert any("too few for sfd (from 2)" in note for note in one.notes)
    assert a.fd == pytest.approx(c.fd)
    assert math.isnan(c.sfd)


def test_one_of_several_sets_in_a_file(tmp_path: Path) -> None:
    x = torch.randn(100, 12)
    path = tmp_path / "stats.safetensors"
    save_file(
        {"train.mean": x.mean(0), "train.cov": x.T.cov(), "test.mean": x[0], "test.cov": x.T.cov()},
        path,
    )
    found = Reference.load(f"{path}:train", Plain())
    torch.testing.assert_close(found.moments.mean, x.mean(0).double())
    assert holds_statistics(f"{path}:train")
    with pytest.raises(FewstepError, match=r"trian.*train"):
        Reference.load(f"{path}:trian", Plain())
    with pytest.raises(FewstepError, match=r"test.*train"):
        Reference.load(path, Plain())


def test_files_that_are_no_statistics_are_named(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match=r"no file .*nothing\.npz"):
        Reference.load(tmp_path / "nothing.npz", Plain())
    np.savez(tmp_path / "images.npz", arr_0=np.zeros((3, 4, 4, 1), np.uint8))
    assert not holds_statistics(tmp_path / "images.npz")
    with pytest.raises(FewstepError, match=r"images\.npz has no mu and no sigma"):
        Reference.load(tmp_path / "images.npz", Plain())
    np.savez(tmp_path / "whole.npz", mu=np.zeros(12), sigma=np.eye(12))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert not holds_statistics(tmp_path / "cut.npz")
    with pytest.raises(FewstepError, match=r"cannot read .*cut\.npz"):
        Reference.load(tmp_path / "cut.npz", Plain())
    wide = np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (10**9, 10**9)}
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        for name in ("mu.npy", "sigma.npy"):
            with archive.open(name, "w") as file:
                np.lib.format.write_array_header_1_0(file, wide)
    for name, arrays in {
        "text": {"mu": np.array(["a"]), "sigma": np.eye(12)},
        "point": {"mu": np.float64(1), "sigma": np.eye(12)},
        "flat": {"mu": np.zeros(12), "sigma": np.eye(12), "arr_0": np.zeros(3, np.uint8)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for name, expected in {
        "bomb": "takes 8,000,000,000,000,000,000 bytes",
        "text": "mu of .* not real numbers",
        "point": "do not belong together",
        "flat": "shape",
    }.items():
        with pytest.raises(FewstepError, match=expected) as error:
            Reference.load(tmp_path / f"{name}.npz", Plain())
        assert f"{name}.npz" in str(error.value)
    np.savez(tmp_path / "nan.npz", mu=np.full(12, np.nan), sigma=np.eye(12))
    with pytest.raises(FewstepError, match=r"nan\.npz: .*NaN"):
        Reference.load(tmp_path / "nan.npz", Plain())


def test_statistics_of_another_network_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "inception.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(FewstepError, match=r"2048 features, but plain has 12.*another"):
        Reference.load(tmp_path / "inception.npz", Plain())
    Reference.of(Plain(2.0), pictures(40)).save(tmp_path / "mine.safetensors")
    with pytest.raises(FewstepError, match="another feature network than plain"):
        Reference.load(tmp_path / "mine.safetensors", Plain())


def test_statistics_are_written_in_known_formats_only(tmp_path: Path) -> None:
    reference = Reference.of(Plain(), pictures(40))
    with pytest.raises(FewstepError, match=r"\.safetensors or \.npz, not stats\.pkl"):
        reference.save(tmp_path / "stats.pkl")
    (tmp_path / "file").touch()
    with pytest.raises(FewstepError, match="cannot write"):
        reference.save(tmp_path / "file" / "stats.npz")


def test_every_score_has_its_error() -> None:
    """More images have a smaller one: four times as many halve it."""
    reference = Reference.of(Plain(), pictures(400), torch.arange(400) % 3)
    evaluator = Evaluator(Plain(), reference, metrics=tuple(METRICS), replicates=60)
    few, many = (evaluator.score(pictures(n, 1, low=60)) for n in (400, 1600))
    names = {"fd", "inception_score", "precision", "recall", "density", "coverage"}
    names.add("fd_infinity")
    assert set(few.errors) == set(many.errors) == names
    assert all(error >= 0 for error in few.errors.values())
    assert few.errors["fd"] / many.errors["fd"] == pytest.approx(2, rel=0.5)
    assert few.kid_error > 0
    # The deviation over independent sets is what the error estimates.
    spread = torch.tensor([evaluator_fd(evaluator, seed) for seed in range(2, 42)]).std()
    assert few.errors["fd"] == pytest.approx(float(spread), rel=0.4)


def evaluator_fd(evaluator: Evaluator, seed: int) -> float:
    plain = Evaluator(evaluator.network, evaluator.reference, metrics=("fd",))
    return plain.score(pictures(400, seed, low=60)).fd


def test_what_makes_scores_incomparable_is_noted() -> None:
    labels = torch.arange(300) % 3
    evaluator = Evaluator.of(Plain(), pictures(300), labels)
    assert evaluator.score(pictures(300, 1), labels).notes == ()
    (singular, fewer) = evaluator.score(pictures(12, 1)).notes
    assert "12 images for 12 features" in singular
    assert "too high" in singular
    assert "12 images against 300" in fewer
    (uneven,) = evaluator.score(pictures(300, 1), torch.zeros(300).long()).notes
    assert "67 % of the images" in uneven
    infinite = Evaluator.of(Plain(), pictures(300), metrics=("fd_infinity",))
    assert any("fd_infinity is too low" in note for note in infinite.score(pictures(40)).notes)
    assert not any("fd_infinity is too" in note for note in infinite.score(pictures(300)).notes)
    small = Evaluator.of(Plain(), pictures(9))
    assert any("9 reference images for 12" in note for note in small.score(pictures(300)).notes)


def test_unknown_metrics_are_named() -> None:
    with pytest.raises(FewstepError, match=r"fdd.*fd"):
        Evaluator(Plain(), Reference("x", 3, Moments(12), ""), metrics=("fdd",))
