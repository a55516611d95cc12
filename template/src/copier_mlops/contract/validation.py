"""The check of rows against the data contract: rows that break it are set aside, with each violation.

`Violation.reason` alone makes a sentence of a violation. The check works on whole columns: a million rows take about a second.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Column, Contract, ContractError, as_text

NOT_SEEN = "not seen in training"  # the rule of a value that is pooled
MOST_LETTERS = 40  # of the value of a violation

REASON = "reason"
"""The column that rows which were set aside carry: why, for each rule that they break."""


@dataclass(frozen=True)
class Violation:
    """One value of a column that breaks a rule of the contract.

    Attributes:
        column: Name of the column.
        rule: The rule in a few words, such as `above 3000`.
        value: The value as text, at most `MOST_LETTERS` characters of it.
        rows: Positions of the rows that have it.
    """

    column: str
    rule: str
    value: str
    rows: tuple[int, ...] = ()

    @property
    def broken_rule(self) -> str:
        """Column and rule, such as `distance: above 3000`: what reports count by."""
        return f"{self.column}: {self.rule}"

    @property
    def reason(self) -> str:
        """The sentence of a row that is set aside, such as `distance: above 3000 (4983)`."""
        return f"{self.broken_rule} ({self.value})"


def count_rules(violations: Iterable[Violation]) -> Counter[str]:
    """Return how many rows break each rule, by `Violation.broken_rule`."""
    counts: Counter[str] = Counter()
    for violation in violations:
        counts[violation.broken_rule] += len(violation.rows)
    return counts


def rows_of(violations: Iterable[Violation]) -> np.ndarray:
    """Return the positions of the rows of some violations, as an int64 array."""
    return np.fromiter(itertools.chain.from_iterable(one.rows for one in violations), dtype="int64")


def reasons_of(violations: Iterable[Violation]) -> dict[int, str]:
    """Return the reasons of each row that has one, by its position: one sentence for each violation."""
    reasons: dict[int, list[str]] = {}
    for violation in violations:
        reason = violation.reason
        for row in violation.rows:
            reasons.setdefault(row, []).append(reason)
    return {row: "; ".join(texts) for row, texts in reasons.items()}


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """The rows of a table by what became of them; together they are the table, each in its own order.

    Attributes:
        good: Rows that keep the contract, typed as it says.
        set_aside: Rows that break it, as they came, with the column `reason`.
        unlabelled: Rows that keep it but have no target yet, typed, without the target.
        violations: What the rows in `set_aside` break; their rows are positions in the table.
    """

    good: pd.DataFrame
    set_aside: pd.DataFrame
    unlabelled: pd.DataFrame
    violations: tuple[Violation, ...] = ()


def check_columns(
    present: Sequence[str], contract: Contract, labelled: bool = True, others: Sequence[str] = ()
) -> None:
    """Hold a table's column names against the contract.

    Args:
        present: The names that the table has.
        contract: What it should have.
        labelled: Whether the target and the group have to be there, as at the source; if not, as in rows to be answered, they may be.
        others: Names that the table has beside these, and that are not looked at; one of them may be meant where one is missing.

    Raises:
        ContractError: If a column is missing, unexpected or there twice.
    """
    where = "in source.py" if labelled else "in the input"
    twice = sorted(name for name, count in Counter(present).items() if count > 1)
    if twice:
        raise ContractError(f"the table has a column twice: {', '.join(twice)}. Rename or drop one {where}.")
    needed = [name for name in contract.names if labelled or name not in (contract.target, contract.group)]
    there = set(present)
    missing = [name for name in needed if name not in there]
    known = set(contract.names)
    unexpected = [name for name in present if name not in known]
    lines = []
    for name in missing:
        close = closest(name, [*unexpected, *(other for other in others if other not in known)])
        lines.append(f"column {name} is missing" + (f" (did you mean {close}?)" if close else ""))
    lines += [f"column {name} is unexpected" for name in unexpected]
    if lines and not labelled:
        raise ContractError(
            f"the input does not have the columns that the model was trained with: {'; '.join(lines)}. Rename or add columns in the "
            "input."
        )
    if lines:
        raise ContractError(
            f"the table does not have the columns of the contract: {'; '.join(lines)}. "
            "Change source.py to deliver what schema.py says, or schema.py to say what is delivered."
        )


def closest(name: str, names: Sequence[str]) -> str:
    """The one of some names that is most like another one, whatever their capital letters; empty if none is close."""
    plain = {other.strip().casefold(): other for other in names}
    found = difflib.get_close_matches(name.strip().casefold(), plain, n=1)
    return plain[found[0]] if found else ""


def check_rows(
    frame: pd.DataFrame,
    contract: Contract,
    *,
    labelled: bool = True,
    seen: np.ndarray | None = None,
    repeats: bool = False,
) -> ValidationResult:
    """Set aside each row that breaks a rule, with every reason.

    Args:
        frame: Rows as the source gave them, any index.
        contract: The rules.
        labelled: Whether rows come with a target. A row without one is `unlabelled`, not wrong; when False, a target
            that is there is ignored.
        seen: Sorted `fingerprints` of ids in earlier parts of the same table, so that uniqueness holds across parts.
        repeats: Whether a value that should be unique may occur again: a question may be asked twice.

    Returns:
        The rows in three groups, each with the index that it had.

    Raises:
        ContractError: If columns are missing, unexpected or double.
    """
    check_columns(list(frame.columns), contract, labelled)
    columns = contract.columns if labelled else contract.without_target()
    violations: list[Violation] = []
    typed: dict[str, pd.Series] = {}
    numbered = frame.reset_index(drop=True)
    for column in columns:
        absent = column.role == "group" and column.name not in numbered
        raw = pd.Series(None, numbered.index, dtype="object") if absent else numbered[column.name]
        earlier = seen if column.role == "id" else None
        typed[column.name], found = check_values(raw, column, seen=earlier, repeats=repeats)
        violations += found
    clean = pd.DataFrame(typed, copy=False)
    clean.index = frame.index
    bad = np.zeros(len(frame), dtype=bool)
    bad[rows_of(violations)] = True
    unlabelled = clean[contract.target].isna().to_numpy() & ~bad if labelled else np.zeros(len(frame), dtype=bool)
    good = _only(clean, ~bad & ~unlabelled)
    if labelled and not contract.classes:
        good = good.astype({contract.target: "float64"})
    reasons = reasons_of(violations)
    return ValidationResult(
        good=good,
        set_aside=_only(frame, bad).assign(**{REASON: [reasons[row] for row in sorted(reasons)]}),
        unlabelled=_only(clean, unlabelled).drop(columns=contract.target, errors="ignore"),
        violations=tuple(violations),
    )


def unseen(rows: pd.DataFrame, contract: Contract) -> dict[str, np.ndarray]:
    """Where rows have values that are pooled, since the training had none of them.

    Args:
        rows: Rows that keep the contract, typed.
        contract: Says which columns are pooled.

    Returns:
        By column, for each that has such a value, a boolean array of shape (rows,).
    """
    found = {}
    for column in contract.pooled:
        values = rows[column.name]
        if column.allowed is None and isinstance(values.dtype, np.dtype) and values.dtype.kind == "f":
            broken = np.isnan(values.to_numpy())
        elif column.allowed is not None and len(rows) <= FEW:  # a call of pandas costs more than these
            known: set[str | None] = {*column.allowed, *([None] if column.nullable else [])}
            texts = [None if text != text else text for text in values.tolist()]
            broken = np.array([text not in known for text in texts])
        else:
            missing = values.isna().to_numpy(dtype=bool)
            inside = ~missing if column.allowed is None else values.isin([*column.allowed]).to_numpy(dtype=bool)
            broken = ~(inside | missing) if column.nullable else ~inside
        if broken.any():
            found[column.name] = broken
    return found


def unseen_reasons(rows: pd.DataFrame, contract: Contract) -> pd.Series:
    """For each row in words which of its values are pooled, such as `kind: not seen in training (purple)`; empty where none is."""
    said = [""] * len(rows)
    for name, broken in unseen(rows, contract).items():
        for place in np.flatnonzero(broken).tolist():
            value = rows[name].iloc[place]
            text = Violation(name, NOT_SEEN, "missing" if pd.isna(value) else _short(value)).reason
            said[place] = f"{said[place]}; {text}" if said[place] else text
    return pd.Series(said, rows.index, dtype="object")


def _only(frame: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """Some of the rows; all and none of them are taken without a copy."""
    if wanted.all():
        return frame
    return frame[wanted] if wanted.any() else frame.iloc[:0]


def check_values(
    raw: pd.Series, column: Column, *, seen: np.ndarray | None = None, repeats: bool = False
) -> tuple[pd.Series, list[Violation]]:
    """Hold the values of one column against its rules, as `check_rows` does for each.

    Args:
        raw: Values as they came, numbered from 0.
        column: The rules.
        seen, repeats: As those of `check_rows`.

    Returns:
        The values as the kind of the column demands, missing where they cannot be read; and the violations.
    """
    values, violations = _typed(raw, column)
    unread = np.zeros(len(raw), dtype=bool)
    unread[rows_of(violations)] = True
    return values, violations + _broken_rules(values, column, unread=unread, seen=seen, repeats=repeats)


def _violations(broken: pd.Series | np.ndarray, raw: pd.Series, column: str, rule: str) -> list[Violation]:
    """Return a violation for each value of the rows where `broken`."""
    rows = np.flatnonzero(broken.to_numpy(dtype=bool, na_value=False) if isinstance(broken, pd.Series) else broken)
    by_value: dict[str, list[int]] = {}
    for row, value in zip(rows.tolist(), raw.iloc[rows], strict=True):
        by_value.setdefault(_short(value), []).append(row)
    return [Violation(column, rule, value, tuple(found)) for value, found in by_value.items()]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."


FEW = 64  # rows that are looked at one by one
FIRST_MOMENT = pd.Timestamp("0001-01-01T00:00:00Z").as_unit("us")
LAST_MOMENT = pd.Timestamp("9999-12-31T23:59:59.999999Z").as_unit("us")
_TRUE_FALSE = dict.fromkeys(("true", "1", "1.0", "yes", "y", "t", "on"), True)
_TRUE_FALSE |= dict.fromkeys(("false", "0", "0.0", "no", "n", "f", "off"), False)


def _typed(raw: pd.Series, column: Column) -> tuple[pd.Series, list[Violation]]:
    """A column as its kind demands, and the rows whose value is no such thing; those become missing."""
    if isinstance(raw.dtype, pd.CategoricalDtype):
        raw = raw.astype(raw.cat.categories.dtype)
    if _as_demanded(raw, column):
        return raw if raw.dtype == "str" or isinstance(raw.dtype, pd.DatetimeTZDtype) else raw.astype("float64"), []
    text = pd.api.types.is_string_dtype(raw.dtype) or raw.dtype == object
    if text:
        raw = raw.mask(raw.isin([""]))
    present = raw.notna()
    if column.kind == "string":
        return as_text(raw), []
    if column.kind in ("integer", "number"):
        if pd.api.types.is_datetime64_any_dtype(raw.dtype):
            return pd.Series(np.nan, raw.index), _violations(present, raw, column.name, "a time, not a number")
        if raw.dtype == object:
            flags = raw.map(lambda value: isinstance(value, (bool, np.bool_)))
        else:
            flags = present & pd.api.types.is_bool_dtype(raw.dtype)
        violations = _violations(flags, raw, column.name, "true or false, not a number")
        raw, present = raw.mask(flags), present & ~flags
        number = pd.to_numeric(raw, errors="coerce").astype("float64")
        violations += _violations(present & number.isna(), raw, column.name, "not a number")
        infinite = pd.Series(np.isinf(number), raw.index)
        violations += _violations(infinite, raw, column.name, "not finite")
        number = number.mask(infinite)
        if column.kind == "integer":
            broken = number.notna() & (number != number.round())
            violations += _violations(broken, raw, column.name, "not a whole number")
            number = number.mask(broken)
        return number, violations
    if column.kind == "boolean":
        flag = raw.map(lambda value: _TRUE_FALSE.get(str(value).lower()), na_action="ignore")
        flag = flag.astype("float64")
        return flag, _violations(present & flag.isna(), raw, column.name, "neither true nor false")
    if pd.api.types.is_numeric_dtype(raw.dtype):  # a number would be read as nanoseconds since 1970
        return pd.Series(pd.NaT, raw.index, dtype="datetime64[us, UTC]"), _violations(
            present, raw, column.name, "a number, not a time"
        )
    dated = raw
    if text:
        dated = raw.where(raw.astype("str").str.contains("[0-9]", regex=True))  # `now` would be the moment of the run
    moment = pd.to_datetime(dated, errors="coerce", utc=True, format="ISO8601" if text else None)
    moment = moment.astype("datetime64[us, UTC]")
    moment = moment.mask(_beyond(moment))
    return moment, _violations(present & moment.isna(), raw, column.name, "not a time")


def _beyond(moments: pd.Series) -> pd.Series:
    """Whether a time is before year 1 or after 9999: Python, JSON's date-time and most databases have no such times."""
    return moments.notna() & ~moments.between(FIRST_MOMENT, LAST_MOMENT)


