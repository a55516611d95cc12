"""build_features is held to what it promises, with the answer out of its sight."""

import re
from pathlib import Path

import pandas as pd
import pytest
from sample_project import schema

from copier_mlops import ProjectError
from copier_mlops.data import tables
from copier_mlops.pipeline import features
from copier_mlops.settings import Paths

CONTRACT = schema.CONTRACT


def test_a_row_of_inputs_for_every_good_row(project: Path) -> None:
    for month, (file,) in tables.parts(Paths.FEATURES):
        inputs = tables.read(file)
        good = pd.concat(tables.read(part) for part in (Paths.VALIDATED / f"month={month}").glob("*.parquet"))
        assert set(CONTRACT.keys) < set(inputs)
        assert inputs[CONTRACT.order[0]].is_monotonic_increasing
        beside = inputs[CONTRACT.keys].merge(good[CONTRACT.keys], on=CONTRACT.keys)
        assert len(beside) == len(good) == len(inputs)


def test_the_answer_is_out_of_sight(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def looks(rows: pd.DataFrame) -> pd.DataFrame:
        seen.extend(rows)
        return pd.DataFrame({"x": 1.0}, index=rows.index)

    monkeypatch.setattr("sample_project.features.build_features", looks)
    features.features()
    assert seen
    assert CONTRACT.target not in seen


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda rows: rows[[CONTRACT.id]].iloc[1:], "Row i has to come from row i"),
        (lambda rows: rows.iloc[::-1][[CONTRACT.id]], "Row i has to come from row i"),
        (lambda rows: rows[CONTRACT.order], re.escape(f"gave {CONTRACT.order}; the id, the time and the target")),
        (lambda rows: rows[[]], "gave no inputs"),
    ],
    ids=["lost", "moved", "key", "nothing"],
)
def test_what_is_not_features_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, build: object, says: str
) -> None:
    monkeypatch.setattr("sample_project.features.build_features", build)
    with pytest.raises(ProjectError, match=says):
        features.features()
