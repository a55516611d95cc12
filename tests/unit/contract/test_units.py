"""Rows of a subject, and copies of a row, are on one side of a split and in one lot of a resample."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from copier_mlops import Column, Contract
from copier_mlops.contract import units
from copier_mlops.evaluation import metrics
from copier_mlops.pipeline import search

ID, TARGET = Column("id", "integer", "id"), Column("y", "boolean", "target")
INPUTS = Column("a", "number"), Column("b", "number")
GROUPED = Contract((ID, Column("who", "string", "group", nullable=True), *INPUTS, TARGET))
PLAIN = Contract((ID, *INPUTS, TARGET))


def noise(subjects: int = 150, each: int = 8) -> pd.DataFrame:
    """Subjects whose inputs and class are drawn once: nothing can be learnt but who they are."""
    random = np.random.default_rng(3)
    of = np.repeat(np.arange(subjects), each)
    near = random.normal(scale=0.01, size=(2, len(of)))  # no row is a copy of another
    a, b = random.normal(size=(2, subjects))[:, of] + near
    rows = {"id": range(len(of)), "who": of, "a": a, "b": b, "y": random.random(subjects)[of] < 0.5}
    return pd.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True).astype({"who": "str"})


def auc(rows: pd.DataFrame, ids: pd.Series, together: np.ndarray | None) -> metrics.Interval:
    """That of a model that knows each row by heart, on a fifth of the rows."""
    y = rows["y"].to_numpy("float64")
    test = search.drawn_for_test("classification", ids, y, 0.2, together)
    inputs = rows[["a", "b"]].to_numpy()
    model = RandomForestClassifier(50, random_state=0).fit(inputs[~test], y[~test])
    drawn = None if together is None else together[test]
    score = model.predict_proba(inputs[test])[:, 1]
    return metrics.with_intervals("classification", y[test], score, times=200, seed=0, names=["auc"], units=drawn)[
        "auc"
    ]


def test_noise_of_repeated_subjects_is_noise() -> None:
    rows = noise()
    alone = auc(rows, rows["id"], None)
    assert alone.low > 0.95  # the fault: the model has seen the other rows of each subject
    together = units.together_in_resamples(rows, GROUPED, 0)
    grouped = auc(rows, units.subjects(rows, GROUPED), together)
    assert grouped.low < 0.5 < grouped.high
    each = auc(rows, units.subjects(rows, GROUPED), together)
    assert each == grouped


def test_an_interval_of_few_subjects_is_wider_than_one_of_their_rows() -> None:
    rows = noise()
    y = rows["y"].to_numpy("float64")
    score = np.clip(y + np.random.default_rng(0).normal(size=150)[rows["who"].astype(int)], -1, 2)
    alone, grouped = (
        metrics.with_intervals("classification", y, score, times=200, seed=0, names=["auc"], units=drawn)["auc"]
        for drawn in (None, units.together_in_resamples(rows, GROUPED, 0))
    )
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)


def test_folds_and_test_keep_subjects_whole() -> None:
    rows = noise()
    who, y = units.subjects(rows, GROUPED), rows["y"].to_numpy("float64")
    drawn = units.together_in_resamples(rows, GROUPED, 0)
    test = search.drawn_for_test("classification", who, y, 0.2, drawn)
    assert not set(who[test]) & set(who[~test]) and test.mean() == pytest.approx(0.2, abs=0.02)
    fewer = rows["id"].to_numpy() % 5 > 0  # a subject stays on its side when rows of it go
    again = search.drawn_for_test("classification", who[fewer], y[fewer], 0.2, drawn[fewer])  # type: ignore[index]
    assert (again != test[fewer]).mean() < 0.05
    for past, judged in search.drawn_folds("classification", y, 3, 0, drawn):
        assert not set(who[past]) & set(who[judged])


def test_a_row_without_a_subject_is_one_of_its_own() -> None:
    rows = noise(20, 3)
    rows.loc[:9, "who"] = None
    assert units.subjects(rows, GROUPED)[:10].is_unique
    drawn = units.together_in_resamples(rows, GROUPED, 0)
    assert drawn is not None and len(np.unique(drawn)) == 10 + rows["who"].nunique()


def test_copies_are_drawn_together_if_there_are_more_than_by_chance() -> None:
    rows = noise(400, 1)
    assert units.together_in_resamples(rows, PLAIN, 0) is None
    twice = pd.concat([rows, rows], ignore_index=True).assign(id=range(800))
    drawn = units.together_in_resamples(twice, PLAIN, 0)
    assert drawn is not None and (drawn[:400] == drawn[400:]).all() and len(np.unique(drawn)) == 400
    few = rows.assign(a=rows["a"] > 0, b=rows["b"] > 0)  # cases that happen to be alike
    assert units.together_in_resamples(few, PLAIN, 0) is None


def test_a_resample_takes_units_whole() -> None:
    of = np.array([7, 7, 7, 9, 9, 11])
    for counts in metrics.resamples(6, 20, 0, of):
        assert counts[0] == counts[1] == counts[2] and counts[3] == counts[4]
        assert counts[0] + counts[3] + counts[5] == 3
