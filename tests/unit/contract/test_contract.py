"""Each kind of check is shown a bad row, since a check that never fires looks like good data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from copier_mlops import Column, Contract
from copier_mlops.contract.contract import (
    ContractError,
    as_text,
    forgotten_as,
    mask,
    pseudonym,
    read_contract,
    to_csv,
    without,
)
from copier_mlops.contract.validation import REASON, check_columns, check_rows, fingerprints, unseen, unseen_reasons

ID, TIME, TARGET = Column("id", "string", "id"), Column("at", "timestamp", "time"), Column("y", "boolean", "target")


def contract(*columns: Column, target: Column = TARGET) -> Contract:
    return Contract((ID, TIME, *columns, target))


def table(rows: int = 3, **columns: list[object]) -> pd.DataFrame:
    """Good rows, with these columns added or put in place of the good ones."""
    good = {"id": [f"r{row}" for row in range(rows)], "at": ["2024-01-01T10:00:00Z"] * rows, "y": [True] * rows}
    return pd.DataFrame({**good, **columns})


NUMBER, WHOLE, FLAG = Column("x", "number"), Column("x", "integer"), Column("x", "boolean")
MOMENT, TEXT = Column("x", "timestamp"), Column("x", "string")


@pytest.mark.parametrize(
    ("column", "good", "bad", "reason"),
    [
        (NUMBER, 1.5, "abc", "x: not a number (abc)"),
        (NUMBER, 1.5, float("inf"), "x: not finite (inf)"),
        (NUMBER, 1.5, "-inf", "x: not finite (-inf)"),
        (NUMBER, 1.5, None, "x: missing"),
        (WHOLE, 3, 3.5, "x: not a whole number (3.5)"),
        (WHOLE, "3", "three", "x: not a number (three)"),
        (FLAG, True, "perhaps", "x: neither true nor false (perhaps)"),
        (FLAG, 0, 2, "x: neither true nor false (2)"),
        (FLAG, "FALSE", None, "x: missing"),
        (MOMENT, "2024-02-29", "2023-02-29", "x: not a time (2023-02-29)"),
        (MOMENT, "2024-02-29T10:00:00+02:00", "noon", "x: not a time (noon)"),
        (MOMENT, "2024-02-29", None, "x: missing"),
        (TEXT, "a", None, "x: missing"),
        (TEXT, "a", "", "x: missing"),
        (Column("x", "number", minimum=0), 0, -0.5, "x: below 0 (-0.5)"),
        (Column("x", "integer", maximum=10), 10, 11, "x: above 10 (11.0)"),
        (Column("x", "string", allowed=("a", "b")), "b", "c", "x: not one of a, b (c)"),
        (Column("x", "string", pattern="[A-Z]{2}"), "AB", "ABC", "x: does not match [A-Z]{2} (ABC)"),
        (Column("x", "string", nullable=True, allowed=("a",)), None, "b", "x: not one of a (b)"),
        (Column("x", "string", nullable=True, pattern="a"), None, "b", "x: does not match a (b)"),
    ],
)
def test_a_bad_value_sets_its_row_aside_and_no_other(column: Column, good: object, bad: object, reason: str) -> None:
    checked = check_rows(table(x=[good, bad, good]), contract(column))
    assert checked.good["id"].tolist() == ["r0", "r2"]
    assert checked.set_aside["id"].tolist() == ["r1"]
    assert reason in checked.set_aside[REASON].iloc[0]


def test_a_number_is_no_time_and_a_time_is_no_number() -> None:
    """pandas would read the number as nanoseconds since 1970, and the time as a number of nanoseconds."""
    reasons = check_rows(table(x=[1, 2, 3]), contract(MOMENT)).set_aside[REASON]
    assert reasons.str.contains("a number, not a time").tolist() == [True] * 3
    times = pd.to_datetime(["2024-01-01"] * 3).tolist()
    reasons = check_rows(table(x=times), contract(NUMBER)).set_aside[REASON]
    assert reasons.str.contains("a time, not a number").tolist() == [True] * 3


def test_good_rows_are_typed_as_the_contract_says() -> None:
    columns = [Column("n", "integer"), Column("f", "boolean"), Column("s", "string"), Column("t", "timestamp")]
    rows = table(n=["1", "2", "3"], f=["true", "0", "1.0"], s=[1, 2, 3], t=["2024-01-01T12:00:00+02:00"] * 3)
    good = check_rows(rows, contract(*columns)).good
    assert good["n"].tolist() == [1.0, 2.0, 3.0]
    assert good["f"].tolist() == [1.0, 0.0, 1.0]
    assert good["s"].tolist() == ["1", "2", "3"]
    assert good["t"].tolist() == [pd.Timestamp("2024-01-01T10:00:00Z")] * 3
    assert good["y"].dtype == np.float64


def test_columns_may_come_as_categories() -> None:
    columns = (Column("s", "string", allowed=("a", "b")), Column("n", "number"))
    rows = table(s=pd.Categorical(["a", "b", "c"]), n=pd.Categorical([1.0, 2.0, 3.0]))
    checked = check_rows(rows, contract(*columns))
    assert checked.good["s"].tolist() == ["a", "b"]
    assert checked.good["n"].tolist() == [1.0, 2.0]
    assert checked.set_aside[REASON].tolist() == ["s: not one of a, b (c)"]


def test_nothing_is_wrong_with_a_missing_value_where_the_contract_allows_it() -> None:
    columns = [Column(kind, kind, nullable=True) for kind in ("string", "integer", "number", "boolean", "timestamp")]
    empty = {column.name: [None, float("nan"), ""] for column in columns}
    checked = check_rows(table(**empty), contract(*columns))
    assert len(checked.good) == 3
    assert checked.good[[column.name for column in columns]].isna().all(axis=None)


def test_every_reason_is_given_and_long_values_are_cut() -> None:
    columns = (Column("x", "number", minimum=0), Column("s", "string", pattern="a*"))
    reason = check_rows(table(1, x=[-1], s=["b" * 99]), contract(*columns)).set_aside[REASON].iloc[0]
    assert "x: below 0 (-1.0); s: does not match a*" in reason
    assert "b" * 37 + "..." in reason
    assert "b" * 38 not in reason


def test_the_three_groups_together_are_the_table() -> None:
    rows = table(4, x=[1, "bad", 3, "bad"], y=[True, False, None, None])
    rows.index = [7, 7, 8, 9]  # as filtered and concatenated frames have it
    checked = check_rows(rows, contract(NUMBER))
    assert checked.good["id"].tolist() == ["r0"]
    assert checked.set_aside["id"].tolist() == ["r1", "r3"]
    assert checked.unlabelled["id"].tolist() == ["r2"]
    assert [list(part.index) for part in (checked.good, checked.set_aside, checked.unlabelled)] == [[7], [7, 9], [8]]
    assert checked.set_aside["x"].tolist() == ["bad", "bad"]
    assert "y" not in checked.unlabelled


def test_without_labels_a_target_that_is_there_is_ignored() -> None:
    for rows in (table(x=[1, 2, 3], y=["?", None, True]), table(x=[1, 2, 3]).drop(columns="y")):
        checked = check_rows(rows, contract(NUMBER), labelled=False)
        assert len(checked.good) == 3
        assert "y" not in checked.good
        assert len(checked.unlabelled) == 0


def test_a_target_is_held_against_its_range_too() -> None:
    target = Column("y", "number", "target", minimum=0)
    checked = check_rows(table(y=[1, -1, None]), contract(target=target))
    assert (len(checked.good), len(checked.set_aside), len(checked.unlabelled)) == (1, 1, 1)


def test_an_id_occurs_once_within_a_part_and_across_parts() -> None:
    first = check_rows(table(id=["a", "b", "a"]), contract())
    assert first.good["id"].tolist() == ["a", "b"]
    assert first.set_aside[REASON].tolist() == ["id: occurs before (a)"]
    seen = np.sort(fingerprints(first.good["id"]))
    second = check_rows(table(id=["c", "b", "d"]), contract(), seen=seen)
    assert second.good["id"].tolist() == ["c", "d"]
    assert second.set_aside[REASON].tolist() == ["id: occurs before (b)"]
    assert len(check_rows(table(), contract(), seen=np.empty(0, dtype="uint64")).good) == 3


def test_another_column_may_be_unique_too() -> None:
    checked = check_rows(table(x=["a", "a", None]), contract(Column("x", "string", unique=True, nullable=True)))
    assert checked.set_aside[REASON].tolist() == ["x: occurs before (a)"]


def test_a_table_without_rows_is_checked() -> None:
    checked = check_rows(table(0, x=[]), contract(NUMBER))
    assert [len(part) for part in (checked.good, checked.set_aside, checked.unlabelled)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("present", "says"),
    [
        (["id", "at"], "column y is missing"),
        (["id", "at", "y", "z"], "column z is unexpected"),
        (["id", "at", "y", "y"], "a column twice: y"),
        (["ident", "id2", "at", "y"], "column id is missing (did you mean id2?)"),
    ],
)
def test_wrong_columns_are_named(present: list[str], says: str) -> None:
    with pytest.raises(ContractError) as error:
        check_columns(present, contract())
    assert says in str(error.value)


def test_wrong_columns_of_an_input_are_no_fault_of_the_source() -> None:
    grouped = contract(Column("visits", "number"))
    with pytest.raises(ContractError) as error:
        check_columns(["id", "at"], grouped, labelled=False, others=["VISITS ", "x"])
    assert "column visits is missing (did you mean VISITS ?)" in str(error.value)
    assert "source.py" not in str(error.value) and "x is unexpected" not in str(error.value)
    with pytest.raises(ContractError, match="Rename or drop one in the input"):
        check_columns(["id", "at", "visits", "visits"], grouped, labelled=False)


def test_only_a_labelled_table_needs_the_target() -> None:
    check_columns(["id", "at"], contract(), labelled=False)
    check_columns(["id", "at", "y"], contract(), labelled=False)


SECRET = contract(Column("name", "string", personal=True))


def test_personal_values_become_pseudonyms() -> None:
    rows = table(name=["Ada", None, "Ada"])
    masked = mask(rows, SECRET, "key")["name"]
    assert masked.iloc[0] == masked.iloc[2]
    assert masked.iloc[0] != mask(rows, SECRET, "another key")["name"].iloc[0]
    assert pd.isna(masked.iloc[1])
    assert "Ada" not in masked.iloc[0]
    assert rows["name"].iloc[0] == "Ada"  # what the caller holds is not changed


def test_without_a_key_nothing_personal_passes() -> None:
    with pytest.raises(ContractError, match=r"column name is personal.*MASK_KEY"):
        mask(table(name=["Ada"] * 3), SECRET, "")
    rows = table()
    assert mask(rows, contract(), "") is rows


@pytest.mark.parametrize(
    "rules",
    [
        {"kind": "string", "minimum": 1},
        {"kind": "timestamp", "maximum": 1},
        {"kind": "number", "allowed": ("a",)},
        {"kind": "boolean", "pattern": "a"},
        {"kind": "number", "personal": True},
        {"kind": "string", "role": "target"},
        {"kind": "string", "role": "target", "allowed": ("one",)},
        {"kind": "timestamp", "role": "target"},
        {"kind": "number", "role": "time"},
        {"kind": "string", "effect": "raises"},
        {"kind": "number", "role": "ignored", "effect": "lowers"},
    ],
)
def test_a_rule_has_to_fit_its_kind(rules: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^x: "):
        Column("x", **rules)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ((ID, TIME, TARGET, NUMBER, NUMBER), "twice in the contract: x"),
        ((ID, TIME), "exactly one column has the role target, not 0"),
        ((ID, TIME, TARGET, Column("id2", "string", "id")), "exactly one column has the role id, not 2"),
    ],
)
def test_a_contract_has_each_name_and_each_key_once(columns: tuple[Column, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Contract(columns)


COLOUR = Column("y", "string", "target", allowed=("red", "green", "blue"))


def test_classes_have_names_and_numbers() -> None:
    colours = contract(target=COLOUR)
    checked = check_rows(table(y=["blue", "purple", "red"]), colours)
    assert checked.set_aside[REASON].tolist() == ["y: not one of red, green, blue (purple)"]
    assert checked.good["y"].tolist() == ["blue", "red"]
    assert colours.labels(checked.good["y"]).tolist() == [2, 0]
    assert colours.labels(checked.good["y"].astype("category")).tolist() == [2, 0]
    assert len(check_rows(table(y=["red", None, ""]), colours).unlabelled) == 2
    assert (colours.classes, colours.answers) == (COLOUR.allowed, ["score red", "score green", "score blue"])


def test_two_classes_have_one_answer_and_numbers_are_what_they_are() -> None:
    two = contract(target=Column("y", "string", "target", allowed=("no", "yes")))
    assert two.answers == contract().answers == ["score"]
    assert two.labels(pd.Series(["yes", "no"])).tolist() == [1, 0]
    assert contract().labels(pd.Series([True, False])).tolist() == [1, 0]
    assert contract(target=Column("y", "number", "target")).labels(pd.Series([2.5])).tolist() == [2.5]
    assert contract().classes == ()


def test_rows_may_have_no_order() -> None:
    timeless = Contract((ID, NUMBER, TARGET))
    assert (timeless.time, timeless.order, timeless.keys) == (None, ["id"], ["id", "y"])
    assert (contract().order, contract().keys) == (["at", "id"], ["id", "at", "y"])
    assert len(check_rows(table(x=[1, 2, 3]).drop(columns="at"), timeless).good) == 3
    with pytest.raises(KeyError):
        timeless["at"]


def test_numbers_that_name_something_are_written_as_people_write_them() -> None:
    assert as_text(pd.Series([3.0, 4.0])).tolist() == ["3", "4"]
    assert as_text(pd.Series([3.5, 4.0])).tolist() == ["3.5", "4.0"]
    gaps = as_text(pd.Series([3.0, None]).astype("category"))
    assert gaps[0] == "3"
    assert pd.isna(gaps[1])


EVERY_RULE = contract(
    Column("n", "number", nullable=True, minimum=0, maximum=0.1, unit="m, or so", effect="raises"),
    Column("m", "integer", minimum=-5.0, maximum=10.0),
    Column('odd "name", größe', "string", allowed=("a,b", 'say "no"', "größe")),
    Column("p", "string", role="ignored", pattern="[a-z]{2,3};?", unique=True),
    Column("secret", "string", personal=True),
    target=Column("y", "string", "target", allowed=("half, or less", "more")),
)


def test_a_contract_is_the_same_after_it_was_a_table(tmp_path: Path) -> None:
    file = tmp_path / "contract.csv"
    file.write_text(to_csv(EVERY_RULE), encoding="utf-8")
    assert read_contract(file) == EVERY_RULE
    assert to_csv(read_contract(file)) == to_csv(EVERY_RULE)


def test_a_spreadsheet_may_have_written_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "contract.csv"
    lines = ["name,kind,role,nullable", "id,string,id,FALSE", "x,number,,TRUE", "y,boolean,target,"]
    file.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert read_contract(file) == Contract((ID, Column("x", "number", nullable=True), TARGET))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x,number,,,maybe", r"line 3 of contract.csv cannot be used"),
        ("x,number,low,,", r"line 3 of contract.csv cannot be used: could not convert"),
        ("x,string,0,,", r"line 3 of contract.csv cannot be used: x: only a number has a minimum"),
        ("x,string,,not a list,", r"line 3 of contract.csv cannot be used"),
        ("x,,,,", r"line 3 of contract.csv cannot be used"),
        ("x,number,,,,more", r"line 3 of contract.csv cannot be used"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "contract.csv"
    file.write_text(f"name,kind,minimum,allowed,nullable\nid,string,,,\n{line}\n")
    with pytest.raises(ContractError, match=says):
        read_contract(file)


def test_who_is_forgotten_is_left_out() -> None:
    rows = table(id=["a", " b", None])
    forgotten = frozenset([forgotten_as("b", "key")])
    assert without(rows, contract(), forgotten, "key")["id"].iloc[0] == "a"
    assert len(without(rows, contract(), forgotten, "key")) == 2
    assert len(without(rows, contract(), forgotten, "another key")) == 3
    assert without(rows, contract(), frozenset(), "") is rows
    assert without(rows.drop(columns="id"), contract(), forgotten, "key").shape == (3, 2)
    numbers = table(id=[3.0, 4.0, 5.0])
    assert without(numbers, contract(), frozenset([forgotten_as("4", "k")]), "k")["id"].tolist() == [3, 5]
    assert forgotten_as("b", "key") != pseudonym("b", "key")
    with pytest.raises(ContractError, match="MASK_KEY is not set"):
        without(rows, contract(), forgotten, "")


def test_an_effect_is_one_upon_a_single_answer() -> None:
    rain = Column("rain", "number", effect="raises")
    assert Contract((ID, TIME, rain, TARGET)).effects == {"rain": "raises"}
    two = Column("y", "string", "target", allowed=("no", "yes"))
    assert Contract((ID, rain, two)).effects == {"rain": "raises"}
    with pytest.raises(ValueError, match=r"rain: .*there are several"):
        Contract((ID, rain, COLOUR))


@pytest.mark.parametrize(
    ("column", "values", "wrong"),
    [
        (NUMBER, [0.5, float("inf"), 2.0, -1.0], "x: not finite (inf)"),
        (WHOLE, [3.0, 3.5, 4.0, 5.0], "x: not a whole number (3.5)"),
        (FLAG, [1.0, -0.0, 0.0, 1.0], "x: neither true nor false (-0.0)"),
        (FLAG, [1, 2, 0, 1], "x: neither true nor false (2)"),
        (TEXT, ["a", "", "b", "a"], "x: missing (nan)"),
        (Column("x", "string", pattern="[a-z]"), ["a", "B", "b", "a"], "x: does not match [a-z] (B)"),
        (Column("x", "string", allowed=("a", "b")), ["a", "c", "b", "a"], "x: not one of a, b (c)"),
        (Column("x", "number", minimum=0), [1.0, -1.0, 0.0, 2.0], "x: below 0 (-1.0)"),
    ],
)
def test_a_typed_column_is_held_to_the_same_as_one_of_anything(
    column: Column, values: list[object], wrong: str
) -> None:
    """A table that has the contract's kinds already takes a short way, which may not be shorter by a rule."""
    typed, anything = table(4, x=values), table(4, x=values).astype({"x": object})
    for given in (typed, anything, anything.iloc[::-1]):
        checked = check_rows(given, contract(column))
        assert checked.set_aside[REASON].to_dict() == {1: wrong}
        pd.testing.assert_frame_equal(checked.good.sort_index(), check_rows(typed, contract(column)).good)
    good = typed.drop(index=1)
    pd.testing.assert_frame_equal(
        check_rows(good, contract(column)).good, check_rows(good.astype({"x": object}), contract(column)).good
    )


