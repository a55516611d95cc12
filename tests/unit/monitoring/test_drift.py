"""Drift is seen when it is there, and hardly ever when it is not: measured on rows of many kinds."""

import functools
import json
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.bundle.calendar import days_of
from copier_mlops.bundle.reference import reference
from copier_mlops.monitoring.drift import Drift, DriftError, Window, compare
from copier_mlops.monitoring.drift_histograms import ENOUGH
from copier_mlops.pipeline import season

NUMBERS = ("normal", "partner", "other", "skewed", "mostly zero", "count", "degrees", "gaps", "constant")
NAMES = ("three", "ten", "sixty", "many")
CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("at", "timestamp", role="time"),
        *(Column(name, "number", nullable=True) for name in NUMBERS),
        Column("flag", "boolean"),
        *(Column(name, "string") for name in NAMES),
        Column("y", "boolean", role="target"),
    )
)
SIXTY = np.random.default_rng(5).dirichlet(np.ones(60))
MANY = 1 / np.arange(1, 400) ** 1.3
ROWS, WINDOW = 20_000, 5_000


def draw(rows: int, seed: int, start: str = "2024-01-01", days: int = 56) -> pd.DataFrame:
    """Rows of one distribution, with their score and truth."""
    random = np.random.default_rng(seed)
    normal = random.normal(size=rows)
    score = 1 / (1 + np.exp(1 - normal - random.normal(size=rows)))
    names = {"three": [0.36, 0.33, 0.31], "ten": np.ones(10) / 10, "sixty": SIXTY, "many": MANY / MANY.sum()}
    return pd.DataFrame(
        {
            "id": np.arange(rows).astype("str"),
            "at": pd.Timestamp(start, tz="UTC") + pd.to_timedelta(random.random(rows) * days, unit="D"),
            "normal": normal,
            "partner": 0.7 * normal + 0.7 * random.normal(size=rows),
            "other": random.random(rows),
            "skewed": np.exp(random.normal(size=rows)),
            "mostly zero": np.where(random.random(rows) < 0.9, 0, random.exponential(1, rows).round(2)),
            "count": random.poisson(3, rows).astype("float64"),
            "degrees": random.normal(50, 12, rows).round(),
            "gaps": np.where(random.random(rows) < 0.3, np.nan, random.gamma(2, 2, rows)),
            "constant": np.full(rows, 7.0),
            "flag": (random.random(rows) < 0.2).astype("float64"),
            **{
                name: np.array([f"{name[0]}{place}" for place in range(len(share))])[
                    random.choice(len(share), rows, p=share)
                ]
                for name, share in names.items()
            },
            "score": score,
            "y": (random.random(rows) < score).astype("float64"),
        }
    ).astype(dict.fromkeys(NAMES, "str"))


TYPICAL = draw(ROWS, 0)


@functools.cache
def profile() -> dict[str, Any]:
    """As a bundle has it: written and read again."""
    found = reference(TYPICAL, TYPICAL["score"].to_numpy(), CONTRACT, TYPICAL["y"].to_numpy())
    return dict(json.loads(json.dumps(found, sort_keys=True)))


def look(profile: dict[str, Any], rows: pd.DataFrame, seed: int = 0) -> Drift:
    window = Window(profile, seed)
    window.update(rows, rows["score"].to_numpy(), rows["y"].to_numpy())
    return compare(profile, window)


def line(found: Drift, name: str) -> dict[Hashable, Any]:
    return next(one for one in found.table.to_dict("records") if one["name"] == name)


# ------------------------------------------------------------------------------------------------------- The bars


def test_rows_of_the_same_kind_hardly_ever_alarm() -> None:
    found = [look(profile(), draw(WINDOW, seed)) for seed in range(100, 140)]
    assert sum(one.drifted for one in found) <= 2
    assert all(one.estimated is not None for one in found)


