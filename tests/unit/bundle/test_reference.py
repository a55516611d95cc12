"""The profile that a bundle keeps: counts that add up, nothing of a single row, and what the calendar decides."""

import base64
import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sample_project import schema

from copier_mlops import Column, Contract
from copier_mlops.bundle.calendar import calendar
from copier_mlops.bundle.reference import LEVELS, MISSING, SELDOM, bins, numbers, reference, texts
from copier_mlops.data import tables
from copier_mlops.pipeline import train
from copier_mlops.settings import Paths

CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("size", "number", nullable=True),
        Column("zero", "number"),
        Column("word", "string"),
        Column("flag", "boolean"),
        Column("y", "boolean", role="target"),
    )
)
ROWS = pd.DataFrame(
    {
        "id": [f"subject-{number}" for number in range(1000)],
        "size": np.where(np.arange(1000) % 10 == 0, np.nan, np.arange(1000.0)),
        "zero": np.where(np.arange(1000) < 900, 0.0, np.arange(1000.0)),
        "word": [f"w{min(number // 10, 30)}" if number >= 80 else f"alone-{number}" for number in range(1000)],
        "flag": (np.arange(1000) % 4 == 0).astype("float64"),
    }
)
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e9, -3.7])
def test_the_last_digits_of_a_number_move_no_row_to_another_bin(scale: float) -> None:
    """Rows that went through JSON are off in the 15th digit, and a value that many rows share has a bin that is as wide."""
    shared = np.repeat([0.1 + 0.2, 12.34, 0.0, 1 / 3], 500)
    values = np.r_[shared, RANDOM.normal(size=3000)] * scale
    found = numbers(values)
    edges = np.array(found["edges"])
    through_json = np.round(values, 10) if scale == 1 else values
    for other in (values * (1 + 1e-15), values * (1 - 1e-15), np.nextafter(values, np.inf), through_json):
        moved = np.bincount(bins(edges, other), minlength=len(edges) + 1)
        assert np.abs(moved - found["counts"]).sum() <= 2
    assert np.bincount(bins(edges, values * 1.01), minlength=len(edges) + 1).tolist() != found["counts"]


def test_the_smallest_value_and_one_half_are_where_they_were() -> None:
    values = np.r_[np.repeat([0.0, 3.7], 40), np.linspace(4, 90, 3000), 0.5]
    found = numbers(values, more=(0.5,))
    assert found["counts"][0] == 0  # nothing lies below anything seen
    edges = np.array(found["edges"])
    assert (
        bins(edges, np.array([0.0, 0.5, 0.5 - 1e-6])).tolist()
        == np.searchsorted(edges, [0.0, 0.5, 0.5 - 1e-6]).tolist()
    )
    assert np.bincount(bins(edges, values), minlength=len(edges) + 1).tolist() == found["counts"]
    plain = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    assert np.abs(plain - found["counts"]).sum() <= 2


def test_bins_count_the_edges_below() -> None:
    assert bins([], np.array([1.0, np.nan])).tolist() == [0, 0]
    assert bins([1.0, 2.0], np.array([0.5, 1.0, 1.5, 2.0, 2.5, np.nan])).tolist() == [0, 0, 1, 1, 2, 2]
    assert bins([0.3, 1.0], np.array([1.0 + 1e-15, 1.0 - 1e-15, 1.0 + 1e-6])).tolist() == [1, 1, 2]


def test_every_row_is_counted_once() -> None:
    found = reference(ROWS, np.linspace(0, 1, 1000), CONTRACT)
    size = found["columns"]["size"]
    assert size["missing"] == 100
    assert sum(size["counts"]) == 900
    assert len(size["counts"]) == len(size["edges"]) + 1
    assert max(size["counts"]) <= 900 / 20 + 2  # bins that hold about as many
    assert sum(found["answers"]["score"]["counts"]) == 1000
    word = found["columns"]["word"]
    assert sum(word["values"].values()) + word["other"] == 1000
    assert word["values"]["w30"] == 700
    assert found["columns"]["flag"]["values"] == {"false": 750, "true": 250}
    assert found["rows"] == found["answered"] == 1000


def test_a_value_that_many_rows_share_has_a_bin_of_its_own() -> None:
    zero = reference(ROWS, np.zeros(1000), CONTRACT)["columns"]["zero"]
    assert zero["counts"][np.searchsorted(zero["edges"], 0.0)] == 900
    near = np.searchsorted(zero["edges"], [-1e-300, 0.0, 1e-300])
    assert len(set(near)) == 3


