"""What a table holds: each column's kind, range, distinct values and gaps, from a stream of batches in little memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .. import ProjectError
from ..core.contract import fingerprints
from ..core.values import (
    EPOCHS,
    EXCEL,
    MISSING,
    NO_NUMBER,
    NUMBER_STYLES,
    TIME_STYLES,
    plain_number,
    to_number,
    to_time,
    trimmed,
    true_or_false,
    zoned,
)

Kind = Literal["text", "number", "boolean", "time"]

DISTINCT = 2_000  # values of a column that are remembered with their counts
ENOUGH = 0.97  # of the values follow a style, or it is said how many do not
LEAST = 0.8  # of the values follow a style, or the column is text
SPELLINGS = 12  # of two answers, such as yes, Yes, YES and no
MOMENT = re.compile(r"(?:^|_)(?i:at|on|ts)$|(?i:date|time|timestamp|epoch|unix)$|[a-z](?:At|On)$")
EARLIEST, LATEST = 315_532_800, 4_102_444_800  # seconds from 1970 to 1980 and to 2100
HASHES = 4_096  # that a count of different values is estimated from
LOOKED_AT = 5_000  # different values that decide on a style
SAMPLE = 40_000  # rows that are kept whole


@dataclass(frozen=True)
class Guess:
    """What a column seems to be, and how its values are written; an empty style is that of computers."""

    kind: Kind
    style: str = ""
    ambiguous: str = ""


def guess(values: pa.ChunkedArray, comma: bool = False, time: bool = False, name: str = "") -> Guess:
    """Look at some values of a column.

    Args:
        values: Text as it was written, or values that already have a type.
        comma: Whether other columns of the table have a comma for the decimal point; it decides what 1.234 is.
        time: Whether the user named it as the time; then 20240131 is one, and so are seconds since 1970.
        name: Of the column: numbers called `created_at` may be seconds since 1970.
    """
    kind = values.type
    if pa.types.is_boolean(kind):
        return Guess("boolean")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Guess("time")
    if not pa.types.is_string(kind):
        moment = _epoch(values.drop_null()) if time or MOMENT.search(name) else None
        return moment or Guess("number")
    texts = pc.unique(trimmed(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values))
    texts = pa.chunked_array([texts.drop_null().slice(0, LOOKED_AT)])
    if len(texts) == 0:
        return Guess("text")
    words = {text.lower() for text in texts.slice(0, SPELLINGS + 1).to_pylist()}
    if len(texts) <= SPELLINGS and true_or_false(words):
        return Guess("boolean")
    texts = trimmed(texts, NO_NUMBER).drop_null()
    if len(texts) == 0:
        return Guess("text")
    padded = pc.match_substring_regex(texts, pattern=r"^[-+]?0[0-9]+$")  # 00123 is a name, not a number
    if pc.mean(padded).as_py() > 0.02 and not _fits(texts, "%Y%m%d"):
        return Guess("text")
    if (time or MOMENT.search(name)) and (found := _epoch(to_number(texts).drop_null())):
        return found if _share(to_number(texts)) >= ENOUGH else Guess("text")
    if time and (found := _time(texts)):
        return found
    return _number(texts, comma) or _time(texts) or Guess("text")


def _epoch(numbers: pa.ChunkedArray) -> Guess | None:
    """The unit of whole numbers that count from 1970, if all of them are between 1980 and 2100."""
    if len(numbers) == 0 or not (pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type)):
        return None
    numbers = pc.cast(numbers, pa.float64(), safe=False)
    ends = pc.min_max(numbers).as_py()
    if pc.any(pc.not_equal(numbers, pc.floor(numbers))).as_py():
        return None
    for unit, steps in zip(EPOCHS, (1, 1e3, 1e6, 1e9), strict=True):
        if EARLIEST * steps <= ends["min"] and ends["max"] <= LATEST * steps:
            return Guess("time", unit)
    return None


def styled(style: str, values: pa.ChunkedArray, name: str = "") -> Guess:
    """Return what a column is whose style the user named.

    Raises:
        ProjectError: If it is no style, or no value of the column is written so.
    """
    text = pa.types.is_string(values.type)
    if style in NUMBER_STYLES:
        found, read = (
            Guess("number", "" if style == NUMBER_STYLES[0] else style),
            to_number(values, style) if text else values,
        )
        share = _share(read) if text else 1.0
    elif style in (*EPOCHS, EXCEL) or style == TIME_STYLES[0] or "%" in style:
        found, share = Guess("time", style), float(to_time(values, style).notna().mean())
    else:
        known = ", ".join([*NUMBER_STYLES, *EPOCHS, EXCEL, TIME_STYLES[0]])
        raise ProjectError(
            f"STYLE_{name}={style}: there is no such style. There are {known}, and strptime formats such as %d.%m.%Y."
        )
    if not share:
        raise ProjectError(f"STYLE_{name}={style}: no value is written so; the first is {values[0].as_py()!r}.")
    return found


def _number(texts: pa.ChunkedArray, comma: bool) -> Guess | None:
    shares = {style: _share(to_number(texts, style)) for style in NUMBER_STYLES}
    best = max(shares.values())
    if best < 0.8:
        return None
    fitting = [style for style in NUMBER_STYLES if shares[style] >= best - 1e-9]
    grouped = all(re.fullmatch(r"[-+]?[1-9]\d{0,2}([.,]\d{3})+", text) for text in texts.slice(0, 500).to_pylist())
    if comma and "1.234,5" in fitting:
        return Guess("number", "1.234,5" if grouped or fitting[0] != NUMBER_STYLES[0] else "")
    style = fitting[0]
    ambiguous = ""
    if grouped and len(fitting) > 1 and style != NUMBER_STYLES[0]:
        ambiguous = f"{texts[0].as_py()} may be a thousand or a fraction; read as a thousand"
    return Guess("number", "" if style == NUMBER_STYLES[0] else style, ambiguous)


def _time(texts: pa.ChunkedArray) -> Guess | None:
    short = pc.max(pc.utf8_length(texts)).as_py()
    digits = pc.mean(pc.match_substring_regex(texts, pattern=r"[0-9]")).as_py()
    if digits < ENOUGH - 0.1 or short < 6:
        return None
    texts = texts.slice(0, 1000)
    some = texts.to_pylist()
    signs = set("".join(some))  # a style with another sign between its digits fits none
    letters = any(sign.isalpha() for sign in signs)
    possible = [one for one in TIME_STYLES if one == TIME_STYLES[0]
                or (set(re.findall("[-./:, ]", one)) <= signs and (letters or not re.search("%[bBpaA]", one)))]  # fmt: skip
    few = pa.chunked_array([pa.array(some[:: max(1, len(some) // 50)], pa.string())])
    possible = [style for style in possible if to_time(few, style).notna().any()]
    found = {style: _share(pa.array(to_time(texts, style).notna())) for style in possible}
    found = {style: share for style, share in found.items() if share > 0.02}
    if not found:
        return None
    best = max(found.values())
    chosen = next(style for style in TIME_STYLES if found.get(style, 0) >= best - 1e-9)
    ambiguous = ""
    twin = re.sub("%d([-/])%m", r"%m\1%d", chosen)
    if twin != chosen and found.get(twin, 0) >= best - 1e-9:
        ambiguous = f"day and month cannot be told apart; read as day before month, which STYLE_<column>={twin} changes"
    if best < ENOUGH:  # several styles in one column
        styles, rest = [chosen], to_time(texts, chosen).isna().to_numpy(copy=True)
        for style in sorted(found, key=lambda one: -found[one]):
            if style != chosen and "/" not in style and "-%m" not in style and rest.any():
                more = to_time(texts, style).notna().to_numpy() & rest
                if more.mean() > 0.01:
                    styles.append(style)
                    rest &= ~more
        if rest.mean() > 1 - ENOUGH + 0.17:
            return None
        chosen = "|".join(styles)
    return Guess("time", chosen, ambiguous)


def _fits(texts: pa.ChunkedArray, style: str) -> bool:
    return _share(pa.array(to_time(texts.slice(0, 1000), style).notna())) >= ENOUGH


def _share(found: pa.Array | pa.ChunkedArray) -> float:
    if pa.types.is_boolean(found.type):
        return float(pc.mean(found).as_py() or 0)
    return 1.0 - int(found.null_count) / max(len(found), 1)


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


def decimal_comma(sample: pa.Table) -> bool:
    """Whether some column of text surely has a comma for the decimal point: 12,5 or 1.234,50."""
    for values in sample.columns:
        if pa.types.is_string(values.type):
            texts = pa.chunked_array([pc.unique(trimmed(values).combine_chunks()).drop_null().slice(0, LOOKED_AT)])
            if len(texts) and _share(to_number(texts)) < 0.8 and _share(to_number(texts, "1,234.5")) < 0.8:
                changed = plain_number(texts, "1.234,5")
                if _share(to_number(changed)) >= 0.8:
                    return True
    return False
