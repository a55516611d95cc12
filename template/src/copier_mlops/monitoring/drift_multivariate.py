"""Columns together: whether a classifier can tell the rows of now from those of then, and which two go together otherwise."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.bundle.reference import LEVELS, MISSING, levels
from copier_mlops.evaluation.metrics import auc
from copier_mlops.monitoring.drift_histograms import Window
from copier_mlops.monitoring.drift_statistics import NORMAL, Apart, inflation, upper

PAIRED = 200  # rows, below which a classifier learns nothing
BEARING = 50  # rows that a mean rests on, or it is not nearly normal
INTERACTIONS = 40  # products of two columns that the classifier is given

SCORES = np.array([NORMAL.inv_cdf((level + 0.5) / LEVELS) for level in range(LEVELS)])


@dataclass(frozen=True)
class Together:
    """Whether a classifier can tell the rows of now from those of then.

    Attributes:
        auc: How well, on rows that it was not fitted on; 0.5 is not at all, NaN if it was not tried.
        limit: What chance comes to.
        p: The probability of so much by chance, of the classifier or of the pair of columns that changed most.
        drifted: Whether it is more than chance; a pair may be while the classifier has not found it.
        columns: What it was given.
        why: The sentence for people.
    """

    auc: float
    limit: float
    p: float
    drifted: bool
    columns: tuple[str, ...]
    why: str


def rows_together(
    profile: Mapping[str, Any], window: Window, apart: Apart | None, left: Collection[str], level: float
) -> Together:
    """Fit a classifier on half of the rows that are kept of then and now, and judge it by the other half.

    A column whose days differ among themselves tells any day from any other, so it is left out where the days are others.
    """
    kept, columns = profile["sample"], profile["columns"]
    sides = kept["rows"], len(next(iter(window.kept.values()), ()))
    if min(sides) < PAIRED:
        side = "the reference keeps" if sides[0] < PAIRED <= sides[1] else "there are"
        return Together(np.nan, np.nan, np.nan, False, (), f"{side} only {min(sides)} rows: nothing can be told")
    noise = 1 / sides[0] + 1 / sides[1]
    table = np.frombuffer(base64.b64decode(kept["levels"]), dtype="uint8").reshape(len(kept["columns"]), -1)
    names, both = [], []
    for name, then in zip(kept["columns"], table, strict=True):
        alike = columns[name]["alike"]["cuts" if "edges" in columns[name] else "cells"]
        if name in left or inflation(alike, noise, apart) > 1.5:
            continue
        now = window.kept[name]
        names.append(name)
        both.append(np.concatenate([then, now if now.dtype == "uint8" else levels(pd.Series(now), columns[name])]))
    if len(names) < 2:
        return Together(np.nan, np.nan, np.nan, False, tuple(names), "fewer than two columns can be looked at together")
    y = np.repeat([False, True], sides)
    inputs, owners = _inputs(both, ["edges" in columns[name] for name in names], y)
    if len(set(owners)) < 2:
        return Together(np.nan, np.nan, np.nan, False, tuple(names), "fewer than two columns have different values")
    found, spread = _told_apart(inputs, owners, y)
    limit = 0.5 + NORMAL.inv_cdf(1 - level / 2) * spread
    z, pairs = _changed(inputs, owners, y)
    p_pair = min(1.0, 2 * len(z) * upper(float(np.abs(z).max(initial=0))))
    p = min(1.0, 2 * min(upper((found - 0.5) / spread), p_pair))
    why = "columns go together as before, as far as the rows tell"
    if p <= level:
        why = f"rows can be told from those of the reference (AUC {found:.2f}, by chance up to {limit:.2f})"
    if p <= level and 2 * p_pair <= level:
        first, second = pairs[int(np.abs(z).argmax())]
        one, other = (names[owners[at]] for at in (first, second))
        why = f"{one} and {other} go together otherwise than before"
        if all("edges" in columns[name] for name in (one, other)):
            old, new = (_correlation(both[owners[first]][side], both[owners[second]][side]) for side in (~y, y))
            why += f" (correlation {old:.2f}, now {new:.2f})" if abs(new - old) >= 0.05 else ""
    return Together(found, limit, p, p <= level, tuple(names), why)


def _inputs(both: Sequence[np.ndarray], number: Sequence[bool], y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the classifier is given: of a number its normal score and the square of that, of a name whether it is there, and whether
    a value is missing; each with mean 0 and variance 1, 0 where it is missing. What hangs on fewer than BEARING rows is left out.

    Returns:
        float32 of shape (rows, inputs), and the column that each comes from.
    """
    made, owners, few = [], [], min(y.sum(), (~y).sum())
    for place, (column, is_number) in enumerate(zip(both, number, strict=True)):
        known, everywhere = column != MISSING, np.ones(len(column), bool)
        score = SCORES[np.minimum(column, LEVELS - 1)]
        raw = [(score, known), (score**2, known)] if is_number else [(column == one, known) for one in range(LEVELS)]
        for values, there in ((known, everywhere), *raw):
            spread = values[there].std() if there.any() else 0.0
            if spread > 1e-6:
                scaled = np.where(there, (values - values[there].mean()) / spread, 0).astype("float32")
                if few >= BEARING * np.square(np.square(scaled)).mean():
                    made.append(scaled)
                    owners.append(place)
    return np.column_stack(made) if made else np.empty((len(y), 0), "float32"), np.array(owners, dtype=int)


