"""What a project's flow.py is composed of: the steps of a training run, their retries, its notices and its name in Prefect."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Crashed

from copier_mlops import UnreachableError, _notifications
from copier_mlops.data import tables
from copier_mlops.evaluation.gate import Outcome, run_name
from copier_mlops.pipeline.run_config import period, recall, resolve_run
from copier_mlops.settings import Paths, Settings
from copier_mlops.versioning import dvc

if TYPE_CHECKING:
    from copier_mlops.lifecycle.registration import Registration

ALIVE = Path(".cache/flow-run")
SECONDS_TO_LOOK = 0.05
_REGISTRATION = "copier_mlops.lifecycle.registration"


@dataclass
class Report:
    """What a run did, for the table at its end.

    Attributes:
        outcome: Verdict and version.
        facts: What reports/facts.json says.
        seconds: By step; a stage that had nothing to do is not in it.
        fresh: Whether anything was recorded; False if all was as in the run before.
        flow_run: Its id in Prefect.
    """

    outcome: Outcome
    facts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    fresh: bool = True
    flow_run: str = ""


def first_name() -> str:
    """Return the name of a run while it goes on. One that an alert asked for keeps the name that the audit log gives in front."""
    asked = f"{(flow_run.name or '').partition(':')[0]}: " if "alert" in flow_run.tags else ""
    return f"{asked}train {period()}".strip()


class TrainingRun:
    """A training run inside a Prefect flow. As a context it holds the lock of the folder and sends the notices.

    Attributes:
        settings: The settings of the run.
        seconds: By step; a stage that had nothing to do is not in it.
        outcome: Verdict and version; None until the stages have run, or if what they made is not recorded yet.
        fresh: Whether there is something to record; False if all is as in the run before.
        registration: The steps in the registry; None before `gate`.
    """

    def __init__(self) -> None:
        self.settings = Settings()
        self.seconds: dict[str, float] = {}
        self.outcome: Outcome | None = None
        self.fresh = False
        self.registration: Registration | None = None
        self._open = contextlib.ExitStack()

    def step(self, name: str, work: Callable[[TrainingRun], Any], retries: int | None = None) -> Any:
        """Run a function as a Prefect task of that name, which is tried again if something outside does not answer.

        Args:
            name: What Prefect calls the task.
            work: Called with this object.
            retries: Number of further attempts; by default what the settings say.

        Returns:
            What the function returns.
        """
        begun = time.perf_counter()
        wrapped = task(
            name=name,
            retries=self.settings.retries if retries is None else retries,
            retry_delay_seconds=self.settings.retry_delay_seconds,
            retry_condition_fn=may_pass,
            cache_policy=NO_CACHE,
        )(lambda: work(self))
        result = wrapped()
        self.seconds[name] = time.perf_counter() - begun
        return result

    def report(self) -> Report:
        """Return what the run did, and let the list of flow runs show it."""
        assert self.outcome is not None
        report = Report(self.outcome, tables.read_json(Paths.FACTS), self.seconds, self.fresh, str(flow_run.id))
        _name_run(report)
        return report

    def __enter__(self) -> TrainingRun:
        self.settings.apply()
        with self._open as opening:
            opening.enter_context(dvc.only_run(again=True))
            opening.enter_context(_burying_the_dead())
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if error is not None:
            notify(self.settings, "training failed", f"{type(error).__name__}: {error}")
        elif self.fresh and self.outcome is not None:
            verdict = "passed" if self.outcome.passed else "did not pass"
            notify(self.settings, f"training {verdict} the gate", self.outcome.markdown)


def resolve(run: TrainingRun) -> None:
    """Write run.yaml: what the rules of params.yaml come to now."""
    resolve_run(run.settings)


def run_stages(run: TrainingRun) -> None:
    """Run `dvc repro` as one child process, and look whether what it made is recorded already."""
    run.seconds |= dvc.repro(run.settings, say=_Progress(run.settings), early=_log)
    run.outcome = recall(run.settings)
    run.fresh = run.outcome is None


def gate(run: TrainingRun) -> None:
    """Hold the model against the limits of params.yaml and the champion."""
    from copier_mlops.lifecycle.registration import (
        Registration,  # brings MLflow, which a run with nothing new does not need
    )

    run.registration = Registration(run.settings)
    run.registration.gate()


def record(run: TrainingRun) -> None:
    """Log the run in MLflow: parameters, metrics, lineage, bundle, report."""
    _registration(run).log()


def register(run: TrainingRun) -> None:
    """Register the model as a version, if it passed the gate."""
    _registration(run).register()


def promote(run: TrainingRun) -> None:
    """Name the version challenger; champion, if it is the first or params.yaml says so. Write the report."""
    registration = _registration(run)
    registration.promote()
    run.outcome = registration.outcome()
    if run.fresh:
        create_markdown_artifact(key="verdict", markdown=run.outcome.markdown, description="metrics and verdict")


def _registration(run: TrainingRun) -> Registration:
    assert run.registration is not None, "the step `gate` comes first"
    return run.registration


def push(run: TrainingRun) -> None:
    """Copy data versions to the remote store. Snapshots go to git's remote by `make push`, when asked."""
    dvc.push(run.settings)


