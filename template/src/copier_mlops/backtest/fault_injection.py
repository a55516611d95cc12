"""What happens in a replay besides the rows themselves: faults on given days, questions by the hour, labels a while later."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.contract.contract import Contract

DAY = dt.timedelta(days=1)
BAD_CHALLENGER, BAD_CHAMPION = "bad-challenger", "bad-champion"
MODELS = (BAD_CHALLENGER, BAD_CHAMPION)
FORMS = {
    "celsius": "celsius:COLUMN@DAY, a sensor that told Fahrenheit tells Celsius from then on",
    "renamed": "renamed:COLUMN:OLD:NEW@DAY, a category has another name from then on",
    "missing": "missing:COLUMN@DAY, a column is empty from then on",
    "traffic": "traffic:TIMES@DAY, on that day everything is asked so many times",
    BAD_CHALLENGER: f"{BAD_CHALLENGER}@DAY, a model that learnt from labels that were turned round is registered",
    BAD_CHAMPION: f"{BAD_CHAMPION}@DAY, and somebody makes it champion by hand",
}
PARTS = {"celsius": 1, "renamed": 3, "missing": 1, "traffic": 1, BAD_CHALLENGER: 0, BAD_CHAMPION: 0}
MOST_TIMES = 100


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: One of FORMS.
        parts: What its form names after the kind.
        day: From when on, at midnight UTC.
    """

    kind: str
    parts: tuple[str, ...]
    day: dt.datetime

    def __str__(self) -> str:
        return f"{':'.join([self.kind, *self.parts])}@{self.day:%Y-%m-%d}"


def read_faults(text: str, contract: Contract) -> list[Fault]:
    """Read faults, apart by commas or blanks.

    Raises:
        ProjectError: If one has no known form, or names no column of the contract.
    """
    return [_fault(one, contract) for one in re.split(r"[,\s]+", text.strip()) if one]


def _fault(text: str, contract: Contract) -> Fault:
    said, at, day = text.partition("@")
    kind, *parts = said.split(":")
    if kind not in FORMS or not at or len(parts) != PARTS[kind] or not all(parts):
        raise ProjectError(f"FAULT={text} is none that is known. There are: {'; '.join(FORMS.values())}.")
    try:
        moment = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise ProjectError(f"FAULT={text}: {day} is no day such as 2024-09-01.") from error
    if kind in ("celsius", "renamed", "missing"):
        _check_column(text, kind, parts, contract)
    if kind == "traffic" and not (parts[0].isdecimal() and 1 <= int(parts[0]) <= MOST_TIMES):
        raise ProjectError(f"FAULT={text}: {parts[0]} is no whole number from 1 to {MOST_TIMES}.")
    return Fault(kind, tuple(parts), moment)


def _check_column(text: str, kind: str, parts: Sequence[str], contract: Contract) -> None:
    known = [column.name for column in contract.without_target() if column.role == "feature"]
    if parts[0] not in known:
        raise ProjectError(f"FAULT={text}: {parts[0]} is no input of the contract; there are {', '.join(known)}.")
    is_number = contract[parts[0]].kind in ("number", "integer")
    if kind != "missing" and is_number != (kind == "celsius"):
        raise ProjectError(f"FAULT={text}: {parts[0]} is {'a number' if is_number else 'no number'}.")


def with_faults(rows: pd.DataFrame, faults: Sequence[Fault], time: str) -> pd.DataFrame:
    """Rows as they come once something is wrong where they come from: the questions, and what is learnt from later.

    Args:
        rows: Of the contract, with the column `time`.
        faults: Those of models and of traffic change no row.
        time: A column of moments with a time zone.
    """
    changed = rows.copy(deep=False)
    for fault in faults:
        if fault.kind not in ("celsius", "renamed", "missing"):
            continue
        name, at = fault.parts[0], (rows[time] >= fault.day).to_numpy()
        if fault.kind == "celsius":
            changed[name] = changed[name].where(~at, (changed[name] - 32) * 5 / 9)
        elif fault.kind == "missing":
            changed[name] = changed[name].where(~at)
        else:
            changed[name] = changed[name].mask(
                at & (changed[name] == fault.parts[1]).to_numpy(dtype=bool), fault.parts[2]
            )
    return changed


def times(faults: Sequence[Fault], day: dt.datetime) -> int:
    """How many times a day's rows are asked."""
    return max(
        [int(one.parts[0]) for one in faults if one.kind == "traffic" and one.day <= day < one.day + DAY], default=1
    )


def by_hour(moments: pd.Series) -> Iterator[tuple[dt.datetime, np.ndarray]]:
    """Each hour in which something is asked, with the places of its rows.

    Args:
        moments: When each row is asked, in their order.
    """
    hours = moments.dt.floor("h").dt.tz_convert("UTC").dt.tz_localize(None)
    for hour, places in pd.Series(np.arange(len(hours))).groupby(hours.to_numpy(), sort=True):
        yield pd.Timestamp(hour, tz="UTC").to_pydatetime(warn=False), places.to_numpy()


def days(start: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
    """Midnights from `start` on, before `end`."""
    while start < end:
        yield start
        start += DAY


def months(start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """The first midnight of each month after `start`, before `end`."""
    return [day for day in days(start + DAY, end) if day.day == 1]


def middle(first: dt.datetime, newest: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """What is replayed if nobody says: the second half of what there is, whole months if these are at least two.

    Returns:
        Its beginning and its end (exclusive), midnights UTC.
    """
    end = newest.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    half = (first + (end - first) / 2).astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = half.replace(day=1)
    start = month if end - half > 60 * DAY and month - first > (end - first) / 4 else half
    return start, end
