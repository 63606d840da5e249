"""How fast data get from a Parquet file (or any other source) into a training batch.

    python benchmarks/data_path.py path/to/train.parquet [--batch 128] [--device cpu] [--threads 1]

Prints, and writes to benchmarks/results/data_path.json: the time of a first load (decoding
everything into an empty cache), of later loads (mapping the cache file), and the images per second
of `batch_indices` + `Dataset.batch` with flips, the median of several passes. On a CPU also the
images per second of the training step of unet_step.py, in the same run and with the same threads:
what the data path has to stay ahead of.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from unet_step import seconds as step_seconds
from unet_step import training_step

from fewstep.data import Dataset, batch_indices, load

RESULTS = Path(__file__).parent / "results" / "data_path.json"
PASSES, STEPS = 5, 400


def seconds_to_load(source: str, cache: Path) -> tuple[float, Dataset]:
    started = time.perf_counter()
    data = load(source, cache=cache)
    return time.perf_counter() - started, data


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def images_per_second(data: Dataset, batch: int, device: str, flip: bool) -> float:
    """Median over passes of consecutive training steps that do nothing but fetch their batch."""
    rates = []
    for number in range(PASSES + 1):
        wait(device)
        started = time.perf_counter()
        for step in range(number * STEPS, (number + 1) * STEPS):
            data.batch(batch_indices(len(data), batch, step, seed=0), device, flip=flip)
        wait(device)
        rates.append(STEPS * batch / (time.perf_counter() - started))
    return statistics.median(rates[1:])  # the first pass touches the file's pages


def trained_per_second(batch: int = 16, steps: int = 3) -> float:
    """Images per second of a whole CT step of the small U-Net."""
    step = training_step(batch)
    step()  # the first one allocates
    return batch / statistics.median(step_seconds(step) for _ in range(steps))


def machine(device: str) -> dict[str, object]:
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="whatever fewstep.data.load reads, such as train.parquet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as cache:
        first, data = seconds_to_load(options.source, Path(cache))
        later = min(seconds_to_load(options.source, Path(cache))[0] for _ in range(5))
        speed = {
            name: images_per_second(data, options.batch, options.device, flip)
            for name, flip in (("images_per_s_flip", True), ("images_per_s_no_flip", False))
        }
    if options.device == "cpu":
        trained = trained_per_second()
        ratio = round(speed["images_per_s_flip"] / trained)
        training = {"trained_images_per_s": round(trained, 2), "data_over_training": ratio}
    else:
        training = {}
    result = {
        "source": Path(options.source).name,
        "images": len(data),
        "shape": list(data.shape),
        "batch": options.batch,
        "first_load_s": round(first, 2),
        "cached_load_s": round(later, 4),
        **{name: round(value) for name, value in speed.items()},
        **training,
        "machine": machine(options.device),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
