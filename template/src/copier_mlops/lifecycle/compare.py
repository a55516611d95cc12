"""compare: what differs between two versions, and how much better one is than the other on the same test rows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from copier_mlops import ProjectError, project
from copier_mlops.bundle.bundle import Bundle
from copier_mlops.bundle.bundle_files import StaleBundleError
from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import check_rows
from copier_mlops.evaluation.metrics import paired_gain
from copier_mlops.params import load_run
from copier_mlops.pipeline import split
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.settings import Settings

UNITS = {"answer_cost": "answer_cost (1,000 rows; 1 = sorting 200,000 numbers)"}
"""Names of metrics with their units, where the name alone does not tell."""

Rows = list[dict[str, Any]]


def compare(settings: Settings, a: int, b: int) -> dict[str, Rows]:
    """Compare two versions.

    Args:
        settings: where the registry is.
        a, b: numbers of the versions.

    Returns:
        Tables by title; an empty one has no difference. `same test rows` has the gain of b over a with its 95 % interval.
    """
    registry = Registry(settings)
    versions = [registry.version(number) for number in (a, b)]
    runs = [registry.run(version.run_id) for version in versions]
    data = [_data(registry, run.info.run_id) for run in runs]
    notes: list[str] = []
    bundles: list[Bundle] = []
    try:
        bundles = [registry.load(version) for version in versions]
    except StaleBundleError as error:
        notes.append(f"columns, inputs and predictions are not compared: {error}")
    sides = (f"version {a}", f"version {b}")

    def beside(left: Mapping[str, Any], right: Mapping[str, Any], only_different: bool = True) -> Rows:
        return [
            {"": key, sides[0]: left.get(key), sides[1]: right.get(key)}
            for key in dict.fromkeys([*left, *right])
            if not only_different or left.get(key) != right.get(key)
        ]

    metrics = [{UNITS.get(name, name): value for name, value in run.data.metrics.items()} for run in runs]
    tables = {"metrics, each on its own test rows": beside(metrics[0], metrics[1], only_different=False)}
    if bundles:
        tables["same test rows"] = _gain(bundles, sides, notes)
        columns = [_columns(loaded.contract) for loaded in bundles]
        tables["columns"] = beside(columns[0], columns[1])
        inputs = [dict.fromkeys(loaded.manifest["inputs"], "input") for loaded in bundles]
        tables["inputs"] = beside(inputs[0], inputs[1])
    tables["parameters"] = beside(runs[0].data.params, runs[1].data.params)
    tables["data"] = _without_digests(beside(data[0], data[1]))
    return tables | ({"notes": [{"": note} for note in notes]} if notes else {})


def _columns(contract: Contract) -> dict[str, str]:
    """Return the rules of each column as text, such as `number, minimum 0`."""
    plain = {"role": "feature", "nullable": False, "unique": False, "personal": False, "unit": "", "effect": ""}
    described = {}
    for column in contract.columns:
        rules = {key: value for key, value in asdict(column).items() if value not in (None, plain.get(key))}
        del rules["name"]
        described[column.name] = ", ".join([rules.pop("kind"), *(_rule(name, value) for name, value in rules.items())])
    return described


def _rule(name: str, value: Any) -> str:
    if value is True:
        return name
    if isinstance(value, tuple):
        return f"{name} {_short(value)}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _short(values: Iterable[str]) -> str:
    text = ", ".join(values)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _gain(bundles: list[Bundle], sides: tuple[str, str], notes: list[str]) -> Rows:
    """Return the gain of the second version on rows that neither was trained on; none, and a note, if there are no such rows."""
    asked = [(one.manifest["problem"], one.manifest["target"], one.contract.classes) for one in bundles]
    if asked[0] != asked[1]:
        notes.append("the two versions predict different targets, so their predictions are not compared")
        return []
    try:
        run = load_run()
        rows = split.test(run)
    except ProjectError as error:
        notes.append(
            f"predictions are not compared on the same rows: {error} `make pull` fetches the data of the last run."
        )
        return []
    if asked[0][1] != project.contract().target:
        notes.append(f"the rows in data/ are labeled with {project.contract().target}, so predictions are not compared")
        return []
    begins = [one.manifest["window"].get("test_start") for one in bundles]
    if project.contract().time and all(begins):
        rows = rows[(rows[project.contract().time] >= pd.Timestamp(max(begins), tz="UTC")).to_numpy()].reset_index(
            drop=True
        )
    scores, kept = [], np.ones(len(rows), dtype=bool)
    for loaded in bundles:
        wanted = [column.name for column in loaded.contract.without_target()]
        missing = [name for name in wanted if name not in rows]
        if missing:
            notes.append(f"the rows in data/ lack {', '.join(missing)}, so predictions are not compared")
            return []
        good = check_rows(rows[wanted], loaded.contract, labelled=False).good
        valid = np.isin(np.arange(len(rows)), good.index.to_numpy())
        score = np.full((len(rows), max(len(loaded.contract.answers), 1)), np.nan)
        if len(good):
            score[valid] = np.asarray(loaded.score(good)).reshape(len(good), -1)
        scores.append(score)
        kept &= valid
    if not kept.any():
        notes.append("predictions are not compared: data/ has no test rows that neither version was trained on")
        return []
    y = project.contract().labels(rows[project.contract().target])[kept]
    first, second = (score[kept] if score.shape[1] > 1 else score[kept, 0] for score in scores)
    metric = run.gate.metric
    gain = paired_gain(
        run.problem, metric, y=y, candidate=second, other=first, times=run.evaluation.bootstrap, seed=run.seed
    )
    return [
        {
            "": f"gain in {metric} of {sides[1]} over {sides[0]}",
            "value": gain.value,
            "from": gain.low,
            "to": gain.high,
            "rows": int(kept.sum()),
        }
    ]


def _data(registry: Registry, run_id: str) -> dict[str, Any]:
    """Return what describes a run's data: counts, window, and by output the size and the digest of its content."""
    with tempfile.TemporaryDirectory() as scratch:
        facts = json.loads(registry.fetch(run_id, "facts.json", Path(scratch)).read_text())
        lock = yaml.safe_load(registry.fetch(run_id, "lineage/dvc.lock", Path(scratch)).read_text())
    described = {"rows": facts["rows"], **{f"window.{key}": value for key, value in facts["window"].items()}}
    described["source"] = facts["source"]
    described |= {
        f"rows {key.replace('_', ' ')}": facts["data"][key] for key in ("rows", "good", "set_aside", "unlabelled")
    }
    described |= {f"set aside, {reason}": rows for reason, rows in facts["data"]["reasons"].items()}
    for stage in lock["stages"].values():
        for out in stage.get("outs", []):
            if out["path"].startswith("data/"):
                described[f"content of {out['path']}"] = (f"{out['size']:,} bytes", out["md5"])
    return described


def _without_digests(rows: Rows) -> Rows:
    """Replace sizes with digests by the sizes: a row is there because the content differs, and its digest says no more."""
    return [{key: value[0] if isinstance(value, tuple) else value for key, value in row.items()} for row in rows]
