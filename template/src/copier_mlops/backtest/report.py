"""Strategies of the same period beside each other: how good the predictions of each were, what it cost, and a page that shows it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from copier_mlops import ProjectError
from copier_mlops.evaluation.formatting import number, table
from copier_mlops.evaluation.metrics import LARGER_IS_BETTER, METRICS, gain
from copier_mlops.evaluation.plots import GRID, INK, MARK, SOFT, as_png, blank, caption
from copier_mlops.evaluation.report import STYLE
from copier_mlops.monitoring.performance import paired

NEVER, CALENDAR, LOOP = "never", "calendar", "loop"
LIVES = (NEVER, CALENDAR, LOOP)
NAMES = {NEVER: "never trained again", CALENDAR: "trained each month", LOOP: "trained by the loop"}
ALARM = "#c92a2a"
STATUS = {"good": "#2f9e44", "drifted": "#c77700", "worse": ALARM}
COLOURS = {NEVER: SOFT, CALENDAR: "#c77700", LOOP: MARK}
SAYS = {"promote": "goes live", "roll_back": "goes live again", "retrain": "is trained", "tell": "a person is told"}
PROPOSED = {"retrain": "training proposed", "promote": "promotion proposed", "roll_back": "rollback proposed"}
LETTER = 0.011  # width of a letter of a label in the timeline, as a share of the axis
REPLAY_STYLE = """
td:first-child { white-space: nowrap }
.verdict { border-left: 4px solid #0b6e99; padding: .4rem 1rem; background: #f5f7fa; font-size: 1.05rem }
"""


def compare(
    problem: str, metrics: Sequence[str], rows: pd.DataFrame, lives: Mapping[str, pd.DataFrame], times: int, seed: int
) -> dict[str, Any]:
    """How good each life's answers were, on the rows that all of them answered and whose truth is known.

    Args:
        problem: classification or regression.
        metrics: What to measure; by the first the lives are compared.
        rows: id, month, day (both text) and y, a line for each row.
        lives: By name id and the answers, shape (n, 1) or (n, classes).
        times, seed: Of the resamples of days behind the intervals.

    Returns:
        `metric`, `rows`, `months`, `values` by life and metric, `by_month` by life, metric and month, and for each life but the first
        its `gains` over the others: value, low, high; positive is better.

    Raises:
        ProjectError: If there are no two such rows.
    """
    known = rows[rows["y"].notna()].set_index("id")
    indexed = {name: answers.set_index("id") for name, answers in lives.items()}
    ids = known.index
    for answers in indexed.values():
        ids = ids[ids.isin(answers.index)]
    if len(ids) < 2:
        raise ProjectError(
            "fewer than two rows that every life answered have a known truth: there is nothing to compare."
        )
    known = known.loc[ids]
    y, months = known["y"].to_numpy("float64"), known["month"].to_numpy()
    scores = {name: _scores(answers.loc[ids]) for name, answers in indexed.items()}
    ones = np.ones(len(y))
    measures = {name: METRICS[problem][name] for name in metrics}
    by_month = {
        life: {name: {str(month): measure(y[months == month], score[months == month], ones[months == month]) for month in sorted(set(months))} for name, measure in measures.items()}
        for life, score in scores.items()
    }  # fmt: skip
    day = pd.to_datetime(known["day"])
    gains = {
        f"{one} over {other}": paired(
            problem, metrics[0], at=day, y=y, mine=scores[one], other=scores[other], times=times, seed=seed
        ).as_json()
        for one, other in ((LOOP, NEVER), (LOOP, CALENDAR), (CALENDAR, NEVER))
        if {one, other} <= set(scores)
    }
    return {
        "metric": metrics[0],
        "rows": len(y),
        "months": sorted(set(months.tolist())),
        "values": {
            life: {name: measure(y, score, ones) for name, measure in measures.items()}
            for life, score in scores.items()
        },
        "by_month": by_month,
        "gains": gains,
    }


def _scores(answers: pd.DataFrame) -> np.ndarray:
    values = answers.to_numpy("float64")
    return values if values.shape[1] > 1 else values[:, 0]


def sentence(found: Mapping[str, Any], lives: Mapping[str, Mapping[str, Any]]) -> str:
    """What came out, for somebody who reads no more than this."""
    metric, values = found["metric"], found["values"]
    if LOOP not in values or NEVER not in values:
        said = "; ".join(f"{NAMES[life]} {number(values[life][metric])}" for life in values)
        return f"{metric} over {found['rows']:,} rows: {said}."
    over = found["gains"][f"{LOOP} over {NEVER}"]
    sure = _sure(over) or "not distinguishable"
    words = {"better": "was better than", "worse": "was worse than", "not distinguishable": "cannot be told from"}[sure]
    if over["value"] == over["low"] == over["high"] == 0:
        words = "is as good as"
    said = (
        f"The model that the loop kept {words} the one that was never trained again: {metric} {close(values[LOOP][metric])} against "
        f"{close(values[NEVER][metric])}, a gain of {close(over['value'])} ({close(over['low'])} to {close(over['high'])})"
    )
    if CALENDAR in values:
        said += (
            f". Training each month came to {close(values[CALENDAR][metric])} with {_many(len(lives[CALENDAR]['trainings']), 'training')}; "
            f"the loop took {len(lives[LOOP]['trainings'])}"
        )
    looped = lives[LOOP]
    return f"{said}. Of {looped['requests']:,} requests {looped['failed']:,} failed."


def _sure(gained: Mapping[str, float | None]) -> str:
    """Whether a gain is `better` or `worse` by more than chance; empty if it is neither, or has no interval."""
    low, high = gained["low"], gained["high"]
    if low is None or high is None:
        return ""
    return "better" if low > 0 else "worse" if high < 0 else ""


def disagreements(found: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each pair of strategies that the metrics rank differently."""
    said, values = [], found["values"]
    for pair, gained in found["gains"].items():
        one, other = pair.split(" over ")
        for metric in values[one]:
            by = gain(metric, values[one][metric], values[other][metric])
            if gained["value"] is not None and by * gained["value"] < 0:
                sides = ("better", "worse") if gained["value"] > 0 else ("worse", "better")
                sure = "" if _sure(gained) else ", by no more than chance"
                said.append(
                    f"{found['metric']} and {metric} disagree: {NAMES[one]} is {sides[0]} than {NAMES[other]} in {found['metric']} "
                    f"({close(values[one][found['metric']])} against {close(values[other][found['metric']])}{sure}), and {sides[1]} in "
                    f"{metric} ({close(values[one][metric])} against {close(values[other][metric])})."
                )
    return said


def why_two_metrics(found: Mapping[str, Any]) -> str:
    """Return why one metric decides a promotion, and the other the gate; empty if they are the same."""
    metric, others = found["metric"], [name for name in next(iter(found["values"].values())) if name != found["metric"]]
    if not others:
        return ""
    seen = (
        "whether the probabilities are right as well as their order" if metric == "brier" else "the size of every error"
    )
    order = {"auc": ", which sees the order of the predictions only"}.get(others[0], "")
    return (
        f"A promotion is decided by {metric}, since it sees {seen}. The gate of a training is decided by {others[0]} "
        f"(gate.metric in params.yaml){order}."
    )


def noticed(fault: str, life: Mapping[str, Any]) -> str | None:
    """Return the moment of the first monitoring run that noticed a fault; None if none did.

    A fault of a column is noticed by a run in which the column has drifted, or that has an issue which the run before the fault does
    not have. A bad champion is noticed by a run that calls it worse or proposes a rollback. Other faults are no work of the monitor.

    Args:
        fault: for example `celsius:temperature@2024-09-15`.
        life: what became of the monitored strategy.
    """
    said, _, day = fault.partition("@")
    kind, *parts = said.split(":")
    before = [look for look in life["looks"] if look["at"][:10] <= day]
    known = set(before[-1].get("troubles", ())) if before else set()
    for look in life["looks"]:
        if look["at"][:10] <= day:
            continue
        column = parts and (parts[0] in look.get("drifted", ()) or set(look.get("troubles", ())) - known)
        if kind in ("celsius", "renamed", "missing") and column:
            return str(look["at"])
        if kind == "bad-champion" and (look["status"] == "worse" or "roll_back" in look.get("actions", ())):
            return str(look["at"])
    return None


def faults(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the injected faults, each with the day on which the monitored strategy noticed it."""
    lines = []
    for fault in report["faults"]:
        line = {"fault": fault}
        if LOOP in report["lives"]:
            at = noticed(fault, report["lives"][LOOP])
            known = fault.startswith(("traffic", "bad-challenger"))
            line["noticed on"] = at[:10] if at else "not looked for" if known else "not noticed"
        lines.append(line)
    return lines


def close(value: float | None) -> str:
    """A number for people, with the digits in which lives differ."""
    return f"{value:.5f}" if value is not None and abs(value) < 1 else number(value)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def plots(
    found: Mapping[str, Any], lives: Mapping[str, Mapping[str, Any]], start: str, end: str, broken: Sequence[str] = ()
) -> dict[str, bytes]:
    """Return PNG by name: each strategy month by month, and when the monitored one was trained and changed.

    Args:
        found: as `compare` gives it.
        lives: what became of each strategy.
        start, end: days of the period.
        broken: the injected faults.
    """
    drawn = {f"months {name}": _months(found, name) for name in next(iter(found["values"].values()))}
    if LOOP in lives:
        drawn["timeline"] = _timeline(lives[LOOP], start, end, broken)
    return {name: as_png(figure) for name, figure in drawn.items()}


def _months(found: Mapping[str, Any], metric: str) -> Figure:
    figure, (axis,) = blank(height=3.2)
    months = found["months"]
    for place, (life, by) in enumerate(found["by_month"].items()):
        values = [by[metric][month] for month in months]
        wide = 2 * (len(found["by_month"]) - place)  # the later are thinner, so that equal ones are all visible
        axis.plot(
            np.arange(len(months)),
            values,
            "o-",
            color=COLOURS[life],
            label=NAMES[life],
            markersize=3 + wide,
            linewidth=wide - 0.7,
        )
    axis.set_xticks(range(len(months)), months)
    axis.set_ylim(*ends(metric, [value for by in found["by_month"].values() for value in by[metric].values()]))
    axis.ticklabel_format(axis="y", style="plain", useOffset=False)
    axis.legend(frameon=False, fontsize=9, loc="lower left", ncols=3, bbox_to_anchor=(0, 0))
    side = "higher" if metric in LARGER_IS_BETTER else "lower"
    caption(axis, f"{metric} by month; {side} is better", "month", metric)
    return figure


def ends(metric: str, values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a metric's axis, which depend on the metric and hardly on the values: a small difference looks small."""
    known = [value for value in values if np.isfinite(value)] or [0.0]
    if metric in LARGER_IS_BETTER:
        return min(0.5 if metric == "auc" else 0.0, min(known) - 0.02), 1.0
    low, high = min(0.0, 1.15 * min(known)), 1.15 * max(0.0, *known)
    return low, high if high > low else 1.0


def levels(places: Sequence[float], widths: Sequence[float]) -> list[int]:
    """Return a level for each label, the lowest one on which no label to the left reaches into it.

    Args:
        places: left ends of the labels, in any unit and order.
        widths: their widths in the same unit.
    """
    found, ends = [0] * len(places), list[float]()
    for label in sorted(range(len(places)), key=lambda one: places[one]):
        free = next((level for level, end in enumerate(ends) if end <= places[label]), len(ends))
        ends[free:] = [places[label] + widths[label], *ends[free + 1 :]]
        found[label] = free
    return found


def _labels_in_lane(
    texts: Sequence[str], moments: Sequence[str], start: str, end: str
) -> list[tuple[float, float, int]]:
    """Return for each text its moment, the left end of its label and its level. A label ends where the axis ends."""
    first, last = _place(start), _place(end)
    at = [_place(moment) for moment in moments]
    widths = [(last - first) * (LETTER * len(text) + LETTER) for text in texts]
    left = [min(place, last - width) for place, width in zip(at, widths, strict=True)]
    return list(zip(at, left, levels(left, widths), strict=True))


def _timeline(life: Mapping[str, Any], start: str, end: str, broken: Sequence[str]) -> Figure:
    kinds = [fault.partition("@") for fault in broken]
    fault_labels = _labels_in_lane([kind for kind, _, _ in kinds], [day for _, _, day in kinds], start, end)
    above = 0.32 * max((level for _, _, level in fault_labels), default=0)
    figure, (axis,) = blank(height=2.8 + 0.5 * above)
    lanes = {"monitoring runs": 0, "trainings (filled: passed)": 1, "goes live": 2, "faults": 3}
    for look in life["looks"]:
        color = STATUS.get(look["status"], SOFT)
        axis.plot(_place(look["at"]), 0, "s", color=color, markersize=7)
    for training in life["trainings"]:
        axis.plot(_place(training["at"]), 1, "o", color=MARK, mfc=MARK if training["passed"] else "none", markersize=7)
    versions = [f"version {move['version']}" for move in life["moves"]]
    version_labels = _labels_in_lane(versions, [move["at"] for move in life["moves"]], start, end)
    for move, text, (at, left, level) in zip(life["moves"], versions, version_labels, strict=True):
        axis.plot(at, 2, "^" if move["move"] == "promote" else "v", color=INK, markersize=8)
        axis.annotate(text, (left, 2), (4, 5 + 9 * level), textcoords="offset points", fontsize=8, color=INK)
        axis.axvline(at, color=GRID, linewidth=1)
    for fault, (kind, _, _), (at, left, level) in zip(broken, kinds, fault_labels, strict=True):
        axis.axvline(at, color=ALARM, linewidth=1, linestyle="--")
        height = 3 + 0.32 * level
        axis.annotate(kind, (left, height), (3, -3), textcoords="offset points", fontsize=8, color=ALARM)
        if run := noticed(fault, life):
            axis.plot(_place(run), 0, "s", mfc="none", color=INK, markersize=12)
            label = f"noticed {run[:10]}"
            axis.annotate(label, (_place(run), 0), (6, 8), textcoords="offset points", fontsize=8, color=INK)
    axis.set_yticks(list(lanes.values())[: 4 if broken else 3], list(lanes)[: 4 if broken else 3])
    axis.set_ylim(-0.6, 3.6 + above if broken else 2.8)
    axis.set_xlim(_place(start), _place(end))
    ticks = pd.date_range(start, end, periods=6).normalize()
    axis.set_xticks([_place(str(tick)) for tick in ticks], [f"{tick:%Y-%m-%d}" for tick in ticks])
    caption(axis, "Monitored strategy; runs: green good, orange drifted, red worse, gray unknown", "day")
    return figure


def _place(moment: str) -> float:
    return float(date2num(pd.Timestamp(moment)))  # type: ignore[no-untyped-call]


def page(title: str, report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The report, pictures inside, so that one file can be sent to somebody.

    Args:
        title: What the model predicts.
        report: What replay.json says.
        pictures: PNG by name, as `plots` gives them.
    """
    found, lives = report["found"], report["lives"]
    metric = found["metric"]
    image = {
        name: f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    }
    cards = {f"{metric}, {NAMES[life]}": close(values[metric]) for life, values in found["values"].items()}
    if LOOP in lives:
        cards |= {f"of {lives[LOOP]['requests']:,} requests failed": f"{lives[LOOP]['failed']:,}"}
    shown = "".join(f"<div><b>{value}</b><span>{html.escape(label)}</span></div>" for label, value in cards.items())
    months = "".join(one for name, one in image.items() if name.startswith("months "))
    apart = "".join(f"<p>{html.escape(one)}</p>" for one in (why_two_metrics(found), *disagreements(found)) if one)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}{REPLAY_STYLE}</style></head><body>
<h1>{html.escape(title)}: backtest with {len(lives)} strategies</h1>
<p class="sub">{report["start"]} to {report["end"]}, {found["rows"]:,} rows with a label; labels came {report["label_days"]:g} days
late, the monitor ran every {report["look_days"]} days</p>
<p class="verdict">{html.escape(report["says"])}</p>
<div class="cards">{shown}</div>
{f"<h2>Injected faults</h2>{table(faults(report), title='Faults and when the monitor noticed them')}" if report["faults"] else ""}
<h2>Metrics</h2>
{apart}
{months}
<details><summary>Table of months</summary>{table(_by_month(found), title="Metrics by month and strategy")}</details>
{table(_gains(found), title=f"Gain of one strategy over another in {metric}, with 95 % intervals from resampled days")}
<h2>Cost</h2>
{table([_cost(life, lives[life], found) for life in lives], title="Cost by strategy")}
<p>A training takes a day of the period: its model predicts from the day after. Minutes are processor time of trainings, monitoring runs
and deployments.</p>
{f"<h2>Events</h2>{image['timeline']}{table(events(lives[LOOP]), title='Events of the monitored strategy')}" if LOOP in lives else ""}
{_fired(lives.get(LOOP, {}))}
{f"<details><summary>Table of monitoring runs</summary>{table(_looks(lives[LOOP]), title='Monitoring runs')}</details>" if LOOP in lives else ""}
</body></html>
"""


def _gains(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for pair, one in found["gains"].items():
        first, other = pair.split(" over ")
        values = {"gain" if key == "value" else key: close(value) for key, value in one.items()}
        lines.append({"strategy": NAMES[first], "over": NAMES[other], **values})
    return lines


def _by_month(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"month": month, **{f"{metric}, {NAMES[life]}": by[metric][month] for metric in next(iter(found["values"].values())) for life, by in found["by_month"].items()}}
        for month in found["months"]
    ]  # fmt: skip


def _cost(life: str, lived: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    counts = [
        sum(one["action"] == action for one in lived["proposals"])
        for action in ("retrain", "promote", "roll_back", "tell")
    ]
    moved = [sum(one["move"] == move for one in lived["moves"]) for move in ("promote", "roll_back")]
    return {
        "strategy": NAMES[life],
        **{name: close(value) for name, value in found["values"][life].items()},
        "trainings": len(lived["trainings"]),
        "promotions": moved[0],
        "rollbacks": moved[1],
        "proposals of the monitor": sum(counts),
        "minutes of compute": round(sum(lived["compute"].values()) / 60, 1),
        "failed requests": lived["failed"] if lived["requests"] else "no requests",
    }


def events(lived: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What happened in a looped life, in its order."""
    lines = [
        (
            one["at"],
            0,
            PROPOSED[one["action"]] + ("" if one["allowed"] else ", refused"),
            one["refused"] or one["reasons"][0],
        )
        for one in lived["proposals"]
        if one["action"] != "tell"
    ]
    lines += [
        (one["at"], 1, "training", f"version {one['version']}, a challenger" if one["passed"] else f"not past the gate: {', '.join(one['missed'])}")
        for one in lived["trainings"]
    ]  # fmt: skip
    lines += [(one["at"], 2, SAYS[one["move"]], f"version {one['version']}") for one in lived["moves"]]
    return [{"day": at[:10], "event": what, "details": says} for at, _, what, says in sorted(lines)]


def _fired(lived: Mapping[str, Any]) -> str:
    if lived.get("fired") is None:
        return ""
    names = ", ".join(map(html.escape, lived["fired"])) or "none"
    return (
        "<p>Prometheus watched the service by the usual clock, on which the whole period took minutes. "
        f"Alerts that it raised: {names}.</p>"
    )


def _looks(lived: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"day": one["at"][:10], "version": one["version"], "status": one["status"], "result": one["says"]}
        for one in lived["looks"]
    ]
