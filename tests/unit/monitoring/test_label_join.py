"""Each label counts once, for the answer that it judges, or is set aside with a reason; never two ways."""

import itertools
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.monitoring import label_join
from copier_mlops.monitoring.label_join import Joined, Labels, settle, waits

SIZE = Column("size", "number")
CONTRACT = Contract((Column("id", "string", role="id"), SIZE, Column("late", "boolean", role="target")))
SINCE, NOW = pd.Timestamp("2024-01-08", tz="UTC"), pd.Timestamp("2024-01-15", tz="UTC")


def answers(*lines: tuple[str | None, Any, str]) -> pd.DataFrame:
    """Predictions: name, id, moment."""
    frame = pd.DataFrame(list(lines), columns=["prediction", "id", "at"])
    moments = pd.to_datetime(frame["at"], utc=True, format="ISO8601")
    return frame.assign(at=moments.astype("datetime64[us, UTC]"), version=1)


def join(
    given: dict[str, list[Any]], *lots: pd.DataFrame, contract: Contract = CONTRACT, until: pd.Timestamp = NOW
) -> Joined:
    taken = Labels(contract, SINCE, until, NOW)
    if given:
        taken.add(pd.DataFrame(given))
    for lot in lots:
        taken.take(lot)
    found = taken.joined()
    assert len(found.rows) + sum(found.reasons.values()) == found.labels  # each of them once
    return found


def pairs(found: Joined) -> list[tuple[str, float]]:
    return list(zip(found.rows["prediction"], found.rows["label"], strict=True))


def test_by_prediction_and_by_id() -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p2", "b", "2024-01-10"), ("p3", "c", "2024-01-11"))
    found = join({"prediction_id": ["p1", None], "id": [None, "b"], "late": ["yes", 0]}, lot)
    assert pairs(found) == [("p1", 1.0), ("p2", 0.0)]
    assert found.answered == 2
    assert waits(3, found)["answers"] == 1


def test_the_prediction_counts_where_a_label_names_both() -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p2", "b", "2024-01-10"))
    assert pairs(join({"prediction_id": ["p1"], "id": ["b"], "late": [1]}, lot)) == [("p1", 1.0)]


def test_an_id_that_was_answered_several_times_counts_once_for_the_newest_before_its_label() -> None:
    lots = [
        answers(("p3", "a", "2024-01-11")),  # in any order
        answers(("p1", "a", "2024-01-09"), ("p4", "a", "2024-01-13")),
        answers(("p2", "a", "2024-01-10")),
    ]
    for order in itertools.permutations(lots):
        found = join({"id": ["a"], "late": [1], "labelled_at": ["2024-01-12"]}, *order)
        assert pairs(found) == [("p3", 1.0)]
        assert found.answered == 3  # and none of these waits
    assert pairs(join({"id": ["a"], "late": [1]}, *lots)) == [("p4", 1.0)]  # a label without a time comes last of all


def test_an_id_that_was_labelled_in_two_ways_counts_once() -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p2", "a", "2024-01-10"))
    found = join({"prediction_id": ["p1", "p2", None], "id": [None, None, "a"], "late": [1, 1, 1]}, lot)
    assert pairs(found) == [("p2", 1.0)]
    assert found.reasons == {"repeated": 2}


def test_an_answer_that_was_logged_twice_counts_once() -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p1", "a", "2024-01-09"))
    assert pairs(join({"prediction_id": ["p1"], "late": [1]}, lot, lot)) == [("p1", 1.0)]


def test_the_same_label_again_is_one() -> None:
    found = join({"id": ["a", "a", "a"], "late": [1, "true", 1.0]}, answers(("p1", "a", "2024-01-09")))
    assert pairs(found) == [("p1", 1.0)]
    assert found.reasons == {"repeated": 2}


