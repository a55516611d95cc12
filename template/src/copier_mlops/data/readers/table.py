"""Tables where they are: files, folders, object stores, databases; read as a stream of batches, never as a whole."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from copier_mlops.contract.parsing import NO_NUMBER, NUMBER_STYLES, plain_number, to_time, trimmed, zoned
from copier_mlops.data.readers.csv_files import ENCODINGS, dialect, encoding_of, header_of, read_csv, separator_of
from copier_mlops.data.readers.databases import database_file, one_row, read_query
from copier_mlops.data.readers.json_files import read_json
from copier_mlops.data.readers.locations import (
    DATABASES,
    PARTITION,
    SourceError,
    check_location,
    files_of,
    head,
    kind_of,
    naming,
    scheme_of,
)
from copier_mlops.data.readers.parquet_files import read_parquet

if TYPE_CHECKING:
    from copier_mlops.data.readers.locations import Say


@dataclass(frozen=True)
class Table:
    """A table somewhere, and how its values are written.

    Attributes:
        location: A file (CSV, TSV, JSON lines or Parquet, compressed or not), a folder or a glob of such files, each of them
            also behind s3://, or a database: sqlite:///, duckdb:///, postgresql://.
        query: The SELECT of a database.
        separator: Of a CSV file.
        encoding: Of a text file.
        styles: How values are written, by column: a number by example ("1.234,5"), a time as strptime has it
            ("%d.%m.%Y") or "ISO8601". What is not named is written as computers do.
        zone: Where clocks stood that wrote a time without a zone.
        rows: The name of a column that counts the rows, for a table without an id.
        header: Whether the first line of a CSV file names the columns; by default it does, unless it looks like a row.
    """

    location: str
    query: str = ""
    separator: str = ","
    encoding: str = "utf-8"
    styles: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"
    rows: str = ""
    header: bool | None = None

    def at(self, location: str) -> Table:
        """The same table at another place, if one is named; what is written in Parquet needs no dialect."""
        return dataclasses.replace(self, location=location) if location else self

    def files(self) -> list[str]:
        """The files of the table, each as a location of its own, in the order in which they are read.

        Raises:
            SourceError: If there is none, or the table is in a database.
        """
        check_location(self.location, "")
        _, files = files_of(self.location)
        return [f"s3://{path}" if scheme_of(self.location) == "s3" else path for path in files]

    def batches(self, columns: Sequence[str] | None = None, say: Say = lambda note: None) -> Iterator[pa.Table]:
        """Yield the rows as they are, a batch at a time: text of a CSV file as text, other values typed.

        Args:
            columns: Only these, of those that are there; by default all that can be columns of a table and are in the first file.
            say: Gets a sentence on each column that is passed over.

        Raises:
            SourceError: If the table is not there, or a part of it cannot be read; the text says which.
        """
        if scheme_of(self.location) in DATABASES:
            yield from read_query(self, columns)
            return
        system, files = files_of(self.location)
        if part := next((part for path in files if (part := PARTITION.search(path.removeprefix(self.location)))), None):
            say(f"folders are named by values, such as {part[1]}: these are no column and are passed over.")
        first: tuple[str, list[str]] | None = None
        for path in files:
            with naming(path):
                kind = kind_of(path)
                table = dialect(self, system, path, first[1]) if first and columns is None and kind == "csv" else self
                for batch in _READERS[kind](table, system, path, columns, say):
                    names = batch.column_names
                    if first is None:
                        first = (path, names)
                    if missing := [name for name in first[1] if name not in names]:
                        raise SourceError(
                            f"{path} lacks columns that {first[0]} has: {', '.join(missing[:8])}. Files of one table have the "
                            "same columns."
                        )
                    if more := [name for name in names if name not in first[1]]:
                        say(f"{path} has columns that {first[0]} lacks; they are passed over: {', '.join(more[:8])}.")
                    yield batch.select(first[1])

    def names(self) -> list[str]:
        """The names of all columns, of the first file; none if there is no row."""
        return next((batch.column_names for batch in self.batches()), [])

    def read(
        self, columns: Sequence[str], time: str | None = None, start: Any = None, end: Any = None
    ) -> Iterator[pd.DataFrame]:
        """Yield rows with values as their styles say; what does not follow its style stays as it is.

        Args:
            columns: Only these, of those that are there.
            time: The column of moments, if rows have one.
            start, end: Only rows with start <= time < end; a row whose time cannot be read is always given.
        """
        styles = {**({time: "ISO8601"} if time else {}), **self.styles}
        number = 0
        for batch in self.batches([*columns]):
            frame = pd.DataFrame({name: self._values(batch[name], styles.get(name)) for name in batch.column_names})
            if self.rows in columns:
                frame.insert(0, self.rows, range(number + 1, number + 1 + len(frame)))
                number += len(frame)
            if time in frame and start is not None and pd.api.types.is_datetime64_any_dtype(frame[time].dtype):
                frame = frame[(frame[time].isna() | frame[time].between(start, end, inclusive="left")).to_numpy()]
            elif time in frame and start is not None:
                moments = pd.to_datetime(frame[time], utc=True, errors="coerce", format="ISO8601")
                frame = frame[(moments.isna() | moments.between(start, end, inclusive="left")).to_numpy()]
            if len(frame):
                yield frame.reset_index(drop=True)

    def _values(self, values: pa.ChunkedArray, style: str | None) -> pd.Series:
        kind = values.type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return zoned(values, self.zone)
        if pa.types.is_decimal(kind):
            values = values.cast(pa.float64())
        if style is None or (style in NUMBER_STYLES and not pa.types.is_string(kind)):
            return pd.Series((trimmed(values) if pa.types.is_string(kind) else values).to_pandas())
        if style in NUMBER_STYLES:
            return pd.Series(plain_number(trimmed(values, NO_NUMBER), style).to_pandas())
        moments = to_time(values, style, self.zone)
        texts = trimmed(values, NO_NUMBER) if pa.types.is_string(kind) else values
        given = texts.to_pandas()
        unread = (moments.isna() & given.notna()).to_numpy()
        if not unread.any():
            return moments
        return moments.map(lambda moment: moment.isoformat(), na_action="ignore").astype("object").where(~unread, given)

    def extent(self, time: str | None = None) -> tuple[int, pd.Timestamp | None]:
        """The number of rows, and the time of the newest where rows have one."""
        rows, newest = 0, None
        for frame in self.read([time or self.rows], time) if time else ():
            rows += len(frame)
            found = pd.to_datetime(frame[time], utc=True, errors="coerce", format="ISO8601").max()
            if newest is None or pd.isna(newest) or found > newest:  # nothing is later than NaT
                newest = found
        if time is None:
            rows = sum(batch.num_rows for batch in self.batches())
        return rows, newest

    def fingerprint(self) -> str:
        """A text that changes when the table does: of the content where it is near, of size and date in an object store."""
        digest = hashlib.sha256(self.query.encode())
        if scheme_of(self.location) == "postgresql":
            digest.update(repr(one_row(self)).encode())
            return digest.hexdigest()[:16]
        if scheme_of(self.location) in DATABASES:
            database = database_file(self.location)
            files = [str(database), f"{database}-wal", f"{database}.wal"]
            system: Any = pa.fs.LocalFileSystem()
        else:
            system, files = files_of(self.location)
        for path in files:
            information = system.get_file_info(path)
            if information.type == pa.fs.FileType.NotFound:
                continue
            digest.update(PurePosixPath(path).name.encode())
            if isinstance(system, pa.fs.LocalFileSystem):
                with open(path, "rb") as file:  # noqa: PTH123 (a path of any system)
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(f"{information.size} {information.mtime_ns}".encode())
        return digest.hexdigest()[:16]


def sniff(table: Table) -> Table:
    """Find out the separator and the encoding of a text file.

    Raises:
        SourceError: If it is empty, or no text.
    """
    if scheme_of(table.location) in DATABASES:
        return table
    path, start = head(table.location)
    kind = kind_of(path)
    if kind == "parquet":
        return table
    if not start.strip():
        raise SourceError(f"{path} is empty.")
    encoding = encoding_of(start)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(start)
    if "\0" in text:
        raise SourceError(f"{path} is no text; is it a spreadsheet or an archive? Save it as CSV or Parquet.")
    return dataclasses.replace(table, encoding=encoding, separator=separator_of(text) if kind == "csv" else ",")


def with_columns(table: Table, names: Collection[str]) -> Table:
    """Return a CSV file in the encoding in which it has all the columns that the user names; as it is where none has.

    Args:
        table: as `sniff` returns it.
        names: names of columns.
    """
    if table.encoding != "cp1252" or scheme_of(table.location) in DATABASES:
        return table
    system, files = files_of(table.location)
    if kind_of(files[0]) != "csv":
        return table
    for encoding in (table.encoding, *ENCODINGS):
        candidate = dataclasses.replace(table, encoding=encoding)
        if set(names) <= set(header_of(candidate, system, files[0])[1]):
            return candidate
    return table


_READERS = {"csv": read_csv, "json": read_json, "parquet": read_parquet}
