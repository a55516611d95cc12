"""What alerts may have done: careful by default, never more than the policy says, whatever the clock does."""

import datetime as dt
from pathlib import Path

import pytest

from copier_mlops.automation.policy import ACTIONS, Past, Policy, PolicyError, permit, read_policy

NOW = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
EXAMPLE = Path(__file__).parent.parent.parent / "monitoring/policy.example.yaml"


def ago(action: str, **time: float) -> Past:
    return Past(action, NOW - dt.timedelta(**time))


def test_what_nobody_wrote_down_is_careful() -> None:
    policy = read_policy("# nothing\n", "policy.yaml")
    assert policy == Policy() == read_policy(EXAMPLE.read_text(), "the example")
    assert [action for action in ACTIONS if permit(policy, action, NOW, []).allowed] == ["retrain", "tell"]
    assert (policy.retrain.limit, policy.add_replica.maximum) == (1, 4)
    assert (policy.promote.limit, policy.promote.cool_down_minutes) == (1, 720)


def test_a_storm_gives_one_training() -> None:
    history: list[Past] = []
    for second in range(20):
        now = NOW + dt.timedelta(seconds=second)
        found = permit(Policy(), "retrain", now, history)
        if found.allowed:
            history.append(Past("retrain", now))
    assert len(history) == 1
    assert found.rule == "cool_down"
    assert "the next may be at 2026-03-05 00:00:00 UTC" in found.why


@pytest.mark.parametrize(
    ("action", "history", "rule"),
    [
        ("retrain", [], ""),
        ("retrain", [ago("retrain", hours=25)], ""),
        ("retrain", [ago("retrain", hours=13)], "limit"),
        ("retrain", [ago("retrain", hours=11)], "cool_down"),
        ("retrain", [ago("tell", hours=1)], ""),
        ("tell", [ago("tell", minutes=1)] * 49, ""),
        ("tell", [ago("tell", minutes=1)] * 50, "limit"),
        ("promote", [], "enabled"),
        ("roll_back", [], "enabled"),
        ("add_replica", [], "enabled"),
        ("delete_everything", [], "unknown"),
    ],
)
def test_limits(action: str, history: list[Past], rule: str) -> None:
    found = permit(Policy(), action, NOW, history)
    assert (found.allowed, found.rule) == (not rule, rule)
    assert found.why


@pytest.mark.parametrize("back", [dt.timedelta(seconds=1), dt.timedelta(days=400)])
def test_a_clock_that_is_set_back_opens_nothing(back: dt.timedelta) -> None:
    found = permit(Policy(), "retrain", NOW - back, [Past("retrain", NOW)])
    assert found.rule == "cool_down"
    assert "the clock was set back" in found.why
    without = read_policy("retrain: {cool_down_minutes: 0}", "policy.yaml")
    assert permit(without, "retrain", NOW - back, [Past("retrain", NOW)]).rule == "limit"


def test_a_clock_that_jumps_ahead_opens_one_and_no_more() -> None:
    """A year later the cool-down is over. Set right again, what was allowed there still counts."""
    history, ahead = [Past("retrain", NOW)], NOW + dt.timedelta(days=365)
    assert permit(Policy(), "retrain", ahead, history).allowed
    history.append(Past("retrain", ahead))
    for moment in (ahead + dt.timedelta(hours=1), NOW + dt.timedelta(hours=25), NOW + dt.timedelta(days=100)):
        assert permit(Policy(), "retrain", moment, history).rule == "cool_down"
    assert "the clock was set back" in permit(Policy(), "retrain", NOW + dt.timedelta(hours=25), history).why


def test_what_is_chosen_holds() -> None:
    policy = read_policy(
        "roll_back:\n  enabled: true\nadd_replica: {enabled: true, maximum: 2, cool_down_minutes: 1.5}", "x"
    )
    assert permit(policy, "roll_back", NOW, []).allowed
    assert policy.add_replica.maximum == 2
    assert permit(policy, "add_replica", NOW, [ago("add_replica", minutes=1)]).rule == "cool_down"
    assert policy.retrain == Policy().retrain


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("retrain:\n  enabled: true\n  limt: 3\n", "policy.yaml, line 3: limt is not known; did you mean limit?"),
        ("roll_bakc: {}\n", "line 1: roll_bakc is not known; did you mean roll_back?"),
        ("zzz: {}\n", "line 1: zzz is not known; there are retrain, promote, roll_back, add_replica, tell"),
        ("retrain: {maximum: 2}", "maximum is not known"),
        ("tell:\n  limit: 5\ntell:\n  limit: 6\n", "line 3: tell is there twice"),
        ("tell:\n  limit: 5\n  limit: 6\n", "line 3: limit is there twice"),
        ("tell:\n  enabled: maybe\n", "line 2: tell.enabled is maybe; it may be true or false"),
        ("tell:\n  enabled: 1\n", "it may be true or false"),
        ("\nretrain:\n  limit: -1\n", "line 3: retrain.limit is -1; it may be a whole number from 0 to 1,000"),
        ("retrain: {limit: true}", "retrain.limit is true"),
        ("retrain: {limit: 1.5}", "retrain.limit is 1.5"),
        ("retrain: {limit: [1]}", "retrain.limit is a list or a section"),
        ("retrain: {cool_down_minutes: .nan}", "it may be a number from 0 to"),
        ("retrain: {cool_down_minutes: .inf}", "it may be a number from 0 to"),
        ("add_replica: {maximum: 99}", "it may be a whole number from 1 to 8"),
        ("retrain: yes please", "line 1: there should be keys of retrain here: enabled, limit, cool_down_minutes"),
        ("- retrain", "there should be actions here: retrain, promote"),
        ("retrain: {", "policy.yaml, line 1 is no YAML"),
        ("a: 1\n---\nb: 2\n", "is no YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_policy(text, "policy.yaml")
    assert says in str(caught.value)