def _as_demanded(raw: pd.Series, column: Column) -> bool:
    """Whether a column of a typed table is what its kind demands, so that no value has to be looked at one by one."""
    if column.kind == "string":
        return bool(raw.dtype == "str" and not (raw == "").any())
    if column.kind == "timestamp":
        return bool(raw.dtype == "datetime64[us, UTC]" and not _beyond(raw).any())
    if not isinstance(raw.dtype, np.dtype) or raw.dtype.kind not in "biuf" or raw.dtype.itemsize > 8:
        return False
    values = raw.to_numpy()
    if column.kind == "boolean":
        plain = (values == 0) & ~np.signbit(values.astype("float64")) | (values == 1) | np.isnan(values)
        return bool(plain.all())
    if raw.dtype.kind != "f":
        return raw.dtype.kind != "b"
    if column.kind == "integer":
        return bool(((values == np.rint(values)) & ~np.isinf(values) | np.isnan(values)).all())
    return not np.isinf(values).any()


def _broken_rules(
    values: pd.Series, column: Column, *, unread: np.ndarray, seen: np.ndarray | None, repeats: bool
) -> list[Violation]:
    """The rows of a typed column that break a rule of its kind; what could not be read is wrong, and not missing too."""
    name, missing = column.name, values.isna().to_numpy()
    violations: list[Violation] = []
    if not column.nullable and column.role != "target":
        violations += _violations(missing & ~unread, values, name, "missing")
    if column.minimum is not None:
        violations += _violations(values.to_numpy() < column.minimum, values, name, f"below {column.minimum:g}")
    if column.maximum is not None:
        violations += _violations(values.to_numpy() > column.maximum, values, name, f"above {column.maximum:g}")
    if column.allowed is not None and column.unseen == "reject":
        broken = _outside(values, column.allowed)
        violations += _violations(broken, values, name, f"not one of {', '.join(column.allowed[:6])}")
    if column.pattern is not None:
        pattern = re.compile(column.pattern)
        broken = _broken_texts(values, lambda texts: texts.str.fullmatch(pattern))
        violations += _violations(broken, values, name, f"does not match {column.pattern}")
    if (column.unique or column.role == "id") and not repeats:
        repeated = values.duplicated().to_numpy() & ~missing
        if seen is not None and len(seen):
            repeated |= _within(fingerprints(values), seen) & ~missing
        violations += _violations(repeated, values, name, "occurs before")
    return violations


def _outside(values: pd.Series, allowed: Sequence[str]) -> np.ndarray:
    return _broken_texts(values, lambda texts: texts.isin(allowed))


def _broken_texts(values: pd.Series, keep: Callable[[pd.Series], pd.Series]) -> np.ndarray:
    """The rows whose text breaks a rule, which is asked for each text once."""
    different = pd.Series(values.dropna().unique())
    if not len(different):
        return np.zeros(len(values), dtype=bool)
    wrong = different[~keep(different).to_numpy(dtype=bool)]
    return values.isin(wrong).to_numpy(dtype=bool) if len(wrong) else np.zeros(len(values), dtype=bool)


def fingerprints(values: pd.Series) -> np.ndarray:
    """A 64-bit hash for each value, to remember many ids in little memory.

    Returns:
        uint64 array of the shape of `values`.
    """
    return pd.util.hash_array(values.astype("str").to_numpy(dtype=object, na_value=""), categorize=False)


def _within(hashes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(seen, hashes), len(seen) - 1)
    return np.asarray(seen[place] == hashes)
