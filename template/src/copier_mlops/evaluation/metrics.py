"""How good answers are: metrics with weights, and intervals by resampling rows.

Every metric is a function of (y, score, weight), arrays of shape (n,): the truth, the answer, and how often the row
counts. Resampling rows with replacement is then a matter of weights, and comparing two models on the same resample too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

Array = np.ndarray
Metric = Callable[[Array, Array, Array], float]
BINS = 10  # of predicted probability, for calibration
CELLS_AT_ONCE = 1_000_000  # of shuffled inputs: a call of a model costs more than its answers to a few rows


def auc(y: Array, score: Array, weight: Array) -> float:
    """Area under the ROC curve, ties counted half: the probability that a random positive ranks above a random negative
    (Hanley and McNeil 1982); of more than two classes the mean of each against all others. NaN where only one class is
    there."""
    return _over_classes(_auc_of_ranks, y, _ranks(score), weight)


def average_precision(y: Array, score: Array, weight: Array) -> float:
    """Precision averaged over recall, sum of (R_n - R_n-1) P_n over the thresholds; of more than two classes the mean of
    each against all others. NaN without a positive."""
    return _over_classes(_precision_of_ranks, y, _ranks(score), weight)


def _ranks(score: Array) -> list[Array]:
    """The place of each score among the different ones, for each class that has scores of its own."""
    columns = [score] if score.ndim == 1 else list(score.T)
    return [np.unique(column, return_inverse=True)[1] for column in columns]


def _over_classes(of_ranks: Metric, y: Array, ranks: Sequence[Array], weight: Array) -> float:
    if len(ranks) == 1:
        return of_ranks(y, ranks[0], weight)
    values = np.array([of_ranks((y == k).astype("float64"), rank, weight) for k, rank in enumerate(ranks)])
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")


def _auc_of_ranks(y: Array, rank: Array, weight: Array) -> float:
    positive = np.bincount(rank, weight * y)
    negative = np.bincount(rank, weight * (1 - y))
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return float("nan")
    return float(np.dot(positive, np.cumsum(negative) - negative / 2) / pairs)


def _precision_of_ranks(y: Array, rank: Array, weight: Array) -> float:
    positive = np.bincount(rank, weight * y)[::-1]  # the highest score first
    found, shown = np.cumsum(positive), np.cumsum(np.bincount(rank, weight)[::-1])
    if found[-1] == 0:
        return float("nan")
    return float(np.dot(positive, found / np.maximum(shown, 1e-300)) / found[-1])


def brier(y: Array, score: Array, weight: Array) -> float:
    """Mean squared difference of probability and outcome; summed over the classes where there are more than two
    (Brier 1950)."""
    if score.ndim == 2:
        return float(np.average(((score - np.eye(score.shape[1])[y.astype(int)]) ** 2).sum(axis=1), weights=weight))
    return float(np.average((score - y) ** 2, weights=weight))


def log_loss(y: Array, score: Array, weight: Array) -> float:
    """Mean negative log-likelihood, probabilities clipped at 1e-15."""
    p = np.clip(score, 1e-15, 1 - 1e-15)
    if score.ndim == 2:
        return float(np.average(-np.log(p[np.arange(len(y)), y.astype(int)]), weights=weight))
    return float(np.average(-(y * np.log(p) + (1 - y) * np.log1p(-p)), weights=weight))


def calibration(y: Array, score: Array, weight: Array | None = None) -> pd.DataFrame:
    """Observed share by predicted probability: columns predicted, observed, rows; a line per bin that has rows."""
    weight = np.ones(len(y)) if weight is None else weight
    place = np.clip((score * BINS).astype(int), 0, BINS - 1)
    rows = np.bincount(place, weight, minlength=BINS)
    with np.errstate(invalid="ignore", divide="ignore"):
        table = pd.DataFrame(
            {
                "predicted": np.bincount(place, weight * score, minlength=BINS) / rows,
                "observed": np.bincount(place, weight * y, minlength=BINS) / rows,
                "rows": rows,
            }
        )
    return table[rows > 0].reset_index(drop=True)


def calibration_error(y: Array, score: Array, weight: Array) -> float:
    """Expected calibration error: mean gap of predicted and observed share over 10 equal-width bins, weighted by rows
    (Naeini et al. 2015); of the answer's own confidence where there are more than two classes (Guo et al. 2017)."""
    table = calibration(*flat(y, score), weight)
    share = table["rows"] / table["rows"].sum()
    return float((share * (table["predicted"] - table["observed"]).abs()).sum())


def flat(y: Array, score: Array) -> tuple[Array, Array]:
    """One number for each row: whether the likeliest of many classes was right, and how likely it was said to be."""
    if score.ndim == 1:
        return y, score
    return (score.argmax(axis=1) == y).astype("float64"), score.max(axis=1)


