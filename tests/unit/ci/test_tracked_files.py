"""Files that do not belong in git are reported, and the check takes a bounded time."""

from pathlib import Path

import pytest

from copier_mlops.ci import base as bases
from copier_mlops.ci import tracked_files

MAIL = "".join(f"{number},ada{number}@customer-{number % 7}.org\n" for number in range(5))
CARDS = "id,card\n1,4111 1111 1111 1111\n2,5500005555555559\n3,4012888888881881\n"
IBANS = "DE89370400440532013000\nGB82 WEST 1234 5698 7654 32\nFR1420041010050500013M02606\n"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("customers.csv", MAIL, "it holds 5 e-mail addresses"),
        ("export.json", MAIL, "it holds 5 e-mail addresses"),
        ("customers.csv", CARDS, "it holds 3 card numbers"),
        ("customers.tsv", IBANS, "it holds 3 bank accounts"),
        ("people.txt", "123-45-6789\n223-45-6789\n323-45-6789\n", "it holds 3 social security numbers"),
        ("rows.parquet", "PAR1", "parquet is a format for data or models"),
        ("model.pkl", "x", "pkl is a format for data or models"),
        ("rows.CSV.GZ", "x", "gz is a format for data or models"),
        ("rows.csv", "1,2\n" * 300_000, "it has 1.2 MB"),
        ("src/people.py", MAIL, ""),
        ("src/people.py", "".join(f"a{number}@b.org\n" for number in range(12)), "it holds 12 e-mail addresses"),
        ("rows.csv", "".join(f"{number},ada{number}@mail.example.com\n" for number in range(5)), ""),
        ("rows.csv", "id,at\n1,2026-01-01\n2,2026-01-02\n" + "4111111111111112\n" * 5, ""),
        ("CODEOWNERS", MAIL * 5, ""),
        ("uv.lock", "x" * 2_000_000, ""),
        ("big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ""),
    ],
)
def test_what_does_not_belong_into_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, why: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    monkeypatch.chdir(tmp_path)
    assert tracked_files.unwanted(name) == why


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (MAIL.encode("utf-16"), "it holds 5 e-mail addresses"),
        (b"\xfe\xff" + MAIL.encode("utf-16-be"), "it holds 5 e-mail addresses"),
        (b"PAR1....", "its content is Parquet"),
        (b"SQLite format 3\0...", "its content is SQLite"),
        (b"\x1f\x8b\x08", "its content is gzip"),
        (b"PAR", ""),
    ],
)
def test_the_content_counts_and_not_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_bytes(content)
    assert tracked_files.unwanted("notes.txt") == why


def test_only_the_beginning_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracked_files, "READ_BYTES", 100)
    Path("rows.csv").write_text("0" * 200 + MAIL)
    assert tracked_files.unwanted("rows.csv") == ""
    Path("rows.csv").write_text("".join(f"ada{number}@b{number}.org\n" for number in range(3000)))
    monkeypatch.setattr(tracked_files, "READ_BYTES", 8_000_000)
    assert tracked_files.unwanted("rows.csv") == "it holds 1000+ e-mail addresses"


def test_links_and_files_that_are_gone_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.csv").symlink_to("elsewhere.csv")
    assert tracked_files.unwanted("link.csv") == tracked_files.unwanted("gone.csv") == ""
    assert list(tracked_files.files(_Changed(["gone.csv"]))) == []  # type: ignore[arg-type]
    Path("model.pkl").write_text("x")
    (one,) = tracked_files.files(_Changed(["model.pkl"]))  # type: ignore[arg-type]
    assert isinstance(one, bases.Finding) and one.name == "model.pkl"


class _Changed:
    def __init__(self, changed: list[str]) -> None:
        self.differing = changed
