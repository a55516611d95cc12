"""Entries of the prediction log as frames: what was answered, and the rows that were asked, held against the contract again."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Contract
from copier_mlops.contract.validation import NOT_SEEN, Violation, check_rows, count_rules, unseen

MONTH = "month"  # a slice that is no column
FIRST_YEAR = 1970  # that a clock can mean
SMOKE = "smoke"  # the way of example rows, which a deployment asks before it lets a version answer
SHADOW = "shadow"  # the way of what nobody was answered: another model was asked the same beside the one that answers


@dataclass(frozen=True, kw_only=True)
class Lot:
    """Some entries.

    Attributes:
        predictions: A line for each: prediction, id, at (datetime64[us, UTC]), version, way, the contract's answers (NaN where there is
            none), and the slices (missing where they are not known).
        rows: The rows that keep the contract, typed, by the index of `predictions`; of those since `first` alone.
        reasons: How many of the others break which rule, and how many rows have which value that was pooled.
        set_aside: How many of the others there are.
        malformed: Entries that are none.
        future: Entries from the future.
        shadows: A line for each answer in the shadow: prediction, id, at, version, the contract's answers. They are no predictions, and
            counted nowhere else.
        shadowed: How many entries these are, those from the future included.
        smoked: Entries of example rows, which a deployment asked; counted nowhere else.
    """

    predictions: pd.DataFrame
    rows: pd.DataFrame
    reasons: Counter[str]
    set_aside: int
    malformed: int
    future: int
    shadows: pd.DataFrame
    shadowed: int
    smoked: int


def read(
    entries: Iterable[Mapping[str, Any]],
    contract: Contract,
    *,
    slices: Sequence[str],
    first: dt.datetime,
    latest: dt.datetime,
) -> Lot:
    """Take entries apart.

    Args:
        entries: As data.prediction_log gives them; not more than shall be in memory at once.
        contract: That the rows are held against. Ids may be made up, and should have no rule.
        slices: Columns of the contract, or `month`, to add to the predictions.
        first: The rows of answers from then on are looked at.
        latest: What is later is from the future.
    """
    kept: list[tuple[Any, Any, dt.datetime, int, Any]] = []
    asked: list[Mapping[str, Any]] = []
    answers: list[Mapping[str, Any]] = []
    shadows: list[tuple[Any, ...]] = []
    malformed = future = shadowed = smoked = 0
    for entry in entries:
        try:
            at = dt.datetime.fromisoformat(entry["at"])
            at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at.astimezone(dt.UTC)
            inputs, answer = entry["inputs"], entry["answer"]
            line = (entry["prediction"], entry["id"], at, int(entry["version"]), entry.get("way"))
            if not (isinstance(inputs, Mapping) and isinstance(answer, Mapping) and at.year >= FIRST_YEAR):
                raise TypeError("it is no answer")
        except (KeyError, TypeError, ValueError, OverflowError):
            malformed += 1
            continue
        if entry.get("way") == SMOKE:
            smoked += 1
            continue
        if entry.get("way") == SHADOW:
            shadowed += 1
            if at <= latest:
                shadows.append((*line[:4], *(answer.get(name) for name in contract.answers)))
            continue
        if at > latest:
            future += 1
            continue
        kept.append(line)
        asked.append(inputs)
        answers.append(answer)
    predictions = pd.DataFrame(kept, columns=["prediction", "id", "at", "version", "way"])
    predictions["at"] = _moments(predictions["at"])
    for name in contract.answers:
        predictions[name] = _numbers([answer.get(name) for answer in answers])
    beside = pd.DataFrame(shadows, columns=["prediction", "id", "at", "version", *contract.answers])
    beside = beside.assign(at=_moments(beside["at"]), **{name: _numbers(beside[name]) for name in contract.answers})
    places = [place for place, line in enumerate(kept) if line[2] >= first]
    columns = [column.name for column in contract.without_target()]
    rows = pd.DataFrame({name: [asked[place].get(name) for place in places] for name in columns}, index=places)
    checked = check_rows(rows, contract, labelled=False, repeats=True)
    for name in slices:
        predictions[name] = _groups(checked.good, name, contract).reindex(predictions.index)
    reasons = count_rules(checked.violations)
    for name, broken in unseen(checked.good, contract).items():
        pooled = Violation(name, NOT_SEEN, "", tuple(np.flatnonzero(broken).tolist()))
        reasons.update(count_rules([pooled]))
    return Lot(
        predictions=predictions,
        rows=checked.good,
        reasons=reasons,
        set_aside=len(checked.set_aside),
        malformed=malformed,
        future=future,
        shadows=beside,
        shadowed=shadowed,
        smoked=smoked,
    )


def _moments(values: pd.Series) -> pd.Series:
    return pd.Series(pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]"))


def _numbers(values: Iterable[Any]) -> pd.Series:
    """What is no number is missing."""
    return pd.Series(pd.to_numeric(pd.Series(list(values), dtype="object"), errors="coerce").astype("float64"))


def _groups(rows: pd.DataFrame, name: str, contract: Contract) -> pd.Series:
    """The group of each row as text; nothing for a slice that the contract no longer has."""
    if name == MONTH and contract.time is not None:
        return pd.Series(rows[contract.time].dt.strftime("%Y-%m"))
    if name not in rows:
        return pd.Series(index=rows.index, dtype="str")
    return rows[name].astype("str").where(rows[name].notna())
