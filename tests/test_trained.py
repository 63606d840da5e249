"""What a model says that it can do: who sets it, what follows from it, and who may ask."""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep
from fewstep import Trainer, Training, editing
from fewstep.cli import run as command
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.likelihood import Likelihood
from fewstep.models import as_map, as_sampled
from fewstep.networks import MLP
from fewstep.objectives import CT, OBJECTIVES, PD, Objective, ScoreMatching
from fewstep.parameterization import EDM, RectifiedFlow
from fewstep.runs.opening import open_model
from fewstep.runs.sources import fingerprint
from fewstep.sampling import ODE, Multistep, NestedDDIM, NoiseStreams, Prior, sample, sampler_for
from fewstep.trained import (
    AUTOENCODER,
    CONSISTENCY,
    DIFFUSION,
    FLOW_MAP,
    GENERATOR,
    NESTED,
    Trained,
    from_legacy,
    json_of,
    trained_of,
)

SOURCES = Path(fewstep.__file__).parent
MODELS = Path(__file__).parent / "models"
MADE = {
    "diffusion": DIFFUSION,
    "two steps": replace(NESTED, steps=2),
    "consistency": CONSISTENCY,
    "generator": GENERATOR,
    "flow_map": FLOW_MAP,
    "autoencoder": AUTOENCODER,
}


def make(trained: Trained | None = None, **k: Any) -> FlowMap:
    return FlowMap(MLP((3,), width=8, blocks=1), EDM(T=20.0), trained=trained, **k)


# Who sets it


def test_a_map_that_was_trained_in_python_knows_what_it_is(tmp_path: Path) -> None:
    data = fewstep.load("digits")
    network = MLP(data.shape, num_classes=data.num_classes, width=8, blocks=1)
    f = FlowMap(network, EDM(T=20.0))
    f = Trainer(ScoreMatching(f, K=2), data, Training(steps=2, batch=4), tmp_path, quiet=True).run()
    assert replace(f.trained, step=None) == DIFFUSION
    assert f.trained.step == 2
    f.save(tmp_path / "f.safetensors")
    assert FlowMap.load(tmp_path / "f.safetensors").trained == f.trained
    assert torch.equal(sample(f, 2), sample(f, 2, ODE(18)))


def test_an_objective_keeps_classes_and_time_points() -> None:
    f = make(Trained(classes=("a",), taus={"2": (0.5,)}, step=7))
    CT(f, K=10)
    assert f.trained == replace(CONSISTENCY, classes=("a",), taus={"2": (0.5,)})
    PD(f, K=10, teacher=make(DIFFUSION), start_steps=8, final_steps=4)
    assert (f.trained.steps, f.trained.starts) == (4, "steps")


def test_an_objective_that_says_nothing_changes_nothing() -> None:
    class Own(Objective):
        def loss_at(self, x: torch.Tensor, *times: torch.Tensor, **_: Any) -> torch.Tensor:
            return x.flatten(1).sum(1)

    f = make(CONSISTENCY)
    Own(f, K=1)
    assert f.trained == CONSISTENCY


def test_nobody_guesses_what_an_untrained_map_is_for() -> None:
    f = make()
    for refused in (
        lambda: sample(f, 2),
        lambda: sample(f, 2, steps=3),
        lambda: editing.denoise(f, torch.zeros(2, 3)),
        lambda: editing.encode(f, torch.zeros(2, 3)),
        lambda: editing.decode(f, torch.zeros(2, 3)),
    ):
        with pytest.raises(FewstepError, match=r"nobody has said: .*f\.trained"):
            refused()
    for sampler in (ODE(3), Multistep((0.5,)), NestedDDIM(2)):
        assert sample(f, 2, sampler).shape == (2, 3)  # a sampler that is given is taken


# What follows from it

REFUSED = [
    ("consistency", ODE(18), r"a solver.* is for diffusion models.*this is a consistency model"),
    ("generator", ODE(18), "this is a generator"),
    ("generator", Multistep((0.5,)), "distilled for 1 step and knows no others"),
    ("diffusion", Multistep(), "time points are for consistency models; this is a diffusion model"),
    ("two steps", ODE(18), "distilled for one sampler, in 2 steps"),
    ("two steps", NestedDDIM(4), "distilled for 2 steps and knows no others"),
    ("consistency", NestedDDIM(4), "DDIM steps of progressive distillation.*a consistency model"),
    ("flow_map", NestedDDIM(4), "this is a flow map"),
    ("consistency", Prior(), "decodes the noise of an autoencoder; this is a consistency model"),
]


