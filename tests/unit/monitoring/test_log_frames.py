"""Entries of the log become rows and answers; what is none, comes from the future or breaks the contract is counted."""

import dataclasses
import datetime as dt
from typing import Any

import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.monitoring.log_frames import Lot, read

CONTRACT = Contract(
    (
        Column("id", "string", role="id"),
        Column("when", "timestamp", role="time"),
        Column("size (cm)", "number", minimum=0),
        Column("flag", "boolean", nullable=True),
        Column("kind", "string", role="target", allowed=("x", "y", "z")),
    )
)
NOW = dt.datetime(2024, 1, 15, tzinfo=dt.UTC)
ANSWER = {"prediction": "x", "score": 0.5, "score x": 0.5, "score y": 0.3, "score z": 0.2}


def entry(number: int, at: str = "2024-01-10T09:30:00+00:00", **inputs: Any) -> dict[str, Any]:
    row = {"id": f"n{number}", "when": "2024-01-10T10:00:00Z", "size (cm)": 3.5, "flag": True, **inputs}
    return {
        "prediction": f"p{number}",
        "id": f"n{number}",
        "version": 3,
        "at": at,
        "way": "online",
        "inputs": row,
        "answer": ANSWER,
    }


def lot(*entries: Any, slices: tuple[str, ...] = ()) -> Lot:
    return read(entries, CONTRACT, slices=slices, first=dt.datetime(2024, 1, 8, tzinfo=dt.UTC), latest=NOW)


def test_rows_are_typed_and_answers_are_numbers() -> None:
    found = lot(entry(1), entry(2, flag=None), slices=("flag", "size (cm)", "month"))
    assert found.predictions["prediction"].tolist() == ["p1", "p2"]
    assert found.predictions[CONTRACT.answers].to_numpy().tolist() == [[0.5, 0.3, 0.2]] * 2
    assert str(found.predictions["at"].dtype) == "datetime64[us, UTC]"
    assert found.rows["when"].iloc[0] == pd.Timestamp("2024-01-10 10:00", tz="UTC")
    assert found.rows["flag"].isna().tolist() == [False, True]
    assert found.predictions["flag"].iloc[0] == "1.0" and pd.isna(found.predictions["flag"].iloc[1])
    assert found.predictions["month"].tolist() == ["2024-01"] * 2
    assert found.predictions["size (cm)"].tolist() == ["3.5", "3.5"]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {**entry(1), "at": "noon"},
        {**entry(1), "at": "0001-01-01T00:00:00+00:00"},
        {**entry(1), "at": None},
        {**entry(1), "version": "three"},
        {**entry(1), "inputs": None},
        {**entry(1), "answer": [0.5]},
    ],
)
def test_what_is_no_entry_is_counted(broken: dict[str, Any]) -> None:
    found = lot(broken, entry(2))
    assert (found.malformed, len(found.predictions), len(found.rows)) == (1, 1, 1)


def test_what_comes_from_the_future_is_counted() -> None:
    found = lot(entry(1, at="2024-01-16T00:00:00Z"), entry(2, at="2024-01-15T00:00:00"))
    assert (found.future, found.predictions["prediction"].tolist()) == (1, ["p2"])


def test_rows_that_break_the_contract_are_answers_all_the_same() -> None:
    found = lot(entry(1, **{"size (cm)": -1}), entry(2), entry(3, when=None), slices=("flag",))
    assert (found.set_aside, dict(found.reasons)) == (2, {"size (cm): below 0": 1, "when: missing": 1})
    assert len(found.predictions) == 3
    assert found.rows.index.tolist() == [1]
    assert pd.isna(found.predictions["flag"].iloc[0])


def test_values_that_were_pooled_are_counted() -> None:
    pooled = Contract(
        tuple(dataclasses.replace(one, unseen="pool") if one.name == "size (cm)" else one for one in CONTRACT.columns)
    )
    rows = [entry(1, **{"size (cm)": None}), entry(2), entry(3, **{"size (cm)": -1})]
    found = read(rows, pooled, slices=(), first=dt.datetime(2024, 1, 8, tzinfo=dt.UTC), latest=NOW)
    assert dict(found.reasons) == {"size (cm): below 0": 1, "size (cm): not seen in training": 1}
    assert found.set_aside == 1 and len(found.rows) == 2


def test_rows_of_before_are_not_looked_at() -> None:
    found = lot(entry(1, at="2024-01-07T00:00:00Z"), entry(2), slices=("flag",))
    assert len(found.predictions) == 2
    assert found.rows.index.tolist() == [1]


def test_an_answer_without_a_score_has_none() -> None:
    empty = {**entry(1), "answer": {"score x": None, "score y": "no"}}
    assert lot(empty).predictions[CONTRACT.answers].isna().all(axis=None)


def test_a_column_or_a_slice_that_the_contract_has_no_longer() -> None:
    found = lot(entry(1, gone=3), slices=("gone",))
    assert pd.isna(found.predictions["gone"].iloc[0])
    assert "gone" not in found.rows


def test_nothing() -> None:
    found = lot(slices=("flag", "month"))
    assert found.predictions.empty and found.rows.empty
    timeless = Contract(tuple(column for column in CONTRACT.columns if column.role != "time"))
    assert read([], timeless, slices=("month",), first=NOW, latest=NOW).predictions.empty


def test_example_rows_that_a_deployment_asked_are_no_answers() -> None:
    found = lot(entry(1), {**entry(2), "way": "smoke"}, {**entry(3), "way": "smoke", "at": "2024-01-16T00:00:00Z"})
    assert found.predictions["prediction"].tolist() == ["p1"] and len(found.rows) == 1
    assert (found.smoked, found.shadowed, found.future) == (2, 0, 0)


def test_what_was_answered_in_the_shadow_is_no_answer() -> None:
    shadow = {**entry(1), "way": "shadow", "version": 4}
    late = {**shadow, "at": "2024-01-16T00:00:00Z"}
    found = lot(entry(1), shadow, late, {**shadow, "answer": {"score x": "much"}})
    assert (len(found.predictions), len(found.rows), found.future, found.malformed) == (1, 1, 0, 0)
    assert found.shadowed == 3
    assert found.shadows["prediction"].tolist() == ["p1", "p1"] and found.shadows["version"].tolist() == [4, 4]
    assert found.shadows[CONTRACT.answers].iloc[0].tolist() == [0.5, 0.3, 0.2]
    assert found.shadows[CONTRACT.answers].iloc[1].isna().all()
    assert len(lot().shadows) == 0
