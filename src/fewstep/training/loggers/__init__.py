"""Loggers beside TensorBoard: other people's services and libraries, each an optional extra.

A logger is a class in `LOGGERS`, named by a spec in `Training.log`. It is told of a training by
`Told`, in a thread of its own: whatever becomes of it, the training goes on.
"""

from fewstep.training.loggers.base import LOGGERS, Facts, Logger, Outcome
from fewstep.training.loggers.mlflow import MLflow
from fewstep.training.loggers.told import Told, loggers_of
from fewstep.training.loggers.trackio import Trackio
from fewstep.training.loggers.wandb import WeightsAndBiases

__all__ = [
    "LOGGERS",
    "Facts",
    "Logger",
    "MLflow",
    "Outcome",
    "Told",
    "Trackio",
    "WeightsAndBiases",
    "loggers_of",
]
