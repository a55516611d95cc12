"""Tables on disk: folders of Parquet, one folder per month, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from copier_mlops import ProjectError, _files
from copier_mlops.data import parquet

FLUSH_ROWS = 500_000  # rows that a writer holds back, so that small chunks do not become small files


class TableError(ProjectError):
    """A table cannot be read or written; the text names the file and what to do."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, and is removed when it does not.

    Raises:
        TableError: If the disk is full or the place cannot be written to.
    """
    try:
        with _files.replacing(path) as partial:
            yield partial
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(path.parent).free // 2**20
            raise TableError(
                f"the disk is full while writing {path} ({free} MiB free). Nothing half-written is kept; "
                "make room (`dvc gc --workspace` drops old versions of the data) and run the same command again."
            ) from error
        if isinstance(error, PermissionError):
            raise TableError(f"{path} cannot be written: {error.strerror}. Check who owns the folder.") from error
        if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENAMETOOLONG):
            raise TableError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
        raise


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write one Parquet file.

    Raises:
        TableError: As `writing`.
    """
    frame = frame.reset_index(drop=True)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a column of mixed kinds: keep what it says, validation judges it
        mixed = [name for name in frame if frame[name].dtype == object]
        table = pa.Table.from_pandas(frame.astype(dict.fromkeys(mixed, "str")), preserve_index=False)
    with writing(path) as partial, pq.ParquetWriter(partial, table.schema, compression="zstd") as writer:
        writer.write_table(table)


def write_by_month(chunks: Iterable[pd.DataFrame], folder: Path, time: str | None) -> int:
    """Write a stream of frames into `folder/month=2013-07/part-0000.parquet` and so on.

    Args:
        chunks: Frames in any order of time. At most FLUSH_ROWS and one chunk are held in memory.
        folder: Replaced as a whole.
        time: The column that tells the month. What is no time goes to `month=unknown`, for validation to judge. None:
            all rows go to `month=all`.

    Returns:
        The number of rows.
    """
    shutil.rmtree(folder, ignore_errors=True)
    counts: dict[str, int] = {}
    held: list[pd.DataFrame] = []
    rows = 0

    def flush() -> None:
        frame = pd.concat(held, ignore_index=True) if len(held) > 1 else held[0]
        held.clear()
        for month, part in frame.groupby(_months(frame, time), sort=True):
            number = counts.get(str(month), 0)
            counts[str(month)] = number + 1
            write(part, folder / f"month={month}" / f"part-{number:04d}.parquet")

    for chunk in chunks:
        held.append(chunk)
        rows += len(chunk)
        if sum(map(len, held)) >= FLUSH_ROWS:
            flush()
    if held:
        flush()
    return rows


def _months(frame: pd.DataFrame, time: str | None) -> pd.Series:
    if time is None:
        return pd.Series("all", frame.index)
    if time not in frame or pd.api.types.is_numeric_dtype(frame[time].dtype):
        return pd.Series("unknown", frame.index)
    moments = pd.to_datetime(frame[time], utc=True, errors="coerce")
    return moments.dt.strftime("%Y-%m").fillna("unknown")


def parts(folder: Path) -> list[tuple[str, list[Path]]]:
    """The months of a table in order, each with its files.

    Raises:
        TableError: If the folder is missing or empty.
    """
    months = sorted(folder.glob("month=*"))
    if not months:
        raise TableError(f"{folder} holds no data. `make pipeline` makes it, `make pull` fetches it.")
    return [(month.name.removeprefix("month="), sorted(month.glob("*.parquet"))) for month in months]


def read(path: Path, skip: Sequence[str] = ()) -> pd.DataFrame:
    """Read one Parquet file, without the columns to skip.

    Raises:
        TableError: If it is missing, truncated or no Parquet.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # not the folder's `month=`, and memory flat in rows
            return file.read([name for name in file.schema_arrow.names if name not in skip]).to_pandas()  # type: ignore[no-any-return]
    except FileNotFoundError as error:
        raise TableError(f"{path} is missing. `make pipeline` makes it, `make pull` fetches it.") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}). It is truncated or of another kind; "
            "if it belongs to this project, delete it and run `make pipeline`."
        ) from error


def read_between(
    folder: Path,
    time: str | None,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    skip: Sequence[str] = (),
) -> pd.DataFrame:
    """Read the rows of a table with `start <= time < end`, ordered by month, without the columns to skip.

    Text columns come as categories: ten million names of airports are ten million small numbers.

    Raises:
        TableError: If a file cannot be read.
    """
    tables = []
    for month, files in parts(folder):
        if (start is not None and month < f"{start:%Y-%m}") or (end is not None and month > f"{end:%Y-%m}"):
            continue
        for file in files:
            frame = read(file, skip)
            inside = np.ones(len(frame), dtype=bool)
            if start is not None:
                inside &= (frame[time] >= start).to_numpy()
            if end is not None:
                inside &= (frame[time] < end).to_numpy()
            frame = frame if inside.all() else frame[inside]
            texts = [name for name in frame if pd.api.types.is_string_dtype(frame[name].dtype)]
            tables.append(frame.astype(dict.fromkeys(texts, "category")))
    if not tables:
        raise TableError(f"{folder} has no rows from {start} to {end}. Widen `window` in params.yaml.")
    return _concat(tables)


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate column by column, freeing as it goes, so that the peak is the result and one column."""
    if len(frames) == 1:
        return frames[0].reset_index(drop=True)
    result: dict[str, Any] = {}
    for name in [str(name) for name in frames[0]]:
        pieces = [frame.pop(name) for frame in frames]
        if isinstance(pieces[0].dtype, pd.CategoricalDtype):
            result[name] = pd.api.types.union_categoricals(pieces, sort_categories=True)
        else:
            result[name] = pd.concat(pieces, ignore_index=True)
    return pd.DataFrame(result, copy=False)


