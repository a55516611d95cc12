"""How good the answers were, now that the truth is there: against the test rows, by group, by version, week by week.

It is called worse when the interval of the difference says so, and never because nobody knows: no label, one label or
one class give NaN and a sentence. Rows of one day resemble each other, and so intervals come from resampling days, not rows:
otherwise a week of bad weather is a bad model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Contract
from copier_mlops.evaluation.metrics import (
    LARGER_IS_BETTER,
    METRICS,
    Interval,
    flat,
    gain,
    resamples,
    under_weights,
    with_intervals,
)

MOST_ROWS = 100_000  # labelled answers that are looked at, spread over time: more sharpen no verdict that anybody needs
MOST_GROUPS = 20  # of a slice; what is smaller is one group
OTHER = "other"
GROUP_ROWS = 50  # of a group before it is called worse
FEWEST_DAYS = 5  # that are resampled; of fewer the rows are
LIMITS = {
    "auc": (0.0, 1.0), "average_precision": (0.0, 1.0), "calibration_error": (0.0, 1.0), "brier": (0.0, np.inf),
    "log_loss": (0.0, np.inf), "mae": (0.0, np.inf), "rmse": (0.0, np.inf), "r2": (-np.inf, 1.0),
}  # fmt: skip
"""What a metric can be at all."""
LEVEL = 0.95  # of an interval
SURE = NormalDist().inv_cdf(0.5 + LEVEL / 2)
NOTHING = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Expected:
    """What the model had on its test rows.

    Attributes:
        metrics: By name; the ends are NaN where only the value was kept.
        slices: The deciding metric by slice and group.
    """

    metrics: Mapping[str, Interval] = field(default_factory=dict)
    slices: Mapping[tuple[str, str], Interval] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Before:
    """The version before: on the same answers, or on those that it gave itself where it cannot be asked again.

    Attributes:
        version: Its number.
        gain: Of the version that answers now over it, positive is better.
        worse: Whether the one that answers now is worse; None if nobody can say.
        says: The same in words.
    """

    version: int
    gain: Interval
    worse: bool | None
    says: str


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What the labels say of the version that answers.

    Attributes:
        metric: The one that decides.
        version, rows: Which version, and how many labelled answers of it.
        metrics: Each metric with its 95 % interval.
        expected: What it had on its test rows.
        gain: Over the test rows in the deciding metric, positive is better.
        worse: Whether it is worse than on its test rows; None if nobody can say.
        says: The same in words.
        slices: Lines with slice, group, rows, observed, predicted, value, low, high, expected, worse.
        versions: Lines with version, rows, value, low, high.
        before: The comparison with the version before; None if there was none.
        weeks: Lines with week (its Monday), labelled, value, low, high, of all versions.
    """

    metric: str
    version: int
    rows: int
    metrics: Mapping[str, Interval]
    expected: Expected
    gain: Interval
    worse: bool | None
    says: str
    slices: Sequence[Mapping[str, Any]] = ()
    versions: Sequence[Mapping[str, Any]] = ()
    before: Before | None = None
    weeks: Sequence[Mapping[str, Any]] = ()


def difference(metric: str, mine: Interval, other: Interval) -> Interval:
    """By how much one value is better than another that was measured on other rows, positive is better.

    The interval comes from those of the two values (the MOVER of Zou and Donner 2008). Of a value without an interval nobody knows how
    certain it is; it is taken to be as uncertain as the one that it is compared with.
    """
    if np.isnan(other.low):
        below, above = _reach(mine.value, mine.low), _reach(mine.value, mine.high)
        other = Interval(other.value, other.value - below, other.value + above)
    larger = metric in LARGER_IS_BETTER
    up, down = (mine.high, mine.low) if larger else (mine.low, mine.high)
    best, least = (other.high, other.low) if larger else (other.low, other.high)
    value = gain(metric, mine.value, other.value)
    low = value - np.hypot(_reach(mine.value, down), _reach(other.value, best))
    high = value + np.hypot(_reach(mine.value, up), _reach(other.value, least))
    return Interval(value, float(low), float(high))


