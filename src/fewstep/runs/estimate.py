"""What a training needs of a machine, and how that reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fewstep.runs.step import Speed
from fewstep.training.config import Training

BYTES = 4  # of a weight, a gradient and a moment in float32
PROCESS = 400 << 20  # of Python, torch and its libraries; on a GPU of the context there
PASSING = 1.1  # of the activations, with the gradients that pass through the largest of them
GPUS, GPU_BYTES = 8, 80e9  # the machine of the papers' recipes
YEAR = 365.25 * 86400  # seconds
FILLED = 0.92  # share of a memory that fragments and buffers leave for what is counted


@dataclass(frozen=True)
class Memory:
    """Of a training, on one device.

    Args:
        state: bytes of weights, gradients, moments, averages and other maps.
        fixed: bytes of activations that do not depend on the batch.
        per_image: bytes of activations for each image of a micro-batch.
        batch: images of a step.
        parts: micro-batches of a step, over all processes.
    """

    state: int
    fixed: int
    per_image: int
    batch: int
    parts: int

    @property
    def images(self) -> int:
        """Images that a device holds at once."""
        return math.ceil(self.batch / self.parts)

    @property
    def peak(self) -> int:
        """Bytes at the end of a forward pass."""
        return self.peak_at(self.parts)

    def peak_at(self, parts: int) -> int:
        """Bytes with another number of micro-batches."""
        images = math.ceil(self.batch / parts)
        return PROCESS + self.state + int(PASSING * (self.fixed + self.per_image * images))

    def parts_for(self, bytes_: float, processes: int = 1) -> int | None:
        """The fewest micro-batches with which a device of so much memory has enough; or none."""
        for parts in range(processes, self.batch + 1, processes):
            if self.batch % parts == 0 and self.peak_at(parts) <= FILLED * bytes_:
                return parts
        return None


@dataclass(frozen=True)
class DryRun:
    """What a run needs.

    Args:
        shape: of an image (C, H, W), or of a latent.
        num_classes: 0 for an unconditional network.
        parameters: trained ones.
        flops: floating-point operations of one network evaluation of one image.
        copies: of all parameters that training holds, by what they are.
        memory: of a training.
        evaluations: of the network for each image of a step, forwards and without gradient.
        step_flops: operations of a step, over all processes.
        training: how.
        device: where it would train.
        free: bytes that are free there; None where the system does not tell.
        speed: of this machine; None where it was not measured.
        asks: what will be asked for, as sentences.
        processes: that train together.
        images: how many there are, and of what; "" where the data were not looked at.
    """

    shape: tuple[int, ...]
    num_classes: int
    parameters: int
    flops: int
    copies: dict[str, float]
    memory: Memory
    evaluations: float
    step_flops: float
    training: Training
    device: torch.device
    free: int | None
    speed: Speed | None
    asks: tuple[str, ...]
    processes: int = 1
    images: str = ""

    @property
    def state_bytes(self) -> int:
        """Memory of all copies, in bytes; activations come on top."""
        return round(sum(self.copies.values()) * self.parameters * BYTES)

    @property
    def seconds_per_step(self) -> float | None:
        """On this machine."""
        if self.speed is None:
            return None
        return self.step_flops / self.processes / self.speed.flops

    def __str__(self) -> str:
        classes = f"{self.num_classes} classes" if self.num_classes else "no classes"
        held = ", ".join(f"{n:g} x {what}" if n > 1 else what for what, n in self.copies.items())
        memory = self.memory
        lines = {
            "examples": f"{self.shape}, {classes}",
            "images": self.images or "not looked at: the settings say their size",
            "network": f"{self.parameters:,} parameters",
            "evaluation": f"{self.flops / 1e9:,.4g} GFLOPs an image",
            "iteration": f"{self.evaluations:.4g} network evaluations an image",
            "state": f"{gib(memory.state)} for {held}",
            "activations": f"{memory.per_image / 2**20:,.4g} MiB an image, "
            f"{memory.images} images at once"
            + (f", and {gib(memory.fixed)}" if memory.fixed > 1 << 27 else ""),
            "memory": f"{gib(memory.peak)} at the peak; {self._fits()}",
            f"{GPUS} GPUs": self._on_gpus(),
            "a step": self._time(),
            "asks for": "; ".join(self.asks) or "nothing else",
        }
        return "\n".join(f"{name:<14}{text}" for name, text in lines.items())

    def _fits(self) -> str:
        if self.free is None:
            return "what is free here, the system does not tell"
        there = f"{gib(self.free)} free on {self.device}"
        if self.memory.peak <= self.free:
            return there
        return f"{there}: too little. {self._remedy(self.free)}"

    def _remedy(self, free: float) -> str:
        parts = self.memory.parts_for(free, self.processes)
        if parts is None:
            return "No number of micro-batches fits: choose a smaller network."
        return f"It fits with --microbatches {parts}."

    def _on_gpus(self) -> str:
        """By arithmetic: whether it fits the machine of the papers' recipes."""
        parts = self.training.microbatches or GPUS
        if parts % GPUS or self.memory.batch % parts:
            return f"a batch of {self.memory.batch} in {parts} parts is not shared evenly"
        need = self.memory.peak_at(parts) / 1e9
        fits = need <= FILLED * GPU_BYTES / 1e9
        least = None if fits else self.memory.parts_for(GPU_BYTES, GPUS)
        how = f"{self.memory.batch // parts} images at once in {parts} micro-batches"
        return f"{how}: {need:,.3g} of {GPU_BYTES / 1e9:.0f} GB each" + (
            "" if fits else f", too much; --microbatches {least} fits" if least else ", too much"
        )

    def _time(self) -> str:
        if self.speed is None or self.seconds_per_step is None:
            return f"{self.step_flops / 1e12:,.3g} TFLOPs"
        whole = self.seconds_per_step * self.training.steps
        return (
            f"{duration(self.seconds_per_step)} on {self.device} here, {duration(whole)} for "
            f"{self.training.steps:,} steps; by {self.speed.how}"
        )


def gib(n: float) -> str:
    """Bytes in the unit that reads best."""
    return f"{n / 2**30:,.2f} GiB" if n >= 2**28 else f"{n / 2**20:,.3g} MiB"


def duration(seconds: float) -> str:
    """In the unit that reads best."""
    for unit, length in (("years", YEAR), ("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length:
            n = seconds / length
            return f"{n:,.0f} {unit}" if n >= 100 else f"{n:.3g} {unit}"
    return f"{seconds:.2g} s"
