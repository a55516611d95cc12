"""evaluate: the bundle answers the test rows; metrics, slices, plots, report and model card from what it says."""

import json
import shutil
from typing import Any

import numpy as np
import pandas as pd

from .. import NAME, ProjectError
from ..core import metrics, report
from ..core.schema import CONTRACT
from ..io import bundle, tables
from ..params import load_run
from ..settings import Paths

TITLE = NAME.replace("-", " ").capitalize()


def evaluate() -> dict[str, Any]:
    """Write everything under reports/ but the validation, and data/scored.

    Returns:
        What reports/facts.json says.

    Raises:
        ProjectError: If there are no test rows, or a slice is named that is no column.
    """
    run = load_run()
    loaded = bundle.load(Paths.BUNDLE)
    test = tables.read_between(
        Paths.VALIDATED, CONTRACT.time, pd.Timestamp(run.resolved.test_start), pd.Timestamp(run.resolved.end)
    ).sort_values([CONTRACT.time, CONTRACT.id], kind="stable", ignore_index=True)
    if test.empty:
        raise ProjectError(
            f"there are no rows in the last {run.split.test_days} days; raise split.test_days in params.yaml."
        )
    texts = test.select_dtypes("category")
    test = test.astype(dict.fromkeys(texts, "str"))
    y, rows = test[CONTRACT.target].to_numpy("float64"), test.drop(columns=CONTRACT.target)
    score = loaded.score(rows)
    tables.write(test[CONTRACT.keys].assign(score=score), Paths.SCORED)

    metric, times, seed = run.gate.metric, run.evaluation.bootstrap, run.seed
    found = metrics.with_intervals(run.problem, y, score, times, seed)
    guess = np.full(len(y), loaded.manifest["target_mean"])
    ones = np.ones(len(y))
    naive = {name: measure(y, guess, ones) for name, measure in metrics.METRICS[run.problem].items()}
    over_baseline = metrics.paired_gain(run.problem, metric, y, score, guess, times, seed)
    by_slice = metrics.slices(
        run.problem, y, score, _groups(test, run.evaluation.slices), metric, max(20, times // 2), seed
    )
    sample = np.sort(np.random.default_rng(seed).permutation(len(y))[: run.evaluation.importance_rows])
    inputs = loaded.build_features(rows.iloc[sample])
    importance = metrics.importance(
        metric, run.problem, lambda some: bundle.score(loaded.model, some), inputs, y[sample], seed
    )
    trials = pd.DataFrame(tables.read_json(Paths.TRIALS))
    facts: dict[str, Any] = {
        "problem": run.problem,
        "target": CONTRACT.target,
        "metric": metric,
        "larger_is_better": metric in metrics.LARGER_IS_BETTER,
        "model": loaded.manifest["model"],
        "params": loaded.manifest["params"],
        "metrics": {name: interval.as_json() for name, interval in found.items()},
        "baseline": naive,
        "over_baseline": over_baseline.as_json(),
        "slices": _records(by_slice),
        "importance": _records(importance),
        "trials": _records(trials),
        "data": tables.read_json(Paths.VALIDATION),
        "rows": {"train": loaded.manifest["rows"], "test": len(y)},
        "window": {key: f"{moment:%Y-%m-%d}" for key, moment in run.resolved},
        "test_days": run.split.test_days,
        "bootstrap": times,
        "source": run.source.fingerprint,
    }
    shutil.rmtree(Paths.PLOTS, ignore_errors=True)
    pictures = report.plots(run.problem, y, score, by_slice, importance, metric, trials)
    for name, png in pictures.items():
        with tables.writing(Paths.PLOTS / f"{name}.png") as partial:
            partial.write_bytes(png)
    tables.write_text(report.page(TITLE, facts, pictures), Paths.PAGE)
    tables.write_text(report.card(TITLE, facts), Paths.CARD)
    tables.write_json(facts, Paths.FACTS)
    tables.write_json({name: interval.value for name, interval in found.items()}, Paths.METRICS)
    best = found[metric]
    print(f"{metric} {best.value:.4f} ({best.low:.4f} to {best.high:.4f}), baseline {naive[metric]:.4f}")
    return facts


def _groups(test: pd.DataFrame, names: tuple[str, ...]) -> dict[str, pd.Series]:
    unknown = [name for name in names if name != "month" and name not in test]
    if unknown:
        raise ProjectError(
            f"evaluation.slices in params.yaml names {', '.join(unknown)}; there are month and {', '.join(CONTRACT.names)}."
        )
    month = test[CONTRACT.time].dt.strftime("%Y-%m")
    return {name: month if name == "month" else test[name] for name in names}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: NaN becomes null."""
    return list(json.loads(frame.to_json(orient="records", double_precision=15)))
