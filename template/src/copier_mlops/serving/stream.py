"""Rows from a broker's messages, answers into another stream of it. Each message is answered at least once.

A message is JSON as `POST /predict` takes it: an object is a row, an array some of them. For each row there is one message in
STREAM_OUT:

    {"id": ..., "score": ..., "version": 3, "prediction_id": "<uuid>"}

as `POST /predict` answers it. The uuid is made of what the broker calls the message and of what stands in it: where a message
comes again, because an acknowledgement was lost or a consumer died, the answer has the same one, and who reads answers
drops the repeat.

What is no JSON, breaks the contract or cannot be answered goes to STREAM_ASIDE, with the reason, and holds up nothing.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from copier_mlops import ProjectError
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.data.prediction_log import PredictionLog
from copier_mlops.serving.brokers import Broker, Message, Taken, broker, without_secrets
from copier_mlops.serving.bundle_loader import answering, records
from copier_mlops.serving.request_parser import Asked, Reader, RefusedError
from copier_mlops.settings import Settings

LONGEST_PAUSE = 30.0  # seconds between two attempts to reach a broker
SHORTEST_PAUSE = 0.5
OPENING = 30.0  # seconds until an attempt is given up
NEWS_SECONDS = 60.0  # between two lines that say how it goes


@dataclass
class Worked:
    """What came of some messages.

    Attributes:
        messages: To send.
        entries: For the prediction log.
        aside: How many messages were set aside.
    """

    messages: list[Message] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    aside: int = 0

    def add(self, other: Worked) -> None:
        self.messages += other.messages
        self.entries += other.entries
        self.aside += other.aside


@dataclass(frozen=True, slots=True)
class Asking:
    """A message that can be read."""

    message: Taken
    asked: Asked
    predictions: list[str]


class Consumer:
    """Answers what a broker has.

    Args:
        bundle: What answers.
        reader: Reads messages as the bundle's contract has them.
        log: Gets each answer that was sent.
        settings: The names of the streams, and how much is answered at a time.
    """

    def __init__(self, bundle: Bundle, reader: Reader, log: PredictionLog, settings: Settings) -> None:
        self._bundle = bundle
        self._reader = reader
        self._log = log
        self._settings = settings
        self._classes = bundle.contract.classes if len(bundle.contract.classes) > 2 else ()
        self._id = bundle.contract[bundle.contract.id]
        named = msgspec.defstruct("Named", [("id", Any, None)], rename={"id": self._id.name})
        self._ids = (msgspec.json.Decoder(named), msgspec.json.Decoder(list[named]))  # type: ignore[valid-type]
        self._answered = self._aside = 0
        self._pause = SHORTEST_PAUSE

    async def run(self, source: Broker, stop: asyncio.Event) -> None:
        """Answer until somebody asks to stop; then what was taken is finished first.

        A broker that does not answer is tried again, with pauses that grow up to LONGEST_PAUSE.
        """
        while not stop.is_set():
            try:
                await _opened(source, stop)
                say(f"waiting for rows in {self._settings.stream_in}; version {self._bundle.version} answers")
                await self._answer_all(source, stop)
            except Exception as error:  # each client has its own for a broker that is gone, restarts or refuses
                text = without_secrets(f"{type(error).__name__}: {error}", self._settings.stream_url.get_secret_value())
                say(f"the broker does not answer ({text}); next attempt in {self._pause:g} s, nothing is lost")
            finally:
                await source.close()
            if not stop.is_set():
                await _sleep(self._pause, stop)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
        say(f"stopped: {self._answered:,} rows answered, {self._aside:,} messages set aside")

    async def _answer_all(self, source: Broker, stop: asyncio.Event) -> None:
        news = time.monotonic() + NEWS_SECONDS
        while not stop.is_set():
            taken = await source.take()
            if taken:
                # In a thread of its own: a broker takes a client that is silent for long for dead.
                worked = await asyncio.to_thread(self.work, taken, source.most_bytes)
                await source.finish(taken, worked.messages)
                self._log.add(worked.entries)
                self._answered += len(worked.entries)
                self._aside += worked.aside
            self._pause = SHORTEST_PAUSE
            if time.monotonic() > news:
                news = time.monotonic() + NEWS_SECONDS
                say(f"{self._answered:,} rows answered, {self._aside:,} messages set aside")

    def work(self, taken: Sequence[Taken], most_bytes: int) -> Worked:
        """Answer messages, all of them at once where that can be done.

        Args:
            taken: Messages as they came.
            most_bytes: Of a message that the broker takes.
        """
        worked, readable = Worked(), []
        for message in taken:
            try:
                readable.append(self._read(message))
            except ProjectError as error:
                worked.add(self._set_aside(message, error, most_bytes))
        for part in _parts(readable, self._settings.max_waiting_rows):
            worked.add(self._answer(part, most_bytes))
        return worked

    def _read(self, message: Taken) -> Asking:
        """Raises ProjectError if it is not what the contract says."""
        if len(message.body) > self._settings.max_body_bytes:
            raise ProjectError(
                f"the message has {len(message.body):,} bytes, and {self._settings.max_body_bytes:,} are allowed (MAX_BODY_BYTES)"
            )
        asked = self._reader.read(message.body)
        name = f"{self._settings.stream_in} {message.name} ".encode()
        seed = hashlib.blake2b(name + message.body, digest_size=16)
        predictions = [_prediction(seed, row) for row in range(len(asked.rows))]
        return Asking(message, self._named(asked, message.body, predictions), predictions)

    def _named(self, asked: Asked, body: bytes, predictions: Sequence[str]) -> Asked:
        """A row that came without an id gets one that is the same when the row comes again."""
        given: Any = self._ids[asked.many].decode(body)
        without = [place for place, one in enumerate(given if asked.many else [given]) if one.id in (None, "")]
        column = self._id
        if not without or column.kind in ("boolean", "timestamp"):
            return asked
        found = msgspec.json.decode(body)
        rows = found if asked.many else [found]
        low = math.ceil(1 if column.minimum is None else column.minimum)
        high = math.floor(low + 2**52 if column.maximum is None else column.maximum)
        for place in without:
            digits = predictions[place]
            rows[place][column.name] = digits if column.kind == "string" else low + int(digits, 16) % (high - low + 1)
        return self._reader.read(msgspec.json.encode(found))

    def _answer(self, part: Sequence[Asking], most_bytes: int) -> Worked:
        try:
            answers = self._bundle.answers(self._reader.frame([one.asked for one in part]))
        except Exception as error:
            if len(part) > 1:  # the others are not held up by the one that cannot be answered
                worked = Worked()
                for one in part:
                    worked.add(self._answer([one], most_bytes))
                return worked
            return self._set_aside(part[0].message, error, most_bytes)
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        predictions = [prediction for one in part for prediction in one.predictions]
        ids = [name for one in part for name in one.asked.ids]
        rows = [row for one in part for row in one.asked.rows]
        worked = Worked()
        for prediction, name, row, answer in zip(predictions, ids, rows, records(answers), strict=True):
            entry = {
                "prediction": prediction,
                "id": self._reader.id(row),
                "version": self._bundle.version,
                "at": at,
                "way": "stream",
                "inputs": row,
                "answer": answer,
            }
            worked.entries.append(msgspec.json.encode(entry))
            if self._classes:
                answer["scores"] = {one: answer.pop(f"score {one}") for one in self._classes}
            said = {"id": name, **answer, "version": self._bundle.version, "prediction_id": prediction}
            worked.messages.append(Message(self._settings.stream_out, prediction, msgspec.json.encode(said)))
        return worked

    def _set_aside(self, message: Taken, error: Exception, most_bytes: int) -> Worked:
        reason = (
            str(error)
            if isinstance(error, ProjectError)
            else f"it could not be answered ({type(error).__name__}: {error})"
        )
        faults = [
            {"row": fault.row, "field": fault.field, "value": fault.value, "allowed": fault.allowed}
            for fault in (error.faults if isinstance(error, RefusedError) else [])
        ]
        body: dict[str, Any] = {"reason": reason[:1000], "faults": faults[:20], **_original(message.body)}
        text = msgspec.json.encode(body)
        if len(text) > most_bytes:  # of a message that is nearly as long as the broker takes, its beginning
            kept = message.body[: max(0, most_bytes - 50_000) // 6]  # a byte is up to six in JSON
            text = msgspec.json.encode({**body, **_original(kept), "bytes": len(message.body)})
        key = hashlib.blake2b(f"aside {message.name} ".encode() + message.body, digest_size=16)
        return Worked([Message(self._settings.stream_aside, _prediction(key, 0), text)], [], 1)


def _original(body: bytes) -> dict[str, str]:
    """The message as it came: text, or base64 of what is none."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _prediction(seed: hashlib.blake2b, row: int) -> str:
    """A uuid (of version 8: made as its maker likes) that is the same for the same message and row."""
    one = seed.copy()
    one.update(row.to_bytes(4, "big"))
    digits = one.hexdigest()
    return f"{digits[:12]}8{digits[13:16]}a{digits[17:]}"


