"""Plots, the HTML report in one file, and the model card. Numbers in, pictures and text out."""

from __future__ import annotations

import base64
import datetime as dt
import html
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..core.gate import Verdict
from ..core.metrics import calibration, curves, flat

FEWEST_ROWS = 100  # of a slice that is ranked: an interval of fewer is too wide to mean anything
MOST_INPUTS = 15  # of the picture of the importance
INK, SOFT, MARK, GRID = "#1f2933", "#7b8794", "#0b6e99", "#e4e7eb"


def plots(
    problem: str,
    y: np.ndarray,
    score: np.ndarray,
    slices: pd.DataFrame,
    importance: pd.DataFrame,
    metric: str,
    trials: pd.DataFrame,
    classes: Sequence[str] = (),
    threshold: float | None = None,
    overall: float | None = None,
) -> dict[str, bytes]:
    """Return PNG files by name, without a time stamp inside: the same numbers give the same bytes.

    Args:
        y, score: truth and predictions, shapes (n,) and (n,) or, of many classes, (n, classes).
        slices, importance, trials: tables of `core/metrics.py` and `core/search.py`.
        classes: names of the classes, empty if they have none.
        threshold: threshold of a positive prediction that the curves mark, for two classes.
        overall: value of the metric on all test rows.
    """
    drawn = {
        "quality": _numbers(y, score) if problem == "regression" else _quality_of_classes(y, score, classes),
        "importance": _importance(importance, metric),
        "search": _search(trials, metric),
    }
    if problem == "classification" and (points := curves(problem, y, score))["roc"]:
        drawn["curves"] = _curves(points, float(y.mean()) if score.ndim == 1 else 1 / score.shape[1], threshold)
    if len(slices):
        drawn["slices"] = _slices(slices, metric, overall)
    return {name: as_png(figure) for name, figure in drawn.items()}


def blank(width: float = 8.0, height: float = 3.6, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with nothing in it yet, in the style of all of them, and its axes from left to right."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(colors=SOFT, labelsize=9)
        for side, spine in axis.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GRID)
    return figure, axes


def caption(axis: Axes, title: str, x: str = "", y: str = "") -> None:
    """Say what a plot shows, and what lies along it."""
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.set_xlabel(x, fontsize=9, color=SOFT)
    axis.set_ylabel(y, fontsize=9, color=SOFT)


def _quality_of_classes(y: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> Figure:
    figure, (left, right) = blank(columns=2, height=3.6 if score.ndim == 1 else max(3.6, 0.3 * score.shape[-1]))
    table = calibration(*flat(y, score))
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":", label="perfectly calibrated")
    left.plot(table["predicted"], table["observed"], color=MARK, marker="o", markersize=4, label="test rows, 10 bins")
    left.set_xlim(0, 1)
    left.set_ylim(0, 1)
    left.legend(frameon=False, fontsize=9)
    if score.ndim == 2:
        caption(left, "Calibration", "probability of the likeliest class", "share of correct predictions")
        _confusion(right, y, score, classes)
        return figure
    caption(left, "Calibration", "predicted probability", "observed share")
    bins = np.linspace(0, 1, 41).tolist()
    names = classes or ("no", "yes")
    right.hist(score[y == 0], bins, color=SOFT, alpha=0.7, label=names[0], density=True)
    right.hist(score[y == 1], bins, color=MARK, alpha=0.7, label=names[1], density=True)
    right.legend(frameon=False, fontsize=9, title="truth", title_fontsize=9)
    caption(right, "Predictions by outcome", "predicted probability", "density")
    return figure


def _curves(points: Mapping[str, Sequence[Mapping[str, float]]], share: float, threshold: float | None) -> Figure:
    figure, (left, right) = blank(columns=2)
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":", label="at random")
    right.axhline(share, color=SOFT, linewidth=1, linestyle=":", label="at random")
    for axis, name, x, y in ((left, "roc", "fpr", "tpr"), (right, "precision_recall", "recall", "precision")):
        table = pd.DataFrame(points[name])
        axis.plot(table[x], table[y], color=MARK, label="test rows")
        above = table[table["threshold"] >= threshold] if threshold is not None else table.iloc[:0]
        if len(above):
            axis.plot(*above[[x, y]].iloc[-1], "o", color=MARK, markersize=6, label=f"threshold {threshold:g}")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        axis.legend(frameon=False, fontsize=9, loc="lower right" if name == "roc" else "upper right")
    caption(left, "ROC curve", "false positive rate", "true positive rate (recall)")
    caption(right, "Precision and recall", "recall", "precision")
    return figure


