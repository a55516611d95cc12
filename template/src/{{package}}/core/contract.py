"""The language of the data contract, and the check that sets rows aside which break it.

`schema.py` says what a row looks like; this module says what each of those words means. It works on whole columns, so a
million rows take about a second.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import hmac
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from .. import ProjectError

Kind = Literal["string", "integer", "number", "boolean", "timestamp"]
Role = Literal["feature", "id", "group", "time", "target", "ignored"]

REASON = "reason"
"""The column that rows which were set aside carry: why, for each rule that they break."""


class ContractError(ProjectError):
    """A table that as a whole is not what the contract describes; its text says what to do."""


@dataclass(frozen=True)
class Column:
    """One column of the row that the model is given, after the joins.

    Attributes:
        name: Column name.
        kind: What a value is. Timestamps are kept in UTC; one without a time zone is taken as UTC.
        role: `feature` (an input), `id` (names the row), `group` (names the subject that a row is of: rows of one subject are on one
            side of a split by lot; optional at prediction), `time` (orders the rows), `target` (what is predicted) or `ignored` (kept
            for people, never shown to the model).
        nullable: Whether a value may be missing.
        minimum, maximum: Allowed range, both ends included, in the unit of the column.
        allowed: The complete list of values.
        pattern: A regular expression that the whole text must match.
        unique: Whether a value may occur once only.
        personal: Whether the values name a person: they are replaced by a keyed hash before anything is stored.
        unit: The unit, for people.
        effect: What more of it does to the answer on average, where that is known: `raises` or `lowers`. A model that does
            the opposite does not pass the gate.
        unseen: What becomes of a row to be answered with a value of an input that the training had not: a gap where `nullable` is
            False, or a text that is not in `allowed`. `reject`: there is no answer. `pool`: the row is answered as one of an unknown
            value, and its result says so; `allowed` then rejects no text in rows to learn from either.

    Raises:
        ValueError: If a rule is given that does not fit the kind of the column.
    """

    name: str
    kind: Kind
    role: Role = "feature"
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = None
    pattern: str | None = None
    unique: bool = False
    personal: bool = False
    unit: str = ""
    effect: Literal["", "raises", "lowers"] = ""
    unseen: Literal["reject", "pool"] = "reject"

    def __post_init__(self) -> None:
        ranged = self.minimum is not None or self.maximum is not None
        if ranged and self.kind not in ("integer", "number"):
            raise ValueError(f"{self.name}: only a number has a minimum or a maximum, not a {self.kind}")
        if (self.allowed is not None or self.pattern is not None) and self.kind != "string":
            raise ValueError(f"{self.name}: only a string has allowed values or a pattern, not a {self.kind}")
        if self.personal and self.kind != "string":
            raise ValueError(f"{self.name}: only a string can be replaced by a keyed hash, not a {self.kind}")
        if self.role == "target" and self.kind == "timestamp":
            raise ValueError(f"{self.name}: a target is a number, an integer, a boolean or a string, not a timestamp")
        if self.role == "target" and self.kind == "string" and len(self.allowed or ()) < 2:
            raise ValueError(f"{self.name}: a target that is a string names its classes in `allowed`, two or more")
        if self.effect and (self.role != "feature" or self.kind in ("string", "timestamp")):
            raise ValueError(f"{self.name}: only an input that is a number or a boolean has an effect up or down")
        if self.unseen not in ("reject", "pool"):
            raise ValueError(f"{self.name}: unseen is reject or pool, not {self.unseen}")
        if self.unseen == "pool" and self.role != "feature":
            raise ValueError(f"{self.name}: only an input has unseen values that are pooled, not the {self.role}")
        if self.role == "time" and self.kind != "timestamp":
            raise ValueError(f"{self.name}: the time is a timestamp, not a {self.kind}")


@dataclass(frozen=True)
class Contract:
    """All columns of a row: one that names it, one that is predicted, perhaps one that orders the rows and one that names their subjects.

    Raises:
        ValueError: If a name or one of those roles stands twice, or the id or the target is missing.
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise ValueError(f"a column stands twice in the contract: {', '.join(sorted(repeated))}")
        for role in ("id", "group", "time", "target"):
            found = [column.name for column in self.columns if column.role == role]
            if len(found) > 1 or (not found and role not in ("group", "time")):
                raise ValueError(f"exactly one column has the role {role}, not {len(found)}: {found}")
        if self.effects and len(self.answers) > 1:
            raise ValueError(f"{', '.join(self.effects)}: an effect is one upon a single answer, and there are several")

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def _only(self, role: Role) -> Column | None:
        return next((column for column in self.columns if column.role == role), None)

    def __getitem__(self, name: str) -> Column:
        """The column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def id(self) -> str:
        found = self._only("id")
        assert found is not None
        return found.name

    @property
    def group(self) -> str | None:
        """None where each row is a subject of its own."""
        found = self._only("group")
        return found.name if found else None

    @property
    def time(self) -> str | None:
        """None where rows have no order."""
        found = self._only("time")
        return found.name if found else None

    @property
    def target(self) -> str:
        found = self._only("target")
        assert found is not None
        return found.name

    @property
    def order(self) -> list[str]:
        """The columns that sort rows: the time where there is one, then the id."""
        return [self.time, self.id] if self.time else [self.id]

    @property
    def keys(self) -> list[str]:
        """The columns that name, order and label a row and are no inputs: id, group and time if there are some, target."""
        return [self.id, *filter(None, (self.group, self.time)), self.target]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes where the target is a string, in the order of their codes; else nothing."""
        return self[self.target].allowed or ()

    @property
    def answers(self) -> list[str]:
        """The names of a model's answers: `score`, or one for each class where there are more than two."""
        return [f"score {name}" for name in self.classes] if len(self.classes) > 2 else ["score"]

    @property
    def effects(self) -> dict[str, str]:
        """What more of a column does to the answer, for each that declares it."""
        return {column.name: column.effect for column in self.columns if column.effect}

    def labels(self, values: pd.Series) -> np.ndarray:
        """The target as numbers: the place in `classes`, 0 or 1 of a boolean, or the number that it is.

        Returns:
            float64 array of the shape of `values`.
        """
        if self.classes:
            codes = pd.Index(self.classes).get_indexer(pd.Index(values.astype("str")))
            return np.where(codes < 0, np.nan, codes.astype("float64"))
        return values.to_numpy("float64")

    def features(self, *kinds: Kind) -> list[str]:
        """The names of the inputs, of some kinds or of all."""
        return [
            column.name for column in self.columns if column.role == "feature" and (not kinds or column.kind in kinds)
        ]

    def without_target(self) -> tuple[Column, ...]:
        """The columns of a row that is to be answered: its group may be missing, since no answer depends on it, and what `unseen`
        pools is no fault."""
        return self._without_target

    @cached_property
    def _without_target(self) -> tuple[Column, ...]:
        kept = []
        for column in self.columns:
            if column.role == "group":
                kept.append(dataclasses.replace(column, nullable=True))
            elif column.unseen == "pool":
                kept.append(dataclasses.replace(column, nullable=True, allowed=None))
            elif column.role != "target":
                kept.append(column)
        return tuple(kept)

    @property
    def optional(self) -> frozenset[str]:
        """The names of the columns that a row to be answered may lack: not those whose gaps are pooled, since a name may be misspelt."""
        return frozenset(column.name for column in self.columns if column.nullable or column.role in ("id", "group"))

    @cached_property
    def pooled(self) -> tuple[Column, ...]:
        """The columns of which an unseen value is pooled, where a value can be unseen: without gaps or with a list."""
        return tuple(
            column
            for column in self.columns
            if column.unseen == "pool" and not (column.nullable and column.allowed is None)
        )


