"""Whether the features and the model that a project starts with are worth having."""

from __future__ import annotations

import json

from lab import PACKAGE, Lab
from rows import Row

AT_LEAST = 0.005
MEANING = {
    "auc_months": "mean AUC of July to December 2013, each month predicted from the months before it with FIRST_GUESS, "
    "minus that of a plain boosted tree on the raw columns",
    "auc_months_without_time": "the same against a plain boosted tree that is not shown the time, the stronger one",
}


def measure(lab: Lab) -> list[Row]:
    project = lab.project("main")
    project.make("pipeline")
    found = json.loads(project.script("auc_months.py", PACKAGE).output.splitlines()[-1])
    mean, months = found["mean"], found["months"]
    by_month = ", ".join(f"{month} {gain:+.4f}" for month, gain in months.items())
    rows = []
    for name, other in (("auc_months", "plain"), ("auc_months_without_time", "plain_without_time")):
        gain = found["gain_over"][other]
        met = bool(gain["value"] >= AT_LEAST and gain["low"] > 0) if name == "auc_months" else None
        bar = f"{AT_LEAST:g} or more, interval above 0" if name == "auc_months" else ""
        note = f"mean AUC {mean['project']:.4f} against {mean[other]:.4f}"
        if name == "auc_months":
            note += f"; by month {by_month}"
        spread = (round(gain["low"], 5), round(gain["high"], 5))
        rows.append(Row(name, round(gain["value"], 5), "AUC", spread, bar, met, note))
    return rows
