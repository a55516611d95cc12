"""What the receiver has done by Prefect and Apprise: asked for once, told to people, tried again where that may help."""

import io
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prefect.client.orchestration
import prefect.deployments
import pytest
from prefect.client.schemas.objects import StateType

from copier_mlops import ProjectError, UnreachableError
from copier_mlops import project as own
from copier_mlops._exit_codes import TRY_LATER
from copier_mlops.automation import actions
from copier_mlops.settings import Settings

from ..conftest import mlops
from .conftest import Heard

HERE = Settings(prefect_api_url="http://127.0.0.1:4200/api")


class Server:
    """What stands for Prefect's server: it knows a deployment, and the runs that a test gives it."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.deployments = [SimpleNamespace(id=uuid.uuid4(), name="weekly")]
        self.asked: list[dict[str, Any]] = []

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read_deployments(self, flow_filter: Any, work_pool_filter: Any) -> list[Any]:
        assert (flow_filter.name.any_, work_pool_filter.name.any_) == (["train"], [own.name()])
        return self.deployments

    def read_flow_runs(self, deployment_filter: Any, flow_run_filter: Any) -> list[Any]:
        assert deployment_filter.id.any_ == [one.id for one in self.deployments]
        keys, state = flow_run_filter.idempotency_key, flow_run_filter.state
        return [
            run
            for run in self.runs
            if (keys is None or run.key in keys.any_) and (state is None or run.state_type in state.type.any_)
        ]

    def run_deployment(self, name: uuid.UUID, **given: Any) -> None:
        self.asked.append({"name": name, **given})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(prefect.client.orchestration, "get_client", lambda sync_client: made)
    monkeypatch.setattr(prefect.deployments, "run_deployment", made.run_deployment)
    return made


def run(state: StateType, scheduled: bool = False, key: str = "other", name: str = "") -> Any:
    return SimpleNamespace(
        name="earlier", key=key, state_type=state, state_name=name or state.value, auto_scheduled=scheduled
    )


@pytest.mark.parametrize(
    ("there", "asks"),
    [
        ([], True),
        ([run(StateType.COMPLETED), run(StateType.FAILED)], True),
        ([run(StateType.SCHEDULED, scheduled=True)], True),  # the schedule's, some day
        ([run(StateType.SCHEDULED, scheduled=True, name="Late")], False),
        ([run(StateType.SCHEDULED)], False),
        ([run(StateType.RUNNING, scheduled=True)], False),
        ([run(StateType.COMPLETED, key="id")], False),  # was asked for, and done
    ],
)
def test_one_training_at_a_time(server: Server, there: list[Any], asks: bool) -> None:
    server.runs = there
    said = actions.retrain(HERE, "id")
    assert said == ("run alert-id was asked for" if asks else f"run earlier is there already ({there[0].state_name})")
    assert bool(server.asked) is asks
    if asks:
        (asked,) = server.asked
        assert (asked["timeout"], asked["idempotency_key"], asked["tags"]) == (0, "id", ["alert"])


def test_what_is_missing_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProjectError, match="make up"):
        actions.retrain(Settings(), "id")
    server.deployments = []
    with pytest.raises(ProjectError, match="make schedule"):
        actions.retrain(HERE, "id")

    def nobody(sync_client: bool) -> None:
        raise RuntimeError("Failed to reach API at http://127.0.0.1:4200/api")

    monkeypatch.setattr(prefect.client.orchestration, "get_client", nobody)
    with pytest.raises(UnreachableError, match="does not answer: Failed to reach API"):
        actions.retrain(HERE, "id")


def test_people_are_told(heard: Heard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    address, notices = heard
    monkeypatch.setattr(sys, "stdin", io.StringIO("[firing] ModelWorse\n[firing] ModelOld"))
    assert mlops("notify") == 0
    assert "nobody was told: NOTIFY_URLS is not set" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("[firing] ModelWorse\n[firing] ModelOld"))
    monkeypatch.setenv("NOTIFY_URLS", address)
    assert mlops("notify") == 0
    assert notices[0]["title"] == f"{own.name()}: [firing] ModelWorse" and "ModelOld" in notices[0]["message"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("x"))
    monkeypatch.setenv("NOTIFY_URLS", "json://127.0.0.1:9")
    assert mlops("notify") == TRY_LATER
    assert mlops("request-training", "--key", "id") == 1
    assert "make up" in capsys.readouterr().err


def test_nobody_is_promoted_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mlops("promote-proposed", "--reason", "an alert") == 1
    assert "monitor.json is missing or cannot be read. `make monitor` writes it." in capsys.readouterr().err
