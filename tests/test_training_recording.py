"""Recorded steps: on the CPU a graph that computes again stands for the device's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.condition import Condition
from fewstep.tracing import in_graph
from fewstep.training import learner as learner_module
from fewstep.training import remarks as remarks_module
from fewstep.training.recording import FEW, WARM, Columns, Key, Recorder, Recording, helps
from test_training import CONFIG, assert_same, make, weights

RECORDED = replace(CONFIG, cuda_graphs=True, steps=10)


@dataclass
class Again:
    """Writes to the tensors that a recording has, by computing again what was recorded."""

    recorder: OnCpu
    adding: bool
    call: Any
    words: tuple[Any, ...]
    loss: Tensor

    def pool(self) -> None:
        return None

    def replay(self) -> None:
        recorder = self.recorder
        for p in recorder.weights:
            p.grad = None
        self.loss.copy_(self.call(*self.words))
        for p, own in zip(recorder.weights, recorder._gradients, strict=True):
            assert p.grad is not None
            assert own is not None
            own.add_(p.grad) if self.adding else own.copy_(p.grad)
        recorder.replays += 1


class OnCpu(Recorder):
    """A recorder for the CPU."""

    replays = 0

    @staticmethod
    def possible_on(device: torch.device) -> bool:
        return True

    def _record(
        self,
        key: Key,
        call: Any,
        tensors: Sequence[Tensor],
        condition: Condition,
        columns: Columns,
    ) -> Recording:
        own = [x.clone() for x in tensors]
        given = {name: x.clone() for name, x in condition.given().items()}
        mine = {name: x.clone() for name, x in columns.items()}
        if not key[0]:
            self._gradients = [torch.empty_like(p) for p in self.weights]
        words = (own, Condition(**given), mine)
        graph: Any = Again(self, key[0], call, words, torch.empty(()))
        return Recording(graph, [*own, *given.values(), *mine.values()], graph.loss)


def use(monkeypatch: pytest.MonkeyPatch, recorder: type[Recorder]) -> None:
    for module in (learner_module, remarks_module):
        monkeypatch.setattr(module, "Recorder", recorder)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, OnCpu)


def ended(folder: Path, *words: Any, **settings: Any) -> dict[str, Tensor]:
    """The weights at the end of a training whose steps were launched one by one."""
    config = replace(RECORDED, cuda_graphs=False, **settings)
    trainer = make(folder, config, *words)
    trainer.run()
    return weights(trainer)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("objective", "parts"), [("ict", 1), ("cd", 4), ("kd", 1), ("pd", 2)])
def test_recorded_steps_have_the_bits_of_those_that_are_launched(
    objective: str, parts: int, tmp_path: Path
) -> None:
    """With labels, columns, micro-batches that add up, and a teacher of each round."""
    trainer = make(tmp_path / "a", replace(RECORDED, microbatches=parts), objective)
    trainer.run()
    (learner,) = trainer.learners.values()
    assert isinstance(learner.recorder, OnCpu)
    assert learner.recorder.replays >= parts
    assert_same(weights(trainer), ended(tmp_path / "b", objective, microbatches=parts))


def test_what_cannot_be_recorded_is_launched_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fails(OnCpu):
        def _record(self, *words: Any) -> Recording:
            raise RuntimeError("operation not permitted when stream is capturing\n(long advice)")

    use(monkeypatch, Fails)
    trainer = make(tmp_path / "a", RECORDED)
    trainer.run()
    said = capsys.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if "recorded" in line]
    assert told == [
        "note: a step is not recorded as a CUDA graph, and launched anew: operation not permitted "
        "when stream is capturing"
    ]
    assert_same(weights(trainer), ended(tmp_path / "b"))


@pytest.mark.usefixtures("recorded")
def test_steps_are_recorded_unasked_where_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few images at once and an objective of this package; and it is said."""

    def recorded(objective: str = "ict", **settings: Any) -> bool:
        trainer = make(tmp_path / "a", replace(CONFIG, **settings), objective)
        return all(learner.recorder is not None for learner in trainer.learners.values())

    assert recorded()
    assert recorded(batch=2 * FEW, microbatches=2)
    assert recorded(batch=2 * FEW, compile=True)
    assert not recorded(batch=2 * FEW)
    assert not recorded(cuda_graphs=False)
    make(tmp_path / "b", replace(CONFIG, steps=1)).run()
    said = capsys.readouterr()
    assert "note: steps are recorded as CUDA graphs" in said.out + said.err


@pytest.mark.usefixtures("recorded")
def test_before_it_is_recorded_a_step_computes_what_a_graph_will(tmp_path: Path) -> None:
    """So that a run which goes on, and computes first again, has the bits of one that did not."""
    trainer, found = make(tmp_path, RECORDED, "ctm"), []
    solved = trainer.objective.solved  # type: ignore[operator]

    def solved_in(*words: Any) -> Tensor:
        found.append(in_graph())
        return solved(*words)

    trainer.objective.solved = solved_in  # type: ignore[assignment]
    for k in range(WARM + 2):
        trainer.step(k)
    assert found == [True] * len(found)
    assert len(found) >= WARM
    assert not in_graph()


def test_what_others_wrote_is_recorded_if_asked_alone(tmp_path: Path) -> None:
    class Theirs(nn.Identity):
        pass

    objective = make(tmp_path, CONFIG).objective
    assert helps(objective, 1, compiled=False)
    objective.theirs = Theirs()
    assert not helps(objective, 1, compiled=True)


def test_without_a_gpu_nothing_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(tmp_path / "a", replace(RECORDED, steps=WARM + 2))
    assert [learner.recorder for learner in trainer.learners.values()] == [None]
    trainer.run()
    said = capsys.readouterr()
    assert "note: CUDA graphs are of NVIDIA GPUs; on cpu" in said.out + said.err
