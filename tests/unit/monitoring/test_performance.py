"""A model is called worse when it is, and not because of chance, of bad days, or since nobody knows."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.evaluation import metrics
from copier_mlops.evaluation.metrics import Interval
from copier_mlops.monitoring import performance
from copier_mlops.monitoring.performance import (
    NOTHING,
    OTHER,
    Expected,
    Performance,
    difference,
    judge,
    largest,
    measure,
)

ID, SIZE = Column("id", "string", role="id"), Column("size", "number")
BOOLEAN = Contract((ID, SIZE, Column("late", "boolean", role="target")))
NUMBER = Contract((ID, SIZE, Column("minutes", "number", role="target")))
CLASSES = Contract((ID, SIZE, Column("kind", "string", role="target", allowed=("x", "y", "z"))))
ASK: dict[str, Any] = {"problem": "classification", "metric": "auc", "times": 60, "seed": 0, "enough": 200}


def world(days: int, by_day: int, seed: int, alike: float = 0.0, blind: float = 0.0) -> pd.DataFrame:
    """Answers with their truth; `alike` moves whole days, `blind` hides the truth from the answers."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), by_day)
    signal, weather = random.normal(size=len(day)), alike * random.normal(size=days)
    truth = random.random(len(day)) < 1 / (1 + np.exp(1 - 1.5 * signal - weather[day]))
    seen = (1 - blind) * signal + blind * random.normal(size=len(day))
    return pd.DataFrame(
        {
            "at": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(day, unit="D"),
            "version": 1,
            "score": 1 / (1 + np.exp(1 - 1.5 * seen)),
            "label": truth.astype("float64"),
            "group": random.choice(["a", "b"], len(day)),
        }
    )


@functools.cache
def on_test(seed: int = 100, alike: float = 0.0) -> Expected:
    rows = world(20, 60, seed, alike)
    y, score = rows["label"].to_numpy(), rows["score"].to_numpy()
    lines = metrics.slices("classification", y, score, groups={"group": rows["group"]}, metric="auc", times=60, seed=0)
    slices = {("group", line.group): Interval(line.value, line.low, line.high) for line in lines.itertuples()}
    return Expected(metrics.with_intervals("classification", y, score, times=60, seed=0), slices)


def judged(rows: pd.DataFrame, contract: Contract = BOOLEAN, **others: Any) -> Performance:
    given = {**ASK, "version": 1, "expected": on_test(), "names": ["group"], **others}
    return judge(rows, contract, **given)


def test_as_good_as_it_was() -> None:
    found = judged(world(20, 60, 1))
    assert (found.worse, found.rows) == (False, 1200)
    assert "may be chance" in found.says
    assert set(found.metrics) == set(metrics.METRICS["classification"])
    assert [line["worse"] for line in found.slices] == [False, False]
    assert [line["labelled"] for line in found.weeks] == [420, 420, 360]


def test_worse_than_it_was() -> None:
    found = judged(world(20, 60, 1, blind=0.6))
    assert found.worse is True
    assert found.gain.high < 0
    assert f"against {on_test().metrics['auc'].value:.4g} on the test rows: worse by" in found.says
    assert [line["worse"] for line in found.slices] == [True, True]


def test_better_than_it_was() -> None:
    found = judged(world(20, 60, 1), expected=Expected({"auc": Interval(0.5, 0.45, 0.55)}))
    assert found.worse is False
    assert "better by" in found.says


def test_days_that_resemble_each_other_make_no_certainty() -> None:
    """Rows alone would be sure far too often: the weather of a week is no property of the model."""
    alone = together = 0
    for seed in range(12):
        rows = world(14, 60, seed, alike=1.5)
        expected = on_test(200 + seed, alike=1.5)
        together += bool(judged(rows, expected=expected, names=[], times=40).worse)
        y, score = rows["label"].to_numpy(), rows["score"].to_numpy()
        value = metrics.with_intervals("classification", y, score, times=40, seed=0, names=["auc"])["auc"]
        alone += bool(difference("auc", value, expected.metrics["auc"]).high < 0)
    assert together <= 1
    assert alone > together


def test_one_bad_group_among_good_ones_is_named() -> None:
    rows = world(20, 100, 1)
    bad = world(20, 100, 2, blind=0.9)
    mixed = rows.where(rows["group"] == "a", bad.assign(group="b"))
    found = judged(mixed)
    assert {line["group"]: line["worse"] for line in found.slices} == {"a": False, "b": True}


@pytest.mark.parametrize("rows", [0, 1])
def test_no_label_or_one_is_no_alarm(rows: int) -> None:
    found = judged(world(1, 1, 1).head(rows))
    assert found.worse is None
    assert all(np.isnan(one.value) for one in found.metrics.values())
    assert ("one answer" if rows else "no answer of version 1") in found.says


