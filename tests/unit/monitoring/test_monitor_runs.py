"""Each look is a run of its own experiment in MLflow, once; that MLflow is away is said in a sentence."""

import datetime as dt
from pathlib import Path

import pytest

from copier_mlops import UnreachableError
from copier_mlops.monitoring.monitor_runs import Looks
from copier_mlops.settings import Settings

AT = dt.datetime(2024, 1, 31, 9, 30, tzinfo=dt.UTC)


def test_a_look_is_kept_once_and_a_newer_one_of_that_moment_takes_its_place(project: Path) -> None:
    Path("found.json").write_text("{}")
    looks = Looks(Settings())
    first = looks.keep(AT, "one", {"auc": 0.7, "drift.length (cm)": 0.1}, {"status": "good"}, [Path("found.json")])
    assert looks.keep(AT, "one", {"auc": 0.7}, {}, []) == first
    run = looks.run(first)
    assert run.info.start_time == int(AT.timestamp() * 1000)
    assert run.data.metrics == {"auc": 0.7, "drift.length _cm_": 0.1}
    assert run.data.tags["status"] == "good"
    assert looks.client.get_experiment(run.info.experiment_id).name == "sample-project-monitoring"
    assert looks.fetch(first, "found.json", Path("there")).read_text() == "{}"
    second = Looks(Settings()).keep(AT, "two", {"auc": 0.6}, {}, [])
    left = [run.info.run_id for run in looks.client.search_runs([looks.looks])]
    assert left == [second]
    assert looks.runs() == []  # they are no trainings


def test_a_store_that_does_not_answer(project: Path) -> None:
    with pytest.raises(UnreachableError, match=r"MLflow at http://127\.0\.0\.1:9 is not responding"):
        Looks(Settings(mlflow_tracking_uri="http://127.0.0.1:9"))


def test_a_long_summary_and_a_deleted_experiment(project: Path) -> None:
    looks = Looks(Settings())
    looks.client.delete_experiment(looks.looks)
    run_id = Looks(Settings()).keep(AT, "one", {}, {"mlflow.note.content": "n" * 9000}, [])
    run = looks.run(run_id)
    assert max(map(len, run.data.tags.values())) <= 5000
    assert looks.text(run, "mlflow.note.content") == "n" * 9000
