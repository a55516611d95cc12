"""The page of a look at production, for whoever owns the product: one sentence first, then what it rests on. Numbers in, HTML out."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from msgspec import UNSET, to_builtins
from msgspec.structs import asdict

from copier_mlops.evaluation.formatting import number, table
from copier_mlops.evaluation.plots import INK, MARK, SOFT, as_png, blank, caption
from copier_mlops.evaluation.report import STYLE
from copier_mlops.monitoring import report as reports
from copier_mlops.monitoring.label_join import REASONS

BARS = 14  # of a number
NAMES = 10  # of a text
MOST_PICTURES = 8  # of columns that have drifted
MOST_WEEKS = 52
ALARM = "#b3261e"
COLOURS = {"worse": ALARM, "drifted": "#a15c00", "unknown": SOFT, "good": "#1b7a3d"}
PROPOSALS = {
    "retrain": "Train again",
    "promote": "Make the challenger the champion",
    "roll_back": "Go back to the version before",
    "tell": "Look at this",
}


def shares(column: Mapping[str, Any], counts: Sequence[int]) -> dict[str, Any]:
    """What a column looked like then and looks like now, in as few bars as people can take in.

    Args:
        column: Its profile in the bundle.
        counts: Of the window, by the bins of that profile.

    Returns:
        `then` and `now`, shares of the known values; with `edges` of a number, one more than shares, or `names`.
    """
    now = np.asarray(counts, dtype="float64")
    if "edges" in column:
        edges = np.array(column["edges"], dtype="float64")
        return _bars(edges, np.array(column["counts"], dtype="float64"), now)
    names = sorted(column["values"])
    then = np.array([*(column["values"][name] for name in names), column["other"]], dtype="float64")
    then, now = then / max(then.sum(), 1), now / max(now.sum(), 1)
    top = sorted(np.argsort(-np.maximum(then, now)[:-1], kind="stable")[:NAMES].tolist())
    rest = [1.0 - float(side[top].sum()) if side.sum() else 0.0 for side in (then, now)]
    found: dict[str, Any] = {"names": [names[place] for place in top]}
    found |= {side: [float(values[place]) for place in top] for side, values in (("then", then), ("now", now))}
    if max(rest) > 1e-9:
        found["names"].append("others")
        found["then"].append(max(rest[0], 0.0))
        found["now"].append(max(rest[1], 0.0))
    return found


def _bars(edges: np.ndarray, then: np.ndarray, now: np.ndarray) -> dict[str, Any]:
    """Bars of the same width, from bins of the same weight: what lies between two edges is taken to be spread evenly."""
    if not len(edges):
        return {"edges": [], "then": [], "now": []}
    below = [np.cumsum(side)[: len(edges)] / max(side.sum(), 1) for side in (then, now)]
    low = min(float(np.interp(0.005, side, edges)) for side in below)
    high = max(float(np.interp(0.995, side, edges)) for side in below)
    grid = np.linspace(low, high, BARS + 1) if high > low else np.array([low, low])
    parts = []
    for side, counts in zip(below, (then, now), strict=True):
        up_to = np.interp(grid, edges, side, left=0.0, right=float(side[-1]))
        part = np.diff(up_to)
        part[0] += up_to[0]  # what lies outside goes to the ends
        part[-1] += 1 - up_to[-1]
        parts.append(part.tolist() if counts.sum() else [0.0] * len(part))
    return {"edges": grid.tolist(), "then": parts[0], "now": parts[1]}


def weeks(look: reports.Report, before: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The weeks that this look and those before it have seen, each as it was seen with the most labels: these come late, a window may
    begin in the middle of a week, and a feed may be down.
    """
    found: dict[str, dict[str, Any]] = {}
    for lines in [*(one.get("weeks") for one in before), to_builtins(look.performance.weeks)]:
        for line in lines or ():
            known = found.get(line["week"], {})
            better = line if line["labelled"] >= known.get("labelled", 0) else known
            measured = {name: better[name] for name in ("labelled", "value", "low", "high")}
            found[line["week"]] = {**line, **measured}
    return [found[week] for week in sorted(found)][-MOST_WEEKS:]


# ------------------------------------------------------------------------------------------------------ Pictures


