"""What rows looked like when the model was made: kept in its bundle, for whoever compares production with it later.

It holds counts, and a few thousand rows of which each value is known by one of ten levels alone.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..core.contract import Contract, as_text

VERSION = 2
CLOSE = 1e-9  # values that differ by no more than this share of their size are one
BINS = 20  # of a number, with about as many rows each
TAILS = (0.001, 0.01, 0.99, 0.999)  # edges beside theirs
CATEGORIES = 200  # names of a text that are counted one by one
SELDOM = 5  # what fewer rows share is not named, since it may tell who they are
LEVELS = 10  # that the values of a kept row are told by
MISSING = 255  # the level of no value
CELLS = 100_000  # of the kept rows, all columns together
SAMPLE = 4_000  # rows that are kept at most
LOOKED_AT = 5_000  # rows that decide whether a column follows the calendar
NAMES = ("false", "true")
TRUST = 10  # rows that a probability is worth as it was said, beside those that were observed


def reference(
    rows: pd.DataFrame,
    scores: np.ndarray,
    contract: Contract,
    y: np.ndarray | None = None,
    of: pd.DataFrame | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The profile of some rows and of answers.

    Args:
        rows: Rows that keep the contract. Their times, if there are any, say which columns follow the calendar, and how much
            rows of a day or of a week resemble each other.
        scores: Answers of shape (k,) or (k, classes), best to rows that the model did not learn from: to those it learnt from
            it answers with more confidence.
        contract: Says which columns are inputs.
        y: The truth to the answers, as `Contract.labels` gives it, shape (k,).
        of: The k rows that the answers belong to, where they are not `rows`.
        seed: The same seed keeps the same sample.

    Returns:
        JSON-ready, numbers and names that several rows share:
        - `columns`, for each input `missing` (how many), `alike` (see `_alike`), `calendar` where it follows that, and of a number
          `edges` and `counts` (one more than edges; the first is what lies below anything seen, the last what lies above), of a
          text or boolean `values`, `other` (rows whose value is not named), `seldom` and `distinct` (see `texts`);
        - `answers` the same of each answer, with what is needed to estimate how good later ones are; `confidence` the same of
          the likeliest class where there are more than two; `labels` the same of the truth;
        - `rows`, `answered`: how many, and `days`, `answered_days`: on which;
        - `sample`: rows for a classifier that tells then from now, of each value its level (see `levels`) and no more. Who knows all
          else of a row may still find it among them: keep a bundle as you keep the rows.
    """
    of = rows if of is None else of
    spells, answered = _spells(rows, contract), _spells(of, contract)
    numeric = contract.features("integer", "number")
    columns: dict[str, Any] = {name: numbers(as_numbers(rows[name]), spells) for name in numeric}
    columns |= {name: flags(rows[name], spells) for name in contract.features("boolean")}
    columns |= {name: texts(rows[name], spells) for name in contract.features("string")}
    for name, unit in calendar(rows, contract).items():
        columns[name]["calendar"] = unit
    table = scores if scores.ndim == 2 else scores[:, None]
    names = contract.answers
    probable = bool(len(table) and table.min() >= 0 and table.max() <= 1)
    answers = {name: numbers(table[:, place], answered, (0.5,) if probable else ()) for place, name in enumerate(names)}
    profile: dict[str, Any] = {
        "version": VERSION,
        "rows": len(rows),
        "answered": len(table),
        "time": contract.time,
        "days": _days(spells),
        "answered_days": _days(answered),
        "columns": columns,
        "answers": answers,
        "labels": {},
        "sample": _sample(rows, columns, seed),
    }
    if y is None:
        return profile
    profile["labels"] = {contract.target: _labels(y, contract, answered)}
    known = np.isfinite(y)
    if len(names) > 1:
        for place, name in enumerate(names):
            answers[name] |= _observed(answers[name], table[known, place], y[known] == place)
        sure = table.max(axis=1)
        profile["confidence"] = numbers(sure, answered)
        right = table.argmax(axis=1)[known] == y[known]
        profile["confidence"] |= _observed(profile["confidence"], sure[known], right)
    elif probable and np.isin(y[known], (0, 1)).all():
        answers[names[0]] |= _observed(answers[names[0]], table[known, 0], y[known])
    return profile


# ------------------------------------------------------------------------------------------------------- Counting


