"""From a profile to a project: which column plays which role, and why; what cannot be learnt from, and why not."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .. import ProjectError
from ..core import contract, personal
from ..core.metrics import r2
from ..core.profile import Column, Profile, typed
from ..core.search import single_input_answers, together
from ..core.units import repeated
from ..core.values import FALSE, NO_NUMBER, NUMBER_STYLES, TRUE, trimmed, true_or_false

FEWEST = 100  # rows with an answer
FEWEST_OF_A_CLASS = 10
MOST_CLASSES = 50
CLASSES_OF_NUMBERS = 12  # whole numbers with no more values than this are classes, if nobody says otherwise
LEAK = 0.97  # of the answer that one column alone may tell
SUSPICIOUS = 0.8
FEW_TO_JUDGE = 500  # rows; among fewer only a column that tells all of it is called a leak
YES = frozenset({"ja", "oui", "si", "sí", "sì", "sim", "tak", "evet", "да", "是", "positive", "pos"})
FEWEST_DAYS = 3  # of which the newest can be held back
SEASONS = 730  # days, in which each season comes back
DAY = 86_400.0  # seconds
LISTED = 30  # values that a contract lists
MOST_TOGETHER = 50  # numbers that are tried together
TOGETHER_ROWS = 20_000  # on which it is seen whether columns together give the target away
FEWEST_SUBJECTS, FEW_SUBJECTS = 10, 50  # that a table of several rows each needs, and with fewer of which it is said
FEWEST_TO_JUDGE = 20  # rows of the rarest class in the test
PERFECT = 0.999  # AUC or R2 from which a model only computes the target
NEARLY_EACH = "an identifier: nearly each row has another"
MOST_CODES = 50  # different whole numbers that are categories by the column's name
NAMING = re.compile(r"(?i)(^|[_ ])(id|key|uuid)s?$|[a-z](?-i:Id|Key)$")
CODES = re.compile(
    r"(?i)(^|[_ ])(id|code|zip|zip_?code|plz|postal|postcode|postal_?code|type|class|category|zone|sector|sku|store)s?$"
    r"|[a-z](?-i:Id|Code)$"
)


class AdoptionError(ProjectError):
    """The table cannot become a project; the text says what is in the way and what to do."""


@dataclass(frozen=True)
class Decision:
    """What became of a column of the table.

    Attributes:
        name: As the table has it.
        role: feature, id, time, target, or `left out`.
        kind: As in the contract; empty if it is left out.
        why: In words.
        doubt: What a person should look at; empty if all is clear.
    """

    name: str
    role: str
    kind: str
    why: str
    doubt: str = ""


@dataclass(frozen=True)
class Plan:
    """What `make adopt` is going to write.

    Attributes:
        problem: classification or regression.
        contract: Of the rows.
        decisions: By column, in the order of the table.
        styles: As `io/readers.py` takes them.
        params: What params.yaml says that depends on the table.
        warnings: What concerns the table as a whole.
        rows: Rows of the table.
        long_tail: Whether the target is a number with a long tail to the right.
    """

    problem: str
    contract: contract.Contract
    decisions: tuple[Decision, ...]
    styles: Mapping[str, str]
    params: Mapping[str, Any]
    warnings: tuple[str, ...]
    rows: int
    long_tail: bool = False


@dataclass
class _Target:
    column: contract.Column
    problem: str
    why: str
    doubt: str = ""
    warnings: list[str] = field(default_factory=list)
    long_tail: bool = False


def check_names(names: Sequence[str], **asked: str) -> None:
    """Refuse a role for a column that is not there, or two roles for one.

    Raises:
        AdoptionError: The text names the column that may be meant.
    """
    for role, name in asked.items():
        if name and name not in names:
            close = difflib.get_close_matches(name, names, n=1) or [one for one in names if one.lower() == name.lower()]
            meant = f" Is it {close[0]}?" if close else ""
            shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            raise AdoptionError(f"{role.upper()}={name}: the table has no such column.{meant} It has {shown}.")
    given = [name for name in asked.values() if name]
    if len(set(given)) < len(given):
        raise AdoptionError(
            f"one column cannot have two roles: {', '.join(f'{k.upper()}={v}' for k, v in asked.items() if v)}."
        )


def plan(
    profile: Profile,
    target: str,
    time: str = "",
    identifier: str = "",
    problem: str = "",
    seed: int = 7,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    group: str = "",
) -> Plan:
    """Decide on every column.

    Args:
        profile: Of the whole table, with `unique` known of the id.
        target, time, id: The columns that the user named; time and identifier may be empty.
        problem: classification or regression, if the user says so.
        seed: Of the sample on which leaks are looked for.
        drop: Columns that the user leaves out.
        keep: Columns of which the user says that they are known before the target is: they are no leak.
        group: The column that names the subject of a row, where subjects have several rows; may be empty.

    Raises:
        AdoptionError: If the target cannot be learnt or several columns together give it away, the time is none, the id repeats,
            the group does not, or no input is left.
    """
    columns = profile.columns
    check_names(list(columns), target=target, time=time, id=identifier, group=group)
    for option, listed in (("drop", drop), ("keep", keep)):
        for name in listed:
            check_names(list(columns), **{option: name})
    if taken_twice := {target, time, identifier, group} & set(drop):
        raise AdoptionError(f"DROP={','.join(sorted(taken_twice))}: the column has a role already.")
    if profile.rows == 0:
        raise AdoptionError("the table has a header and no rows; there is nothing to learn from.")
    answer = _target(columns[target], problem)
    sample = profile.sample()
    frame = typed(sample, columns, profile.zone)
    decided: dict[str, Decision] = {}
    taken: dict[str, contract.Column] = {target: answer.column}
    decided[target] = Decision(target, "target", answer.column.kind, answer.why, answer.doubt)
    if time:
        taken[time], decided[time] = _time(columns[time], frame[time])
    if identifier:
        taken[identifier], decided[identifier] = _id(columns[identifier], frame[identifier])
    if group:
        taken[group], decided[group] = _group(columns[group], frame[group], bool(time))
    for name, column in columns.items():
        if name in decided:
            continue
        if name in drop:
            decided[name] = Decision(name, "left out", "", "named by DROP")
            continue
        found, decision = _feature(column, frame[name], bool(time))
        decided[name] = decision
        if found is not None:
            taken[name] = found
    _leaks(frame, taken, decided, answer, seed, keep)
    _check_together(frame, taken, answer, seed, keep)
    oldest, newest = _ends(columns[time], frame[time]) if time else (None, None)
    params = _params(answer, columns, taken, frame, time, oldest, newest, profile.rows)
    if oldest is not None and oldest.timestamp() > columns[time].minimum + 1:
        answer.warnings.append(
            f"{time} is {_day(columns[time].minimum)} in the oldest row, and {oldest:%Y-%m-%d} at the earliest in nearly all others. Such "
            "rows are used. If the date stands for a missing one, correct it at the source."
        )
    if newest is not None and newest.timestamp() < columns[time].maximum - 1:
        answer.warnings.append(
            f"{time} is {_day(columns[time].maximum)} in the newest row, and {newest:%Y-%m-%d} at the latest in nearly all others. The "
            f"window ends there: window.until in params.yaml. Correct the dates at the source, then set it to newest."
        )
    unusable = _unusable(sample, frame, columns, taken)
    bad = np.logical_or.reduce([*unusable.values(), np.zeros(len(frame), dtype=bool)]).mean()
    params["bad_share"] = min(1.0, float(f"{math.ceil(bad * 150) / 100:.2f}")) if bad > 0.015 else 0.02
    warnings = answer.warnings
    if bad > 0.015:
        most = sorted(unusable, key=lambda name: -unusable[name].sum())
        warnings.append(
            f"{bad:.1%} of the rows have values that cannot be used, most of them in {', '.join(most[:4])}, and are set aside: "
            f"validation.max_bad_share in params.yaml is {params['bad_share']:g} instead of 0.02. If these values mean something, read "
            "them in io/source.py."
        )
    if not group:
        warnings += _copies(frame, profile.rows, taken, bool(time), seed)
    elif not time and (columns[group].different) < FEW_SUBJECTS:
        warnings.append(
            f"{columns[group].different} different {group} are few: the test has a fifth of them, and intervals rest on those. Collect more."
        )
    for name, one in taken.items():
        if one.role == "feature" and not (one.nullable and one.allowed is None):
            taken[name] = replace(one, unseen="pool")
    features = [one for one in taken.values() if one.role == "feature"]
    if not features:
        raise AdoptionError("no column is left that could be an input; see above why each was left out.")
    order = [name for name in (identifier, group, time) if name]
    rest = [name for name in columns if name in taken and name not in (*order, target)]
    ordered = [taken[name] for name in (*order, *rest, target)]
    if not identifier:
        name = "row" if "row" not in columns else "row_number"
        ordered.insert(0, contract.Column(name, "integer", role="id", minimum=1, unit="place in the source"))
        warnings.append(
            f"no ID was named: rows are counted in a column {name}. With ID=<column> a row keeps its name when others come "
            "or go."
        )
    if not time:
        moments = [name for name in taken if taken[name].kind == "timestamp"]
        if moments:
            warnings.append(
                f"no TIME was named: rows are drawn by lot for the test. TIME={moments[0]} would test on the newest."
            )
    styles = {name: _written(columns[name], found) for name, found in taken.items()}
    return Plan(
        answer.problem,
        contract.Contract(tuple(ordered)),
        tuple(decided[name] for name in columns),
        {name: styles[name] for name in columns if styles.get(name)},
        params,
        tuple(warnings),
        profile.rows,
        answer.long_tail,
    )


def _unusable(
    sample: pa.Table, frame: pd.DataFrame, columns: Mapping[str, Column], taken: Mapping[str, contract.Column]
) -> dict[str, np.ndarray]:
    """Return which rows of the sample the contract will set aside, by the column that they break; columns without such rows are left out.

    One row may break several columns, so that neither the sum nor the maximum of the columns is the share of the rows.
    """
    found = {}
    for name, one in taken.items():
        values, read, kind = sample[name], frame[name], columns[name].guess.kind
        if one.role == "time":
            broken = read.isna().to_numpy()
        elif one.role == "target" and one.kind == "string":  # rare classes
            broken = np.isnan(_truth(read, one)) & read.notna().to_numpy()
        elif kind in ("number", "time") and one.kind != "string":
            given = trimmed(values, NO_NUMBER) if pa.types.is_string(values.type) else values
            present = ~pc.is_null(given, nan_is_null=True).to_numpy()
            broken = present & ~(read.notna().to_numpy() if kind == "time" else np.isfinite(read.to_numpy("float64")))
        else:
            continue
        if broken.any():
            found[name] = broken
    return found


def _written(column: Column, found: contract.Column) -> str:
    """The style that io/source.py has to know of; empty where values are written as computers do."""
    if found.kind == "timestamp":
        return column.guess.style if column.guess.style != "ISO8601" and not column.typed else ""
    if found.kind in ("integer", "number") and column.guess.kind == "number":
        return column.guess.style or (NUMBER_STYLES[0] if column.dashes else "")
    return ""


# ------------------------------------------------------------------------------------------------------- Target


def _target(column: Column, asked: str) -> _Target:
    name, present = column.name, column.present - column.unread
    warnings = []
    if present == 0:
        raise AdoptionError(f"the target {name} has no value in any row; there is nothing to learn.")
    words = f" {said} If one is a class, write it otherwise in the source." if (said := _words(column)) else ""
    if column.missing:
        warnings.append(
            f"{column.missing:,} rows have no {name} yet: they are set aside as unlabelled, not as wrong.{words}"
        )
    if column.distinct == 1:
        only = _label(next(iter(column.counts or {}), ""))
        raise AdoptionError(
            f"the target {name} is {only} in all rows{' that have one' if column.missing else ''}; there is nothing to tell apart.{words}"
        )
    if present < FEWEST:
        raise AdoptionError(
            f"{present} rows have an answer; with fewer than {FEWEST} nothing that is learnt can be trusted."
        )
    if column.guess.kind == "time":
        raise AdoptionError(f"the target {name} is a time. Predict a number of days, or a class, that follows from it.")
    if column.guess.kind == "boolean":
        return _two(column, warnings, asked)
    if column.guess.kind == "number":
        whole = column.whole and column.distinct is not None
        if asked == "classification" and (not whole or (column.distinct or 0) > MOST_CLASSES):
            raise AdoptionError(f"the target {name} has too many different numbers for classes; leave PROBLEM out.")
        few = whole and (column.distinct or 0) <= CLASSES_OF_NUMBERS and present >= 20 * (column.distinct or 0)
        if asked == "classification" or (few and asked != "regression"):
            return _named(column, warnings, " (PROBLEM=regression takes it as a number)" if not asked else "")
        return _number(column, warnings)
    if asked == "regression":
        raise AdoptionError(f"the target {name} is text ({_some(column)}); only numbers can be a regression.")
    if column.counts is None or len(column.counts) > MOST_CLASSES:
        count = "thousands of" if column.counts is None else f"{len(column.counts)}"
        raise AdoptionError(
            f"the target {name} has {count} different texts; {MOST_CLASSES} classes are the most. Group them first."
        )
    return _named(column, warnings)


def _two(column: Column, warnings: list[str], asked: str) -> _Target:
    if asked == "regression":
        raise AdoptionError(f"the target {column.name} is true or false; that is a classification.")
    counts: dict[str, int] = {}
    for key, count in (column.counts or {}).items():  # yes, Yes and YES are one word
        counts[_label(key).lower()] = counts.get(_label(key).lower(), 0) + count
    positive = sum(count for key, count in counts.items() if key in TRUE)
    fewer = min(positive, sum(counts.values()) - positive)
    if fewer < FEWEST_OF_A_CLASS:
        raise AdoptionError(
            f"the rarer answer of {column.name} occurs {fewer} times; {FEWEST_OF_A_CLASS} are the least to learn from."
        )
    share = positive / max(sum(counts.values()), 1)
    return _Target(
        contract.Column(column.name, "boolean", role="target"),
        "classification",
        f"two answers, {share:.2%} of them true",
        "",
        warnings,
    )


def _named(column: Column, warnings: list[str], hint: str = "") -> _Target:
    counts = {_label(key): count for key, count in (column.counts or {}).items()}
    words = {key.lower() for key in counts}
    if true_or_false(words):
        return _two(column, warnings, "")
    alike = [[key for key in counts if key.lower() == word] for word in sorted(words)]
    if twins := [" and ".join(keys) for keys in alike if len(keys) > 1]:
        warnings.append(
            f"{column.name} has classes that differ in capital letters alone: {', '.join(twins[:4])}. They are kept apart. If they "
            "are one class, write them alike in the source."
        )
    rare = [key for key, count in counts.items() if count < FEWEST_OF_A_CLASS]
    kept = [key for key in counts if key not in rare]
    if len(kept) < 2:
        raise AdoptionError(
            f"only {len(kept)} class of {column.name} has {FEWEST_OF_A_CLASS} rows or more; there is nothing to tell apart."
        )
    if rare:
        warnings.append(f"classes of fewer than {FEWEST_OF_A_CLASS} rows are set aside: {', '.join(rare[:8])}.")
    if len(kept) == 2:  # the rarer one is what people look for, unless one says yes
        known = true_or_false({key.lower() for key in kept})  # with a third class, which is rare
        kept.sort(key=lambda key: (key.lower() in (TRUE if known else YES), -counts[key]))
        why = f"two classes; the score is the probability of {kept[1]}, {counts[kept[1]] / sum(counts.values()):.2%} of the rows"
    else:
        kept.sort(key=lambda key: (0, float(key), "") if re.fullmatch(r"-?\d+", key) else (1, 0.0, key))
        why = f"{len(kept)} classes" + hint
    found = contract.Column(column.name, "string", role="target", allowed=tuple(kept))
    return _Target(found, "classification", why, "", warnings)


def _number(column: Column, warnings: list[str]) -> _Target:
    mean, top = column.total / max(column.present - column.unread, 1), column.maximum
    low, high = _room(column)
    span = max(mean - column.minimum, 1e-12)
    tail = column.minimum >= 0 and (top - mean) / span > 8
    kind = "integer" if column.whole else "number"
    why = f"a number from {column.minimum:g} to {column.maximum:g}" + (", with a long tail" if tail else "")
    found = contract.Column(column.name, kind, role="target", minimum=low, maximum=high)  # type: ignore[arg-type]
    return _Target(found, "regression", why, "", warnings, long_tail=tail)


# --------------------------------------------------------------------------------------------- Time, id, inputs


def _time(column: Column, values: pd.Series) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.guess.kind != "time":
        variable = "STYLE_" + re.sub("[^A-Za-z0-9_]", "_", name)
        raise AdoptionError(
            f"TIME={name} holds no times ({_some(column)}). Known are ISO 8601 and the usual orders of day, month and year; "
            f"name another style as strptime does, {variable}=%d.%m.%y, {variable}=seconds for seconds since 1970, or {variable}=excel for the "
            "day numbers of Excel."
        )
    if column.minimum >= column.maximum:
        raise AdoptionError(f"TIME={name} is the same in all rows; leave TIME out.")
    why = f"orders the rows, from {_day(column.minimum)} to {_day(column.maximum)}" + _style(column)
    oldest, newest = _ends(column, values)
    if newest - oldest < pd.Timedelta(days=SEASONS):
        why += "; its month is no input: none comes back in less than two years"
    doubt = column.guess.ambiguous
    if column.missing + column.unread:
        doubt = (
            f"{column.missing + column.unread:,} rows have none that can be read; they are set aside. {doubt}".strip()
        )
    return contract.Column(name, "timestamp", role="time"), Decision(name, "time", "timestamp", why, doubt)


def _id(column: Column, values: pd.Series) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.repeated:
        raise AdoptionError(
            f"ID={name} repeats: {column.repeated:,} of {column.rows:,} rows have a value that occurred before. If {name} names a "
            f"subject with several rows, such as a customer, give GROUP={name} in place of it: rows of a subject then stay on one side "
            "of the split. As ID name a column that is different in each row, or none."
        )
    if column.missing:
        raise AdoptionError(f"ID={name} is missing in {column.missing:,} rows; an id is there in all of them.")
    secret = personal.reason(name, _texts(column, values), 1.0)
    kind = (
        "integer"
        if column.guess.kind == "number" and column.whole and column.maximum < 2**53 and not secret
        else "string"
    )
    why = "names the row" + (f"; {secret}: kept as a keyed hash (MASK_KEY)" if secret else "")
    return contract.Column(name, kind, role="id", personal=bool(secret)), Decision(name, "id", kind, why)  # type: ignore[arg-type]


def _group(column: Column, values: pd.Series, timed: bool) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.different < FEWEST_SUBJECTS:
        raise AdoptionError(
            f"GROUP={name} has {column.different} different values ({_some(column)}); a test and folds of whole groups need "
            f"{FEWEST_SUBJECTS} or more. Leave GROUP out: {name} is then an input."
        )
    if not values.dropna().duplicated().any():
        raise AdoptionError(
            f"GROUP={name} is different in each row, so it groups nothing. Leave it out, or give ID={name} if it names the row."
        )
    secret = personal.reason(name, _texts(column, values), 1.0)
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


def _feature(column: Column, values: pd.Series, timed: bool) -> tuple[contract.Column | None, Decision]:
    name, kind = column.name, column.guess.kind
    doubt = " ".join(
        filter(None, [column.guess.ambiguous, _words(column), _sentinel(column, values) if kind == "number" else ""])
    )

    def out(why: str) -> tuple[None, Decision]:
        several = why.startswith(NEARLY_EACH) and column.often < 0.95
        return None, Decision(name, "left out", "", why, _may_be_group(name) if several else "")

    def taken(why: str, kind: Any, **rules: Any) -> tuple[contract.Column, Decision]:
        nonlocal doubt
        if column.unread and kind != "string":
            hidden = personal.reason(name, column.strange, 1.0)  # what is shown is written into adoption.json
            strange = hidden or ", ".join(dict.fromkeys(column.strange))
            share = f"{column.unread / column.present:.1%}"
            count = f"{column.unread:,} values are" if column.unread > 1 else "1 value is"
            doubt = f"{count} no {kind}, {share} of them ({strange}); such rows are set aside. {doubt}".strip()
        if kind == "string" and column.different > LISTED:
            doubt = f"{doubt} {_may_be_group(name)}".strip()
        return contract.Column(name, kind, nullable=column.missing > 0, **rules), Decision(
            name, "feature", kind, why + _style(column), doubt
        )

    if column.present == 0:
        return out("empty")
    secret = personal.reason(name, _texts(column, values), column.often)
    if secret:
        return out(f"looks like personal data: {secret}")
    if column.distinct == 1 and not column.missing:
        return out(f"a constant, {_some(column)}")
    if kind == "time":
        return taken(
            f"a moment, from {_day(column.minimum)} to {_day(column.maximum)}; its parts are inputs", "timestamp"
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
        low, high = _room(column)
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


def _words(column: Column) -> str:
    """What to look at where words such as `NA` are taken for no value; empty where there are none."""
    if not column.words:
        return ""
    said = ", ".join(f"{word} in {count:,} rows" for word, count in column.words.items())
    codes = [key for key in column.counts or {} if re.fullmatch("[A-Z]{2}", str(key))]
    hint = " NA is the code of Namibia: write it otherwise if it is meant." if "NA" in column.words and codes else ""
    return f"{said} count as missing.{hint}"


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


def _leaks(
    frame: pd.DataFrame,
    taken: dict[str, contract.Column],
    decided: dict[str, Decision],
    answer: _Target,
    seed: int,
    keep: Sequence[str],
) -> None:
    """Leave out what nearly is the answer, and doubt what comes close; on the sample."""
    target = answer.column
    names = [name for name, column in taken.items() if column.role == "feature"]
    y = _truth(frame[target.name], target)
    known = np.isfinite(y)
    if known.sum() < FEWEST // 2 or not names:
        return
    inputs = frame.loc[known, names].reset_index(drop=True)
    for name in names:
        if pd.api.types.is_datetime64_any_dtype(inputs[name].dtype):
            moments = inputs[name]
            inputs[name] = moments.astype("int64").astype("float64").where(moments.notna())
        elif taken[name].kind == "string" and pd.api.types.is_numeric_dtype(inputs[name].dtype):
            inputs[name] = inputs[name].astype("str")
    for name, truth, answers in single_input_answers(answer.problem, inputs, y[known], seed):
        told, certain = _told(answer.problem, truth, answers)
        old = decided[name]
        if name in keep:
            continue
        if told >= LEAK and (certain or len(truth) >= FEW_TO_JUDGE):
            decided[name] = Decision(
                name, "left out", "", f"leaks: alone it tells {target.name} ({told:.2f} of 1.0)",
                f"if it is known before the answer is: KEEP={name}",
            )  # fmt: skip
            del taken[name]
        elif told >= SUSPICIOUS:
            doubt = f"alone it tells much of {target.name} ({told:.2f} of 1.0): is it known in time?"
            decided[name] = Decision(old.name, old.role, old.kind, old.why, f"{doubt} {old.doubt}".strip())


def _check_together(
    frame: pd.DataFrame, taken: Mapping[str, contract.Column], answer: _Target, seed: int, keep: Sequence[str]
) -> None:
    """Refuse numbers that together give the target away: a sum or a difference of columns that were recorded with it.

    A linear model of few numbers is fitted on half of the sample and judged on the other half, with AUC or R2.

    Raises:
        AdoptionError: The text names the columns.
    """
    y = _truth(frame[answer.column.name], answer.column)
    numbers = [one.name for one in taken.values() if one.role == "feature" and one.kind in ("number", "integer")]
    names = [name for name in numbers if name not in keep]
    known = np.isfinite(y)
    several = answer.problem == "classification" and len(answer.column.allowed or ()) > 2
    if several or len(names) < 2 or known.sum() < FEWEST:
        return
    at = np.random.default_rng(seed).permutation(np.flatnonzero(known))[:TOGETHER_ROWS]
    inputs = frame.iloc[at][names].to_numpy("float64", copy=True)
    inputs[~np.isfinite(inputs)] = np.nan
    spread = np.nanstd(inputs, axis=0)
    use = np.flatnonzero(np.isfinite(inputs).any(axis=0) & (spread > 0))
    if len(use) < 2:
        return
    values = np.nan_to_num((inputs[:, use] - np.nanmean(inputs[:, use], axis=0)) / spread[use])
    if len(use) > MOST_TOGETHER:  # a part of the target goes along with it
        along = np.argsort(-np.abs(values.T @ (y[at] - y[at].mean())), kind="stable")[:MOST_TOGETHER]
        use, values = use[along], values[:, along]
    best, skill = together(answer.problem, values, y[at])
    named = [names[use[place]] for place in best]
    if skill <= PERFECT:
        return
    said = (
        f"{' and '.join(named) if len(named) <= 6 else f'{len(named)} numbers'} together give {answer.column.name} away ({skill:.4f} "
        "of 1.0 from a linear model)"
    )
    if answer.problem == "classification" and len(named) > 2:  # classes may be as easy as that
        answer.warnings.append(
            f"{said}. Are they all known before {answer.column.name} is? If not, leave them out with DROP=."
        )
        return
    raise AdoptionError(
        f"{said}: a model would only compute it. If one of them is recorded with {answer.column.name} or later, leave it out: "
        f"DROP={named[0]}. If all are known before: KEEP={','.join(named)}."
    )


def _copies(frame: pd.DataFrame, rows: int, taken: Mapping[str, contract.Column], timed: bool, seed: int) -> list[str]:
    """Say how many rows are copies of others, where that is more than twice as many as with columns shuffled apart."""
    table = frame[[name for name, one in taken.items() if one.role in ("feature", "target")]]
    if not repeated(table, seed):
        return []
    copies = int(table.duplicated().sum())
    shown = f"{copies:,} of {rows:,} rows" if len(table) == rows else f"{copies / len(table):.1%} of the rows"
    side = (
        "If each of them is a case of its own, all is well; else"
        if timed
        else "They stay on one side of the split. If they are one case,"
    )
    return [f"{shown} are copies of other rows. {side} remove them at the source."]


def _told(problem: str, truth: np.ndarray, answers: np.ndarray) -> tuple[float, bool]:
    """How much of the answer is told, from 0 to 1, and whether all of it is.

    R2 of a number; of classes the share of the answers that are right beyond those of the largest class alone.
    """
    if problem == "regression":
        told = r2(truth, answers, np.ones(len(truth)))
        return told, told > 0.999
    right = (answers.argmax(axis=1) if answers.ndim == 2 else answers >= 0.5) == truth
    largest = np.bincount(truth.astype(int)).max() / len(truth)
    told = (right.mean() - largest) / max(1 - largest, 1e-9)
    return float(max(told, 0.0)), bool(right.all())


def _truth(values: pd.Series, target: contract.Column) -> np.ndarray:
    if target.kind == "boolean":
        words = values.astype("str").str.lower().str.removesuffix(".0")
        return np.where(words.isin(TRUE), 1.0, np.where(words.isin(FALSE), 0.0, np.nan))
    if target.kind == "string":
        named = pd.Index(values.map(_label, na_action="ignore").astype("str"))
        codes = pd.Index(target.allowed or ()).get_indexer(named)
        return np.where(codes < 0, np.nan, codes.astype("float64"))
    return values.to_numpy("float64")


# ------------------------------------------------------------------------------------------------------- Params


def _params(
    answer: _Target,
    columns: Mapping[str, Column],
    taken: Mapping[str, contract.Column],
    frame: pd.DataFrame,
    time: str,
    oldest: pd.Timestamp | None,
    newest: pd.Timestamp | None,
    rows: int,
) -> dict[str, Any]:
    """The values of params.yaml that follow from the table; `oldest` and `newest` are the times of the first and the last row that count."""
    found: dict[str, Any] = {"problem": answer.problem}
    trials = 12 if rows < 5_000 else 8 if rows < 30_000 else 6
    inputs = sum(column.role == "feature" for column in taken.values())
    many = max(1, len(answer.column.allowed or ()) // 3, inputs // 100)  # a tree for each class, a look at each input
    drawn = {"test_share": 0.2, "folds": 5 if rows < 5_000 and many == 1 else 3}
    found["split"] = drawn
    if oldest is not None and newest is not None:
        if newest.timestamp() < columns[time].maximum - 1:
            found["until"] = f"{newest.normalize() + pd.Timedelta(days=1):%Y-%m-%d}"
            frame = frame[~(frame[time] > newest).to_numpy()]
        moments = frame[time].dropna()
        newest_fifth = pd.Timestamp(moments.sort_values().iloc[int(len(moments) * 0.8)])
        days = max(1, math.ceil((newest - newest_fifth) / pd.Timedelta(days=1)))
        span = (newest.normalize() - oldest.normalize()).days + 1
        found["span"] = max(span, days + 1)
        if span >= FEWEST_DAYS:
            days = min(days, span - 1)
            if answer.problem == "classification":
                days = _enough_days(answer, frame, time, newest, days, span, rows)
            found["split"] = {"test_days": days, "folds": 3}
        else:
            answer.warnings.append(
                f"{time} covers {span} days, too few to hold the newest back: the test is drawn by lot."
            )
    found["search"] = {"trials": max(4, trials // many), "max_rows": 20_000}
    slices = [
        name
        for name, column in taken.items()
        if column.role == "feature" and (column.kind == "boolean" or len(column.allowed or ()) in range(2, 13))
    ][:2]
    found["slices"] = [*slices, *(["month"] if time else [])]
    found["metric"] = "auc" if answer.problem == "classification" else "mae" if answer.long_tail else "rmse"
    if answer.problem == "classification":
        found["better"], found["worse"] = 0.02, 0.005
    else:
        truth = _truth(frame[answer.column.name], answer.column)
        truth = truth[np.isfinite(truth)]
        spread = float(np.nanmean(np.abs(truth - np.nanmean(truth))))
        found["better"], found["worse"] = nice(spread / 50), nice(spread / 100)
    return found


def _ends(column: Column, times: pd.Series) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The times of the oldest and the newest row, without rows that are typing errors or stand for "never" or "unknown".

    The day of such a row in the future would be the whole test; one in the past would make a year of rows look like a century.
    """
    moments = times.dropna().sort_values().astype("int64").to_numpy("float64") / 1e6  # from microseconds
    oldest, newest = column.minimum, column.maximum
    for _ in range(2):  # a row at one end hides that one at the other end is far away
        inside = moments[(moments >= oldest) & (moments <= newest)]
        oldest, newest = -_last(-inside[::-1], -oldest), _last(inside, newest)
    return pd.Timestamp(oldest, unit="s", tz="UTC"), pd.Timestamp(newest, unit="s", tz="UTC")


