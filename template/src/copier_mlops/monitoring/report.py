"""The monitor's report: one typed model that the exporter, the page, the alert webhook and the backtest read.

`reports/monitor/monitor.json` has the same names. The monitor writes a complete report; report_reader.py reads one, also of an
earlier release. The module imports neither pandas nor NumPy, so that the alert webhook stays small.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, field

Number = int | float | None
"""A number; None where it is not defined."""
Moment = str | None
"""A moment in ISO 8601 and UTC; None where it is not known."""


class _Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of the report."""


class IntervalLine(_Section):
    """A value with the ends of its 95 % interval."""

    value: Number = None
    low: Number = None
    high: Number = None


class IntervalEnds(_Section):
    """The ends of a 95 % interval."""

    low: Number = None
    high: Number = None


class WindowSection(_Section):
    """The window of the monitoring run.

    Attributes:
        since, until: Begin and end.
        labels_since: Begin of the predictions whose labels count.
        rows: Predictions of the champion in the window.
        answers: All predictions in the window.
        enough: Whether the rows suffice for a verdict.
    """

    since: Moment = None
    until: Moment = None
    labels_since: Moment = None
    rows: Number = None
    answers: Number = None
    enough: bool | None = None


class ActionLine(_Section):
    """A proposed action with its reasons."""

    action: str = ""
    reasons: list[str] = []


class VerdictSection(_Section):
    """The verdict; the attributes are those of `verdict.Verdict`."""

    status: str = ""
    sure: str = ""
    says: str = ""
    actions: list[ActionLine] = []


class SliceLine(_Section):
    """The deciding metric of one group of rows.

    Attributes:
        slice, group: Column and value.
        rows: Labeled predictions of the group.
        observed, predicted: Means of the truth and of the predictions.
        value, low, high: The metric with its interval.
        expected: The metric on the test rows.
        worse: Whether the group is worse than on the test rows; None without a verdict.
        metrics: The value by the name of the metric.
    """

    slice: str = ""
    group: str = ""
    rows: Number = None
    observed: Number = None
    predicted: Number = None
    value: Number = None
    low: Number = None
    high: Number = None
    expected: Number = None
    worse: bool | None = None
    metrics: dict[str, Number] = {}


class VersionLine(_Section):
    """The deciding metric of one version."""

    version: int | None = None
    rows: Number = None
    value: Number = None
    low: Number = None
    high: Number = None


class PreviousSection(_Section):
    """The comparison with the previous champion; the attributes are those of `performance.Before`."""

    version: int | None = None
    gain: IntervalLine = field(default_factory=IntervalLine)
    worse: bool | None = None
    says: str = ""


class WeekLine(_Section):
    """One week of predictions.

    Attributes:
        week: Its Monday.
        labelled: Predictions that have a label.
        value, low, high: The deciding metric with its interval.
        answers: All predictions.
        estimated: The metric as estimated without labels.
    """

    week: str = ""
    labelled: Number = None
    value: Number = None
    low: Number = None
    high: Number = None
    answers: Number = None
    estimated: Number = None


class PerformanceSection(_Section):
    """The quality of the predictions, by labels and estimated without them.

    Attributes:
        metric: The metric that decides.
        larger_is_better: Whether a larger value of it is better.
        rows: Labeled predictions of the champion.
        metrics, intervals, expected: Each metric, its interval, and its value on the test rows.
        gain: Gain over the test rows; positive is better.
        worse: Whether the champion is worse than on the test rows; None without a verdict.
        says: The same in words.
        estimated, estimated_then, estimated_margin: Each metric as estimated for the window and for the reference, with its margin.
        estimated_why: The condition of the estimate, or why there is none.
        slices, versions, weeks: The deciding metric by group, version and week.
        before: The comparison with the previous champion.
    """

    metric: str = ""
    larger_is_better: bool | None = None
    rows: Number = None
    metrics: dict[str, Number] = {}
    intervals: dict[str, IntervalEnds] = {}
    expected: dict[str, Number] = {}
    gain: IntervalLine = field(default_factory=IntervalLine)
    worse: bool | None = None
    says: str = ""
    estimated: dict[str, Number] = {}
    estimated_then: dict[str, Number] = {}
    estimated_margin: dict[str, Number] = {}
    estimated_why: str = ""
    slices: list[SliceLine] = []
    versions: list[VersionLine] = []
    before: PreviousSection | None = None
    weeks: list[WeekLine] = []


class ChallengerSection(_Section):
    """The champion-challenger comparison; the attributes are those of `challenger.Contest`, with the interval of the gain."""

    version: int | None = None
    learnt_until: Moment = None
    metric: str = ""
    margin: Number = None
    says: str = ""
    rows: Number = None
    shadowed: Number = None
    champion: Number = None
    challenger: Number = None
    better: bool | None = None
    gain: Number = None
    low: Number = None
    high: Number = None


class RowsLine(_Section):
    """How many rows a profile is made of, and their first and last day."""

    rows: Number = None
    first: Moment = field(default=None, name="from")
    last: Moment = field(default=None, name="to")


class Shares(_Section):
    """The distribution of a column: `edges` of a number, one more than shares, or `names`; reference (`then`) and window (`now`)."""

    edges: list[Number] | UnsetType = UNSET
    names: list[str] | UnsetType = UNSET
    then: list[Number] = []
    now: list[Number] = []