def as_numbers(values: pd.Series) -> np.ndarray:
    """A column of numbers or booleans as float64 of the same shape; NaN where there is no finite one."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        found = values.to_numpy("float64")
    elif isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object:
        found = pd.to_numeric(values.astype("object"), errors="coerce").astype("float64").to_numpy()
    else:
        found = pd.to_numeric(values, errors="coerce").to_numpy("float64", na_value=np.nan)
    finite = np.isfinite(found)
    return found if finite.all() else np.where(finite, found, np.nan)


def numbers(values: np.ndarray, spells: Spells = (), more: Sequence[float] = ()) -> dict[str, Any]:
    """Bins that hold about as many rows each; a value that many rows share has a bin of its own.

    Args:
        values: float64 of shape (rows,).
        spells: Of those rows.
        more: Values that a bin has to begin with.
    """
    missing = np.isnan(values)
    edges = _edges(values[~missing], more)
    cells = bins(edges, values)
    counts = np.bincount(cells[~missing], minlength=len(edges) + 1)
    return {
        "missing": int(missing.sum()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "alike": _alike(np.where(missing, -1, cells), len(counts), spells),
    }


def bins(edges: Sequence[float] | np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the bin of each value: how many edges lie below it.

    A value that differs from an edge by less than 1e-9 of its size is taken for the edge: what went through JSON or CSV is off in the
    last digits, and a value that many rows share has a bin that is no wider than that.

    Args:
        edges: ascending.
        values: float64 of shape (rows,); NaN is in the last bin.
    """
    edges = np.asarray(edges, dtype="float64")
    if not len(edges):
        return np.zeros(len(values), dtype=np.int64)
    room = CLOSE * np.abs(values) + np.finfo("float64").tiny
    upto = np.searchsorted(edges, values + room, side="right")
    last = np.maximum(upto - 1, 0)
    # The edge just below the smallest value, or below a value that a bin has to begin with, is no value itself.
    begins = np.nextafter(edges, np.inf) == [float(f"{edge:.12g}") for edge in edges]
    begins[1:] &= np.nextafter(edges[1:], -np.inf) != edges[:-1]
    begins[0] = True
    near = (upto > 0) & (edges[last] >= values - room) & ~(begins[last] & (values > edges[last]))
    return np.asarray(upto - near)


def _edges(known: np.ndarray, more: Sequence[float] = ()) -> np.ndarray:
    """Each bin is what lies above one edge and not above the next."""
    if not len(known):
        return np.empty(0)
    values, counts = np.unique(known, return_counts=True)
    shares = np.r_[[tail for tail in TAILS if min(tail, 1 - tail) * len(known) >= SELDOM], np.arange(1, BINS) / BINS]
    often = values[counts >= max(SELDOM, len(known) / BINS / 2)]
    begin = np.r_[often, more]
    low, high = float(values[0]), float(values[-1])
    if high > low and np.isfinite(high - low):  # what one row alone has is rounded outwards, to a hundredth or a tenth
        unit = 10.0 ** np.floor(np.log10(high - low)) / 10
        low = low if counts[0] >= SELDOM else min(low, float(np.floor(low / unit) * unit))
        high = high if counts[-1] >= SELDOM else max(high, float(np.ceil(high / unit) * unit))
    below = np.nextafter(np.r_[low, begin], -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):  # between the two ends of what a float can be
        edges = np.unique(np.r_[below, often, np.quantile(known, shares), high])
    return np.asarray(edges[np.isfinite(edges)])


def flags(values: pd.Series, spells: Spells = ()) -> dict[str, Any]:
    """The profile of booleans."""
    return _few(flag_cells(values), NAMES, spells)


def _few(cells: np.ndarray, names: Sequence[str], spells: Spells) -> dict[str, Any]:
    """The profile of values that have a few names, which are known beforehand; from the place of each among them, -1 where it is
    missing.
    """
    counts = np.bincount(cells[cells >= 0], minlength=len(names))
    return {
        "missing": int((cells < 0).sum()),
        "values": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "other": 0,
        "seldom": 0,
        "distinct": len(names),
        "alike": _alike(cells, len(names), spells),
    }


def texts(values: pd.Series, spells: Spells = ()) -> dict[str, Any]:
    """The names that many rows share, each with its rows.

    Returns:
        Beside the counts `distinct`, how many names there are, and `seldom`: how many rows would not find their name among those
        that are kept if they came anew (each left out in turn, after Good 1953). It is more than `other`.
    """
    codes, names = factorized(values)
    known = codes[codes >= 0]
    counts = np.bincount(known, minlength=len(names))
    chosen = np.flatnonzero(counts >= SELDOM)
    seldom = int(counts[counts <= SELDOM].sum())
    if len(chosen) > CATEGORIES:  # the most frequent were lucky: one half of the rows names them, the other counts
        half = np.bincount(known[::2], minlength=len(names))
        counts = np.bincount(known[1::2], minlength=len(names))
        chosen = np.argsort(-half, kind="stable")[:CATEGORIES]
        chosen = chosen[half[chosen] >= SELDOM]
        seldom = int(counts.sum() - counts[chosen].sum())
    chosen = np.array(sorted(chosen, key=lambda one: names[one]), dtype="int64")
    kept = {names[one]: int(counts[one]) for one in chosen}
    place = np.full(len(names) + 1, len(kept))
    place[chosen] = np.arange(len(kept))
    place[-1] = -1  # of no value
    return {
        "missing": int((codes < 0).sum()),
        "values": kept,
        "other": int(counts.sum() - counts[chosen].sum()),
        "seldom": seldom,
        "distinct": len(names),
        "alike": _alike(place[codes], len(kept) + 1, spells),
    }