def test_a_number_without_end_is_text_where_text_is_asked_for() -> None:
    assert as_text(pd.Series([1.0, float("inf"), 1e300])).tolist() == ["1.0", "inf", "1e+300"]


GROUP = Column("who", "string", "group")


def test_a_group_is_optional_at_prediction_only() -> None:
    grouped = contract(GROUP, NUMBER)
    assert grouped.group == "who" and "who" in grouped.keys and grouped.features() == ["x"]
    rows = table(x=[1.0, 2.0, 3.0])
    found = check_rows(rows, grouped, labelled=False)
    assert found.good["who"].isna().all() and found.good["x"].tolist() == [1, 2, 3] and found.set_aside.empty
    some = check_rows(rows.assign(who=["a", None, "a"]), grouped, labelled=False)
    assert some.good["who"].tolist()[::2] == ["a", "a"] and some.set_aside.empty
    with pytest.raises(ContractError, match="column who is missing"):
        check_rows(rows, grouped)
    assert "who: missing" in check_rows(rows.assign(who=["a", None, "a"]), grouped).set_aside[REASON].iloc[0]
    assert grouped.without_target()[2].nullable and not grouped["who"].nullable


def test_two_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="exactly one column has the role group, not 2"):
        contract(GROUP, Column("team", "string", "group"))


