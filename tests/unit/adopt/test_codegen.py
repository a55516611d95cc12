"""What is written is what was decided, in code that a person would leave as it is."""

import ast
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from copier_mlops import params
from copier_mlops.adopt import codegen
from copier_mlops.adopt.decisions import Decision
from copier_mlops.adopt.inference import Plan
from copier_mlops.contract import contract
from copier_mlops.contract.contract import Column, Contract
from copier_mlops.data import readers

ID, TIME = Column("id", "string", "id", personal=True), Column("at", "timestamp", "time")
FLAG = Column("y", "boolean", "target")
ODD = ('say "hi"', "back\\slash", "größe €", "it's", "{braces}", "a,b", "#hash", '"""', "tab or space", "名前")
LONG = tuple(f"class number {number} of some" for number in range(40))


def plan(*columns: Column, **others: Any) -> Plan:
    found = {
        "problem": "classification",
        "decisions": (),
        "styles": {},
        "params": {
            "split": {"test_share": 0.2, "folds": 5},
            "search": {"trials": 8, "max_rows": 20_000},
            "slices": ["a", 'say "hi"'],
            "metric": "auc",
            "better": 0.02,
            "worse": 0.005,
        },
        "warnings": (),
        "rows": 5000,
    }
    return Plan(contract=Contract(columns), **{**found, **others})


PLANS = {
    "plain": plan(ID, TIME, Column("x", "number", minimum=-0.125, maximum=1e6), FLAG),
    "rules": plan(
        ID, Column("n", "integer", nullable=True, minimum=0, maximum=9, unit="pieces"), Column("f", "boolean"), FLAG
    ),
    "odd names": plan(ID, *(Column(name, "string", allowed=(name, "b")) for name in ODD), FLAG),
    "classes": plan(ID, Column("x", "number"), Column("y", "string", "target", allowed=ODD)),
    "many classes": plan(ID, Column("x", "number"), Column("y", "string", "target", allowed=LONG)),
    "one more value": plan(ID, Column("x", "string", allowed=("one",)), FLAG),
    "wide": plan(ID, TIME, *(Column(f"{ODD[number % 10]} {number}", "number") for number in range(60)), FLAG),
    "wide, classes": plan(
        ID,
        *(Column(f"n{number}", "number", minimum=number / 8, nullable=bool(number % 2)) for number in range(60)),
        Column("y", "string", "target", allowed=ODD),
    ),
}


def evaluated(texts: dict[str, str], folder: Path) -> Contract:
    """What schema.py comes to, beside its contract.csv."""
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    code = texts["schema.py"]
    names: dict[str, Any] = {"__file__": str(folder / "schema.py")}
    exec(compile(code, "schema.py", "exec"), names)
    return names["CONTRACT"]


@pytest.mark.parametrize("name", PLANS)
def test_the_schema_is_the_contract_of_the_plan(name: str, tmp_path: Path) -> None:
    texts = codegen.schema(PLANS[name])
    assert evaluated(texts, tmp_path) == PLANS[name].contract
    assert bool(texts["contract.csv"]) == name.startswith("wide")
    if texts["contract.csv"]:
        assert contract.read_contract(tmp_path / "contract.csv") == PLANS[name].contract


def test_what_was_left_out_is_named(tmp_path: Path) -> None:
    out = tuple(Decision(name, "left out", "", "empty") for name in [*ODD, *(f"x{number}" for number in range(30))])
    texts = codegen.schema(plan(ID, Column("x", "number"), FLAG, decisions=out))
    assert evaluated(texts, tmp_path).names == ["id", "x", "y"]
    said = ast.get_docstring(ast.parse(texts["schema.py"]))
    assert said is not None
    assert "größe €" in said
    assert "back\\slash" in said
    assert "and 20 more" in said


