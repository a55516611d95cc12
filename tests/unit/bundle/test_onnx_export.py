"""A conversion answers as the estimator does, or it is not used."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from copier_mlops.bundle import onnx_export
from copier_mlops.bundle.onnx_export import ConversionError

ROWS = 600
RANDOM = np.random.default_rng(3)
FEATURES = pd.DataFrame(
    {
        "x": RANDOM.normal(size=ROWS).astype("float32"),
        "kind": RANDOM.choice(["a", "b", "ü c"], ROWS),
        "with gaps": np.where(RANDOM.random(ROWS) < 0.3, np.nan, RANDOM.normal(size=ROWS)).astype("float32"),
    }
)
PULL = FEATURES["x"] + 2.0 * (FEATURES["kind"] == "b") + FEATURES["with gaps"].isna() + RANDOM.normal(0, 0.1, ROWS)


def fitted(last: object, y: np.ndarray) -> object:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    inputs = make_column_transformer((codes, make_column_selector(dtype_exclude="number")), remainder="passthrough")
    return make_pipeline(inputs, last).fit(FEATURES, y)


def test_a_classifier_answers_alike_on_rows_that_nobody_expects() -> None:
    model = fitted(HistGradientBoostingClassifier(max_iter=20), np.asarray(PULL > 1).astype(float))
    converted = onnx_export.to_onnx(model, FEATURES)
    whole = pd.concat([FEATURES, onnx_export.edges(FEATURES)], ignore_index=True)
    assert whole["kind"].isna().any()
    assert (whole["kind"] == onnx_export.UNKNOWN).any()
    assert converted.predict_proba(whole) == pytest.approx(model.predict_proba(whole), abs=1e-6)
    assert converted.classes_.tolist() == [0.0, 1.0]
    again = onnx_export.from_bytes(converted.content, classifies=True)
    assert (again.predict_proba(whole) == converted.predict_proba(whole)).all()


def test_a_model_is_converted_to_the_same_bytes_in_each_process(tmp_path: Path) -> None:
    """Sets of texts have another order in each process, and a bundle's digest names a release."""
    model = fitted(HistGradientBoostingClassifier(max_iter=3), np.asarray(PULL > 1).astype(float))
    (tmp_path / "given").write_bytes(pickle.dumps((model, FEATURES)))
    code = (
        "import hashlib, pickle, sys; from pathlib import Path; from sample_project.core import convert\n"
        "print(hashlib.sha256(convert.to_onnx(*pickle.loads(Path(sys.argv[1]).read_bytes())).content).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "given")],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(4)
    }
    assert len(digests) == 1


def test_many_classes_keep_their_order() -> None:
    y = np.digitize(PULL, [0.0, 1.5]).astype(float)
    model = fitted(HistGradientBoostingClassifier(max_iter=5), y)
    converted = onnx_export.to_onnx(model, FEATURES)
    assert converted.predict_proba(FEATURES) == pytest.approx(model.predict_proba(FEATURES), abs=1e-6)


def test_a_regressor_answers_alike() -> None:
    model = fitted(HistGradientBoostingRegressor(max_iter=20), np.asarray(PULL))
    converted = onnx_export.to_onnx(model, FEATURES)
    assert converted.predict(FEATURES) == pytest.approx(model.predict(FEATURES), abs=1e-5)
    assert converted.predict(FEATURES.iloc[[4]]) == converted.predict(FEATURES)[[4]]
    assert not hasattr(converted, "predict_proba")


WORDS, NUMBERS = make_column_selector(dtype_exclude="number"), make_column_selector(dtype_include="number")
SELDOM = FEATURES.assign(
    kind=FEATURES["kind"].mask(RANDOM.random(ROWS) < 0.1).mask(np.arange(ROWS) < 3, "seldom"),
    other=RANDOM.choice(["p", "q"], ROWS),
)
ENCODERS = {
    "rare ones in a column": OneHotEncoder(min_frequency=10, handle_unknown="infrequent_if_exist"),
    "rare ones, and none for others": OneHotEncoder(max_categories=3, handle_unknown="ignore"),
    "one for each": OneHotEncoder(handle_unknown="infrequent_if_exist"),
    "means": TargetEncoder(cv=KFold(5, shuffle=True, random_state=0)),
    "the word that is most frequent": make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    ),
}
PROBLEMS = {
    "two classes": (LogisticRegression(), np.asarray(PULL > 1).astype(float)),
    "many classes": (LogisticRegression(), np.digitize(PULL, [0.0, 1.5]).astype(float)),
    "a number": (Ridge(), np.asarray(PULL)),
    "its logarithm": (TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), np.exp(PULL)),
    "that without one more": (TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp), np.exp(PULL)),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ENCODERS)
