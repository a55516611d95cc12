"""ingest: rows of the window from the source, masked, into data/raw. Nothing unmasked is ever written."""

import pandas as pd

from .. import ProjectError
from ..core.contract import mask
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
    key = settings.mask_key.get_secret_value()
    with readable_source(settings):
        chunks = source.read(settings.source_uri, pd.Timestamp(window.start), pd.Timestamp(window.end), CONTRACT.names)
        rows = tables.write_by_month((mask(chunk, CONTRACT, key) for chunk in chunks), Paths.RAW, CONTRACT.time)
    if rows == 0:
        raise ProjectError(
            f"the source has no rows from {window.start:%Y-%m-%d} to {window.end:%Y-%m-%d}. "
            "Widen `window` in params.yaml, or look whether io/source.py reads the right place."
        )
    print(f"{rows:,} rows")
    return rows
