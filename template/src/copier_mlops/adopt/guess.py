"""How the values of a column are written: the style of its numbers and times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from copier_mlops import ProjectError
from copier_mlops.contract.parsing import (
    EPOCHS,
    EXCEL,
    NO_NUMBER,
    NUMBER_STYLES,
    TIME_STYLES,
    plain_number,
    to_number,
    to_time,
    trimmed,
    true_or_false,
)

EARLIEST, LATEST = 315_532_800, 4_102_444_800  # seconds from 1970 to 1980 and to 2100
LOOKED_AT = 5_000  # different values that decide on a style

Kind = Literal["text", "number", "boolean", "time"]
ENOUGH = 0.97  # of the values follow a style, or it is said how many do not
LEAST = 0.8  # of the values follow a style, or the column is text
SPELLINGS = 12  # of two answers, such as yes, Yes, YES and no
MOMENT = re.compile(r"(?:^|_)(?i:at|on|ts)$|(?i:date|time|timestamp|epoch|unix)$|[a-z](?:At|On)$")


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
