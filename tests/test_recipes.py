"""The recipes: what each would need, and that each trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewstep.cli import run as fewstep
from fewstep.condition import Condition
from fewstep.data import Dataset
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.objectives import OBJECTIVES, TeacherUse
from fewstep.parameterization import EDM, Matched
from fewstep.recipes import RECIPES, Run
from fewstep.runs.dry_run import dry_run
from fewstep.runs.execute import train
from fewstep.runs.opening import open_model

PARAMETERS = {"cifar10": 55_732_739, "imagenet64": 295_899_267, "lsun_bedroom256": 526_304_771}
NCSNPP = {f"cifar10/{name}" for name in ("edm-ncsnpp", "cd", "pd", "ct", "ict")}
NCSNPP_PARAMETERS = 56_395_523  # of EDM's code for CIFAR-10
PARAMETERS["lsun_cat256"] = PARAMETERS["lsun_bedroom256"]
OWN_NETWORK = ("/autoencoder", "/lsgm", "/lcm")  # of our own size: see the tests of latents
TWO_TIMES = {  # embeddings of the end of the map and of augmentations come on top
    name for name in RECIPES if RECIPES[name]().network.arguments.get("two_time")
}
LARGE = [
    name
    for name in RECIPES
    if name.partition("/")[0] in PARAMETERS
    and not name.endswith(OWN_NETWORK)
    and name not in TWO_TIMES
]


@pytest.mark.parametrize("name", LARGE)
def test_a_dry_run_needs_neither_data_nor_memory(name: str) -> None:
    found = dry_run(RECIPES[name]())
    expected = NCSNPP_PARAMETERS if name in NCSNPP else PARAMETERS[name.partition("/")[0]]
    assert found.parameters == expected
    assert found.num_classes == (1000 if name.startswith("imagenet64") else 0)
    mu = "target" in found.copies
    assert mu == (name.endswith("/ct") or (name.endswith("/cd") and not name.startswith("cifar10")))
    teacher = OBJECTIVES[RECIPES[name]().objective.name].needs.teacher.asked
    copies = 1 + 1 + 2 + found.copies["averages"] + mu + teacher
    state = copies * 4 * found.parameters  # and a learned weight has some tens of numbers
    assert state <= found.state_bytes <= 1.00001 * state
    # By the arithmetic that it prints, it fits eight GPUs of 80 GB, in no more parts than needed.
    parts = found.training.microbatches or 8
    assert found.memory.parts_for(80e9, 8) == parts
    assert f"{found.training.batch // parts} images at once in {parts} micro-batches" in str(found)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cifar10/cd", {"flip": True, "steps": 800_000, "batch": 512, "lr": 4e-4}),
        ("cifar10/ct", {"flip": True, "steps": 800_000, "batch": 512, "lr": 4e-4}),
        ("cifar10/pd", {"steps": 750_000, "decay": "linear", "objective.start_steps": 8192}),
        ("cifar10/ict", {"flip": True, "network.fourier_scale": 0.02, "network.dropout": 0.3}),
        ("cifar10/ect", {"flip": False, "objective.distance": "pseudo_huber(c=1e-8)"}),
        ("cifar10/sct", {"objective.P_std": 1.8, "network.dropout": 0.2, "betas": (0.9, 0.99)}),
        ("cifar10/scd", {"objective.P_std": 1.4, "network.dropout": 0.0, "batch": 512}),
        ("cifar10/ect-hour", {"objective.stages": 1, "objective.q": 256.0, "steps": 8000}),
        ("cifar10/tcm", {"batch": 1024, "lr": 5e-5, "network.dropout": 0.2}),
        ("cifar10/cmt", {"objective.N": 16, "steps": 300_000, "lr": 2e-4}),
        ("cifar10/cmt-ect", {"objective.q": 4096.0, "objective.stages": 1, "steps": 100_000}),
        ("imagenet64/edm", {"steps": 610_352, "batch": 4096, "warmup": 2441}),
        ("imagenet64/cd", {"steps": 600_000, "batch": 2048}),
        ("lsun_bedroom256/edm", {"steps": 600_000, "batch": 256}),
        ("lsun_cat256/edm", {"steps": 300_000, "batch": 256}),
        ("lsun_cat256/cd", {"steps": 600_000, "batch": 2048}),
        ("lsun_cat256/ct", {"steps": 1_000_000, "batch": 2048}),
    ],
)
def test_recipes_have_the_settings_of_their_sources(name: str, settings: dict[str, Any]) -> None:
    """Tables first; what they do not say from the published configurations."""
    found = RECIPES[name]().flat()
    assert {key: found[key] for key in settings} == settings


def test_the_network_of_a_consistency_recipe_is_that_of_its_teacher() -> None:
    networks = {name: RECIPES[name]().network.arguments for name in NCSNPP}
    for arguments in networks.values():
        own = {k: arguments[k] for k in ("embedding", "encoder", "resample_filter")}
        assert own == {
            "embedding": "fourier",
            "encoder": "residual",
            "resample_filter": (1, 3, 3, 1),
        }
    start = RECIPES["cifar10/edm"]().network.arguments | {"dropout": None}
    assert RECIPES["cifar10/ect"]().network.arguments | {"dropout": None} == start


def test_the_operations_of_a_known_network() -> None:
    """A perceptron of one block: two operations per weight of its matrix products."""
    recipe = RECIPES["digits/edm"](network__blocks=1, network__width=32, network__hidden=48)
    found = dry_run(recipe)
    width, hidden = 32, 48
    products = 32 * width + width * width + 64 * width + width * 64  # times, mix, read, write
    products += width * 2 * width + width * hidden + hidden * width  # one block
    assert found.flops == 2 * products
    assert found.shape == (1, 8, 8)
    assert found.num_classes == 10


def test_the_dry_run_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fewstep(["train", "imagenet64/ct", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "295,899,267 parameters" in out
    assert "GFLOPs" in out
    assert "target" in out
    assert list(tmp_path.iterdir()) == []
    ct = ["train", "images", "--method", "ct", "--dry-run"]
    assert fewstep(ct) == 2
    assert "--data" in capsys.readouterr().err
    assert fewstep([*ct, "--size", "30", "--data", "x"]) == 2


def small(run: Run) -> Run:
    """The run with few channels, steps and images, and without a learned distance."""
    network = replace(run.network, arguments=run.network.arguments | {"channels": 32})
    if network.name == "adm":
        network.arguments["head_channels"] = 32
    objective = run.objective
    if objective.arguments.get("distance") == "lpips":
        objective = replace(objective, arguments=objective.arguments | {"distance": "l2"})
    training = replace(
        run.training,
        steps=2,
        batch=2,
        microbatches=None,
        sample_every=0,
        precision="fp32",
        warmup=0,
    )
    return replace(run, network=network, objective=objective, training=training)


@pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
@pytest.mark.slow
def test_a_latent_distillation_trains_on_images_of_the_right_shape(tmp_path: Path) -> None:
    """An autoencoder, a diffusion model of its latents that knows no class now and then, LCM."""
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    data = Dataset.from_arrays(images, [0, 1, 2, 3])
    home = {name: tmp_path / name for name in ("autoencoder", "lsgm", "lcm")}
    companions: dict[str, dict[str, Any]] = {
        "autoencoder": {},
        "lsgm": {
            "autoencoder": str(home["autoencoder"]),
            "network.label_dropout": 0.1,
            "labels": True,
        },
        "lcm": {"teacher": str(home["lsgm"])},
    }
    for name, settings in companions.items():
        run = small(RECIPES[f"cifar10/{name}"]()).override(settings)
        f = train(run, home[name], recipe=f"cifar10/{name}", data=data, quiet=True)
    assert f.latents is not None
    assert f.trained.weights == (3.0, 15.0)


@pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
@pytest.mark.slow
@pytest.mark.parametrize("family", sorted({name.partition("/")[0] for name in LARGE}))
def test_large_recipes_train_on_images_of_the_right_shape(family: str, tmp_path: Path) -> None:
    size = dry_run(RECIPES[f"{family}/edm"]()).shape[1]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3, size, size), dtype=np.uint8)
    data = Dataset.from_arrays(images, [0, 1, 2, 3] if family == "imagenet64" else None)
    for name in (name for name in LARGE if name.startswith(f"{family}/")):
        run = small(RECIPES[name]())
        use = OBJECTIVES[run.objective.name].needs.teacher
        if run.init:
            run = replace(run, init=str(tmp_path / Path(run.init).name.removeprefix("cifar10-")))
        elif use is not TeacherUse.NONE:
            diffusion = "edm-ncsnpp" if name in NCSNPP else "edm"
            teacher = "ect" if use is TeacherUse.REFINE else diffusion
            run = replace(run, teacher=str(tmp_path / teacher))
        f = train(run, tmp_path / name.partition("/")[2], recipe=name, data=data, quiet=True)
        assert f.shape == (3, size, size)
        assert all(p.isfinite().all() for p in f.parameters())


def test_a_two_time_network_trains_and_starts_from_a_one_time_model(tmp_path: Path) -> None:
    """As a dry run, from a teacher and from other weights; its denoiser is the teacher's."""
    tiny: dict[str, Any] = {"steps": 1, "network__width": 16, "samples": 4, "checkpoint_every": 1}
    two = {**tiny, "network__two_time": True, "lr": 1e-12, "p__form": "ddim"}
    edm = RECIPES["digits/edm"]
    assert dry_run(edm(**two), recipe="digits/edm").flops > 0
    teacher = train(edm(**tiny), tmp_path / "one", quiet=True)
    x, t, label = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0]), torch.arange(3)
    for name, begin in (("edm", "init"), ("cd", "teacher")):
        recipe = RECIPES[f"digits/{name}"](**two, **{begin: str(tmp_path / "one")})
        with pytest.warns(FewstepWarning, match="not told the end of a map"):
            f = train(recipe, tmp_path / name, quiet=True)
        assert f.p.flow
        assert all(p.isfinite().all() for p in f.parameters())
        expected = teacher.D(x, t, Condition(label))
        torch.testing.assert_close(f.D(x, t, Condition(label)), expected, atol=1e-5, rtol=1e-4)


