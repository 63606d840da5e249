"""Models of diffusers: read, and sampled as diffusers itself samples them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.exchange.diffusers.process import SCHEDULERS, WALKS, scheduled
from fewstep.exchange.graphs.program import program
from fewstep.exchange.imported import Imported, Wanted
from fewstep.exchange.sources import import_model
from fewstep.flow_map import FlowMap
from fewstep.models import load_model
from fewstep.networks import DiffusersNetwork, skeleton, unfinished
from fewstep.parameterization import EDM, from_config
from fewstep.runs.opening import open_model
from fewstep.sampling import NoiseStreams, sampler_for
from fewstep.trained import CONSISTENCY, DIFFUSION
from hub import Hub

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of theirs
diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()

SHAPE, CLASSES = (3, 8, 8), 4
BLOCKS: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
RESNET: dict[str, Any] = {
    "resnet_time_scale_shift": "scale_shift",
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
"""As in the pipelines of consistency models."""


def unet(**settings: Any) -> Any:
    torch.manual_seed(1)
    return diffusers.UNet2DModel(**(BLOCKS | settings)).eval()


def dit(**settings: Any) -> Any:
    torch.manual_seed(1)
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4}
    return diffusers.DiTTransformer2DModel(**(small | settings)).eval()


def vae(**settings: Any) -> Any:
    torch.manual_seed(2)
    blocks = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    }
    return diffusers.AutoencoderKL(**(blocks | settings)).eval()


def stored(folder: Path, pipeline: str, **parts: Any) -> Path:
    getattr(diffusers, pipeline)(**parts).save_pretrained(folder)
    return folder


def read(folder: Path, wanted: Wanted | None = None) -> tuple[FlowMap, Imported]:
    imported = import_model(folder, wanted)
    assert isinstance(imported.f, FlowMap)
    return imported.f, imported


def streams(shape: tuple[int, ...] = SHAPE) -> NoiseStreams:
    return NoiseStreams(3, range(2), shape)


def close(a: Tensor, b: Tensor, most: float = 2e-5) -> None:
    difference = (a - b).detach().abs().max() / b.detach().abs().max()
    assert float(difference) < most


# Denoised images


PREDICTED = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


@pytest.mark.parametrize("prediction", list(PREDICTED))
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_a_unet_denoises_as_its_scheduler_says(prediction: str, betas: str, tmp_path: Path) -> None:
    theirs = unet(num_class_embeds=CLASSES)
    ends = {"beta_start": 0.00085, "beta_end": 0.012}
    scheduler = diffusers.DDPMScheduler(
        beta_schedule=betas, prediction_type=prediction, clip_sample=False, **ends
    )
    f, imported = read(stored(tmp_path, "DDPMPipeline", unet=theirs, scheduler=scheduler))
    assert not imported.notes
    x, label = streams().normal(), torch.tensor([1, 3])
    condition = Condition(label)
    for index in (0, 333, 999):
        output = theirs(x, index, class_labels=label).sample
        scheduler.set_timesteps(1000)
        expected = scheduler.step(output, index, x).pred_original_sample
        with torch.no_grad():
            close(f.D(x, (index + 1) / 1000, condition), expected)
            close(f.prediction(x, (index + 1) / 1000, condition=condition), output)
    assert f.trained.kind == "diffusion"
    assert not f.trained.null_class


def test_betas_may_be_any_and_leave_no_signal(tmp_path: Path) -> None:
    betas = [0.02 + 0.01 * (i % 5) for i in range(50)]
    theirs = unet()
    for settings, noted in (
        ({"trained_betas": betas}, False),
        ({"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}, True),
    ):
        scheduler = diffusers.DDIMScheduler(num_train_timesteps=50, clip_sample=False, **settings)
        f, imported = read(stored(tmp_path, "DDIMPipeline", unet=theirs, scheduler=scheduler))
        assert any("no signal" in note for note in imported.notes) == noted
        alpha = f.p.alpha((torch.arange(50) + 1).double() / 50)
        torch.testing.assert_close(
            alpha.float()[:-1], scheduler.alphas_cumprod[:-1] ** 0.5, rtol=1e-5, atol=1e-6
        )
        assert float(alpha[-1]) == pytest.approx(
            float(scheduler.alphas_cumprod[-1]) ** 0.5, abs=3e-4
        )
        assert from_config(json.loads(json.dumps(f.p.config))) == f.p
        t = torch.tensor(0.4)
        assert float(f.p.c_noise(t)) == pytest.approx(19, abs=1e-4)


def test_what_a_network_is_told_and_not() -> None:
    theirs = unet(num_class_embeds=CLASSES)
    F = DiffusersNetwork(SHAPE, num_classes=CLASSES, config=dict(theirs.config))
    F.net.load_state_dict(theirs.state_dict())
    x, t, label = streams().normal(), torch.tensor([7.0, 400.0]), torch.tensor([2, CLASSES])
    nothing = F(x, t)
    torch.testing.assert_close(F(x, t, label)[1], nothing[1])
    torch.testing.assert_close(F(x, t, label)[:1], theirs(x[:1], 7.0, label[:1]).sample)
    assert F.takes == ("label",)
    crossing = {
        "sample_size": 8,
        "cross_attention_dim": 16,
        "block_out_channels": (32, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 8,
    }
    F = DiffusersNetwork((4, 8, 8), module="UNet2DConditionModel", config=json.dumps(crossing))
    f, z, text = FlowMap(F, EDM()), torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    D = f.D(z, 1.0, Condition(embedding=text))
    assert D.shape == z.shape
    assert not torch.equal(D, f.D(z, 1.0, Condition(embedding=text + 1)))
    with pytest.raises(FewstepError, match="looks at an embedding"):
        f.D(z, 1.0)
    f.trained = DIFFUSION
    with pytest.raises(FewstepError, match="the model knows no empty one: leave guidance out"):
        sampler_for(f, guidance=7)
    assert sampler_for(f, guidance=1).nfe == sampler_for(f).nfe


def test_frequencies_are_kept_where_weights_are_rounded(tmp_path: Path) -> None:
    theirs = unet(time_embedding_type="fourier")
    F = DiffusersNetwork(SHAPE, config=dict(theirs.config))
    F.net.load_state_dict(theirs.state_dict())
    f = FlowMap(F, EDM())
    f.in_precision("bf16").save(tmp_path / "model.safetensors")
    for model in (f, FlowMap.load(tmp_path / "model.safetensors")):
        kept = model.network.net.time_proj.weight
        assert torch.equal(kept, theirs.time_proj.weight)
        assert model.dtype == torch.bfloat16
        assert model.D(streams().normal(), 5.0).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"module": "NoModel"}, "has no network 'NoModel'"),
        ({"module": "DDIMScheduler"}, "has no network"),
        ({"config": {**BLOCKS, "no_such": 1}}, "takes no no_such"),
        ({"config": {**BLOCKS, "block_out_channels": (32,)}}, "cannot be built"),
        ({"config": "{"}, "no JSON"),
        ({"config": "[1]"}, "JSON object"),
        ({"config": {**BLOCKS, "num_class_embeds": 3}}, "has 3 classes"),
        ({"config": {**BLOCKS, "class_embed_type": "timestep"}}, "takes no class"),
        ({"config": {**BLOCKS, "in_channels": 4}}, "4 channels"),
        ({"module": "AutoencoderKL", "config": {}}, "does not map"),
    ],
)
def test_networks_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(FewstepError, match=said):
        DiffusersNetwork(SHAPE, **settings)


def test_a_network_that_is_told_something_else_is_not_imported(tmp_path: Path) -> None:
    """Whatever its scheduler is, which is not asked."""
    for module, settings, said in (
        ("UNet2DModel", {"time_embedding_type": "fourier"}, "told the noise level itself"),
        ("UNet2DConditionModel", {"time_cond_proj_dim": 256}, "embedding of the guidance weight"),
    ):
        config = {"_class_name": module, "sample_size": 8, **settings}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "scheduler_config.json").write_text('{"_class_name": "NoScheduler"}')
        with pytest.raises(FewstepError, match=said) as error:
            import_model(tmp_path)
        assert "--process" not in str(error.value)


# Schedulers


def drawing(scheduler: Any, noise: NoiseStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scheduler draw our noise."""
    module = sys.modules[type(scheduler).__module__]
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise.normal())


