"""From a profile to a project: which column plays which role, and why; what cannot be learnt from, and why not."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from copier_mlops.adopt.columns import infer_feature, infer_group, infer_id, infer_time
from copier_mlops.adopt.decisions import FEW_SUBJECTS, AdoptionError, Decision, day_of, ends_of, nice
from copier_mlops.adopt.leaks import check_together, find_copies, find_leaks, truth_of
from copier_mlops.adopt.profile import Column, Profile, typed
from copier_mlops.adopt.targets import infer_target
from copier_mlops.contract import contract
from copier_mlops.contract.parsing import NO_NUMBER, NUMBER_STYLES, trimmed

if TYPE_CHECKING:
    from copier_mlops.adopt.decisions import Target

FEWEST_DAYS = 3  # of which the newest can be held back
FEWEST_TO_JUDGE = 20  # rows of the rarest class in the test


@dataclass(frozen=True)
class Plan:
    """What `make adopt` is going to write.

    Attributes:
        problem: classification or regression.
        contract: Of the rows.
        decisions: By column, in the order of the table.
        styles: As `data.readers` takes them.
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
    answer = infer_target(columns[target], problem)
    sample = profile.sample()
    frame = typed(sample, columns, profile.zone)
    decided: dict[str, Decision] = {}
    taken: dict[str, contract.Column] = {target: answer.column}
    decided[target] = Decision(target, "target", answer.column.kind, answer.why, answer.doubt)
    if time:
        taken[time], decided[time] = infer_time(columns[time], frame[time])
    if identifier:
        taken[identifier], decided[identifier] = infer_id(columns[identifier], frame[identifier])
    if group:
        taken[group], decided[group] = infer_group(columns[group], frame[group], bool(time))
    for name, column in columns.items():
        if name in decided:
            continue
        if name in drop:
            decided[name] = Decision(name, "left out", "", "named by DROP")
            continue
        found, decision = infer_feature(column, frame[name], bool(time))
        decided[name] = decision
        if found is not None:
            taken[name] = found
    find_leaks(frame, taken, decided, answer, seed, keep)
    check_together(frame, taken, answer, seed, keep)
    oldest, newest = ends_of(columns[time], frame[time]) if time else (None, None)
    params = _params(answer, columns, taken, frame, time, oldest, newest, profile.rows)
    if oldest is not None and oldest.timestamp() > columns[time].minimum + 1:
        answer.warnings.append(
            f"{time} is {day_of(columns[time].minimum)} in the oldest row, and {oldest:%Y-%m-%d} at the earliest in nearly all others. Such "
            "rows are used. If the date stands for a missing one, correct it at the source."
        )
    if newest is not None and newest.timestamp() < columns[time].maximum - 1:
        answer.warnings.append(
            f"{time} is {day_of(columns[time].maximum)} in the newest row, and {newest:%Y-%m-%d} at the latest in nearly all others. The "
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
            "them in source.py."
        )
    if not group:
        warnings += find_copies(frame, profile.rows, taken, bool(time), seed)
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
            broken = np.isnan(truth_of(read, one)) & read.notna().to_numpy()
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
    """The style that source.py has to know of; empty where values are written as computers do."""
    if found.kind == "timestamp":
        return column.guess.style if column.guess.style != "ISO8601" and not column.typed else ""
    if found.kind in ("integer", "number") and column.guess.kind == "number":
        return column.guess.style or (NUMBER_STYLES[0] if column.dashes else "")
    return ""


# ------------------------------------------------------------------------------------------------------- Params


def _params(
    answer: Target,
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
        truth = truth_of(frame[answer.column.name], answer.column)
        truth = truth[np.isfinite(truth)]
        spread = float(np.nanmean(np.abs(truth - np.nanmean(truth))))
        found["better"], found["worse"] = nice(spread / 50), nice(spread / 100)
    return found


def _enough_days(
    answer: Target, frame: pd.DataFrame, time: str, newest: pd.Timestamp, days: int, span: int, rows: int
) -> int:
    """Widen the days that judge until the rarest class occurs often enough in them, at most to half of its rows.

    Counts in the sample `frame` stand for the `rows` of the table.
    """
    y = truth_of(frame[answer.column.name], answer.column)
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
