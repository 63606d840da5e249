"""What a recipe would need, without training and, where its image size is known, without data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from fewstep.flow_map import FlowMap
from fewstep.networks import NETWORKS, skeleton
from fewstep.objectives import OBJECTIVES, TeacherUse
from fewstep.parameterization import from_config
from fewstep.recipes.execute import arguments_of, open_autoencoder
from fewstep.recipes.parts import load_data
from fewstep.recipes.run import Run

BYTES = 4  # of a weight, a gradient and a moment in float32


@dataclass(frozen=True)
class DryRun:
    """What a run needs.

    Args:
        shape: of an image (C, H, W), or of a latent.
        num_classes: 0 for an unconditional network.
        parameters: trained ones.
        flops: floating-point operations of one network evaluation of one image.
        copies: of all parameters that training holds, by what they are.
    """

    shape: tuple[int, ...]
    num_classes: int
    parameters: int
    flops: int
    copies: dict[str, int]

    @property
    def state_bytes(self) -> int:
        """Memory of all copies, in bytes; activations come on top."""
        return sum(self.copies.values()) * self.parameters * BYTES

    def __str__(self) -> str:
        classes = f"{self.num_classes} classes" if self.num_classes else "no classes"
        held = ", ".join(f"{n} x {what}" if n > 1 else what for what, n in self.copies.items())
        return (
            f"examples      {self.shape}, {classes}\n"
            f"network       {self.parameters:,} parameters\n"
            f"evaluation    {self.flops / 1e9:,.4g} GFLOPs an image\n"
            f"training      {self.state_bytes / 2**30:,.2f} GiB for {held}; activations on top"
        )


def dry_run(run: Run) -> DryRun:
    """Build the run's network on the meta device, which has no memory, and count.

    Raises:
        FewstepError: settings that do not work; data that cannot be read where they are needed to
            know the size of an image or the number of classes; no autoencoder where one is named.
    """
    shape, num_classes = _shape_and_classes(run)
    if run.autoencoder is not None:
        shape = open_autoencoder(run.autoencoder).latent_shape
    arguments = {"shape": shape, "num_classes": num_classes, **run.network.arguments}
    with skeleton():
        F = NETWORKS.call(run.network.name, arguments)
    F.to("meta")
    f = FlowMap(F, from_config({"name": run.p.name, **run.p.arguments}))
    parameters = sum(p.numel() for p in F.parameters())
    return DryRun(shape, F.num_classes, parameters, _flops(f), _copies(run, f))


def _shape_and_classes(run: Run) -> tuple[tuple[int, ...], int]:
    """From the settings, or from the data where they do not say."""
    size, channels = run.data.size, run.data.channels
    told = run.network.arguments.get("num_classes")
    if size is not None and channels is not None and (told is not None or not run.data.labels):
        return (channels, size, size), told or 0
    data = load_data(run)
    return tuple(data.shape), data.num_classes if run.data.labels else 0


def _flops(f: FlowMap) -> int:
    x = torch.empty(1, *f.shape, device="meta")
    condition = {"label": torch.zeros(1, dtype=torch.int64, device="meta")} if f.num_classes else {}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        f.F.eval()(x, torch.empty(1, device="meta"), **condition)
    return int(counter.get_total_flops())


def _copies(run: Run, f: FlowMap) -> dict[str, int]:
    """How many numbers training holds per parameter, by what they are."""
    teacher_use = getattr(OBJECTIVES[run.objective.name], "teacher_use", TeacherUse.NONE)
    copies = {"weights": 1, "gradients": 1, "optimiser": 2, "averages": len(run.training.ema)}
    arguments = {"f": f, "K": run.training.steps, **run.objective.arguments}
    if "distance" in arguments_of("objective", run.objective.name):
        arguments["distance"] = "l2"  # a learned one has weights that would have to be there
    if teacher_use is TeacherUse.DISTIL:
        arguments["teacher"] = f
        copies["teacher"] = 1
    objective = OBJECTIVES.call(run.objective.name, arguments)
    if "f_minus" in objective.changing():
        copies["target"] = 1
    return copies
