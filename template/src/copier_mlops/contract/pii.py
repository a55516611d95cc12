"""Which columns name a person: by what they are called and by what is in them.

A finding is a reason in words. It errs on the side of caution: what is flagged is left out or pseudonymised, and a person
who knows better gives the column back its role in the contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

NAMES = {
    "an e-mail address": r"e_?mail|mail_?(address|adresse)",
    "a phone number": r"(tele)?phone|telefon|mobile(_?(no|number|phone))?|handy|fax|cell_?(no|number)|msisdn|(tel|fon)",
    "a person's name": r"(first|last|middle|sur|family|given|maiden)_?names?|fore_?name|surname|vorname|nachname|prenom|apellidos?",
    "a name": r"(full|user|nick|customer|client|patient|employee|person|contact"
    r"|holder|owner|guest|passenger|applicant)_?names?|names?|kunden_?name|nom|nombre",
    "an address": r"(street|postal|home|mailing|billing|shipping|customer)_?(address|adresse)?|address(_?(line)?_?\d)?|adresse"
    r"|anschrift|strasse|straße|hausnummer|house_?(no|number)",
    "a card or account number": r"(credit_?)?card(_?(no|num|number))|cc_?(no|num|number)|pan|iban|bic|account_?(no|num|number)"
    r"|kontonummer|bank_?account",
    "a national number": r"ssn|social_?security(_?(no|number))?|passport(_?(no|number))?|national_?(id|insurance|number)|nino"
    r"|tax_?(id|payer|number)|tin|steuer_?(id|nummer)|driver_?s?_?licen[cs]e(_?(no|number))?|dni|nie|nif|cpf|aadhaar|personnummer",
    "a network address": r"ip|ip_?address|ip_?adresse|mac_?address|device_?id|imei",
    "a date of birth": r"birth_?(date|day|dt)|date_?(of_?birth|naissance)|dob|born(_?(on|at))?|geburts(datum|tag)|geb_?dat(um)?"
    r"|fecha_?(de_?)?nacimiento|nacimiento|naissance",
}
"""What a column is called that holds such values: the whole name, or a part of it between underscores."""

MOST = 0.6  # of the values have the shape


def reason(name: str, values: Sequence[str], often: float) -> str:
    """Why a column looks like personal data.

    Args:
        name: What it is called.
        values: Some of its different values, as text; numbers as they were written.
        often: Different values by row, from 0 to 1.

    Returns:
        Such as `an e-mail address, by its values`; empty if it does not.
    """
    values = [value.strip() for value in values if value and value.strip()]
    if not values:
        return ""
    for what, fits in SHAPES.items():
        share = sum(map(fits, values)) / len(values)
        if share >= MOST or (what == "an e-mail address" and share > 0.02):
            if what == "a name" and often < 0.2:  # a hundred cities, not ten thousand people
                continue
            return f"{what}, by its values"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^0-9a-zäöüß]+", "_", words.lower()).strip("_")
    for what, pattern in NAMES.items():
        if re.fullmatch(rf"(?:.*_)?(?:{pattern})(?:_\d+)?", plain) and _can_be(what, plain, values, often):
            return f"{what}, by its name"
    return ""


def _can_be(what: str, plain: str, values: Sequence[str], often: float) -> bool:
    """Whether values can be what the column's name says: `ip` with 3 different numbers is none."""
    letters = sum(any(sign.isalpha() for sign in value) for value in values) / len(values)
    if what == "a person's name":
        return letters > 0.5 and len(values) > 2
    if what in ("a name", "an address"):
        return letters > 0.5 and (often > 0.05 or len(values) > 50)
    if what == "a date of birth":
        return True
    if what == "an e-mail address":
        return letters > 0.5 and often > 0.05
    digits = sum(sum(sign.isdigit() for sign in value) >= 5 for value in values) / len(values)
    return digits > 0.5 and often > 0.05


def _phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not 7 <= len(digits) <= 15 or re.fullmatch(r"\d{4}-\d\d-\d\d.*|\d\d?[./]\d\d?[./]\d{2,4}.*", text):
        return False
    written = re.fullmatch(r"(?:\+|00)?[\d\s().\-/]{6,24}(?:\s?(?:x|ext\.?)\s?\d{1,6})?", text)
    return bool(
        written and (text.startswith(("+", "00", "(", "0")) or re.search(r"\d[\s\-/)]+\d", text)) and not _decimal(text)
    )


def _decimal(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?\d*[.,]\d+|[-+]?\d{1,3}([., ']\d{3})+([.,]\d+)?", text))


def _card(text: str) -> bool:
    """A payment card: 13 to 19 digits whose check digit holds (ISO/IEC 7812, Luhn)."""
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch(r"[2-6]\d{12,18}", digits):
        return False
    total = 0
    for place, sign in enumerate(reversed(digits)):
        value = int(sign) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _iban(text: str) -> bool:
    """A bank account: remainder 1 modulo 97 (ISO 13616)."""
    bare = re.sub(r"\s", "", text).upper()
    if not re.fullmatch(r"[A-Z]{2}\d\d[A-Z0-9]{10,30}", bare):
        return False
    return int("".join(str(int(sign, 36)) for sign in bare[4:] + bare[:4])) % 97 == 1


def _matches(*patterns: str) -> Callable[[str], bool]:
    whole = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return lambda text: bool(whole.fullmatch(text))


SHAPES: dict[str, Callable[[str], bool]] = {
    "an e-mail address": _matches(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}"),
    "a card or account number": lambda text: _card(text) or _iban(text),
    "a national number": _matches(
        r"\d{3}-\d{2}-\d{4}",  # United States
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",  # United Kingdom
        r"\d{3}\.\d{3}\.\d{3}-\d\d",  # Brazil
        r"\d{8}[A-Z]|[XYZ]\d{7}[A-Z]",  # Spain
        r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]",  # Italy
        r"(19|20)?\d{6}[-+]\d{4}",  # Sweden
    ),
    "a phone number": _phone,
    "a network address": _matches(
        r"(\d{1,3}\.){3}\d{1,3}", r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}", r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}"
    ),
    "an address": _matches(
        r"(?i:\d+[a-z]?,? .{2,40}\b(?:st|street|ave|avenue|rd|road|ln|lane|dr|drive|blvd|boulevard|way|court|ct|place|pl|sq|terrace)\b\.?.*)",
        r"(?i:.{2,40}(?:straße|strasse|str\.|weg|platz|allee|gasse|ring) ?\d+ ?[a-z]?.*)",
        r"(?:rue|avenue|boulevard|calle|via|piazza|rua) .{2,40}\d*.*",
        r"\d+,? (?:rue|avenue|boulevard|place) .*",
    ),
    "a name": _matches(
        r"(?:(?:Mr|Mrs|Ms|Dr|Prof|Herr|Frau)\.? )?[A-ZÄÖÜÉÁÍÓÚÑÇŁŚŻ][\w'\u2019\-]+(?: [A-ZÄÖÜ]\.)?(?: (?:von|van|de|der|den|la|le|di|da|bin|al))*"
        r"(?: [A-ZÄÖÜÉÁÍÓÚÑÇŁŚŻ][\w'\u2019\-]+){1,2}",
        r"[A-ZÄÖÜ][\w'\u2019\-]+, (?:(?:Mr|Mrs|Miss|Master|Ms|Dr)\. )?[A-ZÄÖÜ][\w'\u2019.\-]+.*",
    ),
}
"""Whether one value has the shape; the surest first."""
