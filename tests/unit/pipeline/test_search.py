"""No trial sees the future, a killed search ends as an unbroken one, and an input that is the answer is found."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from copier_mlops.contract import units
from copier_mlops.pipeline import search

RANDOM = np.random.default_rng(0)
ROWS = 300
FEATURES = pd.DataFrame({"signal": RANDOM.random(ROWS), "noise": RANDOM.random(ROWS)})
Y = (RANDOM.random(ROWS) < FEATURES["signal"]).astype("float64").to_numpy()


def space(trial: optuna.Trial) -> dict[str, Any]:
    return {"share": trial.suggest_float("share", 0, 1)}


def fit(params: Mapping[str, Any], past: pd.DataFrame, truth: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
    """The better, the smaller the share of noise."""
    return lambda rows: (params["share"] * rows["noise"] + (1 - params["share"]) * rows["signal"]).to_numpy()


def run(study: optuna.Study, trials: int, fit: search.Fit = fit, y: np.ndarray = Y) -> pd.DataFrame:
    def quiet(line: str) -> None:
        pass

    guess = {"share": 0.5}
    return search.search(
        study,
        fit=fit,
        space=space,
        first_guess=guess,
        features=FEATURES,
        y=y,
        problem="classification",
        metric="auc",
        pairs=thirds(y),
        trials=trials,
        seed=1,
        say=quiet,
    )


def thirds(y: np.ndarray) -> list[search.Fold]:
    return list(search.folds(len(y), 3))


def new_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction=search.direction("auc"), pruner=search.pruner(3))


@pytest.mark.parametrize(("rows", "count"), [(300, 3), (10, 4), (101, 1)])
def test_folds_are_trained_on_their_past_and_judged_on_what_follows(rows: int, count: int) -> None:
    found = list(search.folds(rows, count))
    assert len(found) == count
    for past, future in found:
        assert past.start == 0
        assert past.stop == future.start < future.stop
    assert [future.start for _, future in found[1:]] == [future.stop for _, future in found[:-1]]
    assert found[-1][1].stop == rows


def test_too_few_rows_for_the_folds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"9 rows are too few for 4 folds; lower split.folds"):
        list(search.folds(9, 4))


def test_drawn_folds_judge_each_row_once_and_keep_the_shares() -> None:
    y = np.repeat([0.0, 1.0, 2.0], [200, 90, 10])
    found = list(search.drawn_folds("classification", y, 5, seed=1))
    assert sorted(np.concatenate([judged for _, judged in found])) == list(range(300))
    for past, judged in found:
        assert not set(past) & set(judged)
        assert np.bincount(y[judged].astype(int)).tolist() == [40, 18, 2]
    assert len(list(search.drawn_folds("regression", np.arange(300.0), 4, seed=1))) == 4
    with pytest.raises(ValueError, match=r"a class has 10 rows, too few for 11 folds; lower split.folds"):
        list(search.drawn_folds("classification", y, 11, seed=1))


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_rows_drawn_for_the_test_stay_there_and_keep_the_shares(problem: str) -> None:
    rows = 5000
    ids = pd.Series(np.arange(rows), dtype="float64")
    y = (RANDOM.random(rows) < 0.02).astype("float64") if problem == "classification" else RANDOM.lognormal(size=rows)
    chosen = search.drawn_for_test(problem, ids, y, 0.2)
    assert chosen.mean() == pytest.approx(0.2, abs=0.002)
    if problem == "classification":
        assert chosen[y == 1].sum() == round(0.2 * y.sum())
    else:
        assert chosen[y > np.quantile(y, 0.9)].mean() == pytest.approx(0.2, abs=0.01)
    mixed = RANDOM.permutation(rows)
    assert np.array_equal(search.drawn_for_test(problem, ids.iloc[mixed], y[mixed], 0.2), chosen[mixed])
    fewer = search.drawn_for_test(problem, ids[: rows - 500], y[: rows - 500], 0.2)
    assert (fewer != chosen[: rows - 500]).mean() < 0.03


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_copies_of_a_row_stay_on_one_side(problem: str) -> None:
    rows, different = 3000, 400
    of = RANDOM.integers(0, different, rows)
    truth = RANDOM.integers(0, 2, different) if problem == "classification" else RANDOM.normal(size=different)
    y, copies = truth[of].astype("float64"), units.copies_of(pd.DataFrame({"of": of, "text": of.astype("str")}))
    chosen = search.drawn_for_test(problem, pd.Series(np.arange(rows)), y, 0.2, copies)
    assert not set(of[chosen]) & set(of[~chosen])
    assert chosen.mean() == pytest.approx(0.2, abs=0.02)
    for past, judged in search.drawn_folds(problem, y, 4, 0, copies):
        assert not set(of[past]) & set(of[judged]) and len(judged) == pytest.approx(rows / 4, rel=0.2)


def test_without_copies_the_lot_is_the_same() -> None:
    y, ids = (RANDOM.random(1000) < 0.2).astype("float64"), pd.Series(np.arange(1000))
    alone = units.copies_of(pd.DataFrame({"x": RANDOM.normal(size=1000)}))
    assert np.array_equal(
        search.drawn_for_test("classification", ids, y, 0.2),
        search.drawn_for_test("classification", ids, y, 0.2, alone),
    )
    for (_, one), (_, other) in zip(
        search.drawn_folds("classification", y, 3, 1), search.drawn_folds("classification", y, 3, 1, alone), strict=True
    ):
        assert np.array_equal(one, other)


def test_folds_of_one_class_are_left_out() -> None:
    y = np.array([0.0] * 60 + [0.0, 1.0] * 30)
    kept = search.with_classes(search.folds(120, 3), y)
    assert [(past.stop, judged.stop) for past, judged in kept] == [(90, 120)]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="in no fold are there two classes"):
        search.with_classes(search.folds(120, 3), np.zeros(120))


def test_a_leak_is_found_among_many_classes() -> None:
    y = np.arange(ROWS) % 4 * 1.0
    inputs = FEATURES.assign(told=pd.Series(y).map({0.0: "a", 1.0: "b", 2.0: "c", 3.0: "d"}), code=(y - 1.5) ** 2)
    skill = search.single_input_skill("classification", inputs, y, seed=0)
    assert skill["told"] == 1
    assert 0.2 < skill["code"] < 0.9  # it tells the inner from the outer classes
    assert skill["noise"] < 0.4


def test_the_fit_is_given_the_past_only() -> None:
    seen: list[tuple[int, int]] = []

    def spy(params: Mapping[str, Any], past: pd.DataFrame, truth: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
        def answer(rows: pd.DataFrame) -> np.ndarray:
            seen.append((past.index.max(), rows.index.min()))
            return rows["signal"].to_numpy()

        assert np.array_equal(truth, Y[: len(past)])
        return answer

    values = search.cross_validate(
        spy, {}, features=FEATURES, y=Y, problem="classification", metric="auc", pairs=thirds(Y)
    )
    assert len(values) == 3
    assert all(newest < oldest for newest, oldest in seen)


def test_the_search_starts_with_the_first_guess_and_gets_better() -> None:
    study = new_study()
    trials = run(study, 8)
    assert trials["share"].iloc[0] == 0.5
    assert trials["number"].tolist() == list(range(8))
    assert study.best_value == trials["value"][trials["state"] == "complete"].max() > trials["value"].iloc[0]
    assert study.best_params["share"] < 0.5


def finished(direction: str, *folds: Sequence[float]) -> optuna.Study:
    """A study with a trial for each list of values of folds."""
    study = optuna.create_study(direction=direction)
    for number, values in enumerate(folds):
        means = np.cumsum(values) / np.arange(1, len(values) + 1)
        study.add_trial(
            optuna.create_trial(
                value=float(means[-1]),
                params={"number": number},
                distributions={"number": optuna.distributions.IntDistribution(0, 9)},
                intermediate_values=dict(enumerate(map(float, means))),
            )
        )
    return study


def test_a_gain_within_the_noise_of_the_folds_is_no_gain() -> None:
    lucky = search.choose(finished("maximize", [0.70, 0.71, 0.69], [0.69, 0.70, 0.72]), 1)
    assert (lucky.number, lucky.used, lucky.searched) == (0, False, 1)
    assert lucky.gain == pytest.approx(0.01 / 3) and lucky.error == pytest.approx(0.04 / 3)
    better = search.choose(finished("maximize", [0.70, 0.71, 0.69], [0.71, 0.722, 0.70]), 1)
    assert (better.number, better.params, better.used) == (1, {"number": 1}, True)


def test_a_smaller_error_is_a_gain() -> None:
    better = search.choose(finished("minimize", [5.0, 6.0], [3.0, 4.1], [2.0, 6.5]), 1)
    assert (better.number, better.used, better.searched) == (1, True, 2) and better.gain == pytest.approx(1.95)


def test_the_best_of_the_first_guesses_is_compared() -> None:
    chosen = search.choose(finished("maximize", [0.6, 0.6], [0.8, 0.8]), 2)
    assert (chosen.number, chosen.used, chosen.gain, chosen.searched) == (1, False, 0.0, 0)
    chosen = search.choose(finished("maximize", [0.6, 0.6], [0.8, 0.8], [0.79, 0.805]), 2)
    assert (chosen.number, chosen.used) == (1, False)
    assert search.choose(finished("maximize", [0.6], [0.61]), 1).used  # one fold has no noise to compare with


def test_a_trial_that_is_behind_is_stopped_early() -> None:
    trials = run(new_study(), 10)
    pruned = trials[trials["state"] == "pruned"]
    assert len(pruned) > 0
    assert (pruned["folds"] < 3).all()
    assert (trials["folds"][trials["state"] == "complete"] == 3).all()
    assert isinstance(search.pruner(1), optuna.pruners.NopPruner)  # one fold leaves nothing to stop


@pytest.mark.parametrize("killed_after", [1, 3, 6])
def test_a_killed_search_that_is_taken_up_ends_as_an_unbroken_one(killed_after: int) -> None:
    unbroken = run(new_study(), 9)
    first, second = new_study(), new_study()
    run(first, killed_after)
    second.add_trials(first.trials)
    pd.testing.assert_frame_equal(run(second, 9), unbroken)
    pd.testing.assert_frame_equal(run(second, 9), unbroken)  # nothing is left to do


def test_a_search_without_a_single_value_says_so() -> None:
    with pytest.raises(ValueError, match="rows of both classes in every fold"):
        run(new_study(), 2, y=np.ones(ROWS))


def test_the_direction_is_that_of_the_metric() -> None:
    assert search.direction("auc") == "maximize"
    assert search.direction("mae") == "minimize"


@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_an_input_that_is_the_answer_stands_out(problem: str) -> None:
    random = np.random.default_rng(2)
    y = (random.random(2000) < 0.3).astype("float64") if problem == "classification" else random.normal(size=2000)
    inputs = pd.DataFrame(
        {
            "leak": 5 * y + random.normal(scale=0.01, size=2000),
            "leak_as_text": np.where(y > y.mean(), "late", "on time"),
            "weak": y + random.normal(scale=5, size=2000),
            "noise": random.random(2000),
            "empty": np.nan,
        }
    )
    inputs["leak_as_category"] = inputs["leak_as_text"].astype("category")
    inputs.loc[::7, "leak"] = np.nan
    skill = search.single_input_skill(problem, inputs, y, seed=0)
    assert list(skill.index) == list(inputs)
    assert skill["leak"] > 0.75
    assert skill["leak_as_text"] == skill["leak_as_category"] > 0.3
    assert skill[["weak", "noise", "empty"]].max() < 0.2
    assert skill.min() >= 0


def test_an_input_without_a_value_does_not_end_the_fit() -> None:
    """A sensor that reports nothing in the first fold, a column that is empty from the start."""
    random = np.random.default_rng(0)
    features = pd.DataFrame({"works": random.random(200), "silent": np.nan, "late": np.nan}).astype("float32")
    features.loc[150:, "late"] = 1.0
    filled = search.without_gaps(features.iloc[:100])
    assert (filled[["silent", "late"]] == 0).all(axis=None)
    assert filled["works"].equals(features["works"].iloc[:100])
    assert search.without_gaps(features)["late"].isna().sum() == 150
