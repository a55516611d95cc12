"""The source of a replay knows the rows up to its moment, and their targets a while later."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops.backtest import point_in_time_source
from copier_mlops.data import tables

LATE = 5.0


@pytest.fixture
def there(rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if CONTRACT.time is None:
        pytest.skip("rows have no time here, so there is nothing to replay")
    monkeypatch.chdir(tmp_path)
    tables.write_by_month([rows], tmp_path / "rows", CONTRACT.time)
    return str(tmp_path / "rows")


def known(there: str, start: object = None, end: object = None) -> pd.DataFrame:
    return pd.concat(point_in_time_source.read(there, start, end, CONTRACT.names), ignore_index=True)


def moment(rows: pd.DataFrame, share: float) -> dt.datetime:
    times = rows[CONTRACT.time].sort_values()
    found: dt.datetime = times.iloc[int(share * (len(times) - 1))].to_pydatetime(warn=False)
    return found


def test_nothing_is_known_before_its_time(there: str, rows: pd.DataFrame) -> None:
    now = moment(rows, 0.7)
    point_in_time_source.put(now, LATE)
    found = known(there)
    time = rows[CONTRACT.time]
    assert set(found[CONTRACT.id]) == set(rows[CONTRACT.id][time < now])
    told = found[found[CONTRACT.target].notna()]
    assert set(told[CONTRACT.id]) == set(rows[CONTRACT.id][time + pd.Timedelta(days=LATE) <= now])
    pd.testing.assert_series_equal(
        told.set_index(CONTRACT.id)[CONTRACT.target].sort_index().astype("float64"),
        rows.set_index(CONTRACT.id)[CONTRACT.target].loc[told[CONTRACT.id]].sort_index().astype("float64"),
    )
    assert point_in_time_source.extent(there) == (len(found), time[time < now].max())


def test_it_has_changed_when_more_is_known(there: str, rows: pd.DataFrame) -> None:
    point_in_time_source.put(moment(rows, 0.5), LATE)
    before, some = point_in_time_source.fingerprint(there), known(there)
    point_in_time_source.put(moment(rows, 0.9), LATE)
    assert point_in_time_source.fingerprint(there) != before
    assert set(some[CONTRACT.id]) < set(known(there)[CONTRACT.id])


def test_a_window_is_read_as_of_any_source(there: str, rows: pd.DataFrame) -> None:
    point_in_time_source.put(moment(rows, 1.0), LATE)
    start, end = pd.Timestamp(moment(rows, 0.2)), pd.Timestamp(moment(rows, 0.6))
    time = rows[CONTRACT.time]
    assert set(known(there, start, end)[CONTRACT.id]) == set(rows[CONTRACT.id][(time >= start) & (time < end)])


def test_targets_that_are_turned_round_are_as_wrong_as_can_be(there: str, rows: pd.DataFrame) -> None:
    point_in_time_source.put(moment(rows, 1.0) + dt.timedelta(days=30), LATE)
    right = CONTRACT.labels(known(there)[CONTRACT.target])
    point_in_time_source.put(moment(rows, 1.0) + dt.timedelta(days=30), LATE, turned=True)
    wrong = CONTRACT.labels(known(there)[CONTRACT.target])
    if CONTRACT.classes or set(right) == {0.0, 1.0}:
        assert not (right == wrong).any() and set(right) == set(wrong)
    else:
        assert pd.Series(right).corr(pd.Series(wrong)) < 0
