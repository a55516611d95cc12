"""A value is read as it was meant, or not at all: a wrong number looks as good as a right one."""

import pandas as pd
import pyarrow as pa
import pytest

from copier_mlops.contract import parsing

MOMENT = "2024-07-01T10:00:00Z"


def texts(*given: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(given, pa.string())])


@pytest.mark.parametrize(
    ("style", "given", "number"),
    [
        ("1234.5", "1234.5", 1234.5),
        ("1234.5", " -3 ", -3),
        ("1234.5", "1e3", 1000),
        ("1,234.5", "1,234.5", 1234.5),
        ("1,234.5", "$ 1,234,567", 1234567),
        ("1.234,5", "1.234,5", 1234.5),
        ("1.234,5", "1.234", 1234),
        ("1.234,5", "€ 1234,5", 1234.5),
        ("1.234,5", "12,5 %", 12.5),
        ("1234,5", ",5", 0.5),
        ("1 234,5", "1\u00a0234,5", 1234.5),
        ("1 234.5", "1 234.5", 1234.5),
        ("1'234.5", "1'234.5", 1234.5),
    ],
)
def test_numbers_of_every_style(style: str, given: str, number: float) -> None:
    assert parsing.to_number(texts(given), style).to_pylist() == [number]


@pytest.mark.parametrize(
    ("style", "given"),
    [
        ("1234.5", "1,5"),
        ("1,234.5", "1,23.5"),
        ("1,234.5", "1.234,5"),
        ("1.234,5", "1,234.5"),
        ("1.234,5", "1,2,3"),
        ("1234,5", "1.234,5"),
        ("1'234.5", "12'34"),
        ("1234.5", "twelve"),
    ],
)
def test_what_is_no_such_number_is_none(style: str, given: str) -> None:
    assert parsing.to_number(texts(given, "7"), style).to_pylist() == [None, 7]
    assert parsing.plain_number(texts(given), style).to_pylist() == [given]


def test_gaps_have_many_names() -> None:
    gaps = ["", " ", "NA", "N/A", "NULL", "nan", None]
    assert parsing.trimmed(texts(*gaps, " a ")).to_pylist() == [None] * len(gaps) + ["a"]
    assert parsing.trimmed(texts("-", "none")).to_pylist() == ["-", "none"]  # among texts these are values
    assert parsing.to_number(texts("-", "?", "none", "1")).to_pylist() == [None, None, None, 1]


@pytest.mark.parametrize(
    ("style", "given", "moment"),
    [
        ("ISO8601", "2024-07-01T10:00:00Z", MOMENT),
        ("ISO8601", "2024-07-01T12:00:00+02:00", MOMENT),
        ("ISO8601", "2024-07-01", "2024-07-01T00:00:00Z"),
        ("%d.%m.%Y", "01.07.2024", "2024-07-01T00:00:00Z"),
        ("%d/%m/%Y %H:%M", "01/07/2024 10:00", MOMENT),
        ("%m/%d/%Y %I:%M %p", "07/01/2024 10:00 AM", MOMENT),
        ("%a, %d %b %Y %H:%M:%S %z", "Mon, 01 Jul 2024 12:00:00 +0200", MOMENT),
        ("%a, %d %b %Y %H:%M:%S %Z", "Mon, 01 Jul 2024 10:00:00 GMT", MOMENT),
        ("%d.%m.%Y|ISO8601", "2024-07-01T10:00:00Z", MOMENT),
        ("ISO8601|%d.%m.%Y", "01.07.2024", "2024-07-01T00:00:00Z"),
        ("seconds", "1719828000", MOMENT),
        ("milliseconds", "1719828000000", MOMENT),
        ("excel", "45474", "2024-07-01T00:00:00Z"),
        ("excel", "45474.416666666667", MOMENT),
        ("%G-W%V", "2024-W27", "2024-07-01T00:00:00Z"),
        ("%GW%V", "2020W53", "2020-12-28T00:00:00Z"),
    ],
)
def test_times_of_every_style(style: str, given: str, moment: str) -> None:
    found = parsing.to_time(texts(given, "-", "noon"), style)
    assert found.dtype == "datetime64[us, UTC]"
    assert found[0] == pd.Timestamp(moment)
    assert found[1:].isna().all()


def test_clocks_stand_in_a_zone() -> None:
    """In summer two hours before UTC, in winter one; an hour that is there twice cannot be told, one that is not is moved."""
    given = texts("2024-07-01T12:00:00", "2024-01-01T11:00:00", "2024-07-01T10:00:00Z", "2024-01-01T12:00:00+02:00")
    found = parsing.to_time(given, "ISO8601", "Europe/Berlin")
    january = pd.Timestamp("2024-01-01T10:00:00Z")
    assert found.tolist() == [pd.Timestamp(MOMENT), january, pd.Timestamp(MOMENT), january]
    odd = parsing.to_time(texts("27.10.2024 02:30", "31.03.2024 02:30"), "%d.%m.%Y %H:%M", "Europe/Berlin")
    assert pd.isna(odd[0])
    assert odd[1] == pd.Timestamp("2024-03-31T01:00:00Z")


def test_moments_that_came_typed() -> None:
    bare = pd.to_datetime(["2024-07-01T12:00:00"])
    local = pa.chunked_array([pa.array(bare)])
    aware = pa.chunked_array([pa.array(bare.tz_localize("America/New_York"))])
    day = pa.chunked_array([pa.array(bare.date)])
    assert parsing.zoned(local, "Europe/Berlin").tolist() == [pd.Timestamp(MOMENT)]
    assert parsing.zoned(aware, "Europe/Berlin").tolist() == [pd.Timestamp("2024-07-01T16:00:00Z")]
    assert parsing.zoned(day, "UTC").tolist() == [pd.Timestamp("2024-07-01", tz="UTC")]
    numbers = pa.chunked_array([pa.array([1719828000])])
    assert parsing.to_time(numbers, "seconds").tolist() == [pd.Timestamp(MOMENT)]


def test_names_can_be_told_apart() -> None:
    given = [" a ", "a", "a_2", "", None, "two\nlines", "\ufeffid", "score", "month", 3]
    found = parsing.clean_names(given)
    assert found[:3] == ["a", "a_2", "a_2_2"]
    assert found[3:] == ["column_4", "column_5", "two lines", "id", "score_", "month_", "3"]
    assert len(set(found)) == len(found)
    assert not set(found) & parsing.RESERVED
