"""ingest: rows of the window from the source, masked, into data/raw. Nothing unmasked is ever written."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from copier_mlops import ProjectError, project
from copier_mlops._progress import progress
from copier_mlops.contract.contract import mask, without
from copier_mlops.contract.validation import FIRST_MOMENT
from copier_mlops.data import tables
from copier_mlops.params import Run, load_run
from copier_mlops.pipeline.run_config import readable_source
from copier_mlops.settings import Paths, Settings


def ingest(settings: Settings) -> int:
    """Stream the source into monthly Parquet.

    Returns:
        The number of rows.

    Raises:
        ProjectError: If the source has no rows in the window.
    """
    run = load_run()
    end: Any = pd.Timestamp(run.resolved.end) if run.resolved.end else None
    start: Any = pd.Timestamp(run.resolved.start) if run.resolved.start else FIRST_MOMENT if end else None
    key = settings.mask_key.get_secret_value()
    forgotten = frozenset(Paths.FORGOTTEN.read_text().split()) if Paths.FORGOTTEN.exists() else frozenset()
    with readable_source(settings), progress("ingest", "rows", run.source.rows, of_stage=True) as advance:
        chunks = project.source().read(settings.source_uri, start, end, project.contract().names)
        counted = _Counted(chunks, advance)
        kept = (mask(without(chunk, project.contract(), forgotten, key), project.contract(), key) for chunk in counted)
        rows = tables.write_by_month(kept, Paths.RAW, project.contract().time)
    if rows == 0:
        since = f" from {run.resolved.start:%Y-%m-%d}" if run.resolved.start else ""
        when = f"{since} to {end:%Y-%m-%d}" if end else ""
        raise ProjectError(
            f"the source has no rows{when}. "
            "Widen `window` in params.yaml, or look whether source.py reads the right place."
        )
    print(f"{rows:,} rows")
    if outside := _outside(run, counted.rows):
        print(outside)
    return rows


class _Counted:
    """Chunks, and how many rows they had."""

    def __init__(self, chunks: Iterable[pd.DataFrame], advance: Callable[[int], None]) -> None:
        self.chunks = chunks
        self.advance = advance
        self.rows = 0

    def __iter__(self) -> Iterator[pd.DataFrame]:
        for chunk in self.chunks:
            self.rows += len(chunk)
            yield chunk
            self.advance(len(chunk))


def _outside(run: Run, rows: int) -> str:
    """Say how many rows of the source the window leaves out; empty if none.

    Args:
        run: The resolved run.
        rows: Number of rows that were read.
    """
    left = run.source.rows - rows
    if left <= 0 or (run.window.days is None and run.window.until == "newest"):
        return ""
    days = [f"before {run.resolved.start:%Y-%m-%d}"] if run.resolved.start else []
    days += [f"from {run.resolved.end:%Y-%m-%d} on"] if run.resolved.end and run.window.until != "newest" else []
    return (
        f"{left:,} of {run.source.rows:,} rows at the source are outside the window ({', '.join(days)}) and are not used. `window` in "
        "params.yaml sets it: `days: null` and `until: newest` take all."
    )