def test_a_teacher_of_the_same_process_with_other_parameters(tmp_path: Path) -> None:
    """Other betas are matched, and said; what a network predicts must agree; a form is a choice."""
    tiny: dict[str, Any] = {"steps": 1, "network__width": 16, "samples": 4, "checkpoint_every": 1}
    train(RECIPES["digits/vp"](**tiny), tmp_path / "vp", quiet=True)
    recipe = RECIPES["digits/cd"](**tiny, network__highest=16.0, teacher=str(tmp_path / "vp"))
    vp = RECIPES["digits/vp"]().p
    other = replace(vp, arguments=vp.arguments | {"beta_max": 12.0, "second": "gap"})
    with pytest.warns(FewstepWarning, match=r"is of vp.* of vp.*beta_max=12.*ratio is the same"):
        train(replace(recipe, p=other), tmp_path / "cd", quiet=True)
    p = open_model(tmp_path / "cd").p
    assert isinstance(p, Matched)
    assert (p.process.beta_max, p.source.beta_max, p.second) == (12.0, 20.0, "gap")
    for name, value in (("prediction", "x0"), ("sigma_data", 1.3), ("time_scale", 9.0)):
        wrong = replace(vp, arguments=vp.arguments | {name: value})
        with pytest.raises(FewstepError, match=f"has {name} .*{value}: they must agree"):
            train(replace(recipe, p=wrong), tmp_path / "wrong", quiet=True)
    simple = replace(vp, arguments=vp.arguments | {"form": "simple"})
    train(replace(recipe, p=simple), tmp_path / "simple", quiet=True)
    assert open_model(tmp_path / "simple").p.config["form"] == "simple"


