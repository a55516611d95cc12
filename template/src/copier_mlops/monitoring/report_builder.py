"""The sections of the monitor's report, made from what a monitoring run has found; and what of it needs attention."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from copier_mlops.evaluation.metrics import LARGER_IS_BETTER
from copier_mlops.monitoring.drift import Drift, compare
from copier_mlops.monitoring.label_join import HARMLESS, PREDICTION, REASONS, Joined, waits
from copier_mlops.monitoring.log_aggregator import COUNTS, Period, Seen
from copier_mlops.monitoring.performance import Performance
from copier_mlops.monitoring.report import Report, moment
from copier_mlops.monitoring.report_html import shares

OFTEN = 0.01  # a share of entries or labels that nobody can use, from which on a person is told
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Fed:
    """How the labels came.

    Attributes:
        there: Whether there are any.
        files: How many files were read.
        troubles: What could not be read, a sentence each.
    """

    there: bool
    files: int
    troubles: Sequence[str]


def about_model(
    manifest: Mapping[str, Any],
    lineage: Mapping[str, Any],
    pointer: Mapping[str, Any],
    *,
    digest: str,
    version: int,
    now: dt.datetime,
) -> dict[str, Any]:
    """Which model answers, and how old it and what it knows are.

    Args:
        manifest, lineage, digest, version: Of its bundle.
        pointer: champion.json.
        now: When that is asked.
    """
    learnt = learnt_until(manifest)
    live = moment(pointer.get("since")) if pointer.get("version") == version else None
    trained = moment(lineage.get("trained_at")) or live
    known = learnt or trained
    return {
        "version": version,
        "bundle": digest,
        "problem": manifest["problem"],
        "target": manifest["target"],
        "trained_at": trained,
        "live_since": live,
        "learnt_until": learnt,
        "age_days": max(0.0, (now - known) / DAY) if known else None,
        "answer_cost": lineage.get("metrics", {}).get("answer_cost"),
    }


def learnt_until(manifest: Mapping[str, Any]) -> dt.datetime | None:
    """The end of what a model has learnt from; None where rows have no time."""
    span = manifest.get("window", {})
    return moment(span.get("test_start") or span.get("end"))  # with what came after it was tested


def about_performance(judged: Performance, seen: Seen, found: Drift | None) -> dict[str, Any]:
    """How good the answers are, by labels and estimated."""
    guessed = _estimated(found)
    known = {line["week"]: line for line in judged.weeks}
    weeks = []
    for monday in sorted({*known, *seen.by_week}):
        line = known.get(monday, {"week": monday, "labelled": 0, "value": None, "low": None, "high": None})
        window = seen.weeks.get(monday)
        week = _estimated(compare(window.profile, window)) if window else {}
        weeks.append({**line, "answers": seen.by_week[monday], "estimated": week.get(judged.metric, {}).get("now")})
    return {
        "metric": judged.metric,
        "larger_is_better": judged.metric in LARGER_IS_BETTER,
        "rows": judged.rows,
        "metrics": {name: one.value for name, one in judged.metrics.items()},
        "intervals": {name: {"low": one.low, "high": one.high} for name, one in judged.metrics.items()},
        "expected": {name: one.value for name, one in judged.expected.metrics.items()},
        "gain": vars(judged.gain),
        "worse": judged.worse,
        "says": judged.says,
        "estimated": {name: line["now"] for name, line in guessed.items()},
        "estimated_then": {name: line["then"] for name, line in guessed.items()},
        "estimated_margin": {name: line["margin"] for name, line in guessed.items()},
        "estimated_why": found.estimated_why if found else seen.why,
        "slices": [{**line, "metrics": {judged.metric: line["value"]}} for line in judged.slices],
        "versions": judged.versions,
        "before": vars(judged.before) | {"gain": vars(judged.before.gain)} if judged.before else None,
        "weeks": weeks,
    }


def _estimated(found: Drift | None) -> dict[str, dict[str, float]]:
    if found is None or found.estimated is None:
        return {}
    lines = found.estimated.to_dict("records")
    return {str(line["metric"]): {str(key): value for key, value in line.items()} for line in lines}


def about_drift(found: Drift | None, seen: Seen) -> dict[str, Any]:
    """What has changed since the training; of what has drifted also how it is spread, then and now."""
    if found is None or seen.window is None:
        return {
            "drifted": None, "rows": 0, "reference_rows": 0, "reference": None, "training": None, "columns": {}, "multivariate": {},
            "reasons": [], "notes": [], "why": seen.why,
        }  # fmt: skip
    counted = {**seen.window.columns, **seen.window.answers, **seen.window.labels}
    trained = seen.window.profile.get("training", {}).get("columns", {})
    columns = {}
    for line in found.table.to_dict("records"):
        name = str(line.pop("name"))
        columns[name] = {str(key): value for key, value in line.items()}
        columns[name]["training"] = trained.get(name) if line["what"] == "feature" else None
        if line["drifted"]:
            columns[name]["shares"] = shares(counted[name].column, counted[name].counts.tolist())
    return {
        "drifted": found.drifted,
        "rows": found.rows,
        "reference_rows": found.reference_rows,
        "reference": about_rows(seen.window.profile),
        "training": about_rows(seen.window.profile.get("training", {})),
        "columns": columns,
        "multivariate": vars(found.together),
        "reasons": found.reasons,
        "notes": found.notes,
        "why": "" if found.rows else "nothing was asked in the window, so there is nothing to compare",
    }


def about_rows(profile: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how many rows a profile is made of, and their first and last day; None for a bundle that does not say so."""
    if "rows" not in profile:
        return None
    first, last = profile.get("span") or (None, None)
    return {"rows": profile["rows"], "from": first, "to": last}


