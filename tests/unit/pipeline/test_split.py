"""Each row teaches or judges, never both, and where no time decides the lot of its id does."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sample_project import schema

from copier_mlops import Column, Contract
from copier_mlops.contract.contract import as_text
from copier_mlops.data import tables
from copier_mlops.params import Resolved, Run, Split, load_run
from copier_mlops.pipeline import search, split
from copier_mlops.settings import Paths

CONTRACT = schema.CONTRACT


@pytest.fixture
def drawn(project: Path) -> Run:
    """The project's run with a quarter of the rows as the test, whether they have a time or not."""
    return load_run().model_copy(update={"split": Split(test_share=0.25, folds=2)})


def good() -> pd.DataFrame:
    return pd.concat(tables.read(file) for _, files in tables.parts(Paths.VALIDATED) for file in files)


def labels(rows: pd.DataFrame) -> np.ndarray:
    return CONTRACT.labels(rows[CONTRACT.target])


def check_sides(run: Run) -> pd.DataFrame:
    inputs, y = split.training(run)
    test = split.test(run)
    assert len(inputs) == len(y) > len(test) > 0
    assert not set(inputs) & set(CONTRACT.keys)
    assert np.array_equal(np.sort([*y, *labels(test)]), np.sort(labels(good())))
    assert test.sort_values(CONTRACT.order, kind="stable").index.is_monotonic_increasing
    assert not [name for name in test if isinstance(test[name].dtype, pd.CategoricalDtype)]
    return test


def test_the_sides_of_the_project(project: Path) -> None:
    run = load_run()
    test = check_sides(run)
    if CONTRACT.time:
        assert test[CONTRACT.time].min() >= run.resolved.test_start
        assert (good()[CONTRACT.time] >= run.resolved.test_start).sum() == len(test)
        assert split.says(run) == "the last 20 days"
        assert split.window(run)["test_start"] == f"{run.resolved.test_start:%Y-%m-%d}"
    else:
        assert split.window(run) == {}


@pytest.mark.skipif(CONTRACT.group is not None, reason="subjects are drawn")
def test_a_share_is_drawn_by_the_id_on_both_sides(drawn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, chosen = search.drawn_for_test, []

    def spy(problem: str, ids: pd.Series, *more: Any) -> np.ndarray:
        found: np.ndarray = real(problem, ids, *more)
        chosen.append(set(as_text(ids[found])))
        return found

    monkeypatch.setattr(search, "drawn_for_test", spy)
    test = check_sides(drawn)
    assert len(test) == pytest.approx(0.25 * len(good()), abs=10)
    assert chosen[0] == chosen[1] == set(as_text(test[CONTRACT.id]))
    assert split.says(drawn) == f"25% of the rows, drawn by their {CONTRACT.id}"
    if drawn.problem == "classification":
        shares = [np.bincount(labels(rows).astype(int)) / len(rows) for rows in (test, good())]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)


def grouped(monkeypatch: pytest.MonkeyPatch) -> str:
    """The contract with a column as the group that has several values, and its name; the contract's own, if it has one."""
    if CONTRACT.group:
        return CONTRACT.group
    columns = [one for one in CONTRACT.columns if one.role == "feature" and one.kind in ("string", "integer")]
    if not columns:
        pytest.skip("the contract has no column that can be a group")
    name = columns[0].name
    changed = [
        Column(one.name, one.kind, "group", nullable=one.nullable) if one.name == name else one
        for one in CONTRACT.columns
    ]
    monkeypatch.setattr("sample_project.schema.CONTRACT", Contract(tuple(changed)))
    return name


def test_a_subject_is_on_one_side_where_a_share_is_drawn(drawn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = grouped(monkeypatch)
    inputs, y, units = split.training_in_units(drawn)
    test = split.test(drawn)
    assert name not in inputs and len(inputs) + len(test) == len(good()) and len(y) == len(inputs)
    judged, every = set(test[name].dropna()), good().set_index(CONTRACT.id)
    learnt = every.drop(index=test[CONTRACT.id])
    assert judged and not judged & set(learnt[name].dropna())
    assert units is not None and len(np.unique(units)) == learnt[name].nunique() + learnt[name].isna().sum()
    assert split.says(drawn).endswith(f"drawn by their {name}")


def test_a_split_in_time_counts_subjects_of_both_sides(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = load_run()
    if run.resolved.test_start is None:
        pytest.skip("the split is drawn")
    before = split.test(run)
    name = grouped(monkeypatch)
    test = split.test(run)
    assert test[CONTRACT.id].tolist() == before[CONTRACT.id].tolist()
    rows = good()
    learnt = set(rows[name][(rows[CONTRACT.time] < run.resolved.test_start).to_numpy()].dropna())
    assert split.known_subjects(run, test).tolist() == [value in learnt for value in test[name]]
    assert split.training_in_units(run)[2] is None


def test_without_moments_there_is_no_window(drawn: Run) -> None:
    nothing = Resolved(start=None, test_start=None, end=None)
    assert split.window(drawn.model_copy(update={"resolved": nothing})) == {}
