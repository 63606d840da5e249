"""What holds for every training: it is counted before, goes on, and leaves a model to sample."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep.models import as_sampled, load_model
from fewstep.objectives import OBJECTIVES
from fewstep.runs.dry_run import needs_of
from fewstep.runs.run import Component, Data, Run
from fewstep.sampling import sample
from fewstep.testing.contract import contract, must
from fewstep.testing.fitting import Fitting
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer


@contract
def is_sampled_and_stored(fitting: Fitting) -> None:
    """By its own sampler, and from its file as from memory."""
    f = fitting.map()
    fitting.build(f)
    x = sample(f.eval(), 4, seed=1)
    must(x.shape == (4, *f.image_shape), f"a sample is {list(x.shape[1:])}")
    must(x.isfinite().all(), "its samples are not finite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.safetensors"
        f.save(path)
        again = as_sampled(load_model(path))
    must(again.trained == f.trained, "a stored model does not say what it can do")
    must(torch.equal(x, sample(again, 4, seed=1)), "a stored model has other samples")


@contract
def resumes_to_the_bit(fitting: Fitting) -> None:
    """A training from a checkpoint half way ends as one that was not interrupted."""
    images = replace(fitting, shape=(1, 2, 2))
    config = Training(steps=6, batch=8, warmup=0, checkpoint_every=3, sample_every=0, keep=9)
    data = images.data(32)
    with tempfile.TemporaryDirectory() as folder:
        whole, half = (Path(folder) / name for name in ("whole", "half"))
        ends = []
        for home in (whole, half):
            torch.manual_seed(0)
            o = images.build(images.map(num_classes=images.num_classes), K=config.steps)
            with redirect_stderr(io.StringIO()):  # which says that it resumes
                Trainer(o, data, config, home, quiet=True).run()
            ends.append({name: m.state_dict() for name, m in o.changing().items()})
            first = sorted((whole / "checkpoints").iterdir())[0]
            shutil.copytree(first, half / "checkpoints" / first.name, dirs_exist_ok=True)
    for name, state in ends[0].items():
        for key, value in state.items():
            same = torch.equal(value, ends[1][name][key])
            must(same, f"{key} of {name} is another one once the training was resumed")


@contract
def is_counted_by_a_dry_run(fitting: Fitting) -> None:
    """Of an objective that a run can name."""
    cls, n = fitting.objective, fitting.num_classes
    if not OBJECTIVES.holds(cls):
        return
    f = fitting.map(num_classes=n)
    run = Run(
        objective=Component(OBJECTIVES.name_of(cls), dict(fitting.settings)),
        network=_component(f.network.config),
        p=_component(fitting.p().config),
        data=Data(),
        training=Training(steps=9, batch=4),
    )
    found = needs_of(run, f.shape, n, device=torch.device("cpu"))
    must(found.parameters and found.step_flops, "a dry run finds no operations")


def _component(config: Mapping[str, Any]) -> Component:
    """The part of a run that a stored description is of."""
    from_data = ("name", "shape", "num_classes")
    return Component(config["name"], {k: v for k, v in config.items() if k not in from_data})
