"""A service that is asked: what it answers comes in the order of the questions, and what it does not answer is counted."""

import datetime as dt
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops.backtest import service_client

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


class Service(BaseHTTPRequestHandler):
    """Does what the body of a question says: a status, `words`, or `cut`."""

    protocol_version = "HTTP/1.1"
    connections: int
    asked: list[str]

    def setup(self) -> None:
        super().setup()
        type(self).connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).asked.append(self.headers["X-Asked-At"])
        if body == "cut":
            self.connection.close()
            return
        said = b"words" if body == "words" else json.dumps([{"id": body}]).encode()
        self.send_response(int(body) if body.isdigit() and len(body) == 3 else 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *some: object) -> None:
        pass


@pytest.fixture
def there() -> Iterator[str]:
    Service.connections, Service.asked = 0, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_requests_can_go_to_another_address(there: str) -> None:
    asker = service_client.Asker("127.0.0.1:1")
    assert list(asker.ask([(b"q", 1)], NOW)) == [[]] and asker.failed == 1
    asker.use(there)
    assert list(asker.ask([(b"q", 1)], NOW)) == [[{"id": "q"}]] and asker.failed == 1


def test_answers_come_in_order_over_few_connections(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_client, "SECONDS_IDLE", 60.0)
    asker = service_client.Asker(there)
    questions = [(f"q{number}".encode(), 1) for number in range(40)]
    assert [one[0]["id"] for one in asker.ask(questions, NOW)] == [f"q{number}" for number in range(40)]
    assert (asker.requests, asker.failed, asker.refused) == (40, 0, 0)
    assert Service.connections <= service_client.CONNECTIONS
    assert set(Service.asked) == {NOW.isoformat()}


@pytest.mark.parametrize(("body", "failed", "refused"), [("422", 0, 7), ("503", 1, 0), ("words", 1, 0), ("cut", 1, 0)])
def test_what_is_not_answered_is_counted_and_the_next_is(there: str, body: str, failed: int, refused: int) -> None:
    asker = service_client.Asker(there)
    assert list(asker.ask([(body.encode(), 7)], NOW)) == [[]]
    assert (asker.requests, asker.failed, asker.refused) == (1, failed, refused)
    assert list(asker.ask([(b"next", 1)] * 3, NOW)) == [[{"id": "next"}]] * 3
    assert (asker.requests, asker.failed, asker.refused) == (4, failed, refused)


def test_nobody_there(there: str) -> None:
    asker = service_client.Asker("127.0.0.1:9")
    assert list(asker.ask([(b"one", 1)], NOW)) == [[]]
    assert asker.failed == 1


def test_after_a_pause_the_connection_is_a_new_one(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy has ended the one before by then, and a question would be lost on it."""
    monkeypatch.setattr(service_client, "SECONDS_IDLE", -1.0)
    asker = service_client.Asker(there)
    assert len(list(asker.ask([(b"one", 1)] * 6, NOW))) == 6
    assert Service.connections == 6 and asker.failed == 0


def test_rows_are_asked_without_their_target(rows: pd.DataFrame) -> None:
    some = rows.head(20).copy()
    gaps = [column.name for column in CONTRACT.columns if column.role == "feature" and column.nullable]
    for name in gaps:
        some.loc[3, name] = None
    found = [json.loads(one) for one in service_client.encoded(some)]
    assert [one[CONTRACT.id] for one in found] == some[CONTRACT.id].tolist()
    assert all(list(one) == [column.name for column in CONTRACT.without_target()] for one in found)
    assert all(found[3][name] is None for name in gaps)
    times = [column.name for column in CONTRACT.without_target() if column.kind == "timestamp"]
    for name in times:
        assert (pd.to_datetime([one[name] for one in found]) == some[name]).all()


def test_answers_become_columns() -> None:
    scores = dict.fromkeys(CONTRACT.classes, 0.25) if len(CONTRACT.answers) > 1 else None
    answers = [{"id": name, "version": 3, **({"scores": scores} if scores else {"score": 0.25})} for name in "ab"]
    found = service_client.as_table(answers)
    assert found.columns.tolist() == [*CONTRACT.answers, "version", "id"]
    assert found["id"].tolist() == ["a", "b"] and (found[CONTRACT.answers] == 0.25).all(axis=None)
