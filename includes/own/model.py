"""The model and what may be tried of it. Yours: any estimator with scikit-learn's fit and predict will do.

Import nothing of this project here: the bundle keeps the estimator together with the code of this file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

FIRST_GUESS = (
    {
        "family": "boosting",
        "learning_rate": 0.08,
        "max_iter": 150,
        "max_leaf_nodes": 31,
        "min_samples_leaf": 20,
        "l2_regularization": 1.0,
    },
    {"family": "linear", "penalty": 1.0},
)
"""The search starts with these, so that its result is never worse than they are."""

LOG_TARGET = False  # learn the logarithm of a number with a long tail


def search_space(trial: optuna.Trial) -> dict[str, Any]:
    """Suggest one set of hyperparameters, with the keys of one of FIRST_GUESS."""
    family = trial.suggest_categorical("family", ["boosting", "linear"])
    if family == "linear":
        return {"family": family, "penalty": trial.suggest_float("penalty", 0.01, 100.0, log=True)}
    return {
        "family": family,
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "max_iter": trial.suggest_int("max_iter", 50, 300, step=25),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 63, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 5, 200, log=True),
        "l2_regularization": trial.suggest_float("l2_regularization", 0.01, 100.0, log=True),
    }


def build_model(problem: str, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """Make an unfitted estimator for a frame of features.

    Args:
        problem: `classification` (it then has predict_proba) or `regression`.
        params: Hyperparameters with the keys of one of FIRST_GUESS.
        seed: Makes the fit repeatable.
    """
    classes = problem == "classification"
    given = {name: value for name, value in params.items() if name not in ("family", "penalty")}
    categories, numbers = make_column_selector(dtype_exclude="number"), make_column_selector(dtype_include="number")
    if params["family"] == "linear":
        # A category that is rare, or was never seen, is taken as one of the rare ones.
        words = OneHotEncoder(min_frequency=10, max_categories=100, handle_unknown="infrequent_if_exist")
        scaled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        inputs = make_column_transformer((words, categories), (scaled, numbers))
        penalty = params["penalty"]
        last = LogisticRegression(C=1 / penalty, max_iter=1000) if classes else Ridge(alpha=penalty)
    else:
        # A category becomes the mean of the target over its rows, drawn to the mean of all where it is rare.
        kind = StratifiedKFold if classes else KFold
        means = TargetEncoder(cv=kind(5, shuffle=True, random_state=seed))
        inputs = make_column_transformer((means, categories), remainder="passthrough")
        boosting = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        last = boosting(**given, early_stopping=False, random_state=seed)
    model = make_pipeline(inputs, last)
    if LOG_TARGET and not classes:
        return TransformedTargetRegressor(model, func=np.log1p, inverse_func=np.expm1)
    return model
