"""Networks of the library diffusers, with their own weights under their own names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewstep.errors import FewstepError, listed
from fewstep.networks.base import NETWORKS, Network, checked_label_dropout
from fewstep.networks.diffusers.library import Settings, built, settings_of
from fewstep.networks.embeddings import check_label
from fewstep.networks.forward_mode import forward_mode
from fewstep.networks.norm import GroupNorm

INPUTS = ("sample", "hidden_states")
"""What diffusers calls the noisy images."""
OPTIONAL = ("timestep", "class_labels", "encoder_hidden_states")
"""What else a network may be told here."""


class Norm(GroupNorm):
    """``nn.GroupNorm`` whose forward-mode derivative exists for maps and tokens of any layout."""

    def forward(self, x: Tensor) -> Tensor:
        if not forward_mode(x):
            return nn.GroupNorm.forward(self, x)
        maps = x if x.ndim == 4 else x.flatten(2).unsqueeze(3)
        return self._plain(maps).reshape(x.shape)


def differentiable(net: nn.Module) -> nn.Module:
    """The network, whose group norms have forward-mode derivatives."""
    for part in net.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = Norm
    return net


class ClassOrNone(nn.Embedding):
    """An embedding of classes, in which the number of classes is no class, and adds nothing."""

    def forward(self, label: Tensor) -> Tensor:
        known = label < self.num_embeddings
        e = super().forward(label.clamp(max=self.num_embeddings - 1))
        return e * known[:, None].to(e.dtype)


def dit_classes(module: nn.Module) -> list[Any]:
    """The embeddings of classes inside a DiT's blocks, whose last row is the null class."""
    return [part for part in module.modules() if type(part).__name__ == "LabelEmbedding"]


def place_patches(net: Any) -> None:
    """Compute the positions of a transformer's patches, which no file stores, for a skeleton.

    So a large one is filled from its file, and never made of random numbers first.
    """
    patches = getattr(net, "pos_embed", None)
    places = getattr(patches, "pos_embed", None)
    if patches is None or not isinstance(places, Tensor) or not places.is_meta:
        return
    if patches.pos_embed_max_size is None:
        with torch.device("cpu"):
            same = type(patches)(
                height=patches.height * patches.patch_size,
                width=patches.width * patches.patch_size,
                patch_size=patches.patch_size,
                in_channels=1,
                embed_dim=places.shape[-1],
                interpolation_scale=patches.interpolation_scale,
            )
        patches.pos_embed = same.pos_embed


