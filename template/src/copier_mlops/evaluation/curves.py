"""What a report draws of predictions: calibration, ROC, precision and recall, the confusion matrix, mean errors by group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from copier_mlops.evaluation.metrics import calibration, flat

if TYPE_CHECKING:
    from copier_mlops.evaluation.metrics import Array

Points = list[dict[str, float]]
CURVE_POINTS = 200  # more are not visible in a plot


def curves(problem: str, y: Array, score: Array, points: int = CURVE_POINTS) -> dict[str, Points]:
    """Return the points of the usual plots as plain data, the same for every report.

    Args:
        problem: `classification` or `regression`.
        y, score: truth and predictions, shapes (n,) and (n,) or, of more than two classes, (n, classes); n >= 1.
        points: largest number of points of a curve. A longer curve is thinned evenly, and keeps its ends.

    Returns:
        For classification `roc` (threshold, fpr, tpr), `precision_recall` (threshold, recall, precision) and `calibration`
        (predicted, observed, rows). The rates count rows with a score of the threshold or more. Of more than two classes each is
        compared with all others, and the comparisons are pooled (micro-average). A curve that is not defined is empty: ROC needs
        positives and negatives, precision and recall need positives. For regression `predicted_actual` (predicted, actual).
    """
    if problem == "regression":
        at = _spread(len(y), points)
        return {"predicted_actual": _points(predicted=score[at], actual=y[at])}
    table = calibration(*flat(y, score))
    found = {"roc": [], "precision_recall": [], "calibration": _points(**{str(name): table[name] for name in table})}
    if score.ndim == 2:
        y, score = np.eye(score.shape[1])[y.astype(int)].ravel(), score.ravel()
    threshold, rank = np.unique(-score, return_inverse=True)  # the highest score first
    threshold, true = -threshold, np.cumsum(np.bincount(rank, y))
    false = np.cumsum(np.bincount(rank, 1 - y))
    at = _spread(len(threshold), points)
    if true[-1] > 0:
        precision = true / (true + false)
        found["precision_recall"] = _points(
            threshold=threshold[at], recall=true[at] / true[-1], precision=precision[at]
        )
    if true[-1] > 0 and false[-1] > 0:
        roc = _points(threshold=threshold[at], fpr=false[at] / false[-1], tpr=true[at] / true[-1])
        found["roc"] = [{"threshold": 1.0, "fpr": 0.0, "tpr": 0.0}, *roc]
    return found


def _spread(rows: int, points: int) -> Array:
    """Return at most so many row numbers, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, rows - 1, min(rows, points)).round().astype(int))


def _points(**columns: Array | pd.Series) -> Points:
    return [
        {name: float(value) for name, value in zip(columns, line, strict=True)}
        for line in zip(*columns.values(), strict=True)
    ]


def confusion(y: Array, score: Array, threshold: float) -> dict[str, int]:
    """Return how many rows are predicted positive and negative by a threshold, by truth.

    Args:
        y, score: truth (0 or 1) and predicted probability of the positive class, shape (n,).
        threshold: lowest probability that is predicted positive.
    """
    true, chosen = y == 1, score >= threshold
    return {
        "true_positive": int((true & chosen).sum()),
        "false_positive": int((~true & chosen).sum()),
        "false_negative": int((true & ~chosen).sum()),
        "true_negative": int((~true & ~chosen).sum()),
    }


def mean_errors(y: Array, score: Array, groups: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return the mean prediction minus the mean outcome, of all rows and of each group.

    Of more than two classes the mean confidence is compared with the share of correct predictions.

    Args:
        y, score: truth and predictions, as for `with_intervals`.
        groups: the group of each row by the name of the slice, length n.

    Returns:
        Columns slice, group, rows, observed, predicted, difference, low, high; the first line is of all rows. Its interval is one of
        95 %; those of the groups hold together with 95 % (Bonferroni), and are not defined for a single row.
    """
    true, predicted = flat(y, score)
    parts = [("all", "all", np.arange(len(y)))]
    for name, group in groups.items():
        by = pd.Series(np.arange(len(y))).groupby(group.astype("str").to_numpy(), sort=True)
        parts += [(name, str(label), rows.to_numpy()) for label, rows in by]
    lines = []
    for place, (name, label, at) in enumerate(parts):
        error = predicted[at] - true[at]
        width = np.nan
        if len(at) > 1:
            tail = 0.025 / (max(1, len(parts) - 1) if place else 1)
            width = NormalDist().inv_cdf(1 - tail) * float(error.std(ddof=1)) / math.sqrt(len(at))
        mean = float(error.mean())
        observed, answered = float(true[at].mean()), float(predicted[at].mean())
        lines.append((name, label, len(at), observed, answered, mean, mean - width, mean + width))
    columns = ["slice", "group", "rows", "observed", "predicted", "difference", "low", "high"]
    return pd.DataFrame(lines, columns=columns)
