"""Whether a challenger beats the champion in production: both on the same labelled answers, which neither of them has learnt from.

It is better when the lower end of its gain says so, and nobody knows where labels are few, of few days, or all the same. The resamples
are those of `performance.paired`: of days, since rows of one day resemble each other.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Contract
from copier_mlops.evaluation.metrics import METRICS, Interval
from copier_mlops.monitoring.performance import FEWEST_DAYS, MOST_ROWS, NOTHING, paired

INPUT = "input "  # before the names of the columns that were asked, beside those of the prediction
WHOLE = "keeps the contract"
BEYOND_END = 10  # resamples that lie beyond an end of the interval, or it would be that of chance
MOST_TIMES = 4_000
LOT = 20_000  # rows that are answered at a time

Score = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When a challenger is better; sections `monitoring`, `evaluation` and `gate` of params.yaml.

    Attributes:
        problem, metric: What decides.
        enough: Labelled answers that a verdict needs.
        confidence: Of the interval of the gain.
        margin: That the whole interval has to lie above, in the metric.
        times, seed: Of the resamples, of which it may take more.
    """

    problem: str
    metric: str
    enough: int
    confidence: float
    margin: float
    times: int
    seed: int


@dataclass(frozen=True)
class Compared:
    """Answers that both gave, and the truth.

    Attributes:
        at: When each was asked, or the time of the row where all were asked within a few days, shape (n,).
        y: The truth, shape (n,).
        champion, challenger: Answers as `Bundle.score` gives them, shape (n,) or (n, classes).
        shadowed: How many of the challenger's were given in the shadow, when the question came.
    """

    at: pd.Series
    y: np.ndarray
    champion: np.ndarray
    challenger: np.ndarray
    shadowed: int = 0


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What came of it.

    Attributes:
        version: Of the challenger.
        learnt_until: The end of what it learnt from; None where rows have no time.
        metric, margin: What decides, and by how much it has to be better.
        says: The same in words.
        rows: How many labelled answers were compared.
        shadowed: How many of the challenger's were given in the shadow.
        champion, challenger: The metric of each.
        gain: Of the challenger over the champion, positive is better.
        better: Whether it is better by more than the margin; None if nobody can say.
    """

    version: int
    learnt_until: dt.datetime | None
    metric: str
    margin: float
    says: str
    rows: int = 0
    shadowed: int = 0
    champion: float = float("nan")
    challenger: float = float("nan")
    gain: Interval = NOTHING
    better: bool | None = None

    def as_json(self) -> dict[str, Any]:
        ends = {"gain": self.gain.value, "low": self.gain.low, "high": self.gain.high}
        return {**{name: value for name, value in vars(self).items() if name != "gain"}, **ends}


def judge(
    both: Compared, rules: Rules, *, versions: tuple[int, int], learnt_until: dt.datetime | None, since: dt.datetime
) -> Contest:
    """Compare what both answered.

    Args:
        both: The answers, in the order of time.
        rules: What better means.
        versions: Of the champion and the challenger.
        learnt_until: The end of what the challenger learnt from.
        since: From when on both have seen nothing.
    """
    champion, challenger = versions
    metric, rows = rules.metric, len(both.y)
    measure, ones = METRICS[rules.problem][metric], np.ones(rows)
    values, over = (float("nan"), float("nan")), NOTHING
    if rows > 1:
        values = (measure(both.y, both.champion, ones), measure(both.y, both.challenger, ones))
        least = math.ceil(2 * BEYOND_END / (1 - rules.confidence))
        times = min(max(rules.times, least), MOST_TIMES)
        over = paired(
            rules.problem,
            metric,
            at=both.at,
            y=both.y,
            mine=both.challenger,
            other=both.champion,
            times=times,
            seed=rules.seed,
            level=rules.confidence,
        )
    days = both.at.dt.floor("D").nunique()
    known = rows >= rules.enough and days >= FEWEST_DAYS and not math.isnan(over.low)
    better = over.low > rules.margin if known else None
    if rows < 2:
        says = (
            f"version {challenger} has {'one labelled answer' if rows else 'no labelled answer yet'} to be compared with version "
            f"{champion} on: what counts are rows from {since:%Y-%m-%d} on, since both have learnt from those before"
        )
    elif math.isnan(over.value):
        says = f"the labels of {rows:,} answers are all the same, so {metric} of version {challenger} is not defined"
    else:
        says = (
            f"on the same {rows:,} labelled answers {metric} of version {challenger} is {values[1]:.4g}, that of version {champion} "
            f"{values[0]:.4g}{_verdict(over, better, rows, days, rules)}"
        )
    if both.shadowed:
        says += f"; {both.shadowed:,} of them it had answered in the shadow"
    return Contest(
        version=challenger,
        learnt_until=learnt_until,
        metric=metric,
        margin=rules.margin,
        says=says,
        rows=rows,
        shadowed=both.shadowed,
        champion=values[0],
        challenger=values[1],
        gain=over,
        better=better,
    )


def _verdict(over: Interval, better: bool | None, rows: int, days: int, rules: Rules) -> str:
    sure = f"({100 * rules.confidence:.4g} % interval)"
    if rows < rules.enough:
        return f", too few for a verdict: that takes {rules.enough:,} (monitoring.min_labelled)"
    if days < FEWEST_DAYS:
        return f", of {days} day{'s' * (days > 1)}, too few for a verdict: that takes {FEWEST_DAYS}, since rows of a day are alike"
    if better is None:
        return ", and nobody knows how certain that is"
    if better:
        return f": better by {over.low:.4g} to {over.high:.4g} {sure}"
    if over.low > 0:
        return f": better by {over.low:.4g} to {over.high:.4g} {sure}, which is not above {rules.margin:.4g} (monitoring.promote_margin)"
    if over.high < 0:
        return f": worse by {-over.high:.4g} to {-over.low:.4g} {sure}"
    return ": the difference may be chance"


# ------------------------------------------------------------------------------------------------- Which answers


def with_inputs(lines: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Predictions with what was asked beside them.

    Args:
        lines: A line for each prediction.
        rows: The rows that keep the contract, by the index of `lines`.
    """
    whole = pd.Series(lines.index.isin(rows.index), lines.index, name=WHOLE)
    return pd.concat([lines, rows.reindex(lines.index).add_prefix(INPUT), whole], axis=1)


