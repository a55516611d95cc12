"""Rows of a table that somebody names, as questions to a bundle: read a batch at a time, and masked as they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pandas as pd

from copier_mlops import project
from copier_mlops.contract.contract import Contract, ContractError, mask
from copier_mlops.contract.validation import check_columns
from copier_mlops.data.readers import Table, sniff


def table_at(given: str) -> Table:
    """The table at a place, written as that of the source is; its rows are not counted."""
    return dataclasses.replace(getattr(project.source(), "TABLE", Table("")), rows="").at(given)


def questions(
    file: Table, contract: Contract, key: str, skip: int = 0, number: int | None = None
) -> Iterator[tuple[pd.DataFrame, int]]:
    """Read a file.

    Args:
        file: One file of a table.
        contract: Its columns are read, but for the target; others are not looked at.
        key: Masks personal columns.
        skip: How many rows were answered before.
        number: Where rows have no id they are called by their number, from the one after this on; None if they have to have one.

    Yields:
        Some rows, numbered from 0, without those that are skipped, and how many of the file's rows are read by then.

    Raises:
        ContractError: If a column is missing; the text names the file.
        SourceError: If the file cannot be read.
    """
    row = 0
    for frame in file.read([column.name for column in contract.without_target()]):
        if row == 0:
            _check_columns(file, frame, contract, number is not None)
        rest = frame.iloc[min(max(skip - row, 0), len(frame)) :].reset_index(drop=True)
        row += len(frame)
        if number is not None and contract.id not in rest:
            rest.insert(0, contract.id, range(number + 1, number + 1 + len(rest)))
        if number is not None:
            number += len(rest)
        yield mask(rest, contract, key), row


def _check_columns(file: Table, frame: pd.DataFrame, contract: Contract, counted: bool) -> None:
    named = [*frame, *([contract.id] if counted and contract.id not in frame else [])]
    try:
        lacks = any(one.name not in named for one in contract.without_target())
        check_columns(named, contract, labelled=False, others=sniff(file).names() if lacks else ())
    except ContractError as error:
        raise ContractError(f"{file.location}: {error}") from error