def to_csv(contract: Contract) -> str:
    """A contract as a table, a line for each column; what is not said stays empty."""
    text = io.StringIO()
    names = [one.name for one in dataclasses.fields(Column)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for column in contract.columns:
        values = [getattr(column, name) for name in names]
        writer.writerow(
            json.dumps(value, ensure_ascii=False)
            if isinstance(value, tuple)
            else ""
            if value is None or value is False or value == ""
            else str(int(value))
            if isinstance(value, float) and value.is_integer()
            else str(value)
            for value in values
        )
    return text.getvalue()


def read_contract(path: Path) -> Contract:
    """Read a contract that `to_csv` wrote, or a person in a spreadsheet.

    Raises:
        ContractError: If a line cannot be used; the text names it.
    """
    columns = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for line in reader:
            given: dict[str, Any] = {name: value for name, value in line.items() if value not in (None, "")}
            try:
                for name in ("nullable", "unique", "personal"):
                    if name in given:
                        given[name] = {"true": True, "false": False}[given[name].lower()]
                for name in ("minimum", "maximum"):
                    if name in given:
                        given[name] = float(given[name])
                if "allowed" in given:
                    given["allowed"] = tuple(map(str, json.loads(given["allowed"])))
                columns.append(Column(**given))
            except (ValueError, TypeError, KeyError) as error:
                raise ContractError(f"line {reader.line_num} of {path.name} cannot be used: {error}.") from error
    return Contract(tuple(columns))


@dataclass(frozen=True)
class Checked:
    """The rows of a table by what became of them; together they are the table, each in its own order.

    Attributes:
        good: Rows that keep the contract, typed as it says.
        set_aside: Rows that break it, as they came, with the column `reason`.
        unlabelled: Rows that keep it but have no target yet, typed, without the target.
    """

    good: pd.DataFrame
    set_aside: pd.DataFrame
    unlabelled: pd.DataFrame


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
    where = "in io/source.py" if labelled else "in the input"
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
    if not lines:
        return
    if not labelled:
        raise ContractError(
            f"the input does not have the columns that the model was trained with: {'; '.join(lines)}. Rename or add columns in the "
            "input."
        )
    raise ContractError(
        f"the table does not have the columns of the contract: {'; '.join(lines)}. "
        "Change io/source.py to deliver what core/schema.py says, or core/schema.py to say what is delivered."
    )


def closest(name: str, names: Sequence[str]) -> str:
    """The one of some names that is most like another one, whatever their capital letters; empty if none is close."""
    plain = {other.strip().casefold(): other for other in names}
    found = difflib.get_close_matches(name.strip().casefold(), plain, n=1)
    return plain[found[0]] if found else ""


def check_rows(
    frame: pd.DataFrame,
    contract: Contract,
    labelled: bool = True,
    seen: np.ndarray | None = None,
    repeats: bool = False,
) -> Checked:
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
    reasons: dict[int, list[str]] = {}
    typed: dict[str, pd.Series] = {}
    numbered = frame.reset_index(drop=True)
    for column in columns:
        absent = column.role == "group" and column.name not in numbered
        raw = pd.Series(None, numbered.index, dtype="object") if absent else numbered[column.name]
        values, faults = check_values(raw, column, seen if column.role == "id" else None, repeats)
        typed[column.name] = values
        for broken, texts in faults:
            for row, text in zip(broken, texts, strict=True):
                reasons.setdefault(int(row), []).append(text)
    clean = pd.DataFrame(typed, copy=False)
    clean.index = frame.index
    bad = np.zeros(len(frame), dtype=bool)
    bad[list(reasons)] = True
    unlabelled = clean[contract.target].isna().to_numpy() & ~bad if labelled else np.zeros(len(frame), dtype=bool)
    good = _only(clean, ~bad & ~unlabelled)
    if labelled and not contract.classes:
        good = good.astype({contract.target: "float64"})
    set_aside = _only(frame, bad).assign(**{REASON: ["; ".join(reasons[row]) for row in sorted(reasons)]})
    return Checked(good, set_aside, _only(clean, unlabelled).drop(columns=contract.target, errors="ignore"))


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
            text = f"{name}: not seen in training ({'missing' if pd.isna(value) else _short(value)})"
            said[place] = f"{said[place]}; {text}" if said[place] else text
    return pd.Series(said, rows.index, dtype="object")


def _only(frame: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """Some of the rows; all and none of them are taken without a copy."""
    if wanted.all():
        return frame
    return frame[wanted] if wanted.any() else frame.iloc[:0]


Fault = tuple[np.ndarray, Sequence[str]]
"""Positions of rows, and for each its reason."""


def check_values(
    raw: pd.Series, column: Column, seen: np.ndarray | None = None, repeats: bool = False
) -> tuple[pd.Series, list[Fault]]:
    """Hold the values of one column against its rules, as `check_rows` does for each.

    Args:
        raw: Values as they came, numbered from 0.
        column: The rules.
        seen, repeats: As those of `check_rows`.

    Returns:
        The values as the kind of the column demands, missing where they cannot be read; and what is wrong with which.
    """
    values, faults = _typed(raw, column)
    unread = np.zeros(len(raw), dtype=bool)
    for broken, _ in faults:
        unread[broken] = True
    return values, faults + _broken_rules(values, column, unread, seen, repeats)


def _fault(broken: pd.Series | np.ndarray, raw: pd.Series, name: str, what: str) -> list[Fault]:
    """Reasons such as `distance: not a number (abc)` for the rows where `broken`."""
    rows = np.flatnonzero(broken.to_numpy(dtype=bool, na_value=False) if isinstance(broken, pd.Series) else broken)
    return [(rows, [f"{name}: {what} ({_short(value)})" for value in raw.iloc[rows]])] if len(rows) else []


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def as_text(raw: pd.Series) -> pd.Series:
    """Numbers that name something are written as people write them: 3, not 3.0, also where some are missing.

    Returns:
        Text of the same index; missing where `raw` is.
    """
    if isinstance(raw.dtype, pd.CategoricalDtype):
        raw = raw.astype(raw.cat.categories.dtype)
    if raw.dtype == "str":
        return raw
    present = raw.notna()
    if pd.api.types.is_float_dtype(raw.dtype):
        numbers = raw.dropna()
        if bool(((numbers == numbers.round()) & (numbers.abs() < 2.0**63)).all()):
            raw = raw.astype("Int64")
    return raw.astype("str").where(present)


FEW = 64  # rows that are looked at one by one
FIRST_MOMENT = pd.Timestamp("0001-01-01T00:00:00Z").as_unit("us")
LAST_MOMENT = pd.Timestamp("9999-12-31T23:59:59.999999Z").as_unit("us")

_TRUE_FALSE = dict.fromkeys(("true", "1", "1.0", "yes", "y", "t", "on"), True)
_TRUE_FALSE |= dict.fromkeys(("false", "0", "0.0", "no", "n", "f", "off"), False)


def _typed(raw: pd.Series, column: Column) -> tuple[pd.Series, list[Fault]]:
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
            return pd.Series(np.nan, raw.index), _fault(present, raw, column.name, "a time, not a number")
        if raw.dtype == object:
            flags = raw.map(lambda value: isinstance(value, (bool, np.bool_)))
        else:
            flags = present & pd.api.types.is_bool_dtype(raw.dtype)
        faults = _fault(flags, raw, column.name, "true or false, not a number")
        raw, present = raw.mask(flags), present & ~flags
        number = pd.to_numeric(raw, errors="coerce").astype("float64")
        faults += _fault(present & number.isna(), raw, column.name, "not a number")
        infinite = pd.Series(np.isinf(number), raw.index)
        faults += _fault(infinite, raw, column.name, "not finite")
        number = number.mask(infinite)
        if column.kind == "integer":
            broken = number.notna() & (number != number.round())
            faults += _fault(broken, raw, column.name, "not a whole number")
            number = number.mask(broken)
        return number, faults
    if column.kind == "boolean":
        flag = raw.map(lambda value: _TRUE_FALSE.get(str(value).lower()), na_action="ignore")
        flag = flag.astype("float64")
        return flag, _fault(present & flag.isna(), raw, column.name, "neither true nor false")
    if pd.api.types.is_numeric_dtype(raw.dtype):  # a number would be read as nanoseconds since 1970
        return pd.Series(pd.NaT, raw.index, dtype="datetime64[us, UTC]"), _fault(
            present, raw, column.name, "a number, not a time"
        )
    dated = raw
    if text:
        dated = raw.where(raw.astype("str").str.contains("[0-9]", regex=True))  # `now` would be the moment of the run
    moment = pd.to_datetime(dated, errors="coerce", utc=True, format="ISO8601" if text else None)
    moment = moment.astype("datetime64[us, UTC]")
    moment = moment.mask(_beyond(moment))
    return moment, _fault(present & moment.isna(), raw, column.name, "not a time")


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
    values: pd.Series, column: Column, unread: np.ndarray, seen: np.ndarray | None, repeats: bool
) -> list[Fault]:
    """The rows of a typed column that break a rule of its kind; what could not be read is wrong, and not missing too."""
    name, missing, faults = column.name, values.isna().to_numpy(), []
    if not column.nullable and column.role != "target":
        faults += _fault(missing & ~unread, values, name, "missing")
    if column.minimum is not None:
        faults += _fault(values.to_numpy() < column.minimum, values, name, f"below {column.minimum:g}")
    if column.maximum is not None:
        faults += _fault(values.to_numpy() > column.maximum, values, name, f"above {column.maximum:g}")
    if column.allowed is not None and column.unseen == "reject":
        broken = _outside(values, column.allowed)
        faults += _fault(broken, values, name, f"not one of {', '.join(column.allowed[:6])}")
    if column.pattern is not None:
        pattern = re.compile(column.pattern)
        broken = _broken_texts(values, lambda texts: texts.str.fullmatch(pattern))
        faults += _fault(broken, values, name, f"does not match {column.pattern}")
    if (column.unique or column.role == "id") and not repeats:
        repeated = values.duplicated().to_numpy() & ~missing
        if seen is not None and len(seen):
            repeated |= _within(fingerprints(values), seen) & ~missing
        faults += _fault(repeated, values, name, "occurs before")
    return faults


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


def mask(frame: pd.DataFrame, contract: Contract, key: str) -> pd.DataFrame:
    """Replace personal values by a keyed hash: the same value gives the same pseudonym, and nobody reads it back.

    Args:
        frame: Rows as the source gave them.
        contract: Says which columns are personal.
        key: The secret. Keep it: another key gives other pseudonyms.

    Returns:
        The frame itself if nothing is personal, else a copy.

    Raises:
        ContractError: If a column is personal and there is no key.
    """
    personal = [column.name for column in contract.columns if column.personal and column.name in frame]
    if not personal:
        return frame
    if not key:
        raise ContractError(
            f"column {', '.join(personal)} is personal, and there is no key to mask it with. "
            "Put MASK_KEY=<a long random text> into .env; `openssl rand -hex 32` makes one."
        )
    return frame.assign(
        **{name: as_text(frame[name]).map(lambda value: pseudonym(value, key), "ignore") for name in personal}
    )


def pseudonym(value: object, key: str) -> str:
    """The keyed hash (HMAC-SHA256, 24 digits of it) that stands for a personal value."""
    return hmac.new(key.encode(), str(value).encode(), hashlib.sha256).hexdigest()[:24]


def forgotten_as(subject: str, key: str) -> str:
    """What the list of those who are forgotten has of a subject: a keyed hash that is no pseudonym of the tables."""
    return hmac.new(key.encode(), f"forgotten {subject}".encode(), hashlib.sha256).hexdigest()


def without(rows: pd.DataFrame, contract: Contract, forgotten: frozenset[str], key: str) -> pd.DataFrame:
    """Leave out the rows of those who are forgotten.

    Raises:
        ContractError: If somebody is, and there is no key to know whom.
    """
    if not forgotten or contract.id not in rows:
        return rows
    if not key:
        raise ContractError("somebody is to be left out (forgotten.txt), and MASK_KEY is not set: put it into .env.")
    known = as_text(rows[contract.id]).map(lambda value: forgotten_as(str(value).strip(), key) in forgotten, "ignore")
    return rows[~known.fillna(False).astype(bool).to_numpy()]
