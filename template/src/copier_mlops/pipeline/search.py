"""Which hyperparameters: folds in order of time, and a search over them that a killed run can take up again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from copier_mlops.contract.validation import fingerprints
from copier_mlops.evaluation.metrics import LARGER_IS_BETTER, METRICS, auc, r2

NEARLY, FEW_TOGETHER = 0.999, 6  # AUC or R2 of a model that only computes the target, and of how many inputs
AT_A_TIME = 2  # folds that are fitted beside each other

Fold = tuple[slice | np.ndarray, slice | np.ndarray]
"""Positions of the rows to train on, and of those to judge by."""

Fit = Callable[[Mapping[str, Any], pd.DataFrame, np.ndarray], Callable[[pd.DataFrame], np.ndarray]]
"""From hyperparameters, inputs and truth to a function that answers inputs."""


def folds(rows: int, count: int) -> Iterator[Fold]:
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


def drawn_folds(problem: str, y: np.ndarray, count: int, seed: int, copies: np.ndarray | None = None) -> Iterator[Fold]:
    """Cut rows without an order into `count` pairs by lot, each class in its share.

    Args:
        copies: Array of shape (rows,), equal for rows of one subject or copies of each other; these stay on one side.

    Raises:
        ValueError: If a class, or all rows, are fewer than the folds.
    """
    classes = problem == "classification"
    if classes and (fewest := int(np.unique(y, return_counts=True)[1].min())) < count:
        raise ValueError(f"a class has {fewest} rows, too few for {count} folds; lower split.folds")
    rows = np.zeros((len(y), 1))
    if copies is None or len(np.unique(copies)) == len(copies):
        kind = StratifiedKFold if classes else KFold
        yield from kind(count, shuffle=True, random_state=seed).split(rows, y)
    else:
        grouped = StratifiedGroupKFold if classes else GroupKFold
        yield from grouped(count, shuffle=True, random_state=seed).split(rows, y, copies)


def with_classes(pairs: Iterable[Fold], y: np.ndarray) -> list[Fold]:
    """The folds whose rows to train on, and to judge by, are not all of one class.

    Raises:
        ValueError: If there is none.
    """
    kept = [pair for pair in pairs if all(len(np.unique(y[side])) > 1 for side in pair)]
    if not kept:
        raise ValueError(
            "in no fold are there two classes to learn and two to judge; lower split.folds or widen the window"
        )
    return kept


def drawn_for_test(
    problem: str, ids: pd.Series, y: np.ndarray, share: float, copies: np.ndarray | None = None
) -> np.ndarray:
    """Choose the rows that judge where no time does: of each class, or each tenth of a number, the same share.

    The lot is a hash of the id, so that a row stays on its side when others come or go; only a few at the edge change.
    Copies share the lot of one of them. Rows of one subject come with the subject's name as their id.

    Args:
        copies: Array of shape (rows,), equal for rows of one subject or copies of each other.

    Returns:
        Boolean array of shape (rows,).
    """
    strata = y if problem == "classification" else np.ceil(pd.Series(y).rank(pct=True).to_numpy() * 10)
    lots = fingerprints(ids)
    first = np.arange(len(y))
    if copies is not None:  # the copy of the smallest lot stands for all
        by_lot = np.lexsort((lots, copies))
        begins = np.concatenate([[True], copies[by_lot][1:] != copies[by_lot][:-1]])
        first[by_lot] = by_lot[begins][np.cumsum(begins) - 1]
        lots, strata = lots[first], strata[first]
    order = np.lexsort((lots, strata))
    _, sizes = np.unique(strata, return_counts=True)
    place = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.empty(len(y), dtype=bool)
    chosen[order] = place < np.repeat(np.round(sizes * share), sizes)
    return np.asarray(chosen[first])


def without_gaps(features: pd.DataFrame) -> pd.DataFrame:
    """Give numbers that have no value in any row as 0: they tell nothing, and boosting fails on them.

    A sensor that reported nothing in the first fold is enough; answers to later rows do not depend on such an input.
    """
    empty = [str(name) for name in features.select_dtypes("number") if features[name].isna().all()]
    return features.assign(**dict.fromkeys(empty, np.float32(0))) if empty else features


def cross_validate(
    fit: Fit,
    params: Mapping[str, Any],
    *,
    features: pd.DataFrame,
    y: np.ndarray,
    problem: str,
    metric: str,
    pairs: Sequence[Fold],
    after_fold: Callable[[int, float], None] = lambda fold, mean: None,
) -> list[float]:
    """The metric of each fold; `after_fold` hears the mean so far and may stop it by raising."""

    def judged(pair: Fold) -> float:
        past, future = pair
        answers = fit(params, features.iloc[past], y[past])(features.iloc[future])
        return METRICS[problem][metric](y[future], answers, np.ones(len(answers)))

    values: list[float] = []
    # Two fits beside each other, each with half of the cores, are faster than one with all: threads of one fit wait for
    # each other at every split. The last fold of time is the largest, so it begins first.
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        begun = [threads.submit(judged, pair) for pair in reversed(pairs)]
        for fold, value in enumerate(reversed(begun)):
            values.append(value.result())
            after_fold(fold, float(np.mean(values)))
    return values


def guesses(first_guess: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """FIRST_GUESS of model.py as a list: it may be one set of hyperparameters, or several."""
    return [first_guess] if isinstance(first_guess, Mapping) else list(first_guess)


def search(
    study: optuna.Study,
    *,
    fit: Fit,
    space: Callable[[optuna.Trial], dict[str, Any]],
    first_guess: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    features: pd.DataFrame,
    y: np.ndarray,
    problem: str,
    metric: str,
    pairs: Sequence[Fold],
    trials: int,
    seed: int,
    say: Callable[[str], None] = print,
    after_trial: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Try hyperparameters until the study has `trials` finished trials.

    Each trial's sampler is seeded by the trial's number and sees the finished trials alone, so that a study that was
    killed and taken up again ends as an unbroken one.

    Args:
        first_guess: What is tried first: one set of hyperparameters, or several in turn.
        study: May hold trials already, all of them finished.
        features, y: Rows, ordered by time where they have one.
        pairs: The folds.
        trials: The budget in all, those that are there included.
        after_trial: called when a trial has ended.

    Returns:
        A line per trial: number, state, value, seconds, then the hyperparameters.

    Raises:
        ValueError: If no trial came to a value: each fold's future has one class only.
    """

    def objective(trial: optuna.Trial) -> float:
        def report(fold: int, mean: float) -> None:
            trial.report(mean, fold)
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind the others after fold {fold + 1}")

        values = cross_validate(
            fit, space(trial), features=features, y=y, problem=problem, metric=metric, pairs=pairs, after_fold=report
        )
        return float(np.mean(values))

    begin = guesses(first_guess)
    while len(study.trials) < trials:
        number = len(study.trials)
        if number < len(begin):
            study.enqueue_trial(dict(begin[number]))
        study.sampler = optuna.samplers.TPESampler(seed=seed + number, n_startup_trials=4)
        study.optimize(objective, n_trials=1)
        trial = study.trials[-1]
        value = "no value" if trial.value is None else f"{metric} {trial.value:.4f}"
        after_trial()
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


