"""predict: score a file with the champion; the same contract, the same features code, through its bundle."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .. import ProjectError
from ..core.contract import REASON, check_rows
from ..io import bundle, tables
from ..io.registry import CHAMPION, Registry
from ..settings import Settings


def predict(settings: Settings, source: Path, target: Path, number: int | None = None) -> tuple[int, int, int]:
    """Answer the rows of a Parquet or CSV file.

    Args:
        settings: Where the registry is.
        source: Rows of the contract; the target may be there and is ignored.
        target: Gets a row per input row, in its order: id, score, version, reason (why there is no score).
        number: The version that answers; the champion by default.

    Returns:
        The version, how many rows were answered, and how many were set aside.

    Raises:
        ProjectError: If there is no champion, the file cannot be read, has other columns, or no row at all.
    """
    rows = tables.read_any(source)
    if rows.empty:
        raise ProjectError(f"{source} has no rows; nothing was written.")
    registry = Registry(settings)
    version = registry.version(number) if number else registry.holder(CHAMPION)
    if version is None:
        raise ProjectError("there is no champion yet. `make run` trains one.")
    champion = bundle.load(registry.bundle(version))
    checked = check_rows(rows, champion.contract, labelled=False)
    result = pd.DataFrame(
        {champion.contract.id: rows[champion.contract.id], "score": float("nan"), "version": version.number, REASON: ""}
    )
    result.loc[checked.good.index, "score"] = champion.score(checked.good)
    result.loc[checked.set_aside.index, REASON] = checked.set_aside[REASON]
    tables.write_any(result, target)
    return version.number, len(checked.good), len(checked.set_aside)
