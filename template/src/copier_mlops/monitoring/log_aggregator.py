"""What the prediction log tells while it is read: counts, the window beside the training, and answers that a label belongs to.

Memory does not grow with the log: entries come in lots, and what is kept of them are counts.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from copier_mlops.monitoring.challenger import with_inputs
from copier_mlops.monitoring.drift import DriftError, Window
from copier_mlops.monitoring.label_join import Labels
from copier_mlops.monitoring.log_frames import Lot
from copier_mlops.monitoring.performance import week

COUNTS = ("entries", "damaged", "malformed", "future", "set_aside", "unanswered", "shadow")


@dataclass(frozen=True, kw_only=True)
class Period:
    """What a look is about, in moments with a time zone.

    Attributes:
        now: When it is.
        since, until: Answers between them are compared with the training.
        first: From then on answers are compared with their labels, which come late.
        tolerance: By how much clocks may differ.
        replay: Whether `now` is not the time of the clock; then it is no wonder that there is something later.
    """

    now: dt.datetime
    since: dt.datetime
    until: dt.datetime
    first: dt.datetime
    tolerance: dt.timedelta = dt.timedelta(minutes=5)
    replay: bool = False


@dataclass
class Answered:
    """When a version answered first and last, how often since `Period.first`, and how often inside the window."""

    first: dt.datetime
    last: dt.datetime
    rows: int = 0
    inside: int = 0


@dataclass
class Seen:
    """What the log has told so far.

    Attributes:
        labels: Joins labels to answers.
        window: The rows of the version that answers, beside its training; None where they cannot be compared.
        why: Why not.
        weeks: The answers of each week (its Monday), from which is estimated how good they are.
        versions: By their numbers.
        days, by_week: Answers since `Period.first`.
        ways: Answers in the window, by the way that they were asked.
        counts: By COUNTS.
        reasons: How many rows break which rule of the contract.
        challenger: The version that wants to be the one that answers; None if none does.
        shadows: The same labels, for its answers in the shadow.
        inputs: Whether what was asked is kept with the answers that a label belongs to, since another version is asked the same.
    """

    labels: Labels
    window: Window | None = None
    why: str = ""
    weeks: dict[str, Window] = field(default_factory=dict)
    versions: dict[int, Answered] = field(default_factory=dict)
    days: Counter[str] = field(default_factory=Counter)
    by_week: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    challenger: int | None = None
    shadows: Labels | None = None
    inputs: bool = False

    @classmethod
    def begin(
        cls,
        labels: Labels,
        reference: Mapping[str, Any],
        seed: int,
        challenger: int | None = None,
        inputs: bool = False,
    ) -> Seen:
        """Nothing seen yet.

        Args:
            labels: With all labels in them.
            reference: Of the bundle that answers.
            seed: Makes what is drawn repeatable.
            challenger: The version that shall be compared with it.
            inputs: Whether another one shall be.
        """
        shadows = None if challenger is None else labels.beside()
        inputs = inputs or challenger is not None
        try:
            return cls(labels, Window(reference, seed), challenger=challenger, shadows=shadows, inputs=inputs)
        except DriftError as error:
            return cls(labels, why=str(error), challenger=challenger, shadows=shadows, inputs=inputs)

    @property
    def newest(self) -> dt.datetime | None:
        """The moment of the newest answer, whichever version gave it."""
        return max((one.last for one in self.versions.values()), default=None)

    @property
    def answers(self) -> int:
        """How many there are in the window."""
        return sum(one.inside for one in self.versions.values())

    def take(self, lot: Lot, version: int, names: list[str], when: Period) -> None:
        """Take note of some entries.

        Args:
            lot: Of the log.
            version: That answers now; the others are not compared with its training.
            names: Of the answers.
            when: What the look is about.
        """
        self.counts.update(malformed=lot.malformed, future=lot.future, set_aside=lot.set_aside, shadow=lot.shadowed)
        if self.shadows is not None:
            whole = lot.shadows[names].notna().all(axis=1) & (lot.shadows["version"] == self.challenger)
            if whole.any():
                self.shadows.take(lot.shadows[whole])
        self.reasons += lot.reasons
        scored = lot.predictions[names].notna().all(axis=1).to_numpy(dtype=bool)
        self.counts["unanswered"] += int((~scored).sum())
        lines = lot.predictions[scored]
        if lines.empty:
            return
        self.labels.take(with_inputs(lines, lot.rows) if self.inputs else lines)
        inside, recent = (((lines["at"] >= begin) & (lines["at"] <= when.until)) for begin in (when.since, when.first))
        mondays = week(lines["at"])
        self._count(lines.assign(_inside=inside, _recent=recent))
        self.days.update(Counter(lines.loc[recent, "at"].dt.strftime("%Y-%m-%d").tolist()))
        self.by_week.update(Counter(mondays[recent].tolist()))
        self.ways.update(Counter(lines.loc[inside, "way"].dropna().astype("str").tolist()))
        mine = (lines["version"] == version) & lines.index.isin(lot.rows.index)
        if self.window is None:
            return
        self._compare(self.window, lot.rows, lines[inside & mine], names)
        alone = {**self.window.profile, "columns": {}, "sample": {"columns": [], "rows": 0, "levels": ""}}
        for monday, part in lines[recent & mine].groupby(mondays[recent & mine], sort=True):
            self._compare(self.weeks.setdefault(str(monday), Window(alone)), lot.rows, part, names)

    def _count(self, lines: pd.DataFrame) -> None:
        for version, part in lines.groupby("version", sort=True):
            first, last = (moment.to_pydatetime() for moment in (part["at"].min(), part["at"].max()))
            one = self.versions.setdefault(int(str(version)), Answered(first, last))
            one.first, one.last = min(one.first, first), max(one.last, last)
            one.rows += int(part["_recent"].sum())
            one.inside += int(part["_inside"].sum())

    @staticmethod
    def _compare(window: Window, rows: pd.DataFrame, lines: pd.DataFrame, names: list[str]) -> None:
        if len(lines):
            window.update(rows.loc[lines.index], lines[names].to_numpy("float64"))

    def beside(self) -> pd.DataFrame:
        """What the challenger answered in the shadow to questions that have a label."""
        return self.shadows.kept() if self.shadows is not None else pd.DataFrame()

    def before(self, version: int) -> int | None:
        """The version that answered before one began; None if there was none."""
        mine = self.versions.get(version)
        others = {number: one for number, one in self.versions.items() if mine and one.first < mine.first}
        return max(others, key=lambda number: (others[number].last, number), default=None)
