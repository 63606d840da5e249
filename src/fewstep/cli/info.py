"""``fewstep info RUN [OTHER]``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fewstep.cli.command import command
from fewstep.exchange.origin import licences, sources
from fewstep.runs.described import Described, described, differences

LONGEST = 48  # characters of a value in a comparison


def info(
    model: Path,
    other: Path | None = None,
    /,
    *,
    checkpoint: str = "last",
    ema: str | None = None,
    as_json: Annotated[bool, Parameter("--json", negative="")] = False,
) -> None:
    """Show what a model is, how it was trained, and how to sample it.

    With a second run or model: the settings in which the two differ.

    Examples:
      fewstep info runs/digits-cd
      fewstep info runs/digits-cd runs/digits-ect
      fewstep info model.safetensors --json

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME.
    other
        Another one, to compare it with.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    as_json
        All of it as JSON.
    """
    found = [described(p, checkpoint=checkpoint, ema=ema) for p in (model, other) if p is not None]
    if len(found) == 1:
        one = found[0]
        print(json.dumps(one.said, indent=1) if as_json else "\n".join(_lines(one)))
        return
    pairs = differences(found[0], found[1])
    if as_json:
        print(json.dumps({"a": str(model), "b": str(other), "differ": pairs}, indent=1))
    else:
        print("\n".join(_compared(str(model), str(other), pairs)))


def _lines(one: Described) -> Iterator[str]:
    """Everything, one fact a line."""
    if one.held is None:
        yield f"{one.path}: a run without a model yet, {one.note}"
    else:
        yield f"{one.path}: {one.held.header.line(one.held.numbers)}"
    for name, value in _facts(one):
        yield f"  {name:<11} {value}"
    if one.commands:
        yield "  how to go on"
        yield from (f"    {line}" for line in one.commands)


def _facts(one: Described) -> Iterator[tuple[str, str]]:
    if one.held is not None:
        yield from _facts_of_model(one)
    for plugin in one.plugins:
        yield "plugin", f"{plugin.given}, for its {' and '.join(plugin.gives)}"
    if one.record is not None:
        run = one.record.run
        yield "recipe", one.record.recipe
        yield "objective", str(run.objective)
        for name, source in one.record.sources.items():
            yield name, ", ".join(filter(None, (source.path or source.name, source.about)))
        made = f"{one.trained.step or 0:,} of {run.training.steps:,} steps"
        how = f"batch {run.training.batch}, {run.training.optimizer}, lr {run.training.lr:g}"
        yield "training", f"{made}, {how}"
        yield "begun by", f"fewstep {one.record.fewstep}, torch {one.record.torch}"


def _facts_of_model(one: Described) -> Iterator[tuple[str, str]]:
    held = one.held
    assert held is not None
    header, trained = held.header, held.header.trained
    yield "starts", _words(trained.starts)
    yield "ends", trained.ends or "nobody said"
    yield "sampler", f"{trained.sampler or 'none of its own'}, {trained.default_steps} by default"
    if trained.taus:
        yield "time points", "; ".join(f"{n}: {_words(t)}" for n, t in trained.taus.items())
    if trained.classes:
        yield "classes", _words(trained.classes)
    if trained.null_class:
        weight = "none" if trained.guidance is None else f"{trained.guidance:g}"
        yield "guidance", f"it has a null class; weight by default {weight}"
    if trained.weights is not None:
        low, high = trained.weights
        yield "weights", f"it takes a guidance weight from {low:g} to {high:g}"
    if trained.around is not None:
        yield "intervals", f"it takes an interval of noise levels around {trained.around:g}"
    yield "network", _spec(header.network)
    yield "process", "none" if header.parameterization is None else _spec(header.parameterization)
    if header.latents is not None:
        yield "latents", f"{_spec(header.latents)}, {held.decoder:,} parameters"
    told = set() if one.record is None else {"recipe", "objective", *one.record.sources}
    for name in ("recipe", "objective", "data"):
        if name not in told and (value := header.info.get(name)):
            yield name, str(value)
    for kind in ("teacher", "weak"):
        other = header.info.get(kind)
        if other and (one.record is None or kind not in one.record.sources):
            yield kind, f"{other.get('path')}, SHA-256 {str(other.get('sha256'))[:12]}"
    if where := sources(header.info):
        yield "from", "; ".join(where)
    if named := licences(header.info):
        yield "licence", "; ".join(named)
    size = f"{held.bytes:,} bytes, {held.numbers:,} parameters in {' and '.join(held.types)}"
    yield "file", f"{held.file}, {size}"


def _compared(a: str, b: str, pairs: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    if not pairs:
        yield f"{a} and {b} say the same of themselves."
        return
    rows = [("", a, b), *((name, _short(x), _short(y)) for name, (x, y) in pairs.items())]
    wide = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for name, x, y in rows:
        yield f"{name:<{wide[0]}}  {x:<{wide[1]}}  {y}".rstrip()


def _spec(config: dict[str, Any]) -> str:
    """A stored description as name(argument=value, ...)."""
    inside = ", ".join(f"{k}={_words(v)}" for k, v in config.items() if k != "name")
    return f"{config.get('name')}({inside})"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(value: Any) -> str:
    text = "-" if value is None else _words(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


app = command(info)