def unseen(joined: pd.DataFrame, contract: Contract, since: dt.datetime) -> pd.DataFrame:
    """The answers that neither model can have learnt from, at most MOST_ROWS, spread over time.

    Args:
        joined: Answers with their truth and, where there are any, what was asked, as `with_inputs` puts it there.
        contract: Names the columns.
        since: From when on neither has seen anything. Where rows have a time of their own it counts as well as that of the answer: an
            old row that is asked today is one that a model may have learnt from.
    """
    if WHOLE not in joined:
        return joined.iloc[:0]
    wanted = joined[WHOLE].to_numpy(dtype=bool) & (joined["at"] >= since).to_numpy(dtype=bool)
    if contract.time is not None:
        wanted &= (joined[INPUT + contract.time] >= since).to_numpy(dtype=bool)
    places = np.flatnonzero(wanted)
    if len(places) > MOST_ROWS:
        places = places[np.unique(np.linspace(0, len(places) - 1, MOST_ROWS).astype(int))]
    return joined.iloc[places].reset_index(drop=True)


def answer(
    rows: pd.DataFrame, shadows: pd.DataFrame, contract: Contract, champion: Score, challenger: Score
) -> Compared:
    """Have both answer what was asked.

    Args:
        rows: As `unseen` gives them.
        shadows: What the challenger answered in the shadow: `prediction`, and the contract's answers. It is not asked these again.
        contract: Of both.
        champion, challenger: Answer typed rows.
    """
    names = contract.answers
    known = shadows.drop_duplicates("prediction").set_index("prediction") if len(shadows) else None
    found = np.full((len(rows), len(names)), np.nan)
    if known is not None:
        found = known.reindex(rows["prediction"])[names].to_numpy("float64", copy=True)
    shadowed = ~np.isnan(found).any(axis=1)
    theirs = _answered(rows, contract, champion)
    found[~shadowed] = _answered(rows[~shadowed], contract, challenger)
    if len(names) == 1:
        theirs, found = theirs[:, 0], found[:, 0]
    at = rows["at"]
    if contract.time is not None and 0 < at.dt.floor("D").nunique() < FEWEST_DAYS:  # what is scored once a month
        at = rows[INPUT + contract.time].rename("at")
    return Compared(at, rows["label"].to_numpy("float64"), theirs, found, int(shadowed.sum()))


def _answered(rows: pd.DataFrame, contract: Contract, score: Score) -> np.ndarray:
    """Answers of shape (rows, answers), a lot at a time: features may be many more than columns."""
    columns = [column.name for column in contract.without_target()]
    found = np.empty((len(rows), len(contract.answers)))
    for begin in range(0, len(rows), LOT):
        part = rows.iloc[begin : begin + LOT][[INPUT + name for name in columns]]
        asked = part.set_axis(columns, axis=1).reset_index(drop=True)
        found[begin : begin + LOT] = score(asked).reshape(len(asked), -1)
    return found
