"""When: the Prefect flow around the stages. It knows retries, time limits, notices and the run's page, and no order."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Crashed

from .. import UnreachableError
from ..core.gate import Outcome, run_name
from ..io import dvc, tables
from ..settings import Paths, Settings
from ..stages.resolve import period, recall, resolve_run

ALIVE = Path(".cache/flow-run")
SECONDS_TO_LOOK = 0.05
_RELEASE = __name__.replace("flows.train", "stages.release")


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


def _first_name() -> str:
    """Name a run. One that an alert asked for keeps the name that the audit log gives in front."""
    asked = f"{(flow_run.name or '').partition(':')[0]}: " if "alert" in flow_run.tags else ""
    return f"{asked}train {period()}".strip()


@flow(name="train", flow_run_name=_first_name, validate_parameters=False)
def train() -> Report:
    """Resolve, run the stages, record, push. Each step does what an interrupted run left undone, and nothing twice."""
    settings = Settings()
    settings.apply()
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Any], retries: int = settings.retries) -> Any:
        begun = time.perf_counter()
        wrapped = task(
            name=name,
            retries=retries,
            retry_delay_seconds=settings.retry_delay_seconds,
            retry_condition_fn=may_pass,
            cache_policy=NO_CACHE,
        )(work)
        result = wrapped()
        seconds[name] = time.perf_counter() - begun
        return result

    try:
        with dvc.only_run(again=True), _burying_the_dead():
            step("resolve", lambda: resolve_run(settings))
            seconds |= step("stages", lambda: dvc.repro(settings, say=_Progress(settings), early=_log), retries=0)
            seconds.pop("stages")
            outcome = recall(settings)
            fresh = outcome is None
            if outcome is not None and not Paths.PAGE.exists():  # a clone has what DVC keeps, and no page
                step("report", lambda: _record(settings))
            if outcome is None:
                outcome = step("record", lambda: _record(settings))
                create_markdown_artifact(key="verdict", markdown=outcome.markdown, description="metrics and verdict")
                if settings.push_data:
                    step("push", lambda: dvc.push(settings))  # snapshots go to git's remote by `make push`, when asked
            report = Report(outcome, tables.read_json(Paths.FACTS), seconds, fresh, str(flow_run.id))
            _name_run(report)
    except BaseException as error:
        notify(settings, "training failed", f"{type(error).__name__}: {error}")
        raise
    if fresh:
        notify(settings, f"training {'passed' if outcome.passed else 'did not pass'} the gate", outcome.markdown)
    return report


def _record(settings: Settings) -> Outcome:
    from ..stages.release import record  # brings MLflow, which a run with nothing new does not need

    return record(settings)


def _name_run(report: Report) -> None:
    """Let the list of flow runs show what a run came to."""
    metric = report.facts["metric"]
    result = run_name(metric, report.facts["metrics"][metric]["value"], report.outcome.status, report.outcome.version)
    name = f"{_first_name()}: {result}" if report.fresh else f"{_first_name()}: nothing new, {result}"
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
            importlib.import_module(_RELEASE).Registry(self.settings)


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
    urls = settings.notify_urls.get_secret_value().split()
    if not urls:
        return
    import apprise

    messenger = apprise.Apprise()
    if not messenger.add([*urls]) or not messenger.notify(title=title, body=body):
        print("a notice could not be sent; look at NOTIFY_URLS in .env", flush=True)
