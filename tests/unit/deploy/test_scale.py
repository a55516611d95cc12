"""One replica more: of what is live, as it is, and never more than there may be."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

from copier_mlops._exit_codes import TRY_LATER
from copier_mlops.deploy import scale, scrape_targets
from copier_mlops.deploy.blue_green import DeployInProgressError, Live
from copier_mlops.deploy.runtimes import Release

from ..conftest import mlops

RELEASE = Release(3, "digest", "flights:3")


class Host:
    """What stands for an environment of this machine."""

    went: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, name: str) -> None:
        self.name = name
        found = json.loads((scale.HOME / name / "state.json").read_text())["live"]
        self.live = Live("blue", found, RELEASE, "now") if found else None

    def go(self, action: str, release: Release, why: str) -> None:
        self.went.append((self.name, action, release, why, os.environ["REPLICAS"], os.environ["FORCE"]))


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "Host", Host)
    monkeypatch.setattr(scrape_targets, "write", lambda given: None)
    monkeypatch.setattr(Host, "went", [])
    live(prod=2, dev=None)


def live(**environments: int | None) -> None:
    for name, count in environments.items():
        (scale.HOME / name).mkdir(parents=True, exist_ok=True)
        (scale.HOME / name / "state.json").write_text(json.dumps({"live": count}))


def run(*words: str) -> int:
    return mlops("add-replica", *words)


def test_one_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("4", "--reason", "rows wait") == 0
    assert Host.went == [("prod", "deploy", RELEASE, "rows wait", "3", "1")]
    assert "prod has 3 replicas" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["2"], "prod has 2 replicas; monitoring/policy.yaml lets it have 2"),
        (["4", "--env", "dev"], "live here: nothing"),
        (["4", "--env", "../x"], "live here: nothing"),
    ],
)
def test_what_may_not_be(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert run(*words) == 1
    assert says in capsys.readouterr().err
    assert Host.went == []


def test_of_two_environments_one_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    live(dev=1)
    assert run("4") == 1
    assert "live here: dev, prod" in capsys.readouterr().err
    assert run("4", "--env", "dev") == 0


def test_a_deployment_that_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def go(self: Host, *words: object) -> None:
        raise DeployInProgressError(
            "prod is being deployed already (by Ada). Wait until that is done, then do it again"
        )

    monkeypatch.setattr(Host, "go", go)
    assert run("4") == TRY_LATER
