"""Tables where they are: files, folders, object stores, databases; read as a stream of batches, never as a whole."""

from copier_mlops.data.readers.csv_files import EncodingError
from copier_mlops.data.readers.locations import (
    COMPRESSED,
    DATABASES,
    DRIVERS,
    Say,
    SourceError,
    check_location,
    object_store,
    remove,
)
from copier_mlops.data.readers.table import Table, sniff, with_columns

__all__ = [
    "COMPRESSED",
    "DATABASES",
    "DRIVERS",
    "EncodingError",
    "Say",
    "SourceError",
    "Table",
    "check_location",
    "object_store",
    "remove",
    "sniff",
    "with_columns",
]
