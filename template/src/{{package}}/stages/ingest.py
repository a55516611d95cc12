"""ingest: rows of the window from the source, masked, into data/raw. Nothing unmasked is ever written."""

from typing import Any

import pandas as pd

from .. import ProjectError
from ..core.contract import mask, without
from ..core.schema import CONTRACT
from ..io import source, tables
from ..params import load_run
from ..settings import Paths, Settings
from ..stages.resolve import readable_source


def ingest(settings: Settings) -> int:
    """Stream the source into monthly Parquet.

    Returns:
        The number of rows.

    Raises:
        ProjectError: If the source has no rows in the window.
    """
    window = load_run().resolved
    start: Any = pd.Timestamp(window.start) if window.start else None
    end: Any = pd.Timestamp(window.end) if window.end else None
    key = settings.mask_key.get_secret_value()
    forgotten = frozenset(Paths.FORGOTTEN.read_text().split()) if Paths.FORGOTTEN.exists() else frozenset()
    with readable_source(settings):
        chunks = source.read(settings.source_uri, start, end, CONTRACT.names)
        kept = (mask(without(chunk, CONTRACT, forgotten, key), CONTRACT, key) for chunk in chunks)
        rows = tables.write_by_month(kept, Paths.RAW, CONTRACT.time)
    if rows == 0:
        when = f" from {start:%Y-%m-%d} to {end:%Y-%m-%d}" if start and end else ""
        raise ProjectError(
            f"the source has no rows{when}. "
            "Widen `window` in params.yaml, or look whether io/source.py reads the right place."
        )
    print(f"{rows:,} rows")
    return rows
