"""What `make up` writes and starts, with servers that only pretend: the template's own tests do it with real ones."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
import yaml

from copier_mlops import _ports
from copier_mlops.automation import monitoring_stack, supervision, supervisor
from copier_mlops.automation.monitoring_stack import UpError
from copier_mlops.automation.supervision import Process, SupervisionError, Supervisor
from copier_mlops.deploy import host, scrape_targets

from ..conftest import mlops
from ..fixture_project import ROOT

SERVER = """
import http.server, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing but what is read, and no settings of whoever runs this."""
    monkeypatch.chdir(tmp_path)
    for name in ("pyproject.toml", "monitoring/alertmanager/alertmanager.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in ("PORTS", "SERVICE_PORT", "ENGINE", "COMPOSE", "ALERT_TOKEN", "NOTIFY_URLS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monitoring_stack.PLACE.mkdir()
    return tmp_path


@pytest.fixture
def one(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Settings that start a worker and one server, which pretends to be the webhook."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = {
        "receiver": Process("receiver", [sys.executable, "-c", SERVER, str(port)]),
        "worker": Process("worker", ["sh", "-c", WORKER], ready="begun with []", more={"ODD": ODD}),
    }
    monkeypatch.setattr(monitoring_stack, "processes", lambda *given: list(words.values()))
    monkeypatch.setattr(supervision, "SECONDS_TO_LAST", 0)
    monkeypatch.setattr(supervision, "RESTARTS", 0)
    monkeypatch.setenv("ENGINE", "process")  # which is not for what an alert has done
    yield {"ENGINE": "process", "RECEIVER_PORT": str(port)}
    monitoring_stack.down({})


ODD = '%(here)s ; # "it\'s", $HOME\n[program:x]'
"""Text that the configuration of a supervisor would misread."""
WORKER = 'printf "%s" "$ODD" > odd; sleep 60 & echo "begun with [$ENGINE] ; # %(here)s $!"; wait'


def pids() -> dict[str, int]:
    return {name: Supervisor(monitoring_stack.PLACE).pid(name) for name in ("receiver", "worker")}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def children() -> list[int]:
    """The other processes whose current folder is that of this test."""
    here = str(Path.cwd())
    found = psutil.process_iter(["cwd", "status"])
    zombie = psutil.STATUS_ZOMBIE
    return [
        one.pid for one in found if one.info["cwd"] == here and one.pid != os.getpid() and one.info["status"] != zombie
    ]


def test_what_is_asked_is_what_is_deployed(place: Path) -> None:
    assert scrape_targets.services({}) == {}
    service = place / "src/project/serving/online.py"
    service.parent.mkdir(parents=True)
    service.touch()
    assert scrape_targets.services({}) == {"dev": [8000]}
    assert scrape_targets.services({"SERVICE_PORT": "8005", "SERVICE_ENVIRONMENT": "prod"}) == {"prod": [8005]}
    for name, live in (("dev", None), ("prod", {"replicas": 3})):
        (place / f".deploy/{name}").mkdir(parents=True)
        (place / f".deploy/{name}/state.json").write_text(json.dumps({"live": live}))
    (place / "deploy").mkdir()
    (place / "deploy/prod.env").write_text("# ports\nPORTS=8140\nREPLICAS=2\n")
    assert scrape_targets.services({}) == {"prod": [8141, 8142, 8143, 8151, 8152, 8153]}
    scrape_targets.write({"RECEIVER_PORT": "7"})
    asked = {group["labels"]["job"]: group for group in json.loads(scrape_targets.FILE.read_text())}
    assert asked["service"]["labels"]["environment"] == "prod" and len(asked["service"]["targets"]) == 6
    assert asked["receiver"]["targets"] == ["127.0.0.1:7"]
    assert json.loads(scrape_targets.ALERTMANAGERS.read_text())[0]["targets"] == ["127.0.0.1:9093"]
    assert _ports.servers({"GRAFANA_PORT": "3001"}) == {**_ports.SERVERS, "grafana": 3001}


def test_what_alertmanager_reads() -> None:
    where = {**_ports.SERVERS, "receiver": 7}
    token = monitoring_stack.prepare({}, where)
    assert len(token) == 64 and monitoring_stack.prepare({}, where) == token  # made once
    assert monitoring_stack.prepare({"ALERT_TOKEN": "given"}, where) == "given"  # pragma: allowlist secret
    assert (monitoring_stack.ETC / "alert-token").read_text() == "given"
    assert (monitoring_stack.ETC / "alert-token").stat().st_mode & 0o077 == 0
    monitoring_stack.PERSON.write_text("email_configs: [{to: on-call@example.com}]\n")
    monitoring_stack.prepare({}, where)
    loop, person = yaml.safe_load((monitoring_stack.ETC / "alertmanager.yml").read_text())["receivers"]
    assert loop["webhook_configs"][0]["url"] == "http://127.0.0.1:7/alerts" and "email_configs" not in loop
    assert person["webhook_configs"][0]["url"] == "http://127.0.0.1:7/alerts?action=tell"
    assert person["email_configs"] == [{"to": "on-call@example.com"}]


def test_up_starts_what_is_missing_and_down_ends_it(one: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    monitoring_stack.up(one)
    first = pids()
    assert all(first.values()) and Path("odd").read_text() == ODD
    Supervisor(monitoring_stack.PLACE).stop("worker")
    monitoring_stack.up({**one, "ENGINE": ""})  # what runs says how
    assert pids()["receiver"] == first["receiver"]
    assert pids()["worker"] not in (0, first["worker"])
    assert f"http://127.0.0.1:{one['RECEIVER_PORT']}" in capsys.readouterr().out
    for name in ("supervisor", "supervisor/processes.json", "etc/alert-token"):
        assert not (monitoring_stack.PLACE / name).stat().st_mode & 0o077, name
    with pytest.raises(UpError, match="`make down` ends that"):
        monitoring_stack.up({**one, "ENGINE": "containers"})
    monitoring_stack.down({})
    assert not children() and not Supervisor(monitoring_stack.PLACE).runs()


def test_a_process_that_ends_is_started_again(one: dict[str, str]) -> None:
    monitoring_stack.up(one)
    first = pids()
    status = [
        sys.executable,
        "-m",
        "supervisor.supervisorctl",
        "-c",
        str(monitoring_stack.PLACE / "supervisor/supervisord.conf"),
        "status",
    ]
    assert subprocess.run(status, capture_output=True, text=True, check=False).stdout.count("receiver") == 1
    os.kill(first["receiver"], 9)
    until(lambda: pids()["receiver"] not in (0, first["receiver"]))
    until(lambda: monitoring_stack.answers(int(one["RECEIVER_PORT"]), "/health/live"))
    assert pids()["worker"] == first["worker"]


def test_what_is_down_is_a_metric(one: dict[str, str]) -> None:
    """The webhook reads the states from the supervisor that started it; ProcessDown is the alert."""
    states = supervisor.process_states
    address = Supervisor(monitoring_stack.PLACE)._url
    assert states(address) == [] == states("unix:///nowhere")
    monitoring_stack.up(one)
    Supervisor(monitoring_stack.PLACE).stop("worker")
    found = {state.name: state for state in states(address)}
    assert {name: state.up for name, state in found.items()} == {"receiver": True, "worker": False}
    assert abs(found["receiver"].started - time.time()) < 600


def test_what_has_other_settings_is_restarted_and_nothing_else(
    one: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitoring_stack.up(one)
    first = pids()
    server, worker = monitoring_stack.processes()  # type: ignore[call-arg]
    changed = Process("worker", worker.words, worker.ready, {"ODD": "other"})
    monkeypatch.setattr(monitoring_stack, "processes", lambda *given: [server, changed])
    monitoring_stack.up(one)
    assert pids()["receiver"] == first["receiver"] and pids()["worker"] != first["worker"]
    assert Path("odd").read_text() == "other"
    monitoring_stack.up({**one, "ONLY": "receiver"})
    assert all(pids().values())  # what was not chosen goes on


def test_what_a_killed_supervisor_leaves_is_ended(one: dict[str, str]) -> None:
    monitoring_stack.up(one)
    for again in (lambda: monitoring_stack.up(one), lambda: monitoring_stack.down({})):
        before = children()
        [supervisor] = [pid for pid in before if "supervisor.supervisord" in psutil.Process(pid).cmdline()]
        os.kill(supervisor, 9)
        psutil.Process(supervisor).wait()
        again()
        assert not set(before) & set(children())
    assert not children()


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    for name in ("x" * 100, "a b;c", "é"):
        listens = Supervisor(tmp_path / name)._socket
        assert len(str(listens)) < 90 and listens.parent.stat().st_mode & 0o077 == 0
    assert Supervisor(Path("/p"))._socket == Path("/p/supervisor/socket")


def test_a_folder_of_others_is_not_taken_for_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision.os, "geteuid", lambda: os.getpid() + 10_000_000)
    folder = Path(f"/tmp/supervisor-{os.getpid() + 10_000_000}")
    try:
        with pytest.raises(SupervisionError, match="folder of this account alone"):
            Supervisor(tmp_path / ("x" * 100))
    finally:
        folder.rmdir()


def test_servers_of_this_machine_are_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert monitoring_stack.answers(server.server_port, "/")


def test_what_somebody_else_started_is_left_alone(one: dict[str, str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (monitoring_stack.PLACE / "worker.pid").write_text(f"{other.pid} Mon Jan  1 00:00:00 2024\n")
        (monitoring_stack.PLACE / "mlflow.pid").write_text("1\n")
        monitoring_stack.down({})
        assert other.poll() is None
        other.kill()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(one["RECEIVER_PORT"])))
        taken.listen()
        with pytest.raises(UpError, match="is taken by something else; RECEIVER_PORT="):
            monitoring_stack.up(one)


def test_what_an_earlier_release_started_is_ended(one: dict[str, str]) -> None:
    earlier = host.begin(monitoring_stack.PLACE, "worker", ["sleep", "60"], {"PATH": os.environ["PATH"]})
    monitoring_stack.up(one)
    assert earlier.wait(10) == -15 and not list(monitoring_stack.PLACE.glob("*.pid"))


def test_what_does_not_start_says_why_and_takes_the_others_along(
    one: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, _ = monitoring_stack.processes()  # type: ignore[call-arg]
    bad = Process("worker", ["sh", "-c", "echo no such database; exit 1"], ready="begun")
    monkeypatch.setattr(supervision, "SECONDS_TO_LAST", 5)
    monkeypatch.setattr(monitoring_stack, "processes", lambda *given: [good, bad])
    with pytest.raises(UpError, match="worker ends again and again:\nno such database"):
        monitoring_stack.up(one)
    assert not children()
    monkeypatch.setattr(monitoring_stack, "processes", lambda *given: [good])
    monitoring_stack.up(one)
    first = pids()["receiver"]
    monkeypatch.setattr(monitoring_stack, "processes", lambda *given: [good, bad])
    with pytest.raises(UpError, match="worker ends again and again"):
        monitoring_stack.up(one)
    assert pids() == {"receiver": first, "worker": 0}  # what ran before goes on


ENGINE = """#!/bin/sh
echo "$*" >> asked
case "$*" in *inspect*) echo restarting 3;; *logs*) echo no such flag;; esac
"""


def test_a_container_that_restarts_again_and_again_is_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "engine").write_text(ENGINE)
    (place / "engine").chmod(0o755)
    monkeypatch.setenv("DOCKER", str(place / "engine"))
    monkeypatch.setenv("COMPOSE", f"{place / 'engine'} compose")
    monkeypatch.setattr(monitoring_stack, "processes", lambda *given: [])
    monkeypatch.setattr(monitoring_stack, "answers", lambda port, path: False)
    with pytest.raises(UpError, match=r"prometheus restarted 3 times\. The last lines of container .*:\nno such flag"):
        monitoring_stack.up({"ENGINE": "containers"})
    last = (place / "asked").read_text().splitlines()[-1]
    assert last.startswith("compose -p") and last.endswith("down")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert mlops("monitoring-up") == 1
    assert "there is neither docker nor podman" in capsys.readouterr().err
    monkeypatch.setenv("ENGINE", "process")
    assert mlops("monitoring-up") == 1
    assert "apt-get install prometheus prometheus-alertmanager" in capsys.readouterr().err
    monkeypatch.setenv("ENGINE", "magic")
    assert mlops("monitoring-up") == 1
    assert "ENGINE is magic" in capsys.readouterr().err


def test_looks_again_and_again_and_compacts_each_day(tmp_path: Path) -> None:
    """A python and a sleep that note what they are asked; the third day is not waited for."""
    for name, more in (("python", ""), ("sleep", '[ "$(grep -c sleep said)" -lt 5 ] || exec kill $PPID')):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> said\n{more}\n')
        (tmp_path / name).chmod(0o755)
    words = ["/bin/sh", "-c", monitoring_stack.AGAIN, str(tmp_path / "python"), "720", "look", "compact"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(words, cwd=tmp_path, env={"PATH": path}, check=False, capture_output=True, text=True)
    assert "a look each 720 minutes" in done.stdout
    look, compact, sleep = "python look", "python compact", "sleep 43200"
    day = [look, compact, sleep, look, sleep]
    assert (tmp_path / "said").read_text().splitlines() == [*day, *day, look, compact, sleep]


def test_what_another_host_serves_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"APP": ".venv/bin/flights"}
    names = [one.name for one in monitoring_stack.processes(given, _ports.SERVERS, "token", containers=True)]
    assert names == ["mlflow", "prefect", "worker", "monitor", "receiver"]
    given["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "of .env"
    server = next(
        one
        for one in monitoring_stack.processes(given, _ports.SERVERS, "token", containers=True)
        if one.name == "prefect"
    )
    assert server.more["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == "of .env"
    given |= {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "PREFECT_API_URL": "http://prefect:4200/api"}
    worker, _, receiver = monitoring_stack.processes(given, _ports.SERVERS, "token", containers=True)
    assert worker.more["PREFECT_API_URL"] == receiver.more["PREFECT_API_URL"] == "http://prefect:4200/api"
    assert [Path(receiver.words[0]).name, *receiver.words[1:]] == ["flights", "alert-webhook"]
    assert receiver.more["ALERT_TOKEN"] == "token"  # pragma: allowlist secret
