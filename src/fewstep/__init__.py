"""fewstep: consistency models and what grew from them.

The public names are imported when they are first used, so that ``import fewstep`` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewstep.moved import find_moved
from fewstep.version import __version__

find_moved()

_HOME = {
    "FewstepError": "errors",
    "EDM": "parameterization",
    "SimpleEDM": "parameterization",
    "TrigFlow": "parameterization",
    "RectifiedFlow": "parameterization",
    "VE": "parameterization",
    "VP": "parameterization",
    "SubVP": "parameterization",
    "CosineVP": "parameterization",
    "DiscreteVP": "parameterization",
    "FlowMap": "flow_map",
    "AutoencoderModel": "autoencoder_model",
    "MLP": "networks",
    "UNet": "networks",
    "MLPAutoencoder": "networks",
    "ConvAutoencoder": "networks",
    "Latents": "latents",
    "VariationalAutoencoder": "objectives",
    "ScoreMatching": "objectives",
    "CD": "objectives",
    "CT": "objectives",
    "ICT": "objectives",
    "ECT": "objectives",
    "ContinuousCD": "objectives",
    "ContinuousCT": "objectives",
    "KD": "objectives",
    "PD": "objectives",
    "RF": "objectives",
    "DDPM": "objectives",
    "ScoreSDE": "objectives",
    "PFGMpp": "objectives",
    "Reflow": "objectives",
    "DFNO": "objectives",
    "Dataset": "data",
    "load": "data",
    "save_images": "data",
    "to_uint8": "data",
    "Turn": "objectives.turns",
    "check_turns": "objectives.turns",
    "Averages": "training.ema",
    "Training": "training.config",
    "Trainer": "training.trainer",
    "Jumps": "sampling",
    "Multistep": "sampling",
    "ODE": "sampling",
    "Walk": "sampling",
    "as_model": "sampling",
    "sample": "sampling",
    "Likelihood": "likelihood",
    "Evaluator": "evaluation",
    "train_classifier": "evaluation",
    "RECIPES": "recipes",
    "load_plugin": "plugins.load",
    "open_model": "runs.opening",
    "train": "runs.execute",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from fewstep.autoencoder_model import AutoencoderModel
    from fewstep.data import Dataset, load, save_images, to_uint8
    from fewstep.errors import FewstepError
    from fewstep.evaluation import Evaluator, train_classifier
    from fewstep.flow_map import FlowMap
    from fewstep.latents import Latents
    from fewstep.likelihood import Likelihood
    from fewstep.networks import MLP, ConvAutoencoder, MLPAutoencoder, UNet
    from fewstep.objectives import (
        CD,
        CT,
        DDPM,
        DFNO,
        ECT,
        ICT,
        KD,
        PD,
        RF,
        ContinuousCD,
        ContinuousCT,
        PFGMpp,
        Reflow,
        ScoreMatching,
        ScoreSDE,
        VariationalAutoencoder,
    )
    from fewstep.objectives.turns import Turn, check_turns
    from fewstep.parameterization import (
        EDM,
        VE,
        VP,
        CosineVP,
        DiscreteVP,
        RectifiedFlow,
        SimpleEDM,
        SubVP,
        TrigFlow,
    )
    from fewstep.plugins.load import load_plugin
    from fewstep.recipes import RECIPES
    from fewstep.runs.execute import train
    from fewstep.runs.opening import open_model
    from fewstep.sampling import ODE, Jumps, Multistep, Walk, as_model, sample
    from fewstep.training.config import Training
    from fewstep.training.ema import Averages
    from fewstep.training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    return getattr(import_module(f"fewstep.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
