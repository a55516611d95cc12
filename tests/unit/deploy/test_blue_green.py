"""What a deployment decides, with pretended replicas and a pretended proxy: the template's own tests use real ones."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from copier_mlops import ProjectError
from copier_mlops._audit_log import Audit
from copier_mlops.deploy import blue_green, image, proxy, rollout_checks, runtimes, ssh
from copier_mlops.deploy.blue_green import DeployError, DeployInProgressError, Host, Limits
from copier_mlops.deploy.host import EngineError
from copier_mlops.deploy.runtimes import Release
from copier_mlops.lifecycle import registration
from copier_mlops.settings import Settings

from ..conftest import mlops
from ..fixture_project import ROOT

PORTS = 20_000 + os.getpid() % 1000 * 20  # other tests run at the same time
COUNTED = {
    "errors": 'http_requests_total{path="/predict",status="500"} 7.0\n',
    "used": 'http_requests_total{path="/predict",status="200"} 1000.0\n',
    "refuses": 'http_requests_total{path="/predict",status="200"} 30.0\nhttp_requests_total{path="/predict",status="422"} 20.0\n',
    "slow": 'http_requests_total{path="/predict",status="200"} 30.0\n'
    'http_request_duration_seconds_bucket{path="/predict",le="0.5"} 2.0\n'
    'http_request_duration_seconds_bucket{path="/predict",le="+Inf"} 30.0\n',
}
"""/metrics of a replica once it takes requests, by the fault that it has."""
EXPECTED = {"columns": ["name", "number"], "rows": [["a", 1], ["b", None]], "answers": [0.25, 0.5]}


class Replica:
    """What stands for a replica: an HTTP server that answers as it is told."""

    def __init__(self, port: int, release: Release, broken: str) -> None:
        class Answers(BaseHTTPRequestHandler):
            def say(self, content: object, status: int = 200) -> None:
                data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                model = {"version": release.version, "digest": "other" if broken == "other" else release.digest}
                counted = COUNTED.get(broken, "") if replica.seen or broken == "used" else ""
                replica.seen = self.path == "/metrics" or replica.seen
                if broken == "unavailable" and self.path == "/model":
                    self.say("", 503)
                    return
                self.say({"/model": model, "/metrics": counted}.get(self.path, "{}"))

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if (broken == "busy" and replica.seen) or (broken == "busy first" and not replica.refused):
                    replica.refused = True
                    self.say({"detail": "300 rows wait"}, 429)
                    return
                if broken == "ids" and "name" in asked[0]:
                    self.say({"faults": [{"row": 0, "field": "name"}, {"row": 1, "field": "name"}]}, 422)
                    return
                more = 1e-3 if broken == "wrong" else 0
                names = ["b", "a"] if broken == "mixed" else [row.get("name", "made up") for row in asked]
                scores = [value + more for value in EXPECTED["answers"]]  # type: ignore[operator]
                self.say(
                    [
                        {"id": name, "score": score, "version": release.version}
                        for name, score in zip(names, scores, strict=True)
                    ]
                )

            def log_message(self, *arguments: object) -> None:
                pass

        self.seen = self.refused = False
        self.release, replica = release, self
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


class Pretending:
    """What stands for an engine."""

    name = "processes"
    proxied = reloads = True

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self.broken, self.dropped = "", []  # type: ignore[var-annotated]
        self.proxy: PretendedProxy

    def start(self, release: Release, slot: proxy.Slot) -> None:
        if self.broken != "dies":
            self.replicas[slot.name] = Replica(slot.port, release, self.broken)

    def stop(self, slot: proxy.Slot) -> None:
        if slot.name in self.replicas:
            server = self.replicas.pop(slot.name).server
            server.shutdown()
            server.server_close()

    def alive(self, name: str) -> bool:
        return name in self.replicas

    def ended(self, name: str) -> bool:
        return not self.alive(name)

    def there(self) -> set[str]:
        return set(self.replicas)

    def log(self, name: str) -> str:
        return "no such model"

    def read(self, release: Release, slot: proxy.Slot, name: str) -> Any:
        return EXPECTED

    def has(self, release: Release) -> bool:
        return release not in self.dropped

    def drop(self, release: Release) -> None:
        self.dropped.append(release)

    def serve(self) -> None:
        self.proxy.started += 1

    def reload(self) -> None:
        self.proxy.started += 1

    def quit(self) -> None:
        pass


class PretendedProxy:
    """The responses of HAProxy to the commands of `ci.proxy`."""

    pid = 0

    def __init__(self, servers: str) -> None:
        self.states = {line.split()[1]: "MAINT" for line in servers.splitlines() if line.startswith("  server ")}
        self.started = 1

    def do(self, command: str) -> str:
        words = command.split()
        if words[1] == "info":
            return f"Name: HAProxy\nPid: {self.pid or self.started}\n"
        if words[1] == "stat":
            return (
                "\n".join(["# svname,status,scur", *(f"{name},{state},0" for name, state in self.states.items())])
                + "\n"
            )
        name = words[2].rpartition("/")[2]
        if words[3] == "state":
            self.states[name] = {"ready": "UP", "drain": "DRAIN", "maint": "MAINT"}[words[4]]
        return ""


def release(version: int) -> Release:
    return Release(version, f"digest{version}", f"flights:{version}")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """An environment in an empty folder, with engine and proxy that pretend."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    for name in ("REPLICAS", "STEPS", "FORCE", "ENGINE", "API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"STEP_SECONDS": "0", "PORTS": str(PORTS), "ACTOR": "Ada"}.items():
        monkeypatch.setenv(name, value)
    made = Host("dev")
    made.__dict__["engine"] = engine = Pretending()
    made.proxy.begin({})
    engine.proxy = PretendedProxy((made.folder / proxy.SERVERS).read_text())
    monkeypatch.setattr(made.proxy, "tell", engine.proxy.do)
    yield made
    for slot in made.places:
        engine.stop(slot)


