"""From alerts to decisions: read, told from those that were there before, held against the policy, written down."""

from __future__ import annotations

import datetime as dt
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from copier_mlops import ProjectError
from copier_mlops._audit_log import Audit
from copier_mlops.automation.policy import ACTIONS, Past, Permit, Policy, PolicyError, permit

TELL = "tell"
MOST_ALERTS = 1_000  # of one message
MOST_LETTERS = 1_000  # of a label or a note
MOST_SAID = 20  # alerts that a notice names
OVER = ("done", "failed", "unknown")
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Key = tuple[str, str, str, str]


class MalformedError(ProjectError):
    """What came is no message of Alertmanager's; the text says what is wrong."""


def printable(text: str) -> str:
    """Replace control characters and lone surrogates, which no argument of a process and no UTF-8 file can hold."""
    return UNPRINTABLE.sub("\ufffd", text)


@dataclass(frozen=True)
class Alert:
    """One alert, as Alertmanager tells of it.

    Attributes:
        name: Of its rule.
        fingerprint: Of its labels.
        starts_at: Since when.
        status: firing or resolved.
        action: What its rule wants done; empty if nothing.
        environment: Whose service it is about; empty if none.
        says: What people read.
    """

    name: str
    fingerprint: str
    starts_at: str
    status: str
    action: str = ""
    environment: str = ""
    says: str = ""


def read_alerts(message: object) -> list[Alert]:
    """Read a message of Alertmanager's (webhook, version 4).

    Raises:
        MalformedError: If it is none.
    """
    if not isinstance(message, dict) or message.get("version") != "4" or not isinstance(message.get("alerts"), list):
        raise MalformedError('this is no message of Alertmanager: {"version": "4", "alerts": [...]} is expected')
    if len(message["alerts"]) > MOST_ALERTS:
        raise MalformedError(f"{len(message['alerts'])} alerts at once; at most {MOST_ALERTS:,} are taken")
    return [_alert(number, one) for number, one in enumerate(message["alerts"])]


def _alert(number: int, one: object) -> Alert:
    if not isinstance(one, dict):
        raise MalformedError(f"alert {number} is no object")
    labels, notes = one.get("labels"), one.get("annotations") or {}
    for name, texts in (("labels", labels), ("annotations", notes)):
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise MalformedError(f"alert {number}: {name} is no object of texts")
    assert isinstance(labels, dict)
    for name in ("fingerprint", "startsAt", "status"):
        if not isinstance(one.get(name), str) or not 0 < len(one[name]) <= MOST_LETTERS:
            raise MalformedError(f"alert {number} has no {name}")
    if one["status"] not in ("firing", "resolved"):
        raise MalformedError(f"alert {number}: status is neither firing nor resolved")
    said = [labels.get("alertname", "?"), notes.get("summary", ""), notes.get("runbook_url", "")]
    return Alert(
        name=printable(labels.get("alertname", "?")[:MOST_LETTERS]),
        fingerprint=printable(one["fingerprint"]),
        starts_at=printable(one["startsAt"]),
        status=one["status"],
        action=printable(labels.get("action", "")[:MOST_LETTERS]),
        environment=printable(labels.get("environment", "")[:MOST_LETTERS]),
        says=printable(" - ".join(text for text in said if text)[:MOST_LETTERS]),
    )


@dataclass(frozen=True)
class Decision:
    """Something that may be done.

    Attributes:
        id: Of this decision, in the record and for what is asked to do it.
        action: What.
        why: For what reason.
        says: What people are told.
        environment: Whose service it is about.
    """

    id: str
    action: str
    why: str
    says: str = ""
    environment: str = ""


