"""The monitoring stack of this project on one host: `make up` starts it, `make down` ends exactly what that started.

Prometheus, Alertmanager and Grafana are containers, or processes where ENGINE=process says so. MLflow, Prefect, its worker and the
alert webhook are processes in either case: they read and write this folder, with the very packages that are locked here. A supervisor
starts a process again when it ends; see supervision.py.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import sys
import time
import tomllib
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import yaml

from copier_mlops import ProjectError, _environment, _ports
from copier_mlops.automation import supervision
from copier_mlops.automation.supervision import Process, Supervisor
from copier_mlops.deploy import scrape_targets
from copier_mlops.deploy.host import EngineError, account, compose, crashed, docker, end, last_lines, run

PLACE = Path(".monitoring")
ETC = PLACE / "etc"
ROUTES, PERSON = Path("monitoring/alertmanager/alertmanager.yml"), Path("monitoring/alertmanager/person.yml")
COMPOSE = (Path("monitoring/compose.yaml"), Path("monitoring/compose.override.yaml"))
CONTAINERS = ("prometheus", "alertmanager", "grafana")
READY = {"prometheus": "/-/ready", "alertmanager": "/-/ready", "grafana": "/api/health", "mlflow": "/health",
         "prefect": "/api/health", "receiver": "/health/live"}  # fmt: skip
# A process of its own for each look: libraries that wait for the next one would hold half a gigabyte meanwhile.
# And once a day the log of answers becomes smaller: what the service explains by itself has to be in files that are not compacted.
AGAIN = """echo "a look each $1 minutes"; left=0; while :; do
  "$0" "$2"; [ "$left" -gt 0 ] || { "$0" "$3"; left=1440; }
  left=$((left - $1)); sleep "$((60 * $1))"
done"""
SECONDS_TO_START = 180.0
QUIET = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
# How this runs is not how a service is deployed.
LEFT_OUT = ("ENGINE", "ONLY")
NO_PROGRAM = (
    "is not on the PATH. Install it (apt-get install prometheus prometheus-alertmanager; prometheus.io/download)"
)


class UpError(ProjectError):
    """Something does not start; the text says what, and what to do."""


# ------------------------------------------------------------------------------------------------- What there is


def program(*names: str) -> str:
    """Where a program is, by one of its names."""
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise UpError(f"{names[0]} {NO_PROGRAM}")
    return found


def project() -> str:
    """Return the project's name, with which the names of its containers begin."""
    return str(tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])


def composed(where: Mapping[str, int], *words: str) -> None:
    """Have Compose do something with the containers of this project, and of no other."""
    name = project()
    engine = docker()
    files = [word for file in COMPOSE if file.exists() for word in ("-f", str(file))]
    more = {f"{server.upper()}_PORT": str(port) for server, port in where.items()}
    more |= {"PROJECT": name, "PLACE": str(PLACE.absolute()), "RUN_AS": account(engine)}
    run([*compose(engine), *files, "-p", f"{name}-monitoring", *words], more)


