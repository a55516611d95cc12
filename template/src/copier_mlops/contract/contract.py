"""The language of the data contract: columns with their kinds, roles and rules, and pseudonyms for personal values.

`schema.py` describes a row with these words; validation.py holds rows against them.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import hmac
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from copier_mlops import ProjectError

Kind = Literal["string", "integer", "number", "boolean", "timestamp"]
Role = Literal["feature", "id", "group", "time", "target", "ignored"]


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
