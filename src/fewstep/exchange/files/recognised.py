"""What weights of a network that is not read seem to be, by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

DIFFUSERS = "give the folder that diffusers saved it in, whose config.json says what it is"


@dataclass(frozen=True)
class Kind:
    """A kind of weights.

    Args:
        what: it is.
        names: patterns, each of which is found in the name of a tensor.
        remedy: what would work; empty where nothing does.
        without: a pattern that is found in none.
    """

    what: str
    names: tuple[str, ...]
    remedy: str = ""
    without: str = r"^$"

    def fits(self, names: list[str]) -> bool:
        """Whether tensors of these names are of it."""

        def found(pattern: str) -> bool:
            return any(re.search(pattern, name) for name in names)

        return all(map(found, self.names)) and not found(self.without)


TEXT = "it makes images of texts, which no model of this package takes"
KINDS = (
    Kind(
        "a LoRA, which changes a model and is none",
        (r"(^|[._])lora_",),
        "merge it into its model, and give that",
    ),
    Kind(
        "a whole Stable Diffusion checkpoint", (r"^(cond_stage_model|first_stage_model)\.",), TEXT
    ),
    Kind("a text-to-image U-Net", (r"transformer_blocks\.\d+\.attn2\.",), TEXT),
    Kind("a text-to-image transformer", (r"(joint|double|single)_?(transformer_)?blocks\.",), TEXT),
    Kind("a text encoder", (r"embeddings\.token_embedding|^shared\.weight$",)),
    Kind("CLIP", (r"^visual\.", r"^transformer\.resblocks\.")),
    Kind("a language model", (r"(wte|embed_tokens|tok_embeddings|word_embeddings)\.weight$",)),
    Kind("a diffusion transformer (DiT)", (r"^x_embedder\.", r"adaLN_modulation"), DIFFUSERS),
    Kind(
        "a diffusion transformer (DiT) of diffusers",
        (r"transformer_blocks\.\d+\.attn1\.",),
        DIFFUSERS,
    ),
    Kind(
        "the autoencoder of a latent diffusion model",
        (r"(^|\.)(quant_conv|post_quant_conv)\.",),
        DIFFUSERS,
    ),
    Kind(
        "the autoencoder of a latent diffusion model",
        (r"^encoder\.conv_in", r"^decoder\.conv_in"),
        DIFFUSERS,
    ),
    Kind("a U-Net of diffusers", (r"^down_blocks\.\d", r"^time_embedding\.linear_1"), DIFFUSERS),
    Kind(
        "ADM's classifier, which guides a diffusion model and is none",
        (r"^input_blocks\.", r"^time_embed\."),
        "give the diffusion model",
        r"^output_blocks\.",
    ),
    Kind(
        "NCSN++ or DDPM++ of score_sde",
        (r"^all_modules\.\d+\.",),
        "NVlabs/edm publishes the same networks, which are read",
    ),
    Kind(
        "a StyleGAN",
        (r"(^|\.)synthesis\.", r"(^|\.)mapping\."),
    ),
    Kind("a vision transformer, which makes no images", (r"(^|\.)cls_token$|patch_embed",)),
    Kind("an Inception network, which makes no images", (r"^Mixed_\d|^InceptionA",)),
    Kind("a ResNet, which makes no images", (r"(^|\.)layer1\.0\.conv1\.", r"(^|\.)fc\.|bn1\.")),
)
"""In this order, the most certain first."""


def seems_to_be(tensors: Mapping[str, Tensor]) -> Kind | None:
    """The kind of weights that tensors of these names are; None where nobody can tell."""
    names = list(tensors)
    return next((kind for kind in KINDS if kind.fits(names)), None)