@pytest.mark.parametrize("name", ["cd", "ect"])
def test_a_teacher_of_another_process(name: str, tmp_path: Path) -> None:
    """A DDPM becomes a consistency model of EDM's process: its network, matched by the noise."""
    tiny: dict[str, Any] = {"steps": 1, "network__width": 16, "samples": 4, "checkpoint_every": 1}
    teacher = train(RECIPES["digits/ddpm"](**tiny), tmp_path / "ddpm", quiet=True)
    recipe = RECIPES[f"digits/{name}"](
        **tiny, lr=1e-12, network__highest=16.0, teacher=str(tmp_path / "ddpm")
    )
    with pytest.warns(FewstepWarning, match=r"vp_discrete.*training of edm.*ratio is the same"):
        train(recipe, tmp_path / name, quiet=True)
    f = open_model(tmp_path / name)
    assert f.trained.kind == "consistency"
    assert (f.p.T, type(f.p)) == (20.0, Matched)
    assert f.p.eps == pytest.approx(0.002 if name == "cd" else 0.0)
    x, label = torch.randn(3, *f.shape), torch.arange(3)
    torch.testing.assert_close(
        f(x, f.p.eps or 1e-6, condition=Condition(label)), x, atol=1e-4, rtol=0
    )
    t = torch.tensor([0.1, 1.0, 10.0])
    expected = teacher.in_process(EDM(T=20.0)).D(x, t, Condition(label))
    torch.testing.assert_close(f.D(x, t, Condition(label)), expected)
    with pytest.raises(FewstepError, match="num_classes"):
        train(replace(recipe, data=replace(recipe.data, labels=False)), tmp_path / "x", quiet=True)


def test_a_process_that_does_not_fit_is_refused_before_data_are_read(tmp_path: Path) -> None:
    wrong = RECIPES["digits/ect"](p__eps=0.1, data="nowhere.parquet", teacher="nowhere")
    with pytest.raises(FewstepError, match="ect maps to the data itself: it needs eps=0"):
        train(wrong, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
