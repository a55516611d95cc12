"""What was decided about a column, and the words for it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from copier_mlops import ProjectError
from copier_mlops.adopt.profile import Column
from copier_mlops.contract import contract
from copier_mlops.contract.parsing import NUMBER_STYLES

FEWEST = 100  # rows with an answer
SEASONS = 730  # days, in which each season comes back
FEWEST_SUBJECTS, FEW_SUBJECTS = 10, 50  # that a table of several rows each needs, and with fewer of which it is said

DAY = 86_400.0  # seconds
LISTED = 30  # values that a contract lists


class AdoptionError(ProjectError):
    """The table cannot become a project; the text says what is in the way and what to do."""


@dataclass(frozen=True)
class Decision:
    """What became of a column of the table.

    Attributes:
        name: As the table has it.
        role: feature, id, time, target, or `left out`.
        kind: As in the contract; empty if it is left out.
        why: In words.
        doubt: What a person should look at; empty if all is clear.
    """

    name: str
    role: str
    kind: str
    why: str
    doubt: str = ""


@dataclass
class Target:
    column: contract.Column
    problem: str
    why: str
    doubt: str = ""
    warnings: list[str] = field(default_factory=list)
    long_tail: bool = False


def nice(value: float) -> float:
    """The next number of 1, 2 or 5 times a power of ten that is not larger; 0 stays 0."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power:.6g}")


def room_of(column: Column) -> tuple[float, float]:
    """A range with room to grow: half the width on either side, not across zero, in round numbers."""
    low, high = column.minimum, column.maximum
    width = max(high - low, abs(high) * 0.1, 1e-9)
    power = 10.0 ** math.floor(math.log10(width))
    below = math.floor((low - width / 2) / power) * power
    above = math.ceil((high + width / 2) / power) * power
    if low >= 0:
        below = 0.0 if low < width * 10 else max(below, 0.0)
    if high <= 0:
        above = min(above, 0.0)
    return float(f"{below:.12g}"), float(f"{above:.12g}")


def label_of(value: object) -> str:
    """A class as the contract names it: 3, not 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def texts_of(column: Column, values: pd.Series) -> list[str]:
    """Some values as text, as they were written where that is known."""
    if column.guess.kind == "time":
        return [f"{moment:%Y-%m-%d}" for moment in values.dropna().head(50)]
    if column.written and column.guess.kind == "number":
        return column.written
    some = values.dropna().drop_duplicates().head(2_000)
    if pd.api.types.is_float_dtype(some.dtype):
        return [label_of(float(value)) for value in some]
    return some.astype("str").tolist()


def some_of(column: Column) -> str:
    values = [*map(label_of, list(column.counts or {})[:3]), *column.strange]
    return ", ".join(values[:3]) + (" ..." if (column.distinct or 9) > 3 else "")


def style_of(column: Column) -> str:
    return f", written as {column.guess.style}" if column.guess.style not in ("", "ISO8601", NUMBER_STYLES[0]) else ""


def day_of(moment: float) -> str:
    return pd.Timestamp(moment, unit="s", tz="UTC").isoformat()[:10]  # strftime has no zeros before the year 1000


def words_of(column: Column) -> str:
    """What to look at where words such as `NA` are taken for no value; empty where there are none."""
    if not column.words:
        return ""
    said = ", ".join(f"{word} in {count:,} rows" for word, count in column.words.items())
    codes = [key for key in column.counts or {} if re.fullmatch("[A-Z]{2}", str(key))]
    hint = " NA is the code of Namibia: write it otherwise if it is meant." if "NA" in column.words and codes else ""
    return f"{said} count as missing.{hint}"


def ends_of(column: Column, times: pd.Series) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The times of the oldest and the newest row, without rows that are typing errors or stand for "never" or "unknown".

    The day of such a row in the future would be the whole test; one in the past would make a year of rows look like a century.
    """
    moments = times.dropna().sort_values().astype("int64").to_numpy("float64") / 1e6  # from microseconds
    oldest, newest = column.minimum, column.maximum
    for _ in range(2):  # a row at one end hides that one at the other end is far away
        inside = moments[(moments >= oldest) & (moments <= newest)]
        oldest, newest = -_last(-inside[::-1], -oldest), _last(inside, newest)
    return pd.Timestamp(oldest, unit="s", tz="UTC"), pd.Timestamp(newest, unit="s", tz="UTC")


def _last(moments: np.ndarray, last: float) -> float:
    """Return the last of some sorted moments before a gap that is longer than all that they cover, and than a year.

    Args:
        moments: seconds, in order.
        last: the last moment of the table, of which `moments` may be a sample.

    Returns:
        `last` if there is no such gap, or if after it there are more than a few rows, unless all of them are of one day.
    """
    few = min(max(3, len(moments) // 1000), len(moments) // 10)
    if not few:
        return last
    ends = np.array([*moments[-few - 1 :], last])
    of_last_day = int((moments > last - DAY).sum())
    places = [int(np.diff(ends).argmax()) + len(moments) - few - 1]
    if 0 < of_last_day <= len(moments) // 10:
        places.append(len(moments) - of_last_day - 1)
    for place in places:
        following = moments[place + 1] if place + 1 < len(moments) else last
        if following - moments[place] > max(moments[place] - moments[0], 366 * DAY):
            return float(moments[place])
    return last
