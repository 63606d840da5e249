"""What the loggers of a training are told, each thing once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.files import read_json, write_json
from fewstep.records import value_of
from fewstep.training.loggers.aside import Aside
from fewstep.training.loggers.base import LOGGERS, Facts, Logger, Outcome

IDS = "loggers.json"
"""Of a run's folder: what each logger knows of the run."""
VALIDATION = "energy_distance"

Line = Mapping[str, float]


@dataclass(frozen=True)
class Known:
    """What a logger knows of a run.

    Args:
        id: under which it knows the run.
        step: up to which it was told of steps that were made again since; 0 where there are none.
    """

    id: str
    step: int = 0


def loggers_of(specs: Sequence[str]) -> dict[str, Logger]:
    """The loggers of specs, each once.

    Raises:
        FewstepError: an unknown one, or one whose library is not installed.
    """
    made = {spec: LOGGERS.build(spec) for spec in specs}
    for logger in made.values():
        logger.check()
    return made


class Told:
    """Tells the loggers of a run's folder what the training says.

    A run that is resumed makes steps again that it had made before it was killed. What was logged
    of them is not logged twice, however often it is killed: it is as it was. A logger that did not
    know the run is told of the lines so far.

    Args:
        loggers: by spec.
        folder: of the run.
        name: of the training.
        config: its settings.
        before: lines of the log up to where it begins.
        again: lines of the log after that, of steps that will be made again.
        say: tells the user something.
    """

    def __init__(
        self,
        loggers: Mapping[str, Logger],
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        before: Sequence[Line],
        again: Sequence[Line],
        say: Callable[[str], None],
    ) -> None:
        self._path, self._lock = folder / IDS, threading.Lock()
        then = self._known = self._read()
        self._again = {(int(line["step"]), key) for line in again for key in line}
        self._raise(max((step for step, _ in self._again), default=0))
        self._validated = [
            (line[VALIDATION], int(line["step"])) for line in before if VALIDATION in line
        ]
        self._step = max((int(line["step"]) for line in before), default=0)
        self._asides = {spec: Aside(spec, logger, say) for spec, logger in loggers.items()}
        self._up_to = {spec: then[spec].step for spec in loggers if spec in then}
        for spec, aside in self._asides.items():
            known = then.get(spec)
            facts = Facts(name, config, None if known is None else known.id, say)
            aside(partial(self._start, aside, facts))
            if known is None and before:
                aside(partial(_catch_up, aside.logger, before))

    def _raise(self, step: int) -> None:
        """Keep that the loggers were told up to a step, of which the log itself drops the lines."""
        raised = {s: replace(k, step=max(k.step, step)) for s, k in self._known.items()}
        if raised != self._known:
            self._keep(raised)

    def _start(self, aside: Aside, facts: Facts) -> None:
        id = aside.logger.start(facts)
        with self._lock:
            known = self._known.get(aside.name)
            same = known is not None and known.id == id
            self._keep(self._known if same else {**self._known, aside.name: Known(id)})

    def _keep(self, known: dict[str, Known]) -> None:
        self._known = known
        write_json(self._path, {spec: asdict(value) for spec, value in known.items()})

    def numbers(self, step: int, numbers: Line) -> None:
        """Numbers of a step."""
        self._step = step
        if VALIDATION in numbers:
            self._validated.append((float(numbers[VALIDATION]), step))
        for spec, aside in self._asides.items():
            some = {k: float(v) for k, v in numbers.items() if not self._has(spec, step, k)}
            if some:
                aside(partial(aside.logger.numbers, step, some))

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """A picture uint8 [C, H, W], after the validation of its samples."""
        pixels = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        for spec, aside in self._asides.items():
            if not self._has(spec, step, VALIDATION):
                aside(partial(aside.logger.picture, step, name, pixels))

    def _has(self, spec: str, step: int, key: str) -> bool:
        """Whether a logger was told of a step before the run was resumed."""
        if spec not in self._up_to:
            return False
        return step <= self._up_to[spec] or (step, key) in self._again

    def finish(self, outcome: Outcome) -> None:
        """The last scores; then every logger ends, or is given up."""
        scores = self._scores()
        step = self._step
        for aside in self._asides.values():
            aside(partial(aside.logger.finish, step, scores, outcome))
        for aside in self._asides.values():
            aside.end()

    def _scores(self) -> dict[str, float]:
        if not self._validated:
            return {}
        best, step = min(self._validated)
        last = self._validated[-1][0]
        return {f"final_{VALIDATION}": last, f"best_{VALIDATION}": best, "best_step": float(step)}

    def _read(self) -> dict[str, Known]:
        with suppress(FewstepError):  # there is none, or it is damaged: they begin anew
            return read_json(self._path, _parsed, "what loggers know")
        return {}


def _parsed(stored: Any) -> dict[str, Known]:
    """What a file says; of earlier versions it has the ids alone."""
    both = {spec: {"id": x} if isinstance(x, str) else x for spec, x in stored.items()}
    return value_of(dict[str, Known], both, "it")


def _catch_up(logger: Logger, lines: Sequence[Line]) -> None:
    for line in lines:
        step, numbers = int(line["step"]), {k: v for k, v in line.items() if k != "step"}
        logger.numbers(step, numbers)
