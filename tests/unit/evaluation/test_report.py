"""What people look at says what was measured, whatever characters a name has."""

import dataclasses
import datetime as dt
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops.evaluation import formatting, metrics, model_card, plots, report, verdict_text
from copier_mlops.evaluation.gate import judge
from copier_mlops.evaluation.metrics import Interval

TRIALS = pd.DataFrame({"number": [0, 1], "state": ["complete", "pruned"], "value": [0.7, 0.6], "folds": [3, 1]})
IMPORTANCE = pd.DataFrame({"input": ["distance", "<b>"], "loss": [0.1, 0.0], "spread": [0.01, 0.0]})


@functools.cache
def drawn(problem: str) -> tuple[pd.DataFrame, dict[str, bytes]]:
    """The slices of a tiny test, one of them without a value, and all pictures of it."""
    random = np.random.default_rng(0)
    score = random.random(60)
    y = (random.random(60) < score).astype("float64") if problem == "classification" else score + random.random(60)
    groups = pd.Series(["a", "b", "c"] * 20)
    y[groups == "c"] = 1
    metric = "auc" if problem == "classification" else "mae"
    slices = metrics.slices(problem, y, score, groups={"group": groups}, metric=metric, times=20, seed=0)
    return slices, plots.plots(problem, y, score, slices=slices, importance=IMPORTANCE, metric=metric, trials=TRIALS)


def facts(**others: Any) -> dict[str, Any]:
    group = {"slice": "origin", "rows": 900, "observed": 0.2, "predicted": 0.2}
    values = {"A": (0.9, 0.85, 0.95), "B": (0.6, 0.55, 0.65), "C": (None, None, None), "D": (0.74, 0.7, 0.78)}
    return {
        "problem": "classification",
        "target": "late",
        "metric": "auc",
        "larger_is_better": True,
        "model": "Forest",
        "params": {"depth": 3},
        "metrics": {"auc": {"value": 0.75, "low": 0.7, "high": 0.8}},
        "baseline": {"auc": 0.5},
        "slices": [
            {**group, "group": name, **dict(zip(("value", "low", "high"), ends, strict=True))}
            for name, ends in values.items()
        ],
        "importance": IMPORTANCE.to_dict("records"),
        "effects": [],
        "trials": TRIALS.to_dict("records"),
        "classes": [],
        "data": {"rows": 12000, "set_aside": 3, "unlabelled": 1, "reasons": {"x: <below> 0": 3}},
        "rows": {"train": 9000, "test": 3000},
        "window": {"start": "2024-01-01", "test_start": "2024-06-01", "end": "2024-07-01"},
        "test": "the last 30 days",
        "bootstrap": 200,
        "source": "abc",
        "columns": [],
        **others,
    }


def test_the_pictures_of_many_classes() -> None:
    random = np.random.default_rng(0)
    score = random.dirichlet([1, 1, 1], 60)
    y = score.argmax(axis=1).astype("float64")
    names = ("red", "green", "blue")
    groups = {"group": pd.Series(["a", "b", "c"] * 20)}
    slices = metrics.slices("classification", y, score, groups=groups, metric="auc", times=20, seed=0)
    assert slices["observed"].tolist() == [1, 1, 1]  # every answer is right
    pictures = plots.plots(
        "classification", y, score, slices=slices, importance=IMPORTANCE, metric="auc", trials=TRIALS, classes=names
    )
    one_wrong = np.where(np.arange(60) == 0, (y + 1) % 3, y)
    other = plots.plots(
        "classification",
        one_wrong,
        score,
        slices=slices,
        importance=IMPORTANCE,
        metric="auc",
        trials=TRIALS,
        classes=names,
    )
    assert pictures["quality"] != other["quality"]
    assert pictures["search"] == other["search"]


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_the_pictures(problem: str) -> None:
    _, pictures = drawn(problem)
    assert set(pictures) == {"quality", "importance", "search", "slices"} | (
        {"curves"} if problem == "classification" else set()
    )
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())


def test_the_same_numbers_give_the_same_pictures() -> None:
    assert drawn.__wrapped__("regression")[1] == drawn("regression")[1]


def test_without_slices_there_is_no_picture_of_them() -> None:
    slices, _ = drawn("classification")
    y, score = np.array([0.0, 1.0]), np.array([0.2, 0.7])
    pictures = plots.plots(
        "classification", y, score, slices=slices.iloc[:0], importance=IMPORTANCE, metric="auc", trials=TRIALS
    )
    assert "slices" not in pictures
    assert "No slices are named" in report.page("Title", facts(slices=[]), pictures)