def baseline(y: Array, classes: int) -> float | list[float]:
    """What is answered without looking at a row: the mean, or the share of each of more than two classes."""
    if classes <= 2:
        return float(y.mean())
    return list(np.bincount(y.astype(int), minlength=classes) / len(y))


def mae(y: Array, score: Array, weight: Array) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.average(np.abs(score - y), weights=weight))


def rmse(y: Array, score: Array, weight: Array) -> float:
    """Root of the mean squared error, in the target's unit."""
    return float(np.sqrt(np.average((score - y) ** 2, weights=weight)))


def r2(y: Array, score: Array, weight: Array) -> float:
    """Share of the variance that is explained; NaN where the truth does not vary."""
    spread = np.average((y - np.average(y, weights=weight)) ** 2, weights=weight)
    return float(1 - np.average((score - y) ** 2, weights=weight) / spread) if spread > 0 else float("nan")


def bias(y: Array, score: Array, weight: Array) -> float:
    """Mean of answer minus truth, in the target's unit."""
    return float(np.average(score - y, weights=weight))


METRICS: Mapping[str, Mapping[str, Metric]] = {
    "classification": {
        "auc": auc,
        "average_precision": average_precision,
        "brier": brier,
        "log_loss": log_loss,
        "calibration_error": calibration_error,
    },
    "regression": {"mae": mae, "rmse": rmse, "r2": r2, "bias": bias},
}
PROPER: Mapping[str, str] = {"classification": "brier", "regression": "mae"}
"""What compares answers whole: probabilities that fit as well as their order, which is all that the area under a curve sees."""
LARGER_IS_BETTER = frozenset({"auc", "average_precision", "r2"})


def gain(metric: str, candidate: float, other: float) -> float:
    """By how much the candidate is better than the other, whichever way the metric runs."""
    return candidate - other if metric in LARGER_IS_BETTER else other - candidate


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        return {key: None if np.isnan(number) else number for key, number in vars(self).items()}


def value_of(interval: Mapping[str, float | None]) -> float:
    """The value of an interval as JSON has it; NaN for null."""
    return float("nan") if (value := interval["value"]) is None else value


def resamples(rows: int, times: int, seed: int, units: Array | None = None) -> Iterator[Array]:
    """How often each row counts in each bootstrap resample (Efron 1979), one resample at a time.

    Args:
        rows: Number of rows.
        times: Number of resamples.
        seed: Seed of the resampling.
        units: Array of shape (rows,), equal for rows that are drawn together (Field and Welsh 2007); None draws each for itself.

    Yields:
        `times` float64 arrays of shape (rows,). Each sums to `rows`, or to about that where units differ in size.
    """
    random = np.random.default_rng(seed)
    of = None if units is None else np.unique(units, return_inverse=True)[1]
    drawn = rows if of is None else int(of.max(initial=-1)) + 1
    for _ in range(times):
        counts = np.bincount(random.integers(0, drawn, drawn), minlength=drawn).astype("float64")
        yield counts if of is None else counts[of]


def with_intervals(
    problem: str,
    y: Array,
    score: Array,
    *,
    times: int,
    seed: int,
    names: Sequence[str] | None = None,
    units: Array | None = None,
) -> dict[str, Interval]:
    """Each metric of the problem with a percentile bootstrap interval.

    Args:
        problem: `classification` or `regression`.
        y, score: Truth and answers, shape (n,), n >= 1.
        times: Resamples.
        seed: Makes them repeatable.
        names: Some of the metrics; default all.
        units: As for `resamples`.
    """
    chosen = METRICS[problem] if names is None else {name: METRICS[problem][name] for name in names}
    weighted = {name: under_weights(metric, y, score) for name, metric in chosen.items()}
    values: dict[str, list[float]] = {name: [] for name in chosen}
    for counts in resamples(len(y), times, seed, units):
        for name, measure in weighted.items():
            values[name].append(measure(counts))
    everyone = np.ones(len(y))
    return {name: _interval(measure(everyone), values[name]) for name, measure in weighted.items()}


def under_weights(metric: Metric, y: Array, score: Array) -> Callable[[Array], float]:
    """A metric of the same answers under many weights: they are ranked once, not once a resample."""
    ranked: dict[Metric, Metric] = {auc: _auc_of_ranks, average_precision: _precision_of_ranks}
    if metric not in ranked:
        return lambda weight: metric(y, score, weight)
    ranks = _ranks(score)
    return lambda weight: _over_classes(ranked[metric], y, ranks, weight)


def paired_gain(
    problem: str,
    metric: str,
    *,
    y: Array,
    candidate: Array,
    other: Array,
    times: int,
    seed: int,
    units: Array | None = None,
) -> Interval:
    """By how much the candidate is better than the other on the same rows, positive is better (paired bootstrap)."""
    ours, theirs = (under_weights(METRICS[problem][metric], y, score) for score in (candidate, other))
    values = [gain(metric, ours(counts), theirs(counts)) for counts in resamples(len(y), times, seed, units)]
    everyone = np.ones(len(y))
    return _interval(gain(metric, ours(everyone), theirs(everyone)), values)


