"""Rows come to the same values on the quick way, on the careful one, and through the contract's own rules; or they are refused."""

import dataclasses
import functools
import json
import math
import random

import msgspec
import numpy as np
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from copier_mlops.contract.contract import Column, Contract, ContractError, pseudonym
from copier_mlops.contract.validation import check_rows, check_values
from copier_mlops.serving import request_parser
from copier_mlops.serving.request_parser import (
    MOST_FAULTS,
    MOST_SUGGESTIONS,
    Asked,
    NotJsonError,
    Reader,
    RefusedError,
    TooManyRowsError,
    described,
)

KEY = "of the tests"
ID, TARGET = Column("id", "string", "id"), Column("y", "number", "target")
COLUMNS = (
    Column("number or none", "number", nullable=True, minimum=-1.5, maximum=1e6),
    Column("integer", "integer", minimum=0),
    Column("ja/nein", "boolean", nullable=True),
    Column("text or none", "string", nullable=True),
    Column("c1", "string", allowed=("a", "yes", "3", "ü")),
    Column("class", "string", nullable=True, pattern="[A-Z0-9]{1,3}|[a-z]+"),
    Column("zeit", "timestamp"),
)
NUMBERS = (
    "1", "1.0", "0", "-0.0", "-0", "0.5", "-1.5", "1e2", "3000", "3001", "1e6", "1000000.5", "1e308", "1e400", "-1e400", "1e-400",
    "9007199254740993", "18446744073709551617", "123456789012345678901234567890", "1" + "0" * 400, "20240101", "1704067200",
)  # fmt: skip
TEXTS = (
    "", " ", "a", "A", "ABC", "ABCD", "ü", "3", "3.0", "12", " 12 ", "1e3", "1_000", "1,000", "0x10", "+7", "-0", ".5", "5.", "nan", "NaN",
    "inf", "-Infinity", "1e400", "null", "None", "<NA>", "true", "True", "TRUE", "false", "yes", "No", "y", "n", "t", "f", "on", "off",
    "1", "0", "1.0", "0.0", "\x00", "a\nb", "A\n", "\U0001f600", "a" * 100, "now", "today", "NaT", "2024", "2024-01", "2024-01-01",
    "2024-01-01T10:20", "2024-01-01T10:20:30", "2024-01-01 10:20:30", "2024-01-01T10:20:30Z", "2024-01-01T10:20:30z", "2024-01-01t10:20:30Z",
    "2024-01-01T10:20:30.5Z", "2024-01-01T10:20:30.123456+02:00", "2024-01-01T10:20:30.1234567Z", "2024-01-01T10:20:30.999999999-23:59",
    "1969-12-31T23:59:59.9999999Z", "2024-01-01T10:20:30+0130", "2024-01-01T10:20:30+24:00", "2024-01-01T10:20:30,5Z", "2024-02-30T00:00:00Z",
    "2023-02-29T00:00:00", "2024-12-31T23:59:60Z", "2024-01-01T24:00:00Z", "20240101", "20240101T102030Z", "2024-W01-1", "2024-001",
    "0001-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "01/02/2024", "2024-01-01T10:20:30Z ", "\uff11\uff12",
)  # fmt: skip
VALUES = (*NUMBERS, *(json.dumps(text) for text in TEXTS), "true", "false", "null")
NESTED = ("{}", "[]", "[1]", '{"a": {"b": [null]}}')


def of_one(column: Column) -> Contract:
    return Contract((ID, column, TARGET))


def body(column: Column, *values: str) -> bytes:
    rows = ['{"id": "x", ' + json.dumps(column.name) + f": {value}" + "}" for value in values]
    return (rows[0] if len(rows) == 1 else f"[{','.join(rows)}]").encode()


@functools.cache
def judged(column: Column) -> dict[str, pd.DataFrame | None]:
    """What becomes of each value that comes alone, on the careful way; None if it is refused."""
    reader, found = Reader(of_one(column), 10), {}
    for value in VALUES:
        try:
            found[value] = reader.frame([reader.careful(body(column, value))])
        except RefusedError:
            found[value] = None
    return found


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_all_ways_agree_on_every_value(column: Column) -> None:
    """The contract's rules are the truth, for a row that comes alone."""
    reader = Reader(of_one(column), 10)
    for value, found in judged(column).items():
        quick = reader.quick(body(column, value))
        if quick is not None:
            assert found is not None, value
            pd.testing.assert_frame_equal(reader.frame([quick]), found)
        plain = json.loads(value)
        if isinstance(plain, int) and abs(plain) > 2**53 and column.kind != "string":
            plain = float(plain) if abs(plain) < 10**300 else math.inf  # pandas has no such integers
        elif isinstance(plain, float) and abs(plain) > 1e18 and column.kind == "string":
            continue  # nor texts of such numbers
        truth, faults = check_values(pd.Series([plain], name=column.name), column, repeats=True)
        assert (found is None) == bool(faults), value
        if found is not None:
            pd.testing.assert_series_equal(found[column.name], truth, obj=value)


