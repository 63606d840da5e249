"""From a folder of diffusers to a model of ours.

The network stays what it is, wrapped with its own weights (`fewstep.networks.diffusers`). Its
process is what the pipeline's scheduler says (`fewstep.exchange.diffusers.process`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep import networks, parameterization
from fewstep.autoencoder_model import AutoencoderModel
from fewstep.errors import FewstepError, listed
from fewstep.exchange.diffusers.folder import OF_AVERAGES, Folder, Part, read_folder, read_object
from fewstep.exchange.diffusers.process import ASSUMED, Scheduled, scheduled
from fewstep.exchange.hub.fetching import front_matter, licence_in
from fewstep.exchange.imported import Imported, Wanted
from fewstep.exchange.told import DIFFUSERS, as_said, time_scale
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.models import AnyModel
from fewstep.named_tensors import check_fit
from fewstep.networks import Network, skeleton, unfinished
from fewstep.networks.diffusers.autoencoder import DiffusersAutoencoder, halvings
from fewstep.networks.diffusers.library import known_settings, library, settings_of
from fewstep.trained import AUTOENCODER, CONSISTENCY, DIFFUSION, Trained

MODULES = {
    "UNet2DModel": False,
    "DiTTransformer2DModel": False,
    "UNet2DConditionModel": False,
    "AutoencoderKL": True,
    "VQModel": True,
}
"""The networks that are known, and whether each is an autoencoder."""
DIT_DROPOUT = 0.1
"""Probability with which a DiT was trained without its class (Peebles & Xie 2023, Section 4)."""


def import_folder(path: Path, wanted: Wanted) -> Imported:
    """The model of a folder of diffusers.

    Raises:
        FewstepError: something is wanted that it says itself; diffusers is not installed; a
            pipeline, network or scheduler that is not known; weights that are damaged, missing, or
            of another network.
    """
    if wanted.heads_lead is not None:
        raise FewstepError(
            f"{path} is a folder of diffusers, whose order of queries, keys and values is known: "
            "leave out --attention-order."
        )
    if wanted.earliest is not None:
        raise FewstepError(
            f"{path} is a folder of diffusers, whose models know all times: leave out --earliest."
        )
    library()
    return _Reading(read_folder(path, MODULES), wanted).imported()


class _Reading:
    """One folder on its way to a model."""

    def __init__(self, folder: Folder, wanted: Wanted) -> None:
        self.folder, self.wanted = folder, wanted
        self.notes = list(folder.notes)
        self.scheduled = Scheduled({})
        self.scheduler: Mapping[str, Any] = {}

    def imported(self) -> Imported:
        """The model, its weights in their own type."""
        f = self._model().eval()
        part = self.folder.denoiser or self.folder.autoencoder
        assert part is not None
        f.info["origin"] = self._origin(part)
        project = f"diffusers' {part.module}"
        return Imported(f, project, tuple(self.notes), self.scheduled.sampler)

    def _model(self) -> AnyModel:
        folder = self.folder
        if folder.denoiser is None:
            assert folder.autoencoder is not None
            size = self.wanted.size or _side(folder.autoencoder.config, folder.autoencoder)
            alone = self._autoencoder(folder.autoencoder, size)
            return AutoencoderModel(alone, trained=AUTOENCODER)
        _check_told(folder.denoiser)
        self._read_scheduler(latent=folder.autoencoder is not None)
        latents = self._latents(folder.denoiser) if folder.autoencoder else None
        arguments = self._arguments(folder.denoiser, latents)
        F = self._network("diffusers", folder.denoiser, arguments)
        p = parameterization.from_config(dict(self.wanted.process or self.scheduled.process))
        return FlowMap(F, p, trained=self._trained(F), latents=latents)

    def _read_scheduler(self, *, latent: bool) -> None:
        """What the scheduler says, unless the user says all of it."""
        file = self.folder.scheduler
        config = ASSUMED if file is None else read_object(file)
        if self.wanted.process is not None and self.wanted.consistency is not None:
            return
        self.scheduler = config
        self.scheduled = scheduled(config, latent=latent, source=file or self.folder.path)
        if file is None and self.wanted.process is None:
            self.notes.append(
                "it has no scheduler: its process is taken to be DDPM's of 1000 linear betas, and "
                "its network to predict epsilon (--process)"
            )
        if file is None:  # nobody knows how its pipeline samples
            self.scheduled = replace(self.scheduled, sampler=None)
        self.notes += self.scheduled.notes

    # Networks

    def _arguments(self, part: Part, latents: Latents | None) -> dict[str, Any]:
        """Arguments of our network."""
        config = self._settings(part)
        shape = self._shape(part, config) if latents is None else latents.shape
        embeds = "num_embeds_ada_norm" if part.module.startswith("DiT") else "num_class_embeds"
        classes = config.get(embeds) if config.get("class_embed_type") is None else None
        if part.module.startswith("DiT"):
            classes = config.setdefault(embeds, 1000)
        known = {"time_scale": self._time_scale()}
        known |= {"label_dropout": DIT_DROPOUT} if part.module.startswith("DiT") else {}
        outputs, inputs = config.get("out_channels") or shape[0], config.get("in_channels")
        if inputs is not None and outputs == 2 * inputs:
            self.notes.append("its prediction of the variance is left out")
        if part.module == "UNet2DConditionModel":
            self.notes.append(
                "it looks at an embedding, which Python alone can give: "
                "condition=Condition(embedding=...)"
            )
        return {
            "shape": shape,
            "num_classes": classes or 0,
            "module": part.module,
            "config": config,
            **known,
            **self.wanted.network,
        }

    def _time_scale(self) -> float:
        """What the network takes ``c_noise`` by: as its scheduler says, of the same process."""
        process = self.wanted.process
        if process is None or process["name"] == self.scheduled.process.get("name"):
            return self.scheduled.time_scale
        scale = time_scale(process, consistency=self._is_consistency, project=DIFFUSERS)
        if "time_scale" not in self.wanted.network:
            self.notes.append(as_said(scale))
        return scale

    @property
    def _is_consistency(self) -> bool:
        wanted = self.wanted.consistency
        return self.scheduled.consistency if wanted is None else wanted

    def _shape(self, part: Part, config: Mapping[str, Any]) -> tuple[int, int, int]:
        """Shape of an image, or of a latent that nothing decodes."""
        H, W = _sides(config) or (None, None)
        if self.wanted.size is not None:
            H = W = self.wanted.size
        if H is None or W is None:
            raise FewstepError(
                f"{part.folder} does not say how large its images are: --size PIXELS."
            )
        default = 4 if part.module in ("DiTTransformer2DModel", "UNet2DConditionModel") else 3
        channels = config.get("in_channels", default)
        if channels not in (1, 3):
            self.notes.append(
                f"its images have {channels} channels, which are no colours: give the folder of "
                "the whole pipeline, with the autoencoder, to see them"
            )
        return channels, H, W

    def _settings(self, part: Part) -> dict[str, Any]:
        """The settings of a network that this diffusers knows."""
        config = settings_of(part.config)
        known = known_settings(part.module, config)
        left = [
            name
            for name, value in config.items()
            if name not in known and name not in OF_AVERAGES and value not in (None, False)
        ]
        if left and part.module == part.config["_class_name"]:
            self.notes.append(
                f"its {listed(left)} are not known to diffusers {library().__version__}, and are "
                "left out"
            )
        return known

    def _network(self, name: str, part: Part, arguments: Mapping[str, Any]) -> Network:
        """A network with the weights of a part, in the type that they have."""
        tensors = part.tensors()
        if part.variant:
            self.notes.append(f"its weights are the variant {part.variant}")
        try:
            with skeleton():
                F = networks.NETWORKS.call(name, dict(arguments))
        except FewstepError as error:
            raise FewstepError(f"{part.folder}: {error}") from error
        _check(F, tensors, part)
        if unfinished(_filled(F, tensors)):  # tensors that no file stores
            F = _filled(networks.NETWORKS.call(name, dict(arguments)), tensors)
        return F

    def _autoencoder(self, part: Part, size: tuple[int, int] | int) -> DiffusersAutoencoder:
        """An autoencoder of images of a size."""
        config = self._settings(part)
        sides = (size, size) if isinstance(size, int) else size
        shape = (config.get("in_channels", 3), *sides)
        arguments = {"shape": shape, "module": part.module, "config": config}
        F = self._network("diffusers_autoencoder", part, arguments)
        assert isinstance(F, DiffusersAutoencoder)
        return F

    def _latents(self, denoiser: Part) -> Latents:
        """The latent space: ``z = (mu - shift) scale`` of diffusers' pipelines."""
        part = self.folder.autoencoder
        assert part is not None
        factor = 2 ** halvings({"block_out_channels": (64,), **part.config})
        sides = _sides(denoiser.config) or (32, 32)
        size = self.wanted.size or (sides[0] * factor, sides[1] * factor)
        autoencoder = self._autoencoder(part, size)
        config = autoencoder.net.config
        C = autoencoder.latent_shape[0]

        def each(name: str, default: float) -> Tensor:
            given = config.get(name)
            values = torch.tensor(default if given is None else given, dtype=torch.float32)
            return values.expand(C).reshape(C, 1, 1).clone()

        scale = config.get("scaling_factor") or 1.0
        m = each("latents_mean" if config.get("latents_mean") else "shift_factor", 0.0)
        return Latents(autoencoder, m, each("latents_std", 1.0) / scale)

    # What is said of it

    def _trained(self, F: Network) -> Trained:
        names = self.folder.classes if len(self.folder.classes) == F.num_classes else ()
        kind = CONSISTENCY if self._is_consistency else DIFFUSION
        return replace(kind, null_class=bool(F.label_dropout), classes=names)

    def _origin(self, part: Part) -> dict[str, Any]:
        """Where the weights are from, and under which licence; what else the folder says."""
        path = self.folder.path
        files = [f"{file.relative_to(path)}" for file in part.files if file.is_relative_to(path)]
        return {
            "file": listed(files) or path.name,
            "sha256": part.sha256,
            "project": f"diffusers' {part.module}",
            "source": None,
            "licence": licence_in(front_matter(path)),
            "pipeline": self.folder.kind or None,
            "scheduler": {k: v for k, v in self.scheduler.items() if _is_finite(v)} or None,
            "sampler": self.scheduled.sampler,
        }


