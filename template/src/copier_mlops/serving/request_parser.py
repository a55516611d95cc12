"""From JSON to rows that keep the contract: what is as it should be in microseconds, what is not with a reason for each value.

The quick way decodes and checks a row in C. What it does not take goes the careful way, through the rules of `core.contract`:
these may still take it (a number written as text, yes for true), or they say what is wrong. Both come to the same values.
A row is judged for itself, whatever others come with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.contract.contract import Column, Contract, ContractError, pseudonym
from copier_mlops.contract.validation import check_rows, check_values, closest, rows_of
from copier_mlops.serving.request_types import FINER, _tests, _type, maker, microseconds, struct, values_of

MOST_FAULTS = 100  # that are reported for one request
MOST_SUGGESTIONS = 10  # of field names for one request: each takes up to a millisecond
LONGEST_NAME = 100  # characters of an unknown field name that is compared with the known ones
_NO_NUMBER = re.compile(rb"-?(?:NaN|Infinity)\b")
_NOTHING = object()


class NotJsonError(ProjectError):
    """A body that is no JSON, or JSON that nobody should send."""


class TooManyRowsError(ProjectError):
    """More rows at once than are answered at once."""


class RefusedError(ProjectError):
    """Rows are not what the contract says.

    Attributes:
        faults: the first `MOST_FAULTS` of them, in the order of rows.
        count: how many there are.
    """

    def __init__(self, faults: Sequence[Fault], count: int) -> None:
        self.faults = sorted(faults, key=lambda fault: fault.row)[:MOST_FAULTS]
        self.count = count
        first = self.faults[0]
        super().__init__(
            f"{self.count} {'values are' if self.count > 1 else 'value is'} not what the contract says; "
            f"row {first.row}, {first.field or 'the row itself'}: {first.value} is not {first.allowed}"
        )


@dataclass(frozen=True)
class Fault:
    """One value that is not what the contract says.

    Attributes:
        row: Which row, from 0.
        field: Which field; empty for a row that is no object.
        value: The value, at most 40 characters of it.
        allowed: What is allowed, in words.
    """

    row: int
    field: str
    value: str
    allowed: str


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What one body asks for.

    Attributes:
        rows: Its rows, decoded: a struct that msgspec writes as the JSON of the row, personal values as pseudonyms, without the
            target. `msgspec.to_builtins` makes a dictionary of one.
        many: Whether the body was an array.
        ids: The id of each row as it came, or as it was made up.
        at: When it was asked, ISO 8601 in UTC; empty if that is now.
        way: What it is noted as; empty if that is how it was answered.
    """

    rows: list[Any]
    many: bool
    ids: list[Any]
    at: str = ""
    way: str = ""