def lines(host: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (host.folder / blue_green.AUDIT).read_text().splitlines()]


def expect(host: Host) -> None:
    """Let the public address be the one of the replica that goes live next, as a proxy would have it."""
    live = host.live
    colour = "blue" if live is None or live.colour == "green" else "green"
    host.settings["LISTEN"] = f"127.0.0.1:{next(slot.port for slot in host.places if slot.colour == colour)}"


def go(host: Host, version: int) -> None:
    expect(host)
    host.go("deploy", release(version), "a test")


def go_back(host: Host, version: int | None = None, why: str = "worse") -> None:
    expect(host)
    host.back(version, why)


def version_of(host: Host) -> int | None:
    return host.live.release.version if host.live else None


def answering(host: Host) -> set[str]:
    return {name for name, row in host.proxy.figures().items() if row["status"] == "UP"}


def test_colours_take_turns_and_the_last_three_are_kept(host: Host) -> None:
    for version in range(1, 6):
        go(host, version)
        assert answering(host) == set(host.engine.there()) == {"blue-1" if version % 2 else "green-1"}
    assert [one.version for one in host.kept] == [3, 4, 5]
    assert [one.version for one in host.engine.dropped] == [1, 2]  # type: ignore[union-attr]
    assert [(line["from"] or {}).get("version") for line in lines(host)] == [None, 1, 2, 3, 4]
    go_back(host)
    assert version_of(host) == 4
    with pytest.raises(DeployError, match="version 1 is not on this host any more"):
        host.back(1, "much worse")
    assert (lines(host)[-1]["action"], lines(host)[-1]["why"], lines(host)[-1]["who"]) == ("rollback", "worse", "Ada")


def test_going_back_twice_leads_to_the_release_before_as_in_the_registry(host: Host) -> None:
    for version in (1, 2, 3):
        go(host, version)
    for expected in (2, 1):
        go_back(host)
        assert version_of(host) == expected
    with pytest.raises(
        DeployError, match=r"the release that was live before version 1 \(flights:1\) is not on this host"
    ):
        go_back(host)
    go(host, 2)  # the history begins again at version 1
    go_back(host)
    assert version_of(host) == 1
    go_back(host, 3)  # a release that a rollback left, by its number
    assert version_of(host) == 3
    assert "kept to go back to: 1" in str(host)


def test_a_release_that_a_rollback_left_is_the_first_to_be_removed(host: Host) -> None:
    for version in (1, 2, 3):
        go(host, version)
    go_back(host)
    go(host, 4)
    assert [one.version for one in host.kept] == [1, 2, 4]
    assert [one.version for one in host.engine.dropped] == [3]  # type: ignore[union-attr]


def test_a_state_of_an_older_release_has_no_history(host: Host) -> None:
    """An old state's history has the releases on the host, without those that a rollback left."""
    for version in (1, 2, 3):
        go(host, version)
    go_back(host)
    state = json.loads((host.folder / "state.json").read_text())
    del state["history"]
    state["kept"] = [vars(release(version)) for version in (1, 3, 2)]  # by when they were last live
    (host.folder / "state.json").write_text(json.dumps(state))
    go_back(host)
    assert version_of(host) == 1