def _check_told(part: Part) -> None:
    """Raise `FewstepError` for a network that is told what nothing here tells it."""
    if part.config.get("time_cond_proj_dim") is not None:
        raise FewstepError(
            f"{part.folder} takes an embedding of the guidance weight (time_cond_proj_dim), as an "
            "LCM's network does, and none can be told here: it cannot be imported."
        )
    if part.module == "UNet2DModel" and part.config.get("time_embedding_type") == "fourier":
        raise FewstepError(
            f"{part.folder} is NCSN++ of score_sde (time_embedding_type='fourier'): it is told the "
            "noise level itself and divides by it, which no process here does. NVlabs/edm "
            "publishes the same networks, which are read."
        )


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _sides(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width that a network's settings name."""
    match config.get("sample_size"):
        case int(side):
            return side, side
        case (int(H), int(W)):
            return H, W
        case [int(H), int(W)]:
            return H, W
    return None


def _side(config: Mapping[str, Any], part: Part) -> tuple[int, int]:
    sides = _sides(config)
    if sides is None:
        raise FewstepError(f"{part.folder} does not say how large its images are: --size PIXELS.")
    return sides


def _check(F: Network, tensors: Mapping[str, Tensor], part: Part) -> None:
    """Raise `FewstepError` unless weights are those of the network that their config describes."""
    inside: Any = F.net
    found = {name: tuple(x.shape) for name, x in tensors.items()}
    check_fit(inside.state_dict(), found, f"{part.folder} ({part.module})")


def _filled(F: Network, tensors: Mapping[str, Tensor]) -> Network:
    inside: Any = F.net
    inside.load_state_dict(dict(tensors), assign=True)
    return F