def _confusion(axis: Axes, y: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a row for each true class; the darker a field, the larger its share of that class."""
    count = score.shape[1]
    cells = np.bincount(y.astype(int) * count + score.argmax(axis=1), minlength=count**2).reshape(count, count)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(count), classes, rotation=90 if count > 6 else 0)
    axis.set_yticks(range(count), classes)
    if count <= 12:
        for (row, column), value in np.ndenumerate(share):
            ink = "white" if value > 0.6 else INK
            axis.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=8, color=ink)
    caption(axis, "Predictions by true class, share of each class", "predicted class", "true class")


def _numbers(y: np.ndarray, score: np.ndarray) -> Figure:
    figure, (left, right) = blank(columns=2)
    low, high = np.quantile(np.concatenate([y, score]), [0.005, 0.995])
    left.plot([low, high], [low, high], color=SOFT, linewidth=1, linestyle=":")
    shown = slice(None, None, max(1, len(y) // 3000))
    left.scatter(score[shown], y[shown], s=4, alpha=0.25, color=MARK, linewidths=0)
    left.set_ylim(low, high)
    caption(left, "Outcome by prediction", "predicted value", "observed value")
    errors = score - y
    least, most = np.quantile(errors, [0.005, 0.995])
    right.hist(errors, np.linspace(least, most, 41).tolist(), color=MARK)
    caption(right, "Errors", "predicted minus observed", "test rows")
    return figure


def _importance(table: pd.DataFrame, metric: str) -> Figure:
    top = table.head(MOST_INPUTS).iloc[::-1]
    shown = f", the {len(top)} most important of {len(table)}" if len(top) < len(table) else ""
    figure, (axis,) = blank(height=0.6 + 0.26 * max(len(top), 3))
    axis.barh(top["input"], top["loss"], xerr=top["spread"], color=MARK, ecolor=SOFT, height=0.65)
    caption(axis, f"Inputs{shown}; lines: standard deviation", f"loss in {metric} when the input is shuffled", "input")
    return figure


def _slices(table: pd.DataFrame, metric: str, overall: float | None) -> Figure:
    shown = table[table["value"].notna()].tail(40).iloc[::-1]
    figure, (axis,) = blank(height=0.8 + 0.22 * max(len(shown), 3))
    place = np.arange(len(shown))
    reach = [
        (shown["value"] - shown["low"]).clip(lower=0).fillna(0),
        (shown["high"] - shown["value"]).clip(lower=0).fillna(0),
    ]
    axis.errorbar(shown["value"], place, xerr=reach, fmt="none", ecolor=SOFT, linewidth=1)
    for label, few, color in (("", False, MARK), (f"fewer than {FEWEST_ROWS} rows", True, SOFT)):
        some = ((shown["rows"] < FEWEST_ROWS) == few).to_numpy()
        if some.any():
            axis.plot(shown["value"][some], place[some], "o", color=color, markersize=4, label=label)
    if overall is not None:
        axis.axvline(overall, color=INK, linewidth=1, linestyle=":", label="all test rows")
    if axis.get_legend_handles_labels()[1]:
        figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=2)
    axis.set_yticks(place, [f"{line.slice} {line.group}  ({line.rows:,})" for line in shown.itertuples()])
    caption(axis, f"{metric} by slice, with 95 % intervals", metric, "slice (test rows)")
    return figure


def _search(trials: pd.DataFrame, metric: str) -> Figure:
    figure, (axis,) = blank(height=2.6)
    for state, label, mark, colour in (
        ("complete", "complete", "o", MARK),
        ("pruned", "pruned, fewer folds", "x", SOFT),
    ):
        some = trials[trials["state"] == state]
        axis.scatter(some["number"] + 1, some["value"], marker=mark, color=colour, label=label)
    axis.legend(frameon=False, fontsize=9)
    axis.set_xticks(trials["number"] + 1)
    caption(axis, f"{metric} of each trial", "trial", f"{metric}, mean of the folds")
    return figure


def as_png(figure: Figure) -> bytes:
    """The bytes of a PNG file, without a time stamp inside."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that no font here has is drawn as boxes
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


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


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2.2rem } p.sub { color: #7b8794; margin-top: 0 }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 1rem } th { text-align: left; color: #7b8794; font-weight: 500 }
caption { text-align: left; color: #7b8794; font-size: .85rem; padding-bottom: .2rem }
th, td { padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #e4e7eb; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto } img { max-width: 100%; display: block; margin: .5rem 0 } details summary { cursor: pointer; color: #0b6e99 }
.cards { display: flex; gap: 1rem; flex-wrap: wrap; margin: 1rem 0 } .cards div { border: 1px solid #e4e7eb;
border-radius: 6px; padding: .6rem 1rem } .cards b { display: block; font-size: 1.3rem } .cards span { color: #7b8794 }
.passed { color: #1b7a3d } .failed { color: #b3261e }
"""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the registry knows of a run, for the head of its report.

    Attributes:
        version: number of the registered version; None if the run did not pass the gate.
        status: alias and history in words, for example `champion since 2024-01-31 09:30 UTC`.
        recorded: when the run was recorded.
        lineage: name of the run.
        commit, snapshot: git commit of the project, and the commit with the exact work tree.
        verdict: a Verdict as JSON.
        champion: the champion at that time on the same rows: version, rows, metrics by name; empty if none was compared.
    """

    version: int | None
    status: str
    recorded: dt.datetime
    lineage: str
    commit: str
    snapshot: str
    verdict: Mapping[str, Any]
    champion: Mapping[str, Any]


NOT_RECORDED = (
    "This run is not recorded: it has no version and no verdict. <code>make run</code> judges and records it."
)


def page(title: str, facts: Mapping[str, Any], pictures: Mapping[str, bytes], release: Release | None = None) -> str:
    """Return the HTML report, pictures inside, so that one file can be sent.

    Args:
        title: what the model predicts.
        facts: metrics, baseline, slices, importance, data and trials, as `stages/evaluate.py` collects them.
        pictures: PNG by name.
        release: what the registry knows of the run; None before it is recorded.
    """
    cards = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>"
        for label, value in {
            f"{facts['metric']} on {number(facts['rows']['test'])} test rows": number(
                facts["metrics"][facts["metric"]]["value"]
            ),
            f"{facts['metric']} of the baseline": number(facts["baseline"][facts["metric"]]),
            "training rows": number(facts["rows"]["train"]),
            "quarantined rows": number(facts["data"]["set_aside"]),
        }.items()
    )
    image = {
        name: f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    }
    span = {**facts["window"], **{f"{name} rows": rows for name, rows in facts["rows"].items()}}
    window = [{"item": key.replace("_", " "), "value": value} for key, value in span.items()]
    reasons = [{"reason": reason, "rows": rows} for reason, rows in facts["data"]["reasons"].items()]
    slices = table(facts["slices"], title=f"{facts['metric']} by slice, with 95 % intervals")
    trials = table(
        [
            {"trial": line["number"] + 1} | {key: line[key] for key in line if key != "number"}
            for line in facts["trials"]
        ],
        title=f"Trials; value is {facts['metric']}, mean of the folds",
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="sub">{html.escape(facts["problem"])} of <b>{html.escape(facts["target"])}</b>, tested on
{html.escape(facts["test"] + _when(facts, "test_start", "end"))}</p>
{_head(release)}
<div class="cards">{cards}</div>
<h2>Metrics</h2>
<p>Intervals of 95&nbsp;%, from {facts["bootstrap"]} resamples of the test rows. The baseline predicts
{"the mean of the training rows" if facts["problem"] == "regression" else "the class shares of the training rows"} for
every row.{_compared(release)}</p>
{table(compared(facts, release.champion if release else {}), title="Metrics on the test rows")}
<h2>Calibration</h2>
{_calibration(facts)}
{image["quality"]}
{_curves_and_confusion(facts, image.get("curves", ""))}
<h2>Slices</h2>
{image.get("slices", "<p>No slices are named in params.yaml.</p>")}
<details><summary>Table of slices</summary>{slices}</details>
<h2>Feature importance</h2>
{image["importance"]}
{_effects(facts)}
<h2>Hyperparameter search</h2>
<p>{html.escape(_search_in_words(facts))}</p>
{image["search"]}
<details><summary>Table of trials</summary>{trials}</details>
<h2>Training data</h2>
{table(window, title="Window (UTC) and rows")}
{f"<p>{html.escape(subjects(facts))}.</p>" if facts.get("subjects") else ""}
{_columns(facts)}
{_quarantined(reasons)}
</body></html>
"""


def _search_in_words(facts: Mapping[str, Any]) -> str:
    """Return what the search gained, and the trial whose hyperparameters the model has; empty for an older run."""
    if not (found := facts.get("search")):
        return ""
    said = found["says"]
    return f"{said[:1].upper()}{said[1:]}. The model has the hyperparameters of trial {found['trial']}."


def _quarantined(reasons: Sequence[Mapping[str, Any]]) -> str:
    if not reasons:
        return "<p>No row broke the contract.</p>"
    shown = table(reasons, title="Quarantined rows by reason")
    return f"<p>Rows that broke the contract are quarantined in <code>data/set_aside</code>.</p>\n{shown}"


def _head(release: Release | None) -> str:
    """Return the version, its verdict and each check of the gate, as HTML."""
    if release is None:
        return f"<p><b>{NOT_RECORDED}</b></p>"
    passed = release.verdict["passed"]
    verdict = f'<b class="{"passed" if passed else "failed"}">{"passed" if passed else "did not pass"} the gate</b>'
    lines = {
        "version": release.version or "none: only a run that passes the gate is registered",
        "status": release.status,
        "recorded": f"{release.recorded:%Y-%m-%d %H:%M} UTC",
        "run": release.lineage,
        "commit": release.commit or "none",
        "work tree": f"commit {release.snapshot}" if release.snapshot else "not recorded",
    }
    checks = [
        {"check": check["name"], "result": "passed" if check["passed"] else "FAILED", "value": check["value"],
         "limit": check["limit"], "details": check["says"]}
        for check in release.verdict["checks"]
    ]  # fmt: skip
    rows = [{"item": name, "value": str(value)} for name, value in lines.items()]
    return f"<p>The model {verdict}.</p>\n{table(rows, title='Version')}\n{table(checks, title='Checks of the gate')}"


def _compared(release: Release | None) -> str:
    if not release or not release.champion:
        return ""
    return (
        f" The champion at that time, version {release.champion['version']}, predicts the same "
        f"{number(release.champion['rows'])} rows."
    )


def compared(facts: Mapping[str, Any], champion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics with their intervals, beside those of the baseline and, if one was compared, of the champion."""
    theirs = champion.get("metrics", {})
    name = f"champion (version {champion['version']})" if champion else ""
    return [
        {
            "metric": metric,
            **values,
            "baseline": facts["baseline"].get(metric),
            **({name: theirs.get(metric)} if champion else {}),
        }
        for metric, values in facts["metrics"].items()
    ]


def calibration_in_words(facts: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the mean prediction, and one about the groups in which it is off; none for an older run."""
    if not (lines := facts.get("calibration", [])):
        return []
    percent = facts["problem"] == "classification"

    def value(share: float) -> str:
        return f"{100 * share:.1f} %" if percent else number(share)

    def apart(line: Mapping[str, Any]) -> str:
        unit = f"{100 * abs(line['difference']):.1f} points" if percent else number(abs(line["difference"]))
        return f"{unit} too {'high' if line['difference'] > 0 else 'low'}"

    whole, groups = lines[0], [line for line in lines[1:] if line["rows"] >= FEWEST_ROWS]
    what = "The mean confidence is" if len(facts["classes"]) > 2 else "The mean prediction is"
    seen = "share of correct predictions" if len(facts["classes"]) > 2 else "observed mean"
    says = f"{what} {value(whole['predicted'])}, the {seen} is {value(whole['observed'])} ({number(whole['rows'])} test rows)"
    off = f"the predictions are {apart(whole)} on average" if _is_off(whole) else "the difference may be chance"
    said = [f"{says}: {off}."]
    wrong = sorted((line for line in groups if _is_off(line)), key=_evidence, reverse=True)
    if groups:
        named = "; ".join(f"{line['slice']} {line['group']}: {apart(line)}" for line in wrong[:5])
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        said.append(
            f"Groups of {FEWEST_ROWS} rows or more with predictions that are off: {named}{more}."
            if wrong
            else f"No group of {FEWEST_ROWS} rows or more has predictions that are off by more than chance."
        )
    return said


def _is_off(line: Mapping[str, Any]) -> bool:
    return line["low"] is not None and not line["low"] <= 0 <= line["high"]


def _evidence(line: Mapping[str, Any]) -> float:
    """Return how many half-widths of its interval a difference is away from zero."""
    return abs(float(line["difference"])) / max(float(line["high"]) - float(line["difference"]), 1e-300)


def _calibration(facts: Mapping[str, Any]) -> str:
    said = " ".join(calibration_in_words(facts))
    lines = facts.get("calibration", [])
    shown = table(lines, title="Mean prediction and outcome by group; intervals of the difference")
    details = f"<details><summary>Table of groups</summary>{shown}</details>" if len(lines) > 1 else ""
    return f"<p>{html.escape(said)}</p>\n{details}" if said else ""


def _curves_and_confusion(facts: Mapping[str, Any], picture: str) -> str:
    """Return the curves, and for two classes the confusion table, as HTML."""
    text = f"<h2>Curves</h2>\n{picture}" if picture else ""
    if not facts.get("confusion"):
        return text
    rows = confusion_table(facts)
    title = f"Test rows by outcome and prediction; threshold {facts['threshold']:g}"
    return f"{text}\n<h2>Errors at a threshold</h2>\n<p>{html.escape(confusion_in_words(facts))}</p>\n{table(rows, title=title)}"


def confusion_table(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the confusion table as rows by outcome."""
    counts, (no, yes) = facts["confusion"], facts["classes"] or ("no", "yes")
    return [
        {
            "outcome": f"{facts['target']}: {name}",
            f"predicted {no}": counts[f"{'false' if side else 'true'}_negative"],
            f"predicted {yes}": counts[f"{'true' if side else 'false'}_positive"],
        }
        for side, name in ((False, no), (True, yes))
    ]


def confusion_in_words(facts: Mapping[str, Any]) -> str:
    """Return precision and recall at the threshold of params.yaml."""
    counts = facts["confusion"]
    chosen = counts["true_positive"] + counts["false_positive"]
    there = counts["true_positive"] + counts["false_negative"]
    precision = (
        f"{100 * counts['true_positive'] / chosen:.1f} %" if chosen else "not defined (no row is predicted positive)"
    )
    recall = f"{100 * counts['true_positive'] / there:.1f} %" if there else "not defined (no row is positive)"
    return (
        f"A probability of {facts['threshold']:g} or more counts as positive (evaluation.threshold in params.yaml, for this "
        f"report and the model card only). Precision is {precision}, recall {recall}."
    )


def _effects(facts: Mapping[str, Any]) -> str:
    """Return the measured effect of each column whose effect the contract declares."""
    if not facts["effects"]:
        return ""
    title = "Change of the mean prediction when one input goes from low to high in every row"
    return table(facts["effects"], title=title)


def _columns(facts: Mapping[str, Any]) -> str:
    """Return the role of each column, as the adoption of the table chose it."""
    if not facts["columns"]:
        return ""
    lines = [{**line, "look at": line["doubt"]} for line in facts["columns"]]
    shown = [{key: line[key] for key in ("name", "role", "kind", "why", "look at")} for line in lines]
    text = table(shown, title="Columns of the adopted table")
    return f"<details><summary>What became of the columns</summary>{text}</details>"


def weakest(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the slices that are worse than all test rows, the most certain first.

    A slice is in the list if it has FEWEST_ROWS rows or more and the whole interval is worse than the value of all test rows. The
    order is by the distance between the interval and that value.
    """
    overall, sign = facts["metrics"][facts["metric"]]["value"], 1 if facts["larger_is_better"] else -1
    found = []
    for line in facts["slices"]:
        best = line["high"] if sign > 0 else line["low"]
        if line["rows"] >= FEWEST_ROWS and best is not None and overall is not None and sign * (overall - best) > 0:
            found.append((sign * (overall - best), line))
    found.sort(key=lambda one: -one[0])
    names = {"value": facts["metric"]}
    keys = ("slice", "group", "rows", "value", "low", "high")
    return [{names.get(key, key): line[key] for key in keys} for _, line in found]


def card(title: str, facts: Mapping[str, Any]) -> str:
    """Return the model card (Mitchell et al. 2019) as Markdown, every figure from the run."""
    weak = weakest(facts)
    slices = (
        f"Slices with at least {FEWEST_ROWS} test rows whose whole 95 % interval is worse than the value of all test rows, the most "
        f"certain first.\n\n{table(weak[:5], markdown=True)}"
        if weak
        else f"No slice with at least {FEWEST_ROWS} test rows is worse than all test rows by more than chance.\n"
    )
    return f"""# Model card: {title}

- **Task**: {facts["problem"]} of `{facts["target"]}`
- **Model**: {facts["model"]}
- **Hyperparameters**: {", ".join(f"{key} = {number(value)}" for key, value in facts["params"].items())}
- **Trained on**: {number(facts["rows"]["train"])} rows{_when(facts, "start", "test_start")}
- **Tested on**: {number(facts["rows"]["test"])} rows, {facts["test"]}{_when(facts, "test_start", "end")}
{_subjects(facts)}- **Data**: {number(facts["data"]["rows"])} rows in, {number(facts["data"]["set_aside"])} quarantined,
  {number(facts["data"]["unlabelled"])} without a label yet; source {facts["source"]}

## Metrics

With 95 % intervals from {facts["bootstrap"]} resamples of the test rows.

{table(compared(facts, {}), markdown=True)}
{_calibration_and_confusion(facts)}## Weakest slices

{slices}
## Feature importance

{table(facts["importance"][:8], markdown=True)}
{_effects_in_words(facts)}## Limits of use

Rows outside the contract (`core/schema.py`) get no prediction. Nothing is known about rows unlike those above: the test
is {facts["test"]}.
"""


def _calibration_and_confusion(facts: Mapping[str, Any]) -> str:
    text = ""
    if said := calibration_in_words(facts):
        text += "## Calibration\n\n" + "\n".join(said) + "\n\n"
    if facts.get("confusion"):
        shown = table(confusion_table(facts), markdown=True)
        text += f"## Errors at a threshold\n\n{confusion_in_words(facts)}\n\n{shown}\n"
    return text


def subjects(facts: Mapping[str, Any]) -> str:
    """How many subjects the test has, and how many of its rows are of subjects that the model learnt from."""
    found, rows = facts["subjects"], facts["rows"]["test"]
    known = found["known"]
    text = f"{number(found['test'])} different {found['column']} in the test"
    if not known:
        return f"{text}, none of them in the training"
    share = f"{text}; {number(known)} of its {number(rows)} rows ({100 * known / rows:.0f} %) are of such as are in the training, too"
    return share if known == rows else f"{share}. The slice `{found['column']} in training` has the metric of both"


def _subjects(facts: Mapping[str, Any]) -> str:
    return f"- **Subjects**: {subjects(facts)}\n" if facts.get("subjects") else ""


def _effects_in_words(facts: Mapping[str, Any]) -> str:
    if not facts["effects"]:
        return ""
    lines = table(facts["effects"], markdown=True)
    return f"Change of the mean prediction when one input goes from low to high in every row:\n\n{lines}\n"


def review(facts: Mapping[str, Any], verdict: Verdict, champion: Mapping[str, Any] | None, note: str = "") -> str:
    """What a change does to the model, as Markdown for the page of a pull request.

    Args:
        facts: Of the review's own run.
        verdict: What it was held against.
        champion: The contents of champion.json; None where no model is live yet.
        note: What has to be known first.
    """
    known = champion or {}
    theirs = known.get("metrics", {})
    metrics = [
        {"metric": name, "this change": values["value"], "low": values["low"], "high": values["high"],
         "champion": theirs.get(name), "baseline": facts["baseline"].get(name)}
        for name, values in facts["metrics"].items()
    ]  # fmt: skip
    checks = [
        {"": "kept" if check.passed else "**MISSED**", "limit": check.name, "what": check.says}
        for check in verdict.checks
    ]
    who = f"version {known['version']}" if known else "no champion yet"
    return f"""## Model: {"passed" if verdict.passed else "**did not pass**"}

{note}{facts["problem"].capitalize()} of `{facts["target"]}`, tested on {facts["test"]}{_when(facts, "test_start", "end")}; trained on
{number(facts["rows"]["train"])} rows, which is less than a run takes. Champion: {who}.

{table(metrics, markdown=True)}
{table(checks, markdown=True)}
### Slices that got worse

{_worse(facts, known)}
### Data

{_data(facts, known)}
### What the model relies on

```mermaid
{_bars(facts["importance"], facts["metric"])}
```
"""


def _worse(facts: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Slices whose interval does not reach what the champion had there."""
    before = {(line["slice"], line["group"]): line["value"] for line in known.get("slices", [])}
    sign = 1 if facts["larger_is_better"] else -1
    worse = []
    for line in facts["slices"]:
        value, there = line["value"], before.get((line["slice"], line["group"]))
        best = line["high"] if sign > 0 else line["low"]
        if value is not None and there is not None and best is not None and sign * (best - there) < 0:
            worse.append({"slice": line["slice"], "group": line["group"], "rows": line["rows"], "champion": there,
                          "this change": value, "low": line["low"], "high": line["high"]})  # fmt: skip
    if not before:
        return "There is nothing to compare with yet.\n"
    worse.sort(key=lambda line: sign * (line["this change"] - line["champion"]))
    return table(worse[:10], markdown=True) if worse else f"None of {len(facts['slices'])}.\n"


def _data(facts: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Rows in and set aside, and columns that came or went."""
    before = known.get("metrics", {})
    lines = [
        {"": label, "champion": before.get(old), "this change": facts["data"][new]}
        for label, old, new in (("rows", "rows_in", "rows"), ("set aside", "rows_set_aside", "set_aside"))
    ]
    text = table(lines, markdown=True)
    if facts["data"]["reasons"]:
        reasons = [{"reason": reason, "rows": rows} for reason, rows in facts["data"]["reasons"].items()]
        text += "\n" + table(reasons[:8], markdown=True)
    if known.get("columns"):
        came = [name for name in facts["names"] if name not in known["columns"]]
        went = [name for name in known["columns"] if name not in facts["names"]]
        named = [
            f"{what}: {', '.join(f'`{name}`' for name in some)}"
            for what, some in (("new", came), ("gone", went))
            if some
        ]
        text += "\nColumns: " + ("; ".join(named) or "the same") + "\n"
    return text


def _bars(importance: Sequence[Mapping[str, Any]], metric: str) -> str:
    """A chart in the language that GitHub draws."""
    top = [(str(line["input"]).replace('"', "'"), float(line["loss"] or 0)) for line in importance[:8]]
    names = ", ".join(f'"{name}"' for name, _ in top)
    losses = ", ".join(f"{max(loss, 0):.5f}" for _, loss in top)
    return f'xychart-beta horizontal\n    x-axis [{names}]\n    y-axis "loss in {metric} when shuffled"\n    bar [{losses}]'


def _when(facts: Mapping[str, Any], start: str, end: str) -> str:
    days = facts["window"]
    if end not in days:
        return ""
    return f" from {days[start]} to {days[end]}" if start in days else f" before {days[end]}"


def summary(facts: Mapping[str, Any], verdict: Verdict, version: str, champion: Mapping[str, Any] | None = None) -> str:
    """Return the page of a flow run as Markdown: metrics and verdict."""
    checks = [
        {"result": "passed" if check.passed else "FAILED", "limit": check.name, "details": check.says}
        for check in verdict.checks
    ]
    outcome = "passed" if verdict.passed else "did not pass"
    metrics = table(compared(facts, champion or {}), markdown=True)
    return f"## {version}: {outcome} the gate\n\n{metrics}\n{table(checks, markdown=True)}"
