"""Autoencoders, and models that live in their latent spaces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.cli import run
from fewstep.condition import Condition
from fewstep.data import Dataset, load
from fewstep.editing import Inpaint, decode, denoise, edit, encode, latents
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.likelihood import Likelihood
from fewstep.networks import MLP, Autoencoder, ConvAutoencoder, MLPAutoencoder
from fewstep.networks.autoencoder import draw, kl_to_standard_normal
from fewstep.objectives import VariationalAutoencoder
from fewstep.parameterization import EDM
from fewstep.recipes import RECIPES
from fewstep.runs.dry_run import dry_run
from fewstep.runs.execute import train
from fewstep.runs.opening import open_model
from fewstep.runs.pairs import Wish, make_pairs
from fewstep.runs.run import Run
from fewstep.sampling import Multistep, NoiseStreams, sample, sample_batches, sampler_for
from fewstep.serving.engine import Generation
from fewstep.serving.shelf import Shelf
from oracles import Exact, Gaussian

P = EDM(T=20.0, sigma_data=1.0)
SHORT = {"steps": 6, "samples": 4, "sample_every": 6, "checkpoint_every": 3, "batch": 16}


class Linear(Autoencoder):
    """``mu(x) = W^-1 x`` of 2 numbers, and ``g(z) = W z + b``: what is known in closed form."""

    W = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    b = torch.tensor([0.3, -0.2])

    def __init__(self, shape: tuple[int, ...] = (2,), num_classes: int = 0) -> None:
        encoder, decoder = nn.Linear(2, 4), nn.Linear(2, 2)
        super().__init__(shape, (2,), encoder, decoder, num_classes)
        with torch.no_grad():
            decoder.weight.copy_(self.W)
            decoder.bias.copy_(self.b)
            encoder.weight.zero_()[:2] = torch.linalg.inv(self.W)
            encoder.bias.zero_()[:2] = -torch.linalg.inv(self.W) @ self.b
            encoder.bias[2:] = -30.0


def points(n: int = 4000) -> Dataset:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    x = (z * torch.tensor([0.5, 3.0]) + torch.tensor([1.0, -2.0])) @ Linear.W.T + Linear.b
    return Dataset.from_arrays(x, points=True)


# The autoencoder


def test_divergence_is_the_expected_log_ratio() -> None:
    """KL(q || p) = E_q[ln q(z) - ln p(z)], by a million draws and in one dimension by hand."""
    mu, log_var = torch.tensor([[0.7, -1.2]]), torch.tensor([[-0.5, 0.8]])
    z = draw(mu.expand(400_000, 2), log_var.expand(400_000, 2)).double()
    q = torch.distributions.Normal(mu.double(), (0.5 * log_var).exp().double())
    p = torch.distributions.Normal(0.0, 1.0)
    expected = (q.log_prob(z) - p.log_prob(z)).sum(1).mean()
    torch.testing.assert_close(
        kl_to_standard_normal(mu, log_var)[0].double(), expected, rtol=0.01, atol=0
    )
    assert kl_to_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3)) == 0


def test_objective_is_the_error_and_the_weighted_divergence() -> None:
    f = AutoencoderModel(Linear())
    x = torch.randn(16, 2)
    with torch.no_grad():
        mu, log_var = f.F.encode(x)
        assert torch.all(log_var == -20)  # its lower bound: no noise to speak of
        expected = 0.3 / 2 * kl_to_standard_normal(mu, log_var)
        found = VariationalAutoencoder(f, K=1, beta=0.3)(x, 0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_training_reconstructs() -> None:
    """Points on a plane in 6 dimensions pass through 2 numbers; through 1 they cannot."""
    torch.manual_seed(0)
    x = torch.randn(512, 2) @ torch.randn(2, 6) / 2
    errors = {}
    for n in (1, 2):
        f = AutoencoderModel(MLPAutoencoder((6,), latents=n, width=32, blocks=1))
        objective = VariationalAutoencoder(f, K=300, beta=1e-4)
        optimizer = torch.optim.Adam(f.parameters(), 3e-3)
        for k in range(300):
            optimizer.zero_grad()
            objective(x, k).mean().backward()
            optimizer.step()
        with torch.no_grad():
            errors[n] = float((f.F(x, torch.zeros(512)) - x).square().mean() / x.var())
    assert errors[2] < 0.02
    assert errors[1] > 5 * errors[2]


def test_convolutional_latents_are_smaller_maps() -> None:
    network = ConvAutoencoder((3, 16, 24), latents=4, channels=8, multipliers=(1, 2, 2))
    x = torch.randn(2, 3, 16, 24)
    mu, log_var = network.encode(x)
    assert mu.shape == log_var.shape == (2, *network.latent_shape) == (2, 4, 4, 6)
    assert network.decode(mu).shape == x.shape
    assert network(x, torch.zeros(2)).shape == x.shape


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: MLPAutoencoder((4,), latents=5), "no more than"),
        (lambda: MLPAutoencoder((4,), latents=0), ">= 1"),
        (lambda: MLPAutoencoder((4,), latents=2, num_classes=3), "--no-labels"),
        (lambda: ConvAutoencoder((3, 10, 10), channels=8), "halved 2 times"),
        (lambda: ConvAutoencoder((3, 8, 8), channels=6), "multiple of 4"),
        (lambda: VariationalAutoencoder(FlowMap(MLP((2,)), P), 1), "autoencoder network"),
        (lambda: VariationalAutoencoder(AutoencoderModel(Linear()), 1, beta=-1.0), "beta"),
        (lambda: FlowMap(MLP((3,)), P, latents=Latents(Linear())), "latents have"),
    ],
)
def test_settings_that_cannot_work(build: object, names: str) -> None:
    with pytest.raises(FewstepError, match=names):
        build()  # type: ignore[operator]


# The latent space


def test_latents_are_standardised_and_decode_to_what_was_encoded() -> None:
    data = points()
    space = Latents.of(Linear(), data)
    torch.testing.assert_close(space.m, torch.tensor([1.0, -2.0]), rtol=0.05, atol=0)
    torch.testing.assert_close(space.s, torch.tensor([0.5, 3.0]), rtol=0.05, atol=0)
    encoded = space.encoded(data)
    z = encoded.batch(torch.arange(len(data)))[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2), rtol=1e-4, atol=0)
    torch.testing.assert_close(space.decode(z), data.images, rtol=1e-4, atol=1e-4)
    with pytest.raises(FewstepError, match=r"\[3\].*\[2\]"):
        space.encoded(Dataset.from_arrays(torch.zeros(4, 3), points=True))


def test_samples_of_a_latent_model_have_the_moments_of_the_data() -> None:
    """Standardised latents that are normal, sampled by the exact denoiser, are the data again."""
    data = points()
    space = Latents.of(Linear(), data)
    f = Exact(Gaussian(P, m=0.0, v=1.0), "diffusion", dim=2).float()
    f.latents = space
    x = torch.cat(list(sample_batches(f, range(4000), sampler_for(f))))
    assert x.shape == (4000, 2)
    spread = data.images.std(0)
    torch.testing.assert_close(x.mean(0) / spread, data.images.mean(0) / spread, rtol=0, atol=0.06)
    torch.testing.assert_close(x.T.cov(), data.images.T.cov(), rtol=0.08, atol=0.08)
    assert f.shape == f.image_shape == (2,)


def digits_model(kind: str = "diffusion") -> FlowMap:
    torch.manual_seed(3)
    space = Latents.of(MLPAutoencoder((1, 8, 8), latents=4, width=16, blocks=1), load("digits"))
    F = MLP((4,), num_classes=10, width=16, blocks=1)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    return FlowMap(F, P, info={"kind": kind}, latents=space)


@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
def test_a_file_holds_the_decoder_and_samples_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    f = digits_model(kind)
    f.save(tmp_path / "m.safetensors")
    g = FlowMap.load(tmp_path / "m.safetensors")
    assert (g.shape, g.image_shape) == ((4,), (1, 8, 8))
    x = sample(f, 5)
    assert x.shape == (5, 1, 8, 8)
    assert torch.equal(x, sample(g, 5))
    assert g.latents is not None
    assert f.latents is not None
    assert g.latents.fingerprint == f.latents.fingerprint
    copy = g.frozen_copy()
    assert copy.latents is g.latents
    assert copy.F is not g.F


def test_every_step_is_decoded() -> None:
    f = digits_model("consistency")
    noise = NoiseStreams(0, range(3), f.shape)
    steps = list(Multistep((1.0,)).steps(f, noise, Condition(torch.zeros(3, dtype=torch.int64))))
    assert [tuple(x.shape) for x in steps] == [(3, 1, 8, 8)] * 2


def test_a_latent_model_without_its_decoder_is_one_clear_error(tmp_path: Path) -> None:
    path, bare = tmp_path / "m.safetensors", tmp_path / "bare.safetensors"
    digits_model().save(path)
    with safe_open(str(path), "pt") as file:
        kept = {k: file.get_tensor(k) for k in file.keys() if not k.startswith("latents.")}  # noqa: SIM118
        save_file(kept, bare, metadata=file.metadata())
    with pytest.raises(FewstepError, match=r"bare\.safetensors.*without the autoencoder"):
        FlowMap.load(bare)


def test_what_needs_pixels_is_refused() -> None:
    f, g, x = digits_model(), digits_model("consistency"), torch.zeros(2, 1, 8, 8)
    for call in (
        lambda: edit(g, x, Inpaint(torch.ones(8, 8, dtype=torch.bool)), labels=1),
        lambda: denoise(g, x, 0.5, labels=1),
        lambda: encode(f, x, labels=1),
    ):
        with pytest.raises(FewstepError, match="works on pixels"):
            call()
    with pytest.raises(FewstepError, match="pixels"):
        Likelihood().log_density(f, torch.zeros(2, 4), NoiseStreams(0, range(2), (4,)))
    with pytest.raises(FewstepError, match="pairs are of images"):
        make_pairs(f, Path("nowhere"), Wish(n=2))
    with pytest.raises(FewstepError, match="clip is for pixels"):
        sampler_for(f, clip=True)


def test_interpolation_decodes() -> None:
    f = digits_model("consistency")
    assert decode(f, latents(f, [0, 1]), labels=2).shape == (2, 1, 8, 8)


# Runs


def autoencoder_run(**settings: object) -> Run:
    return RECIPES["digits/autoencoder"]().override(
        {**SHORT, "network.width": 16, "network.blocks": 1, **settings}
    )


def lsgm_run(autoencoder: Path, **settings: object) -> Run:
    return RECIPES["digits/lsgm"]().override(
        {
            **SHORT,
            "network.width": 16,
            "network.blocks": 1,
            "autoencoder": str(autoencoder),
            **settings,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder, a model of its latents, and a consistency model of those."""
    home = tmp_path_factory.mktemp("latent")
    train(autoencoder_run(), home / "ae", quiet=True)
    train(lsgm_run(home / "ae"), home / "lsgm", quiet=True)
    cd = RECIPES["digits/cd"]().override(
        {
            **SHORT,
            "network.width": 16,
            "network.blocks": 1,
            "teacher": str(home / "lsgm"),
            "p.sigma_data": 1.0,
        }
    )
    train(cd, home / "cd", quiet=True)
    return home


