"""The flow on a Prefect server of its own: it records a run once, is patient where that may help, and tells people."""

import contextlib
import contextvars
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import uvicorn
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.server.api.server import SubprocessASGIServer, create_app
from prefect.server.database.orm_models import Base
from prefect.settings import (
    PREFECT_API_BLOCKS_REGISTER_ON_START,
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_DATABASE_MIGRATE_ON_START,
    temporary_settings,
)
from prefect.states import Running
from prefect.testing import utilities
from sample_project.flow import train
from sqlalchemy.schema import CreateIndex, CreateTable

from copier_mlops import ProjectError, UnreachableError
from copier_mlops.lifecycle import flow_steps as flow
from copier_mlops.pipeline import run_config
from copier_mlops.settings import Settings

from .. import unwatched
from .conftest import Heard


class ServerHere(SubprocessASGIServer):
    """Prefect's server in a thread: as another process it would import once more what this one has already, for seconds."""

    def start(self, timeout: int | None = None) -> None:
        _make_tables(PREFECT_API_DATABASE_CONNECTION_URL.value())
        server = uvicorn.Server(uvicorn.Config(create_app(ephemeral=True), "127.0.0.1", self.port, log_level="error"))
        settings = contextvars.copy_context()
        thread = threading.Thread(target=settings.run, args=(server.run,), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "Prefect's server did not start"
            time.sleep(0.02)
        self.server, self.thread, self.running = server, thread, True

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.running = False


def _make_tables(uri: str) -> None:
    """Make them as they are today; Prefect would take all steps of its history, for seconds."""
    engine = sqlalchemy.create_engine(uri.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))  # one is named twice
    engine.dispose()


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    little = {PREFECT_API_BLOCKS_REGISTER_ON_START: False, PREFECT_API_DATABASE_MIGRATE_ON_START: False}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(little), contextlib.ExitStack() as harness:
        patch.setattr(utilities, "SubprocessASGIServer", ServerHere)
        with unwatched.nothing():
            harness.enter_context(utilities.prefect_test_harness())
        yield


@pytest.fixture
def told(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What somebody is told by a run."""
    address, notices = heard
    monkeypatch.setenv("NOTIFY_URLS", address)
    return notices


def test_a_run_does_what_is_left_to_do_and_the_next_one_nothing(project: Path, told: list[dict[str, Any]]) -> None:
    """DVC itself runs here: the first stage has something to do, and the others not, since it makes what was there."""
    with get_client(sync_client=True) as client:
        dead = client.create_flow_run(train, state=Running())
        flow.ALIVE.parent.mkdir(exist_ok=True)
        flow.ALIVE.write_text(str(dead.id))  # as a run leaves it whose process was killed
        with next(project.glob("src/*/source.py")).open("a") as code:
            code.write("# changed\n")

        first = train()
        assert {"resolve", "ingest", "record", "push"} == set(first.seconds)
        assert first.fresh
        assert (first.outcome.status, first.outcome.version) == ("champion", 1)
        assert any((project / ".data-store").rglob("*.dir"))
        assert [one["title"] for one in told] == ["training passed the gate"]
        assert client.read_flow_run(dead.id).state.is_crashed()
        assert not flow.ALIVE.exists()
        done = client.read_flow_run(first.flow_run)
        metric = first.facts["metric"]
        assert done.name.endswith(f"v1 {metric} {first.facts['metrics'][metric]['value']:.3f} champion")
        assert done.name.startswith(f"train {run_config.period()}: " if run_config.period() else "train: ")
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[done.id])))
        logged = {line.message: line.task_run_id for line in lines}
        assert logged["ingest ..."] and any(re.fullmatch(r"  [\d,]+ rows", text) for text in logged)

    again = train()
    assert set(again.seconds) == {"resolve"}
    assert not again.fresh
    assert again.outcome == first.outcome
    assert len(told) == 1  # nothing is new


def test_patience_is_for_what_may_pass(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the source does not answer; then it does, and there is a typo in params.yaml. And nobody can be told."""
    monkeypatch.setenv("RETRIES", "5")
    monkeypatch.setenv("RETRY_DELAY_SECONDS", "0")
    monkeypatch.setenv("NOTIFY_URLS", "json://127.0.0.1:9")
    asked = []

    def resolve_run(settings: Settings) -> None:
        asked.append(settings)
        raise UnreachableError("no answer") if len(asked) < 3 else ProjectError("a typo")

    monkeypatch.setattr(flow, "resolve_run", resolve_run)
    with pytest.raises(ProjectError, match="a typo"):
        train()
    assert len(asked) == 3
    assert "a notice could not be sent; look at NOTIFY_URLS" in capsys.readouterr().out


def test_a_failed_run_is_told(project: Path, told: list[dict[str, Any]]) -> None:
    (project / "params.yaml").write_text("problem: [")
    with pytest.raises(ProjectError, match=r"params.yaml is no YAML"):
        train()
    assert [one["title"] for one in told] == ["training failed"]
