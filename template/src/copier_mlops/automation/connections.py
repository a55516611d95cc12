"""Limits of uvicorn's connections: their number, the size and time of a request's head, the time of a request.

Uvicorn's own `limit_concurrency` counts every connection, so idle clients without a token would keep out those with one.
Here the oldest connection without a token makes room for a new one.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_CONNECTIONS = 128
MAX_HEAD_BYTES = 16 << 10
HEAD_SECONDS = 10.0
REQUEST_SECONDS = 30.0
IDLE_SECONDS = 10.0  # uvicorn closes an idle connection earlier, and then waits for a client that reads nothing
BACKLOG = 128  # connections that are accepted before the number is checked again


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with these limits. The application finds it as `request.state.connection`, and sets `authorized`."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.authorized = False
        self._opened = self.loop.time()
        self._timed: RequestResponseCycle | None = None
        self._reading_head = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self._expect_head()
        if len(self.connections) > MAX_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, LimitedProtocol) and not one.authorized]
            oldest = min(others, key=lambda one: one._opened, default=self)
            self.connections.discard(oldest)  # which uvicorn does as well, but only after the next ones were accepted
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update(received=True)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update(received=False)

    def _update(self, received: bool) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle is not self._timed:
                self._timed, self._reading_head = cycle, False
                self._within(REQUEST_SECONDS)
        elif received and not self._reading_head:
            self._expect_head()
        elif not received:
            self._reading_head = False
            self._within(IDLE_SECONDS)

    def _expect_head(self) -> None:
        self._reading_head = True
        self._within(HEAD_SECONDS)

    def _within(self, seconds: float) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
