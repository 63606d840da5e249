"""Raw networks ``F(x, c_noise, label=None, c_noise_s=None)``, which know nothing of diffusion.

`MLP` is for points and tiny images; `UNet` is the DDPM++/NCSN++ U-Net of EDM; `ADM` is the U-Net of
ADM for larger images; `DiT` is the diffusion transformer, for pixels and latents; `FourierOperator`
gives whole trajectories; `DiffusersNetwork` is one of the library diffusers. `MLPAutoencoder` and
`ConvAutoencoder` make the latent spaces of other models.
"""

from __future__ import annotations

from typing import Any

from fewstep.networks.adm import ADM
from fewstep.networks.autoencoder import Autoencoder, ConvAutoencoder, MLPAutoencoder
from fewstep.networks.base import NETWORKS, Network, plain_name, unwrapped
from fewstep.networks.dfno import FourierOperator
from fewstep.networks.diffusers.autoencoder import DiffusersAutoencoder
from fewstep.networks.diffusers.network import DiffusersNetwork
from fewstep.networks.dit import DiT
from fewstep.networks.edm2 import EDM2UNet
from fewstep.networks.mlp import MLP
from fewstep.networks.skeleton import skeleton, unfinished
from fewstep.networks.unet import UNet

__all__ = [
    "ADM",
    "MLP",
    "NETWORKS",
    "Autoencoder",
    "ConvAutoencoder",
    "DiT",
    "DiffusersAutoencoder",
    "DiffusersNetwork",
    "EDM2UNet",
    "FourierOperator",
    "MLPAutoencoder",
    "Network",
    "UNet",
    "from_config",
    "plain_name",
    "skeleton",
    "unfinished",
    "unwrapped",
]


def from_config(config: dict[str, Any]) -> Network:
    """The network that `Network.config` describes, freshly initialised.

    The config may be of a file of an earlier version.
    """
    arguments = dict(config)
    name = arguments.pop("name")
    return NETWORKS.call(name, NETWORKS[name].stored(arguments))
