"""What a run or a model used that is from a paper, down to its teacher and its data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from fewstep.annotations import hints_of, is_protocol
from fewstep.errors import FewstepError
from fewstep.evaluation.choice import CLASSES
from fewstep.evaluation.scores import CITATIONS
from fewstep.exchange.layouts.published import CITED
from fewstep.exchange.origin import Origin
from fewstep.guidance import GUIDANCES
from fewstep.papers import cited_by, several
from fewstep.parameterization import Parameterization
from fewstep.registry import REGISTRIES, Registry, parameters
from fewstep.spec import parse
from fewstep.training.config import Training

Use = tuple[str, str]
"""A citation, and for what; "" where nobody knows what to cite for that."""


def of_component(registry: Registry[Any], name: str, given: Mapping[str, Any]) -> Iterator[Use]:
    """What a component uses, with the arguments that it has by default and what they name.

    Of a name that is not known here, as of a plugin that is not loaded, nobody knows: "".
    """
    if name not in registry:
        yield "", f"{registry.kind} {name}, which is not known here"
        return
    cls = registry[name]
    yield from _of_class(f"{registry.kind} {name}", cls, _defaults(cls) | dict(given))


def of_spec(registry: Registry[Any], spec: str) -> Iterator[Use]:
    """What the component of a spec uses."""
    yield from of_component(registry, *parse(spec))


def of_config(registry: Registry[Any], config: Mapping[str, Any]) -> Iterator[Use]:
    """What a component uses that is stored as its name and its arguments."""
    given = {key: value for key, value in config.items() if key != "name"}
    yield from of_component(registry, str(config.get("name")), given)


def of_process(p: Parameterization, *, maps: bool) -> Iterator[Use]:
    """What a parameterization uses: its process, its preconditioning and, of a map, its form."""
    parts = [p.network_process, p.process, p.preconditioning, *([p._form] if maps else [])]
    for part in parts:
        for registry in REGISTRIES:
            if registry.holds(type(part)):
                what = f"{registry.kind} {registry.name_of(type(part))}"
                yield from _of_class(what, type(part), vars(part))


def of_training(training: Training) -> Iterator[Use]:
    """What the training itself uses: its optimiser, its schedule."""
    for citation, why in cited_by(Training, vars(training)):
        yield citation, f"training with {why}"


def of_origin(origin: Origin) -> Iterator[Use]:
    """What weights from elsewhere are from, where they were published with a paper."""
    if citation := CITED.get(str(origin.get("source"))):
        yield citation, f"weights of {origin['source']}"
    if str(origin.get("project")).startswith("diffusers"):
        yield "vonplaten2022diffusers", f"weights of {origin['project']}"


def of_name(name: str) -> list[Use]:
    """What a component uses that ``fewstep list`` shows, or a score or feature network.

    Raises:
        FewstepError: there is none of this name.
    """
    called = parse(name)[0]
    homes = [registry for registry in REGISTRIES if called in registry]
    found = [use for registry in homes for use in of_spec(registry, name)]
    found += [(one, f"score {called}") for one in several(CITATIONS.get(called, ""))]
    if called in CLASSES:
        found += _of_class(f"feature network {called}", CLASSES[called], {})
    if not homes and called not in CITATIONS and called not in CLASSES:
        raise FewstepError(f"nothing is called {called!r}: fewstep list shows what is.")
    return found


def _of_class(what: str, cls: type, arguments: Mapping[str, Any]) -> Iterator[Use]:
    for citation, why in cited_by(cls, arguments):
        yield citation, f"{what} ({why})" if why else what
    hints = hints_of(cls, whole=True)
    for argument, parameter in parameters(cls).items():
        value = arguments.get(argument)
        if isinstance(value, str):
            for registry in _named_by(argument, hints.get(parameter.name)):
                yield from of_spec(registry, value)


def _named_by(argument: str, hint: Any) -> list[Registry[Any]]:
    """The registry, as a list of one or none, whose specs an argument takes, by its annotation."""
    if argument == "guidance":
        return [GUIDANCES]
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Registry):
            return [part]
    kinds = [kind for kind in get_args(hint) if inspect.isclass(kind) and _ours(kind)]
    return [r for r in REGISTRIES for kind in kinds if r.holds_kinds_of(kind)][:1]


def _ours(kind: type) -> bool:
    return kind not in (str, int, float, bool, tuple, type(None)) and not is_protocol(kind)


def _defaults(cls: type) -> dict[str, Any]:
    found = parameters(cls).items()
    return {name: p.default for name, p in found if p.default is not inspect.Parameter.empty}
