"""history: every run that was recorded, and every move of the champion."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from copier_mlops.registry import database
from copier_mlops.registry.database import POINTER, Records, RunRecord
from copier_mlops.settings import Settings


def history(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return every recorded run with its version, and every champion move; first complete an interrupted move."""
    records = database.read(settings.mlflow_tracking_uri)
    if records is None or not records.settled(database.parsed(database.text_of(POINTER))):
        records = _through_mlflow(settings)
    by_run = {version.run_id: version for version in records.versions}
    runs = []
    for run in records.runs:
        version = by_run.pop(run.run_id, None)
        metric = run.params.get("gate.metric", "")
        runs.append(
            {
                "version": version.number if version else None,
                "status": version.status if version else "rejected",
                "verdict": _verdict(run),
                metric or "metric": run.metrics.get(metric),
                "until": _day(run.params.get("resolved.test_start")),
                "recorded": dt.datetime.fromtimestamp(run.started / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M"),
                "lineage": run.tags.get("lineage", ""),
            }
        )
    for version in by_run.values():
        database.warn(f"version {version.number} is not listed: its run {version.run_id} was deleted in MLflow")
    return runs, [dict(vars(move)) for move in records.moves]


def _through_mlflow(settings: Settings) -> Records:
    from copier_mlops.registry.mlflow_registry import Registry  # brings MLflow, which takes seconds

    registry = Registry(settings)
    registry.settle()
    return registry.records()


def _verdict(run: RunRecord) -> str:
    """Return whether a run passed, and the limits that it missed."""
    try:
        checks: list[Mapping[str, Any]] = json.loads(run.tags["checks"])["checks"]
        missed = [check["name"] for check in checks if not check["passed"]]
        return run.tags["verdict"] + (f": {', '.join(missed)}" if missed else "")
    except (KeyError, ValueError):  # a tag that was deleted or cut
        return run.tags.get("verdict", "unknown")


def _day(moment: str | None) -> str:
    return "" if moment in (None, "None") else str(moment)[:10]
