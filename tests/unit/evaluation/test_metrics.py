"""scikit-learn computes the same metrics more slowly; these have to agree with it, weights and ties included."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as theirs

from copier_mlops.evaluation import curves, metrics

RANDOM = np.random.default_rng(0)
ROWS = 500
LATENT = RANDOM.random(ROWS)
SCORE = LATENT.round(1).clip(0.05, 0.95)  # ten values only: ties
CLASS = (RANDOM.random(ROWS) < LATENT).astype("float64")
VALUE = 10 * LATENT + RANDOM.normal(size=ROWS)
WEIGHTS = {"one": np.ones(ROWS), "resample": next(metrics.resamples(ROWS, 1, seed=3))}

REFERENCE = {
    "auc": theirs.roc_auc_score,
    "average_precision": theirs.average_precision_score,
    "brier": theirs.brier_score_loss,
    "log_loss": theirs.log_loss,
    "mae": theirs.mean_absolute_error,
    "rmse": theirs.root_mean_squared_error,
    "r2": theirs.r2_score,
}


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("name", REFERENCE)
def test_agrees_with_scikit_learn(name: str, weight: np.ndarray) -> None:
    problem = "classification" if name in metrics.METRICS["classification"] else "regression"
    y, score = (CLASS, SCORE) if problem == "classification" else (VALUE, 10 * SCORE)
    ours = metrics.METRICS[problem][name](y, score, weight)
    assert ours == pytest.approx(REFERENCE[name](y, score, sample_weight=weight))


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_agrees_with_scikit_learn_on_many_classes(weight: np.ndarray) -> None:
    score = np.random.default_rng(1).dirichlet([2, 1, 1], ROWS)
    y = np.array([np.random.default_rng(n).choice(3, p=line) for n, line in enumerate(score)], dtype="float64")
    ours = {name: metric(y, score, weight) for name, metric in metrics.METRICS["classification"].items()}
    single = np.eye(3)[y.astype(int)]
    options = {"sample_weight": weight}
    assert ours["auc"] == pytest.approx(theirs.roc_auc_score(y, score, multi_class="ovr", average="macro", **options))
    assert ours["average_precision"] == pytest.approx(theirs.average_precision_score(single, score, **options))
    assert ours["log_loss"] == pytest.approx(theirs.log_loss(y, score, **options))
    assert ours["brier"] == pytest.approx(np.average(((score - single) ** 2).sum(axis=1), weights=weight))
    found = metrics.with_intervals("classification", y, score, times=20, seed=0)
    assert all(one.low <= one.value <= one.high for name, one in found.items() if name != "calibration_error")
    right = metrics.flat(y, np.eye(3)[y.astype(int)])
    assert right[0].all() and right[1].all()


def test_the_baseline_knows_the_shares_only() -> None:
    y = np.array([0.0, 0, 1, 2])
    assert metrics.baseline(y, 3) == [0.5, 0.25, 0.25]
    assert metrics.baseline(y, 0) == 0.75


@pytest.mark.parametrize("problem", metrics.METRICS)
def test_a_weight_of_two_is_a_row_that_is_there_twice(problem: str) -> None:
    y, weight = (CLASS if problem == "classification" else VALUE), WEIGHTS["resample"]
    rows = np.repeat(np.arange(ROWS), weight.astype(int))
    for metric in metrics.METRICS[problem].values():
        assert metric(y, SCORE, weight) == pytest.approx(metric(y[rows], SCORE[rows], np.ones(ROWS)))


def test_what_is_not_defined_is_not_a_number() -> None:
    ones = np.ones(3)
    assert np.isnan(metrics.auc(ones, ones, ones))
    assert np.isnan(metrics.average_precision(0 * ones, ones, ones))
    assert np.isnan(metrics.r2(ones, ones, ones))
    found = metrics.with_intervals("classification", ones, ones / 2, times=20, seed=0, names=["auc"])["auc"]
    assert found.as_json() == {"value": None, "low": None, "high": None}


def test_bias_has_a_sign() -> None:
    assert metrics.bias(VALUE, VALUE + 2, np.ones(ROWS)) == pytest.approx(2)


def test_calibration_error_is_small_for_honest_probabilities_and_the_gap_for_others() -> None:
    honest = RANDOM.random(20_000)
    y = (RANDOM.random(20_000) < honest).astype("float64")
    ones = np.ones(len(y))
    assert metrics.calibration_error(y, honest, ones) < 0.02
    assert metrics.calibration_error(y, np.full(len(y), 0.8), ones) == pytest.approx(0.8 - y.mean())
    table = metrics.calibration(y, np.where(honest > 0.5, 1.0, 0.0))  # both ends belong to a bin
    assert table["predicted"].tolist() == [0.0, 1.0]
    assert table["rows"].sum() == len(y)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random, hits = np.random.default_rng(5), 0
    for trial in range(150):
        y = random.normal(size=80)  # the true bias of the answer 0 is 0
        found = metrics.with_intervals("regression", y, np.zeros(80), times=120, seed=trial, names=["bias"])["bias"]
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 150 <= 0.99


def test_intervals_are_repeatable_and_surround_the_value() -> None:
    first, again = (metrics.with_intervals("classification", CLASS, SCORE, times=50, seed=1) for _ in range(2))
    assert first == again
    assert list(first) == list(metrics.METRICS["classification"])
    assert all(found.low <= found.high for found in first.values())
    assert first["auc"].low < first["auc"].value < first["auc"].high


@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_gain_over_itself_is_zero_and_over_a_worse_one_positive(metric: str) -> None:
    worse = np.full(ROWS, 0.9)
    same = metrics.paired_gain("classification", metric, y=CLASS, candidate=SCORE, other=SCORE, times=50, seed=1)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    over = metrics.paired_gain("classification", metric, y=CLASS, candidate=SCORE, other=worse, times=50, seed=1)
    assert 0 < over.low < over.value < over.high
    under = metrics.paired_gain("classification", metric, y=CLASS, candidate=worse, other=SCORE, times=50, seed=1)
    assert under.value == -over.value


def test_slices_are_the_metric_of_their_rows() -> None:
    half = pd.Series(np.where(np.arange(ROWS) % 2, "odd", "even"))
    table = metrics.slices("regression", VALUE, 10 * SCORE, groups={"half": half}, metric="mae", times=20, seed=0)
    assert table["group"].tolist() == ["even", "odd"]
    assert table["rows"].tolist() == [ROWS // 2, ROWS // 2]
    expected = theirs.mean_absolute_error(VALUE[1::2], 10 * SCORE[1::2])
    assert table["value"].iloc[1] == pytest.approx(expected)
    assert table["observed"].iloc[0] == pytest.approx(VALUE[::2].mean())


def test_importance_finds_the_input_that_matters() -> None:
    features = pd.DataFrame({"noise": RANDOM.random(ROWS), "signal": SCORE})
    found = metrics.importance(
        "auc", "classification", predict=lambda rows: rows["signal"].to_numpy(), features=features, y=CLASS, seed=0
    )
    assert found["input"].tolist() == ["signal", "noise"]
    assert found["loss"].iloc[0] > 0.1
    assert found["loss"].iloc[1] == 0


def test_importance_is_the_same_however_many_rows_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each input is shuffled three times, alone: what one is asked says nothing of another."""
    letters = pd.Series(RANDOM.choice(["a", "b", None], ROWS), dtype="category")
    features = pd.DataFrame({"signal": SCORE.astype("float32"), "letter": letters, "flag": pd.array(CLASS == 1)})
    asked: list[pd.DataFrame] = []

    def predict(rows: pd.DataFrame) -> np.ndarray:
        asked.append(rows)
        return (rows["signal"] + (rows["letter"] == "a") * 0.1 + rows["flag"] * 0.01).to_numpy("float64")

    together = metrics.importance("auc", "classification", predict=predict, features=features, y=CLASS, seed=0)
    calls = len(asked)
    monkeypatch.setattr(metrics, "CELLS_AT_ONCE", 1)
    alone = metrics.importance("auc", "classification", predict=predict, features=features, y=CLASS, seed=0)
    pd.testing.assert_frame_equal(together, alone)
    assert (calls, len(asked) - calls) == (2, 10)
    assert all((rows.dtypes == features.dtypes).all() for rows in asked)
    for rows in asked[calls + 1 :]:
        assert sum(not rows[name].equals(features[name]) for name in features) == 1


