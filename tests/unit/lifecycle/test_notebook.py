"""The project from Python: rows, features, the champion and its predictions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from sample_project.schema import CONTRACT

import copier_mlops
from copier_mlops import ProjectError
from copier_mlops.bundle.bundle_files import BundleError
from copier_mlops.bundle.isolated import Isolated
from copier_mlops.ci import notebooks
from copier_mlops.lifecycle import notebook

from ..conftest import ROOT, Poison


def test_rows_and_features_are_those_of_the_last_run(registered: Path) -> None:
    rows, features = copier_mlops.load_rows(), copier_mlops.load_features()
    assert list(rows) == CONTRACT.names and len(rows) == len(features) > 0
    assert rows[CONTRACT.id].tolist() == features[CONTRACT.id].tolist()
    pd.testing.assert_frame_equal(copier_mlops.load_rows(limit=7), rows.tail(7).reset_index(drop=True))
    assert len(copier_mlops.load_features(limit=10**9)) == len(rows)
    for limit in (0, -5):
        with pytest.raises(ProjectError, match=f"limit is {limit}"):
            copier_mlops.load_rows(limit=limit)


def test_predictions_are_those_of_the_registered_version(registered: Path) -> None:
    rows = copier_mlops.load_rows(limit=5)
    rows.index = pd.Index(range(10, 15))
    champion = copier_mlops.load_champion()
    assert isinstance(champion, Isolated)  # never a pickle in this process
    predictions = copier_mlops.predict(rows)
    assert predictions.index.tolist() == [*range(10, 15)]
    assert predictions["score"].notna().all() and (predictions["reason"] == "").all()
    pd.testing.assert_frame_equal(predictions, copier_mlops.predict(rows.drop(columns=[CONTRACT.id, CONTRACT.target])))
    assert copier_mlops.load_champion() is champion  # loaded once
    assert copier_mlops.load_champion(2).digest != champion.digest
    with pytest.raises(ProjectError, match="there is no version 0; there are 1, 2"):
        copier_mlops.load_champion(0)


def test_a_replaced_bundle_is_never_loaded(registered: Path, poison: Poison) -> None:
    mark = poison(1)
    with pytest.raises(BundleError, match="is not the recorded one"):
        copier_mlops.load_champion()
    assert not mark.exists()


def test_the_notebook_shows_the_champions_predictions(registered: Path) -> None:
    """The notebook runs in the tiny project, as in one of yours after `make run`."""
    Path("notebooks").mkdir()
    file = Path(shutil.copy(ROOT / "notebooks/explore.ipynb", "notebooks/explore.ipynb"))
    assert notebooks.run(file) == []
    cells = nbformat.read(notebooks.RUN / file.name, as_version=4).cells
    [cell] = [one for one in cells if "copier_mlops.predict(" in one.source]
    shown = [kind for output in cell.outputs for kind in output.get("data", {})]
    assert "image/png" in shown and "text/html" in shown  # the curve, and the first rows beside the target


def test_another_working_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter starts notebooks in their own folder."""
    monkeypatch.chdir(tmp_path)
    for load in (copier_mlops.load_rows, copier_mlops.load_features, copier_mlops.load_champion):
        with pytest.raises(ProjectError, match="is not the folder of a project"):
            load()


def test_importing_the_package_stays_quick() -> None:
    heavy = "pandas mlflow prefect pydantic typer"
    code = f"import sys, {notebook.__package__}; sys.exit(bool(sys.modules.keys() & set('{heavy}'.split())))"
    source = str(Path(notebook.__file__).parent.parent)
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, check=False).returncode
        == 0
    )
