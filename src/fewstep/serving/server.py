"""Runs the API and the page until it is told to stop."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from fewstep.errors import FewstepError
from fewstep.serving.app import LAST, create_app
from fewstep.serving.connections import Connection, Patience
from fewstep.serving.engine import Engine
from fewstep.serving.guard import Guard, is_loopback
from fewstep.serving.limits import Limits
from fewstep.serving.neighbours import TrainingImages
from fewstep.serving.shelf import Shelf
from fewstep.serving.watched import Runs


def _is_plain(text: str) -> bool:
    """Whether a header can carry a text."""
    return text.isascii() and text.isprintable()


@dataclass(frozen=True)
class Settings:
    """Where and how to serve.

    Args:
        host, port: address to bind; port 0 takes any free one.
        token: what clients must send; None for none.
        open_to_all: bind another address than loopback without a token.
        max_batch: images in a batch.
        wait: seconds that the oldest request waits for others to share its batch.
        queue: requests that may wait.
        limits: what a request may ask for.
        grace: seconds to finish what was accepted when the server is told to stop.
        patience: seconds to wait for a request's head, and for its body; see `Patience`.
        training_images: show training images to others than this machine, too.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    open_to_all: bool = False
    max_batch: int = 64
    wait: float = 0.002
    queue: int = 256
    limits: Limits = field(default_factory=Limits)
    grace: float = 30.0
    patience: float = 10.0
    training_images: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise FewstepError(f"a port is a number in 0..65535, got {self.port}.")
        if not (0 <= self.grace < math.inf and 0 < self.patience < math.inf):
            raise FewstepError(
                f"need grace >= 0 and patience > 0 s, got {self.grace:g} and {self.patience:g}."
            )
        if self.token is not None and (len(self.token) < 8 or not _is_plain(self.token)):
            raise FewstepError(
                "a token must have at least 8 characters, all of them ASCII and none of them a "
                "control character such as a line break."
            )
        if not self.local and self.token is None and not self.open_to_all:
            raise FewstepError(
                f"{self.host} can be reached by others: give --token SECRET, or say "
                "--open-to-all if everybody may use the models."
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        FewstepError: the port is in use, or the address is not this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise FewstepError(f"cannot serve on {host}: {error.strerror or error}.") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        hint = f"another program uses port {port}: choose one with --port, or 0 for any"
        reason = hint if "in use" in str(error) else f"{error.strerror or error}"
        raise FewstepError(f"cannot serve on {host}:{port}: {reason}.") from error
    return sock


SPARE = 128  # open files that are no connections


def config(app: Guard, settings: Settings) -> uvicorn.Config:
    """uvicorn's settings; connections are bounded, and by the files that may be open."""
    patience = Patience(most=_files(4 * settings.queue + 64), head=settings.patience)
    return uvicorn.Config(
        app,
        http=partial(Connection, patience),  # type: ignore[arg-type]
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        lifespan="on",
    )


def _files(wish: int) -> int:
    """As many open files for connections as the system allows, up to a wish."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return wish
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wish + SPARE if hard == resource.RLIM_INFINITY else min(wish + SPARE, hard)
    if soft != resource.RLIM_INFINITY and most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - SPARE


class Server(uvicorn.Server):
    """uvicorn's server, that ends in its time whatever is still going on.

    Args:
        settings: uvicorn's.
        grace: seconds from the first signal.
    """

    def __init__(self, settings: uvicorn.Config, grace: float) -> None:
        super().__init__(settings)
        self.grace = grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order; at the second signal, or after the grace, at once."""
        if self.should_exit:
            _leave(sig, "stopped at once.")
        self.should_exit = True
        words = (sig, "stopped: what was accepted took longer than the grace.")
        last = threading.Timer(self.grace + LAST, _leave, words)
        last.daemon = True
        last.start()


def _leave(sig: int, word: str) -> None:
    print(word, file=sys.stderr, flush=True)
    os._exit(128 + sig)


def serve(
    shelf: Shelf,
    settings: Settings,
    sock: socket.socket,
    ready: Callable[[], None] = lambda: None,
    runs: Runs | None = None,
) -> None:
    """Serve on a bound socket until SIGTERM or Ctrl-C.

    What was accepted is finished within `Settings.grace`; a second signal ends the process at once.

    Args:
        ready: called when a signal stops the server in order.
        runs: the trainings that are watched; default those of the models.
    """
    engine = Engine(
        shelf.models,
        max_batch=settings.max_batch,
        wait=settings.wait,
        capacity=settings.queue,
    )
    app = create_app(
        engine,
        shelf,
        runs=runs or Runs.of_models(shelf.places),
        training=TrainingImages(shelf.places, shown=settings.local or settings.training_images),
        limits=settings.limits,
        token=settings.token,
        local=settings.local,
    )
    gc.collect()
    gc.freeze()  # torch's many objects need not be looked through while requests wait
    server = Server(config(app, settings), settings.grace)
    before = {sig: signal.signal(sig, server.handle_exit) for sig in HANDLED_SIGNALS}
    try:
        ready()
        server.run(sockets=[sock])
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
        engine.close(LAST)
        print("stopped.", file=sys.stderr)
