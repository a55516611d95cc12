"""Columns that tell the target, alone or together, and copies of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from copier_mlops.adopt.decisions import FEWEST, AdoptionError, Decision, label_of
from copier_mlops.contract import contract
from copier_mlops.contract.parsing import FALSE, TRUE
from copier_mlops.contract.units import repeated
from copier_mlops.evaluation.metrics import r2
from copier_mlops.pipeline.search import single_input_answers, together

if TYPE_CHECKING:
    from copier_mlops.adopt.decisions import Target

LEAK = 0.97  # of the answer that one column alone may tell
SUSPICIOUS = 0.8
FEW_TO_JUDGE = 500  # rows; among fewer only a column that tells all of it is called a leak
MOST_TOGETHER = 50  # numbers that are tried together
TOGETHER_ROWS = 20_000  # on which it is seen whether columns together give the target away
PERFECT = 0.999  # AUC or R2 from which a model only computes the target


def find_leaks(
    frame: pd.DataFrame,
    taken: dict[str, contract.Column],
    decided: dict[str, Decision],
    answer: Target,
    seed: int,
    keep: Sequence[str],
) -> None:
    """Leave out what nearly is the answer, and doubt what comes close; on the sample."""
    target = answer.column
    names = [name for name, column in taken.items() if column.role == "feature"]
    y = truth_of(frame[target.name], target)
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


def check_together(
    frame: pd.DataFrame, taken: Mapping[str, contract.Column], answer: Target, seed: int, keep: Sequence[str]
) -> None:
    """Refuse numbers that together give the target away: a sum or a difference of columns that were recorded with it.

    A linear model of few numbers is fitted on half of the sample and judged on the other half, with AUC or R2.

    Raises:
        AdoptionError: The text names the columns.
    """
    y = truth_of(frame[answer.column.name], answer.column)
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


def find_copies(
    frame: pd.DataFrame, rows: int, taken: Mapping[str, contract.Column], timed: bool, seed: int
) -> list[str]:
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


def truth_of(values: pd.Series, target: contract.Column) -> np.ndarray:
    if target.kind == "boolean":
        words = values.astype("str").str.lower().str.removesuffix(".0")
        return np.where(words.isin(TRUE), 1.0, np.where(words.isin(FALSE), 0.0, np.nan))
    if target.kind == "string":
        named = pd.Index(values.map(label_of, na_action="ignore").astype("str"))
        codes = pd.Index(target.allowed or ()).get_indexer(named)
        return np.where(codes < 0, np.nan, codes.astype("float64"))
    return values.to_numpy("float64")
