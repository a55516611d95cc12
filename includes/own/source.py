"""Where raw rows come from. Yours: whatever else is joined or computed comes into `complete`.

The platform asks for the `fingerprint` at each run, for the `extent` when that changed, and to `read` what is new.
SOURCE_URI in the environment names another place than the one below.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..api import Table

TABLE = Table(
<listed>)
TIME = <time>  # the column that orders rows


def fingerprint(location: str) -> str:
    """A text that changes when rows do."""
    return TABLE.at(location).fingerprint()


def extent(location: str) -> tuple[int, pd.Timestamp | None]:
    """The number of rows at the source, and the time of the newest."""
    return TABLE.at(location).extent(TIME)


def read(
    location: str, start: pd.Timestamp | None, end: pd.Timestamp | None, columns: list[str]
) -> Iterator[pd.DataFrame]:
    """Yield the `columns` of the rows with start <= TIME < end, a chunk at a time."""
    yield from map(complete, TABLE.at(location).read(columns, TIME, start, end))


def read_file(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Yield the rows of a file that is to be scored, written as the source is."""
    yield from map(complete, TABLE.at(str(path)).read([name for name in columns if name != TABLE.rows]))


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that the table itself lacks, row by row: rows["total"] = rows["price"] * rows["count"]."""
    return rows
