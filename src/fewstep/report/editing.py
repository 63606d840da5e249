"""Edits of held-out images, against simple baselines: Figures 6 to 8 of Song et al. 2023.

Every edit has a truth, the test image that was damaged, so it can be scored: PSNR of the 8-bit
pictures (peak 2 on the scale [-1, 1]), and the mean distance of an image's classifier features to
those of its truth.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.data import Dataset, to_float, to_uint8
from fewstep.editing import Inpaint, Operator, SuperResolve, decode, denoise, edit, latents, slerp
from fewstep.errors import FewstepError
from fewstep.evaluation.classifier import Classifier
from fewstep.flow_map import FlowMap

LEVELS = (0.25, 0.5, 1.0)  # standard deviations of the noise, on data in [-1, 1]
BLURS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)  # pixels: standard deviations to choose from
FACTOR = 2  # of super-resolution
SEEDS = 8  # samples in a mean
STEPS = 8  # network evaluations of a sample
SHOWN, FRAMES = 20, 11

Images = dict[str, Tensor]
"""Method -> float [N, 1, H, W]."""


@dataclass(frozen=True)
class Edited:
    """A line of the table.

    Args:
        task: what was done to the test images.
        method: how it was undone.
        baseline: whether no network did it.
        psnr: ``10 log10(4 / mse)`` over all images, in dB.
        distance: mean Euclidean distance of an image's features to those of its truth.
    """

    task: str
    method: str
    baseline: bool
    psnr: float
    distance: float


class Edits:
    """Damages test images, undoes it in several ways, and scores them.

    Args:
        f: a consistency model.
        teacher: the diffusion model, whose denoiser is the mean over clean images.
        train, test: labelled images; baselines may look at the training images alone.
        network: gives the features.
        blurs: widths of the blur, in pixels, of which the best for the training images is taken.
        factor: of super-resolution.
    """

    def __init__(
        self,
        f: FlowMap,
        teacher: FlowMap,
        train: Dataset,
        test: Dataset,
        network: Classifier,
        *,
        blurs: Sequence[float] = BLURS,
        factor: int = FACTOR,
    ) -> None:
        if test.labels is None or train.labels is None:
            raise FewstepError(f"{test.name} has no labels.")
        self.f, self.teacher, self.network, self.labels = f, teacher, network, test.labels
        self.blurs, self.factor = blurs, factor
        self.x = to_float(test.images)
        self.train = to_float(train.images)
        means = [self.train[train.labels == c].mean(0) for c in range(f.num_classes)]
        self.mean = torch.stack(means)[test.labels]  # the class is known to the model, too
        self.results: list[Edited] = []
        self.strips: dict[str, Images] = {}

    def run(self) -> None:
        """All tasks, in the order of the page."""
        for sigma in LEVELS:
            self._score(f"denoising, noise {sigma:g}", *self._denoised(sigma))
        keep = torch.ones(self.f.shape[1:], dtype=torch.bool)
        keep[:, keep.shape[1] // 2 :] = False
        self._score("inpainting the right half", *self._inpainted(keep))
        self._score(f"super-resolution, factor {self.factor}", *self._enlarged())

    def _denoised(self, sigma: float) -> tuple[Images, Images]:
        noisy = with_noise(self.x, sigma, seed=0)
        ours = {
            "consistency model, 1 step": denoise(self.f, noisy, sigma, labels=self.labels),
            "its teacher's denoiser": denoise(self.teacher, noisy, sigma, labels=self.labels),
        }
        blur = best_blur(self.train, sigma, self.blurs)
        return ours, {"noisy copy": noisy, f"Gaussian blur of {blur:g} px": blurred(noisy, blur)}

    def _inpainted(self, keep: Tensor) -> tuple[Images, Images]:
        nearest = self.x.clone()
        nearest[..., ~keep[0]] = self.x[..., keep[0]][..., -1:]
        mean = torch.where(keep, self.x, self.mean)
        return self._sampled(Inpaint(keep), self.x), {
            "nearest known pixel": nearest,
            "mean image of the class": mean,
        }

    def _enlarged(self) -> tuple[Images, Images]:
        A = SuperResolve(self.factor)
        small = A.observe(self.x)
        bicubic = functional.interpolate(small, scale_factor=self.factor, mode="bicubic")
        copy = A.reference(small)
        return self._sampled(A, copy), {"copy": copy, "bicubic": bicubic}

    def _sampled(self, A: Operator, y: Tensor) -> Images:
        """One edit of each image, and the mean of several."""
        several = torch.stack(
            [edit(self.f, y, A, steps=STEPS, seed=s, labels=self.labels) for s in range(SEEDS)]
        )
        return {"one sample": several[0], f"mean of {SEEDS} samples": several.mean(0)}

    def _score(self, task: str, ours: Images, baselines: Images) -> None:
        self.strips[task] = {"truth": self.x, **baselines, **ours}
        truth = self._features(self.x)
        for method, x in {**baselines, **ours}.items():
            x = to_float(to_uint8(x))
            distance = float((self._features(x) - truth).norm(dim=1).mean())
            mse = float((x - self.x).square().mean(dtype=torch.float64))
            psnr = 10 * torch.tensor(4 / mse).log10().item()
            self.results.append(Edited(task, method, method in baselines, psnr, distance))

    def _features(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.network(to_uint8(x)).features

    def pictures(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """A strip of uint8 images of each method, per task, of the first test images."""
        for task, strip in self.strips.items():
            yield task, {name: to_uint8(x[:SHOWN]) for name, x in strip.items()}

    def interpolation(self) -> dict[str, Tensor]:
        """Two seeds of a class, and what lies between them: class -> uint8 [FRAMES, 1, H, W]."""
        rows = {}
        for label in range(0, self.f.num_classes, 2):
            z = latents(self.f, [label, label + self.f.num_classes])
            path = slerp(z[0], z[1], torch.linspace(0, 1, FRAMES))
            rows[f"class {label}"] = to_uint8(decode(self.f, path, labels=label))
        return rows


def with_noise(x: Tensor, sigma: float, seed: int) -> Tensor:
    """``x + sigma z`` with white noise ``z``."""
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def best_blur(x: Tensor, sigma: float, blurs: Sequence[float] = BLURS) -> float:
    """The blur of several that leaves the smallest squared error of ``x`` with noise."""
    noisy = with_noise(x, sigma, seed=1)
    return min(blurs, key=lambda blur: float((blurred(noisy, blur) - x).square().mean()))


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images [B, 1, H, W] convolved with a Gaussian of ``sigma`` pixels, edges repeated."""
    reach = max(2, math.ceil(2 * sigma))
    k = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.exp(-(k**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = functional.pad(x, (reach,) * 4, mode="replicate")
    return functional.conv2d(padded, torch.outer(kernel, kernel)[None, None])


def write_csv(path: Path, results: list[Edited]) -> None:
    """The table for other programs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("task", "method", "baseline", "psnr_db", "feature_distance"))
        for r in results:
            writer.writerow((r.task, r.method, int(r.baseline), r.psnr, r.distance))


def shortfalls(results: list[Edited]) -> list[str]:
    """Where a model does not beat every baseline of its task, in sentences."""
    measures: dict[str, Callable[[Edited], float]] = {
        "PSNR": lambda r: r.psnr,
        "feature distance": lambda r: -r.distance,
    }
    found = []
    for r in results:
        rivals = [b for b in results if b.baseline and b.task == r.task]
        for name, value in measures.items():
            ahead = [b.method for b in rivals if value(b) >= value(r)]
            if not r.baseline and ahead:
                found.append(f"{r.task}: {', '.join(ahead)} has a better {name} than {r.method}.")
    return found
