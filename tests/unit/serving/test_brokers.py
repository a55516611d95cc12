"""Brokers by their clients: what is taken, that a confirmation comes before an acknowledgement, and what comes again."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from copier_mlops import ProjectError
from copier_mlops import project as own
from copier_mlops.serving import brokers
from copier_mlops.serving.brokers import Message, broker

PASSWORD = secrets.token_hex(8)
ANSWERS = [Message("answers", f"key {number}", b'{"answer": %d}' % number) for number in range(3)]


class Client:
    """In place of a broker's client: it notes what it is asked in `said`, and answers from what a test gave it.

    A name that stands in `fails` raises; a coroutine function of that name, given by a test, answers.
    """

    def __init__(self, **answers: Any) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.answers = answers
        self.fails: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        async def ask(*words: Any, **named: Any) -> Any:
            self.said.append((name, *words))
            if name in self.fails:
                raise ConnectionError(f"{name} was not confirmed")
            found = self.answers.get(name)
            return found(*words, **named) if callable(found) else found

        return ask

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        return [said for said in self.said if said[0] in names]


def run(acts: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(acts())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "WAIT", 0.05)


def connected(monkeypatch: pytest.MonkeyPatch, place: str, client: Any) -> None:
    async def connect(*_: Any) -> Any:
        return client

    monkeypatch.setattr(f"faststream.{place}.connect", connect)


def opened(url: str) -> brokers.Broker:
    return broker(url, "rows", ["answers", "set-aside"], 30)


@pytest.mark.parametrize("url", ["", f"pulsar://somebody:{PASSWORD}@there", "localhost:6379"], ids=range(3))
def test_an_address_of_no_broker_is_refused(url: str) -> None:
    with pytest.raises(ProjectError, match="redis://host:6379") as error:
        opened(url)
    assert PASSWORD not in str(error.value)


def test_secrets_of_an_address_are_not_said() -> None:
    url = f"redis://somebody:{PASSWORD}@there"
    assert brokers.without_secrets(f"{url} refuses somebody with {PASSWORD}", url) == "*** refuses *** with ***"


# ----------------------------------------------------------------------------------------------------------- Redis


class Pipeline:
    def __init__(self, client: Client) -> None:
        self.client, self.words = client, []

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def execute_command(self, *words: Any) -> None:
        self.words.append(words)

    def xack(self, *words: Any) -> None:
        self.words.append(("XACK", *words))

    async def execute(self) -> None:
        await self.client.execute(self.words)


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Two entries that this process had taken before, one of a dead consumer, and new ones."""
    own = [(b"1-0", {b"data": b"own"}), (b"2-0", {b"__data__": b"own, too"})]
    claimed = [(b"3-0", {b"other": b"field"})]
    lots = {"0": [own, []], ">": [[(b"4-0", None)]]}

    def read(group: str, me: str, streams: dict[str, str], **_: Any) -> Any:
        assert group == own.name()
        found = lots[streams["rows"]].pop(0) if lots[streams["rows"]] else []
        return [(b"rows", found)] if found else []

    def claim(*_: Any, **__: Any) -> Any:
        return (b"0-0", [claimed.pop()] if claimed else [], [])

    client = Client(xreadgroup=read, xautoclaim=claim, xpending_range=[])
    client.pipeline = lambda transaction: Pipeline(client) if transaction else None  # type: ignore[assignment]
    connected(monkeypatch, "redis.RedisBroker", client)
    return client


def test_redis_gives_what_was_taken_before_what_the_dead_had_and_what_is_new(redis: Client) -> None:
    async def acts() -> list[list[tuple[bytes, str]]]:
        one = opened("redis://there")
        await one.open()
        return [[(message.body, message.name) for message in await one.take()] for _ in range(4)]

    assert run(acts) == [[(b"own", "1-0"), (b"own, too", "2-0")], [(b"", "3-0")], [(b"", "4-0")], []]
    assert redis.named("xgroup_create") == [("xgroup_create", "rows", own.name())]


def test_redis_answers_and_acknowledges_at_once_or_not_at_all(redis: Client) -> None:
    async def acts() -> None:
        one = opened("redis://there")
        await one.open()
        taken = await one.take()
        await one.finish(taken, ANSWERS)
        await one.close()

    run(acts)
    [(_, words)] = redis.named("execute")
    assert words[:-1] == [("XADD", "answers", "*", b"__data__", message.body) for message in ANSWERS]
    assert words[-1] == ("XACK", "rows", own.name(), b"1-0", b"2-0")
    assert redis.named("xgroup_delconsumer"), "the name of a consumer that has gone is taken back"


def test_redis_has_the_group_already(redis: Client) -> None:
    from redis.exceptions import ResponseError

    def there(*_: Any, **__: Any) -> None:
        raise ResponseError(said)

    redis.answers["xgroup_create"] = there
    said = "BUSYGROUP it exists"
    run(opened("redis://there").open)
    said = "NOPERM"
    with pytest.raises(ResponseError):
        run(opened("redis://there").open)


