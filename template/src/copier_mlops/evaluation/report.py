"""Plots, the HTML report in one file, and the model card. Numbers in, pictures and text out."""

from __future__ import annotations

import base64
import datetime as dt
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from copier_mlops.evaluation.formatting import number, table, when
from copier_mlops.evaluation.model_card import (
    calibration_in_words,
    compared,
    confusion_in_words,
    confusion_table,
    subjects,
)

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
        facts: metrics, baseline, slices, importance, data and trials, as `pipeline.evaluate` collects them.
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
{html.escape(facts["test"] + when(facts, "test_start", "end"))}</p>
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
