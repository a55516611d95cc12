"""What is proposed, and when not: a training once within the cool-down, going back for a new version alone, a word for the rest."""

import datetime as dt
from typing import Any

import pytest

from copier_mlops.monitoring.verdict import Facts, Rules, decide, judge

NOW = dt.datetime(2024, 1, 31, 12, tzinfo=dt.UTC)
RULES = Rules(drifted_columns=3, cool_down_hours=72, new_version_days=7)
DRIFTED = {"compared": 20, "drifted": ("a", "b", "c")}


def facts(**others: Any) -> Facts:
    known = {
        "now": NOW,
        "version": 2,
        "rows": 5000,
        "enough": True,
        "performance": "auc is 0.7",
        "since": NOW - dt.timedelta(30),
    }
    return Facts(**{**known, **others})


def actions(**others: Any) -> list[str]:
    return [one.action for one in decide(facts(**others), RULES)]


@pytest.mark.parametrize(
    ("found", "proposed"),
    [
        ({}, []),
        ({"worse": False}, []),
        ({"worse": None}, []),
        ({"worse": True}, ["retrain"]),
        (DRIFTED, ["retrain"]),
        ({**DRIFTED, "worse": False}, ["tell"]),  # it does no harm
        ({**DRIFTED, "worse": True}, ["retrain"]),
        ({"together": "rows can be told apart", "compared": 20}, ["retrain"]),
        ({"compared": 20, "drifted": ("a", "b")}, ["tell"]),
        ({"compared": 2, "drifted": ("a", "b")}, ["retrain"]),  # no model drifts in more columns than it has
        ({"troubles": ["the log is damaged"]}, ["tell"]),
        ({"worse": True, "troubles": ["the log is damaged"]}, ["retrain", "tell"]),
        ({"rows": 0, "enough": False}, ["tell"]),
    ],
)
def test_what_is_proposed(found: dict[str, Any], proposed: list[str]) -> None:
    assert actions(**found) == proposed


def test_a_training_is_proposed_once_within_the_cool_down() -> None:
    for hours, proposed in ((0, ["tell"]), (71.9, ["tell"]), (72, ["retrain"]), (200, ["retrain"])):
        assert actions(worse=True, trained=NOW - dt.timedelta(hours=hours)) == proposed
    told = decide(facts(worse=True, trained=NOW - dt.timedelta(hours=12)), RULES)[0]
    assert told.reasons[0] == "auc is 0.7"
    assert "no training is proposed before 2024-02-03 00:00 UTC" in told.reasons[1]


def test_a_new_version_that_is_worse_than_the_one_before_is_rolled_back() -> None:
    bad = {"worse_than_before": True, "before": "version 2 is worse than version 1"}
    assert actions(**bad, since=NOW - dt.timedelta(6)) == ["roll_back"]
    assert actions(**bad, since=NOW - dt.timedelta(8)) == ["tell"]
    assert actions(**bad, since=None) == ["tell"]
    assert actions(worse_than_before=False, since=NOW) == actions(worse_than_before=None, since=NOW) == []
    together = decide(facts(**bad, **DRIFTED, worse=True, since=NOW), RULES)
    assert [one.action for one in together] == ["roll_back", "tell"]  # and nothing is trained meanwhile
    assert "3 of 20 columns have drifted" in " ".join(together[1].reasons)


WON = {"challenger": 3, "better": True, "contest": "version 3 is better by 0.01"}


def test_a_challenger_that_has_won_is_promoted() -> None:
    assert actions(**WON) == ["promote"]
    assert actions(**WON, worse=True) == ["promote", "tell"]
    found = judge(facts(**WON), RULES)
    assert found.actions[0].reasons == ("version 3 is better by 0.01",)
    assert found.says.endswith("Promoting version 3 is proposed.")


@pytest.mark.parametrize("better", [False, None])
def test_a_challenger_that_has_lost_or_of_which_nobody_knows_is_not(better: bool | None) -> None:
    assert actions(**{**WON, "better": better}) == []
    assert "version 3" not in judge(facts(**{**WON, "better": better}), RULES).says


def test_nobody_is_promoted_when_it_is_time_to_go_back() -> None:
    found = decide(facts(**WON, worse_than_before=True, before="version 2 is worse", since=NOW), RULES)
    assert [one.action for one in found] == ["roll_back", "tell"]
    assert "version 3 is better by 0.01" in found[1].reasons  # somebody looks first
    assert actions(**WON, worse_than_before=True, before="b", since=NOW - dt.timedelta(8)) == ["promote", "tell"]


@pytest.mark.parametrize(
    ("found", "status", "sure", "says"),
    [
        ({"worse": True}, "worse", "measured", "Version 2 is worse than it was on its test rows: auc is 0.7. Training it again is"),
        ({"worse_than_before": True, "before": "b", "since": NOW}, "worse", "measured", "worse than the version before: b. Going back"),
        ({"worse": False}, "good", "measured", "no worse than it was"),
        (DRIFTED, "drifted", "inferred", "season explains: 3 of 20 columns have drifted (a, b, c); the effect on the predictions is not known yet"),
        ({"compared": 9, "drifted": ("a",)}, "drifted", "inferred", "season explains: 1 of 9 columns has drifted (a)"),
        ({**DRIFTED, "worse": False}, "drifted", "measured", "the labels show no worse predictions"),
        ({**DRIFTED, "reference": "900 rows"}, "drifted", "inferred", "differ from the reference (900 rows) by more than"),
        ({"together": "they go together otherwise"}, "drifted", "inferred", "they go together otherwise"),
        ({}, "good", "inferred", "the season let expect (5,000 predictions in the window)"),
        ({"rows": 3, "enough": False}, "unknown", "nothing", "too little to judge version 2 by: 3 answers"),
    ],
)  # fmt: skip
def test_one_sentence_for_people(found: dict[str, Any], status: str, sure: str, says: str) -> None:
    verdict = judge(facts(**found), RULES)
    assert (verdict.status, verdict.sure) == (status, sure)
    assert says in verdict.says
    assert verdict.says.endswith(".")
    assert verdict.as_json()["actions"] == [
        {"action": one.action, "reasons": [*one.reasons]} for one in verdict.actions
    ]


def test_many_columns_are_not_listed() -> None:
    says = judge(facts(compared=20, drifted=tuple("abcdefgh")), RULES).says
    assert "8 of 20 columns have drifted (a, b, c, d, e and 3 more)" in says
