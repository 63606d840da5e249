"""Published feature networks against torch-fidelity, timm, and formulas."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.data import Dataset
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator, FeatureNetwork, Reference, extract
from fewstep.evaluation.custom import load_callable
from fewstep.evaluation.dinov2 import DINOv2
from fewstep.evaluation.inception_v3 import InceptionV3
from fewstep.evaluation.resize import RESIZES, clean, colour_of_size, pil_bicubic, tf1_bilinear

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "references" / "inception_v3.json").read_text())
SHAPES = {name: tuple(shape) for name, shape in REFERENCE["layers"].items()}


def _script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parity = _script(HERE.parent / "benchmarks" / "inception_parity.py")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return parity.sine_weights(SHAPES)


@pytest.fixture(scope="module")
def published(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights that is named as published ones are, by its hash."""
    plain = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(weights, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    return plain.rename(plain.with_name(f"weights-{digest[:8]}.pth"))


@pytest.fixture(scope="module")
def inception(published: Path) -> InceptionV3:
    return InceptionV3.load(published)


@pytest.fixture(scope="module")
def outputs(inception: InceptionV3) -> dict[str, Tensor]:
    return parity.our_outputs(inception, parity.pictures())


def random_images(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


# Resizing


@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 32), (299, 299), (50, 311), (500, 64)])
def test_tf1_bilinear_against_the_textbook_formula(height: int, width: int) -> None:
    images = random_images(2, 3, height, width)
    x = images.double().numpy()

    def axis(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        u = np.arange(299) * n / 299
        k = np.floor(u).astype(int)
        return k, np.minimum(k + 1, n - 1), u - k

    (top, bottom, v), (left, right, u) = axis(height), axis(width)
    above = x[:, :, top][..., left] * (1 - u) + x[:, :, top][..., right] * u
    below = x[:, :, bottom][..., left] * (1 - u) + x[:, :, bottom][..., right] * u
    truth = above * (1 - v[:, None]) + below * v[:, None]
    np.testing.assert_allclose(tf1_bilinear(images, 299).numpy(), truth, atol=0.02)
    # In float64 only the position is rounded, to 2^-24 of up to 512 pixels.
    np.testing.assert_allclose(tf1_bilinear(images.double(), 299).numpy(), truth, atol=0.01)


def test_tf1_bilinear_has_no_half_pixel_centres_and_no_antialias() -> None:
    ramp = torch.arange(4).float().view(1, 1, 1, 4).expand(1, 1, 4, 4)
    assert tf1_bilinear(ramp, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert tf1_bilinear(ramp, 2)[0, 0, 0].tolist() == [0, 2]
    images = random_images(1, 3, 299, 299)
    assert torch.equal(tf1_bilinear(images, 299), images.float())


@pytest.mark.parametrize(("resize", "mode"), [(clean, "F"), (pil_bicubic, "L")])
def test_pillow_resizes_are_those_of_pillow(resize: Any, mode: str) -> None:
    images = random_images(2, 3, 40, 25)
    images[0, 0, :, 12:] = 255
    resized = resize(images, 30)
    assert resized.dtype == torch.float32
    for image, got in zip(images, resized, strict=True):
        for plane, channel in zip(image, got, strict=True):
            picture = Image.fromarray(plane.numpy()).convert(mode)
            truth = np.asarray(picture.resize((30, 30), Image.Resampling.BICUBIC))
            assert np.array_equal(channel.numpy(), truth)
    assert torch.equal(resized, resized.round()) == (mode == "L")


def test_clean_is_neither_rounded_nor_clipped() -> None:
    step = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 255
    assert float(clean(step, 32).max()) > 256
    assert float(pil_bicubic(step, 32).max()) == 255


@pytest.mark.parametrize("resize", RESIZES)
def test_grey_images_are_grey_colour_images(resize: str) -> None:
    grey = random_images(2, 1, 20, 30)
    colour = colour_of_size(grey.expand(-1, 3, -1, -1), 16, resize)
    assert torch.equal(colour_of_size(grey, 16, resize), colour)
    assert colour.shape == (2, 3, 16, 16)


# Inception-v3: the network


def test_inception_has_the_published_layers(inception: InceptionV3) -> None:
    mine = {k: tuple(v.shape) for k, v in inception.state_dict().items() if "num_batches" not in k}
    assert mine == SHAPES
    assert sum(p.numel() for p in inception.parameters()) == REFERENCE["parameters"] == 23_850_960
    assert all(m.eps == 1e-3 for m in inception.modules() if isinstance(m, nn.BatchNorm2d))


def test_inception_says_what_torch_fidelity_said(outputs: dict[str, Tensor]) -> None:
    """The recorded values of torch-fidelity's network with the same weights."""
    for name, truth in REFERENCE["outputs"].items():
        largest = float(outputs[name].abs().max())
        got = torch.tensor(parity.kept(outputs[name]))
        torch.testing.assert_close(got, torch.tensor(truth), rtol=0, atol=1e-4 * largest)


def test_recorded_differences_to_torch_fidelity_are_small() -> None:
    assert len(REFERENCE["differences"]) == 4 + len(parity.SIDES)
    for difference in REFERENCE["differences"].values():
        assert difference["relative"] < 1e-4


def test_inception_agrees_with_torch_fidelity(published: Path, outputs: dict[str, Tensor]) -> None:
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("needs torch-fidelity: see benchmarks/inception_parity.py")
    theirs = parity.torch_fidelity_network(published)
    layers = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if "num_batches" not in k}
    assert layers == SHAPES
    truth = parity.reference_outputs(theirs, parity.pictures())
    for name, difference in parity.differences(outputs, truth).items():
        assert difference["relative"] < 1e-4, name
    for side in parity.SIDES:
        ours, truth = parity.resizes(side)
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-4)


