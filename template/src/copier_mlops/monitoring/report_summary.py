"""What others need of the monitor's report: numbers over time, a line of the history, a few lines for a terminal."""

from __future__ import annotations

from typing import Any

import msgspec

from copier_mlops.monitoring.report import Report

CHALLENGER = ("rows", "gain", "low", "high")
"""Numbers of the section `challenger` that are drawn over time."""


def numbers(report: Report) -> dict[str, float]:
    """Return the numbers that are drawn over time, by name."""
    judged, challenger = report.performance, report.challenger
    found: dict[str, Any] = {
        **judged.metrics,
        **{f"{name}.low": ends.low for name, ends in judged.intervals.items()},
        **{f"{name}.high": ends.high for name, ends in judged.intervals.items()},
        **{f"{name}.expected": value for name, value in judged.expected.items()},
        **{f"{name}.estimated": value for name, value in judged.estimated.items()},
        "worse": judged.worse,
        "drift.columns": len(report.drift.drifted_columns),
        "drift.together": report.drift.auc,
        **{f"drift.{name}": line.effect for name, line in report.drift.columns.items()},
        "rows": report.window.rows,
        "labels.joined": report.labels.joined,
        "labels.waiting": report.labels.waiting,
        "age_days": report.age_days,
        **{f"challenger.{name}": getattr(challenger, name, None) for name in CHALLENGER},
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def as_line(report: Report) -> dict[str, Any]:
    """Return the line of the history: what later monitoring runs need of this one."""
    judged, challenger = report.performance, report.challenger
    return {
        "since": report.window.since,
        "until": report.window.until,
        "rows": report.window.rows,
        "version": report.version,
        "status": report.verdict.status,
        "actions": [one.action for one in report.verdict.actions],
        "metric": judged.metric,
        "labelled": judged.rows,
        "value": judged.metrics.get(judged.metric),
        "expected": judged.expected.get(judged.metric),
        "estimated": judged.estimated.get(judged.metric),
        "drifted": len(report.drift.drifted_columns),
        "auc": report.drift.auc,
        "waiting": report.labels.waiting,
        "challenger": {name: getattr(challenger, name) for name in ("version", "better", *CHALLENGER)}
        if challenger
        else None,
        "weeks": msgspec.to_builtins(judged.weeks),
    }


def said(report: Report) -> list[str]:
    """Return a report in a few lines for a terminal."""
    window, judged = report.window, report.verdict
    since, until = ((one or "")[:16].replace("T", " ") for one in (window.since, window.until))
    return [
        f"{judged.status.upper()} ({judged.sure}): {judged.says}",
        f"  {window.answers:,} answers from {since} to {until} UTC, {window.rows:,} of version {report.version}",
        *(f"  drifted: {reason}" for reason in report.drift.reasons[:5]),
        *(f"  changed: {note}" for note in report.drift.notes),
        *(f"  {one.action}: {reason}" for one in judged.actions for reason in one.reasons),
        *(f"  note: {note}" for note in report.notes),
    ]