def _name_run(report: Report) -> None:
    """Let the list of flow runs show what a run came to."""
    metric = report.facts["metric"]
    result = run_name(metric, report.facts["metrics"][metric]["value"], report.outcome.status, report.outcome.version)
    name = f"{first_name()}: {result}" if report.fresh else f"{first_name()}: nothing new, {result}"
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # a name must not stop a training
        client.update_flow_run(report.flow_run, name=name)  # type: ignore[arg-type]


def _log(line: str) -> None:
    get_run_logger().info(line)


def may_pass(task: Any, run: Any, state: Any) -> bool:
    """Retry what may be better in a moment; a typo in params.yaml will not be."""
    with contextlib.suppress(UnreachableError):
        state.result(raise_on_failure=True)
        return False
    return True


class _Progress:
    """Prints and logs the lines of the stages, and has MLflow imported and its database made meanwhile: that takes seconds,
    and DVC is another process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = get_run_logger()  # of the task; lines come from another thread
        self.preparing: threading.Thread | None = None

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        self.log.info(line)
        if self.preparing is None:
            self.preparing = threading.Thread(target=self._prepare, daemon=True)
            self.preparing.start()

    def _prepare(self) -> None:
        with contextlib.suppress(Exception):  # what is wrong is told where it is needed
            importlib.import_module(_REGISTRATION).Registry(self.settings)


@contextlib.contextmanager
def server_ends_with_us(settings: Settings) -> Iterator[None]:
    """Prefect's temporary server outlives a process that is killed. A shell waits for our end of a pipe, and ends it."""
    if settings.prefect_api_url:
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer  # heavy, and here already where it is needed

    over = threading.Event()
    watching: list[subprocess.Popen[bytes]] = []

    def look() -> None:
        while not over.wait(SECONDS_TO_LOOK):  # the flow starts it when it likes
            server = SubprocessASGIServer().server_process
            if server is not None:
                words = ["/bin/sh", "-c", f"read -r _; kill {server.pid} 2>/dev/null"]
                watching.append(subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True))
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for watch in watching:
            watch.kill()
            watch.wait()


@contextlib.contextmanager
def _burying_the_dead() -> Iterator[None]:
    """A run whose process was killed stays RUNNING on its page for ever; the next one in this folder says that it crashed."""
    if ALIVE.exists():
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # a page must not stop a training
            last = client.read_flow_run(ALIVE.read_text().strip())  # type: ignore[arg-type]
            if last.state is not None and not last.state.is_final():
                client.set_flow_run_state(last.id, Crashed(message="its process was killed"), force=True)
    ALIVE.parent.mkdir(parents=True, exist_ok=True)
    ALIVE.write_text(str(flow_run.id))
    yield
    ALIVE.unlink(missing_ok=True)


def notify(settings: Settings, title: str, body: str) -> None:
    """Tell the people behind NOTIFY_URLS; whether they hear it does not decide over the run."""
    try:
        _notifications.notify(settings, title=title, body=body)
    except UnreachableError as error:
        print(error, flush=True)
