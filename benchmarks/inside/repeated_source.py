"""Where raw rows come from: the sample, several times over, with noise. Takes the place of a project's source.py.

The original lies beside it as `source_once.py`, the number of times in `repeat.txt`. A row and its copies differ in
their id and in every measured number, by about one percent and within the contract, so that nothing repeats that a file
format or a tree could save on.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.schema import CONTRACT
from . import source_once

TIMES = int(Path(__file__).with_name("repeat.txt").read_text())


def fingerprint(location: str) -> str:
    """That of the original, and how often it is repeated."""
    return f"{source_once.fingerprint(location)}x{TIMES}"


def extent(location: str) -> tuple[int, pd.Timestamp]:
    """The number of rows, and the time of the newest."""
    rows, newest = source_once.extent(location)
    return rows * TIMES, newest


def read(location: str, start: pd.Timestamp, end: pd.Timestamp, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Yield each chunk of the original TIMES times."""
    measured = [column for column in CONTRACT.columns if column.kind == "number" and column.role == "feature"]
    for chunk in source_once.read(location, start, end, columns):
        seed = zlib.crc32(str(chunk[CONTRACT.id].iloc[0]).encode())
        for copy in range(TIMES):
            random = np.random.default_rng([seed, copy])
            changed: dict[str, pd.Series] = {CONTRACT.id: chunk[CONTRACT.id] + f"-{copy}"}
            for column in measured:
                noisy = chunk[column.name] * (1 + 0.01 * random.standard_normal(len(chunk)))
                changed[column.name] = noisy.clip(column.minimum, column.maximum)
            yield chunk.assign(**changed)