POOLED = contract(
    Column("kind", "string", allowed=("a", "b"), unseen="pool"),
    Column("size", "number", minimum=0, unseen="pool"),
    Column("note", "string", nullable=True, unseen="pool"),
)


def test_unseen_values_are_pooled_at_prediction() -> None:
    rows = table(4, kind=["a", "purple", None, "b"], size=[1.0, 2.0, None, -1.0], note=["x", None, "y", "z"])
    found = check_rows(rows, POOLED, labelled=False)
    assert found.good["kind"].tolist()[:2] == ["a", "purple"] and found.good["size"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert found.set_aside[REASON].tolist() == ["size: below 0 (-1.0)"]  # a range still holds
    assert {name: where.tolist() for name, where in unseen(found.good, POOLED).items()} == {
        "kind": [False, True, True],
        "size": [False, False, True],
    }
    assert unseen_reasons(found.good, POOLED).tolist() == [
        "",
        "kind: not seen in training (purple)",
        "kind: not seen in training (missing); size: not seen in training (missing)",
    ]
    assert [one.name for one in POOLED.pooled] == ["kind", "size"]
    assert POOLED.optional == {"id", "note"}


@pytest.mark.parametrize("rows", [5, 500])
def test_unseen_values_are_found_in_few_rows_and_in_many(rows: int) -> None:
    columns = POOLED.columns
    nullable = contract(*[c for c in columns if c.name == "size"], Column("kind", "string", nullable=True, allowed=("a",), unseen="pool"),
                        Column("when", "timestamp", unseen="pool"))  # fmt: skip
    kinds = ["a", "b", None, "a", "a"] * (rows // 5)
    given = table(
        rows, kind=kinds, size=[1.0, 1.0, 1.0, None, 1.0] * (rows // 5), when=["2024-01-01"] * (rows - 1) + [None]
    )
    found = unseen(check_rows(given, nullable, labelled=False, repeats=True).good, nullable)
    assert found["kind"].tolist() == [kind == "b" for kind in kinds]
    assert found["size"].tolist() == [False, False, False, True, False] * (rows // 5)
    assert found["when"].tolist() == [False] * (rows - 1) + [True]


def test_unseen_texts_are_learnt_from_and_gaps_are_not() -> None:
    rows = table(kind=["a", "purple", None], size=[1.0, 2.0, 3.0], note=["x"] * 3)
    found = check_rows(rows, POOLED)
    assert found.good["kind"].tolist() == ["a", "purple"]
    assert found.set_aside[REASON].tolist() == ["kind: missing (nan)"]


def test_without_pool_unseen_values_are_rejected() -> None:
    strict = contract(Column("kind", "string", allowed=("a", "b")))
    found = check_rows(table(kind=["a", "purple", None]), strict, labelled=False)
    assert found.set_aside[REASON].tolist() == ["kind: not one of a, b (purple)", "kind: missing (nan)"]
    assert not strict.pooled and not unseen(found.good, strict)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"unseen": "drop"}, "x: unseen is reject or pool, not drop"),
        ({"unseen": "pool", "role": "ignored"}, "x: only an input has unseen values that are pooled, not the ignored"),
    ],
)
def test_a_rule_for_unseen_values_that_does_not_fit_is_refused(rules: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Column("x", "string", **rules)