@pytest.mark.parametrize(("made", "sampler", "reason"), REFUSED)
def test_a_sampler_that_a_model_does_not_admit(made: str, sampler: Any, reason: str) -> None:
    f = make(MADE[made])
    with pytest.raises(FewstepError, match=reason):
        sample(f, 2, sampler)
    with pytest.raises(FewstepError, match=reason):
        sampler.steps(f, NoiseStreams(0, range(2), f.shape))


@pytest.mark.parametrize("made", ["consistency", "generator", "flow_map"])
def test_maps_are_jumped_along(made: str) -> None:
    assert sample(make(MADE[made]), 2, Multistep()).shape == (2, 3)


def test_jumps_that_end_between_need_a_map_to_any_time() -> None:
    FLOW_MAP.check_jumps(3, gamma=0.0)
    CONSISTENCY.check_jumps(3, gamma=1.0)
    with pytest.raises(FewstepError, match=r"gamma=0\.5 end between T and eps"):
        CONSISTENCY.check_jumps(3, gamma=0.5)


def test_a_map_from_a_few_times_jumps_from_these_alone() -> None:
    f = make(replace(CONSISTENCY, starts=(20.0, 1.0)))
    assert sampler_for(f, 2) == Multistep((1.0,))
    assert sample(f, 2, Multistep((1.0,))).shape == (2, 3)
    for asked in ({"sampler": Multistep((0.5,))}, {"steps": 3}):
        with pytest.raises(FewstepError, match=r"learned to start at 20, 1 alone, and not at "):
            sampler_for(f, **asked)


NEEDS_VELOCITY = {
    "a likelihood": lambda f, x: Likelihood().log_density(f, x, NoiseStreams(0, range(2), f.shape)),
    "encoding": editing.encode,
}


@pytest.mark.parametrize("what", NEEDS_VELOCITY)
@pytest.mark.parametrize("made", ["consistency", "generator", "two steps"])
def test_what_needs_a_velocity_refuses_maps(what: str, made: str) -> None:
    with pytest.raises(FewstepError, match=rf"^{what} needs a (diffusion )?model"):
        NEEDS_VELOCITY[what](make(MADE[made]), torch.zeros(2, 3))


def test_a_flow_map_has_a_velocity_where_its_form_gives_one() -> None:
    x = torch.zeros(2, 3)
    for form, admitted in {"ddim": True, "shifted": False}.items():
        f = FlowMap(MLP((3,), width=8, blocks=1, two_time=True), EDM(form=form), trained=FLOW_MAP)
        uses = [
            *(partial(use, f, x) for use in NEEDS_VELOCITY.values()),
            partial(sample, f, 2, ODE(3)),
        ]
        for use in uses:
            if admitted:
                use()
            else:
                with pytest.raises(FewstepError, match="the form of this flow map does not"):
                    use()


@pytest.mark.parametrize("made", ["two steps", "generator"])
def test_distilled_models_know_their_own_process_alone(made: str) -> None:
    with pytest.raises(FewstepError, match="its own process"):
        make(MADE[made]).in_process(RectifiedFlow())


@pytest.mark.parametrize("made", ["consistency", "two steps", "generator"])
def test_a_teacher_that_has_no_velocity(made: str) -> None:
    for method in ("cd", "continuous_cd", "pd"):
        with pytest.raises(FewstepError, match=r"^the teacher (is a |was distilled itself)"):
            OBJECTIVES.call(method, {"f": make(), "K": 10, "teacher": make(MADE[made])})


def test_times_move_to_another_process() -> None:
    f = make(replace(CONSISTENCY, starts=(20.0, 1.0), taus={"2": (1.0,)}))
    g = f.in_process(RectifiedFlow())
    assert g.trained.taus["2"] == pytest.approx([0.5])
    assert g.trained.starts == pytest.approx([20 / 21, 0.5])


