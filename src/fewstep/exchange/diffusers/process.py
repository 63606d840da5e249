"""What a scheduler of diffusers says of a model: its process, and how its pipeline samples it.

Diffusers gives every default by itself, so that the scheduler is built by its own class and asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError, listed
from fewstep.networks.diffusers.library import library
from fewstep.parameterization.chain import BETAS, GIVEN
from fewstep.spec import written

PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
"""What a network predicts, by diffusers' name for it and by ours."""
LEAST_SIGNAL = 2.0**-24
"""``alpha^2`` of a last step without any signal, as in diffusers' own EulerDiscreteScheduler."""
ASSUMED: Mapping[str, Any] = {"_class_name": "DDPMScheduler"}
"""The scheduler of a network that came without one: DDPM's."""


@dataclass(frozen=True)
class Scheduled:
    """What a scheduler says.

    Args:
        process: name and arguments of the parameterization.
        time_scale: what the network takes ``c_noise`` by.
        sampler: spec of the sampler that walks as the scheduler does; None where there is none.
        consistency: whether the model is a consistency model.
        notes: what was assumed or changed, a line each.
    """

    process: Mapping[str, Any]
    time_scale: float = 1.0
    sampler: str | None = None
    consistency: bool = False
    notes: tuple[str, ...] = ()


