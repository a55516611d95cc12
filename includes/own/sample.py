"""The data that the tests learn from, made up from the contract. Yours: write some rows of the source here if you like."""

from pathlib import Path

from {{ package }}.core.examples import made_up
from {{ package }}.core.schema import CONTRACT
from {{ package }}.io import source, tables


def write(folder: Path) -> str:
    """Write some three thousand rows, and return the SOURCE_URI that leads to them."""
    rows = made_up(CONTRACT, 3_000, seed=7)
    tables.write(rows.drop(columns=source.TABLE.rows, errors="ignore"), folder / "rows.parquet")
    return str(folder / "rows.parquet")
