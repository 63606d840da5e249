"""MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fewstep.training.loggers.base import LOGGERS, PROJECT, Facts, Logger, Outcome

STATUS: dict[Outcome, str] = {
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
LONGEST = 500  # characters of a setting, which every server takes
AT_ONCE = 100  # settings of one request


@LOGGERS.register("mlflow")
@dataclass
class MLflow(Logger):
    """MLflow: where MLFLOW_TRACKING_URI says, or in mlflow.db of this folder.

    Args:
        experiment: of the run; it is made where it is missing.
        uri: of the tracking server or store, before that of the environment.
    """

    experiment: str = PROJECT
    uri: str | None = None
    library: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"
    _client: Any = field(default=None, init=False, repr=False)
    _id: str = field(default="", init=False, repr=False)

    def start(self, facts: Facts) -> str:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self.uri)
        if facts.id is not None:
            self._client.update_run(facts.id, status="RUNNING")
            self._id = facts.id
            return self._id
        run = self._client.create_run(self._experiment(), run_name=facts.name)
        self._id = run.info.run_id
        params = [Param(name, str(value)[:LONGEST]) for name, value in facts.config.items()]
        for i in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._id, params=params[i : i + AT_ONCE])
        return self._id

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else self._client.create_experiment(self.experiment)

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        self._client.log_image(self._id, image, key=name, step=step)

    def finish(self, step: int, scores: Mapping[str, float], outcome: Outcome) -> None:
        self.numbers(step, scores)
        self._client.set_terminated(self._id, STATUS[outcome])
