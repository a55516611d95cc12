"""What watches a project, with the real Prometheus and Alertmanager: from what the monitor found to what is done about it.

They are Debian's, which brings them where this runs as root; on another machine they have to be installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import engine
import grafana
import prometheus
import pytest
import workspace
import yaml
from conftest import (
    MADE,
    Project,
    Render,
    borrowing,
    end,
    free_port,
    need,
    processes_in,
    wait_for,
    wait_until,
)

SECONDS = 15.0  # from a report to a decision, at intervals of a second
TURNS = 5  # in which a training is asked for, where it is measured how soon it begins

STACK = ["alertmanager", "mlflow", "monitor", "prefect", "prometheus", "receiver", "worker"]

SERVICE = """
import sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from {package}.schema import CONTRACT
from copier_mlops.serving.metrics import Metrics

metrics = Metrics(SimpleNamespace(contract=CONTRACT, version=3, digest="abc"), ["/predict"], lambda: 3, lambda: 0)
field = CONTRACT.without_target()[0].name
for name in ("rows", "dropped", "failures"):
    metrics.counted(f"predict_shadow_{{name}}", "In the shadow.", lambda: 5)

def ask():
    while True:
        for status in (200, 200, 200, 422, 429, 500):
            metrics.answered("/predict", status, 0.02)
        metrics.batch(5)
        metrics.refused([field])
        time.sleep(0.05)

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(metrics.text())
    def log_message(self, *words):
        pass

threading.Thread(target=ask, daemon=True).start()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""
"""The real metrics of the service, with answers that only pretend."""

PREFECT = """
import json, sys
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from {package} import NAME
with get_client(sync_client=True) as client:
    if sys.argv[1] == "register":
        client.create_work_pool(WorkPoolCreate(name=NAME, type="process"), overwrite=True)
        flow = client.create_flow_from_name("train")
        client.create_deployment(flow_id=flow, name=sys.argv[2], work_pool_name=NAME)
    else:
        runs = client.read_flow_runs()
        print(json.dumps([run.name for run in runs if "alert" in run.tags]))
"""

REPORT: dict[str, Any] = {
    "version": 3,
    "window": {"rows": 5000},
    "verdict": {"status": "worse", "sure": "measured", "actions": [{"action": "retrain", "reasons": ["it is worse"]}]},
    "performance": {
        "metrics": {"auc": 0.7},
        "expected": {"auc": 0.75},
        "estimated": {"auc": 0.72},
        "worse": True,
        "before": {"version": 2, "worse": False},
        "slices": [{"slice": "carrier", "group": "UA", "metrics": {"auc": 0.6}}],
    },
    "drift": {
        "columns": {"distance": {"effect": 0.2, "limit": 0.1, "drifted": True, "counted": True}},
        "multivariate": {"auc": 0.6, "limit": 0.55, "drifted": True},
    },
    "challenger": {"version": 4, "rows": 900, "gain": 0.01, "low": -0.01, "high": 0.03, "margin": 0.0},
    "labels": {"joined": 900, "waiting": 100, "aside": {"repeated": 4}},
}


Make = Callable[[str], Project]


@pytest.fixture
def make(servers: None, render: Render, watched_environment: Path, prefect_server: str, tmp_path: Path) -> Make:
    """A project of some name that is watched, shares the packages of another, and has ports of its own."""

    def made(name: str) -> Project:
        folder = tmp_path / "project"
        shutil.copytree(render(project_name=name, serving=["online"], deploy="compose", monitoring=True), folder)
        return borrowing(folder, watched_environment, prefect_server, ENGINE="process", **ports())

    return made


def ports() -> dict[str, str]:
    """A free one for each server, as `make up` reads them."""
    names = ("PROMETHEUS", "ALERTMANAGER", "MLFLOW", "PREFECT", "RECEIVER", "SERVICE")
    return {f"{name}_PORT": str(free_port()) for name in names}


@pytest.fixture
def project(make: Make) -> Project:
    """One of a name of its own, since the server of Prefect is shared."""
    return make("Watched flights")