def test_one_class_is_no_alarm() -> None:
    found = judged(world(20, 60, 1).assign(label=1.0))
    assert found.worse is None
    assert np.isnan(found.metrics["auc"].value) and not np.isnan(found.metrics["brier"].value)
    assert "auc is not defined" in found.says


def test_few_labels_are_no_verdict() -> None:
    found = judged(world(20, 6, 1, blind=0.9))
    assert found.worse is None
    assert "too few for a verdict: that takes 200 (monitoring.min_labelled)" in found.says


def test_without_anything_to_compare_with() -> None:
    found = judged(world(20, 60, 1), expected=Expected())
    assert found.worse is None
    assert "not known" in found.says


def test_a_value_without_an_interval_is_as_uncertain_as_the_one_beside_it() -> None:
    value = Interval(0.70, 0.66, 0.74)
    assert difference("auc", value, Interval(0.75, np.nan, np.nan)).high > 0
    assert difference("auc", value, Interval(0.76, np.nan, np.nan)).high < 0
    found = difference("auc", value, Interval(0.75, np.nan, np.nan))
    assert found.value - found.low == pytest.approx(0.04 * np.sqrt(2))


def test_which_way_a_metric_runs() -> None:
    low, high = Interval(1.0, 0.9, 1.1), Interval(2.0, 1.7, 2.2)
    better = difference("mae", low, high)
    assert better.value == 1.0 and better.low == pytest.approx(1 - np.hypot(0.1, 0.3))
    assert difference("mae", high, low).high == pytest.approx(-1 + np.hypot(0.3, 0.1))
    assert difference("auc", high, low).low == pytest.approx(1 - np.hypot(0.3, 0.1))


def test_the_version_before_is_compared_on_its_own_answers() -> None:
    good, bad = world(14, 60, 1).assign(version=1), world(14, 60, 2, blind=0.8).assign(version=2)
    both = pd.concat([good, bad], ignore_index=True)
    found = judged(both, version=2, former=1)
    assert found.before and found.before.worse is True and found.before.version == 1
    assert [line["version"] for line in found.versions] == [1, 2]
    back = judged(both, version=1, former=2)
    assert back.before and back.before.worse is False
    few = judged(both.iloc[:900], version=2, former=1)
    assert few.before and few.before.worse is None and "too little" in few.before.says
    alone = judged(good, version=1, former=7)
    assert alone.before and alone.before.worse is None
    assert judged(good).before is None


def test_a_number() -> None:
    rows = world(20, 30, 1).assign(label=lambda one: 10 * one["score"], score=lambda one: 10 * one["score"] + 1)
    expected = Expected({"mae": Interval(0.5, 0.4, 0.6)})
    found = judged(rows, NUMBER, problem="regression", metric="mae", expected=expected)
    assert set(found.metrics) == set(metrics.METRICS["regression"])
    assert found.worse is True
    assert found.metrics["bias"].value == pytest.approx(1)


def test_many_classes() -> None:
    random = np.random.default_rng(0)
    scores = pd.DataFrame(random.dirichlet([1, 1, 1], 600), columns=CLASSES.answers)
    rows = world(20, 30, 1).assign(label=scores.to_numpy().argmax(axis=1).astype("float64"), **scores)
    found = judged(rows, CLASSES, expected=Expected({"auc": Interval(0.7, 0.6, 0.8)}))
    assert found.worse is False
    assert found.metrics["auc"].value == pytest.approx(1, abs=0.05)
    assert found.metrics["auc"].high <= 1


def test_small_groups_are_one() -> None:
    groups = pd.Series([f"g{number:03}" for number in range(100) for _ in range(100 - number)] + [None])
    found = largest(groups, 20)
    assert found.nunique() == 21
    assert (found == OTHER).sum() == len(groups) - sum(range(81, 101))
    assert set(found) - {OTHER} == {f"g{number:03}" for number in range(20)}
    assert largest(pd.Series([None, "a"])).tolist() == ["missing", "a"]


def test_many_rows_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "MOST_ROWS", 300)
    assert judged(world(20, 60, 1)).rows == 300


def test_the_same_numbers_come_to_the_same() -> None:
    assert judged(world(20, 20, 1)) == judged(world(20, 20, 1))


def test_rows_of_few_days_are_resampled_themselves() -> None:
    rows = world(3, 200, 1)
    y, score = rows["label"].to_numpy(), rows["score"].to_numpy()
    expected = metrics.with_intervals("classification", y, score, times=30, seed=0, names=["brier"])
    assert measure(rows, BOOLEAN, problem="classification", times=30, seed=0, names=["brier"]) == expected
    assert measure(rows.head(1), BOOLEAN, problem="classification", times=30, seed=0, names=["brier"]) == {
        "brier": NOTHING
    }
