"""Brokers of messages, each as three verbs: take what waits, finish it, close. What is not finished comes again.

FastStream opens the connection, from one address for each of them. Its subscribers are not used: they hand over one
message at a time (RabbitMQ), wait for a batch to be full (NATS), take over one message of a dead consumer at a time (Redis),
commit what was read rather than what was answered (Kafka), stop for good where a broker has forgotten a group, and its publishers wait
for each confirmation in turn. So messages
are taken, answers confirmed and messages acknowledged with the client below it, many at once, and in this order.

What every one of them keeps:
- A message is acknowledged after the broker has confirmed all that `finish` was given for it.
- What a consumer had taken when it died is given to another after `redeliver_seconds`, or when its connection ends.
- Nothing is taken before the last lot is finished, and no more than MOST at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from copier_mlops import ProjectError, project

MOST = 500  # messages that are taken at a time
WAIT = 1.0  # seconds until `take` comes back without any
FILL = 0.01  # seconds in which more join the first one, where a broker cannot say what waits
PATIENCE = 10.0  # seconds for a connection or a confirmation
ENVELOPE = 1024  # bytes beside the body of a message


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was taken.

    Attributes:
        body: As it was sent.
        name: What the broker calls it; the same when it comes again. Empty where it has no name.
        handle: What the broker's client acknowledges it by.
    """

    body: bytes
    name: str
    handle: Any


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send.

    Attributes:
        to: The stream, subject or queue.
        key: The same when the same is sent again: the broker drops a repeat where it can, else who reads it.
        body: JSON.
    """

    to: str
    key: str
    body: bytes


class Broker(Protocol):
    """What a consumer knows of a broker. Any exception of it means: close it, open it again, and what was taken comes again."""

    most_bytes: int  # of a body that is sent

    async def open(self) -> None:
        """Connect, and make the streams that are not there."""

    async def take(self) -> list[Taken]:
        """What waits, MOST at most; after WAIT seconds nothing."""

    async def finish(self, taken: Sequence[Taken], messages: Sequence[Message]) -> None:
        """Send, wait until all of it is confirmed, then acknowledge what was taken."""

    async def close(self) -> None:
        """Disconnect; nothing is raised by a connection that is gone already."""


def broker(url: str, taken_from: str, sent_to: Sequence[str], redeliver_seconds: float) -> Broker:
    """The broker at an address; not opened.

    Args:
        url: redis://, rediss://, nats://, tls://, amqp:// or amqps://, as the broker's own clients write it; for Kafka, whose clients
            write none, kafka:// or kafkas:// with one host or several.
        taken_from: The stream that is consumed.
        sent_to: Those that are written.
        redeliver_seconds: After how long a message that somebody took and did not finish is given to another.

    Raises:
        ProjectError: If there is no address, or one of another broker.
    """
    for client in ("aio_pika", "aiokafka", "aiormq", "nats"):  # with a trace, what they raise as well
        logging.getLogger(client).setLevel(logging.CRITICAL)
    scheme = urlsplit(url).scheme
    kinds: dict[str, Callable[[str, str, tuple[str, ...], float], Broker]]
    kinds = {"redis": Redis, "rediss": Redis, "nats": Nats, "tls": Nats, "amqp": Rabbit, "amqps": Rabbit,
             "kafka": Kafka, "kafkas": Kafka}  # fmt: skip
    if scheme not in kinds:
        raise ProjectError(
            (f"STREAM_URL names {scheme}://, which is none of" if url else "STREAM_URL is not set; it is one of")
            + " redis://host:6379, nats://host:4222, amqp://host:5672, kafka://host:9092 (rediss, tls, amqps and kafkas where it is "
            "encrypted)."
        )
    return kinds[scheme](url, taken_from, tuple(sent_to), redeliver_seconds)


def without_secrets(text: str, url: str) -> str:
    """A text in which neither the address's password nor its user stand."""
    place = urlsplit(url)
    for secret in filter(None, (url, place.password, place.username)):
        text = text.replace(secret, "***")
    return text