def test_the_page_is_one_file_with_every_figure_and_no_markup_from_outside() -> None:
    page = report.page("Late & <early>", facts(), drawn("classification")[1])
    assert page.count("data:image/png;base64,") == 5
    assert "Late &amp; &lt;early&gt;" in page
    assert "x: &lt;below&gt; 0" in page
    assert "<b>0.75</b>" in page
    assert "12,000" in model_card.card("Title", facts())


def test_the_page_numbers_trials_from_one_and_names_the_trial_that_is_used() -> None:
    search = {"says": "none of 1 trial after the first guess was better, the first guess is used", "trial": 1}
    page = report.page("Title", facts(search=search), drawn("classification")[1])
    assert "<th>trial</th>" in page and "<td>1</td><td>complete</td>" in page and "<td>2</td><td>pruned</td>" in page
    assert "<p>None of 1 trial after the first guess was better" in page
    assert "The model has the hyperparameters of trial 1." in page


def test_the_page_has_no_table_of_reasons_if_no_row_is_quarantined() -> None:
    pictures = drawn("classification")[1]
    assert "Quarantined rows by reason" in report.page("Title", facts(), pictures)
    page = report.page("Title", facts(data={"rows": 9, "set_aside": 0, "unlabelled": 0, "reasons": {}}), pictures)
    assert "<p>No row broke the contract.</p>" in page and "<p>none</p>" not in page


def test_a_table_that_is_wider_than_the_page_scrolls_by_itself() -> None:
    page = report.page("Title", facts(), drawn("classification")[1])
    assert page.count('<div class="scroll"><table>') == page.count("<table>") > 0
    assert ".scroll { overflow-x: auto }" in page


@pytest.mark.parametrize(("larger_is_better", "worst"), [(True, "B"), (False, "A")])
def test_the_card_names_slices_that_are_worse_than_all_rows(larger_is_better: bool, worst: str) -> None:
    some = facts(larger_is_better=larger_is_better)
    assert [line["group"] for line in model_card.weakest(some)] == [worst]
    weak = model_card.card("Title", some).split("## Weakest slices")[1].split("## Feature importance")[0]
    assert f"| origin | {worst} | 900 |" in weak and "| origin | D |" not in weak


def test_weak_slices_are_ordered_by_evidence_and_need_enough_rows() -> None:
    lines = [
        ("tiny", 84, 0.1, 0.0, 0.2),
        ("uncertain", 500, 0.4, 0.2, 0.7),
        ("certain", 9000, 0.6, 0.59, 0.61),
        ("chance", 500, 0.5, 0.2, 0.8),
    ]
    keys = ("group", "rows", "value", "low", "high")
    some = facts(slices=[{"slice": "origin", **dict(zip(keys, line, strict=True))} for line in lines])
    assert [line["group"] for line in model_card.weakest(some)] == ["certain", "uncertain"]
    card = model_card.card("Title", facts(slices=some["slices"][:1]))
    assert "No slice with at least 100 test rows is worse" in card and "tiny" not in card


VERDICT = judge(
    "auc",
    {"auc": 0.75},
    over_baseline=0.25,
    over_champion=Interval(0.1, 0, 0.2),
    at_least={"auc": 0.8},
    at_most={},
    better_than_baseline=0.1,
    worse_than_champion=0.0,
).as_json()
RELEASE = report.Release(
    version=3,
    status="champion since 2024-07-02",
    recorded=dt.datetime(2024, 7, 1, 9, 30, tzinfo=dt.UTC),
    lineage="abcdef",
    commit="c0ffee",
    snapshot="5eed",
    verdict=VERDICT,
    champion={"version": 2, "rows": 2900, "metrics": {"auc": 0.7123}},
)


def test_the_page_names_its_version_its_verdict_and_the_champion() -> None:
    pictures = drawn("classification")[1]
    page = report.page("Title", facts(), pictures, RELEASE)
    for text in ("<td>3</td>", "champion since 2024-07-02", "2024-07-01 09:30 UTC", "abcdef", "c0ffee", "5eed"):
        assert text in page
    assert "did not pass the gate" in page and page.count("<td>FAILED</td>") == 1 and page.count("<td>passed</td>") == 2
    assert "champion (version 2)" in page and "<td>0.7123</td>" in page and "2,900" in page
    assert report.NOT_RECORDED not in page
    alone = report.page("Title", facts(), pictures, dataclasses.replace(RELEASE, champion={}))
    assert "champion (version" not in alone
    assert report.NOT_RECORDED in report.page("Title", facts(), pictures)


