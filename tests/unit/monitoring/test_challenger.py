"""A challenger is better when it is, on the same labelled answers, and not because of chance, or since nobody knows."""

import datetime as dt
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.monitoring import challenger as contest
from copier_mlops.monitoring.challenger import (
    INPUT,
    WHOLE,
    Compared,
    Contest,
    Rules,
    answer,
    judge,
    unseen,
    with_inputs,
)

SINCE = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
RULES: dict[str, Any] = {"problem": "classification", "metric": "auc", "enough": 200, "confidence": 0.95, "margin": 0.0}
CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("when", "timestamp", role="time"),
        Column("size", "number"),
        Column("late", "boolean", role="target"),
    )
)


def world(
    seed: int, blind: tuple[float, float] = (0.4, 0.4), days: int = 20, by_day: int = 50, alike: float = 1.0
) -> Compared:
    """Answers of two models that see so little of the truth; days have a weather that neither sees."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), by_day)
    signal, weather = random.normal(size=len(day)), alike * random.normal(size=days)
    truth = random.random(len(day)) < 1 / (1 + np.exp(-1.5 * signal - weather[day]))
    seen = [(1 - one) * signal + one * random.normal(size=len(day)) for one in blind]
    at = pd.Series(pd.Timestamp(SINCE) + pd.to_timedelta(day, unit="D")).astype("datetime64[us, UTC]")
    champion, challenger = (1 / (1 + np.exp(-1.5 * one)) for one in seen)
    return Compared(at, truth.astype("float64"), champion, challenger)


def fought(both: Compared, **rules: Any) -> Contest:
    return judge(
        both, Rules(**{**RULES, "times": 100, "seed": 0, **rules}), versions=(3, 4), learnt_until=SINCE, since=SINCE
    )


def test_a_better_one_is_better() -> None:
    found = fought(world(1, blind=(0.6, 0.1)))
    assert found.better is True
    assert 0 < found.gain.low < found.gain.value < found.gain.high
    assert found.gain.value == pytest.approx(found.challenger - found.champion)
    assert (found.version, found.rows, found.metric) == (4, 1000, "auc")
    assert "on the same 1,000 labelled answers auc of version 4 is" in found.says
    assert found.says.endswith(f"better by {found.gain.low:.4g} to {found.gain.high:.4g} (95 % interval)")


def test_a_worse_one_is_not() -> None:
    for seed in range(20):
        found = fought(world(seed, blind=(0.2, 0.5)))
        assert found.better is False
    assert found.gain.high < 0 and "worse by" in found.says


def test_one_that_is_as_good_seldom_wins() -> None:
    """In a twentieth of the cases at most; the interval leaves a fortieth."""
    won = sum(bool(fought(world(seed)).better) for seed in range(80))
    assert won <= 4
    assert "may be chance" in fought(world(0)).says


def test_the_same_answers_are_no_gain() -> None:
    both = world(1)
    found = fought(Compared(both.at, both.y, both.champion, both.champion))
    assert (found.better, found.gain.value, found.gain.low) == (False, 0.0, 0.0)


def test_the_margin_is_kept() -> None:
    both = world(1, blind=(0.6, 0.1))
    low = fought(both).gain.low
    assert fought(both, margin=low - 0.001).better is True
    found = fought(both, margin=low + 0.001)
    assert found.better is False and "(monitoring.promote_margin)" in found.says


def test_who_has_to_be_surer_wins_less_often() -> None:
    both = world(1, blind=(0.6, 0.1))
    assert fought(both, confidence=0.99).gain.low < fought(both, confidence=0.8).gain.low
    assert "(99 % interval)" in fought(both, confidence=0.99).says


def test_days_are_resampled_and_not_rows() -> None:
    """A champion that is bad on one day alone: rows would be sure of what one day says."""
    both = world(1, blind=(0.3, 0.3), days=6, by_day=100, alike=0)
    first = (both.at < pd.Timestamp(SINCE) + pd.Timedelta(days=1)).to_numpy()
    bad = Compared(both.at, both.y, np.where(first, 1 - both.y, both.champion), both.challenger)
    assert fought(bad, metric="brier").better is False
    once = Compared(both.at.mask(both.at.notna(), both.at.iloc[0]), bad.y, bad.champion, bad.challenger)
    found = fought(once, metric="brier")
    assert found.gain.low > 0 and found.better is None  # rows alone are sure, and one day is no reason to promote
    assert "of 1 day, too few for a verdict: that takes 5" in found.says


@pytest.mark.parametrize("rows", [0, 1])
def test_without_labels_nobody_knows(rows: int) -> None:
    both = world(1)
    few = Compared(both.at.head(rows), both.y[:rows], both.champion[:rows], both.challenger[:rows])
    found = fought(few)
    assert found.better is None and np.isnan(found.gain.value)
    assert ("one labelled answer" if rows else "no labelled answer yet") in found.says
    assert "rows from 2024-01-01 on" in found.says


def test_few_labels_are_no_verdict() -> None:
    found = fought(world(1, blind=(0.9, 0.0), days=10, by_day=10))
    assert found.better is None and found.gain.low > 0
    assert "too few for a verdict: that takes 200 (monitoring.min_labelled)" in found.says


def test_one_class_is_no_verdict() -> None:
    both = world(1)
    found = fought(Compared(both.at, np.ones(len(both.y)), both.champion, both.challenger))
    assert found.better is None
    assert "are all the same" in found.says


def test_a_number() -> None:
    both = world(1)
    truth = 10 * both.y
    near, far = truth + 1, truth + np.where(np.arange(len(truth)) % 2, 4.0, -4.0)
    ours = {"problem": "regression", "metric": "mae"}
    found = fought(Compared(both.at, truth, far, near), **ours)
    assert (found.better, found.champion, found.challenger) == (True, 4.0, 1.0)
    assert found.gain.value == pytest.approx(3)  # positive is better, also where less is
    assert fought(Compared(both.at, truth, near, far), **ours).better is False


def test_many_classes() -> None:
    both, random = world(1), np.random.default_rng(0)
    scores = random.dirichlet([1, 1, 1], len(both.y))
    truth = scores.argmax(axis=1).astype("float64")
    blind = random.dirichlet([1, 1, 1], len(both.y))
    assert fought(Compared(both.at, truth, blind, scores)).better is True
    assert fought(Compared(both.at, truth, scores, blind), metric="log_loss").better is False


def test_it_is_json_that_has_every_number() -> None:
    found = fought(world(1)).as_json()
    assert set(found) == {
        "version", "learnt_until", "rows", "shadowed", "metric", "champion", "challenger", "gain", "low", "high", "margin",
        "better", "says",
    }  # fmt: skip
    assert found == fought(world(1)).as_json()


# ------------------------------------------------------------------------------------------------- Which answers


@functools.cache
def asked() -> pd.DataFrame:
    """Answers as they are joined: the last has a row that breaks the contract."""
    at = pd.Series(pd.Timestamp(SINCE) + pd.to_timedelta(range(-2, 4), unit="D")).astype("datetime64[us, UTC]")
    lines = pd.DataFrame({"prediction": list("abcdef"), "id": list("uvwxyz"), "at": at, "version": 3, "score": 0.5})
    rows = pd.DataFrame({"id": list("uvwxyz"), "when": at, "size": np.arange(6.0)})
    rows.loc[3, "when"] = pd.Timestamp(SINCE) - pd.Timedelta(days=1)
    return with_inputs(lines, rows.iloc[:5]).assign(label=[0.0, 1.0] * 3)


def test_what_was_asked_stands_beside_the_answers() -> None:
    found = asked()
    assert found[WHOLE].tolist() == [True] * 5 + [False]
    assert found[INPUT + "size"].tolist()[:5] == [0, 1, 2, 3, 4]
    assert found["id"].tolist() == list("uvwxyz") and found["version"].tolist() == [3] * 6


def test_only_what_neither_has_seen_counts() -> None:
    """Neither an answer of before, nor a row of before that is asked again."""
    assert unseen(asked(), CONTRACT, SINCE)["prediction"].tolist() == ["c", "e"]
    nothing = unseen(asked().drop(columns=WHOLE), CONTRACT, SINCE)
    assert len(nothing) == 0
    both = answer(nothing, pd.DataFrame(), CONTRACT, lambda rows: rows["size"], lambda rows: rows["size"])
    assert len(both.y) == 0 and fought(both).better is None


@pytest.mark.parametrize("apart", [0, 1])
def test_what_is_asked_at_once_has_the_days_of_its_rows(apart: int) -> None:
    at = pd.Series(pd.Timestamp(SINCE) + pd.to_timedelta(np.arange(8) * apart, unit="D")).astype("datetime64[us, UTC]")
    lines = pd.DataFrame({"prediction": list("abcdefgh"), "at": at, "label": 1.0})
    when = (pd.Timestamp(SINCE) + pd.to_timedelta(range(8), unit="h")).astype("datetime64[us, UTC]")
    rows = with_inputs(lines, pd.DataFrame({"id": "x", "when": when, "size": 1.0}))
    both = answer(rows, pd.DataFrame(), CONTRACT, *[lambda asked: asked["size"].to_numpy()] * 2)
    assert both.at.tolist() == (at.tolist() if apart else when.tolist())


def test_many_rows_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "MOST_ROWS", 1)
    assert len(unseen(asked(), CONTRACT, SINCE)) == 1


def test_what_was_answered_in_the_shadow_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "LOT", 1)
    questions: list[float] = []

    def score(rows: pd.DataFrame) -> np.ndarray:
        assert list(rows) == ["id", "when", "size"]
        questions.extend(rows["size"])
        return rows["size"].to_numpy() / 10

    rows = unseen(asked(), CONTRACT, SINCE)
    shadows = pd.DataFrame({"prediction": ["e", "e", "q"], "score": [0.9, 0.8, 0.7]})
    both = answer(rows, shadows, CONTRACT, lambda rows: rows["size"].to_numpy(), score)
    assert both.challenger.tolist() == [0.2, 0.9] and both.champion.tolist() == [2, 4]
    assert questions == [2] and both.shadowed == 1
    assert "1 of them it had answered in the shadow" in fought(both).says
