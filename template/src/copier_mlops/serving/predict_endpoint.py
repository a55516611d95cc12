"""POST /predict, as plain ASGI: what a web framework does for each request costs more than the answer."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Protocol

import msgspec

from copier_mlops import ProjectError, UnreachableError
from copier_mlops.bundle.bundle import UNSEEN, Bundle
from copier_mlops.data.prediction_log import PredictionLog
from copier_mlops.serving.auth import Access, ForbiddenError
from copier_mlops.serving.bundle_loader import records
from copier_mlops.serving.http_protocol import ARRIVED, PIPELINED
from copier_mlops.serving.metrics import Metrics
from copier_mlops.serving.request_batcher import Batcher, BusyError
from copier_mlops.serving.request_parser import Asked, NotJsonError, Reader, RefusedError, TooManyRowsError
from copier_mlops.serving.workers import Workers
from copier_mlops.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Reply = tuple[int, bytes, list[tuple[bytes, bytes]]]

JSON = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
ASKED_AT = b"x-asked-at"
SMOKE_TEST = (b"x-smoke-test", b"true")  # requests of a deployment, which are not production traffic
CHECKING = 32  # bodies that wait for the careful way or are in it; each takes milliseconds
PASSED_OVER = 8 << 20  # discarded bytes of a body that is too large, so that its client can read the response
GONE = 499  # in the metrics: the client did not wait for the response
QUEUE_SHARE = 0.5  # the longest wait in the queue, as a share of the time for a request

log = logging.getLogger(__name__)


class Ahead(Protocol):
    """What knows answers before the model is asked: `hybrid.Precomputed`, where that option was chosen."""

    def lookup(self, rows: Sequence[Any]) -> list[dict[str, Any] | None]:
        """The answer to each row, None where it is not known."""


class Beside(Protocol):
    """What is told of answers that were given: `shadow.Shadow`, where a project is watched."""

    def offer(self, asked: Sequence[Asked], predictions: Sequence[str], at: str) -> None:
        """Take rows and the names of their answers; it neither waits nor raises."""


class Answers:
    """Answers what was asked together and notes it in the prediction log.

    Args:
        bundle: What answers.
        reader: Reads bodies as its contract has them.
        kept: The prediction log.
        ahead: What knows answers before.
        beside: What is told of answers.
        unseen: Gets the fields of a row whose values were not seen in training.
    """

    def __init__(
        self,
        bundle: Bundle,
        reader: Reader,
        kept: PredictionLog,
        ahead: Ahead | None = None,
        beside: Beside | None = None,
        unseen: Callable[[Sequence[str]], None] = lambda fields: None,
    ) -> None:
        self._unseen = unseen
        self._bundle, self._reader, self._kept, self._ahead, self._beside = bundle, reader, kept, ahead, beside
        self._classes = bundle.contract.classes if len(bundle.contract.classes) > 2 else ()
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, asked: Sequence[Asked]) -> list[bytes]:
        """The answers as JSON: an object for each that asked with an object, else an array."""
        return self._written(asked, records(self._bundle.answers(self._reader.frame(asked))), "online")

    def known(self, asked: Asked) -> bytes | None:
        """The answer as JSON where all rows were answered ahead; else the model has to be asked."""
        found = self._ahead.lookup(asked.rows) if self._ahead else [None]
        answers = [answer for answer in found if answer is not None]
        return self._written([asked], answers, "hybrid")[0] if len(answers) == len(found) else None

    def _written(self, asked: Sequence[Asked], answers: Iterable[dict[str, Any]], way: str) -> list[bytes]:
        version, at = self._bundle.version, dt.datetime.now(dt.UTC).isoformat()
        written, entries, names, found = [], [], [], iter(answers)
        for one in asked:
            texts = []
            for row, given in zip(one.rows, one.ids, strict=True):
                prediction = uuid.uuid4().hex
                names.append(prediction)
                answer = next(found)
                entries.append(
                    self._encode(
                        {
                            "prediction": prediction,
                            "id": self._reader.id(row),
                            "version": version,
                            "at": one.at or at,
                            "way": one.way or way,
                            "inputs": row,
                            "answer": answer,
                        }
                    )
                )
                if UNSEEN in answer:
                    self._unseen(answer[UNSEEN])
                if self._classes:
                    answer["scores"] = {name: answer.pop(f"score {name}") for name in self._classes}
                texts.append(self._encode({"id": given, **answer, "version": version, "prediction_id": prediction}))
            written.append(b"[" + b",".join(texts) + b"]" if one.many else texts[0])
        self._kept.add(entries)
        if self._beside is not None:
            self._beside.offer(asked, names, at)
        return written


class Stopwatch:
    """Measures the time that the service takes for a request: from its complete body, without waiting for the client.

    Attributes:
        arrived: when its headers were complete and no other request was ahead, by time.perf_counter.
        waited: seconds in which bytes of its body were awaited.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.arrived: float = scope.get("state", {}).get(ARRIVED) or time.perf_counter()
        self.waited = 0.0
        self._receive = receive

    async def receive(self) -> MutableMapping[str, Any]:
        """Receive a message of the client."""
        began = time.perf_counter()
        try:
            return await self._receive()
        finally:
            self.waited += time.perf_counter() - began

    def seconds(self) -> float:
        """Return the time that was taken so far."""
        return max(0.0, time.perf_counter() - self.arrived - self.waited)


