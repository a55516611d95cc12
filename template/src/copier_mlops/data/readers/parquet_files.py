"""Parquet as batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from copier_mlops.contract.parsing import clean_names
from copier_mlops.data import parquet
from copier_mlops.data.readers.json_files import plain
from copier_mlops.data.readers.locations import ROWS, SourceError

if TYPE_CHECKING:
    from copier_mlops.data.readers.locations import Say
    from copier_mlops.data.readers.table import Table


def read_parquet(table: Table, system: Any, path: str, columns: Sequence[str] | None, say: Say) -> Iterator[pa.Table]:
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
            yield pa.Table.from_arrays([plain(values) for values in batch.columns], names=[clean[at] for at in wanted])
