"""Each month predicted from the months before it: the project's features and first guess against plain boosted trees.

    python auc_months.py PACKAGE

Runs in a project's folder, after `make pipeline`, with its interpreter. No choice was made on the months: the model has
FIRST_GUESS. The plain trees get every column of the contract but id and target as it is: numbers, text as ordinal
codes, the time as a number - or, for the second, no time: a tree cannot go beyond the last day that it has seen, so the
time may harm it, and nobody should think that the first was a straw man. The last line of the output is JSON.
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import OrdinalEncoder

PACKAGE = sys.argv[1]
features, metrics, model, schema = (
    import_module(f"{PACKAGE}.core.{name}") for name in ("features", "metrics", "model", "schema")
)
tables, params = import_module(f"{PACKAGE}.io.tables"), import_module(f"{PACKAGE}.params")
CONTRACT = schema.CONTRACT
MONTHS = [f"2013-{month:02d}" for month in range(7, 13)]
RESAMPLES = 1000


def validated() -> pd.DataFrame:
    """All rows that keep the contract, in order of time."""
    rows = tables.read_between(Path("data/validated"), CONTRACT.time)
    rows = rows.astype(dict.fromkeys(rows.select_dtypes("category"), "str"))
    return rows.sort_values([CONTRACT.time, CONTRACT.id], kind="stable", ignore_index=True)


def raw(rows: pd.DataFrame, with_time: bool) -> pd.DataFrame:
    """The columns of the contract but id and target, as they are; text stays text."""
    inputs = rows.drop(columns=[CONTRACT.id, CONTRACT.target, CONTRACT.time])
    if with_time:
        inputs[CONTRACT.time] = rows[CONTRACT.time].astype("int64") / 1e6
    return inputs


def plain(train: pd.DataFrame, y: np.ndarray, test: pd.DataFrame) -> np.ndarray:
    """Answers of a boosted tree with scikit-learn's defaults."""
    texts = list(train.select_dtypes(exclude="number"))
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    train, test = train.copy(), test.copy()
    train[texts], test[texts] = codes.fit_transform(train[texts]), codes.transform(test[texts])
    tree = HistGradientBoostingClassifier(random_state=0)
    return tree.fit(train.astype("float64"), y).predict_proba(test.astype("float64"))[:, 1]


def month_by_month(rows: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """For each month the truth and the answers of each model."""
    seed = params.load_params().seed
    month = rows[CONTRACT.time].dt.tz_convert("America/New_York").dt.strftime("%Y-%m")
    y = rows[CONTRACT.target].to_numpy("float64")
    inputs = {
        "project": features.build_features(rows.drop(columns=CONTRACT.target)),
        "plain": raw(rows, with_time=True),
        "plain_without_time": raw(rows, with_time=False),
    }
    for name in MONTHS:
        past, now = (month < name).to_numpy(), (month == name).to_numpy()
        fitted = model.build_model("classification", model.FIRST_GUESS, seed)
        answers = {"project": fitted.fit(inputs["project"][past], y[past]).predict_proba(inputs["project"][now])[:, 1]}
        for other in ("plain", "plain_without_time"):
            answers[other] = plain(inputs[other][past], y[past], inputs[other][now])
        yield name, y[now], answers


def main() -> None:
    by_month, gains, resampled = {}, {}, {}
    for number, (month, y, answers) in enumerate(month_by_month(validated())):
        everyone = np.ones(len(y))
        ranks = {name: np.unique(score, return_inverse=True)[1] for name, score in answers.items()}
        by_month[month] = {name: metrics.auc(y, rank, everyone) for name, rank in ranks.items()}
        gains[month] = by_month[month]["project"] - by_month[month]["plain"]
        print(month, {name: round(value, 4) for name, value in by_month[month].items()}, flush=True)
        for counts in metrics.resamples(len(y), RESAMPLES, number):
            for name, rank in ranks.items():
                value = auc_of_ranks(y, rank, counts)
                resampled.setdefault((month, name), []).append(value)
    mean = pd.DataFrame(by_month).mean(axis=1)
    gain_over = {}
    for other in ("plain", "plain_without_time"):
        differences = np.mean(
            [np.subtract(resampled[month, "project"], resampled[month, other]) for month in by_month], axis=0
        )
        low, high = np.quantile(differences, [0.025, 0.975])
        gain_over[other] = {"value": mean["project"] - mean[other], "low": low, "high": high}
    print(json.dumps({"mean": mean.to_dict(), "months": gains, "by_month": by_month, "gain_over": gain_over}))


def auc_of_ranks(y: np.ndarray, rank: np.ndarray, weight: np.ndarray) -> float:
    """As `metrics.auc`, for scores that are ranks already: sorting once instead of once a resample."""
    positive, negative = np.bincount(rank, weight * y), np.bincount(rank, weight * (1 - y))
    return float(np.dot(positive, np.cumsum(negative) - negative / 2) / (positive.sum() * negative.sum()))


if __name__ == "__main__":
    main()
