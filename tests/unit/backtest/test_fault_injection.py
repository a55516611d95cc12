"""What goes wrong in a replay goes wrong from its day on; hours, days and months are those of the calendar."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract, ProjectError
from copier_mlops.backtest import fault_injection

CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("at", "timestamp", role="time"),
        Column("heat", "number", nullable=True),
        Column("shop", "string", nullable=True),
        Column("late", "boolean", role="target"),
    )
)


def day(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.fixture
def rows() -> pd.DataFrame:
    at = pd.to_datetime(["2024-01-30 10:15", "2024-01-31 00:00", "2024-02-01 23:59"], utc=True)
    return pd.DataFrame(
        {"id": list("abc"), "at": at, "heat": [32.0, 50.0, np.nan], "shop": ["x", "x", "y"], "late": True}
    )


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("celsius:heat@2024-01-31", "heat", [32.0, 10.0, np.nan]),
        ("renamed:shop:x:z@2024-01-31", "shop", ["x", "z", "y"]),
        ("missing:heat@2024-01-31", "heat", [32.0, np.nan, np.nan]),
        ("missing:shop@2024-02-01", "shop", ["x", "x", np.nan]),
    ],
)
def test_a_fault_changes_its_column_from_its_day_on(
    rows: pd.DataFrame, text: str, column: str, expected: list[object]
) -> None:
    before = rows.copy()
    changed = fault_injection.with_faults(rows, fault_injection.read_faults(text, CONTRACT), "at")
    pd.testing.assert_series_equal(changed[column], pd.Series(expected, name=column), check_dtype=False)
    pd.testing.assert_frame_equal(changed.drop(columns=column), before.drop(columns=column))
    pd.testing.assert_frame_equal(rows, before)


def test_faults_come_together() -> None:
    found = fault_injection.read_faults(
        "traffic:3@2024-02-01, bad-champion@2024-02-02  missing:shop@2024-02-03", CONTRACT
    )
    assert [str(one) for one in found] == ["traffic:3@2024-02-01", "bad-champion@2024-02-02", "missing:shop@2024-02-03"]
    assert [fault_injection.times(found, day(text)) for text in ("2024-01-31", "2024-02-01", "2024-02-02")] == [1, 3, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flood@2024-02-01", "There are: celsius"),
        ("celsius:heat", "There are: celsius"),
        ("celsius@2024-02-01", "There are: celsius"),
        ("renamed:shop:x@2024-02-01", "There are: celsius"),
        ("celsius:heat@soon", "soon is no day"),
        ("celsius:heating@2024-02-01", "heating is no input of the contract; there are heat, shop"),
        ("celsius:shop@2024-02-01", "shop is no number"),
        ("renamed:heat:1:2@2024-02-01", "heat is a number"),
        ("missing:late@2024-02-01", "late is no input"),
        ("traffic:0@2024-02-01", "no whole number from 1 to 100"),
        ("traffic:lots@2024-02-01", "no whole number from 1 to 100"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_there_is(text: str, says: str) -> None:
    with pytest.raises(ProjectError, match=says):
        fault_injection.read_faults(text, CONTRACT)


def test_questions_come_by_the_hour(rows: pd.DataFrame) -> None:
    more = pd.concat([rows, rows.assign(at=rows["at"] + pd.Timedelta(minutes=20))], ignore_index=True)
    found = [(hour, places.tolist()) for hour, places in fault_injection.by_hour(more["at"])]
    assert found == [
        (day("2024-01-30 10:00"), [0, 3]),
        (day("2024-01-31 00:00"), [1, 4]),
        (day("2024-02-01 23:00"), [2]),
        (day("2024-02-02 00:00"), [5]),
    ]


def test_days_and_months() -> None:
    assert [one.day for one in fault_injection.days(day("2024-02-28"), day("2024-03-02"))] == [28, 29, 1]
    assert fault_injection.months(day("2024-01-01"), day("2024-04-01")) == [day("2024-02-01"), day("2024-03-01")]
    assert fault_injection.months(day("2024-01-15"), day("2024-02-01")) == []


@pytest.mark.parametrize(
    ("first", "newest", "start", "end"),
    [
        ("2013-01-01 10:15", "2014-01-01 04:59", "2013-07-01", "2014-01-01"),
        ("2024-01-01", "2024-01-31 12:00", "2024-01-16", "2024-01-31"),
        ("2020-03-20", "2024-03-20", "2022-03-01", "2024-03-20"),
    ],
)
def test_the_second_half_is_replayed(first: str, newest: str, start: str, end: str) -> None:
    assert fault_injection.middle(day(first), day(newest)) == (day(start), day(end))