def _reach(value: float, end: float) -> float:
    return 0.0 if np.isnan(end) else abs(value - end)


def measure(
    rows: pd.DataFrame,
    contract: Contract,
    *,
    problem: str,
    times: int,
    seed: int,
    names: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Each metric, or some of them, with a 95 % interval; NaN where there are fewer than two rows, or it is not defined.

    Args:
        rows: `label`, `at` and the contract's answers.
        contract: Names the answers.
        problem, names: Which metrics.
        times, seed: Of the resamples of days (cluster bootstrap, Field and Welsh 2007), or of rows where days are fewer than
            FEWEST_DAYS.
    """
    names = list(METRICS[problem]) if names is None else names
    if len(rows) < 2:
        return dict.fromkeys(names, NOTHING)
    y, score = _truth(rows), _scores(rows, contract)
    _, day = np.unique(rows["at"].dt.floor("D").to_numpy(), return_inverse=True)
    days = int(day.max()) + 1
    if days < FEWEST_DAYS:
        return with_intervals(problem, y, score, times=times, seed=seed, names=names)
    values: dict[str, list[float]] = {name: [] for name in names}
    for counts in resamples(days, times, seed):
        weight = counts[day]
        for name in names:
            values[name].append(METRICS[problem][name](y, score, weight))
    ones = np.ones(len(y))
    return {name: _interval(name, METRICS[problem][name](y, score, ones), values[name], days) for name in names}


def paired(
    problem: str,
    metric: str,
    *,
    at: pd.Series,
    y: np.ndarray,
    mine: np.ndarray,
    other: np.ndarray,
    times: int,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """By how much one model is better than another on the same rows, positive is better: both are measured on each resample of
    days, or of rows where days are fewer than FEWEST_DAYS.

    Args:
        problem, metric: What decides.
        at: When each row was answered, shape (n,), n >= 2.
        y, mine, other: Truth and answers, as `Bundle.score` gives them.
        times, seed: Of the resamples.
        level: Of the interval.
    """
    _, day = np.unique(at.dt.floor("D").to_numpy(), return_inverse=True)
    if day.max() + 1 < FEWEST_DAYS:
        day = np.arange(len(y))
    days = int(day.max()) + 1
    ours, theirs = (under_weights(METRICS[problem][metric], y, score) for score in (mine, other))
    weights = (counts[day] for counts in resamples(days, times, seed))
    values = [gain(metric, ours(weight), theirs(weight)) for weight in weights]
    ones = np.ones(len(y))
    return _interval("", gain(metric, ours(ones), theirs(ones)), values, days, level)


def _interval(metric: str, value: float, resampled: Sequence[float], days: int, level: float = LEVEL) -> Interval:
    """The percentiles of the resamples, wider where days are few: by what a resample of n lacks of its variance, and by Student's
    quantile over the normal one (its expansion by Peiser 1943)."""
    kept = np.array(resampled)[~np.isnan(resampled)]
    if len(kept) == 0 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    sure = NormalDist().inv_cdf(0.5 + level / 2)
    wider = np.sqrt(days / (days - 1)) * (1 + (sure**2 + 1) / (4 * (days - 1)))
    low, high = np.quantile(kept, [0.5 - level / 2, 0.5 + level / 2])
    whole = Interval(value, float(value - wider * max(value - low, 0)), float(value + wider * max(high - value, 0)))
    least, most = LIMITS.get(metric, (-np.inf, np.inf))
    return Interval(value, max(whole.low, least), min(whole.high, most))


def spread(
    mine: pd.DataFrame, contract: Contract, *, problem: str, metric: str, found: Interval, times: int, seed: int
) -> float:
    """How many times wider the interval is than one of as many rows that have nothing to do with each other, at least 1."""
    if len(mine) < 2 or np.isnan(found.low):
        return 1.0
    alone = with_intervals(problem, _truth(mine), _scores(mine, contract), times=times, seed=seed, names=[metric])[
        metric
    ]
    width = alone.high - alone.low
    return max(1.0, float((found.high - found.low) / width)) if width > 0 else 1.0


def judge(
    joined: pd.DataFrame,
    contract: Contract,
    *,
    problem: str,
    metric: str,
    version: int,
    expected: Expected,
    names: Sequence[str],
    times: int,
    seed: int,
    enough: int,
    former: int | None = None,
) -> Performance:
    """Measure the answers whose truth has come.

    Args:
        joined: As `labels.Joined.rows`, with `version`, the contract's answers, and a column for each slice.
        contract: Names the answers.
        problem, metric: What is measured, and which metric decides.
        version: That answers now.
        expected: What it had on its test rows.
        names: The slices.
        times, seed: Of the resamples.
        enough: Labels that a verdict needs.
        former: The version that answered before, if there was one.
    """
    some = joined
    if len(joined) > MOST_ROWS:
        some = joined.iloc[np.unique(np.linspace(0, len(joined) - 1, MOST_ROWS).astype(int))]
    mine = some[(some["version"] == version).to_numpy(dtype=bool)] if len(some) else some
    few = max(20, times // 2)
    found = measure(mine, contract, problem=problem, times=times, seed=seed)
    value = found[metric]
    wider = spread(mine, contract, problem=problem, metric=metric, found=value, times=few, seed=seed)
    known = _widened(expected.metrics.get(metric, NOTHING), wider)  # the test rows came in days, too
    over = difference(metric, value, known)
    worse, says = _verdict(metric, value=value, known=known, over=over, rows=len(mine), enough=enough, version=version)
    lines = _versions(some, contract, problem=problem, metric=metric, times=few, seed=seed)
    return Performance(
        metric=metric,
        version=version,
        rows=len(mine),
        metrics=found,
        expected=expected,
        gain=over,
        worse=worse,
        says=says,
        slices=_slices(
            mine, contract, problem=problem, metric=metric, expected=expected, names=names, times=few, seed=seed
        ),
        versions=lines,
        before=_before(metric, lines, version=version, former=former, enough=enough),
        weeks=_weeks(some, contract, problem=problem, metric=metric, times=few, seed=seed),
    )


def _widened(one: Interval, by: float) -> Interval:
    """An interval as so many times its reach to each side."""
    return Interval(one.value, one.value - by * (one.value - one.low), one.value + by * (one.high - one.value))


def _truth(rows: pd.DataFrame) -> np.ndarray:
    return rows["label"].to_numpy("float64")


def _scores(rows: pd.DataFrame, contract: Contract) -> np.ndarray:
    """As `Bundle.score` gives them."""
    if not len(rows):
        return np.empty((0, len(contract.answers))) if len(contract.answers) > 1 else np.empty(0)
    found = rows[contract.answers].to_numpy("float64")
    return found if len(contract.answers) > 1 else found[:, 0]


def _verdict(
    metric: str, *, value: Interval, known: Interval, over: Interval, rows: int, enough: int, version: int
) -> tuple[bool | None, str]:
    if rows == 0:
        return None, f"no answer of version {version} has a label yet"
    if rows < 2:
        return None, f"one answer of version {version} has a label, which says nothing yet"
    if np.isnan(value.value):
        return None, f"the labels of {rows:,} answers are all the same, so {metric} is not defined"
    measured = f"{metric} is {value.value:.4g} ({value.low:.4g} to {value.high:.4g}) on {rows:,} labelled answers"
    if rows < enough:
        return None, f"{measured}, too few for a verdict: that takes {enough:,} (monitoring.min_labelled)"
    if np.isnan(known.value):
        return None, f"{measured}; what it was on the test rows is not known"
    against = f"{measured}, against {known.value:.4g} on the test rows"
    if over.high < 0:
        return True, f"{against}: worse by {-over.high:.4g} to {-over.low:.4g}"
    if over.low > 0:
        return False, f"{against}: better by {over.low:.4g} to {over.high:.4g}"
    return False, f"{against}: the difference may be chance"


def _slices(
    rows: pd.DataFrame,
    contract: Contract,
    *,
    problem: str,
    metric: str,
    expected: Expected,
    names: Sequence[str],
    times: int,
    seed: int,
) -> list[dict[str, Any]]:
    groups = {name: largest(rows[name]).to_numpy() for name in names if name in rows} if len(rows) else {}
    parts = [(name, str(group), rows[of == group]) for name, of in groups.items() for group in np.unique(of)]
    compared = sum((name, group) in expected.slices for name, group, _ in parts)
    # So many comparisons at once: each interval is as wide as if it were one of all of them (Bonferroni).
    many = NormalDist().inv_cdf(1 - 0.025 / max(compared, 1)) / SURE
    lines = []
    for name, group, part in parts:
        value = measure(part, contract, problem=problem, times=times, seed=seed, names=[metric])[metric]
        known = expected.slices.get((name, group), NOTHING)
        if not np.isnan(known.value):
            known = _widened(
                known, spread(part, contract, problem=problem, metric=metric, found=value, times=times, seed=seed)
            )
        over = difference(metric, value, known)
        judged = len(part) >= GROUP_ROWS and not np.isnan(over.value)
        true, answered = flat(_truth(part), _scores(part, contract))
        lines.append(
            {
                "slice": name,
                "group": group,
                "rows": len(part),
                "observed": float(true.mean()),
                "predicted": float(answered.mean()),
                **vars(value),
                "expected": known.value,
                "worse": bool(over.value + many * (over.high - over.value) < 0) if judged else None,
            }
        )
    return lines


def largest(groups: pd.Series, most: int = MOST_GROUPS) -> pd.Series:
    """The group of each row, as text: one of the largest, or OTHER."""
    texts = groups.astype("str").where(groups.notna(), "missing").reset_index(drop=True)
    counts = texts.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return texts.where(texts.isin(counts.index[:most]), OTHER)


def _versions(
    rows: pd.DataFrame, contract: Contract, *, problem: str, metric: str, times: int, seed: int
) -> list[dict[str, Any]]:
    lines = []
    for number, part in rows.groupby("version", sort=True) if len(rows) else ():
        found = measure(part, contract, problem=problem, times=times, seed=seed, names=[metric])[metric]
        lines.append({"version": int(str(number)), "rows": len(part), **vars(found)})
    return lines


def _before(
    metric: str, lines: Sequence[Mapping[str, Any]], *, version: int, former: int | None, enough: int
) -> Before | None:
    by = {line["version"]: line for line in lines}
    if former is None:
        return None
    if version not in by or former not in by:
        return Before(
            version=former,
            gain=NOTHING,
            worse=None,
            says=f"versions {version} and {former} do not both have labelled answers",
        )
    values = [Interval(by[one]["value"], by[one]["low"], by[one]["high"]) for one in (version, former)]
    over = difference(metric, *values)
    said = (
        f"{metric} of version {version} is {values[0].value:.4g} on {by[version]['rows']:,} labelled answers, "
        f"that of version {former} {values[1].value:.4g} on {by[former]['rows']:,}"
    )
    if min(by[version]["rows"], by[former]["rows"]) < enough or np.isnan(over.value):
        return Before(version=former, gain=over, worse=None, says=f"{said}, too little for a verdict")
    if over.high < 0:
        return Before(
            version=former, gain=over, worse=True, says=f"{said}: worse by {-over.high:.4g} to {-over.low:.4g}"
        )
    return Before(version=former, gain=over, worse=False, says=f"{said}: not worse by more than chance")


def week(moments: pd.Series) -> pd.Series:
    """The Monday of each moment's week in UTC, as text."""
    days = moments.dt.floor("D")
    mondays = pd.Series(days - pd.to_timedelta(days.dt.day_of_week, unit="D"))
    return pd.Series(mondays.dt.strftime("%Y-%m-%d"))


def _weeks(
    rows: pd.DataFrame, contract: Contract, *, problem: str, metric: str, times: int, seed: int
) -> list[dict[str, Any]]:
    """Of all versions: that is what people got."""
    lines = []
    for monday, part in rows.groupby(week(rows["at"]), sort=True) if len(rows) else ():
        found = measure(part, contract, problem=problem, times=times, seed=seed, names=[metric])[metric]
        lines.append({"week": str(monday), "labelled": len(part), **vars(found)})
    return lines
