"""Limits of a connection without a proxy: headers, trailers, pipelined requests, and clients that stall."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from copier_mlops.serving import http_protocol
from copier_mlops.serving.http_protocol import MAX_HEADER_BYTES, MAX_HEADERS, MAX_PIPELINED, Protocol, close_idle

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Return the names of the headers and the size of the body; /early does not wait for the body, /slow waits, /large is large."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.1)
    said = {"headers": [name.decode() for name, _ in scope["headers"]], "size": size, "state": scope["state"]}
    body = b" " * (32 << 20) if scope["path"] == "/large" else json.dumps(said).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def serving(
    test: Callable[[Callable[[], Awaitable[Streams]], ServerState], Awaitable[None]],
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    """Run a test against a server; it gets a function that connects, and the server's state."""

    async def run() -> None:
        config, state = uvicorn.Config(echo, http=Protocol, ws="none", log_config=None), ServerState()
        config.load()
        made = lambda: Protocol(config=config, server_state=state, app_state={})  # noqa: E731
        server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(60):
                await test(lambda: asyncio.open_connection("127.0.0.1", port), state)
        finally:
            server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def response(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
    return int(head.split()[1]), json.loads(body)


async def sent_before_it_closes(streams: Streams, piece: bytes, most: int) -> tuple[int, bytes]:
    """Send a piece repeatedly until the server closes; return the number of sent bytes and the response."""
    reader, writer = streams
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most and not reader.at_eof():
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await reader.read(65_536)
    writer.close()
    return sent, said


def test_requests_that_keep_the_limits_are_answered_on_one_connection() -> None:
    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        large = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000
        headers = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 200) for number in range(MAX_HEADERS - 2))
        full = b"GET / HTTP/1.1\r\n" + headers + b"\r\n"
        for given, size in ((large, 500_000), (CHUNKED + b"0\r\n\r\n", 5), (full, 0)):
            writer.write(given)
            status, said = await response(reader)
            assert (status, said["size"]) == (200, size)
        for byte in CHUNKED + b"0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await response(reader))[1]["size"] == 5
        writer.write((CHUNKED + b"0\r\n\r\n") * MAX_PIPELINED)
        for _ in range(MAX_PIPELINED):
            assert (await response(reader))[0] == 200
        writer.close()

    serving(test)


def test_a_trailer_of_a_chunked_body_is_not_a_header() -> None:
    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(CHUNKED + b"0\r\nX-API-Key: secret\r\n\r\n")
        status, said = await response(reader)
        assert (status, said["headers"], said["size"]) == (200, ["host", "transfer-encoding"], 5)
        writer.close()

    serving(test)


@pytest.mark.parametrize(
    ("begins", "piece"),
    [
        (b"GET / HTTP/1.1\r\n", b"".join(b"X-%d: value\r\n" % number for number in range(100))),
        (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n" * 1000),
        (b"GET / HTTP/1.1\r\nX-A: ", b"v" * 10_000),
        (b"GET / HTTP/1.1\r\n", b"N" * 10_000),
        (b"GET /", b"p" * 10_000),
        (CHUNKED + b"0\r\n", b"X-A: value\r\n" * 1000),
        (CHUNKED + b"0\r\nX-A: ", b"v" * 10_000),
        (CHUNKED + b"5;ext=", b"v" * 10_000),
    ],
    ids=["lines", "same line", "value", "name", "path", "trailers", "trailer", "chunk extension"],
)
def test_headers_without_an_end_are_rejected(begins: bytes, piece: bytes) -> None:
    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        streams = await connect()
        streams[1].write(begins)
        sent, said = await sent_before_it_closes(streams, piece, 100 << 20)
        assert sent < 20 << 20  # what the kernel holds between the two, and no more
        assert said == b"" or said.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), said
        assert not state.connections or all(one.transport.is_closing() for one in state.connections)

    serving(test)


