"""A change that weeks of the training show as well is told from one that they do not, and columns are weighed by the model."""

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.bundle.reference import reference
from copier_mlops.pipeline import season

CONTRACT = Contract(
    (
        Column("key", "integer", "id"),
        Column("at", "timestamp", "time"),
        Column("warm", "number"),
        Column("steady", "number", nullable=True),
        Column("kind", "string"),
        Column("open", "boolean"),
        Column("late", "boolean", "target"),
    )
)
START = pd.Timestamp("2024-01-01", tz="UTC")
WEEKS, PER_WEEK = 30, 300


def made(weeks: int = WEEKS, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Weeks in which it gets warmer, with predictions and truth."""
    random = np.random.default_rng(seed)
    at = START + pd.to_timedelta(np.sort(random.random(weeks * PER_WEEK)) * weeks * 7, unit="D")
    week = (at - START).days.to_numpy() // 7
    rows = pd.DataFrame(
        {
            "key": np.arange(len(at)),
            "at": at,
            "warm": 2 * week + random.normal(0, 5, len(at)),
            "steady": random.normal(0, 1, len(at)),
            "kind": random.choice(["a", "b", "c"], len(at)),
            "open": random.random(len(at)) < 0.5,
        }
    )
    return rows, random.random(len(at)), (random.random(len(at)) < 0.3).astype("float64")


def found(weeks: int = WEEKS) -> dict:
    rows, scores, y = made(weeks)
    return {"season": season.seasons(reference(rows, scores, CONTRACT, y), rows, scores, y, CONTRACT)}


def test_a_column_that_follows_the_season_may_change_more_the_later_it_is() -> None:
    profile = found()
    last = profile["season"]["until"]
    warm = [season.limit(profile, "feature", "warm", [last + 1 + 7 * week]) for week in (0, 6, 12)]
    assert warm == sorted(warm) and warm[2] > 1.5 * warm[0]
    for what, name in (
        ("feature", "steady"),
        ("feature", "kind"),
        ("feature", "open"),
        ("answer", "score"),
        ("label", "late"),
    ):
        assert season.limit(profile, what, name, [last + 50]) < 0.5 < warm[0]


def test_the_limit_is_that_of_the_time_since_the_training() -> None:
    profile = {"season": {"until": 1000, "limits": {"feature": {"x": [0.1, 0.2]}}}}
    found = {day: season.limit(profile, "feature", "x", [day, day + 3]) for day in (990, 1001, 1008, 5000)}
    assert found == pytest.approx({990: 0.125, 1001: 0.125, 1008: 0.25, 5000: 0.25})
    assert np.isnan(season.limit(profile, "feature", "other", [1001]))
    assert np.isnan(season.limit({}, "feature", "x", [1001]))


def test_a_week_like_others_is_within_the_limit_and_another_unit_is_not() -> None:
    rows, *_ = made(WEEKS + 4, seed=1)
    profile = found()
    warm = rows["warm"].to_numpy()
    week = (rows["at"] - START).dt.days.to_numpy() // 7
    edges = np.quantile(warm, np.linspace(0, 1, 41))[1:-1]

    def counts(values: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)

    before, now = warm[(week >= WEEKS - 8) & (week < WEEKS)], warm[week == WEEKS + 2]
    most = season.limit(profile, "feature", "warm", [profile["season"]["until"] + 15])
    assert season.change(counts(before), 0, counts(now), 0, ordered=True) <= most
    assert season.change(counts(before), 0, counts((now - 32) / 1.8), 0, ordered=True) > most


def test_change_sees_what_is_missing_and_what_is_not_comparable() -> None:
    ten = np.array([10, 10])
    assert season.change(ten, 0, ten, 0, ordered=False) == 0
    assert season.change(ten, 0, np.array([0, 0]), 20, ordered=True) == pytest.approx(np.pi)
    assert season.change(ten, 0, np.array([20, 0]), 0, ordered=False) == pytest.approx(np.pi / 2)
    assert np.isnan(season.change(ten, 0, np.array([0, 0]), 0, ordered=True))


@pytest.mark.parametrize("weeks", [1, season.FEWEST_WEEKS - 1])
def test_few_weeks_tell_nothing_of_seasons(weeks: int) -> None:
    assert found(weeks)["season"] == {}


def test_without_a_time_there_are_no_seasons() -> None:
    rows, scores, y = made()
    timeless = Contract(tuple(column for column in CONTRACT.columns if column.role != "time"))
    assert season.seasons(reference(rows, scores, timeless, y), rows, scores, y, timeless) == {}


def test_a_column_weighs_what_it_moves() -> None:
    rows, *_ = made(3)
    shares = season.sensitivity(
        lambda some: (some["warm"] + 0.1 * some["open"]).to_numpy(), rows, ["warm", "open", "kind"], 0
    )
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert shares["warm"] > 0.9 > shares["open"] > shares["kind"] == 0
    assert season.sensitivity(lambda some: np.zeros(len(some)), rows, ["warm"], 0) == {"warm": 0.0}
    assert season.sensitivity(lambda some: np.zeros(len(some)), rows.iloc[:0], ["warm"], 0) == {}


def test_the_training_range_is_beside_the_reference() -> None:
    rows, scores, y = made()
    rows["kind"] = rows["kind"].where(rows["at"] > START + pd.Timedelta(days=20), "once")
    late = rows[rows["at"] > START + pd.Timedelta(weeks=WEEKS - 8)]
    profile = reference(late, scores[late.index], CONTRACT, y[late.index])
    told = season.training(rows, profile, CONTRACT)
    assert told["rows"] == len(rows)
    warm = told["columns"]["warm"]
    assert (warm["low"], warm["high"]) == pytest.approx(tuple(rows["warm"].quantile([0.01, 0.99])))
    assert warm["below"] == pytest.approx((rows["warm"] < late["warm"].min()).mean(), abs=0.01)
    assert warm["below"] > 0.3 and warm["above"] < 0.01
    assert told["columns"]["kind"]["names"] == ["once"]


def test_the_training_range_names_no_single_row() -> None:
    rows, scores, y = made(1)
    profile = reference(rows, scores, CONTRACT, y)
    few = season.training(rows.head(40), profile, CONTRACT)["columns"]["warm"]
    assert (rows["warm"].head(40) < few["low"]).sum() >= season.FEWEST_NAMED - 1
    assert "warm" not in season.training(rows.head(10), profile, CONTRACT)["columns"]


def test_the_impact_of_a_change_is_what_the_season_does_not_explain() -> None:
    assert season.impact(0.1, np.pi, 0.0) == pytest.approx(0.1)
    assert season.impact(0.1, 1.0, 1.2) == 0
    assert season.impact(0.1, 1.2, 1.0) == pytest.approx(0.02 / np.pi)
    assert season.impact(float("nan"), np.pi, float("nan")) == pytest.approx(1)
