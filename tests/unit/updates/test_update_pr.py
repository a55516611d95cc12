"""The job that has a token accepts only a lock whose packages come from the places of the previous lock."""

import pytest

from copier_mlops.updates import update_pr

HASH = f'hash = "sha256:{"0" * 64}"'
LOCK = f"""\
version = 1

[[package]]
name = "numpy"
version = "2.3.1"
source = {{ registry = "https://packages.example/simple" }}
sdist = {{ url = "https://files.example/packages/a/numpy-2.3.1.tar.gz", {HASH} }}
wheels = [{{ url = "https://files.example/packages/b/numpy-2.3.1-cp312-cp312-linux_x86_64.whl", {HASH} }}]

[[package]]
name = "ours"
version = "1.0"
source = {{ git = "https://github.com/ada/ours?rev=main#1111" }}

[[package]]
name = "flights"
source = {{ editable = "." }}
"""


def unexpected(old: str, new: str) -> list[str]:
    assert old in LOCK
    return update_pr.unexpected(LOCK.encode(), LOCK.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1\n", "version = 1\nrevision = 3\n"),
        ("2.3.1", "2.4.0"),
        ("#1111", "#2222"),
        ('name = "numpy"', 'name = "num_py"\nversion = "1"\nsource = { registry = "https://packages.example/simple" }\n\n[[package]]\nname = "numpy"'),
    ],
)  # fmt: skip
def test_newer_versions_from_the_same_places_are_accepted(old: str, new: str) -> None:
    assert unexpected(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("https://packages.example/simple", "https://evil.example/simple", "numpy comes from"),
        ("https://files.example/packages/b", "https://evil.example/b", "numpy has a file at https://evil.example"),
        ("https://files.example/packages/b", "http://files.example/packages/b", "numpy has a file at http:"),
        ("b/numpy-2.3.1-", "b/evil-2.3.1-", "numpy has a file of another package"),
        ("a/numpy-2.3.1.tar.gz", "a/numpy-1.0.tar.gz", "numpy has a file of another package"),
        ("a/numpy-2.3.1.tar.gz", "a/numpy", "numpy has a file of another package"),
        ("ada/ours", "eve/ours", "ours comes from"),
        ('name = "ours"', 'name = "theirs"', "theirs comes from"),
        ('editable = "."', 'url = "https://evil.example/x.whl"', "flights comes from"),
    ],
)  # fmt: skip
def test_another_place_is_refused(old: str, new: str, says: str) -> None:
    found = unexpected(old, new)
    assert found and all(line.startswith(says) for line in found)


@pytest.mark.parametrize(
    "text", [b"not = a = lock", b"\xff", b"version = 1", b"package = [1]", b"[[package]]\nname = 'x'"]
)
def test_what_is_no_lock_is_refused(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError):
        update_pr.unexpected(LOCK.encode(), text)
    monkeypatch.setattr(update_pr, "LOCK_BYTES", 10)
    with pytest.raises(ValueError, match="the limit is 10"):
        update_pr.unexpected(LOCK.encode(), LOCK.encode())