def plots(look: reports.Report, before: Sequence[Mapping[str, Any]] = ()) -> dict[str, bytes]:
    """PNG files by name; the same numbers give the same bytes.

    Args:
        look: The report.
        before: The lines of looks before this one, the oldest first.
    """
    drawn: dict[str, Figure] = {}
    lines = weeks(look, before)
    if any(_known(line, "value") or _known(line, "estimated") for line in lines):
        drawn["weeks"] = _weeks(lines, look.performance)
    if any(line.value is not None for line in look.performance.slices):
        drawn["slices"] = _slices(look.performance)
    if look.traffic.days:
        drawn["days"] = _days(look.traffic.days)
    if len(before) > 1:
        drawn["looks"] = _looks([*before, {"at": look.at, "drifted": len(look.drift.drifted_columns)}])
    for name, line in _drifted(look)[:MOST_PICTURES]:
        if line.shares is not UNSET:
            drawn[f"column {name}"] = _then_and_now(name, line.shares)
    return {name: as_png(figure) for name, figure in drawn.items()}


def _known(line: Mapping[str, Any], name: str) -> bool:
    return isinstance(line.get(name), int | float)


def _drifted(look: reports.Report) -> list[tuple[str, reports.ColumnLine]]:
    """The columns that have drifted, the largest effect first."""
    columns = [(name, line) for name, line in look.drift.columns.items() if line.drifted]
    return sorted(columns, key=lambda one: (-(one[1].effect or 0), one[0]))


def _weeks(lines: Sequence[Mapping[str, Any]], performance: reports.PerformanceSection) -> Figure:
    figure, (axis,) = blank(height=3.0)
    metric = performance.metric
    expected = performance.expected.get(metric)
    if expected is not None:
        axis.axhline(expected, color=SOFT, linewidth=1, linestyle="--", label="on its test rows")
    place = {line["week"]: float(at) for at, line in enumerate(lines)}
    real = [line for line in lines if _known(line, "value")]
    if real:
        values = np.array([line["value"] for line in real])
        ends = [[line[end] if _known(line, end) else line["value"] for line in real] for end in ("low", "high")]
        reach = [np.maximum(values - ends[0], 0), np.maximum(np.array(ends[1]) - values, 0)]
        at = [place[line["week"]] for line in real]
        axis.errorbar(at, values, yerr=reach, fmt="o", color=MARK, ecolor=SOFT, markersize=5, label="by labels")
    guessed = [line for line in lines if _known(line, "estimated")]
    if guessed:
        at = [place[line["week"]] + 0.12 for line in guessed]
        values = np.array([line["estimated"] for line in guessed])
        axis.plot(at, values, "o", mfc="none", color=MARK, label="estimated, without labels")
    step = -(-len(lines) // 8)
    axis.set_xticks(range(0, len(lines), step), [lines[at]["week"] for at in range(0, len(lines), step)])
    axis.set_xlim(-0.6, len(lines) - 0.4)
    narrow = {"fontsize": 8, "columnspacing": 1.2, "handletextpad": 0.3, "handlelength": 1.5, "borderaxespad": 0.2}
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, **narrow)  # above, beside the caption
    caption(axis, f"{metric} by week, with 95 % intervals", "week of the answers (its Monday)", metric)
    return figure


def _slices(performance: reports.PerformanceSection) -> Figure:
    lines = [(line, line.value) for line in performance.slices if line.value is not None][-40:][::-1]
    figure, (axis,) = blank(height=0.9 + 0.22 * max(len(lines), 3))
    for at, (line, value) in enumerate(lines):
        ends = [value if end is None else end for end in (line.low, line.high)]
        colour = ALARM if line.worse else MARK
        axis.plot(ends, [at, at], color=SOFT, linewidth=1)
        axis.plot(value, at, "o", color=colour, markersize=4)
        if line.expected is not None:
            axis.plot(line.expected, at, "|", color=INK, markersize=9)
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.set_yticks(range(len(lines)), [f"{one.slice} {one.group}  ({one.rows:,})" for one, _ in lines])
    caption(axis, "By group (rows), with 95 % intervals; a bar where it was on the test rows", performance.metric)
    return figure


