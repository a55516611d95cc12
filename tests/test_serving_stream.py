"""Streaming against real brokers, which are killed in the middle, as is who consumes. Brokers that the machine lacks are installed from the
system's packages."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engine
import pytest
from conftest import Project, clean_environment, end, free_port, need, once, wait_until

# What any program that talks to the broker would do, run with the project's packages: send lines, read a stream from its
# beginning, say how many messages were given out and not acknowledged.
CLIENT = """
import asyncio, json, sys
verb, url, name = sys.argv[1:4]
lines = [line.rstrip(b"\\n") for line in sys.stdin.buffer] if verb == "send" else []
async def redis():
    from redis.asyncio import from_url
    client = from_url(url)
    if verb == "send":
        async with client.pipeline(transaction=False) as pipe:
            for line in lines:
                pipe.xadd(name, {"data": line})
            await pipe.execute()
    elif verb == "read":
        return [fields[b"__data__"].decode() for _, fields in await client.xrange(name)]
    else:
        return sum(group["pending"] for group in await client.xinfo_groups(name))
    await client.aclose()
async def nats():
    import nats
    from nats.js.errors import NotFoundError
    client = await nats.connect(url)
    stream = client.jetstream()
    if verb == "send":
        try:
            await stream.find_stream_name_by_subject(name)
        except NotFoundError:
            await stream.add_stream(name=name, subjects=[name])
        for start in range(0, len(lines), 500):
            await asyncio.gather(*[stream.publish(name, line) for line in lines[start : start + 500]])
        await client.close()
        return None
    where = await stream.find_stream_name_by_subject(name)
    if verb == "read":
        state = (await stream.stream_info(where)).state
        numbers = range(state.first_seq, state.last_seq + 1)
        return [(await stream.get_msg(where, number)).data.decode() for number in numbers]
    return sum(one.num_ack_pending for one in await stream.consumers_info(where))
async def amqp():
    import aio_pika
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    queue = await channel.declare_queue(name, durable=True)
    if verb == "send":
        for start in range(0, len(lines), 500):
            await asyncio.gather(*[
                channel.default_exchange.publish(aio_pika.Message(line, delivery_mode=2), name)
                for line in lines[start : start + 500]
            ])
        await connection.close()
        return None
    if verb == "read":
        found = []
        while (message := await queue.get(fail=False)) is not None:
            found.append(message.body.decode())
        return found
    return queue.declaration_result.message_count
async def kafka():
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient
    hosts = url.partition("://")[2]
    if verb == "send":
        client = AIOKafkaProducer(bootstrap_servers=hosts, acks="all")
        await client.start()
        await asyncio.gather(*[client.send_and_wait(name, line) for line in lines])
        return await client.stop()
    client = AIOKafkaConsumer(name, bootstrap_servers=hosts, enable_auto_commit=False, auto_offset_reset="earliest")
    await client.start()
    while not (parts := client.assignment()):  # all of them, without a group
        await asyncio.sleep(0.1)
    ends = await client.end_offsets(parts)
    if verb == "read":
        found = []
        while any([await client.position(part) < ends[part] for part in parts]):
            for records in (await client.getmany(timeout_ms=500)).values():
                found += [record.value.decode() for record in records]
        return found
    admin = AIOKafkaAdminClient(bootstrap_servers=hosts)
    await admin.start()
    done = {}
    for group, _ in await admin.list_consumer_groups():
        done |= await admin.list_consumer_group_offsets(group)
    return sum(end - (done[part].offset if part in done else 0) for part, end in ends.items())
print(json.dumps(asyncio.run({"redis": redis, "nats": nats, "amqp": amqp, "kafka": kafka}[url.partition(":")[0]]())))
os = __import__("os"); sys.stdout.flush(); os._exit(0)
"""

# The consumer, but slow, in small lots, and with a word before each, so that a test can come in between.
SLOW = """
import sys, time
from copier_mlops.serving import brokers
from copier_mlops.serving import stream
work = stream.Consumer.work
def slowly(self, taken, most_bytes):
    print("a lot of", len(taken), file=sys.stderr, flush=True)
    time.sleep(0.15)
    return work(self, taken, most_bytes)