def processes(given: Mapping[str, str], where: Mapping[str, int], token: str, containers: bool) -> list[Process]:
    """What is to run as processes, in the order in which it is needed; what another host serves is not started here."""
    here = Path(sys.executable).parent
    prefect = f"http://127.0.0.1:{where['prefect']}/api"
    server = given.get("PREFECT_API_URL") or prefect
    app = str(here / (Path(given.get("APP", "")).name or "mlops"))
    found = []
    if not containers:
        data = [f"--storage.tsdb.path={PLACE / 'prometheus'}", "--storage.tsdb.retention.time=30d"]
        words = ["--config.file=monitoring/prometheus/prometheus.yml", *data]
        listen = f"--web.listen-address=127.0.0.1:{where['prometheus']}"
        found.append(Process("prometheus", [program("prometheus"), *words, listen]))
        words = [f"--config.file={ETC / 'alertmanager.yml'}", f"--storage.path={PLACE / 'alertmanager'}"]
        listen = f"--web.listen-address=127.0.0.1:{where['alertmanager']}"
        one = program("alertmanager", "prometheus-alertmanager")
        found.append(Process("alertmanager", [one, *words, listen, "--cluster.listen-address="]))
    if not given.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        less = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # of what nobody asks for here, in processes of its own
        found.append(Process("mlflow", [app, "ui", "--port", str(where["mlflow"])], more=less))
    if server == prefect:
        words = ["server", "start", "--host", "127.0.0.1", "--port", str(where["prefect"])]
        # Prefect does not read .env, and make does not pass these variables on.
        more = {name: value for name, value in given.items() if name.startswith("PREFECT_")}
        more = {"PREFECT_HOME": str(Path(".prefect").absolute()), **more, "PREFECT_API_URL": prefect}
        found.append(Process("prefect", [str(here / "prefect"), *words], more=more))
    found.append(Process("worker", [app, "schedule"], ready="' started!", more={"PREFECT_API_URL": server}))
    minutes = given.get("MONITOR_MINUTES") or "60"
    if not minutes.isdecimal() or not int(minutes):
        raise UpError(f"MONITOR_MINUTES is {minutes}; it is a whole number of minutes, such as 60")
    words = ["/bin/sh", "-c", AGAIN, app, minutes, "monitor", "compact-log"]
    found.append(Process("monitor", words, ready="a look each"))
    secret = {"PREFECT_API_URL": server, "ALERT_TOKEN": token, "RECEIVER_PORT": str(where["receiver"])}
    found.append(Process("receiver", [app, "alert-webhook"], more=secret))
    return found


# ------------------------------------------------------------------------------------------------ What is written


def prepare(given: Mapping[str, str], where: Mapping[str, int]) -> str:
    """Write what the servers read.

    Returns:
        The token that Alertmanager shows and the receiver wants: ALERT_TOKEN, or one that is made here once.
    """
    for folder in (ETC, *(PLACE / name for name in CONTAINERS)):
        folder.mkdir(parents=True, exist_ok=True)
    (PLACE / ".gitignore").write_text("*\n")
    kept = ETC / "alert-token"
    token = given.get("ALERT_TOKEN") or (kept.read_text().strip() if kept.exists() else secrets.token_hex(32))
    kept.touch(mode=0o600)
    kept.write_text(token)
    scrape_targets.write(given)
    routes = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))
    for receiver in routes["receivers"]:
        for hook in receiver.get("webhook_configs", []):
            hook["url"] = hook["url"].replace(f":{_ports.SERVERS['receiver']}/", f":{where['receiver']}/")
        if receiver["name"] == "person" and PERSON.exists():
            receiver.update(yaml.safe_load(PERSON.read_text(encoding="utf-8")) or {})
    (ETC / "alertmanager.yml").write_text(yaml.safe_dump(routes, sort_keys=False))
    return token


# --------------------------------------------------------------------------------------------------- What is done


