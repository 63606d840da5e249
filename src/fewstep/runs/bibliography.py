"""The BibTeX of all that runs and models used, each entry once, and why it is there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fewstep.data.known import known_data
from fewstep.data.pairs import is_pairs, read_manifest
from fewstep.errors import FewstepError
from fewstep.exchange.origin import lineage
from fewstep.files import RECORD
from fewstep.hub_name import is_hub
from fewstep.latents import Latents
from fewstep.model_file import Header
from fewstep.networks import NETWORKS, Autoencoder
from fewstep.objectives import OBJECTIVES
from fewstep.papers import OURS, bibtex, several
from fewstep.parameterization import PARAMETERIZATIONS, from_config
from fewstep.runs.cited import (
    Use,
    of_component,
    of_config,
    of_name,
    of_origin,
    of_process,
    of_spec,
    of_training,
)
from fewstep.runs.described import described
from fewstep.runs.record import Record
from fewstep.runs.run import COMPANIONS, Run
from fewstep.runs.sources import given_of, is_there
from fewstep.sampling import SAMPLERS
from fewstep.solvers import SOLVERS
from fewstep.spec import parse


class Bibliography:
    """What to cite, gathered run by run.

    `entries` has for each citation the reasons by the run that has them; `unknown` what nobody
    knows a paper of, in a sentence.
    """

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, list[str]]] = {OURS: {"fewstep itself": []}}
        self.unknown: list[str] = []
        self._seen: set[str] = set()

    def add_name(self, name: str) -> None:
        """A component, score or feature network by its name.

        Raises:
            FewstepError: there is none of this name.
        """
        self._take("asked for", of_name(name))

    def add(self, path: str | Path) -> None:
        """A run, a folder of runs, or a model, and all that it was made from.

        Raises:
            FewstepError: nothing of the kind is there; a damaged file or record.
        """
        path = Path(path)
        for one in _runs_in(path) or [path]:
            self._add_one(one)

    def text(self) -> str:
        """All entries, a comment above each, and comments for what is not known."""
        parts = [f"{_comment(_because(why))}\n{bibtex(key)}" for key, why in self.entries.items()]
        if self.unknown:
            parts.append("\n".join(_comment(f"not known: {line}") for line in self.unknown))
        return "\n\n".join(parts) + "\n"

    def _add_one(self, path: Path) -> None:
        name = str(path)
        if (where := name if is_hub(path) else os.path.realpath(path)) in self._seen:
            return
        self._seen.add(where)
        one = described(path)
        header = None if one.held is None else one.held.header
        if one.record is not None:
            self._take(name, _of_run(one.record.run, header))
            self._follow(name, path, one.record)
        elif header is not None:
            self._take(name, _of_header(header))
            self._data(
                name, str(header.info.get("data") or ""), str(header.info.get("recipe") or "")
            )
            self._others(name, header.info)
        for origin in lineage({} if header is None else header.info):
            self._take(name, of_origin(origin))

    def _take(self, name: str, uses: Iterable[Use]) -> None:
        for citation, what in uses:
            if not citation:
                self._say(f"{what}, of {name}")
                continue
            reasons = self.entries.setdefault(citation, {}).setdefault(name, [])
            if what not in reasons:
                reasons.append(what)

    def _say(self, line: str) -> None:
        if line not in self.unknown:
            self.unknown.append(line)

    def _follow(self, name: str, home: Path, record: Record) -> None:
        """The models and the data that a run began with, where they are now."""
        for kind in COMPANIONS:
            if given := given_of(record.run, kind):
                source = record.sources.get(kind)
                places = [given] if source is None else source.places(home, given)
                self._model(name, kind, places)
        if given := given_of(record.run, "data"):
            source = record.sources.get("data")
            places = [given] if source is None else source.places(home, given)
            there = next((place for place in places if is_there(place)), given)
            self._data(name, there, record.recipe)
        elif "data" in record.sources:
            self._say(f"the data set of {name}, which was given by a program")

    def _model(self, name: str, kind: str, places: list[str]) -> None:
        there = next((place for place in places if is_there(place)), None)
        if there is None:
            self._say(f"the {kind} of {name}: nothing is at {' or '.join(places)}")
            return
        try:
            self._add_one(Path(there))
        except FewstepError as fault:
            self._say(f"the {kind} of {name}: {fault}")

    def _others(self, name: str, info: Mapping[str, Any]) -> None:
        """Of a model file, which says where its teacher and its weaker model were."""
        for kind in ("teacher", "weak"):
            other = info.get(kind)
            if isinstance(other, dict) and other.get("path"):
                self._model(name, kind, [str(other["path"])])

    def _data(self, name: str, given: str, recipe: str) -> None:
        if given and not is_hub(given) and is_pairs(Path(given)):
            try:
                self._pairs(name, Path(given))
            except FewstepError as fault:
                self._say(f"the pairs of {name}: {fault}")
            return
        known = known_data(given, recipe)
        if known is None:
            self._say(f"the data set {given} of {name}".replace("  ", " "))
            return
        uses = [(one, f"data set {given or known.name}") for one in several(known.citation)]
        self._take(name, uses)

    def _pairs(self, name: str, folder: Path) -> None:
        """Pairs of a model: its sampler, the model, and the images that it learned."""
        manifest = read_manifest(folder)
        registry = SAMPLERS if parse(manifest.solver)[0] in SAMPLERS else SOLVERS
        self._take(f"the pairs {folder}", of_spec(registry, manifest.solver))
        if manifest.path:
            self._model(f"the pairs {folder}", "model", [manifest.path])
        if weak := _weak_of(manifest.solver):
            self._model(f"the pairs {folder}", "weak model", [weak])
        if given := str(manifest.data.get("data") or ""):
            self._data(name, given, "")


def _weak_of(sampler: str) -> str:
    """Where the weaker model of a sampler's autoguidance is; "" of any other sampler."""
    guidance = parse(sampler)[1].get("guidance")
    return str(parse(guidance)[1].get("weak", "")) if isinstance(guidance, str) else ""


