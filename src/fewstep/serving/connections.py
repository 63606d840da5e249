"""Connections that keep to a time, so that slow clients shut nobody out.

A request must begin and its head must be there within `Patience.head` seconds, its body at
`Patience.rate`, and an answer must be read as fast. There are at most `Patience.most` connections;
where one more comes, the oldest of those goes that have not sent a whole request.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fewstep.serving.faults import error

HEAD = 65_536  # bytes of a request's first line and headers


@dataclass
class Patience:
    """How long connections are waited for, and those that are.

    Args:
        most: connections.
        head: seconds for a request's first line and headers, and as many again for its body.
        rate: bytes per second that a body must come with, or an answer be read, beyond that.
    """

    most: int = 1024
    head: float = 10.0
    rate: float = 32_768.0
    open: set[Connection] = field(default_factory=set)
    waiting: dict[Connection, None] = field(default_factory=dict)
    """Those that have not sent a whole request, the oldest first."""

    def __post_init__(self) -> None:
        self.most = max(1, self.most)

    def make_room(self) -> bool:
        """Close connections until one more may be; whether that was possible."""
        while len(self.open) >= self.most and self.waiting:
            oldest = next(iter(self.waiting))
            self.leave(oldest)
            oldest.transport.abort()
        return len(self.open) < self.most

    def leave(self, connection: Connection) -> None:
        """A connection counts no longer."""
        self.open.discard(connection)
        self.waiting.pop(connection, None)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with an end to its patience.

    Args:
        patience: shared by all connections of a server.
        arguments: uvicorn's.
    """

    def __init__(self, patience: Patience, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._came = 0.0
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def serving(self) -> bool:
        """Whether a whole request is there whose answer is not."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    @property
    def in_body(self) -> bool:
        """Whether a request's head is there and its body is not."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.patience.make_room():
            self._end(503, "too many connections; try again later.", "busy")
            return
        self.patience.open.add(self)
        self._await()

    def connection_lost(self, exc: Exception | None) -> None:
        self.patience.leave(self)
        self._disarm()
        self._unstall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and not self.serving:
            self._await()
        self._came += len(data)
        super().data_received(data)
        if not self.in_body and not self.serving and self._came > HEAD:
            self._end(431, f"the head of a request is larger than {HEAD:,} bytes.", "head_size")

    def on_headers_complete(self) -> None:
        busy = self.serving
        super().on_headers_complete()
        if not busy:
            self._await()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._disarm()
        self.patience.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.in_body:
            self._await()  # of a request that came before this answer was done
        elif not self.serving and self in self.patience.open:
            self._came = 0.0
            self.patience.waiting[self] = None

    def _await(self) -> None:
        """Wait for the rest of a request."""
        self._disarm()
        self._since, self._came = self.loop.time(), 0.0
        self.patience.waiting.setdefault(self)
        self._timer = self.loop.call_later(self.patience.head, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        rest = self.patience.head - (self.loop.time() - self._since)
        if self.in_body:
            rest += self._came / self.patience.rate
        if self.serving or self.pipeline or rest > 0:
            self._timer = self.loop.call_later(max(rest, 0.1), self._late)
        elif self._came or self.in_body:
            self._end(408, "the request did not come whole in time.", "timeout")
        else:
            self.transport.close()  # nothing was asked

    def _end(self, status: int, message: str, code: str) -> None:
        """Answer what is no whole request, and close."""
        self.patience.leave(self)
        self._disarm()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        body = json.dumps(error(message, code)).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._end(400, msg, "invalid")

    def shutdown(self) -> None:
        if self.serving or self.pipeline:
            super().shutdown()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unstall()

    def _stall(self, left: int) -> None:
        """Give up on a client that reads its answer too slowly."""
        enough = left - self.patience.head * self.patience.rate

        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now > max(0, enough):
                self.transport.abort()
            else:
                self._stall(now)

        self._stalled = self.loop.call_later(self.patience.head, look)

    def _unstall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