def test_gaps_and_rare_words_have_counterparts(name: str, problem: str) -> None:
    """Words that are missing, rare or were never seen; numbers that are missing, with a column that says so."""
    last, y = PROBLEMS[problem]
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    inputs = make_column_transformer((ENCODERS[name], WORDS), (numbers, NUMBERS))
    if isinstance(last, TransformedTargetRegressor):
        model = TransformedTargetRegressor(
            make_pipeline(inputs, last.regressor), func=last.func, inverse_func=last.inverse_func
        )
    else:
        model = make_pipeline(inputs, last)
    model.fit(SELDOM, y)
    converted = onnx_export.to_onnx(model, SELDOM)
    whole = pd.concat([SELDOM, onnx_export.edges(SELDOM)], ignore_index=True)
    answers = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    ours = getattr(converted, answers)(whole)
    apart = onnx_export.largest_difference(lambda: getattr(model, answers)(whole), lambda: ours, ROWS)
    assert apart <= onnx_export.TOLERANCE
    again = onnx_export.from_bytes(converted.content, classifies=answers == "predict_proba")
    assert (getattr(again, answers)(whole) == ours).all()


def test_a_logarithm_of_another_kind_is_said() -> None:
    model = TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=np.square)
    numbers = FEATURES[["x"]]
    model.fit(numbers, np.exp(PULL))
    with pytest.raises(ConversionError, match="the target is undone by square"):
        onnx_export.to_onnx(model, numbers)


def test_what_has_no_counterpart_is_said() -> None:
    class Own:
        def predict(self, rows: pd.DataFrame) -> np.ndarray:
            return np.zeros(len(rows))

    with pytest.raises(ConversionError, match="no counterpart"):
        onnx_export.to_onnx(Own(), FEATURES)
    with pytest.raises(ConversionError, match="moment is datetime"):
        onnx_export.to_onnx(Own(), FEATURES.assign(moment=pd.Timestamp("2024-01-01", tz="UTC")))


def test_a_difference_is_seen_wherever_it_is() -> None:
    right = np.array([0.1, 0.2, 0.4, 8.0])

    def apart(other: list[float], of: np.ndarray = right) -> float:
        return onnx_export.largest_difference(lambda: of, lambda: np.array(other), real=3)

    assert apart([0.1, 0.2, 0.4, 8.0]) == 0
    assert apart([0.1, 0.2, 0.5, 8.0]) == pytest.approx(0.25)  # of what is real, however large the others are
    assert apart([0.1, 0.2, 0.4, 8.8]) == pytest.approx(0.1)
    assert apart([0.1, np.nan, 0.4, 8.0]) == np.inf
    far = np.array([0.1, 0.2, 0.4, 1e300])
    assert apart([0.1, 0.2, 0.4, np.inf], far) == 0  # what is absurd in both
    assert apart([0.1, 0.2, 0.4, -np.inf], far) > 1
    assert apart([0.0, 0.0, 0.1, 0.0], np.zeros(4)) == pytest.approx(0.1)


def test_edges_are_of_every_kind_and_keep_types() -> None:
    found = onnx_export.edges(FEATURES)
    assert found.dtypes.tolist() == FEATURES.dtypes.tolist()
    assert len(found) == 4 * len(FEATURES)
    assert found["x"].isna().any()
    assert found["x"].max() > 1e5 > -1e5 > found["x"].min()
    beside = found.iloc[3 * ROWS :]["x"].to_numpy()
    moved = np.abs(beside - FEATURES["x"].to_numpy())
    assert 0 < moved.max() < 1e-6
