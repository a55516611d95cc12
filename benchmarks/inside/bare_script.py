"""The work of `make run` as one bare script: no DVC, MLflow or Prefect, no contract, no files but pictures.

    python bare_script.py PACKAGE

Runs in a project's folder with its interpreter. It takes the project's functions that compute (features, model, search,
metrics, plots), so that both do the same work; what it leaves out is what a platform adds. Its last line has the
metrics.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

PACKAGE = sys.argv[1]
features, metrics, model, report, schema, search = (
    import_module(f"{PACKAGE}.core.{name}") for name in ("features", "metrics", "model", "report", "schema", "search")
)
source, params = import_module(f"{PACKAGE}.io.source"), import_module(f"{PACKAGE}.params")
CONTRACT = schema.CONTRACT


def rows(asked: Any) -> tuple[pd.DataFrame, pd.Series]:
    """The rows of the window in order of time, without those that have no answer, and where training and test part."""
    ever = pd.Timestamp.min.tz_localize("UTC"), pd.Timestamp.max.tz_localize("UTC")
    frame = pd.concat(source.read("", *ever, CONTRACT.names), ignore_index=True)
    newest = frame[CONTRACT.time].max().to_pydatetime(warn=False)
    window = params.resolve(asked, params.Source(fingerprint="", rows=len(frame), newest=newest)).resolved
    frame = frame[frame[CONTRACT.time].between(window.start, window.end, inclusive="left")]
    frame = frame.drop_duplicates(CONTRACT.id).dropna(subset=[CONTRACT.target])
    frame = frame.sort_values([CONTRACT.time, CONTRACT.id], kind="stable", ignore_index=True)
    return frame, frame[CONTRACT.time] < window.test_start


def fit_with(asked: Any) -> Callable[..., Any]:
    def fit(values: Mapping[str, Any], inputs: pd.DataFrame, truth: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
        fitted = model.build_model(asked.problem, values, asked.seed).fit(inputs, truth)
        return lambda some: answers(fitted, some)

    return fit


def answers(fitted: Any, inputs: pd.DataFrame) -> np.ndarray:
    if hasattr(fitted, "predict_proba"):
        return fitted.predict_proba(inputs)[:, 1].astype("float64")
    return fitted.predict(inputs).astype("float64")


def main() -> None:
    asked = params.load_params()
    problem, metric, times, seed = asked.problem, asked.gate.metric, asked.evaluation.bootstrap, asked.seed
    frame, past = rows(asked)
    y = frame[CONTRACT.target].to_numpy("float64")
    inputs = features.build_features(frame.drop(columns=CONTRACT.target))
    texts = inputs.select_dtypes(exclude="number")
    train = inputs[past].astype(dict.fromkeys(texts, "category"))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=search.direction(metric), pruner=search.pruner(asked.split.folds))
    spread = np.unique(np.linspace(0, len(train) - 1, min(len(train), asked.search.max_rows)).astype(int))
    trials = search.search(
        study, fit_with(asked), model.search_space, model.FIRST_GUESS, train.iloc[spread], y[past][spread],
        problem, metric, list(search.folds(len(spread), asked.split.folds)), asked.search.trials, seed,
    )  # fmt: skip
    final = model.build_model(problem, study.best_params, seed).fit(train, y[past])

    test, truth, inputs = frame[~past], y[~past], inputs[~past].reset_index(drop=True)
    score = answers(final, inputs)
    found = metrics.with_intervals(problem, truth, score, times, seed)
    metrics.paired_gain(problem, metric, truth, score, np.full(len(truth), y[past].mean()), times, seed)
    month = test[CONTRACT.time].dt.strftime("%Y-%m")
    groups = {name: month if name == "month" else test[name] for name in asked.evaluation.slices}
    by_slice = metrics.slices(problem, truth, score, groups, metric, max(20, times // 2), seed)
    sample = np.sort(np.random.default_rng(seed).permutation(len(truth))[: asked.evaluation.importance_rows])
    matters = metrics.importance(
        metric, problem, lambda some: answers(final, some), inputs.iloc[sample], truth[sample], seed
    )
    with tempfile.TemporaryDirectory() as folder:
        pictures = report.plots(problem, truth, score, by_slice, matters, metric, trials)
        for name, png in pictures.items():
            Path(folder, f"{name}.png").write_bytes(png)
    print(json.dumps({name: interval.value for name, interval in found.items()}))


if __name__ == "__main__":
    main()
