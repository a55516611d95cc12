"""A window counts whatever comes, in parts or whole, in memory that stays as it is."""

import json

import numpy as np
import pandas as pd
import pytest

from copier_mlops.bundle.reference import reference
from copier_mlops.monitoring.drift import Window, compare
from copier_mlops.monitoring.drift_histograms import DAYS, RESERVOIR, STRANGE, Counts

from .test_drift import CONTRACT, ROWS, TYPICAL, WINDOW, draw, line, profile


def test_parts_come_to_the_same_as_the_whole() -> None:
    rows = draw(WINDOW, 1)
    whole, parts = Window(profile()), Window(profile())
    whole.update(rows, rows["score"].to_numpy(), rows["y"].to_numpy())
    for at in range(0, WINDOW, 999):
        some = rows.iloc[at : at + 999]
        parts.update(some.astype({"three": "category"}), some["score"].to_numpy())
        parts.update(some.head(0), np.empty(0), some["y"].to_numpy())  # labels come later
    one, other = (compare(profile(), window) for window in (whole, parts))
    pd.testing.assert_frame_equal(one.table, other.table)
    assert one.estimated is not None
    assert other.estimated is not None
    pd.testing.assert_frame_equal(one.estimated, other.estimated)


def size(window: Window) -> int:
    kept = sum(values.nbytes for values in window.kept.values())
    counts = [*window.columns.values(), *window.answers.values(), *window.labels.values()]
    return kept + sum(one.counts.nbytes + sum(map(len, one.strange)) for one in counts) + len(window.days)


def test_memory_does_not_grow_with_rows() -> None:
    window, sizes = Window(profile()), []
    for part in range(6):
        rows = draw(10_000, part).assign(three=[f"new {part} {place}" for place in range(10_000)])
        rows["at"] += pd.to_timedelta(np.arange(10_000) % 3000, unit="D") * (part + 1)
        window.update(rows, rows["score"].to_numpy())
        sizes.append(size(window))
    assert max(sizes) < 1.1 * sizes[0]
    assert len(window.columns["three"].strange) <= STRANGE
    assert len(window.days) <= DAYS + 1
    assert {len(values) for values in window.kept.values()} == {RESERVOIR}


def test_each_row_is_kept_with_the_same_chance() -> None:
    window = Window(profile(), seed=1)
    for part in range(8):
        rows = draw(5_000, part).assign(normal=float(part))
        window.update(rows, rows["score"].to_numpy())
    kept = np.bincount(window.kept["normal"].astype(int), minlength=8)
    assert kept.sum() == RESERVOIR
    assert np.abs(kept - RESERVOIR / 8).max() < 5 * np.sqrt(RESERVOIR / 8)


def test_whatever_comes_is_counted() -> None:
    rows = draw(WINDOW, 0)
    now_and_then = [None, 1] * (WINDOW // 2)
    strange = rows.drop(columns="other").assign(
        normal=np.inf,
        partner=pd.Series(now_and_then, dtype=object),
        flag=pd.Series(now_and_then, dtype="boolean"),
        three=None,
        ten=3,
        sixty="x" * 100,
    )
    window = Window(profile())
    window.update(strange, np.full(WINDOW, np.nan), np.full(WINDOW, np.nan))
    found = compare(profile(), window)
    missing = found.table.set_index("name")["missing_now"]
    assert missing[["other", "normal", "partner", "flag", "three", "score"]].tolist() == [1, 1, 0.5, 0.5, 1, 1]
    assert line(found, "ten")["unseen_values"] == "3"
    assert line(found, "sixty")["unseen_values"] == "x" * 37 + "..."
    assert found.drifted
    json.dumps(found.as_json(), allow_nan=False)
    with pytest.raises(ValueError, match="do not belong to 5000 rows"):
        window.update(rows, np.zeros(3))


def test_bins_count_every_value_once() -> None:
    values = pd.Series(np.r_[np.random.default_rng(0).normal(size=1000), np.nan, -50, 50])
    column = reference(TYPICAL, np.zeros(ROWS), CONTRACT)["columns"]["normal"]
    counts = Counts(column)
    counts.add(values)
    assert (counts.known, counts.missing) == (1002, 1)
    assert (counts.counts[0], counts.counts[-1]) == (1, 1)
