"""How long samples of CIFAR-10's network take."""

from __future__ import annotations

from typing import Any

import torch

from fewstep.distributed import pick_device
from fewstep.flow_map import FlowMap
from fewstep.parameterization import EDM
from fewstep.sampling import Multistep, sample
from fewstep.trained import CONSISTENCY
from gpu_parts.stage import Stage, first_call, timed
from gpu_parts.training import awake, cifar10_network

LARGE = 256


def sampling(stage: Stage) -> None:
    """One step, batch 1 and 256: `fewstep.sample` whole, noise and copies included."""
    pick_device(stage.device.type)
    for precision in ("bf16",) if stage.rehearse else ("bf16", "fp32", "fp16"):
        for batch in (1, LARGE):
            measure(stage, precision, batch)
    if stage.rehearse:
        torch.compiler.set_stance("force_eager")
    measure(stage, "bf16", 1, compile={"triton.cudagraphs": True})
    measure(stage, "bf16", LARGE, compile={})
    measure(stage, "fp32", 1, compile={"triton.cudagraphs": True})


def measure(
    stage: Stage, precision: Any, batch: int, compile: dict[str, Any] | None = None
) -> None:
    what = f"sample {precision}, batch {batch}" + ("" if compile is None else ", compiled")
    what += ", CUDA graphs" if compile else ""
    with stage.trying(what):
        if compile is not None and stage.left < 25 and not stage.rehearse:
            raise TimeoutError("no time left to compile")
        F = awake(stage, lambda: cifar10_network(stage, 0.0))
        f = FlowMap(F, EDM(), trained=CONSISTENCY)
        f = f.to(stage.device).eval().requires_grad_(False).in_precision(precision)
        f.F.to(memory_format=torch.channels_last)
        n = min(batch, 2) if stage.rehearse else batch
        if compile is not None:
            f.F.compile(options=compile)
        step = lambda: sample(f, n, Multistep(), seed=0, batch=n)  # noqa: E731
        with torch.inference_mode():
            first = first_call(stage, step)
        with stage.alone():
            times = timed(stage, step, 1.0)
        stage.report(
            what,
            first_call_s=first,
            memory_gib=stage.memory(),
            images_per_s=1e3 * n / times["ms"],
            **times,
        )
