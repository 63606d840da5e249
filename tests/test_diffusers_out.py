"""Models as pipelines of diffusers, which give the images that this package gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.exchange.diffusers.writing import (
    call_for,
    counterpart,
    own_weights,
    timesteps,
    write_pipeline,
)
from fewstep.exchange.sources import import_model
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.models import as_map
from fewstep.networks import ADM, MLP, ConvAutoencoder, EDM2UNet, Network, UNet
from fewstep.parameterization import EDM, VP, DiscreteVP, RectifiedFlow
from fewstep.runs.opening import open_model
from fewstep.sampling import NoiseStreams, sample, sampler_for
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, GENERATOR, Trained

diffusers = pytest.importorskip("diffusers")
own = pytest.importorskip("fewstep.exchange.diffusers.pipeline")

SMALL: dict[str, Any] = {"channels": 128, "multipliers": (1, 1), "blocks": 1, "attention": (4,)}
GREY: dict[str, Any] = {"width": 16, "blocks": 1}


def random(network: Network, std: float = 0.02) -> Network:
    """With numbers everywhere, and images that are not cut off."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return network.eval()


def adm(size: int = 8, **arguments: Any) -> Network:
    return random(ADM((3, size, size), **{**SMALL, **arguments}))


@pytest.fixture(autouse=True)
def modules_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where diffusers copies the code of a folder to."""
    monkeypatch.setattr(
        "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def loaded(folder: Path) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        str(folder), trust_remote_code=True, low_cpu_mem_usage=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def ours(f: FlowMap, rows: int, label: Tensor | None, **asked: Any) -> Tensor:
    """Images in [0, 1] of the noise that the generator gives."""
    noise = cast("NoiseStreams", own.Drawn((rows, *f.shape), generator()))
    with torch.no_grad():
        x = sampler_for(f, **asked)(f, noise, Condition(label=label))
    assert float((x.abs() > 1).float().mean()) < 0.9  # and not all is cut off
    return (x / 2 + 0.5).clamp(0, 1)


CONSISTENCY_MODELS: dict[str, Callable[[], FlowMap]] = {
    "classes": lambda: FlowMap(adm(num_classes=5), EDM(), trained=CONSISTENCY),
    "no scale": lambda: FlowMap(
        adm(scale_shift=False, multipliers=(1, 1, 1), head_channels=32),
        EDM(T=10.0, sigma_data=0.3),
        trained=CONSISTENCY,
    ),
    "to the data": lambda: FlowMap(adm(), EDM(eps=0.0), trained=CONSISTENCY),
    "own times": lambda: FlowMap(
        adm(heads=2, attention=()), EDM(), trained=replace(CONSISTENCY, taus={"3": (5.0, 0.3)})
    ),
}


@pytest.mark.parametrize("name", list(CONSISTENCY_MODELS))
def test_consistency_models_are_pipelines_of_diffusers(name: str, tmp_path: Path) -> None:
    f = CONSISTENCY_MODELS[name]()
    written = write_pipeline(f, tmp_path / "out")
    assert written.kind == "ConsistencyModelPipeline"
    assert written.difference is not None
    pipe = loaded(tmp_path / "out")
    assert type(pipe).__name__ == "ConsistencyModelPipeline"
    label = torch.tensor([4, 1]) if f.num_classes else None
    for steps in (1, 2, 3):
        given: dict[str, Any] = {"class_labels": label, "output_type": "pt", "batch_size": 2}
        expected = ours(f, 2, label, steps=steps)
        times = {"num_inference_steps": None, "timesteps": timesteps(f, steps)}
        images = pipe(generator=generator(), **given, **times).images
        torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)
        if f"num_inference_steps={steps}" == call_for(f, steps):
            images = pipe(generator=generator(), num_inference_steps=steps, **given).images
            torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)


def test_times_that_are_not_even_are_given_one_by_one() -> None:
    def calls(name: str) -> list[str]:
        return [call_for(CONSISTENCY_MODELS[name](), n).split("=")[1] for n in (1, 2, 3)]

    assert calls("classes") == ["1", "2", "3"]
    assert calls("to the data") == ["1", "None, timesteps", "None, timesteps"]
    assert calls("own times") == ["1", "2", "None, timesteps"]


@pytest.mark.parametrize(
    ("prediction", "betas"),
    [("epsilon", "linear"), ("epsilon", "scaled_linear"), ("v", "cosine"), ("x0", "linear")],
)
def test_diffusion_models_of_a_chain_are_ddim_pipelines(
    prediction: str, betas: str, tmp_path: Path
) -> None:
    p = DiscreteVP(prediction=prediction, betas=betas)
    f = FlowMap(adm(time_scale=1.0), p, trained=DIFFUSION)
    assert write_pipeline(f, tmp_path / "out").kind == "DDIMPipeline"
    pipe = loaded(tmp_path / "out")
    assert pipe(2, num_inference_steps=1, output_type="pt").images.shape == (2, 3, 8, 8)
    x = torch.randn(2, *f.shape, generator=generator())
    sampler = sampler_for(f, 5, sampler="walk(solver=ddim, grid=flow)")
    states = sampler.states(f, cast("NoiseStreams", own.Drawn(x.shape, generator())))
    pipe.scheduler.set_timesteps(5)
    with torch.no_grad():  # as its loop does, without the cut at the end
        for t, ours in zip(pipe.scheduler.timesteps, states, strict=True):
            x = pipe.scheduler.step(pipe.unet(x, t).sample, t, x).prev_sample
            assert float((x - ours).abs().max() / ours.abs().max()) < 1e-3


def edm2() -> Network:
    return random(EDM2UNet((3, 8, 8), channels=64, multipliers=(1,), blocks=1, attention=()), 0.5)


OTHERS: dict[str, tuple[Callable[[], FlowMap], str]] = {
    "mlp": (
        lambda: FlowMap(
            random(MLP((1, 4, 4), num_classes=3, label_dropout=0.1, **GREY), 0.1),
            EDM(),
            trained=replace(DIFFUSION, null_class=True),
        ),
        "like mlp",
    ),
    "unet": (
        lambda: FlowMap(
            random(UNet((3, 8, 8), channels=16, multipliers=(1,), blocks=1)),
            VP(prediction="v"),
            trained=DIFFUSION,
        ),
        "like unet",
    ),
    "edm2": (lambda: FlowMap(edm2(), EDM(), trained=CONSISTENCY), "like edm2"),
    "flow map": (
        lambda: FlowMap(
            random(MLP((1, 4, 4), two_time=True, **GREY), 0.1), RectifiedFlow(), trained=FLOW_MAP
        ),
        "like mlp",
    ),
    "latents": (
        lambda: FlowMap(
            random(MLP((2, 2, 2), **GREY), 0.1),
            EDM(),
            trained=CONSISTENCY,
            latents=Latents(
                random(ConvAutoencoder((3, 8, 8), channels=8, multipliers=(1, 1, 1), latents=2)),
                torch.zeros(2, 1, 1),
                torch.ones(2, 1, 1),
            ),
        ),
        "an autoencoder",
    ),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_every_other_model_is_a_pipeline_of_this_package(name: str, tmp_path: Path) -> None:
    make, reason = OTHERS[name]
    f, folder = make(), tmp_path / "out"
    written = write_pipeline(f, folder)
    assert reason in written.notes[0]
    assert "fewstep" in written.notes[0]
    assert "trust_remote_code=True" in written.load[1]
    pipe = loaded(folder)
    assert isinstance(pipe, own.FewstepPipeline)
    label = torch.tensor([2, 0]) if f.num_classes else None
    guided = 2.0 if f.trained.guides else None
    asked: dict[str, Any] = {"class_labels": label, "guidance_scale": guided}
    images = pipe(2, 3, generator=generator(), output_type="pt", **asked).images
    assert torch.equal(images, ours(f, 2, label, steps=3, guidance=guided))
    assert len(pipe(3, 1).images) == 3
    assert pipe(1, 1, output_type="np").images.shape == (1, *f.image_shape[1:], f.image_shape[0])
    again = open_model(folder)  # and here it is a model again
    assert all(torch.equal(x, again.tensors()[key]) for key, x in f.tensors().items())
    assert torch.equal(sample(again, 2, steps=1), sample(f, 2, steps=1))


def test_a_pipeline_of_this_package_is_saved_and_loaded_as_others_are(tmp_path: Path) -> None:
    f = OTHERS["mlp"][0]()
    write_pipeline(f, tmp_path / "first")
    loaded(tmp_path / "first").save_pretrained(tmp_path / "second")
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        str(tmp_path / "second"),
        custom_pipeline=str(tmp_path / "second/pipeline.py"),
        trust_remote_code=True,
        dtype=torch.bfloat16,
    )
    assert pipe.model.f.dtype == torch.bfloat16
    pipe.set_progress_bar_config(disable=True)
    rows = [torch.Generator().manual_seed(i) for i in (4, 5)]
    both = pipe(2, 1, class_labels=1, generator=rows, output_type="pt").images
    one = pipe(1, 1, class_labels=1, generator=torch.Generator().manual_seed(5), output_type="pt")
    torch.testing.assert_close(both[1:], one.images, atol=1e-2, rtol=0)
    first, second = (pipe(4, 1, generator=generator(), output_type="pt").images for _ in range(2))
    assert torch.equal(first, second)  # the classes, too, are those of the generator
    with pytest.raises(FewstepError, match="classes are 0"):
        pipe(1, class_labels=[7])


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda: FlowMap(adm(augment=9), EDM(), trained=CONSISTENCY), "augment=9"),
        (lambda: FlowMap(adm(two_time=True), EDM(), trained=CONSISTENCY), "two_time=True"),
        (
            lambda: FlowMap(
                adm(multipliers=(0.5, 1), head_channels=32), EDM(), trained=CONSISTENCY
            ),
            "128 channels",
        ),
        (lambda: FlowMap(adm(channels=64), EDM(), trained=CONSISTENCY), "16 and 32"),
        (
            lambda: FlowMap(
                adm(heads=2, multipliers=(1, 2), attention=(8,)), EDM(), trained=CONSISTENCY
            ),
            "64 and 128",
        ),
        (lambda: FlowMap(adm(time_scale=1.0), EDM(), trained=CONSISTENCY), "time_scale=1000.0"),
        (lambda: FlowMap(adm(), EDM(form="ddim"), trained=CONSISTENCY), "form='shifted'"),
        (lambda: FlowMap(adm(), VP(), trained=CONSISTENCY), "process='edm'"),
        (lambda: FlowMap(adm(), EDM(), trained=DIFFUSION), "process='vp_discrete'"),
        (lambda: FlowMap(adm(), EDM(), trained=GENERATOR), "no generator"),
        (lambda: FlowMap(adm(num_classes=2), DiscreteVP(), trained=DIFFUSION), "no classes"),
        (lambda: FlowMap(adm(), DiscreteVP(), trained=DIFFUSION), "time_scale"),
        (lambda: FlowMap(adm(), EDM(), trained=Trained()), "nobody said"),
    ],
)
def test_what_diffusers_has_no_place_for_is_named(f: Callable[[], FlowMap], said: str) -> None:
    with pytest.raises(FewstepError) as error:
        counterpart(f())
    assert said in str(error.value)


def test_folders_are_not_overwritten_unless_they_are_pipelines(tmp_path: Path) -> None:
    f = OTHERS["mlp"][0]()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(FewstepError, match=name):
            write_pipeline(f, tmp_path / name)
    with pytest.raises(FewstepError, match="points of"):
        write_pipeline(FlowMap(MLP((3,)), EDM(), trained=CONSISTENCY), tmp_path / "points")
    write_pipeline(f, tmp_path / "out")
    write_pipeline(CONSISTENCY_MODELS["classes"](), tmp_path / "out")
    assert own_weights(tmp_path / "out") is None
    assert json.loads((tmp_path / "out/model_index.json").read_text())["_class_name"] == (
        "ConsistencyModelPipeline"
    )
    assert not (tmp_path / "out/pipeline.py").exists()  # nothing of the former one is left


# Networks of diffusers


BLOCKS: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def of_pixels(folder: Path) -> Path:
    parts = {"unet": diffusers.UNet2DModel(**BLOCKS), "scheduler": diffusers.DDPMScheduler()}
    diffusers.DDPMPipeline(**parts).save_pretrained(folder)
    return folder


def of_consistency(folder: Path) -> Path:
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40, sigma_max=20.0)
    network = diffusers.UNet2DModel(**BLOCKS, num_class_embeds=5)
    diffusers.ConsistencyModelPipeline(network, scheduler).save_pretrained(folder)
    return folder


def of_latents(folder: Path) -> Path:
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4}
    blocks = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "scaling_factor": 0.5,
    }
    diffusers.DiTPipeline(
        diffusers.DiTTransformer2DModel(**small, out_channels=8),
        diffusers.AutoencoderKL(**blocks),
        diffusers.DDIMScheduler(clip_sample=False),
        {i: f"class {i}" for i in range(1000)},
    ).save_pretrained(folder)
    return folder


CAME: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "DDPMPipeline": (of_pixels, {"batch_size": 2, "num_inference_steps": 3}),
    "ConsistencyModelPipeline": (
        of_consistency,
        {"batch_size": 2, "class_labels": [4, 1], "num_inference_steps": 2},
    ),
    "DiTPipeline": (of_latents, {"class_labels": [4, 1], "num_inference_steps": 3}),
}


@pytest.mark.parametrize("kind", list(CAME))
def test_a_network_of_diffusers_goes_back_as_it_came(kind: str, tmp_path: Path) -> None:
    make, asked = CAME[kind]
    before = make(tmp_path / "before")
    f = as_map(import_model(before).f, "an export")
    folder = tmp_path / "after"
    assert write_pipeline(f, folder).kind == kind
    for weights in before.rglob("*.safetensors"):
        again = load_file(folder / weights.relative_to(before))
        theirs = load_file(weights)
        assert again.keys() == theirs.keys()
        assert all(torch.equal(again[name], x) for name, x in theirs.items())
    was, now = (json.loads((f / "model_index.json").read_text()) for f in (before, folder))
    assert {name: now[name] for name in was if name[0] != "_"} == {
        name: value for name, value in was.items() if name[0] != "_"
    }
    first, second = (
        loaded(path)(generator=generator(), output_type="np", **asked).images
        for path in (before, folder)
    )
    assert (first == second).all()


def test_a_network_of_diffusers_that_became_another_model_is_written_anew(tmp_path: Path) -> None:
    """As a consistency model of EDM's process it is one of diffusers, else one of this package."""
    network = as_map(import_model(of_consistency(tmp_path / "a")).f, "an export").network
    f = FlowMap(network, EDM(T=10.0), trained=CONSISTENCY)
    written = write_pipeline(f, tmp_path / "b")
    assert written.kind == "ConsistencyModelPipeline"
    assert written.difference is not None
    given: dict[str, Any] = {"class_labels": torch.tensor([1, 3]), "output_type": "pt"}
    images = loaded(tmp_path / "b")(2, num_inference_steps=2, generator=generator(), **given).images
    expected = ours(f, 2, torch.tensor([1, 3]), steps=2)
    torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)
    f = as_map(import_model(of_pixels(tmp_path / "c")).f, "an export")
    f.trained = CONSISTENCY
    assert write_pipeline(f, tmp_path / "d").kind == "FewstepPipeline"