@NETWORKS.register("diffusers")
class DiffusersNetwork(Network):
    """A network of the library diffusers, such as its UNet2DModel or DiTTransformer2DModel.

    It is built by diffusers, which the extra ``fewstep[diffusers]`` installs. Its weights keep
    their names, with ``net.`` before them. An output of twice the channels is the prediction and a
    variance, which is left out.

    Args:
        shape: shape ``(C, H, W)`` of an image.
        num_classes: number of classes; 0 for an unconditional network.
        module: name of its class in diffusers.
        config: its settings, as in ``config.json``; also as text.
        time_scale: ``c_noise`` is multiplied by it: 1 where that is the index of a step, 1000 for
            those that take ``1000 c_noise``.
        label_dropout: probability that training hides an example's class, so that the network
            learns to do without, for guidance.

    Raises:
        FewstepError: diffusers is not installed, has no such network, or one that takes something
            else; settings that do not fit the shape.
    """

    citation = "vonplaten2022diffusers"

    net: Any
    """The network of diffusers."""

    def __init__(
        self,
        shape: Sequence[int],
        *,
        num_classes: int = 0,
        module: str = "UNet2DModel",
        config: Settings = "{}",
        time_scale: float = 1.0,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape, self.num_classes, self.two_time = tuple(shape), num_classes, False
        self.label_dropout = checked_label_dropout(label_dropout)
        self.module, self.time_scale = module, time_scale
        self.net = differentiable(built(module, settings_of(config)))
        self._crosses = self.settings.get("cross_attention_dim") is not None
        """Whether it attends to an embedding of what is wanted, such as a text."""
        self._inputs = self._checked_inputs()
        self._check_classes()
        self._check_channels()
        place_patches(self.net)
        self._steps = self.settings.get("time_embedding_type") == "learned"
        self.takes = tuple(  # type: ignore[misc]  # which depends on the network inside
            name for name, there in self._told.items() if there in self._inputs
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the network inside, with its defaults."""
        found: Mapping[str, Any] = self.net.config
        return found

    @property
    def _told(self) -> dict[str, str]:
        """What the network is told of a condition, by the name that diffusers has for it."""
        told = {"label": "class_labels"} if self.num_classes else {}
        return told | ({"embedding": "encoder_hidden_states"} if self._crosses else {})

    def _checked_inputs(self) -> set[str]:
        """What its forward takes; raise `FewstepError` where it asks for more than it can be told.

        Such as a text's pooled embedding, which no condition here has.
        """
        found = inspect.signature(self.net.forward).parameters
        first = next(iter(found), "")
        asked = [
            name
            for name, parameter in list(found.items())[1:]
            if parameter.default is inspect.Parameter.empty and name not in OPTIONAL
        ]
        if self.settings.get("addition_embed_type") is not None:
            asked.append("added_cond_kwargs")
        if first not in INPUTS or "timestep" not in found or asked:
            needs = f", but {listed(asked)} as well" if asked else ""
            raise FewstepError(
                f"diffusers' {self.module} does not map images, a time and a condition to "
                f"images{needs}: it cannot be a network here."
            )
        return set(found)

    def _check_classes(self) -> None:
        """Give its embedding of classes no class; raise `FewstepError` for another number of them.

        That of a DiT has a row for it.
        """
        own = getattr(self.net, "class_embedding", None)
        if isinstance(own, nn.Embedding):
            classes = own.num_embeddings
            self.net.class_embedding = ClassOrNone(classes, own.embedding_dim)
        elif own is not None:
            raise FewstepError(
                f"diffusers' {self.module} with class_embed_type="
                f"{self.settings.get('class_embed_type')!r} takes no class: only an embedding of "
                "num_class_embeds classes is known here."
            )
        else:
            within = dit_classes(self.net)
            classes = within[0].num_classes if within else 0
            for embedding in within:
                embedding.dropout_prob = 0.0  # an objective hides classes, of all networks alike
        if classes != self.num_classes:
            raise FewstepError(
                f"diffusers' {self.module} of this config has {classes} classes, not "
                f"{self.num_classes}."
            )

    def _check_channels(self) -> None:
        inputs = self.settings.get("in_channels")
        outputs = self.settings.get("out_channels") or inputs
        C = self.shape[0]
        if len(self.shape) != 3 or inputs != C or outputs not in (C, 2 * C):
            raise FewstepError(
                f"diffusers' {self.module} maps {inputs} channels to {outputs}, which images of "
                f"shape {self.shape} have not."
            )

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        c_noise_s: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """``F(x, c_noise)``: [B, C, H, W] -> [B, C, H, W].

        Args:
            x: images as diffusers' schedulers scale them.
            c_noise: transformed noise level [B].
            label: class of each image, int64 [B]; `num_classes`, or no label, is no class.
            c_noise_s: none.
            embedding: what an attention of it looks at, such as a text [B, tokens, width].

        Raises:
            FewstepError: ``x`` or a condition is not what the network was made for.
        """
        if x.shape[1:] != self.shape:
            raise FewstepError(
                f"this {self.module} takes images {self.shape}; got {tuple(x.shape[1:])}."
            )
        told = self._conditions(c_noise, label, embedding)
        t = c_noise * self.time_scale
        t = t.round().long() if self._steps else t
        with sdpa_kernel(SDPBackend.MATH) if forward_mode(x) else nullcontext():
            (y, *_) = self.net(x, timestep=t, return_dict=False, **told)
        return y[:, : self.shape[0]]

    def _conditions(
        self, c_noise: Tensor, label: Tensor | None, embedding: Tensor | None
    ) -> dict[str, Tensor]:
        told = {}
        if self._crosses:
            if embedding is None:
                raise FewstepError(
                    f"this {self.module} looks at an embedding, such as a text's: give "
                    "condition=Condition(embedding=...)."
                )
            told["encoder_hidden_states"] = embedding.to(next(self.net.parameters()).dtype)
        if self.num_classes:
            if label is None:
                label = torch.full_like(c_noise, self.num_classes, dtype=torch.int64)
            else:
                check_label(label, c_noise, self.num_classes)
            told["class_labels"] = label
        elif label is not None:
            raise FewstepError(f"this {self.module} has no classes: leave out the label.")
        return told
