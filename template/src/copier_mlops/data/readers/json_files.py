"""JSON lines and JSON arrays as batches of rows."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from copier_mlops.contract.parsing import clean_names
from copier_mlops.data.readers.locations import BLOCK, ROWS, SourceError, opened

if TYPE_CHECKING:
    from copier_mlops.data.readers.locations import Say
    from copier_mlops.data.readers.table import Table

LONGEST_LIST = 256 << 20  # characters of a JSON array


def read_json(table: Table, system: Any, path: str, columns: Sequence[str] | None, say: Say) -> Iterator[pa.Table]:
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
        yield pa.table({name: as_array([row.get(key) for row in rows]) for key, name in wanted.items()})


def _objects(table: Table, system: Any, path: str) -> Iterator[dict[str, Any]]:
    encoding = table.encoding.replace("utf-8", "utf-8-sig")
    with opened(system, path) as stream:
        is_list = io.TextIOWrapper(stream, encoding=encoding).read(1000).lstrip().startswith("[")
    if is_list:
        yield from _listed(encoding, system, path)
        return
    with opened(system, path) as stream:
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
    with opened(system, path) as stream:
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


def as_array(values: list[Any]) -> pa.Array:
    """Values of one kind as that kind, of several as text."""
    try:
        found = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([None if value is None else _as_written(value) for value in values], pa.string())
    return plain(found)


def plain(values: pa.Array) -> pa.Array:
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