def test_rules_do_what_their_tests_say(project: Project) -> None:
    said = project.make("check-monitoring")
    assert said.count("SUCCESS") >= 8
    project.replace("monitoring/prometheus/rules/service.yml", '(up{job="service"}) == 0', '(up{job="service"}) == 5')
    assert "FAILED" in project.make("check-monitoring", fails=True)
    (project / "monitoring/policy.yaml").write_text("retrain:\n  enabeld: true\n")
    assert "policy.yaml, line 2: enabeld is not known; did you mean enabled?" in project.make(
        "check-monitoring", fails=True
    )
    tools = project.folder.parent / "bin"
    tools.mkdir()
    for name in ("make", "sh", "git", "python3", "cat"):
        (tools / name).symlink_to(shutil.which(name) or "")
    assert "apt-get install prometheus" in project.make("check-monitoring", fails=True, PATH=str(tools))


def test_routes_are_tried(project: Project) -> None:
    project.replace(
        "monitoring/alertmanager/alertmanager.yml",
        "retrain|promote|roll_back|add_replica",
        "retrain|promote|add_replica",
    )
    said = project.make("check-monitoring", fails=True)
    assert "an alert with the action roll_back does not go to loop and person" in said


def test_containers_listen_here_alone_and_are_pinned(project: Project) -> None:
    file = project / "monitoring/compose.yaml"
    words = [
        str(Path(sys.executable).with_name("check-jsonschema")),
        "--builtin-schema",
        "vendor.compose-spec",
        str(file),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    services = yaml.safe_load(file.read_text())["services"]
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+\}$", service["image"]), name
        assert service["network_mode"] == "host" and "ports" not in service, name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
    for name in ("prometheus", "alertmanager"):
        assert any(word.startswith("--web.listen-address=127.0.0.1:") for word in services[name]["command"])
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


# ---------------------------------------------------------------------------------------------------- The dashboards

MISTAKES = {
    "kind": ('"type": "timeseries"', '"type": "timeserie"'),
    "field": ('"showLegend": true', '"showLegends": true'),
    "enum": ('"colorMode": "background"', '"colorMode": "backgrund"'),
    "number": ('"h": 8', '"h": "8"'),
    "missing": ('"mode": "multi",', ""),
    "drawn": ('"thresholdsStyle"', '"thresholdStyle"'),
    "mapping": ('"type": "value"', '"type": "values"'),
    "override": ('"id": "custom.cellOptions"', '"id": "custom.cellOption"'),
    "overridden": ('"type": "color-text"', '"type": "colour-text"'),
    "transformed": ('"renameByName"', '"renamedByName"'),
    "dashboard": ('"refresh"', '"refreshes"'),
}
"""What somebody who edits a dashboard may do wrong. Grafana takes all of it, and shows something else or nothing."""


@pytest.fixture(scope="session")
def grafana_types() -> Path:
    found = grafana.bring(workspace.tools())
    if found is None:
        need("NOT RUN: the types of the dashboards; node or npm is missing (https://nodejs.org)")
    assert found is not None
    return found


@pytest.fixture
def rendered(render: Render) -> Path:
    return render(serving=["online"], deploy="compose", monitoring=True) / "monitoring"


def test_dashboards_are_of_the_types_of_grafana(grafana_types: Path, rendered: Path, tmp_path: Path) -> None:
    """Of that version whose image the project has; and each mistake is seen, so the types say something."""
    image = yaml.safe_load((rendered / "compose.yaml").read_text())["services"]["grafana"]["image"]
    assert image.endswith(f":{grafana.PACKAGES['@grafana/schema']}}}")
    boards = {file.stem: file.read_text() for file in sorted((rendered / "grafana/dashboards").glob("*.json"))}
    broken = {}
    for name, (right, wrong) in MISTAKES.items():
        text = next(text for text in boards.values() if right in text)
        broken[f"broken-{name}"] = text.replace(right, wrong, 1)
    said = grafana.against(grafana_types, tmp_path, boards | broken)
    assert {name: said[name] for name in boards} == {name: [] for name in prometheus.BOARDS}
    assert [name for name in broken if len(said[name]) != 1] == []