def test_of_labels_that_contradict_each_other_the_newest_is_right_if_all_have_a_time() -> None:
    lot = answers(("p1", "a", "2024-01-09"))
    given = {"id": ["a", "a", "a"], "late": [1, 0, 1], "labelled_at": ["2024-01-10", "2024-01-12", "2024-01-11"]}
    found = join(given, lot)
    assert pairs(found) == [("p1", 0.0)]
    assert found.reasons == {"corrected": 2}


@pytest.mark.parametrize("times", [[None, None], ["2024-01-10", None], ["2024-01-10", "2024-01-10"]])
def test_of_others_nobody_knows(times: list[str | None]) -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p2", "b", "2024-01-09"))
    found = join({"id": ["a", "a", "b"], "late": [1, 0, 1], "labelled_at": [*times, None]}, lot)
    assert pairs(found) == [("p2", 1.0)]
    assert found.reasons == {"contradictory": 2}


def test_a_prediction_and_its_id_may_contradict_each_other_too() -> None:
    lot = answers(("p1", "a", "2024-01-09"))
    given = {"prediction_id": ["p1", None], "id": [None, "a"], "late": [1, 0]}
    assert join(given, lot).reasons == {"contradictory": 2}
    found = join({**given, "labelled_at": ["2024-01-11", "2024-01-10"]}, lot)
    assert (pairs(found), found.reasons) == ([("p1", 1.0)], {"corrected": 1})


def test_what_cannot_be_used_is_counted_by_its_reason() -> None:
    given = {
        "id": ["a", "", "b", "c", "d", "e", "f", "g", "old"],
        "late": ["maybe", 1, None, 1, 1, 1, 1, 1, 1],
        "labelled_at": ["2024-01-10"] * 3 + ["noon", "2024-01-15T00:06", "2024-01-08", "2024-01-10", "2023-12-31", "2024-01-10"],
    }  # fmt: skip
    lot = answers(*((f"p{name}", name, "2024-01-09") for name in "abcdeg"), ("p0", "old", "2024-01-01"))
    found = join(given, lot)
    assert not len(found.rows)
    assert found.reasons == {
        "no_id": 1, "no_value": 1, "wrong_value": 1, "no_time": 1, "future": 1, "before_prediction": 1, "outside_window": 2,
        "unknown": 1,
    }  # fmt: skip
    assert found.wrong == {"late: neither true nor false": 1}
    assert set(found.reasons) <= set(label_join.REASONS)


def test_clocks_may_differ_a_little() -> None:
    given = {"id": ["a", "b"], "late": [1, 1], "labelled_at": ["2024-01-15T00:04", "2024-01-08T23:56"]}
    found = join(given, answers(("p1", "a", "2024-01-09"), ("p2", "b", "2024-01-09")))
    assert len(found.rows) == 2


def test_a_label_of_a_later_answer_does_not_judge_an_older_one() -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p2", "a", "2024-01-12"))
    until = pd.Timestamp("2024-01-10", tz="UTC")
    assert join({"id": ["a"], "late": [1]}, lot, until=until).reasons == {"outside_window": 1}
    early = {"id": ["a"], "late": [1], "labelled_at": ["2024-01-11"]}
    assert pairs(join(early, lot, until=until)) == [("p1", 1.0)]


def test_without_labels_or_without_answers() -> None:
    assert join({}, answers(("p1", "a", "2024-01-09"))).rows.empty
    assert join({"id": ["a"], "late": [1]}).reasons == {"unknown": 1}
    assert join({}).labels == 0
    nothing = waits(0, join({}))
    assert (nothing["answers"], nothing["share"], nothing["days_50"]) == (0, None, None)


@pytest.mark.parametrize("write", [lambda one: str(one).upper(), lambda one: one.hex])
def test_a_uuid_is_the_same_however_it_is_written(write: Callable[[uuid.UUID], str]) -> None:
    name = uuid.uuid5(uuid.NAMESPACE_OID, "a row")
    lot = answers((name.hex, "a", "2024-01-09"))
    assert len(join({"prediction_id": [write(name)], "late": [1]}, lot).rows) == 1