class Reader:
    """Reads bodies of rows of one contract.

    Args:
        contract: What a row is. A nullable field may be left out. The id may be, too: then one is made up. A target that is given
            is ignored.
        max_rows: How many rows a body may have.
        mask_key: The key that personal values are masked with.

    Attributes:
        id: function that returns the id of a row as it may be stored: a pseudonym where it is personal.
        values: function that returns all others of its values, as a tuple.

    Raises:
        ContractError: If a column is personal and there is no key.
    """

    def __init__(self, contract: Contract, max_rows: int, mask_key: str = "") -> None:
        self.contract = contract
        self._most = max_rows
        self._key = mask_key
        self._columns = contract.without_target()
        personal = [column.name for column in self._columns if column.personal]
        if personal and not mask_key:
            raise ContractError(
                f"column {', '.join(personal)} is personal, and there is no key to mask it with. "
                "Set MASK_KEY to the one that the model's data was masked with."
            )
        self._places = {column.name: f"c{number}" for number, column in enumerate(self._columns)}
        self._types = {column.name: _type(column) for column in self._columns}
        self._row = struct(contract, self._places, self._types)
        self._one = msgspec.json.Decoder(self._row)
        self._many = msgspec.json.Decoder(list[self._row])  # type: ignore[name-defined]
        self._any = msgspec.json.Decoder(float_hook=float)  # 1e400 is infinite, and refused by its name
        self._masked = [self._places[name] for name in personal]
        others = [column for column in self._columns if column.role != "id"]
        self._tests = [(self._places[column.name], test) for column in others for test in _tests(column)]
        self._id_tests = list(_tests(contract[contract.id]))  # not of one that is made up
        self._id = self._places[contract.id]
        self.id = attrgetter(self._id)
        self.values = values_of([place for place in self._places.values() if place != self._id])
        self._make_id = maker(contract[contract.id])
        numbers = [one for one in self._columns if one.kind in ("number", "integer", "boolean")]
        self._numbers = [one.name for one in numbers]
        self._block = values_of([self._places[one.name] for one in numbers])
        self._texts = [(one.name, attrgetter(self._places[one.name])) for one in self._columns if one.kind == "string"]
        self._times = [
            (one.name, attrgetter(self._places[one.name])) for one in self._columns if one.kind == "timestamp"
        ]
        empty = pd.DataFrame({column.name: pd.Series(dtype="object") for column in self._columns})
        self._kinds = dict(check_rows(empty, contract, labelled=False, repeats=True).good.dtypes)

    # ------------------------------------------------------------------------------------------------ Reading

    def read(self, body: bytes) -> Asked:
        """The rows of a body: one JSON object is one row, an array of them many.

        Raises:
            NotJsonError: If the body is no JSON.
            TooManyRowsError: If it has more rows than `max_rows`.
            RefusedError: If a row is not what the contract says.
        """
        return self.quick(body) or self.careful(body)

    def quick(self, body: bytes) -> Asked | None:
        """The rows of a body where all is as it should be; None where that has to be looked at with care.

        Raises:
            TooManyRowsError: If it has more rows than `max_rows`.
        """
        many = body[:1] == b"[" or body.lstrip()[:1] == b"["
        try:
            rows = self._many.decode(body) if many else [self._one.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(rows) > self._most:
            raise self._too_many(len(rows))
        ids = []
        for row in rows:
            row.target = msgspec.UNSET
            given = getattr(row, self._id)
            named = given is not None
            if not named:
                given = self._make_id()
                setattr(row, self._id, given)
            ids.append(given)
            for place in self._masked:
                value = getattr(row, place)
                if value is not None:
                    setattr(row, place, pseudonym(value, self._key))
            if named and not all(test(getattr(row, self._id)) for test in self._id_tests):
                return None
            for place, test in self._tests:
                value = getattr(row, place)
                if value is not None and not test(value):
                    return None
        return Asked(rows, many, ids)

    def careful(self, body: bytes) -> Asked:
        """The same as `read`, by the rules of `core.contract` alone; takes milliseconds."""
        given = self._decoded(body)
        many = isinstance(given, list)
        items = given if isinstance(given, list) else [given]
        if len(items) > self._most:
            raise self._too_many(len(items))
        faults, count = self._strangers(items)
        rows = [item if isinstance(item, dict) else {} for item in items]
        named = [row.get(self.contract.id) not in (None, "") for row in rows]
        ids = [row[self.contract.id] if has else self._make_id() for row, has in zip(rows, named, strict=True)]
        columns = {}
        for column in self._columns:
            values = ids if column.role == "id" else [row.get(column.name, _NOTHING) for row in rows]
            columns[self._places[column.name]], unfit = self._column(values, column)
            wrong = [row for row in unfit if isinstance(items[row], dict) and (column.role != "id" or named[row])]
            count += len(wrong)
            allowed = described(column) if wrong else ""
            for row in wrong[:MOST_FAULTS]:
                given_value = "nothing" if values[row] is _NOTHING else _short(values[row])
                faults.append(Fault(row, column.name, given_value, allowed))
        if faults:
            raise RefusedError(faults, count)
        made = [self._row(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
        return Asked(made, many, ids)

    def _decoded(self, body: bytes) -> Any:
        try:
            return self._any.decode(body)
        except RecursionError as error:
            raise NotJsonError("the body is nested too deeply: a row is one flat object") from error
        except UnicodeDecodeError as error:
            raise NotJsonError("the body is not UTF-8") from error
        except msgspec.DecodeError as error:
            if any(_NO_NUMBER.match(body, place) for place in _around(str(error), body)):
                raise NotJsonError(
                    "NaN and Infinity are no JSON; a value that is missing is written as null"
                ) from error
            raise NotJsonError(f"the body is not JSON: {error}") from error

    def _too_many(self, count: int) -> TooManyRowsError:
        return TooManyRowsError(f"{count} rows at once are too many; send {self._most} at most")

    def _strangers(self, items: Sequence[Any]) -> tuple[list[Fault], int]:
        """Return the first unknown fields and items of a request, and the number of all.

        A body of 1 MB has tens of thousands of names; only those that are reported are described.
        """
        faults: list[Fault] = []
        count = 0
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                count += 1
                if count <= MOST_FAULTS:
                    faults.append(Fault(number, "", _short(item), "an object with a field for each column"))
                continue
            for name in item:
                if name in self._places or name == self.contract.target:
                    continue
                count += 1
                if count <= MOST_FAULTS:
                    close = self._close(name) if count <= MOST_SUGGESTIONS else ""
                    faults.append(Fault(number, _short(name), _short(item[name]), f"a field of a row{close}"))
        return faults, count

    def _close(self, name: str) -> str:
        """Return the suggestion of a similar field; empty if there is none."""
        close = closest(name, [*self._places]) if len(name) <= LONGEST_NAME else ""
        return f"; is it {close}?" if close else ""

    def _column(self, given: Sequence[Any], column: Column) -> tuple[list[Any], list[int]]:
        """Return the values of a column as a struct holds them, and the rows whose value is not valid."""
        if column.name in self.contract.optional and column.role != "id":
            given = [None if value is _NOTHING else value for value in given]
        kept = self._as_they_are(given, column)
        if kept is not None:
            return kept, []
        plain = [None if value is _NOTHING else _plain(value, column) for value in given]
        if column.personal:
            plain = [pseudonym(value, self._key) if isinstance(value, str) else value for value in plain]
        unfit = {number for number, value in enumerate(plain) if value is _NOTHING or given[number] is _NOTHING}
        raw = pd.Series([None if value is _NOTHING else value for value in plain], dtype="object")
        values, found = check_values(raw, column, repeats=True)
        unfit |= set(rows_of(found).tolist())
        if column.kind == "timestamp":
            return [None if moment is pd.NaT else _written(moment) for moment in values], sorted(unfit)
        typed = [None if value is None or value != value else value for value in values.tolist()]
        if column.kind == "boolean":
            return [None if value is None else bool(value) for value in typed], sorted(unfit)
        if column.kind == "integer" and column.role == "id":
            return [None if value is None else int(value) for value in typed], sorted(unfit)
        return typed, sorted(unfit)

    def _as_they_are(self, given: Sequence[Any], column: Column) -> list[Any] | None:
        """The values of a column if the quick way takes each: the rules of a whole column cost a millisecond."""
        if column.personal:
            return None
        tests = list(_tests(column))
        try:
            kept: list[Any] = msgspec.convert(given, list[self._types[column.name]])  # type: ignore[name-defined]
            right = all(value is None or math.isfinite(value) for value in kept if isinstance(value, float))
            return kept if right and all(value is None or test(value) for value in kept for test in tests) else None
        except (msgspec.ValidationError, OverflowError):
            return None

    # ---------------------------------------------------------------------------------------------- The frame

    def frame(self, asked: Sequence[Asked]) -> pd.DataFrame:
        """All rows in one frame, in their order, typed exactly as `check_rows` types good ones; numbered from 0."""
        rows = asked[0].rows if len(asked) == 1 else [row for one in asked for row in one.rows]
        columns: dict[str, Any] = {}
        if self._numbers:
            block = np.array([self._block(row) for row in rows], dtype="float64").reshape(len(rows), len(self._numbers))
            columns = dict(zip(self._numbers, np.ascontiguousarray(block.T), strict=True))
        for name, get in self._texts:
            kind = self._kinds[name]
            columns[name] = kind.construct_array_type()._from_sequence(list(map(get, rows)), dtype=kind)
        for name, get in self._times:
            moments = np.array([microseconds(get(row)) for row in rows], dtype="int64")
            columns[name] = pd.DatetimeIndex(moments.view("datetime64[us]"), tz="UTC").array
        return pd.DataFrame({name: columns[name] for name in self._places}, index=pd.RangeIndex(len(rows)), copy=False)


# ------------------------------------------------------------------------------------------------ What is allowed


def described(column: Column) -> str:
    """What a value of a column may be, in words."""
    low, high = column.minimum, column.maximum
    words: str = {
        "number": "a number",
        "integer": "a whole number",
        "boolean": "true or false",
        "timestamp": "a time such as 2024-01-31T09:30:00Z",
        "string": "a text that is not empty",
    }[column.kind]
    if column.allowed is not None:
        more = len(column.allowed) - 20
        words = f"one of {', '.join(column.allowed[:20])}" + (f" and {more} more" if more > 0 else "")
    elif column.pattern is not None:
        words = f"a text that matches {column.pattern}"
    if low is not None and high is not None:
        words += f" from {low:.15g} to {high:.15g}"
    elif low is not None:
        words += f" that is {low:.15g} or more"
    elif high is not None:
        words += f" that is {high:.15g} or less"
    words += f" ({column.unit})" if column.unit else ""
    return words + (", or null" if column.nullable else "")


def _short(value: Any) -> str:
    """A value as it came, in 40 characters at most."""
    if isinstance(value, (dict, list)):
        text = msgspec.json.encode(value).decode()
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _around(said: str, body: bytes) -> Iterator[int]:
    """Where in a body msgspec saw the end of JSON: the sign before a number counts with it."""
    found = re.search(r"\(byte (\d+)\)", said)
    if found:
        yield from (int(found[1]), max(0, int(found[1]) - 1))


# ------------------------------------------------------------------------------------------------- The careful way


def _plain(value: Any, column: Column) -> Any:
    """A value such that the rules judge it as they do where it comes alone, whatever stands above and below it in the column.

    `_NOTHING` for what no column has.
    """
    if value is None or value == "":
        return None
    if isinstance(value, (dict, list)):
        return _NOTHING
    if column.kind == "timestamp":
        return FINER.sub(r"\1", value) if isinstance(value, str) else _NOTHING
    if column.kind == "string" and isinstance(value, float):
        return _NOTHING if math.isinf(value) else str(int(value)) if value.is_integer() else str(value)
    if column.kind == "string":
        return str(value)
    if column.kind != "boolean" and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def _written(moment: pd.Timestamp) -> str:
    """Return a time in the format of the quick way."""
    return moment.isoformat().replace("+00:00", "Z")