def answers(port: int, path: str) -> bool:
    """Return whether a server of this machine responds; a proxy of the user's does not reach it."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}{path}", timeout=2):
            return True
    except OSError:
        return False


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def until_ready(name: str, where: Mapping[str, int], text: str, stack: Supervisor) -> None:
    """Wait until a server responds, or a process logs that it is ready.

    Raises:
        UpError: if it ends again and again, or is not ready in time; the text has its last lines.
    """
    end = time.monotonic() + SECONDS_TO_START
    started: set[int] = set()
    while not (text in stack.log(name) if text else answers(where[name], READY[name])):
        info = stack.info(name)
        started |= {info["pid"]} - {0} if info else set()
        ended = info.get("statename") == "FATAL" or len(started) > 1 + supervision.RESTARTS
        if ended or time.monotonic() > end:
            last = "\n".join(stack.log(name).splitlines()[-12:])
            raise UpError(
                f"{name} {'ends again and again' if ended else f'is not ready after {SECONDS_TO_START:g} s'}:\n{last}"
            )
        time.sleep(0.2)


def until_container_ready(name: str, where: Mapping[str, int], engine: list[str]) -> None:
    """Wait until the server in a container answers.

    Raises:
        UpError: If the container ends, restarts again and again, or does not answer in time.
    """
    container, until = f"{project()}-{name}", time.monotonic() + SECONDS_TO_START
    while not answers(where[name], READY[name]):
        why = crashed(engine, container)
        if not why and time.monotonic() > until:
            why = f"is not ready after {SECONDS_TO_START:g} s"
        if why:
            raise UpError(f"{name} {why}. The last lines of container {container}:\n{last_lines(engine, container)}")
        time.sleep(0.5)


def up(given: Mapping[str, str]) -> None:
    """Start what does not run yet; what runs reads its settings again."""
    where = _ports.servers(given)
    said = PLACE / "engine"
    runs = said.read_text() if said.exists() else ""
    wanted = given.get("ENGINE") or runs or "containers"
    if wanted not in ("process", "containers"):
        raise UpError(f"ENGINE is {wanted}; it may be containers or process")
    if runs not in ("", wanted):
        raise UpError(f"it runs with ENGINE={runs}; `make down` ends that, then do the same again")
    containers = wanted == "containers"
    if containers:
        compose(docker())  # says what is missing before anything is started
    token = prepare(given, where)
    only = given.get("ONLY", "").split()
    wanted_processes = [one for one in processes(given, where, token, containers) if one.name in only or not only]
    end_earlier()
    stack = Supervisor(PLACE)
    alone = not stack.runs()
    if alone:
        stack.end_leftovers()
    for one in wanted_processes:
        if one.name in where and not stack.pid(one.name) and not is_free(where[one.name]):
            raise UpError(
                f"port {where[one.name]} is taken by something else; {one.name.upper()}_PORT=... chooses another for {one.name}"
            )
    said.write_text(wanted)
    kept = {name: value for name, value in _environment.for_make().items() if name not in LEFT_OUT}
    missing: list[str] = []
    try:
        if containers:
            composed(where, "up", "--detach", "--force-recreate")
        missing = stack.configure(wanted_processes, {**QUIET, **kept, "PYTHONUNBUFFERED": "1"})
        for one in wanted_processes:
            if one.name not in missing and one.name in CONTAINERS:
                stack.signal(one.name, "HUP")
        # The worker needs Prefect; all others start at the same time.
        to_start = [one for one in wanted_processes if one.name in missing]
        for wave in ([one for one in to_start if not one.ready], [one for one in to_start if one.ready]):
            for one in wave:
                stack.start(one.name)
            for one in wave:
                until_ready(one.name, where, one.ready, stack)
        for name in CONTAINERS if containers else ():
            until_container_ready(name, where, docker())
    except BaseException:
        if containers:  # or what fails would restart again and again
            with contextlib.suppress(EngineError):
                composed(where, "down")
        for name in () if alone else reversed(missing):
            stack.stop(name)
        if alone:
            stack.end()
        raise
    show(given, where, containers, stack)


def show(given: Mapping[str, str], where: Mapping[str, int], containers: bool, stack: Supervisor) -> None:
    """Print where everything is."""
    for name in READY:
        if containers or name != "grafana":
            elsewhere = {"mlflow": "MLFLOW_TRACKING_URI", "prefect": "PREFECT_API_URL"}.get(name, "")
            address = f"http://127.0.0.1:{where[name]}"
            there = stack.pid(name) or (containers and name in CONTAINERS)
            print(f"{name:<14}{address if there else given.get(elsewhere, '')}")
    print(f"{'watched':<14}{scrape_targets.FILE}: {scrape_targets.services(given) or 'no service'}")
    if not containers:
        print("note: Grafana is left out, since it is no program that comes with Prometheus; ENGINE=containers has it")
    if not given.get("NOTIFY_URLS"):
        print("note: NOTIFY_URLS is not set in .env, so nobody is told of an alert")
    if not PERSON.exists():
        print(f"note: when the receiver itself is down, nobody hears of it without {PERSON}; see the example beside it")


def end_earlier() -> None:
    """End what a release before 1.3 started, which had a file with the number of each process."""
    for name in ("receiver", "monitor", "worker", "prefect", "mlflow", "alertmanager", "prometheus"):
        end(PLACE, name, supervision.SECONDS_TO_STOP)


def down(given: Mapping[str, str]) -> None:
    """End what was started; what it wrote stays in .monitoring."""
    said = PLACE / "engine"
    end_earlier()
    Supervisor(PLACE).end()
    if said.exists() and said.read_text() == "containers":
        composed(_ports.servers(given), "down")
    said.unlink(missing_ok=True)
