"""What scoring costs beside the feature network.

    python benchmarks/evaluation.py path/to/cifar10 [--images 50000] [--width 2048]

1. ResNet-56 features of the 10,000 CIFAR-10 test images: seconds of `extract` and of the moments,
   those of them inside the network, and the share outside.
2. Fréchet distance, spatial Fréchet distance, inception score, precision and recall of 50,000
   images against 50,000 at the widths of Inception (2048, 2023 and 1008), with random numbers for
   features: seconds and peak memory beside the process before it.

Needs a folder with test.parquet and resnet56.safetensors. Writes
benchmarks/results/evaluation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from fewstep.data import load
from fewstep.evaluation import (
    Evaluator,
    FeatureNetwork,
    Features,
    Moments,
    Reference,
    ResNet56,
    extract,
)

RESULTS = Path(__file__).parent / "results" / "evaluation.json"
PAGE = resource.getpagesize()


class Random(FeatureNetwork):
    """Noise of the size of Inception's outputs; the mean of an image decides nothing."""

    name, shape, num_classes = "random", (1, 2, 2), 1008

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width
        self.mix = torch.nn.Parameter(torch.randn(width) + 2)

    def forward(self, images: Tensor) -> Features:
        n = len(images)
        features = self.mix * torch.randn(n, self.num_features)
        return Features(features, torch.randn(n, 1008), torch.randn(n, 2023))


class Timed(ResNet56):
    """Counts the seconds that its own forward takes."""

    seconds = 0.0

    def forward(self, images: Tensor) -> Features:
        start = time.perf_counter()
        try:
            return super().forward(images)
        finally:
            self.seconds += time.perf_counter() - start


def network_share(folder: Path) -> dict[str, float]:
    """How long the features of the test images take, in the network and around it, in one run."""
    network = Timed.load(folder / "resnet56.safetensors")
    images = load(folder / "test.parquet").images
    extract(network, images[: network.batch])
    network.seconds = 0.0
    start = time.perf_counter()
    Moments.of(extract(network, images).features)
    whole = time.perf_counter() - start
    return {
        "images": len(images),
        "network_s": round(network.seconds, 2),
        "extract_and_moments_s": round(whole, 2),
        "outside_network": round(1 - network.seconds / whole, 4),
    }


class Peak(threading.Thread):
    """Largest resident memory while it runs, in bytes above the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes, self.most, self.stop = self.now(), 0, False

    @staticmethod
    def now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    def run(self) -> None:
        while not self.stop:
            self.most = max(self.most, self.now() - self.start_bytes)
            time.sleep(0.01)


def large(n: int, width: int) -> dict[str, float]:
    """Time and memory of the scores of many images with many features."""
    network = Random(width)
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    images = torch.zeros(n, 1, 2, 2, dtype=torch.uint8)
    reference = Reference.of(network, images)
    evaluator = Evaluator(network, reference, metrics=("fd", "sfd", "is"))
    evaluator.score(images)
    without_neighbours = time.perf_counter() - start
    evaluator = Evaluator(network, reference, metrics=("fd", "sfd", "is", "pr", "dc", "kid"))
    evaluator.score(images)
    seconds = time.perf_counter() - start - without_neighbours
    peak.stop = True
    peak.join()
    return {
        "images": n,
        "features": width,
        "fd_sfd_is_s": round(without_neighbours, 1),
        "with_precision_recall_density_coverage_kid_s": round(seconds, 1),
        "peak_gib": round(peak.most / 2**30, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with test.parquet and resnet56.safetensors")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    options = parser.parse_args()
    result = {
        "resnet56": network_share(options.folder),
        "large": large(options.images, options.width),
        "machine": {
            "device": "cpu",
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