def test_spatial_features_are_rows_then_columns_then_channels(inception: InceptionV3) -> None:
    """Those of ``branch1x1`` of Mixed_6d, in TensorFlow's order."""
    seen = []
    hook = inception.Mixed_6d.get_submodule("branch1x1").register_forward_hook(
        lambda *args: seen.append(args[2])
    )
    with torch.inference_mode():
        spatial = inception(parity.pictures()).spatial
    hook.remove()
    assert seen[0].shape == (2, 192, 17, 17)
    assert float(seen[0].min()) == 0  # after the ReLU
    row, column, channel = 3, 11, 5
    index = (row * 17 + column) * 7 + channel
    assert torch.equal(spatial[:, index], seen[0][:, channel, row, column])
    assert spatial.shape == (2, 2023)


def test_logits_are_without_the_bias(inception: InceptionV3, outputs: dict[str, Tensor]) -> None:
    torch.testing.assert_close(
        outputs["logits_unbiased"], outputs["2048"] @ inception.fc.weight.T, rtol=1e-4, atol=1e-5
    )


def test_inception_scores_images_of_any_size(inception: InceptionV3) -> None:
    images = random_images(4, 1, 8, 12)
    found = extract(inception, images, batch=3)
    assert found.features.shape == (4, 2048)
    assert found.spatial is not None
    assert found.spatial.mean.shape == (2023,)
    again = extract(inception, images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found.features, again.features, rtol=1e-4, atol=1e-5)
    for wrong in (images.expand(-1, 2, -1, -1), images[:0], images.float()):
        with pytest.raises(FewstepError, match="images"):
            extract(inception, wrong)


def test_the_resize_is_part_of_the_fingerprint(published: Path, inception: InceptionV3) -> None:
    other = InceptionV3.load(published, resize="clean")
    assert (inception.resize, other.resize) == ("tf1_bilinear", "clean")
    assert inception.fingerprint != other.fingerprint
    with pytest.raises(FewstepError, match="tf1_bilinear"):
        InceptionV3(resize="tf1_bilinera")


