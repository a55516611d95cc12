"""What people look at: plots, an HTML report in one file, and the model card. Numbers in, pictures and text out."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..core.gate import Verdict
from ..core.metrics import calibration, flat

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
) -> dict[str, bytes]:
    """PNG files by name, without a time stamp inside: the same numbers give the same bytes.

    Args:
        y, score: Truth and answers, shapes (n,) and (n,) or, of many classes, (n, classes).
        slices, importance, trials: As `core/metrics.py` and `core/search.py` give them.
        classes: Their names, where they have names.
    """
    drawn = {
        "quality": _numbers(y, score) if problem == "regression" else _quality_of_classes(y, score, classes),
        "importance": _importance(importance, metric),
        "search": _search(trials, metric),
    }
    if len(slices):
        drawn["slices"] = _slices(slices, metric)
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
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":")
    left.plot(table["predicted"], table["observed"], color=MARK, marker="o", markersize=4)
    if score.ndim == 2:
        caption(left, "Calibration", "probability of the likeliest class", "share of right answers")
        _confusion(right, y, score, classes)
        return figure
    caption(left, "Calibration", "predicted probability", "observed share")
    bins = np.linspace(0, 1, 41).tolist()
    names = classes or ("no", "yes")
    right.hist(score[y == 0], bins, color=SOFT, alpha=0.7, label=names[0], density=True)
    right.hist(score[y == 1], bins, color=MARK, alpha=0.7, label=names[1], density=True)
    right.legend(frameon=False, fontsize=9, title="truth", title_fontsize=9)
    caption(right, "Answers by truth", "predicted probability", "density")
    return figure


def _confusion(axis: Axes, y: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> None:
    """Each line is a true class; the darker a field, the larger its share of that class."""
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
    caption(axis, "Answers by truth, share of each class", "predicted", "truth")


def _numbers(y: np.ndarray, score: np.ndarray) -> Figure:
    figure, (left, right) = blank(columns=2)
    low, high = np.quantile(np.concatenate([y, score]), [0.005, 0.995])
    left.plot([low, high], [low, high], color=SOFT, linewidth=1, linestyle=":")
    shown = slice(None, None, max(1, len(y) // 3000))
    left.scatter(score[shown], y[shown], s=4, alpha=0.25, color=MARK, linewidths=0)
    left.set_ylim(low, high)
    caption(left, "Truth by answer", "predicted", "observed")
    errors = score - y
    least, most = np.quantile(errors, [0.005, 0.995])
    right.hist(errors, np.linspace(least, most, 41).tolist(), color=MARK)
    caption(right, "Errors", "predicted minus observed", "rows")
    return figure


def _importance(table: pd.DataFrame, metric: str) -> Figure:
    top = table.head(15).iloc[::-1]
    figure, (axis,) = blank(height=0.6 + 0.26 * max(len(top), 3))
    axis.barh(top["input"], top["loss"], xerr=top["spread"], color=MARK, ecolor=SOFT, height=0.65)
    caption(axis, "What the model relies on", f"loss in {metric} when the input is shuffled")
    return figure


def _slices(table: pd.DataFrame, metric: str) -> Figure:
    shown = table[table["value"].notna()].tail(40).iloc[::-1]
    figure, (axis,) = blank(height=0.8 + 0.22 * max(len(shown), 3))
    place = np.arange(len(shown))
    reach = [
        (shown["value"] - shown["low"]).clip(lower=0).fillna(0),
        (shown["high"] - shown["value"]).clip(lower=0).fillna(0),
    ]
    axis.errorbar(shown["value"], place, xerr=reach, fmt="o", color=MARK, ecolor=SOFT, markersize=4, linewidth=1)
    axis.set_yticks(place, [f"{line.slice} {line.group}  ({line.rows:,})" for line in shown.itertuples()])
    caption(axis, "By slice (rows), with 95 % intervals", metric)
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
    caption(axis, "Search", "trial", f"{metric}, mean of folds")
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
    """A number for people: four digits that count, thousands apart."""
    if isinstance(value, bool | str):
        return str(value)
    if value is None or np.isnan(value):
        return "n/a"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def table(rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """A table of dictionaries with the same keys, as HTML or Markdown."""
    if not rows:
        return "<p>none</p>" if not markdown else "none\n"
    names = list(rows[0])
    if markdown:
        lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
        lines += ["| " + " | ".join(number(row[name]).replace("|", "/") for name in names) + " |" for row in rows]
        return "\n".join(lines) + "\n"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(number(row[name]))}</td>" for name in names) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2.2rem } p.sub { color: #7b8794; margin-top: 0 }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 } th { text-align: left; color: #7b8794; font-weight: 500 }
th, td { padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #e4e7eb; font-variant-numeric: tabular-nums }
img { max-width: 100%; display: block; margin: .5rem 0 } details summary { cursor: pointer; color: #0b6e99 }
.cards { display: flex; gap: 1rem; flex-wrap: wrap; margin: 1rem 0 } .cards div { border: 1px solid #e4e7eb;
border-radius: 6px; padding: .6rem 1rem } .cards b { display: block; font-size: 1.3rem } .cards span { color: #7b8794 }
"""


