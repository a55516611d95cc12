"""Training is repeatable, goes on where it was killed, and refuses what cannot be learnt or is given away."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from sample_project import model, schema

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.data import tables
from copier_mlops.evaluation import metrics
from copier_mlops.params import load_run
from copier_mlops.pipeline import run_config, split, train
from copier_mlops.settings import Paths, Settings

from ..conftest import change, rewrite

CONTRACT = schema.CONTRACT


def test_the_manifest_says_what_it_was_trained_on(project: Path) -> None:
    run, manifest = load_run(), bundle.load(Paths.BUNDLE).manifest
    inputs, y = split.training(run)
    assert manifest["rows"] == len(inputs) == len(y) > 0
    assert manifest["baseline"] == pytest.approx(metrics.baseline(y, len(CONTRACT.classes)))
    assert manifest["inputs"] == list(inputs)
    trials = {trial["number"] + 1: trial for trial in tables.read_json(Paths.TRIALS)}
    chosen = trials[manifest["search"]["trial"]]
    assert manifest["params"] == {name: chosen[name] for name in manifest["params"]}
    assert set(manifest["params"]) in [set(guess) for guess in train.search.guesses(model.FIRST_GUESS)]


def test_the_time_of_the_training_is_noted_with_the_bundle(project: Path) -> None:
    """MLflow shows it. A bundle from elsewhere has none, and is no output that differs by the time."""
    found = tables.read_json(Paths.TIMES)
    assert found["bundle"] == bundle_files.digest(Paths.BUNDLE)
    assert len(found["trials"]) == len(tables.read_json(Paths.TRIALS))
    assert all(found["start"] <= start < end <= found["end"] for start, end in found["trials"])
    before = bundle_files.digest(Paths.BUNDLE)
    train.train()
    assert bundle_files.digest(Paths.BUNDLE) == before
    assert tables.read_json(Paths.TIMES)["start"] == found["trials"][0][0]  # its trials were finished already


def test_examples_and_background_are_made_of_the_reference_rows(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the newest file, which may be two days of holidays."""
    run, given = load_run(), []
    real = train._nobodys

    def spy(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
        given.append(rows)
        return real(rows, count, seed)

    monkeypatch.setattr(train, "_nobodys", spy)
    train.train()
    expected = train._some_of(*train._season(run), run.seed).drop(columns=CONTRACT.target)
    assert len(expected) > 0 and len(given) == 2
    for rows in given:
        pd.testing.assert_frame_equal(rows, expected)


def test_the_bundle_says_what_production_is_compared_with(project: Path) -> None:
    known, run = bundle.load(Paths.BUNDLE).reference, load_run()
    assert known["weights"].keys() == known["columns"].keys()
    assert sum(known["weights"].values()) == pytest.approx(1, abs=1e-3)
    whole = train._some_of(run.resolved.start, run.resolved.end, run.seed)
    assert known["training"]["rows"] == min(len(whole), train.SEASON_ROWS)
    assert set(known["training"]["columns"]) <= set(known["columns"])
    if CONTRACT.time is None:
        assert known["span"] is None and known["season"] == {}
        return
    assert known["training"]["span"][0] == f"{whole[CONTRACT.time].min():%Y-%m-%d}" <= known["span"][0]
    assert known["training"]["span"][1] == known["span"][1] == f"{whole[CONTRACT.time].max():%Y-%m-%d}"


def counting(monkeypatch: pytest.MonkeyPatch, dies_at: int = 0) -> list[int]:
    """Count the models that are built; the process "dies" at one of them."""
    real, built = model.build_model, []

    def build(*arguments: Any) -> Any:
        built.append(1)
        if len(built) == dies_at:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(model, "build_model", build)
    return built


def test_a_killed_training_goes_on_and_ends_as_an_unbroken_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, trials = bundle_files.digest(Paths.BUNDLE), tables.read_json(Paths.TRIALS)
    Paths.STUDIES.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, dies_at=4)  # the second trial's second fold
        train.train()
    built = counting(monkeypatch)
    train.train()
    assert len(built) == 2 + 1  # the second trial again, the final fit; not the first trial
    assert tables.read_json(Paths.TRIALS) == trials
    assert bundle_files.digest(Paths.BUNDLE) == before
    train.train()
    assert len(built) == 2 + 1 + 1


def test_a_trial_whose_process_was_killed_does_not_count(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run()
    study = train.open_study("key", run)
    study.tell(study.ask(), 0.5)
    study.ask()
    again = train.open_study("key", run)
    assert [trial.state for trial in again.trials] == [optuna.trial.TrialState.COMPLETE]
    assert "taking up a search with 1 finished trials" in capsys.readouterr().out
    assert train.open_study("another key", run).trials == []


def test_a_search_of_other_rows_settings_or_code_begins_anew(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {train._key(load_run())}
    assert train._key(load_run()) in keys
    change(project, seed=8)
    keys.add(train._key(run_config.resolve_run(Settings())))
    rewrite(Paths.FEATURES, lambda frame: frame.head(5))
    keys.add(train._key(load_run()))
    other = project / "model.py"
    other.write_text("# other code")
    monkeypatch.setattr(model, "__file__", str(other))
    keys.add(train._key(load_run()))
    assert len(keys) == 4


def given_away(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(known_too_late=CONTRACT.labels(frame[CONTRACT.target]) * 2)


def always_the_same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{CONTRACT.target: CONTRACT.classes[0] if CONTRACT.classes else 1.0})


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (given_away, r"one input alone nearly gives the answer: known_too_late \((1.00|0.9\d)\)"),
        (always_the_same, re.escape(f"{CONTRACT.target} has one value in all")),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    project: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    change(project, validation={"max_single_input_skill": 0.9})
    run_config.resolve_run(Settings())
    rewrite(Paths.FEATURES, edit)
    with pytest.raises(ProjectError, match=says):
        train.train()


def test_too_few_rows_for_the_folds_are_refused(project: Path) -> None:
    change(project, split={"folds": 20})
    run_config.resolve_run(Settings())
    answers = np.array(CONTRACT.classes or (0.0, 1.0), dtype=object)

    def few(frame: pd.DataFrame) -> pd.DataFrame:
        some = frame.head(4)
        target = pd.Series(answers[np.arange(len(some)) % 2], some.index).astype(frame[CONTRACT.target].dtype)
        return some.assign(**{CONTRACT.target: target})

    rewrite(Paths.FEATURES, few)
    with pytest.raises(ProjectError, match=r"the search could not be run: .*(too few for 20 folds|n_splits=20)"):
        train.train()
