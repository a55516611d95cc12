"""The signing keys of an OpenID Connect provider (Discovery 1.0, RFC 7517), fetched again by age and within limits."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import jwt

from copier_mlops import ProjectError, UnreachableError

MAX_AGE_SECONDS = 300.0  # older keys are fetched again before a token is checked with them
MAX_STALE_SECONDS = 900.0  # while the provider does not respond, its last keys are used up to this age
PAUSE_SECONDS = 10.0  # pause between two fetches: after a failure, and for tokens that name an unknown key
FETCH_SECONDS = 3.0  # for both documents together, from name resolution to the last byte
MAX_BYTES = 1 << 20  # of one document

ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""Algorithms by type of key. All are asymmetric: with the public keys that this service reads, tokens cannot be forged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SigningKey:
    """A public key of the provider.

    Attributes:
        kid: its name; None if it has none.
        algorithms: the one that the key names, or else all of its type (RFC 7517, section 4.4).
        key: what verifies a signature.
    """

    kid: str | None
    algorithms: tuple[str, ...]
    key: Any


class Keys:
    """The keys of one provider. They are fetched for the first token, in a thread; several requests share one fetch.

    Args:
        issuer: address of the provider, https or loopback.

    Attributes:
        current: the signing keys as the provider published them; replaced when they change, never modified.

    Raises:
        ProjectError: If the address is neither https nor loopback.
    """

    def __init__(self, issuer: str) -> None:
        refuse_unsafe(issuer)
        self.current: tuple[SigningKey, ...] = ()
        self._issuer = issuer
        self._published: list[Any] | None = None
        self._fetched = self._tried = -float("inf")
        self._failed = False
        self._fetching: Future[None] | None = None

    async def refresh(self) -> None:
        """Make sure that the keys are recent.

        Raises:
            UnreachableError: If the provider has not published keys within `MAX_STALE_SECONDS`.
        """
        if time.monotonic() - self._fetched < MAX_AGE_SECONDS:
            return
        fetching = self._start()
        # After a failure only the first request waits: the last keys are still usable for a while.
        if fetching is not None and not (self._failed and self._usable()):
            await _settled(fetching)
        if not self._usable():
            raise UnreachableError("the identity provider does not publish its keys; repeat the request in a moment")

    async def find(self, kid: str | None) -> list[SigningKey]:
        """Return the keys of that name; without a name the only key. An unknown name causes a fetch, if none was recent."""
        found = self._named(kid)
        if not found and (fetching := self._start()) is not None:
            await _settled(fetching)
            found = self._named(kid)
        return found

    def _usable(self) -> bool:
        return time.monotonic() - self._fetched < MAX_STALE_SECONDS

    def _named(self, kid: str | None) -> list[SigningKey]:
        if kid is None:
            return list(self.current) if len(self.current) == 1 else []
        return [key for key in self.current if key.kid == kid]

    def _start(self) -> Future[None] | None:
        """Return the fetch that runs, or a new one; None within the pause."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if time.monotonic() - self._tried < PAUSE_SECONDS:
            return None
        self._tried = time.monotonic()
        self._fetching = Future()
        # A thread outside of a pool: a provider that never responds must not delay the end of the service.
        threading.Thread(target=self._fetch, args=[self._fetching], name="provider keys", daemon=True).start()
        return self._fetching

    def _fetch(self, done: Future[None]) -> None:
        started = time.monotonic()
        try:
            published = fetch_keys(self._issuer)
            if published != self._published:
                self.current, self._published = _usable_keys(published), published
            self._fetched, self._failed = started, False
        except Exception as error:
            self._failed = True
            log.warning("the keys of the identity provider were not fetched: %s", error)
        finally:
            self._tried = time.monotonic()
            done.set_result(None)