def page(title: str, facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The HTML report, pictures inside, so that one file can be sent to somebody.

    Args:
        title: What the model predicts.
        facts: As `stages/evaluate.py` collects them: metrics, baseline, slices, importance, data, trials.
        pictures: PNG by name.
    """
    metrics = [{"metric": name, **values} for name, values in facts["metrics"].items()]
    cards = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>"
        for label, value in {
            f"{facts['metric']} on {number(facts['rows']['test'])} test rows": number(
                facts["metrics"][facts["metric"]]["value"]
            ),
            f"{facts['metric']} of the baseline": number(facts["baseline"][facts["metric"]]),
            "rows trained on": number(facts["rows"]["train"]),
            "rows set aside": number(facts["data"]["set_aside"]),
        }.items()
    )
    image = {
        name: f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in pictures.items()
    }
    reasons = table([{"reason": reason, "rows": rows} for reason, rows in facts["data"]["reasons"].items()])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="sub">{html.escape(facts["problem"])} of <b>{html.escape(facts["target"])}</b>, tested on
{html.escape(facts["test"] + _when(facts, "test_start", "end"))}</p>
<div class="cards">{cards}</div>
<h2>How good is it?</h2>
<p>Each value with its 95&nbsp;% interval, from {facts["bootstrap"]} resamples of the test rows.</p>
{table(metrics)}
{image["quality"]}
<h2>For whom is it good?</h2>
{image.get("slices", "<p>No slices are named in params.yaml.</p>")}
<details><summary>The numbers</summary>{table(facts["slices"])}</details>
<h2>What does it look at?</h2>
{image["importance"]}
{_effects(facts)}
<h2>How was it chosen?</h2>
{image["search"]}
<details><summary>The trials</summary>{table(facts["trials"])}</details>
<h2>What was it trained on?</h2>
{table([{"what": key.replace("_", " "), "": value} for key, value in {**facts["window"], **facts["rows"]}.items()])}
{_columns(facts)}
<p>Rows that broke the contract were set aside, into <code>data/set_aside</code>, for these reasons:</p>
{reasons}
</body></html>
"""


def _effects(facts: Mapping[str, Any]) -> str:
    """What more of a column does, where the contract says what it should."""
    if not facts["effects"]:
        return ""
    shown = [{**line, "declared": f"{line['declared']} it"} for line in facts["effects"]]
    return f"<p>What happens to the mean answer when one input goes from low to high in every row:</p>{table(shown)}"


def _columns(facts: Mapping[str, Any]) -> str:
    """What became of the columns when the table was adopted."""
    if not facts["columns"]:
        return ""
    lines = [{**line, "look at": line["doubt"]} for line in facts["columns"]]
    shown = [{key: line[key] for key in ("name", "role", "kind", "why", "look at")} for line in lines]
    return f"<details><summary>What became of the columns</summary>{table(shown)}</details>"


def card(title: str, facts: Mapping[str, Any]) -> str:
    """The model card (Mitchell et al. 2019) as Markdown, every figure from the run."""
    metrics = [
        {"metric": name, **values, "baseline": facts["baseline"].get(name)} for name, values in facts["metrics"].items()
    ]
    judged = [line for line in facts["slices"] if line["value"] is not None]
    weak = sorted(judged, key=lambda line: float(line["value"]), reverse=not facts["larger_is_better"])
    return f"""# Model card: {title}

- **Task**: {facts["problem"]} of `{facts["target"]}`
- **Model**: {facts["model"]}
- **Hyperparameters**: {", ".join(f"{key} = {number(value)}" for key, value in facts["params"].items())}
- **Trained on**: {number(facts["rows"]["train"])} rows{_when(facts, "start", "test_start")}
- **Tested on**: {number(facts["rows"]["test"])} rows, {facts["test"]}{_when(facts, "test_start", "end")}
- **Data**: {number(facts["data"]["rows"])} rows in, {number(facts["data"]["set_aside"])} set aside,
  {number(facts["data"]["unlabelled"])} without an answer yet; source {facts["source"]}

## How good it is

With 95 % intervals from {facts["bootstrap"]} resamples of the test rows.

{table(metrics, markdown=True)}
## Where it is weakest

The worst slices by {facts["metric"]}; be careful there.

{table(weak[:5], markdown=True)}
## What it relies on

{table(facts["importance"][:8], markdown=True)}
{_effects_in_words(facts)}## What it is not for

Rows outside the contract (`core/schema.py`) are not answered. Nothing is known about rows unlike those above: the test
is {facts["test"]}.
"""


def _effects_in_words(facts: Mapping[str, Any]) -> str:
    if not facts["effects"]:
        return ""
    lines = table(facts["effects"], markdown=True)
    return f"What the mean answer does when one input goes from low to high in every row:\n\n{lines}\n"


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


def summary(facts: Mapping[str, Any], verdict: Verdict, version: str) -> str:
    """The page of a flow run as Markdown: metrics and verdict."""
    metrics = [
        {"metric": name, **values, "baseline": facts["baseline"].get(name)} for name, values in facts["metrics"].items()
    ]
    checks = [
        {"": "kept" if check.passed else "MISSED", "limit": check.name, "what": check.says} for check in verdict.checks
    ]
    outcome = "passed" if verdict.passed else "did not pass"
    return f"## {version}: {outcome} the gate\n\n{table(metrics, markdown=True)}\n{table(checks, markdown=True)}"
