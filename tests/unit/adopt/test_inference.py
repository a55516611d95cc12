"""Each column of a table gets the role that a careful person would give it, and what cannot be learnt is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from copier_mlops.adopt import decisions, guess, inference, profile
from copier_mlops.adopt.decisions import AdoptionError
from copier_mlops.adopt.inference import Plan

ROWS = 1000
RANDOM = np.random.default_rng(0)
SIGNAL = RANDOM.normal(size=ROWS)
NUMBER = SIGNAL + RANDOM.normal(size=ROWS)
FLAG = np.where(NUMBER > 0.5, "yes", "no")
DAYS = pd.date_range("2024-01-01", periods=ROWS, freq="8h")
NAMES = [f"case-{number:05d}" for number in range(ROWS)]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SENTENCES = [" ".join(RANDOM.choice(WORDS, 9)) for _ in range(ROWS)]
GIVEN = {"signal": SIGNAL.round(3), "colour": RANDOM.choice(["red", "green", "blue"], ROWS), "y": FLAG}


def planned(
    frame: dict[Any, Any], target: str = "y", time: str = "", identifier: str = "", problem: str = "", **more: Any
) -> Plan:
    """The plan for a table of text, as a CSV file has it."""
    texts = {name: pd.Series(values).astype("str").where(pd.notna(pd.Series(values))) for name, values in frame.items()}
    table = pa.table({name: pa.array(values.tolist(), pa.string(), from_pandas=True) for name, values in texts.items()})
    guesses = {name: guess.guess(table[name], name=name) for name in table.column_names}
    found = profile.Profile(guesses, unique=[identifier] if identifier else [])
    found.update(table)
    return inference.plan(found, target, time, identifier, problem, **more)


def decided(plan: Plan, name: str) -> decisions.Decision:
    return next(one for one in plan.decisions if one.name == name)


# ------------------------------------------------------------------------------------------------------- Inputs


def test_a_plain_table() -> None:
    plan = planned({"id": NAMES, "at": DAYS.astype("str"), **GIVEN}, time="at", identifier="id")
    assert [(one.name, one.role, one.kind) for one in plan.decisions] == [
        ("id", "id", "string"),
        ("at", "time", "timestamp"),
        ("signal", "feature", "number"),
        ("colour", "feature", "string"),
        ("y", "target", "boolean"),
    ]
    assert plan.contract.names == ["id", "at", "signal", "colour", "y"]
    assert plan.contract["colour"].allowed == ("blue", "green", "red")
    assert (plan.problem, plan.rows, plan.warnings, dict(plan.styles)) == ("classification", ROWS, (), {})


def test_unseen_values_of_inputs_are_pooled() -> None:
    gaps = np.where(np.arange(ROWS) % 9 > 0, SIGNAL.round(2).astype("str"), None)
    shop = [f"shop {number}" for number in RANDOM.integers(0, 400, ROWS)]
    found = planned({"id": NAMES, **GIVEN, "gaps": gaps, "shop": shop}, identifier="id").contract
    assert {one.name: one.unseen for one in found.columns} == {
        "id": "reject",
        "signal": "pool",
        "colour": "pool",
        "gaps": "reject",  # may be missing anyway
        "shop": "pool",  # has no list; a gap is pooled
        "y": "reject",
    }


def test_a_range_has_room_to_grow_and_keeps_its_sign() -> None:
    plan = planned({**GIVEN, "age": RANDOM.integers(18, 80, ROWS), "loss": -RANDOM.random(ROWS).round(4)})
    signal, age, loss = plan.contract["signal"], plan.contract["age"], plan.contract["loss"]
    assert signal.minimum < SIGNAL.min() < SIGNAL.max() < signal.maximum
    assert (age.kind, age.minimum) == ("integer", 0)
    assert 80 < age.maximum < 200
    assert loss.maximum == 0


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([""] * ROWS, "empty"),
        (["same"] * ROWS, "a constant, same"),
        (SENTENCES, "free text"),
        ([f"{number * 7919:x}-q" for number in range(ROWS)], "an identifier: nearly each row has another"),
        ([f"u{number}@example.org" for number in range(ROWS)], "looks like personal data: an e-mail address"),
        (FLAG, "leaks: alone it tells y"),
        (np.where(FLAG == "yes", 7.5, 2.25), "leaks: alone it tells y"),
    ],
)
def test_what_is_no_input_is_left_out_and_why(values: Any, why: str) -> None:
    plan = planned({**GIVEN, "x": values})
    assert decided(plan, "x").role == "left out"
    assert decided(plan, "x").why.startswith(why)
    assert "x" not in plan.contract.names


def test_whole_numbers_that_only_name_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "DISTINCT", 500)
    ordered = np.arange(ROWS) + 10_000
    plan = planned({**GIVEN, "counter": ordered, "user_id": RANDOM.permutation(ordered) * 977, "weight": SIGNAL * 1e6})
    for name in ("counter", "user_id"):
        assert decided(plan, name).why == "an identifier: whole numbers, each once"
    assert decided(plan, "weight").role == "feature"


def test_people_are_noticed_in_a_table_that_is_longer_than_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "DISTINCT", 50)
    letters = np.array(list("abcdefghijklmnop"))
    names = [f"Ada {''.join(RANDOM.choice(letters, 8)).capitalize()}" for _ in range(ROWS)]
    plan = planned({**GIVEN, "person": names, "key": [f"k{number * 7919 % 1000}" for number in range(ROWS)]})
    assert decided(plan, "person").why == "looks like personal data: a name, by its values"
    assert decided(plan, "key").why == "an identifier: nearly each row has another"


def test_codes_are_categories_and_counts_are_numbers() -> None:
    plan = planned({**GIVEN, "zip_code": RANDOM.integers(10, 60, ROWS) * 1000, "rooms": RANDOM.integers(1, 9, ROWS)})
    assert plan.contract["zip_code"].kind == "string"
    assert plan.contract["rooms"].kind == "integer"


def test_a_category_with_many_or_rare_values_may_get_others() -> None:
    plan = planned({**GIVEN, "city": [f"city {number}" for number in RANDOM.integers(0, 90, ROWS)]})
    assert plan.contract["city"].allowed is None
    assert plan.contract["city"].kind == "string"


def test_gaps_moments_and_answers_to_a_question() -> None:
    gaps = np.where(RANDOM.random(ROWS) < 0.1, None, SIGNAL.round(3).astype("str"))
    plan = planned(
        {**GIVEN, "gaps": gaps, "joined": DAYS.strftime("%d.%m.%Y"), "member": RANDOM.choice(["Y", "N"], ROWS)}
    )
    assert plan.contract["gaps"].nullable
    assert not plan.contract["signal"].nullable
    assert plan.contract["joined"].kind == "timestamp"
    assert plan.contract["member"].kind == "boolean"
    assert dict(plan.styles) == {"joined": "%d.%m.%Y"}
    assert any("TIME=joined would test on the newest" in warning for warning in plan.warnings)


def test_values_that_do_not_fit_are_doubted() -> None:
    plan = planned({**GIVEN, "x": ["oops", *SIGNAL.round(3).astype("str")[1:]]})
    assert "1 value is no number, 0.1% of them (oops); such rows are set aside" in decided(plan, "x").doubt
    many = planned({**GIVEN, "x": [*["<0.05"] * 60, *SIGNAL.round(3).astype("str")[60:]]})
    assert (decided(many, "x").role, decided(many, "x").kind) == ("feature", "number")
    assert "60 values are no number, 6.0% of them (<0.05)" in decided(many, "x").doubt
    assert many.params["bad_share"] == 0.09
    assert "validation.max_bad_share in params.yaml is 0.09" in " ".join(many.warnings)


def test_rows_that_several_columns_exclude_are_counted_once() -> None:
    texts = SIGNAL.round(3).astype("str")
    heads, tails = [*["<1"] * 60, *texts[60:]], [*texts[:30], *["<1"] * 60, *texts[90:]]
    plan = planned({**GIVEN, "x": heads, "z": tails})
    assert plan.params["bad_share"] == 0.14  # 90 rows and half as many again
    assert any(one.startswith("9.0% of the rows have values that cannot be used") for one in plan.warnings)


@pytest.mark.parametrize(
    ("column", "more"),
    [
        ({"y": [*["pending"] * 60, *NUMBER.round(3).astype("str")[60:]]}, {}),
        ({"y": [*[f"rare {number % 12}" for number in range(60)], *np.where(NUMBER > 0, "a", "b")[60:]]}, {}),
        ({"at": [*[""] * 60, *DAYS.astype("str")[60:]]}, {"time": "at"}),
    ],
)
def test_rows_without_a_usable_target_or_time_are_allowed_for(column: dict[str, Any], more: dict[str, str]) -> None:
    plan = planned({**GIVEN, **column}, **more)
    assert plan.params["bad_share"] == 0.09
    assert any("most of them in " + next(iter(column)) in one for one in plan.warnings)


def test_codes_that_are_no_numbers_exclude_no_row() -> None:
    codes = [*["n/k"] * 60, *RANDOM.integers(1, 9, ROWS - 60)]
    plan = planned({**GIVEN, "region_code": codes})
    assert (plan.contract["region_code"].kind, decided(plan, "region_code").doubt) == ("string", "")
    assert plan.params["bad_share"] == 0.02


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("date_of_birth", pd.date_range("1950-01-01", periods=ROWS, freq="17D").strftime("%Y-%m-%d")),
        ("geburtsdatum", pd.date_range("1950-01-01", periods=ROWS, freq="17D").strftime("%d.%m.%Y")),
        ("contact", [f"+49 170 {2246162 + number * 131}" for number in range(ROWS)]),
        ("reach", [f"0170 {2246162 + number * 131}" for number in range(ROWS)]),
        ("first_name", ["Ada", "Grace", "Edsger", "Alan", "Barbara"] * (ROWS // 5)),
        ("Nachname", ["Meier", "Müller", "Schulz", "Kaya", "Nowak"] * (ROWS // 5)),
    ],
)
def test_personal_data_is_left_out_however_it_is_written(name: str, values: Any) -> None:
    plan = planned({**GIVEN, name: values})
    assert decided(plan, name).role == "left out" and "personal data" in decided(plan, name).why
    assert not any("TIME=" in warning for warning in plan.warnings)


def test_a_value_of_a_person_is_not_shown() -> None:
    constant = planned({**GIVEN, "paid with": ["4111 1111 1111 1111"] * ROWS})
    assert "personal data: a card or account number" in decided(constant, "paid with").why
    mixed = planned(
        {**GIVEN, "x": [*[f"u{number}@example.org" for number in range(9)], *SIGNAL.round(3).astype("str")[9:]]}
    )
    assert "9 values are no number, 0.9% of them (an e-mail address, by its values)" in decided(mixed, "x").doubt


def test_spellings_of_one_answer_are_counted_together() -> None:
    y = np.where(FLAG == "yes", RANDOM.choice(["yes", "YES", "Yes"], ROWS), RANDOM.choice(["no", "NO"], ROWS))
    plan = planned({**GIVEN, "y": y})
    assert plan.contract["y"].kind == "boolean"
    assert f"{(FLAG == 'yes').mean():.2%} of them true" in decided(plan, "y").why
    mixed = np.where(FLAG == "yes", RANDOM.choice(["true", "1", "T"], ROWS), RANDOM.choice(["false", "0"], ROWS))
    assert planned({**GIVEN, "y": mixed}).contract["y"].kind == "boolean"
    short = RANDOM.choice(["f", "n", "t", "y"], ROWS)  # letters that may be codes
    assert planned({**GIVEN, "x": short}).contract["x"].kind == "string"
    other = planned({**GIVEN, "y": np.where(FLAG == "yes", RANDOM.choice(["won", "WON"], ROWS), "lost")})
    assert "classes that differ in capital letters alone: " in " ".join(other.warnings)


def test_numbers_that_together_are_the_target_are_refused() -> None:
    casual, registered = RANDOM.integers(0, 90, ROWS), RANDOM.integers(0, 200, ROWS)
    table = {"warm": SIGNAL.round(3), "casual": casual, "registered": registered, "cnt": casual + registered}
    with pytest.raises(AdoptionError, match=r"registered and casual together give cnt away .*DROP=registered.*KEEP="):
        planned(table, target="cnt")
    assert decided(planned(table, target="cnt", drop=["casual"]), "casual").role == "left out"
    assert decided(planned(table, target="cnt", keep=["casual"]), "casual").role == "feature"
    paid, due = RANDOM.normal(size=ROWS).round(3), RANDOM.normal(size=ROWS).round(3)
    with pytest.raises(AdoptionError, match=r"(paid and due|due and paid) together give late away"):
        planned({"paid": paid, "due": due, "late": (paid > due).astype(int)}, target="late")


def test_parts_of_the_target_are_found_among_many_numbers() -> None:
    parts = {f"part {number}": RANDOM.normal(size=ROWS).round(3) for number in range(120)}
    total = (parts["part 3"] + parts["part 77"]).round(3)
    with pytest.raises(AdoptionError, match=r"part (3|77) and part (3|77) together give total away"):
        planned({**parts, "total": total}, target="total")


def test_a_column_that_is_known_in_time_is_kept() -> None:
    plan = planned({**GIVEN, "told": np.where(FLAG == "yes", 7.5, 2.25)}, keep=["told"])
    assert decided(plan, "told").role == "feature"
    with pytest.raises(AdoptionError, match=r"KEEP=told: the table has no such column. Is it told"):
        planned({**GIVEN, "told.": FLAG}, keep=["told"])


def test_copies_of_rows_are_counted() -> None:
    frame = pd.DataFrame(GIVEN).sample(ROWS, replace=True, random_state=1)
    copies = int(frame.duplicated().sum())
    assert f"{copies:,} of {ROWS:,} rows are copies of other rows" in " ".join(planned(frame.to_dict("list")).warnings)
    few = planned({"colour": RANDOM.choice(["red", "green"], ROWS), "y": FLAG})
    assert not any("copies" in warning for warning in few.warnings)


def test_a_group_names_the_subjects() -> None:
    who = np.arange(ROWS) % 200
    plan = planned({"case": NAMES, "customer_id": who + 7000, **GIVEN}, identifier="case", group="customer_id")
    assert plan.contract.group == "customer_id" and plan.contract["customer_id"].kind == "integer"
    assert plan.contract.names[:2] == ["case", "customer_id"] and "customer_id" not in plan.contract.features()
    assert decided(plan, "customer_id").why.startswith("names the subject of a row, 200 of them: rows of one are on")
    mails = planned({"mail": [f"u{number}@example.org" for number in who], **GIVEN}, group="mail").contract["mail"]
    assert (mails.personal, mails.kind, mails.nullable) == (True, "string", False)
    gaps = [None if number < 5 else f"w{number}" for number in who]
    assert planned({"who": gaps, **GIVEN}, group="who").contract["who"].nullable
    timed = planned({"at": DAYS.astype("str"), "who": who, **GIVEN}, time="at", group="who")
    assert "the split stays in time" in decided(timed, "who").why and "test_days" in timed.params["split"]
    few = planned({"who": who % 20, **GIVEN}, group="who")
    assert any("20 different who are few" in warning for warning in few.warnings)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.arange(ROWS) % 4, "GROUP=who has 4 different values"),
        (NAMES, "GROUP=who is different in each row, so it groups nothing"),
    ],
)
def test_a_group_that_is_none_is_refused(values: Any, says: str) -> None:
    with pytest.raises(AdoptionError, match=says):
        planned({"who": values, **GIVEN}, group="who")


def test_a_column_that_may_name_subjects_is_proposed_as_the_group() -> None:
    who = np.arange(ROWS) % 300
    proposed = "GROUP=customer_id keeps them on one side of the split"
    assert proposed in decided(planned({"customer_id": who, **GIVEN}), "customer_id").doubt
    names = [f"c{number}" for number in np.arange(ROWS) % 700]
    plan = planned({"customer_id": names, **GIVEN})
    assert decided(plan, "customer_id").role == "left out" and proposed in decided(plan, "customer_id").doubt
    with pytest.raises(
        AdoptionError, match=r"ID=customer_id repeats: 700 of 1,000 rows.*GROUP=customer_id in place of it"
    ):
        planned({"customer_id": who, **GIVEN}, identifier="customer_id")


def test_many_values_that_come_again_are_a_category() -> None:
    rows, shops = 30_000, [f"shop {number}" for number in range(3000)]
    y = RANDOM.choice(["yes", "no"], rows)
    plan = planned(
        {"shop": RANDOM.choice(shops, rows), "customer_id": RANDOM.integers(10**6, 10**6 + 3000, rows), "y": y}
    )
    assert (decided(plan, "shop").kind, decided(plan, "customer_id").kind) == ("string", "string")
    assert int(decided(plan, "shop").why.split("about ")[1].split(";")[0].replace(",", "")) == pytest.approx(
        3000, rel=0.05
    )


@pytest.mark.parametrize(("name", "kind"), [("lOCode", "integer"), ("store", "integer"), ("zone", "string")])
def test_only_few_numbers_are_codes_by_the_name(name: str, kind: str) -> None:
    values = RANDOM.integers(0, 8 if name == "zone" else 900, ROWS)
    assert decided(planned({**GIVEN, name: values}), name).kind == kind


def test_a_number_that_stands_for_no_value_is_doubted() -> None:
    values = np.where(RANDOM.random(ROWS) < 0.05, -999, RANDOM.integers(0, 40, ROWS))
    assert "-999 in" in decided(planned({**GIVEN, "age": values}), "age").doubt
    for values in (RANDOM.integers(0, 100, ROWS), RANDOM.integers(-1, 2, ROWS)):
        assert not decided(planned({**GIVEN, "age": values}), "age").doubt


def test_a_word_that_counts_as_missing_is_said() -> None:
    plan = planned({**GIVEN, "country": RANDOM.choice(["NA", "ZA", "DE"], ROWS)})
    assert "count as missing. NA is the code of Namibia" in decided(plan, "country").doubt


def test_a_class_that_counts_as_missing_is_said() -> None:
    plan = planned({**GIVEN, "y": RANDOM.choice(["NA", "low", "high"], ROWS)})
    assert any("rows have no y yet" in one and "NA in" in one and "If one is a class" in one for one in plan.warnings)
    with pytest.raises(AdoptionError, match=r"is OK in all rows that have one.* NA in .* count as missing"):
        planned({**GIVEN, "y": np.where(FLAG == "yes", "NA", "OK")})


def test_few_rows_of_a_class_widen_the_days_that_judge() -> None:
    days = pd.date_range("2024-01-01", periods=5000, freq="2h")
    y = np.zeros(5000, dtype=int)
    y[RANDOM.permutation(4000)[:60]] = 1
    plan = planned({"at": days.astype("str"), "x": RANDOM.normal(size=5000).round(3), "y": y}, time="at")
    start = days.max() - pd.Timedelta(days=plan.params["split"]["test_days"])
    assert y[days >= start].sum() >= 20
    assert any("of the rarest class: the test takes" in warning for warning in plan.warnings)
    y[np.flatnonzero(y)[12:]] = 0
    few = planned({"at": days.astype("str"), "x": RANDOM.normal(size=5000).round(3), "y": y}, time="at")
    assert any("6 rows of the rarest class judge the model" in warning for warning in few.warnings)


def test_what_nearly_tells_the_answer_is_doubted() -> None:
    plan = planned({**GIVEN, "near": np.where(RANDOM.random(ROWS) < 0.04, 1 - (NUMBER > 0.5), NUMBER > 0.5) * 2.5})
    assert "alone it tells much of y" in decided(plan, "near").doubt
    assert decided(plan, "near").role == "feature"


def test_without_an_input_there_is_nothing_to_adopt() -> None:
    with pytest.raises(AdoptionError, match="no column is left that could be an input"):
        planned({"x": ["same"] * ROWS, "y": FLAG})


# ------------------------------------------------------------------------------------------------------- Target


@pytest.mark.parametrize("values", [FLAG, np.where(FLAG == "yes", "1", "0"), np.where(FLAG == "yes", "True", "False")])
def test_two_answers_are_true_or_false(values: Any) -> None:
    plan = planned({**GIVEN, "y": values})
    assert (plan.problem, plan.contract["y"].kind, plan.contract.classes) == ("classification", "boolean", ())
    assert f"{(FLAG == 'yes').mean():.2%} of them true" in decided(plan, "y").why


def test_of_two_names_the_rarer_one_is_looked_for() -> None:
    plan = planned({**GIVEN, "y": np.where(FLAG == "yes", "gone", "stays")})
    assert (FLAG == "yes").mean() < 0.5
    assert plan.contract.classes == ("stays", "gone")
    assert "probability of gone" in decided(plan, "y").why


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("Yes", "No")])
def test_a_rare_third_answer_does_not_turn_the_other_two_round(yes: str, no: str) -> None:
    plan = planned({**GIVEN, "y": [*["2"] * 5, *np.where(FLAG == "yes", no, yes)[5:]]})
    assert plan.contract.classes == (no, yes)


def test_many_classes_stand_in_order_and_rare_ones_are_set_aside() -> None:
    plan = planned({**GIVEN, "y": ["rare"] * 9 + RANDOM.choice(["c", "a", "b"], ROWS - 9).tolist()})
    assert plan.contract.classes == ("a", "b", "c")
    assert any("fewer than 10 rows are set aside: rare" in warning for warning in plan.warnings)


def test_few_whole_numbers_are_classes_unless_somebody_says_otherwise() -> None:
    stars = {**GIVEN, "y": np.clip(np.round(NUMBER * 4 + 6), 1, 11).astype(int)}
    plan = planned(stars)
    assert plan.problem == "classification"
    assert plan.contract.classes == tuple(map(str, range(1, 12)))
    assert planned(stars, problem="regression").contract["y"].kind == "integer"
    many = {**GIVEN, "y": np.round(NUMBER * 9).astype(int)}
    assert planned(many).problem == "regression"
    assert "-1" in planned({**GIVEN, "y": np.round(NUMBER * 3).astype(int)}, problem="classification").contract.classes


def test_other_numbers_are_a_regression() -> None:
    plan = planned({**GIVEN, "y": [f"{number:.2f}".replace(".", ",") for number in NUMBER]})
    assert (plan.problem, plan.contract["y"].kind, plan.styles["y"]) == ("regression", "number", "1.234,5")
    assert plan.params["metric"] == "rmse"
    assert 0 < plan.params["worse"] < plan.params["better"] < NUMBER.std()
    assert not plan.long_tail
    tail = planned({**GIVEN, "y": np.exp(3 * NUMBER).round(4)})
    assert tail.long_tail
    assert tail.params["metric"] == "mae"


@pytest.mark.parametrize(
    ("values", "problem", "says"),
    [
        ([""] * ROWS, "", "has no value in any row"),
        (["yes"] * ROWS, "", "is yes in all rows"),
        (["3"] * ROWS, "", "is 3 in all rows"),
        ([*FLAG[:99], *[""] * (ROWS - 99)], "", "99 rows have an answer"),
        (["yes"] * 9 + ["no"] * (ROWS - 9), "", "the rarer answer of y occurs 9 times"),
        (["a"] * 9 + ["b"] * (ROWS - 9), "", "only 1 class of y has 10 rows or more"),
        ([f"c{number % 60}" for number in range(ROWS)], "", "has 60 different texts; 50 classes are the most"),
        (DAYS.astype("str"), "", "is a time"),
        (FLAG, "regression", "is true or false; that is a classification"),
        (np.where(FLAG == "yes", "a", "b"), "regression", "is text"),
        (NUMBER, "classification", "too many different numbers for classes"),
    ],
)
def test_what_cannot_be_predicted_is_refused(values: Any, problem: str, says: str) -> None:
    with pytest.raises(AdoptionError, match=says):
        planned({**GIVEN, "y": values}, problem=problem)


def test_thousands_of_texts_are_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "DISTINCT", 100)
    with pytest.raises(AdoptionError, match="has thousands of different texts"):
        planned({**GIVEN, "y": NAMES})


def test_rows_without_an_answer_are_no_mistake() -> None:
    plan = planned({**GIVEN, "y": ["", *FLAG[1:]]})
    assert any(warning.startswith("1 rows have no y yet") for warning in plan.warnings)


# --------------------------------------------------------------------------------------------------- Id and time


def test_an_id_is_there_in_each_row_and_once() -> None:
    with pytest.raises(AdoptionError, match=r"ID=id repeats: 1 of 1,000 rows"):
        planned({"id": [NAMES[1], *NAMES[1:]], **GIVEN}, identifier="id")
    with pytest.raises(AdoptionError, match=r"ID=id is missing in 1 rows"):
        planned({"id": ["", *NAMES[1:]], **GIVEN}, identifier="id")
    numbers = planned({"id": np.arange(ROWS), **GIVEN}, identifier="id")
    assert numbers.contract["id"].kind == "integer"


def test_an_id_that_names_a_person_is_kept_as_a_hash() -> None:
    plan = planned({"mail": [f"u{number}@example.org" for number in range(ROWS)], **GIVEN}, identifier="mail")
    assert plan.contract["mail"].personal
    assert "MASK_KEY" in decided(plan, "mail").why
    phones = planned({"phone": 5550000000 + np.arange(ROWS), **GIVEN}, identifier="phone")
    assert (phones.contract["phone"].personal, phones.contract["phone"].kind) == (True, "string")


def test_without_an_id_rows_are_counted() -> None:
    plan = planned(GIVEN)
    assert plan.contract.id == "row"
    assert any("no ID was named" in warning for warning in plan.warnings)
    assert planned({**GIVEN, "row": SIGNAL}).contract.id == "row_number"


def test_a_time_orders_the_rows_and_splits_them() -> None:
    plan = planned({"at": DAYS.strftime("%d/%m/%Y %H:%M"), **GIVEN}, time="at")
    assert plan.contract.time == "at"
    assert plan.params["span"] == 334 and "window" not in plan.params
    assert plan.params["split"]["test_days"] == 67
    assert "month" in plan.params["slices"]
    assert plan.styles == {"at": "%d/%m/%Y %H:%M"}
    share = planned(GIVEN)
    assert "span" not in share.params
    assert share.params["split"] == {"test_share": 0.2, "folds": 5}
    assert share.params["slices"] == ["colour"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (SIGNAL.round(3), r"TIME=at holds no times.*STYLE_at=%d.%m.%y, STYLE_at=seconds .* or STYLE_at=excel"),
        (["2024-01-01T10:00:00Z"] * ROWS, "TIME=at is the same in all rows"),
    ],
)
def test_a_time_that_is_none_is_refused(values: Any, says: str) -> None:
    with pytest.raises(AdoptionError, match=says):
        planned({"at": values, **GIVEN}, time="at")


@pytest.mark.parametrize("wrong", [["2099-12-31"], ["9999-12-31"] * 2, ["9999-12-31 23:59:59"] * 50])
def test_a_few_rows_of_a_far_future_do_not_move_the_window(wrong: list[str]) -> None:
    usual = planned({"at": DAYS.astype("str"), **GIVEN}, time="at")
    plan = planned({"at": [*wrong, *DAYS.astype("str")[len(wrong) :]], **GIVEN}, time="at")
    assert plan.params["split"]["test_days"] == pytest.approx(usual.params["split"]["test_days"], abs=4)
    assert plan.params["until"] == "2024-11-30" and "until" not in usual.params
    [warning] = [one for one in plan.warnings if "window.until" in one]
    assert wrong[0][:10] in warning and "2024-11-29 at the latest in nearly all others" in warning


@pytest.mark.parametrize("wrong", [["1900-01-01"], ["0001-01-01"] * 2, ["1970-01-01"] * 50])
def test_a_few_rows_of_a_far_past_do_not_make_a_year_a_century(wrong: list[str]) -> None:
    plan = planned({"at": [*DAYS.astype("str")[: -len(wrong)], *wrong], **GIVEN}, time="at")
    assert plan.params["span"] < 335 and "until" not in plan.params
    assert "its month is no input" in decided(plan, "at").why
    said = f"at is {wrong[0]} in the oldest row, and 2024-01-01 at the earliest in nearly all others"
    assert any(said in one for one in plan.warnings)


def test_placeholders_at_both_ends_do_not_hide_each_other() -> None:
    plan = planned({"at": ["1900-01-01", *DAYS.astype("str")[1:-1], "2099-12-31"], **GIVEN}, time="at")
    assert plan.params["span"] < 335 and plan.params["until"] == "2024-11-29"


def test_moments_that_cannot_be_read_are_doubted() -> None:
    plan = planned({"at": ["soon", *DAYS.astype("str")[1:]], **GIVEN}, time="at")
    assert decided(plan, "at").doubt.startswith("1 rows have none that can be read")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"target": "z"}, "TARGET=z: the table has no such column. It has"),
        ({"target": "coluor"}, "Is it colour?"),
        ({"target": "Y"}, "Is it y?"),
        ({"time": "sinal"}, "TIME=sinal: the table has no such column. Is it signal?"),
        ({"identifier": "colour", "time": "colour"}, "one column cannot have two roles"),
    ],
)
def test_a_name_that_is_misspelt_is_named(asked: dict[str, str], says: str) -> None:
    with pytest.raises(AdoptionError) as error:
        planned(GIVEN, **asked)
    assert says in str(error.value)


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(AdoptionError, match="a header and no rows"):
        planned({name: [] for name in GIVEN})


@pytest.mark.parametrize(
    ("value", "nice"), [(0, 0), (-1, 0), (0.0123, 0.01), (0.5, 0.5), (7, 5), (99, 50), (1000, 1000)]
)
def test_limits_are_round(value: float, nice: float) -> None:
    assert decisions.nice(value) == nice