@torch.no_grad()
def theirs_of(scheduler: Any, network: Any, noise: NoiseStreams, steps: int, **how: Any) -> Tensor:
    """Samples of a network by diffusers' own loop."""
    scheduler.set_timesteps(steps)
    start = getattr(scheduler, "init_noise_sigma", 1.0)
    if type(scheduler).__name__.startswith("EDM"):  # which starts at sqrt(sigma_max^2 + 1)
        start = scheduler.config.sigma_max
    x = noise.normal() * start
    for t in scheduler.timesteps:
        scaled = getattr(scheduler, "scale_model_input", lambda x, t: x)(x, t)
        x = scheduler.step(network(scaled, t.expand(2)).sample, t, x, **how).prev_sample
    return x


LAID = ("leading", "trailing", "linspace")
WALKED: list[tuple[str, dict[str, Any], int]] = [
    *(("DDPMScheduler", {"timestep_spacing": s}, 10) for s in LAID),
    ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}, 8),
    ("DDPMScheduler", {"prediction_type": "v_prediction", "num_train_timesteps": 20}, 20),
    *(("DDIMScheduler", {"timestep_spacing": s, "clip_sample": False}, 10) for s in LAID[:2]),
    ("DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2"}, 8),
    ("DDIMScheduler", {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}, 7),
    *(("DPMSolverMultistepScheduler", {"timestep_spacing": s}, 6) for s in LAID),
    ("DPMSolverMultistepScheduler", {"solver_order": 1, "prediction_type": "sample"}, 5),
    *(("EulerDiscreteScheduler", {"timestep_spacing": s}, 10) for s in LAID),
    ("EulerAncestralDiscreteScheduler", {}, 10),
    *(("HeunDiscreteScheduler", {"timestep_spacing": s}, 4) for s in LAID),
    ("HeunDiscreteScheduler", {"clip_sample": True}, 4),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 5),
    ("FlowMatchEulerDiscreteScheduler", {}, 4),
    ("FlowMatchHeunDiscreteScheduler", {}, 4),
    ("EDMEulerScheduler", {}, 6),
    ("EDMDPMSolverMultistepScheduler", {}, 6),
]


