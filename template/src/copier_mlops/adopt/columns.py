"""What a column becomes: time, id, group, input, or nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.adopt.decisions import (
    FEWEST,
    FEWEST_SUBJECTS,
    LISTED,
    SEASONS,
    AdoptionError,
    Decision,
    day_of,
    ends_of,
    room_of,
    some_of,
    style_of,
    texts_of,
    words_of,
)
from copier_mlops.adopt.profile import Column
from copier_mlops.contract import contract, pii

NEARLY_EACH = "an identifier: nearly each row has another"
MOST_CODES = 50  # different whole numbers that are categories by the column's name
NAMING = re.compile(r"(?i)(^|[_ ])(id|key|uuid)s?$|[a-z](?-i:Id|Key)$")
CODES = re.compile(
    r"(?i)(^|[_ ])(id|code|zip|zip_?code|plz|postal|postcode|postal_?code|type|class|category|zone|sector|sku|store)s?$"
    r"|[a-z](?-i:Id|Code)$"
)


# --------------------------------------------------------------------------------------------- Time, id, inputs


def infer_time(column: Column, values: pd.Series) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.guess.kind != "time":
        variable = "STYLE_" + re.sub("[^A-Za-z0-9_]", "_", name)
        raise AdoptionError(
            f"TIME={name} holds no times ({some_of(column)}). Known are ISO 8601 and the usual orders of day, month and year; "
            f"name another style as strptime does, {variable}=%d.%m.%y, {variable}=seconds for seconds since 1970, or {variable}=excel for the "
            "day numbers of Excel."
        )
    if column.minimum >= column.maximum:
        raise AdoptionError(f"TIME={name} is the same in all rows; leave TIME out.")
    why = f"orders the rows, from {day_of(column.minimum)} to {day_of(column.maximum)}" + style_of(column)
    oldest, newest = ends_of(column, values)
    if newest - oldest < pd.Timedelta(days=SEASONS):
        why += "; its month is no input: none comes back in less than two years"
    doubt = column.guess.ambiguous
    if column.missing + column.unread:
        doubt = (
            f"{column.missing + column.unread:,} rows have none that can be read; they are set aside. {doubt}".strip()
        )
    return contract.Column(name, "timestamp", role="time"), Decision(name, "time", "timestamp", why, doubt)


def infer_id(column: Column, values: pd.Series) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.repeated:
        raise AdoptionError(
            f"ID={name} repeats: {column.repeated:,} of {column.rows:,} rows have a value that occurred before. If {name} names a "
            f"subject with several rows, such as a customer, give GROUP={name} in place of it: rows of a subject then stay on one side "
            "of the split. As ID name a column that is different in each row, or none."
        )
    if column.missing:
        raise AdoptionError(f"ID={name} is missing in {column.missing:,} rows; an id is there in all of them.")
    secret = pii.reason(name, texts_of(column, values), 1.0)
    kind = (
        "integer"
        if column.guess.kind == "number" and column.whole and column.maximum < 2**53 and not secret
        else "string"
    )
    why = "names the row" + (f"; {secret}: kept as a keyed hash (MASK_KEY)" if secret else "")
    return contract.Column(name, kind, role="id", personal=bool(secret)), Decision(name, "id", kind, why)  # type: ignore[arg-type]


def infer_group(column: Column, values: pd.Series, timed: bool) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.different < FEWEST_SUBJECTS:
        raise AdoptionError(
            f"GROUP={name} has {column.different} different values ({some_of(column)}); a test and folds of whole groups need "
            f"{FEWEST_SUBJECTS} or more. Leave GROUP out: {name} is then an input."
        )
    if not values.dropna().duplicated().any():
        raise AdoptionError(
            f"GROUP={name} is different in each row, so it groups nothing. Leave it out, or give ID={name} if it names the row."
        )
    secret = pii.reason(name, texts_of(column, values), 1.0)
    number = column.guess.kind == "number" and column.whole and abs(column.maximum) < 2**53 and not secret
    side = (
        "the split stays in time; the report says how many test rows are of subjects in the training"
        if timed
        else "rows of one are on one side of the split"
    )
    why = f"names the subject of a row, {column.different:,} of them: {side}; no input"
    why += f"; {secret}: kept as a keyed hash (MASK_KEY)" if secret else ""
    doubt = f"{column.missing:,} rows have none: each is a subject of its own." if column.missing else ""
    kind = "integer" if number else "string"
    found = contract.Column(name, kind, role="group", nullable=column.missing > 0, personal=bool(secret))  # type: ignore[arg-type]
    return found, Decision(name, "group", kind, why, doubt)


def infer_feature(column: Column, values: pd.Series, timed: bool) -> tuple[contract.Column | None, Decision]:
    name, kind = column.name, column.guess.kind
    doubt = " ".join(
        filter(None, [column.guess.ambiguous, words_of(column), _sentinel(column, values) if kind == "number" else ""])
    )

    def out(why: str) -> tuple[None, Decision]:
        several = why.startswith(NEARLY_EACH) and column.often < 0.95
        return None, Decision(name, "left out", "", why, _may_be_group(name) if several else "")

    def taken(why: str, kind: Any, **rules: Any) -> tuple[contract.Column, Decision]:
        nonlocal doubt
        if column.unread and kind != "string":
            hidden = pii.reason(name, column.strange, 1.0)  # what is shown is written into adoption.json
            strange = hidden or ", ".join(dict.fromkeys(column.strange))
            share = f"{column.unread / column.present:.1%}"
            count = f"{column.unread:,} values are" if column.unread > 1 else "1 value is"
            doubt = f"{count} no {kind}, {share} of them ({strange}); such rows are set aside. {doubt}".strip()
        if kind == "string" and column.different > LISTED:
            doubt = f"{doubt} {_may_be_group(name)}".strip()
        return contract.Column(name, kind, nullable=column.missing > 0, **rules), Decision(
            name, "feature", kind, why + style_of(column), doubt
        )

    if column.present == 0:
        return out("empty")
    secret = pii.reason(name, texts_of(column, values), column.often)
    if secret:
        return out(f"looks like personal data: {secret}")
    if column.distinct == 1 and not column.missing:
        return out(f"a constant, {some_of(column)}")
    if kind == "time":
        return taken(
            f"a moment, from {day_of(column.minimum)} to {day_of(column.maximum)}; its parts are inputs", "timestamp"
        )
    if kind == "boolean":
        return taken("true or false", "boolean")
    if kind == "number":
        if column.whole and column.often > 0.9 and _counts_up(column, values):
            return out("an identifier: whole numbers, each once")
        if column.whole and 2 < (column.distinct or 0) <= MOST_CODES and CODES.search(name):
            return taken(f"{column.distinct} codes, by its name", "string")
        if column.whole and column.different > 2 and column.often <= 0.5 and NAMING.search(name):
            return taken(f"names {column.different:,} things, by its name; rare ones are pooled", "string")
        low, high = room_of(column)
        integer = column.whole and abs(column.maximum) < 2**53
        return taken(
            f"from {column.minimum:g} to {column.maximum:g}",
            "integer" if integer else "number",
            minimum=low,
            maximum=high,
        )
    found: tuple[contract.Column | None, Decision] = _text(column, out, taken)
    return found


def _may_be_group(name: str) -> str:
    """What to look at where a column may name subjects; empty where its name says nothing of that."""
    if not NAMING.search(name):
        return ""
    return f"If it names a subject with several rows, GROUP={name} keeps them on one side of the split."


def _sentinel(column: Column, values: pd.Series) -> str:
    """What to look at where a number stands for no value: repeated, made of nines, and far from all others."""
    numbers = values.dropna().to_numpy("float64")
    numbers = numbers[np.isfinite(numbers)]
    for end in (numbers.min(), numbers.max()) if len(numbers) else ():
        if not re.fullmatch(r"-?9{2,}|-1|-9", f"{end:.0f}") or end != round(end):
            continue
        rest = numbers[numbers != end]
        gap = np.abs(rest - end).min() if len(rest) else 0.0
        far = gap > (np.ptp(rest) if abs(end) > 9 else 0) and (end > 0 or rest.min(initial=0) >= 0)
        far = far and len(np.unique(rest)) > 5
        if len(rest) and far and len(numbers) - len(rest) >= max(3, 0.005 * len(numbers)):
            share = (len(numbers) - len(rest)) / len(numbers)
            return (
                f"{end:g} in {share:.1%} of the rows is apart from the other values ({rest.min():g} to {rest.max():g}). If it "
                "stands for a missing value, leave it empty in the source."
            )
    return ""


def _text(column: Column, out: Any, taken: Any) -> Any:
    mean = column.letters / max(column.present, 1)
    if column.counts is None or column.often > 0.5:
        if column.present >= FEWEST and mean > 25:
            return out(f"free text, {mean:.0f} letters on average")
        if column.often > 0.5 and column.present >= FEWEST:
            return out(NEARLY_EACH)
        return taken(f"a category of about {column.different:,}; rare ones are pooled", "string")
    if mean > 60:
        return out(f"free text, {mean:.0f} letters on average")
    counts = {str(key): count for key, count in column.counts.items()}
    once = sum(count < 3 for count in counts.values())
    if len(counts) <= LISTED and not once and column.present >= 20 * len(counts):
        return taken(f"a category of {len(counts)}", "string", allowed=tuple(sorted(counts)))
    return taken(f"a category of {len(counts)} and perhaps more; rare ones are pooled", "string")


def _counts_up(column: Column, values: pd.Series) -> bool:
    """Whether numbers only name rows: as many as rows, close together, or in order."""
    dense = column.maximum - column.minimum < 20 * column.rows
    named = bool(
        re.search(r"(?i)(^|_| )(id|key|no|nr|num|number|index|uuid)$|Id$|^id|^unnamed|^column_1$", column.name)
    )
    some = values.dropna()
    ordered = bool(some.is_monotonic_increasing and some.is_unique)
    return bool(some.is_unique) and (named or (column.counts is None and ordered and dense))
