"""Which columns follow the calendar, and how alike the rows of a day, a week or a month are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.bundle.values import as_numbers, factorized
from copier_mlops.contract.contract import Contract

LOOKED_AT = 5_000  # rows that decide whether a column follows the calendar
# ------------------------------------------------------------------------------------------------------------ Time

Spells = tuple[np.ndarray, ...]
"""The day and the week of each row, in days since 1970; nothing where rows have no time."""


def days_of(times: pd.Series) -> np.ndarray:
    """The day of each moment in UTC, int64 since 1970-01-01; a moment that is missing lies before all others."""
    moments = pd.to_datetime(times, utc=True, errors="coerce").dt.tz_localize(None)
    return np.asarray(moments.to_numpy("datetime64[s]").astype("int64") // 86_400)


def spells_of(rows: pd.DataFrame, contract: Contract) -> Spells:
    if contract.time is None or contract.time not in rows or not len(rows):
        return ()
    days = days_of(rows[contract.time])
    return days, days // 7


def days_in(spells: Spells) -> dict[str, Any] | None:
    """How many rows each day has, from the first day on."""
    known = spells[0][spells[0] > np.iinfo("int64").min // 86_400] if spells else np.empty(0)
    if not len(known):
        return None
    first = int(known.min())
    return {"first": first, "counts": np.bincount(known - first).tolist()}


def likeness(cells: np.ndarray, size: int, spells: Spells) -> dict[str, list[float]]:
    """How much rows of one day, and of one week, resemble each other: the intraclass correlation by analysis of variance
    (Donner 1986), of what is 1 in a bin and 0 elsewhere, below an edge or above, missing or not.

    It is 0 where each row is drawn for itself, and 1 where all rows of a day are one. Two windows of other days then differ by
    more than the number of their rows says (Kish 1965).

    Args:
        cells: Bin of each row, -1 where its value is missing.
        size: How many bins there are.
        spells: Of those rows.

    Returns:
        For `cells`, `cuts` and `missing` that of days and that of weeks, pooled over all bins or edges.
    """
    found: dict[str, list[float]] = {"cells": [], "cuts": [], "missing": []}
    for spell in spells:
        _, place = np.unique(spell, return_inverse=True)
        table = np.bincount(place * (size + 1) + cells + 1, minlength=(place.max() + 1) * (size + 1))
        table = table.reshape(-1, size + 1).astype("float64")
        rows, known = table.sum(axis=1), table[:, 1:].sum(axis=1)
        found["missing"].append(_correlation(table[:, :1], rows))
        found["cells"].append(_correlation(table[:, 1:], known))
        found["cuts"].append(_correlation(np.cumsum(table[:, 1:], axis=1)[:, :-1], known))
    return found


def _correlation(inside: np.ndarray, rows: np.ndarray) -> float:
    """The intraclass correlation of 0 and 1; 0 if chance alone may have made it.

    Args:
        inside: How many rows of each group are 1, of shape (groups, questions).
        rows: How many each group has, of shape (groups,).
    """
    inside, rows = inside[rows > 0], rows[rows > 0]
    groups, total = len(rows), rows.sum()
    if groups < 4 or total <= groups:
        return 0.0
    share = inside / rows[:, None]
    between = (rows[:, None] * (share - inside.sum(axis=0) / total) ** 2).sum() / (groups - 1)
    within = (rows[:, None] * share * (1 - share)).sum() / (total - groups)
    if between <= (1 + 3 * np.sqrt(2 / (groups - 1))) * within:
        return 0.0
    typical = (total - (rows**2).sum() / total) / (groups - 1)
    return float(f"{(between - within) / (between + (typical - 1) * within):.4g}")


def calendar(rows: pd.DataFrame, contract: Contract) -> dict[str, str]:
    """The inputs that the calendar alone decides: they move by construction, and that is no drift.

    An input follows a unit such as the weekday, in any time zone, if
    - the unit came round at least twice, and knowing it leaves 2 % or less of the errors that one makes in guessing the value
      without (lambda of Goodman and Kruskal 1954): hours, weekdays, months of two years; a flag for the weekend, too;
    - or the value is the unit's number or name, a straight line through it, or a wave of its length: what came but once decides
      whatever was constant meanwhile, a weekly price, too, and so proves nothing. Where it stayed the same throughout, the
      column's name has to say so as well, unless it is the year;
    - or it never falls, or never rises, while time goes on.

    Returns:
        The unit of each such input.
    """
    if contract.time is None or contract.time not in rows:
        return {}
    some = rows.reset_index(drop=True)
    some = some.iloc[np.unique(np.linspace(0, max(len(rows) - 1, 0), min(len(rows), LOOKED_AT)).astype(int))]
    times = pd.to_datetime(some[contract.time], utc=True, errors="coerce").dt.tz_localize(None).dropna()
    times = times.sort_values(kind="stable")
    some, moments = some.loc[times.index], pd.DatetimeIndex(times)
    if len(moments) < 100 or (moments[-1] - moments[0]) < pd.Timedelta(days=1):
        return {}
    names = contract.features("integer", "number", "boolean", "string")  # a moment is its parts, which follow it
    todo = {name: _Seen(some[name], contract[name].kind) for name in names}
    found: dict[str, str] = {}
    for hours in sorted(range(-12, 15), key=abs):
        local = moments + pd.Timedelta(hours=hours)
        units, written = _units(local), _written(local) if any(seen.numbers is None for seen in todo.values()) else {}
        for name, seen in todo.items():
            decided = (unit for unit, values in units.items() if seen.follows(unit, values, written.get(unit, ())))
            if unit := next(decided, ""):
                found[name] = unit
        todo = {name: seen for name, seen in todo.items() if name not in found and seen.of_the_hour(moments)}
    return found


def _units(local: pd.DatetimeIndex) -> dict[str, np.ndarray]:
    return {
        "hour": np.asarray(local.hour),
        "minute": np.asarray(local.hour) * 60 + np.asarray(local.minute),
        "weekday": np.asarray(local.day_of_week),
        "month": np.asarray(local.month),
        "quarter": np.asarray(local.quarter),
        "day of the month": np.asarray(local.day),
        "week": np.asarray(local.isocalendar().week, dtype="int64"),
        "day of the year": np.asarray(local.day_of_year),
        "year": np.asarray(local.year),
        "time": np.asarray(local.to_numpy("datetime64[s]").astype("int64")),
    }


LENGTHS = {"hour": 24, "minute": 1440, "weekday": 7, "month": 12, "week": 52.18, "day of the year": 365.25}
WRITTEN = {
    "weekday": ("%A", "%a"), "month": ("%B", "%b", "%m", "%Y-%m"), "week": ("%V", "%G-W%V"), "year": ("%Y",),
    "day of the year": ("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y"), "day of the month": ("%d",),
}  # fmt: skip


def _written(local: pd.DatetimeIndex) -> dict[str, list[np.ndarray]]:
    """How people write the units of each moment, in small letters."""
    place, found = pd.factorize(local.normalize())
    days = pd.DatetimeIndex(found)
    return {
        unit: [np.array(days.strftime(form).str.lower())[place] for form in forms] for unit, forms in WRITTEN.items()
    }


class _Seen:
    """The values of a column in the order of time, and whether they follow a unit of the calendar."""

    def __init__(self, column: pd.Series, kind: str) -> None:
        self.name = str(column.name).lower()
        values = column.reset_index(drop=True)
        self.numbers = None if kind == "string" else as_numbers(values)
        codes, names = factorized(values) if self.numbers is None else pd.factorize(self.numbers)
        self.codes, self.distinct = codes, len(names)
        self.known = codes >= 0
        self.enough = self.known.sum() >= max(100, 0.9 * len(values))
        self.names = np.array([str(name).lower() for name in names], dtype=object)

    def of_the_hour(self, moments: pd.DatetimeIndex) -> bool:
        """Whether the hour of a row decides its value; if not, no unit does in any time zone."""
        hours = moments.to_numpy("datetime64[h]").astype("int64")
        return bool(self.enough and self.distinct > 1 and _lambda(hours, self.codes) >= 0.9)

    def follows(self, unit: str, values: np.ndarray, written: Sequence[np.ndarray]) -> bool:
        if not self.enough:
            return False
        turns, different = 1 + int((np.diff(values) != 0).sum()), len(np.unique(values))
        if self.distinct > 1 and different > 1 and turns >= 2 * different and 4 * different <= len(values):
            return _lambda(values, self.codes) >= 0.98
        if self.numbers is not None:
            return self._on_a_line(unit, self.numbers[self.known], values[self.known].astype("float64"), different)
        named = self.names[self.codes[self.known]]
        return (self.distinct > 1 or unit in self.name) and any(
            (named == forms[self.known]).mean() >= 0.98 for forms in written
        )

    def _on_a_line(self, unit: str, x: np.ndarray, u: np.ndarray, different: int) -> bool:
        if unit == "year" or different < 4:  # a line through few points is no wonder; the same number is
            equal = [bool((np.abs(x - u - shift) < 1e-6).mean() >= 0.98) for shift in (0, -1, 1)]
            return any(equal) if different > 1 else equal[0] and (unit == "year" or unit in self.name)
        if self.distinct < 4:
            return False
        ones, angle = np.ones_like(u), 2 * np.pi * u / LENGTHS.get(unit, np.inf)
        if unit == "time":
            steps = np.diff(x)
            turned = min(steps[steps > 0].sum(), -steps[steps < 0].sum())
            ranked = pd.Series(x).rank().to_numpy()
            return bool(turned <= 0.001 * np.abs(steps).sum()) or _explained([ones, np.arange(len(x))], ranked)
        return _explained([ones, u], x) or (unit in LENGTHS and _explained([ones, np.sin(angle), np.cos(angle)], x))


def _lambda(units: np.ndarray, codes: np.ndarray) -> float:
    """Goodman and Kruskal's lambda: the share of wrong guesses of the value that knowing the unit spares."""
    _, place = np.unique(units, return_inverse=True)
    kinds = int(codes.max()) + 2
    if kinds > 2000:
        return 0.0
    table = np.bincount(place * kinds + codes + 1, minlength=(place.max() + 1) * kinds).reshape(-1, kinds)
    most = table.sum(axis=0).max()
    return float((table.max(axis=1).sum() - most) / max(table.sum() - most, 1))


def _explained(columns: Sequence[np.ndarray], x: np.ndarray) -> bool:
    """Whether a linear model leaves a thousandth or less of the variance."""
    inputs = np.column_stack(columns)
    rest = x - inputs @ np.linalg.lstsq(inputs, x, rcond=None)[0]
    return bool((rest**2).sum() <= 0.001 * ((x - x.mean()) ** 2).sum())
