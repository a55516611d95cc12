"""The model card, and what the report says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from copier_mlops.evaluation.formatting import number, table, when
from copier_mlops.evaluation.plots import FEWEST_ROWS


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
- **Trained on**: {number(facts["rows"]["train"])} rows{when(facts, "start", "test_start")}
- **Tested on**: {number(facts["rows"]["test"])} rows, {facts["test"]}{when(facts, "test_start", "end")}
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

Rows outside the contract (`schema.py`) get no prediction. Nothing is known about rows unlike those above: the test
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


def _effects_in_words(facts: Mapping[str, Any]) -> str:
    if not facts["effects"]:
        return ""
    lines = table(facts["effects"], markdown=True)
    return f"Change of the mean prediction when one input goes from low to high in every row:\n\n{lines}\n"


def bars(importance: Sequence[Mapping[str, Any]], metric: str) -> str:
    """A chart in the language that GitHub draws."""
    top = [(str(line["input"]).replace('"', "'"), float(line["loss"] or 0)) for line in importance[:8]]
    names = ", ".join(f'"{name}"' for name, _ in top)
    losses = ", ".join(f"{max(loss, 0):.5f}" for _, loss in top)
    return f'xychart-beta horizontal\n    x-axis [{names}]\n    y-axis "loss in {metric} when shuffled"\n    bar [{losses}]'


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


def _subjects(facts: Mapping[str, Any]) -> str:
    return f"- **Subjects**: {subjects(facts)}\n" if facts.get("subjects") else ""
