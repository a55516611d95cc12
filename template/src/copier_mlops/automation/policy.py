"""What an alert may have done, how often, and what is left to a person: the rules of monitoring/policy.yaml."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import yaml

from copier_mlops import ProjectError

DAY = dt.timedelta(days=1)
MOST_REPLICAS = 8  # that a deployment has room for
MOST_A_DAY = 1_000
MOST_MINUTES = 366 * 24 * 60.0


class PolicyError(ProjectError):
    """The policy cannot be used; the text names the line, and what is allowed there."""


@dataclass(frozen=True)
class Rule:
    """What one action may do.

    Attributes:
        enabled: Whether it is done at all.
        limit: How often within 24 hours.
        cool_down_minutes: How long after the last time it has to wait.
    """

    enabled: bool
    limit: int
    cool_down_minutes: float


@dataclass(frozen=True)
class Replicas(Rule):
    """The same for replicas.

    Attributes:
        maximum: How many there may be afterwards.
    """

    maximum: int


@dataclass(frozen=True)
class Policy:
    """The whole of it. What nobody wrote down is careful: a person is told, training starts at most once a day."""

    retrain: Rule = Rule(enabled=True, limit=1, cool_down_minutes=720)
    promote: Rule = Rule(enabled=False, limit=1, cool_down_minutes=720)
    roll_back: Rule = Rule(enabled=False, limit=1, cool_down_minutes=720)
    add_replica: Replicas = Replicas(enabled=False, limit=2, cool_down_minutes=30, maximum=4)
    tell: Rule = Rule(enabled=True, limit=50, cool_down_minutes=0)


ACTIONS = tuple(field.name for field in fields(Policy))


@dataclass(frozen=True)
class Past:
    """That something was allowed.

    Attributes:
        action: What.
        at: When, with a time zone.
    """

    action: str
    at: dt.datetime


@dataclass(frozen=True)
class Permit:
    """Whether an action may be done.

    Attributes:
        allowed: Whether.
        rule: Which rule is against it; empty if none is.
        why: The same for people.
    """

    allowed: bool
    rule: str
    why: str


def permit(policy: Policy, action: str, now: dt.datetime, history: Iterable[Past]) -> Permit:
    """Hold an action against the policy.

    Args:
        policy: The rules.
        action: What is asked for.
        now: When, with a time zone.
        history: What was allowed before; whether it succeeded does not matter. What lies after `now` was noted before the clock
            was set back: it counts as if it were just now, so that no clock opens a way.
    """
    if action not in ACTIONS:
        return Permit(False, "unknown", f"there is no action {action!r}; there are {', '.join(ACTIONS)}")
    rule: Rule = getattr(policy, action)
    if not rule.enabled:
        return Permit(False, "enabled", f"{action} is switched off in monitoring/policy.yaml")
    before = [past.at for past in history if past.action == action]
    last = max(before, default=None)
    if last is not None and max(now - last, dt.timedelta()) < dt.timedelta(minutes=rule.cool_down_minutes):
        ahead = "; the clock was set back since then" if last > now else ""
        again = last + dt.timedelta(minutes=rule.cool_down_minutes)
        return Permit(
            False, "cool_down", f"the last {action} was at {_said(last)}, the next may be at {_said(again)}{ahead}"
        )
    recent = sum(now - at < DAY for at in before)
    if recent >= rule.limit:
        return Permit(False, "limit", f"{recent} {action} within 24 hours; the limit is {rule.limit}")
    return Permit(True, "", f"number {recent + 1} of {rule.limit} within 24 hours")


def _said(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


# ------------------------------------------------------------------------------------------------------ Reading

KINDS = {
    "enabled": "true or false",
    "limit": f"a whole number from 0 to {MOST_A_DAY:,}",
    "cool_down_minutes": f"a number from 0 to {MOST_MINUTES:,.0f}",
    "maximum": f"a whole number from 1 to {MOST_REPLICAS}",
}


def read_policy(text: str, place: str) -> Policy:
    """Read a policy. What it does not name has its default.

    Args:
        text: YAML, a section for each action.
        place: The name of its file, for messages.

    Raises:
        PolicyError: If it is no YAML, has an unknown or a doubled key, or a value that is not allowed.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise PolicyError(f"{place}{where} is no YAML: {getattr(error, 'problem', None) or error}.") from error
    if node is None:
        return Policy()
    default, chosen = Policy(), {}
    for action, section in _items(node, place, ACTIONS, "actions"):
        rule = getattr(default, action)
        known = tuple(field.name for field in fields(rule))
        values = {field.name: getattr(rule, field.name) for field in fields(rule)}
        for key, value in _items(section, place, known, f"keys of {action}"):
            values[key] = _value(action, key, value, place)
        chosen[action] = type(rule)(**values)
    return Policy(**chosen)


def _items(node: yaml.Node, place: str, known: tuple[str, ...], what: str) -> Iterable[tuple[str, yaml.Node]]:
    """The keys of a mapping with what they hold, each of them known and there once."""
    if not isinstance(node, yaml.MappingNode):
        raise PolicyError(f"{_line(node, place)}: there should be {what} here: {', '.join(known)}.")
    seen = set()
    for key, value in node.value:
        name = str(key.value)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise PolicyError(
                f"{_line(key, place)}: {name} is not known"
                + (f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}.")
            )
        if name in seen:
            raise PolicyError(f"{_line(key, place)}: {name} is there twice; keep one.")
        seen.add(name)
        yield name, value


def _value(action: str, key: str, node: yaml.Node, place: str) -> Any:
    value: Any = None
    if isinstance(node, yaml.ScalarNode):
        value = yaml.constructor.SafeConstructor().construct_object(node)
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "enabled": isinstance(value, bool),
        "limit": whole and 0 <= value <= MOST_A_DAY,
        "cool_down_minutes": (whole or isinstance(value, float)) and 0 <= value <= MOST_MINUTES,
        "maximum": whole and 1 <= value <= MOST_REPLICAS,
    }
    if not fits[key]:
        said = node.value if isinstance(node, yaml.ScalarNode) else "a list or a section"
        raise PolicyError(f"{_line(node, place)}: {action}.{key} is {said}; it may be {KINDS[key]}.")
    return value


def _line(node: yaml.Node, place: str) -> str:
    return f"{place}, line {node.start_mark.line + 1}"