def test_metrics_are_beside_those_of_the_baseline_and_of_the_champion() -> None:
    line = {"metric": "auc", "value": 0.75, "low": 0.7, "high": 0.8, "baseline": 0.5}
    assert model_card.compared(facts(), {}) == [line]
    assert model_card.compared(facts(), RELEASE.champion) == [{**line, "champion (version 2)": 0.7123}]


def off(difference: float, reach: float, **more: Any) -> dict[str, Any]:
    mean = {"observed": 0.3, "predicted": 0.3 + difference, "difference": difference}
    return {"slice": "month", "rows": 500, **mean, "low": difference - reach, "high": difference + reach, **more}


def test_calibration_is_said_in_words() -> None:
    lines = [
        off(-0.051, 0.01, slice="all", group="all", rows=3000),
        off(-0.1, 0.02, group="2013-12"),
        off(0.3, 0.2, group="2013-11", rows=84),
        off(0.01, 0.02, group="2013-10"),
        off(0.2, 0.08, group="2013-09"),
    ]
    whole, groups = model_card.calibration_in_words(facts(calibration=lines))
    assert "The mean prediction is 24.9 %, the observed mean is 30.0 % (3,000 test rows)" in whole
    assert "5.1 points too low" in whole
    assert groups.index("month 2013-12: 10.0 points too low") < groups.index("month 2013-09: 20.0 points too high")
    assert "2013-11" not in groups and "2013-10" not in groups
    fine = model_card.calibration_in_words(facts(calibration=[off(0.01, 0.02, group="all"), lines[3]]))
    assert "may be chance" in fine[0] and "No group" in fine[1]
    assert model_card.calibration_in_words(facts()) == []  # a run of an earlier release


def test_errors_at_the_threshold_are_a_table() -> None:
    counts = {"true_positive": 30, "false_positive": 10, "false_negative": 70, "true_negative": 890}
    some = facts(confusion=counts, threshold=0.35)
    assert model_card.confusion_table(some) == [
        {"outcome": "late: no", "predicted no": 890, "predicted yes": 10},
        {"outcome": "late: yes", "predicted no": 70, "predicted yes": 30},
    ]
    assert "0.35 or more" in model_card.confusion_in_words(some)
    assert "Precision is 75.0 %, recall 30.0 %" in model_card.confusion_in_words(some)
    assert "Errors at a threshold" in report.page("T", some, drawn("classification")[1])
    assert "Errors at a threshold" in model_card.card("T", some)
    none = model_card.confusion_in_words(facts(confusion=dict.fromkeys(counts, 0), threshold=0.5))
    assert "Precision is not defined" in none and "recall not defined" in none


def test_the_summary_says_what_was_missed() -> None:
    verdict = judge(
        "auc",
        {"auc": 0.75},
        over_baseline=0.25,
        over_champion=Interval(0.1, 0, 0.2),
        at_least={"auc": 0.8},
        at_most={},
        better_than_baseline=0.1,
        worse_than_champion=0.0,
    )
    text = verdict_text.summary(facts(), verdict, "run 1")
    assert text.startswith("## run 1: did not pass the gate")
    assert text.count("| passed |") == 2
    assert text.count("| FAILED | gate.at_least.auc |") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (12345.6, "12,346"),
        (0.123456, "0.1235"),
        (float("nan"), "n/a"),
        (None, "n/a"),
        (True, "True"),
        ("a", "a"),
    ],
)
def test_numbers_are_written_for_people(value: object, text: str) -> None:
    assert formatting.number(value) == text


def test_tables() -> None:
    assert formatting.table([]) == "<p>none</p>"
    assert formatting.table([], markdown=True) == "none\n"
    assert formatting.table([{"a": "x|y", "b": 1}], markdown=True) == "| a | b |\n| --- | --- |\n| x/y | 1 |\n"


def test_effects_are_shown_where_some_are_declared() -> None:
    effects = [{"input": "rain", "declared": "raises", "low": 0.0, "high": 1.5, "change": 0.0123}]
    pictures = drawn("classification")[1]
    for text in (report.page("T", facts(effects=effects), pictures), model_card.card("T", facts(effects=effects))):
        assert "rain" in text and "0.0123" in text and "raises" in text
    for text in (report.page("T", facts(), pictures), model_card.card("T", facts())):
        assert "low to high" not in text
