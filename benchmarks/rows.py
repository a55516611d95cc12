"""What a figure comes to, the file that keeps all of them, and the table that people read."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median


def machine() -> str:
    """What the figures depend on beside the code: processors, memory, system, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {system}, Python {platform.python_version()}"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: How it is called in the table.
        value: The figure itself; of several repetitions the median.
        unit: Of value and spread.
        spread: The smallest and the largest repetition, or what the note says; None for a single measurement.
        bar: What it is held against, for people; empty where it is only reported.
        met: Whether it keeps the bar; None where there is none.
        note: What belongs to it: a breakdown, what else was seen.
        detail: What is too long for a note, as Markdown; it stands below the table.
        machine, date: Where and when.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    bar: str = ""
    met: bool | None = None
    note: str = ""
    detail: str = ""
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).date().isoformat())


def repeated(name: str, values: Sequence[float], unit: str, at_most: float | None = None, note: str = "") -> Row:
    """The median of several repetitions, held against an upper limit."""
    middle = median(values)
    spread = (round(min(values), 4), round(max(values), 4)) if len(values) > 1 else None
    return limited(name, middle, unit, at_most, spread, note)


def limited(
    name: str,
    value: float,
    unit: str,
    at_most: float | None = None,
    spread: tuple[float, float] | None = None,
    note: str = "",
) -> Row:
    """One value, held against an upper limit."""
    bar = "" if at_most is None else f"{at_most:g} or less"
    met = None if at_most is None else bool(value <= at_most)
    return Row(name, round(float(value), 4), unit, spread, bar, met, note)


def load(path: Path) -> list[Row]:
    """The rows that were kept; none if there is no file."""
    if not path.exists():
        return []
    rows = []
    for kept in json.loads(path.read_text(encoding="utf-8")):
        spread = kept.get("spread")
        rows.append(Row(**{**kept, "spread": tuple(spread) if spread else None}))
    return rows


def merge(kept: Sequence[Row], new: Sequence[Row], order: Sequence[str]) -> list[Row]:
    """New rows in place of the old ones of the same name, in the order of `order`; unknown names are dropped."""
    by_name = {row.name: row for row in [*kept, *new]}
    return [by_name[name] for name in order if name in by_name]


def save(rows: Sequence[Row], path: Path) -> None:
    """Write them as JSON, a line break between any two fields, so that a diff shows what changed."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float) -> str:
    if value != value:
        return "n/a"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def table(rows: Sequence[Row], meaning: Mapping[str, str]) -> str:
    """The Markdown table.

    Args:
        rows: In order.
        meaning: By name of a figure, what it is.
    """
    lines = ["| figure | value | spread | bar | met | note |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = [
            f"**{row.name}**: {meaning.get(row.name, '')}",
            f"{_number(row.value)} {row.unit}".strip(),
            f"{_number(row.spread[0])} to {_number(row.spread[1])}" if row.spread else "",
            row.bar,
            {True: "yes", False: "**no**", None: ""}[row.met],
            row.note,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row], meaning: Mapping[str, str]) -> str:
    """The whole of docs/benchmarks.md."""
    places = sorted({f"{row.machine}; {row.date}" for row in rows})
    measured = "\n".join(f"- {place}" for place in places)
    details = "".join(f"## {row.name}\n\n{row.detail.strip()}\n\n" for row in rows if row.detail)
    return f"""# Benchmarks

Written by `make bench` from `benchmarks/results.json`; edit neither by hand. `make bench ONLY=name` measures one figure
again and leaves the others.

Value is the median of the repetitions in one run, spread the smallest and the largest of them (for a difference of AUC:
its 95 % interval). What is compared is measured by turns in the same run, since a shared machine is not the same from
minute to minute. Seconds are wall-clock, packages are in uv's cache.

{table(rows, meaning)}
{details}Measured on

{measured}
"""