def scheduled(config: Mapping[str, Any], *, latent: bool, source: object) -> Scheduled:
    """What the scheduler of a ``scheduler_config.json`` says.

    Args:
        config: its settings.
        latent: whether it is of a latent space, whose deviation is 1.
        source: the file, for messages.

    Raises:
        FewstepError: a scheduler that is not known, or settings that there is no process for.
    """
    name = str(config.get("_class_name"))
    if name not in SCHEDULERS:
        raise FewstepError(
            f"{source} is of the scheduler {name}, which is not known here: {listed(SCHEDULERS)}. "
            "Say its process and what the network is: --process PROCESS, and --as diffusion or "
            "--as consistency."
        )
    try:
        scheduler: Any = getattr(library(), name).from_config(dict(config))
    except (AttributeError, ValueError, TypeError, NotImplementedError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FewstepError(f"{source}: diffusers cannot build its {name}: {reason}.") from error
    try:
        return SCHEDULERS[name](scheduler, {"sigma_data": 1.0} if latent else {})
    except FewstepError as error:
        raise FewstepError(f"{source}: {error}") from error


def of_chain(scheduler: Any, more: dict[str, Any]) -> Scheduled:
    """DDPM's chain of steps, or a flow that such a scheduler walks along."""
    config, notes = scheduler.config, []
    kind = config.get("prediction_type", "epsilon")
    if config.get("timestep_type") == "continuous":
        raise FewstepError(
            "its timestep_type is continuous, which tells the network the noise level: give "
            '--process, such as "edm(sigma_data=1.0)".'
        )
    if kind == "flow_prediction":
        return _of_flow(scheduler, more, None)
    if kind not in PREDICTIONS:
        raise FewstepError(f"its prediction_type {kind!r} is not known: {listed(PREDICTIONS)}.")
    betas, N = _betas(scheduler), int(config["num_train_timesteps"])
    if config.get("rescale_betas_zero_snr"):
        notes.append(
            "its last step has no signal, and is taken to have alpha^2 = 2^-24, as diffusers' "
            "EulerDiscreteScheduler does"
        )
    sampler = WALKS.get(type(scheduler).__name__, lambda config: None)(config)
    process = {
        "name": "vp_discrete",
        "eps": 1 / N,
        "prediction": PREDICTIONS[kind],
        "time_scale": float(N - 1),
        "N": N,
        **_named(betas, config),
        **more,
    }
    return Scheduled(process, sampler=sampler, notes=tuple(notes))


def _betas(scheduler: Any) -> Tensor:
    """In double precision [N]."""
    if not scheduler.config.get("rescale_betas_zero_snr"):
        return scheduler.betas.double()
    kept = scheduler.alphas_cumprod.double()
    kept[-1] = LEAST_SIGNAL
    return 1 - kept / torch.cat([torch.ones(1).double(), kept[:-1]])


def _named(betas: Tensor, config: Mapping[str, Any]) -> dict[str, Any]:
    """The formula of betas, or where they follow none themselves."""
    ends = (float(config.get("beta_start", betas[0])), float(config.get("beta_end", betas[-1])))
    for name, formula in BETAS.items():
        if torch.allclose(formula(len(betas), *ends), betas, rtol=1e-4, atol=1e-7):
            return {"betas": name, "beta_1": ends[0], "beta_N": ends[1]}
    return {"betas": GIVEN, "given": tuple(betas.tolist())}


def of_flow(scheduler: Any, more: dict[str, Any]) -> Scheduled:
    """Straight lines from noise to data; the network is told ``1000 t``."""
    config = scheduler.config
    if config.get("invert_sigmas"):
        raise FewstepError(
            "its time runs from data to noise (invert_sigmas), which none here does."
        )
    odd = ("use_dynamic_shifting", "shift_terminal", "stochastic_sampling", *OTHER_SIGMAS)
    solver = {"FlowMatchHeunDiscreteScheduler": "heun"}.get(type(scheduler).__name__, "euler")
    plain = not any(config.get(name) for name in odd)
    shift = float(config.get("shift", 1.0))
    grid = {"shift": shift} if shift != 1 else {}
    grid |= {"last": round(float(scheduler.sigma_min), 9)}
    sampler = f"walk(solver={solver}, grid={written('flow', grid)})" if plain else None
    return _of_flow(scheduler, more, sampler)


def _of_flow(scheduler: Any, more: dict[str, Any], sampler: str | None) -> Scheduled:
    scale = float(scheduler.config["num_train_timesteps"])
    return Scheduled({"name": "rectified_flow", **more}, time_scale=scale, sampler=sampler)


def of_edm(scheduler: Any, more: dict[str, Any]) -> Scheduled:
    """EDM's process and preconditioning."""
    config = scheduler.config
    if config["prediction_type"] != "epsilon":
        raise FewstepError(
            f"its prediction_type {config['prediction_type']!r} turns the sign of EDM's output, "
            "which is not known here."
        )
    solver = {"EDMEulerScheduler": "euler"}.get(type(scheduler).__name__)
    if solver is None and config.get("solver_order") == 2 and not config.get("thresholding"):
        solver = "dpmpp_2m(denoise=True)"
    plain = config["sigma_schedule"] == "karras" and config["final_sigmas_type"] == "zero"
    grid = written("karras", {"rho": config["rho"]})
    sampler = _walk(solver, grid, unit=False) if solver is not None and plain else None
    return Scheduled(_noise_levels(config), sampler=sampler)


def of_consistency(scheduler: Any, more: dict[str, Any]) -> Scheduled:
    """A consistency model in EDM's process; the network is told ``1000 ln(t) / 4``."""
    config = scheduler.config
    clip = "jumps(clip=True)" if config["clip_denoised"] else "jumps"
    return Scheduled(
        _noise_levels(config),
        time_scale=1000.0,
        sampler=clip if config["s_noise"] == 1 else None,
        consistency=True,
    )


def _noise_levels(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {"eps": "sigma_min", "T": "sigma_max", "sigma_data": "sigma_data"}
    return {"name": "edm"} | {ours: float(config[theirs]) for ours, theirs in names.items()}


# How a scheduler walks

OTHER_SIGMAS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
)
"""Settings by which a scheduler chooses other points than steps of the chain."""
Config = Mapping[str, Any]


def _chain(
    config: Config, *, rounded: bool = True, beyond: bool = False, ends: bool = False
) -> str:
    """The grid of a scheduler's steps."""
    spacing = config["timestep_spacing"]
    spacing = "even" if spacing == "linspace" and not rounded else spacing
    offset = config["steps_offset"] if spacing == "leading" else 0
    given = {
        "spacing": spacing if spacing != "leading" else None,
        "offset": offset,
        "beyond": beyond and spacing != "trailing",
        "ends": ends,
    }
    return written("chain", {name: value for name, value in given.items() if value})


def _walk(solver: str, grid: str, *, clip: bool = False, unit: bool = True) -> str:
    more = {name: True for name, said in {"clip": clip, "unit": unit}.items() if said}
    return written("walk", {"solver": solver, "grid": grid, **more})


def _clips(config: Config) -> bool | None:
    """Whether ``D`` is clipped to [-1, 1]; None where it is to something else."""
    if config.get("thresholding"):
        return None
    clips = bool(config.get("clip_sample"))
    return None if clips and config["clip_sample_range"] != 1 else clips


def _ddpm(config: Config) -> str | None:
    variances = {"fixed_small": "", "fixed_small_log": "", "fixed_large": "(large=True)"}
    clip, variance = _clips(config), variances.get(config["variance_type"])
    if clip is None or variance is None:
        return None
    return _walk(f"ancestral{variance}", _chain(config), clip=clip)


def _ddim(config: Config) -> str | None:
    clip, spacing = _clips(config), config["timestep_spacing"]
    if clip is None or spacing == "linspace":  # whose steps end between the points
        return None
    ends = not config["set_alpha_to_one"]
    if ends and not (spacing == "leading" and config["steps_offset"] > 0):
        return None
    given = {"denoise": False} if ends else {}
    given |= {"free_noise": True} if clip else {}
    return _walk(written("ddim", given), _chain(config, ends=ends), clip=clip)


def _dpm(config: Config) -> str | None:
    solver = {1: "ddim", 2: "dpmpp_2m(denoise=True)"}.get(config["solver_order"])
    plain = (
        config["algorithm_type"] == "dpmsolver++"
        and config["solver_type"] == "midpoint"
        and config["final_sigmas_type"] == "zero"
        and config["lambda_min_clipped"] == -float("inf")
        and not any(config.get(name) for name in ("thresholding", *OTHER_SIGMAS))
    )
    return _walk(solver, _chain(config, beyond=True)) if plain and solver else None


def _in_noise_levels(solver: str) -> Callable[[Config], str | None]:
    """The walk of a scheduler that scales as if the variance exploded."""

    def walk(config: Config) -> str | None:
        clip = _clips(config)
        odd = any(config.get(name) for name in OTHER_SIGMAS)
        if odd or clip is None or config.get("final_sigmas_type", "zero") != "zero":
            return None
        unit = config["timestep_spacing"] == "leading"
        return _walk(solver, _chain(config, rounded=False), clip=clip, unit=unit)

    return walk


WALKS: Mapping[str, Callable[[Config], str | None]] = {
    "DDPMScheduler": _ddpm,
    "DDPMParallelScheduler": _ddpm,
    "DDIMScheduler": _ddim,
    "DDIMParallelScheduler": _ddim,
    "DPMSolverMultistepScheduler": _dpm,
    "EulerDiscreteScheduler": _in_noise_levels("ddim"),
    "EulerAncestralDiscreteScheduler": _in_noise_levels("ddim(eta=1.0)"),
    "HeunDiscreteScheduler": _in_noise_levels("in_noise_level"),
}
"""The schedulers of a chain that a sampler here walks as, point by point."""
OTHER_WALKS = (
    "PNDMScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
)
"""Those of a chain that none does."""

SCHEDULERS: Mapping[str, Callable[[Any, dict[str, Any]], Scheduled]] = {
    **dict.fromkeys((*WALKS, *OTHER_WALKS), of_chain),
    "FlowMatchEulerDiscreteScheduler": of_flow,
    "FlowMatchHeunDiscreteScheduler": of_flow,
    "EDMEulerScheduler": of_edm,
    "EDMDPMSolverMultistepScheduler": of_edm,
    "CMStochasticIterativeScheduler": of_consistency,
}
"""The schedulers that are known."""
