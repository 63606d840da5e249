"""Any model of this package as a pipeline of diffusers, with its own samplers.

What ``fewstep export --to diffusers`` writes for a model that diffusers itself has no network or
process for: the folder's code is one line that imports this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fewstep.condition import Condition
from fewstep.exchange.diffusers.writing import WEIGHTS, write_pipeline
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.precision import DTYPES
from fewstep.sampling import Labels, NoiseStreams, Sampler, check_labels, sampler_for

Generators = torch.Generator | Sequence[torch.Generator] | None


class FewstepModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A model of this package as a component of a pipeline.

    Args:
        f: the model.
    """

    config_name = "config.json"

    def __init__(self, f: FlowMap) -> None:
        super().__init__()
        self.f = f

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, torch_dtype: torch.dtype | None = None, **_: Any
    ) -> FewstepModel:
        """The model of a component's folder; its network in another type where one is asked for."""
        f = FlowMap.load(Path(folder) / WEIGHTS)
        if torch_dtype is not None:
            f.in_precision(_precision(torch_dtype))
        return cls(f)

    def forward(self, x: Tensor, t: Tensor | float, class_labels: Tensor | None = None) -> Tensor:
        """The denoised image of a diffusion model, or the map of a consistency model: [B, ...]."""
        condition = Condition(label=class_labels)
        f = self.f
        return f.D(x, t, condition) if f.trained.denoises else f(x, t, condition=condition)


def _precision(dtype: torch.dtype) -> Any:
    return next((name for name, known in DTYPES.items() if known == dtype), "fp32")


class Drawn:
    """Noise from a generator of torch, or one for each row; the first draw may be given.

    It has the face of `fewstep.sampling.NoiseStreams`.

    Args:
        shape: of all rows of a draw.
        generator: as diffusers' pipelines take it; None is torch's own.
        first: standard normal noise to begin with.
    """

    def __init__(
        self, shape: tuple[int, ...], generator: Generators, first: Tensor | None = None
    ) -> None:
        self.shape, self.generator, self.first = shape, generator, first

    def normal(
        self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The next draw."""
        drawn, self.first = self.first, None
        if drawn is None:
            at = torch.device(device)
            drawn = randn_tensor(self.shape, self.generator, device=at, dtype=dtype)
        return drawn.to(device, dtype)


class FewstepPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Images of a model of this package.

    Args:
        model: the model.
    """

    model_cpu_offload_seq = "model"
    model: FewstepModel

    def __init__(self, model: FewstepModel) -> None:
        super().__init__()
        self.register_modules(model=model)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int | None = None,
        class_labels: Labels | None = None,
        guidance_scale: Guided | float | str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        sampler: Sampler | str | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Images.

        Args:
            batch_size: how many.
            num_inference_steps: jumps of a consistency model or a flow map, steps of a diffusion
                model's solver; default the model's own.
            class_labels: one class by name or number for all, or one for each; default any.
            guidance_scale: classifier-free guidance, 1 for none; default the model's own.
            generator: of the noise, or one for each image.
            latents: standard normal noise to begin with [batch_size, *shape]; default drawn.
            sampler: a sampler of this package or its spec; default the model's own.
            output_type: "pil", "np" [B, H, W, C] or "pt" [B, C, H, W], the latter two from 0 to 1.
            return_dict: an object with ``images``, or else a tuple with them alone.

        Raises:
            FewstepError: what the model cannot do.
        """
        f = self.model.f.eval()
        own = sampler_for(f, num_inference_steps, sampler=sampler, guidance=guidance_scale).fitted(
            f
        )
        label = check_labels(f, self._any(class_labels, batch_size, generator), batch_size)
        noise = cast("NoiseStreams", Drawn((batch_size, *f.shape), generator, latents))
        condition = Condition(label=label).to(f.device)
        states = self.progress_bar(own.states(f, noise, condition))
        (x,) = deque(states, maxlen=1)
        images = self._as(output_type, (f.image(x) / 2 + 0.5).clamp(0, 1))
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _any(self, labels: Labels | None, n: int, generator: Generators) -> Labels | None:
        """Random classes where none are asked for, which leave the noise as it is."""
        if labels is not None or not self.model.f.num_classes:
            return labels
        first = generator[0] if isinstance(generator, Sequence) else generator
        own = None if first is None else torch.Generator().manual_seed(first.initial_seed())
        return torch.randint(self.model.f.num_classes, (n,), generator=own)

    def _as(self, kind: str, images: Tensor) -> Any:
        if kind == "pt":
            return images
        array = images.float().cpu().permute(0, 2, 3, 1).numpy()
        return self.numpy_to_pil(array) if kind == "pil" else array

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """The folder of this pipeline, as ``fewstep export --to diffusers`` writes it."""
        write_pipeline(self.model.f, Path(save_directory))
