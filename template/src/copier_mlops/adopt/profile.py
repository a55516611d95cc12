"""What a table holds: each column's kind, range, distinct values and gaps, from a stream of batches in little memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from copier_mlops.adopt.guess import LEAST
from copier_mlops.contract.parsing import MISSING, NO_NUMBER, NUMBER_STYLES, to_number, to_time, trimmed, zoned
from copier_mlops.contract.validation import fingerprints

if TYPE_CHECKING:
    from copier_mlops.adopt.guess import Guess

DISTINCT = 2_000  # values of a column that are remembered with their counts
HASHES = 4_096  # that a count of different values is estimated from
SAMPLE = 40_000  # rows that are kept whole


@dataclass
class Column:
    """What is known of a column so far.

    Attributes:
        name, guess: Its name, and what it is taken for.
        typed: Whether its values came with a type, rather than as text.
        rows, missing: Counts.
        unread: Values that are not what the column is taken for; the first of them stand in `strange`.
        minimum, maximum: Of numbers and times (as seconds since 1970).
        whole: Whether all numbers are whole.
        counts: How often each value occurs; None once there are too many.
        sketch: Hashes of the values from then on.
        longest, letters: Length of the longest text, and of all together.
        hashes: Of each value, where it has to be known whether one repeats.
        dashes: Whether values are missing in a way that is one only among numbers, such as `-`.
        written: Some of the different values of a text file, as they stand there.
        words: How often each word of MISSING occurs in a column of text.
    """

    name: str
    guess: Guess
    typed: bool = False
    rows: int = 0
    missing: int = 0
    unread: int = 0
    strange: list[str] = field(default_factory=list)
    minimum: float = np.inf
    maximum: float = -np.inf
    total: float = 0.0
    whole: bool = True
    counts: dict[Any, int] | None = field(default_factory=dict)
    sketch: Sketch | None = None
    longest: int = 0
    letters: int = 0
    hashes: list[np.ndarray] | None = None
    dashes: bool = False
    written: list[str] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)

    @property
    def present(self) -> int:
        return self.rows - self.missing

    @property
    def distinct(self) -> int | None:
        """Different values; None if they are too many to remember."""
        return None if self.counts is None else len(self.counts)

    @property
    def often(self) -> float:
        """Different values by row."""
        return self.different / max(self.present, 1)

    @property
    def different(self) -> int:
        """How many different values there are; above DISTINCT estimated to about 2 percent, of times unknown: DISTINCT."""
        return len(self.counts) if self.counts is not None else self.sketch.count() if self.sketch else DISTINCT

    @property
    def repeated(self) -> int:
        """Rows whose value occurred before; only where `hashes` were asked for."""
        return 0 if not self.hashes else self.present - len(np.unique(np.concatenate(self.hashes)))

    def update(self, values: pa.ChunkedArray, zone: str) -> None:
        """Take in the next values."""
        kind = self.guess.kind
        self.rows += len(values)
        self.typed = not pa.types.is_string(values.type)
        texts = values if self.typed else trimmed(values, NO_NUMBER if kind in ("number", "time") else MISSING)
        if self.typed and pa.types.is_floating(texts.type):
            texts = pc.if_else(pc.is_nan(texts), pa.scalar(None, texts.type), texts)
        present = texts.drop_null()
        self.missing += len(texts) - len(present)
        if not self.typed and not self.written:
            self.written = pc.unique(present.slice(0, DISTINCT)).to_pylist()
        if kind == "text" and not self.typed and len(present) < len(texts):
            self._note_words(values)
        if self.hashes is not None:
            self.hashes.append(fingerprints(present.to_pandas()))
        if kind == "number":
            if not self.typed and not self.dashes and len(present) < len(texts):
                self.dashes = trimmed(values).null_count < len(texts) - len(present)
            self._numbers(present)
        elif kind == "time":
            self._times(present, zone)
        else:
            if not self.typed:
                lengths = pc.utf8_length(present)
                self.longest = max(self.longest, pc.max(lengths).as_py() or 0)
                self.letters += pc.sum(lengths).as_py() or 0
            self._count(present)

    def _note_words(self, values: pa.ChunkedArray) -> None:
        """Count the words that are taken for no value, such as `NA`, which may be one: Namibia."""
        words = pc.utf8_trim_whitespace(values).filter(pc.is_in(values, value_set=pa.array(sorted(MISSING - {""}))))
        for pair in pc.value_counts(words.combine_chunks()):
            name = pair["values"].as_py()
            self.words[name] = self.words.get(name, 0) + pair["counts"].as_py()

    def _numbers(self, present: pa.ChunkedArray) -> None:
        numbers = (
            pc.cast(present, pa.float64(), safe=False)
            if self.typed
            else to_number(present, self.guess.style or NUMBER_STYLES[0])
        )
        good = pc.is_finite(numbers).fill_null(False)
        bad = len(numbers) - (pc.sum(good).as_py() or 0)
        if bad:
            self._odd(present.filter(pc.invert(good)), bad)
            numbers = numbers.filter(good)
        if len(numbers) == 0:
            return
        ends = pc.min_max(numbers).as_py()
        self.minimum, self.maximum = min(self.minimum, ends["min"]), max(self.maximum, ends["max"])
        self.total += pc.sum(numbers).as_py()
        self.whole = self.whole and pc.all(pc.equal(numbers, pc.round(numbers))).as_py()
        self._count(numbers)

    def _times(self, present: pa.ChunkedArray, zone: str) -> None:
        style = self.guess.style
        moments = to_time(present, style, zone) if style else zoned(present, zone)
        unread = moments.isna().to_numpy()
        if unread.any():
            self._odd(present.filter(pa.array(unread)), int(unread.sum()))
            moments = moments[~unread]
        if len(moments):
            self.minimum = min(self.minimum, moments.min().timestamp())
            self.maximum = max(self.maximum, moments.max().timestamp())
        self.counts = None if len(moments) > 1 and self.minimum < self.maximum else self.counts
        if self.counts is not None and len(moments):
            self.counts[str(moments.iloc[0])] = self.rows

    def _odd(self, values: pa.ChunkedArray, count: int) -> None:
        self.unread += count
        if len(self.strange) < 3:
            self.strange += [str(value) for value in values.slice(0, 3 - len(self.strange)).to_pylist()]

    def _count(self, values: pa.ChunkedArray) -> None:
        if self.counts is None:
            if self.sketch:
                self.sketch.update(values)
            return
        pairs = pc.value_counts(values.combine_chunks())
        for value, count in zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist(), strict=True):
            self.counts[value] = self.counts.get(value, 0) + count
            if len(self.counts) > DISTINCT:
                self.sketch = Sketch()
                self.sketch.update(pa.chunked_array([pa.array([*self.counts], values.type)]))
                self.sketch.update(values)
                self.counts = None
                return


class Sketch:
    """How many different values a column has, in little memory: the smallest of their hashes (k minimum values, Bar-Yossef et al. 2002)."""

    def __init__(self) -> None:
        self._smallest = np.empty(0, "uint64")

    def update(self, values: pa.ChunkedArray) -> None:
        """Take in values of one type."""
        hashes = pd.util.hash_array(pc.unique(values).to_pandas().to_numpy(), categorize=False)
        self._smallest = np.unique(np.concatenate([self._smallest, hashes]))[:HASHES]

    def count(self) -> int:
        """Estimate the number of different values; exact up to HASHES."""
        if len(self._smallest) < HASHES:
            return len(self._smallest)
        return round((HASHES - 1) / ((float(self._smallest[-1]) + 1) / 2.0**64))


class Profile:
    """All columns of a table, and a sample of its rows, taken evenly from the whole of it.

    Args:
        guesses: What each column is taken for.
        zone: Where clocks stood that wrote a time without a zone.
        unique: Columns of which it has to be known whether a value repeats.
    """

    def __init__(self, guesses: Mapping[str, Guess], zone: str = "UTC", unique: Sequence[str] = ()) -> None:
        self.columns = {name: Column(name, one, hashes=[] if name in unique else None) for name, one in guesses.items()}
        self.zone = zone
        self.rows = 0
        self._kept: list[pa.Table] = []
        self._step = 1
        self._next = 0
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def update(self, batch: pa.Table) -> None:
        """Take in the next rows."""
        list(self._threads.map(lambda name: self.columns[name].update(batch[name], self.zone), self.columns))
        at = np.arange(self._next - self.rows, batch.num_rows, self._step)
        if len(at):
            self._kept.append(batch.take(pa.array(at)).combine_chunks())
            self._next = self.rows + int(at[-1]) + self._step
        self.rows += batch.num_rows
        if sum(table.num_rows for table in self._kept) > 2 * SAMPLE:
            whole = pa.concat_tables(self._kept, promote_options="permissive")
            self._kept = [whole.take(pa.array(np.arange(0, whole.num_rows, 2))).combine_chunks()]
            self._step *= 2

    def sample(self) -> pa.Table:
        """Some rows as they were written, evenly from the whole."""
        return pa.concat_tables(self._kept, promote_options="permissive")

    def mistaken(self) -> list[str]:
        """Columns of which too many values are not what they were taken for; they are text."""
        return [
            column.name
            for column in self.columns.values()
            if column.guess.kind in ("number", "time") and column.unread > (1 - LEAST) * max(column.present, 1)
        ]


def typed(sample: pa.Table, columns: Mapping[str, Column], zone: str = "UTC") -> pd.DataFrame:
    """The values of a sample as what their columns are taken for: float64, moments, or text."""
    found = {}
    for name, column in columns.items():
        values, one = sample[name], column.guess
        if one.kind == "number":
            found[name] = (
                to_number(values, one.style or NUMBER_STYLES[0])
                if pa.types.is_string(values.type)
                else pc.cast(values, pa.float64(), safe=False)
            ).to_pandas()
        elif one.kind == "time":
            found[name] = to_time(values, one.style, zone) if one.style else zoned(values, zone)
        else:
            texts = trimmed(values) if pa.types.is_string(values.type) else values.cast(pa.string())
            found[name] = texts.to_pandas().astype("str").where(lambda some: some.notna())
    return pd.DataFrame(found)
