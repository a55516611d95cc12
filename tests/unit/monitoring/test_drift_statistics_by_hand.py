"""The statistics of drift beside those of scipy, on the same rows: what bins lose of them, and what they leave as it is."""

from collections.abc import Hashable
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from copier_mlops import Column, Contract
from copier_mlops.bundle.reference import reference
from copier_mlops.monitoring.drift import Window, compare

THEN, NOW = 20_000, 5_000


def drawn(rows: int, seed: int, moved: float = 0.0) -> dict[str, np.ndarray]:
    """Columns of numbers, each moved by a part of its standard deviation: normal, with a long tail, tied, nearly one value, with gaps."""
    random = np.random.default_rng(seed)
    mostly = np.where(random.random(rows) < 0.9, 0, random.exponential(1, rows).round(2))
    return {
        "normal": random.normal(size=rows) + moved,
        "long tail": np.exp(random.normal(size=rows)) + 2 * moved,
        "count": random.poisson(3 + 2 * moved, rows).astype("float64"),
        "mostly zero": mostly,
        "gaps": np.where(random.random(rows) < 0.3, np.nan, random.gamma(2, 2, rows) + 3 * moved),
    }


def compared(
    then: np.ndarray, now: np.ndarray, kind: Literal["number", "boolean", "string"] = "number"
) -> tuple[dict[Hashable, Any], dict[str, Any], list[int]]:
    """What is said of one column, its profile, and the counts of now."""
    columns = (
        Column("id", "string", role="id"),
        Column("x", kind, nullable=True),
        Column("y", "boolean", role="target"),
    )
    known = reference(pd.DataFrame({"x": then}), np.zeros(len(then)), Contract(columns))
    window = Window(known)
    window.update(pd.DataFrame({"x": now}), np.zeros(len(now)))
    (line,) = compare(known, window).table.query("name == 'x'").to_dict("records")
    return line, known["columns"]["x"], window.columns["x"].counts.tolist()


@pytest.mark.parametrize("moved", [0.0, 0.2])
@pytest.mark.parametrize("name", list(drawn(1, 0)))
def test_numbers(name: str, moved: float) -> None:
    """Bins count what lies between their edges, and lose of a Kolmogorov-Smirnov statistic less than the largest of them holds."""
    then, now = drawn(THEN, 0)[name], drawn(NOW, 1, moved)[name]
    line, column, counts = compared(then, now)
    sides = [values[~np.isnan(values)] for values in (then, now)]
    counted = []
    for values in sides:
        below = stats.ecdf(values).cdf.evaluate(column["edges"]) * len(values)
        counted.append(np.diff(below.round(), prepend=0, append=len(values)))
    assert [each.tolist() for each in counted] == [column["counts"], counts]
    p, q = (each / each.sum() for each in counted)
    exact = stats.ks_2samp(*sides, method="asymp").statistic
    binned = np.abs(np.cumsum(p) - np.cumsum(q)).max()
    assert binned <= exact + 1e-12
    assert exact < binned + max(p.max(), q.max())
    p, q = ((each + 0.5) / (each + 0.5).sum() for each in counted)
    assert line["psi"] == pytest.approx((special.rel_entr(p, q) + special.rel_entr(q, p)).sum())


def test_how_far_numbers_moved() -> None:
    """The effect of a shift is Cohen's d of normal scores, which here are those of the rows and not of bins."""
    then, now = drawn(THEN, 0)["normal"], drawn(NOW, 1, 0.2)["normal"]
    ranks = stats.rankdata(np.r_[then, now])
    scores = stats.norm.ppf((ranks - 0.5) / len(ranks))
    moved = (scores[THEN:].mean() - scores[:THEN].mean()) / scores.std()
    assert compared(then, now)[0]["effect"] == pytest.approx(moved, rel=0.02)


def test_two_names() -> None:
    """The test of the likelihood ratio, corrected for continuity, and Cohen's h."""
    random = np.random.default_rng(3)
    then, now = random.random(THEN) < 0.2, random.random(NOW) < 0.23
    line, _, _ = compared(then.astype("float64"), now.astype("float64"), "boolean")
    table = np.array([[(~rows).sum(), rows.sum()] for rows in (then, now)])
    g = stats.chi2_contingency(table, correction=True, lambda_="log-likelihood")
    assert line["p"] == pytest.approx(3 * g.pvalue)  # each of both, and both together
    angles = 2 * np.arcsin(np.sqrt(table[:, 1] / table.sum(axis=1)))
    assert line["effect"] == pytest.approx(abs(angles[0] - angles[1]))


def test_many_names_that_moved_a_little() -> None:
    """Chi-squared of all names, and Cohen's w less what chance adds to it."""
    random, share = np.random.default_rng(10), 1 + 0.13 * (-1) ** np.arange(60)
    then, now = random.integers(0, 60, 50_000), random.choice(60, 9_000, p=share / share.sum())
    line, _, _ = compared(then.astype("str"), now.astype("str"), "string")
    table = np.array([np.bincount(rows, minlength=60) for rows in (then, now)])
    chi2, noise = stats.chi2_contingency(table, correction=False), (1 / table.sum(axis=1)).sum()
    assert line["effect"] == pytest.approx(np.sqrt((chi2.statistic - chi2.dof) * noise))
    # 61 questions; and the cube root of chi-squared is nearly normal, but not quite so far out.
    assert np.log(line["p"] / 61) == pytest.approx(np.log(chi2.pvalue), rel=0.03)
