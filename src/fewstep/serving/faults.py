"""The one form of every error, and which error an exception is."""

from __future__ import annotations

from typing import Any

from fewstep.errors import FewstepError, NotFinite
from fewstep.serving.engine import Busy, Closed

SERVER = ("internal", "not_finite")  # codes of what is no client's mistake
FAULTS: dict[type[Exception], tuple[int, str]] = {
    NotFinite: (500, "not_finite"),
    FewstepError: (400, "invalid"),
    Busy: (429, "busy"),
    Closed: (503, "closed"),
    TimeoutError: (504, "timeout"),
}
"""Status and code of the exceptions that have words of their own."""


def error(message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """The body of every error."""
    kind = "server_error" if code in SERVER else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def fault(exc: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body for an exception; a defect of ours shows nothing of itself."""
    for kind in type(exc).__mro__:
        if kind in FAULTS:
            status, code = FAULTS[kind]
            return status, error(str(exc), code)
    return 500, error("the server failed; its log says why.", "internal")
