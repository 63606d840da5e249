"""What holds for every loss: its shape, its gradients, its random numbers, what it is told by."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError
from fewstep.needs import Cost, FixedPoint
from fewstep.objectives import Objective
from fewstep.objectives.turns import Turn
from fewstep.papers import Citation, bibtex, several
from fewstep.runs.step import counted
from fewstep.testing.contract import Broken, contract, losses, must
from fewstep.testing.fitting import Examples, Fitting
from fewstep.trained import Trained


@contract
def describes_itself(fitting: Fitting) -> None:
    cls = fitting.objective
    must("``" in (cls.__doc__ or ""), "its docstring has no formula, which stands in ``...``")
    must(isinstance(getattr(cls, "paper", None), str), "paper does not say where it is from")
    must(isinstance(cls.makes, Trained) and cls.makes.known, "makes does not say what f can do")
    must(isinstance(cls.fixed_point, FixedPoint), "fixed_point is none of FixedPoint")
    _check_citation(cls.citation)
    _check_cost(fitting, cls.cost)


def _check_citation(citation: Citation) -> None:
    """Of a method whose author gives none there is nothing to hold it against."""
    must(isinstance(citation, str | tuple), "citation is no text, nor a tuple of texts")
    try:
        for one in several(citation):
            bibtex(one)
    except FewstepError as fault:
        raise Broken(f"citation: {fault}") from None


def _check_cost(fitting: Fitting, cost: Cost | None) -> None:
    """What is declared against what a step at the default settings does."""
    if cost is None or fitting.settings or fitting.columns or fitting.objective.makes.decodes:
        return
    o = replace(fitting, shape=(4,)).build(replace(fitting, shape=(4,)).map()).train()
    found = counted(o, fitting.p(), getattr(o.f.network, "M", 1)).cost
    near = abs(found - cost.evaluations) < 0.01 * found
    must(near, f"cost says {cost.evaluations:g} evaluations an image, and a step makes {found:g}")


@contract
def gives_each_example_a_loss_and_each_weight_a_gradient(fitting: Fitting) -> None:
    n = fitting.num_classes
    condition = Condition(torch.arange(32) % n) if n else NONE
    for k in (0, 57, 99):
        o = fitting.build(fitting.map(num_classes=n))
        x = torch.randn(32, *o.f.shape)
        batch = Examples(x, fitting.examples(32).columns)
        for turn, loss in losses(o, batch, k, condition):
            where = f"in the turn {turn.name} of step {k}"
            must(loss.shape == (32,), f"the loss {where} is {list(loss.shape)}, not one an example")
            must(loss.isfinite().all(), f"the loss {where} is not finite")
            loss.mean().backward()
            _check_gradients(o, turn, where)


def _check_gradients(o: Objective, turn: Turn, where: str) -> None:
    moved = {id(parameter) for parameter in o.weights_of(turn)}
    for name, parameter in o.named_parameters():
        if id(parameter) in moved and parameter.requires_grad:
            must(parameter.grad is not None, f"{name} gets no gradient {where}")
            finite = parameter.grad is not None and parameter.grad.isfinite().all()
            must(finite, f"the gradient of {name} is not finite {where}")
        else:
            must(parameter.grad is None, f"{name} gets a gradient {where}, which does not move it")
        parameter.grad = None


@contract
def trains_without_classes(fitting: Fitting) -> None:
    for _, loss in losses(fitting.build(fitting.map()), fitting.examples(8), 3):
        must(loss.shape == (8,), "a model without classes has not one loss an example")


@contract
def repeats_itself(fitting: Fitting) -> None:
    """The loss is a function of the weights, the images and the random stream."""
    o, batch = fitting.build(fitting.map(dropout=0.5)).train(), fitting.examples(8)
    first, second = (_seeded_losses(o, batch, 3) for _ in range(2))
    must(torch.equal(first, second), "the same random numbers give another loss")


def _seeded_losses(o: Objective, batch: Examples, k: int) -> Tensor:
    torch.manual_seed(5)
    return torch.stack([loss.detach() for _, loss in losses(o, batch, k)])


@contract
def goes_on_from_what_changes(fitting: Fitting) -> None:
    """What `Objective.changing` holds is all that a checkpoint needs."""
    start = fitting.map()
    teacher, batch = start.frozen_copy(), fitting.examples(8)
    o = fitting.build(copy.deepcopy(start), teacher.frozen_copy())
    with torch.no_grad():
        for module in o.trained_modules().values():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    o.after_step(0)
    again = fitting.build(copy.deepcopy(start), teacher.frozen_copy())
    for name, module in again.changing().items():
        module.load_state_dict(o.changing()[name].state_dict())
    same = torch.equal(_seeded_losses(o, batch, 7), _seeded_losses(again, batch, 7))
    must(same, "changing() leaves out something that the loss depends on")


@contract
def compiles_as_one_graph(fitting: Fitting) -> None:
    """Each turn's loss, with all networks in it, once for the whole training."""
    n = fitting.num_classes
    o = fitting.build(fitting.map(num_classes=n, dropout=0.5))
    condition = Condition(torch.arange(8) % n) if n else NONE
    for turn in o.turns(0):
        graphs: list[GraphModule] = []
        torch._dynamo.reset()
        loss = torch.compile(turn.loss, fullgraph=True, backend=partial(_eager, graphs))
        for k in (0, 50, 99):
            batch, draw = fitting.examples(8), turn.draw_times or o.draw_times
            loss(batch.x, *draw(batch.x, k), condition=condition, **batch.columns).mean().backward()
        must(len(graphs) == 1, f"the loss of the turn {turn.name} is compiled {len(graphs)} times")


def _eager(
    graphs: list[GraphModule], graph: GraphModule, inputs: list[Tensor]
) -> Callable[..., Any]:
    graphs.append(graph)
    return graph.forward