def test_effects_are_what_the_answer_does_between_low_and_high() -> None:
    rows = pd.DataFrame(
        {
            "rain": pd.array([*range(99), None], dtype="Float64"),
            "cold": [True, False] * 50,
            "still": [7] * 100,
            "unknown": pd.array([None] * 100, dtype="Float64"),
        }
    )

    def answer(some: pd.DataFrame) -> np.ndarray:
        return (0.5 * some["rain"].fillna(0).astype("float64") - 3.0 * some["cold"]).to_numpy()

    declared = {"rain": "raises", "cold": "raises", "still": "lowers", "unknown": "raises"}
    found = metrics.effects(answer, rows, declared).set_index("input")
    assert found["declared"].to_dict() == declared
    assert found.loc["rain", ["low", "high", "change"]].tolist() == [1, 97, 48]
    assert found.loc["cold", ["low", "high", "change"]].tolist() == [0, 1, -3]
    assert found.loc[["still", "unknown"], "change"].isna().all()


def test_curves_agree_with_scikit_learn() -> None:
    found = {name: pd.DataFrame(points) for name, points in curves.curves("classification", CLASS, SCORE).items()}
    fpr, tpr, threshold = theirs.roc_curve(CLASS, SCORE, drop_intermediate=False)
    assert found["roc"]["fpr"].to_numpy() == pytest.approx(fpr)
    assert found["roc"]["tpr"].to_numpy() == pytest.approx(tpr)
    assert found["roc"]["threshold"].to_numpy()[1:] == pytest.approx(threshold[1:])
    precision, recall, threshold = theirs.precision_recall_curve(CLASS, SCORE)
    there = found["precision_recall"].iloc[::-1]  # scikit-learn begins with the lowest threshold, and adds a last point
    assert there["precision"].to_numpy() == pytest.approx(precision[:-1])
    assert there["recall"].to_numpy() == pytest.approx(recall[:-1])
    assert there["threshold"].to_numpy() == pytest.approx(threshold)
    assert found["calibration"]["rows"].sum() == ROWS


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    y, score = (RANDOM.random(5000) < 0.3).astype("float64"), RANDOM.random(5000)
    roc = pd.DataFrame(curves.curves("classification", y, score)["roc"])
    assert len(roc) <= curves.CURVE_POINTS + 1
    assert roc[["fpr", "tpr"]].iloc[0].tolist() == [0, 0] and roc[["fpr", "tpr"]].iloc[-1].tolist() == [1, 1]
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(theirs.roc_auc_score(y, score), abs=0.005)


