"""The alert webhook: only holders of the token are served, an action is done once, and no decision is lost."""

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from copier_mlops import InProgressError, ProjectError
from copier_mlops.automation import (
    action_runner,
    alert_webhook,
    connections,
    policy_engine,
    supervisor,
    webhook_messages,
)
from copier_mlops.automation.action_runner import Command
from copier_mlops.automation.alert_webhook import Receiver, ReceiverSettings, Server
from copier_mlops.settings import Paths, Settings

from ..conftest import mlops

TOKEN = "of the tests"  # pragma: allowlist secret
ALL_ON = "promote: {enabled: true}\nroll_back: {enabled: true}\nadd_replica: {enabled: true}\n"


def alert(action: str = "", fingerprint: str = "f", **more: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "ModelWorse", "action": action, "environment": "prod"},
        "annotations": {"summary": "It is worse."},
        "startsAt": "2026-03-04T12:00:00Z",
        "fingerprint": fingerprint,
        **more,
    }


def message(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "receiver": "loop", "alerts": alerts}).encode()


class Running:
    """A receiver that runs, with commands that a test chooses."""

    def __init__(self, command: Callable[[policy_engine.Decision], Command] | None = None, **settings: Any) -> None:
        given = {"alert_token": TOKEN, "receiver_port": 0, "receiver_retry_seconds": 0.05, **settings}
        self.receiver = Receiver(ReceiverSettings(**given))
        self.done: list[policy_engine.Decision] = []

        def noted(decision: policy_engine.Decision) -> Command:
            self.done.append(decision)
            return Command(["true"], 10) if command is None else command(decision)

        for lane in (self.receiver.acting, self.receiver.telling):
            lane._command = noted
        listening = alert_webhook.listen("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        self.receiver.start()
        self.server = Server(self.receiver)
        self.serving = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.serving.start()

    def post(self, body: bytes, path: str = "/alerts", **headers: str) -> tuple[int, dict[str, Any]]:
        head = {"Authorization": f"Bearer {TOKEN}", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, head)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def value(self, series: str) -> float:
        lines = dict(line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return float(lines[series])

    def close(self) -> None:
        self.server.should_exit = True
        self.serving.join(10)
        self.receiver.close()


def record() -> list[dict[str, Any]]:
    return [json.loads(line) for line in alert_webhook.AUDIT.read_text().splitlines()]


def results() -> list[tuple[str, str]]:
    return [(one["action"], one["result"]) for one in record()]


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, record() if alert_webhook.AUDIT.exists() else "nothing was decided"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ReceiverSettings.model_fields.keys() - Settings.model_fields.keys():
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "monitoring").mkdir()
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/replicas.py").touch()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(command: Callable[[policy_engine.Decision], Command] | None = None, **settings: Any) -> Running:
        started.append(Running(command, **settings))
        return started[-1]

    yield begin
    for one in started:
        one.close()


Start = Callable[..., Running]


# ------------------------------------------------------------------------------------------------- Who may, and what


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_a_stranger_is_sent_away_and_counted(start: Start, header: str) -> None:
    running = start()
    assert running.post(message(alert("retrain")), Authorization=header)[0] == 401
    assert running.value("loop_strangers_total") == 1
    assert not alert_webhook.AUDIT.exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no message of Alertmanager"),
        (b'{"version": "3", "alerts": []}', "no message of Alertmanager"),
        (b'{"version": "4", "alerts": {}}', "no message of Alertmanager"),
        (message(*[alert()] * 1001), "at most 1,000"),
        (b'{"version": "4", "alerts": [1]}', "alert 0 is no object"),
        (message(alert(labels=[])), "labels is no object of texts"),
        (message(alert(labels={"a": 1})), "labels is no object of texts"),
        (message(alert(annotations={"a": None})), "annotations is no object of texts"),
        (message(alert(), alert(fingerprint="")), "alert 1 has no fingerprint"),
        (message(alert(startsAt=3)), "alert 0 has no startsAt"),
        (message(alert(status="perhaps")), "neither firing nor resolved"),
    ],
)
def test_what_is_no_message_is_refused(start: Start, body: bytes, says: str) -> None:
    running = start()
    status, said = running.post(body)
    assert status == 400
    assert says in said["error"]
    assert not alert_webhook.AUDIT.exists()


