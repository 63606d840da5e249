"""What objectives make."""

from __future__ import annotations

from fewstep.trained.refusals import Trained

DIFFUSION = Trained(ends="denoiser", sampler="walk")
"""A diffusion model: its denoiser ``f.D`` at every time."""
NESTED = Trained("steps", "denoiser", "nested_ddim", steps=1)
"""The denoiser at the times of so many nested DDIM steps, of progressive distillation."""
CONSISTENCY = Trained(ends="eps", sampler="jumps")
"""A consistency model: ``f(x, t)`` from every time."""
GENERATOR = Trained("T", "eps", "jumps", steps=1)
"""A generator: ``f(x_T, T)`` alone."""
FLOW_MAP = Trained(ends="any", sampler="jumps(gamma=0)")
"""A flow map: ``f(x, t, s)`` for all ``s <= t``, the denoiser at ``s = t`` among them."""
AUTOENCODER = Trained("prior", "image", "prior", steps=1)
"""An autoencoder: images of latents."""
