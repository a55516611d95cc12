"""What a column seems to be, told from its values alone, and counted in little memory."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from copier_mlops import ProjectError
from copier_mlops.adopt import guess, profile
from copier_mlops.adopt.guess import Guess
from copier_mlops.adopt.profile import Profile


def texts(*given: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(given, pa.string())])


@pytest.mark.parametrize(
    ("given", "kind", "style"),
    [
        (["12", "-3.5", "1e3", "NA"], "number", ""),
        (["1,5", "2,25"], "number", "1.234,5"),
        (["1,234.50", "12.00"], "number", "1,234.5"),
        (["$3.00", "$12.50"], "number", "1,234.5"),
        (["1'234.5", "12"], "number", "1'234.5"),
        (["1 234,5", "2 345,6"], "number", "1.234,5"),
        (["3", "-", "?", "none"], "number", ""),
        (["00123", "04567", "11111"], "text", ""),
        (["yes", "no", "NA"], "boolean", ""),
        (["True", "false"], "boolean", ""),
        (["1", "0"], "boolean", ""),
        (["yes", "yes"], "text", ""),
        (["yes", "no", "maybe"], "text", ""),
        (["red", "blue"], "text", ""),
        ([None, ""], "text", ""),
        (["-", "?"], "text", ""),
        (["2024-01-02", "2024-01-02T10:00:00Z"], "time", "ISO8601"),
        (["31.12.2024", "01.02.2024"], "time", "%d.%m.%Y"),
        (["13/02/2024", "03/04/2024"], "time", "%d/%m/%Y"),
        (["02/13/2024", "03/04/2024"], "time", "%m/%d/%Y"),
        (["Jan 5, 2024", "Feb 6, 2024"], "time", "%b %d, %Y"),
        (["A 1", "B 2", "C 3"], "text", ""),
        (["+49 170 2246162", "+49 170 1988649"], "text", ""),
        (["YES", "yes", "Yes", "NO", "no", "No"], "boolean", ""),
        (["31/12/24", "01/02/24"], "time", "%d/%m/%y"),
        (["31.12.24", "01.02.24"], "time", "%d.%m.%y"),
        (["08-Apr-21", "19-May-22"], "time", "%d-%b-%y"),
        (["Mon, 01 Jul 2024 10:00:00 GMT", "Tue, 02 Jul 2024 11:00:00 GMT"], "time", "%a, %d %b %Y %H:%M:%S %Z"),
        (["08APR2021", "19MAY2022"], "time", "%d%b%Y"),
        (["31-12-2024 10:15", "01-02-2024 09:00"], "time", "%d-%m-%Y %H:%M"),
        (["08.04.2021, 20:11", "19.05.2022, 08:30"], "time", "%d.%m.%Y, %H:%M"),
        (["0,126", "-1,327", "12,500"], "number", "1.234,5"),
    ],
)
def test_what_a_column_of_text_seems_to_be(given: Sequence[str | None], kind: str, style: str) -> None:
    found = guess.guess(texts(*given))
    assert (found.kind, found.style, found.ambiguous) == (kind, style, "")


@pytest.mark.parametrize(
    ("unit", "factor"), [("seconds", 1), ("milliseconds", 1000), ("microseconds", 10**6), ("nanoseconds", 10**9)]
)
@pytest.mark.parametrize("typed", [True, False])
def test_numbers_that_count_from_1970_are_times_by_the_name(unit: str, factor: int, typed: bool) -> None:
    numbers = [1_640_995_200 * factor, 1_744_502_400 * factor]
    values = pa.chunked_array([numbers if typed else list(map(str, numbers))])
    assert guess.guess(values, name="created_at") == guess.Guess("time", unit)
    assert guess.guess(values, time=True) == guess.Guess("time", unit)
    assert guess.guess(values, name="revenue").kind == "number"
    column = profile.Column("created_at", guess.Guess("time", unit))
    column.update(values, "UTC")
    assert (column.minimum, column.maximum, column.unread) == (1_640_995_200, 1_744_502_400, 0)


def test_nan_is_missing_and_infinite_is_strange() -> None:
    column = profile.Column("x", guess.Guess("number"))
    column.update(pa.chunked_array([[1.0, float("nan"), None, float("inf"), 2.0]]), "UTC")
    assert (column.missing, column.unread, column.strange, column.maximum) == (2, 1, ["inf"], 2.0)


@pytest.mark.parametrize("values", [pa.array([2**53 + 1, 2**60, -5]), pa.array([2**64 - 1, 7, 9], pa.uint64())])
def test_integers_of_any_size_are_numbers(values: pa.Array) -> None:
    column = profile.Column("x", guess.Guess("number"))
    column.update(pa.chunked_array([values]), "UTC")
    assert column.unread == 0 and column.whole and column.maximum == float(max(values.to_pylist()))


@pytest.mark.parametrize("count", [100, 3_000, 50_000])
def test_different_values_are_counted_over_the_whole_table(count: int) -> None:
    column = profile.Column("shop", guess.Guess("text"))
    for seed in range(10):
        drawn = np.random.default_rng(seed).integers(0, count, 20_000)
        column.update(texts(*(f"shop {number}" for number in drawn)), "UTC")
    expected = count * (1 - np.exp(-200_000 / count))
    assert column.different == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    ("style", "kind"), [("%d.%m.%y", "time"), ("1.234,5", "number"), ("seconds", "time"), ("ISO8601", "time")]
)
def test_a_style_may_be_named(style: str, kind: str) -> None:
    given = {"%d.%m.%y": "31.12.24", "1.234,5": "1.234,5", "seconds": "1640995200", "ISO8601": "2024-01-31"}[style]
    assert guess.styled(style, texts(given)) == guess.Guess(kind, style)  # type: ignore[arg-type]
    with pytest.raises(ProjectError, match=r"STYLE_paid=.*: no value is written so"):
        guess.styled(style, texts("never"), "paid")
    with pytest.raises(ProjectError, match=r"STYLE_=dd.mm.yy: there is no such style"):
        guess.styled("dd.mm.yy", texts(given))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([True, None]), "boolean"),
        (pa.array([1, 2]), "number"),
        (pa.array([1.5]), "number"),
        (pa.array(pd.to_datetime(["2024-01-01"])), "time"),
        (pa.array([pd.Timestamp("2024-01-01").date()]), "time"),
    ],
)
def test_a_type_needs_no_guess(values: pa.Array, kind: str) -> None:
    assert guess.guess(pa.chunked_array([values])) == Guess(kind)


def test_what_may_be_read_in_two_ways_is_told() -> None:
    assert "day and month cannot be told apart" in guess.guess(texts("01/02/2024", "03/04/2024")).ambiguous
    assert "may be a thousand or a fraction" in guess.guess(texts("1,234", "5,678")).ambiguous


def test_other_columns_say_what_a_point_means() -> None:
    assert guess.guess(texts("1.234", "5.678")).style == ""
    assert guess.guess(texts("1.234", "5.678"), comma=True).style == "1.234,5"
    assert guess.guess(texts("1.25", "5.6"), comma=True).style == ""
    assert guess.decimal_comma(pa.table({"a": texts("x", "y"), "b": texts("1,5", "2,25")}))
    for plain in (("1.5", "2"), ("1,234", "2,345"), ("a", "b"), ("", None)):
        assert not guess.decimal_comma(pa.table({"b": texts(*plain)}))


def test_a_column_may_have_times_of_several_styles() -> None:
    both = [f"{day:02d}.01.2024" for day in range(1, 29)] + [f"2024-02-{day:02d}" for day in range(1, 29)]
    found = guess.guess(texts(*both))
    assert found.kind == "time"
    assert set(found.style.split("|")) == {"ISO8601", "%d.%m.%Y"}
    assert guess.guess(texts(*both[:28], *[f"shelf {n:03d}" for n in range(28)])).kind == "text"


def profiled(frame: dict[str, Sequence[object]], parts: int = 1, unique: Sequence[str] = ()) -> Profile:
    table = pa.table(dict(frame))
    found = Profile({name: guess.guess(table[name]) for name in table.column_names}, unique=unique)
    edges = np.linspace(0, table.num_rows, parts + 1).astype(int)
    for start, end in itertools.pairwise(edges):
        found.update(table.slice(start, end - start))
    return found


ROWS = 1000
RANDOM = np.random.default_rng(0)
TABLE = {
    "whole": [str(number % 7) for number in range(ROWS)],
    "gaps": ["" if number % 4 == 0 else f"{number / 8}" for number in range(ROWS)],
    "colour": ["red" if number % 3 else "green" for number in range(ROWS)],
    "day": [f"2024-01-{1 + number % 28:02d}" for number in range(ROWS)],
    "typed": RANDOM.normal(size=ROWS),
}


@pytest.mark.parametrize("parts", [1, 7])
def test_the_counts_are_those_of_the_table_in_any_number_of_batches(parts: int) -> None:
    found = profiled(TABLE, parts)
    assert found.rows == ROWS
    whole, gaps, colour, day, typed = found.columns.values()
    assert (whole.minimum, whole.maximum, whole.whole, whole.distinct, whole.missing) == (0, 6, True, 7, 0)
    assert (gaps.missing, gaps.present, gaps.whole) == (250, 750, False)
    assert gaps.total == pytest.approx(sum(float(text) for text in TABLE["gaps"] if text))
    assert colour.counts == {"red": 666, "green": 334}
    assert (colour.longest, colour.letters) == (5, 666 * 3 + 334 * 5)
    assert pd.Timestamp(day.minimum, unit="s") == pd.Timestamp("2024-01-01")
    assert pd.Timestamp(day.maximum, unit="s") == pd.Timestamp("2024-01-28")
    assert typed.typed
    assert (typed.minimum, typed.maximum) == (TABLE["typed"].min(), TABLE["typed"].max())
    pd.testing.assert_frame_equal(found.sample().to_pandas(), pa.table(TABLE).to_pandas())


def test_too_many_values_are_no_longer_counted_but_repetitions_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "DISTINCT", 50)
    names = [f"n{number % 990}" for number in range(ROWS)]
    found = profiled({"name": names, "few": ["a", "b"] * (ROWS // 2)}, 4, unique=["name"])
    assert found.columns["name"].distinct is None
    assert found.columns["name"].often > 0.1
    assert found.columns["name"].repeated == 10
    assert found.columns["few"].distinct == 2
    assert found.columns["few"].often == 2 / ROWS
    assert found.columns["few"].repeated == 0  # nobody asked


def test_the_sample_is_spread_evenly_over_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "SAMPLE", 100)
    found = profiled({"x": list(range(ROWS))}, 9).sample()["x"].to_numpy()
    assert 50 <= len(found) <= 200
    assert len(set(np.diff(found))) == 1
    assert found[-1] > 0.9 * ROWS


def test_values_that_are_not_what_the_others_are_are_kept_in_mind() -> None:
    table = pa.table({"x": ["1", "2", "oops", "inf", "4"], "t": ["2024-01-01", "x", "2024-01-02", None, "y"]})
    found = Profile({"x": Guess("number"), "t": Guess("time", "ISO8601")})
    found.update(table)
    assert (found.columns["x"].unread, found.columns["x"].strange) == (2, ["oops", "inf"])
    assert (found.columns["t"].unread, found.columns["t"].strange) == (2, ["x", "y"])
    assert (found.columns["x"].maximum, found.columns["t"].missing) == (4, 1)
    assert found.mistaken() == ["x", "t"]
    right = Profile({"x": Guess("number")})
    right.update(pa.table({"x": ["1"] * 99 + ["oops"]}))
    assert right.mistaken() == []


def test_the_sample_is_typed_as_its_columns() -> None:
    given = {"n": ["1,5", "2,5", "-"], "t": ["31.12.2024", "", "01.02.2024"], "s": ["a", " b ", "NA"], "f": [1, 2, 3]}
    found = profiled(given)
    frame = profile.typed(found.sample(), found.columns)
    assert frame["n"].tolist()[:2] == [1.5, 2.5]
    assert frame["t"][0] == pd.Timestamp("2024-12-31", tz="UTC")
    assert frame["s"].tolist()[:2] == ["a", "b"]
    assert frame["f"].dtype == np.float64
    assert frame.isna().sum().to_dict() == {"n": 1, "t": 1, "s": 1, "f": 0}
    assert found.columns["n"].dashes
