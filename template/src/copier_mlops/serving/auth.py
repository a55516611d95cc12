"""Access to the service: API keys, and tokens of an identity provider. Health and metrics need neither."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Iterable
from typing import Any

import jwt

from copier_mlops import ProjectError
from copier_mlops.serving.identity_provider import ALGORITHMS, Keys, SigningKey
from copier_mlops.settings import Settings

LEEWAY_SECONDS = 30.0  # of clock skew
REMEMBERED = 1_000  # tokens that were verified
REMEMBERED_SECONDS = 300.0  # until a token is verified again
MIN_KEY_LENGTH, MIN_KEY_CHARACTERS = 16, 6  # outside development: length, and different characters
UNUSABLE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)  # errors of reading a token

Headers = Iterable[tuple[bytes, bytes]]


class ForbiddenError(ProjectError):
    """A request without a valid key or token."""


class Access:
    """The rules of one service.

    Raises:
        ProjectError: If keys are missing or too weak for the environment, or a setting of OIDC is missing or unsafe.
    """

    def __init__(self, settings: Settings) -> None:
        keys = [key for key in re.split(r"[,\s]+", settings.api_keys.get_secret_value()) if key]
        self._keys = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._issuer = Issuer(settings.oidc_issuer, settings.oidc_audience) if settings.oidc_issuer else None
        self.open = not self._keys and self._issuer is None
        exposed = not is_loopback(settings.service_host) and not settings.allow_anonymous
        if self.open and settings.service_environment != "dev":
            raise ProjectError(
                f"SERVICE_ENVIRONMENT is {settings.service_environment}, and neither keys nor an identity provider are set. Set API_KEYS "
                "to one or more long random texts, separated by commas (`openssl rand -hex 32` makes one), or OIDC_ISSUER and OIDC_AUDIENCE."
            )
        if self.open and exposed:
            raise ProjectError(
                f"SERVICE_HOST is {settings.service_host}, so other hosts reach the service, and requests need no key. Set API_KEYS "
                "(`openssl rand -hex 32` makes one) or OIDC_ISSUER and OIDC_AUDIENCE, or listen on 127.0.0.1. In a container "
                "whose port is published on loopback only, set ALLOW_ANONYMOUS=true."
            )
        weak = sum(len(key) < MIN_KEY_LENGTH or len(set(key)) < MIN_KEY_CHARACTERS for key in keys)
        if weak and (settings.service_environment != "dev" or exposed):
            raise ProjectError(
                f"{weak} of {len(keys)} keys in API_KEYS can be guessed: a key needs {MIN_KEY_LENGTH} characters or more, "
                f"{MIN_KEY_CHARACTERS} of them different. `openssl rand -hex 32` makes one."
            )

    async def check(self, headers: Headers) -> None:
        """Accept a request, or raise.

        Args:
            headers: names in lower case, and values.

        Raises:
            ForbiddenError: If it has no valid key or token.
            UnreachableError: If the identity provider does not respond.
        """
        if self.open:
            return
        given = token = b""
        for name, value in headers:
            if name == b"x-api-key":
                given = value.strip()
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                token = value[7:].strip()
        if not given and not token:
            raise ForbiddenError("send a key in the header X-API-Key, or a token as Authorization: Bearer")
        if self._is_key(given or token):
            return
        if self._issuer is None or not token:
            raise ForbiddenError("the key is not one of those that this service knows")
        await self._issuer.check(token)

    def _is_key(self, given: bytes) -> bool:
        """Compare with every key, so that the time does not depend on the number of matching characters."""
        digest, found = hashlib.sha256(given).digest(), False
        for key in self._keys:
            found |= hmac.compare_digest(key, digest)
        return found


def is_loopback(host: str) -> bool:
    """Whether only this host reaches an address; a name other than localhost may be any address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _header(token: bytes) -> dict[str, Any]:
    """Return the header of a token, which is not verified.

    Raises:
        ForbiddenError: If it cannot be read, or names an algorithm that is not accepted.
    """
    try:
        head = jwt.get_unverified_header(token)
        accepted = any(head.get("alg") in names for names in ALGORITHMS.values())
    except UNUSABLE as error:
        raise ForbiddenError(f"the token is not valid ({type(error).__name__})") from error
    if not accepted:
        raise ForbiddenError("the token is signed with an algorithm that this service does not accept")
    return head


class Issuer:
    """Tokens of an OpenID Connect provider (RFC 7519), for one audience.

    A token that was verified is remembered: until it expires, for `REMEMBERED_SECONDS` at most, and not after the keys changed.

    Raises:
        ProjectError: If the audience is missing, or the address is neither https nor loopback.
    """

    def __init__(self, issuer: str, audience: str) -> None:
        if not audience:
            raise ProjectError(
                f"OIDC_ISSUER is {issuer}, and OIDC_AUDIENCE is not set: a token for any other service of that provider would be "
                "accepted. Set it to the provider's name for this service."
            )
        self._issuer, self._audience = issuer, audience
        self._keys = Keys(issuer)
        self._verified_with = self._keys.current
        self._verified: dict[bytes, float] = {}

    async def check(self, token: bytes) -> None:
        """Accept a token, or raise.

        Raises:
            ForbiddenError: If it is not valid.
            UnreachableError: If the provider does not respond.
        """
        digest = hashlib.sha256(token).digest()
        # Malformed tokens are rejected first: without keys their senders would get 503, which counts as a failure.
        head = None if digest in self._verified else _header(token)
        await self._keys.refresh()
        if self._verified_with is not self._keys.current:
            self._verified_with = self._keys.current
            self._verified.clear()
        if self._verified.get(digest, 0) > time.monotonic():
            return
        head = head or _header(token)
        try:
            keys = await self._keys.find(head.get("kid"))
            if not keys:
                raise ForbiddenError("the token is signed with a key that the identity provider does not publish")
            expires = self._decode(token, str(head["alg"]), keys[0])
        except jwt.ExpiredSignatureError as error:
            raise ForbiddenError("the token has expired") from error
        except UNUSABLE as error:
            raise ForbiddenError(f"the token is not valid ({type(error).__name__})") from error
        if keys[0] not in self._verified_with:  # fetched meanwhile
            return
        while len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = time.monotonic() + min(REMEMBERED_SECONDS, expires - time.time())

    def _decode(self, token: bytes, algorithm: str, key: SigningKey) -> float:
        """Return when a valid token expires, in seconds since 1970."""
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[name for name in key.algorithms if name == algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iss", "aud"]},
        )
        return float(claims["exp"])
