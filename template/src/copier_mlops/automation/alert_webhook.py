"""The process of the alert webhook: who may send alerts, what is decided, and what Prometheus gets. `make up` starts it."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import logging
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from pydantic import Field, SecretStr
from yaml import YAMLError

from copier_mlops import ProjectError
from copier_mlops._audit_log import Audit
from copier_mlops.automation.action_runner import Acting, here
from copier_mlops.automation.connections import BACKLOG, MAX_HEAD_BYTES, LimitedProtocol
from copier_mlops.automation.exporter import family, of_report
from copier_mlops.automation.policy import ACTIONS, Policy, PolicyError, read_policy
from copier_mlops.automation.policy_engine import TELL, Alert, Deciding, MalformedError, known, read_alerts
from copier_mlops.automation.supervisor import process_states
from copier_mlops.automation.webhook_messages import PATHS, application
from copier_mlops.monitoring.report_reader import read_report
from copier_mlops.settings import Paths, Settings

POLICY = Path("monitoring/policy.yaml")
AUDIT = Path("monitoring/audit.jsonl")
MEMORY = Path("/proc/meminfo")
RESULTS = ("done", "failed", "refused", "unknown", "waits")
LEAVING_SECONDS = 20.0
LEFT_OUT = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ALERT_TOKEN")
NO_REPLICAS = "this project has no `make deploy`, so there are no replicas to add"

log = logging.getLogger(__name__)


class ReceiverSettings(Settings):
    """What this process is told beside the settings of the project."""

    alert_token: SecretStr = SecretStr("")
    receiver_host: str = "127.0.0.1"
    receiver_port: int = Field(default=9099, ge=0, le=65535)
    receiver_body_bytes: int = Field(default=1 << 20, ge=1)
    receiver_retry_seconds: float = Field(default=5, gt=0)
    supervisor_server_url: str = ""  # from the supervisor of `make up`


def load_policy() -> Policy:
    """The policy as it is now; the careful one, if there is no file.

    Raises:
        PolicyError: If it cannot be used.
    """
    try:
        return read_policy(POLICY.read_text(encoding="utf-8"), str(POLICY))
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        raise PolicyError(f"{POLICY} cannot be read ({error}).") from error


class Receiver:
    """The rules of one receiver, and what it did.

    Raises:
        ProjectError: If outside development, or for other machines, nobody said who may send alerts; if the policy or the
            record cannot be used.
    """

    def __init__(self, settings: ReceiverSettings) -> None:
        token = settings.alert_token.get_secret_value()
        self._token = hashlib.sha256(token.encode()).digest() if token else None
        near = settings.receiver_host in ("127.0.0.1", "localhost")
        if self._token is None and (settings.service_environment != "dev" or not near):
            raise ProjectError(
                f"SERVICE_ENVIRONMENT is {settings.service_environment}, RECEIVER_HOST is {settings.receiver_host}, and nobody said who "
                "may send alerts. Set ALERT_TOKEN to a long random text (`openssl rand -hex 32` makes one), and give Alertmanager the same."
            )
        self.most_bytes = settings.receiver_body_bytes
        self.supervisor = settings.supervisor_server_url
        self.strangers = 0
        self.requests: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(_Families(self))
        impossible = {} if Path("deploy").is_dir() else {"add_replica": NO_REPLICAS}
        self.deciding = Deciding(load_policy, Audit(AUDIT), lambda: dt.datetime.now(dt.UTC), impossible)
        command = here(sys.executable, lambda: load_policy().add_replica.maximum)

        def environment() -> dict[str, str]:
            # `make down` ends processes with the supervisor's mark; what an action starts, such as a deployment, outlives it.
            given = settings.environment().items()
            return {name: value for name, value in given if name not in LEFT_OUT and not name.startswith("SUPERVISOR_")}

        again = settings.receiver_retry_seconds
        # A notice does not wait behind a deployment.
        self.telling = Acting(self.deciding, command, environment, again)
        self.acting = Acting(self.deciding, command, environment, again, self._tell)

    def _tell(self, alert: Alert) -> None:
        for decision in self.deciding.decide([alert], TELL)[0]:
            self.telling.put(decision)

    def start(self) -> None:
        """Go on with what was decided before, then take new alerts."""
        for decision in list(self.deciding.open.values()):
            (self.telling if decision.action == TELL else self.acting).go_on(decision)
        self.telling.start()
        self.acting.start()

    def close(self) -> None:
        """Finish what is being done, as far as it takes no longer than a moment; the record knows the rest."""
        end = time.monotonic() + LEAVING_SECONDS
        for lane in (self.acting, self.telling):
            lane.leave(max(0.0, end - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether decisions are carried out."""
        return self.acting.is_alive() and self.telling.is_alive()

    def knows(self, header: str) -> bool:
        """Whether somebody may send alerts, found out in a time that says nothing of how much of a token was right."""
        if self._token is None:
            return True
        kind, _, given = header.partition(" ")
        right = hmac.compare_digest(hashlib.sha256(given.strip().encode(errors="replace")).digest(), self._token)
        return kind.lower() == "bearer" and right

    def take(self, body: bytes, action: str) -> dict[str, Any]:
        """Decide over a message, and have done what may be done.

        Raises:
            MalformedError: If it is no message of Alertmanager's.
            AuditError: If the decision cannot be written down.
        """
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"this is no JSON ({error})") from error
        if action not in ("", TELL):
            raise MalformedError(
                f"the action of an address may be {TELL} alone; other actions are labels of the alerts"
            )
        allowed, refused = self.deciding.decide(read_alerts(message), action)
        for decision in allowed:
            (self.telling if decision.action == TELL else self.acting).put(decision)
        with self._lock:
            for wanted, permit in refused:
                self._refused[known(wanted), permit.rule] += 1
        return {
            "decided": [{"id": one.id, "action": one.action} for one in allowed],
            "refused": [{"action": wanted, "rule": permit.rule, "why": permit.why} for wanted, permit in refused],
        }

    def counted(self, path: str, status: int) -> None:
        """Count a request."""
        with self._lock:
            self.requests[path if path in PATHS else "other", str(status)] += 1
            self.strangers += status == 401

    def metrics(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def families(self) -> Iterator[Metric]:
        """Collect what this process counts."""

        def single(name: str, kind: Any, says: str, value: float) -> Metric:
            return family(name, kind, says, [({}, float(value))])

        with self._lock:
            requests, refused, strangers = sorted(self.requests.items()), dict(self._refused), self.strangers
        counts = Counter({(action, result): 0 for action in ACTIONS for result in RESULTS})
        for lane in (self.acting, self.telling):
            counts.update(dict(lane.counts))
        for (action, _), count in refused.items():
            counts[action, "refused"] += count
        actions = [({"action": action, "result": result}, float(n)) for (action, result), n in sorted(counts.items())]
        yield family("loop_actions_total", "counter", "Actions by how they ended.", actions)
        answered = [({"path": path, "status": status}, float(count)) for (path, status), count in requests]
        yield family("loop_requests_total", "counter", "Requests answered.", answered)
        yield single("loop_strangers_total", "counter", "Requests without a valid token.", strangers)
        waiting = self.acting.waiting + self.telling.waiting
        yield single("loop_waiting_actions", "gauge", "Decisions that are not carried out yet.", waiting)
        yield single("loop_policy_holds", "gauge", "Whether the policy can be used.", self.deciding.policy_holds)
        last = [({"action": known(action)}, at.timestamp()) for action, at in sorted(dict(self.deciding.last).items())]
        yield family("loop_last_allowed_timestamp_seconds", "gauge", "When an action was last allowed.", last)


class _Families(Collector):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def collect(self) -> Iterator[Metric]:
        for sources in (self._receiver.families(), _report(), _machine(), _stack(self._receiver.supervisor)):
            yield from (one for one in sources if one.samples)


def _report() -> Iterator[Metric]:
    """Collect the results of `make monitor`; without a report there are none, and an alert reports that."""
    holds = 1.0
    try:
        yield from of_report(read_report(Paths.LOOK))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        holds = 0.0
    yield family("monitor_report_holds", "gauge", "Whether the report of the monitor can be read.", [({}, holds)])


def _machine() -> Iterator[Metric]:
    """The room that is left where the project is, and the memory; bytes."""
    disk = shutil.disk_usage(".")
    yield family("host_disk_free_bytes", "gauge", "Room on the project's disk.", [({}, float(disk.free))])
    yield family("host_disk_size_bytes", "gauge", "Size of the project's disk.", [({}, float(disk.total))])
    if not MEMORY.exists():
        return
    lines = dict(line.partition(":")[::2] for line in MEMORY.read_text(encoding="ascii").splitlines())
    for name, key in (("available", "MemAvailable"), ("size", "MemTotal")):
        if key in lines:
            size = float(lines[key].split()[0]) * 1024
            yield family(f"host_memory_{name}_bytes", "gauge", "Memory of this machine.", [({}, size)])


def _stack(supervisor: str) -> Iterator[Metric]:
    """Collect the processes of `make up`, if it started this one."""
    states = process_states(supervisor) if supervisor else []
    up = [({"process": one.name}, float(one.up)) for one in states]
    yield family("loop_process_up", "gauge", "Whether a process of the monitoring stack runs.", up)
    starts = [({"process": one.name}, one.started) for one in states]
    yield family("loop_process_start_time_seconds", "gauge", "When a process was last started.", starts)


# ------------------------------------------------------------------------------------------------------ Process


class Server(uvicorn.Server):
    """Uvicorn with limits of its connections, which ends when decisions are no longer carried out."""

    def __init__(self, receiver: Receiver) -> None:
        config = uvicorn.Config(
            application(receiver),
            http=LimitedProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self._receiver = receiver

    async def on_tick(self, counter: int) -> bool:
        if not self._receiver.alive:
            log.error(
                "error: a thread that carries out actions has ended; the process ends, and its supervisor starts it again"
            )
            return True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        OSError: If the address cannot be used.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=kind, backlog=BACKLOG)


def serve() -> bool:
    """Receive alerts until SIGTERM or SIGINT.

    Returns:
        Whether the thread of the actions was alive until the end.

    Raises:
        SettingsError: If a setting is not valid.
        ProjectError: If the policy is not valid, or the address cannot be used.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are of malformed requests
    settings = ReceiverSettings()
    receiver = Receiver(settings)
    try:
        listening = listen(settings.receiver_host, settings.receiver_port)
    except OSError as error:
        raise ProjectError(
            f"it cannot listen at {settings.receiver_host}:{settings.receiver_port} ({error.strerror})."
        ) from error
    receiver.start()
    print(f"listening at {settings.receiver_host}:{listening.getsockname()[1]}", flush=True)
    # Uvicorn raises a signal again after it has ended; by default that would end the process before its actions are.
    before = {name: signal.signal(name, lambda *_: None) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        Server(receiver).run(sockets=[listening])
        alive = receiver.alive
        receiver.close()
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    return alive