def test_other_requests(start: Start) -> None:
    running = start(receiver_body_bytes=100)
    assert running.post(message(alert()))[0] == 413
    assert running.post(b"{}", "/other")[0] == running.post(b"{}", "/alerts/")[0] == 404
    assert running.post(b"{}", "/alerts?action=retrain")[0] == 400
    assert json.loads(running.get("/health/live")) == {"status": "live"}
    for path in ("/health/live", "/metrics"):
        head = urllib.request.Request(f"http://127.0.0.1:{running.port}{path}", method="HEAD")
        assert urllib.request.urlopen(head, timeout=10).read() == b""
    for path, status in (("/", 404), ("/alerts", 405)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            running.get(path)
        assert caught.value.code == status
    connection = HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.putrequest("POST", "/alerts")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()
    assert running.value('loop_requests_total{path="other",status="404"}') == 3


# ------------------------------------------------------------------------------------------------- Slow clients


def connect(running: Running, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    client.sendall(sent)
    return client


HEAD = b"POST /alerts HTTP/1.1\r\nHost: webhook\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: webhook\r\n\r\n"
SIGNED = HEAD + f"Authorization: Bearer {TOKEN}\r\n".encode()


@pytest.mark.parametrize(
    "sent", [b"", b"POST /al", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{", b"GET /metrics HTTP/1.1\r\n"]
)
def test_clients_without_a_token_keep_nobody_out(start: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """More clients than the connection limit each send a part of a request and then nothing."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    running = start()
    slow = [connect(running, sent) for _ in range(50)]
    assert running.post(message(alert("retrain")))[0] == 200
    assert running.value("loop_waiting_actions") >= 0
    for client in slow:
        client.close()


def test_only_connections_without_a_token_make_room_and_the_oldest_first(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    running = start()
    signed = connect(running, SIGNED + b"Content-Length: 2\r\n\r\n")
    until(lambda: [one for one in running.server.server_state.connections if one.authorized])
    first = connect(running, b"")
    others = [connect(running, b"") for _ in range(2)]
    assert first.recv(1) == b""
    signed.sendall(b"{}")
    assert signed.recv(20).startswith(b"HTTP/1.1 400")
    for client in (signed, first, *others):
        client.close()


@pytest.mark.parametrize(
    ("limit", "sent", "then"),
    [
        ("HEAD_SECONDS", b"", b""),
        ("HEAD_SECONDS", HEAD, b""),
        ("IDLE_SECONDS", LIVE, b""),
        ("HEAD_SECONDS", LIVE, b"GET"),
        ("REQUEST_SECONDS", SIGNED + b"Content-Length: 100\r\n\r\n{", b""),
    ],
)
def test_what_does_not_arrive_in_time_is_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes, then: bytes
) -> None:
    monkeypatch.setattr(connections, limit, 0.3)
    with connect(start(), sent) as client:
        received = client.recv(4096) if then else b""
        client.sendall(then)
        while more := client.recv(4096):  # until the webhook closes the connection, long before `timeout`
            received += more
        assert received.startswith(b"HTTP/1.1 200" if sent == LIVE else b"")


def test_a_client_that_sends_a_byte_at_a_time_has_no_more_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with connect(start(), HEAD) as client, pytest.raises(OSError):
        for _ in range(1_000):
            client.sendall(b"a")
            time.sleep(0.02)


def test_a_body_has_a_limited_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_messages, "BODY_SECONDS", 0.2)
    running = start()
    with connect(running, SIGNED + b"Content-Length: 9\r\n\r\n{") as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 408")
    connect(running, SIGNED + b"Content-Length: 9\r\n\r\n{").close()
    assert running.post(message(alert()))[0] == 200


def test_a_head_has_a_limited_size(start: Start) -> None:
    running = start()
    with connect(running, HEAD) as client:
        with contextlib.suppress(OSError):
            for _ in range(1_000):  # a megabyte
                client.sendall(b"X-Much: " + b"x" * 1_000 + b"\r\n")
        until(lambda: not running.server.server_state.connections, 5)
    assert running.post(message(alert()))[0] == 200


def test_a_token_after_the_body_opens_nothing(start: Start) -> None:
    """Trailers of a chunked body are not headers."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n2\r\n{}\r\n0\r\n"
    with connect(start(), chunked + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 401")


def test_many_who_want_metrics_share_one_computation(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running, computed = start(), []
    monkeypatch.setattr(alert_webhook, "_machine", lambda: (computed.append(time.sleep(0.2)), ())[1])
    threads = [threading.Thread(target=running.get, args=("/metrics",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert running.post(message(alert("retrain")))[0] == 200
    for thread in threads:
        thread.join()
    assert 1 <= len(computed) <= 3


# ------------------------------------------------------------------------------------------------- Any input

TEXTS = [
    "\x00",
    "\ud800",
    "\udfff\x00",
    "--help",
    "-",
    "\n",
    "\x1b[31m",
    "'\"`$(id)`",
    "\u202e",
    "%s%n",
    "é\U0001f600",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_of_an_alert_ends_what_carries_out_actions(start: Start, text: str) -> None:
    """Each text in each place; the commands get them as arguments and on their standard input."""
    rule = "{enabled: true, limit: 9, cool_down_minutes: 0}"
    alert_webhook.POLICY.write_text(
        "".join(f"{name}: {rule}\n" for name in ("promote", "roll_back", "add_replica", "tell"))
    )
    words = action_runner.here("package", "true", lambda: 3)
    running = start(lambda one: Command(["true", *words(one).words[1:]], 10, given=words(one).given))
    labels = {"alertname": text, "environment": text, "severity": text, text: text}
    odd = {"labels": labels, "annotations": {"summary": text, "runbook_url": text}, "startsAt": text}
    actions = ("promote", "roll_back", "add_replica")
    alerts = [alert(action, f"{action}{text}", **{**odd, "labels": {**labels, "action": action}}) for action in actions]
    assert running.post(message(*alerts))[0] == 200
    assert running.post(message(*alerts), "/alerts?action=tell")[0] == 200
    assert running.post(message(alert("", f"x{text}", labels={**labels, "action": text})))[0] == 200
    until(lambda: {(action, "done") for action in (*actions, "tell")} <= set(results()))
    until(lambda: running.value("loop_waiting_actions") == 0)
    assert json.loads(running.get("/health/live")) == {"status": "live"}
    restarted = Receiver(ReceiverSettings(alert_token=TOKEN))
    assert restarted.deciding.open == {}
    assert running.post(message(*alerts))[1] == {"decided": [], "refused": []}, "the same alerts again"


def test_what_an_earlier_release_wrote_is_carried_out(start: Start) -> None:
    """Its audit log may hold a NUL byte, which ended the thread in that release."""
    entry = {
        "at": "2026-03-04T12:00:00+00:00",
        "id": "a",
        "action": "add_replica",
        "result": "decided",
        "why": "\x00: \ud800",
    }
    alert_webhook.AUDIT.write_text(json.dumps({**entry, "environment": "\x00", "says": "\x00"}) + "\n")
    words = action_runner.here("package", "true", lambda: 3)
    start(lambda one: Command(["true", *words(one).words[1:]], 10))
    until(lambda: ("add_replica", "done") in results())


def test_a_policy_that_breaks_after_the_decision_is_told_and_waited_for(start: Start) -> None:
    alert_webhook.POLICY.write_text(ALL_ON)
    held = threading.Event()

    def command(decision: policy_engine.Decision) -> Command:
        held.wait(10)
        if decision.action == "add_replica":
            alert_webhook.load_policy()
        return Command(["true"], 10)

    running = start(command)
    running.post(message(alert("add_replica")))
    alert_webhook.POLICY.write_text("retrain: {enabled: perhaps}\n")
    held.set()
    until(lambda: ("add_replica", "waits") in results() and ("tell", "done") in results())
    alert_webhook.POLICY.write_text(ALL_ON)
    until(lambda: ("add_replica", "done") in results())
    assert results().count(("add_replica", "begun")) == 1


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("embedded null byte"), MemoryError()])
def test_an_error_of_one_action_leaves_the_others(
    start: Start, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    alert_webhook.POLICY.write_text(ALL_ON)
    run = action_runner.subprocess.Popen

    def popen(words: list[str], **more: Any) -> Any:
        if words == ["broken"]:
            raise error
        return run(words, **more)

    monkeypatch.setattr(action_runner.subprocess, "Popen", popen)
    running = start(lambda one: Command(["broken" if one.action == "promote" else "true"], 10))
    running.post(message(alert("promote"), alert("roll_back")))
    until(lambda: {("promote", "failed"), ("roll_back", "done"), ("tell", "done")} <= set(results()))
    assert type(error).__name__ in next(one["why"] for one in record() if one["result"] == "failed") or "null" in str(
        error
    )


def test_an_error_in_the_bookkeeping_leaves_the_others(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start()
    write = running.receiver.deciding.write

    def once(decision: policy_engine.Decision, *more: str) -> None:
        monkeypatch.setattr(running.receiver.deciding, "write", write)
        raise KeyError("\ud800")

    monkeypatch.setattr(running.receiver.deciding, "write", once)
    running.post(message(alert("retrain")))
    until(lambda: ("retrain", "done") in results())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_ends_the_process(start: Start) -> None:
    """The supervisor restarts the process, which then resumes the open decisions."""

    def command(decision: policy_engine.Decision) -> Command:
        raise SystemExit

    running = start(command)
    running.server.on_tick, on_tick = never, running.server.on_tick  # type: ignore[method-assign]
    running.post(message(alert("retrain")))
    until(lambda: not running.receiver.alive)
    with pytest.raises(urllib.error.HTTPError) as caught:
        running.get("/health/live")
    assert caught.value.code == 503
    running.server.on_tick = on_tick  # type: ignore[method-assign]
    running.serving.join(10)
    assert not running.serving.is_alive()
    start()
    until(lambda: ("retrain", "done") in results())


async def never(counter: int) -> bool:
    return False


def test_metrics_of_any_report(start: Start) -> None:
    """The report is JSON, but has text that is not UTF-8, or an integer that is too large for a float."""
    running = start()
    Paths.LOOK.parent.mkdir(parents=True)
    metrics = {"\ud800": 0.5, "auc": 10**400, "brier": 1e400}
    report = {"at": "0001-01-01T00:00:00+14:00", "performance": {"expected": metrics}, "version": 3}
    Paths.LOOK.write_text(json.dumps(report))
    assert running.value('model_metric_expected{metric="?"}') == 0.5
    assert running.value("monitor_report_holds") == 1


# ------------------------------------------------------------------------------------------------- Without a token


@pytest.mark.parametrize("more", [{"service_environment": "prod"}, {"receiver_host": "0.0.0.0"}])
def test_without_a_token_it_serves_development_alone(more: dict[str, str], start: Start) -> None:
    with pytest.raises(ProjectError, match="ALERT_TOKEN"):
        Receiver(ReceiverSettings(**more))
    assert start(alert_token="").post(message(alert("retrain")), Authorization="")[0] == 200


# ------------------------------------------------------------------------------------------------------- What is done


def test_a_storm_gives_one_training_and_each_of_the_others_its_reason(start: Start) -> None:
    running = start()
    for number in range(20):
        assert running.post(message(alert("retrain", f"f{number}")))[0] == 200
    until(lambda: ("retrain", "done") in results())
    assert [one.action for one in running.done] == ["retrain"]
    lines = [one for one in record() if "asked" in one]
    assert [one["allowed"] for one in lines] == [True] + [False] * 19
    assert {one["rule"] for one in lines[1:]} == {"cool_down"}
    assert lines[0]["asked"][0]["fingerprint"] == "f0" and "ModelWorse" in lines[0]["why"]
    assert running.value('loop_actions_total{action="retrain",result="refused"}') == 19
    assert running.value('loop_last_allowed_timestamp_seconds{action="retrain"}') == pytest.approx(time.time(), abs=60)


def test_alerts_of_one_message_are_one_decision(start: Start) -> None:
    running = start()
    alerts = [alert("retrain", f"f{number}") for number in range(20)]
    running.post(message(*alerts))
    running.post(message(*alerts), "/alerts?action=tell")
    until(lambda: len(running.done) == 2)
    assert sorted(one.action for one in running.done) == ["retrain", "tell"]
    said = next(one.says for one in running.done if one.action == "tell")
    assert said.count("[firing] ModelWorse - It is worse.") == 20


def test_the_same_alert_is_not_answered_twice(start: Start) -> None:
    alert_webhook.POLICY.write_text("retrain: {limit: 9, cool_down_minutes: 0}\n")
    running = start()
    first = running.post(message(alert("retrain")))[1]
    again = running.post(message(alert("retrain")))[1]
    assert len(first["decided"]) == 1 and again == {"decided": [], "refused": []}
    later = running.post(message(alert("retrain", startsAt="2026-03-05T12:00:00Z")))[1]
    assert len(later["decided"]) == 1
    assert running.post(message(alert("retrain", "g", status="resolved")))[1] == {"decided": [], "refused": []}
    assert running.post(message(alert(""), alert("", "g")))[1] == {"decided": [], "refused": []}  # asks for nothing
    for status in ("firing", "resolved", "resolved"):
        running.post(message(alert("", status=status)), "/alerts?action=tell")
    until(lambda: results().count(("tell", "done")) == 2)


def test_what_was_refused_is_asked_again_and_noted_once(start: Start) -> None:
    running = start()
    for _ in range(3):
        said = running.post(message(alert("roll_back")))[1]
        assert said["refused"][0]["rule"] == "enabled"
    assert results() == [("roll_back", "refused")]
    alert_webhook.POLICY.write_text(ALL_ON)
    running.post(message(alert("roll_back")))
    until(lambda: ("roll_back", "done") in results())
    assert running.done[0].environment == "prod"


def test_a_policy_that_cannot_be_used_lets_nothing_happen_but_telling(start: Start) -> None:
    running = start()
    alert_webhook.POLICY.write_text("retrain: {enabled: perhaps}\n")
    said = running.post(message(alert("retrain")))[1]
    assert said["refused"][0]["rule"] == "policy" and "line 1" in said["refused"][0]["why"]
    running.post(message(alert("retrain")), "/alerts?action=tell")
    until(lambda: ("tell", "done") in results())
    assert running.value("loop_policy_holds") == 0
    with pytest.raises(ProjectError, match="line 1"):
        Receiver(ReceiverSettings(alert_token=TOKEN))


def test_a_promotion_is_done_where_the_policy_lets_it(start: Start) -> None:
    running = start()
    assert running.post(message(alert("promote")))[1]["refused"][0]["rule"] == "enabled"
    alert_webhook.POLICY.write_text(ALL_ON)
    running.post(message(alert("promote")))
    until(lambda: ("promote", "done") in results())
    assert running.post(message(alert("promote", "g")))[1]["refused"][0]["rule"] == "cool_down"
    assert [one.action for one in running.done] == ["promote"]


def test_a_promotion_that_is_no_longer_proposed_is_told_and_left(start: Start) -> None:
    alert_webhook.POLICY.write_text(ALL_ON)
    refuses = "echo 'error: reports/monitor/monitor.json proposes no promotion'; exit 1"
    running = start(lambda one: Command(["sh", "-c", refuses if one.action == "promote" else "true"], 10))
    running.post(message(alert("promote")))
    until(lambda: ("tell", "done") in results())
    assert ("promote", "failed") in results() and "proposes no promotion" in running.done[-1].says


def test_where_there_are_no_replicas_none_is_added(start: Start) -> None:
    Path("ci/replicas.py").unlink()
    alert_webhook.POLICY.write_text(ALL_ON)
    assert start().post(message(alert("add_replica")))[1]["refused"][0]["rule"] == "impossible"


def test_what_nobody_knows_is_one_label(start: Start) -> None:
    running = start()
    for number in range(5):
        running.post(message(alert(f"made up {number}", str(number))))
    assert running.value('loop_actions_total{action="other",result="refused"}') == 5
    assert "made up" not in running.get("/metrics")


def test_what_cannot_be_written_down_is_not_done(start: Start) -> None:
    running = start()
    alert_webhook.AUDIT.mkdir()
    status, said = running.post(message(alert("retrain")))
    assert status == 503 and "nothing is done" in said["error"]
    alert_webhook.AUDIT.rmdir()
    assert running.post(message(alert("retrain")))[0] == 200
    until(lambda: ("retrain", "done") in results())


def test_a_disk_that_fills_meanwhile_does_not_have_it_done_twice(start: Start) -> None:
    """It is done, and then cannot be written down; when there is room again that is made up for."""
    running = start(
        lambda decision: Command(["sh", "-c", "mv monitoring/audit.jsonl kept && mkdir monitoring/audit.jsonl"], 10)
    )
    running.post(message(alert("retrain")))
    until(alert_webhook.AUDIT.is_dir)
    time.sleep(0.2)
    alert_webhook.AUDIT.rmdir()
    Path("kept").rename(alert_webhook.AUDIT)
    until(lambda: ("retrain", "done") in results())
    assert results() == [("retrain", "decided"), ("retrain", "begun"), ("retrain", "done")]


# ----------------------------------------------------------------------------------------- What does not work at once


def test_what_may_work_later_is_told_and_tried_again(start: Start) -> None:
    again = "echo tried >>tries; test $(wc -l <tries) -ge 3 || { echo no server; exit 75; }"
    running = start(
        lambda one: Command(["sh", "-c", again if one.action == "retrain" else "true"], 10, repeatable=True)
    )
    running.post(message(alert("retrain")))
    until(lambda: ("retrain", "done") in results() and ("tell", "done") in results())
    assert Path("tries").read_text().count("tried") == 3
    assert [result for action, result in results() if action == "retrain"] == ["decided", "begun", "waits", "done"]
    told = next(one for one in running.done if one.action == "tell")
    assert "waits, and is tried again" in told.says and "no server" in told.says


def test_what_fails_is_told_and_left(start: Start) -> None:
    alert_webhook.POLICY.write_text(ALL_ON)
    running = start(lambda one: Command(["sh", "-c", "true" if one.action == "tell" else "echo broken; exit 2"], 10))
    running.post(message(alert("roll_back")))
    until(lambda: ("tell", "done") in results())
    assert ("roll_back", "failed") in results()
    assert "roll_back failed" in running.done[-1].says and "broken" in running.done[-1].says
    assert running.value('loop_actions_total{action="roll_back",result="failed"}') == 1
    assert running.value("loop_waiting_actions") == 0


def test_a_rollback_waits_for_the_run_that_goes_on(start: Start) -> None:
    alert_webhook.POLICY.write_text(ALL_ON)
    busy = f"test -e free || (touch free; exit {InProgressError.exit_code})"
    running = start(lambda one: Command(["sh", "-c", busy if one.action == "roll_back" else "true"], 10))
    running.post(message(alert("roll_back")))
    until(lambda: ("roll_back", "done") in results())
    assert ("roll_back", "waits") in results()


def test_a_command_that_hangs_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_runner, "STOP_SECONDS", 0.2)
    hang = "trap '' TERM; echo $$ >pid; while true; do sleep 0.05; done"
    alert_webhook.POLICY.write_text(ALL_ON)
    running = start(lambda one: Command(["sh", "-c", hang if one.action == "roll_back" else "true"], 0.3))
    running.post(message(alert("roll_back")))
    until(lambda: ("tell", "done") in results())
    assert next(one["why"] for one in record() if one["result"] == "failed").startswith("took longer than 0.3 s")
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)


def test_a_command_that_is_not_there_and_one_that_never_works(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_runner, "GIVE_UP_SECONDS", 0.3)
    alert_webhook.POLICY.write_text(ALL_ON)
    words = {"roll_back": ["not-there"], "retrain": ["sh", "-c", "exit 75"]}
    running = start(lambda one: Command(words.get(one.action, ["true"]), 10))
    running.post(message(alert("roll_back"), alert("retrain")))
    until(lambda: {("roll_back", "failed"), ("retrain", "failed")} <= set(results()))
    why = {one["action"]: one["why"] for one in record() if one["result"] == "failed"}
    assert "cannot be started" in why["roll_back"] and "given up after" in why["retrain"]


def test_a_slow_action_holds_up_neither_answers_nor_notices(start: Start) -> None:
    running = start(lambda one: Command(["sleep", "2" if one.action == "retrain" else "0"], 30))
    running.post(message(alert("retrain")))
    running.post(message(alert("")), "/alerts?action=tell")
    until(lambda: ("tell", "done") in results())
    assert ("retrain", "done") not in results()


# ------------------------------------------------------------------------------------------------------- Killed


def test_what_was_decided_is_done_after_a_restart(start: Start) -> None:
    """As a process leaves it that is killed after a decision, and in the middle of an action."""
    first = Receiver(ReceiverSettings(alert_token=TOKEN))  # decides, and does nothing
    alert_webhook.POLICY.write_text(ALL_ON)
    first.take(message(alert("retrain")), "")
    begun = first.deciding.decide(policy_engine.read_alerts(json.loads(message(alert("roll_back")))))[0][0]
    first.deciding.write(begun, "begun")
    with alert_webhook.AUDIT.open("a") as file:
        file.write('{"at": "20')

    running = start()
    until(lambda: {("retrain", "done"), ("roll_back", "unknown"), ("tell", "done")} <= set(results_so_far()))
    assert sorted(one.action for one in running.done if one.action != "roll_back") == ["retrain", "tell"]
    assert ("roll_back", "done") not in results_so_far()  # it may have happened: a person has to look
    assert "nobody knows how far it came" in next(one.says for one in running.done if one.action == "tell")
    assert running.post(message(alert("retrain")))[1] == {"decided": [], "refused": []}
    assert running.post(message(alert("retrain", "g")))[1]["refused"][0]["rule"] == "cool_down"


def results_so_far() -> list[tuple[str, str]]:
    return [(one["action"], one["result"]) for one in policy_engine.Audit(alert_webhook.AUDIT).entries()]


def test_no_clock_has_a_thing_done_again() -> None:
    """The clock jumps back and ahead, each time over a restart: what was allowed holds, and what may be done stays little."""
    now, days = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC), (0, -400, -1, 0, 365, 366, -400, 2)
    done = []
    for number, day in enumerate(days):
        at = now + dt.timedelta(days=day)
        one = policy_engine.Deciding(
            alert_webhook.load_policy, policy_engine.Audit(alert_webhook.AUDIT), lambda at=at: at
        )  # type: ignore[misc]
        same, new = (
            policy_engine.read_alerts(json.loads(message(alert("retrain", name)))) for name in ("f", f"g{number}")
        )
        done += [day for _ in one.decide(same)[0]]
        done += [day for _ in one.decide(new)[0]]
    assert done == [0, 365, 366]  # the first; a year ahead one more, and there a day later


def test_lines_of_others_say_nothing(start: Start) -> None:
    lines = [
        {"at": "x"},
        {"at": "2026-01-01", "id": 1},
        {"at": "no time", "id": "a", "action": "retrain", "result": "decided"},
    ]
    alert_webhook.AUDIT.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert start().receiver.deciding.open == {}


# ------------------------------------------------------------------------------------------------------- The process


def test_how_things_are_done_here() -> None:
    command = action_runner.here("python", lambda: 3)
    of = {action: command(policy_engine.Decision("id", action, "Model$(x)`y`\"z\": 'why'", "says", "prod"))
          for action in ("retrain", "promote", "roll_back", "add_replica", "tell")}  # fmt: skip
    assert all(list(one.words[:3]) == ["python", "-m", "copier_mlops"] for one in of.values())
    assert of["retrain"].words[3:] == ["request-training", "--key=id"]
    assert of["promote"].words[3] == "promote-proposed"  # the version is the report's, whatever an alert says
    assert of["roll_back"].words[3] == "rollback"
    assert of["add_replica"].words[3:6] == ["add-replica", "3", "--env=prod"]
    for action in ("promote", "roll_back", "add_replica"):
        assert of[action].words[-1].startswith("--reason=Model")
        assert not set(of[action].words[-1]) & set("$`\"'\\")
    assert of["tell"].given == "says"
    assert [one for one in of if of[one].repeatable] == ["retrain", "tell"]


def test_metrics_of_a_report(start: Start) -> None:
    running = start()
    assert "monitor_last_look" not in running.get("/metrics")
    Paths.LOOK.parent.mkdir(parents=True)
    Paths.LOOK.write_text("{")
    assert running.value("monitor_report_holds") == 0
    Paths.LOOK.write_text("{}")
    assert running.value("monitor_report_holds") == 1
    assert running.value("host_disk_free_bytes") > 0


def test_metrics_of_the_stack(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [supervisor.ProcessState("worker", False, 1e9), supervisor.ProcessState("mlflow", True, 2e9)]
    monkeypatch.setattr(alert_webhook, "process_states", {"unix:///there": states}.get)
    running = start(supervisor_server_url="unix:///there")
    assert [running.value('loop_process_up{process="' + name + '"}') for name in ("worker", "mlflow")] == [0, 1]
    assert running.value('loop_process_start_time_seconds{process="worker"}') == 1e9
    assert "loop_process" not in start(receiver_port=0).get("/metrics")


def test_the_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    alert_webhook.POLICY.write_text("retrain: 3\n")
    assert mlops("alert-webhook") == 1
    assert "line 1" in capsys.readouterr().err
    alert_webhook.POLICY.unlink()
    monkeypatch.setenv("RECEIVER_PORT", "many")
    assert mlops("alert-webhook") == 2
    monkeypatch.setenv("RECEIVER_PORT", "0")
    threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM]).start()
    assert mlops("alert-webhook") == 0
    assert "listening at 127.0.0.1:" in capsys.readouterr().out
    running = Running()
    monkeypatch.setenv("RECEIVER_PORT", str(running.port))
    assert mlops("alert-webhook") == 1
    assert "cannot listen" in capsys.readouterr().err
    running.close()
    monkeypatch.setenv("SERVICE_ENVIRONMENT", "prod")
    assert mlops("alert-webhook") == 1
