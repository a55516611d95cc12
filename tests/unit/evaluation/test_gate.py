"""A model passes when it keeps every limit; a limit that cannot be measured is not kept."""

import pytest

from copier_mlops.evaluation.gate import Verdict, against_pointer, judge
from copier_mlops.evaluation.metrics import Interval

LIMITS = {"at_least": {"auc": 0.7}, "at_most": {"brier": 0.2}, "better_than_baseline": 0.1, "worse_than_champion": 0.01}


def verdict(auc: float = 0.8, brier: float = 0.1, over_baseline: float = 0.3, champion: float | None = 0.0) -> Verdict:
    over = None if champion is None else Interval(champion, champion - 0.1, champion + 0.1)
    return judge("auc", {"auc": auc, "brier": brier}, over_baseline=over_baseline, over_champion=over, **LIMITS)


@pytest.mark.parametrize("champion", [None, 0.05, -0.01])
def test_a_model_that_keeps_every_limit_passes(champion: float | None) -> None:
    found = verdict(auc=0.7, brier=0.2, over_baseline=0.1, champion=champion)  # a limit that is just met is kept
    assert found.passed
    assert found.reasons == []


@pytest.mark.parametrize(
    ("missed", "name", "by"),
    [
        ({"auc": 0.65}, "gate.at_least.auc", "0.05"),
        ({"brier": 0.5}, "gate.at_most.brier", "0.3"),
        ({"over_baseline": -0.1}, "gate.better_than_baseline", "0.2"),
        ({"champion": -0.03}, "gate.worse_than_champion", "0.02"),
    ],
)
def test_a_missed_limit_is_named_with_the_distance(missed: dict[str, float], name: str, by: str) -> None:
    found = verdict(**missed)
    assert not found.passed
    assert [check.name for check in found.checks if not check.passed] == [name]
    assert f"missed by {by} ({name})" in found.reasons[0]


@pytest.mark.parametrize("undefined", ["auc", "brier", "over_baseline", "champion"])
def test_not_a_number_does_not_pass(undefined: str) -> None:
    found = verdict(**{undefined: float("nan")})
    assert not found.passed
    assert len(found.reasons) == 1
    assert "has no value on the test rows, which may be of one class alone; at " in found.reasons[0]


def test_as_json_has_every_check() -> None:
    content = verdict().as_json()
    assert content["passed"] is True
    assert [check["name"].split(".")[1] for check in content["checks"]] == list(LIMITS)


@pytest.mark.parametrize(
    ("declared", "change", "passed"),
    [
        ("raises", 0.1, True),
        ("raises", -0.1, False),
        ("lowers", -0.1, True),
        ("lowers", 0.1, False),
        ("lowers", 0, True),
    ],
)
def test_an_effect_is_as_the_contract_says(declared: str, change: float, passed: bool) -> None:
    """An input that the model does not look at contradicts nothing."""
    effect = {"input": "rain", "declared": declared, "low": 0.0, "high": 2.0, "change": change}
    unknown = {"input": "snow", "declared": declared, "low": None, "high": None, "change": None}
    found = judge(
        "auc", {"auc": 0.8, "brier": 0.1}, over_baseline=0.3, over_champion=None, **LIMITS, effects=[effect, unknown]
    )
    assert found.passed is passed
    assert [check.name for check in found.checks if not check.passed] == ([] if passed else ["contract.effect.rain"])
    assert passed or "rain from 0 to 2" in found.reasons[0]


@pytest.mark.parametrize(
    ("value", "cost", "missed"),
    [
        (0.70, 2.0, []),
        (0.66, 2.0, []),
        (0.60, 2.0, ["review.keeps"]),
        (0.70, 9.0, ["review.slower"]),
        (0.4, 9.0, ["review.keeps", "review.slower"]),
    ],
)
def test_a_review_asks_for_a_share_of_the_champions_gain(value: float, cost: float, missed: list[str]) -> None:
    known = {"auc": 0.70, "baseline_auc": 0.5, "answer_cost": 2.0}
    found = against_pointer("auc", value, baseline=0.5, known=known, keeps=0.75, cost=cost, slower=4.0)
    assert [check.name for check in found.checks if not check.passed] == missed
    assert len(found.checks) == 2


def test_errors_are_better_small_in_a_review_too() -> None:
    known = {"mae": 10.0, "baseline_mae": 14.0}
    assert against_pointer("mae", 11.0, baseline=15.0, known=known, keeps=0.75, cost=1.0, slower=4.0).passed
    assert not against_pointer("mae", 13.0, baseline=15.0, known=known, keeps=0.75, cost=1.0, slower=4.0).passed


@pytest.mark.parametrize("known", [{}, {"auc": 0.4, "baseline_auc": 0.5}, {"mae": 1.0}])
def test_a_champion_that_is_no_measure_is_none(known: dict[str, float]) -> None:
    assert against_pointer("auc", 0.7, baseline=0.5, known=known, keeps=0.75, cost=1.0, slower=4.0).checks == ()