@pytest.mark.parametrize(("name", "settings", "steps"), WALKED)
def test_our_sampler_walks_as_the_scheduler(
    name: str,
    settings: dict[str, Any],
    steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = getattr(diffusers, name)(**settings)
    theirs = unet()
    f, imported = read(stored(tmp_path, "DDPMPipeline", unet=theirs, scheduler=scheduler))
    assert imported.sampler is not None
    noise = streams()
    drawing(scheduler, noise, monkeypatch)
    expected = theirs_of(scheduler, theirs, noise, steps)
    x = sampler_for(f, steps, sampler=imported.sampler)(f, streams())
    close(x, expected)


def test_every_scheduler_says_a_process_or_is_refused() -> None:
    """Also those that none of our samplers walks as."""
    for name in SCHEDULERS:
        config = {"_class_name": name} | dict(getattr(diffusers, name)().config)
        said = scheduled(config, latent=False, source="X")
        assert from_config(dict(said.process)).T > 0
        assert said.sampler is None or sampler_for(any_map(said), 6, sampler=said.sampler)
        assert (said.sampler is None) == (name not in (*WALKS, *OTHERS))
    for name, settings, reason in (
        ("LCMScheduler", {}, "not known here.*: --process PROCESS, and --as"),
        ("NoScheduler", {}, "not known here"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "continuous"),
        ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, "v_prediction"),
        ("DDPMScheduler", {"beta_schedule": "odd"}, "cannot build"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas"),
    ):
        with pytest.raises(FewstepError, match=reason) as error:
            scheduled({"_class_name": name, **settings}, latent=False, source="FILE")
        assert "FILE" in str(error.value)
    flow = {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}
    assert scheduled(flow, latent=False, source="X").process["name"] == "rectified_flow"


OTHERS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "CMStochasticIterativeScheduler",
)


def any_map(said: Any) -> FlowMap:
    F = DiffusersNetwork(SHAPE, config=dict(unet().config))
    kind = CONSISTENCY if said.consistency else DIFFUSION
    return FlowMap(F, from_config(dict(said.process)), trained=kind)