def _changed(inputs: np.ndarray, owners: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much the mean product of two inputs changed, which for numbers is about their correlation.

    Returns:
        For each pair of inputs from different columns the z of the change, of shape (pairs,), and the pair, of shape (pairs, 2).
        A product that hangs on fewer than BEARING rows is left out: its mean is not normal.
    """
    pairs = np.column_stack(np.triu_indices(inputs.shape[1], 1))
    pairs = pairs[owners[pairs[:, 0]] != owners[pairs[:, 1]]]
    one, other = pairs.T
    means = [(inputs[side].T @ inputs[side] / side.sum())[one, other] for side in (~y, y)]
    squares = np.square(inputs)
    second = np.maximum((squares.T @ squares / len(y))[one, other], 1e-6)
    squares = np.square(squares)
    fourth = (squares.T @ squares / len(y))[one, other]
    sides = y.sum(), (~y).sum()
    bears = min(sides) * second**2 >= BEARING * fourth
    variance = np.maximum(second - (means[0] * sides[1] + means[1] * sides[0]) ** 2 / len(y) ** 2, 1e-6)
    z = (means[1] - means[0]) / np.sqrt(variance * (1 / sides[0] + 1 / sides[1]))
    return z[bears], pairs[bears]


def _told_apart(inputs: np.ndarray, owners: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """A linear discriminant (Fisher 1936) of the inputs and of the products that changed most, fitted on half of the rows.

    Only the other half judges it: then the spread of its AUC by chance is known (Mann and Whitney 1947), where folds that share
    their rows have none that can be (Bengio and Grandvalet 2004). A classifier as a test: Lopez-Paz and Oquab 2017.

    Returns:
        The AUC, and its standard deviation where there is nothing to tell.
    """
    random, fitted = np.random.default_rng(0), np.zeros(len(y), bool)
    for side in (False, True):
        places = np.flatnonzero(y == side)
        fitted[random.permutation(places)[: len(places) // 2]] = True
    z, pairs = _changed(inputs[fitted], owners, y[fitted])
    chosen = pairs[np.argsort(-np.abs(z), kind="stable")[:INTERACTIONS]]
    whole = np.hstack([inputs, inputs[:, chosen[:, 0]] * inputs[:, chosen[:, 1]]])
    learnt, truth = whole[fitted], y[fitted]
    spread = np.maximum(learnt.std(axis=0), 1e-6)
    learnt = (learnt - learnt.mean(axis=0)) / spread
    covariance = learnt.T @ learnt / len(learnt) + 0.1 * np.eye(learnt.shape[1])
    weights = np.linalg.solve(covariance, learnt[truth].mean(axis=0) - learnt[~truth].mean(axis=0)) / spread
    judged = y[~fitted]
    found = auc(judged.astype("float64"), whole[~fitted] @ weights, np.ones(len(judged)))
    positive, negative = int(judged.sum()), int((~judged).sum())
    return found, math.sqrt((positive + negative + 1) / (12 * positive * negative))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = (a != MISSING) & (b != MISSING)
    one, other = SCORES[np.minimum(a[known], LEVELS - 1)], SCORES[np.minimum(b[known], LEVELS - 1)]
    if not len(one) or one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
