"""A file with a row per row comes back: the champion's answer, or the reason why there is none."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sample_project import schema, source

from copier_mlops import ProjectError
from copier_mlops.bundle import bundle, bundle_files
from copier_mlops.contract.contract import ContractError, as_text
from copier_mlops.contract.validation import REASON
from copier_mlops.data import tables
from copier_mlops.lifecycle.predict import predict
from copier_mlops.registry import mlflow_registry
from copier_mlops.settings import Settings

from ..conftest import CLOSE, Poison, spoiled

CONTRACT = schema.CONTRACT


@pytest.fixture
def some(registered: Path, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Good rows, with the target, in a folder with a champion and a challenger; files are written as computers do."""
    if hasattr(source, "TABLE"):
        plain = dataclasses.replace(source.TABLE, separator=",", encoding="utf-8", styles={}, zone="UTC")
        monkeypatch.setattr(source, "TABLE", plain)
    return rows.head(20)


def ask(
    rows: pd.DataFrame, suffix: str = "csv", version: int | None = None
) -> tuple[tuple[int, int, int], pd.DataFrame]:
    given, target = Path(f"rows.{suffix}"), Path(f"answers.{suffix}")
    tables.write_any(rows, given)
    return predict(Settings(), given, target, version), tables.read_any(target)


def answers(version: int, rows: pd.DataFrame) -> np.ndarray:
    known = mlflow_registry.Registry(Settings())
    found = bundle.load(known.bundle(known.version(version))).score(rows.drop(columns=CONTRACT.target))
    return found.max(axis=1) if found.ndim == 2 else found


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_row_is_answered_by_the_champion(some: pd.DataFrame, suffix: str) -> None:
    counts, found = ask(some.drop(columns=CONTRACT.target), suffix)
    assert counts == (1, 20, 0)
    named, each = ["prediction"] * bool(CONTRACT.classes), CONTRACT.answers if len(CONTRACT.answers) > 1 else []
    assert list(found) == [CONTRACT.id, *named, "score", *each, "version", REASON]
    if getattr(getattr(source, "TABLE", None), "rows", "") == CONTRACT.id:  # rows that are only counted
        assert found[CONTRACT.id].tolist() == list(range(1, 21))
    else:
        assert as_text(found[CONTRACT.id]).tolist() == as_text(some[CONTRACT.id]).tolist()
    assert found["score"].to_numpy() == pytest.approx(answers(1, some), **CLOSE)
    if each:
        assert (found[each].max(axis=1) - found["score"]).abs().max() < 1e-9
    assert (found["version"] == 1).all()


def test_another_version_may_be_asked(some: pd.DataFrame) -> None:
    counts, found = ask(some, version=2)
    assert counts == (2, 20, 0)
    assert found["score"].to_numpy() == pytest.approx(answers(2, some), **CLOSE)
    assert (found["version"] == 2).all()
    with pytest.raises(ProjectError, match="there is no version 0; there are 1, 2"):
        ask(some, version=0)


def test_bad_rows_keep_their_place_and_have_their_reason(some: pd.DataFrame) -> None:
    broken, reason = spoiled(some, [3, 7])
    counts, found = ask(broken)
    assert counts == (1, 18, 2)
    assert found.index[found["score"].isna()].tolist() == [3, 7]
    assert found[REASON].iloc[3].startswith(reason)
    assert found[REASON].drop(index=[3, 7]).isna().all()
    assert found["score"].drop(index=[3, 7]).to_numpy() == pytest.approx(np.delete(answers(1, some), [3, 7]), **CLOSE)


def test_an_answer_that_is_there_is_not_looked_at(some: pd.DataFrame) -> None:
    nonsense = some.drop(columns=CONTRACT.target).assign(**{CONTRACT.target: "nonsense"})
    assert ask(nonsense)[1].equals(ask(some)[1])


def test_what_cannot_be_answered_is_refused_before_anything_is_written(some: pd.DataFrame) -> None:
    name = CONTRACT.features()[0]
    with pytest.raises(ContractError, match=re.escape(f"column {name} is missing")):
        ask(some.drop(columns=name))
    with pytest.raises(ProjectError, match="has no rows; nothing was written"):
        ask(some.head(0))
    with pytest.raises(ProjectError, match="there is no version 9"):
        ask(some, version=9)
    assert not Path("answers.csv").exists()


def test_a_column_with_other_letters_is_proposed(some: pd.DataFrame) -> None:
    name = CONTRACT.features()[0]
    other = name.swapcase()
    with pytest.raises(ContractError, match=re.escape(f"column {name} is missing (did you mean {other}?)")) as error:
        ask(some.rename(columns={name: other}))
    assert "source.py" not in str(error.value)


def test_without_a_champion_there_is_no_answer(some: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_registry, "NAME", "another-model")
    with pytest.raises(ProjectError, match="there is no champion yet"):
        ask(some)


def test_a_replaced_bundle_answers_nothing(some: pd.DataFrame, poison: Poison) -> None:
    mark = poison(2)
    with pytest.raises(bundle_files.BundleError, match="is not the recorded one"):
        ask(some, version=2)
    assert not mark.exists()


def test_the_input_is_not_replaced(some: pd.DataFrame) -> None:
    given, link = Path("rows.csv"), Path("link.csv")
    tables.write_any(some, given)
    link.symlink_to(given)
    existing = given.read_bytes()
    for source_file, target in [(given, given), (given, link), (link, given)]:
        with pytest.raises(ProjectError, match=r"is the file of the input rows.*OUTPUT=predictions.csv"):
            predict(Settings(), source_file, target)
    assert given.read_bytes() == existing


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (".", r"OUTPUT=. is a folder. Name a file: OUTPUT=predictions.csv"),
        ("rows.xlsx", "has to end in .csv or .parquet"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_first(some: pd.DataFrame, target: str, says: str) -> None:
    tables.write_any(some, Path("rows.csv"))
    with pytest.raises(ProjectError, match=says):
        predict(Settings(), Path("rows.csv"), Path(target))
