"""How large a difference between then and now is, and how unlikely by chance: of shares, of where numbers lie, of all bins.

Rows of one day resemble each other, and so the rows of a window on other days tell less than their number says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from copier_mlops.bundle.reference import SELDOM

NORMAL = NormalDist()


@dataclass(frozen=True)
class Apart:
    """How far the rows of a window are from the reference in time: the sum over days, and over weeks, of the squared difference of
    their shares of all rows. Of two samples of the same days it is what chance makes of it, of other days far more."""

    days: float
    weeks: float

    @classmethod
    def of(cls, then: Mapping[str, Any] | None, now: Mapping[int, int]) -> Apart | None:
        """None where one of them has no time."""
        if then is None or not now:
            return None
        shares: dict[int, float] = {}
        total = sum(then["counts"])
        for day, count in enumerate(then["counts"], then["first"]):
            shares[day] = -count / total
        total = sum(now.values())
        for day, count in now.items():
            shares[day] = shares.get(day, 0.0) + count / total
        weeks: dict[int, float] = {}
        for day, share in shares.items():
            weeks[day // 7] = weeks.get(day // 7, 0.0) + share
        return cls(sum(share**2 for share in shares.values()), sum(share**2 for share in weeks.values()))


def inflation(alike: Sequence[float], noise: float, apart: Apart | None) -> float:
    """How many times the variance of a difference is that of independent rows (the design effect of Kish 1965), where a share has
    a component that is common to a day and one that is common to a week.

    Args:
        alike: The intraclass correlation of days and of weeks; nothing where there is no time.
        noise: 1 / rows then + 1 / rows now.
        apart: In time.
    """
    if apart is None or not alike:
        return 1.0
    day, week = alike
    return max(1.0, ((1 - day) * noise + day * apart.days + week * apart.weeks) / noise)


@dataclass(frozen=True)
class Asked:
    """Questions of one kind about a column, e.g. whether the share of each bin is the same; arrays of shape (questions,).

    Attributes:
        kind: `missing`, `cell` (a bin or a name), `cut` (what lies below an edge), `middle` or `all`.
        place: Which bin or edge.
        effect: How large the difference is.
        z: How unlikely, as a normal number.
        far: From a z to the effect that chance exceeds as seldom.
    """

    kind: str
    place: np.ndarray
    effect: np.ndarray
    z: np.ndarray
    far: Callable[[float], float]


def shares(
    kind: str,
    *,
    then: np.ndarray,
    of_then: int,
    now: np.ndarray,
    of_now: int,
    alike: Sequence[float],
    apart: Apart | None,
) -> Asked:
    """Whether shares are equal: the effect is Cohen's h (Cohen 1988), the difference of their arcsines, whose spread by chance is the
    same for rare and frequent ones; the test is that of the likelihood ratio with a correction for continuity.

    Args:
        kind: Of question.
        then, now: Rows for which it is so, of shape (questions,).
        of_then, of_now: All rows.
        alike: Of the column.
        apart: In time.
    """
    rows = then + now
    place = np.flatnonzero((rows >= SELDOM) & (of_then + of_now - rows >= SELDOM))
    a, b = then[place].astype("float64"), now[place].astype("float64")
    n, m = float(of_then), float(of_now)
    expected = (a + b) * m / (n + m)
    later = b - np.clip(b - expected, -0.5, 0.5)
    seen = np.array([later, m - later, a + b - later, n - a - b + later])
    wanted = np.array([expected, m - expected, a + b - expected, n - a - b + expected])
    ratio = (seen * np.log(np.maximum(seen, 1e-300) / np.maximum(wanted, 1e-300))).sum(axis=0)
    noise = 1 / n + 1 / m
    more = inflation(alike, noise, apart)
    effect = 2 * np.abs(np.arcsin(np.sqrt(a / n)) - np.arcsin(np.sqrt(b / m)))
    return Asked(kind, place, effect, np.sqrt(2 * np.maximum(ratio, 0) / more), lambda z: z * math.sqrt(noise * more))


def middle(then: np.ndarray, now: np.ndarray, alike: Sequence[float], apart: Apart | None) -> Asked:
    """Whether values lie higher or lower: the difference of mean normal scores of their ranks (van der Waerden 1952), in their
    standard deviation, which is Cohen's d for what is normally distributed."""
    both = then + now
    rank = np.clip((np.cumsum(both) - both / 2) / both.sum(), 1e-9, 1 - 1e-9)
    score = np.array([NORMAL.inv_cdf(share) for share in rank])
    spread = math.sqrt(np.dot((score - np.dot(score, both) / both.sum()) ** 2, both) / both.sum())
    difference = abs(float(np.dot(score, now) / now.sum() - np.dot(score, then) / then.sum()))
    effect = difference / spread if spread > 0 else 0.0
    noise = 1 / then.sum() + 1 / now.sum()
    chance = math.sqrt(noise * inflation(alike, noise, apart))
    return Asked("middle", np.zeros(1, int), np.array([effect]), np.array([effect / chance]), lambda z: z * chance)


def all_bins(
    then: np.ndarray, now: np.ndarray, few: np.ndarray, alike: Sequence[float], apart: Apart | None
) -> Asked | None:
    """Whether all bins together are as they were: chi-squared of two samples, divided by the inflation (Rao and Scott 1981); the
    effect is Cohen's w (Cohen 1988) less what chance adds to it. Bins with `few` rows are one. None if only one is left."""
    n, m = then.sum(), now.sum()
    a, b = (np.append(counts[~few], counts[few].sum()).astype("float64") for counts in (then, now))
    pooled = (a + b) / (n + m)
    there = pooled > 0
    freedom = int(there.sum()) - 1
    if freedom < 1:
        return None
    noise = 1 / n + 1 / m
    chance = noise * inflation(alike, noise, apart)
    squared = float((((a / n - b / m) ** 2)[there] / pooled[there]).sum())
    # The cube root of chi-squared is nearly normal (Wilson and Hilferty 1931).
    middle, spread = 1 - 2 / (9 * freedom), math.sqrt(2 / (9 * freedom))
    z = ((squared / chance / freedom) ** (1 / 3) - middle) / spread
    effect = math.sqrt(max(0.0, squared - freedom * chance))
    return Asked(
        "all", np.zeros(1, int), np.array([effect]), np.array([z]),
        lambda z: math.sqrt(max(0.0, chance * freedom * ((middle + z * spread) ** 3 - 1))),
    )  # fmt: skip


def upper(z: float) -> float:
    """The probability that a normal number is larger."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def adjusted(p: np.ndarray) -> np.ndarray:
    """Probabilities of many tests, of which as many are wrong among those below a level as the level says (Benjamini and Hochberg
    1995), in the order given."""
    order = np.argsort(p)[::-1]
    ranked = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(ranked, 1)
    return result


def psi(then: np.ndarray, now: np.ndarray) -> float:
    """Population stability index of two histograms (Siddiqi 2006), half a row added to each bin; for people who know it, since its
    textbook limit of 0.1 misses what matters in thousands of rows."""
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (then, now))
    return float(((q - p) * np.log(q / p)).sum())
