"""What the schedulers of diffusers make of a network and a noise, for the tests of our samplers.

    python benchmarks/diffusers_parity.py

The network is a formula of its input and of the time that it is told, so that the tests need no
diffusers. Each scheduler walks from the noise of a seed, and draws the seed's further noise on the
way. Its settings, the process that they mean, the sampler of ours that walks alike, and the images
go to tests/references/diffusers.json.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.sampling import NoiseStreams

TO = Path(__file__).parent.parent / "tests/references/diffusers.json"
SEED, SHAPE = 7, (1, 2, 2)
SPACINGS = ("leading", "trailing", "linspace")


def network(x: Tensor, t: Tensor) -> Tensor:
    """Smooth in both, and bounded: at ``x`` [B, ...] and the network's own time ``t`` [B]."""
    phase = t.reshape(-1, *[1] * (x.ndim - 1)) / 400
    return torch.tanh(1.5 * x + phase.cos()) * 0.9 + 0.2 * x.flip(-1) + 0.1 * phase.sin()


def streams() -> NoiseStreams:
    """The noise of two images."""
    return NoiseStreams(SEED, range(2), SHAPE)


CASES: tuple[tuple[str, dict[str, Any], int, dict[str, Any]], ...] = (
    *(("DDPMScheduler", {"timestep_spacing": s}, 10, {}) for s in SPACINGS),
    ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}, 8, {}),
    *(
        ("DDIMScheduler", {"timestep_spacing": s, "clip_sample": False}, 10, {"eta": eta})
        for s in SPACINGS[:2]
        for eta in (0.0, 1.0)
    ),
    ("DDIMScheduler", {"prediction_type": "v_prediction"}, 8, {}),
    (
        "DDIMScheduler",
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "clip_sample": False,
        },
        7,
        {},
    ),
    *(("DPMSolverMultistepScheduler", {"timestep_spacing": s}, 6, {}) for s in SPACINGS),
    ("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2"}, 9, {}),
    *(("EulerDiscreteScheduler", {"timestep_spacing": s}, 10, {}) for s in SPACINGS),
    ("EulerAncestralDiscreteScheduler", {}, 10, {}),
    *(("HeunDiscreteScheduler", {"timestep_spacing": s}, 4, {}) for s in SPACINGS),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 5, {}),
    ("FlowMatchHeunDiscreteScheduler", {}, 4, {}),
    ("CMStochasticIterativeScheduler", {}, 1, {}),
    ("CMStochasticIterativeScheduler", {"clip_denoised": False}, 2, {}),
)


def walked(scheduler: Any, noise: NoiseStreams, steps: int, how: dict[str, Any]) -> Tensor:
    """The images of a scheduler's own loop."""
    module: Any = sys.modules[type(scheduler).__module__]
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = lambda *_, **__: noise.normal()
    scheduler.set_timesteps(steps)
    x = noise.normal() * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(seen, t.float().expand(2)), t, x, **how).prev_sample
    return x


def cases() -> Iterator[dict[str, Any]]:
    import diffusers

    from fewstep.exchange.diffusers.process import scheduled

    for name, settings, steps, how in CASES:
        scheduler = getattr(diffusers, name)(**settings)
        config = {"_class_name": name, **settings}
        said = scheduled(config, latent=False, source=name)
        x = walked(scheduler, streams(), steps, how)
        sigmas = getattr(scheduler, "sigmas", torch.zeros(0))
        sampler = said.sampler
        if how.get("eta") and sampler is not None:
            sampler = sampler.replace("solver=ddim", f"solver=ddim(eta={how['eta']})")
        yield {
            "scheduler": config,
            "steps": steps,
            "process": said.process,
            "time_scale": said.time_scale,
            "sampler": sampler,
            "times": sigmas[1:-1].tolist() if said.consistency else None,
            "x": x.flatten().tolist(),
        }


def main() -> None:
    found = list(cases())
    assert all(math.isfinite(number) for case in found for number in case["x"])
    TO.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{TO}: {len(found)} walks")


if __name__ == "__main__":
    main()
