"""A replay begins with rows as they came and a copy of the project that leads nowhere else, and ends with a report."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from dotenv import dotenv_values
from sample_project import source
from sample_project.schema import CONTRACT

from copier_mlops import ProjectError
from copier_mlops.backtest import sandbox
from copier_mlops.backtest.driver import environment
from copier_mlops.backtest.report import LOOP, NEVER
from copier_mlops.backtest.sandbox import Plan, asked, collect, prepare, settle
from copier_mlops.data import tables
from copier_mlops.settings import Paths, Settings

pytestmark = pytest.mark.skipif(CONTRACT.time is None, reason="rows have no time here, so there is nothing to replay")


def plan(settings: Settings, faults: str = "", start: str = "", end: str = "") -> Plan:
    return prepare(settings, start, end, faults, 7, 7)


def test_all_rows_are_kept_and_the_second_half_is_asked(project: Path) -> None:
    settings = Settings()
    found = plan(settings)
    rows = asked(found)
    every = pd.concat(source.read(settings.source_uri, *sandbox.ALWAYS, CONTRACT.names), ignore_index=True)
    assert found.source == str((project / ".replay/rows").absolute())
    time = every[CONTRACT.time]
    assert 0 < len(rows) == ((time >= found.start) & (time < found.end)).sum() < len(every)
    assert rows[CONTRACT.time].is_monotonic_increasing
    assert sum(len(tables.read(file)) for _, files in tables.parts(Path(found.source)) for file in files) == len(every)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"start": "1980-01-01"}, "a replay goes from a day after the first row"),
        ({"end": "2200-01-01"}, "a replay goes from"),
        ({"start": "tomorrow"}, "FROM is tomorrow, which is no day"),
        ({"faults": "bad-challenger@1990-01-01"}, "bad-challenger@1990-01-01 is not within"),
        ({"faults": "thunder@2024-01-01"}, "There are: celsius"),
    ],
)
def test_what_cannot_be_replayed_is_told(project: Path, given: dict[str, str], says: str) -> None:
    with pytest.raises(ProjectError, match=says):
        plan(Settings(), **given)


def test_rows_without_a_time_are_not_replayed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sample_project.schema.CONTRACT", SimpleNamespace(time=None))
    with pytest.raises(ProjectError, match="no column with the role time"):
        plan(Settings())


def test_the_copy_has_stores_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "deploy").mkdir()
    (project / "deploy/dev.env").write_text("SERVICE_ENVIRONMENT=dev\nLISTEN=0.0.0.0:80\nPORTS=8100\nREPLICAS=3\n")
    asks = project / "monitoring/prometheus/prometheus.yml"
    tables.write_text("global:\n  scrape_interval: 15s\n  evaluation_interval: 15s\n", asks)
    tables.write_text("route:\n  group_wait: 30s\n", project / "monitoring/alertmanager/alertmanager.yml")
    (project / ".env").write_text("NOTIFY_URLS=json://127.0.0.1:1\nSIGNING_KEY=secret\n")
    monkeypatch.setenv("DATA_REMOTE", "s3://elsewhere/data")
    (project / Paths.POINTER).write_text("{}")
    settings = Settings()
    found = plan(settings)
    folder = settle(found, settings)
    assert folder == Path(".replay/first") and (folder / ".git").is_dir()
    inside = {name for name, _ in dotenv_values(folder / ".env").items()}
    assert {"SOURCE_URI", "PREDICTION_LOG", "PUSH_DATA"} <= inside and not inside & {
        "NOTIFY_URLS",
        "SIGNING_KEY",
        "DATA_REMOTE",
    }
    assert not (folder / Paths.POINTER).exists() and not (folder / ".dvc/config.local").exists()
    said = dict(line.split("=") for line in (folder / "deploy/dev.env").read_text().splitlines())
    assert said["LISTEN"] == found.listen and said["REPLICAS"] == "1" and said["ACCEPT_ASKED_AT"] == "true"
    assert "scrape_interval: 1s" in (folder / asks.relative_to(project)).read_text()
    policy = yaml.safe_load((folder / "monitoring/policy.yaml").read_text())
    assert policy["retrain"] == policy["promote"] == {"enabled": False} and "tell" not in policy
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["window"]["until"] == "newest" and params["promotion"] == {"automatic": False}
    assert "replayed" in next(folder.glob("src/*/source.py")).read_text()
    child = environment(settings)
    assert not {"DATA_REMOTE", "SOURCE_URI", "MLFLOW_TRACKING_URI", "NOTIFY_URLS", "PREFECT_HOME"} & set(child)
    assert child["PYTHONPATH"] == "src" and child["DO_NOT_TRACK"] == "1"


def test_the_lives_are_compared_in_a_report(project: Path) -> None:
    settings = Settings()
    found = plan(settings)
    rows = asked(found)
    folders = {}
    for place, life in enumerate((NEVER, LOOP)):
        folders[life] = folder = project / ".replay" / life
        folder.mkdir(parents=True)
        y = CONTRACT.labels(rows[CONTRACT.target])
        answers = pd.DataFrame(dict.fromkeys(CONTRACT.answers, 0.2 + 0.1 * place), index=rows.index)
        tables.write(answers.assign(version=1, id=rows[CONTRACT.id]), folder / sandbox.ANSWERS)
        nothing = {
            "trainings": [],
            "moves": [],
            "proposals": [],
            "looks": [],
            "requests": 5 * place,
            "failed": 0,
            "refused": 0,
            "compute": {},
        }
        tables.write_json(nothing, folder / sandbox.RESULT)
    report = collect(found, folders, 12.0)
    assert report["found"]["rows"] == int(pd.Series(y).notna().sum())
    assert tables.read_json(sandbox.REPORT)["lives"][LOOP]["requests"] == 5
    assert "backtest with 2 strategies" in sandbox.PAGE.read_text()
    assert dt.datetime.fromisoformat(report["start"]).replace(tzinfo=dt.UTC) == found.start