class Predict:
    """The endpoint.

    Args:
        closing: function that returns whether the service is about to stop: then a connection ends with its response.
        known: function that returns a response that needs no model, if there is one.
        smoke: function that returns whether all rows of a request are example rows of the bundle.
    """

    def __init__(
        self,
        reader: Reader,
        batcher: Batcher,
        access: Access,
        metrics: Metrics,
        settings: Settings,
        closing: Callable[[], bool],
        known: Callable[[Asked], bytes | None] | None = None,
        smoke: Callable[[Asked], bool] = lambda asked: False,
    ) -> None:
        self._reader, self._batcher, self._access, self._metrics = reader, batcher, access, metrics
        self._most_bytes, self._seconds = settings.max_body_bytes, settings.answer_seconds
        self._closing, self._known, self._is_smoke = closing, known or (lambda asked: None), smoke
        self._dated = settings.accept_asked_at
        self._row_bytes = 0.0  # the mean of recent bodies
        busy = f"{CHECKING} bodies that may not be valid are being checked; repeat the request in a moment"
        self._workers = Workers("bodies", 1, CHECKING, busy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.in_flight += 1
        watch, status, seconds = Stopwatch(scope, receive), GONE, None
        try:
            status, body, headers = await self._reply(scope, watch)
            seconds = watch.seconds()  # without the time in which the client takes the response
            headers.append((b"content-length", b"%d" % len(body)))
            if self._closing():
                headers.append(CLOSE)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except ConnectionError:
            status = GONE
        finally:
            self._metrics.in_flight -= 1
            self._metrics.answered("/predict", status, watch.seconds() if seconds is None else seconds)

    async def _reply(self, scope: Scope, watch: Stopwatch) -> Reply:
        deadline = watch.arrived + self._seconds
        try:
            if scope["method"] != "POST":
                return problem(405, "rows are sent by POST", (b"allow", b"POST"))
            await self._access.check(scope["headers"])
            if scope.get("state", {}).get(PIPELINED, 0) > self._seconds:
                raise BusyError("earlier requests of this connection took too long; repeat the request in a moment")
            await self._batcher.admit(self._seconds)  # before the body costs anything
            async with asyncio.timeout(deadline - time.perf_counter()):
                body = await read_body(scope["headers"], watch.receive, self._most_bytes)
                if time.perf_counter() >= deadline:  # no await has been interrupted yet, if all of it was there
                    raise TimeoutError
                self._batcher.check(int(len(body) / self._row_bytes) if self._row_bytes else 1)
                asked = self._reader.quick(body)
                if asked is None:
                    asked = await self._workers.run(self._reader.careful, body)
                if not asked.rows:
                    return 200, b"[]", [JSON]
                row_bytes = len(body) / len(asked.rows)
                self._row_bytes += 0.1 * (row_bytes - self._row_bytes) if self._row_bytes else row_bytes
                if self._dated:
                    asked = msgspec.structs.replace(asked, at=asked_at(scope["headers"]))
                if SMOKE_TEST in scope["headers"] and self._is_smoke(asked):
                    asked = msgspec.structs.replace(asked, way="smoke")
                answer = self._known(asked) or await self._batcher.ask(asked, deadline)
            return 200, answer, [JSON]
        except TimeoutError:
            if watch.waited > self._seconds / 2:
                return problem(408, f"the body did not arrive within {self._seconds:g} seconds", CLOSE)
            return problem(
                504, f"there was no response within {self._seconds:g} seconds; repeat the request, or send fewer rows"
            )
        except RefusedError as error:
            self._metrics.refused([fault.field for fault in error.faults])
            return refusal(error)
        except ProjectError as error:
            return from_error(error)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("a row was not answered")
            return problem(
                500, f"the model could not answer this ({type(error).__name__}); the service's log says where"
            )

    def close(self) -> None:
        """Wait for bodies that are checked."""
        self._workers.close()


class TooLargeError(ProjectError):
    """A body is larger than one may be."""


class UndatedError(ProjectError):
    """Nobody knows when a request was asked."""


class UnreadableError(ProjectError):
    """A body is written in a way that nobody reads here."""


def asked_at(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """When a request says that it was asked, for what is replayed; empty where it says nothing.

    Raises:
        UndatedError: If it says something else.
    """
    for name, value in headers:
        if name == ASKED_AT:
            try:
                moment = dt.datetime.fromisoformat(value.decode("ascii"))
                if moment.tzinfo is None:
                    raise UndatedError("x-asked-at has no time zone; 2024-01-31T09:30:00+00:00 has one")
                return moment.astimezone(dt.UTC).isoformat()
            except (ValueError, OverflowError) as error:
                raise UndatedError("x-asked-at is not a time such as 2024-01-31T09:30:00+00:00") from error
    return ""


async def read_body(headers: Iterable[tuple[bytes, bytes]], receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: If it has more bytes than `most`.
        UnreadableError: If it is compressed.
        ConnectionError: If the connection ended before it did.
    """
    for name, value in headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise UnreadableError("the body is compressed; send it as it is")
    message = await receive()
    body: bytes = message.get("body", b"")
    size, parts = len(body), [body]
    while message.get("more_body", False) and size <= most + PASSED_OVER:
        message = await receive()
        size += len(message.get("body", b""))
        if size <= most:
            parts.append(message.get("body", b""))
        else:
            parts = []
    if message["type"] == "http.disconnect":
        raise ConnectionError("the connection ended before the body did")
    if size > most:
        raise TooLargeError(f"the body has more than {most} bytes; send fewer rows at once")
    return body if len(parts) == 1 else b"".join(parts)


# ---------------------------------------------------------------------------------------------- What went wrong


def problem(status: int, detail: str, *headers: tuple[bytes, bytes]) -> Reply:
    """An answer that says what is wrong."""
    return status, msgspec.json.encode({"detail": detail}), [JSON, *headers]


def from_error(error: ProjectError) -> Reply:
    """The answer that an error of this project comes to."""
    said = str(error)
    if isinstance(error, RefusedError):
        return refusal(error)
    if isinstance(error, NotJsonError | UndatedError):
        return problem(400, said)
    if isinstance(error, ForbiddenError):
        return problem(401, said, (b"www-authenticate", b"Bearer"))
    if isinstance(error, TooManyRowsError):
        return problem(413, said)
    if isinstance(error, TooLargeError):
        return problem(413, said, CLOSE)
    if isinstance(error, UnreadableError):
        return problem(415, said)
    if isinstance(error, BusyError):
        return problem(429, said, (b"retry-after", b"1"))
    return problem(503, said, *([(b"retry-after", b"10")] if isinstance(error, UnreachableError) else []))


def refusal(error: RefusedError) -> Reply:
    """Which values of which rows are not what the contract says."""
    body = {"detail": str(error), "count": error.count, "faults": error.faults}
    return 422, msgspec.json.encode(body), [JSON]
