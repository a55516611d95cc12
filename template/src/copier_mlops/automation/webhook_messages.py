"""The alert webhook over HTTP.

POST /alerts               do what each alert has as its label `action`, as far as monitoring/policy.yaml allows it
POST /alerts?action=tell   notify a person of each alert, whatever its label
GET  /metrics              what `make monitor` found, what was decided, the free space of this machine
GET  /health/live          200 while actions are carried out, else 503
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from copier_mlops._audit_log import AuditError
from copier_mlops.automation.policy_engine import MalformedError

if TYPE_CHECKING:
    from copier_mlops.automation.alert_webhook import Receiver

BODY_SECONDS = 10.0
PATHS = ("/alerts", "/metrics", "/health/live")
TEXT = "text/plain; version=0.0.4; charset=utf-8"
CLOSE = {"Connection": "close"}  # the rest of a body that is not read


class Refused(HTTPException):
    """A response that closes the connection, since the request's body was not read."""

    def __init__(self, status: int, says: str, **headers: str) -> None:
        super().__init__(status, says, {**CLOSE, **headers})


class Newest:
    """The result of a function that runs in a thread of its own, shared by all who wait for it.

    Metrics need no token. All clients that request them wait for one computation that began after their request, and take
    no thread that decisions need.
    """

    def __init__(self, function: Callable[[], bytes]) -> None:
        self._function = function
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None

    async def get(self) -> bytes:
        """Return a result that is not older than this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._compute())
        return await asyncio.shield(self._next)

    async def _compute(self) -> bytes:
        async with self._lock:
            self._next = None
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._function)


def application(receiver: Receiver) -> Counted:
    """Return the ASGI application of a webhook."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    metrics = Newest(receiver.metrics)
    # Decisions are taken one after the other, each with a synchronized file, so one thread is enough.
    deciding = ThreadPoolExecutor(1, thread_name_prefix="deciding")

    @app.exception_handler(AnyHTTPException)
    async def refused(request: Request, error: AnyHTTPException) -> Response:
        says = {404: "alerts go to POST /alerts"} if request.method == "POST" else {}
        paths = f"there are GET {PATHS[1]}, {PATHS[2]} and POST {PATHS[0]}"
        text = error.detail if isinstance(error, Refused) else says.get(error.status_code, paths)
        return JSONResponse({"error": text}, error.status_code, {**CLOSE, **(error.headers or {})})

    @app.post("/alerts")
    async def alerts(request: Request) -> Response:
        if not receiver.knows(request.headers.get("Authorization", "")):
            raise Refused(401, "send the token as Authorization: Bearer", **{"WWW-Authenticate": "Bearer"})
        request.state.connection.authorized = True
        body = await _body(request, receiver.most_bytes)
        action = "".join(request.query_params.getlist("action"))
        loop = asyncio.get_running_loop()
        try:
            return JSONResponse(await loop.run_in_executor(deciding, receiver.take, body, action))
        except MalformedError as error:
            raise Refused(400, str(error)) from error
        except AuditError as error:  # Alertmanager sends it again
            raise Refused(503, str(error)) from error

    @app.api_route("/metrics", methods=["GET", "HEAD"])
    async def measured() -> Response:
        return Response(await metrics.get(), media_type=TEXT)

    @app.api_route("/health/live", methods=["GET", "HEAD"])
    async def live() -> Response:
        if receiver.alive:
            return JSONResponse({"status": "live"})
        return JSONResponse({"status": "no action is carried out: a thread has ended"}, 503)

    return Counted(app, receiver.counted)


async def _body(request: Request, most: int) -> bytes:
    """Read a body of a known length, within a limited time."""
    length = request.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()):
        raise Refused(411, "the length of the body is missing")
    if len(length) > 20 or int(length) > most:
        raise Refused(413, f"a message may have {most} bytes (RECEIVER_BODY_BYTES)")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except ClientDisconnect as error:
        raise Refused(400, "the body is incomplete") from error
    except TimeoutError as error:
        raise Refused(408, f"the body did not arrive within {BODY_SECONDS:g} seconds") from error


class Counted:
    """Counts requests by their path and status."""

    def __init__(self, app: FastAPI, count: Callable[[str, int], None]) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._count(scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, sent)
