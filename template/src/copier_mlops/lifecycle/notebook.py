"""The project from Python: its rows, its features, its champion. For notebooks and scripts.

import copier_mlops

rows = copier_mlops.load_rows(limit=10_000)
copier_mlops.predict(rows.head())
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops.bundle.isolated import Isolated
from copier_mlops.data import tables
from copier_mlops.params import PARAMS
from copier_mlops.settings import Paths, Settings


def load_rows(limit: int | None = None) -> pd.DataFrame:
    """Return the validated rows of the last run, the newest ones last.

    Args:
        limit: number of rows to return, the newest ones; all by default.

    Returns:
        A row per row of data/validated, with the columns of the contract, target included.

    Raises:
        ProjectError: If the working folder is not the project's, or there are no rows yet.
    """
    return _newest(Paths.VALIDATED, limit)


def load_features(limit: int | None = None) -> pd.DataFrame:
    """Return the inputs of the model as the last run computed them, the newest ones last.

    Args:
        limit: number of rows to return, the newest ones; all by default.

    Returns:
        A row per row of data/features: id, time and target as in the contract, then the inputs.

    Raises:
        ProjectError: If the working folder is not the project's, or there are no rows yet.
    """
    return _newest(Paths.FEATURES, limit)


def load_champion(version: int | None = None) -> Isolated:
    """Return the champion, or another registered version, after its digest was compared with the recorded one.

    The model is loaded in a process of its own that has no secrets. `champion.contract` has the columns, `champion.manifest`
    the facts of its training, `champion.score(rows)` returns scores of rows that keep the contract.

    Args:
        version: number of the version; the champion by default.

    Raises:
        BundleError: If the bundle is not the recorded one.
        ProjectError: If there is no champion yet, or no such version.
    """
    _check_folder()
    settings = Settings()
    settings.apply()
    from copier_mlops.registry.database import CHAMPION

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # MLflow would like widgets in a notebook
        from copier_mlops.registry.mlflow_registry import Registry  # brings MLflow, which takes seconds

    registry = Registry(settings)
    chosen = registry.holder(CHAMPION) if version is None else registry.version(version)
    if chosen is None:
        raise ProjectError("there is no champion yet. `make run` trains one.")
    return _loaded(registry.bundle(chosen).absolute(), registry.digest(chosen))


def predict(frame: pd.DataFrame, version: int | None = None) -> pd.DataFrame:
    """Predict rows with the champion, or another registered version.

    Args:
        frame: rows with the columns of the contract; the target may be there and is ignored, the id may be missing.
        version: number of the version; the champion by default.

    Returns:
        A row per row, with its index: `prediction` if classes have names, `score`, and `reason`, which is empty unless the
        row breaks the contract and so has no score, or has values that training did not see (`unseen="pool"`).

    Raises:
        ContractError: If a column is missing or unexpected.
        ProjectError: As `load_champion` does.
    """
    champion = load_champion(version)
    if champion.contract.id not in frame:
        frame = frame.assign(**{champion.contract.id: range(1, len(frame) + 1)})
    return champion.answer(frame)


def _newest(folder: Path, limit: int | None) -> pd.DataFrame:
    _check_folder()
    if limit is not None and limit < 1:
        raise ProjectError(f"limit is {limit}. Give 1 or more, or leave it out for all rows.")
    files = [file for _, some in tables.parts(folder) for file in some]
    frames: list[pd.DataFrame] = []
    for file in reversed(files):
        if limit is not None and sum(map(len, frames)) >= limit:
            break
        frames.insert(0, tables.read(file))
    rows = pd.concat(frames, ignore_index=True).sort_values(project.contract().order, kind="stable", ignore_index=True)
    return rows if limit is None else rows.tail(limit).reset_index(drop=True)


def _check_folder() -> None:
    """Raise an error if paths of the project lead elsewhere, as in a notebook that was started in notebooks/."""
    if PARAMS.exists():
        return
    root = project.root()
    there = f"`import os; os.chdir({str(root)!r})`" if root and (root / PARAMS).exists() else "change to it"
    raise ProjectError(f"the working folder {Path.cwd()} is not the folder of a project: {there}, then run this again.")


@cache
def _loaded(folder: Path, digest: str) -> Isolated:
    from copier_mlops.bundle import isolated

    return isolated.load(folder, digest)
