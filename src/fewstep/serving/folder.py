"""The page as a folder that any web server can hand out: the model is computed in the browser.

The folder has the page's own files, with another `api.js` between the page and what answers it:
`browser/` in place of the HTTP API. It holds the map of the model and its process as ONNX graphs,
the steps of its samplers as numbers (`fewstep.exchange.graphs.sums`), onnxruntime-web, and pictures
that are seen before anything is loaded. Every address in it is relative.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.condition import Condition
from fewstep.data import to_uint8
from fewstep.data.images import check_pictures
from fewstep.editing.edit import ends_of_strength
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.beside import DecoderGraph, ProcessGraph
from fewstep.exchange.graphs.engines import Torch
from fewstep.exchange.graphs.graph import Computation, MapGraph, weight_of
from fewstep.exchange.graphs.sums import Program, program_of
from fewstep.exchange.graphs.written import write_onnx
from fewstep.exchange.onnxruntime_web import NAME, Runtime
from fewstep.exchange.origin import licence, sources
from fewstep.flow_map import FlowMap
from fewstep.guidance import Guided
from fewstep.mode import evaluating
from fewstep.sampling import Jumps, NoiseStreams, Sampler, Walk, default_taus, sampler_for
from fewstep.serving.images import base64_png
from fewstep.serving.shelf import Shelf
from fewstep.version import __version__

HERE = Path(__file__).parent
MODELS = "models"
ABOUT = f"{MODELS}/models.json"
"""What the page knows of the model; a folder that holds it is an export."""
MOST_STEPS = 32  # of a sampler on the page
SHOWN = 20  # pictures that are seen first
LARGE = 256 * 2**20  # bytes that a visitor would not like to wait for
LARGEST = 2**31 - 2**20  # bytes of an ONNX file, whose format ends at two gigabytes

Advance = Callable[[int], Any]


@dataclass(frozen=True)
class Folder:
    """What was written.

    Args:
        sizes: bytes of the parts, by what they are.
        difference: the largest of the graphs, relative to this package's own.
        notes: what a user should know, in sentences.
    """

    sizes: dict[str, int]
    difference: float
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(self.sizes.values())


def check(f: FlowMap) -> None:
    """Raise `FewstepError` for a model that the page cannot carry."""
    check_pictures(f.image_shape, "this model", ", which are what a page shows")
    f.trained.check_known("a page")
    weights = sum(w.numel() * 4 for w in f.state_dict().values())
    if weights > LARGEST:
        raise FewstepError(
            f"this model has {weights / 2**30:.1f} GiB of weights, and an ONNX file holds 2: serve "
            "it with fewstep serve."
        )
    ones = torch.ones(2, *f.shape, dtype=torch.float64)
    ones[1] *= 2
    made = f.p.prior(ones)
    if not torch.allclose(made, made.flatten()[0] * ones):
        raise FewstepError(
            f"the noise of {f.p.config['name']} is not normal, which the page does not know: serve "
            "it with fewstep serve."
        )


def write_folder(
    f: FlowMap,
    name: str,
    out: Path,
    runtime: Callable[[], Runtime],
    *,
    sampler: str | None = None,
    steps: int | None = None,
    card: str = "",
    advance: Advance = lambda _: None,
) -> Folder:
    """Write the page of a model.

    Args:
        f: the model.
        name: its id on the page.
        out: folder to write; an earlier export is replaced.
        runtime: gives onnxruntime-web; it is asked once the model is known to fit.
        sampler: spec of the sampler; default the model's own.
        steps: of the sampler, where the page is opened.
        card: text of its README.md.
        advance: called with the number of parts that are done, of `parts`.

    Raises:
        FewstepError: a model or sampler that the page cannot carry, or a folder of something else.
    """
    check(f)
    check_place(out)
    programs, first = programs_of(f, sampler, steps)
    advance(1)
    ran = runtime()
    advance(1)
    with _placed(out) as folder:
        copy_page(folder)
        (folder / "ort").mkdir()
        for file, content in ran.files.items():
            (folder / "ort" / file).write_bytes(content)
        difference = write_graphs(f, folder / MODELS, advance)
        about = describe(f, name, programs, first, ran)
        (folder / ABOUT).write_text(json.dumps({"models": [about]}))
        (folder / MODELS / "first.json").write_text(json.dumps(first_answer(f, name, first, about)))
        if card:
            (folder / "README.md").write_text(card)
        advance(1)
        sizes = _sizes(folder)
    return Folder(sizes, difference, tuple(_notes(sizes)))


def check_place(out: Path) -> None:
    """Raise `FewstepError` for a place that holds something else than an earlier export."""
    if out.is_file():
        raise FewstepError(f"{out} is a file: --to web writes a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / ABOUT).is_file():
        raise FewstepError(f"{out} holds something else than an earlier export: name a new folder.")


def programs_of(
    f: FlowMap, spec: str | None, steps: int | None
) -> tuple[dict[int, Program], Sampler]:
    """What the page's sampler does, by its number of steps, and the sampler that it opens with.

    Raises:
        FewstepError: a sampler that the model does not admit, or that is no list of sums.
    """
    if steps is not None and steps > MOST_STEPS:
        raise FewstepError(f"--steps {steps}: the page takes at most {MOST_STEPS} steps.")
    first = sampler_for(f, steps, sampler=spec)
    made = {first.count: program_of(f, first)}
    if first.count > MOST_STEPS:
        raise FewstepError(
            f"{first.spec} takes {first.count} steps, and the page at most {MOST_STEPS}."
        )
    for n in range(1, MOST_STEPS + 1) if _open(f, spec, first.count) else ():
        if n not in made:
            made[n] = program_of(f, sampler_for(f, n, sampler=spec))
    return made, first


def _open(f: FlowMap, spec: str | None, count: int) -> bool:
    """Whether a sampler takes any number of steps."""
    try:
        return all(sampler_for(f, n, sampler=spec).count == n for n in (count, count + 1))
    except FewstepError:
        return False


def copy_page(folder: Path) -> None:
    """The page's own files, with the browser behind `api.js` in place of the server."""
    shutil.copytree(HERE / "page", folder, dirs_exist_ok=True)
    shutil.copytree(HERE / "browser", folder / "browser")
    (folder / "browser" / "api.js").replace(folder / "api.js")


