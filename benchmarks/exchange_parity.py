"""What the authors' own networks give, for the tests of imported weights.

    python benchmarks/exchange_parity.py --edm FOLDER --edm2 FOLDER --cm FOLDER --guided FOLDER

Each folder is a clone of NVlabs/edm, NVlabs/edm2, openai/consistency_models and
openai/guided-diffusion. Every network is filled with numbers that depend on the names of its
tensors alone, so that the test can make the same file without the authors' code, and denoises two
images. The names, the shapes and some of the numbers go to tests/references/exchange.json.

The attention of consistency_models needs the package flash_attn, which runs on a GPU alone; here
plain attention of the same layout stands in for it.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TO = Path(__file__).parent.parent / "tests/references/exchange.json"
T, LABELS = (0.5, 10.0), (3, 7)
SHOWN = 24  # numbers kept of each image


def numbers_of(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that depend on a name alone: small, and about 1 for the scale of a norm."""
    z = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return 0.1 * z + (1.0 if "norm" in name and name.endswith("weight") else 0.0)


def fill(network: nn.Module) -> None:
    """Give every parameter its numbers."""
    with torch.no_grad():
        for name, x in network.state_dict().items():
            if not name.endswith(("resample_filter", ".u", "u")):
                x.copy_(numbers_of(name, tuple(x.shape)))


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@contextmanager
def importing(folder: Path, *packages: str) -> Iterator[None]:
    """A block in which packages are imported from a folder, and forgotten afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in list(sys.modules):
            if name.partition(".")[0] in packages:
                del sys.modules[name]


def case(network: nn.Module, D: Tensor, **more: Any) -> dict[str, Any]:
    """What is kept of a network and its images."""
    shapes = {name: list(x.shape) for name, x in network.state_dict().items()}
    kept = [[round(float(v), 7) for v in image.flatten()[:: image.numel() // SHOWN]] for image in D]
    return {"shapes": shapes, "size": D.shape[-1], "D": kept, **more}


@torch.no_grad()
def edm_cases(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """EDM's four preconditionings over its two networks."""
    small: dict[str, Any] = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1}
    song = {**small, "model_type": "SongUNet", "attn_resolutions": [8], "augment_dim": 9}
    ncsnpp = {
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "encoder_type": "residual",
        "resample_filter": [1, 3, 3, 1],
    }
    wide = {**small, "model_channels": 64, "attn_resolutions": [8], "model_type": "DhariwalUNet"}
    with importing(folder, "training", "torch_utils", "dnnlib"):
        networks = import_module("training.networks")

        for name, precond, labels, settings in (
            ("edm-ddpmpp", "EDMPrecond", 10, song),
            ("edm-ncsnpp", "EDMPrecond", 0, {**song, **ncsnpp}),
            ("edm-adm", "EDMPrecond", 10, wide),
            ("edm-vp", "VPPrecond", 0, song),
            ("edm-ve", "VEPrecond", 0, {**song, **ncsnpp}),
            ("edm-iddpm", "iDDPMPrecond", 10, wide),
        ):
            made = getattr(networks, precond)(16, 3, label_dim=labels, **settings).eval()
            fill(made.model)
            label = torch.eye(10)[list(LABELS)] if labels else None
            t = made.round_sigma(torch.tensor(T))
            D = made(images(16), t, label)
            kwargs = {"label_dim": labels, **settings}
            yield (
                name,
                case(made.model, D, kind=precond, kwargs=kwargs, labels=labels, t=t.tolist()),
            )