def _days(days: Mapping[str, int]) -> Figure:
    figure, (axis,) = blank(height=2.0)
    axis.bar(range(len(days)), list(days.values()), color=MARK, width=0.8)
    step = -(-len(days) // 10)
    axis.set_xticks(range(0, len(days), step), [day[5:] for day in days][::step])
    caption(axis, f"Answers by day, from {next(iter(days))}", "day (UTC)", "answers")
    return figure


def _looks(lines: Sequence[Mapping[str, Any]]) -> Figure:
    figure, (axis,) = blank(height=2.0)
    moments = pd.to_datetime([str(line["at"]) for line in lines], utc=True, format="ISO8601").tz_localize(None)
    axis.step(moments.to_numpy(), [int(line.get("drifted") or 0) for line in lines], where="post", color=MARK)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    places = pd.date_range(moments.min(), moments.max(), periods=6)
    axis.set_xticks(places.to_numpy(), [f"{place:%Y-%m-%d}" for place in places])
    caption(axis, "Columns that had drifted, by monitoring run", "time of the run (UTC)", "columns")
    return figure


def _then_and_now(name: str, given: reports.Shares) -> Figure:
    figure, (axis,) = blank(width=4.6, height=2.4)
    then, now = np.array(given.then), np.array(given.now)
    if given.names is not UNSET:
        place = np.arange(len(then))
        axis.bar(place - 0.2, then, 0.4, color=SOFT, label="reference")
        axis.bar(place + 0.2, now, 0.4, color=MARK, label="window")
        short = [text if len(text) <= 12 else f"{text[:11]}…" for text in given.names]
        axis.set_xticks(place, short, rotation=45 if max(map(len, short), default=0) > 4 else 0, fontsize=8)
    elif given.edges is not UNSET and len(then):
        edges = np.array(given.edges)
        axis.stairs(then, edges, color=SOFT, fill=True, alpha=0.5, label="reference")
        axis.stairs(now, edges, color=MARK, linewidth=1.6, label="window")
    axis.margins(y=0.22)  # of which the names take the room
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    caption(axis, name if len(name) <= 40 else f"{name[:39]}…", "value", "share of rows")
    return figure


# ---------------------------------------------------------------------------------------------------------- Page


MORE_STYLE = """
.verdict { border-left: 6px solid; padding: .4rem 1rem; font-size: 1.15rem; margin: 1rem 0 } .pair img { display: inline-block; max-width: 49% }
"""


def page(title: str, look: reports.Report, pictures: Mapping[str, bytes]) -> str:
    """The report, pictures inside, so that one file can be sent to somebody.

    Args:
        title: What the model predicts.
        look: The report.
        pictures: PNG by name, as `plots` gives them.
    """
    verdict, performance, drift, window = look.verdict, look.performance, look.drift, look.window
    metric = performance.metric
    columns = [line for line in drift.columns.values() if line.counted]
    cards = {
        f"{metric} by {number(performance.rows)} labels": number(performance.metrics.get(metric)),
        f"{metric} on the test rows": number(performance.expected.get(metric)),
        "answers in the window": number(window.answers),
        f"of {len(columns)} columns have drifted": number(len(drift.drifted_columns)),
        "answers wait for a label": number(look.labels.waiting),
    }
    image = {
        name: f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    }
    shown = "".join(f"<div><b>{value}</b><span>{html.escape(label)}</span></div>" for label, value in cards.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}{MORE_STYLE}</style></head><body>
<h1>{html.escape(title)}: a look at production</h1>
<p class="sub">Version {look.version}, {_moment(window.since)} to {_moment(window.until)} UTC</p>
<p class="verdict" style="border-color: {COLOURS[verdict.status]}">{html.escape(verdict.says)}</p>
<div class="cards">{shown}</div>
{_actions(verdict.actions)}
<h2>How good are the answers?</h2>
<p>{html.escape(_sentence(performance.says))}</p>
{image.get("weeks", "")}
{table(_metrics(performance))}
<p>{html.escape(_sentence(performance.estimated_why))}</p>
{image.get("slices", "")}
{_details("The groups", _groups(performance))}
{_details("The versions", [_named(_line(line), metric) for line in performance.versions])}
{_challenger(look)}
<h2>Drift</h2>
{_reference(drift)}
{_list(drift.reasons) or f"<p>{html.escape(_sentence(drift.why or 'No column that the model depends on has changed by more than the season explains'))}</p>"}
{_list(drift.notes)}
<div class="pair">{"".join(one for name, one in image.items() if name.startswith("column "))}</div>
{_details("All columns", _columns(drift.columns))}
{image.get("looks", "")}
<h2>Which labels have come?</h2>
<p>{html.escape(_labels(look.labels))}</p>
{_reasons(look.labels.aside)}
<h2>What was asked?</h2>
{image.get("days", "<p>Nothing.</p>")}
{table(_log(look))}
{_details("Rows of the log that break the contract, or have values that training did not see", [{"reason": why, "rows": rows} for why, rows in look.log.reasons.items()])}
{_list(look.notes)}
</body></html>
"""


def _moment(text: str | None) -> str:
    return html.escape((text or "")[:16].replace("T", " "))


def _line(line: reports.SliceLine | reports.VersionLine) -> dict[str, Any]:
    """Return a line of the report as one of a table."""
    return {name: value for name, value in asdict(line).items() if name != "metrics"}


def _sentence(text: str) -> str:
    return text + ("" if text.endswith(".") else ".") if text else ""


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(_sentence(line))}</li>' for line in lines)}</ul>" if lines else ""


def _actions(actions: Sequence[reports.ActionLine]) -> str:
    return "".join(
        f"<p><b>{PROPOSALS[one.action]}</b> is proposed, because:</p>{_list(one.reasons)}"
        if one.action != "tell"
        else f"<p><b>{PROPOSALS['tell']}</b>:</p>{_list(one.reasons)}"
        for one in actions
    )


def _details(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{table(rows)}</details>" if rows else ""


def _metrics(performance: reports.PerformanceSection) -> list[dict[str, Any]]:
    names = dict.fromkeys([*performance.metrics, *performance.estimated])
    ends = performance.intervals
    return [
        {
            "metric": name,
            "now": performance.metrics.get(name),
            **{end: getattr(ends.get(name), end, None) for end in ("low", "high")},
            "test rows": performance.expected.get(name),
            "estimated without labels": performance.estimated.get(name),
        }
        for name in names
    ]


def _named(line: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return a line of values with the name of its metric."""
    return {metric if key == "value" else key: value for key, value in line.items()}


def _groups(performance: reports.PerformanceSection) -> list[dict[str, Any]]:
    words = {True: "yes", False: "no", None: "not judged"}
    lines = [
        {key: value for key, value in _line(line).items() if key not in ("metrics", "expected", "worse")}
        for line in performance.slices
    ]
    ends = [{"test rows": line.expected, "worse": words[line.worse]} for line in performance.slices]
    return [_named(line, performance.metric) | end for line, end in zip(lines, ends, strict=True)]


def _reference(drift: reports.DriftSection) -> str:
    """Return what the window is compared with, as HTML."""
    if not drift.reference:
        return ""
    rows = [
        {"rows": name, "number": one.rows, "from": one.first or "n/a", "to": one.last or "n/a"}
        for name, one in (
            ("reference, which the window is compared with", drift.reference),
            ("training, a random part of its rows", drift.training),
        )
        if one
    ]
    return table(rows, title="Reference and training rows")


def _challenger(look: reports.Report) -> str:
    """The champion beside the challenger; nothing where there is none."""
    one = look.challenger
    if not one:
        return ""
    metric = one.metric
    lines: list[dict[str, Any]] = [
        {"": f"version {look.version}, champion", metric: one.champion, "low": "", "high": ""},
        {"": f"version {one.version}, challenger", metric: one.challenger, "low": "", "high": ""},
        {"": "gain, positive is better", metric: one.gain, "low": one.low, "high": one.high},
    ]
    shown = table(lines) if (one.rows or 0) > 1 else ""
    return f"<h2>Is the challenger better?</h2>\n<p>{html.escape(_sentence(one.says))}</p>\n{shown}"


def _columns(columns: Mapping[str, reports.ColumnLine]) -> list[dict[str, Any]]:
    keys = {
        "what": "role",
        "weight": "weight in the model",
        "change": "change",
        "season": "explained by the season",
        "p": "p",
    }
    kinds = {"drifted": "drifted", "seasonal": "seasonal", "minor": "minor", "changed": "changed"}
    return [
        {
            "column": name,
            **{title: getattr(line, key) for key, title in keys.items()},
            "result": next((kinds[kind] for kind in kinds if getattr(line, kind)), "as in the reference"),
            "most training rows": _training(line.training),
            "details": line.why,
        }
        for name, line in columns.items()
    ]


def _training(known: Mapping[str, Any] | None) -> str:
    return f"{number(known['low'])} to {number(known['high'])}" if known and "low" in known else ""


def _labels(labels: reports.LabelsSection) -> str:
    if not labels.there:
        return "No labels have come yet: `make label INPUT=outcomes.csv` brings them."
    delay = f" Half of them came within {labels.days_50:.2g} days." if labels.days_50 is not None else ""
    return (
        f"{labels.joined:,} of {labels.labels:,} labels belong to an answer in the window and count. "
        f"{labels.waiting:,} answers wait for theirs.{delay}"
    )


def _reasons(aside: Mapping[str, float | None]) -> str:
    """Return how many labels do not count, and why; nothing if all count."""
    lines = [{"a label that": REASONS[name], "labels": count} for name, count in aside.items()]
    return table(lines, title="Labels that do not count") if lines else ""


def _log(look: reports.Report) -> list[dict[str, Any]]:
    log = look.log
    said = {
        "entries in the log": log.entries,
        "damaged, passed over": log.damaged,
        "no entries at all": log.malformed,
        "from the future": log.future,
        "that break the contract": log.set_aside,
        "without an answer": log.unanswered,
    }
    return [{"what": name, "rows": count} for name, count in said.items()]
