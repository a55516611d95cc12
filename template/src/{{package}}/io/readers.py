"""Tables where they are: files, folders, object stores, databases; read as a stream of batches, never as a whole."""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import fnmatch
import hashlib
import io
import itertools
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet as pq

from .. import ProjectError, UnreachableError
from ..core.values import MISSING, NO_NUMBER, NUMBER_STYLES, clean_names, plain_number, to_time, trimmed, zoned
from . import parquet

BLOCK = 8 << 20  # bytes of text that are parsed at a time
ROWS = 100_000  # rows of the other kinds
LONGEST_LIST = 256 << 20  # characters of a JSON array
HEAD = 4 << 20  # bytes that are looked at to learn how a file is written
LOOKED_AT = 50  # rows that tell whether the first line is a header
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
KINDS = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".txt": "csv",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
PARTITION = re.compile(r"(?:^|/)([^/=]+=[^/]+)/")
"""A folder of a partitioned table, as Hive and Spark write it."""
ENCODINGS = ("cp1251", "koi8-r", "cp1250", "iso8859-2", "cp1253", "cp1254", "cp1257", "cp1255", "cp1256", "cp932", "euc-jp",
             "gb18030", "big5", "euc-kr", "cp874", "cp437", "cp850", "cp866", "mac-roman")  # fmt: skip
"""Encodings of text that is not UTF-8, other than cp1252; which one it is cannot be told from the bytes alone."""
DATABASES = ("sqlite", "duckdb", "postgresql")


Say = Callable[[str], object]


class SourceError(ProjectError):
    """The source of raw rows cannot be read; the text names the file, and the line or column where there is one."""


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
        _, files = _files(self.location)
        return [f"s3://{path}" if _scheme(self.location) == "s3" else path for path in files]

    def batches(self, columns: Sequence[str] | None = None, say: Say = lambda note: None) -> Iterator[pa.Table]:
        """Yield the rows as they are, a batch at a time: text of a CSV file as text, other values typed.

        Args:
            columns: Only these, of those that are there; by default all that can be columns of a table and are in the first file.
            say: Gets a sentence on each column that is passed over.

        Raises:
            SourceError: If the table is not there, or a part of it cannot be read; the text says which.
        """
        if _scheme(self.location) in DATABASES:
            yield from _database(self, columns)
            return
        system, files = _files(self.location)
        if part := next((part for path in files if (part := PARTITION.search(path.removeprefix(self.location)))), None):
            say(f"folders are named by values, such as {part[1]}: these are no column and are passed over.")
        first: tuple[str, list[str]] | None = None
        for path in files:
            with _naming(path):
                kind = _kind(path)
                table = _dialect(self, system, path, first[1]) if first and columns is None and kind == "csv" else self
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
        if _scheme(self.location) == "postgresql":
            digest.update(repr(_one_row(self)).encode())
            return digest.hexdigest()[:16]
        if _scheme(self.location) in DATABASES:
            database = _database_file(self.location)
            files = [str(database), f"{database}-wal", f"{database}.wal"]
            system: Any = pa.fs.LocalFileSystem()
        else:
            system, files = _files(self.location)
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


# ------------------------------------------------------------------------------------------------------- Places


def _scheme(location: str) -> str:
    return urlsplit(location).scheme.split("+")[0] if "://" in location else ""


def check_location(location: str, query: str) -> None:
    """Refuse an address that cannot be read, or that carries a password.

    Raises:
        SourceError: The text says which part, and never repeats the password.
    """
    scheme = _scheme(location)
    if scheme and (urlsplit(location).password or "password=" in location.lower()):
        where = "PGPASSWORD=..." if scheme == "postgresql" else "AWS_SECRET_ACCESS_KEY=..."
        raise SourceError(f"the {scheme} address carries a password. Leave it out, and put {where} into .env instead.")
    if scheme not in ("", "s3", *DATABASES):
        raise SourceError(
            f"{scheme}:// cannot be read. There are files and folders, s3://, sqlite:///, duckdb:/// and postgresql://."
        )
    if (scheme in DATABASES) != bool(query.strip()):
        raise SourceError(
            f'a {scheme} address needs QUERY="SELECT ...".' if not query.strip() else "QUERY goes with a database only."
        )


