"""Tokens that we sign: their claims, their lifetimes, and that no request is needed."""

import base64
import json
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.build import build_source
from proxy.credentials.sources.jwt import JwtTokenSource
from proxy.credentials.token import FetchedToken
from proxy.settings.interpolation import Interpolated
from tests.credentials.sources.sections import jwt
from tests.signing_keys import pem, pem_for, public_for

NOW = 1_700_000_000.75
SECRET = "s3cret-of-32-bytes-or-some-more!"
ALGORITHMS = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA",
]  # fmt: skip


async def fetched(now: float = NOW, **keys: Any) -> FetchedToken:
    """Return a token of a section."""
    source = JwtTokenSource(jwt(**{"key": SECRET, **keys}), lambda: now)
    token = await source.fetch()
    await source.close()
    return token


def read(token: FetchedToken) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims, unverified."""
    header, claims, _ = token.secret.reveal().split(".")
    return _json(header), _json(claims)


def _json(part: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_bytes(part))
    return value


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm_signs(algorithm: str) -> None:
    symmetric = algorithm.startswith("HS")
    key = SECRET * 2 if symmetric else pem_for(algorithm)
    token = await fetched(algorithm=algorithm, key=key, claims={"iss": "proxy"})
    public: Any = key if symmetric else public_for(algorithm)
    options: Any = {"verify_exp": False, "verify_iat": False}
    assert pyjwt.decode(token.secret.reveal(), public, [algorithm], options) == {
        "iss": "proxy", "iat": 1_700_000_000, "exp": 1_700_000_300,
    }  # fmt: skip
    assert read(token)[0] == {"typ": "JWT", "alg": algorithm}


async def test_zhipus_token() -> None:
    token = await fetched(
        key="16bytes-of-it-ok",
        headers={"sign_type": "SIGN"},
        claims={"api_key": "id"},
        issued_claim="timestamp",
        unit="milliseconds",
        ttl=180,
    )
    header, claims = read(token)
    assert header == {"typ": "JWT", "alg": "HS256", "sign_type": "SIGN"}
    assert claims == {"api_key": "id", "timestamp": 1_700_000_000_750, "exp": 1_700_000_180_750}
    assert token.lifetime == pytest.approx(180)
    assert not token.certain  # the gateway compares it with its own clock


@pytest.mark.parametrize("key", ["x", "密", '{"kty": "oct"}', "ssh-rsa AAAA", "sixteen bytes ok"])
@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
async def test_a_secret_may_have_any_length_and_characters(algorithm: str, key: str) -> None:
    """Warnings are errors in the tests: the library would warn of these keys, or reject them."""
    text = (await fetched(algorithm=algorithm, key=key)).secret.reveal()
    signed, _, signature = text.rpartition(".")
    check = pyjwt.get_algorithm_by_name(algorithm)
    assert check.verify(signed.encode(), key.encode(), _bytes(signature))


async def test_headers_claims_and_ids() -> None:
    token = await fetched(
        key_id="k1",
        headers={"typ": "", "x": [1, {"y": Interpolated("z")}]},
        claims={"s": Interpolated("s3cret"), "deep": {"list": ["a", 1.5, True, {}]}, "nbf": 1},
        jti=True,
    )
    header, claims = read(token)
    assert header == {"alg": "HS256", "kid": "k1", "x": [1, {"y": "z"}]}
    assert claims.pop("jti")
    assert claims == {
        "s": "s3cret", "deep": {"list": ["a", 1.5, True, {}]}, "nbf": 1,
        "iat": 1_700_000_000, "exp": 1_700_000_300,
    }  # fmt: skip


async def test_times_may_be_left_out() -> None:
    token = await fetched(issued_claim="", expiry_claim="", claims={"a": 1})
    assert read(token)[1] == {"a": 1}
    assert token.lifetime == pytest.approx(300, abs=1)


async def test_ids_are_never_reused() -> None:
    source = JwtTokenSource(jwt(key=SECRET, jti=True), lambda: NOW)
    tokens = [read(await source.fetch())[1]["jti"] for _ in range(20)]
    assert len({*tokens}) == 20
    assert "jti" not in read(await fetched())[1]


@given(
    now=st.floats(min_value=1.0, max_value=4e9),
    ttl=st.integers(min_value=1, max_value=10**6),
    unit=st.sampled_from(["seconds", "milliseconds"]),
)
async def test_the_reported_lifetime_ends_with_the_token(now: float, ttl: int, unit: str) -> None:
    token = await fetched(now, ttl=ttl, unit=unit)
    claims = read(token)[1]
    scale = 1000 if unit == "milliseconds" else 1
    assert claims["exp"] - claims["iat"] == ttl * scale
    assert now + token.lifetime == pytest.approx(claims["exp"] / scale, abs=1e-5)
    assert ttl - 1 <= token.lifetime <= ttl + 1e-5


async def test_its_times_are_wall_clock_times() -> None:
    source = build_source(jwt(key=SECRET, claims={"aud": "gateway"}))
    text = (await source.fetch()).secret.reveal()
    assert pyjwt.decode(text, SECRET, ["HS256"], audience="gateway")["aud"] == "gateway"
    await source.close()


def test_nothing_secret_shows() -> None:
    for algorithm, secrets in (
        ("HS256", [SECRET]),
        ("RS256", pem("rsa").splitlines()[1:-1]),
        ("EdDSA", pem("ed25519").splitlines()[1:-1]),
    ):
        key = SECRET if algorithm == "HS256" else pem_for(algorithm)
        section = jwt(algorithm=algorithm, key=key, claims={"s": Interpolated(SECRET)})
        source = JwtTokenSource(section)
        shown = f"{source} {source!r} {vars(source)!r} {section!r}"
        assert not any(secret in shown for secret in [*secrets, SECRET])