def test_nobody_is_named_and_it_is_json() -> None:
    found = reference(ROWS, np.zeros(1000), CONTRACT)
    text = json.dumps(found)
    assert "subject" not in text
    assert "alone" not in text
    assert found["columns"]["word"]["other"] == 80
    size = found["columns"]["size"]["edges"]
    assert (size[0], size[-1]) == (pytest.approx(0), 1000)  # the smallest is 1, the largest 999
    assert size[0] < 0
    levels = np.frombuffer(base64.b64decode(found["sample"]["levels"]), dtype="uint8")
    assert len(levels) == found["sample"]["rows"] * 4
    assert set(levels.tolist()) <= {*range(LEVELS), MISSING}


def test_a_column_without_any_value() -> None:
    found = reference(ROWS.assign(size=np.nan), np.zeros(1000), CONTRACT)["columns"]["size"]
    assert (found["missing"], found["edges"], found["counts"]) == (1000, [], [0])


def test_no_rows_at_all() -> None:
    found = reference(ROWS.head(0), np.empty(0), CONTRACT, np.empty(0))
    assert found["rows"] == 0
    json.dumps(found)


def test_it_stays_small() -> None:
    many = Contract((*CONTRACT.columns, *(Column(f"n{place}", "number") for place in range(16))))
    rows = pd.concat([ROWS] * 6, ignore_index=True)
    rows = rows.assign(**{f"n{place}": RANDOM.normal(size=len(rows)) for place in range(16)})
    assert len(json.dumps(reference(rows, np.zeros(6000), many), indent=2)) < 300_000