def _system(location: str) -> tuple[Any, str]:
    if _scheme(location) != "s3":
        return pa.fs.LocalFileSystem(), os.path.expanduser(location)  # noqa: PTH111 (a glob is no path)
    return object_store(location)


def object_store(location: str, endpoint: str = "") -> tuple[Any, str]:
    """The file system behind s3://, and the path in it; keys come from the environment.

    Args:
        location: s3://bucket/path.
        endpoint: The address of a store that is not Amazon's; by default AWS_ENDPOINT_URL, as all of its tools read it.
    """
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:  # others than Amazon may refuse the checksums that its library adds to the end of an upload
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    named = {"endpoint_override": endpoint, "scheme": urlsplit(endpoint).scheme} if endpoint else {}
    return pa.fs.S3FileSystem(connect_timeout=10, region=region, **named), location.removeprefix("s3://").rstrip("/")


def remove(system: Any, path: str) -> None:
    """Remove a file. Arrow then puts an empty object in the place of its folder, which some stores refuse; the file is gone."""
    try:
        system.delete_file(path)
    except OSError:
        if system.get_file_info(path).type != pa.fs.FileType.NotFound:
            raise


def _files(location: str) -> tuple[Any, list[str]]:
    """The files of a location, in order of their names."""
    if not location:
        raise SourceError("there is no table yet: make adopt DATA=../customers.csv TARGET=churned [TIME=...] [ID=...]")
    system, path = _system(location)
    try:
        if any(mark in path for mark in "*?[") and system.get_file_info(path).type == pa.fs.FileType.NotFound:
            fixed = path[: min(path.index(mark) for mark in "*?[" if mark in path)]
            folder = fixed.rsplit("/", 1)[0] if "/" in fixed else "."
            found = _under(system, folder)
            found = [one for one in found if fnmatch.fnmatch(one.removeprefix("./"), path.removeprefix("./"))]
        elif system.get_file_info(path).type == pa.fs.FileType.Directory:
            found = [one for one in _under(system, path) if _kind(one, strict=False)]
        else:
            found = [path] if system.get_file_info(path).type == pa.fs.FileType.File else []
    except OSError as error:
        kind = SourceError if isinstance(error, FileNotFoundError | PermissionError) else UnreachableError
        raise kind(f"{location} cannot be reached: {_first_line(error)}") from error
    if not found:
        raise SourceError(
            f"there is no table at {location}: no such file, or none in it whose name ends in one of {_ends()}."
        )
    return system, sorted(found)


def _under(system: Any, folder: str) -> list[str]:
    found = system.get_file_info(pa.fs.FileSelector(folder, recursive=True, allow_not_found=True))
    files = [one.path for one in found if one.type == pa.fs.FileType.File]
    return [path for path in files if not PurePosixPath(path).name.startswith((".", "_"))]


def _ends() -> str:
    return ", ".join(KINDS)


