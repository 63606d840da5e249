"""The transformer `dit` beside diffusers' DiTTransformer2DModel, of equal shape and weights.

    python benchmarks/dit_step.py [--batch 4] [--size 16] [--repeats 5]

Both are DiT-S/2 on random latents in float32, on one CPU thread. Prints the CPU seconds of a pass
forwards, of one forwards and backwards, and of a forward-mode derivative (`torch.func.jvp`), each
the median of passes that alternate between the two, and the ratio ours / theirs; and by how much
the outputs and the derivatives differ. Writes benchmarks/results/dit_step.json. The fused attention
kernel has no forward mode: theirs is asked for one inside `sdpa_kernel(MATH)`, ours by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewstep.networks.dit import EPS, FREQUENCIES, SIZES, DiT

RESULTS = Path(__file__).parent / "results" / "dit_step.json"
CHANNELS, CLASSES = 4, 1000
Network = Callable[[Tensor, Tensor], Tensor]


def pair(
    size: int, channels: int = CHANNELS, classes: int = CLASSES, **how: int
) -> tuple[DiT, nn.Module]:
    """Our network and theirs with the same random weights.

    Args:
        size: pixels a side.
        channels: of the image.
        classes: number of classes.
        how: width, blocks and heads.
    """
    width, heads = how["width"], how["heads"]
    theirs = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels,
        num_layers=how["blocks"],
        sample_size=size,
        num_embeds_ada_norm=classes,
        norm_eps=EPS,
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    embed = theirs.transformer_blocks[0].norm1.emb.state_dict()
    for block in theirs.transformer_blocks:  # each of theirs embeds time and class, ours once
        block.norm1.emb.load_state_dict(embed)
    ours = DiT((channels, size, size), num_classes=classes, **how)
    ours.load_state_dict(dict(renamed(theirs.state_dict(), how["blocks"])))
    return ours.eval(), theirs.eval()


def renamed(w: dict[str, Tensor], blocks: int) -> Iterator[tuple[str, Tensor]]:
    """Their weights under our names."""
    emb = "transformer_blocks.0.norm1.emb."
    table = w[emb + "class_embedder.embedding_table.weight"]
    # Their time's features are cosines, then sines, from the highest frequency down.
    cos, sin = w[emb + "timestep_embedder.linear_1.weight"].split(FREQUENCIES, dim=1)
    yield "embed_t.weight", torch.cat([sin.flip(1), cos.flip(1)], dim=1)
    yield "embed_t.bias", w[emb + "timestep_embedder.linear_1.bias"]
    # Their last row is the null class, which is zero here.
    yield "mix.weight", w[emb + "timestep_embedder.linear_2.weight"]
    yield "mix.bias", w[emb + "timestep_embedder.linear_2.bias"] + table[-1]
    yield "embed_label.weight", table[:-1] - table[-1]
    yield "read.weight", w["pos_embed.proj.weight"].flatten(1)
    yield "read.bias", w["pos_embed.proj.bias"]
    for i in range(blocks):
        mine, their = f"blocks.{i}.", f"transformer_blocks.{i}."
        for kind in ("weight", "bias"):
            yield f"{mine}affine.{kind}", w[f"{their}norm1.linear.{kind}"]
            parts = [w[f"{their}attn1.to_{part}.{kind}"] for part in "qkv"]
            yield f"{mine}attention.qkv.{kind}", torch.cat(parts)
            yield f"{mine}attention.proj.{kind}", w[f"{their}attn1.to_out.0.{kind}"]
            yield f"{mine}W1.{kind}", w[f"{their}ff.net.0.proj.{kind}"]
            yield f"{mine}W2.{kind}", w[f"{their}ff.net.2.{kind}"]
    for kind in ("weight", "bias"):
        yield f"affine.{kind}", w[f"proj_out_1.{kind}"]
        # Their patch is written pixel by pixel, ours channel by channel, as both are read.
        written = w[f"proj_out_2.{kind}"].unflatten(0, (2, 2, -1))
        yield f"write.{kind}", written.movedim(2, 0).flatten(0, 2)


def passes(F: Network, x: Tensor, t: Tensor, v: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed of a network at points ``x`` [B, C, H, W] and times ``t`` [B]."""

    def forward() -> Tensor:
        with torch.no_grad():
            return F(x, t)

    def backward() -> Tensor:
        y = F(x, t)
        y.square().mean().backward()
        return y.detach()

    def forward_mode() -> Tensor:
        with torch.no_grad():
            derivative: Tensor = torch.func.jvp(F, (x, t), (v, torch.ones_like(t)))[1]
        return derivative

    return {"forward": forward, "forward and backward": backward, "forward mode": forward_mode}


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.process_time()
    y = call()
    return time.process_time() - started, y


def compared(batch: int, size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of each pass, ours and theirs, and how much the results differ."""
    mine, their = pair(size, **SIZES["s"])
    x, v = torch.randn(2, batch, CHANNELS, size, size)
    t, label = torch.linspace(1, 99, batch), torch.arange(batch)

    def peer(x: Tensor, t: Tensor) -> Tensor:
        y: Tensor = their(x, t, label).sample
        return y

    def peer_in_forward_mode(x: Tensor, t: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return peer(x, t)

    ours = passes(lambda x, t: mine(x, t, label), x, t, v)
    theirs = passes(peer, x, t, v) | {
        "forward mode": passes(peer_in_forward_mode, x, t, v)["forward mode"]
    }
    found = {}
    for name in ours:
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats + 1):
            results = [timed(calls[name]) for calls in (ours, theirs)]
            for taken, (spent, _) in zip(seconds, results, strict=True):
                taken.append(spent)
        a, b = (statistics.median(taken[1:]) for taken in seconds)  # the first pass allocates
        y, z = (result for _, result in results)
        found[name] = {
            "ours_s": round(a, 3),
            "theirs_s": round(b, 3),
            "ratio": round(a / b, 3),
            "difference": float(f"{float((y - z).norm() / z.norm()):.1e}"),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=32, help="pixels a side of the latents")
    parser.add_argument("--repeats", type=int, default=5, help="passes that are timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = {
        "network": "DiT-S/2",
        "batch": options.batch,
        "size": options.size,
        "passes": compared(options.batch, options.size, options.repeats),
        "machine": {
            "device": "cpu",
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
