"""What rows looked like when the model was made: kept in its bundle, for whoever compares production with it later.

It holds counts, and a few thousand rows of which each value is known by one of ten levels alone.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from copier_mlops.bundle.calendar import calendar, days_in, likeness, spells_of
from copier_mlops.bundle.values import as_numbers, factorized
from copier_mlops.contract.contract import Contract

if TYPE_CHECKING:
    from copier_mlops.bundle.calendar import Spells

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
        - `columns`, for each input `missing` (how many), `alike` (see `likeness`), `calendar` where it follows that, and of a number
          `edges` and `counts` (one more than edges; the first is what lies below anything seen, the last what lies above), of a
          text or boolean `values`, `other` (rows whose value is not named), `seldom` and `distinct` (see `texts`);
        - `answers` the same of each answer, with what is needed to estimate how good later ones are; `confidence` the same of
          the likeliest class where there are more than two; `labels` the same of the truth;
        - `rows`, `answered`: how many, and `days`, `answered_days`: on which;
        - `sample`: rows for a classifier that tells then from now, of each value its level (see `levels`) and no more. Who knows all
          else of a row may still find it among them: keep a bundle as you keep the rows.
    """
    of = rows if of is None else of
    spells, answered = spells_of(rows, contract), spells_of(of, contract)
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
        "days": days_in(spells),
        "answered_days": days_in(answered),
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
        "alike": likeness(np.where(missing, -1, cells), len(counts), spells),
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
        "alike": likeness(cells, len(names), spells),
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
        "alike": likeness(place[codes], len(kept) + 1, spells),
    }


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
