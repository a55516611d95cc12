"""Rows that are made up keep their contract, whatever it is, and leave something to learn."""

import numpy as np
import pandas as pd
import pytest

from copier_mlops.contract.contract import Column, Contract
from copier_mlops.contract.synthetic import made_up
from copier_mlops.contract.validation import check_rows
from copier_mlops.pipeline import search

KINDS = ("string", "integer", "number", "boolean", "timestamp")
INPUTS = [Column(f"{kind} {gaps}", kind, nullable=gaps) for kind in KINDS for gaps in (False, True)]
RULES = [
    Column("low", "number", minimum=5),
    Column("high", "integer", maximum=-3),
    Column("small", "number", minimum=0.25, maximum=0.5),
    Column("whole", "integer", minimum=-0.5, maximum=1.5),
    Column("listed", "string", allowed=("a", "b")),
    Column("once", "string", unique=True),
    Column("kept", "string", role="ignored", nullable=True),
]
ID, TIME = Column("id", "string", "id"), Column("at", "timestamp", "time")
CONTRACTS = {
    "kinds": Contract((ID, TIME, *INPUTS, Column("y", "boolean", "target"))),
    "rules": Contract((ID, TIME, *RULES, Column("y", "number", "target", minimum=0, maximum=10))),
    "counted": Contract((Column("row", "integer", "id", minimum=1), *INPUTS, Column("y", "integer", "target"))),
    "classes": Contract((ID, *INPUTS, Column("y", "string", "target", allowed=("c", "a", "b")))),
    "two classes": Contract((ID, Column("x", "number"), Column("y", "string", "target", allowed=("no", "yes")))),
    "no input": Contract((ID, TIME, Column("y", "number", "target", minimum=-5))),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_they_keep_the_contract(name: str) -> None:
    contract = CONTRACTS[name]
    rows = made_up(contract, 500, seed=1)
    checked = check_rows(rows, contract)
    assert checked.set_aside.to_dict("records") == []
    assert len(checked.good) == 500
    assert list(rows) == contract.names
    for column in contract.columns:
        assert rows[column.name].isna().any() == column.nullable
    if contract.time:
        assert rows[contract.time].is_monotonic_increasing
    y = contract.labels(checked.good[contract.target])
    assert len(np.unique(y)) >= max(2, len(contract.classes))


@pytest.mark.parametrize("name", ["kinds", "classes", "rules"])
def test_there_is_something_to_learn(name: str) -> None:
    contract = CONTRACTS[name]
    good = check_rows(made_up(contract, 2000, seed=1), contract).good
    y = contract.labels(good[contract.target])
    problem = "regression" if contract[contract.target].kind == "number" else "classification"
    skill = search.single_input_skill(problem, good[contract.features("number", "integer", "string")], y, seed=0)
    assert 0.05 < skill.max() < 0.95


def test_the_same_seed_makes_the_same_rows() -> None:
    first, again, other = (made_up(CONTRACTS["kinds"], 50, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_what_matches_a_pattern_cannot_be_made_up() -> None:
    patterned = Contract((ID, Column("x", "string", pattern="[A-Z]+"), Column("y", "boolean", "target")))
    with pytest.raises(ValueError, match="x: rows cannot be made up for a pattern"):
        made_up(patterned, 5, seed=1)


@pytest.mark.parametrize(("effect", "sign"), [("raises", 1), ("lowers", -1)])
def test_declared_effects_are_there(effect: str, sign: int) -> None:
    inputs = [Column(f"x{number}", "number") for number in range(4)]
    contract = Contract((ID, *inputs, Column("z", "number", effect=effect), Column("y", "boolean", "target")))
    rows = made_up(contract, 1000, seed=1)
    assert sign * np.corrcoef(rows["z"], rows["y"].astype("float64"))[0, 1] > 0.3