class ColumnLine(_Section):
    """The drift of one column; the attributes are the columns of `drift.Drift.table`.

    Attributes:
        training: Quantiles of the training rows.
        shares: The distribution, if the column has drifted.
    """

    what: str = ""
    effect: Number = None
    limit: Number = None
    p: Number = None
    adjusted: Number = None
    changed: bool | None = None
    drifted: bool | None = None
    seasonal: bool | None = None
    minor: bool | None = None
    change: Number = None
    season: Number = None
    weight: Number = None
    impact: Number = None
    counted: bool = True
    psi: Number = None
    missing_then: Number = None
    missing_now: Number = None
    unseen: Number = None
    unseen_values: str = ""
    why: str = ""
    training: dict[str, Any] | None = None
    shares: Shares | UnsetType = UNSET


class MultivariateLine(_Section):
    """Multivariate drift; the attributes are those of `drift_multivariate.Together`. Without a comparison none is set."""

    auc: Number | UnsetType = UNSET
    limit: Number | UnsetType = UNSET
    p: Number | UnsetType = UNSET
    drifted: bool | UnsetType | None = UNSET
    columns: list[str] | UnsetType = UNSET
    why: str | UnsetType = UNSET


class DriftSection(_Section):
    """The drift of the window from the reference.

    Attributes:
        drifted: Whether anything that counts has drifted; None without a comparison.
        rows, reference_rows: Rows of the window and of the reference.
        reference, training: The rows that the reference and the training profile are made of.
        columns: Each column by its name.
        multivariate: Drift of columns together.
        reasons: A sentence for each drifted column, the most important first.
        notes: Changes that do not count.
        why: Why nothing was compared.
    """

    drifted: bool | None = None
    rows: Number = None
    reference_rows: Number = None
    reference: RowsLine | None = None
    training: RowsLine | None = None
    columns: dict[str, ColumnLine] = {}
    multivariate: MultivariateLine = field(default_factory=MultivariateLine)
    reasons: list[str] = []
    notes: list[str] = []
    why: str = ""

    @property
    def auc(self) -> Number:
        """How well rows of the window are told from those of the reference; None without a comparison."""
        return None if self.multivariate.auc is UNSET else self.multivariate.auc

    @property
    def drifted_columns(self) -> list[str]:
        """The names of the columns that have drifted."""
        return [name for name, line in self.columns.items() if line.drifted]


class LabelsSection(_Section):
    """The labels.

    Attributes:
        there: Whether there are any.
        files, labels: How many files and labels were read.
        joined: Predictions that have a label.
        waiting, waiting_share: Predictions without one, and their share.
        days_50, days_90: Days until half and nine tenths of the labels were there.
        aside: Labels that do not count, by reason.
        wrong: Values that break a rule of the contract, by rule.
        troubles: What could not be read.
    """

    there: bool | None = None
    files: Number = None
    labels: Number = None
    joined: Number = None
    waiting: Number = None
    waiting_share: Number = None
    days_50: Number = None
    days_90: Number = None
    aside: dict[str, Number] = {}
    wrong: dict[str, Number] = {}
    troubles: list[str] = []


class LogSection(_Section):
    """Entries of the prediction log by what became of them, the rules that rows break, and the newest entry."""

    entries: Number = None
    damaged: Number = None
    malformed: Number = None
    future: Number = None
    set_aside: Number = None
    unanswered: Number = None
    shadow: Number = None
    reasons: dict[str, Number] = {}
    newest: Moment = None
    silent_hours: Number = None


class TrafficLine(_Section):
    """The first and the last prediction of a version, and how many there are since `labels_since` and in the window."""

    first: Moment = None
    last: Moment = None
    rows: Number = None
    inside: Number = None


class TrafficSection(_Section):
    """Predictions by day, way and version."""

    days: dict[str, int] = {}
    ways: dict[str, Number] = {}
    versions: dict[str, TrafficLine] = {}


class Report(_Section):
    """What one monitoring run has found.

    Attributes:
        at: The moment of the run.
        version, bundle, problem, target: The champion.
        trained_at, live_since, learnt_until: Its moments.
        age_days: Days since the newest row that it has learnt from.
        answer_cost: Cost of a prediction, relative to the baseline.
        newest: The newest row at the source.
        data: Rows of the last training data, those set aside, and the rules that these break.
        troubles: What needs attention, a sentence each.
        notes: What does not.
    """

    at: Moment = None
    project: str = ""
    version: int | None = None
    bundle: str | None = None
    problem: str | None = None
    target: str | None = None
    trained_at: Moment = None
    live_since: Moment = None
    learnt_until: Moment = None
    age_days: Number = None
    answer_cost: Number = None
    window: WindowSection = field(default_factory=WindowSection)
    verdict: VerdictSection = field(default_factory=VerdictSection)
    performance: PerformanceSection = field(default_factory=PerformanceSection)
    challenger: ChallengerSection | None = None
    drift: DriftSection = field(default_factory=DriftSection)
    labels: LabelsSection = field(default_factory=LabelsSection)
    log: LogSection = field(default_factory=LogSection)
    traffic: TrafficSection = field(default_factory=TrafficSection)
    newest: Moment = None
    data: dict[str, Any] = {}
    troubles: list[str] = []
    notes: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """Return the content of monitor.json."""
        return dict(msgspec.to_builtins(self))


def moment(text: object) -> dt.datetime | None:
    """Return a moment that is written in ISO 8601, in UTC where it does not say; None if it is not valid."""
    try:
        found = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
