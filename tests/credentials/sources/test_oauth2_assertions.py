"""Assertions: signed with the right key, different each time, and with the claims of the standards."""

import base64
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.sources.oauth2 import Assertion
from proxy.credentials.sources.request_values import Moment
from proxy.settings.interpolation import Interpolated
from tests.credentials.sources.sections import oauth2
from tests.signing_keys import certificate, certificate_pem, pem, pem_for, public_for

URL = "https://auth.example/token"
NOW = 1_700_000_000.9
SECRET = "s3cret-of-32-bytes-or-some-more!"


def by_key(algorithm: str = "ES256", **keys: Any) -> Assertion:
    """Return the assertion of a client with a key."""
    keys = {"auth": "private_key_jwt", "private_key": pem_for(algorithm), "algorithm": algorithm, **keys}
    return Assertion(oauth2(URL, **keys), of_client=True)


def by_secret(algorithm: str | None = None, secret: str = SECRET, **keys: Any) -> Assertion:
    """Return the assertion of a client with a secret."""
    chosen = {} if algorithm is None else {"algorithm": algorithm}
    keys = {"auth": "client_secret_jwt", "client_secret": secret, **chosen, **keys}
    return Assertion(oauth2(URL, **keys), of_client=True)


def bearer(**keys: Any) -> Assertion:
    """Return the assertion that is used as a grant."""
    keys = {
        "grant": "jwt_bearer",
        "auth": "none",
        "private_key": pem("p256"),
        "algorithm": "ES256",
        **keys,
    }
    return Assertion(oauth2(URL, **keys), of_client=False)


def verified(assertion: Assertion, key: Any, algorithm: str, now: float = NOW) -> dict[str, Any]:
    """Check signature and header, and return the claims; the tests check the times."""
    text = assertion.make(Moment(now=now))
    assert jwt.get_unverified_header(text)["alg"] == algorithm
    options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    claims: dict[str, Any] = jwt.decode(text, key, [algorithm], options)  # type: ignore[arg-type]
    return claims


@pytest.mark.parametrize("prefix", ["RS", "PS", "ES"])
@pytest.mark.parametrize("bits", [256, 384, 512])
def test_a_private_key_signs(prefix: str, bits: int) -> None:
    algorithm = f"{prefix}{bits}"
    claims = verified(by_key(algorithm), public_for(algorithm), algorithm)
    assert claims.pop("jti")
    assert claims == {
        "iss": "proxy", "sub": "proxy", "aud": URL, "iat": 1_700_000_000, "exp": 1_700_000_060,
    }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_signs(algorithm: str) -> None:
    secret = SECRET * 2
    claims = verified(by_secret(algorithm, secret), secret, algorithm)
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("proxy", "proxy", URL)
    assert (claims["iat"], claims["exp"]) == (1_700_000_000, 1_700_000_060)


def test_by_default_a_secret_signs_with_sha_256() -> None:
    verified(by_secret(), SECRET, "HS256")


@pytest.mark.parametrize("secret", ["x", "ssh-rsa x", "-----BEGIN x", "密"])
def test_a_secret_may_have_any_length_and_characters(secret: str) -> None:
    """Warnings are errors in the tests: the libraries would warn of these keys."""
    signed, _, signature = by_secret(secret=secret).make(Moment(now=NOW)).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    assert jwt.get_algorithm_by_name("HS256").verify(signed.encode(), secret.encode(), raw)


@pytest.mark.parametrize("make", [by_key, by_secret, bearer])
def test_assertions_of_the_same_moment_differ(make: Any) -> None:
    assertion, moment = make(), Moment(now=NOW)
    made = [jwt.decode(assertion.make(moment), options={"verify_signature": False}) for _ in range(20)]
    assert len({claims["jti"] for claims in made}) == 20
    assert all(len(claims["jti"]) >= 32 for claims in made)


def test_each_assertion_is_issued_at_the_current_time() -> None:
    assertion = by_key(assertion_ttl=30)
    for now in (NOW, NOW + 1000):
        claims = verified(assertion, public_for("ES256"), "ES256", now)
        assert (claims["iat"], claims["exp"]) == (int(now), int(now) + 30)


def test_the_audience_may_be_another() -> None:
    assertion = by_key(assertion_audience="https://auth.example/realms/x")
    assert verified(assertion, public_for("ES256"), "ES256")["aud"] == "https://auth.example/realms/x"


def test_the_header_names_the_key() -> None:
    assertion = by_key(key_id="k1", certificate=certificate_pem("p256"))
    header = jwt.get_unverified_header(assertion.make(Moment(now=NOW)))
    thumb = base64.urlsafe_b64encode(certificate("p256").fingerprint(SHA256())).decode().rstrip("=")
    assert header == {"typ": "JWT", "alg": "ES256", "kid": "k1", "x5t#S256": thumb}
    assert jwt.get_unverified_header(by_key().make(Moment(now=NOW))) == {"typ": "JWT", "alg": "ES256"}


def test_a_grant_names_its_subject() -> None:
    assertion = bearer(
        issuer="robot@x.example",
        subject="user@x.example",
        claims={"scope": "a b", "s": Interpolated("s3cret"), "deep": {"list": [1, None, True]}},
    )
    claims = verified(assertion, public_for("ES256"), "ES256")
    assert claims.pop("jti")
    assert claims == {
        "iss": "robot@x.example", "sub": "user@x.example", "aud": URL,
        "iat": 1_700_000_000, "exp": 1_700_000_060,
        "scope": "a b", "s": "s3cret", "deep": {"list": [1, None, True]},
    }  # fmt: skip


def test_by_default_the_subject_of_a_grant_is_the_client() -> None:
    claims = verified(bearer(), public_for("ES256"), "ES256")
    assert claims["iss"] == "proxy"
    assert "sub" not in claims


@given(st.floats(min_value=1.0, max_value=4e9), st.integers(min_value=1, max_value=86_400))
def test_times_are_rounded_down_to_seconds(now: float, ttl: int) -> None:
    claims = verified(by_secret(assertion_ttl=ttl), SECRET, "HS256", now)
    assert type(claims["iat"]) is type(claims["exp"]) is int
    assert now - 1 < claims["iat"] <= now
    assert claims["exp"] - claims["iat"] == ttl


def test_nothing_secret_shows() -> None:
    secrets = [SECRET, *pem("p256").splitlines()[1:-1]]
    for assertion in (by_key(), by_secret(), bearer(claims={"s": Interpolated(SECRET)})):
        shown = f"{assertion} {assertion!r} {vars(assertion)}"
        assert not any(secret in shown for secret in secrets)
