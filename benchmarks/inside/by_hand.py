"""The pipeline that a person would write for the same rows and the same split, and how it does beside the project's.

    python by_hand.py PACKAGE

Encoded categories, filled gaps, scaled numbers; boosted trees, with codes or with scikit-learn's own treatment of categories, or a
linear model, whichever is better in cross-validation.
Its last line says, as JSON: metric, ours, theirs, and our gain with its 95 % interval (paired bootstrap).
"""

import json
import sys
from importlib import import_module

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

PACKAGE = sys.argv[1]
metrics, schema, bundle, params, split, tables = (
    import_module(f"{PACKAGE}.{name}")
    for name in ("core.metrics", "core.schema", "io.bundle", "params", "stages.split", "io.tables")
)
settings = import_module(f"{PACKAGE}.settings")
CONTRACT = schema.CONTRACT


def inputs(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns as they are; of a moment the month, weekday and hour."""
    found = rows[CONTRACT.features("number", "integer", "boolean")].astype("float64")
    for name in [*CONTRACT.features("timestamp"), *([CONTRACT.time] if CONTRACT.time else [])]:
        for part in ("month", "day_of_week", "hour"):
            found[f"{name} {part}"] = getattr(rows[name].dt, part)
    return found.assign(**{name: rows[name].astype("object") for name in CONTRACT.features("string")})


def main() -> None:
    run = params.load_run()
    test = split.test(run)
    everything = pd.concat([tables.read(file) for _, files in tables.parts(settings.Paths.VALIDATED) for file in files])
    past = everything[~everything[CONTRACT.id].isin(test[CONTRACT.id])]
    if CONTRACT.time and run.resolved.test_start:
        past = past[past[CONTRACT.time] < run.resolved.test_start]
    y, truth = CONTRACT.labels(past[CONTRACT.target]), CONTRACT.labels(test[CONTRACT.target])
    words, numbers = make_column_selector(dtype_include="object"), make_column_selector(dtype_exclude="object")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    classes = run.problem == "classification"
    trees = HistGradientBoostingClassifier(random_state=0) if classes else HistGradientBoostingRegressor(random_state=0)
    last = LogisticRegression(max_iter=1000) if classes else Ridge()
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    native = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan, max_categories=255
    )
    own = clone(trees).set_params(categorical_features=list(range(len(CONTRACT.features("string")))))
    candidates = [
        make_pipeline(make_column_transformer((native, words), remainder="passthrough"), own),
        make_pipeline(make_column_transformer((codes, words), remainder="passthrough"), trees),
        make_pipeline(
            make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), (scaled, numbers)), last
        ),
    ]
    wanted = {"auc": "roc_auc_ovr", "rmse": "neg_root_mean_squared_error", "mae": "neg_mean_absolute_error"}[
        run.gate.metric
    ]
    frame = inputs(past)
    best = max(candidates, key=lambda one: cross_val_score(one, frame, y, scoring=wanted, cv=3).mean())
    best.fit(frame, y)
    theirs = bundle.score(best, inputs(test), len(CONTRACT.classes))
    ours = bundle.load(settings.Paths.BUNDLE).score(test.drop(columns=CONTRACT.target))
    gain = metrics.paired_gain(run.problem, run.gate.metric, truth, ours, theirs, 1000, seed=0)
    measure, ones = metrics.METRICS[run.problem][run.gate.metric], np.ones(len(truth))
    print(
        json.dumps(
            {"metric": run.gate.metric, "ours": measure(truth, ours, ones), "theirs": measure(truth, theirs, ones),
             "by": f"{type(best[-1]).__name__}{', native categories' if best is candidates[0] else ''}", "gain": gain.value, "low": gain.low, "high": gain.high}
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
