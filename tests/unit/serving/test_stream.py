"""Messages become answers, whatever comes between: rows that nobody can read, a broker that is gone, the wish to stop."""

import asyncio
import base64
import dataclasses
import json
import os
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops import Contract
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.data import log_reader
from copier_mlops.serving import stream
from copier_mlops.serving.brokers import Message, Taken
from copier_mlops.serving.bundle_loader import records
from copier_mlops.serving.request_parser import Reader
from copier_mlops.serving.stream import Consumer
from copier_mlops.settings import Settings

from ..conftest import mlops

KEY = "of the tests"
PASSWORD = secrets.token_hex(8)
ROOM = 1 << 20


class Hashing:
    """A model whose answer depends on all of a row."""

    classes_ = np.arange(max(2, len(CONTRACT.classes)))

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        number = pd.util.hash_pandas_object(features, index=False).to_numpy() % 997 / 997
        each = np.column_stack([0.1 + number * (place + 1) % 1 for place in self.classes_])
        return each / each.sum(axis=1, keepdims=True)


BUNDLE = Bundle({"version": 3}, CONTRACT, lambda rows: rows.drop(columns=CONTRACT.id), Hashing(), {})


def written(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as somebody sends them."""
    text = rows.drop(columns=CONTRACT.target).to_json(
        orient="records", date_format="iso", date_unit="us", double_precision=15
    )
    return json.loads(text)


@pytest.fixture
def asked(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return written(rows.head(6))


def taken(*bodies: Any) -> list[Taken]:
    texts = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    return [Taken(text, f"message {number}", number) for number, text in enumerate(texts)]


class Kept:
    """In place of the prediction log."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def add(self, entries: Sequence[bytes]) -> None:
        self.entries += map(json.loads, entries)


def consumer(bundle: Bundle = BUNDLE, **settings: Any) -> Consumer:
    return Consumer(bundle, Reader(CONTRACT, 1000, KEY), Kept(), Settings(**settings))  # type: ignore[arg-type]


def sent(messages: Sequence[Message], to: str = "answers") -> list[dict[str, Any]]:
    return [json.loads(message.body) for message in messages if message.to == to]


# ------------------------------------------------------------------------------------------------------- Messages


def test_rows_are_answered_as_the_bundle_answers_them(asked: list[dict[str, Any]]) -> None:
    """One message or an array of them: there is an answer a row, in order."""
    worked = consumer().work(taken(asked[0], asked[1:4], asked[4]), ROOM)
    reader = Reader(CONTRACT, 1000, KEY)
    truth = list(records(BUNDLE.answers(reader.frame([reader.read(json.dumps(asked[:5]).encode())]))))
    answers = sent(worked.messages)
    assert [answer["id"] for answer in answers] == [row[CONTRACT.id] for row in asked[:5]]
    assert [answer["score"] for answer in answers] == [answer["score"] for answer in truth]
    assert all(answer["version"] == 3 for answer in answers) and worked.aside == 0
    assert all(
        set(answer.get("scores", {})) == set(CONTRACT.classes if len(CONTRACT.classes) > 2 else ())
        for answer in answers
    )
    entries = [json.loads(entry) for entry in worked.entries]
    assert [entry["answer"] for entry in entries] == truth
    assert [entry["prediction"] for entry in entries] == [answer["prediction_id"] for answer in answers]
    assert {entry["way"] for entry in entries} == {"stream"} and set(entries[0]["inputs"]) == set(asked[0])


def test_a_value_that_the_training_had_not_is_named_in_the_answer(asked: list[dict[str, Any]]) -> None:
    name = CONTRACT.features()[0]
    pooled = [
        dataclasses.replace(one, nullable=False, unseen="pool") if one.name == name else one for one in CONTRACT.columns
    ]
    changed = Contract(tuple(pooled))
    some = Consumer(
        dataclasses.replace(BUNDLE, contract=changed),
        Reader(changed, 1000, KEY),
        Kept(),
        Settings(),  # type: ignore[arg-type]
    )
    worked = some.work(taken({**asked[0], name: None}, asked[1]), ROOM)
    assert [answer.get("unseen") for answer in sent(worked.messages)] == [[name], None] and worked.aside == 0


def test_the_same_message_is_answered_with_the_same_bytes(asked: list[dict[str, Any]]) -> None:
    """Also where ids are missing and had to be made up; another message is another prediction, though its row is the same."""
    nameless = [{name: value for name, value in row.items() if name != CONTRACT.id} for row in asked]
    bodies = taken(asked[0], nameless[1], nameless[2:4], [asked[4], nameless[5]])
    first, again = (consumer().work(bodies, ROOM) for _ in range(2))
    assert [(one.to, one.key, one.body) for one in first.messages] == [
        (one.to, one.key, one.body) for one in again.messages
    ]
    keys = [one.key for one in first.messages]
    assert len(set(keys)) == len(keys)
    other = consumer().work([Taken(bodies[0].body, "another message", 0)], ROOM)
    assert other.messages[0].key not in keys


def test_what_nobody_can_read_stands_aside_with_the_reason(asked: list[dict[str, Any]]) -> None:
    feature = CONTRACT.features()[0]
    poison = [b"{", b"\xff\xfe", {**asked[0], feature: [1]}, {**asked[0], "stranger": 1}, [7]]
    worked = consumer(max_body_bytes=100_000).work(taken(asked[1], *poison, b" " * 100_001, asked[2]), ROOM)
    aside = sent(worked.messages, "set-aside")
    assert len(sent(worked.messages)) == 2 and worked.aside == len(aside) == 6
    assert aside[0]["body"] == "{" and base64.b64decode(aside[1]["base64"]) == b"\xff\xfe"
    assert json.loads(aside[2]["body"]) == {**asked[0], feature: [1]}
    assert aside[2]["faults"][0]["field"] == feature and all(one["reason"] for one in aside)
    assert "MAX_BODY_BYTES" in aside[5]["reason"]


def test_of_a_message_that_the_broker_would_not_take_back_stands_the_beginning_aside() -> None:
    body = b'"' + b"\x01" * 200_000
    worked = consumer().work([Taken(body, "long", 0)], 200_500)
    assert len(worked.messages[0].body) <= 200_500
    [aside] = sent(worked.messages, "set-aside")
    assert aside["bytes"] == len(body) and aside["body"] and body.startswith(aside["body"].encode())


def test_a_row_that_the_model_cannot_answer_takes_no_other_along(asked: list[dict[str, Any]]) -> None:
    def fails(rows: pd.DataFrame) -> pd.DataFrame:
        if bad in rows[CONTRACT.id].astype("str").tolist():
            raise ZeroDivisionError("of this row")
        return BUNDLE.build_features(rows)

    reader = Reader(CONTRACT, 10, KEY)
    bad = str(reader.frame([reader.read(json.dumps(asked[1]).encode())])[CONTRACT.id].iloc[0])
    worked = consumer(dataclasses.replace(BUNDLE, build_features=fails)).work(taken(*asked), ROOM)
    [aside] = sent(worked.messages, "set-aside")
    assert json.loads(aside["body"]) == asked[1] and "ZeroDivisionError" in aside["reason"]
    assert len(sent(worked.messages)) == len(worked.entries) == len(asked) - 1


def test_no_more_rows_are_answered_at_once_than_may_wait(asked: list[dict[str, Any]]) -> None:
    sizes = []

    def noted(rows: pd.DataFrame) -> pd.DataFrame:
        sizes.append(len(rows))
        return BUNDLE.build_features(rows)

    one = consumer(dataclasses.replace(BUNDLE, build_features=noted), max_waiting_rows=3)
    worked = one.work(taken(asked[0], asked[1:3], asked[3], asked[:5]), ROOM)
    assert sizes == [3, 1, 5] and len(worked.entries) == 9


# --------------------------------------------------------------------------------------------------------- Brokers


class Memory:
    """A broker in memory, which fails as often as a test wants it to, and then stops the consumer."""

    most_bytes = ROOM

    def __init__(self, messages: Sequence[Taken], stop: asyncio.Event | None, fails: Sequence[str] = ()) -> None:
        self.waiting, self.stop, self.fails = list(messages), stop, list(fails)
        self.sent: list[Message] = []
        self.opened = self.closed = 0

    def _fail(self, where: str) -> None:
        if self.fails and self.fails[0] == where:
            self.fails.pop(0)
            raise ConnectionError(f"no answer from redis://somebody:{PASSWORD}@there")

    async def open(self) -> None:
        self.opened += 1
        self._fail("open")

    async def take(self) -> list[Taken]:
        self._fail("take")
        if not self.waiting:
            if self.stop:
                self.stop.set()
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
        return self.waiting[:2]

    async def finish(self, taken: Sequence[Taken], messages: Sequence[Message]) -> None:
        self._fail("finish")
        self.sent += messages
        self.waiting = self.waiting[len(taken) :]

    async def close(self) -> None:
        self.closed += 1


def test_a_broker_that_does_not_answer_is_tried_again(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With pauses that grow; a lot that could not be finished is answered again, and what is said names no secret."""
    monkeypatch.setattr(stream, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(stream, "NEWS_SECONDS", 0)
    one = consumer(stream_url=f"redis://somebody:{PASSWORD}@there")

    async def run() -> Memory:
        stop = asyncio.Event()
        broker = Memory(taken(*asked), stop, ["open", "open", "take", "finish"])
        await one.run(broker, stop)
        return broker

    broker = asyncio.run(run())
    assert [answer["id"] for answer in sent(broker.sent)] == [row[CONTRACT.id] for row in asked]
    assert broker.opened == broker.closed == 5
    said = capsys.readouterr().err
    assert said.count("does not answer") == 4 and "next attempt in 0.02 s" in said and PASSWORD not in said
    assert f"stopped: {len(asked)} rows answered, 0 messages set aside" in said


def test_a_consumer_that_cannot_connect_still_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Memory):
        async def open(self) -> None:
            self.stop.set()  # type: ignore[union-attr]
            await asyncio.sleep(60)

    async def run() -> None:
        stop = asyncio.Event()
        await asyncio.wait_for(consumer().run(Silent([], stop), stop), 5)

    asyncio.run(run())


def test_the_command_answers_until_it_is_asked_to_stop(
    asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Memory(taken(*asked), None)
    monkeypatch.setattr(stream, "answering", lambda settings: BUNDLE)
    monkeypatch.setattr(stream, "broker", lambda *_: broker)
    monkeypatch.setenv("PREDICTION_LOG", str(tmp_path / "log"))
    assert mlops("serve-stream") == 0
    logged = [entry["prediction"] for entry in log_reader.entries(tmp_path / "log")]
    assert logged == [answer["prediction_id"] for answer in sent(broker.sent)] and len(logged) == len(asked)


def test_the_command_needs_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert mlops("serve-stream") == 1
    assert "STREAM_URL is not set" in capsys.readouterr().err
