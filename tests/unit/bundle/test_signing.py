"""A signature holds for these bytes and this key, and for nothing else."""

from pathlib import Path

import pytest

from copier_mlops.bundle import signing
from copier_mlops.bundle.signing import SignatureError


@pytest.fixture
def checksums(tmp_path: Path) -> Path:
    file = tmp_path / "bundle" / "checksums.txt"
    file.parent.mkdir()
    file.write_text("00  model.onnx\n")
    return file


def verify(checksums: Path, public: str) -> None:
    file = checksums.with_name(signing.SIGNATURE)
    signature = file.read_bytes() if file.exists() else None
    signing.verify(checksums.read_bytes(), signature, public, checksums.parent)


def test_what_was_signed_verifies(checksums: Path) -> None:
    private, public = signing.new_pair()
    signing.sign(checksums, private)
    verify(checksums, public)
    assert signing.public_of(private) == public


def test_other_bytes_another_key_or_a_torn_signature_do_not(checksums: Path) -> None:
    private, public = signing.new_pair()
    signing.sign(checksums, private)
    with pytest.raises(SignatureError, match="does not hold"):
        verify(checksums, signing.new_pair()[1])
    checksums.write_text("01  model.onnx\n")
    with pytest.raises(SignatureError, match="does not hold"):
        verify(checksums, public)
    signing.sign(checksums, private)
    (checksums.parent / signing.SIGNATURE).write_text("not base64!")
    with pytest.raises(SignatureError, match="does not hold"):
        verify(checksums, public)


def test_without_a_signature_it_says_who_makes_one(checksums: Path) -> None:
    with pytest.raises(SignatureError, match="make bundle"):
        verify(checksums, signing.new_pair()[1])


@pytest.mark.parametrize("text", ["", "short", "c2hvcnQ=", "not base64 at all"])
def test_what_is_no_key_is_said(checksums: Path, text: str) -> None:
    with pytest.raises(SignatureError, match="SIGNING_KEY is no key"):
        signing.sign(checksums, text)
    signing.sign(checksums, signing.new_pair()[0])
    with pytest.raises(SignatureError, match="VERIFY_KEY is no key"):
        verify(checksums, text)
