"""HTTP connections with limits of their own, for services without a proxy: headers, pipelined requests, clients that stall."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 32_768  # of the request line and the headers together; of trailers as well
MAX_HEADERS = 100
MAX_PIPELINED = 16  # requests that a client sends without waiting for the responses
ARRIVED, PIPELINED = "arrived", "pipelined"
"""In the state of a request: when its headers were complete and no other was ahead, by time.perf_counter; and the seconds for which
earlier requests of its connection were ahead."""

TOO_LARGE = b'{"detail":"the headers have more than %d bytes or %d lines"}' % (MAX_HEADER_BYTES, MAX_HEADERS)


class LimitError(Exception):
    """Ends the parsing of a request: the parser reports it as an error of its own."""


class Protocol(HttpToolsProtocol):
    """One connection.

    Trailers of a chunked body are discarded: the application would take them for headers, and a proxy in front has not seen them.

    Attributes:
        idle_since: since when the client owes bytes that no request waits for; None while a request is answered.
        stalled_since: since when the client does not take what was sent to it.
    """

    def __init__(self, *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        self.idle_since: float | None = time.monotonic()
        self.stalled_since: float | None = None
        self._in_head, self._in_message = True, False
        self._heads = self._body_parts = 0  # that were complete so far
        self._parsed = self._lines = 0  # bytes and lines of this head, or of the trailers
        self._unparsed = 0  # bytes that came since the parser had something complete
        self._limited = False
        self._active: Any = None  # the cycle that sends a response; `cycle` is that of the latest request

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnect()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self._disconnect()
        self.transport.abort()

    def _disconnect(self) -> None:
        """Let the cycle that sends a response write nothing more: a closed transport of uvloop raises an error."""
        if self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self.idle_since is None and (self.cycle is None or self.cycle.response_complete):
            self.idle_since = time.monotonic()
        before = (self._heads, self._body_parts)
        super().data_received(data)
        if self.transport.is_closing() or before != (self._heads, self._body_parts):
            self._unparsed = 0
            return
        # A line that does not end, or a chunk whose extension does not: the parser keeps the line.
        self._unparsed += len(data)
        if self._unparsed > MAX_HEADER_BYTES:
            self._limited = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        self._parsed = self._lines = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines += 1
        self._count(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self.idle_since = False, None
        self._heads += 1
        self._parsed = self._lines = 0
        self.scope["state"][ARRIVED] = time.perf_counter()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._limited = True
            raise LimitError
        super().on_headers_complete()
        if not self.pipeline:
            self._active = self.cycle

    def on_body(self, body: bytes) -> None:
        self._body_parts += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:  # the next request starts; the service did not work on it before
            state, now = self.pipeline[-1][0].scope["state"], time.perf_counter()
            state[PIPELINED], state[ARRIVED] = now - state[ARRIVED], now
            self._active = self.pipeline[-1][0]
        super().on_response_complete()
        if self._in_message and self.cycle.response_complete:  # what is left of the body is discarded, for a while
            self.idle_since = time.monotonic()

    def pause_writing(self) -> None:
        self.stalled_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Reject input that the parser does not accept: with 431 at a limit, or by closing if another response is due first."""
        if not self._limited:
            self._disconnect()
            super().send_400_response(msg)
        elif self._in_head and not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(TOO_LARGE), TOO_LARGE)
            )
            self.transport.close()
        else:
            self.abort()

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > MAX_HEADER_BYTES or self._lines > MAX_HEADERS:
            self._limited = True
            raise LimitError


def close_idle(connections: Iterable[Any], seconds: float) -> None:
    """Close the connections whose client has not sent complete headers, or not taken a response, for so long."""
    latest = time.monotonic() - seconds
    for one in list(connections):
        if isinstance(one, Protocol):
            since = min(one.idle_since or latest, one.stalled_since or latest)
            if since < latest:
                one.abort()
