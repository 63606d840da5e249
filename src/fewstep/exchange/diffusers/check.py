"""Whether a pipeline of diffusers gives the images that this package gives."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.exchange.diffusers.parts import Pipeline
from fewstep.exchange.diffusers.writing import timesteps
from fewstep.flow_map import FlowMap
from fewstep.sampling import NoiseStreams, sampler_for

ROWS, STEPS = 2, 2
TOLERANCES = {"ConsistencyModelPipeline": 1e-4, "DDIMPipeline": 2e-3}
"""The largest difference that is rounding; alphas of DDPM's chain are float32 products there, of
which a first step divides by the smallest."""
LOADING = {"unet": {"low_cpu_mem_usage": False}}  # which wants a package more


def difference(f: FlowMap, pipeline: Pipeline, folder: Path) -> float | None:
    """The largest difference of an image's numbers in [0, 1]; None without diffusers.

    Both draw the same noise, in float32.

    Raises:
        FewstepError: a difference that no rounding makes.
    """
    if find_spec("diffusers") is None:
        return None
    f = copy.deepcopy(f).float().eval()
    theirs, ours = _theirs(f, pipeline, folder), _ours(f, pipeline)
    found = float((theirs - ours).abs().max())
    most = TOLERANCES[pipeline.kind]
    if not found <= most:
        raise FewstepError(
            f"the {pipeline.kind} in {folder} gives images that differ by {found:.1e} from this "
            f"package's, and {most:g} is the most: it is not to be used."
        )
    return found


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _labels(f: FlowMap) -> list[int]:
    return [0, f.num_classes - 1][:ROWS]


def _theirs(f: FlowMap, pipeline: Pipeline, folder: Path) -> Tensor:
    import diffusers

    def load(name: str) -> Any:
        kind: Any = getattr(diffusers, pipeline.parts[name].kind)
        return kind.from_pretrained(str(folder / name), **LOADING.get(name, {}))

    kind: Any = getattr(diffusers, pipeline.kind)
    pipe = kind(unet=load("unet").float(), scheduler=load("scheduler"))
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"num_inference_steps": STEPS}
    if pipeline.sampler is None:
        given = {"num_inference_steps": None, "timesteps": timesteps(f, STEPS)}
    if f.num_classes:
        given["class_labels"] = _labels(f)
    images = pipe(batch_size=ROWS, generator=_generator(), output_type="pt", **given).images
    return torch.as_tensor(images)


@torch.no_grad()
def _ours(f: FlowMap, pipeline: Pipeline) -> Tensor:
    from fewstep.exchange.diffusers.pipeline import Drawn

    noise = cast("NoiseStreams", Drawn((ROWS, *f.shape), _generator()))
    label = torch.tensor(_labels(f)) if f.num_classes else None
    sampler = sampler_for(f, STEPS, sampler=pipeline.sampler)
    return (sampler(f, noise, Condition(label=label)) / 2 + 0.5).clamp(0, 1)
