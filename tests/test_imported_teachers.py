"""Every imported diffusion model is a teacher for every method, in its own process.

No method is known by its name: what each wants is what it declares.
"""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import foreign
from fewstep.condition import NONE, Condition
from fewstep.data import Dataset
from fewstep.distributed import processes
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.exchange.exported import to_edm
from fewstep.exchange.files.tensors import write_tensors
from fewstep.exchange.layouts import edm2
from fewstep.exchange.layouts.adm import pairs_openai
from fewstep.exchange.sources import Wanted, import_model
from fewstep.flow_map import FlowMap
from fewstep.mode import evaluating
from fewstep.models import as_map
from fewstep.needs import IMAGES, LATENTS, TRAJECTORIES, TeacherUse
from fewstep.networks import ADM, EDM2UNet, UNet
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.parameterization import EDM, PARAMETERIZATIONS, expand
from fewstep.runs.build import Build
from fewstep.runs.components import arguments_of
from fewstep.runs.directory import RunDirectory
from fewstep.runs.opening import open_model
from fewstep.runs.pairs import Wish, make_pairs
from fewstep.runs.run import Component, Data, Run
from fewstep.training.config import Training
from fewstep.training.trainer import Trainer

CLASSES = 10
STATES = 4
GUIDED = 2.0
RANGE = (1.0, 3.0)


SIZE = 8
DIFFUSION = (TeacherUse.START, TeacherUse.DISTIL)
"""What a method wants whose teacher is a diffusion model."""


@dataclass(frozen=True)
class Teacher:
    """A file of another project, what is read from it, and pairs that it made."""

    path: Path
    f: FlowMap
    pairs: Path


# Files as their authors write them


SMALL: dict[str, Any] = {"multipliers": (1,), "blocks": 1, "attention": ()}
NULL = {"label_dropout": 0.1}


def unet(**arguments: Any) -> UNet:
    return filled(UNet((3, SIZE, SIZE), channels=16, augment=9, **SMALL, **arguments))


def adm(channels: int = 64, **arguments: Any) -> ADM:
    made = ADM((3, SIZE, SIZE), channels=channels, num_classes=CLASSES, **SMALL, **arguments)
    return filled(made)


def filled(F: Any) -> Any:
    torch.manual_seed(0)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return F


def of_edm(precond: str, F: UNet | ADM, folder: Path, **state: Any) -> Path:
    """A pickle of NVlabs/edm."""
    exported = to_edm(FlowMap(F, EDM()))
    tensors = {key.removeprefix("model."): x for key, x in exported.tensors.items()}
    return pickled(precond, "model", tensors, F, folder, **state)


def pickled(
    precond: str, inside: str, tensors: dict[str, Tensor], F: Any, folder: Path, **state: Any
) -> Path:
    path = folder / f"{precond}.pkl"
    network = foreign.nested(tensors, "Network", _init_kwargs=NULL if F.num_classes else {})
    outer = foreign.Persistent(precond, _modules=OrderedDict([(inside, network)]), **state)
    with foreign.nvidia():
        path.write_bytes(pickle.dumps({"ema": outer}))
    return path


def of_edm2(folder: Path) -> Path:
    F = EDM2UNet((3, SIZE, SIZE), channels=64, num_classes=CLASSES, **SMALL)
    return pickled(
        "Precond", "unet", write_tensors(edm2.pairs(F), F.state_dict()), F, folder, sigma_data=0.5
    )


def of_guided(folder: Path) -> Path:
    """A state dict of guided-diffusion that predicts a variance as well, in half precision."""
    F = adm(128, time_scale=1.0)
    tensors = write_tensors(pairs_openai(F, heads_lead=True), F.state_dict())
    for name in ("out.2.weight", "out.2.bias"):
        tensors[name] = torch.cat([tensors[name], tensors[name]])
    torch.save({name: x.half() for name, x in tensors.items()}, folder / "64x64.pt")
    return folder / "64x64.pt"


def of_diffusers(folder: Path) -> Path:
    """The folder of a pipeline, whose network stays diffusers' own."""
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(folder / "ddpm")
    return folder / "ddpm"


