"""SQLite, DuckDB and PostgreSQL: the result of a query as batches of rows."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from copier_mlops import ProjectError, UnreachableError
from copier_mlops.contract.parsing import clean_names
from copier_mlops.data.readers.json_files import as_array
from copier_mlops.data.readers.locations import DRIVERS, ROWS, SourceError, first_line, scheme_of

if TYPE_CHECKING:
    from copier_mlops.data.readers.table import Table


# ---------------------------------------------------------------------------------------------------- Databases


def database_file(location: str) -> Path:
    path = location.split("://", 1)[1].removeprefix("/")
    if not Path(path).is_file():
        raise SourceError(f"there is no database at {path}. An absolute path has four slashes: sqlite:////data/shop.db")
    return Path(path)


@contextlib.contextmanager
def _connected(location: str) -> Iterator[Any]:
    """A cursor that may only read.

    Raises:
        SourceError: If the driver is not installed or the database says no.
        UnreachableError: If the server does not answer.
    """
    scheme = scheme_of(location)
    connection: Any
    try:
        if scheme == "sqlite":
            connection = sqlite3.connect(f"{database_file(location).absolute().as_uri()}?mode=ro", uri=True)
            cursor = connection.cursor()
        elif scheme == "duckdb":
            import duckdb

            connection = duckdb.connect(str(database_file(location)), read_only=True)
            cursor = connection.cursor()
        else:
            import psycopg

            connection = psycopg.connect(
                location.replace("postgresql+psycopg://", "postgresql://"), connect_timeout=10,
                options="-c default_transaction_read_only=on",
            )  # fmt: skip
            cursor = connection.cursor(name="rows")
            cursor.itersize = ROWS
    except ImportError as error:
        raise SourceError(
            f"reading {scheme} needs a driver that is not installed: `uv add {DRIVERS[scheme]}`; `make adopt` does it."
        ) from error
    except ProjectError:
        raise
    except Exception as error:
        kind = UnreachableError if scheme == "postgresql" else SourceError
        raise kind(
            f"the {scheme} database does not open: {first_line(error)}. A password comes from .env (PGPASSWORD)."
        ) from error
    try:
        yield cursor
    finally:
        connection.close()


def read_query(table: Table, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    with _connected(table.location) as cursor:
        try:
            cursor.execute(table.query.strip().rstrip(";"))
            rows = cursor.fetchmany(ROWS)
            names = clean_names([one[0] for one in cursor.description])
            wanted = [place for place, name in enumerate(names) if columns is None or name in columns] or [0]
            while rows:
                yield pa.table({names[place]: as_array([row[place] for row in rows]) for place in wanted})
                rows = cursor.fetchmany(ROWS)
        except (GeneratorExit, ProjectError):
            raise
        except Exception as error:  # each driver has errors of its own
            raise SourceError(f"the query failed: {first_line(error)}.") from error


def one_row(table: Table) -> Any:
    """What changes when a query's result does, asked of the server."""
    with _connected(table.location) as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) "  # noqa: S608 (the project's own query)
            f"FROM ({table.query.strip().rstrip(';')}) AS t"
        )
        return [str(value) for value in cursor.fetchone()]