@torch.no_grad()
def edm2_cases(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """EDM2's network."""
    with importing(folder, "training", "torch_utils", "dnnlib"):
        Precond = import_module("training.networks_edm2").Precond

        settings = {"model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1}
        made = Precond(16, 3, 10, use_fp16=False, attn_resolutions=[8], **settings).eval()
        fill(made.unet)
        D = made(images(16), torch.tensor(T), torch.eye(10)[list(LABELS)])
        yield "edm2", case(made.unet, D, kind="Precond", kwargs=settings, labels=10, t=list(T))


def _flash() -> None:
    """Plain attention in place of flash_attn's."""

    class FlashAttention(nn.Module):
        def __init__(self, **_: Any) -> None:
            super().__init__()

        def forward(self, qkv: Tensor, **_: Any) -> tuple[Tensor, None]:
            q, k, v = qkv.transpose(1, 3).unbind(2)  # [B, heads, S, d]
            a = nn.functional.scaled_dot_product_attention(q, k, v)
            return a.transpose(1, 2), None

    module: Any = types.ModuleType("flash_attn.flash_attention")
    module.FlashAttention = FlashAttention
    sys.modules["flash_attn"] = types.ModuleType("flash_attn")
    sys.modules["flash_attn.flash_attention"] = module


def _package(name: str, folder: Path) -> None:
    """A package whose own first lines, which want MPI, are not run."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


UNET: dict[str, Any] = {
    "image_size": 16,
    "in_channels": 3,
    "model_channels": 128,
    "num_res_blocks": 1,
    "attention_resolutions": (2,),
    "channel_mult": (1, 2),
    "num_head_channels": 64,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
}


@torch.no_grad()
def cm_cases(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """openai/consistency_models: a consistency model and an EDM teacher."""
    _flash()
    _package("cm", folder / "cm")
    half: Any = types.ModuleType("cm.fp16_util")
    half.convert_module_to_f16 = half.convert_module_to_f32 = None
    sys.modules["cm.fp16_util"] = half
    UNetModel = import_module("cm.unet").UNetModel

    for name, eps, labels, scale_shift in (
        ("cd_imagenet64", 0.002, 10, True),
        ("edm_bedroom256", 0.0, 0, False),
    ):
        settings = {**UNET, "use_scale_shift_norm": scale_shift, "num_classes": labels or None}
        made = UNetModel(out_channels=3, **settings).eval()
        fill(made)
        t, x = torch.tensor(T), images(16)
        label = {"y": torch.tensor(LABELS)} if labels else {}
        wide = t[:, None, None, None]
        F = made(x * (wide**2 + 0.25).rsqrt(), 250 * (t + 1e-44).log(), **label)
        c_out = 0.5 * (wide - eps) * (wide**2 + 0.25).rsqrt()
        D = 0.25 / ((wide - eps) ** 2 + 0.25) * x + c_out * F
        yield name, case(made, D, kind="openai", labels=labels, t=list(T))


@torch.no_grad()
def guided_cases(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """openai/guided-diffusion: both orders of queries, keys and values, and a half multiplier."""
    _package("guided_diffusion", folder / "guided_diffusion")
    diffusion = import_module("guided_diffusion.gaussian_diffusion")
    UNetModel = import_module("guided_diffusion.unet").UNetModel

    for name, schedule, new, more in (
        ("64x64_diffusion", "cosine", True, {}),
        ("256x256_diffusion", "linear", False, {}),
        ("512x512_diffusion", "linear", False, {"channel_mult": (0.5, 1), "model_channels": 256}),
        ("128x128_diffusion", "linear", False, {"num_heads": 4, "num_head_channels": -1}),
    ):
        settings = {**UNET, "use_new_attention_order": new, "num_classes": 10, **more}
        made = UNetModel(out_channels=6, **settings).eval()
        fill(made)
        n, x = torch.tensor([100, 700]), images(16)
        betas = torch.from_numpy(diffusion.get_named_beta_schedule(schedule, 1000))
        a = (1 - betas).cumprod(0)[n, None, None, None]
        epsilon = made(x, n, y=torch.tensor(LABELS))[:, :3]
        D = (x - (1 - a).sqrt() * epsilon) / a.sqrt()
        yield name, case(made, D, kind="guided", labels=10, t=((n + 1) / 1000).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cases = {"edm": edm_cases, "edm2": edm2_cases, "cm": cm_cases, "guided": guided_cases}
    for name in cases:
        parser.add_argument(f"--{name}", type=Path, required=True)
    folders = vars(parser.parse_args())
    found = {name: made for key, run in cases.items() for name, made in run(folders[key])}
    TO.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"{TO}: {len(found)} networks")


if __name__ == "__main__":
    main()