def shifted(name: str, by: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows.assign(**{name: rows[name] + by * TYPICAL[name].std()})


def more_of(name: str, value: object, points: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        others = np.flatnonzero((rows[name] != value).to_numpy())
        chosen = np.random.default_rng(1).permutation(others)[: int(points * len(rows))]
        return rows.assign(**{name: rows[name].mask(np.isin(np.arange(len(rows)), chosen), value)})

    return change


CHANGES = {
    "a shift": ("normal", shifted("normal", 0.2), "most values are"),
    "of what is skewed": ("skewed", shifted("skewed", 0.2), "most values are"),
    "of whole numbers": ("count", shifted("count", 0.2), "most values are"),
    "of what has gaps": ("gaps", shifted("gaps", 0.2), "most values are"),
    "a share": ("three", more_of("three", "t1", 0.05), "t1 is "),
    "a share of many": ("sixty", more_of("sixty", "s3", 0.05), "s3 is "),
    "a flag": ("flag", more_of("flag", 1.0, 0.05), "true is "),
    "a value instead of zero": ("mostly zero", more_of("mostly zero", 1.0, 0.05), "of the values, in the reference"),
    "a unit": ("degrees", lambda rows: rows.assign(degrees=(rows["degrees"] - 32) / 1.8), "lie below the reference"),
    "a name": (
        "three",
        lambda rows: rows.assign(three=rows["three"].str.replace("t2", "T-2")),
        "that the reference does not have (T-2)",
    ),
    "gaps": ("other", more_of("other", np.nan, 0.05), "missing in 5 % of the rows, in the reference in 0 %"),
    "a constant": ("constant", lambda rows: rows.assign(constant=7.5), "the reference"),
    "a dead sensor": ("degrees", lambda rows: rows.assign(degrees=np.nan), "missing in 100 %"),
}


@pytest.mark.parametrize(("name", "change", "says"), CHANGES.values(), ids=CHANGES)
def test_what_changed_is_seen_in_one_window_and_told(
    name: str, change: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    found = [look(profile(), change(draw(WINDOW, seed))) for seed in range(200, 204)]
    assert all(line(one, name)["drifted"] for one in found)
    assert all(says in line(one, name)["why"] and line(one, name)["why"] in one.reasons for one in found)
    others = [one.table.loc[one.table["drifted"] & (one.table["name"] != name), "name"].tolist() for one in found]
    assert sum(map(len, others)) <= 1


def test_columns_that_go_together_otherwise_while_each_stays() -> None:
    for seed in range(5):
        rows = draw(WINDOW, 300 + seed)
        found = look(profile(), rows.assign(partner=np.random.default_rng(seed).permutation(rows["partner"])))
        assert found.together.drifted
        assert found.together.auc > found.together.limit
        assert found.together.why.startswith("normal and partner go together otherwise than before (correlation 0.")
        assert not found.table["drifted"].any()


def test_a_small_reference_alarms_as_seldom() -> None:
    alarms = 0
    for seed in range(3):
        rows = draw(2_000, seed)
        small = reference(rows, rows["score"].to_numpy(), CONTRACT, rows["y"].to_numpy())
        alarms += sum(look(small, draw(WINDOW, 400 + 10 * seed + place)).drifted for place in range(5))
        assert line(look(small, shifted("normal", 0.2)(draw(WINDOW, seed + 500))), "normal")["drifted"]
    assert alarms <= 1


def test_labels_and_answers_drift_as_well() -> None:
    rows = draw(WINDOW, 1)
    found = look(profile(), rows.assign(score=rows["score"] ** 1.3, y=more_of("y", 1.0, 0.05)(rows)["y"]))
    assert found.table.loc[found.table["drifted"], ["what", "name"]].to_numpy().tolist() == [
        ["answer", "score"],
        ["label", "y"],
    ]
    assert "true is " in line(found, "y")["why"]


@pytest.mark.parametrize("count", [0, 1, 12, ENOUGH, 199])
def test_few_rows_tell_nothing_and_say_so(count: int) -> None:
    found = look(profile(), draw(max(count, 1), 0).head(count))
    assert not found.drifted
    assert found.rows == count
    assert "rows: nothing can be told" in found.together.why
    if count < ENOUGH:
        assert found.table["why"].str.contains(f"there are only {count} rows: nothing can be told").all()
        assert found.estimated is None
        assert f"only {count} answers" in found.estimated_why
    json.dumps(found.as_json(), allow_nan=False)


def test_a_reference_of_few_rows_tells_nothing() -> None:
    rows = draw(12, 0)
    small = reference(rows, rows["score"].to_numpy(), CONTRACT, rows["y"].to_numpy())
    found = look(small, draw(WINDOW, 1))
    assert not found.drifted
    assert found.table["why"].str.contains("the reference has only 12 rows").all()


def test_a_profile_of_another_release_or_bundle_is_refused() -> None:
    for version in ({}, {"version": 1}, {"version": 3}):
        with pytest.raises(DriftError, match="Train again"):
            Window({**profile(), "version": None, **version})
    with pytest.raises(ValueError, match="another profile"):
        compare({**profile(), "rows": 1}, Window(profile()))


# ---------------------------------------------------------------------------------------------------------- Time


def test_what_follows_the_calendar_is_told_and_does_not_count() -> None:
    contract = Contract((*CONTRACT.columns[:3], Column("month", "integer"), *CONTRACT.columns[-1:]))
    rows = TYPICAL.assign(month=lambda rows: rows["at"].dt.month.astype("float64"))
    known = reference(rows, rows["score"].to_numpy(), contract)
    later = draw(WINDOW, 1, "2024-05-10", 7).assign(month=5.0)
    window = Window(known)
    window.update(later, later["score"].to_numpy())
    found = compare(known, window)
    month = line(found, "month")
    assert not found.drifted
    assert not month["counted"]
    assert month["effect"] > 1
    assert "month: follows the calendar (month) and does not count; " in month["why"]
    assert "month" not in found.together.columns
    shifted_later = Window(known)
    shifted_later.update(later.assign(normal=later["normal"] + 1), later["score"].to_numpy())
    assert compare(known, shifted_later, ignored=["normal"]).table["drifted"].sum() == 0
    assert compare(known, shifted_later).table["drifted"].sum() == 1


def test_a_week_of_weather_is_no_drift_but_another_unit_is() -> None:
    """Rows of a day share their weather: five thousand of them are but seven days of it."""
    contract = Contract((*CONTRACT.columns[:4], *CONTRACT.columns[-1:]))
    weather = 60 + 8 * np.random.default_rng(3).normal(size=400).cumsum() / np.sqrt(np.arange(2, 402))
    weather += np.random.default_rng(4).normal(0, 5, 400)

    def rows(count: int, seed: int, day: int, days: int) -> pd.DataFrame:
        found = draw(count, seed, str(pd.Timestamp("2024-01-01") + pd.Timedelta(days=day)), days)
        since = (found["at"] - pd.Timestamp("2024-01-01", tz="UTC")).dt.days
        return found.assign(partner=weather[since] + found["partner"])

    then = rows(ROWS, 0, 0, 56)
    known = reference(then, then["score"].to_numpy(), contract)
    plain = {**known, "days": None}
    alarms, naive = 0, 0
    for week in range(8, 22):
        now = rows(WINDOW, week, 7 * week, 7)
        alarms += look_at(known, now).drifted
        naive += look_at(plain, now).drifted
        celsius = look_at(known, now.assign(partner=(now["partner"] - 32) / 1.8))
        assert line(celsius, "partner")["drifted"]
    assert alarms <= 1
    assert naive == 14  # as if each row were drawn for itself


def look_at(profile: dict[str, Any], rows: pd.DataFrame) -> Drift:
    window = Window(profile)
    window.update(rows, rows["score"].to_numpy())
    return compare(profile, window)


# ------------------------------------------------------------------------------------------------------- Seasons


def seasoned(limit: float, **weights: float) -> dict[str, Any]:
    """The profile of a training whose weeks differ by so much in each column."""
    columns = {name: [limit / season.MARGIN] for name in profile()["columns"]}
    known = {"until": int(days_of(TYPICAL["at"]).max()), "limits": {"feature": columns}}
    return {**profile(), "season": known, "weights": weights}


def test_a_change_that_the_season_explains_is_a_note_and_no_alarm() -> None:
    later = draw(WINDOW, 300).assign(degrees=lambda rows: rows["degrees"] + 6)
    change = line(look(profile(), later), "degrees")["change"]
    explained, beyond = (look(seasoned(change + by), later) for by in (0.01, -0.01))
    assert line(explained, "degrees")["changed"] and line(explained, "degrees")["seasonal"]
    assert not line(explained, "degrees")["drifted"] and not explained.drifted and explained.reasons == []
    assert explained.notes == [
        "1 of 16 columns differ from the reference, no more than weeks of the training differ from those before them: degrees"
    ]
    assert "degrees" not in explained.together.columns
    assert line(beyond, "degrees")["drifted"] and beyond.notes == [] and "degrees" in beyond.reasons[0]


def test_a_column_that_hardly_moves_the_predictions_is_a_note() -> None:
    later = shifted("degrees", 0.5)(shifted("other", 0.5)(draw(WINDOW, 301)))
    found = look(seasoned(0.0, degrees=0.001, other=0.3), later)
    assert (line(found, "degrees")["minor"], line(found, "other")["minor"]) == (True, False)
    assert line(found, "other")["drifted"] and "degrees" in found.notes[0] and "other" not in found.notes[0]


def test_what_moves_the_predictions_most_is_told_first() -> None:
    later = shifted("degrees", 0.5)(shifted("other", 1)(draw(WINDOW, 302)))
    found = look(seasoned(0.0, degrees=0.7, other=0.1), later)
    assert [reason.split(":")[0] for reason in found.reasons[:2]] == ["degrees", "other"]


BROKEN = {
    "a unit": ("degrees", lambda rows: rows.assign(degrees=(rows["degrees"] - 160) / 1.8)),
    "a name": CHANGES["a name"],
    "gaps": ("other", more_of("other", np.nan, 0.1)),
    "a dead sensor": CHANGES["a dead sensor"],
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_a_fault_of_the_source_is_no_season_and_never_minor(case: tuple[Any, ...]) -> None:
    name, change = case[:2]
    wide = {**seasoned(np.pi, **{name: 0.0, "normal": 1.0})}
    assert line(look(wide, change(draw(WINDOW, 305))), name)["drifted"]


def test_a_frequent_name_that_is_gone_is_a_fault_unless_weeks_of_the_training_lack_it() -> None:
    """Its rows may carry another name that breaks the contract, and rows that break it are not in the log."""
    later = draw(WINDOW, 307)
    later = later[later["three"] != "t2"]
    assert line(look(seasoned(0.0, three=0.0, normal=1.0), later), "three")["drifted"]
    assert line(look(seasoned(np.pi, three=0.0, normal=1.0), later), "three")["seasonal"]
    rare = draw(WINDOW, 308)
    rare = rare[rare["sixty"] != min(rare["sixty"].unique(), key=list(rare["sixty"]).count)]
    assert not line(look(seasoned(0.0, sixty=0.0, normal=1.0), rare), "sixty")["drifted"]


def test_gaps_that_weeks_of_the_training_have_are_seasonal() -> None:
    later = BROKEN["gaps"][1](draw(WINDOW, 306))
    known = seasoned(np.pi, other=0.3)
    known["season"]["limits"]["missing"] = {"other": [1.0]}
    assert line(look(known, later), "other")["seasonal"]


def test_a_name_that_the_training_has_is_no_fault() -> None:
    known = {**seasoned(np.pi, three=0.3), "training": {"rows": 9, "columns": {"three": {"names": ["T-2"]}}}}
    assert line(look(known, CHANGES["a name"][1](draw(WINDOW, 307))), "three")["seasonal"]


def test_the_training_range_is_in_the_sentence() -> None:
    trained = {"degrees": {"low": -5.0, "high": 80.0, "below": 0.34, "above": 0.0}, "three": {"names": ["T-2"]}}
    known = {**profile(), "training": {"rows": 9, "columns": trained}}
    cold = CHANGES["a unit"][1](draw(WINDOW, 303))
    why = line(look(known, cold), "degrees")["why"]
    assert "lie below the reference (so do 34 % of the training rows, most of which lie in -5 to 80)" in why
    named = CHANGES["a name"][1](draw(WINDOW, 304))
    assert "does not have (T-2); the training rows have T-2" in line(look(known, named), "three")["why"]
