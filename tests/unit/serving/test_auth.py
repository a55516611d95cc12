"""Access: API keys, and tokens that the identity provider signed for this service."""

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from copier_mlops import ProjectError, UnreachableError
from copier_mlops.serving import auth
from copier_mlops.serving import identity_provider as provider_module
from copier_mlops.serving.auth import Access, ForbiddenError
from copier_mlops.settings import Settings


class Provider:
    """An identity provider on loopback.

    Attributes:
        redirect: where requests for the keys are redirected to, if anywhere.
        drip_seconds: the pause between two bytes of a response.
        names_algorithm: the algorithm that the published keys name, if any.
    """

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"first": rsa.generate_private_key(65537, 2048)}
        self.asked = 0
        self.up = True
        self.redirect = self.names_algorithm = ""
        self.drip_seconds = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                if outer.redirect and self.path == "/keys":
                    self.send_response(302)
                    self.send_header("Location", outer.redirect)
                    self.end_headers()
                    return
                if outer.drip_seconds:
                    with contextlib.suppress(OSError):
                        for byte in b"HTTP/1.1 200 OK\r\nServer: " + 500 * b"x":
                            self.wfile.write(bytes([byte]))
                            time.sleep(outer.drip_seconds)
                    return
                found = {
                    "/.well-known/openid-configuration": {"issuer": outer.issuer, "jwks_uri": f"{outer.issuer}/keys"}
                }
                found["/keys"] = {"keys": [outer.public(name) for name in outer.keys]}
                self.send_response(200 if outer.up else 503)
                self.end_headers()
                self.wfile.write(json.dumps(found[self.path]).encode())

            def log_message(self, *words: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def public(self, name: str) -> dict[str, Any]:
        kind = (
            jwt.algorithms.RSAAlgorithm
            if isinstance(self.keys[name], rsa.RSAPrivateKey)
            else jwt.algorithms.ECAlgorithm
        )
        named = {"alg": self.names_algorithm} if self.names_algorithm else {}
        return {**kind.to_jwk(self.keys[name].public_key(), as_dict=True), "kid": name, "use": "sig", **named}

    def token(self, kid: str = "first", algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        said = {"iss": self.issuer, "aud": "flights", "exp": time.time() + 60, "sub": "someone", **claims}
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key or self.keys[kid], algorithm, headers={"kid": kid})


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


def check(rules: Access, **headers: str) -> None:
    asyncio.run(rules.check([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]))


def test_one_of_several_keys_opens_in_either_header() -> None:
    one, two, other = (secrets.token_hex(16) for _ in range(3))
    rules = Access(Settings(api_keys=f"{one}, {two}", service_environment="prod"))
    for key in (one, two):
        check(rules, x_api_key=key)
        check(rules, authorization=f"Bearer {key}")
    for given in (other, one[:-1], one + "x", f"{one}, {two}"):
        with pytest.raises(ForbiddenError, match="not one of those"):
            check(rules, x_api_key=given)
    for nothing in ({}, {"x_api_key": ""}, {"authorization": f"Basic {one}"}):
        with pytest.raises(ForbiddenError, match="send a key"):
            check(rules, **nothing)


def test_without_keys_a_service_starts_for_development_on_loopback_only() -> None:
    for environment in ("staging", "prod"):
        for nothing in ("", " , "):
            with pytest.raises(ProjectError, match=r"Set API_KEYS .* or OIDC_ISSUER and OIDC_AUDIENCE"):
                Access(Settings(service_environment=environment, api_keys=nothing, allow_anonymous=True))
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check(Access(Settings(service_environment="dev", service_host=host)))
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.com", "::ffff:0.0.0.0", ""):
        with pytest.raises(ProjectError, match="requests need no key"):
            Access(Settings(service_environment="dev", service_host=host))
    check(Access(Settings(service_environment="dev", service_host="0.0.0.0", allow_anonymous=True)))


def test_a_key_that_can_be_guessed_is_refused_outside_development() -> None:
    good = secrets.token_hex(16)
    for weak in ("x", "secret", "a" * 64, "abab" * 10):
        for settings in ({"service_environment": "prod"}, {"service_environment": "dev", "service_host": "0.0.0.0"}):
            with pytest.raises(ProjectError, match="1 of 2 keys in API_KEYS can be guessed") as raised:
                Access(Settings(api_keys=f"{good},{weak}", **settings))
            assert f" {weak} " not in str(raised.value)
        check(Access(Settings(api_keys=weak)), x_api_key=weak)


def test_an_issuer_needs_an_audience_and_a_safe_address() -> None:
    with pytest.raises(ProjectError, match="OIDC_AUDIENCE is not set"):
        Access(Settings(oidc_issuer="https://login.example.com"))
    with pytest.raises(ProjectError, match="use https"):
        Access(Settings(oidc_issuer="http://login.example.com", oidc_audience="flights"))


def rules_of(provider: Provider, keys: str = "") -> Access:
    ours = {"oidc_issuer": provider.issuer, "oidc_audience": "flights", "api_keys": keys}
    return Access(Settings(service_environment="prod", **ours))


def test_a_token_of_the_provider_opens_and_its_keys_are_asked_for_once(provider: Provider) -> None:
    rules = rules_of(provider)
    assert provider.asked == 0
    for _ in range(3):
        check(rules, authorization=f"Bearer {provider.token()}")
        check(rules, authorization=f"bearer {provider.token(sub='another', aud=['flights', 'others'])}")
    assert provider.asked == 2  # where its keys are, and they


def test_a_token_that_does_not_hold_is_refused_with_the_reason(provider: Provider) -> None:
    rules = rules_of(provider)
    stranger = rsa.generate_private_key(65537, 2048)
    for token, says in (
        (provider.token(exp=time.time() - 60), "expired"),
        (provider.token(exp=None), "MissingRequiredClaim"),
        (provider.token(aud="others"), "InvalidAudience"),
        (provider.token(aud=None), "MissingRequiredClaim"),
        (provider.token(iss="https://login.example.com"), "InvalidIssuer"),
        (provider.token(nbf=time.time() + 600), "ImmatureSignature"),
        (provider.token(key=stranger), "InvalidSignature"),
        (provider.token(key=secrets.token_bytes(32), algorithm="HS256"), "algorithm that this service does not accept"),
        (jwt.encode({"iss": provider.issuer}, None, "none"), "algorithm that this service does not accept"),
        (provider.token()[:-9] + "AAAAAAAAA", "is not valid"),
        ("no token", "is not valid"),
    ):
        with pytest.raises(ForbiddenError, match=says):
            check(rules, authorization=f"Bearer {token}")


def test_a_new_key_of_the_provider_is_fetched_but_not_for_every_unknown_name(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = rules_of(provider)
    check(rules, authorization=f"Bearer {provider.token()}")
    provider.keys["second"] = ec.generate_private_key(ec.SECP256R1())
    unknown = provider.token("second", "ES256")
    with pytest.raises(ForbiddenError, match="does not publish"):
        check(rules, authorization=f"Bearer {unknown}")
    assert provider.asked == 2
    monkeypatch.setattr(provider_module, "PAUSE_SECONDS", 0)
    check(rules, authorization=f"Bearer {unknown}")
    assert provider.asked == 4


def test_where_the_provider_is_away_keys_still_open(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.up = False
    key = secrets.token_hex(16)
    rules = rules_of(provider, key)
    check(rules, authorization=f"Bearer {key}")
    with pytest.raises(UnreachableError, match="does not publish its keys"):
        check(rules, authorization=f"Bearer {provider.token()}")
    with pytest.raises(UnreachableError, match="does not publish its keys"):
        check(rules, authorization=f"Bearer {provider.token()}")  # it is not asked again at once
    provider.up = True
    monkeypatch.setattr(provider_module, "PAUSE_SECONDS", 0)
    check(rules, authorization=f"Bearer {provider.token()}")


def test_a_malformed_token_is_refused_while_the_provider_is_away(provider: Provider) -> None:
    """Otherwise every caller would get 503, which counts as a failure of the service."""
    provider.up = False
    rules = rules_of(provider)
    forged = provider.token(key=secrets.token_bytes(32), algorithm="HS256")
    for token, says in (("no token", "is not valid"), ("a.b.c", "is not valid"), (forged, "algorithm that this")):
        with pytest.raises(ForbiddenError, match=says):
            check(rules, authorization=f"Bearer {token}")
    assert provider.asked == 0


def test_a_withdrawn_key_is_refused_once_the_keys_are_old_also_for_a_token_that_was_verified(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = rules_of(provider)
    old = provider.token()
    check(rules, authorization=f"Bearer {old}")
    provider.keys = {"second": rsa.generate_private_key(65537, 2048)}
    check(rules, authorization=f"Bearer {old}")  # the keys are recent
    monkeypatch.setattr(provider_module, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(provider_module, "MAX_AGE_SECONDS", 0)
    with pytest.raises(ForbiddenError, match="does not publish"):
        check(rules, authorization=f"Bearer {old}")
    check(rules, authorization=f"Bearer {provider.token('second')}")
    provider.keys = {}
    with pytest.raises(ForbiddenError, match="does not publish"):
        check(rules, authorization=f"Bearer {provider.token('second', key=rsa.generate_private_key(65537, 2048))}")


def test_a_token_is_verified_again_after_a_while(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    rules, decoded, decode = rules_of(provider), [], jwt.decode
    monkeypatch.setattr(auth.jwt, "decode", lambda *given, **how: decoded.append(given) or decode(*given, **how))
    token = provider.token(exp=time.time() + 86_400)
    for _ in range(2):
        check(rules, authorization=f"Bearer {token}")
    assert len(decoded) == 1
    later = time.monotonic() + auth.REMEMBERED_SECONDS + 1
    monkeypatch.setattr(provider_module, "MAX_AGE_SECONDS", 1e9)
    monkeypatch.setattr(auth.time, "monotonic", lambda: later)
    check(rules, authorization=f"Bearer {token}")
    assert len(decoded) == 2


def test_while_the_provider_is_away_its_last_keys_are_used_for_a_limited_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = rules_of(provider)
    check(rules, authorization=f"Bearer {provider.token()}")
    provider.up = False
    monkeypatch.setattr(provider_module, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(provider_module, "MAX_AGE_SECONDS", 0)
    for _ in range(3):
        check(rules, authorization=f"Bearer {provider.token()}")
    monkeypatch.setattr(provider_module, "MAX_STALE_SECONDS", 0)
    with pytest.raises(UnreachableError, match="does not publish its keys"):
        check(rules, authorization=f"Bearer {provider.token()}")


def test_keys_are_not_taken_from_where_the_provider_redirects_to(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    other = Provider()
    try:
        provider.redirect = f"{other.issuer}/keys"
        with pytest.raises(UnreachableError, match="does not publish its keys"):
            check(rules_of(provider), authorization=f"Bearer {provider.token(key=other.keys['first'])}")
        assert other.asked == 0
        assert f"responded with 302 to {other.issuer}/keys, which is not followed" in caplog.text
    finally:
        other.server.shutdown()
        other.server.server_close()


def test_a_provider_that_responds_byte_by_byte_is_given_up_in_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "FETCH_SECONDS", 0.5)
    provider.drip_seconds = 0.1
    rules, began = rules_of(provider), time.monotonic()
    with pytest.raises(UnreachableError, match="does not publish its keys"):
        check(rules, authorization=f"Bearer {provider.token()}")
    assert time.monotonic() - began < 10  # of the 50 seconds that the response takes
    for thread in threading.enumerate():
        if thread.name == "provider keys":
            thread.join(10)
            assert not thread.is_alive()


def test_a_key_that_names_no_algorithm_verifies_all_of_its_type(provider: Provider) -> None:
    rules = rules_of(provider)
    for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS512"):
        check(rules, authorization=f"Bearer {provider.token(algorithm=algorithm)}")
    with pytest.raises(ForbiddenError, match="is not valid"):
        other = ec.generate_private_key(ec.SECP256R1())
        check(rules, authorization=f"Bearer {provider.token(key=other, algorithm='ES256')}")
    provider.names_algorithm = "PS256"
    rules = rules_of(provider)
    check(rules, authorization=f"Bearer {provider.token(algorithm='PS256')}")
    for algorithm in ("RS256", "PS512"):
        with pytest.raises(ForbiddenError, match="is not valid"):
            check(rules, authorization=f"Bearer {provider.token(algorithm=algorithm)}")