stream.Consumer.work = slowly
brokers.MOST = 60
sys.exit(stream.main())
"""

# The consumer, which dies when all is confirmed and nothing acknowledged.
DIES = """
import os, signal
import aio_pika.message, aiokafka, nats.aio.msg
from copier_mlops.serving import stream
async def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
aio_pika.message.IncomingMessage.ack = nats.aio.msg.Msg.ack = aiokafka.AIOKafkaConsumer.commit = die
stream.main()
"""


@pytest.fixture(scope="session")
def streaming(served: Project) -> Project:
    """A project with a champion, its bundle, and rows to ask for."""
    return Project(served.folder, OMP_NUM_THREADS="1")


class Broker:
    """A broker that is started by hand, on loopback, with its data in a folder."""

    scheme = program = package = ""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder, self.project, self.port = folder, project, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        if not shutil.which(self.program) and not Path(self.program).exists():
            need(engine.apt(self.package))

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def words(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.words(), env=clean_environment(**self.environment()), stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 240  # RabbitMQ takes its time on a machine that is busy
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2):
            return True
        return False

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            end(self.process)

    def ask(self, verb: str, name: str, lines: list[str] | None = None) -> Any:
        """What a client gets; one that comes while the broker still starts tries again."""
        given = "".join(f"{line}\n" for line in lines or [])
        words = [str(self.project / ".venv/bin/python"), "-c", CLIENT, verb, self.url, name]
        for _ in range(20):
            done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, timeout=120)
            if done.returncode == 0:
                return json.loads(done.stdout)
            time.sleep(0.5)
        raise AssertionError(done.stderr)

    def send(self, lines: list[str]) -> None:
        self.ask("send", "rows", lines)

    def read(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ask("read", name)]


class Redis(Broker):
    scheme, program, package = "redis", "redis-server", "redis-server"

    def words(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return [self.program, *where, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]


class Nats(Broker):
    scheme, program, package = "nats", "nats-server", "nats-server"

    def words(self) -> list[str]:
        return [self.program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder)]


class Rabbit(Broker):
    scheme, program, package = "amqp", "/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"

    def __init__(self, folder: Path, project: Project) -> None:
        super().__init__(folder, project)
        names, between = free_port(), free_port()
        self._environment = {
            "HOME": str(folder), "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(between),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"), "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }  # fmt: skip
        # Erlang would start it where it is missing, and leave it behind.
        self._names = subprocess.Popen(
            ["epmd", "-address", "127.0.0.1", "-port", str(names)], env=clean_environment(), start_new_session=True
        )

    def environment(self) -> dict[str, str]:
        return self._environment

    def words(self) -> list[str]:
        return [self.program]

    def close(self) -> None:
        super().close()
        end(self._names)


class Kafka(Broker):
    """The server of the project's own archives, which Maven brings; data and metadata in one process."""

    scheme, program, package = "kafka", "mvn", "maven"
    PROJECT = (
        "<project><modelVersion>4.0.0</modelVersion><groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version>"
        "<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.1.1</version>"
        "</dependency></dependencies></project>"
    )

    def __init__(self, folder: Path, project: Project, *, more: dict[str, str] | None = None, users: str = "") -> None:
        super().__init__(folder, project)
        self._archives = once("kafka", self._bring)
        here, control = f"PLAINTEXT://127.0.0.1:{self.port}", f"127.0.0.1:{free_port()}"
        settings = {
            "process.roles": "broker,controller", "node.id": 1, "controller.quorum.bootstrap.servers": control,
            "listeners": f"{here},CONTROLLER://{control}", "advertised.listeners": here,
            "controller.listener.names": "CONTROLLER", "log.dirs": folder / "data", "log.flush.interval.messages": 1,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", "num.partitions": 3,
            "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 1, "group.initial.rebalance.delay.ms": 0,
        }  # fmt: skip
        for name, value in (more or {}).items():  # of names that stand there already, another value behind the first
            settings[name] = f"{settings[name]},{value}" if name in settings else value
        (folder / "settings").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        words = self._java(
            "kafka.tools.StorageTool", "format", "--standalone", "-t", "c29tZSByYW5kb20gaWQgMQ", "-c", "settings",
            *(f"--add-scram={kind}=[{users}]" for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512") if users),
        )  # fmt: skip
        subprocess.run(words, cwd=folder, check=True, capture_output=True)

    def _bring(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "pom.xml").write_text(self.PROJECT)
        words = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=archives"]
        done = subprocess.run(["mvn", "-q", "-B", *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    def _java(self, *words: str) -> list[str]:
        return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{self._archives}/archives/*", *words]

    def words(self) -> list[str]:
        return self._java("kafka.Kafka", "settings")


@pytest.fixture
def broker(request: pytest.FixtureRequest, streaming: Project, tmp_path: Path) -> Iterator[Broker]:
    """A broker of the kind that the test asks for; not started."""
    one = request.param(tmp_path / "broker", streaming)
    yield one
    one.close()


rabbit, kafka = (pytest.param(one, marks=pytest.mark.long) for one in (Rabbit, Kafka))
every_broker = pytest.mark.parametrize(
    "broker", [Redis, Nats, rabbit, kafka], indirect=True, ids=lambda one: one.scheme
)


class Consuming:
    """A consumer that runs, and what it has said."""

    def __init__(
        self, project: Project, broker: Broker | SimpleNamespace, log: Path, code: str = "", **environment: str
    ) -> None:
        program = ["-c", code.replace("PACKAGE", project.package)] if code else ["-m", "copier_mlops.serving.stream"]
        self.process = project.start(
            ".venv/bin/python",
            *program,
            STREAM_URL=broker.url,
            STREAM_REDELIVER_SECONDS="2",
            PREDICTION_LOG=str(log),
            **environment,
        )
        self.said = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def wait_for(self, text: str, times: int = 1, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while self.said.count(text) < times:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < until, f"not {times} times {text!r}: {self.said}"
            time.sleep(0.05)

    def stop(self) -> str:
        """Ask it to stop, and hold it to doing so; returns all that it said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.said
        self._listener.join(10)
        return self.said

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@contextlib.contextmanager
def consuming(
    project: Project, broker: Broker | SimpleNamespace, log: Path, code: str = "", **environment: str
) -> Iterator[Consuming]:
    one = Consuming(project, broker, log, code, **environment)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.kill()


def rows(project: Project, count: int) -> list[dict[str, Any]]:
    """Rows that keep the contract, and differ."""
    expected = json.loads((project / "dist/bundle/expected.json").read_text())
    found = [dict(zip(expected["columns"], values, strict=True)) for values in expected["rows"]]
    return [
        {**found[number % len(found)], "flight_id": f"f{number}", "distance": 200.0 + number} for number in range(count)
    ]


def live(project: Project, asked: list[dict[str, Any]], folder: Path) -> dict[str, float]:
    """What the bundle itself answers, by id."""
    file = folder / "asked.json"
    file.write_text(json.dumps(asked))
    return json.loads(
        project.python(
            "import json, pandas as pd\n"
            f"from copier_mlops.serving.bundle_loader import answering\nfrom copier_mlops.settings import Settings\n"
            "one = answering(Settings())\n"
            f"rows = pd.DataFrame(json.load(open({str(file)!r})))\n"
            "print(json.dumps(dict(zip(rows[one.contract.id], one.answer(rows)['score']))))"
        )
    )


def all_answered(broker: Broker, wanted: int, consumer: Consuming, seconds: float = 90) -> dict[str, list[str]]:
    """The answers by id, as they were sent, once there is one for as many ids."""
    until = time.monotonic() + seconds
    while True:
        found = defaultdict(list)
        for line in broker.ask("read", "answers"):
            found[json.loads(line)["id"]].append(line)
        if len(found) >= wanted:
            return found
        assert time.monotonic() < until, f"{len(found)} of {wanted}: {consumer.said}"
        time.sleep(0.5)


@every_broker
def test_nothing_is_lost_when_the_broker_and_who_consumes_are_killed(
    broker: Broker, streaming: Project, tmp_path: Path
) -> None:
    """Nor is anything answered in two ways; what cannot be read stands aside, and holds up nothing."""
    asked = rows(streaming, 1400)
    lines = [json.dumps(row) for row in asked]
    lines[600:700] = [json.dumps(asked[start : start + 20]) for start in range(600, 700, 20)]
    poison = ["{", json.dumps({**asked[0], "flight_id": "bad", "distance": "far"}), "[1]", "\u00e4"]
    broker.start()
    broker.send(lines[:300] + poison + lines[300:500])
    with consuming(streaming, broker, tmp_path / "log", SLOW) as first:
        first.wait_for("a lot of", 3)
        broker.kill()
        first.wait_for("the broker does not answer")
        time.sleep(1)
        broker.start()
        broker.send(lines[500:])
        before = first.said.count("a lot of")
        first.wait_for("a lot of", before + 4)
        first.kill()
    with consuming(streaming, broker, tmp_path / "log") as second:
        found = all_answered(broker, len(asked), second)
        # What the first had answered and not confirmed comes again, to be confirmed.
        wait_until(lambda: broker.ask("pending", "rows") == 0, 60, lambda: second.said)
        said = second.stop()
    assert "Traceback" not in first.said + said and "f1" not in first.said + said, "no values in what it says"
    assert {name: {json.loads(line)["score"] for line in answers} for name, answers in found.items()} == {
        name: {score} for name, score in live(streaming, asked, tmp_path).items()
    }
    assert all(len(set(answers)) == 1 for answers in found.values()), "a repeat is the same to the byte"
    aside = broker.read("set-aside")
    assert {one["body"] for one in aside} == set(poison)
    assert any(fault["field"] == "distance" for one in aside for fault in one["faults"]) and all(
        one["reason"] for one in aside
    )
    assert broker.ask("pending", "rows") == 0


@every_broker
def test_a_clean_stop_finishes_what_was_taken(broker: Broker, streaming: Project, tmp_path: Path) -> None:
    """It begins without the broker and waits for it; what it has answered is in the log, acknowledged, and answered once."""
    asked = rows(streaming, 600)
    with consuming(streaming, broker, tmp_path / "log", SLOW) as one:
        one.wait_for("the broker does not answer", 2)
        broker.start()
        broker.send([json.dumps(row) for row in asked])
        one.wait_for("a lot of", 3)
        said = one.stop()
    answers = broker.read("answers")
    logged = streaming.python(
        f"import json, pathlib\nfrom {streaming.package}.io import prediction_log as p\n"
        f"print(json.dumps([e['prediction'] for e in p.entries(pathlib.Path({str(tmp_path / 'log')!r}))]))"
    )
    assert sorted(json.loads(logged)) == sorted(one["prediction_id"] for one in answers)
    assert 0 < len(answers) < 600 and len({one["id"] for one in answers}) == len(answers)
    assert f"stopped: {len(answers)} rows answered" in said
    left = broker.ask("pending", "rows")
    waits = broker.scheme in ("amqp", "kafka")  # what a queue says is what waits, given back at once
    assert left == (600 - len(answers) if waits else 0)
    with consuming(streaming, broker, tmp_path / "log") as two:
        found = all_answered(broker, 600, two)
    assert all(len(answers) == 1 for answers in found.values())


@pytest.mark.parametrize("broker", [Nats, rabbit, kafka], indirect=True, ids=lambda one: one.scheme)
def test_an_answer_whose_row_was_not_acknowledged_comes_again_as_the_same(
    broker: Broker, streaming: Project, tmp_path: Path
) -> None:
    """NATS knows it by its name and drops it; elsewhere who reads answers knows it. Redis does both at once, or neither."""
    asked = [{name: value for name, value in row.items() if name != "flight_id"} for row in rows(streaming, 30)]
    broker.start()
    broker.send([json.dumps(row) for row in asked])
    with consuming(streaming, broker, tmp_path / "log", DIES) as one:
        assert one.process.wait(60) == -signal.SIGKILL
    first = broker.read("answers")
    with consuming(streaming, broker, tmp_path / "log") as two:
        until = time.monotonic() + 30
        while broker.ask("pending", "rows") and time.monotonic() < until:
            time.sleep(0.5)
        time.sleep(3)
        two.stop()
    again = broker.read("answers")
    assert len(first) == 30 and len(again) == (30 if broker.scheme == "nats" else 60)
    assert {json.dumps(one) for one in again} == {json.dumps(one) for one in first}, "also ids that were made up"


@pytest.mark.long
def test_kafka_lets_in_who_has_the_password(streaming: Project, tmp_path: Path) -> None:
    """Encrypted, with a certificate made on the spot; who has another one is told that nobody answers, and not with what password."""
    port, password = free_port(), secrets.token_hex(8)
    certificate, key, both = (tmp_path / name for name in ("certificate.pem", "key.pem", "both.pem"))
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    here, module = f"SASL_SSL://127.0.0.1:{port}", "org.apache.kafka.common.security"
    guarded = {
        "listeners": here, "advertised.listeners": here, "listener.security.protocol.map": "SASL_SSL:SASL_SSL",
        "ssl.keystore.type": "PEM", "ssl.keystore.location": str(both),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{module}.plain.PlainLoginModule required user_ada="{password}";',
        **{f"listener.name.sasl_ssl.scram-sha-{bits}.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;" for bits in (256, 512)},
    }  # fmt: skip
    broker = Kafka(tmp_path / "broker", streaming, more=guarded, users=f"name=ada,password={password}")
    broker.start()
    try:
        for number, words in enumerate(("", "?mechanism=SCRAM-SHA-256", "?mechanism=SCRAM-SHA-512"), start=1):
            broker.send([json.dumps(row) for row in rows(streaming, 5 * number)[-5:]])
            there = SimpleNamespace(url=f"kafkas://ada:{password}@127.0.0.1:{port}{words}")
            with consuming(streaming, there, tmp_path / "log", SSL_CERT_FILE=str(certificate)) as one:
                all_answered(broker, 5 * number, one)
                one.stop()
            wrong = SimpleNamespace(url=f"kafkas://ada:another-word@127.0.0.1:{port}{words}")
            with consuming(streaming, wrong, tmp_path / "log", SSL_CERT_FILE=str(certificate)) as one:
                one.wait_for("the broker does not answer")
                assert "another-word" not in one.said and "Traceback" not in one.said
    finally:
        broker.close()


def test_an_address_that_is_none_is_refused(streaming: Project) -> None:
    assert "STREAM_URL is not set" in streaming.make("consume", fails=True)
    said = streaming.make("consume", fails=True, STREAM_URL="pulsar://user:pass@host:6650")
    assert "pulsar://" in said and "redis://" in said and "pass" not in said
