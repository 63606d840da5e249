"""Which sampler suits a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.sampling.samplers import Multistep, NestedDDIM, Prior, Sampler, Walk
from fewstep.schedules import TimeGrid, karras_grid
from fewstep.solvers import SOLVERS, Integrator
from fewstep.trained import SOLVER_STEPS
from fewstep.whole import whole

MOST = 100_000  # steps: more are a slip of the pen, and their times would fill the memory


def default_taus(f: FlowMap, steps: int) -> tuple[float, ...]:
    """Time points for ``steps`` network evaluations of a consistency model.

    Those stored with the model where it has some for this number of steps; else the interior
    points of Karras' grid with ``steps + 1`` points.
    """
    stored = f.trained.taus.get(str(steps))
    if stored is not None:
        return stored
    return tuple(karras_grid(steps + 1, f.p, dtype=torch.float64).flip(0)[1:-1].tolist())


def sampler_for(
    f: FlowMap,
    steps: int | None = None,
    *,
    taus: Sequence[float] | None = None,
    solver: Integrator | str = "heun",
    nfe: int | None = None,
    grid: TimeGrid | str | None = None,
    clip: bool = False,
) -> Sampler:
    """The sampler that suits a model: `Multistep` for consistency models, else `Walk`.

    Args:
        f: the model.
        steps: evaluations of a consistency model (default 1), solver steps of a diffusion model
            (default 18); a model that was distilled for one number of steps has that alone.
        taus: time points of a consistency model.
        solver, grid: of a diffusion model; see `Walk`.
        nfe: network evaluations to spend exactly, instead of ``steps``.
        clip: of a diffusion model; see `Walk`.

    Raises:
        FewstepError: both or fewer than one of them, what the model has no use for, or an
            ``nfe`` that the solver cannot spend; steps or time points that a distilled model does
            not have.
    """
    if steps is not None and nfe is not None:
        raise FewstepError("give the number of steps or of network evaluations, not both.")
    steps, nfe = _count(steps, "steps"), _count(nfe, "nfe")
    count = steps if nfe is None else nfe
    if count is not None and count < 1:
        what = "step, got steps" if nfe is None else "network evaluation, got nfe"
        raise FewstepError(f"sampling needs at least 1 {what}={count}.")
    if count is not None and count > MOST:
        raise FewstepError(f"sampling takes at most {MOST} steps, got {count}.")
    trained = f.trained
    trained.check_steps(count, taus)
    if taus is None:
        trained.check_known("the sampler")
    else:
        trained.check_jumps(len(taus) + 1)
    if clip:
        trained.check_solver("clip")
    if trained.decodes:
        return Prior()
    if trained.steps is not None and trained.denoises:
        return NestedDDIM(trained.steps)
    if trained.solves:
        if clip and f.latents is not None:
            raise FewstepError("clip is for pixels; this model works on an autoencoder's latents.")
        walk = Walk(steps or SOLVER_STEPS, solver, grid, nfe, clip)
        if count is not None and SOLVERS.build(solver).adaptive:
            raise FewstepError(f"{solver} chooses its own steps: set rtol and atol instead.")
        return walk
    steps = count if count is not None else len(taus or ()) + 1
    if taus is not None and len(taus) != steps - 1:
        raise FewstepError(f"{steps} steps take {steps - 1} time points, got {len(taus)}.")
    return Multistep(tuple(taus) if taus is not None else default_taus(f, steps))


def _count(value: int | None, name: str) -> int | None:
    return None if value is None else whole(value, name)
