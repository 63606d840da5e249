"""What ``fewstep serve`` and ``fewstep watch`` share: where the server listens, and its start."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from fewstep.errors import FewstepError

if TYPE_CHECKING:
    from fewstep.serving.shelf import Shelf
    from fewstep.serving.watched import Runs


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a server listens, and for whom: see `fewstep.serving.server.Settings`."""

    host: Annotated[
        str,
        Parameter(help="Address to listen on. Others than this machine's own need a token."),
    ] = "127.0.0.1"
    token: Annotated[
        str | None,
        Parameter(
            env_var="FEWSTEP_TOKEN", help="What clients must send as Authorization: Bearer TOKEN."
        ),
    ] = None
    open_to_all: Annotated[
        bool,
        Parameter(negative="", help="Listen on an address that others can reach, without a token."),
    ] = False
    browser: Annotated[bool, Parameter(negative="", help="Open the page in the browser.")] = False
    patience: Annotated[
        float,
        Parameter(
            help="Seconds that a client has to send its request; slower ones are disconnected."
        ),
    ] = 10.0

    def url(self, port: int) -> str:
        """The page's address."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        token = f"?token={quote(self.token, safe='')}" if self.token else ""
        return f"http://{shown}:{port}/{token}"


def launch(
    place: Place | None,
    port: int,
    shelf_of: Callable[[], Shelf],
    *,
    said: Callable[[Shelf], str],
    runs: Runs | None = None,
    limits: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        place: where; default this machine alone.
        port: of the server; 0 takes a free one.
        shelf_of: opens the models, once the port is known to be free.
        said: what is served, in words.
        runs: the trainings that are watched; default those of the models.
        limits: see `fewstep.serving.limits.Limits`.
        settings: further ones of the server.

    Raises:
        FewstepError: the extra is missing, the place cannot be had, or a model is none.
    """
    try:
        from fewstep.serving.limits import Limits
        from fewstep.serving.server import Settings, bind, serve
        from fewstep.threads import compute_alone
    except ImportError as error:
        raise FewstepError(f"{error.name} is missing: pip install 'fewstep[serve]'.") from error
    place = place or Place()
    given = Settings(
        host=place.host,
        port=port,
        token=place.token,
        open_to_all=place.open_to_all,
        patience=place.patience,
        limits=Limits(**limits or {}),
        **settings,
    )
    sock = bind(place.host, port)
    with sock:
        compute_alone()  # the engine's thread computes, with all cores
        shelf, url = shelf_of(), place.url(sock.getsockname()[1])

        def ready() -> None:
            print(f"{said(shelf)} at {url} (API: docs/; stop with Ctrl-C)", flush=True)
            if place.browser:
                threading.Timer(0.5, webbrowser.open, [url]).start()

        serve(shelf, given, sock, ready, runs)
