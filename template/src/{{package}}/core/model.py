"""The model and what may be tried of it. Yours: any estimator with scikit-learn's fit and predict will do.

Import nothing of this project here: the bundle keeps the estimator together with the code of this file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

FIRST_GUESS = {
    "learning_rate": 0.05,
    "max_iter": 150,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 500,
    "max_features": 0.3,
    "l2_regularization": 1.0,
}
"""The search starts here, so that its result is never worse than this."""


def search_space(trial: optuna.Trial) -> dict[str, Any]:
    """Suggest one set of hyperparameters, with the keys of FIRST_GUESS."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.15, log=True),
        "max_iter": trial.suggest_int("max_iter", 50, 200, step=25),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 7, 47),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 50, 3000, log=True),
        "max_features": trial.suggest_float("max_features", 0.15, 0.6),
        "l2_regularization": trial.suggest_float("l2_regularization", 0.01, 100.0, log=True),
    }


def build_model(problem: str, params: Mapping[str, Any], seed: int) -> BaseEstimator:
    """Make an unfitted estimator for a frame of features.

    Args:
        problem: `classification` (it then has predict_proba) or `regression`.
        params: Hyperparameters with the keys of FIRST_GUESS.
        seed: Makes the fit repeatable.
    """
    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2, dtype=np.float64
    )
    inputs = make_column_transformer(
        (codes, make_column_selector(dtype_exclude="number")), remainder="passthrough", verbose_feature_names_out=False
    )
    if problem == "classification":
        return make_pipeline(inputs, HistGradientBoostingClassifier(**params, early_stopping=False, random_state=seed))
    return make_pipeline(inputs, HistGradientBoostingRegressor(**params, early_stopping=False, random_state=seed))
