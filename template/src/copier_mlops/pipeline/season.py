"""How much each column changes with the season, and how much the model depends on it.

Production in March differs from a reference of January and February, and that is no fault. So the training rows show how far a week is
from the weeks before it, by the time between them. What is no further away in production is a seasonal change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.bundle.calendar import days_of
from copier_mlops.bundle.reference import bins, flag_cells, is_flag
from copier_mlops.bundle.values import as_numbers, factorized
from copier_mlops.contract.contract import Contract

BLOCK = 8  # weeks that a week is compared with, as many as the reference has
FEWEST_WEEKS = 6  # below which nothing is known of seasons
FEWEST_ROWS = 100  # of a week that is compared
MARGIN = 1.25  # a new week may be a little further away than all weeks of the training were
MINOR = 0.0125  # impact, below which a change is no headline
UNKNOWN = 0.05  # weight of predictions and labels, which are no input
SENSITIVITY_ROWS = 1_000
FEWEST_NAMED = 5  # rows that share a name: what fewer share may tell who they are
MOST_NAMES = 200


def change(then: np.ndarray, missing_then: int, now: np.ndarray, missing_now: int, ordered: bool) -> float:
    """Return the largest Cohen's h between two counts of the same bins, between 0 and pi.

    Args:
        then, now: rows by bin, shape (bins,).
        missing_then, missing_now: rows without a value.
        ordered: whether bins have an order; then what lies below each edge is compared, else each bin.
    """
    if not (then.sum() + missing_then) or not (now.sum() + missing_now):
        return float("nan")
    return float(_changes(then[None], np.array([missing_then]), now[None], np.array([missing_now]), ordered)[0])


def _changes(
    then: np.ndarray, missing_then: np.ndarray, now: np.ndarray, missing_now: np.ndarray, ordered: bool
) -> np.ndarray:
    """Return `change` of many pairs at once: counts of shape (pairs, bins), missing of shape (pairs,)."""
    sides = []
    for counts, missing in ((then, missing_then), (now, missing_now)):
        known = counts.sum(axis=1, keepdims=True)
        shares = (np.cumsum(counts, axis=1)[:, :-1] if ordered else counts) / np.maximum(known, 1)
        gaps = missing[:, None] / np.maximum(known + missing[:, None], 1)
        sides.append((np.arcsin(np.sqrt(np.clip(np.hstack([shares, gaps]), 0, 1))), known > 0))
    apart = 2 * np.abs(sides[0][0] - sides[1][0])
    apart[:, :-1] *= sides[0][1] & sides[1][1]  # without a value there are only gaps to compare
    return np.asarray(apart.max(axis=1))


def seasons(
    profile: Mapping[str, Any], rows: pd.DataFrame, scores: np.ndarray, y: np.ndarray, contract: Contract
) -> dict[str, Any]:
    """Return how far weeks of the training are from those before them.

    Args:
        profile: a reference that is made of these rows, so that its bins fit all seasons.
        rows: rows of the whole training window, with their times.
        scores, y: predictions and truth of these rows, shapes (rows,) or (rows, classes), and (rows,).
        contract: names the column of time.

    Returns:
        JSON-ready: `until`, the last day (in days since 1970), and `limits`: for `feature`, `answer`, `label` and `missing` (of features)
        by column a list. Its place k has the largest change of a week against the BLOCK weeks that ended k weeks or less before.
        Empty without a time or with fewer than FEWEST_WEEKS weeks.
    """
    if contract.time is None or not len(rows):
        return {}
    days = days_of(rows[contract.time])
    weeks = (days - days.max() - 1) // 7  # the last is -1
    _, place = np.unique(weeks, return_inverse=True)
    enough = np.bincount(place) >= FEWEST_ROWS
    if enough.sum() < FEWEST_WEEKS:
        return {}
    place = np.where(enough, np.cumsum(enough) - 1, -1)[place]
    table = scores if scores.ndim == 2 else scores[:, None]
    values: dict[str, dict[str, Any]] = {
        "feature": {name: rows[name] for name in profile["columns"]},
        "answer": {name: pd.Series(column) for name, column in zip(profile["answers"], table.T, strict=True)},
        "label": {name: pd.Series(y) for name in profile["labels"]},
    }
    profiles = {"feature": profile["columns"], "answer": profile["answers"], "label": profile["labels"]}
    weekly = {
        what: {name: _weekly(column, profiles[what][name], place) for name, column in columns.items()}
        for what, columns in values.items()
    }
    limits = {
        what: {name: _limits(table, "edges" in profiles[what][name]) for name, table in tables.items()}
        for what, tables in weekly.items()
    }
    limits["missing"] = {
        name: _limits(np.stack([table[:, 0], table[:, 1:].sum(axis=1)], axis=1), False)
        for name, table in weekly["feature"].items()
    }
    return {"until": int(days.max()), "limits": limits}


def _weekly(values: pd.Series, column: Mapping[str, Any], weeks: np.ndarray) -> np.ndarray:
    """Return the rows by week and bin, shape (weeks, 1 + bins); the first bin counts missing values."""
    names = sorted(column.get("values", ()))
    if "edges" in column:
        found = as_numbers(values)
        size = len(column["edges"]) + 1
        cells = np.where(np.isnan(found), -1, bins(column["edges"], found))
    elif "classes" in column:
        size, cells = len(column["classes"]) + 1, np.nan_to_num(as_numbers(values), nan=-1).astype("int64")
    elif is_flag(values, names):
        size, cells = len(names) + 1, flag_cells(values)
    else:
        codes, there = factorized(values)
        places = pd.Index(names, dtype=object).get_indexer(pd.Index(there, dtype=object))
        size, cells = len(names) + 1, np.append(np.where(places < 0, len(names), places), -1)[codes]
    used = weeks >= 0
    flat = np.bincount(weeks[used] * (size + 1) + cells[used] + 1, minlength=(int(weeks.max()) + 1) * (size + 1))
    return np.asarray(flat.reshape(-1, size + 1))


def _limits(weekly: np.ndarray, ordered: bool) -> list[float]:
    block = min(BLOCK, len(weekly) // 2)
    found: list[float] = []
    for lag in range(len(weekly) - block):
        later = np.arange(block + lag, len(weekly))
        before = np.array([weekly[at - lag - block : at - lag].sum(axis=0) for at in later])
        now = weekly[later]
        apart = float(_changes(before[:, 1:], before[:, 0], now[:, 1:], now[:, 0], ordered).max())
        found.append(round(max([apart, *found[-1:]]), 4))
    return found


def limit(profile: Mapping[str, Any], what: str, name: str, days: Collection[int]) -> float:
    """Return the largest change that the season explains in a window of these days; NaN if the profile does not know.

    Args:
        profile: the reference of a bundle.
        what, name: which column; `missing` is the share of a feature's values that are missing.
        days: days of the window, since 1970.
    """
    season = profile.get("season") or {}
    known = season.get("limits", {}).get(what, {}).get(name, [])
    if not known:
        return float("nan")
    lag = max(0, (min((day for day in days if day >= 0), default=season["until"]) - season["until"]) // 7)
    return MARGIN * float(known[min(lag, len(known) - 1)])


def impact(weight: float, change: float, limit: float) -> float:
    """Return how much a change matters: its part beyond the season, from 0 to 1, times the weight of the column.

    Args:
        weight: share of the column in what moves the predictions; NaN if it is not known, then the column may be all there is.
        change, limit: Cohen's h, and what the season explains of it; NaN if it is not known.
    """
    beyond = max(0.0, change - (0.0 if np.isnan(limit) else limit)) / np.pi
    return beyond if np.isnan(weight) else beyond * weight


def sensitivity(
    answer: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Return the share of each column in what moves the predictions: the mean absolute change when its values are shuffled.

    Args:
        answer: predictions of shape (rows,) or (rows, classes) for rows of the contract.
        rows: some rows of the contract.
        names: the columns; their shares sum to 1, or are all 0 for a constant model.
        seed: seed of the shuffles.
    """
    random = np.random.default_rng(seed)
    some = rows.iloc[np.sort(random.permutation(len(rows))[:SENSITIVITY_ROWS])].reset_index(drop=True)
    if not len(some):
        return {}
    whole = answer(some)
    moved = {}
    for name in names:
        shuffled = some.assign(**{name: some[name].array.take(random.permutation(len(some)))})
        moved[name] = float(np.abs(answer(shuffled) - whole).mean())
    total = sum(moved.values())
    return {name: round(value / total, 6) if total > 0 else 0.0 for name, value in moved.items()}