@pytest.mark.parametrize(
    ("process", "consistency", "scale"),
    [
        ({"name": "edm"}, True, 1000.0),
        ({"name": "edm"}, False, 1.0),
        ({"name": "rectified_flow"}, False, 1000.0),
        ({"name": "vp_discrete"}, True, 1.0),
    ],
)
def test_a_network_alone_is_told_the_time_as_its_process_has_it(
    process: dict[str, Any], consistency: bool, scale: float, tmp_path: Path
) -> None:
    unet(**RESNET).save_pretrained(tmp_path)
    wanted = Wanted(consistency=consistency, process=process)
    f, imported = read(tmp_path, wanted)
    assert f.network.time_scale == scale
    assert any(f"told {scale:g} times c_noise (--time-scale)" in note for note in imported.notes)
    f, imported = read(tmp_path, replace(wanted, network={"time_scale": 7.0}))
    assert f.network.time_scale == 7.0
    assert not imported.notes


@pytest.mark.parametrize(
    "settings",
    [
        {"use_karras_sigmas": True},
        {"algorithm_type": "sde-dpmsolver++"},
        {"final_sigmas_type": "sigma_min"},
        {"thresholding": True},
        {"solver_order": 3},
    ],
)
def test_a_walk_of_another_kind_is_not_said_to_be_ours(settings: dict[str, Any]) -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler", **settings}
    assert scheduled(config, latent=False, source="X").sampler is None


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("timesteps", [[0], [22, 0], [30, 17, 0]])
def test_a_consistency_model_jumps_as_its_pipeline(
    clip: bool, timesteps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = unet(num_class_embeds=CLASSES, **RESNET)
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=clip)
    parts = {"unet": theirs, "scheduler": scheduler}
    f, imported = read(stored(tmp_path, "ConsistencyModelPipeline", **parts))
    assert (f.trained.kind, f.p.config["name"]) == ("consistency", "edm")
    noise, label = streams(), torch.tensor([2, 0])
    drawing(scheduler, noise, monkeypatch)
    scheduler.set_timesteps(timesteps=list(timesteps))
    x = noise.normal() * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = theirs(scheduler.scale_model_input(x, t), t, class_labels=label).sample
            x = scheduler.step(output, t, x).prev_sample
        times = tuple(scheduler.sigmas[1:-1].tolist())
        sampler = sampler_for(f, sampler=imported.sampler, taus=times)
        close(sampler(f, streams(), Condition(label)), x)


# Latents


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT in the latent space of an autoencoder."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    parts = {"transformer": dit(out_channels=8), "vae": vae(), "scheduler": scheduler}
    return stored(tmp_path_factory.mktemp("dit"), "DiTPipeline", **parts)


@pytest.mark.parametrize("w", [1.0, 2.5])
def test_a_guided_dit_gives_the_images_of_its_pipeline(w: float, latent: Path) -> None:
    f, imported = read(latent)
    assert f.image_shape == (3, 8, 8)
    assert (f.num_classes, f.trained.null_class) == (1000, True)
    assert any("variance" in note for note in imported.notes)
    pipeline = diffusers.DiTPipeline.from_pretrained(latent)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    theirs = pipeline([7, 900], w, generator, num_inference_steps=4, output_type="pt").images

    class Given(NoiseStreams):
        def normal(self, *_: Any) -> Tensor:
            return torch.randn(2, *f.shape, generator=torch.Generator().manual_seed(5))

    sampler = sampler_for(f, 4, sampler=imported.sampler, guidance=w)
    with torch.no_grad():
        x = sampler(f, Given(0, range(2), f.shape), Condition(torch.tensor([7, 900])))
    close((x / 2 + 0.5).clamp(0, 1), theirs)


def test_a_transformer_is_never_made_of_random_numbers_first() -> None:
    theirs = dit()
    settings = {"num_classes": 1000, "module": "DiTTransformer2DModel"}
    with skeleton():
        F = DiffusersNetwork((4, 4, 4), config=dict(theirs.config), **settings)
    F.net.load_state_dict(theirs.state_dict(), assign=True)
    assert not unfinished(F)
    x, t, label = torch.randn(2, 4, 4, 4), torch.tensor([1.0, 2.0]), torch.tensor([5, 1000])
    with torch.no_grad():
        expected = theirs(x, timestep=t, class_labels=label).sample
        torch.testing.assert_close(F.eval()(x, t, label), expected)
        torch.testing.assert_close(F(x, t)[1], expected[1])


