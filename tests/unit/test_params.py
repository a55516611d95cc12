"""A mistake in params.yaml is named by its key, and the rules of the window come to the right moments."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml

from copier_mlops import params
from copier_mlops.evaluation import metrics
from copier_mlops.params import ParamsError, load_params

from .conftest import ROOT

GOOD: dict[str, Any] = {"problem": "classification", "gate": {"metric": "auc"}}
NEWEST = dt.datetime(2024, 12, 31, 18, 30, 15, 250_000, dt.UTC)
SOURCE = params.Source(fingerprint="abc", rows=9, newest=NEWEST)


def written(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "params.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_the_projects_own_params_can_be_used() -> None:
    assert load_params(ROOT / "params.yaml").gate.metric


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    found = load_params(written(tmp_path, GOOD))
    assert found.window.until == "newest"
    assert found.split.folds == 3
    assert found.promotion.automatic is False


def test_limits_of_monitoring_are_no_part_of_a_run(tmp_path: Path) -> None:
    """What a look compares with does not change what was trained: neither run.yaml nor the lineage."""
    content = {**GOOD, "split": {"test_days": 31}}
    watched = load_params(written(tmp_path, {**content, "monitoring": {"window_days": 3.5, "cool_down_hours": 0}}))
    assert (watched.monitoring.window_days, watched.monitoring.min_rows) == (3.5, params.Monitoring().min_rows)
    runs = [params.resolve(one, SOURCE) for one in (watched, load_params(written(tmp_path, content)))]
    assert runs[0].model_dump() == runs[1].model_dump()
    assert "monitoring" not in runs[0].model_dump()


def test_the_names_of_metrics_are_those_that_are_computed() -> None:
    assert set(params.CLASSIFICATION) == set(metrics.METRICS["classification"])
    assert set(params.REGRESSION) == set(metrics.METRICS["regression"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({**GOOD, "serach": {}}, "serach is not known; did you mean search?"),
        ({**GOOD, "xyz": 1}, "xyz is not known; there are problem, seed, window"),
        ({**GOOD, "split": {"test_dais": 3}}, "split.test_dais is not known; did you mean test_days?"),
        ({**GOOD, "monitoring": {"windowdays": 3}}, "monitoring.windowdays is not known; did you mean window_days?"),
        ({**GOOD, "monitoring": {"level": 2}}, "monitoring.level is 2"),
        ({"problem": "classification"}, "gate is missing"),
        ({**GOOD, "gate": {}}, "gate.metric is missing"),
        ({**GOOD, "search": {"trials": 0}}, "search.trials is 0: Input should be greater than or equal to 1"),
        ({**GOOD, "window": {"until": "tomorrow"}}, "window.until is 'tomorrow'"),
        ({**GOOD, "problem": "ranking"}, "problem is 'ranking'"),
        ({**GOOD, "gate": {"metric": "mae"}}, "gate: mae is no metric of a classification; there are auc"),
        ({**GOOD, "gate": {"metric": "auc", "at_most": {"brie": 1}}}, "gate: brie is no metric"),
        ({**GOOD, "window": {"days": 30}, "split": {"test_days": 30}}, "split.test_days must be fewer"),
        ("", "problem is missing; gate is missing"),
        ("problem: [", "is no YAML"),
        pytest.param("a: " + "[" * 100_000, "is no YAML", id="deep"),
        ("- problem", "should be a list of `key: value` lines, not list"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, content: object, says: str) -> None:
    with pytest.raises(ParamsError) as error:
        load_params(written(tmp_path, content))
    assert says in str(error.value)


def test_a_missing_file_comes_with_its_remedy() -> None:
    with pytest.raises(ParamsError, match=r"params.yaml is missing; restore it with `git checkout"):
        load_params()
    with pytest.raises(ParamsError, match=r"run.yaml is missing; `make pipeline` writes it"):
        params.load_run()


def test_the_window_is_counted_back_from_the_newest_row() -> None:
    some = params.Params(**GOOD, window={"days": 366}, split={"test_days": 31})
    found = params.resolve(some, SOURCE).resolved
    assert found.end == dt.datetime(2024, 12, 31, 18, 30, 16, tzinfo=dt.UTC)  # exclusive: the newest row is in
    assert found.test_start == dt.datetime(2024, 12, 1, tzinfo=dt.UTC)
    assert found.start == dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def test_the_last_second_of_all_times_is_in_the_window() -> None:
    last = params.Source(fingerprint="abc", rows=9, newest=dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC))
    found = params.resolve(params.Params(**GOOD, split={"test_days": 31}), last).resolved
    assert found.end == dt.datetime.max.replace(tzinfo=dt.UTC)
    assert found.test_start == dt.datetime(9999, 12, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"window": {"days": 800_000}, "split": {"test_days": 31}}, "window.days is 800000"),
        ({"split": {"test_days": 10**12}}, "split.test_days is 1000000000000"),
    ],
)
def test_days_before_the_year_1_are_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(ParamsError, match=f"{key}: so many days before 2024-12-31"):
        params.resolve(params.Params(**GOOD, **given), SOURCE)


def test_without_days_the_window_has_no_first_day() -> None:
    for given in ({}, {"window": {"days": None}}):
        some = params.Params(**GOOD, **given, split={"test_days": 31})
        found = params.resolve(some, SOURCE).resolved
        assert found.start is None and found.test_start == dt.datetime(2024, 12, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("days", "span", "found"), [(None, 1000, 500), (None, None, None), (400, None, 200), (None, 20, 20)]
)
def test_a_review_cuts_a_window_with_and_without_days(days: int | None, span: int | None, found: int | None) -> None:
    some = params.Params(**GOOD, window={"days": days}, split={"test_days": 31}, review={"rows": 1000})
    assert some.small(2000, {}, span)["window"]["days"] == found
    assert some.small(10, {}, span)["window"]["days"] == (days or span)


def test_the_window_may_end_at_a_date() -> None:
    some = params.Params(**GOOD, window={"days": 10, "until": "2024-07-01"}, split={"test_days": 2})
    found = params.resolve(some, SOURCE).resolved
    assert found.end == dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
    assert found.test_start == dt.datetime(2024, 6, 29, tzinfo=dt.UTC)
    assert found.start == dt.datetime(2024, 6, 21, tzinfo=dt.UTC)


def test_a_window_after_the_newest_row_is_refused() -> None:
    some = params.Params(**GOOD, window={"days": 10, "until": "2025-07-01"}, split={"test_days": 2})
    with pytest.raises(ParamsError, match="the newest at the source is of 2024-12-31"):
        params.resolve(some, SOURCE)


def test_run_yaml_has_what_is_resolved_and_is_written_only_when_it_changes(tmp_path: Path) -> None:
    given, file = written(tmp_path, {**GOOD, "seed": 3, "split": {"folds": 2}}), tmp_path / "run.yaml"
    run = params.resolve(load_params(given), SOURCE)
    params.save_run(run, file)
    assert params.load_run(file, given) == run
    assert params.load_source(file) == SOURCE
    content = yaml.safe_load(file.read_text())
    assert set(content) == {"source", "resolved", "contract", "forgotten", "code", "overrides", "defaults"}
    assert content["defaults"]["split"] == {"test_days": 31, "test_share": None}  # what params.yaml leaves out
    assert content["defaults"]["search"] == params.Search().model_dump() and "seed" not in content["defaults"]
    before = file.stat()
    params.save_run(run, file)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    params.save_run(run.model_copy(update={"contract": "another"}), file)
    assert params.load_run(file, given).contract == "another"


def test_the_overrides_of_a_review_win_over_params_yaml(tmp_path: Path) -> None:
    content = {**GOOD, "window": {"days": 365}, "search": {"trials": 9}, "review": {"rows": 100}}
    given, file = written(tmp_path, content), tmp_path / "run.yaml"
    rules = load_params(given)
    run = params.resolve(rules, SOURCE, rules.small(1000, {"depth": 3}))
    params.save_run(run, file)
    found = params.load_run(file, given)
    assert (found.search.trials, found.search.guess, found.window.days) == (1, {"depth": 3}, 62)
    assert (found.search.max_rows, found.resolved) == (rules.search.max_rows, run.resolved)
    params.save_run(params.resolve(rules, SOURCE), file)
    assert params.load_run(file, given).search.trials == 9


def test_a_run_yaml_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """It repeats params.yaml, which may have changed since."""
    given, file = written(tmp_path, {**GOOD, "seed": 3}), tmp_path / "run.yaml"
    run = params.resolve(load_params(given), SOURCE)
    file.write_text(yaml.safe_dump({**run.model_dump(mode="json"), "seed": 99, "gone": {"key": 1}}))
    assert params.load_run(file, given).seed == 3
    assert params.load_source(file) == SOURCE
