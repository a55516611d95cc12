"""Numbers and tables as text, in HTML and Markdown."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def number(value: Any) -> str:
    """Return a number as text: four significant digits, thousands separated."""
    if isinstance(value, bool | str):
        return str(value)
    if value is None or np.isnan(value):
        return "n/a"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def table(rows: Sequence[Mapping[str, Any]], markdown: bool = False, title: str = "") -> str:
    """Return a table of dictionaries with the same keys, as HTML or Markdown; the title is for HTML."""
    if not rows:
        return "<p>none</p>" if not markdown else "none\n"
    names = list(rows[0])
    if markdown:
        lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
        lines += ["| " + " | ".join(number(row[name]).replace("|", "/") for name in names) + " |" for row in rows]
        return "\n".join(lines) + "\n"
    above = f"<caption>{html.escape(title)}</caption>" if title else ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(number(row[name]))}</td>" for name in names) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def when(facts: Mapping[str, Any], start: str, end: str) -> str:
    days = facts["window"]
    if end not in days:
        return ""
    return f" from {days[start]} to {days[end]}" if start in days else f" before {days[end]}"
