"""The commands of deployment: which exit code they end with, and how champion and release move together."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from copier_mlops import InProgressError, ProjectError, _exit_codes
from copier_mlops.deploy import blue_green, image, ssh
from copier_mlops.deploy.blue_green import DeployError, DeployInProgressError, Live
from copier_mlops.deploy.host import EngineError
from copier_mlops.deploy.runtimes import Release
from copier_mlops.lifecycle import registration
from copier_mlops.serving import make_bundle
from copier_mlops.settings import Settings

from ..conftest import mlops

RELEASE = Release(2, "digest", "image")
Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A project with a deployment, in which version 2 is the champion; what is called in it."""
    monkeypatch.chdir(tmp_path)
    Path("deploy").mkdir()
    champion(2)
    done: Calls = []

    def rollback(settings: Settings, why: str, delivered: bool) -> SimpleNamespace:
        done.append(("rollback", why, delivered))
        champion(1)
        return SimpleNamespace(number=1)

    def promote(settings: Settings, number: int | None, why: str) -> SimpleNamespace:
        done.append(("promote", number, why))
        champion(3)
        return SimpleNamespace(number=3)

    monkeypatch.setattr(registration, "rollback", rollback)
    monkeypatch.setattr(registration, "promote", promote)
    monkeypatch.setattr(blue_green, "follow", lambda *given: done.append(("follow", *given)))
    monkeypatch.setattr(blue_green, "lead", lambda *given: done.append(("lead", *given)))
    monkeypatch.setattr(ssh, "act", lambda what, given: done.append((what, given["LEFT"], given["VERSION"])))
    monkeypatch.setattr(image, "bundle", lambda version: done.append(("bundle", version)))
    return done


def champion(version: int) -> None:
    Path("champion.json").write_text(json.dumps({"version": version, "run_id": "run"}))


def test_a_rollback_takes_releases_and_the_bundle_along(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlops("rollback", "--reason", "worse") == 0
    assert calls == [("rollback", "worse", False), ("follow", 2, 1, "worse")]
    calls.clear()
    champion(2)
    Path("dist/bundle").mkdir(parents=True)
    monkeypatch.setenv("DEPLOY_HOST", "ada@host")
    assert mlops("rollback") == 0
    assert calls == [("rollback", "", False), ("follow", 2, 1, "by hand"), ("follow", "2", "1"), ("bundle", 1)]


def test_a_rollback_of_the_registry_alone(calls: Calls) -> None:
    assert mlops("rollback", "--registry-only", "--delivered") == 0
    Path("deploy").rmdir()
    assert mlops("rollback") == 0
    assert calls == [("rollback", "", True), ("rollback", "", False)]


def test_a_release_that_does_not_follow_is_not_rolled_back_twice(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has moved, so the alert webhook must not try the command again."""

    def busy(environment: str) -> None:
        raise DeployInProgressError("prod is being deployed already")

    monkeypatch.undo()
    monkeypatch.setattr(blue_green, "Host", busy)
    monkeypatch.setattr(blue_green, "_with", lambda version: ["prod"])
    with pytest.raises(DeployError) as raised:
        blue_green.follow(2, 1, "worse")
    assert raised.value.exit_code == _exit_codes.ERROR


def test_a_promotion_is_deployed(calls: Calls) -> None:
    assert mlops("promote-deploy", "--version", "3", "--reason", "better") == 0
    assert calls == [("promote", 3, "better"), ("lead", 2, 3, "better")]


def test_a_promotion_that_does_not_go_live_goes_back(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: object) -> None:
        raise EngineError("there is no engine")

    monkeypatch.setattr(blue_green, "lead", fails)
    monkeypatch.setattr(make_bundle, "export", lambda settings, version, folder: calls.append(("export", version)))
    assert mlops("promote-deploy") == 1
    assert "error: there is no engine" in capsys.readouterr().err
    assert calls == [
        ("promote", None, ""),
        ("rollback", "it did not go live", False),
        ("follow", 3, 1, "it did not go live"),
        ("export", None),
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeployError("no"), _exit_codes.ERROR),
        (DeployInProgressError("busy"), _exit_codes.TRY_LATER),
        (ValueError("a number"), _exit_codes.ERROR),
    ],
)
def test_the_exit_code_says_whether_to_try_again(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def act(what: str, given: dict[str, str]) -> None:
        calls.append((what, given))
        raise error

    monkeypatch.setattr(blue_green, "act", act)
    monkeypatch.setenv("ENV", "prod")
    monkeypatch.setenv("FORCE", "")  # as make exports a variable that is not set
    assert mlops("deploy", "--version", "3", "--steps", "10 100") == code
    assert capsys.readouterr().err == f"error: {error}\n"
    assert calls == [("deploy", {"ENV": "prod", "VERSION": "3", "IMAGE": "", "WHY": ""})]
    assert os.environ["STEPS"] == "10 100" and not os.environ["FORCE"]
    assert issubclass(DeployInProgressError, InProgressError)


def test_the_status_of_all_environments(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Host:
        public = "127.0.0.1:8000"

        def __init__(self, environment: str) -> None:
            if environment == "staging":
                raise DeployError("state.json is damaged")
            self.environment = environment
            self.live = Live("blue", 2, RELEASE, "2024-01-31T09:30:00Z") if environment == "prod" else None
            self.history = [Release(1, "before", "image"), RELEASE] if environment == "prod" else []

        def __str__(self) -> str:
            return f"{self.environment}: {self.live}"

    monkeypatch.setattr(blue_green, "Host", Host)
    assert mlops("deploy-status") == 1
    said = capsys.readouterr()
    assert [line.partition(":")[0] for line in said.out.splitlines()] == ["dev", "prod"]
    assert said.err == "error: state.json is damaged\n"
    assert mlops("deploy-status", "--env", "prod", "--json") == 0
    (state,) = json.loads(capsys.readouterr().out)
    assert state["live"]["address"] == "http://127.0.0.1:8000"
    assert state["live"]["release"]["version"] == 2 and state["live"]["replicas"] == 2
    assert [one["version"] for one in state["rollback_targets"]] == [1]


@pytest.mark.parametrize(("code", "error"), [(75, DeployInProgressError), (1, EngineError)])
def test_a_remote_deployment_that_is_in_progress_is_told_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, code: int, error: type[ProjectError]
) -> None:
    codes = iter((0, code))

    @contextlib.contextmanager
    def host(there: object) -> Iterator[list[str]]:
        yield ["ssh", "host"]

    monkeypatch.setattr(ssh, "settings", lambda: {"DEPLOY_HOST": "host", "DEPLOY_FOLDER": "here"})
    monkeypatch.setattr(ssh, "ssh", host)
    monkeypatch.setattr(ssh, "packed", lambda: b"")
    monkeypatch.setattr(subprocess, "run", lambda *given, **more: SimpleNamespace(returncode=next(codes)))
    with pytest.raises(error) as raised:
        ssh.act("rollback", {"ENV": "prod"})
    assert type(raised.value) is error
