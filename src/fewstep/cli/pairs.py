"""``fewstep pairs RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.cli.sampling import How, opening
from fewstep.distributed import processes
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.engines import Torch
from fewstep.models import as_map
from fewstep.runs.opening import open_model
from fewstep.runs.pairs import Wish, make_pairs


def pairs(
    model: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    n: Annotated[Whole, Parameter(alias="-n")] = 20_000,
    how: How | None = None,
    seed: Whole = 0,
    trajectory: Whole | None = None,
    checkpoint: str = "last",
    ema: str | None = None,
    batch: Whole | None = None,
    device: str | None = None,
) -> None:
    """Make pairs of noise and sample with a diffusion model, to distil it from.

    The samples are solutions of the model's PF-ODE, so that the sampler draws no noise on the way;
    all classes in turn. The folder is given to train as --data. Interrupted, the same command goes
    on where it was; pairs that are there are not made again.

    Examples:
      fewstep pairs runs/digits-edm -o runs/pairs
      fewstep pairs runs/digits-edm -n 20000 --solver heun --steps 18 --seed 0 -o runs/pairs
      fewstep pairs runs/mean-flow --sampler "jumps(gamma=0, steps=4)" -o runs/jumped
      fewstep pairs runs/digits-edm --trajectory 4 -o runs/trajectories
      fewstep train digits/kd --teacher runs/digits-edm --data runs/pairs
      torchrun --nproc-per-node 8 -m fewstep pairs runs/cifar10-edm -n 1000000 -o runs/pairs

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME of a diffusion model.
    out
        Folder for the pairs.
    n
        Number of pairs.
    seed
        Decides the noise.
    trajectory
        Also keep this many states of each trajectory, the sample among them.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    batch
        Pairs at once, a matter of memory and speed; default 256, or 32
        on a CPU where the network is no mlp.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    """
    if trajectory is not None and trajectory < 1:
        raise FewstepError(f"--trajectory must keep at least 1 state, got {trajectory}.")
    asked = (how or How()).asked()
    group = processes(device)
    stored = open_model(model, checkpoint=checkpoint, ema=ema, device=group.device)
    f = as_map(stored, "making pairs")
    asked = asked.opened(opening(Torch(), group.device))
    wish = Wish(n=n, how=asked, seed=seed, trajectory=trajectory or 0, batch=batch)
    made = make_pairs(f, out, wish, model=model, group=group)
    if group.first:
        steps = f"{made.steps} step{'' if made.steps == 1 else 's'}"
        print(f"{out}: {made.n} pairs by {model}, {made.solver} with {steps}")


app = command(pairs)