def _parts(readable: Sequence[Asking], most: int) -> Iterator[list[Asking]]:
    """Messages of at most so many rows together; one that has more stands alone."""
    part: list[Asking] = []
    rows = 0
    for one in readable:
        if part and rows + len(one.asked.rows) > most:
            yield part
            part, rows = [], 0
        part.append(one)
        rows += len(one.asked.rows)
    if part:
        yield part


async def _opened(source: Broker, stop: asyncio.Event) -> None:
    """Connect within OPENING seconds, and not at all when somebody asks to stop meanwhile."""
    opening, stopping = asyncio.create_task(source.open()), asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, timeout=OPENING, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
        raise TimeoutError("no connection yet")
    await opening


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    """Wait, but not when somebody asks to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def consume(settings: Settings) -> None:
    """Answer until SIGTERM or Ctrl-C.

    Raises:
        ProjectError: If the bundle cannot be used, or STREAM_URL is no address.
    """
    sent_to = (settings.stream_out, settings.stream_aside)
    source = broker(
        settings.stream_url.get_secret_value(), settings.stream_in, sent_to, settings.stream_redeliver_seconds
    )
    bundle = answering(settings)
    reader = Reader(bundle.contract, settings.max_rows, settings.mask_key.get_secret_value())
    stop = asyncio.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(kind, stop.set)
    log = PredictionLog(settings.prediction_log, settings.log_flush_seconds)
    try:
        await Consumer(bundle, reader, log, settings).run(source, stop)
    finally:
        log.close()


def serve(settings: Settings) -> None:
    """Predict messages until SIGTERM or SIGINT.

    Raises:
        ProjectError: If the bundle or the broker cannot be used.
    """
    settings.alone()
    asyncio.run(consume(settings))
