"""The verdict of a run, for MLflow, Prefect and the comment of a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from copier_mlops.evaluation.formatting import number, table, when
from copier_mlops.evaluation.gate import Verdict
from copier_mlops.evaluation.model_card import bars, compared


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

{note}{facts["problem"].capitalize()} of `{facts["target"]}`, tested on {facts["test"]}{when(facts, "test_start", "end")}; trained on
{number(facts["rows"]["train"])} rows, which is less than a run takes. Champion: {who}.

{table(metrics, markdown=True)}
{table(checks, markdown=True)}
### Slices that got worse

{_worse(facts, known)}
### Data

{_data(facts, known)}
### What the model relies on

```mermaid
{bars(facts["importance"], facts["metric"])}
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


def summary(facts: Mapping[str, Any], verdict: Verdict, version: str, champion: Mapping[str, Any] | None = None) -> str:
    """Return the page of a flow run as Markdown: metrics and verdict."""
    checks = [
        {"result": "passed" if check.passed else "FAILED", "limit": check.name, "details": check.says}
        for check in verdict.checks
    ]
    outcome = "passed" if verdict.passed else "did not pass"
    metrics = table(compared(facts, champion or {}), markdown=True)
    return f"## {version}: {outcome} the gate\n\n{metrics}\n{table(checks, markdown=True)}"
