"""Rows that keep a contract, made up: for tests, and for a project whose table has not come yet."""

from __future__ import annotations

import numpy as np
import pandas as pd

from copier_mlops.contract.contract import Column, Contract

NEWEST = pd.Timestamp("2024-12-31", tz="UTC")
DAYS = 366


def made_up(contract: Contract, rows: int, seed: int) -> pd.DataFrame:
    """Make rows up that keep every rule of a contract. The target follows the inputs whose effect is declared, and the
    first few others a little, so that there is something to learn.

    Args:
        contract: What a row is.
        rows: How many.
        seed: The same seed makes the same rows.

    Returns:
        A column for each of the contract, ordered by time where there is one.

    Raises:
        ValueError: If a column has a pattern: nobody can guess what matches it.
    """
    random = np.random.default_rng(seed)
    made = {column.name: _column(column, rows, random) for column in contract.columns if column.role != "target"}
    pull = np.zeros(rows)
    inputs = [column for column in contract.columns if column.role == "feature"]
    weights = {column.name: 1.0 for column in inputs[:3]} | {
        name: 2.0 if effect == "raises" else -2.0 for name, effect in contract.effects.items()
    }
    for name, weight in weights.items():
        pull += weight * (made[name].rank(method="dense", pct=True).fillna(0.5).to_numpy("float64") - 0.5)
    answer = pull + random.normal(scale=0.3, size=rows)
    made[contract.target] = _answer(contract[contract.target], contract, answer)
    return pd.DataFrame({column.name: made[column.name] for column in contract.columns})


def _column(column: Column, rows: int, random: np.random.Generator) -> pd.Series:
    if column.pattern is not None:
        raise ValueError(
            f"{column.name}: rows cannot be made up for a pattern; write some of your own in tests/sample.py"
        )
    values = _values(column, rows, random)
    if column.nullable:
        values = values.where(random.random(rows) > 0.05)
    return values


def _values(column: Column, rows: int, random: np.random.Generator) -> pd.Series:
    low = 0.0 if column.minimum is None else column.minimum
    high = low + 100.0 if column.maximum is None else column.maximum
    if column.role == "id" or column.unique:
        if column.kind == "string":
            return pd.Series([f"{column.name}-{number:07d}" for number in range(rows)])
        return pd.Series(np.arange(rows) + int(max(low, 1)))
    if column.role == "group":  # ten rows each
        of = random.integers(0, max(1, rows // 10), rows)
        return pd.Series([f"{column.name}-{number}" for number in of] if column.kind == "string" else of)
    if column.kind == "timestamp":
        seconds = random.integers(0, DAYS * 86_400, rows)
        seconds = np.sort(seconds) if column.role == "time" else seconds
        return pd.Series(NEWEST - pd.Timedelta(days=DAYS) + pd.to_timedelta(seconds, unit="s"))
    if column.kind == "boolean":
        return pd.Series(random.random(rows) < 0.5).astype("object")
    if column.kind == "string":
        return pd.Series(random.choice(np.array(column.allowed or ("a", "b", "c", "d"), dtype=object), rows))
    numbers = low + (high - low) * random.random(rows)
    return pd.Series(np.clip(np.round(numbers), np.ceil(low), np.floor(high)) if column.kind == "integer" else numbers)


def _answer(column: Column, contract: Contract, answer: np.ndarray) -> pd.Series:
    if contract.classes:
        place = pd.Series(answer).rank(method="first", pct=True).to_numpy() * len(contract.classes)
        return pd.Series(np.array(contract.classes, dtype=object)[np.ceil(place).astype(int) - 1])
    if column.kind == "boolean":
        return pd.Series(answer > np.median(answer))
    low = -1e9 if column.minimum is None else column.minimum
    high = 1e9 if column.maximum is None else column.maximum
    middle, width = (low + high) / 2, min((high - low) / 8, 100.0)
    numbers = np.clip(middle + width * answer, low, high)
    return pd.Series(np.round(numbers) if column.kind == "integer" else numbers)