def test_default_samplers() -> None:
    assert sampler_for(make(DIFFUSION)).nfe == 35
    assert sampler_for(make(CONSISTENCY)).nfe == 1
    assert sampler_for(make(MADE["two steps"])) == NestedDDIM(2)
    assert sampler_for(make(GENERATOR)) == Multistep()


# Values, and how they are stored


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("starts", "anywhere", "unknown start of a map, trained.starts 'anywhere'"),
        ("starts", "steps", "trained.steps says no number"),
        ("starts", (), "trained.starts must be"),
        ("starts", (1.0, float("inf")), "trained.starts must be"),
        ("starts", "prior", "of an autoencoder, alone"),
        ("ends", "denoisr", "Did you mean 'denoiser'"),
        ("ends", "image", "of an autoencoder, alone"),
        ("steps", 0, "trained.steps must be a number of steps, got 0"),
        ("steps", 2.5, "got 2.5"),
        ("steps", True, "got True"),
        ("step", -1, "got -1"),
        ("guidance", float("nan"), "trained.guidance must be a weight"),
        ("taus", {"2": (0.8, 0.2)}, "n - 1 time points"),
        ("classes", (1, 2), "a list of names"),
    ],
)
def test_values_that_mean_nothing_are_refused(field: str, value: Any, hint: str) -> None:
    with pytest.raises(FewstepError, match=hint):
        replace(Trained(ends="eps"), **{field: value})


@pytest.mark.parametrize("made", MADE)
def test_records_survive_storage(made: str) -> None:
    full = replace(MADE[made], taus={"2": (0.8,)}, classes=("a", "b"), step=3, guidance=2.0)
    for trained in (MADE[made], full, replace(full, null_class=True)):
        assert trained_of(json.loads(json.dumps(json_of(trained)))) == trained
    with pytest.raises(FewstepError, match=r"unknown entry of trained 'endz'.*'ends'"):
        trained_of({**json_of(full), "endz": 1})


def test_values_of_earlier_versions_become_the_record() -> None:
    info = {"kind": "diffusion", "sampling_steps": 4, "classes": ["a"], "taus": {}, "step": 5}
    trained, rest = from_legacy({**info, "recipe": "digits/pd"})
    assert trained == replace(NESTED, steps=4, classes=("a",), step=5)
    assert rest == {"recipe": "digits/pd"}
    assert from_legacy({"kind": None}) == (Trained(), {})
    with pytest.raises(FewstepError, match=r"info\.kind must be one of .*got 'consistencee'"):
        make(info={"kind": "consistencee"})
    with pytest.raises(FewstepError, match="not both"):
        make(CONSISTENCY, info={"kind": "diffusion"})