def factorized(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The place of each value among the different ones, -1 where there is none; and these, as text."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, names = values.cat.codes.to_numpy("int64"), list(as_text(pd.Series(values.cat.categories)))
    else:
        codes, found = pd.factorize(values if pd.api.types.is_string_dtype(values.dtype) else as_text(values))
        names = list(found)
    return codes, np.array([str(name) for name in names], dtype=object)


def _labels(y: np.ndarray, contract: Contract, spells: Spells) -> dict[str, Any]:
    """The profile of the truth; a row whose truth is not known is no gap."""
    known = np.isfinite(y)
    spells, y = tuple(spell[known] for spell in spells), y[known]
    classes = contract.classes or (NAMES if contract[contract.target].kind == "boolean" else ())
    if not classes:
        return numbers(y, spells)
    return {**_few(y.astype(int), classes, spells), "classes": list(classes)}


def _observed(column: Mapping[str, Any], scores: np.ndarray, true: np.ndarray) -> dict[str, list[float | None]]:
    """By bin the mean score and square, and how often what was predicted came true; None in a bin without a row."""
    cells, size = bins(column["edges"], scores), len(column["counts"])
    rows, hits, sums, squares = (
        np.bincount(cells, weight, minlength=size) for weight in (None, true.astype("float64"), scores, scores**2)
    )
    at_least_one = np.maximum(rows, 1)
    mean = sums / at_least_one
    found = {"mean": mean, "square": squares / at_least_one, "observed": (hits + TRUST * mean) / (rows + TRUST)}
    return {name: [float(value) if count else None for value, count in zip(each, rows, strict=True)]
            for name, each in found.items()}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ Time

Spells = tuple[np.ndarray, ...]
"""The day and the week of each row, in days since 1970; nothing where rows have no time."""


def days_of(times: pd.Series) -> np.ndarray:
    """The day of each moment in UTC, int64 since 1970-01-01; a moment that is missing lies before all others."""
    moments = pd.to_datetime(times, utc=True, errors="coerce").dt.tz_localize(None)
    return np.asarray(moments.to_numpy("datetime64[s]").astype("int64") // 86_400)


def _spells(rows: pd.DataFrame, contract: Contract) -> Spells:
    if contract.time is None or contract.time not in rows or not len(rows):
        return ()
    days = days_of(rows[contract.time])
    return days, days // 7


def _days(spells: Spells) -> dict[str, Any] | None:
    """How many rows each day has, from the first day on."""
    known = spells[0][spells[0] > np.iinfo("int64").min // 86_400] if spells else np.empty(0)
    if not len(known):
        return None
    first = int(known.min())
    return {"first": first, "counts": np.bincount(known - first).tolist()}


def _alike(cells: np.ndarray, size: int, spells: Spells) -> dict[str, list[float]]:
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


# ---------------------------------------------------------------------------------------------------------- Sample


def levels(values: pd.Series, column: Mapping[str, Any]) -> np.ndarray:
    """What is left of values that can be compared whatever their unit: of a number the tenth of all rows that it lies in, of a few
    names which it is, of many one of ten groups, into which they come by lot.

    The most frequent names would be no fair choice: some are frequent by luck, and less so ever after.

    Args:
        values: Of the column.
        column: Its profile.

    Returns:
        uint8 of the same shape, below LEVELS or MISSING.
    """
    if "edges" in column:
        found, counts = as_numbers(values), np.array(column["counts"], dtype="float64")
        middle = (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)
        level = np.minimum(middle * LEVELS, LEVELS - 1)[bins(column["edges"], found)]
        return np.where(np.isnan(found), MISSING, level).astype("uint8")
    names = sorted(column["values"])
    if is_flag(values, names):
        return np.where(flag_cells(values) < 0, MISSING, flag_cells(values)).astype("uint8")
    codes, there = factorized(values)
    if column["distinct"] <= LEVELS:
        place = pd.Index(names, dtype=object).get_indexer(pd.Index(there, dtype=object))
        group = np.where(place < 0, LEVELS - 1, place)
    else:
        group = np.array([zlib.crc32(name.encode()) % LEVELS for name in there], dtype="int64")
    return np.asarray(np.append(group, MISSING).astype("uint8")[codes])


def is_flag(values: pd.Series, names: Sequence[str]) -> bool:
    """Whether a column of booleans comes as such, and not as text."""
    return tuple(names) == NAMES and not pd.api.types.is_string_dtype(values.dtype)


def flag_cells(values: pd.Series) -> np.ndarray:
    """0 for false, 1 for true, -1 for neither."""
    found = as_numbers(values)
    return np.where(np.isnan(found), -1, np.nan_to_num(found) != 0).astype("int64")


def _sample(rows: pd.DataFrame, columns: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Some rows as levels: bytes by column, one after the other, in base64."""
    count = min(len(rows), SAMPLE, max(500, CELLS // max(len(columns), 1)))
    some = rows.iloc[np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])]
    table = np.array([levels(some[name], column) for name, column in columns.items()], dtype="uint8")
    return {"columns": list(columns), "rows": count, "levels": base64.b64encode(table.tobytes()).decode("ascii")}
