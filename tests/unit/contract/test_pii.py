"""A column that names people is noticed, and one that does not is left in peace."""

import pytest

from copier_mlops.contract.pii import reason

PEOPLE = ["Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether", "Rosa van der Berg"]
MAILS = ["ada@example.org", "grace.hopper@example.com", "a@b.de"]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (MAILS, "an e-mail address"),
        (["+49 30 1234567", "(030) 123-4567", "0171-1234567"], "a phone number"),
        (["4111 1111 1111 1111", "5500000000000004"], "a card or account number"),
        (["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"], "a card or account number"),
        (["078-05-1120", "219-09-9999"], "a national number"),
        (["QQ 12 34 56 C".replace("QQ", "AB"), "JG103759A"], "a national number"),
        (["192.168.0.1", "10.0.0.254"], "a network address"),
        (["00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5f"], "a network address"),
        (["12 Baker Street", "221b Some Road"], "an address"),
        (["Hauptstraße 12", "Lange Gasse 3a"], "an address"),
        (PEOPLE, "a name"),
        (["Braund, Mr. Owen Harris", "Heikkinen, Miss. Laina"], "a name"),
    ],
)
def test_the_values_tell(values: list[str], what: str) -> None:
    assert reason("x", values, 1.0) == f"{what}, by its values"


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("customerEmail", ["hidden one", "hidden two"], "an e-mail address"),
        ("phone_2", ["5551234567", "5559876543"], "a phone number"),
        ("Last Name", ["Lovelace", "Hopper"], "a name"),
        ("home-address", ["somewhere", "elsewhere"], "an address"),
        ("IBAN", ["12345678", "87654321"], "a card or account number"),
        ("tax_id", ["DE123456", "DE654321"], "a national number"),
        ("client_ip", ["2130706433", "3232235521"], "a network address"),
        ("date_of_birth", ["1815", "1906"], "a date of birth"),
    ],
)
def test_the_name_tells_where_the_values_may_be_such(name: str, values: list[str], what: str) -> None:
    assert reason(name, values, 1.0) == f"{what}, by its name"


@pytest.mark.parametrize(
    ("name", "values", "often"),
    [
        ("x", [], 1.0),
        ("email", ["", " "], 1.0),
        ("city", ["New York", "Los Angeles", "San Francisco"], 0.001),  # the shape of a name, and a few of them
        ("product_name", ["chair", "table"], 0.001),
        ("ip", ["1", "2", "3"], 0.001),
        ("phone", ["yes", "no"], 0.001),
        ("email", ["1", "0"], 0.5),
        ("price", ["12.50", "1,234.00", "7"], 1.0),
        ("day", ["2024-01-31", "31.12.2024", "1/2/2024"], 1.0),
        ("amount", ["4111111111111112", "5500000000000005"], 1.0),  # the check digit is wrong
        ("code", ["DE89370400440532013001"], 1.0),  # pragma: allowlist secret
        ("colour", ["red", "green"], 0.1),
        ("filename_length", ["12", "13"], 0.1),
        ("micro", ["a", "b"], 0.9),
    ],
)
def test_others_are_left_in_peace(name: str, values: list[str], often: float) -> None:
    assert reason(name, values, often) == ""


def test_a_few_addresses_among_other_texts_are_enough() -> None:
    assert reason("note", ["call me"] * 30 + MAILS[:2], 1.0) == "an e-mail address, by its values"
    assert reason("note", ["call me"] * 300 + MAILS[:1], 1.0) == ""
