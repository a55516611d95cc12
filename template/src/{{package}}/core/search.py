"""Which hyperparameters: folds in order of time, and a search over them that a killed run can take up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from ..core.metrics import LARGER_IS_BETTER, METRICS, auc, r2

Fit = Callable[[Mapping[str, Any], pd.DataFrame, np.ndarray], Callable[[pd.DataFrame], np.ndarray]]
"""From hyperparameters, inputs and truth to a function that answers inputs."""


def folds(rows: int, count: int) -> Iterator[tuple[slice, slice]]:
    """Cut rows that are ordered by time into `count` pairs of past and future.

    The rows are cut into count + 1 equal blocks; fold k is trained on blocks 0..k and judged on block k + 1.

    Raises:
        ValueError: If there are fewer than two rows for a block.
    """
    if rows < 2 * (count + 1):
        raise ValueError(f"{rows} rows are too few for {count} folds; lower split.folds or widen window.days")
    edges = np.linspace(0, rows, count + 2).astype(int)
    for k in range(1, count + 1):
        yield slice(0, int(edges[k])), slice(int(edges[k]), int(edges[k + 1]))


def without_gaps(features: pd.DataFrame) -> pd.DataFrame:
    """Give numbers that have no value in any row as 0: they tell nothing, and boosting fails on them.

    A sensor that reported nothing in the first fold is enough; answers to later rows do not depend on such an input.
    """
    empty = [str(name) for name in features.select_dtypes("number") if features[name].isna().all()]
    return features.assign(**dict.fromkeys(empty, np.float32(0))) if empty else features


def cross_validate(
    fit: Fit,
    params: Mapping[str, Any],
    features: pd.DataFrame,
    y: np.ndarray,
    problem: str,
    metric: str,
    count: int,
    after_fold: Callable[[int, float], None] = lambda fold, mean: None,
) -> list[float]:
    """The metric of each fold; `after_fold` hears the mean so far and may stop it by raising."""
    values: list[float] = []
    for fold, (past, future) in enumerate(folds(len(y), count)):
        predict = fit(params, features.iloc[past], y[past])
        answers = predict(features.iloc[future])
        values.append(METRICS[problem][metric](y[future], answers, np.ones(len(answers))))
        after_fold(fold, float(np.mean(values)))
    return values


def search(
    study: optuna.Study,
    fit: Fit,
    space: Callable[[optuna.Trial], dict[str, Any]],
    first_guess: Mapping[str, Any],
    features: pd.DataFrame,
    y: np.ndarray,
    problem: str,
    metric: str,
    count: int,
    trials: int,
    seed: int,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Try hyperparameters until the study has `trials` finished trials.

    Each trial's sampler is seeded by the trial's number and sees the finished trials alone, so that a study that was
    killed and taken up again ends as an unbroken one.

    Args:
        study: May hold trials already, all of them finished.
        features, y: Rows ordered by time.
        trials: The budget in all, those that are there included.

    Returns:
        A line per trial: number, state, value, seconds, then the hyperparameters.

    Raises:
        ValueError: If no trial came to a value: each fold's future has one class only, or there are too few rows.
    """

    def objective(trial: optuna.Trial) -> float:
        def report(fold: int, mean: float) -> None:
            trial.report(mean, fold)
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind the others after fold {fold + 1}")

        values = cross_validate(fit, space(trial), features, y, problem, metric, count, report)
        return float(np.mean(values))

    while len(study.trials) < trials:
        number = len(study.trials)
        if number == 0:
            study.enqueue_trial(dict(first_guess))
        study.sampler = optuna.samplers.TPESampler(seed=seed + number, n_startup_trials=4)
        study.optimize(objective, n_trials=1)
        trial = study.trials[-1]
        value = "no value" if trial.value is None else f"{metric} {trial.value:.4f}"
        say(f"trial {number + 1} of {trials}: {trial.state.name.lower()}, {value}")
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        raise ValueError("no trial could be judged; are there rows of both classes in every fold?")
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "folds": len(trial.intermediate_values),
                **trial.params,
            }
            for trial in study.trials
        ]
    )


def direction(metric: str) -> Literal["maximize", "minimize"]:
    """The direction of an Optuna study."""
    return "maximize" if metric in LARGER_IS_BETTER else "minimize"


def pruner(count: int) -> optuna.pruners.BasePruner:
    """Stop a trial that is behind the median of the finished ones, from the third trial on."""
    return (
        optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0) if count > 1 else optuna.pruners.NopPruner()
    )


def single_input_skill(problem: str, features: pd.DataFrame, y: np.ndarray, seed: int, rows: int = 20_000) -> pd.Series:
    """How well each input alone predicts: a small tree fitted on half of the rows, judged on the other half.

    An input that alone nearly gives the answer is the answer, or was recorded after it.

    Returns:
        By input, from 0 (nothing) to 1 (everything): 2 AUC - 1 for a class, R2 for a number; not below 0.
    """
    random = np.random.default_rng(seed)
    at = np.sort(random.permutation(len(y))[:rows])
    some, truth = features.iloc[at], y[at]
    fitted, judged = np.arange(len(at))[::2], np.arange(len(at))[1::2]
    ones = np.ones(len(judged))
    skill = {}
    for name in map(str, some):
        column = some[name]
        if not pd.api.types.is_numeric_dtype(column.dtype):
            text = column.astype("str")
            means = pd.Series(truth[fitted]).groupby(text.iloc[fitted].to_numpy()).mean()
            values = text.map(means).to_numpy(dtype="float64", na_value=np.nan)
        else:
            values = column.to_numpy(dtype="float64", na_value=np.nan)
        inputs = np.nan_to_num(values, nan=-1e30, posinf=1e30, neginf=-1e30)[:, None]
        if problem == "classification":
            tree = DecisionTreeClassifier(max_leaf_nodes=32, min_samples_leaf=10, random_state=seed)
            tree.fit(inputs[fitted], truth[fitted])
            answers = tree.predict_proba(inputs[judged])[:, -1]
            skill[name] = 2 * auc(truth[judged], answers, ones) - 1
        else:
            tree = DecisionTreeRegressor(max_leaf_nodes=32, min_samples_leaf=10, random_state=seed)
            skill[name] = r2(truth[judged], tree.fit(inputs[fitted], truth[fitted]).predict(inputs[judged]), ones)
    return pd.Series(skill, dtype="float64").fillna(0).clip(lower=0)