async def _all(confirmations: Sequence[Awaitable[object]]) -> None:
    """Wait for all of them, also where one fails: none is left behind that nobody waits for."""
    for found in await asyncio.gather(*confirmations, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found


class Redis:
    """Redis streams, with a consumer group. The entry's field is called as FastStream calls it, so that its services read it.

    Answers and acknowledgements are one transaction: both happen or neither.
    """

    most_bytes = 256 << 20
    BODY, ALSO = b"__data__", b"data"  # the second one for people who write by hand

    def __init__(self, url: str, taken_from: str, sent_to: tuple[str, ...], redeliver_seconds: float) -> None:
        from faststream.redis import RedisBroker
        from faststream.redis.parser import BinaryMessageFormatV1

        self._format = BinaryMessageFormatV1  # what FastStream's own publishers wrap a body in
        self._broker = RedisBroker(url, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE + WAIT)
        self._stream = taken_from
        self._idle = int(redeliver_seconds * 1000)
        self._me = f"{socket.gethostname()}-{os.getpid()}"
        self._own = True
        self._claim_at = 0.0

    async def open(self) -> None:
        from redis.exceptions import ResponseError

        self._client = await self._broker.connect()
        self._own, self._claim_at = True, 0.0  # what this process took before it lost the connection comes first
        try:
            await self._client.xgroup_create(self._stream, project.name(), id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def take(self) -> list[Taken]:
        entries: list[Any] = []
        if self._own:
            entries = await self._read("0", None)
            self._own = bool(entries)
        if not entries and time.monotonic() >= self._claim_at:
            found = await self._client.xautoclaim(self._stream, project.name(), self._me, self._idle, "0-0", count=MOST)
            entries = found[1]
            if not entries:
                self._claim_at = time.monotonic() + min(self._idle / 3000, 5)
        return [
            Taken(self._body(fields), name.decode(), name)
            for name, fields in entries or await self._read(">", int(WAIT * 1000))
        ]

    async def _read(self, after: str, block: int | None) -> list[Any]:
        found: Any = await self._client.xreadgroup(
            project.name(), self._me, {self._stream: after}, count=MOST, block=block
        )
        return list(found[0][1]) if found else []

    def _body(self, fields: dict[bytes, bytes] | None) -> bytes:
        fields = fields or {}  # of an entry that was deleted while somebody had it
        body = fields.get(self.BODY) or fields.get(self.ALSO) or b""
        return self._format.parse(body)[0] if body.startswith(self._format.IDENTITY_HEADER) else body

    async def finish(self, taken: Sequence[Taken], messages: Sequence[Message]) -> None:
        async with self._client.pipeline(transaction=True) as both:
            for message in messages:
                both.execute_command("XADD", message.to, "*", self.BODY, message.body)  # half the time of `xadd`
            both.xack(self._stream, project.name(), *[one.handle for one in taken])
            await both.execute()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            if not (await self._client.xpending_range(self._stream, project.name(), "-", "+", 1, self._me)):
                await self._client.xgroup_delconsumer(
                    self._stream, project.name(), self._me
                )  # or names of the dead pile up
        with contextlib.suppress(Exception):
            await self._broker.stop()


class Nats:
    """NATS JetStream: a durable consumer that pulls. Within the stream's window the server drops an answer that it has."""

    most_bytes = 1 << 20

    def __init__(self, url: str, taken_from: str, sent_to: tuple[str, ...], redeliver_seconds: float) -> None:
        from faststream.nats import NatsBroker

        async def silent(_: Exception) -> None:  # what is wrong is raised where it is noticed
            return None

        self._make: Callable[[], NatsBroker] = lambda: NatsBroker(
            url,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # with the default it tries for minutes before it says so, even the first time
            reconnect_time_wait=0,
            connect_timeout=int(PATIENCE),
            error_cb=silent,
            logger=None,
        )
        self._subject = taken_from
        self._sent_to = sent_to
        self._seconds = redeliver_seconds

    async def open(self) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig
        from nats.js.errors import NotFoundError

        self._client = await self._make().connect()
        self._stream = self._client.jetstream(timeout=PATIENCE)
        names = []
        for subject in (self._subject, *self._sent_to):
            try:
                names.append(await self._stream.find_stream_name_by_subject(subject))
            except NotFoundError:
                names.append(re.sub(r"[^A-Za-z0-9_-]", "_", subject))
                await self._stream.add_stream(name=names[-1], subjects=[subject])
        config = ConsumerConfig(
            durable_name=project.name(),
            filter_subject=self._subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._seconds,
            max_ack_pending=100 * MOST,  # of all consumers together
        )
        await self._stream.add_consumer(names[0], config)  # one that is there is changed
        self._pull = await self._stream.pull_subscribe_bind(project.name(), names[0])
        self.most_bytes = self._client.max_payload - ENVELOPE

    async def take(self) -> list[Taken]:
        found: list[Any] = []
        if not self._client.is_connected:
            raise ConnectionError("the connection was lost")
        with contextlib.suppress(asyncio.TimeoutError):  # nats-py's own is one of them
            found += await self._pull.fetch(1, timeout=WAIT)
            waiting = min(found[0].metadata.num_pending, MOST - 1)
            if waiting:  # comes back at once, unless another consumer was quicker
                found += await self._pull.fetch(waiting, timeout=WAIT)
        return [
            Taken(one.data, f"{one.metadata.sequence.stream} {one.metadata.timestamp.isoformat()}", one)
            for one in found
        ]

    async def finish(self, taken: Sequence[Taken], messages: Sequence[Message]) -> None:
        sent = [
            self._stream.publish(message.to, message.body, headers={"Nats-Msg-Id": message.key}) for message in messages
        ]
        await _all(sent)
        for one in taken:
            await one.handle.ack()
        await self._client.flush(int(PATIENCE))

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._client.close()


class Rabbit:
    """RabbitMQ: durable queues, persistent messages, a publisher's confirms. A connection that ends gives back what it had."""

    most_bytes = 100 << 20

    def __init__(self, url: str, taken_from: str, sent_to: tuple[str, ...], redeliver_seconds: float) -> None:
        from faststream.rabbit import RabbitBroker

        self._make: Callable[[], RabbitBroker] = lambda: RabbitBroker(url, timeout=PATIENCE, logger=None)
        self._queue = taken_from
        self._sent_to = sent_to

    async def open(self) -> None:
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()  # the prefetch bounds it
        self._connection: Any = await self._make().connect()
        self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await self._channel.set_qos(prefetch_count=MOST)
        for name in self._sent_to:
            await self._channel.declare_queue(name, durable=True)
        queue = await self._channel.declare_queue(self._queue, durable=True)
        await queue.consume(self._waiting.put)

    async def take(self) -> list[Taken]:
        found: list[Any] = []
        with contextlib.suppress(asyncio.TimeoutError):
            found.append(await asyncio.wait_for(self._waiting.get(), WAIT))
            if self._waiting.qsize() < MOST - 1:
                await asyncio.sleep(FILL)
        if not self._connection.connected.is_set():
            raise ConnectionError("the connection was lost")  # what came over it belongs to somebody else by now
        while found and len(found) < MOST and not self._waiting.empty():
            found.append(self._waiting.get_nowait())
        return [Taken(one.body, one.message_id or "", one) for one in found]

    async def finish(self, taken: Sequence[Taken], messages: Sequence[Message]) -> None:
        from aio_pika import DeliveryMode
        from aio_pika import Message as Persistent

        sent = [
            self._channel.default_exchange.publish(
                Persistent(
                    message.body,
                    message_id=message.key,
                    content_type="application/json",
                    delivery_mode=DeliveryMode.PERSISTENT,
                ),
                message.to,
                timeout=PATIENCE,
            )
            for message in messages
        ]
        await _all(sent)
        await taken[-1].handle.ack(multiple=True)  # and all before it, which came and were finished in order

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._connection.close(), PATIENCE)


class Kafka:
    """Kafka: a consumer group that commits how far it has answered. Who takes over a partition begins behind what was committed.

    The hosts of the address are the bootstrap servers. The parameter `mechanism` names another SASL mechanism than PLAIN:
    kafkas://one:9092,two:9092?mechanism=SCRAM-SHA-512, with user and password in front of the first host.
    """

    most_bytes = (1 << 20) - ENVELOPE  # a server's limit, unless it is told otherwise
    SECONDS = (6.0, 1800.0)  # in which a server takes somebody for dead, unless it is told otherwise

    def __init__(self, url: str, taken_from: str, sent_to: tuple[str, ...], redeliver_seconds: float) -> None:
        from faststream.kafka import KafkaBroker

        hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
        security = self._security(url)
        self._make: Callable[[], KafkaBroker] = lambda: KafkaBroker(
            [host if re.search(r":\d+$", host) else f"{host}:9092" for host in hosts],
            security=security,
            acks="all",
            enable_idempotence=True,  # what the client itself sends again is there once
            request_timeout_ms=int(PATIENCE * 1000),
            logger=None,
        )
        self._consumer: Any = None
        self._broker: KafkaBroker | None = None
        self._topic = taken_from
        self._dead_after = int(1000 * min(max(redeliver_seconds, self.SECONDS[0]), self.SECONDS[1]))

    @staticmethod
    def _security(url: str) -> Any:
        from ssl import create_default_context

        from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

        place = urlsplit(url)
        encrypted = create_default_context() if place.scheme == "kafkas" else None
        if place.username is None:
            return BaseSecurity(ssl_context=encrypted, use_ssl=encrypted is not None)
        kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
        mechanism = parse_qs(place.query).get("mechanism", ["PLAIN"])[0]
        if mechanism not in kinds:
            raise ProjectError(f"STREAM_URL has the mechanism {mechanism}, which is none of {', '.join(kinds)}.")
        name, password = unquote(place.username), unquote(place.password or "")
        return kinds[mechanism](name, password, ssl_context=encrypted, use_ssl=encrypted is not None)

    async def open(self) -> None:
        self._consumer, self._broker = None, self._make()
        begin = await self._broker.connect()
        self._consumer = begin(
            self._topic,
            group_id=project.name(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=self._dead_after,
            heartbeat_interval_ms=self._dead_after // 3,
            max_poll_interval_ms=max(self._dead_after, 300_000),
        )
        await asyncio.wait_for(self._consumer.start(), 3 * PATIENCE)
        self._heard = time.monotonic()

    async def take(self) -> list[Taken]:
        found = await self._consumer.getmany(timeout_ms=int(WAIT * 1000), max_records=MOST)
        if found:
            self._heard = time.monotonic()
        elif time.monotonic() > self._heard + PATIENCE:  # a client that hears nothing says nothing
            await self._consumer.topics()
            self._heard = time.monotonic()
        return [
            Taken(one.value or b"", f"{part.partition} {one.offset} {one.timestamp}", (part, one.offset))
            for part, records in found.items()
            for one in records
        ]

    async def finish(self, taken: Sequence[Taken], messages: Sequence[Message]) -> None:
        assert self._broker is not None
        sent = [self._broker.publish(one.body, one.to, key=one.key.encode()) for one in messages]
        await asyncio.wait_for(_all(sent), PATIENCE)  # an idempotent producer tries for ever
        answered: dict[Any, int] = {}
        for part, offset in (one.handle for one in taken):
            answered[part] = max(answered.get(part, 0), offset + 1)
        await asyncio.wait_for(self._consumer.commit(answered), PATIENCE)

    async def close(self) -> None:
        for client in (self._consumer, self._broker):
            if client is not None:  # what ends within it may be cancelled, which no `except Exception` hears
                ending = asyncio.ensure_future(client.stop())
                await asyncio.wait([ending], timeout=PATIENCE / 2)
                _ = ending.cancel() or ending.cancelled() or ending.exception()
