"""The loop from an alert to a training, told by the test that goes through it; and what it costs a service to be watched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from lab import INSIDE, PACKAGE, ROOT, Lab, Project, call, environment, free_port, stop, wait_for
from rows import Row, repeated

from .online import CONNECTIONS, Server

REQUESTS = 20_000
WARM = 2_000
REPETITIONS = 10
TEST = "tests/test_monitoring.py::test_how_soon_an_alert_is_a_training"
TICKS = os.sysconf("SC_CLK_TCK")
WAYS = ("watched", "unasked", "unwatched")
MEANING = {
    "alert_to_training": "from when a proposed training is an alert in Prometheus until the run of the deployment goes on in Prefect: Prometheus "
    "and Alertmanager at 1 s, a worker that asks every 2 s",
    "report_to_training": "the same from when the monitor's report is there",
    "monitoring_cpu": f"seconds of the processor that the service takes for {REQUESTS:,} requests for one row, each logged and counted, and a "
    "real Prometheus asking for the metrics every second, against the same service with none of that",
}


def trainings() -> list[Row]:
    """How soon a training begins, in a Prefect and with a worker of a project that was trained."""
    report = ROOT / ".cache" / "bench" / f"loop-{os.getpid()}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pytest", "-q", "--junitxml", str(report), "-o", "junit_family=xunit1", TEST]
    call(words, ROOT, environment(CI="1"), timeout=1800)
    told = {one.get("name", ""): one.get("value", "") for one in ElementTree.parse(report).iter("property")}
    report.unlink()
    found = json.loads(told["alert_to_training"])
    note = f"{len(found['alert'])} alerts, each a new one; of it the run's own process takes {median(found['process']):.1f} s to start"
    return [
        repeated("alert_to_training", found["alert"], "s", 15, note),
        repeated("report_to_training", found["report"], "s"),
    ]


# ------------------------------------------------------------------------------------------------------ Being watched


def used(process: subprocess.Popen[str]) -> float:
    """Seconds of the processor that a process took so far, in the kernel, too."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.contextmanager
def prometheus(lab: Lab, project: Project, port: int) -> Iterator[subprocess.Popen[str]]:
    """A Prometheus that asks a service every second, and holds what it hears against the rules of the project.

    Raises:
        RuntimeError: If it is not installed.
    """
    if shutil.which("prometheus") is None:
        raise RuntimeError("prometheus is not installed: apt-get install prometheus")
    folder = lab.folder / "prometheus"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    labels = {"job": "service", "environment": "dev"}
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(project.folder / "monitoring/prometheus/rules/*.yml")],
        "scrape_configs": [
            {"job_name": "all", "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    listen = free_port()
    words = [
        "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{listen}",
    ]
    with (lab.folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(
            words, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, start_new_session=True
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{listen}/-/ready", server)
        until = time.monotonic() + 30
        asked = f"http://127.0.0.1:{listen}/api/v1/query?{urllib.parse.urlencode({'query': 'up == 1'})}"
        while True:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                if json.load(answer)["data"]["result"]:
                    break
            if time.monotonic() > until:
                raise RuntimeError("Prometheus does not reach the service")
            time.sleep(0.2)
        yield server
    finally:
        stop(server)


def one_turn(lab: Lab, project: Project, server: Server, way: str) -> tuple[float, float, float]:
    """Seconds of the processor that the service took, that Prometheus took, and seconds on the clock."""
    row = lab.folder / "row.json"
    row.write_text(server.body)
    with contextlib.ExitStack() as stack:
        address, service = stack.enter_context(server.running(lab.folder / f"{way}.log"))
        place = urllib.parse.urlsplit(address).netloc
        watching = (
            stack.enter_context(prometheus(lab, project, int(place.rpartition(":")[2]))) if way == "watched" else None
        )
        words = [sys.executable, str(INSIDE / "asked.py"), place]
        call([*words, str(WARM), str(CONNECTIONS), str(row)], lab.folder)
        time.sleep(1.5)  # what was logged is written
        before = used(service), used(watching) if watching else 0.0
        seconds = float(call([*words, str(REQUESTS), str(CONNECTIONS), str(row)], lab.folder).output)
        time.sleep(1.5)
        found = used(service) - before[0], used(watching) - before[1] if watching else 0.0, seconds
    logged = sum(len(file.read_bytes().splitlines()) for file in (project.folder / "predictions").glob("*.log"))
    shutil.rmtree(project.folder / "predictions", ignore_errors=True)
    if logged != (0 if way == "unwatched" else WARM + REQUESTS):
        raise RuntimeError(f"{logged} answers are in the log of the service that is {way}")
    return found


def watched(lab: Lab) -> Row:
    project = lab.serving("online", monitoring="true")
    expected = json.loads((project.folder / "dist/bundle/expected.json").read_text())
    row = json.dumps(dict(zip(expected["columns"], expected["rows"][0], strict=True)))
    more = {"PYTHONPATH": str(project.folder / "src"), "OMP_NUM_THREADS": "1"}
    servers = {
        way: Server(
            way, [project.python, str(INSIDE / "serve.py"), PACKAGE, "unwatched" if way == "unwatched" else "watched"],
            "/health/ready", "/predict", row, project.folder, more,
        )
        for way in WAYS
    }  # fmt: skip
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for turn in range(REPETITIONS):
        for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
            found[way].append(one_turn(lab, project, servers[way], way))
    shares = [on[0] / off[0] for on, off in zip(found["watched"], found["unwatched"], strict=True)]
    asking = median(on[0] / unasked[0] for on, unasked in zip(found["watched"], found["unasked"], strict=True))
    micros = {way: 1e6 * median(one[0] for one in turns) / REQUESTS for way, turns in found.items()}
    own = median(server / seconds for _, server, seconds in found["watched"])
    note = (
        f"utime and stime of the service's process: {micros['watched']:.0f} microseconds a request, without log, counters and Prometheus "
        f"{micros['unwatched']:.0f}, with log and counters and nobody asking {micros['unasked']:.0f} (asking alone {asking:.3f} times); "
        f"Prometheus itself, which may run elsewhere, takes {100 * own:.1f} % of a processor more; {REPETITIONS} of each by turns"
    )
    lab.drop("online")
    return repeated("monitoring_cpu", shares, "times", 1.1, note)


def measure(lab: Lab) -> list[Row]:
    return [*trainings(), watched(lab)]