async def _settled(fetching: Future[None]) -> None:
    """Wait for a fetch, at most as long as a fetch may take; the fetch continues if the request ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FETCH_SECONDS + 0.5):
            await asyncio.shield(asyncio.wrap_future(fetching))


def _usable_keys(published: list[Any]) -> tuple[SigningKey, ...]:
    """Return the public keys for signatures; others in the document are not an error."""
    found = []
    for one in published:
        with contextlib.suppress(jwt.PyJWTError, AttributeError, TypeError, ValueError):
            allowed = ALGORITHMS.get(one.get("kty"), ())
            if one.get("use", "sig") == "sig" and one.get("alg", *allowed[:1]) in allowed:
                names = (one["alg"],) if "alg" in one else allowed
                found.append(SigningKey(one.get("kid"), names, jwt.PyJWK(one).key))
    return tuple(found)


# ---------------------------------------------------------------------------------------------------- The documents


def fetch_keys(issuer: str) -> list[Any]:
    """Fetch the JSON Web Key Set of a provider.

    Raises:
        ProjectError: If a document is missing, redirected, too large, late or of another issuer.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    facts = _document(issuer.rstrip("/") + "/.well-known/openid-configuration", deadline)
    if facts.get("issuer") != issuer:
        raise ProjectError(f"the document at {issuer} is of the issuer {facts.get('issuer')!r}; correct OIDC_ISSUER")
    keys = _document(str(facts.get("jwks_uri")), deadline).get("keys")
    if not isinstance(keys, list):
        raise ProjectError(f"{facts.get('jwks_uri')} is not a JSON Web Key Set: it has no list of keys")
    return keys


def _document(address: str, deadline: float) -> Mapping[str, Any]:
    refuse_unsafe(address)
    left = deadline - time.monotonic()
    sockets: list[socket.socket] = []
    # A timeout of urllib is for each read. At the deadline the connection is cut, whatever it is waiting for.
    cut = threading.Timer(left, _cut, [sockets])
    cut.daemon = True
    cut.start()
    try:
        opener = urllib.request.build_opener(_NoRedirect, _Http(sockets), _Https(sockets))
        with opener.open(address, timeout=max(left, 0.01)) as response:
            text = response.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        where = f" to {error.headers.get('location')}, which is not followed" if 300 <= error.code < 400 else ""
        raise ProjectError(f"{address} responded with {error.code}{where}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = f"not complete within {FETCH_SECONDS:g} seconds, " if time.monotonic() >= deadline else ""
        raise ProjectError(f"{address} did not respond: {late}{type(error).__name__}: {error}") from error
    finally:
        cut.cancel()
        for one in sockets:
            one.close()
    if time.monotonic() >= deadline:
        raise ProjectError(f"{address} was not complete within {FETCH_SECONDS:g} seconds")
    if len(text) > MAX_BYTES:
        raise ProjectError(f"{address} has more than {MAX_BYTES} bytes")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{address} is not JSON: {type(error).__name__}") from error
    return facts if isinstance(facts, dict) else {}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would let any page on the provider's host decide whose keys are trusted."""

    def redirect_request(self, *given: Any) -> None:
        return None


class _Http(urllib.request.HTTPHandler):
    """Opens connections that can be cut from another thread."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_noting, http.client.HTTPConnection, self._sockets), request)


class _Https(urllib.request.HTTPSHandler):
    """The same with TLS, which includes the handshake."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_noting, http.client.HTTPSConnection, self._sockets), request)


def _noting(kind: type[http.client.HTTPConnection], sockets: list[socket.socket], host: str, **how: Any) -> Any:
    """Return a connection of that kind; a duplicate of its socket is noted as soon as it is connected."""
    connection = kind(host, **how)
    create = connection._create_connection  # type: ignore[attr-defined]

    def created(*given: Any) -> socket.socket:
        made: socket.socket = create(*given)
        sockets.append(made.dup())  # TLS detaches the original; both are one connection
        return made

    connection._create_connection = created  # type: ignore[attr-defined]
    return connection


def _cut(sockets: list[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def refuse_unsafe(address: str) -> None:
    """Refuse an address over which keys could be replaced on the way.

    Raises:
        ProjectError: If it is neither https nor loopback.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        raise ProjectError(f"{address} is not a safe address of an identity provider; use https, or http on loopback")