def test_headers_that_are_too_large_have_a_clear_response() -> None:
    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        many = b"".join(b"X-%d: v\r\n" % number for number in range(MAX_HEADERS + 1))
        for headers in (many, b"X-A: " + b"v" * MAX_HEADER_BYTES + b"\r\n"):
            reader, writer = await connect()
            writer.write(b"GET / HTTP/1.1\r\n" + headers + b"\r\n")
            status, said = await response(reader)
            assert status == 431 and f"more than {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} lines" in said["detail"]
            assert await reader.read() == b""
            writer.close()

    serving(test)


def test_the_time_of_a_pipelined_request_begins_after_the_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(http_protocol, "time", SimpleNamespace(monotonic=time.monotonic, perf_counter=clock.__next__))

    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 3)
        states = [(await response(reader))[1]["state"] for _ in range(3)]
        assert states == [{"arrived": 0}, {"arrived": 3, "pipelined": 2}, {"arrived": 4, "pipelined": 2}]
        writer.close()

    serving(test)


def test_more_pipelined_requests_than_the_limit_end_the_connection() -> None:
    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * (MAX_PIPELINED + 5))
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).count(b"HTTP/1.1 200") <= MAX_PIPELINED
        writer.close()

    serving(test)


@pytest.mark.parametrize(
    "more",
    [b"GET /slow HTTP/1.1\r\n\r\n" * (MAX_PIPELINED + 5), b"no request\r\n\r\n", b"GET /slow HTTP/1.1\r\n\r\n"],
    ids=["too many", "malformed", "client leaves"],
)
def test_a_connection_that_ends_early_is_no_error_of_the_service(more: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The service runs on uvloop, whose closed transports raise an error."""

    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        _, writer = await connect()
        writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        writer.write(more)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        while state.tasks:
            await asyncio.sleep(0.01)

    serving(test, uvloop.new_event_loop)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_connections_whose_client_stalls_are_closed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(
        http_protocol, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter)
    )

    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        opened = {name: await connect() for name in ("silent", "half", "early", "large", "stray", "body", "kept")}
        opened["half"][1].write(b"GET / HTTP/1.1\r\nX-A")
        opened["early"][1].write(b"POST /early HTTP/1.1\r\nContent-Length: 9\r\n\r\n")  # its body never comes
        opened["large"][1].write(b"GET /large HTTP/1.1\r\n\r\n")  # its response is not read
        opened["body"][1].write(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")  # the application waits for it
        opened["kept"][1].write(b"GET / HTTP/1.1\r\n\r\n")
        opened["stray"][1].write(b"GET / HTTP/1.1\r\n\r\n")
        for name in ("early", "kept", "stray"):
            assert (await response(opened[name][0]))[0] == 200
        while sum(one.stalled_since is not None for one in state.connections) < 1 or len(state.connections) < 7:
            await asyncio.sleep(0.01)
        clock[0] += 5
        opened["stray"][1].write(b"\r\n")
        opened["half"][1].write(b": b")
        await asyncio.sleep(0.05)
        close_idle(state.connections, 10)
        await asyncio.sleep(0.05)
        assert len(state.connections) == 7
        clock[0] += 6
        close_idle(state.connections, 10)
        while len(state.connections) > 3:
            await asyncio.sleep(0.01)
        clock[0] += 5
        close_idle(state.connections, 10)
        while len(state.connections) > 2:
            await asyncio.sleep(0.01)
        opened["body"][1].write(b"123456789")
        assert (await response(opened["body"][0]))[1]["size"] == 9
        opened["kept"][1].write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await response(opened["kept"][0]))[0] == 200
        for _, writer in opened.values():
            writer.close()

    serving(test)


def test_a_pipelined_request_that_waits_for_its_body_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(
        http_protocol, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter)
    )

    async def test(connect: Callable[[], Awaitable[Streams]], state: ServerState) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        assert (await response(reader))[1]["size"] == 0
        clock[0] += 60
        close_idle(state.connections, 10)
        writer.write(b"123456789")
        assert (await response(reader))[1]["size"] == 9
        writer.close()

    serving(test)
