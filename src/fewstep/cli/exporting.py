"""``fewstep export RUN --to TARGET -o FILE``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.cli.places import check_not_read
from fewstep.cli.reading import Reading
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.precisions import GraphPrecision
from fewstep.files import check_writable, replacing
from fewstep.models import as_map
from fewstep.runs.opening import open_model

if TYPE_CHECKING:
    from fewstep.flow_map import FlowMap


def export(
    model: Path,
    /,
    *,
    to: Literal["diffusers", "edm", "openai", "onnx", "torch", "web"],
    out: Annotated[Path, Parameter(alias="-o")],
    sampler: str | None = None,
    steps: Whole | None = None,
    checkpoint: str = "last",
    ema: str | None = None,
    ort: Path | None = None,
    guidance: float | None = None,
    precision: GraphPrecision = "fp32",
    data: str | None = None,
    reading: Reading | None = None,
    compare: bool = True,
) -> None:
    """Write a model, or a model with its sampler, for another program.

    onnx and torch are the whole sampler as one graph: noise and class in, images out, times and
    steps inside. Each is checked against this package's own sampler, and timed beside it; sizes,
    times and what a precision costs are printed, and written beside the file as FILE.json. edm and
    openai are state dicts with the names of NVlabs/edm and openai/consistency_models, and diffusers
    is the folder of a pipeline; the lines that load them there are printed. web is a folder with
    the page of fewstep serve, whose model is computed in the browser: any web server can hand it
    out.

    Examples:
      fewstep export runs/digits-cd --to onnx --steps 2 -o cd.onnx
      fewstep export runs/digits-edm --to torch --sampler "walk(steps=10)" -o edm.pt2
      fewstep export runs/digits-cd --to onnx --precision int8 -o small.onnx
      fewstep export runs/imagenet64-cd --to diffusers -o cd-pipeline
      fewstep export runs/cifar10-ect --to edm -o ect.pt
      fewstep export runs/imagenet64-cd --to openai -o cd.pt
      fewstep export runs/digits-cd --to web -o site

    Parameters
    ----------
    model
        Run folder, checkpoint folder, model file or hub:NAME.
    to
        onnx or torch for a graph; diffusers for a pipeline; edm or openai for a state dict; web for
        a page.
    out
        File to write; of a pipeline or a page its folder.
    sampler
        Sampler of a graph or page, such as jumps(steps=2) or walk(solver=dpm2, nfe=10); default
        the model's own.
    steps
        Steps of a graph's sampler; of a page's, where it is opened.
    checkpoint
        Checkpoint of a run folder: last, best or a step.
    ema
        Which running average, such as ema-0.9999, or f for the raw weights; default the first.
    ort
        For web: onnxruntime-web as a folder or a .tgz; default from npm's registry, into the cache.
    guidance
        Of a graph whose sampler walks along a denoiser: classifier-free guidance, whose weight
        becomes an input of the graph; this one is noted as its default.
    precision
        Of an ONNX graph's networks: fp32, fp16 or int8 (weights of eight bits). What it costs in
        Fréchet distance is measured where images are at hand.
    data
        Images to measure that with, as --data of train takes them; default those that the run was
        trained on.
    compare
        Time and score the file beside other ways to run it; without, it is checked alone.
    """
    if ort is not None and to != "web":
        raise FewstepError(f"--ort is for --to web: leave it out of --to {to}.")
    if (precision != "fp32" or data is not None or reading is not None) and to != "onnx":
        raise FewstepError(
            "--precision, and --data with what says how to read them, are for --to onnx: leave "
            f"them out of --to {to}."
        )
    if guidance is not None and to not in ("onnx", "torch"):
        raise FewstepError(f"--guidance is for a graph: leave it out of --to {to}.")
    if not compare and to not in ("onnx", "torch"):
        raise FewstepError(f"--no-compare is for a graph: leave it out of --to {to}.")
    _check_out(out, to)
    _check_not_itself(out, model)
    f = as_map(open_model(model, checkpoint=checkpoint, ema=ema), "an export")
    out.parent.mkdir(parents=True, exist_ok=True)
    if to in ("onnx", "torch"):
        from fewstep.cli.graphs import Wish, write_graph
        from fewstep.sampling import sampler_for

        wish = Wish(model, out, to, precision, (reading or Reading()).data(data), compare)
        write_graph(f, sampler_for(f, steps, sampler=sampler, guidance=guidance), wish)
        return
    if to == "web":
        _write_page(f, model, out, sampler, steps, ort)
        return
    if sampler is not None or steps is not None:
        raise FewstepError(f"--to {to} writes weights alone: leave out --sampler and --steps.")
    if to == "diffusers":
        _write_pipeline(f, out)
    else:
        _write_weights(f, out, to)


ENDINGS = {
    "onnx": (".onnx",),
    "torch": (".pt2",),
    "edm": (".pt", ".pth"),
    "openai": (".pt", ".pth"),
}
"""How the file of a target ends; what is not here is a folder."""
FILES = {".safetensors", *(ending for endings in ENDINGS.values() for ending in endings)}


def _check_out(out: Path, to: str) -> None:
    """Raise `FewstepError` for a place that no file of a target can have, before any work."""
    _check_name(out, to)
    check_writable(out / "model_index.json" if to == "diffusers" else out)


def _check_name(out: Path, to: str) -> None:
    endings = ENDINGS.get(to)
    if endings is None:
        if out.suffix.lower() in FILES:
            raise FewstepError(
                f"--to {to} writes a folder, and {out} has the name of a file: -o "
                f"{out.with_suffix('')}."
            )
        return
    if out.suffix.lower() not in endings:
        name = out.with_suffix(endings[0]) if out.name else Path("model" + endings[0])
        raise FewstepError(
            f"--to {to} writes a file that ends in {endings[0]}: -o {name}, not {out}."
        )
    if out.is_dir():
        raise FewstepError(f"{out} is a folder, and --to {to} writes a file.")


def _check_not_itself(out: Path, model: Path) -> None:
    """Raise `FewstepError` for a place that would destroy the model; tell of another file there."""
    check_not_read(out, [model])
    if out.is_file():
        print(f"note: the file {out} that was there is replaced.")


def _write_pipeline(f: FlowMap, out: Path) -> None:
    from fewstep.exchange.diffusers.writing import write_pipeline

    written = write_pipeline(f, out)
    for note in written.notes:
        print(f"note: {note}.")
    print(f"{out}: a {written.kind}")
    if written.difference is not None:
        print(f"  largest difference from this package {written.difference:.1e}")
    print("It is loaded there by")
    for line in written.load:
        print(f"  {line.replace('FOLDER', repr(str(out)))}")


def _write_weights(f: FlowMap, out: Path, to: str) -> None:
    import torch

    from fewstep.exchange.exported import STATE_DICTS

    exported = STATE_DICTS[to](f)
    with replacing(out) as partial:
        torch.save(exported.tensors, partial)
    for note in exported.notes:
        print(f"note: {note}.")
    print(f"{out}: {len(exported.tensors)} tensors. It is loaded there by")
    for line in exported.load:
        print(f"  {line.replace('PATH', repr(str(out)))}")


def _write_page(
    f: FlowMap, model: Path, out: Path, sampler: str | None, steps: int | None, ort: Path | None
) -> None:
    from fewstep.exchange.card import card
    from fewstep.exchange.onnxruntime_web import runtime
    from fewstep.progress import progress
    from fewstep.serving.folder import parts, write_folder
    from fewstep.serving.shelf import names_for

    (name,) = names_for([model])
    use = "Any web server can hand this folder out; its page computes the model in the browser."
    about = card(f, title=name, use=use)
    with progress("exporting", parts(f)) as advance:
        written = write_folder(
            f,
            name,
            out,
            lambda: runtime(ort),
            sampler=sampler,
            steps=steps,
            card=about,
            advance=advance,
        )
    for note in written.notes:
        print(f"note: {note}.")
    sizes = ", ".join(f"{part} {size / 2**20:.1f}" for part, size in written.sizes.items())
    print(f"{out}: {written.size / 2**20:.1f} MiB ({sizes})")
    print(f"  largest difference from this package {written.difference:.1e}")
    print("  any web server can hand it out; to look at it here:")
    print(f"  python -m http.server --directory {shlex.quote(str(out))}")
    print("  and open http://localhost:8000")


app = command(export)
