"""Where what answers here writes down its answers: one look has to see all of production, and nothing of what is no production."""

import json
from pathlib import Path

import pytest

from copier_mlops import ProjectError
from copier_mlops.data import deployment_logs
from copier_mlops.settings import Settings


def deploy(environment: str, live: object, logs: bool = True) -> None:
    folder = Path(".deploy") / environment
    (folder / "predictions" if logs else folder).mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"live": live}))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def named(*folders: str) -> list[Path]:
    return [Path(folder) for folder in folders]


def test_the_foremost_environment_that_answers_is_watched() -> None:
    assert deployment_logs.watched(Settings()) == deployment_logs.logs(Settings()) == named("predictions")
    deploy("dev", {"colour": "blue"})
    assert deployment_logs.watched(Settings()) == named("predictions", ".deploy/dev/predictions")
    deploy("prod", {"colour": "green"}, logs=False)  # was asked nothing yet
    assert deployment_logs.watched(Settings()) == named("predictions", ".deploy/prod/predictions")
    deploy("prod", None)  # it was ended
    deploy("staging", {"colour": "green"})
    assert deployment_logs.watched(Settings()) == named("predictions", ".deploy/staging/predictions")
    deploy("staging", None, logs=False)
    assert deployment_logs.watched(Settings()) == named("predictions", ".deploy/dev/predictions")
    deploy("dev", None)
    assert deployment_logs.watched(Settings()) == named("predictions", ".deploy/prod/predictions")  # of the week before


def test_all_logs_are_found_also_of_what_has_ended() -> None:
    deploy("dev", None)
    deploy("prod", {"colour": "green"})
    deploy("staging", None, logs=False)
    assert deployment_logs.logs(Settings()) == named(
        "predictions", ".deploy/dev/predictions", ".deploy/prod/predictions"
    )


def test_one_log_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    deploy("dev", {"colour": "blue"})
    monkeypatch.setenv("PREDICTION_LOG", str(Path(".deploy/dev/predictions").absolute()))
    assert len(deployment_logs.watched(Settings())) == len(deployment_logs.logs(Settings())) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"live'])
def test_a_damaged_state_is_named(text: str) -> None:
    deploy("prod", None)
    Path(".deploy/prod/state.json").write_text(text)
    with pytest.raises(
        ProjectError, match=r"prod/state\.json is damaged .*Remove the file, and run `make deploy ENV=prod`"
    ):
        deployment_logs.watched(Settings())
