"""From a profile to a project: which column plays which role, and why; what cannot be learnt from, and why not."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .. import ProjectError
from ..core import contract, personal
from ..core.metrics import r2
from ..core.profile import Column, Profile, typed
from ..core.search import single_input_answers
from ..core.values import FALSE, NUMBER_STYLES, TRUE

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
LISTED = 30  # values that a contract lists
CODES = re.compile(
    r"(?i)(^|[_ ])(id|code|zip|zip_?code|plz|postal|postcode|postal_?code|type|class|category|zone|sector|sku|store)s?$|Id$|Code$"
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


def plan(profile: Profile, target: str, time: str = "", identifier: str = "", problem: str = "", seed: int = 7) -> Plan:
    """Decide on every column.

    Args:
        profile: Of the whole table, with `unique` known of the id.
        target, time, id: The columns that the user named; time and identifier may be empty.
        problem: classification or regression, if the user says so.
        seed: Of the sample on which leaks are looked for.

    Raises:
        AdoptionError: If the target cannot be learnt, the time is none, the id repeats, or no input is left.
    """
    columns = profile.columns
    check_names(list(columns), target=target, time=time, id=identifier)
    if profile.rows == 0:
        raise AdoptionError("the table has a header and no rows; there is nothing to learn from.")
    answer = _target(columns[target], problem)
    sample = profile.sample()
    frame = typed(sample, columns, profile.zone)
    decided: dict[str, Decision] = {}
    taken: dict[str, contract.Column] = {target: answer.column}
    decided[target] = Decision(target, "target", answer.column.kind, answer.why, answer.doubt)
    if time:
        taken[time], decided[time] = _time(columns[time])
    if identifier:
        taken[identifier], decided[identifier] = _id(columns[identifier], frame[identifier])
    for name, column in columns.items():
        if name in decided:
            continue
        found, decision = _feature(column, frame[name], bool(time))
        decided[name] = decision
        if found is not None:
            taken[name] = found
    _leaks(frame, taken, decided, answer, seed)
    params = _params(answer, columns, taken, frame, time, profile.rows)
    warnings = answer.warnings
    features = [one for one in taken.values() if one.role == "feature"]
    if not features:
        raise AdoptionError("no column is left that could be an input; see above why each was left out.")
    order = [name for name in (identifier, time) if name]
    rest = [name for name in columns if name in taken and name not in (*order, target)]
    listed = [taken[name] for name in (*order, *rest, target)]
    if not identifier:
        name = "row" if "row" not in columns else "row_number"
        listed.insert(0, contract.Column(name, "integer", role="id", minimum=1, unit="place in the source"))
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
        contract.Contract(tuple(listed)),
        tuple(decided[name] for name in columns),
        {name: styles[name] for name in columns if styles.get(name)},
        params,
        tuple(warnings),
        profile.rows,
        answer.long_tail,
    )


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
    if column.missing:
        warnings.append(f"{column.missing:,} rows have no {name} yet: they are set aside as unlabelled, not as wrong.")
    if column.distinct == 1:
        only = _label(next(iter(column.counts or {}), ""))
        raise AdoptionError(f"the target {name} is {only} in all rows; there is nothing to tell apart.")
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
    counts = {str(key).lower(): count for key, count in (column.counts or {}).items()}
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
    if set(counts) == {"0", "1"} or ({key.lower() for key in counts} <= TRUE | FALSE and len(counts) == 2):
        return _two(column, warnings, "")
    rare = [key for key, count in counts.items() if count < FEWEST_OF_A_CLASS]
    kept = [key for key in counts if key not in rare]
    if len(kept) < 2:
        raise AdoptionError(
            f"only {len(kept)} class of {column.name} has {FEWEST_OF_A_CLASS} rows or more; there is nothing to tell apart."
        )
    if rare:
        warnings.append(f"classes of fewer than {FEWEST_OF_A_CLASS} rows are set aside: {', '.join(rare[:8])}.")
    if len(kept) == 2:  # the rarer one is what people look for, unless one says yes
        kept.sort(key=lambda key: (key.lower() in YES, -counts[key]))
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


def _time(column: Column) -> tuple[contract.Column, Decision]:
    name = column.name
    if column.guess.kind != "time":
        raise AdoptionError(
            f"TIME={name} holds no times ({_some(column)}). Known are ISO 8601 and the usual orders of day, month and year; "
            "for others give a strptime format in io/source.py."
        )
    if column.minimum >= column.maximum:
        raise AdoptionError(f"TIME={name} is the same in all rows; leave TIME out.")
    why = f"orders the rows, from {_day(column.minimum)} to {_day(column.maximum)}" + _style(column)
    if column.maximum - column.minimum < SEASONS * 86_400:
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
            f"ID={name} repeats: {column.repeated:,} of {column.rows:,} rows have a value that occurred before. A row of the "
            "table has to be one case; name the column that is different in each row, or leave ID out."
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


def _feature(column: Column, values: pd.Series, timed: bool) -> tuple[contract.Column | None, Decision]:
    name, kind = column.name, column.guess.kind
    doubt = column.guess.ambiguous

    def out(why: str) -> tuple[None, Decision]:
        return None, Decision(name, "left out", "", why)

    def taken(why: str, kind: Any, **rules: Any) -> tuple[contract.Column, Decision]:
        nonlocal doubt
        if column.unread:
            strange = ", ".join(column.strange[:2])
            doubt = f"{column.unread:,} values are no {kind} ({strange}); their rows are set aside. {doubt}".strip()
        return contract.Column(name, kind, nullable=column.missing > 0, **rules), Decision(
            name, "feature", kind, why + _style(column), doubt
        )

    if column.present == 0:
        return out("empty")
    if column.distinct == 1 and not column.missing:
        return out(f"a constant, {_some(column)}")
    secret = personal.reason(name, _texts(column, values), column.often)
    if secret:
        return out(f"looks like personal data: {secret}")
    if kind == "time":
        return taken(
            f"a moment, from {_day(column.minimum)} to {_day(column.maximum)}; its parts are inputs", "timestamp"
        )
    if kind == "boolean":
        return taken("true or false", "boolean")
    if kind == "number":
        if column.whole and column.often > 0.9 and _counts_up(column, values):
            return out("an identifier: whole numbers, each once")
        if column.whole and column.distinct is not None and column.distinct > 2 and CODES.search(name):
            return taken(f"{column.distinct} codes, by its name", "string")
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


def _text(column: Column, out: Any, taken: Any) -> Any:
    mean = column.letters / max(column.present, 1)
    if column.counts is None or column.often > 0.5:
        if column.present >= FEWEST and mean > 25:
            return out(f"free text, {mean:.0f} letters on average")
        if column.often > 0.5 and column.present >= FEWEST:
            return out("an identifier: nearly each row has another")
        return taken("a category with more values than are counted; rare ones are pooled", "string")
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
    frame: pd.DataFrame, taken: dict[str, contract.Column], decided: dict[str, Decision], answer: _Target, seed: int
) -> None:
    """Leave out what nearly is the answer, and doubt what comes close; on the sample."""
    target = answer.column
    names = [name for name, column in taken.items() if column.role == "feature"]
    y = _truth(frame[target.name], target)
    known = ~np.isnan(y)
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
        if told >= LEAK and (certain or len(truth) >= FEW_TO_JUDGE):
            decided[name] = Decision(
                name, "left out", "", f"leaks: alone it tells {target.name} ({told:.2f} of 1.0)",
                "if it is known before the answer is, give it a line in core/schema.py",
            )  # fmt: skip
            del taken[name]
        elif told >= SUSPICIOUS:
            doubt = f"alone it tells much of {target.name} ({told:.2f} of 1.0): is it known in time?"
            decided[name] = Decision(old.name, old.role, old.kind, old.why, f"{doubt} {old.doubt}".strip())


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
    rows: int,
) -> dict[str, Any]:
    """The values of params.yaml that follow from the table."""
    found: dict[str, Any] = {"problem": answer.problem}
    trials = 12 if rows < 5_000 else 8 if rows < 30_000 else 6
    inputs = sum(column.role == "feature" for column in taken.values())
    many = max(1, len(answer.column.allowed or ()) // 3, inputs // 100)  # a tree for each class, a look at each input
    drawn = {"test_share": 0.2, "folds": 5 if rows < 5_000 and many == 1 else 3}
    found["split"] = drawn
    if time:
        moments = frame[time].dropna()
        newest = pd.Timestamp(columns[time].maximum, unit="s", tz="UTC")
        newest_fifth = pd.Timestamp(moments.sort_values().iloc[int(len(moments) * 0.8)])
        days = max(1, math.ceil((newest - newest_fifth) / pd.Timedelta(days=1)))
        span = (newest.normalize() - pd.Timestamp(columns[time].minimum, unit="s", tz="UTC").normalize()).days + 1
        found["window"] = {"days": max(span, days + 1)}
        if span >= FEWEST_DAYS:
            found["split"] = {"test_days": min(days, span - 1), "folds": 3}
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
        spread = float(np.nanmean(np.abs(truth - np.nanmean(truth))))
        found["better"], found["worse"] = nice(spread / 50), nice(spread / 100)
    return found


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
    if column.guess.kind == "time":
        return []
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
    return f"{pd.Timestamp(moment, unit='s', tz='UTC'):%Y-%m-%d}"
