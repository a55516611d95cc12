"""Limits for Parquet files from outside: a small file can hold texts that take gigabytes once they are read.

A column chunk is compressed, and a dictionary-encoded text is stored once however often it occurs. The file's metadata and
its dictionaries show both before any column is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from copier_mlops import ProjectError

MAX_TEXT_BYTES = 8 << 20
"""Longest text of a cell, as for CSV."""
MAX_BATCH_BYTES = 64 << 20
"""Most bytes of one text column that are decoded at a time."""
MAX_CHUNK_BYTES, MAX_RATIO = 64 << 20, 500
"""A column chunk that grows beyond this size by more than this factor is not decompressed."""
MAX_TABLE_BYTES = 256 << 20
"""A file whose rows take more than this in memory, and more than MAX_RATIO times its size, is not read as a whole."""


class ParquetLimitError(ProjectError):
    """A Parquet file would take more memory than a table needs; the text names the column."""


def rows_per_batch(opened: Callable[[], Any], path: str, columns: Sequence[str], most: int) -> int:
    """Return the number of rows of a file that may be decoded at a time.

    Args:
        opened: opens the file once more.
        path: name of the file, for the error.
        columns: names of the columns that will be read.
        most: number of rows per batch of an ordinary file.

    Returns:
        1 to `most` rows, so many that no text column decodes to more than MAX_BATCH_BYTES.

    Raises:
        ParquetLimitError: a text is longer than MAX_TEXT_BYTES, or a column chunk is a decompression bomb.
    """
    with pq.ParquetFile(opened(), pre_buffer=False) as file:
        texts = {name for name in columns if _is_text(file.schema_arrow.field(name).type)}
        encoded = [
            _checked(file.metadata.row_group(group), path, columns) & texts for group in range(file.num_row_groups)
        ]
    names = sorted(set().union(*encoded))
    if not names:
        return most
    longest = 1
    with pq.ParquetFile(opened(), pre_buffer=False, read_dictionary=names) as file:
        for group, present in enumerate(encoded):
            # The dictionary of a row group precedes its rows, so that one row shows all of it.
            for batch in file.iter_batches(1, row_groups=[group], columns=sorted(present)) if present else ():
                for name, values in zip(batch.schema.names, batch.columns, strict=True):
                    longest = max(longest, check_texts(values, path, name))
                break
    return max(1, min(most, MAX_BATCH_BYTES // longest))


def check_growth(path: Path, size: int) -> None:
    """Refuse a file that takes too much memory for its size.

    Args:
        path: the file.
        size: bytes in memory of the rows that were read so far.

    Raises:
        ParquetLimitError: the rows take more than MAX_TABLE_BYTES and more than MAX_RATIO times the size of the file.
    """
    stored = path.stat().st_size
    if size > max(MAX_TABLE_BYTES, MAX_RATIO * stored):
        raise ParquetLimitError(
            f"{path} grows from {stored:,} to more than {size:,} bytes when it is read as a whole. Check the file; "
            "`make score` reads a large one in batches."
        )


def is_opaque(kind: pa.DataType) -> bool:
    """Whether a column holds no values that a contract can describe: bytes, lists, structs or maps."""
    tests = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in (*tests, pa.types.is_binary_view))


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or (pa.types.is_dictionary(kind) and _is_text(kind.value_type))
    )


def _checked(group: Any, path: str, columns: Sequence[str]) -> set[str]:
    """Refuse decompression bombs in a row group; return the columns that have a dictionary."""
    encoded = set()
    for place in range(group.num_columns):
        chunk = group.column(place)
        name, size, stored = chunk.path_in_schema, chunk.total_uncompressed_size, chunk.total_compressed_size
        if name not in columns:
            continue
        if size > max(MAX_CHUNK_BYTES, MAX_RATIO * stored):
            raise ParquetLimitError(
                f"{path}: column {name} grows from {stored:,} to {size:,} bytes when it is decompressed, more than the "
                f"factor {MAX_RATIO} that is allowed. Write the file without the long values, or leave the column out."
            )
        if chunk.has_dictionary_page:
            encoded.add(name)
    return encoded


def check_texts(values: pa.Array, path: str, name: str) -> int:
    """Return the length of the longest text of a column in bytes; 0 if it holds no texts.

    Raises:
        ParquetLimitError: the text is longer than MAX_TEXT_BYTES.
    """
    texts = values.dictionary if pa.types.is_dictionary(values.type) else values
    if not _is_text(texts.type) or not len(texts):
        return 0
    longest = pc.max(pc.binary_length(texts.cast(pa.large_string()))).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise ParquetLimitError(
            f"{path}: column {name} has a value of {longest:,} bytes; {MAX_TEXT_BYTES >> 20} MiB are allowed. "
            "Write the file without the long values, or leave the column out."
        )
    return int(longest)
