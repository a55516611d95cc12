"""predict: score a file with the champion; the same contract, the same features code, through its bundle."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import check_columns
from copier_mlops.data import parquet, tables
from copier_mlops.data.readers import Table, sniff
from copier_mlops.registry.database import CHAMPION
from copier_mlops.registry.mlflow_registry import Registry
from copier_mlops.settings import Settings


def predict(settings: Settings, rows_at: Path, target: Path, number: int | None = None) -> tuple[int, int, int]:
    """Answer the rows of a Parquet or CSV file.

    Args:
        settings: Where the registry is.
        rows_at: Rows of the contract; the target may be there and is ignored.
        target: Gets a row per input row, in its order: id, the columns of `Bundle.answer`, version.
        number: The version that answers; the champion by default.

    Returns:
        The version, how many rows were answered, and how many were set aside.

    Raises:
        ProjectError: If there is no champion, the file cannot be read, has other columns, or no row at all, or if the
            target cannot be written or is the input.
    """
    _check_target(rows_at, target)
    registry = Registry(settings)
    version = registry.holder(CHAMPION) if number is None else registry.version(number)
    if version is None:
        raise ProjectError("there is no champion yet. `make run` trains one.")
    champion = registry.load(version)
    rows = _read(rows_at, champion.contract)
    if rows.empty:
        raise ProjectError(f"{rows_at} has no rows; nothing was written.")
    if champion.contract.id not in rows:  # a row without a name is called by its number
        rows.insert(0, champion.contract.id, range(1, len(rows) + 1))
    check_columns(
        list(rows.columns), champion.contract, labelled=False, others=_others(rows_at, rows, champion.contract)
    )
    answers = champion.answer(rows)
    answers.insert(0, champion.contract.id, rows[champion.contract.id])
    answers.insert(answers.shape[1] - 1, "version", version.number)
    tables.write_any(answers, target)
    refused = int(answers["score"].isna().sum())
    return version.number, len(answers) - refused, refused


def _check_target(rows_at: Path, target: Path) -> None:
    """Refuse a target that cannot be written, or that would replace the input rows, before anything is computed."""
    if target.is_dir():
        raise ProjectError(f"OUTPUT={target} is a folder. Name a file: OUTPUT={target / 'predictions.csv'}")
    tables.check_suffix(target)
    if rows_at.exists() and target.exists() and target.samefile(rows_at):
        raise ProjectError(
            f"OUTPUT={target} is the file of the input rows; the predictions would replace them. Name another file: "
            "OUTPUT=predictions.csv"
        )


def _others(path: Path, rows: pd.DataFrame, contract: Contract) -> list[str]:
    """The names that the file has beside the columns that were read of it, where one of those is missing."""
    table = getattr(project.source(), "TABLE", None)
    if table is None or all(one.name in rows or one.role == "group" for one in contract.without_target()):
        return []
    return [name for name in sniff(Table(str(path))).names() if name not in rows]


def _read(path: Path, contract: Contract) -> pd.DataFrame:
    """The rows of a file: as source.py reads files, where it does; else as they are."""
    read_file = getattr(project.source(), "read_file", None)
    if read_file is None or not path.is_file():
        return tables.read_any(path, limited=True)
    frames, size = [], 0
    for frame in read_file(path, [column.name for column in contract.without_target()]):
        size += int(frame.memory_usage(index=False).sum())
        parquet.check_growth(path, size)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