# Inception-v3: its weights


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache folders."""
    monkeypatch.delenv("FEWSTEP_INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.parametrize("folder", ["ours", "torch/hub/checkpoints"])
def test_weights_are_found_in_the_caches(caches: Path, folder: str) -> None:
    """A file of a usual name is the one that is read: here, one that is not what its name says."""
    path = caches / folder / "pt_inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(FewstepError, match=r"pt_inception.*begins with 6726825d"):
        InceptionV3.load()


def test_environment_variable_names_the_weights(
    caches: Path, published: Path, inception: InceptionV3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSTEP_INCEPTION_WEIGHTS", str(published))
    assert InceptionV3.load().fingerprint == inception.fingerprint
    monkeypatch.setenv("FEWSTEP_INCEPTION_WEIGHTS", str(caches / "nothing.pth"))
    with pytest.raises(FewstepError, match=r"no file .*nothing\.pth"):
        InceptionV3.load()


def test_missing_weights_say_where_they_were_looked_for_and_are_published(caches: Path) -> None:
    with pytest.raises(FewstepError) as caught:
        InceptionV3.load()
    message = str(caught.value)
    for part in (
        "weights-inception-2015-12-05-6726825d.pth",
        "FEWSTEP_INCEPTION_WEIGHTS",
        str(caches / "ours"),
        str(caches / "torch/hub/checkpoints"),
        "https://github.com/toshas/torch-fidelity/releases",
    ):
        assert part in message
    with pytest.raises(FewstepError, match="no file"):
        InceptionV3.load(caches / "weights.pth")


def test_harmless_differences_of_files_are_tolerated(
    tmp_path: Path, weights: dict[str, Tensor], inception: InceptionV3
) -> None:
    counters = {name[:-12] + "num_batches_tracked" for name in weights if "running_mean" in name}
    other = weights | {name: torch.tensor(7) for name in counters}
    other["AuxLogits.conv0.conv.weight"] = torch.zeros(128, 768, 1, 1)
    torch.save(other, tmp_path / "w.pth")
    save_file(weights, tmp_path / "w.safetensors")
    state = torch.get_rng_state()
    for name in ("w.pth", "w.safetensors"):
        assert InceptionV3.load(tmp_path / name).fingerprint == inception.fingerprint
    assert torch.equal(state, torch.get_rng_state())


def _without(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k: v for k, v in weights.items() if k != name}


def test_wrong_weights_are_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    # One stored number stands for each tensor: the shapes alone are looked at.
    small = {name: torch.zeros(()).expand(value.shape) for name, value in weights.items()}
    for wrong, hint in (
        (_without(small, "Mixed_6b.branch7x7_2.conv.weight"), r"7x7_2\.conv\.weight.*is absent"),
        (small | {"fc.weight": torch.zeros(1000, 2048)}, r"'fc\.weight' should be \(1008, 2048\)"),
        (small | {"classifier.bias": torch.zeros(3)}, r"'classifier\.bias' should be absent"),
    ):
        torch.save(wrong, tmp_path / "w.pth")
        with pytest.raises(FewstepError, match=hint):
            InceptionV3.load(tmp_path / "w.pth")


def test_files_that_are_not_weights_are_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "code.pth")
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk")
    for path in tmp_path.iterdir():
        with pytest.raises(FewstepError, match=path.name):
            InceptionV3.load(path)


class _Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    torch.save({"fc.weight": _Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(FewstepError, match="cannot read"):
        InceptionV3.load(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


# DINOv2


@pytest.fixture(scope="module")
def dino() -> DINOv2:
    """A small one with random weights, of the size of positions that need no interpolation."""
    torch.manual_seed(1)
    network = DINOv2(width=64, depth=3, heads=4, grid=16).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape))
    return network


def normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = pil_bicubic(images, 224) / 255
    return (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def test_dinov2_against_torch_s_transformer(dino: DINOv2) -> None:
    """Torch's pre-norm layer is a block once the factors are part of the matrices before them."""
    images = random_images(2, 3, 40, 40)
    x = dino.patch_embed.proj(normalised(images)).flatten(2).mT
    x = torch.cat([dino.cls_token.expand(2, -1, -1), x], 1) + dino.pos_embed
    for block in dino.blocks:
        layer = nn.TransformerEncoderLayer(
            64, 4, 256, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        g1, g2 = block.ls1.gamma, block.ls2.gamma
        theirs = {
            "self_attn.in_proj_weight": block.attn.qkv.weight,
            "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": g1[:, None] * block.attn.proj.weight,
            "self_attn.out_proj.bias": g1 * block.attn.proj.bias,
            "linear1.weight": block.mlp.fc1.weight,
            "linear1.bias": block.mlp.fc1.bias,
            "linear2.weight": g2[:, None] * block.mlp.fc2.weight,
            "linear2.bias": g2 * block.mlp.fc2.bias,
            **{f"norm1.{k}": v for k, v in block.norm1.state_dict().items()},
            **{f"norm2.{k}": v for k, v in block.norm2.state_dict().items()},
        }
        layer.load_state_dict(theirs)
        x = layer.eval()(x)
    truth = dino.norm(x[:, 0])
    found = dino(images)
    torch.testing.assert_close(found.features, truth, rtol=1e-4, atol=1e-4)
    assert found.logits is None
    assert extract(dino, images[:, :1]).features.shape == (2, 64)


class _AnyTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision, which timm imports and its transformer does not use."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(__path__=[], __spec__=spec, __name__=spec.name)
        module.FrozenBatchNorm2d = nn.BatchNorm2d
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


@pytest.fixture
def vision_transformer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """timm's class."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm: pip install --no-deps --target /tmp/parity timm")
    before = set(sys.modules)
    if importlib.util.find_spec("torchvision") is None:
        monkeypatch.setattr(sys, "meta_path", [_AnyTorchvision(), *sys.meta_path])
    yield importlib.import_module("timm.models.vision_transformer").VisionTransformer
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("timm", "torchvision"):
            del sys.modules[name]


def test_dinov2_agrees_with_timm(dino: DINOv2, vision_transformer: Any) -> None:
    theirs = vision_transformer(
        img_size=224,
        patch_size=14,
        embed_dim=64,
        depth=3,
        num_heads=4,
        init_values=1e-5,
        num_classes=0,
    )
    theirs.load_state_dict(dino.state_dict())
    images = random_images(2, 3, 50, 30)
    with torch.inference_mode():
        truth = theirs.eval()(normalised(images))
        torch.testing.assert_close(dino(images).features, truth, rtol=1e-4, atol=1e-4)


def test_positions_are_interpolated_as_in_meta_s_code() -> None:
    """Keys' cubic with a = -0.75, sampled at ``(i + 1/2) 37 / 16.1 - 1/2``, the edge repeated."""
    dino = DINOv2(width=4, depth=0, heads=1)
    table = torch.randn(1, 1 + 37**2, 4, dtype=torch.float64)
    dino.double().pos_embed.data.copy_(table)

    def cubic(d: np.ndarray) -> np.ndarray:
        a, d = -0.75, np.abs(d)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        return np.where(d <= 1, near, np.where(d < 2, a * (d**3 - 5 * d**2 + 8 * d - 4), 0))

    W = np.zeros((16, 37))
    for i in range(16):
        u = (i + 0.5) * 37 / 16.1 - 0.5
        for j in range(int(np.floor(u)) - 1, int(np.floor(u)) + 3):
            W[i, min(max(j, 0), 36)] += cubic(np.array(u - j))
    grid = table[0, 1:].numpy().reshape(37, 37, 4)
    truth = np.einsum("ia,jb,abc->ijc", W, W, grid).reshape(256, 4)
    positions = dino._positions().detach().numpy()[0]
    np.testing.assert_allclose(positions[1:], truth, atol=1e-12)
    np.testing.assert_array_equal(positions[0], table[0, 0].numpy())


def test_dinov2_has_the_published_size_and_names_wrong_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        large = DINOv2()
    assert sum(p.numel() for p in large.parameters()) == 304_367_616
    assert (large.num_features, large.resize) == (1024, "pil_bicubic")

    weights = {k: torch.zeros(()).expand(v.shape) for k, v in large.state_dict().items()}
    torch.save(_without(weights, "blocks.3.ls1.gamma"), tmp_path / "dinov2_vitl14_pretrain.pth")
    monkeypatch.delenv("FEWSTEP_DINOV2_WEIGHTS", raising=False)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    with pytest.raises(FewstepError, match=r"blocks\.3\.ls1\.gamma.* is absent"):
        DINOv2.load()
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(FewstepError, match=r"FEWSTEP_DINOV2_WEIGHTS.*dl\.fbaipublicfiles\.com"):
        DINOv2.load()


def test_dinov2_loads_meta_s_file(
    tmp_path: Path, dino: DINOv2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        DINOv2.__init__, "__kwdefaults__", {"width": 64, "depth": 3, "heads": 4, "grid": 16}
    )
    torch.save(dino.state_dict() | {"mask_token": torch.zeros(1, 64)}, tmp_path / "w.pth")
    loaded = DINOv2.load(tmp_path / "w.pth")
    assert loaded.fingerprint == dino.fingerprint
    assert DINOv2.load(tmp_path / "w.pth", resize="clean").fingerprint != dino.fingerprint
    images = random_images(2, 3, 10, 10)
    assert torch.equal(loaded(images).features, dino(images).features)


# A user's own function

MODULE = """
import torch

def means(images):
    return images.float().mean((2, 3))

def scored(images):
    x = images.float().flatten(1)
    return x.numpy(), x[:, :3]

def flat(images):
    return images.float().mean()

def triple(images):
    return 1, 2, 3

def broken(images):
    return images.float().flatten(1) / 0

def words(images):
    return "features"

def growing(images):
    growing.width += 1
    return torch.zeros(len(images), growing.width)

power, seen = 1, []

def help(images):
    seen.append(len(images))
    return images.float().mean(3).flatten(1) ** power

def helped(images):
    return help(images)

growing.width = 1
constant = 3

class Projection(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 16))

    def forward(self, images):
        return images.float().flatten(1) @ self.weight.T

projection = Projection()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory."""
    (tmp_path / "own_features.py").write_text(MODULE)
    (tmp_path / "needy_features.py").write_text("import a_module_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    path = sys.path.copy()
    yield "own_features"
    assert sys.path == path
    sys.modules.pop("own_features", None)


def test_own_functions_score_images(own: str) -> None:
    means = load_callable(f"{own}:means")
    assert isinstance(means, FeatureNetwork)
    images = random_images(9, 3, 6, 5)
    found = extract(means, images, batch=4)
    torch.testing.assert_close(found.features, images.float().mean((2, 3)))
    assert (found.logits, means.num_features, means.num_classes) == (None, 3, 0)
    scores = Evaluator.of(means, images).score(images)
    assert scores.fd == pytest.approx(0, abs=1e-6)

    scored = load_callable(f"{own}:scored")
    found = extract(scored, images)
    assert found.logits is not None
    assert (found.features.shape, found.logits.shape) == ((9, 90), (9, 3))
    assert (scored.num_features, scored.num_classes) == (90, 3)


def test_fingerprint_of_an_own_function_is_its_source(own: str, tmp_path: Path) -> None:
    first = load_callable(f"{own}:means").fingerprint
    assert first == load_callable(f"{own}:means").fingerprint
    assert first != load_callable(f"{own}:flat").fingerprint
    (tmp_path / f"{own}_2.py").write_text(MODULE.replace(".mean((2, 3))", ".amax((2, 3))"))
    changed = load_callable(f"{own}_2:means")
    changed.name = f"{own}:means"
    assert changed.fingerprint != first
    sys.modules.pop(f"{own}_2")
    assert load_callable("math:sqrt").fingerprint != load_callable("math:exp").fingerprint


def test_features_are_taken_anew_where_what_a_function_calls_has_changed(
    own: str, tmp_path: Path
) -> None:
    data, network = Dataset.from_arrays(random_images(40, 1, 4, 4)), load_callable(f"{own}:helped")

    def features() -> Tensor:
        found = Reference.of_data(network, data, cache=tmp_path).features
        assert found is not None
        return found

    first, module = features(), sys.modules[own]
    module.seen = []  # type: ignore[attr-defined]
    assert torch.equal(features(), first)
    assert module.seen == [16]
    before = network.fingerprint
    module.power = 2  # type: ignore[attr-defined]
    assert network.fingerprint == before
    for _ in range(2):
        torch.testing.assert_close(features(), first**2)


def test_a_module_brings_its_weights(own: str) -> None:
    network = load_callable(f"{own}:projection")
    before = network.fingerprint
    assert extract(network, random_images(4, 1, 4, 4)).features.shape == (4, 2)
    assert network.fingerprint == before
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert network.fingerprint != before


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("means", "module:function"),
        (":means", "module:function"),
        ("no_such_module_here:means", "no module 'no_such_module_here'"),
        ("no_such.module:means", "no module"),
        ("needy_features:means", "needs 'a_module_that_is_not_there'"),
        ("own_features:maens", "Did you mean 'means'"),
        ("own_features:constant", "int"),
    ],
)
def test_own_functions_that_are_not_there(own: str, spec: str, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        load_callable(spec)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flat", r"shape \[4, F\], got \[\]"),
        ("triple", "got 3 values"),
        ("broken", "NaN or infinite"),
        ("words", "no tensor"),
        ("growing", r"shape \[4, 2\], got \[4, 3\]"),
    ],
)
def test_wrong_outputs_of_own_functions(own: str, name: str, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        extract(load_callable(f"{own}:{name}"), random_images(8, 1, 4, 4), batch=4)
