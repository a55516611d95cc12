"""What breaks the contract is data: column, rule, value and rows; one function makes a sentence of it."""

import pandas as pd

from copier_mlops.contract.contract import Column, Contract
from copier_mlops.contract.validation import REASON, Violation, check_rows, count_rules, reasons_of, rows_of

CONTRACT = Contract(
    (
        Column("id", "string", "id"),
        Column("size (cm); net", "number", maximum=3),
        Column("kind", "string", pattern="(a|b) (c)"),
        Column("y", "boolean", "target"),
    )
)


def test_violations_are_grouped_by_column_rule_and_value() -> None:
    sizes, kinds = [1, 5, 5, 9], ["a c", "a c", "x (y); z", "b c"]
    rows = pd.DataFrame({"id": list("abcd"), "size (cm); net": sizes, "kind": kinds, "y": [True] * 4})
    found = check_rows(rows, CONTRACT)
    size, kind = "size (cm); net", "kind"
    assert found.violations == (
        Violation(size, "above 3", "5.0", (1, 2)),
        Violation(size, "above 3", "9.0", (3,)),
        Violation(kind, "does not match (a|b) (c)", "x (y); z", (2,)),
    )
    assert count_rules(found.violations) == {f"{size}: above 3": 3, "kind: does not match (a|b) (c)": 1}
    assert rows_of(found.violations).tolist() == [1, 2, 3, 2]
    second = f"{size}: above 3 (5.0); kind: does not match (a|b) (c) (x (y); z)"
    assert found.set_aside[REASON].tolist() == [f"{size}: above 3 (5.0)", second, f"{size}: above 3 (9.0)"]
    assert reasons_of(found.violations)[2] == second


def test_rows_that_keep_the_contract_have_no_violation() -> None:
    rows = pd.DataFrame({"id": ["a"], "size (cm); net": [1.0], "kind": ["b c"], "y": [None]}, index=[7])
    found = check_rows(rows, CONTRACT)
    assert found.violations == () and len(found.unlabelled) == 1 and not len(rows_of(found.violations))
