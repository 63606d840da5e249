"""How to train: one flat record, stored with the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from fewstep.errors import FewstepError, unknown
from fewstep.papers import Also, Cited
from fewstep.whole import whole

OptimizerName = Literal["radam", "adam", "adamw"]
Decay = Literal["constant", "cosine", "linear"]
Precision = Literal["fp32", "tf32", "bf16"]
SpikeRule = Literal["damp", "skip"]

EVERY = ("log_every", "sample_every", "checkpoint_every")
WHOLE = ("steps", "batch", "seed", "warmup", "samples", "keep", *EVERY)

CHOICES = {
    "optimizer": get_args(OptimizerName),
    "decay": get_args(Decay),
    "precision": get_args(Precision),
    "spikes": get_args(SpikeRule),
}


@dataclass(frozen=True, kw_only=True)
class Training(Cited):
    """Everything about a training that is not the model, the objective or the data."""

    also_cites = (
        Also("optimizer", "kingma2015adam", lambda name: name == "adam"),
        Also("optimizer", "loshchilov2019decoupled", lambda name: name == "adamw"),
        Also("optimizer", "liu2020variance", lambda name: name == "radam"),
        Also("decay", "loshchilov2017sgdr", lambda name: name == "cosine"),
        Also("augment", "karras2020training"),
    )

    steps: int = 100_000
    """Optimiser steps."""
    batch: int = 128
    """Images per step, over all processes."""
    microbatches: int | None = None
    """Parts that a batch is computed in, over all processes: gradient accumulation. Each part has
    its own random numbers, so runs with the same number agree whatever the number of processes.
    Default: one per process."""
    seed: int = 0
    """Decides initialisation, data order, noise and dropout."""
    optimizer: OptimizerName = "radam"
    """Optimiser."""
    lr: float = 1e-4
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the optimiser's moments."""
    weight_decay: float = 0.0
    """Weight decay (decoupled for adamw)."""
    warmup: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    decay: Decay = "constant"
    """What the learning rate does after the warm-up: stay, or fall to 0, as a half cosine or on a
    line; in progressive distillation anew in every round."""
    clip: float | None = None
    """Largest norm of the gradient; longer ones are scaled down."""
    spike: float | None = None
    """A gradient whose norm is more than so many times its running scale is a spike, such as 10.
    Spikes are counted in the log. Default: they are not looked for."""
    spikes: SpikeRule = "damp"
    """What becomes of a spike: scaled down to that multiple, or its step skipped."""
    ema: tuple[float, ...] = (0.9999,)
    """Running averages of the weights, each a decay per step (below 1) or a half-life in images
    (1 and above). The first is the one that is sampled and evaluated. The initial weights have no
    share in them."""
    ema_rampup: float = 0.05
    """The half-life of an average is at most this part of the training so far (EDM), so that a
    short training is not averaged with its beginning; 0 for no such limit."""
    precision: Precision = "fp32"
    """Arithmetic: fp32, tf32 (products and convolutions of recent GPUs in 10 bits), or bf16."""
    deterministic: bool = True
    """On a GPU take only algorithms that give the same bits every time. Without it cuDNN times
    what it has and takes the fastest; a run that was resumed then agrees to rounding alone."""
    compile: bool = False
    """Compile the loss with torch.compile: minutes at the start, then faster on a GPU."""
    cuda_graphs: bool | None = None
    """On an NVIDIA GPU record the kernels of a step once and replay them, to the same bits: many
    times faster where a process has few images, since nothing waits for Python. Default: with
    compile and up to 64 images at once, for objectives and networks of this package."""
    flip: bool = False
    """Mirror half of the images left to right."""
    augment: float = 0.0
    """Probability of each of EDM's augmentations: turned, scaled, stretched, shifted, mirrored. The
    network is told which, so that samples do not show them; for small sets of images."""
    guidance: float | None = None
    """Guidance weight that the model is sampled with where none is asked for, as are its previews
    in training; for a network with label_dropout."""
    log_every: int = 50
    """Steps between two lines of the log."""
    sample_every: int = 1000
    """Steps between two sample grids and validations; 0 for none."""
    samples: int = 256
    """Samples per validation; the grid shows at most 64. The error of the score that tells the best
    checkpoint falls with their root."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints. Whenever the rarer of validations and checkpoints is due, both
    are: a score is of the weights that it is stored with."""
    log: tuple[str, ...] = ()
    """Loggers beside TensorBoard and metrics.jsonl, each a spec: wandb, mlflow, trackio, or such as
    wandb(project=cats). They see numbers, samples and settings. One that fails, without a network
    or a login, is left out with one line."""
    keep: int = 2
    """Checkpoints that are kept besides the best, and the lowest score's if that is another."""

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("steps", "batch", "log_every", "checkpoint_every", "keep", "samples"):
            if getattr(self, name) < 1:
                raise FewstepError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("seed", "warmup", "sample_every", "weight_decay", "ema_rampup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise FewstepError(f"{name} must be a number >= 0, got {getattr(self, name)}.")
        if not 0 < self.lr < math.inf:
            raise FewstepError(f"lr must be positive, got {self.lr}.")
        if not 0 <= self.augment <= 1:
            raise FewstepError(f"augment must be a probability from 0 to 1, got {self.augment}.")
        if self.augment and self.flip:
            raise FewstepError(
                "augment mirrors half of the images, too: leave out flip (--no-flip)."
            )
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise FewstepError(f"guidance is a weight from 0 on, got {self.guidance}.")
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise FewstepError(f"betas must be in [0, 1), got {self.betas}.")
        if self.clip is not None and not self.clip > 0:
            raise FewstepError(f"clip must be positive, got {self.clip}.")
        if self.spike is not None and not 1 < self.spike < math.inf:
            raise FewstepError(f"spike is a multiple above 1, got {self.spike}.")
        if not self.ema or any(not 0 < value < math.inf or value == 1 for value in self.ema):
            raise FewstepError(
                f"ema takes decays between 0 and 1 or half-lives in images above 1, got {self.ema}."
            )
        if len(set(self.ema)) < len(self.ema):
            raise FewstepError(f"ema names an average twice: {self.ema}.")
        parts = self.microbatches
        if parts is not None and (parts < 1 or self.batch % parts):
            raise FewstepError(f"microbatches={parts} must divide batch={self.batch}.")

    def _check_types(self) -> None:
        """Raise `FewstepError` for what is no number, not whole where it must be, or no choice."""
        for name in WHOLE:
            whole(getattr(self, name), name)
        for name, known in CHOICES.items():
            if (given := getattr(self, name)) not in known:
                raise unknown(name, str(given), known)
        if isinstance(self.log, str) or any(not isinstance(spec, str) for spec in self.log):
            raise FewstepError(f"log takes a tuple of specs such as ('wandb',), got {self.log!r}.")
        for name in ("lr", "weight_decay", "ema_rampup", "augment", "betas", "ema"):
            given = getattr(self, name)
            several = isinstance(given, tuple | list)
            if several != (name in ("betas", "ema")):
                raise FewstepError(f"{name} takes {'no' if several else 'a'} tuple, got {given!r}.")
            for value in given if several else (given,):
                if not isinstance(value, Real):
                    raise FewstepError(f"{name} takes numbers, got {given!r}.")

    def lr_at(self, k: int, start: int = 0, end: int | None = None) -> float:
        """Learning rate of step ``k`` (the first is 0): linear warm-up, then `decay`.

        Args:
            k: the step.
            start: first step of the round that ``k`` is in.
            end: first step after that round; default the end of the training.
        """
        k, steps = k - start, (self.steps if end is None else end) - start
        if k < self.warmup:
            return self.lr * (k + 1) / self.warmup
        if self.decay == "constant":
            return self.lr
        progress = (k - self.warmup) / max(1, steps - self.warmup)
        if self.decay == "linear":
            return self.lr * max(0.0, 1 - progress)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))

    def ema_decay(self, value: float, k: int) -> float:
        """Decay ``mu_k`` per step of the average ``value`` after step ``k``.

        A half-life of ``h`` images is ``0.5^(batch / h)``. Either kind looks back no further than
        a half-life of ``ema_rampup`` times the steps so far (Karras et al. 2022, training code's
        ramp-up): a decay of 0.9999 is reached at step 138,622.
        """
        decay = value if value < 1 else 0.5 ** (self.batch / value)
        if self.ema_rampup:
            seen = (k + 1) * self.batch
            decay = min(decay, 0.5 ** (self.batch / (seen * self.ema_rampup)))
        return decay
