"""What the log tells is counted by version, day and week, and only what the version that answers was asked is compared."""

import datetime as dt
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import Column, Contract
from copier_mlops.bundle.reference import reference
from copier_mlops.monitoring.label_join import Labels
from copier_mlops.monitoring.log_aggregator import Period, Seen
from copier_mlops.monitoring.log_frames import read

CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("size", "number"),
        Column("colour", "string"),
        Column("late", "boolean", role="target"),
    )
)
NOW = dt.datetime(2024, 1, 29, tzinfo=dt.UTC)
WHEN = Period(now=NOW, since=NOW - dt.timedelta(days=7), until=NOW, first=NOW - dt.timedelta(days=21))


def world(rows: int, seed: int, moved: float = 0.0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows, scores and the truth."""
    random = np.random.default_rng(seed)
    size = random.normal(size=rows) + moved
    frame = pd.DataFrame(
        {
            "id": [f"n{seed}-{place}" for place in range(rows)],
            "size": size,
            "colour": random.choice(["red", "blue"], rows),
        }
    )
    score = 1 / (1 + np.exp(1 - size))
    return frame, score, (random.random(rows) < score).astype("float64")


@functools.cache
def profile() -> Mapping[str, Any]:
    rows, scores, y = world(3000, 0)
    return reference(rows, scores, CONTRACT, y)


def entries(
    rows: int, seed: int, until: dt.datetime = NOW, days: float = 21, version: int = 2, moved: float = 0.0
) -> list[dict[str, Any]]:
    """Entries of the log, spread over the days before a moment."""
    frame, scores, _ = world(rows, seed, moved)
    moments = [until - dt.timedelta(days=days * (1 - place / rows)) for place in range(rows)]
    return [
        {
            "prediction": f"p{line['id']}", "id": line["id"], "version": version, "at": at.isoformat(), "way": "online",
            "inputs": line, "answer": {"score": float(score)},
        }
        for line, at, score in zip(frame.to_dict("records"), moments, scores, strict=True)
    ]  # fmt: skip


def labels_of(rows: int, seed: int, moved: float = 0.0) -> pd.DataFrame:
    frame, _, y = world(rows, seed, moved)
    return pd.DataFrame({"id": frame["id"], "late": y})


def look(
    *lots: list[dict[str, Any]], labels: pd.DataFrame | None = None, when: Period = WHEN, known: Any = None
) -> Seen:
    first, until, now = (pd.Timestamp(one) for one in (when.first, when.until, when.now))
    late = Labels(CONTRACT, first, until, now)
    if labels is not None:
        late.add(labels)
    seen = Seen.begin(late, profile() if known is None else known, 0)
    for lot in lots:
        seen.counts["entries"] += len(lot)
        seen.take(read(lot, CONTRACT, slices=("colour",), first=when.first, latest=when.now), 2, CONTRACT.answers, when)
    return seen


def test_versions_days_and_weeks_are_counted() -> None:
    old, new = entries(420, 1, version=1, until=NOW - dt.timedelta(days=10)), entries(210, 2, days=10)
    seen = look(old[:200], new, old[200:])
    assert seen.versions[2].rows == 210 and seen.versions[1].rows == 220
    assert seen.versions[1].inside == 0
    assert seen.answers == seen.versions[2].inside == 147
    assert seen.versions[1].first < seen.versions[1].last < seen.versions[2].first
    assert sum(seen.days.values()) == sum(seen.by_week.values()) == 430
    assert set(seen.by_week) == {"2024-01-08", "2024-01-15", "2024-01-22"}
    assert seen.ways == {"online": 147}
    assert seen.newest == seen.versions[2].last
    assert (seen.before(2), seen.before(1), seen.before(7)) == (1, None, None)


def test_only_rows_of_the_version_and_the_window_are_compared() -> None:
    seen = look(entries(210, 1), entries(210, 2, version=1))
    assert seen.window and seen.window.rows == 70
    assert sum(week.rows for week in seen.weeks.values()) == 210
    broken = entries(21, 3)
    broken[-1]["inputs"]["size"] = "large"
    broken[-2]["answer"] = {"score": None}
    seen = look(broken)
    assert seen.window and seen.window.rows == 5
    assert seen.counts["set_aside"] == 1 and seen.counts["unanswered"] == 1
    assert dict(seen.reasons) == {"size: not a number": 1}


def test_labels_are_joined_while_it_is_read() -> None:
    joined = look(entries(210, 1), labels=labels_of(100, 1)).labels.joined()
    assert len(joined.rows) == 100
    assert set(joined.rows["colour"]) == {"red", "blue"}


def test_without_a_profile_the_rest_is_seen() -> None:
    seen = look(entries(210, 1), known={"version": 1})
    assert seen.window is None and "Train again" in seen.why
    assert seen.answers == 70


def test_an_empty_log() -> None:
    seen = look([])
    assert (seen.answers, seen.newest, seen.before(2)) == (0, None, None)


def test_the_parts_in_which_it_comes_do_not_matter() -> None:
    whole = entries(210, 1)
    together, apart = look(whole), look(whole[:50], whole[50:])
    assert together.versions == apart.versions and together.days == apart.days
    assert together.window and apart.window
    assert together.window.columns["size"].counts.tolist() == apart.window.columns["size"].counts.tolist()


def in_the_shadow(answered: list[dict[str, Any]], version: int, score: float = 0.5) -> list[dict[str, Any]]:
    return [{**one, "way": "shadow", "version": version, "answer": {"score": score}} for one in answered]


def test_what_was_answered_in_the_shadow_changes_nothing() -> None:
    whole = entries(210, 1)
    plain, beside = (
        look(lot, labels=labels_of(100, 1))
        for lot in (whole, [*in_the_shadow(whole, 3), *whole, *in_the_shadow(whole, 3)])
    )
    assert beside.counts["shadow"] == 420
    assert (beside.versions, beside.days, beside.ways, beside.reasons) == (
        plain.versions,
        plain.days,
        plain.ways,
        plain.reasons,
    )
    assert plain.window and beside.window and plain.window.rows == beside.window.rows
    pd.testing.assert_frame_equal(plain.labels.joined().rows, beside.labels.joined().rows)
    assert len(beside.beside()) == 0


def test_answers_in_the_shadow_are_kept_where_there_is_a_label() -> None:
    """In whatever order they come, of the challenger alone, and of an id that was asked again the newest."""
    whole = entries(210, 1)
    again = [
        {**one, "prediction": f"again {one['prediction']}", "at": (NOW - dt.timedelta(hours=1)).isoformat()}
        for one in whole[:10]
    ]
    labels = Labels(CONTRACT, *(pd.Timestamp(one) for one in (WHEN.first, WHEN.until, NOW)))
    labels.add(labels_of(100, 1))
    seen = Seen.begin(labels, profile(), 0, challenger=3)
    for lot in (in_the_shadow(whole, 3), whole, [*again, *in_the_shadow(again, 3)], in_the_shadow(whole, 4, 0.9)):
        seen.take(read(lot, CONTRACT, slices=(), first=WHEN.first, latest=WHEN.now), 2, CONTRACT.answers, WHEN)
    joined, beside = labels.joined().rows, seen.beside()
    assert len(joined) == len(beside) == 100
    assert set(joined["prediction"]) == set(beside["prediction"]) and set(beside["version"]) == {3}
    assert joined["prediction"].str.startswith("again").sum() == 10
    assert joined["input size"].notna().all()  # what was asked comes along