def _of_run(run: Run, header: Header | None) -> Iterator[Use]:
    objective, network = run.objective, run.network
    others = {"weak": run.weak} if run.weak else {}
    yield from of_component(OBJECTIVES, objective.name, objective.arguments | others)
    yield from of_component(NETWORKS, network.name, network.arguments)
    encodes = network.name in NETWORKS and issubclass(NETWORKS[network.name], Autoencoder)
    made = OBJECTIVES[objective.name].makes if objective.name in OBJECTIVES else None
    if not encodes:
        yield from _of_p({"name": run.p.name, **run.p.arguments}, made is None or made.maps_to_eps)
    yield from of_training(run.training)
    trained = made if header is None else header.trained
    yield from _of_sampler(None if trained is None else trained.sampler)
    if run.autoencoder or (header is not None and header.latents is not None):
        yield Latents.citation, "latents of an autoencoder"
    if header is not None and header.latents is not None:
        yield from of_config(NETWORKS, header.latents)


def _of_header(header: Header) -> Iterator[Use]:
    if objective := header.info.get("objective"):
        called, arguments = parse(str(objective))
        weak = header.info.get("weak")
        others = {"weak": weak.get("path")} if isinstance(weak, dict) else {}
        yield from of_component(OBJECTIVES, called, arguments | others)
    yield from of_config(NETWORKS, header.network)
    if header.parameterization is not None:
        yield from _of_p(header.parameterization, header.trained.maps_to_eps)
    if header.latents is not None:
        yield Latents.citation, "latents of an autoencoder"
        yield from of_config(NETWORKS, header.latents)
    yield from _of_sampler(header.trained.sampler)


def _of_p(config: Mapping[str, Any], maps: bool) -> Iterator[Use]:
    if (name := str(config.get("name"))) not in PARAMETERIZATIONS:
        yield "", f"process {name}, which is not known here"
        return
    yield from of_process(from_config(dict(config)), maps=maps)


def _of_sampler(spec: str | None) -> Iterator[Use]:
    if spec is not None:
        yield from of_spec(SAMPLERS, spec)


def _because(reasons: Mapping[str, list[str]]) -> str:
    """All reasons in one line."""
    said = (f"{name}: {', '.join(what)}" if what else name for name, what in reasons.items())
    return "; ".join(said)


def _comment(text: str) -> str:
    """A line that BibTeX passes over, for which an entry begins at every "@"."""
    return f"% {text}".replace("\n", " ").replace("@", " at ")


def _runs_in(path: Path) -> list[Path]:
    """The runs in a folder that is none itself."""
    if is_hub(path) or (path / RECORD).is_file():
        return []
    return [record.parent for record in sorted(path.glob(f"*/{RECORD}"))]
