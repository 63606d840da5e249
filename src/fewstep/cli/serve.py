"""``fewstep serve [RUN ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fewstep.cli.command import Whole, command
from fewstep.cli.launch import Place, launch
from fewstep.cli.sampling import ENGINE
from fewstep.distributed import pick_device
from fewstep.exchange.graphs.engines import Engine, engine_of
from fewstep.precision import Precision

if TYPE_CHECKING:
    from fewstep.serving.shelf import Shelf


def serve(
    *models: Path,
    port: Whole = 8000,
    place: Place | None = None,
    training_images: Annotated[bool, Parameter(negative="")] = False,
    max_batch: Whole = 64,
    wait_ms: float = 2.0,
    queue: Whole = 256,
    max_n: Whole = 64,
    max_steps: Whole = 64,
    timeout: float = 60.0,
    grace: float = 30.0,
    checkpoint: str = "last",
    ema: str | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    engine: Annotated[str, ENGINE] = "torch",
    encoder: str | None = None,
) -> None:
    """Serve models on a web page and an HTTP API.

    Without a model, those that fewstep reproduce digits has made here. The page is at /, the API's
    description at /docs. Requests that arrive together run as one batch; Ctrl-C or SIGTERM finishes
    what was accepted. Models that are named by their run folders show their trainings, too.

    Examples:
      fewstep serve
      fewstep serve runs/digits-cd runs/digits-edm --port 8080 --browser
      fewstep serve runs/photos --host 0.0.0.0 --token correct-horse-battery

    Parameters
    ----------
    models
        Run folders, checkpoint folders, model files or hub:NAME; the first is the default.
    port
        Port to listen on; 0 takes a free one.
    training_images
        Show training images to others than this machine, too: those nearest to a picture.
    max_batch
        Images in a batch.
    wait_ms
        How long a request waits for others to share its batch, in milliseconds.
    queue
        Requests that may wait; more are told to come back later.
    max_n
        Images that a request may ask for.
    max_steps
        Steps that a request may ask for.
    timeout
        Seconds after which a request is given up.
    grace
        Seconds to finish what was accepted, after Ctrl-C or SIGTERM; a second one stops at once.
    checkpoint
        Checkpoint of run folders: last, best or a step.
    ema
        Which running average, or f for the raw weights; default the first.
    device
        cpu, cuda, cuda:1 or mps; default a GPU where there is one.
    precision
        Arithmetic of the network: fp32, bf16 or fp16; default that of its weights. Times and noise
        stay in float32.
    encoder
        What makes an embedding of a prompt, module:function, for models that are told texts;
        default the one that each names, if you have named it before.
    """
    by = engine_of(engine, precision)
    launch(
        place,
        port,
        lambda: _shelf(models, checkpoint, ema, by, device, precision, encoder),
        said=lambda shelf: ", ".join(shelf.models) + by.said,
        training_images=training_images,
        max_batch=max_batch,
        wait=wait_ms / 1000,
        queue=queue,
        grace=grace,
        limits={"n": max_n, "steps": max_steps, "seconds": timeout},
    )


def _shelf(
    models: Sequence[Path],
    checkpoint: str,
    ema: str | None,
    by: Engine,
    device: str | None,
    precision: Precision | None,
    encoder: str | None,
) -> Shelf:
    from fewstep.serving.shelf import Shelf

    return Shelf.open(
        models,
        checkpoint=checkpoint,
        ema=ema,
        device=pick_device(by.device(device)),
        precision=precision,
        engine=by,
        encoder=encoder,
    )


app = command(serve)