class Deciding:
    """All decisions of a project: those of before are read from the record, new ones are written into it before they are returned.

    Args:
        policy: Reads the policy as it is now.
        audit: The record.
        clock: What time it is.
        impossible: Actions that this project cannot do, each with the reason.

    Attributes:
        open: What was decided and not finished, by its id; a restart goes on with it.
        begun: The ids of those of them that were begun.
        last: When each action was last allowed.

    Raises:
        AuditError: If the record cannot be read.
        PolicyError: If the policy cannot be used.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        audit: Audit,
        clock: Callable[[], dt.datetime],
        impossible: Mapping[str, str] | None = None,
    ) -> None:
        self._policy, self._audit, self._clock = policy, audit, clock
        self._impossible = dict(impossible or {})
        self._lock = threading.Lock()
        self._history: list[Past] = []
        self._seen: set[Key] = set()
        self._refused: dict[Key, str] = {}
        self.open: dict[str, Decision] = {}
        self.begun: set[str] = set()
        self.last: dict[str, dt.datetime] = {}
        self.policy_holds = True
        policy()
        for entry in audit.entries():
            self._note(entry)

    def _note(self, entry: Mapping[str, Any]) -> None:
        """Take in a line of the record; one that somebody else wrote there says nothing."""
        try:
            result, name, action = str(entry["result"]), str(entry["id"]), str(entry["action"])
            at = dt.datetime.fromisoformat(entry["at"])
            keys = frozenset(_key(action, one) for one in entry.get("asked") or ())
        except (KeyError, TypeError, ValueError):
            return
        if at.tzinfo is None:  # edited by hand: times of the log are UTC
            at = at.replace(tzinfo=dt.UTC)
        if result == "decided":
            self._history.append(Past(action, at))
            self.last[action] = max(at, self.last.get(action, at))
            self._seen.update(keys)
            # Releases before 1.3 wrote the text of an alert with its unprintable characters.
            why, says, environment = (printable(str(entry.get(text) or "")) for text in ("why", "says", "environment"))
            self.open[name] = Decision(name, action, why, says, environment)
        elif result == "refused":
            self._refused.update(dict.fromkeys(keys, str(entry.get("rule"))))
        elif result == "begun":
            self.begun.add(name)
        elif result in OVER:
            self.open.pop(name, None)
            self.begun.discard(name)

    def decide(self, alerts: Sequence[Alert], action: str = "") -> tuple[list[Decision], list[tuple[str, Permit]]]:
        """Decide what is done for some alerts that came together.

        Alerts that ask for the same become one decision. What was allowed for an alert is not done for it again, however often it
        comes; what was refused is held against the policy anew, and written down again if another rule is against it.

        Args:
            alerts: Some of them.
            action: What is done for each; what its rule says, and for nothing else, if empty.

        Returns:
            What may be done now; and what was refused, each with the reason.

        Raises:
            AuditError: If it cannot be written down. Then nothing of it is done.
        """
        groups: dict[tuple[str, str], list[Alert]] = {}
        for alert in alerts:
            wanted = action or alert.action
            if wanted and (alert.status == "firing" or wanted == TELL):
                groups.setdefault((wanted, "" if wanted == TELL else alert.environment), []).append(alert)
        allowed, refused = [], []
        with self._lock:
            for (wanted, environment), group in groups.items():
                new = {_key(wanted, vars(one)): one for one in group if _key(wanted, vars(one)) not in self._seen}
                if not new:
                    continue
                found = self._permit(wanted)
                if found.allowed:
                    allowed.append(self._write(wanted, environment, list(new.values()), found))
                    continue
                refused.append((wanted, found))
                if any(self._refused.get(key) != found.rule for key in new):
                    self._write(wanted, environment, list(new.values()), found)
        return allowed, refused

    def _permit(self, action: str) -> Permit:
        if action in self._impossible:
            return Permit(False, "impossible", self._impossible[action])
        try:
            policy = self._policy()
            self.policy_holds = True
        except PolicyError as error:
            self.policy_holds = False
            if action != TELL:
                return Permit(False, "policy", str(error))
            policy = Policy()  # a person has to hear of it
        return permit(policy, action, self._clock(), self._history)

    def _write(self, action: str, environment: str, alerts: Sequence[Alert], found: Permit) -> Decision:
        says = "\n".join(f"[{one.status}] {one.says or one.name}" for one in alerts[:MOST_SAID])
        if len(alerts) > MOST_SAID:
            says += f"\nand {len(alerts) - MOST_SAID} more"
        names = ", ".join(dict.fromkeys(one.name for one in alerts))[:MOST_LETTERS]
        asked = [
            {name: getattr(one, name) for name in ("name", "fingerprint", "starts_at", "status")} for one in alerts
        ]
        entry = self._audit.add(
            self._clock(),
            id=secrets.token_hex(8),
            asked=asked,
            action=action,
            allowed=found.allowed,
            rule=found.rule,
            why=f"{names}: {found.why}",
            result="decided" if found.allowed else "refused",
            says=says,
            environment=environment,
        )
        self._note(entry)
        return self.open[entry["id"]] if found.allowed else Decision(entry["id"], action, found.why)

    def write(self, decision: Decision, result: str, why: str = "") -> None:
        """Write down how far a decision has come.

        Args:
            decision: Which.
            result: begun; waits, before it is tried again; or one of OVER.
            why: What is known of it.

        Raises:
            AuditError: If it cannot be written down.
        """
        with self._lock:
            entry = self._audit.add(self._clock(), id=decision.id, action=decision.action, result=result, why=why)
            self._note(entry)


def _key(action: str, asked: Mapping[str, str]) -> Key:
    """What tells an alert that asks for something from others, and from itself the next time."""
    return (action, asked["fingerprint"], asked["starts_at"], asked["status"])


def known(action: str) -> str:
    """An action as a label of a metric: whoever writes rules can make up any."""
    return action if action in ACTIONS else "other"