def test_an_autoencoder_is_no_map(tmp_path: Path) -> None:
    F = fewstep.MLPAutoencoder((3,), latents=2, width=8, blocks=1)
    with pytest.raises(FewstepError, match=r"mlp_autoencoder is an autoencoder.*AutoencoderModel"):
        FlowMap(F, EDM())
    with pytest.raises(FewstepError, match="mlp is no autoencoder"):
        fewstep.AutoencoderModel(make().F)
    with pytest.raises(FewstepError, match="is a consistency model, not an autoencoder"):
        fewstep.AutoencoderModel(F, trained=CONSISTENCY)
    model, path = fewstep.AutoencoderModel(F), tmp_path / "g.safetensors"
    model.save(path)
    assert json.loads(model.header()["fewstep"]).keys() == {"format", "network", "trained", "info"}
    with pytest.raises(FewstepError, match=r"g\.safetensors is an autoencoder, not a map"):
        FlowMap.load(path)
    g = open_model(path)
    assert isinstance(g, fewstep.AutoencoderModel)
    x = torch.randn(4, 3)
    assert torch.equal(g.decode(g.encode(x)[0]), model.decode(model.encode(x)[0]))
    for what, refused in {
        "making pairs": lambda: as_map(g, "making pairs"),
        "denoising": lambda: editing.denoise(g, x),  # type: ignore[arg-type]
        "decoding": lambda: editing.decode(g, x),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(FewstepError, match=f"{what} needs a model of noisy images; this is an"):
            refused()
    for sampler in (ODE(3), Multistep()):
        with pytest.raises(FewstepError, match="autoencoder"):
            sample(as_sampled(g), 2, sampler)


def test_the_autoencoder_of_a_run_of_before_is_told_again() -> None:
    f = open_model(MODELS / "autoencoder.safetensors")
    before = "b186f1e004be04a910a65a9ca49fab831ee637115f5ffc02b96287de7ab63c6d"
    assert fingerprint(f) == before


def test_what_is_a_field_now_is_no_free_value() -> None:
    f = make(info={"kind": "consistency", "recipe": "mine"})
    assert (f.trained, f.info) == (CONSISTENCY, {"recipe": "mine"})
    with pytest.raises(FewstepError, match=r"f\.trained\.ends"):
        f.info["kind"]
    with pytest.raises(FewstepError, match=r"f\.trained\.classes"):
        f.info["classes"] = ["a"]
    with pytest.raises(FewstepError, match=r"f\.trained\.steps"):
        f.info.get("sampling_steps")


# Models of before

BEFORE = {
    "diffusion": replace(DIFFUSION, classes=("zero", "one", "two"), step=40),
    "consistency": replace(
        CONSISTENCY, classes=("zero", "one", "two"), taus={"2": (0.8,)}, step=600
    ),
    "generator": replace(GENERATOR, step=20),
    "progressive": replace(NESTED, steps=2, step=20),
    "autoencoder": replace(AUTOENCODER, step=30),
    "latent": replace(DIFFUSION, step=30),
    "trajectory": replace(GENERATOR, step=20),
}


def _wanted(name: str) -> dict[str, list[float]]:
    return json.loads((MODELS / "samples.json").read_text())[name]


def _agrees(x: torch.Tensor, wanted: list[float]) -> None:
    torch.testing.assert_close(x.flatten()[: len(wanted)], torch.tensor(wanted), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", BEFORE)
def test_model_files_of_before(name: str, tmp_path: Path) -> None:
    wanted = _wanted(name)
    f = open_model(MODELS / f"{name}.safetensors")
    f.save(tmp_path / "again.safetensors")
    for g in (f, open_model(tmp_path / "again.safetensors")):
        assert g.trained == BEFORE[name]
        _agrees(sample(g, 3, seed=4), wanted["samples"])
        if "two steps" in wanted:
            _agrees(sample(g, 3, steps=2, seed=4), wanted["two steps"])


def test_a_run_of_before_goes_on(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "run", tmp_path / "run")
    assert command(["train", str(tmp_path / "run"), "--quiet", "--device", "cpu"]) == 0
    f = open_model(tmp_path / "run")
    assert f.trained == replace(AUTOENCODER, step=4)
    _agrees(
        sample(f, 3, seed=4),
        json.loads((MODELS / "samples.json").read_text())["resumed"]["samples"],
    )


# Who may ask

KINDS = {"diffusion", "consistency", "generator", "flow_map", "autoencoder"}
OLD = {"kind", "sampling_steps"}


def _words(node: ast.AST) -> set[object]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}


def _readings(source: str) -> list[int]:
    """Lines that compare with the name of a kind, or read it from free values."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and _words(node) & KINDS:
            lines.append(node.lineno)
        if isinstance(node, ast.Subscript) and _words(node.slice) & OLD:
            lines.append(node.lineno)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("info.get"):
            lines.extend([node.lineno] * bool(_words(node) & OLD))
        if isinstance(node, ast.Match) and any(_words(case.pattern) & KINDS for case in node.cases):
            lines.append(node.lineno)
    return lines


def test_no_other_module_knows_a_kind_by_its_name() -> None:
    assert _readings('if f.info.get("kind") in ("diffusion", "x"): pass') == [1, 1]
    assert _readings('f.info["sampling_steps"]') == [1]
    found = [
        f"{path.relative_to(SOURCES)}:{line}"
        for path in sorted(SOURCES.rglob("*.py"))
        if path.parent.name != "trained"
        for line in _readings(path.read_text())
    ]
    assert found == []
    for path in sorted((SOURCES / "serving" / "page").glob("*.js")):
        assert not re.search(rf"===? *[\"'`]({'|'.join(KINDS)})", path.read_text()), path.name
