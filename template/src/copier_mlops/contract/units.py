"""Which rows belong together: rows of one subject, else copies of a row. They share a side of a split, and a lot in a resample."""

from __future__ import annotations

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Contract, as_text
from copier_mlops.contract.validation import fingerprints

ROWS = 40_000  # in which copies are looked for


def subjects(rows: pd.DataFrame, contract: Contract) -> pd.Series:
    """The subject of each row as text; a row without one is a subject of its own, named by its id."""
    assert contract.group is not None
    return as_text(rows[contract.group]).fillna("row " + as_text(rows[contract.id]))


def copies_of(inputs: pd.DataFrame) -> np.ndarray:
    """A number for each row that copies of it share: a hash of all its values, of numbers at the precision of float32.

    Returns:
        uint64 array of shape (rows,).
    """
    floats = dict.fromkeys(inputs.select_dtypes("float"), "float32")
    return pd.util.hash_pandas_object(inputs.astype(floats), index=False).to_numpy()


def repeated(table: pd.DataFrame, seed: int, rows: int = ROWS) -> float:
    """The share of rows that are copies of other rows; 0 if shuffled columns give half as many.

    A table of few columns with few values has equal rows that are cases of their own.
    """
    random = np.random.default_rng(seed)
    some = table.iloc[np.sort(random.permutation(len(table))[:rows])]
    copies, few = int(some.duplicated().sum()), max(2, 0.001 * len(some))
    if copies < few:
        return 0.0
    apart = pd.DataFrame({name: some[name].array.take(random.permutation(len(some))) for name in some})
    return 0.0 if copies < 2 * int(apart.duplicated().sum()) + few else copies / len(some)


def together_in_resamples(rows: pd.DataFrame, contract: Contract, seed: int) -> np.ndarray | None:
    """What a bootstrap draws as one: the rows of a subject, else copies of a row if there are more of them than by chance.

    Args:
        rows: Rows of the contract with their target.
        contract: Says which column is the group.
        seed: Seed of the look for copies.

    Returns:
        uint64 array of shape (rows,), equal for rows that belong together; None where each row is drawn for itself.
    """
    if contract.group:
        return fingerprints(subjects(rows, contract))
    table = rows.drop(columns=[name for name in contract.keys if name != contract.target])
    return copies_of(table) if repeated(table, seed) else None