def test_a_value_that_is_missing_is_refused_where_one_has_to_be() -> None:
    for column in COLUMNS:
        reader = Reader(of_one(dataclasses.replace(column, nullable=False)), 10)
        for missing in (b'{"id": "x"}', body(column, "null"), body(column, '""')):
            with pytest.raises(RefusedError) as refused:
                reader.read(missing)
            assert [fault.field for fault in refused.value.faults] == [column.name]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_row_is_judged_for_itself(column: Column) -> None:
    """Whatever comes with it: the libraries would take a column of numbers otherwise than one with a text among them."""
    reader, chance, alone = Reader(of_one(column), 200), random.Random(7), judged(column)
    fine = [value for value in VALUES if alone[value] is not None]
    for some in (fine, *(chance.sample(fine, min(len(fine), 7)) for _ in range(5))):
        together = reader.frame([reader.careful(body(column, *some))])
        pd.testing.assert_frame_equal(together, pd.concat([alone[value] for value in some], ignore_index=True))
    with pytest.raises(RefusedError) as refused:
        reader.read(body(column, *VALUES))
    wrong = [place for place, value in enumerate(VALUES) if alone[value] is None]
    assert refused.value.count == len(wrong)
    assert [fault.row for fault in refused.value.faults] == wrong[:100]


@pytest.mark.parametrize("value", NESTED)
def test_what_no_column_has_is_refused(value: str) -> None:
    for column in COLUMNS:
        reader = Reader(of_one(column), 10)
        with pytest.raises(RefusedError) as refused:
            reader.read(body(column, value))
        assert [fault.field for fault in refused.value.faults] == [column.name]


def test_rows_of_this_project_come_to_what_the_contract_makes_of_them(rows: pd.DataFrame) -> None:
    some = rows.head(40).drop(columns=CONTRACT.target)
    given = some.to_json(orient="records", date_format="iso", date_unit="us").encode()
    plain = dataclasses.replace  # what the source gave is masked already
    contract = Contract(tuple(plain(column, personal=False) for column in CONTRACT.columns))
    reader = Reader(contract, 100)
    truth = check_rows(some, contract, labelled=False, repeats=True).good
    quick = reader.quick(given)
    assert quick is not None
    assert quick.many
    pd.testing.assert_frame_equal(reader.frame([quick]), truth, rtol=1e-9)  # JSON has ten digits of pandas
    pd.testing.assert_frame_equal(reader.frame([reader.careful(given)]), reader.frame([quick]))


def test_what_was_asked_in_many_bodies_comes_into_one_frame() -> None:
    contract = Contract((ID, *COLUMNS, TARGET))
    reader = Reader(contract, 10)
    row = {"integer": 2, "c1": "a", "zeit": "2024-01-01T00:00:00Z"}
    one, two = ({**row, "id": name} for name in ("one", "two"))
    asked = [reader.read(json.dumps(given).encode()) for given in (one, [two, one], [], two)]
    frame = reader.frame(asked)
    assert frame["id"].tolist() == ["one", "two", "one", "two"]
    empty = {column.name: None for column in COLUMNS if column.nullable}
    truth = check_rows(
        pd.DataFrame([{**empty, **given} for given in (one, two, one, two)]), contract, False, repeats=True
    )
    pd.testing.assert_frame_equal(frame, truth.good)
    assert json.loads(msgspec.json.encode(asked[0].rows[0])) == {**empty, **one, "integer": 2.0}


SMALL = Contract((ID, Column("x", "number", minimum=0), Column("z", "string", nullable=True), TARGET))


def asked(given: str | bytes, contract: Contract = SMALL, key: str = KEY) -> Asked:
    return Reader(contract, 3, key).read(given.encode() if isinstance(given, str) else given)


@pytest.mark.parametrize("way", ["quick", "careful"])
def test_the_target_is_ignored_and_a_nullable_field_may_be_left_out(way: str) -> None:
    found = getattr(Reader(SMALL, 3), way)(b'{"id": "a", "x": 1, "y": {"any": ["thing"]}}')
    assert msgspec.to_builtins(found.rows[0]) == {"id": "a", "x": 1.0, "z": None}


