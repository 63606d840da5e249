"""Our Inception-v3 against torch-fidelity's, with the same weights; what tests compare with.

    pip install --no-deps --target /tmp/parity torch-fidelity
    PYTHONPATH=/tmp/parity python benchmarks/inception_parity.py

The weights are sines of the squared index, made on the spot, so that anyone gets the same ones.
Writes to tests/references/inception_v3.json what *torch-fidelity's* network has and says: the name
and shape of every weight, some of its outputs, and how far ours are from all of them. torchvision
is not needed: of torch-fidelity only the files of the network and of the resize are imported. It
gets a folder of its own because torchmetrics fails where it finds torch-fidelity but not
torchvision.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import platform
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.evaluation.inception_v3 import InceptionV3
from fewstep.evaluation.resize import tf1_bilinear

REFERENCE = Path(__file__).parents[1] / "tests" / "references" / "inception_v3.json"
OUTPUTS = ("2048", "logits_unbiased", "logits")
SIDES = (1, 28, 32, 64, 256, 299, 300, 512)
KEPT = 8  # values of each output and image


def sine_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that keep the activations near 1: zero mean and variance 2 / fan-in, like He's.

    The sines get faster along the index: of one frequency they would be matrices of rank 2, and
    the outputs would hardly depend on the image.
    """
    weights = {}
    for k, (name, shape) in enumerate(sorted(shapes.items())):
        turns = (np.arange(math.prod(shape), dtype=np.float64) ** 2 * 0.6180339887) % 1
        wave = np.sin(2 * math.pi * turns + 0.7 * k).reshape(shape)
        if len(shape) > 1:
            wave *= 2 / math.sqrt(math.prod(shape[1:]))
        elif name.endswith(("bn.weight", "running_var")):
            wave = 1 + 0.1 * wave
        else:
            wave *= 0.1
        weights[name] = torch.from_numpy(wave).float()
    return weights


def pictures(side: int = 64) -> Tensor:
    """Two colour images of waves, uint8 [2, 3, side, side]."""
    n, c, y, x = np.ogrid[:2, :3, :side, :side]
    wave = np.sin(0.3 * x * (1 + n) + 0.2 * y + c) * np.cos(0.11 * y * (2 - n))
    return torch.from_numpy((127.5 + 127.5 * wave).round().astype(np.uint8))


def torch_fidelity_file(name: str) -> ModuleType:
    """A file of torch-fidelity by itself: the package as a whole needs torchvision.

    Raises:
        ModuleNotFoundError: torch-fidelity is not installed.
    """
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        raise ModuleNotFoundError("torch-fidelity is not installed", name="torch_fidelity")
    package = ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["torch_fidelity"] = package
    try:
        return importlib.import_module(f"torch_fidelity.{name}")
    finally:
        for key in [key for key in sys.modules if key.partition(".")[0] == "torch_fidelity"]:
            del sys.modules[key]


def torch_fidelity_network(weights: Path) -> Any:
    """torch-fidelity's network with weights of a file; its outputs are `OUTPUTS`."""
    module = torch_fidelity_file("feature_extractor_inceptionv3")
    return module.FeatureExtractorInceptionV3("parity", list(OUTPUTS), str(weights))


def reference_outputs(network: Any, images: Tensor) -> dict[str, Tensor]:
    """What torch-fidelity's network says, and its ``Mixed_6d.branch1x1`` as ``spatial``."""
    seen = []
    hook = network.Mixed_6d.branch1x1.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.inference_mode():
        outputs = dict(zip(OUTPUTS, network(images), strict=True))
    hook.remove()
    return outputs | {"spatial": seen[0][:, :7].permute(0, 2, 3, 1).flatten(1)}


def our_outputs(network: InceptionV3, images: Tensor) -> dict[str, Tensor]:
    """The same of our network."""
    with torch.inference_mode():
        pool, logits, spatial = network(images)
    assert logits is not None
    assert spatial is not None
    biased = logits + network.fc.bias
    return {"2048": pool, "logits_unbiased": logits, "logits": biased, "spatial": spatial}


def resizes(side: int) -> tuple[Tensor, Tensor]:
    """Images of a side brought to 299x299 by us and by torch-fidelity."""
    images = pictures(side).float()
    module = torch_fidelity_file("interpolate_compat_tensorflow")
    resize = module.interpolate_bilinear_2d_like_tensorflow1x
    return tf1_bilinear(images, 299), resize(images, size=(299, 299), align_corners=False)


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Largest absolute difference of each output, and relative to the largest value."""
    result = {}
    for name, truth in theirs.items():
        far = float((ours[name] - truth).abs().max())
        result[name] = {"absolute": far, "relative": far / float(truth.abs().max())}
    return result


def kept(output: Tensor) -> list[list[float]]:
    """A few values of each image, from the first to the last."""
    some = torch.linspace(0, output.shape[1] - 1, KEPT).long()
    return [[round(value, 7) for value in row] for row in output[:, some].tolist()]


def main() -> None:
    torch.set_num_threads(1)
    ours = InceptionV3()
    counters = ("num_batches_tracked",)
    shapes = {k: tuple(v.shape) for k, v in ours.state_dict().items() if not k.endswith(counters)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sines.pth"
        torch.save(sine_weights(shapes), path)
        ours, theirs = InceptionV3.load(path), torch_fidelity_network(path)
    truth = reference_outputs(theirs, pictures())
    resized = {f"resize from {side}": resizes(side) for side in SIDES}
    ours_resized, truth_resized = ({k: v[i] for k, v in resized.items()} for i in (0, 1))
    layers = {
        name: list(value.shape)
        for name, value in theirs.state_dict().items()
        if not name.endswith(counters)
    }
    result = {
        "versions": {
            "torch-fidelity": version("torch-fidelity"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "differences": differences(
            our_outputs(ours, pictures()) | ours_resized, truth | truth_resized
        ),
        "layers": layers,
        "outputs": {name: kept(output) for name, output in truth.items()},
    }
    REFERENCE.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result | {"layers": None, "outputs": None}, indent=1)
    rows = {
        key: json.dumps(result[key]).replace('], "', '],\n  "') for key in ("layers", "outputs")
    }
    for key, row in rows.items():
        text = text.replace(f'"{key}": null', f'"{key}": {row}')
    REFERENCE.write_text(text + "\n")
    summary = {key: result[key] for key in ("versions", "parameters", "differences")}
    print(json.dumps(summary, indent=1))
    print("\n".join(f"{name:36} {shape}" for name, shape in layers.items()))
    print(f"{len(layers)} tensors; wrote {REFERENCE}")


if __name__ == "__main__":
    main()
