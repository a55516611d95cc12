"""What does not belong in git: large files, tables and models in binary formats, personal data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from copier_mlops.ci.base import Base, Finding, listed

LARGE_BYTES = 1_000_000
READ_BYTES = 8_000_000  # of one file, from its beginning; the time of the check is bounded
BINARY = {"parquet", "feather", "arrow", "avro", "orc", "xlsx", "xlsm", "xls", "ods", "sas7bdat", "dta", "sav", "rds", "rdata",
          "sqlite", "sqlite3", "db", "duckdb", "mdb", "pkl", "pickle", "joblib", "skops", "onnx", "npy", "npz", "h5", "hdf5",
          "pt", "pth", "safetensors", "bin", "gz", "bz2", "xz", "zst", "zip", "7z", "tar", "tgz", "rar", "dump", "bak"}  # fmt: skip
TABLES = {
    "csv",
    "tsv",
    "psv",
    "tab",
    "json",
    "jsonl",
    "ndjson",
    "xml",
    "txt",
    "log",
    "sql",
    "dat",
    "ipynb",
    "html",
    "yaml",
    "yml",
}
MAGIC = {
    b"PAR1": "Parquet",
    b"SQLite format 3\0": "SQLite",
    b"\x1f\x8b": "gzip",
    b"ARROW1": "Arrow",
    b"\x89HDF": "HDF5",
}
"""First bytes of formats for data, whatever the name of the file is."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
WRITTEN = re.compile(r"(^|/)(uv\.lock|package-lock\.json|poetry\.lock)$")
PEOPLE = re.compile(
    r"(^|/)(AUTHORS|CODEOWNERS|CONTRIBUTORS|CONTRIBUTING|LICENSE|NOTICE|MAINTAINERS|SECURITY|\.mailmap)", re.I
)
FEW = 3  # different values in a file that holds data
SEVERAL = 10  # different values in another file

EMAIL = re.compile(rb"[A-Za-z0-9._%+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})\b")
RESERVED = re.compile(rb"(^|\.)(example(\.(com|org|net))?|test|invalid|localhost|local|noreply\.github\.com)$", re.I)
CARD = re.compile(rb"(?<![\d.-])[2-6]\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}(?![\d.-])")
IBAN = re.compile(rb"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
NATIONAL = re.compile(rb"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")


def is_card(number: bytes) -> bool:
    """Whether the check digit of a payment card holds (ISO/IEC 7812, Luhn)."""
    digits = [int(sign) for sign in re.sub(r"\D", "", number.decode())]
    doubled = [value * 2 - 9 * (value > 4) if place % 2 else value for place, value in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def is_iban(text: bytes) -> bool:
    """Whether the check digits of a bank account hold (ISO 13616)."""
    bare = text.replace(b" ", b"").decode()
    return int("".join(str(int(sign, 36)) for sign in bare[4:] + bare[:4])) % 97 == 1


SHAPES: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], bool]]] = {
    "e-mail addresses": (EMAIL, lambda value: not RESERVED.search(value.rpartition(b"@")[2])),
    "card numbers": (CARD, is_card),
    "bank accounts": (IBAN, is_iban),
    "social security numbers": (NATIONAL, lambda value: True),
}


def suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower().removeprefix(".")


def personal(path: str, content: bytes) -> list[str]:
    """Return the kinds of personal data that a file holds, each with the number of different values."""
    if PEOPLE.search(path):
        return []
    enough = FEW if suffix(path) in TABLES else SEVERAL
    found = []
    for kind, (shape, fits) in SHAPES.items():
        values: set[bytes] = set()
        for match in shape.finditer(content):
            if fits(match[0]):
                values.add(match[0])
            if len(values) >= 1000:
                break
        if len(values) >= enough:
            found.append(f"{len(values)}{'+' * (len(values) >= 1000)} {kind}")
    return found


def unwanted(path: str) -> str:
    """Return why a file does not belong in git; empty if it may be there."""
    file = Path(path)
    if file.is_symlink() or not file.is_file() or WRITTEN.search(path):
        return ""
    size = file.stat().st_size
    with file.open("rb") as opened:
        content = opened.read(READ_BYTES)
    if content.startswith(b"version https://git-lfs"):
        return ""
    reasons = [f"it has {size / 1e6:.1f} MB"] if size > LARGE_BYTES else []
    if suffix(path) in BINARY and size:
        reasons.append(f"{suffix(path)} is a format for data or models")
    else:
        reasons += [f"its content is {name}" for magic, name in MAGIC.items() if content.startswith(magic)]
    if content.startswith(UTF_16):
        content = content.decode("utf-16", errors="replace").encode()
    held = personal(path, content)
    if held:
        reasons.append(f"it holds {' and '.join(held)}")
    return ", ".join(reasons)


def added(base: Base | None) -> list[str]:
    """Return the files that a change adds or edits; all that git knows where there is nothing to compare with."""
    return base.differing if base else listed("ls-files", "-z", "--cached", "--others", "--exclude-standard")


def files(base: Base | None) -> Iterator[Finding]:
    """Find added or changed files that do not belong in git."""
    for path in added(base):
        why = unwanted(path)
        if why:
            yield Finding(path, path, f"{path} does not belong in git: {why}")