MEASURED = 0.95  # of the resamples, or there is no interval: without a row of each class a metric has no value


def _interval(value: float, resampled: list[float]) -> Interval:
    kept = np.array(resampled)[~np.isnan(resampled)]
    if len(kept) < MEASURED * len(resampled) or len(kept) == 0 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(kept, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def slices(
    problem: str,
    y: Array,
    score: Array,
    *,
    groups: Mapping[str, pd.Series],
    metric: str,
    times: int,
    seed: int,
    units: Array | None = None,
) -> pd.DataFrame:
    """The deciding metric in each group of rows.

    Args:
        problem, y, score, times, seed, units: As for `with_intervals`.
        groups: For each name of a slice the group of each row, length n.
        metric: Which metric.

    Returns:
        Columns slice, group, rows, observed, predicted (means; of many classes the share of right answers and the mean
        confidence), value, low, high; ordered by slice and group.
    """
    lines = []
    for name, group in groups.items():
        for label, rows in pd.Series(np.arange(len(y))).groupby(group.astype("str").to_numpy(), sort=True):
            at = rows.to_numpy()
            drawn = None if units is None else units[at]
            found = with_intervals(problem, y[at], score[at], times=times, seed=seed, names=[metric], units=drawn)[
                metric
            ]
            true, answered = flat(y[at], score[at])
            lines.append((name, label, len(at), true.mean(), answered.mean(), found.value, found.low, found.high))
    return pd.DataFrame(lines, columns=["slice", "group", "rows", "observed", "predicted", "value", "low", "high"])


def effects(answer: Callable[[pd.DataFrame], Array], rows: pd.DataFrame, declared: Mapping[str, str]) -> pd.DataFrame:
    """What becomes of the mean answer when one column goes from low to high in every row and all others stay: the two ends
    of its partial dependence (Friedman 2001).

    Args:
        answer: Gives one score for each row, shape (n,).
        rows: Rows of the contract, before their features.
        declared: By column what it should do: `raises` or `lowers`.

    Returns:
        Columns input, declared, low, high (the 1st and the 99th percentile; no and yes of a boolean), change (of the mean
        answer; NaN where the rows hold too few values to tell).
    """
    lines = []
    for name, direction in declared.items():
        known = rows[name].dropna()
        yes_or_no = pd.api.types.is_bool_dtype(known.dtype)
        ends = [False, True] if yes_or_no else list(known.quantile([0.01, 0.99], interpolation="nearest"))
        means = [np.nan, np.nan]
        if len(known) and ends[0] != ends[1]:
            moved = [pd.Series(end, index=rows.index, dtype=rows[name].dtype) for end in ends]
            means = [float(np.mean(answer(rows.assign(**{name: column})))) for column in moved]
        low, high = (np.nan, np.nan) if not len(known) else map(float, ends)
        lines.append((name, direction, low, high, means[1] - means[0]))
    return pd.DataFrame(lines, columns=["input", "declared", "low", "high", "change"])


def importance(
    metric: str, problem: str, *, predict: Callable[[pd.DataFrame], Array], features: pd.DataFrame, y: Array, seed: int
) -> pd.DataFrame:
    """Permutation importance (Breiman 2001): what the metric loses when one input is shuffled, mean of three shuffles, or
    of one where inputs are more than a hundred.

    Returns:
        Columns input, loss (positive: the input matters), spread (standard deviation); the most important first.
    """
    random = np.random.default_rng(seed)
    measure, ones = METRICS[problem][metric], np.ones(len(y))
    whole = measure(y, predict(features), ones)
    losses: dict[str, list[float]] = {name: [] for name in map(str, features)}
    todo = [name for name in losses for _ in range(3 if len(losses) <= 100 else 1)]
    together = max(1, CELLS_AT_ONCE // features.size)
    for begin in range(0, len(todo), together):
        names = todo[begin : begin + together]
        places = {name: np.tile(np.arange(len(y)), len(names)) for name in names}
        blocks = [slice(at * len(y), (at + 1) * len(y)) for at in range(len(names))]
        for name, block in zip(names, blocks, strict=True):
            places[name][block] = random.permutation(len(y))
        repeated = features.iloc[np.tile(np.arange(len(y)), len(names))].reset_index(drop=True)
        answers = predict(repeated.assign(**{name: features[name].array.take(at) for name, at in places.items()}))
        for name, block in zip(names, blocks, strict=True):
            losses[name].append(gain(metric, whole, measure(y, answers[block], ones)))
    lines = [(name, float(np.mean(lost)), float(np.std(lost))) for name, lost in losses.items()]
    table = pd.DataFrame(lines, columns=["input", "loss", "spread"])
    return table.sort_values("loss", ascending=False, kind="stable").reset_index(drop=True)