def write_graphs(f: FlowMap, folder: Path, advance: Advance) -> float:
    """The graphs of a model; the largest difference from this package's own."""
    folder.mkdir()
    differences = []
    for part, graph in graphs_of(f).items():
        differences.append(write_onnx(graph, folder / f"{part}.onnx").difference)
        advance(1)
    return max(differences)


def graphs_of(f: FlowMap) -> dict[str, Computation]:
    """What the page computes, by the names of the files."""
    graphs: dict[str, Computation] = {"map": MapGraph(f), "process": ProcessGraph(f)}
    return graphs if f.latents is None else {**graphs, "decoder": DecoderGraph(f)}


def parts(f: FlowMap) -> int:
    """How many parts an export has, one after the other."""
    return 3 + len(graphs_of(f))


def describe(
    f: FlowMap, name: str, programs: dict[int, Program], first: Sampler, ran: Runtime
) -> dict[str, Any]:
    """What the page needs to know of a model: what a server says of it, and how it is computed."""
    (about,) = Shelf({name: f}).describe(max(programs))
    p, trained, guided = f.p, f.trained, _guidance(first)
    about |= {
        "default_steps": first.count,
        "max_steps": max(programs),
        "programs": {str(n): programs[n].json for n in sorted(programs)},
        "computed": {
            "fewstep": __version__,
            "engine": " ".join(filter(None, (NAME, ran.version))),
            "inputs": MapGraph(f).names,
            "decodes": f.latents is not None,
            "shape": list(f.shape),
            "T": p.T,
            "eps": p.eps,
            "t_min": p.t_min,
            "strengths": ends_of_strength(p),
            "ends": p.eps if trained.maps_to_eps else 0.0,
            "prior": float(p.prior(torch.ones(1, *f.shape, dtype=torch.float64)).flatten()[0]),
            "weight": weight_of(f, None),
            "interval": guided.interval if guided else None,
            "walks": bool(trained.guidance or trained.maps_to_any),
            "jumps": _jumps(f) if trained.maps_to_eps and trained.from_any_time else {},
        },
        "licence": licence(f.info),
        "sources": sources(f.info),
    }
    return about | ({"guidance": guided.w} if guided else {})


def _guidance(sampler: Sampler) -> Guided | None:
    """The guidance that a sampler has."""
    given = sampler.guidance if isinstance(sampler, Walk | Jumps) else None
    return given if isinstance(given, Guided) and not given.off else None


def _jumps(f: FlowMap) -> dict[str, tuple[float, ...]]:
    """Time points of an edit, by the number of its steps."""
    return {str(n): default_taus(f, n) for n in range(1, MOST_STEPS + 1)}


def first_answer(f: FlowMap, name: str, sampler: Sampler, about: dict[str, Any]) -> dict[str, Any]:
    """The request and the answer that the page opens with: the first images of seed 0."""
    if sampler.count < min(2, about["max_steps"]):  # a strip needs two steps
        sampler = sampler_for(f, 2)
    with torch.inference_mode(), evaluating(f):
        label = torch.arange(SHOWN) % f.num_classes if f.num_classes else None
        noise = NoiseStreams(0, range(SHOWN), f.shape)
        states = [to_uint8(x) for x in sampler.steps(f, noise, Condition(label=label))]
    classes = [None if label is None else f.classes[k] for k in _numbers(label)]

    def settings(i: int) -> dict[str, Any]:
        made = {"fewstep": __version__, "model": name, "seed": 0, "steps": sampler.count}
        made |= {"class": classes[i], "engine": Torch().name}
        return made | {"sampler": sampler.spec, "index": i}

    return {
        "request": {"model": name, "n": SHOWN, "seed": 0, "steps": sampler.count},
        "answer": {
            "model": name,
            "seed": 0,
            "steps": sampler.count,
            "seconds": None,
            "engine": Torch().name,
            "notes": [],
            "data": [_entry(states, i, settings(i)) for i in range(SHOWN)],
        },
    }


def _numbers(label: Tensor | None) -> list[int]:
    return [0] * SHOWN if label is None else label.tolist()


def _entry(states: list[Tensor], i: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "b64_json": base64_png(states[-1][i], settings),
        "seed": 0,
        "index": i,
        "class": settings["class"],
        "strip": [base64_png(x[i], settings | {"step": k}) for k, x in enumerate(states, 1)],
    }


@contextmanager
def _placed(out: Path) -> Iterator[Path]:
    """A folder beside its place, which it takes at the end; nothing stays after a failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder = scratch / out.name
        folder.mkdir()
        yield folder
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the parts of an export."""
    kinds = {MODELS: "the model", "ort": NAME}
    sizes: dict[str, int] = dict.fromkeys((*kinds.values(), "the page"), 0)
    for path in folder.rglob("*"):
        if path.is_file():
            kind = kinds.get(path.relative_to(folder).parts[0], "the page")
            sizes[kind] += path.stat().st_size
    return sizes


def _notes(sizes: dict[str, int]) -> Iterator[str]:
    if sizes["the model"] > LARGE:
        yield (
            f"the model has {sizes['the model'] / 2**20:.0f} MiB, which every visitor loads and "
            "computes on one thread: a server with fewstep serve may suit it better"
        )