@pytest.mark.parametrize(
    "weights", [1 / np.arange(1, 400) ** 1.3, np.ones(2000)], ids=["a few are frequent", "all alike"]
)
def test_names_that_are_seldom_are_expected_to_come_anew(weights: np.ndarray) -> None:
    """What is kept is no choice by lot; later rows are told from it without a bias all the same."""
    share = weights / weights.sum()
    fresh, expected, kept = [], [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        found = texts(pd.Series(random.choice(len(share), 20_000, p=share).astype("str")))
        names = np.array(list(found["values"]), dtype=int)
        fresh.append(1 - share[names].sum())
        rows = sum(found["values"].values()) + found["other"]
        expected.append(found["seldom"] / rows)
        kept.append(min(found["values"].values(), default=SELDOM))
    assert np.mean(expected) == pytest.approx(np.mean(fresh), rel=0.02)
    assert len(names) <= 200


def test_rows_of_a_day_that_resemble_each_other() -> None:
    day = np.repeat(np.arange(56), 100)
    spells = (day, day // 7)
    by_lot = numbers(RANDOM.normal(size=5600), spells)["alike"]
    assert by_lot == {"cells": [0, 0], "cuts": [0, 0], "missing": [0, 0]}
    daily = numbers(np.round(RANDOM.normal(size=56), 1)[day], spells)["alike"]
    assert daily["cuts"][0] > 0.95
    mixed = numbers(RANDOM.normal(size=56)[day] + RANDOM.normal(size=5600), spells)["alike"]
    assert 0.2 < mixed["cuts"][0] < 0.6
    gaps = numbers(np.where(day % 9 == 0, np.nan, RANDOM.normal(size=5600)), spells)["alike"]
    assert gaps["missing"][0] > 0.95
    assert gaps["cuts"] == [0, 0]


def test_what_was_said_and_what_came_true() -> None:
    score = RANDOM.random(20_000)
    y = (RANDOM.random(20_000) < score / 2).astype("float64")  # half as often as it says
    rows = pd.concat([ROWS] * 20, ignore_index=True)
    found = reference(rows, score, CONTRACT, np.where(np.arange(20_000) < 100, np.nan, y))
    answer = found["answers"]["score"]
    many = np.array(answer["counts"]) > 500
    observed, mean = (np.array(answer[name], dtype="float64")[many] for name in ("observed", "mean"))
    assert observed == pytest.approx(mean / 2, abs=0.06)
    assert answer["observed"][0] is None  # nothing lies below anything seen
    assert found["labels"]["y"]["values"] == {"false": int((y[100:] == 0).sum()), "true": int(y[100:].sum())}
    assert "observed" not in reference(rows, score * 100, CONTRACT, y)["answers"]["score"]


# -------------------------------------------------------------------------------------------------------- Calendar

DAYS = 56
TIMES = pd.date_range("2024-03-01", periods=DAYS * 48, freq="30min", tz="UTC")
TOKYO, DAY = TIMES + pd.Timedelta(hours=9), np.arange(len(TIMES)) // 48
WALK = RANDOM.normal(size=DAYS + 2).cumsum()
FOLLOW = {
    "hour": TIMES.hour, "weekday": TIMES.day_of_week, "weekday there": TOKYO.day_of_week, "month": TIMES.month,
    "day of the year": TIMES.day_of_year, "day of the month": TIMES.day, "week": TIMES.isocalendar().week, "year": TIMES.year,
    "weekend": TIMES.day_of_week >= 5, "wave": np.sin(2 * np.pi * TIMES.day_of_year / 365), "days since": DAY + 3, "logarithm": np.log1p(DAY),
    "serial number": np.arange(len(TIMES)) * 7 + RANDOM.integers(0, 7, len(TIMES)), "name of the month": TIMES.month_name(),
    "name of the day": TOKYO.day_name().str[:3], "date": TIMES.strftime("%Y-%m-%d"),
}  # fmt: skip
DO_NOT = {
    "by lot": RANDOM.normal(size=len(TIMES)), "count": RANDOM.poisson(2, len(TIMES)), "daily price": WALK[DAY],
    "weekly price": RANDOM.normal(size=9).round(2)[DAY // 7], "monthly price": RANDOM.normal(size=13)[TIMES.month],
    "demand": 10 * TIMES.hour + RANDOM.normal(0, 30, len(TIMES)), "trend": DAY / 30 + RANDOM.normal(size=len(TIMES)),
    "constant": np.full(len(TIMES), 3), "rare": RANDOM.random(len(TIMES)) < 0.002, "price list": np.where(DAY < 30, "old", "new"),
    "town": RANDOM.choice(["a", "b"], len(TIMES)),
}  # fmt: skip


@pytest.mark.parametrize("values", [FOLLOW, DO_NOT], ids=["follow", "do not"])
def test_what_the_calendar_decides(values: dict[str, object]) -> None:
    rows = pd.DataFrame({"id": range(len(TIMES)), "at": TIMES, **values})
    names = [name for name in values if not pd.api.types.is_numeric_dtype(rows[name].dtype)]
    contract = Contract(
        (
            Column("id", "integer", role="id"),
            Column("at", "timestamp", role="time"),
            *(Column(name, "string" if name in names else "number") for name in values),
            Column("y", "boolean", role="target"),
        )
    )
    rows = rows.astype(dict.fromkeys(names, "str")).sample(frac=1, random_state=0)
    assert sorted(calendar(rows, contract)) == sorted(values if values is FOLLOW else [])


# ----------------------------------------------------------------------------------------------- Which rows it is of


def run(start: str, end: str) -> SimpleNamespace:
    begin, stop = (dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC) for day in (start, end))
    return SimpleNamespace(resolved=SimpleNamespace(start=begin, end=stop))


@pytest.mark.parametrize(
    ("oldest", "start", "since", "until"),
    [
        ("2022-01", "2021-06-01", "2023-05-04", "2023-06-29"),  # the season of a year ago
        ("2022-07", "2021-06-01", "2024-04-06", "2024-06-01"),  # there is less than the window asks for
        ("2022-01", "2024-05-01", "2024-05-01", "2024-06-01"),
    ],
)
def test_the_reference_is_of_the_season_or_of_the_last_weeks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oldest: str, start: str, since: str, until: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for month in (oldest, "2024-05", "unknown"):
        (Paths.VALIDATED / f"month={month}").mkdir(parents=True)
    found = train._season(run(start, "2024-06-01"))  # type: ignore[arg-type]
    assert [f"{moment:%Y-%m-%d}" for moment in found if moment is not None] == [since, until]


def test_rows_are_drawn_a_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame) -> None:
    monkeypatch.chdir(tmp_path)
    tables.write_by_month(
        (rows.iloc[at : at + 100] for at in range(0, len(rows), 100)), Paths.VALIDATED, schema.CONTRACT.time
    )
    key = schema.CONTRACT.id
    assert set(train._some_of(None, None, 0)[key]) == set(rows[key])
    some = train._some_of(None, None, 0, 50)
    assert len(some) == 50
    assert some.equals(train._some_of(None, None, 0, 50))
    if time := schema.CONTRACT.time:
        middle, end = rows[time].iloc[len(rows) // 2], rows[time].iloc[-1]
        inside = rows[(rows[time] >= middle) & (rows[time] < end)]
        assert set(train._some_of(middle, end, 0)[key]) == set(inside[key])
