"""What is wrong, how sure that is, and what it would take: from what a look has found to a sentence and to proposals.

Nothing is done here. An action has the name that monitoring/policy.yaml knows it by, and whoever acts asks that policy first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RETRAIN, PROMOTE, ROLL_BACK, TELL = "retrain", "promote", "roll_back", "tell"


@dataclass(frozen=True)
class Rules:
    """When what is proposed; the section `monitoring` of params.yaml.

    Attributes:
        drifted_columns: So many that have drifted are a reason to train.
        cool_down_hours: After a training was proposed or done, until the next is proposed.
        new_version_days: A version that answers for fewer days may be rolled back.
    """

    drifted_columns: int
    cool_down_hours: float
    new_version_days: float


@dataclass(frozen=True)
class Facts:
    """What a look has found.

    Attributes:
        now: When, with a time zone.
        version: That answers.
        rows: Its answers in the window that were compared with the training.
        enough: Whether these are enough to say something.
        worse: Whether the labels say that it is worse than on its test rows; None if they say nothing.
        performance: The same in words.
        compared: How many columns and answers were compared with the training.
        drifted: The names of those that have drifted.
        reference: What they were compared with, in words.
        together: Why rows as a whole look different from those of the training; empty if they do not.
        since: When it gave its first answer; None if that is not known.
        worse_than_before: Whether the labels say that it is worse than the version before; None if they say nothing.
        before: The same in words.
        trained: When a training was last proposed or done; None if never.
        troubles: What else a person has to look at, a sentence each.
        challenger: The version that wants to answer; None if there is none.
        better: Whether it is better than the one that answers, on the same labelled answers; None if nobody can say.
        contest: The same in words.
    """

    now: dt.datetime
    version: int
    rows: int
    enough: bool
    worse: bool | None = None
    performance: str = ""
    compared: int = 0
    drifted: Sequence[str] = ()
    reference: str = ""
    together: str = ""
    since: dt.datetime | None = None
    worse_than_before: bool | None = None
    before: str = ""
    trained: dt.datetime | None = None
    troubles: Sequence[str] = ()
    challenger: int | None = None
    better: bool | None = None
    contest: str = ""


@dataclass(frozen=True)
class Action:
    """What is proposed, and why.

    Attributes:
        action: `retrain`, `promote`, `roll_back` or `tell`.
        reasons: A sentence each, at least one.
    """

    action: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """How production is.

    Attributes:
        status: `worse` (the labels say so, of the test rows or of a new version), `drifted` (inputs that the model depends on differ
            from the reference by more than the season explains), `unknown` (there is too little to say anything), or `good`.
        sure: `measured` (by labels), `inferred` (from inputs and answers alone), or `nothing`.
        says: One sentence for the owner of the product.
        actions: What is proposed.
    """

    status: str
    sure: str
    says: str
    actions: tuple[Action, ...]

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "actions": [{"action": one.action, "reasons": [*one.reasons]} for one in self.actions]}


def decide(facts: Facts, rules: Rules) -> tuple[Action, ...]:
    """What is proposed, the most urgent first; nothing where nothing is wrong.

    A new version that is worse than the one before is rolled back, and nothing is trained from then on until somebody has looked. A
    training is proposed for answers that are measurably worse; where labels say nothing, for inputs that are no longer those of the
    training, in so many columns or as a whole; once within the cool-down. A challenger that has won is promoted, and nothing is trained then; unless it is the time to
    go back: then somebody looks first. All else is told.
    """
    tell = [*facts.troubles]
    causes = _causes(facts, rules)
    actions = []
    back = _is_new(facts, rules) and facts.worse_than_before
    if facts.better and not back:
        actions.append(Action(PROMOTE, (facts.contest,)))
    if back:
        actions.append(
            Action(ROLL_BACK, (f"{facts.before}; version {facts.version} answers since {_said(facts.since)}",))
        )
        tell += [*causes, *([facts.contest] if facts.better else [])]
    elif causes and facts.better:
        tell += causes  # what the challenger mends needs no training
    elif causes and (waits := _cooling(facts, rules)):
        tell += [*causes, waits]
    elif causes:
        actions.append(Action(RETRAIN, tuple(causes)))
    else:
        if facts.worse is False and (facts.drifted or facts.together):
            tell.append(f"{_drift(facts)}, while the labels show no worse answers")
        elif facts.drifted:
            tell.append(f"{_drift(facts)}, fewer than the {_wanted(facts, rules)} that a training takes")
        if facts.worse_than_before:
            tell.append(facts.before)
    if facts.rows == 0:
        tell.append(f"version {facts.version} has given no answer in the window")
    if tell:
        actions.append(Action(TELL, tuple(tell)))
    return tuple(actions)


def judge(facts: Facts, rules: Rules) -> Verdict:
    """The verdict, with a sentence that a person understands who has not read the rest."""
    actions = decide(facts, rules)
    name = f"Version {facts.version}"
    if facts.worse:
        status, sure, says = "worse", "measured", f"{name} is worse than it was on its test rows: {facts.performance}"
        says += f"; {_drift(facts)}" if facts.drifted or facts.together else ""
    elif _is_new(facts, rules) and facts.worse_than_before:
        status, sure, says = "worse", "measured", f"{name} is worse than the version before: {facts.before}"
    elif facts.drifted or facts.together:
        status, sure = "drifted", "measured" if facts.worse is False else "inferred"
        so = (
            "the labels show no worse predictions"
            if facts.worse is False
            else "the effect on the predictions is not known yet"
        )
        says = f"Inputs or predictions of {name.lower()} differ from {_reference(facts)} by more than the season explains: {_drift(facts)}; "
        says += f"{so} ({facts.performance})"
    elif facts.worse is False:
        status, sure, says = "good", "measured", f"{name} is no worse than it was on its test rows: {facts.performance}"
    elif facts.enough:
        status, sure = "good", "inferred"
        says = f"The inputs of {name.lower()} are as {_reference(facts)} and the season let expect ({facts.rows:,} predictions in the window); "
        says += facts.performance
    else:
        status, sure = "unknown", "nothing"
        says = f"There is too little to judge {name.lower()} by: {facts.rows:,} answers; {facts.performance}"
    proposed = {
        RETRAIN: "Training it again is proposed",
        PROMOTE: f"Promoting version {facts.challenger} is proposed",
        ROLL_BACK: "Going back to the version before is proposed",
    }
    todo = [proposed[one.action] for one in actions if one.action in proposed]
    return Verdict(status, sure, ". ".join([says, *todo]) + ".", actions)


def _causes(facts: Facts, rules: Rules) -> list[str]:
    """What speaks for a training. Where labels speak, they decide: drift that does no harm costs none, and what nobody has labelled
    yet teaches nothing."""
    causes = [facts.performance] if facts.worse else []
    return [*causes, _drift(facts)] if facts.worse is not False and _much(facts, rules) else causes


def _much(facts: Facts, rules: Rules) -> bool:
    """Whether enough has drifted, in columns or as a whole."""
    return bool(facts.together) or (facts.compared > 0 and len(facts.drifted) >= _wanted(facts, rules))


def _wanted(facts: Facts, rules: Rules) -> int:
    """A model of two columns cannot drift in three."""
    return max(1, min(rules.drifted_columns, facts.compared))


def _drift(facts: Facts) -> str:
    some = ", ".join(facts.drifted[:5]) + (f" and {len(facts.drifted) - 5} more" if len(facts.drifted) > 5 else "")
    verb = "has" if len(facts.drifted) == 1 else "have"
    lines = [f"{len(facts.drifted)} of {facts.compared} columns {verb} drifted ({some})"] if facts.drifted else []
    return ", and ".join([*lines, *([facts.together] if facts.together else [])])


def _reference(facts: Facts) -> str:
    return "the reference" + (f" ({facts.reference})" if facts.reference else "")


def _is_new(facts: Facts, rules: Rules) -> bool:
    return facts.since is not None and facts.now - facts.since < dt.timedelta(days=rules.new_version_days)


def _cooling(facts: Facts, rules: Rules) -> str:
    """Until when no training is proposed, in words; empty if one may be."""
    if facts.trained is None:
        return ""
    until = facts.trained + dt.timedelta(hours=rules.cool_down_hours)
    if facts.now >= until:
        return ""
    return (
        f"no training is proposed before {_said(until)}: the last was proposed or done at {_said(facts.trained)} "
        "(monitoring.cool_down_hours)"
    )


def _said(moment: dt.datetime | None) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC" if moment else "an unknown time"
