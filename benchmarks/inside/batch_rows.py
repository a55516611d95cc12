"""Validated rows, repeated into one Parquet file, and the time that reading and predicting them alone takes. Runs in a project.

python batch_rows.py write rows.parquet 1000000
python batch_rows.py alone PACKAGE rows.parquet            seconds of reading, features and model, one batch after the other
python batch_rows.py scored PACKAGE rows.parquet answers   seconds of batch
"""

import importlib
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 100_000  # of a batch


def write(target: str, count: int) -> None:
    """The rows of data/validated as often as it takes; the id tells them apart."""
    files = sorted(Path("data/validated").rglob("*.parquet"))
    rows = pd.concat([pd.read_parquet(file, partitioning=None) for file in files], ignore_index=True)
    made, writer = 0, None
    while made < count:
        part = rows.head(count - made)
        table = pa.Table.from_pandas(part.assign(flight_id=part["flight_id"] + f"-{made}"), preserve_index=False)
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=ROWS)
        made += len(part)
    if writer is not None:
        writer.close()


def alone(package: str, source: str) -> float:
    """Seconds that it takes to read a table and to answer it without looking at it, and without keeping the answers."""
    exported = importlib.import_module("copier_mlops.bundle.serving_bundle")
    bundle = exported.load(Path("dist/bundle"))
    names = [column.name for column in bundle.contract.without_target()]
    begun = time.perf_counter()
    with pq.ParquetFile(source, pre_buffer=False) as table:
        for batch in table.iter_batches(ROWS, columns=names):
            bundle.score(batch.to_pandas())
    return time.perf_counter() - begun


def scored(package: str, source: str, target: str) -> float:
    """Seconds that batch takes for the same, with all that it does beside."""
    batch = importlib.import_module("copier_mlops.serving.batch")
    exported = importlib.import_module("copier_mlops.bundle.serving_bundle")
    settings = importlib.import_module(f"{package}.settings").Settings()
    folder = Path("dist/bundle")
    bundle = exported.load(folder)
    begun = time.perf_counter()
    batch.score(bundle, source, target, settings, folder)
    return time.perf_counter() - begun


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "alone":
        print(alone(*sys.argv[2:]))
    else:
        print(scored(*sys.argv[2:]))
