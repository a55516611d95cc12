"""core/model.py around the estimator of the old code: its hyperparameters are the first guess, the search looks around them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .facts import Estimator

STARTS: Mapping[str, Mapping[str, Any]] = {
    "Forest": {"n_estimators": 300, "min_samples_leaf": 3}, "ExtraTrees": {"n_estimators": 300, "min_samples_leaf": 3},
    "XGB": {"n_estimators": 300, "learning_rate": 0.05, "max_depth": 6}, "LGBM": {"n_estimators": 300, "learning_rate": 0.05, "num_leaves": 31},
    "CatBoost": {"iterations": 300, "learning_rate": 0.05, "depth": 6}, "GradientBoosting": {"learning_rate": 0.08},
    "LogisticRegression": {"C": 1.0}, "Ridge": {"alpha": 1.0}, "Lasso": {"alpha": 0.1}, "ElasticNet": {"alpha": 0.1, "l1_ratio": 0.5},
    "SV": {"C": 1.0}, "KNeighbors": {"n_neighbors": 15}, "DecisionTree": {"max_depth": 6},
}  # fmt: skip
"""What to begin with where the old code names no hyperparameter."""
SEEDLESS = re.compile(
    r"^(?:LinearRegression|KNeighbors\w+|RadiusNeighbors\w+|\w+NB|SVR|NuSVR|HuberRegressor|BayesianRidge|KernelRidge|ARDRegression|\w*DiscriminantAnalysis"
    r"|PoissonRegressor|GammaRegressor|TweedieRegressor|IsotonicRegression|PLSRegression|LassoLars\w*|\w*Voting\w+|\w*Stacking\w+)$"
)
SKLEARN = {
    "ensemble": r"Forest|ExtraTrees|GradientBoosting|AdaBoost|Bagging|Voting|Stacking|IsolationForest",
    "linear_model": r"Logistic|Ridge|Lasso|ElasticNet|LinearRegression|SGD|Perceptron|Huber|Poisson|Gamma|Tweedie|BayesianRidge|ARD|Passive",
    "svm": r"SV[CR]", "neighbors": r"Neighbors", "tree": r"DecisionTree|ExtraTree[CR]", "naive_bayes": r"NB$",
    "neural_network": r"MLP", "discriminant_analysis": r"Discriminant", "gaussian_process": r"GaussianProcess",
}  # fmt: skip
LIBRARY = {"XGB": "xgboost", "LGBM": "lightgbm", "CatBoost": "catboost"}
NOW = {
    "mse": "squared_error",
    "mae": "absolute_error",
    "ls": "squared_error",
    "lad": "absolute_error",
    "deviance": "log_loss",
    "log": "log_loss",
}
"""What scikit-learn calls today what it called otherwise."""
GONE = frozenset(
    {
        ("max_features", "auto"),
        ("penalty", "l2"),
        ("normalize", None),
        ("probability", None),
        ("presort", None),
        ("min_impurity_split", None),
        ("algorithm", "SAMME"),
        ("algorithm", "SAMME.R"),
    }
)
"""Arguments that it no longer takes, or that are what it does anyway."""
NO_ODDS = re.compile(r"^(?:SVC|NuSVC|LinearSVC|RidgeClassifier|Perceptron|PassiveAggressiveClassifier|SGDClassifier)$")
"""Classifiers whose answers have to be made probabilities."""
FIT_FOR = re.compile(
    r"(?:Classifier|Regressor|Regression|SVC|SVR|NB|Ridge|RidgeClassifier|Lasso|ElasticNet|DiscriminantAnalysis|Perceptron)$"
)


def module_of(name: str) -> str:
    """Where an estimator is imported from; nothing where it has no fit and predict as scikit-learn has them."""
    for start, library in LIBRARY.items():
        if name.startswith(start):
            return library
    for module, pattern in SKLEARN.items():
        if re.search(pattern, name):
            return f"sklearn.{module}"
    return ""


def model_text(best: Estimator, grid: Mapping[str, Sequence[Any]]) -> str:
    """A whole core/model.py around the old estimator: FIRST_GUESS is what the old code had, the search looks around it."""
    name, module = best.name, module_of(best.name)
    given = {key: value for key, value in best.params.items() if key.isidentifier() and not _is_path(value)}
    given = {
        key: NOW.get(value, value)
        for key, value in given.items()
        if (key, value) not in GONE and (key, None) not in GONE
    }
    tried = {key: values for key, values in grid.items() if key.isidentifier() and _same_kind(values)}
    guess = {key: value for key, value in given.items() if _searched(name, key, value)}
    guess |= {
        key: (given[key] if given.get(key) in values else values[len(values) // 2]) for key, values in tried.items()
    }
    if not guess:
        guess = dict(next((start for part, start in STARTS.items() if part in name), {}))
    fixed = {**_manners(name), **{key: repr(value) for key, value in given.items()}}
    lines = "".join(f"        {key!r}: {_suggest(key, value, tried.get(key))},\n" for key, value in guess.items())
    arguments = ["**params", *(f"{key}={value}" for key, value in fixed.items() if key not in guess)]
    tree = bool(re.search(r"Forest|Tree|Boost|XGB|LGBM|Bagging", name))
    scaled = 'SimpleImputer(strategy="median", add_indicator=True)'
    scaled = scaled if tree else f"make_pipeline({scaled}, StandardScaler())"
    made, imported = f"{name}({', '.join(arguments)})", f"from {module} import {name}\n"
    if NO_ODDS.search(name):
        made = f"CalibratedClassifierCV({made}, ensemble=False)"
        imported += "from sklearn.calibration import CalibratedClassifierCV\n"
    text = MODEL.format(
        guess="".join(f"    {key!r}: {value!r},\n" for key, value in guess.items()),
        space=lines,
        imported=imported,
        scaler="OneHotEncoder" if tree else "OneHotEncoder, StandardScaler",
        numbers=scaled,
        made=made,
    )
    return _formatted(text)


def _formatted(text: str) -> str:
    """As `make format` would leave it: it looks at code in Markdown too."""
    ruff = str(Path(sys.executable).with_name("ruff"))
    for words in (["check", "--select", "I", "--fix"], ["format"]):
        try:
            done = subprocess.run(
                [ruff, *words, "--quiet", "--line-length", "120", "-"],
                input=text,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return text
        text = done.stdout
    return text


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(re.search(r"[/\\\\]", value))


def _searched(name: str, key: str, value: Any) -> bool:
    """Whether a hyperparameter is worth searching: a number above 0, none that only says how long to try."""
    patience = key == "tol" or (key == "max_iter" and "HistGradient" not in name)
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and not patience


def _same_kind(values: Sequence[Any]) -> bool:
    """Whether a list of the old search can be searched: of texts or of numbers, no None or truth among them."""
    words = [isinstance(one, str) for one in values]
    return len(values) > 1 and len(set(words)) == 1 and not any(one is None or isinstance(one, bool) for one in values)


def _suggest(key: str, value: Any, tried: Sequence[Any] | None) -> str:
    """Between the least and the largest that the old search tried, or around the one value that there was."""
    if tried and (isinstance(tried[0], str) or len(set(tried)) < 2):
        return f"trial.suggest_categorical({key!r}, {list(tried)!r})"
    low, high = (min(tried), max(tried)) if tried else _around(key, value)
    kind = "int" if isinstance(low, int) and isinstance(high, int) and isinstance(value, int) else "float"
    return f"trial.suggest_{kind}({key!r}, {low}, {high}{', log=True' if low > 0 else ''})"


def _around(key: str, value: float) -> tuple[float, float]:
    """From a third of a value to its triple, as far as that makes sense."""
    if isinstance(value, int):
        most = value * (2 if re.search(r"estimators|iter", key) else 3)
        return max(value // 3, min(value, 2)), max(value, min(most, 12)) if key == "depth" else most
    high = float(f"{value * 3:.3g}")
    share = value <= 1 and re.search(r"subsample|fraction|colsample|l1_ratio|rate|eta|max_features|max_samples", key)
    return float(f"{value / 3:.3g}"), min(1.0, high) if share else high


def _manners(name: str) -> dict[str, str]:
    """What an estimator is told so that it is repeatable and quiet, unless the old code says otherwise."""
    found = {} if SEEDLESS.search(name) else {"random_state": "seed"}
    if name.startswith("LGBM"):
        found["verbose"] = "-1"
    if name.startswith("CatBoost"):
        found |= {"verbose": "False", "allow_writing_files": "False"}
    if name == "LogisticRegression":
        found["max_iter"] = "1000"
    if name.startswith("HistGradient"):
        found["early_stopping"] = "False"  # the search compares equal budgets
    return found


MODEL = '''"""The model and what may be tried of it. Yours: any estimator with scikit-learn's fit and predict will do."""

from collections.abc import Mapping
from typing import Any

import optuna
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector, make_column_transformer
{imported}from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import {scaler}

FIRST_GUESS = {{
{guess}}}
"""The search starts with these, so that its result is never worse than they are."""


def search_space(trial: optuna.Trial) -> dict[str, Any]:
    """Suggest one set of hyperparameters, with the keys of FIRST_GUESS."""
    return {{
{space}    }}


def build_model(problem: str, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """Make an unfitted estimator for a frame of features."""
    words = OneHotEncoder(min_frequency=10, max_categories=100, handle_unknown="infrequent_if_exist", sparse_output=False)
    numbers = {numbers}
    texts, rest = make_column_selector(dtype_exclude="number"), make_column_selector(dtype_include="number")
    inputs = make_column_transformer((words, texts), (numbers, rest))
    return make_pipeline(inputs, {made})
'''
