"""evaluate: the bundle answers the test rows; metrics, slices, plots, report and model card from what it says."""

import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops._progress import progress
from copier_mlops.bundle import bundle
from copier_mlops.contract.units import together_in_resamples
from copier_mlops.data import tables
from copier_mlops.evaluation import curves, metrics, model_card, plots, report
from copier_mlops.params import Run, load_run
from copier_mlops.pipeline import split
from copier_mlops.settings import Paths

STEPS = 5  # scores, intervals, slices, importance, plots
FEWEST_TO_JUDGE = 100  # test rows on which a perfect model is no chance
DRAWN = ("roc", "precision_recall", "calibration", "predicted_actual")
"""Plots of dvc.yaml. DVC leaves out a plot without points, such as the ROC curve of a regression."""


def evaluate() -> dict[str, Any]:
    """Write everything under reports/ but the validation, and data/scored.

    Returns:
        What reports/facts.json says.

    Raises:
        ProjectError: If there are no test rows, or a slice is named that is no column.
    """
    with progress("evaluate", "steps", STEPS, of_stage=True) as advance:
        return _evaluate(load_run(), advance)


def _evaluate(run: Run, advance: Callable[[int], None]) -> dict[str, Any]:
    loaded = bundle.load(Paths.BUNDLE)
    test = split.test(run)
    y, rows = project.contract().labels(test[project.contract().target]), test.drop(columns=project.contract().target)
    score = loaded.score(rows)
    answers = pd.DataFrame(score.reshape(len(score), -1), columns=project.contract().answers)
    tables.write(pd.concat([test[project.contract().keys], answers], axis=1), Paths.SCORED)
    advance(1)

    metric, times, seed = run.gate.metric, run.evaluation.bootstrap, run.seed
    units = together_in_resamples(test, project.contract(), seed)
    found = metrics.with_intervals(run.problem, y, score, times=times, seed=seed, units=units)
    _check_not_computed(run, found, len(y))
    guess = np.broadcast_to(np.array(loaded.manifest["baseline"]), score.shape)
    ones = np.ones(len(y))
    naive = {name: measure(y, guess, ones) for name, measure in metrics.METRICS[run.problem].items()}
    over_baseline = metrics.paired_gain(
        run.problem, metric, y=y, candidate=score, other=guess, times=times, seed=seed, units=units
    )
    advance(1)
    grouped, subjects = groups(test, run.evaluation.slices), _subjects(run, test)
    if subjects is not None:
        grouped = {
            **grouped,
            f"{project.contract().group} in training": pd.Series(np.where(subjects["known"], "yes", "no")),
        }
    by_slice = metrics.slices(
        run.problem, y, score, groups=grouped, metric=metric, times=max(20, times // 2), seed=seed, units=units
    )
    advance(1)
    sample = np.sort(np.random.default_rng(seed).permutation(len(y))[: run.evaluation.importance_rows])
    inputs = loaded.build_features(rows.iloc[sample])
    importance = metrics.importance(
        metric,
        run.problem,
        predict=lambda some: bundle.score(loaded.model, some, len(project.contract().classes)),
        features=inputs,
        y=y[sample],
        seed=seed,
    )
    advance(1)
    effects = metrics.effects(loaded.score, rows.iloc[sample], project.contract().effects)
    trials = pd.DataFrame(tables.read_json(Paths.TRIALS))
    two_classes = run.problem == "classification" and score.ndim == 1
    facts: dict[str, Any] = {
        "problem": run.problem,
        "target": project.contract().target,
        "metric": metric,
        "larger_is_better": metric in metrics.LARGER_IS_BETTER,
        "model": loaded.manifest["model"],
        "params": loaded.manifest["params"],
        "search": loaded.manifest["search"],
        "metrics": {name: interval.as_json() for name, interval in found.items()},
        "baseline": naive,
        "over_baseline": over_baseline.as_json(),
        "slices": _records(by_slice),
        "calibration": _records(curves.mean_errors(y, score, grouped)),
        "threshold": run.evaluation.threshold,
        "confusion": curves.confusion(y, score, run.evaluation.threshold) if two_classes else None,
        "importance": _records(importance),
        "effects": _records(effects),
        "trials": _records(trials),
        "data": tables.read_json(Paths.VALIDATION),
        "rows": {"train": loaded.manifest["rows"], "test": len(y)},
        "classes": list(project.contract().classes),
        "window": split.window(run),
        "test": split.says(run),
        "subjects": None if subjects is None else {**subjects, "known": int(subjects["known"].sum())},
        "bootstrap": times,
        "source": run.source.fingerprint,
        "names": project.contract().names,
        "columns": tables.read_json(Paths.ADOPTION).get("columns", []) if Paths.ADOPTION.exists() else [],
    }
    shutil.rmtree(Paths.PLOTS, ignore_errors=True)
    pictures = plots.plots(
        run.problem, y, score, slices=by_slice, importance=importance, metric=metric, trials=trials, classes=project.contract().classes,
        threshold=run.evaluation.threshold if two_classes else None, overall=found[metric].value,
    )  # fmt: skip
    for name, png in pictures.items():
        with tables.writing(Paths.PLOTS / f"{name}.png") as partial:
            partial.write_bytes(png)
    shutil.rmtree(Paths.CURVES, ignore_errors=True)
    drawn = {**curves.curves(run.problem, y, score), "importance": facts["importance"]}
    for name in (*DRAWN, "importance"):
        tables.write_json(drawn.get(name, []), Paths.CURVES / f"{name}.json")
    advance(1)
    tables.write_text(report.page(project.title(), facts, pictures), Paths.PAGE)
    tables.write_text(model_card.card(project.title(), facts), Paths.CARD)
    tables.write_json(facts, Paths.FACTS)
    tables.write_json({name: interval.value for name, interval in found.items()}, Paths.METRICS)
    best = found[metric]
    interval = (
        f"{best.low:.4f} to {best.high:.4f}" if not np.isnan(best.low) else "no interval: too few rows of a class"
    )
    print(f"{metric} {best.value:.4f} ({interval}), baseline {naive[metric]:.4f}")
    if facts["subjects"]:
        print(model_card.subjects(facts))
    return facts


def _subjects(run: Run, test: pd.DataFrame) -> dict[str, Any] | None:
    """The column of the subjects, how many the test has, and which rows of it are of subjects in the training; None without a group."""
    if project.contract().group is None:
        return None
    known = split.known_subjects(run, test) if run.split.test_share is None else np.zeros(len(test), dtype=bool)
    return {"column": project.contract().group, "test": int(test[project.contract().group].nunique()), "known": known}


def _check_not_computed(run: Run, found: Mapping[str, metrics.Interval], rows: int) -> None:
    """Stop where the model is nearly perfect: its inputs together give the target away. On few rows that may be chance.

    Raises:
        ProjectError: The text says what to do.
    """
    name, limit = "auc" if run.problem == "classification" else "r2", run.validation.max_model_skill
    if rows >= FEWEST_TO_JUDGE and found[name].value > limit:
        raise ProjectError(
            f"the model is nearly perfect on the test rows: {name} {found[name].value:.5f}; the limit is {limit:g} "
            "(validation.max_model_skill in params.yaml). Most likely inputs that were recorded with the target give it away "
            "together: leave them out in schema.py. If all of them really are known in time, raise the limit to 1."
        )


def groups(test: pd.DataFrame, names: tuple[str, ...]) -> dict[str, pd.Series]:
    """For each slice of params.yaml the group of each row.

    Raises:
        ProjectError: If a slice is named that is no column.
    """
    unknown = [name for name in names if name != "month" and name not in test]
    if unknown:
        raise ProjectError(
            f"evaluation.slices in params.yaml names {', '.join(unknown)}; there are month and {', '.join(project.contract().names)}."
        )
    if "month" in names and project.contract().time is None:
        raise ProjectError("evaluation.slices in params.yaml names month, but the contract has no time.")
    return {
        name: test[project.contract().time].dt.strftime("%Y-%m") if name == "month" else test[name] for name in names
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: NaN becomes null."""
    return list(json.loads(frame.to_json(orient="records", double_precision=15)))