def _last(moments: np.ndarray, last: float) -> float:
    """Return the last of some sorted moments before a gap that is longer than all that they cover, and than a year.

    Args:
        moments: seconds, in order.
        last: the last moment of the table, of which `moments` may be a sample.

    Returns:
        `last` if there is no such gap, or if after it there are more than a few rows, unless all of them are of one day.
    """
    few = min(max(3, len(moments) // 1000), len(moments) // 10)
    if not few:
        return last
    ends = np.array([*moments[-few - 1 :], last])
    of_last_day = int((moments > last - DAY).sum())
    places = [int(np.diff(ends).argmax()) + len(moments) - few - 1]
    if 0 < of_last_day <= len(moments) // 10:
        places.append(len(moments) - of_last_day - 1)
    for place in places:
        following = moments[place + 1] if place + 1 < len(moments) else last
        if following - moments[place] > max(moments[place] - moments[0], 366 * DAY):
            return float(moments[place])
    return last


def _enough_days(
    answer: _Target, frame: pd.DataFrame, time: str, newest: pd.Timestamp, days: int, span: int, rows: int
) -> int:
    """Widen the days that judge until the rarest class occurs often enough in them, at most to half of its rows.

    Counts in the sample `frame` stand for the `rows` of the table.
    """
    y = _truth(frame[answer.column.name], answer.column)
    known = np.isfinite(y) & frame[time].notna().to_numpy()
    values, counts = np.unique(y[known], return_counts=True)
    rare = frame[time][known & (y == values[counts.argmin()])].sort_values(ascending=False)
    ages = ((newest - rare) / pd.Timedelta(days=1)).to_numpy()
    each = rows / len(frame)
    wanted = min(math.ceil(FEWEST_TO_JUDGE / each), len(ages) // 2)
    wide = min(max(days, math.ceil(ages[wanted - 1]) if wanted else days), span - 1)
    there = round(each * (ages <= wide).sum())
    if wide > days:
        answer.warnings.append(
            f"the newest fifth of the rows has {round(each * (ages <= days).sum())} of the rarest class: the test takes {wide} days, in which "
            f"there are {there}."
        )
    if there < FEWEST_TO_JUDGE:
        answer.warnings.append(
            f"{there} rows of the rarest class judge the model. With fewer than {FEWEST_TO_JUDGE} a metric is mostly chance: look at "
            "its interval, and collect more rows."
        )
    return wide


def nice(value: float) -> float:
    """The next number of 1, 2 or 5 times a power of ten that is not larger; 0 stays 0."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power:.6g}")


def _room(column: Column) -> tuple[float, float]:
    """A range with room to grow: half the width on either side, not across zero, in round numbers."""
    low, high = column.minimum, column.maximum
    width = max(high - low, abs(high) * 0.1, 1e-9)
    power = 10.0 ** math.floor(math.log10(width))
    below = math.floor((low - width / 2) / power) * power
    above = math.ceil((high + width / 2) / power) * power
    if low >= 0:
        below = 0.0 if low < width * 10 else max(below, 0.0)
    if high <= 0:
        above = min(above, 0.0)
    return float(f"{below:.12g}"), float(f"{above:.12g}")


def _label(value: object) -> str:
    """A class as the contract names it: 3, not 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _texts(column: Column, values: pd.Series) -> list[str]:
    """Some values as text, as they were written where that is known."""
    if column.guess.kind == "time":
        return [f"{moment:%Y-%m-%d}" for moment in values.dropna().head(50)]
    if column.written and column.guess.kind == "number":
        return column.written
    some = values.dropna().drop_duplicates().head(2_000)
    if pd.api.types.is_float_dtype(some.dtype):
        return [_label(float(value)) for value in some]
    return some.astype("str").tolist()


def _some(column: Column) -> str:
    values = [*map(_label, list(column.counts or {})[:3]), *column.strange]
    return ", ".join(values[:3]) + (" ..." if (column.distinct or 9) > 3 else "")


def _style(column: Column) -> str:
    return f", written as {column.guess.style}" if column.guess.style not in ("", "ISO8601", NUMBER_STYLES[0]) else ""


def _day(moment: float) -> str:
    return pd.Timestamp(moment, unit="s", tz="UTC").isoformat()[:10]  # strftime has no zeros before the year 1000