@pytest.mark.parametrize("way", ["quick", "careful"])
@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (Column("id", "string", "id", pattern="[0-9]{3}"), str),
        (Column("id", "integer", "id", minimum=10, maximum=20), int),
        (Column("id", "number", "id"), int),
        (Column("id", "timestamp", "id"), str),
    ],
)
def test_an_id_that_is_missing_is_made_up(column: Column, kind: type, way: str) -> None:
    contract = Contract((column, Column("x", "number"), TARGET))
    for given in (b'{"x": 1}', b'{"x": 1, "id": null}'):
        found = getattr(Reader(contract, 3), way)(given)
        assert isinstance(found.ids[0], kind)
        assert Reader(contract, 3).frame([found])["id"].notna().all()
        if column.minimum is not None:
            assert 10 <= found.ids[0] <= 20


def test_an_id_comes_back_as_it_came() -> None:
    contract = Contract((Column("id", "integer", "id"), Column("x", "number"), TARGET))
    for given in (7, "7", 2**53 + 1, 7.0):
        assert asked(json.dumps({"id": given, "x": 1}), contract).ids == [given]


def test_a_twice_given_field_has_its_last_value() -> None:
    assert asked('{"id": "a", "x": 1, "x": 2}').rows[0].c1 == 2
    assert asked('{"id": "a", "x": 1, "x": "2"}').rows[0].c1 == 2


def test_every_fault_is_named_with_what_is_allowed() -> None:
    with pytest.raises(
        RefusedError, match="4 values are not what the contract says; row 0, x: -1 is not a number"
    ) as refused:
        asked('[{"id": "a", "x": -1}, {"id": "b", "w": 1, "z": [1]}]')
    assert [(fault.row, fault.field, fault.value) for fault in refused.value.faults] == [
        (0, "x", "-1"),
        (1, "w", "1"),
        (1, "x", "nothing"),
        (1, "z", "[1]"),
    ]
    assert refused.value.faults[0].allowed == "a number that is 0 or more"
    with pytest.raises(RefusedError) as refused:
        asked('[3, {"id": "b", "X": 1}]')
    assert [(fault.row, fault.field) for fault in refused.value.faults] == [(0, ""), (1, "X"), (1, "x")]
    with pytest.raises(RefusedError) as refused:
        asked(json.dumps({"id": "a", "x": "s" * 1000}))
    assert len(refused.value.faults[0].value) == 40


