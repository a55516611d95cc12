"""How values are written: numbers with commas, times of many styles, words for yes and no. Text in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MISSING = frozenset({"", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan", "<NA>"})
"""Texts that stand for no value in any column."""

NO_NUMBER = MISSING | {"-", "--", "?", ".", "None", "none", "unknown", "Unknown", "n.a.", "NAN", "Null", "None given"}
"""Texts that stand for no value where the others are numbers or times."""

TRUE = frozenset({"true", "yes", "y", "t", "on", "1", "1.0"})
FALSE = frozenset({"false", "no", "n", "f", "off", "0", "0.0"})
SPELLED_OUT = frozenset({"true", "yes", "on", "false", "no", "off"})

NUMBER_STYLES = ("1234.5", "1,234.5", "1.234,5", "1234,5", "1 234,5", "1 234.5", "1'234.5")
"""How numbers are written, by example: what stands for the decimal point, and what between thousands."""

_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y",
         "%d-%m-%y", "%m-%d-%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d%b%Y", "%Y%m%d")  # fmt: skip
_CLOCKS = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S.%f",
    " %I:%M %p",
    " %I:%M:%S %p",
    ", %H:%M",
    ", %H:%M:%S",
    ":%H:%M:%S",
    " %H.%M",
)
TIME_STYLES = (
    "ISO8601",
    *(f"{day}{clock}" for clock in _CLOCKS for day in _DAYS),
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %Y",
    "%Y%m%d%H%M%S",
    "%m/%Y",
    "%m.%Y",
    "%b %Y",
    "%b-%y",
    "%G-W%V",
    "%GW%V",
)
"""How times are written, as strptime has it; more than one style of a column are joined by `|`."""

EPOCHS = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
"""Numbers that count from 1970, by the unit of pandas."""

EXCEL = "excel"
"""Numbers that count days as Excel does: 45292 is 2024-01-01."""

_SIGNS = "[€$£¥%\\s\u00a0\u202f]"


def true_or_false(words: Set[str]) -> bool:
    """Return whether words in lower case are the two answers to a question.

    More than two words are, if each answer is spelled out in one of them: y, yes, n and no. Letters alone, such as f, n, t and y, may be
    codes.
    """
    answers = [TRUE & words, FALSE & words]
    if not all(answers) or len(words) > sum(map(len, answers)):
        return False
    return len(words) == 2 or all(answer & SPELLED_OUT for answer in answers)


def clean_names(header: Sequence[object]) -> list[str]:
    """Names that can be told apart: without space around them, none empty, none twice, none that the platform writes.

    Returns:
        As many names, in order: `amount` and `amount_2` for two of them, `column_3` for one without a name.
    """
    names: list[str] = []
    for place, given in enumerate(header, start=1):
        name = re.sub(
            r"\s+", " ", re.sub(r"[\x00-\x1f\x7f\ufeff]", " ", str(given if given is not None else ""))
        ).strip()
        name = name or f"column_{place}"
        name = renamed(name)
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def renamed(name: str) -> str:
    """The name that a column has here: one that the platform writes itself is not free."""
    return f"{name}_" if name in RESERVED else re.sub("^score ", "score_", name)


RESERVED = frozenset({"reason", "score", "prediction", "version", "month"})
"""Columns that the platform adds beside those of the table."""


def trimmed(texts: pa.ChunkedArray, missing: Iterable[str] = MISSING) -> pa.ChunkedArray:
    """Texts without space around them; null where they stand for no value."""
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(
        pc.is_in(texts, value_set=pa.array(sorted(missing), texts.type)), pa.scalar(None, texts.type), texts
    )


def to_number(texts: pa.ChunkedArray, style: str = NUMBER_STYLES[0]) -> pa.ChunkedArray:
    """Numbers as they were written.

    Args:
        texts: Strings.
        style: One of NUMBER_STYLES; signs of currencies and percent are passed over in all but the first.

    Returns:
        float64 of the same length; null where there is no value or the text is no such number.
    """
    texts = plain_number(trimmed(texts, NO_NUMBER), style)
    try:
        return pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        values = pd.to_numeric(texts.to_pandas(), errors="coerce").to_numpy("float64", na_value=np.nan)
        return pa.chunked_array([pa.array(values, from_pandas=True)])


def plain_number(texts: pa.ChunkedArray, style: str) -> pa.ChunkedArray:
    """A number of some style in the style of computers, still as text; what is no such number stays as it is.

    Signs of currencies, percent and space may be before and after the digits, and space between thousands.
    """
    if style == NUMBER_STYLES[0]:
        return texts
    thousands, decimal = style[1] if not style[1].isdigit() else "", style[-2]
    bare = pc.replace_substring_regex(texts, pattern=rf"^([-+]?){_SIGNS}*([-+]?){_SIGNS}*", replacement=r"\1\2")
    bare = pc.replace_substring_regex(bare, pattern=rf"{_SIGNS}+$", replacement="")
    group, point = f"[{re.escape(thousands.strip())} \u00a0\u202f]", re.escape(decimal)
    whole = rf"[1-9][0-9]{{0,2}}({group}[0-9]{{3}})+|[0-9]+"  # 0,126 is no thousand
    fits = pc.match_substring_regex(bare, pattern=rf"^[-+]?({whole})?({point}[0-9]*)?([eE][-+]?[0-9]+)?$")
    plain = pc.replace_substring_regex(bare, pattern=group, replacement="")
    plain = pc.replace_substring(plain, pattern=decimal, replacement=".")
    return pc.if_else(fits, plain, texts)


def to_time(texts: pa.ChunkedArray, style: str, zone: str = "UTC") -> pd.Series:
    """Moments as they were written.

    Args:
        texts: Strings, or numbers where the style is one of EPOCHS or EXCEL.
        style: One of those, `ISO8601`, a strptime format, or some of them joined by `|`, tried in turn for each value.
        zone: Where clocks stood that wrote a time without a zone, as the IANA has it.

    Returns:
        datetime64[us, UTC]; NaT where there is no value or the text is no such time.
    """
    if style in EPOCHS or style == EXCEL:
        numbers = to_number(texts) if pa.types.is_string(texts.type) else pc.cast(texts, pa.float64(), safe=False)
        if style == EXCEL:
            days = pd.to_datetime(numbers.to_pandas(), unit="D", origin="1899-12-30", errors="coerce")
            return _utc(pd.Series(days).dt.round("s").dt.tz_localize("UTC"))
        moments = pd.to_datetime(numbers.to_pandas(), unit=EPOCHS[style], utc=True, errors="coerce")  # type: ignore[call-overload]
        return pd.Series(moments).astype("datetime64[us, UTC]")
    given = trimmed(texts, NO_NUMBER).to_pandas().astype("str").reset_index(drop=True)
    given = given.where(given.str.contains("[0-9]", regex=True))  # `now` would be the moment of reading
    found = pd.Series(pd.NaT, given.index, dtype="datetime64[us, UTC]")
    for one in style.split("|"):
        left = found.isna() & given.notna()
        if left.any():
            found = found.fillna(_moments(given[left], one, zone)) if not left.all() else _moments(given, one, zone)
    return found


def zoned(values: pa.ChunkedArray, zone: str) -> pd.Series:
    """Moments that came typed, in UTC; one without a zone is of the clocks in `zone`."""
    microseconds = pa.timestamp("us", getattr(values.type, "tz", None))
    moments = pd.Series(pc.cast(values, microseconds, safe=False).to_pandas())  # nanoseconds are cut off
    moments = pd.Series(pd.to_datetime(moments))
    if moments.dt.tz is None:
        moments = moments.dt.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    return _utc(moments)


def _moments(given: pd.Series, style: str, zone: str) -> pd.Series:
    if style.endswith("%V"):  # a week is the day on which it begins
        given, style = given + "-1", f"{style}-%u"
    if zone == "UTC" or style.endswith(("%z", "%Z")):
        return _utc(pd.to_datetime(given, format=style, utc=True, errors="coerce"))
    own = given.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$", regex=True, na=False) & given.str.contains(":", na=False)
    found = pd.Series(pd.NaT, given.index, dtype="datetime64[us, UTC]")
    if own.any():
        found[own] = _utc(pd.to_datetime(given[own], format=style, utc=True, errors="coerce"))
    local = pd.to_datetime(given[~own], format=style, errors="coerce")
    found[~own] = _utc(local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward"))
    return found


def _utc(moments: pd.Series) -> pd.Series:
    return pd.Series(moments.dt.tz_convert("UTC").astype("datetime64[us, UTC]"))