@pytest.mark.parametrize("days", [480, 730, None])
def test_a_month_that_never_comes_back_is_no_input(days: int | None) -> None:
    """Then it tells how old a row is, and what is learnt of it is of another year."""
    time = TIME if days else dataclasses.replace(TIME, role="feature")
    columns = ID, time, Column("born", "timestamp"), Column("x", "number"), FLAG
    planned = plan(*columns, params={**PLANS["plain"].params, **({"span": days} if days else {})})
    names: dict[str, Any] = {"CONTRACT": planned.contract}
    exec(codegen.features(planned).replace("from .schema import CONTRACT\n", ""), names)
    moments = pd.to_datetime(["2024-01-31T10:00Z", "2024-12-31T10:00Z"])
    rows = pd.DataFrame({"id": ["a", "b"], "at": moments, "born": moments, "x": 1.0, "y": True})
    found = names["build_features"](rows)
    assert ("at month" in found) is (days != 480)
    assert found["born month"].tolist() == [1, 12] and "at weekday" in found


def test_a_list_that_fills_lines_is_not_written(tmp_path: Path) -> None:
    texts = codegen.schema(plan(ID, Column("x", "string", allowed=LONG), FLAG))
    assert evaluated(texts, tmp_path)["x"].allowed is None


SOURCES = {
    "plain": readers.Table("../rows.csv"),
    "written elsewhere": readers.Table(
        'C:\\data\\"new".csv', separator="\t", encoding="cp1252", styles={"größe": "1.234,5", "at": "%d.%m.%Y"}
    ),
    "many styles": readers.Table("x.csv", styles={f"a column {number}": "1.234,5" for number in range(30)}),
    "database": readers.Table("sqlite:///shop.db", query='SELECT "a"\nFROM b', rows="row"),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("time", [None, "at"])
def test_the_source_is_the_table(name: str, time: str | None) -> None:
    table = SOURCES[name]
    text = source(table, time)
    names: dict[str, Any] = {}
    exec(text, names)
    assert names["TABLE"] == table
    assert names["TIME"] == time


def source(table: readers.Table, time: str | None) -> str:
    return codegen.source(table.location, table.query, table.separator, table.encoding, table.styles, table.rows, time)


SPLITS = [
    {"split": {"test_share": 0.2, "folds": 5}},
    {"split": {"test_days": 30, "folds": 3}, "span": 365},
]


@pytest.mark.parametrize("given", SPLITS)
@pytest.mark.parametrize("problem", ["classification", "regression"])
def test_params_say_what_was_planned(problem: str, given: dict[str, Any], tmp_path: Path) -> None:
    some = PLANS["plain"]
    planned = plan(
        *some.contract.columns,
        problem=problem,
        params={**some.params, **given, "metric": "auc" if problem == "classification" else "mae"},
    )
    text = codegen.params(planned)
    (tmp_path / "params.yaml").write_text(text)
    found = params.load_params(tmp_path / "params.yaml")
    assert found.problem == problem
    assert found.split.model_dump(exclude_none=True) == given["split"]
    assert found.window.days is None  # later rows do not push the oldest out
    assert found.evaluation.slices == ("a", 'say "hi"')
    assert (found.gate.better_than_baseline, found.gate.worse_than_champion) == (0.02, 0.005)
    assert ("window" in yaml.safe_load(text)) == ("span" in given)


def test_the_model_follows_the_table() -> None:
    assert "LOG_TARGET = False" in codegen.model(PLANS["plain"])
    assert "LOG_TARGET = True" in codegen.model(plan(ID, FLAG, long_tail=True))
    assert '"min_samples_leaf": 20' in codegen.model(PLANS["plain"])
    assert '"min_samples_leaf": 200' in codegen.model(plan(ID, FLAG, rows=300_000))


SHORT = plan(ID, TIME, FLAG, params={"span": 480})
RUFF = Path(sys.executable).with_name("ruff")
TEXTS = [
    codegen.features(PLANS["plain"]),
    codegen.features(SHORT),
    codegen.SAMPLE,
    *(codegen.model(one) for one in (PLANS["plain"], plan(ID, FLAG, rows=300_000, long_tail=True))),
    *(codegen.schema(PLANS[name])["schema.py"] for name in ("plain", "rules", "many classes", "wide")),
    *(source(SOURCES[name], "at") for name in ("plain", "many styles")),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_code_compiles_and_a_formatter_would_leave_it(text: str) -> None:
    ast.parse(text)
    if RUFF.exists():  # an environment without the tools of development has none
        words = [str(RUFF), "format", "--isolated", "--line-length", "120", "-"]
        assert subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout == text
