"""Signatures of bundles: Ed25519 over the checksums, so over every byte. The private key signs, the public one verifies."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from copier_mlops import ProjectError

SIGNATURE = "signature"
BYTES = 32


class SignatureError(ProjectError):
    """A signature is missing or wrong, or a key is none; the text says what to do."""


def new_pair() -> tuple[str, str]:
    """A private and a public key, as settings have them: base64 of 32 bytes each."""
    private = Ed25519PrivateKey.generate()
    return _text(private.private_bytes_raw()), _text(private.public_key().public_bytes_raw())


def public_of(private: str) -> str:
    """The public key that verifies what the private one signs."""
    return _text(_private(private).public_key().public_bytes_raw())


def sign(checksums: Path, private: str) -> None:
    """Write the signature of a file of checksums beside it.

    Raises:
        SignatureError: If the key is none.
    """
    checksums.with_name(SIGNATURE).write_text(_text(_private(private).sign(checksums.read_bytes())) + "\n")


def verify(checksums: bytes, signature: bytes | None, public: str, folder: Path) -> None:
    """Hold checksums against their signature.

    Args:
        checksums: The content of the file.
        signature: The content of the one beside it, if it is there.
        public: The key that has to have signed them.
        folder: Where errors say that they are.

    Raises:
        SignatureError: If there is no signature, it is of another key or of other bytes, or the key is none.
    """
    if signature is None:
        raise SignatureError(
            f"{folder} is not signed, and VERIFY_KEY asks for a signature. `make bundle` signs with SIGNING_KEY."
        )
    key = Ed25519PublicKey.from_public_bytes(_key(public, "VERIFY_KEY"))
    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), checksums)
    except (InvalidSignature, ValueError) as error:  # binascii.Error among them
        raise SignatureError(
            f"the signature of {folder} does not hold: it or the checksums were changed, or another key signed them than "
            "the one that VERIFY_KEY names. It is not loaded; fetch the bundle again."
        ) from error


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_key(text, "SIGNING_KEY"))


def _key(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != BYTES:
        raise SignatureError(f"{name} is no key: it should be base64 of {BYTES} bytes. `make key` makes a pair.")
    return key


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