def test_panels_fill_their_rows_and_say_what_they_show(rendered: Path) -> None:
    """No panel lies on another, no place of the grid of 24 columns is empty, and each panel has a title of its own."""
    for file in (rendered / "grafana/dashboards").glob("*.json"):
        panels = json.loads(file.read_text())["panels"]
        assert all(panel["description"].endswith(".") for panel in panels), file.name
        for key in ("id", "title"):
            assert len({panel[key] for panel in panels}) == len(panels), (file.name, key)
        taken = [
            (x, y)
            for at in (panel["gridPos"] for panel in panels)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        bottom = 1 + max(y for _, y in taken)
        assert sorted(taken) == [(x, y) for x in range(24) for y in range(bottom)], file.name


def test_what_is_shown_has_a_name(rendered: Path) -> None:
    """Grafana names a series by all of its labels if it has several, and a column by the letter of its query."""
    for file in (rendered / "grafana/dashboards").glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            said = (file.name, panel["title"])
            if panel["type"] == "table":
                [names] = [one["options"] for one in panel["transformations"] if one["id"] == "organize"]
                assert names["excludeByName"]["Time"], said
                for target in panel["targets"]:
                    by = re.findall(r"max by \(([\w, ]+)\)", target["expr"])[0].split(", ")
                    assert set(by) <= set(names["renameByName"]), said
            elif panel["type"] != "stat":
                assert "__auto" not in [target["legendFormat"] for target in panel["targets"]], said


# ---------------------------------------------------------------------------------------------------------- The loop


def moment(text: str) -> float:
    """Seconds since 1970; Alertmanager writes nanoseconds, which Python does not read everywhere."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00")).timestamp()


class Loop:
    """A project with Prometheus, Alertmanager and the receiver, all at intervals of a second, and a service that is asked: its own
    where it was trained, else one that pretends."""

    def __init__(self, project: Project, trained: bool = False) -> None:
        self.project = project
        changes = {
            "prometheus/prometheus.yml": (
                r"_interval: \d+s|_timeout: \d+s",
                lambda found: re.sub(r"\d+s", "1s", found[0]),
            ),
            "alertmanager/alertmanager.yml": (r"group_(wait|interval): \w+", r"group_\1: 1s"),
            **{f"prometheus/rules/{name}.yml": (r"for: \w+", "for: 0s") for name in ("service", "model", "loop")},
        }
        for name, (pattern, by) in changes.items():
            file = project / "monitoring" / name
            file.write_text(re.sub(pattern, by, file.read_text()))
        port = project.environment["SERVICE_PORT"]
        words = ["-c", SERVICE.format(package=project.package), port]
        words = ["-m", f"{project.package}.service"] if trained else words
        self.service = project.start(".venv/bin/python", *words)
        self.start("prometheus", "alertmanager", "receiver")

    def start(self, *names: str) -> None:
        self.project.make("up", ONLY=" ".join(names))

    def close(self) -> None:
        end(self.service)
        self.project.make("down")

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.project.environment[f'{name.upper()}_PORT']}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers; an error if the query is none."""
        return prometheus.ask(int(self.project.environment["PROMETHEUS_PORT"]), expression)

    def report(self, **more: Any) -> None:
        """What `make monitor` would have found just now."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        file = self.project / "reports/monitor/monitor.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps({**REPORT, "at": now, "trained_at": now, "newest": now, **more}))
        partial.replace(file)

    def audit(self, action: str = "") -> list[dict[str, Any]]:
        file = self.project / "monitoring/audit.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [one for one in lines if action in ("", one["action"])]

    def results(self, action: str) -> list[str]:
        return [one["result"] for one in self.audit(action)]

    def supervisor(self, *words: str) -> str:
        done = self.project.command(".venv/bin/supervisorctl", "-c", ".monitoring/supervisor/supervisord.conf", *words)
        return done.stdout.strip()

    def pid(self, name: str) -> int:
        """The number of a process; 0 while it does not run."""
        said = self.supervisor("pid", name)
        return int(said) if said.isdecimal() else 0

    def kill(self, name: str) -> int:
        pid = self.pid(name)
        assert pid > 1, self.supervisor("status")
        os.kill(pid, signal.SIGKILL)
        return pid

    def prefect(self, path: str, **asked: Any) -> list[dict[str, Any]]:
        """What the project's own server of Prefect answers."""
        address = f"{self.address('prefect')}/api/{path}"
        request = urllib.request.Request(address, json.dumps(asked).encode() if asked else None)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return list(json.load(answer))

    def states(self, number: int) -> dict[str, float]:
        """When the run of the training that was allowed as the nth came into each state, in seconds since 1970."""
        allowed = [one["id"] for one in self.audit("retrain") if one["result"] == "decided"]
        runs = [
            run
            for key in allowed[number - 1 : number]
            for run in self.prefect("flow_runs/filter", flow_runs={"name": {"like_": f"alert-{key}"}})
        ]
        states = [one for run in runs for one in self.prefect(f"flow_run_states/?flow_run_id={run['id']}")]
        return {one["type"]: moment(one["timestamp"]) for one in states}

    def runs(self, *words: str) -> str:
        done = self.project.command(
            ".venv/bin/python", "-c", PREFECT.format(package=self.project.package), *(words or ("list",))
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture
def loop(project: Project) -> Iterator[Loop]:
    made = Loop(project)
    yield made
    made.close()


def test_from_a_report_to_one_training(loop: Loop) -> None:
    """The report proposes, the alert fires, the policy allows it, Prefect has one run; a storm, a stranger and a kill change nothing."""
    loop.runs("register", "weekly")
    before = loop.runs()
    loop.report()
    seconds = wait_until(lambda: loop.results("retrain"), SECONDS, loop.audit)
    print(f"{seconds:.1f} s from the report to the decision")
    first = loop.audit("retrain")[0]
    assert (
        first["allowed"]
        and first["asked"][0]["name"] == "TrainingProposed"
        and len(first["asked"][0]["fingerprint"]) == 16
    )
    wait_until(lambda: "done" in loop.results("retrain"), 90, loop.audit)
    assert set(json.loads(loop.runs())) - set(json.loads(before)) == {f"alert-{first['id']}"}
    wait_until(lambda: "done" in loop.results("tell"), 90, loop.audit)

    storm = [
        {"labels": {"alertname": f"Storm{number}", "action": "retrain", "severity": "critical"}} for number in range(20)
    ]
    post(f"{loop.address('alertmanager')}/api/v2/alerts", storm)
    wait_until(lambda: loop.results("retrain").count("refused") >= 20, 60, loop.audit)
    assert loop.results("retrain").count("decided") == 1
    assert {one["rule"] for one in loop.audit("retrain") if one["result"] == "refused"} == {"cool_down"}

    for header in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(f"{loop.address('receiver')}/alerts", {"version": "4", "alerts": []}, **header)
        assert caught.value.code == 401
    wait_until(lambda: [one for one in loop.query("loop_strangers_total") if one["value"][1] == "2"], 10)

    killed = loop.kill("receiver")
    wait_until(lambda: loop.pid("receiver") not in (0, killed), 20)  # the supervisor starts it again
    loop.supervisor("stop", "receiver")
    wait_until(lambda: loop.query('ALERTS{alertname="ReceiverDown", alertstate="firing"}'), 20)
    loop.start("receiver")
    post(f"{loop.address('alertmanager')}/api/v2/alerts", [{**one, "annotations": {"again": "yes"}} for one in storm])
    time.sleep(3)
    assert loop.results("retrain").count("decided") == 1
    wait_until(lambda: not loop.query('ALERTS{alertname="ReceiverDown"}'), 20)


def test_a_training_is_not_lost_while_prefect_is_away(make: Make) -> None:
    """It is told, tried again, and asked for once when there is a server, also by a receiver that was killed meanwhile."""
    project = make("Watched elsewhere")
    there = project.environment["PREFECT_API_URL"]
    project.environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    loop = Loop(project)
    try:
        loop.report()
        wait_until(lambda: "waits" in loop.results("retrain"), 60, loop.audit)
        wait_until(
            lambda: any("waits, and is tried again" in one.get("says", "") for one in loop.audit("tell")),
            20,
            loop.audit,
        )
        loop.kill("receiver")  # it starts again, and with the other address once more
        project.environment["PREFECT_API_URL"] = there
        loop.runs("register", "elsewhere")
        loop.start("receiver")
        wait_until(lambda: "done" in loop.results("retrain"), 90, loop.audit)
        assert loop.results("retrain").count("decided") == 1
        assert f"alert-{loop.audit('retrain')[0]['id']}" in json.loads(loop.runs())
    finally:
        loop.close()


def post(address: str, content: object, **headers: str) -> None:
    head = {"Content-Type": "application/json", **headers}
    urllib.request.urlopen(urllib.request.Request(address, json.dumps(content).encode(), head), timeout=10).close()


def test_what_is_switched_on_is_tried_and_told_where_it_fails(make: Make) -> None:
    """`make rollback` has nothing to go back to; a training may be asked for, but not even once a day."""
    with contextlib.closing(Loop(make("Flight delays"))) as loop:
        (loop.project / "monitoring/policy.yaml").write_text("roll_back: {enabled: true}\nretrain: {limit: 0}\n")
        actions = [{"action": name, "reasons": ["a test"]} for name in ("roll_back", "retrain")]
        loop.report(verdict={"status": "worse", "sure": "measured", "actions": actions})
        wait_until(lambda: "failed" in loop.results("roll_back"), 120, loop.audit)
        failed = next(one for one in loop.audit("roll_back") if one["result"] == "failed")
        assert "error:" in failed["why"] and "Traceback" not in failed["why"]
        assert [one["rule"] for one in loop.audit("retrain")] == ["limit"]
        wait_until(lambda: any("roll_back failed" in one.get("says", "") for one in loop.audit("tell")), 20, loop.audit)
        wait_until(lambda: loop.query('ALERTS{alertname="ActionFailed", alertstate="firing"}'), 20)


def test_every_panel_of_every_dashboard_shows_something(loop: Loop) -> None:
    """Each query is one that Prometheus takes, and asks for what is there."""
    loop.report()
    empty = prometheus.panels(loop.project.folder)
    assert len(empty) > 50

    def nothing_is_empty() -> bool:
        nonlocal empty
        empty = {one for one in empty if not loop.query(one[2])}
        return not empty

    post(f"{loop.address('alertmanager')}/api/v2/alerts", [{"labels": {"alertname": "One", "action": "roll_back"}}])
    wait_until(nothing_is_empty, 90, lambda: sorted(empty))


# ------------------------------------------------------------------------------------------------------- To its end


@pytest.fixture
def watched(
    servers: None, render: Render, trained: Project, served: Project, watched_environment: Path, tmp_path: Path
) -> Iterator[Loop]:
    """The loop around a project whose champion answers, with a Prefect of its own and a worker that asks it every other second."""
    folder, source = tmp_path / "project", tmp_path / "source"
    answers = {"serving": ["online", "batch", "streaming", "hybrid"], "deploy": "compose", "monitoring": True}
    shutil.copytree(render(**answers), folder)
    for name in (*MADE, "dist/bundle"):
        there, here = (served if name == "dist/bundle" else trained) / name, folder / name
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(there, here, dirs_exist_ok=True) if there.is_dir() else shutil.copy2(there, here)
    shutil.copytree(trained.environment["SOURCE_URI"], source)
    more = {**trained.environment, "SOURCE_URI": str(source), "PREFECT_WORKER_QUERY_SECONDS": "2", "ENGINE": "process"}
    for name in ("PREFECT_API_URL", "PYTHONPATH", "OMP_NUM_THREADS"):
        more.pop(name, None)
    project = borrowing(folder, watched_environment, "", **more, **ports())
    del project.environment["PREFECT_API_URL"]
    loop = Loop(project, trained=True)
    try:
        loop.start("prefect", "worker")
        wait_for(f"{loop.address('service')}/health/ready", loop.service)
        yield loop
    finally:
        loop.close()


def test_an_alert_trains_a_challenger(watched: Loop, flights: Callable[[Path, list[int]], Path]) -> None:
    """The service is asked what it was not trained on, a look sees it, and each link from there to a new version is the real one."""
    project = watched.project
    (project / "monitoring/policy.yaml").write_text("retrain: {limit: 9, cool_down_minutes: 0}\n")
    flights(Path(project.environment["SOURCE_URI"]), [5])
    pointer = json.loads((project / "champion.json").read_text())
    since = (datetime.now(UTC) - timedelta(days=30)).isoformat()  # of a new champion nobody proposes a training
    (project / "champion.json").write_text(json.dumps({**pointer, "since": since}))
    example = json.loads((project / "dist/bundle/expected.json").read_text())
    row = dict(zip(example["columns"], example["rows"][0], strict=True))
    post(f"{watched.address('service')}/predict", [{**row, "flight_id": f"F{number}"} for number in range(800)])
    log = project / "predictions"
    wait_until(lambda: sum(len(file.read_bytes().splitlines()) for file in log.glob("*.log")) == 800, 20)
    assert "retrain: " in project.make("monitor")

    wait_until(lambda: "RUNNING" in watched.states(1), 90)
    post(f"{watched.address('alertmanager')}/api/v2/alerts", [{"labels": {"alertname": "Two", "action": "retrain"}}])
    wait_until(lambda: watched.results("retrain").count("done") == 2, 60)
    wait_until(lambda: watched.states(1).keys() & {"COMPLETED", "FAILED", "CRASHED"}, 600)
    assert "COMPLETED" in watched.states(1), (project / ".monitoring/worker.log").read_text()[-3000:]
    first, second = (one for one in watched.audit("retrain") if one["result"] == "done")
    decided = [one for one in watched.audit("retrain") if one["result"] == "decided"]
    assert [one["asked"][0]["name"] for one in decided] == ["TrainingProposed", "Two"]
    assert first["why"] == f"run alert-{decided[0]['id']} was asked for"
    again = second["why"]
    assert again.startswith(f"run alert-{decided[0]['id']}: ") and again.endswith(" is there already (Running)"), again
    assert not watched.states(2)

    assert project.registry("r.holder('champion').number, r.holder('challenger').number") == "(1, 2)"
    line = next(one for one in project.make("history").splitlines() if "challenger" in one)
    assert re.search(r"\b2\b", line), line
    said = project.make("monitor")
    assert "of version 1" in said
    assert "no training is proposed before" in said
    report = json.loads((project / "reports/monitor/monitor.json").read_text())
    assert report["challenger"]["version"] == 2 and report["challenger"]["better"] is None, report["challenger"]


@pytest.mark.long
def test_how_soon_an_alert_is_a_training(watched: Loop, record_property: Callable[[str, object], None]) -> None:
    """From when the alert fires, and from when the report is there, until the run goes on; each time with a new alert."""
    (watched.project / "monitoring/policy.yaml").write_text("retrain: {limit: 9, cool_down_minutes: 0}\n")
    found: dict[str, list[float]] = {"alert": [], "report": [], "process": []}
    for turn in range(1, TURNS + 1):
        begun = time.time()
        watched.report()
        wait_until(lambda turn=turn: "RUNNING" in watched.states(turn), 90)
        decided = [one for one in watched.audit("retrain") if one["result"] == "decided"]
        states = watched.states(turn)
        running = states["RUNNING"]
        found["process"].append(round(running - states["PENDING"], 2))
        found["alert"].append(round(running - moment(decided[-1]["asked"][0]["starts_at"]), 2))
        found["report"].append(round(running - begun, 2))
        watched.report(verdict={"status": "good", "sure": "measured", "actions": []})
        wait_until(lambda turn=turn: watched.states(turn).keys() & {"COMPLETED", "FAILED", "CRASHED"}, 120)
        wait_until(lambda: not watched.query('ALERTS{alertname="TrainingProposed"}'), 20)
        time.sleep(3)  # until Alertmanager has forgotten it
    record_property("alert_to_training", json.dumps(found))
    assert max(found["alert"]) < 60


def test_an_alert_waits_for_alertmanager(make: Make) -> None:
    """It is raised while nobody takes it, and comes when there is somebody again."""
    project = make("Watched alone")
    project.replace(  # a minute by default
        "src/copier_mlops/automation/monitoring_stack.py", '["--config.file=monitoring/prometheus', '["--rules.alert.resend-delay=1s", "--config.file=monitoring/prometheus'
    )  # fmt: skip
    with contextlib.closing(Loop(project)) as loop:
        loop.supervisor("stop", "alertmanager")
        loop.report()
        wait_until(lambda: bool(loop.query('ALERTS{alertname="TrainingProposed", alertstate="firing"}')), 30)
        failed = "prometheus_notifications_errors_total > 0"  # no series at all before the first attempt
        wait_until(lambda: loop.query(failed), 30)
        assert not loop.results("retrain")
        loop.start("alertmanager")
        wait_until(lambda: "decided" in loop.results("retrain"), 60)
        assert loop.results("retrain").count("decided") == 1
        assert loop.audit("retrain")[0]["asked"][0]["name"] == "TrainingProposed"


# ------------------------------------------------------------------------------------------------------ up and down


def test_up_starts_all_of_it_and_down_ends_exactly_that(make: Make) -> None:
    project = make("Flight delays")
    del project.environment["PREFECT_API_URL"]
    begun = time.monotonic()
    said = project.make("up")
    print(f"up after {time.monotonic() - begun:.0f} s")
    for name, path in (
        ("prometheus", "/-/ready"),
        ("alertmanager", "/-/ready"),
        ("mlflow", "/health"),
        ("prefect", "/api/health"),
        ("receiver", "/metrics"),
    ):
        address = f"http://127.0.0.1:{project.environment[f'{name.upper()}_PORT']}"
        assert address in said
        urllib.request.urlopen(address + path, timeout=20).close()
    address = f"http://127.0.0.1:{project.environment['RECEIVER_PORT']}/metrics"
    with urllib.request.urlopen(address, timeout=20) as answer:
        assert sorted(re.findall(r'loop_process_up\{process="(\w+)"\} 1.0', answer.read().decode())) == STACK
    assert "Grafana is left out" in said and "nobody is told of an alert" in said
    ours = [".monitoring/lock", "monitoring/targets.json", "monitoring/audit.jsonl"]
    assert project.command("git", "check-ignore", *ours).stdout.split() == ours
    log = project / ".monitoring/monitor.log"  # a look, and then the log of answers becomes smaller
    in_order = r"error: .*bundle.*0 entries of 0 files in predictions are Parquet now"
    wait_until(lambda: re.search(in_order, log.read_text(), re.S), 60, log.read_text)

    def pids() -> dict[str, str]:
        """The numbers of the processes that run, as `supervisorctl status` prints them."""
        words = [".venv/bin/supervisorctl", "-c", ".monitoring/supervisor/supervisord.conf", "status"]
        return dict(re.findall(r"^(\w+) +RUNNING +pid (\d+)", project.command(*words).stdout, re.M))

    before = pids()
    assert set(before) == set(STACK)
    os.killpg(int(before["receiver"]), signal.SIGKILL)
    project.make("up")
    wait_until(lambda: len(pids()) == len(before), 30, pids)
    now = pids()
    assert {name for name in now if now[name] != before[name]} == {"receiver"}
    other = project.start("sleep", "300")
    project.make("down")
    left = lambda: [words for pid, words in processes_in(project.folder) if pid != other.pid and words != [""]]  # noqa: E731
    wait_until(lambda: not left(), 10, left)
    assert other.poll() is None
    end(other)


def test_up_starts_containers_and_an_alert_reaches_the_receiver(make: Make) -> None:
    """With the rights and folders of monitoring/compose.yaml, and what a project adds beside it."""
    project = make("In containers")
    services = yaml.safe_load((project / "monitoring/compose.yaml").read_text())["services"]
    names = {name: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", service["image"]) for name, service in services.items()}
    need(engine.watching(names))
    more = {**engine.environment(), "ENGINE": "containers", "GRAFANA_PORT": str(free_port()), "ONLY": "receiver"}
    project.environment.update(more)
    (project / "monitoring/compose.override.yaml").write_text(
        "services: {grafana: {environment: {GF_USERS_DEFAULT_THEME: light}}}\n"
    )

    def ask(name: str, path: str) -> Any:
        address = f"http://127.0.0.1:{project.environment[f'{name}_PORT']}"
        with urllib.request.urlopen(address + path, timeout=20) as answer:
            return json.load(answer)

    def containers() -> dict[str, dict[str, Any]]:
        running = engine.podman("ps", "--quiet", "--filter", "name=in-containers-").stdout.split()
        found = json.loads(engine.podman("inspect", *running).stdout) if running else []
        return {one["Name"].removeprefix("in-containers-"): one for one in found}

    try:
        said = project.make("up")
        for name in services:
            assert f"http://127.0.0.1:{project.environment[f'{name.upper()}_PORT']}" in said
        there = containers()
        assert set(there) == set(services)
        for name, one in there.items():
            host = one["HostConfig"]
            assert host["ReadonlyRootfs"] and host["NetworkMode"] == "host" and not one["EffectiveCaps"], name
            assert "no-new-privileges" in host["SecurityOpt"], name
        assert "GF_USERS_DEFAULT_THEME=light" in there["grafana"]["Config"]["Env"]
        rules = [
            rule["name"] for group in ask("PROMETHEUS", "/api/v1/rules")["data"]["groups"] for rule in group["rules"]
        ]
        files = (project / "monitoring/prometheus/rules").glob("*.yml")
        assert sorted(rules) == sorted(
            re.findall(r"(?:alert|record): (\S+)", "".join(file.read_text() for file in files))
        )
        boards = [
            json.loads(file.read_text())["title"] for file in (project / "monitoring/grafana/dashboards").glob("*.json")
        ]
        assert sorted(one["title"] for one in ask("GRAFANA", "/api/search")) == sorted(boards)
        query = urllib.parse.urlencode({"query": 'up{job="receiver"}'})
        up = f"/api/datasources/proxy/uid/prometheus/api/v1/query?{query}"
        wait_until(lambda: [one["value"][1] for one in ask("GRAFANA", up)["data"]["result"]] == ["1"], 60)
        alert = {"labels": {"alertname": "One", "action": "retrain"}, "annotations": {"summary": "a test"}}
        post(f"http://127.0.0.1:{project.environment['ALERTMANAGER_PORT']}/api/v2/alerts", [alert])
        audit = project / "monitoring/audit.jsonl"
        wait_until(lambda: audit.exists() and '"retrain"' in audit.read_text(), 90)
        project.make("up")  # reads all settings anew
        assert {one["Id"] for one in containers().values()}.isdisjoint(one["Id"] for one in there.values())
        (project / "monitoring/compose.override.yaml").write_text("services: {alertmanager: {command: [--none]}}\n")
        said = project.make("up", fails=True)
        assert re.search(r"alertmanager restarted \d+ times", said) and "unknown long flag '--none'" in said
        assert not containers()  # nothing restarts again and again after that
    finally:
        project.make("down")
    assert not containers()
    for kept in ("prometheus/wal", "alertmanager", "grafana/grafana.db"):
        assert (project / ".monitoring" / kept).exists(), "what they wrote stays"
