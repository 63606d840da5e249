"""Colourisation and strokes on CIFAR-10: PSNR and feature distance to the truth.

    python benchmarks/editing_cifar10.py runs/cifar10-ect [--cifar10 FOLDER] [-n 1000] [-o OUT.png]

RUN is a consistency model of CIFAR-10, of any size. FOLDER holds test.parquet, train.parquet and
resnet56.safetensors, whose 112 features are compared. Test images lose their colour, or become
strokes (flat patches of few colours); what the model makes of them is scored against the truth and
beside baselines that use no network of images. Writes benchmarks/results/editing_cifar10.json and
a picture.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.data import load, to_float, to_uint8
from fewstep.editing import Colourise, edit, sdedit
from fewstep.evaluation.frechet import Moments, frechet_distance
from fewstep.evaluation.resnet56 import ResNet56
from fewstep.flow_map import FlowMap
from fewstep.report.figures import comparison
from fewstep.runs.opening import open_model

RESULTS = Path(__file__).parent / "results" / "editing_cifar10.json"
SEEDS, SHOWN = 16, 16
"""Samples in a mean; images in the picture."""
# Noise levels, chosen on 200 training images. Colours are decided from 3 on, where the grey value
# still shows through the noise; from T on they are decided before it does.
COLOUR_TIMES = torch.logspace(math.log10(3), -1, 24).tolist()
STROKE_TIMES = (0.3, 0.12)  # hide the patches' edges, but not the layout


def strokes(x: Tensor, patch: int = 4, levels: int = 5) -> Tensor:
    """Flat patches of few colours: each ``patch`` x ``patch`` block's mean, in ``levels`` steps."""
    mean = functional.avg_pool2d(x, patch)
    flat = ((mean + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
    return functional.interpolate(flat, scale_factor=patch, mode="nearest")


class Score:
    """PSNR in dB, mean feature distance, and Fréchet distance, of 8-bit images to the truth's."""

    def __init__(self, network: ResNet56, truth: Tensor) -> None:
        self.network, self.truth = network, truth
        self.features = self._features(truth)

    def __call__(self, x: Tensor) -> dict[str, float]:
        x = to_float(to_uint8(x))
        features = self._features(x)
        mse = (x - self.truth).square().mean(dtype=torch.float64)
        return {
            "psnr_db": round(float(10 * (4 / mse).log10()), 2),
            "feature_distance": round(float((features - self.features).norm(dim=1).mean()), 3),
            "frechet_distance": round(
                float(frechet_distance(Moments.of(features), Moments.of(self.features))), 3
            ),
        }

    @torch.inference_mode()
    def _features(self, x: Tensor) -> Tensor:
        return torch.cat([self.network(to_uint8(part)).features for part in x.split(250)])


def enlarged(x: Tensor, size: int) -> Tensor:
    """Images at the feature network's size."""
    return functional.interpolate(x, size=(size, size), mode="nearest") if x.shape[2] < size else x


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cifar10", type=Path, default=Path("../shared/data/cifar10"))
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-o", type=Path, default=Path("editing-cifar10.png"))
    args = parser.parse_args()
    started = time.perf_counter()
    f = open_model(args.run)
    size = f.shape[1]
    test, train = (
        to_float(load(str(args.cifar10 / f"{split}.parquet"), size=size).images[: args.n])
        for split in ("test", "train")
    )
    score = Score(ResNet56.load(args.cifar10 / "resnet56.safetensors"), enlarged(test, 32))
    strips, rows = {}, []

    def add(task: str, method: str, x: Tensor, baseline: bool) -> None:
        rows.append(
            {"task": task, "method": method, "baseline": baseline, **score(enlarged(x, 32))}
        )
        strips[f"{task}: {method}"] = to_uint8(x[:SHOWN])
        print(json.dumps(rows[-1]))

    def samples(task: str, make: Callable[[int], Tensor]) -> None:
        several = torch.stack([make(seed) for seed in range(SEEDS)])
        add(task, "one sample", several[0], False)
        add(task, f"mean of {SEEDS} samples", several.mean(0), False)

    strips["truth"] = to_uint8(test[:SHOWN])
    A = Colourise()
    grey = A.reference(A.observe(test))
    tint = (train - A.reference(A.observe(train))).mean((0, 2, 3), keepdim=True)
    add("colourise", "grey copy", grey, True)
    add("colourise", "mean tint of the training images", grey + tint, True)
    samples("colourise", lambda seed: edit(f, grey, A, COLOUR_TIMES, seed=seed))
    drawn = strokes(test, patch=size // 8)
    smooth = functional.interpolate(
        functional.avg_pool2d(drawn, size // 8), size=(size, size), mode="bicubic"
    )
    add("strokes", "the strokes", drawn, True)
    add("strokes", "bicubic between the patches", smooth, True)
    samples("strokes", lambda seed: sdedit(f, drawn, STROKE_TIMES, seed=seed))
    args.o.write_bytes(comparison(strips, "CIFAR-10: colourisation and strokes"))
    RESULTS.write_text(
        json.dumps({"run": run_of(f), "images": args.n, "rows": rows}, indent=2) + "\n"
    )
    print(f"{args.o}, {RESULTS}: {time.perf_counter() - started:.0f} s")


def run_of(f: FlowMap) -> dict[str, object]:
    """What was trained: the network's size and the recipe."""
    return {
        "recipe": f.info.get("recipe"),
        "shape": list(f.shape),
        "parameters": sum(p.numel() for p in f.parameters()),
    }


if __name__ == "__main__":
    main()