@dataclass(frozen=True)
class Choice:
    """The trial whose hyperparameters are used, and what the search brought.

    Attributes:
        number: The trial's number, from 0.
        params: Its hyperparameters.
        searched: How many trials came to a value after the first guesses.
        gain: By how much the best of these is better than the best first guess, in the metric; 0 if it is not.
        error: The standard error of that gain over the folds; NaN with one fold.
        used: Whether the gain is larger than its error, so that the best trial is used and not the first guess.
    """

    number: int
    params: Mapping[str, Any]
    searched: int
    gain: float
    error: float
    used: bool


def choose(study: optuna.Study, guessed: int) -> Choice:
    """Choose the best trial, or the best first guess if the search found nothing that is better by more than folds differ.

    The best of many trials is partly the luckiest: its value on the folds exceeds what it is on new rows. This is the one standard
    error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3), with differences paired by fold.

    Args:
        study: With trials that report the mean over their folds after each fold.
        guessed: How many of the first trials are first guesses.

    Raises:
        ValueError: If no trial is complete.
    """
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    best = study.best_trial
    first = [trial for trial in complete if trial.number < guessed]
    searched = len(complete) - len(first)
    if not first:
        return Choice(best.number, best.params, searched, 0.0, np.nan, best.number >= guessed)
    guess = max(first, key=lambda trial: sign * trial.values[0])
    gains = sign * (_by_fold(best) - _by_fold(guess))
    gain = float(gains.mean())
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else np.nan
    used = best.number >= guessed and not gain <= error
    chosen = best if used else guess
    return Choice(chosen.number, chosen.params, searched, gain, error, used)