@pytest.mark.parametrize("given", [[17, 4.5], ["17", "4.50"], [17.0, "4.5"]])
def test_a_number_is_the_same_however_it_is_written(given: list[Any]) -> None:
    contract = Contract((Column("id", "number", role="id"), SIZE, Column("late", "boolean", role="target")))
    lots = [answers(("p1", 17, "2024-01-09")), answers(("p2", 4.5, "2024-01-09"), ("p3", None, "2024-01-09"))]
    assert len(join({"id": given, "late": [1, 0]}, *lots, contract=contract).rows) == 2


def test_targets_of_each_kind() -> None:
    lot = answers(("p1", "a", "2024-01-09"), ("p2", "b", "2024-01-09"))
    number = Contract((*CONTRACT.columns[:2], Column("minutes", "number", role="target", minimum=0)))
    found = join({"id": ["a", "b"], "minutes": ["12.5", -3]}, lot, contract=number)
    assert (pairs(found), found.wrong) == ([("p1", 12.5)], {"minutes: below 0": 1})
    names = Contract((*CONTRACT.columns[:2], Column("kind", "string", role="target", allowed=("x", "y", "z"))))
    found = join({"id": ["a", "b"], "kind": ["z", "w"]}, lot, contract=names)
    assert (pairs(found), found.wrong) == ([("p1", 2.0)], {"kind: not one of x, y, z": 1})


def test_an_id_that_is_called_as_predictions_are() -> None:
    contract = Contract((Column("prediction_id", "string", role="id"), *CONTRACT.columns[1:]))
    found = join({"prediction_id": ["a"], "late": [1]}, answers(("p1", "a", "2024-01-09")), contract=contract)
    assert pairs(found) == [("p1", 1.0)]


def test_memory_does_not_grow_with_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_join, "SPARE", 10)
    taken = Labels(CONTRACT, SINCE, NOW, NOW)
    taken.add(pd.DataFrame({"id": ["a", "b"], "late": [1, 0]}))
    for number in range(100):
        day = f"2024-01-{9 + number % 5:02}"
        taken.take(answers((f"p{number}", "a", day), (f"q{number}", "b", day), (f"r{number}", f"c{number}", day)))
        assert sum(map(len, taken._kept)) <= 14
    assert sorted(taken.joined().rows["prediction"]) == ["p99", "q99"]


def test_the_label_of_each_answer_is_told_at_once() -> None:
    taken = Labels(CONTRACT, SINCE, NOW, NOW)
    taken.add(pd.DataFrame({"id": ["a", "b"], "late": [1, 0]}))
    found = taken.take(answers(("p1", "x", "2024-01-09"), ("p2", "a", "2024-01-09"), ("p3", "b", "2024-01-01")))
    np.testing.assert_array_equal(found, [np.nan, 1.0, np.nan])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_settled_is_what_one_by_one_comes_to(seed: int) -> None:
    random = np.random.default_rng(seed)
    key = random.integers(0, 8, 30).astype("uint64")
    value = random.integers(0, 2, 30).astype("float64")
    time = random.choice([label_join.NO_TIME, 1, 2, 3], 30, p=[0.1, 0.3, 0.3, 0.3])
    found = settle(key, value, time, np.arange(30))
    for name in np.unique(key):
        at = np.flatnonzero(key == name)
        newest = time[at].max()
        says = {float(one) for one in value[at[time[at] == newest]]}
        stays = at[found[at] == ""]
        if len(set(value[at].tolist())) == 1 or (time[at].min() != label_join.NO_TIME and len(says) == 1):
            assert len(stays) == 1
            assert time[stays[0]] == newest
            for place in set(at) - set(stays):
                assert found[place] == ("repeated" if value[place] in says else "corrected")
        else:
            assert set(found[at]) == {"contradictory"}
