"""How good the answers are while no label is there, as far as the scores alone tell."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from copier_mlops.monitoring.drift_histograms import ENOUGH, Counts, Window

DRAWS = 200  # of a histogram, for the margin of what is estimated from it


def estimated(window: Window) -> tuple[pd.DataFrame | None, str]:
    """What a classifier's metrics come to if a score still means what it meant: the confidence-based performance estimation of
    NannyML (Bialek et al. 2024, "Estimating Model Performance Under Covariate Shift Without Labels"), on histograms.

    A bin's rows are positive as often as they were among the rows that the profile was made of. Brier score and AUC are summed and
    averaged over classes as in evaluation.metrics; accuracy is that of the likeliest class.

    Returns:
        Columns metric, then, now, margin; and the condition. None, and why, where there is nothing to estimate.
    """
    scores = list(window.answers.values())
    if not all("observed" in counts.column for counts in scores):
        return None, "only a probability says how often it is wrong: the error of a number is known when its label is"
    answered = min(counts.known for counts in scores)
    if min(answered, window.profile["answered"]) < ENOUGH:
        side = "there are" if answered < ENOUGH else "the reference has"
        return None, f"{side} only {min(answered, window.profile['answered'])} answers: nothing can be told"
    random, sides = np.random.default_rng(0), []
    for now in (False, True):
        values = [_metric(counts, now, random) for counts in scores]
        sides.append(
            (
                np.sum([brier for brier, _ in values], axis=0),
                np.nanmean([area for _, area in values], axis=0),
                _right(window.confidence or scores[0], window.confidence is not None, now, random),
            )
        )
    lines = []
    for name, then, later in zip(("brier", "auc", "accuracy"), *sides, strict=True):
        margin = 2.58 * math.sqrt(float(np.var(then[1:]) + np.var(later[1:])))
        lines.append((name, float(then[0]), float(later[0]), margin))
    return (
        pd.DataFrame(lines, columns=["metric", "then", "now", "margin"]),
        "estimated from the scores alone: it holds as long as a score means what it meant, and says nothing about new relations",
    )


def _histogram(
    counts: Counts, now: bool, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by bin, as they are and in DRAWS resamples, of shape (1 + DRAWS, bins); by bin the mean score, the mean square and the
    probability that it comes true."""
    column = counts.column
    past_mean, past_square, observed = (
        np.array([np.nan if value is None else value for value in column[key]])
        for key in ("mean", "square", "observed")
    )
    rows = counts.counts if now else np.where(np.isnan(observed), 0, column["counts"])
    drawn = random.multinomial(int(rows.sum()), rows / max(rows.sum(), 1), DRAWS)
    if now:
        at_least_one = np.maximum(rows, 1)
        mean, square = counts.sums / at_least_one, counts.squares / at_least_one
    else:
        mean, square = np.nan_to_num(past_mean), np.nan_to_num(past_square)
    return np.vstack([rows, drawn]), mean, square, np.where(np.isnan(observed), mean, observed)


def _metric(counts: Counts, now: bool, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, mean, square, rate = _histogram(counts, now, random)
    brier = rows @ (square - 2 * rate * mean + rate) / rows.sum(axis=1)
    positive, negative = rows * rate, rows * (1 - rate)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return brier, np.where(pairs > 0, (positive * below).sum(axis=1) / np.maximum(pairs, 1e-300), np.nan)


def _right(counts: Counts, sure: bool, now: bool, random: np.random.Generator) -> np.ndarray:
    """The share of right answers; `sure` if the histogram is that of the likeliest class, else that of the second of two."""
    rows, mean, _, rate = _histogram(counts, now, random)
    return np.asarray(rows @ (rate if sure else np.where(mean >= 0.5, rate, 1 - rate)) / rows.sum(axis=1))