FILES: dict[str, Callable[[Path], Path]] = {
    "edm": lambda folder: of_edm("EDMPrecond", unet(num_classes=CLASSES), folder, sigma_data=0.5),
    "vp": lambda folder: of_edm("VPPrecond", unet(), folder),
    "ve": lambda folder: of_edm("VEPrecond", unet(embedding="fourier"), folder),
    "adm": lambda folder: of_edm("EDMPrecond", adm(time_scale=1.0), folder, sigma_data=0.5),
    "iddpm": lambda folder: of_edm("iDDPMPrecond", adm(time_scale=1.0), folder),
    "edm2": of_edm2,
    "guided": of_guided,
    "diffusers": of_diffusers,
}


def read(name: str, folder: Path) -> Teacher:
    """A model that was imported, as a user does whose file does not say everything."""
    path = FILES[name](folder)
    if name == "guided":
        f = import_model(path, Wanted(size=SIZE, consistency=False)).f
        assert f.dtype == torch.float16
        f.trained = replace(f.trained, null_class=True)
        path = folder / "imported.safetensors"
        f.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)
        f = as_map(open_model(path), "a teacher")
    make_pairs(f, folder / "pairs", Wish(n=8, steps=STATES, trajectory=STATES), model=path)
    return Teacher(path, f.float(), folder / "pairs")


def images(f: FlowMap) -> Dataset:
    x = torch.randint(0, 256, (16, *f.shape), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % CLASSES if f.num_classes else None
    return Dataset.from_arrays(x.to(torch.uint8), labels)


def component(config: Mapping[str, Any], **more: Any) -> Component:
    kept = {k: v for k, v in config.items() if k not in ("name", "shape", "num_classes")}
    return Component(config["name"], kept | more)


def run_of(cls: type[Objective], teacher: Teacher, **asked: Any) -> Run:
    """A training of an objective on the teacher's own network, in its own process."""
    needs, f = cls.needs, teacher.f
    config = f.p.config
    if needs.processes and config["name"] not in needs.processes:
        config = PARAMETERIZATIONS.build(needs.processes[0]).config
    ends: dict[str, Any] = {"eps": 0.0} if needs.eps_zero else {}
    if needs.forms or needs.flow:
        ends["form"] = needs.forms[0] if needs.forms else "ddim"
    own: dict[str, Any] = {"two_time": True} if needs.two_time else {}
    if needs.every_class or not f.num_classes:
        own["label_dropout"] = 0.0
    if "guidance_range" in asked:
        own["guidance_embedding"] = True
    network = component(f.network.config, **own)
    if needs.network == TRAJECTORIES:
        network = Component("dfno", {"base": "mlp(width=16, blocks=1)", "times": STATES})
    follows = needs.teacher in DIFFUSION
    return Run(
        objective=Component(OBJECTIVES.name_of(cls), asked),
        network=network,
        p=component(config, **ends),
        data=Data(data=str(teacher.pairs)) if needs.columns else Data(),
        training=Training(steps=2, batch=4, lr=1e-6, warmup=0, sample_every=0, ema=(0.9,)),
        teacher=str(teacher.path) if follows else None,
    )


def methods() -> Iterator[type[Objective]]:
    """Those that learn from a diffusion model, by its ODE, its weights or its pairs."""
    for name in OBJECTIVES:
        cls = OBJECTIVES[name]
        follows = cls.needs.teacher in DIFFUSION or cls.needs.columns
        if follows and not cls.needs.other_columns and cls.needs.network != LATENTS:
            yield cls


def asks(cls: type[Objective], teacher: FlowMap) -> Iterator[dict[str, Any]]:
    """Arguments: none, guidance by one weight, guidance by a range of them."""
    yield {}
    known = inspect.signature(cls).parameters
    if teacher.trained.null_class and "guidance" in known:
        yield {"guidance": GUIDED}
    takes = "guidance_embedding" in arguments_of("network", teacher.network.config["name"])
    if teacher.trained.null_class and "guidance_range" in known and takes:
        yield {"guidance_range": RANGE}


def walk(teacher: Teacher, folder: Path, chosen: Iterable[type[Objective]]) -> None:
    named = teacher.f.network.config["name"]
    for cls in chosen:
        for i, asked in enumerate(asks(cls, teacher.f)):
            what = f"{OBJECTIVES.name_of(cls)} {asked}"
            run = run_of(cls, teacher, **asked)
            home = folder / f"{OBJECTIVES.name_of(cls)}-{i}"
            if cls.needs.two_time and "two_time" not in arguments_of("network", named):
                with pytest.raises(FewstepError, match="two_time"):
                    build(run, home, teacher)
                continue
            check(build(run, home, teacher), teacher, what)


@pytest.mark.parametrize("name", ["edm", pytest.param("vp", marks=pytest.mark.slow)])
def test_every_method_trains_from_an_imported_model(name: str, tmp_path: Path) -> None:
    walk(read(name, tmp_path), tmp_path, methods())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if name not in ("edm", "vp")])