def training(rows: pd.DataFrame, profile: Mapping[str, Any], contract: Contract) -> dict[str, Any]:
    """Return what the training rows hold beside the reference, which is of a part of the year.

    Args:
        rows: rows of the whole training window.
        profile: the reference.
        contract: names the columns.

    Returns:
        JSON-ready: `rows`, and by column of numbers `low` and `high` (1st and 99th percentile, or so that FEWEST_NAMED rows lie outside),
        `below` and `above` (share of the values outside of the reference), by column of texts `names` (not in the reference, of
        FEWEST_NAMED rows or more).
    """
    found: dict[str, Any] = {}
    for name, column in profile["columns"].items():
        if "edges" in column:
            known = as_numbers(rows[name])
            known = known[~np.isnan(known)]
            if len(known) < 4 * FEWEST_NAMED or not column["edges"]:
                continue
            tail = max(0.01, FEWEST_NAMED / len(known))
            low, high = np.quantile(known, [tail, 1 - tail])
            cells = bins(column["edges"], known)
            below, above = (cells == 0).mean(), (cells == len(column["edges"])).mean()
            found[name] = {"low": float(low), "high": float(high), "below": float(below), "above": float(above)}
        elif not is_flag(rows[name], sorted(column["values"])):
            codes, there = factorized(rows[name])
            counts = np.bincount(codes[codes >= 0], minlength=len(there))
            more = sorted(
                str(there[place])
                for place in np.flatnonzero(counts >= FEWEST_NAMED)
                if there[place] not in column["values"]
            )
            found[name] = {"names": more[:MOST_NAMES]}
    return {"rows": len(rows), "columns": found}