def test_a_model_of_latents_and_its_distillation_sample_images(trained: Path) -> None:
    for name in ("lsgm", "cd"):
        f = open_model(trained / name)
        assert (f.shape, f.image_shape, f.num_classes) == ((16,), (1, 8, 8), 10)
        assert sample(f, 3).shape == (3, 1, 8, 8)
        assert list((trained / name / "samples").glob("*.png"))
    spaces = [open_model(trained / name).latents for name in ("lsgm", "cd")]
    assert spaces[0].fingerprint == spaces[1].fingerprint  # type: ignore[union-attr]


def test_an_autoencoder_samples_its_prior(trained: Path) -> None:
    f = open_model(trained / "ae")
    assert sampler_for(f).nfe == 1
    x = sample(f, 4, seed=1)
    assert x.shape == (4, 1, 8, 8)
    assert not torch.equal(x, sample(f, 4, seed=2))
    with pytest.raises(FewstepError, match="1 step"):
        sampler_for(f, 2)
    with pytest.raises(FewstepError, match="this is an autoencoder"):
        edit(f, x, Inpaint(torch.ones(8, 8, dtype=torch.bool)))


def test_a_latent_training_resumes_to_the_same_bits(trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "lsgm"
    train(lsgm_run(trained / "ae"), again, quiet=True)
    (again / "model.safetensors").unlink()
    last = max((again / "checkpoints").glob("step-*"))
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    f = train(lsgm_run(trained / "ae"), again, quiet=True)
    expected = open_model(trained / "lsgm").state_dict()
    for name, value in f.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_model_of_latents_tuned_without_a_teacher_goes_on_to_the_same_bits(
    trained: Path, tmp_path: Path
) -> None:
    """The model that it began with is gone by then: its space and its licence stay."""
    f = open_model(trained / "lsgm")
    f.info["origin"] = {"file": "theirs.pkl", "licence": "CC-BY-NC-4.0"}
    f.save(theirs := tmp_path / "theirs.safetensors")
    for name, own in (("none", None), ("ae", str(trained / "ae"))):
        run = lsgm_run(trained / "ae", init=str(theirs), seed=3).override({"autoencoder": own})
        train(run, home := tmp_path / name, quiet=True)
        assert open_model(home).info["lineage"] == [f.info["origin"]]
        whole = (home / "model.safetensors").read_bytes()
        (home / "model.safetensors").unlink()
        shutil.rmtree(max((home / "checkpoints").glob("step-*")))
        hidden = theirs.rename(tmp_path / "hidden")
        train(run, home, quiet=True)
        assert (home / "model.safetensors").read_bytes() == whole
        hidden.rename(theirs)


def test_mistakes_in_a_latent_run_are_named(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    with pytest.raises(FewstepError, match="not an autoencoder"):
        train(lsgm_run(trained / "lsgm"), out, quiet=True)
    with pytest.raises(FewstepError, match="--flip"):
        train(lsgm_run(trained / "ae", flip=True), out, quiet=True)
    train(autoencoder_run(seed=5), tmp_path / "other", quiet=True)
    cd = RECIPES["digits/cd"]().override(
        {"teacher": str(trained / "lsgm"), "autoencoder": str(tmp_path / "other")}
    )
    with pytest.raises(FewstepError, match="is not a model of the latents of"):
        train(cd, out, quiet=True)
    own = lsgm_run(tmp_path / "other", init=str(trained / "lsgm"))
    with pytest.raises(FewstepError, match=r"the model .*lsgm is not .* leave out --autoencoder"):
        train(own, out, quiet=True)
    with pytest.raises(FewstepError, match="sigma_data"):
        train(cd.override({"autoencoder": None}), out, quiet=True)
    kd = RECIPES["digits/kd"]().override({"teacher": str(trained / "lsgm")})
    with pytest.raises(FewstepError, match="pairs"):
        train(kd, out, quiet=True)
    assert not out.exists()


def test_commands_take_latent_models(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    for name in ("ae", "lsgm", "cd"):
        assert run(["sample", str(trained / name), "-n", "4", "-o", str(out)]) == 0
    digit = tmp_path / "digit.png"
    assert run(["sample", str(trained / "cd"), "-n", "1", "-o", str(digit)]) == 0
    capsys.readouterr()
    edit = ["edit", "inpaint", str(trained / "cd"), str(digit), "--box", "0", "0", "2", "2"]
    assert run([*edit, "--label", "1", "-o", str(out)]) == 2
    assert "works on pixels" in capsys.readouterr().err
    assert run(["tune-steps", str(trained / "ae"), "--steps", "2"]) == 2
    assert "autoencoder" in capsys.readouterr().err


def test_latent_models_are_served_as_images_without_edits(trained: Path) -> None:
    shelf = Shelf.open([trained / name for name in ("ae", "lsgm", "cd")])
    for told in shelf.describe(most_steps=8):
        assert told["shape"] == [1, 8, 8]
        assert told["tasks"] == []
        assert told["max_steps"] == (1 if told["kind"] == "autoencoder" else 8)
        _, f = shelf[told["id"]]
        labels = (3, 3) if f.num_classes else ()
        (made,) = Generation.run(f, [Generation(told["id"], sampler_for(f), 0, 2, labels)], 4)
        assert made.shape == (2, 1, 8, 8)
        assert made.dtype == torch.uint8


def test_dry_run_of_an_autoencoder() -> None:
    """64 -> 64 -> 2 x 16 and 16 -> 64 -> 64 with a block each: weights and biases by hand."""
    block = 2 * 64 + (64 * 128 + 128) + (128 * 64 + 64)
    encoder = (64 * 64 + 64) + block + (64 * 32 + 32)
    decoder = (16 * 64 + 64) + block + (64 * 64 + 64)
    assert dry_run(RECIPES["digits/autoencoder"]()).parameters == encoder + decoder
    assert dry_run(RECIPES["cifar10/autoencoder"]()).flops > 0


def test_dry_run_of_a_latent_model_counts_in_its_latents(trained: Path) -> None:
    assert dry_run(lsgm_run(trained / "ae")).shape == (16,)


def test_latents_of_larger_images_train_a_u_net(tmp_path: Path) -> None:
    """The path of cifar10/lsgm, small: maps of latents, a U-Net on them."""
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    data = Dataset.from_arrays(images)
    first = RECIPES["cifar10/autoencoder"]().override(
        {**SHORT, "network.channels": 8, "network.blocks": 1, "flip": False}
    )
    train(first, tmp_path / "ae", data=data, quiet=True)
    second = RECIPES["cifar10/lsgm"]().override(
        {
            **SHORT,
            "network.channels": 8,
            "network.blocks": 1,
            "flip": False,
            "autoencoder": str(tmp_path / "ae"),
        }
    )
    f = train(second, tmp_path / "lsgm", data=data, quiet=True)
    assert f.shape == (4, 8, 8)
    assert sample(f, 2).shape == (2, 3, 16, 16)