def test_a_release_that_fails_is_removed_and_one_that_is_needed_stays(host: Host) -> None:
    go(host, 1)
    host.engine.broken = "wrong"  # type: ignore[union-attr]
    with pytest.raises(DeployError):
        go(host, 2)
    assert [one.version for one in host.engine.dropped] == [2]  # type: ignore[union-attr]
    (blue_green.HOME / "prod").mkdir()
    state = {"live": None, "kept": [], "trying": vars(release(3))}  # which prod is starting right now
    (blue_green.HOME / "prod/state.json").write_text(json.dumps(state))
    host.settings["FORCE"] = "1"
    for version in (3, 1):
        with pytest.raises(DeployError):
            go(host, version)
    assert [one.version for one in host.engine.dropped] == [2]  # type: ignore[union-attr]


def test_what_a_killed_deployment_tried_is_removed_by_the_next(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    go(host, 1)
    with monkeypatch.context() as patch:
        patch.setattr(host, "settle", lambda: None)  # as if the process had been killed
        patch.setattr(host, "_clean", lambda *wanted: None)
        host.engine.broken = "dies"  # type: ignore[union-attr]
        with pytest.raises(DeployError):
            go(host, 2)
    host.engine.broken = ""  # type: ignore[union-attr]
    assert not host.engine.dropped  # type: ignore[union-attr]
    go(host, 3)
    assert [one.version for one in host.engine.dropped] == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize("reloads", [True, False])
def test_a_running_proxy_reads_a_configuration_that_has_changed(
    host: Host, monkeypatch: pytest.MonkeyPatch, reloads: bool
) -> None:
    """A process reloads haproxy.cfg; a container is restarted, and its first process has the same number as before."""
    monkeypatch.setattr(Pretending, "reloads", reloads)
    if not reloads:
        monkeypatch.setattr(PretendedProxy, "pid", 8)
    go(host, 1)
    started = host.engine.proxy.started  # type: ignore[union-attr]
    go(host, 2)
    assert host.engine.proxy.started == started  # type: ignore[union-attr]
    (Path("deploy")).unlink()
    shutil.copytree(ROOT / "deploy", "deploy")
    with Path("deploy/haproxy.cfg").open("a") as file:
        file.write("# changed\n")
    go(host, 3)
    assert host.engine.proxy.started == started + 1  # type: ignore[union-attr]


@pytest.mark.parametrize("action", ["deploy", "rollback", "replica"])
def test_a_live_service_without_capacity_passes_if_its_version_is_right(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    """Under overload the service rejects the smoke test with 429, as other requests."""
    monkeypatch.setattr(rollout_checks, "BUSY_SECONDS", 0)
    go(host, 1)
    go(host, 2)
    host.engine.broken = "busy"  # type: ignore[union-attr]
    if action == "rollback":
        go_back(host)
    elif action == "replica":
        host.settings["FORCE"] = "1"
        go(host, 2)
    else:
        go(host, 3)
    assert version_of(host) == {"deploy": 3, "rollback": 1, "replica": 2}[action]
    assert "no capacity for the example rows (status 429); only its version was checked" in capsys.readouterr().out
    host.settings["LISTEN"] = f"127.0.0.1:{next(iter(host.engine.replicas.values())).server.server_port}"  # type: ignore[union-attr]
    host.smoke()
    assert "as it should" not in capsys.readouterr().out


@pytest.mark.parametrize(("action", "passes"), [("deploy", False), ("rollback", True)])
def test_only_a_rollback_passes_if_the_version_cannot_be_checked(
    host: Host, monkeypatch: pytest.MonkeyPatch, action: str, passes: bool
) -> None:
    """For example while the identity provider is down."""
    monkeypatch.setattr(rollout_checks, "BUSY_SECONDS", 0)
    go(host, 1)
    go(host, 2)
    host.engine.broken = "unavailable"  # type: ignore[union-attr]
    if passes:
        go_back(host)
    else:
        with pytest.raises(DeployError, match=r"no capacity to report its version \(status 503\)"):
            go(host, 3)
    assert version_of(host) == (1 if passes else 2)


def test_a_smoke_test_is_repeated_while_the_service_is_busy(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(rollout_checks.time, "sleep", pauses.append)
    host.engine.broken = "busy first"  # type: ignore[union-attr]
    go(host, 1)
    assert version_of(host) == 1 and "note" not in capsys.readouterr().out
    assert 1.0 in pauses  # as Retry-After says


@pytest.mark.parametrize(("action", "passes"), [("deploy", False), ("rollback", True)])
def test_a_rollback_is_not_held_to_the_latency_limit(host: Host, action: str, passes: bool) -> None:
    go(host, 1)
    go(host, 2)
    host.engine.broken = "slow"  # type: ignore[union-attr]
    if passes:
        go_back(host)
    else:
        with pytest.raises(DeployError, match="the slowest twentieth of 30 requests took inf s"):
            go(host, 3)
    assert version_of(host) == (1 if passes else 2)


def test_a_replica_more_of_a_slow_release_is_not_held_to_the_latency_limit(host: Host) -> None:
    go(host, 1)
    host.engine.broken = "slow"  # type: ignore[union-attr]
    host.settings["FORCE"] = "1"
    host.limits = replace(host.limits, replicas=2)
    go(host, 1)
    assert host.live is not None and host.live.replicas == 2


def test_a_release_that_refuses_more_than_the_replaced_one_is_stopped(host: Host) -> None:
    host.engine.broken = "used"  # type: ignore[union-attr]
    go(host, 1)
    host.engine.broken = "refuses"  # type: ignore[union-attr]
    with pytest.raises(DeployError, match=r"40% of 50 requests were refused as invalid \(422\), and 0% of 1000 under"):
        go(host, 2)
    assert version_of(host) == 1
    host.engine.broken = "used"  # type: ignore[union-attr]
    go(host, 3)
    host.engine.broken = "refuses"  # type: ignore[union-attr]
    go_back(host)  # a rollback is not compared
    assert version_of(host) == 1


def test_what_another_environment_keeps_stays(host: Host) -> None:
    (blue_green.HOME / "prod").mkdir()
    kept = {"image": "flights:1", "version": 1, "digest": "digest1"}
    (blue_green.HOME / "prod/state.json").write_text(json.dumps({"live": None, "kept": [kept]}))
    for version in range(1, 6):
        go(host, version)
    assert [one.version for one in host.engine.dropped] == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("dies", "ended. It said last:\nno such model"),
        ("other", "answers, not version 2"),
        ("wrong", "example row 0 is answered with"),
        ("mixed", "comes back as 'b'"),
        ("errors", "7 of 7 requests failed"),
    ],
)
def test_what_is_not_right_does_not_go_live(host: Host, broken: str, says: str) -> None:
    go(host, 1)
    host.engine.broken = broken  # type: ignore[union-attr]
    with pytest.raises(DeployError) as caught:
        go(host, 2)
    assert says in str(caught.value) and "version 1 (flights:1) goes on answering in dev" in str(caught.value)
    assert answering(host) == set(host.engine.there()) == {"blue-1"}
    assert host.live is not None and host.live.release == release(1)
    assert lines(host)[-1]["result"].startswith("failed: ") and lines(host)[-1]["to"]["version"] == 2


def test_example_ids_that_follow_no_rule_are_made_up_by_the_service(host: Host) -> None:
    host.engine.broken = "ids"  # type: ignore[union-attr]
    go(host, 1)
    assert host.live is not None


def test_a_proxy_that_does_not_start_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(host.engine, "quit", lambda: ended.append("proxy"))
    monkeypatch.setattr(proxy.Proxy, "process", lambda self: "")
    with pytest.raises(blue_green.DeployError, match=r"does not start at .*:\nno such model"):
        host._run_proxy({})
    assert ended == ["proxy"]


def test_what_a_killed_deploy_left_is_ended(host: Host) -> None:
    go(host, 1)
    half = next(slot for slot in host.places if slot.name == "green-1")
    host.engine.start(release(2), half)
    host.proxy.shift({"blue-1": 100, "green-1": 100})
    with host.alone():
        host.settle()
    assert answering(host) == set(host.engine.there()) == {"blue-1"}


def test_one_at_a_time(host: Host) -> None:
    with host.alone(), pytest.raises(DeployInProgressError, match="being deployed already \\(by Ada, process "):
        Host("dev").go("deploy", release(2), "")


def test_a_torn_line_of_the_record_spoils_no_other(host: Host) -> None:
    file = host.folder / blue_green.AUDIT
    host.audit(action="deploy", result="live")
    with file.open("ab") as lines:
        lines.write(b'{"action": "depl')
    host.audit(action="rollback", result="live")
    assert [one["action"] for one in Audit(file).entries()] == ["deploy", "rollback"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_settings_of_an_environment_have_the_quotes_of_compose(host: Host) -> None:
    (Path("deploy")).unlink()
    shutil.copytree(ROOT / "deploy", "deploy")
    with Path("deploy/dev.env").open("a") as file:
        file.write("MEMORY='1g' # more\nSMOKE_TOKEN=\"a b\"\n")
    assert Host("dev").settings["MEMORY"] == "1g" and Host("dev").settings["SMOKE_TOKEN"] == "a b"


def test_steps_and_replicas(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    go(host, 1)
    monkeypatch.setenv("STEPS", "10 50 100")
    host.limits = Limits.of(Host("dev").settings)
    go(host, 2)
    monkeypatch.delenv("STEPS")
    monkeypatch.setenv("REPLICAS", "3")
    host.limits = Limits.of(Host("dev").settings)
    go(host, 3)
    shown = [line.split()[2] for line in capsys.readouterr().out.splitlines() if " answers " in line and "%" in line]
    assert shown == ["100", "10", "50", "100", "50", "67", "100"]
    assert answering(host) == {"blue-1", "blue-2", "blue-3"}


def test_after_a_promotion_what_answers_with_the_champion_before_is_replaced(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Any] = []

    class Other:
        def __init__(self, environment: str) -> None:
            self.environment, self.engine = environment, host.engine

        def go(self, action: str, release: Release, why: str) -> None:
            made.append((self.environment, action, release.version, why))

    monkeypatch.setattr(blue_green, "Host", Other)
    monkeypatch.setattr(image, "unpack", release)
    blue_green.act("lead", {"LEFT": "1", "VERSION": "2", "WHY": "it won"})
    assert not made and "nothing here answers with version 1; make deploy VERSION=2" in capsys.readouterr().out
    go(host, 1)
    blue_green.act("lead", {"LEFT": "1", "VERSION": "1"})
    blue_green.act("lead", {"LEFT": "3", "VERSION": "2"})
    assert not made
    blue_green.act("lead", {"LEFT": "1", "VERSION": "2", "WHY": "it won"})
    assert made == [("dev", "deploy", 2, "it won")]


def test_a_shadow_lies_on_the_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the folder that a replica works in, nor in deploy/, which Compose starts from."""
    monkeypatch.setenv("SHADOW_DIR", "dist/shadow")
    settings = Host("dev").settings
    place = str(Path("dist/shadow").absolute())
    started: list[Any] = []
    processes = runtimes.Processes("flights", "dev", settings, host.folder)
    monkeypatch.setattr(processes, "_begin", lambda *given: started.append(given))
    (Path("release/src/flights/serving")).mkdir(parents=True)
    Path("release/src/flights/serving/online.py").touch()
    processes.start(Release(1, "digest", "release"), host.places[0])
    assert started[0][3]["SHADOW_DIR"] == place
    monkeypatch.setattr(runtimes, "docker", lambda: ["docker"])
    monkeypatch.setattr(runtimes, "compose", lambda docker: ["compose"])
    monkeypatch.setattr(runtimes, "account", lambda engine: "1234:5678")
    monkeypatch.setattr(runtimes, "run", lambda words, more=None, fails=False: started.append((words, more)))
    file = str(runtimes.DEPLOY / "compose.shadow.yaml")
    runtimes.Containers("flights", "dev", settings, host.folder).start(release(1), host.places[0])
    words, more = started[-1]
    assert more["SHADOW_DIR"] == place
    assert (file in words) is Path(file).exists()  # in a project that is watched
    monkeypatch.delenv("SHADOW_DIR")
    runtimes.Containers("flights", "dev", Host("dev").settings, host.folder).start(release(1), host.places[0])
    words, more = started[-1]
    assert file not in words and "SHADOW_DIR" not in more


@pytest.mark.parametrize("root", [True, False])
def test_what_is_answered_is_written_where_this_folder_reads_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, root: bool
) -> None:
    """By the account that deploys, so that it may read it; root may read all, and a service is nobody then."""
    started: list[Any] = []
    given: list[Any] = []
    monkeypatch.setattr(runtimes, "docker", lambda: ["docker"])
    monkeypatch.setattr(runtimes, "compose", lambda docker: ["compose"])
    monkeypatch.setattr(runtimes, "account", lambda engine: "1234:5678")
    monkeypatch.setattr(runtimes, "run", lambda words, more=None, fails=False: started.append(more))
    monkeypatch.setattr(runtimes.os, "geteuid", lambda: 0 if root else 1234)
    monkeypatch.setattr(runtimes.os, "chown", lambda path, *whose: given.append((path, whose)))
    folder = (host.folder / "predictions").absolute()
    for _ in range(2):
        runtimes.Containers("flights", "dev", host.settings, host.folder).start(release(1), host.places[0])
    assert started[-1]["PREDICTIONS"] == str(folder) and folder.stat().st_mode & 0o777 == 0o700
    assert started[-1]["RUN_AS"] == ("10001:10001" if root else "1234:5678")
    assert given == ([(folder, (10001, 10001))] * 2 if root else [])
    compose = runtimes.DEPLOY / "compose.yaml"
    if compose.exists():
        assert "${PREDICTIONS:-" in compose.read_text() and "${RUN_AS:-" in compose.read_text()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("STEPS", "50 10 100", "rise to 100"),
        ("STEPS", "10 50", "rise to 100"),
        ("REPLICAS", "9", "REPLICAS is 9; it may be a whole number from 1 to 8"),
        ("REPLICAS", "two", "REPLICAS is two; it may be a whole number from 1 to 8"),
        ("REPLICAS", "1.5", "REPLICAS is 1.5; it may be a whole number from 1 to 8"),
        ("STEPS", "ten", "STEPS is 'ten'; it is a list of percentages"),
        ("STEP_SECONDS", "-1", "STEP_SECONDS is -1; it may be a number from 0 to 86400"),
        ("READY_SECONDS", "inf", "READY_SECONDS is inf"),
        ("MAX_ERRORS", "nan", "MAX_ERRORS is nan; it may be a number from 0 to 1"),
        ("MAX_ERRORS", "5", "MAX_ERRORS is 5; it may be a number from 0 to 1"),
        ("MAX_SECONDS", "nan", "MAX_SECONDS is nan; it may be a number from 0 to 86400"),
        ("CANARY_MAX_INCREASE", "nan", "CANARY_MAX_INCREASE is nan; it may be a number from 0 to 1"),
        ("CANARY_MIN_REQUESTS", "many", "CANARY_MIN_REQUESTS is many; it may be a whole number from 0 to 1000000"),
        ("PORTS", "http", "PORTS is http; it may be a whole number from 1 to 65517"),
        ("PORTS", "65518", "PORTS is 65518; it may be a whole number from 1 to 65517"),
    ],
)
def test_settings_that_cannot_be(host: Host, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DeployError, match=says):
        Host("dev")


@pytest.mark.parametrize("number", ["three", "-1", "1.0", "0", "\u0663"])
def test_a_version_that_is_no_number_is_named(host: Host, number: str) -> None:
    with pytest.raises(EngineError, match=f"VERSION is {number}; it is the number of a registered version"):
        blue_green.act("rollback", {"ENV": "dev", "VERSION": number})


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff", b"[]", b"null", b'{"live": 5, "kept": []}', b'{"live": null}'])
def test_a_damaged_state_is_named_and_can_be_removed(host: Host, damaged: bytes) -> None:
    go(host, 1)
    file = host.folder / "state.json"
    file.write_bytes(damaged)
    for command in (
        lambda: go(host, 2),
        host.smoke,
        lambda: blue_green.follow(1, 2, "worse"),
        lambda: str(Host("dev")),
    ):
        with pytest.raises(
            DeployError, match=r"dev/state\.json is damaged .*Remove the file, and run `make deploy ENV=dev`"
        ):
            command()
    file.unlink()
    go(host, 2)
    assert version_of(host) == 2 and len(host.engine.there()) == 1


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"[1]", b'{"version": 1}', b'{"version": "1", "run_id": "a"}'])
def test_a_damaged_champion_file_is_named(host: Host, damaged: bytes) -> None:
    image.POINTER.write_bytes(damaged)
    with pytest.raises(EngineError, match=r"champion\.json is damaged .*git restore champion\.json"):
        image.bundle(None)


def test_a_live_release_that_has_ended_is_shown(host: Host) -> None:
    go(host, 1)
    assert str(host).endswith("kept to go back to: none")
    slot = next(slot for slot in host.places if slot.name == "blue-1")
    host.engine.stop(slot)
    fix = r"not ready: blue-1\. `make deploy ENV=dev VERSION=1` starts what has ended$"
    assert re.search(fix, str(host))
    with pytest.raises(rollout_checks.WrongError, match=f"^version 1 .*{fix}"):
        host.smoke()


def test_a_status_whose_reader_has_ended_shows_no_trace(host: Host) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "copier_mlops.deploy.blue_green", "status"]
    environment = {**os.environ, "ENV": "dev"}
    done = subprocess.run(words, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode in (-signal.SIGPIPE, 128 + signal.SIGPIPE) and done.stderr == ""


def test_a_deployment_is_on_record_before_the_previous_release_ends(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(host, 1)

    def end(slots: list[proxy.Slot]) -> None:
        if [slot.name for slot in slots] == ["blue-1"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(host, "_end", end)
    with pytest.raises(KeyboardInterrupt):
        go(host, 2)
    assert version_of(host) == 2
    assert [(line["to"]["version"], line["result"]) for line in lines(host)] == [(1, "live"), (2, "live")]


def test_the_account_of_the_service_can_read_all_files_of_an_image() -> None:
    """COPY keeps modes, and a checkout with umask 077 has files for its owner only."""
    text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    build, service = text.split("\nFROM ")[1:]
    copied = [line.split()[-1] for line in build.splitlines() if line.startswith("COPY ") and "/app/" in line]
    last = build.strip().splitlines()[-1]
    assert last.startswith("RUN chmod -R u=rwX,go=rX ") and set(copied) == set(last.split()[4:])
    own = [line for line in service.splitlines() if line.startswith(("COPY ", "ADD "))]
    assert own and all(line.startswith("COPY --from=build ") for line in own)


def test_a_signature_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    key = Ed25519PrivateKey.generate()
    private, public = (
        base64.b64encode(raw).decode() for raw in (key.private_bytes_raw(), key.public_key().public_bytes_raw())
    )
    pushed, other = (f"here/flights@sha256:{digit * 64}" for digit in "12")
    image.MADE.write_text(json.dumps({"pushed": pushed}))
    signature = image.sign(private)
    image.verify(pushed, signature, public)
    for name, given in ((other, signature), (pushed, "")):
        with pytest.raises(EngineError, match="does not hold"):
            image.verify(name, given, public)
    # A tag can be moved to another image after it was signed.
    image.MADE.write_text(json.dumps({"pushed": "here/flights:2"}))
    with pytest.raises(EngineError, match="not the name of an image by digest"):
        image.verify("here/flights:2", image.sign(private), public)


PUSHED = f"here/flights@sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("given", "key", "says"),
    [
        (
            {"ENV": "prod", "IMAGE": PUSHED},
            "",
            "VERIFY_KEY is not set, so the signature .* prod takes signed images only",
        ),
        ({"ENV": "staging", "IMAGE": PUSHED}, "", "staging takes signed images only"),
        ({"ENV": "prod", "IMAGE": PUSHED}, "AAAA", "does not hold"),
        ({"ENV": "prod"}, "AAAA", "IMAGE is not set"),
    ],
)
def test_an_image_that_cannot_be_checked_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], key: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPLOY_HOST", "nowhere.invalid")
    monkeypatch.setenv("VERIFY_KEY", key)
    monkeypatch.setattr(ssh, "ssh", lambda there: pytest.fail("it was sent"))
    with pytest.raises(EngineError, match=says):
        ssh.act("deploy", given)


def test_an_image_without_a_signature_may_go_to_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    ssh.check({"ENV": "dev", "IMAGE": "here/flights:2"}, "")


def test_what_is_sent_is_all_that_the_host_imports(tmp_path: Path) -> None:
    """The deployment runs there with the standard library and the files that were sent."""
    (tmp_path / "copier_mlops/deploy").mkdir(parents=True)
    for name in ssh.FILES:
        shutil.copy2(ssh.RUNTIME / name, tmp_path / "copier_mlops" / name)
    words = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path[0:] = [{str(tmp_path)!r}, *{STANDARD!r}]; import copier_mlops.deploy.blue_green",
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STANDARD = [
    part for part in sys.path if part and "site-packages" not in part and not part.startswith(str(ssh.RUNTIME.parent))
]


def processes(host: Host, environment: str, **settings: str) -> runtimes.Processes:
    return runtimes.Processes("flights", environment, {**host.settings, **settings}, host.folder)


def test_outside_dev_processes_need_haproxy(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "haproxy", lambda: None)
    for environment in ("staging", "prod"):
        engine = processes(host, environment, PROXY="none")
        assert engine.proxied
        with pytest.raises(EngineError, match=r"HAProxy is not installed, and outside dev .* Install it"):
            engine.serve()
    assert not processes(host, "dev").proxied
    monkeypatch.setattr(runtimes, "haproxy", lambda: "/usr/sbin/haproxy")
    assert processes(host, "dev").proxied and not processes(host, "dev", PROXY="none").proxied


def test_a_replica_does_not_start_at_a_port_of_another_process(host: Host, tmp_path: Path) -> None:
    """Otherwise that process answers the smoke test in its place."""
    (tmp_path / "made/src/flights/serving").mkdir(parents=True)
    (tmp_path / "made/src/flights/serving/online.py").touch()
    slot = host.places[0]
    with socket.create_server(("127.0.0.1", slot.port)), pytest.raises(EngineError) as told:
        processes(host, "dev").start(replace(release(1), image=str(tmp_path / "made")), slot)
    assert f"port {slot.port} of blue-1 is in use" in str(told.value) and "PORTS in deploy/dev.env" in str(told.value)
    assert not (host.folder / "blue-1.pid").exists()


def test_without_a_proxy_the_address_changes_with_the_release(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host.engine, "proxied", False)
    host.__dict__["proxy"] = proxy.Direct(host.folder, host.places)
    for version, slot in ((1, "blue-1"), (2, "green-1"), (3, "blue-1")):
        host.go("deploy", release(version), "a test")
        port = next(place.port for place in host.places if place.name == slot)
        assert host.public == f"127.0.0.1:{port}" and set(host.engine.there()) == {slot}
        assert json.loads((host.folder / "state.json").read_text())["public"] == host.public
        assert f"answers at http://127.0.0.1:{port}" in capsys.readouterr().out
    host.smoke()


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, None])
def test_other_accounts_cannot_read_the_prediction_log(
    host: Host, monkeypatch: pytest.MonkeyPatch, mode: int | None
) -> None:
    folder = host.folder / "predictions"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    engine = processes(host, "dev")
    monkeypatch.setattr(engine, "_begin", lambda *given: None)
    (Path("release/src/flights/serving")).mkdir(parents=True)
    Path("release/src/flights/serving/online.py").touch()
    engine.start(Release(1, "digest", "release"), host.places[0])
    assert folder.stat().st_mode & 0o007 == 0
    assert mode is not None or folder.stat().st_mode & 0o077 == 0
    shutil.rmtree("release")
    with pytest.raises(EngineError, match="release is missing or incomplete"):
        engine.start(Release(1, "digest", "release"), host.places[0])


def test_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    image.delivery({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"})
    assert "not configured: MLFLOW_TRACKING_URI names no server; REGISTRY names no place" in capsys.readouterr().out
    image.POINTER.write_text("{}")
    image.delivery({"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", "REGISTRY": "ghcr.io/ada"})
    assert not capsys.readouterr().out
    assert (tmp_path / "output").read_text().splitlines() == [
        "configured=false",
        "host=",
        "configured=true",
        "host=ghcr.io",
    ]


@pytest.mark.parametrize(
    ("uri", "error", "code", "says"),
    [
        ("https://mlflow", "", 0, "still names version 2"),
        ("https://mlflow", "there is nothing to go back to.", 1, "nothing to go back to."),
        ("sqlite:///mlflow.db", "", 1, "MLFLOW_TRACKING_URI names no server. "),
    ],
)
def test_the_registry_after_production_went_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, error: str, code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("champion.json").write_text(json.dumps({"version": 2}))
    asked: list[tuple[str, bool]] = []

    def rollback(settings: Settings, why: str, delivered: bool) -> types.SimpleNamespace:
        asked.append((why, delivered))
        if error:
            raise ProjectError(error)
        Path("champion.json").write_text(json.dumps({"version": 1}))
        return types.SimpleNamespace(number=1)

    monkeypatch.setattr(registration, "rollback", rollback)
    told = {"MLFLOW_TRACKING_URI": uri, "WHY": "it's wrong", "GITHUB_STEP_SUMMARY": "page"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert mlops("rollback-registry") == code
    page = Path("page").read_text()
    assert says in page
    assert ('git commit --message "Back to version 1" champion.json' if code == 0 else "make rollback WHY='it'") in page
    assert asked == ([("it's wrong", True)] if uri.startswith("https") else [])
