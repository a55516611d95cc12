"""Lives are compared on the rows that all of them answered, and what is said of them is what was measured."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import ProjectError
from copier_mlops.backtest import report as lives
from copier_mlops.backtest.report import CALENDAR, LOOP, NEVER

ROWS = 3_000


def lived(**more: Any) -> dict[str, Any]:
    nothing = {
        "trainings": [],
        "moves": [],
        "proposals": [],
        "looks": [],
        "requests": 0,
        "failed": 0,
        "refused": 0,
        "compute": {},
    }
    return {**nothing, **more}


@pytest.fixture
def rows() -> pd.DataFrame:
    random = np.random.default_rng(3)
    at = pd.date_range("2024-01-01", periods=ROWS, freq="30min").to_series().reset_index(drop=True)
    y = (random.random(ROWS) < 0.3).astype("float64")
    y[:50] = np.nan
    return pd.DataFrame(
        {
            "id": [f"i{n}" for n in range(ROWS)],
            "month": at.dt.strftime("%Y-%m"),
            "day": at.dt.strftime("%Y-%m-%d"),
            "y": y,
        }
    )


def answers(rows: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    score = 0.3 + 0.3 * (rows["y"].fillna(0) - 0.3) + noise * random.normal(size=len(rows))
    return pd.DataFrame({"score": np.clip(score, 0.01, 0.99), "id": rows["id"]}).sample(frac=1, random_state=seed)


def test_the_better_life_is_said_to_be_better(rows: pd.DataFrame) -> None:
    three = {
        NEVER: answers(rows, 0.2, 1),
        CALENDAR: answers(rows, 0.1, 2),
        LOOP: answers(rows, 0.05, 3).head(ROWS - 10),
    }
    found = lives.compare("classification", ["brier", "auc"], rows, three, 50, 7)
    together = rows[rows["y"].notna() & rows["id"].isin(three[LOOP]["id"])]
    assert found["rows"] == len(together) < ROWS - 50
    score = three[LOOP].set_index("id")["score"].loc[together["id"]].to_numpy()
    assert found["values"][LOOP]["brier"] == pytest.approx(np.mean((score - together["y"].to_numpy()) ** 2))
    over = found["gains"][f"{LOOP} over {NEVER}"]
    assert over["value"] == pytest.approx(found["values"][NEVER]["brier"] - found["values"][LOOP]["brier"])
    assert 0 < over["low"] < over["value"] < over["high"]
    assert list(found["months"]) == ["2024-01", "2024-02", "2024-03"]
    said = lives.sentence(
        found, {NEVER: lived(), CALENDAR: lived(trainings=[{}] * 5), LOOP: lived(trainings=[{}] * 2, requests=1200)}
    )
    assert "was better than the one that was never trained again" in said
    assert "5 trainings; the loop took 2" in said and said.endswith("Of 1,200 requests 0 failed.")


def test_what_cannot_be_told_apart_is_not_called_better(rows: pd.DataFrame) -> None:
    two = {NEVER: answers(rows, 0.1, 1), LOOP: answers(rows, 0.1, 2)}
    found = lives.compare("classification", ["brier"], rows, two, 50, 7)
    assert "cannot be told from" in lives.sentence(found, {NEVER: lived(), LOOP: lived()})
    gain = found["gains"][f"{LOOP} over {NEVER}"]
    unknown = {**found, "gains": {f"{LOOP} over {NEVER}": {**gain, "low": None, "high": None}}}
    said = lives.sentence(unknown, {NEVER: lived(), LOOP: lived()})
    assert "cannot be told from" in said and "(n/a to n/a)" in said
    worse = lives.compare("classification", ["brier"], rows, {NEVER: two[NEVER], LOOP: answers(rows, 0.3, 2)}, 50, 7)
    assert "was worse than" in lives.sentence(worse, {NEVER: lived(), LOOP: lived()})


def test_nothing_to_compare_is_told(rows: pd.DataFrame) -> None:
    two = {NEVER: answers(rows, 0.2, 1), LOOP: answers(rows, 0.1, 1)}
    with pytest.raises(ProjectError, match="nothing to compare"):
        lives.compare("classification", ["brier"], rows.assign(y=np.nan), two, 20, 7)


def test_numbers_are_compared_by_their_error(rows: pd.DataFrame) -> None:
    two = {name: answers(rows, noise, 1) for name, noise in ((NEVER, 0.2), (LOOP, 0.1))}
    found = lives.compare("regression", ["mae"], rows, two, 50, 7)
    assert found["gains"][f"{LOOP} over {NEVER}"]["low"] > 0


def test_many_classes(rows: pd.DataFrame) -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet([1, 1, 1], len(rows))
    some = pd.DataFrame(shares, columns=["score a", "score b", "score c"]).assign(id=rows["id"])
    found = lives.compare("classification", ["brier", "log_loss"], rows, {NEVER: some, LOOP: some}, 20, 7)
    assert found["gains"][f"{LOOP} over {NEVER}"] == {"value": 0, "low": 0, "high": 0}


def test_the_page_shows_what_happened(rows: pd.DataFrame) -> None:
    two = {NEVER: answers(rows, 0.2, 1), LOOP: answers(rows, 0.1, 2)}
    looped = lived(
        trainings=[{"at": "2024-01-10T00:00:00+00:00", "version": 2, "passed": True, "missed": []}, {"at": "2024-02-10T00:00:00+00:00", "version": None, "passed": False, "missed": ["gate.at_least.auc"]}],
        moves=[{"at": "2024-01-11T00:00:00+00:00", "move": "promote", "version": 2}, {"at": "2024-01-20T00:00:00+00:00", "move": "roll_back", "version": 1}],
        proposals=[{"at": "2024-01-10T00:00:00+00:00", "action": "retrain", "allowed": True, "reasons": ["<worse>"], "refused": ""},
                   {"at": "2024-01-12T00:00:00+00:00", "action": "retrain", "allowed": False, "reasons": ["worse"], "refused": "the last was just now"}],
        looks=[{"at": "2024-01-10T00:00:00+00:00", "version": 1, "status": "worse", "says": "it is worse"}],
        requests=10,
    )  # fmt: skip
    both = {NEVER: lived(), LOOP: looped}
    found = lives.compare("classification", ["brier"], rows, two, 20, 7)
    report = {"start": "2024-01-01", "end": "2024-03-04", "look_days": 7, "label_days": 7, "faults": ["missing:x@2024-01-05"],
              "says": lives.sentence(found, both), "found": found, "lives": both}  # fmt: skip
    assert [(line["day"], line["event"]) for line in lives.events(looped)] == [
        ("2024-01-10", "training proposed"), ("2024-01-10", "training"), ("2024-01-11", "goes live"),
        ("2024-01-12", "training proposed, refused"),
        ("2024-01-20", "goes live again"), ("2024-02-10", "training"),
    ]  # fmt: skip
    pictures = lives.plots(found, both, report["start"], report["end"])
    assert set(pictures) == {"months brier", "timeline"} and all(
        one.startswith(b"\x89PNG") for one in pictures.values()
    )
    page = lives.page("Late", report, pictures)
    assert "<worse>" not in page and "&lt;worse&gt;" in page and page.count("data:image/png") == 2
    assert "<b>0</b><span>of 10 requests failed</span>" in page and "<th>proposals of the monitor</th>" in page
    for text in ("missing:x@2024-01-05", "not past the gate: gate.at_least.auc", "the last was just now", "was better"):
        assert text in page


def test_labels_of_the_timeline_do_not_overlap() -> None:
    places, widths = [0.0, 1.0, 5.0, 2.0], [3.0, 3.0, 2.0, 1.0]
    assert lives.levels(places, widths) == [0, 1, 0, 2]
    assert lives.levels([], []) == []


def test_the_colors_of_the_timeline_are_named_as_in_the_table(rows: pd.DataFrame) -> None:
    drawn = lives._timeline(lived(), "2024-01-01", "2024-03-01", ["missing:x@2024-02-28", "missing:y@2024-02-29"])
    title = drawn.axes[0].get_title(loc="left")
    assert all(status in title for status in lives.STATUS)
    assert len({text.xy for text in drawn.axes[0].texts}) == 2  # type: ignore[attr-defined]


def test_equal_strategies_are_called_equal(rows: pd.DataFrame) -> None:
    same = answers(rows, 0.1, 1)
    found = lives.compare("classification", ["brier", "auc"], rows, {NEVER: same, LOOP: same}, 20, 7)
    assert "is as good as" in lives.sentence(found, {NEVER: lived(), LOOP: lived()})
    assert lives.disagreements(found) == []


def test_metrics_that_disagree_are_named(rows: pd.DataFrame) -> None:
    """One orders well and says too much, the other says the mean for nearly all."""
    ordered, calibrated = answers(rows, 0.1, 1), answers(rows, 0.1, 2)
    ordered["score"] = np.clip(ordered["score"] + 0.4, 0, 1)
    calibrated["score"] = 0.3 + 0.001 * np.random.default_rng(0).normal(size=len(rows))
    found = lives.compare("classification", ["brier", "auc"], rows, {NEVER: ordered, LOOP: calibrated}, 20, 7)
    (said,) = lives.disagreements(found)
    assert "brier and auc disagree: trained by the loop is better than never trained again in brier" in said
    assert "and worse in auc" in said and "chance" not in said
    assert "decided by brier" in lives.why_two_metrics(found) and "decided by auc" in lives.why_two_metrics(found)
    alone = lives.compare("classification", ["brier"], rows, {NEVER: ordered, LOOP: calibrated}, 20, 7)
    assert lives.why_two_metrics(alone) == "" and lives.disagreements(alone) == []


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [("auc", [0.7, 0.72], (0.5, 1.0)), ("auc", [0.45], (0.43, 1.0)), ("r2", [0.3], (0.0, 1.0)), ("brier", [0.17, 0.2], (0.0, 0.23)),
     ("brier", [float("nan")], (0.0, 1.0)), ("bias", [-2.0, 1.0], (-2.3, 1.15))],
)  # fmt: skip
def test_axes_do_not_magnify_small_differences(metric: str, values: list[float], expected: tuple[float, float]) -> None:
    assert lives.ends(metric, values) == pytest.approx(expected)


def look(day: str, **more: Any) -> dict[str, Any]:
    return {"at": f"2024-01-{day}T00:00:00+00:00", "version": 1, "status": "good", "says": "", **more}


def test_a_fault_is_noticed_by_the_first_run_that_names_it() -> None:
    runs = [
        look("08", drifted=["x"], troubles=["late"]),
        look("15", drifted=["other"], troubles=["late"]),
        look("22", drifted=["x"], troubles=["late"]),
        look("29", status="worse", troubles=["late", "entries break the contract"], actions=["roll_back"]),
    ]
    life = lived(looks=runs)
    assert lives.noticed("celsius:x@2024-01-10", life) == runs[2]["at"]
    assert lives.noticed("missing:y@2024-01-10", life) == runs[3]["at"]
    assert lives.noticed("bad-champion@2024-01-10", life) == runs[3]["at"]
    assert lives.noticed("traffic:9@2024-01-10", life) is None
    assert lives.noticed("celsius:x@2024-01-29", life) is None
    report = {
        "faults": ["celsius:x@2024-01-10", "renamed:z:a:b@2024-01-29", "traffic:9@2024-01-10"],
        "lives": {LOOP: life},
    }
    assert [line["noticed on"] for line in lives.faults(report)] == ["2024-01-22", "not noticed", "not looked for"]
    assert "noticed on" not in lives.faults({**report, "lives": {NEVER: life}})[0]