def _kind(path: str, strict: bool = True) -> str:
    name = PurePosixPath(path)
    suffix = PurePosixPath(name.stem).suffix if name.suffix.lower() in COMPRESSED else name.suffix
    kind = KINDS.get(suffix.lower(), "")
    if strict and not kind:
        raise SourceError(
            f"{path} is of no kind that can be read; its name should end in one of {_ends()}, or those and .gz."
        )
    return kind


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """What a library says about a file, with the file's name."""
    try:
        yield
    except (ProjectError, GeneratorExit):
        raise
    except (OSError, EOFError, UnicodeError, ValueError, pa.ArrowException) as error:
        broken = isinstance(error, EOFError) or "runcated" in str(error) or "end of" in str(error).lower()
        raise SourceError(
            f"{path} cannot be read{': it is truncated' if broken else ''} ({_first_line(error)})."
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


# -------------------------------------------------------------------------------------------------------- Kinds


def _opened(system: Any, path: str) -> Any:
    compression = COMPRESSED.get(PurePosixPath(path).suffix.lower())
    return system.open_input_stream(path, compression=compression)


def head(location: str) -> tuple[str, bytes]:
    """The first file of a location, and the beginning of what is in it, decompressed."""
    system, files = _files(location)
    with _naming(files[0]), _opened(system, files[0]) as stream:
        return files[0], stream.read(HEAD)


def sniff(table: Table) -> Table:
    """Find out the separator and the encoding of a text file.

    Raises:
        SourceError: If it is empty, or no text.
    """
    if _scheme(table.location) in DATABASES:
        return table
    path, start = head(table.location)
    kind = _kind(path)
    if kind == "parquet":
        return table
    if not start.strip():
        raise SourceError(f"{path} is empty.")
    encoding = _encoding(start)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(start)
    if "\0" in text:
        raise SourceError(f"{path} is no text; is it a spreadsheet or an archive? Save it as CSV or Parquet.")
    return dataclasses.replace(table, encoding=encoding, separator=_separator(text) if kind == "csv" else ",")


def with_columns(table: Table, names: Collection[str]) -> Table:
    """Return a CSV file in the encoding in which it has all the columns that the user names; as it is where none has.

    Args:
        table: as `sniff` returns it.
        names: names of columns.
    """
    if table.encoding != "cp1252" or _scheme(table.location) in DATABASES:
        return table
    system, files = _files(table.location)
    if _kind(files[0]) != "csv":
        return table
    for encoding in (table.encoding, *ENCODINGS):
        candidate = dataclasses.replace(table, encoding=encoding)
        if set(names) <= set(_header(candidate, system, files[0])[1]):
            return candidate
    return table


def _encoding(start: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if start.startswith(mark):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _encoding_of(table: Table, system: Any, path: str) -> str:
    """Return the encoding of one file: that of the table, unless the file itself shows UTF-8 or UTF-16.

    A file of rows to be scored may be written elsewhere than the source. Text of an 8-bit encoding that has letters beyond ASCII
    is practically never valid UTF-8.
    """
    with _opened(system, path) as stream:
        start = stream.read(HEAD)
    found = _encoding(start)
    return found if found != "cp1252" and not start.isascii() else table.encoding


def _separator(text: str) -> str:
    """The mark that cuts most lines into the same number of fields, more than one."""
    if line := SEPARATOR_LINE.match(text):
        return line[1]
    text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    best, score = ",", 0.0
    for mark in (",", ";", "\t", "|"):
        try:
            widths = [
                len(row)
                for _, row in zip(range(2000), _lines(io.StringIO(text, newline=None), mark), strict=False)
                if row
            ]
        except csv.Error:
            continue
        same = sum(width == widths[0] for width in widths) / len(widths) if widths else 0.0
        found = same * (widths[0] > 1) + min(widths[0], 50) / 1000 if widths else 0.0
        if found > score:
            best, score = mark, found
    return best


MARKS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEPARATOR_LINE = re.compile(r"\ufeff?sep=([,;|\t])[\r\n]+")
"""A line above the header that states the separator for Excel."""


def _lines(text: io.TextIOBase, separator: str) -> Any:
    """The rows of a CSV file; a value may be as long as elsewhere, not 131,072 characters alone."""
    csv.field_size_limit(max(BLOCK, csv.field_size_limit()))
    return csv.reader(text, delimiter=separator)


def _dialect(table: Table, system: Any, path: str, columns: Collection[str]) -> Table:
    """The table with the encoding of one of its files, and the separator, if its header has none of the columns by that of the table."""
    table = dataclasses.replace(table, encoding=_encoding_of(table, system, path))
    header, names, _ = _header(table, system, path)
    if not columns or len(header) > 1 or names[0] in columns:
        return table
    with _opened(system, path) as stream:
        text = codecs.getincrementaldecoder(table.encoding)(errors="replace").decode(stream.read(HEAD)).lstrip("\ufeff")
    other = _separator(text)
    if other == table.separator or other not in header[0]:
        return table
    print(
        f"note: {path} separates values by {MARKS[other]} and the source by {MARKS.get(table.separator, table.separator)}; it is read so",
        file=sys.stderr,
        flush=True,
    )
    return dataclasses.replace(table, separator=other)


def _csv(table: Table, system: Any, path: str, columns: Sequence[str] | None, say: Say) -> Iterator[pa.Table]:
    table = _dialect(table, system, path, columns or ())
    header, names, above = _header(table, system, path)
    wanted = names if columns is None else [name for name in columns if name in names]
    count_only = wanted or names[:1]
    wrong: list[Any] = []

    def refuse(row: Any) -> str:
        wrong.append(row)
        return "error"

    try:
        reader = pyarrow.csv.open_csv(
            _opened(system, path),
            read_options=pyarrow.csv.ReadOptions(
                block_size=BLOCK, column_names=names, encoding=table.encoding, skip_rows=above,
                skip_rows_after_names=int(table.header is not False),
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=table.separator, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(count_only, pa.string()), include_columns=count_only,
                strings_can_be_null=True, null_values=[""],
            ),
        )  # fmt: skip
        for batch in reader:
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, UnicodeError) as error:
        if wrong:
            raise SourceError(_uneven(table, system, path, len(header))) from error
        if "UTF8" in str(error) or isinstance(error, UnicodeError):
            raise EncodingError(
                f"{path} is not written in {table.encoding} throughout ({_first_line(error)}). Save it as UTF-8, or name its encoding "
                "in io/source.py if it is the source: cp1252 for example."
            ) from error
        if "straddling" in str(error):
            with _opened(system, path) as stream:
                text = stream.read(BLOCK)
            if len(text) < BLOCK:
                if b'"' not in text:  # a header whose line does not end, and nothing below it
                    return
                raise SourceError(f"{path} has a quote that is never closed. Close it, or remove it.") from error
            raise SourceError(
                f"{path} has a value or a row of more than {BLOCK >> 20} MiB; is a quote never closed?"
            ) from error
        if "Empty CSV" in str(error):
            return
        raise


class EncodingError(SourceError):
    """A text file has bytes that its encoding does not know."""


def _header(table: Table, system: Any, path: str) -> tuple[list[str], list[str], int]:
    """Return the header as written, the names of the columns, and the number of lines above the header."""
    with _opened(system, path) as stream:
        text = codecs.getincrementaldecoder(table.encoding)(errors="replace").decode(stream.read(HEAD)).lstrip("\ufeff")
    above = int(SEPARATOR_LINE.match(text) is not None)
    text = SEPARATOR_LINE.sub("", text, count=1)
    reader = _lines(io.StringIO(text, newline=None), table.separator)
    try:
        first = [row for _, row in zip(range(LOOKED_AT), filter(None, reader), strict=False)]
    except csv.Error as error:  # a value that does not end in what was read
        if reader.line_num <= 1:
            raise SourceError(f"line 1 of {path} cannot be read ({error}).") from error
        first = [next(_lines(io.StringIO(text, newline=None), table.separator))]
    if not first:
        raise SourceError(f"{path} is empty.")
    if table.header is False:
        return first[0], [f"column_{place}" for place in range(1, len(first[0]) + 1)], above
    if table.header is None and len(first[0]) > 1 and _is_data(first[0], first[1:]):
        raise SourceError(
            f"{path} seems to have no header: its first line is {', '.join(first[0][:4])} ... Put the names of the columns "
            "there. If it is a header, say HEADER=yes; HEADER=no calls the columns column_1, column_2, ..."
        )
    return first[0], clean_names(first[0]), above


def _is_data(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line is a row like those below: mostly numbers, and none where no number is below.

    Years are names, where the numbers below are no years: 2019, 2020, 2021.
    """
    numbers = [_is_number(name) for name in header]
    if sum(numbers) <= len(header) / 2:
        return False
    below = [[row[place] for row in rows if len(row) == len(header)] for place in range(len(header))]
    for place, is_number in enumerate(numbers):
        values = [value for value in below[place] if value.strip()]
        if (
            values
            and not is_number
            and header[place].strip() not in MISSING
            and sum(map(_is_number, values)) > len(values) / 2
        ):
            return False  # a word above numbers
    named = [name for name, is_number in zip(header, numbers, strict=True) if is_number]
    years = all(re.fullmatch(r"(19|20)\d\d", name.strip()) for name in named) and len(set(named)) == len(named)
    return not years or all(
        re.fullmatch(r"(19|20)\d\d", value.strip())
        for place, is_number in enumerate(numbers) if is_number for value in below[place] if value.strip()
    )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _uneven(table: Table, system: Any, path: str, width: int) -> str:
    """Which line has another number of fields; found by reading again, since the fast reader does not count lines."""
    with _opened(system, path) as stream:
        text = io.TextIOWrapper(stream, encoding=table.encoding, errors="replace", newline=None)
        reader = _lines(text, table.separator)
        for row in reader:
            if reader.line_num == 1 and SEPARATOR_LINE.match(f"{table.separator.join(row)}\n"):
                continue
            if row and len(row) != width:
                if width == 1:
                    return (
                        f"line {reader.line_num} of {path} has {len(row)} fields, the header has 1. The header has to be the "
                        "first line: remove titles and comments above it."
                    )
                return (
                    f"line {reader.line_num} of {path} has {len(row)} fields, the header has {width}: "
                    f"{table.separator.join(row)[:80]} ... Mend the line; a value with {table.separator!r} in it stands in quotes."
                )
    return f"{path} has rows with another number of fields than its header."


def _json(table: Table, system: Any, path: str, columns: Sequence[str] | None, say: Say) -> Iterator[pa.Table]:
    given: dict[str, None] = {}
    nested: dict[str, str] = {}
    for number, row in enumerate(_objects(table, system, path), start=1):  # a key may come late, and each batch has all
        given.update(dict.fromkeys(row))
        nested |= {
            name: f"line {number} of {path}: {name} holds a {type(value).__name__}"
            for name, value in row.items()
            if name not in nested and isinstance(value, dict | list)
        }
    named = dict(zip(given, clean_names([*given]), strict=True))
    wanted = {key: name for key, name in named.items() if columns is None or name in columns}
    for key in [key for key in wanted if key in nested]:
        if columns is not None:
            raise SourceError(f"{nested[key]}; give it columns of its own.")
        say(f"{nested[key]}: it is passed over.")
        del wanted[key]
    wanted = wanted or dict([*named.items()][:1])
    objects = _objects(table, system, path)
    while rows := list(itertools.islice(objects, ROWS)):
        yield pa.table({name: _array([row.get(key) for row in rows]) for key, name in wanted.items()})


def _objects(table: Table, system: Any, path: str) -> Iterator[dict[str, Any]]:
    encoding = table.encoding.replace("utf-8", "utf-8-sig")
    with _opened(system, path) as stream:
        is_list = io.TextIOWrapper(stream, encoding=encoding).read(1000).lstrip().startswith("[")
    if is_list:
        yield from _listed(encoding, system, path)
        return
    with _opened(system, path) as stream:
        lines = io.TextIOWrapper(stream, encoding=encoding)
        for number, line in enumerate(iter(lambda: lines.readline(BLOCK), ""), start=1):
            if len(line) == BLOCK:
                raise SourceError(
                    f"line {number} of {path} is longer than {BLOCK >> 20} MiB; write one JSON object per line."
                )
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"line {number} of {path} is no JSON object ({error}).") from error
            if not isinstance(row, dict):
                raise SourceError(
                    f"line {number} of {path} is no JSON object but a {type(row).__name__}; one object per line."
                )
            yield row


def _listed(encoding: str, system: Any, path: str) -> Iterator[dict[str, Any]]:
    """The objects of a file that is one JSON array, which is read whole."""
    with _opened(system, path) as stream:
        text = io.TextIOWrapper(stream, encoding=encoding).read(LONGEST_LIST + 1)
    if len(text) > LONGEST_LIST:
        raise SourceError(
            f"{path} is a JSON array of more than {LONGEST_LIST >> 20} million characters, which is read whole. Write one object per line: "
            f"jq -c '.[]' {path} > rows.jsonl"
        )
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} begins as a JSON array and is none ({error}). Is it cut off?") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise SourceError(f"element {number} of the array in {path} is no JSON object but a {type(row).__name__}.")
        yield row


def _array(values: list[Any]) -> pa.Array:
    """Values of one kind as that kind, of several as text."""
    try:
        found = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([None if value is None else _as_written(value) for value in values], pa.string())
    return _plain(found)


def _plain(values: pa.Array) -> pa.Array:
    """Values of the kinds that a table is made of: times of day and durations as seconds, texts as one kind of text."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        ticks = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        whole = values.cast(pa.int32()).cast(pa.int64()) if pa.types.is_time32(kind) else values.cast(pa.int64())
        return pc.divide(pc.cast(whole, pa.float64(), safe=False), ticks)
    return values.cast(pa.float32()) if pa.types.is_float16(kind) else values


def _as_written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parquet(table: Table, system: Any, path: str, columns: Sequence[str] | None, say: Say) -> Iterator[pa.Table]:
    with pq.ParquetFile(system.open_input_file(path), pre_buffer=False) as file:
        schema = file.schema_arrow
        clean = clean_names(schema.names)
        opaque = [place for place in range(len(clean)) if parquet.is_opaque(schema.field(place).type)]
        wanted = [place for place, name in enumerate(clean) if columns is None or name in columns]
        for place in [place for place in wanted if place in opaque]:
            what = f"{path}: {clean[place]} is of type {schema.field(place).type}"
            if columns is not None:
                raise SourceError(f"{what}; give it columns of its own.")
            say(f"{what}: it is passed over.")
            wanted.remove(place)
        wanted = wanted or [place for place in range(len(clean)) if place not in opaque][:1]
        names = [schema.names[place] for place in wanted]
        rows = parquet.rows_per_batch(lambda: system.open_input_file(path), path, names, ROWS)
        for batch in file.iter_batches(rows, columns=names):
            for place, name in enumerate(names):
                parquet.check_texts(batch.column(place), path, name)
            yield pa.Table.from_arrays([_plain(values) for values in batch.columns], names=[clean[at] for at in wanted])


_READERS = {"csv": _csv, "json": _json, "parquet": _parquet}


# ---------------------------------------------------------------------------------------------------- Databases


def _database_file(location: str) -> Path:
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
    scheme = _scheme(location)
    connection: Any
    try:
        if scheme == "sqlite":
            connection = sqlite3.connect(f"{_database_file(location).absolute().as_uri()}?mode=ro", uri=True)
            cursor = connection.cursor()
        elif scheme == "duckdb":
            import duckdb

            connection = duckdb.connect(str(_database_file(location)), read_only=True)
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
            f"the {scheme} database does not open: {_first_line(error)}. A password comes from .env (PGPASSWORD)."
        ) from error
    try:
        yield cursor
    finally:
        connection.close()


DRIVERS = {"duckdb": "duckdb>=1.4", "postgresql": "psycopg[binary]>=3.2"}


def _database(table: Table, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    with _connected(table.location) as cursor:
        try:
            cursor.execute(table.query.strip().rstrip(";"))
            rows = cursor.fetchmany(ROWS)
            names = clean_names([one[0] for one in cursor.description])
            wanted = [place for place, name in enumerate(names) if columns is None or name in columns] or [0]
            while rows:
                yield pa.table({names[place]: _array([row[place] for row in rows]) for place in wanted})
                rows = cursor.fetchmany(ROWS)
        except (GeneratorExit, ProjectError):
            raise
        except Exception as error:  # each driver has errors of its own
            raise SourceError(f"the query failed: {_first_line(error)}.") from error


def _one_row(table: Table) -> Any:
    """What changes when a query's result does, asked of the server."""
    with _connected(table.location) as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) "  # noqa: S608 (the project's own query)
            f"FROM ({table.query.strip().rstrip(';')}) AS t"
        )
        return [str(value) for value in cursor.fetchone()]