def test_an_autoencoder_is_one_here(tmp_path: Path) -> None:
    theirs = vae(sample_size=16, scaling_factor=0.3)
    theirs.save_pretrained(tmp_path / "vae")
    f = import_model(tmp_path / "vae").f
    assert isinstance(f, AutoencoderModel)
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        q = theirs.encode(x).latent_dist
        torch.testing.assert_close(f.encode(x), (q.mean, q.logvar))
        torch.testing.assert_close(f.decode(q.mean), theirs.decode(q.mean).sample)
    f.save(tmp_path / "model.safetensors")
    assert isinstance(load_model(tmp_path / "model.safetensors"), AutoencoderModel)


@pytest.mark.parametrize("kind", ["shift", "each", "codes"])
def test_latents_are_scaled_and_decoded_as_there(kind: str, tmp_path: Path) -> None:
    settings: dict[str, dict[str, Any]] = {
        "shift": {"scaling_factor": 0.36, "shift_factor": 0.116},
        "each": {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
        "codes": {},
    }
    theirs = vae(**settings[kind])
    if kind == "codes":
        torch.manual_seed(2)
        blocks = {k: v for k, v in theirs.config.items() if k.endswith("types")}
        theirs = diffusers.VQModel(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **blocks
        ).eval()
    index = {
        "_class_name": "LDMPipeline",
        "vqvae": ["diffusers", type(theirs).__name__],
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    theirs.save_pretrained(tmp_path / "vqvae")
    unet(in_channels=4, out_channels=4).save_pretrained(tmp_path / "unet")
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    f, _ = read(tmp_path)
    assert f.image_shape == (3, 16, 16)
    z = torch.randn(2, 4, 8, 8)
    config = theirs.config
    scale = config["scaling_factor"]
    moved = z / scale + (config.get("shift_factor") or 0.0)
    if kind == "each":
        mean, std = (torch.tensor(config[f"latents_{k}"])[:, None, None] for k in ("mean", "std"))
        moved = z * std / scale + mean
    with torch.no_grad():
        torch.testing.assert_close(f.image(z), theirs.decode(moved).sample)
    f.save(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(FlowMap.load(tmp_path / "model.safetensors").image(z), f.image(z))


def test_a_graph_of_a_network_takes_any_batch() -> None:
    """Though its code branches at 64 rows."""
    theirs = unet(down_block_types=RESNET["down_block_types"])
    F = DiffusersNetwork(SHAPE, config=dict(theirs.config)).eval()
    x, t = streams().normal(), torch.tensor([3.0, 700.0])
    made = program(F, (x, t)).module()
    with torch.no_grad():
        torch.testing.assert_close(made(x, t), F(x, t))
        more = x.repeat(8, 1, 1, 1)
        torch.testing.assert_close(made(more, t.repeat(8)), F(more, t.repeat(8)))


# Folders


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddpm")
    return stored(folder, "DDPMPipeline", unet=unet(), scheduler=diffusers.DDPMScheduler())


WEIGHTS = "diffusion_pytorch_model.safetensors"


def copied(pipeline: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(pipeline, folder))


def test_a_stored_model_needs_no_folder(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, _ = read(pipeline)
    state = load_file(pipeline / "unet" / WEIGHTS)
    assert {f"net.{name}" for name in state} == set(f.network.state_dict())
    f.save(tmp_path / "model.safetensors")
    again = FlowMap.load(tmp_path / "model.safetensors")
    x = streams().normal()
    assert torch.equal(again.D(x, 0.5), f.D(x, 0.5))
    assert again.info["origin"]["scheduler"]["_class_name"] == "DDPMScheduler"
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(FewstepError, match=r"pip install 'fewstep\[diffusers\]'"):
        FlowMap.load(tmp_path / "model.safetensors")
    with pytest.raises(FewstepError, match=r"pip install 'fewstep\[diffusers\]'"):
        import_model(pipeline)


def forms() -> Iterator[tuple[str, Callable[[Path], Path], tuple[str, ...]]]:
    """Ways of laying the same network out: what is given, and what is said."""

    def named(name: str) -> Callable[[Path], Path]:
        def change(folder: Path) -> Path:
            (folder / "unet" / WEIGHTS).rename(folder / "unet" / name)
            return folder

        return change

    def alone(folder: Path) -> Path:
        return copied(folder / "unet", folder.parent / "alone")

    def pickled(folder: Path) -> Path:
        state = load_file(folder / "unet" / WEIGHTS)
        (folder / "unet" / WEIGHTS).unlink()
        torch.save(state, folder / "unet/diffusion_pytorch_model.bin")
        return folder

    def sharded(folder: Path) -> Path:
        state = load_file(folder / "unet" / WEIGHTS)
        (folder / "unet" / WEIGHTS).unlink()
        names = sorted(state)
        shards = {
            f"diffusion_pytorch_model-0000{i}-of-00002.safetensors": names[i - 1 :: 2]
            for i in (1, 2)
        }
        for file, held in shards.items():
            save_file({name: state[name] for name in held}, folder / "unet" / file)
        index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
        (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
        return folder

    def at_the_root(folder: Path) -> Path:
        for part in ("unet", "scheduler"):
            for file in (folder / part).iterdir():
                file.rename(folder / file.name)
            (folder / part).rmdir()
        return folder

    def averaged(folder: Path) -> Path:
        (folder / "unet").rename(folder / "unet_ema")
        copied(folder / "unet_ema", folder / "unet")
        state = load_file(folder / "unet" / WEIGHTS)
        save_file({name: x + 1 for name, x in state.items()}, folder / "unet" / WEIGHTS)
        config = json.loads((folder / "unet_ema/config.json").read_text())
        (folder / "unet_ema/config.json").write_text(
            json.dumps(config | {"decay": 0.9, "power": 1})
        )
        return folder

    def checkpoint(folder: Path) -> Path:
        averaged(folder)
        (folder / "model_index.json").unlink()
        return folder

    def older(folder: Path) -> Path:
        state = load_file(folder / "unet" / WEIGHTS)
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for now, then in old.items():
            state = {name.replace(f".{now}.", f".{then}."): x for name, x in state.items()}
        save_file(state, folder / "unet" / WEIGHTS)
        return folder

    def newer(folder: Path) -> Path:
        config = json.loads((folder / "unet/config.json").read_text())
        (folder / "unet/config.json").write_text(json.dumps(config | {"of_tomorrow": 3}))
        return folder

    yield "as it is", lambda folder: folder, ()
    yield "one network", lambda folder: folder / "unet", ()
    yield "without a scheduler", alone, ("no scheduler", "1000 linear betas")
    yield "fp16", named("diffusion_pytorch_model.fp16.safetensors"), ("variant fp16",)
    yield "a pickle", pickled, ()
    yield "shards", sharded, ()
    yield "at the root", at_the_root, ()
    yield "an average", averaged, ("average unet_ema",)
    yield "a checkpoint", checkpoint, ("unet_ema",)
    yield "old names", older, ()
    yield "settings of tomorrow", newer, ("of_tomorrow",)


@pytest.mark.parametrize(("form", "change", "said"), list(forms()))
def test_folders_of_every_form_hold_the_same_model(
    form: str,
    change: Callable[[Path], Path],
    said: tuple[str, ...],
    pipeline: Path,
    tmp_path: Path,
) -> None:
    expected, _ = read(pipeline)
    f, imported = read(change(copied(pipeline, tmp_path / "folder")))
    for name, x in expected.tensors().items():
        assert torch.equal(f.tensors()[name], x), (form, name)
    notes = "; ".join(imported.notes)
    assert bool(notes) == bool(said)
    assert all(part in notes for part in said), notes
    assert (imported.sampler is None) == (form == "without a scheduler")


def test_weights_keep_their_type(pipeline: Path, tmp_path: Path) -> None:
    folder = copied(pipeline, tmp_path / "half")
    state = load_file(folder / "unet" / WEIGHTS)
    save_file({name: x.half() for name, x in state.items()}, folder / "unet" / WEIGHTS)
    f, _ = read(folder)
    assert f.dtype == torch.float16
    f.save(tmp_path / "model.safetensors")
    assert FlowMap.load(tmp_path / "model.safetensors").dtype == torch.float16


def test_a_folder_is_a_model_wherever_one_is_asked_for(pipeline: Path) -> None:
    f = open_model(pipeline)
    assert f.num_classes == 0
    x = sampler_for(f, 2)(f, streams(), NONE)  # type: ignore[arg-type]
    assert x.shape == (2, *SHAPE)


def test_a_folder_of_the_hub_is_a_model(pipeline: Path, hub: Hub) -> None:
    files = {
        str(path.relative_to(pipeline)): path.read_bytes()
        for path in pipeline.rglob("*")
        if path.is_file()
    }
    files["README.md"] = b"---\nlicense: apache-2.0\n---\n"
    files["unet/diffusion_pytorch_model.bin"] = b"a pickle that nobody fetches"
    commit = hub.add("ann/ddpm", files)
    f = open_model("hub:ann/ddpm")
    assert isinstance(f, FlowMap)
    assert isinstance(f.network, DiffusersNetwork)
    origin = f.info["origin"]
    assert origin["licence"] == "apache-2.0"
    assert commit in origin["hub"]
    assert origin["scheduler"]["_class_name"] == "DDPMScheduler"
    alone = open_model("hub:ann/ddpm/unet")
    assert alone.shape == f.shape


def test_the_user_may_say_more(pipeline: Path, tmp_path: Path) -> None:
    wanted = Wanted(process={"name": "rectified_flow"}, consistency=False, size=16)
    f, _ = read(pipeline / "unet", wanted)
    assert f.shape == (3, 16, 16)
    assert f.p.config["name"] == "rectified_flow"
    assert isinstance(f.network, DiffusersNetwork)
    assert f.network.time_scale == 1000
    card = copied(pipeline, tmp_path / "carded")
    (card / "README.md").write_text("---\nlicense: openrail\n---\n# A model\n")
    assert read(card)[1].f.info["origin"]["licence"] == "openrail"


# Folders that are not taken


def indexed(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(index | changes))

    return change


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "unet/config.json").read_text())
        (folder / "unet/config.json").write_text(json.dumps(config | changes))

    return change


def weighed(content: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "unet" / WEIGHTS
        path.unlink() if content is None else path.write_bytes(content)

    return change


def cut(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:5000])


def lacking_a_shard(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    index = {"weight_map": {"x": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def climbing(folder: Path) -> None:
    lacking_a_shard(folder)
    (folder / "elsewhere.safetensors").touch()
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def calling(folder: Path) -> None:
    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise SystemExit",)

    (folder / "unet" / WEIGHTS).unlink()
    torch.save({"x": Calls()}, folder / "unet/diffusion_pytorch_model.bin")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (indexed(_class_name="FancyPipeline"), ("FancyPipeline", "DDPMPipeline", "unet")),
        (indexed(_class_name=["pipeline", "Mine"]), ("code of its own", "DDPMPipeline")),
        (
            indexed(_class_name="StableDiffusionPipeline", text_encoder=["transformers", "CLIP"]),
            ("StableDiffusionPipeline", "of a text", "CLIP"),
        ),
        (indexed(unet=["my_unet", "Mine"]), ("my_unet.Mine", "no code of others")),
        (indexed(unet=None), ("not known",)),
        (configured(_class_name="UNet3DConditionModel"), ("UNet3DConditionModel", "UNet2DModel")),
        (configured(sample_size=None), ("how large", "--size")),
        (configured(layers_per_block=2), ("do not fit", "UNet2DModel")),
        (configured(block_out_channels=[64, 64]), ("do not fit", "64")),
        (configured(in_channels=7), ("7 channels",)),
        (weighed(None), ("has no weights", "config.json")),
        (weighed(POINTER), ("Git LFS",)),
        (weighed(b""), ("empty",)),
        (weighed(b"<!DOCTYPE html>"), ("HTML",)),
        (cut, ("cannot read",)),
        (lacking_a_shard, ("lacks diffusion_pytorch_model-00001-of-00002",)),
        (climbing, ("lacks ../elsewhere",)),
        (calling, ("exec", "nothing in it was run")),
        (lambda folder: (folder / "model_index.json").write_text("{"), ("model_index.json",)),
        (lambda folder: (folder / "model_index.json").write_text("[]"), ("model_index.json",)),
        (lambda folder: (folder / "unet/config.json").unlink(), ("config.json",)),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"a": 1}'),
            ("scheduler_config.json", "not known"),
        ),
    ],
)
def test_folders_that_are_not_taken_say_why(
    change: Callable[[Path], None], said: tuple[str, ...], pipeline: Path, tmp_path: Path
) -> None:
    folder = copied(pipeline, tmp_path / "folder")
    change(folder)
    with pytest.raises(FewstepError) as error:
        import_model(folder)
    text = str(error.value)
    assert "\n" not in text
    assert str(folder) in text
    for part in said:
        assert part in text, text


# Commands


Call = Callable[..., tuple[int, str, str]]


def test_the_command_line_takes_a_folder(pipeline: Path, tmp_path: Path, call: Call) -> None:
    run = tmp_path / "my run"
    code, out, err = call("import", pipeline, "-o", run)
    assert (code, err) == (0, "")
    assert "a diffusion model of 3x8x8" in out
    assert "takes the place" not in out
    assert f"fewstep sample '{run}' " in out
    assert "takes the place" in call("import", pipeline, "-o", run)[1]
    code, _, err = call("import", pipeline, "--attention-order", "three-first", "-o", run)
    assert (code, "--attention-order" in err) == (2, True)
    spec = out.split("--sampler ")[1].strip().strip('"')
    sampled = ["sample", "-n", 2, "--steps", 4, "--sampler", spec]
    for model in (run, pipeline):
        code, _, err = call(*sampled, model, "-o", tmp_path / "out.png")
        assert code == 0, err
    code, out, _ = call("info", pipeline)
    assert code == 0
    assert "diffusers" in out
    code, _, err = call("sample", pipeline / "scheduler", "-o", tmp_path / "out.png")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.filterwarnings("ignore:the teacher")
def test_an_imported_model_is_distilled(tmp_path: Path, call: Call) -> None:
    """Into the same network, in the recipe's process and in its own."""
    theirs = unet(in_channels=1, out_channels=1, block_out_channels=(8, 8), num_class_embeds=10)
    scheduler = diffusers.DDPMScheduler()
    folder = stored(tmp_path / "teacher", "DDPMPipeline", unet=theirs, scheduler=scheduler)
    few = ["--steps", 2, "--batch", 4, "--quiet", "--warmup", 0, "--sample-every", 0]
    train = ["train", "digits/cd", "--teacher", folder, "--same-network", *few]
    code, _, err = call(*train, "--out", tmp_path / "run")
    assert code == 0, err
    f = open_model(tmp_path / "run")
    assert isinstance(f, FlowMap)
    assert isinstance(f.network, DiffusersNetwork)
    assert (f.trained.kind, f.p.config["name"]) == ("consistency", "matched")
    code, out, err = call(*train, "--same-process", "--out", tmp_path / "own")
    assert code == 0, err
    own = open_model(tmp_path / "own")
    assert isinstance(own, FlowMap)
    assert own.p.config["name"] == "vp_discrete"
    code, _, err = call("sample", tmp_path / "run", "-n", 2, "--steps", 2, "-o", tmp_path / "x.png")
    assert code == 0, err
    code, out, err = call(*train, "--dry-run")
    assert code == 0, err
    assert f"{sum(x.numel() for x in theirs.parameters()):,} parameters" in out
    code, _, err = call(*train, "--network.width", 8, "--out", tmp_path / "no")
    assert (code, "--network.width" in err) == (2, True)
    alone = ["train", "digits/ct", "--same-network", *few, "--out", tmp_path / "no"]
    assert "--teacher or --init" in call(*alone)[2]


@pytest.mark.parametrize("module", ["UNet2DModel", "DiTTransformer2DModel"])
def test_networks_have_forward_mode_derivatives(module: str) -> None:
    """Attention and group norms too, as central differences say in double precision."""
    made = unet() if module == "UNet2DModel" else dit()
    side, channels = made.config.sample_size, made.config.in_channels
    classes = 0 if module == "UNet2DModel" else 1000
    config = {k: v for k, v in made.config.items() if k[0] != "_"}
    F: Any = DiffusersNetwork(
        (channels, side, side), num_classes=classes, module=module, config=config
    )
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    F = F.double().eval()
    label = torch.tensor([1, 2]) if classes else None
    x, v = torch.randn(2, 2, *F.shape, dtype=torch.float64)
    t = torch.tensor([1.0, 2.0]).double()
    h = 1e-5

    def f(x: Tensor) -> Tensor:
        return F(x, t, label)

    _, found = torch.func.jvp(f, (x,), (v,))
    close(found, (f(x + h * v) - f(x - h * v)) / (2 * h), 1e-5)
