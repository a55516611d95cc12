"""What people are told about a column: in words, what moved and from where."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.bundle.reference import reference
from copier_mlops.monitoring.drift import Window, compare

from .test_drift import CONTRACT, TYPICAL, WINDOW, draw, line, look


def told(then: np.ndarray, now: np.ndarray, kind: Any = "number") -> dict[Hashable, Any]:
    """The line of a single column."""
    contract = Contract((CONTRACT.columns[0], Column("x", kind), CONTRACT.columns[-1]))
    known = reference(pd.DataFrame({"x": then}), np.zeros(len(then)), contract)
    window = Window(known)
    window.update(pd.DataFrame({"x": now}), np.zeros(len(now)))
    found = compare(known, window)
    assert found.together.why.startswith("fewer than two columns")
    return line(found, "x")


EVEN = np.arange(100_000) % 1000 * 100.0
WITHIN = np.where((EVEN > 3e4) & (EVEN < 5e4) & (np.arange(len(EVEN)) % 7000 < 1000), EVEN + 2e4, EVEN)
NORMAL, TENS = np.random.default_rng(7).normal(size=100_000), np.random.default_rng(7).integers(0, 60, 50_000)
SENTENCES = {
    "higher": (EVEN, EVEN + 9000, "x: most values are 19,000 to 98,900, in the reference 9990 to 89,900; 9 % lie above the"),
    "a gap": (EVEN, EVEN[(EVEN < 3e4) | (EVEN > 5e4)], "x: 30,000 to 35,000 is 0 % of the values, in the reference 5 %"),
    "the same ends": (EVEN, WITHIN, "x: 50,000 or less is 47 % of the values, in the reference 50 %"),
    "below": (EVEN, np.r_[EVEN, np.full(3000, -5.0)], "x: less than 0 is 2.9 % of the values, in the reference 0 %"),
    "by chance": (EVEN, EVEN[::7], "x: as in the reference, as far as the rows tell"),
}  # fmt: skip


@pytest.mark.parametrize(("then", "now", "says"), SENTENCES.values(), ids=SENTENCES)
def test_people_are_told_in_words(then: np.ndarray, now: np.ndarray, says: str) -> None:
    assert told(then, now)["why"].startswith(says)


def test_many_names_that_moved_a_little() -> None:
    random = np.random.default_rng(10)
    share = 1 + 0.13 * (-1) ** np.arange(60)
    later = random.choice(60, 9_000, p=share / share.sum())
    found = told(TENS.astype("str"), later.astype("str"), "string")
    assert found["drifted"]
    assert "many values moved a little, " in found["why"]


def test_what_is_certain_and_does_not_matter() -> None:
    found = told(NORMAL, np.random.default_rng(9).normal(0.04, 1, 300_000))
    assert found["adjusted"] < 1e-6
    assert not found["drifted"]
    assert found["why"].endswith("; too little to matter")


def test_a_column_that_was_empty_and_one_that_is_hardly_there() -> None:
    rows = TYPICAL.assign(gaps=np.nan)
    empty = reference(rows, rows["score"].to_numpy(), CONTRACT)
    found = look(empty, draw(WINDOW, 1).assign(gaps=np.nan))
    assert not found.drifted
    assert "only 0 values" in line(found, "gaps")["why"]
    assert "missing in 30 % of the rows, in the reference in 100 %" in line(look(empty, draw(WINDOW, 1)), "gaps")["why"]