def test_what_is_allowed_is_said_in_words() -> None:
    assert described(Column("x", "integer", minimum=1, maximum=9, unit="miles")) == "a whole number from 1 to 9 (miles)"
    assert described(Column("x", "number", maximum=0.5, nullable=True)) == "a number that is 0.5 or less, or null"
    assert described(Column("x", "string", allowed=("a", "b"))) == "one of a, b"
    assert described(Column("x", "string", allowed=tuple(map(str, range(22))))).endswith("18, 19 and 2 more")
    assert described(Column("x", "string", pattern="[A-Z]")) == "a text that matches [A-Z]"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"id": "a", "x": 1,}', "not JSON"),
        (b'{"id": "a", "x": 1} {}', "not JSON"),
        (b'{"id": "a", "x": NaN}', "written as null"),
        (b'{"id": "a", "x": -Infinity}', "written as null"),
        (b"Infinity", "written as null"),
        (b'{"id": "\xff", "x": 1}', "not"),
        (b'{"id": "\\ud800", "x": 1}', "not"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "a", "x": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_is_refused_as_such(given: bytes, says: str) -> None:
    with pytest.raises(NotJsonError, match=says):
        asked(given)


def test_too_many_rows_are_refused_before_they_are_looked_at() -> None:
    for row in ('{"id": "a", "x": 1}', '{"id": "a", "x": "wrong"}'):
        with pytest.raises(TooManyRowsError, match="4 rows at once are too many; send 3 at most"):
            asked(f"[{','.join([row] * 4)}]")


@pytest.mark.parametrize("way", ["quick", "careful"])
def test_personal_values_are_masked_as_the_data_was(way: str) -> None:
    contract = Contract(
        (Column("id", "string", "id", personal=True), Column("mail", "string", personal=True, nullable=True), TARGET)
    )
    reader = Reader(contract, 3, KEY)
    found = getattr(reader, way)(b'[{"id": "ann", "mail": "ann@home"}, {"id": "bob"}]')
    frame = reader.frame([found])
    assert frame["id"].tolist() == [pseudonym("ann", KEY), pseudonym("bob", KEY)]
    assert frame["mail"].fillna("none").tolist() == [pseudonym("ann@home", KEY), "none"]
    assert found.ids == ["ann", "bob"]  # whoever asked knows them by these
    assert b"ann" not in msgspec.json.encode(found.rows)
    assert reader.read(b'{"id": 3}').rows == reader.read(b'{"id": "3"}').rows
    with pytest.raises(ContractError, match="mail is personal, and there is no key"):
        Reader(contract, 3)


def test_a_frame_of_numbers_alone_and_one_without_any() -> None:
    for column, value in ((Column("x", "number"), 1), (Column("x", "string"), "a")):
        contract = Contract((Column("id", column.kind, "id"), column, TARGET))
        reader = Reader(contract, 3)
        frame = reader.frame([reader.read(json.dumps({"id": value, "x": value}).encode())])
        assert np.asarray(frame["x"]).tolist() == [value]


def test_tens_of_thousands_of_unknown_fields_are_counted_but_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(request_parser, "closest", lambda name, names: compared.append(name) or "")
    reader = Reader(of_one(COLUMNS[0]), 1000)
    row = {"id": "x", **{f"number or non{number}": 1 for number in range(36_500)}}
    many = [{"id": "x", **{f"number or non{number}": [] for number in range(30)}}] * 1000
    for given, count in ((row, 36_500), (many, 30_000), ([3] * 1000, 1000), ([{"number or none": []}] * 1000, 1000)):
        compared.clear()
        with pytest.raises(RefusedError) as refused:
            reader.read(json.dumps(given).encode())
        assert (len(refused.value.faults), refused.value.count) == (MOST_FAULTS, count)
        assert len(compared) <= MOST_SUGGESTIONS
    with pytest.raises(RefusedError):
        reader.read(json.dumps({"x" * 500_000: 1}).encode())
    assert not compared


def test_true_is_not_a_number_and_no_time_is_beyond_year_9999() -> None:
    for column, values in (
        (Column("x", "number"), ("true", "false")),
        (Column("x", "integer"), ("true", "false")),
        (Column("x", "timestamp"), ('"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"')),
    ):
        reader = Reader(of_one(column), 10)
        for value in values:
            for given in (body(column, value), body(column, value, value)):
                with pytest.raises(RefusedError) as refused:
                    reader.read(given)
                assert {fault.field for fault in refused.value.faults} == {"x"}
            typed = pd.Series([json.loads(value)] * 2, name="x")
            assert check_values(typed, column, repeats=True)[1], value
    beyond = pd.Series(pd.to_datetime(["2024-01-01"], utc=True).as_unit("us")) + pd.DateOffset(years=9000)
    assert check_values(beyond, Column("x", "timestamp"), repeats=True)[1]
    for fine in ('"9999-12-31T23:59:59Z"', '"0001-01-01T00:00:00Z"'):
        column = Column("x", "timestamp")
        reader = Reader(of_one(column), 10)
        reader.frame([reader.read(body(column, fine))])


POOLED = Contract(
    (ID, Column("kind", "string", allowed=("a", "b"), unseen="pool"), Column("x", "number", unseen="pool"), TARGET)
)


@pytest.mark.parametrize("way", ["quick", "careful"])
def test_unseen_values_are_taken_and_missing_fields_are_not(way: str) -> None:
    reader = Reader(POOLED, 3)
    read = getattr(reader, way)
    found = reader.frame([read(b'[{"kind": "purple", "x": 1}, {"kind": null, "x": null}]')])
    assert found["kind"].iloc[0] == "purple" and found.isna().sum().tolist() == [0, 1, 1]
    if way == "quick":
        assert reader.quick(b'{"kind": "a"}') is None
        return
    with pytest.raises(RefusedError) as refused:
        reader.careful(b'{"kind": "a"}')
    assert [fault.field for fault in refused.value.faults] == ["x"]


@pytest.mark.parametrize("way", ["quick", "careful"])
def test_a_group_may_be_left_out(way: str) -> None:
    reader = Reader(Contract((ID, Column("who", "integer", "group"), Column("x", "number"), TARGET)), 3)
    found = reader.frame([getattr(reader, way)(b'[{"x": 1}, {"x": 2, "who": 7}]')])
    assert found["who"].isna().tolist() == [True, False]