def read_any(path: Path, limited: bool = False) -> pd.DataFrame:
    """Read a table that a person brought: Parquet, or CSV with a header, compressed or not.

    Args:
        path: the file.
        limited: whether a Parquet file of others is read within the limits of `parquet`, without columns that are not values.

    Raises:
        ParquetLimitError: the limits do not allow it.
        TableError: If it is missing, empty or neither.
    """
    if not path.is_file():
        raise TableError(
            f"{path} does not exist or is no file. Give a .parquet or .csv file: make predict INPUT=rows.csv"
        )
    if ".parquet" in path.suffixes:
        return _read_limited(path) if limited else read(path)
    if ".csv" not in path.suffixes:
        raise TableError(f"{path} is neither .parquet nor .csv; it was not read.")
    try:
        return pd.read_csv(path, float_precision="round_trip")  # the default is off in the last digit
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError) as error:
        raise TableError(f"{path} cannot be read as CSV: {str(error).strip()}") from error


def _read_limited(path: Path) -> pd.DataFrame:
    """Read a Parquet file of others within the limits of `parquet`, without columns of bytes, lists or structs."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            names = [field.name for field in file.schema_arrow if not parquet.is_opaque(field.type)]
            rows = parquet.rows_per_batch(lambda: path, str(path), names, FLUSH_ROWS)
            batches, size = [], 0
            for batch in file.iter_batches(rows, columns=names):
                size += batch.nbytes
                parquet.check_growth(path, size)
                batches.append(batch)
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            table = pa.Table.from_batches(batches, batches[0].schema if batches else schema)
    except (pa.ArrowException, OSError):
        return read(path)  # which says what is wrong
    return pd.DataFrame(table.to_pandas(), copy=False)


def write_any(frame: pd.DataFrame, path: Path) -> None:
    """Write Parquet or CSV, as the name ends.

    Raises:
        TableError: The name ends in neither; else as `writing`.
    """
    check_suffix(path)
    if path.suffix.lower() == ".csv":
        with writing(path) as partial:
            frame.apply(_without_formulas).to_csv(partial, index=False)
    else:
        write(frame, path)


def check_suffix(path: Path) -> None:
    """Refuse a file name that names no format.

    Raises:
        TableError: The name ends in neither .csv nor .parquet.
    """
    if path.suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise TableError(f"{path} cannot be written: its name has to end in .csv or .parquet.")


def _without_formulas(values: pd.Series) -> pd.Series:
    """The column after `spreadsheet_safe`; it may hold other values than texts, too."""
    is_text = values.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)
    if not is_text.any():
        return values
    texts = values.astype(object)
    texts[is_text] = spreadsheet_safe(pa.array(texts[is_text], pa.string())).to_pylist()
    return texts


def spreadsheet_safe(texts: pa.Array) -> pa.Array:
    """Put an apostrophe before each text that a spreadsheet would run as a formula; signed numbers stay as they are.

    Source: OWASP, CSV injection.
    """
    formula = pc.match_substring_regex(texts, r"^[\s]*[=+\-@\t\r]")
    number = pc.match_substring_regex(texts, r"^[+-][0-9 .,]+([eE][+-]?[0-9]+)?$")
    return pc.if_else(pc.and_not(formula, number), pc.binary_join_element_wise("'", texts, ""), texts)


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(content: Any, path: Path) -> None:
    """Write JSON that a person can read, whole or not at all."""
    write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        TableError: If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TableError(f"{path} is missing. `make pipeline` makes it.") from error
    except (ValueError, OSError, RecursionError) as error:
        raise TableError(f"{path} cannot be read ({error}). Delete it and run `make pipeline`.") from error
