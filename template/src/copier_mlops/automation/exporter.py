"""Metrics of the monitor's report, for Prometheus. What the report lacks is absent, and alerts report that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Literal

from prometheus_client.core import Metric

from copier_mlops.automation.policy import ACTIONS
from copier_mlops.monitoring.report import ColumnLine, Number, Report, SliceLine, moment

MOST_SERIES = 500  # of one metric: columns and groups are few, or somebody made a mistake

Sample = tuple[Mapping[str, str], float]


def family(name: str, kind: Literal["gauge", "counter"], says: str, samples: Iterable[Sample]) -> Metric:
    """Return a metric with at most MOST_SERIES samples.

    Args:
        name: name of the metric; that of a counter ends with `_total`.
        kind: its type.
        says: help text.
        samples: labels and value of each sample.
    """
    found = Metric(name.removesuffix("_total"), says, kind)
    for labels, value in islice(samples, MOST_SERIES):
        # A report may have lone surrogates, which JSON allows and UTF-8 does not. One would fail the whole scrape.
        valid = {key: text.encode(errors="replace").decode() for key, text in labels.items()}
        found.add_sample(name, valid, value)
    return found


Values = Mapping[str, Number]

SINGLE: tuple[tuple[str, str, Callable[[Report], object]], ...] = (
    ("monitor_window_rows", "Answers that the monitor looked at.", lambda report: report.window.rows),
    (
        "model_metric_worse",
        "Whether labels say that the model is worse than on its test rows.",
        lambda report: report.performance.worse,
    ),
    (
        "model_worse_than_before",
        "Whether they say so of the version before.",
        lambda report: report.performance.before and report.performance.before.worse,
    ),
    (
        "drift_multivariate_auc",
        "How well rows of now are told from those of training.",
        lambda report: report.drift.auc,
    ),
    (
        "drift_multivariate_limit",
        "How well chance alone tells them.",
        lambda report: report.drift.multivariate.limit,
    ),
    (
        "drift_multivariate_drifted",
        "Whether columns go together otherwise.",
        lambda report: report.drift.multivariate.drifted,
    ),
    ("monitor_champion_version", "The version that answers.", lambda report: report.version),
    (
        "monitor_challenger_version",
        "The version that wants to answer.",
        lambda report: report.challenger and report.challenger.version,
    ),
    (
        "monitor_challenger_rows",
        "Labelled answers that both were compared on.",
        lambda report: report.challenger and report.challenger.rows,
    ),
    (
        "monitor_challenger_gain",
        "By how much the challenger is better.",
        lambda report: report.challenger and report.challenger.gain,
    ),
    (
        "monitor_challenger_gain_low",
        "The lower end of its interval.",
        lambda report: report.challenger and report.challenger.low,
    ),
    (
        "monitor_challenger_gain_high",
        "The upper end of it.",
        lambda report: report.challenger and report.challenger.high,
    ),
    (
        "monitor_challenger_margin",
        "That the whole interval has to lie above.",
        lambda report: report.challenger and report.challenger.margin,
    ),
    ("labels_joined_rows", "Answers that have a label.", lambda report: report.labels.joined),
    ("labels_waiting_rows", "Answers that wait for one.", lambda report: report.labels.waiting),
)
MOMENTS: tuple[tuple[str, str, Callable[[Report], str | None]], ...] = (
    ("monitor_last_look_timestamp_seconds", "When the monitor looked last.", lambda report: report.at),
    (
        "model_trained_timestamp_seconds",
        "When the model that answers was trained.",
        lambda report: report.trained_at,
    ),
    ("data_newest_timestamp_seconds", "Of the newest row at the source.", lambda report: report.newest),
)
EACH: tuple[tuple[str, str, Callable[[Report], Values], str], ...] = (
    (
        "model_metric_expected",
        "Of the model on its test rows.",
        lambda report: report.performance.expected,
        "metric",
    ),
    (
        "model_metric_estimated",
        "Estimated from the answers, without labels.",
        lambda report: report.performance.estimated,
        "metric",
    ),
    ("labels_aside_rows", "Labels that are not counted.", lambda report: report.labels.aside, "reason"),
)
COLUMN: tuple[tuple[str, str, Callable[[ColumnLine], object]], ...] = (
    ("drift_effect", "How far a column has moved.", lambda line: line.effect),
    ("drift_limit", "How far it may.", lambda line: line.limit),
    ("drift_drifted", "Whether it moved too far, by more than chance.", lambda line: line.drifted),
)


def of_report(report: Report) -> Iterator[Metric]:
    """Return the metrics of the monitor's report; what the report lacks has none."""
    for name, says, value in SINGLE:
        yield _single(name, says, _number(value(report)))
    for name, says, at in MOMENTS:
        yield _single(name, says, _seconds(at(report)))
    for name, says, values, label in EACH:
        yield family(name, "gauge", says, [({label: key}, value) for key, value in _numbers(values(report))])
    version = str(report.version)
    measured = _numbers(report.performance.metrics)
    lines = [({"metric": metric, "version": version}, value) for metric, value in measured]
    yield family("model_metric", "gauge", "Of the answers whose labels are there.", lines)
    groups = list(_slices(report.performance.slices))
    yield family("model_slice_metric", "gauge", "The same for a group of rows.", groups)

    # MOST_SERIES cuts off columns that have not drifted.
    columns = dict(sorted(report.drift.columns.items(), key=lambda one: one[1].drifted is not True))
    for name, says, field in COLUMN:
        found = _numbers({column: field(line) for column, line in columns.items()})
        yield family(name, "gauge", says, [({"column": column}, value) for column, value in found])
    counted = [line for line in columns.values() if line.counted]
    yield _single("drift_columns", "Columns that count.", float(len(counted)) if columns else None)

    verdict = report.verdict
    labels = {"status": verdict.status, "sure": verdict.sure}
    yield family("monitor_verdict", "gauge", "What the monitor says.", [(labels, 1.0)] if verdict.status else [])
    proposed = {one.action for one in verdict.actions}
    lines = [({"action": action}, float(action in proposed)) for action in ACTIONS if verdict.status]
    yield family("monitor_proposed_action", "gauge", "Whether the monitor proposes it.", lines)


def _single(name: str, says: str, value: float | None) -> Metric:
    return family(name, "gauge", says, [] if value is None else [({}, value)])


def _number(value: object) -> float | None:
    """Return a number, where True is 1; None for what is not a finite number."""
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        number = _number(value)
        if number is not None:
            yield key, number


def _seconds(text: str | None) -> float | None:
    """Return seconds since 1970; None for what is not a moment."""
    try:
        found = moment(text)
        return None if found is None else found.timestamp()
    except OverflowError:  # in another time zone it is before year 1
        return None


def _slices(slices: Iterable[SliceLine]) -> Iterator[Sample]:
    for one in slices:
        for metric, value in _numbers(one.metrics):
            yield {"slice": one.slice, "group": one.group, "metric": metric}, value