def of_rows(about: Mapping[str, Any] | None) -> str:
    """Return the same in words."""
    if about is None:
        return ""
    days = f" of {about['from']} to {about['to']}" if about["from"] else ""
    return f"{about['rows']:,} rows{days}"


def about_labels(joined: Joined, fed: Fed, seen: Seen) -> dict[str, Any]:
    """Which labels have come, which have not, and which could not be used."""
    waiting = waits(sum(one.rows for one in seen.versions.values()), joined)
    return {
        "there": fed.there,
        "files": fed.files,
        "labels": joined.labels,
        "joined": len(joined.rows),
        "waiting": waiting["answers"],
        "waiting_share": waiting["share"],
        "days_50": waiting["days_50"],
        "days_90": waiting["days_90"],
        "aside": joined.reasons,
        "wrong": joined.wrong,
        "troubles": fed.troubles,
    }


def about_log(seen: Seen, when: Period) -> dict[str, Any]:
    """How many entries were read, and why some were not counted."""
    hours = (when.now - seen.newest).total_seconds() / 3600 if seen.newest else None
    counts = {name: seen.counts[name] for name in COUNTS}
    return {**counts, "reasons": dict(sorted(seen.reasons.items())), "newest": seen.newest, "silent_hours": hours}


def about_traffic(seen: Seen) -> dict[str, Any]:
    """When, which way and by which version was answered."""
    return {
        "days": dict(sorted(seen.days.items())),
        "ways": dict(sorted(seen.ways.items())),
        "versions": {str(number): vars(seen.versions[number]) for number in sorted(seen.versions)},
    }


# ------------------------------------------------------------------------------------------------------ Troubles


def troubles_of_log(seen: Seen, when: Period, silent_hours: float) -> tuple[list[str], list[str]]:
    """What of the log a person has to look at, and what is worth a note alone."""
    troubles: list[str] = []
    notes: list[str] = []
    if seen.why:
        troubles.append(f"nothing was compared with the training: {seen.why}")
    if seen.newest is None:
        notes.append("the log has no answers: nothing was asked yet, or PREDICTION_LOG names another folder")
    elif when.now - seen.newest > dt.timedelta(hours=silent_hours):
        troubles.append(f"nothing was answered since {seen.newest.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC")
    said = {
        "damaged": "are damaged and were passed over",
        "malformed": "are no answers",
        "future": "are later than the moment of this look" if when.replay else "are from the future: a clock is wrong",
        "set_aside": "have a row that breaks the contract",
        "unanswered": "have no score",
    }
    whole = seen.counts["entries"] + seen.counts["damaged"]
    for name, what in said.items():
        count = seen.counts[name]
        harmless = count <= OFTEN * whole or (name == "future" and when.replay)
        if count:
            (notes if harmless else troubles).append(f"{count:,} of {whole:,} entries of the log {what}")
    return troubles, notes


def troubles_of_labels(joined: Joined, fed: Fed, when: Period) -> tuple[list[str], list[str]]:
    """What of the labels a person has to look at, and what is worth a note alone."""
    troubles = [f"labels could not be read: {one}" for one in fed.troubles]
    notes: list[str] = []
    if joined.labels and joined.reasons.get("unknown") == joined.labels:
        troubles.append(
            f"none of {joined.labels:,} labels belongs to an answer in the log: do they name a {PREDICTION}, or the id as it was asked?"
        )
    for reason, count in joined.reasons.items():
        if reason in HARMLESS or reason == "unknown":  # a table of labels may know of more than was asked
            continue
        harmless = count <= OFTEN * joined.labels or (reason == "future" and when.replay)
        (notes if harmless else troubles).append(
            f"{count:,} of {joined.labels:,} labels do not count: such a label {REASONS[reason]}"
        )
    return troubles, notes


# -------------------------------------------------------------------------------------------------------- Values


def plain(value: Any) -> Any:
    """As JSON has it: None for a number that is not defined, moments as text in UTC."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def report_of(content: Mapping[str, Any]) -> Report:
    """Return the report that has these sections, as it is written.

    Raises:
        msgspec.ValidationError: If a section has an unknown or a missing name, or a value of another type.
    """
    return msgspec.convert(plain(content), Report)