def test_every_method_trains_from_every_other_model(name: str, tmp_path: Path) -> None:
    walk(read(name, tmp_path), tmp_path, methods())


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("edm", "vp")])
def test_one_method_of_each_kind_trains_from_every_model(name: str, tmp_path: Path) -> None:
    firsts: dict[TeacherUse, type[Objective]] = {}
    for cls in methods():
        if not cls.needs.two_time:  # which some of these networks cannot learn
            firsts.setdefault(cls.needs.teacher, cls)
    teacher = read(name, tmp_path)
    walk(teacher, tmp_path, firsts.values())
    follows = firsts[TeacherUse.DISTIL]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)
        made = build(run_of(follows, teacher), tmp_path / "whole", teacher).run()
    assert made.dtype == torch.float32


def build(run: Run, folder: Path, teacher: Teacher) -> Trainer:
    data = None if run.data.data else images(teacher.f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewstepWarning)
        built = Build(run, RunDirectory(folder), "mine", None, processes("cpu"), data)
        return built.trainer(quiet=True)[0]


def check(trainer: Trainer, teacher: Teacher, what: str) -> None:
    """It begins as its teacher where it takes its weights, and goes on from there."""
    o = trainer.objective
    f = as_map(o.f, "a student")
    follows = o.needs.teacher in DIFFUSION
    if follows and f.network.gives == (IMAGES,):
        assert_begins_alike(f, teacher.f, what)
    assert f.num_classes == teacher.f.num_classes, what
    assert f.dtype == torch.float32, what
    labels = torch.arange(4) % CLASSES if f.num_classes else None
    condition = NONE if labels is None else Condition(labels)
    data = trainer.data
    columns = {
        name: data.columns[name].index_select(0, torch.arange(4)) for name in o.needs.columns
    }
    x = torch.rand(4, *f.shape) * 2 - 1
    optimizer = torch.optim.Adam(o.parameters(), lr=1e-6)
    o.train()
    for k in range(2):
        for turn in o.turns(k):
            loss = o(x, k, condition, turn, **columns)
            assert loss.shape == (4,), what
            assert loss.isfinite().all(), what
            loss.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        o.after_step(k)
    assert all(x.isfinite().all() for x in f.tensors().values()), what


def assert_begins_alike(f: FlowMap, teacher: FlowMap, what: str) -> None:
    """The denoisers agree where the signal-to-noise ratio does."""
    theirs = teacher.in_process(f.p) if teacher.p.config != f.p.config else teacher
    assert float(f.p.noise_level(torch.tensor(f.p.T))) > 1, what
    x = torch.randn(2, *f.shape, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([1, 3]) if f.num_classes else None
    for share in (0.1, 0.6):
        t = torch.full((2,), share * f.p.T + (1 - share) * f.p.t_min)
        condition = Condition(label) if f.num_classes else NONE
        with torch.no_grad(), evaluating(f):
            mine, own = denoised(f, x, t, condition), denoised(theirs, x, t, condition)
        torch.testing.assert_close(mine, own, rtol=2e-4, atol=2e-4, msg=lambda m: f"{what}: {m}")


def denoised(f: FlowMap, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """``D = a x + b F`` on the diagonal, whatever ``F`` was trained for."""
    x = expand(f.p.alpha(t) * 0.3 + f.p.sigma(t), x) * x
    a, b = f.p.c_denoised(t)
    return expand(a, x) * x + expand(b, x) * f.prediction(x, t, t, condition)
