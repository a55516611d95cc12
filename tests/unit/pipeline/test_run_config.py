"""What the rules come to, asked of the source no more often than needed, and what a run was made from."""

from pathlib import Path

import pandas as pd
import pytest
from sample_project import schema

from copier_mlops import ProjectError, UnreachableError
from copier_mlops.evaluation.gate import Outcome
from copier_mlops.params import RUN
from copier_mlops.pipeline import run_config
from copier_mlops.settings import Settings

from ..conftest import change


def test_the_same_source_is_not_counted_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = RUN.read_text()

    def dear(location: str) -> tuple[int, pd.Timestamp]:
        raise AssertionError("nothing has changed")

    with monkeypatch.context() as patch:
        patch.setattr("sample_project.source.extent", dear)
        run_config.resolve_run(Settings())
    assert RUN.read_text() == before
    monkeypatch.setattr("sample_project.source.fingerprint", lambda location: "another")
    monkeypatch.setattr("sample_project.source.extent", lambda location: (5, pd.Timestamp("2030-01-01T12:00:00Z")))
    found = run_config.resolve_run(Settings())
    assert (found.source.fingerprint, found.source.rows) == ("another", 5)
    assert found.resolved.end.year == 2030 if schema.CONTRACT.time else found.resolved.end is None


def test_times_that_cannot_be_read_are_not_called_an_empty_source(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if schema.CONTRACT.time is None:
        pytest.skip("the rows have no time")
    monkeypatch.setattr("sample_project.source.fingerprint", lambda location: "another")
    monkeypatch.setattr("sample_project.source.extent", lambda location: (5, pd.NaT))
    with pytest.raises(ProjectError, match=f"none of 5 rows at the source has a {schema.CONTRACT.time} that can"):
        run_config.resolve_run(Settings())


def test_a_review_of_all_rows_takes_the_newest_days(project: Path, rows: pd.DataFrame) -> None:
    if schema.CONTRACT.time is None:
        pytest.skip("the rows have no time")
    change(project, window={"days": None}, review={"rows": 100})
    assert run_config.resolve_run(Settings()).resolved.start is None
    run = run_config.resolve_run(Settings(), small=True)
    assert run.source.newest is not None
    whole = run_config._span(Settings(), run.source.newest)
    assert whole >= (rows[schema.CONTRACT.time].max() - rows[schema.CONTRACT.time].min()).days
    assert run.window.days == max(int(whole * 100 / run.source.rows), 2 * (run.split.test_days or 0)) < whole


def test_a_damaged_run_yaml_is_written_again(project: Path) -> None:
    before = RUN.read_text()
    RUN.write_text("source: [")
    run_config.resolve_run(Settings())
    assert RUN.read_text() == before


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ConnectionResetError("gone"), UnreachableError),
        (TimeoutError("slow"), UnreachableError),
        (KeyError("column"), ProjectError),
        (ProjectError("the source's own words"), ProjectError),
    ],
)
def test_whatever_a_source_raises_is_explained(
    project: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[ProjectError]
) -> None:
    def fails(location: str) -> str:
        raise raised

    monkeypatch.setattr("sample_project.source.fingerprint", fails)
    with pytest.raises(ProjectError) as error:
        run_config.resolve_run(Settings(source_uri="somewhere"))
    assert type(error.value) is kind
    if not isinstance(raised, ProjectError):
        assert f"the source at somewhere cannot be read ({type(raised).__name__}" in str(error.value)
    assert str(raised) in str(error.value)


def test_the_lineage_is_another_with_other_data_settings_order_packages_or_code(project: Path) -> None:
    known = {run_config.lineage()}
    assert run_config.lineage() in known
    code = next(Path("src").rglob("model.py"))
    for file in (Path("dvc.lock"), Path("run.yaml"), Path("dvc.yaml"), Path("uv.lock"), code):
        with file.open("a") as end:
            end.write("# changed\n")
        assert run_config.lineage() not in known
        known.add(run_config.lineage())
    Path("README.md").write_text("changed")
    assert run_config.lineage() in known
    Path("dvc.lock").unlink()
    with pytest.raises(ProjectError, match=r"dvc.lock is missing: the stages have not run"):
        run_config.lineage()


def test_an_outcome_is_recalled_for_this_lineage_and_this_registry_only(project: Path) -> None:
    database = Path("new.db")
    database.write_text("")
    settings = Settings(mlflow_tracking_uri=f"sqlite:///{database}")
    outcome = Outcome(
        lineage=run_config.lineage(),
        verdict={"passed": True, "checks": []},
        version=1,
        status="champion",
        champion=1,
        over_champion=None,
        markdown="text",
    )
    assert run_config.recall(settings) is None
    run_config.remember(settings, outcome)
    assert run_config.recall(settings) == outcome
    assert run_config.recall(Settings(mlflow_tracking_uri="http://127.0.0.1:9")) is None
    database.rename("old.db")
    database.write_text("")  # a registry that was made anew in the same place
    assert run_config.recall(settings) is None
    run_config.remember(settings, outcome)
    change(project, seed=99)
    run_config.resolve_run(settings)
    assert run_config.recall(settings) is None
    Path(".cache/done.json").write_text("{}")
    assert run_config.recall(settings) is None