def _by_fold(trial: optuna.trial.FrozenTrial) -> np.ndarray:
    """The metric of each fold, from the means so far that a trial reports."""
    means = np.array([trial.intermediate_values[fold] for fold in sorted(trial.intermediate_values)])
    return np.diff(means * np.arange(1, len(means) + 1), prepend=0.0)


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
        By input, from 0 (nothing) to 1 (everything): 2 AUC - 1 for a class (the mean over classes where there are more
        than two), R2 for a number; not below 0.
    """
    skill = {}
    for name, truth, answers in single_input_answers(problem, features, y, seed, rows):
        ones = np.ones(len(truth))
        skill[name] = 2 * auc(truth, answers, ones) - 1 if problem == "classification" else r2(truth, answers, ones)
    return pd.Series(skill, dtype="float64").fillna(0).clip(lower=0)


def together(problem: str, inputs: np.ndarray, y: np.ndarray) -> tuple[list[int], float]:
    """Whether few inputs together give the target: a linear model on half of the rows, judged on the other half.

    The inputs of the largest weights are taken, one more at a time, until the model is nearly perfect.

    Args:
        inputs: array of shape (rows, columns), standardized, without gaps.
        y: array of shape (rows,), 0 and 1 or numbers.

    Returns:
        The places of the inputs, and AUC or R2 of a model of them; of all inputs if no few of them are enough.
    """
    half = len(y) // 2

    def judge(places: list[int]) -> tuple[float, np.ndarray]:
        some = inputs[:, places]
        if problem == "regression":
            model: Any = LinearRegression().fit(some[:half], y[:half])
            return r2(y[half:], model.predict(some[half:]), np.ones(len(y) - half)), model.coef_
        if len(np.unique(y[:half])) < 2 or len(np.unique(y[half:])) < 2:
            return 0.0, np.zeros(len(places))
        model = LogisticRegression(C=100.0, max_iter=200).fit(some[:half], y[:half])
        return auc(y[half:], model.predict_proba(some[half:])[:, 1], np.ones(len(y) - half)), model.coef_[0]

    everything = list(range(inputs.shape[1]))
    skill, weights = judge(everything)
    if skill > NEARLY:
        order = [int(place) for place in np.argsort(-np.abs(weights))]
        for count in range(2, min(len(order), FEW_TOGETHER) + 1):
            found = judge(order[:count])[0]
            if found > NEARLY:
                return order[:count], found
    return everything, skill


def single_input_answers(
    problem: str, features: pd.DataFrame, y: np.ndarray, seed: int, rows: int = 20_000
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each input's name, the truth of the rows that judge, and what a small tree of that input alone answers."""
    random = np.random.default_rng(seed)
    at = random.permutation(len(y))[:rows]
    some, truth = features.iloc[at], y[at]
    fitted, judged = np.arange(len(at) // 2), np.arange(len(at) // 2, len(at))
    classes = int(y.max(initial=0)) + 1 if problem == "classification" else 0
    shown = np.eye(classes)[truth[fitted].astype(int)] if classes > 2 else truth[fitted][:, None]
    kind = DecisionTreeClassifier if problem == "classification" else DecisionTreeRegressor
    for name in map(str, some):
        column = some[name]
        if not pd.api.types.is_numeric_dtype(column.dtype):
            text = column.astype("str")
            means = pd.DataFrame(shown).groupby(text.iloc[fitted].to_numpy()).mean()
            values = means.reindex(text.to_numpy()).to_numpy("float64")
        else:
            values = column.to_numpy(dtype="float64", na_value=np.nan)[:, None]
        inputs = np.nan_to_num(values, nan=-1e30, posinf=1e30, neginf=-1e30)
        tree = kind(max_leaf_nodes=32, min_samples_leaf=10, random_state=seed).fit(inputs[fitted], truth[fitted])
        if problem == "regression":
            yield name, truth[judged], tree.predict(inputs[judged])
            continue
        answers = np.zeros((len(judged), max(classes, 2)))
        answers[:, tree.classes_.astype(int)] = tree.predict_proba(inputs[judged])
        yield name, truth[judged], answers if classes > 2 else answers[:, 1]