def test_curves_of_many_classes_are_pooled() -> None:
    score = np.random.default_rng(1).dirichlet([2, 1, 1], ROWS)
    y = score.argmax(axis=1).astype("float64")
    roc = pd.DataFrame(curves.curves("classification", y, score, points=10_000)["roc"])
    pooled = theirs.roc_auc_score(np.eye(3)[y.astype(int)].ravel(), score.ravel())
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(pooled)


def test_a_curve_that_is_not_defined_is_empty() -> None:
    negatives = curves.curves("classification", np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert (negatives["roc"], negatives["precision_recall"]) == ([], [])
    positives = curves.curves("classification", np.ones(3), np.array([0.1, 0.2, 0.3]))
    assert positives["roc"] == [] and [line["recall"] for line in positives["precision_recall"]] == pytest.approx(
        [1 / 3, 2 / 3, 1]
    )


def test_points_of_a_regression_are_pairs() -> None:
    points = pd.DataFrame(curves.curves("regression", VALUE, LATENT, points=50)["predicted_actual"])
    assert len(points) == 50
    pairs = set(zip(LATENT, VALUE, strict=True))
    assert set(zip(points["predicted"], points["actual"], strict=True)) <= pairs


def test_confusion_agrees_with_scikit_learn() -> None:
    found = curves.confusion(CLASS, SCORE, 0.4)
    expected = theirs.confusion_matrix(CLASS, SCORE >= 0.4).ravel().tolist()
    assert [found[name] for name in ("true_negative", "false_positive", "false_negative", "true_positive")] == expected


def test_mean_errors_are_found_where_they_are() -> None:
    group = pd.Series(np.arange(ROWS) % 2)
    score = np.where(group == 1, LATENT, LATENT + 0.5)
    found = curves.mean_errors(CLASS, score, {"group": group}).set_index("group")
    assert found["rows"].tolist() == [ROWS, ROWS // 2, ROWS // 2]
    assert found.loc["0", "low"] > 0.3 and found.loc["0", "high"] < 0.7
    assert found.loc["1", "low"] < 0 < found.loc["1", "high"]
    assert found.loc["all", "difference"] == pytest.approx((score - CLASS).mean())
    assert np.isnan(curves.mean_errors(CLASS[:1], score[:1], {})["low"].iloc[0])


def test_an_interval_without_a_value_is_null_in_json_and_nan_again() -> None:
    none = metrics.Interval(float("nan"), float("nan"), float("nan")).as_json()
    assert set(none.values()) == {None} and np.isnan(metrics.value_of(none))
    assert metrics.value_of(metrics.Interval(0.5, 0.25, 0.75).as_json()) == 0.5
