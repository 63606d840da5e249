"""Losses and gradients as CUDA graphs: a step's kernels, recorded once and replayed.

A step of few images is bound by Python, which takes longer to launch the thousands of kernels than
they take to compute. A graph launches all of them at once. It computes what was recorded, on
tensors at the same addresses: the inputs are copied there, the gradients are found there. Random
numbers are those of the device's stream at the time of the replay, so that a replay has the bits
of the call that it stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.condition import Condition
from fewstep.tracing import as_graph

WARM = 3  # calls that compute as usual first: in them kernels are compiled and chosen
FEW = 64  # images at once, up to which a GPU waits for Python
OURS = ("fewstep", "torch")  # what may be recorded unasked: its losses depend on tensors alone

Columns = Mapping[str, Tensor]
Loss = Callable[..., Tensor]
Backward = Callable[[Loss, Sequence[Tensor], Condition, Columns], Tensor]
Call = Callable[[Sequence[Tensor], Condition, Columns], Tensor]
Key = tuple[Any, ...]


def helps(objective: nn.Module, images: int, *, compiled: bool) -> bool:
    """Whether steps are recorded where nobody has said.

    Args:
        objective: what is minimised; other people's may depend on more than tensors.
        images: that a process computes at once.
        compiled: whether its losses are, which launch their kernels one by one as well.
    """
    ours = all(type(module).__module__.split(".")[0] in OURS for module in objective.modules())
    return ours and (compiled or images <= FEW)


@dataclass
class Recording:
    """A graph, the tensors that it reads, and the loss that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    loss: Tensor

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.loss.clone()


class Recorder:
    """Calls a function, and from the fourth call of a kind on replays what it did on the device.

    The function adds the gradients of a micro-batch to those of the weights, and gives its loss, a
    scalar. It is of a loss and what that takes, tensors, and of nothing else: it is the same for
    the whole training.

    Args:
        weights: whose gradients it adds to; before a step they are None.
        tell: says in one line that recording is not possible, and why.
    """

    def __init__(self, weights: Sequence[Tensor], tell: Callable[[str], object] = print) -> None:
        self.weights, self.tell, self.possible = weights, tell, True
        self.forget()

    @staticmethod
    def possible_on(device: torch.device) -> bool:
        """Whether a device has graphs."""
        return device.type == "cuda"

    def forget(self) -> None:
        """Record anew: the function computes something else from now on."""
        self._seen: Counter[Key] = Counter()
        self._recordings: dict[Key, Recording] = {}
        self._gradients: list[Tensor | None] = []
        self._pool: Any = None

    @as_graph()
    def __call__(
        self,
        backward: Backward,
        loss: Loss,
        tensors: Sequence[Tensor],
        condition: Condition,
        columns: Columns,
    ) -> Tensor:
        adding = any(p.grad is not None for p in self.weights)
        named = {**condition.given(), **columns}
        inputs = [*tensors, *named.values()]
        key = (adding, loss, *named, *((x.shape, x.dtype) for x in inputs))
        call, words = partial(backward, loss), (tensors, condition, columns)
        if key not in self._recordings and not self._recorded(key, call, *words):
            return call(*words)
        found = self._recordings[key].replay(inputs)
        for p, gradient in zip(self.weights, self._gradients, strict=True):
            p.grad = gradient
        return found

    def _recorded(self, key: Key, call: Call, *words: Any) -> bool:
        """Whether this is recorded now: after a few calls, and where it is possible."""
        self._seen[key] += 1
        # Gradients are added to those of the first micro-batch, at the place that is recorded.
        if not self.possible or self._seen[key] <= WARM or (key[0] and not self._gradients):
            return False
        try:
            self._recordings[key] = self._record(key, call, *words)
        except RuntimeError as error:
            self.possible = False
            reason = str(error).strip().splitlines()[0][:200]
            self.tell(f"note: a step is not recorded as a CUDA graph, and launched anew: {reason}")
        return self.possible

    def _as_before(
        self, gradients: list[Tensor | None], stream: torch.cuda.Stream, pool: Any
    ) -> None:
        """After a recording that failed, which torch leaves half way."""
        torch.cuda.set_stream(stream)
        with suppress(RuntimeError):  # it has ended
            torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        generator = torch.cuda.default_generators[stream.device_index]
        generator.graphsafe_set_state(generator.clone_state())  # which is not being recorded
        for p, gradient in zip(self.weights, gradients, strict=True):
            p.grad = gradient

    def _record(
        self,
        key: Key,
        call: Call,
        tensors: Sequence[Tensor],
        condition: Condition,
        columns: Columns,
    ) -> Recording:
        own = [x.clone() for x in tensors]
        given = {name: x.clone() for name, x in condition.given().items()}
        mine = {name: x.clone() for name, x in columns.items()}
        graph, pool = torch.cuda.CUDAGraph(), self._pool or torch.cuda.graph_pool_handle()
        gradients, stream = [p.grad for p in self.weights], torch.cuda.current_stream()
        try:
            # Another thread may write a checkpoint meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                loss = call(own, Condition(**given), mine)
        except RuntimeError:
            self._as_before(gradients, stream, pool)
            raise
        self._pool = pool
        if not key[0]:
            self._gradients = [p.grad for p in self.weights]
        return Recording(graph, [*own, *given.values(), *mine.values()], loss)
