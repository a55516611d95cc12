"""A source that knows no more than was known at a moment. A replay puts it in the place of source.py, in folders of its own."""

from __future__ import annotations

import datetime as dt
import json
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from copier_mlops import project
from copier_mlops.data import tables

ROWS = "rows"
MOMENT = Path(".cache/moment.json")
IN_PLACE = '"""What the source knew at the moment of the replay."""\n\nfrom .replayed import extent, fingerprint, read\n\n__all__ = ["extent", "fingerprint", "read"]\n'
"""What source.py says in the folders of a replay."""


def put(now: dt.datetime, label_days: float, turned: bool = False) -> None:
    """Say what time it is for the source.

    Args:
        now: With a time zone.
        label_days: A row's target is known so long after its time.
        turned: Whether targets are turned round, as when yes was taken for no.
    """
    tables.write_json({"now": now.isoformat(), "label_days": label_days, "turned": turned}, MOMENT)


def _moment() -> tuple[pd.Timestamp, pd.Timedelta, bool]:
    said = tables.read_json(MOMENT)
    return pd.Timestamp(said["now"]), pd.Timedelta(days=said["label_days"]), said["turned"]


def fingerprint(location: str) -> str:
    """Another one at another moment: more is known."""
    return json.dumps(tables.read_json(MOMENT), sort_keys=True)


def extent(location: str) -> tuple[int, Any]:
    """The number of rows that are known, and the time of the newest."""
    assert project.contract().time is not None
    times = [part[project.contract().time] for part in _rows(location, None, None)]
    return sum(map(len, times)), max((part.max() for part in times), default=pd.NaT)


def read(location: str, start: Any, end: Any, columns: list[str]) -> Iterator[pd.DataFrame]:
    """The rows that are known, a month at a time; those whose target is not known yet have none."""
    now, late, turned = _moment()
    for rows in _rows(location, start, end):
        target = turned_round(rows[project.contract().target]) if turned else rows[project.contract().target]
        rows[project.contract().target] = target.where((rows[project.contract().time] + late <= now).to_numpy())
        yield rows.filter(items=columns)


def turned_round(target: pd.Series) -> pd.Series:
    """Each class as the one before it; numbers mirrored about the middle of what there is. What is missing stays missing."""
    if project.contract()[project.contract().target].kind == "boolean":
        return target.map(operator.not_, na_action="ignore")
    if project.contract().classes:
        return target.map(
            {one: project.contract().classes[place - 1] for place, one in enumerate(project.contract().classes)}
        )
    mirrored: pd.Series = target.min() + target.max() - target
    return mirrored


def _rows(location: str, start: Any, end: Any) -> Iterator[pd.DataFrame]:
    now, _, _ = _moment()
    for _, files in tables.parts(Path(location)):
        for file in files:
            rows = tables.read(file)
            time = rows[project.contract().time]
            inside = time < (now if end is None else min(now, end))
            if start is not None:
                inside &= time >= start
            if inside.any():
                yield rows[inside.to_numpy()].reset_index(drop=True)