def test_licence_and_origin_go_with_a_folder(tmp_path: Path) -> None:
    f = OTHERS["mlp"][0]()
    f.info["origin"] = {"file": "x.pkl", "sha256": "0", "licence": "CC-BY-NC-SA-4.0", "source": "S"}
    written = write_pipeline(f, tmp_path / "out")
    assert any("CC-BY-NC-SA-4.0" in note for note in written.notes)
    card = (tmp_path / "out/README.md").read_text()
    assert 'license: "cc-by-nc-sa-4.0"' in card
    assert 'library_name: "diffusers"' in card
    assert "trust_remote_code=True" in card


def test_the_command_line_writes_a_pipeline(tmp_path: Path, call: Callable[..., Any]) -> None:
    f = OTHERS["mlp"][0]()
    f.save(tmp_path / "f.safetensors")
    export = ["export", tmp_path / "f.safetensors", "--to", "diffusers", "-o", tmp_path / "out"]
    code, out, _ = call(*export)
    assert code == 0
    assert "note: diffusers has no pipeline for this model: it has no network like mlp" in out
    assert f"from_pretrained('{tmp_path / 'out'}', trust_remote_code=True)" in out
    assert call("sample", tmp_path / "out", "-n", 2, "-o", tmp_path / "x.png")[0] == 0
    code, _, said = call(*export, "--steps", 2)
    assert (code, said.count("\n")) == (2, 1)
    code, _, said = call("import", tmp_path / "out", "-o", tmp_path / "again")
    assert (code, "nothing to import" in said) == (2, True)


def test_folders_of_before_find_what_they_import() -> None:
    """Their code is copied and kept by others: the module may not move."""
    from fewstep.exchange.diffusers.pipeline import FewstepModel, FewstepPipeline
    from fewstep.exchange.diffusers.writing import CODE, OWN_MODEL, OWN_PIPELINE

    assert (FewstepModel.__name__, FewstepPipeline.__name__) == (OWN_MODEL, OWN_PIPELINE)
    assert "from fewstep.exchange.diffusers.pipeline import {name}" in CODE


@pytest.mark.parametrize("to", ["diffusers", "web"])
def test_a_folder_does_not_get_the_name_of_a_file(to: str, tmp_path: Path, call: Any) -> None:
    code, _, err = call("export", "any", "--to", to, "-o", tmp_path / "cd.onnx")
    assert (code, "writes a folder" in err) == (2, True)
