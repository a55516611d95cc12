"""Types of msgspec for the rows of a contract: what the quick way reads, and the values that it makes."""

from __future__ import annotations

import datetime as dt
import math
import re
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from copier_mlops.contract.contract import Column, Contract

EXACT = 2**53  # whole numbers up to here are the same as float64
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NAIVE_EPOCH = dt.datetime(1970, 1, 1)  # a time without a zone is taken as UTC
MICROSECOND = dt.timedelta(microseconds=1)
MISSING_TIME = np.iinfo("int64").min
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
)
FINER = re.compile(r"(\.[0-9]{6})[0-9]+")  # than a microsecond: cut off, as the table has it


# --------------------------------------------------------------------------------------------------- The quick way


def struct(contract: Contract, places: Mapping[str, str], types: Mapping[str, Any]) -> type[Any]:
    """A row as msgspec decodes it: a field for each column, called by its place, since a column may have any name."""
    fields: list[Any] = [
        (places[column.name], types[column.name], None)
        if column.name in contract.optional
        else (places[column.name], types[column.name])
        for column in contract.without_target()
    ]
    return msgspec.defstruct(
        "Row",
        [*fields, ("target", Any, msgspec.UNSET)],
        kw_only=True,
        gc=False,
        forbid_unknown_fields=True,
        rename={**{place: name for name, place in places.items()}, "target": contract.target},
    )


def _type(column: Column) -> Any:
    """What msgspec checks a value with."""
    kind = _type_of_values(column)
    return kind | None if column.nullable or column.role == "id" else kind


def _type_of_values(column: Column) -> Any:
    if column.kind == "boolean":
        return bool
    if column.kind in ("number", "integer"):
        if column.role == "id":
            return int | float  # as it came; its rules are among `_tests`
        limits = {"ge": column.minimum, "le": column.maximum, "multiple_of": 1.0 if column.kind == "integer" else None}
        given = {name: float(value) for name, value in limits.items() if value is not None}
        return Annotated[float, msgspec.Meta(**given)] if given else float  # type: ignore[call-overload]
    allowed = tuple(value for value in column.allowed or () if value)
    if allowed and not column.personal:
        return Literal[allowed]
    return Annotated[str, msgspec.Meta(min_length=1)]


def _tests(column: Column) -> Iterator[Callable[[Any], object]]:
    """What the type does not say: each is true of a value that is right."""
    if column.kind == "timestamp":
        yield _is_moment
    if column.pattern is not None:
        yield re.compile(column.pattern).fullmatch
    if column.allowed is not None and (column.personal or not any(column.allowed)):
        yield frozenset(column.allowed).__contains__
    if column.role == "id" and column.kind in ("number", "integer"):
        low = -math.inf if column.minimum is None else column.minimum
        high = math.inf if column.maximum is None else column.maximum
        whole = column.kind == "integer"
        yield lambda value: -EXACT < value < EXACT and low <= value <= high and (not whole or value == int(value))


def values_of(places: Sequence[str]) -> Callable[[Any], Any]:
    if len(places) == 1:  # attrgetter gives one value then, and no tuple of one
        only = attrgetter(places[0])
        return lambda row: (only(row),)
    return attrgetter(*places) if places else lambda row: ()


def maker(column: Column) -> Callable[[], Any]:
    """Makes an id up that no other row has; it keeps the range of the column, and no pattern."""
    if column.kind == "string":
        return lambda: uuid.uuid4().hex
    if column.kind == "timestamp":
        return lambda: dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if column.kind == "boolean":
        return lambda: True
    low = max(math.ceil(1 if column.minimum is None else column.minimum), -EXACT + 1)
    high = min(math.floor(EXACT - 1 if column.maximum is None else column.maximum), EXACT - 1)
    return lambda: low + secrets.randbelow(max(1, high - low + 1))


def _is_moment(text: str) -> bool:
    """Whether a text is a time, written as most do; the careful way knows more of them."""
    if _MOMENT.fullmatch(text) is None:
        return False
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment.astimezone(dt.UTC)  # raises before year 1 and after year 9999
    except (ValueError, OverflowError):
        return False
    return True


def microseconds(text: str | None) -> int:
    """Since 1970, in UTC."""
    if text is None:
        return MISSING_TIME
    moment = dt.datetime.fromisoformat(text)
    return (moment - (EPOCH if moment.tzinfo else NAIVE_EPOCH)) // MICROSECOND
