"""`make label` keeps what came in the folder that the next look reads."""

from pathlib import Path

import pandas as pd
import pytest
from sample_project.schema import CONTRACT

from ..conftest import mlops


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame) -> Path:
    monkeypatch.chdir(tmp_path)
    rows[[CONTRACT.id, CONTRACT.target]].to_csv("outcomes.csv", index=False)
    return tmp_path


def test_labels_are_kept(capsys: pytest.CaptureFixture[str], rows: pd.DataFrame) -> None:
    assert mlops("import-labels", "outcomes.csv") == 0
    assert f"{len(rows):,} labels are in labels/" in capsys.readouterr().out
    assert mlops("import-labels", "outcomes.csv") == 0
    assert "nothing changed" in capsys.readouterr().out
    assert len(list(Path("labels").glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("given", "uri", "says"),
    [
        ("", "labels", "name the file of labels"),
        ("nowhere.csv", "labels", "there is no table at nowhere.csv"),
        ("outcomes.csv", "s3://bucket/labels", "LABELS_URI is s3://bucket/labels, which is no folder here"),
        ("outcomes.csv", "outcomes.csv", "which is no folder here"),
        ("outcomes.csv", ".", "is read from there"),
    ],
)
def test_what_cannot_be_done_is_said(
    given: str, uri: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABELS_URI", uri)
    assert mlops("import-labels", *([given] if given else [])) == 1
    assert says in capsys.readouterr().err
    assert not Path("labels").exists()