def test_redis_reads_what_faststream_sends(redis: Client) -> None:
    from faststream.redis.parser import BinaryMessageFormatV1

    async def acts() -> bytes:
        wrapped = await BinaryMessageFormatV1.encode(message=b"[1]", reply_to=None, headers={}, correlation_id="c")
        redis.answers["xreadgroup"] = lambda *_, **__: [(b"rows", [(b"1-0", {b"__data__": wrapped})])]
        one = opened("redis://there")
        await one.open()
        return (await one.take())[0].body

    assert run(acts) == b"[1]"


# ------------------------------------------------------------------------------------------------------------ NATS


class Delivered:
    """A message of NATS or RabbitMQ."""

    def __init__(self, client: Client, number: int, waiting: int = 0) -> None:
        import datetime as dt

        self.client, self.data, self.body = client, b"row %d" % number, b"row %d" % number
        self.message_id = f"id {number}" if number else None
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self.metadata = SimpleNamespace(sequence=SimpleNamespace(stream=number), timestamp=moment, num_pending=waiting)

    async def ack(self, **how: Any) -> None:
        await self.client.ack(self.data, how)


@pytest.fixture
def nats(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A server that has the stream of rows, and three of them."""
    from nats.js.errors import NotFoundError

    def name(subject: str) -> str:
        if subject != "rows":
            raise NotFoundError
        return "of-rows"

    def fetch(count: int, timeout: float) -> list[Delivered]:
        lots = {1: [0], 2: [1, 2]}.get(count, []) if not client.answers.get("taken") else []
        client.answers["taken"] = count == 2 or not lots
        if not lots:
            raise TimeoutError
        return [Delivered(client, number, waiting=2 - number) for number in lots]

    client = Client(find_stream_name_by_subject=name, fetch=fetch)
    client.answers["pull_subscribe_bind"] = client
    client.jetstream = lambda timeout: client  # type: ignore[assignment]
    client.max_payload, client.is_connected = 1 << 20, True  # type: ignore[assignment]
    connected(monkeypatch, "nats.NatsBroker", client)
    return client


def test_nats_takes_what_waits_and_makes_the_streams_that_are_missing(nats: Client) -> None:
    async def acts() -> tuple[Any, Any]:
        one = opened("nats://there")
        await one.open()
        return await one.take(), await one.take()

    taken, none = run(acts)
    assert [message.body for message in taken] == [b"row 0", b"row 1", b"row 2"] and none == []
    assert len({message.name for message in taken}) == 3
    assert len(nats.named("add_stream")) == 2
    [(_, stream, config)] = nats.named("add_consumer")
    assert (stream, config.durable_name, config.ack_wait) == ("of-rows", own.name(), 30)


@pytest.mark.parametrize("confirmed", [True, False])
def test_nats_acknowledges_what_was_confirmed(nats: Client, confirmed: bool) -> None:
    async def acts() -> None:
        one = opened("nats://there")
        await one.open()
        taken = await one.take()
        nats.fails = set() if confirmed else {"publish"}
        await one.finish(taken, ANSWERS)
        await one.close()

    with contextlib.nullcontext() if confirmed else pytest.raises(ConnectionError):
        run(acts)
    assert len(nats.named("publish")) == 3
    assert len(nats.named("ack")) == (3 if confirmed else 0)


def test_nats_notices_that_the_connection_is_gone(nats: Client) -> None:
    async def acts() -> None:
        one = opened("nats://there")
        await one.open()
        nats.is_connected = False  # type: ignore[assignment]
        await one.take()

    with pytest.raises(ConnectionError):
        run(acts)


# -------------------------------------------------------------------------------------------------------- RabbitMQ


@pytest.fixture
def rabbit(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A server that delivers three messages as soon as somebody consumes."""

    async def deliver(put: Any) -> None:
        for number in range(3):
            await put(Delivered(client, number))

    client = Client()
    queue = SimpleNamespace(consume=deliver)
    client.answers |= {"channel": client, "declare_queue": queue}
    client.default_exchange = client  # type: ignore[assignment]
    client.connected = asyncio.Event()  # type: ignore[assignment]
    client.connected.set()
    connected(monkeypatch, "rabbit.RabbitBroker", client)
    return client


@pytest.mark.parametrize("confirmed", [True, False])
def test_rabbitmq_acknowledges_what_was_confirmed(rabbit: Client, confirmed: bool) -> None:
    async def acts() -> None:
        one = opened("amqp://there")
        await one.open()
        taken = await one.take()
        assert [(message.body, message.name) for message in taken] == [
            (b"row 0", ""), (b"row 1", "id 1"), (b"row 2", "id 2")
        ]  # fmt: skip
        rabbit.fails = set() if confirmed else {"publish"}
        await one.finish(taken, ANSWERS)
        assert await one.take() == []
        await one.close()

    with contextlib.nullcontext() if confirmed else pytest.raises(ConnectionError):
        run(acts)
    sent = [message for _, message, _ in rabbit.named("publish")]
    assert [(message.body, message.message_id) for message in sent] == [(one.body, one.key) for one in ANSWERS]
    assert all(message.delivery_mode == 2 for message in sent), "they outlive the server"
    assert rabbit.named("ack") == ([("ack", b"row 2", {"multiple": True})] if confirmed else [])
    assert rabbit.named("set_qos") and [words[1] for words in rabbit.named("declare_queue")] == [
        "answers",
        "set-aside",
        "rows",
    ]


def test_rabbitmq_gives_nothing_that_came_over_a_connection_that_is_gone(rabbit: Client) -> None:
    async def acts() -> None:
        one = opened("amqp://there")
        await one.open()
        rabbit.connected.clear()  # type: ignore[attr-defined]
        await one.take()

    with pytest.raises(ConnectionError):
        run(acts)


# ----------------------------------------------------------------------------------------------------------- Kafka


class Part(NamedTuple):
    partition: int


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A server that has five records in two partitions, and the words that a consumer was begun with."""
    lots = [{0: [3, 4, 5], 1: [7, 8]}]

    def records(**_: Any) -> dict[Any, list[Any]]:
        found = lots.pop(0) if lots else {}
        return {
            Part(part): [SimpleNamespace(value=b"row %d" % offset, offset=offset, timestamp=9) for offset in offsets]
            for part, offsets in found.items()
        }

    client = Client(getmany=records)

    def begin(*words: Any, **more: Any) -> Client:
        client.said.append(("begin", *words, more))
        return client

    connected(monkeypatch, "kafka.KafkaBroker", begin)
    monkeypatch.setattr("faststream.kafka.KafkaBroker.publish", lambda _, *words, **more: client.publish(*words, more))
    return client


@pytest.mark.parametrize("confirmed", [True, False])
def test_kafka_commits_how_far_it_has_answered(kafka: Client, confirmed: bool) -> None:
    async def acts() -> None:
        one = opened("kafka://there")
        await one.open()
        taken = await one.take()
        assert [(message.body, message.name) for message in taken][2:4] == [(b"row 5", "0 5 9"), (b"row 7", "1 7 9")]
        kafka.fails = set() if confirmed else {"publish"}
        await one.finish(taken, ANSWERS)
        assert await one.take() == []
        await one.close()

    with contextlib.nullcontext() if confirmed else pytest.raises(ConnectionError):
        run(acts)
    sent = [(*words[1:3], words[3]["key"]) for words in kafka.named("publish")]
    assert sent == [(one.body, one.to, one.key.encode()) for one in ANSWERS]
    assert kafka.named("commit") == ([("commit", {Part(0): 6, Part(1): 9})] if confirmed else [])
    [(_, topic, more)] = kafka.named("begin")
    assert (topic, more["group_id"], more["enable_auto_commit"]) == ("rows", own.name(), False)
    assert more["session_timeout_ms"] == 30_000


def test_kafka_notices_that_nobody_is_there(kafka: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is not connected gives nothing, and says nothing; after a while it is asked."""
    kafka.fails = {"topics"}

    async def acts() -> None:
        one = opened("kafka://there")
        await one.open()
        assert len(await one.take()) == 5
        assert await one.take() == []
        monkeypatch.setattr(brokers, "PATIENCE", 0.0)
        await one.take()

    with pytest.raises(ConnectionError, match="topics"):
        run(acts)


def test_kafka_is_left_however_its_client_ends(kafka: Client) -> None:
    def gone() -> None:
        raise asyncio.CancelledError

    async def acts() -> None:
        one = opened("kafka://there")
        await one.close()  # what was never opened
        await one.open()
        kafka.answers["stop"] = gone
        await one.close()

    run(acts)
    assert kafka.named("stop")


@pytest.mark.parametrize(
    ("url", "hosts", "protocol", "mechanism"),
    [
        ("kafka://one,two:9093", ["one:9092", "two:9093"], "PLAINTEXT", None),
        (f"kafka://ada:{PASSWORD}@one", ["one:9092"], "SASL_PLAINTEXT", "PLAIN"),
        (f"kafkas://ada:{PASSWORD}@one?mechanism=SCRAM-SHA-512", ["one:9092"], "SASL_SSL", "SCRAM-SHA-512"),
        ("kafkas://[::1]:9093", ["[::1]:9093"], "SSL", None),
    ],
    ids=range(4),
)
def test_kafka_is_asked_as_its_address_says(
    monkeypatch: pytest.MonkeyPatch, url: str, hosts: list[str], protocol: str, mechanism: str | None
) -> None:
    told: dict[str, Any] = {}

    async def connect(self: Any) -> None:
        told.update(self._connection_kwargs)
        raise ConnectionError("that is enough")

    monkeypatch.setattr("faststream.kafka.KafkaBroker.connect", connect)
    with pytest.raises(ConnectionError, match="enough"):
        run(opened(url).open)
    assert told["bootstrap_servers"] == hosts
    assert (told["security_protocol"], told.get("sasl_mechanism")) == (protocol, mechanism)
    assert told.get("sasl_plain_password") == (PASSWORD if mechanism else None)


def test_kafka_is_asked_by_no_other_mechanism() -> None:
    with pytest.raises(ProjectError, match="GSSAPI, which is none of PLAIN"):
        opened(f"kafka://ada:{PASSWORD}@one?mechanism=GSSAPI")
