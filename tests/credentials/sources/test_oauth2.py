"""OAuth 2.0 on the wire: what each grant and each client authentication sends to a token endpoint."""

import base64
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt
import pytest
from structlog.typing import EventDict

from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import CredentialRegistry, build_credentials, build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.oauth2 import CLIENT_ASSERTION_TYPE, oauth2_recipe
from proxy.errors import IssuerRefuses
from proxy.secret import Secret
from proxy.settings import Settings, load_settings
from proxy.settings.interpolation import Interpolated
from tests.credentials.sources.sections import oauth2
from tests.credentials.sources.token_endpoint import TokenEndpoint, failure_of, fetch
from tests.signing_keys import pem, pem_for, public_for

SECRET = "s3cret é&=+%41 你"
LONG_SECRET = "canary-secret-of-32-bytes-or-more"
TYPES = "urn:ietf:params:oauth:token-type:"
GRANTS: dict[str, dict[str, Any]] = {
    "client_credentials": {},
    "password": {"username": "u", "password": LONG_SECRET},
    "jwt_bearer": {},
    "token_exchange": {"subject_token": LONG_SECRET},
}
AUTHS: dict[str, dict[str, Any]] = {
    "basic": {"client_secret": LONG_SECRET},
    "post": {"client_secret": LONG_SECRET},
    "client_secret_jwt": {"client_secret": LONG_SECRET},
    "private_key_jwt": {},
    "none": {},
}
COMBINATIONS = [
    (grant, auth)
    for grant in GRANTS
    for auth in AUTHS
    if (grant, auth) != ("jwt_bearer", "client_secret_jwt")
]


def combined(grant: str, auth: str) -> dict[str, Any]:
    """Return all keys that a grant and a client authentication need."""
    signs = grant == "jwt_bearer" or auth == "private_key_jwt"
    key = {"private_key": pem("p256"), "algorithm": "ES256"} if signs else {}
    return {"grant": grant, "auth": auth, **GRANTS[grant], **AUTHS[auth], **key}


def forms(endpoint: TokenEndpoint) -> list[dict[str, str]]:
    """Return the received forms, in which each field must occur once."""
    sent = [parse_qsl(asked.body.decode("ascii"), strict_parsing=True) for asked in endpoint.asked]
    assert all(len(dict(pairs)) == len(pairs) for pairs in sent)
    return [dict(pairs) for pairs in sent]


async def form_of(endpoint: TokenEndpoint, **keys: Any) -> dict[str, str]:
    """Return the form that a section sends."""
    await fetch(oauth2_recipe(oauth2(endpoint.url + "/token", **keys)))
    return forms(endpoint)[-1]


def verified(text: str, key: Any, algorithm: str, audience: str) -> dict[str, Any]:
    """Verify an assertion, and return its claims."""
    claims: dict[str, Any] = jwt.decode(
        text, key, [algorithm], {"require": ["exp", "iat", "jti"]}, audience=audience
    )
    return claims


@pytest.mark.parametrize(("grant", "auth"), COMBINATIONS)
async def test_every_grant_works_with_every_authentication(
    endpoint: TokenEndpoint, grant: str, auth: str
) -> None:
    form = await form_of(endpoint, **combined(grant, auth))
    asked = endpoint.asked[0]
    assert (asked.method, asked.target) == ("POST", "/token")
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert ("authorization" in asked.headers) == (auth == "basic")
    assert form.get("client_id") == (None if auth == "basic" else "proxy")
    assert form.get("client_secret") == (LONG_SECRET if auth == "post" else None)
    assert ("client_assertion" in form) == (auth in {"client_secret_jwt", "private_key_jwt"})
    assert form["grant_type"].rpartition(":")[2].replace("-", "_") == grant


async def test_basic_is_form_encoded_inside(endpoint: TokenEndpoint) -> None:
    """RFC 6749 2.3.1."""
    form = await form_of(endpoint, client_id="demo:é +1", client_secret=SECRET)
    pair = base64.b64decode(endpoint.asked[0].headers["authorization"][6:]).decode("ascii")
    assert [unquote_plus(half) for half in pair.split(":")] == ["demo:é +1", SECRET]
    assert form == {"grant_type": "client_credentials"}


async def test_the_form_has_every_configured_field(endpoint: TokenEndpoint) -> None:
    form = await form_of(
        endpoint,
        auth="post",
        client_secret=SECRET,
        scope="a b",
        audience="aud",
        resource="https://r.example",
        params={"x": Interpolated("y"), "grant_type": "of:our:own", "client_id": "ours"},
    )
    assert form == {
        "grant_type": "of:our:own",
        "client_id": "ours",
        "client_secret": SECRET,
        "scope": "a b",
        "audience": "aud",
        "resource": "https://r.example",
        "x": "y",
    }


async def test_a_password(endpoint: TokenEndpoint) -> None:
    """RFC 6749 4.3.2."""
    form = await form_of(endpoint, grant="password", auth="none", username="ü", password=SECRET, scope="a")
    assert form == {
        "grant_type": "password", "username": "ü", "password": SECRET, "scope": "a", "client_id": "proxy",
    }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "RS256", "PS384", "ES256", "ES512"])
async def test_the_client_sends_a_signed_assertion(endpoint: TokenEndpoint, algorithm: str) -> None:
    """RFC 7523 2.2 and 3, OpenID Connect Core 9."""
    symmetric = algorithm.startswith("HS")
    secret = LONG_SECRET * 2
    keys = (
        {"auth": "client_secret_jwt", "client_secret": secret}
        if symmetric
        else {"auth": "private_key_jwt", "private_key": pem_for(algorithm)}
    )
    before = int(time.time())
    form = await form_of(endpoint, algorithm=algorithm, **keys)
    public = secret if symmetric else public_for(algorithm)
    claims = verified(form.pop("client_assertion"), public, algorithm, endpoint.url + "/token")
    assert claims.keys() == {"iss", "sub", "aud", "jti", "iat", "exp"}
    assert claims["iss"] == claims["sub"] == "proxy"
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] == claims["iat"] + 60
    assert form == {
        "grant_type": "client_credentials",
        "client_id": "proxy",
        "client_assertion_type": CLIENT_ASSERTION_TYPE,
    }


async def test_no_assertion_is_sent_twice(endpoint: TokenEndpoint) -> None:
    source = build_source(oauth2(endpoint.url, **combined("jwt_bearer", "private_key_jwt")))
    for _ in range(5):
        await source.fetch()
    await source.close()
    shown = [form[field] for form in forms(endpoint) for field in ("assertion", "client_assertion")]
    ids = {verified(text, public_for("ES256"), "ES256", endpoint.url)["jti"] for text in shown}
    assert len(ids) == 10


async def test_a_jwt_bearer_as_google_has_it(endpoint: TokenEndpoint) -> None:
    """RFC 7523 2.1, without a client."""
    url = endpoint.url + "/token"
    section = oauth2(
        url,
        client_id=None,
        grant="jwt_bearer",
        auth="none",
        issuer="robot@x.example",
        private_key=pem("rsa"),
        key_id="k1",
        claims={"scope": "https://www.googleapis.example/auth/cloud-platform"},
        assertion_ttl=3600,
    )
    await fetch(oauth2_recipe(section))
    form = forms(endpoint)[0]
    assert form.keys() == {"grant_type", "assertion"}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert jwt.get_unverified_header(form["assertion"]) == {"typ": "JWT", "alg": "RS256", "kid": "k1"}
    claims = verified(form["assertion"], public_for("RS256"), "RS256", url)
    assert claims["iss"] == "robot@x.example"
    assert claims["scope"] == "https://www.googleapis.example/auth/cloud-platform"
    assert claims["exp"] - claims["iat"] == 3600
    assert "sub" not in claims


async def test_a_jwt_bearer_for_a_subject(endpoint: TokenEndpoint) -> None:
    form = await form_of(
        endpoint, **combined("jwt_bearer", "basic"), subject="u", assertion_audience="aud", scope="a b"
    )
    claims = verified(form["assertion"], public_for("ES256"), "ES256", "aud")
    assert (claims["iss"], claims["sub"]) == ("proxy", "u")
    assert form["scope"] == "a b"
    assert "scope" not in claims


async def test_a_token_exchange(endpoint: TokenEndpoint) -> None:
    """RFC 8693 2.1."""
    form = await form_of(endpoint, grant="token_exchange", auth="none", subject_token=SECRET)
    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": SECRET,
        "subject_token_type": TYPES + "jwt",
        "client_id": "proxy",
    }
    form = await form_of(
        endpoint,
        grant="token_exchange",
        auth="none",
        subject_token=Secret("s"),
        subject_token_type=TYPES + "id_token",
        actor_token=Interpolated("a"),
        requested_token_type=TYPES + "access_token",
        audience="aud",
        resource="https://r.example",
    )
    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "s",
        "subject_token_type": TYPES + "id_token",
        "actor_token": "a",
        "actor_token_type": TYPES + "jwt",
        "requested_token_type": TYPES + "access_token",
        "audience": "aud",
        "resource": "https://r.example",
        "client_id": "proxy",
    }


async def test_the_reply_has_a_lifetime_and_a_hint(endpoint: TokenEndpoint) -> None:
    endpoint.says({"access_token": "t0ken", "token_type": "N_A", "expires_in": 3599, "refresh_in": 1800})
    fetched = await fetch(oauth2_recipe(oauth2(endpoint.url, client_secret="s")))
    assert (fetched.secret, fetched.lifetime, fetched.refresh_in) == (Secret("t0ken"), 3599.0, 1800.0)


@pytest.mark.parametrize("auth", AUTHS)
@pytest.mark.parametrize(
    ("status", "permanent", "retry_after"), [(400, True, None), (401, True, None), (503, False, 7.0)]
)
async def test_a_refusal_is_permanent_and_a_fault_is_not(
    endpoint: TokenEndpoint, auth: str, status: int, *, permanent: bool, retry_after: float | None
) -> None:
    endpoint.status = status
    endpoint.says({"error": "invalid_client"})
    endpoint.headers["Retry-After"] = "7"
    error = await failure_of(oauth2_recipe(oauth2(endpoint.url, **combined("client_credentials", auth))))
    assert (error.permanent, error.retry_after) == (permanent, retry_after)
    assert error.reason.startswith(f"the token endpoint {endpoint.url} answered {status}")


EXCHANGE = """\
[access]
mode = "open"
[upstreams.chat]
base_url = "https://llm.example/v1"
[credentials.corp]
source = "oauth2"
token_url = "URL/token"
grant = "token_exchange"
auth = "none"
subject_token = "${credential:cluster}"
[credentials.cluster]
source = "jwt"
key = "canary-secret-of-32-bytes-or-more"
jti = true
"""


def exchange(endpoint: TokenEndpoint, folder: Path) -> tuple[Settings, CredentialRegistry]:
    """Return two credentials, one of which is exchanged for the other."""
    path = folder / "x.toml"
    path.write_text(EXCHANGE.replace("URL", endpoint.url))
    settings = load_settings(path, {})
    return settings, build_credentials(settings.credentials, MemoryTokenStore())


async def test_another_credentials_token_is_exchanged(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    _, registry = exchange(endpoint, tmp_path)
    assert (await registry["corp"].source.get()).secret == Secret("token-1")
    subject = await registry["cluster"].source.get()
    assert forms(endpoint)[0]["subject_token"] == subject.secret.reveal()
    await registry.close()


async def test_a_refused_subject_token_is_not_sent_again(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    settings, registry = exchange(endpoint, tmp_path)
    source = build_source(settings.credentials["corp"], registry)
    endpoint.status = 401
    with pytest.raises(TokenFetchError) as caught:
        await source.fetch()
    assert caught.value.reason.startswith(f"the token endpoint {endpoint.url} answered 401; ")
    endpoint.status = 200
    await source.fetch()
    first, second = (jwt.decode(form["subject_token"], LONG_SECRET, ["HS256"]) for form in forms(endpoint))
    assert first["jti"] != second["jti"]
    assert (await registry["cluster"].source.get()).generation == 2
    await source.close()
    await registry.close()


@pytest.mark.parametrize(("grant", "auth"), COMBINATIONS)
async def test_no_secret_is_revealed(
    endpoint: TokenEndpoint, lines: list[EventDict], grant: str, auth: str
) -> None:
    section = oauth2(endpoint.url, **combined(grant, auth), params={"x": Interpolated("canary-param")})
    other = section.model_copy(update={"scope": "another request"})
    registry = build_credentials({"corp": section, "other": other}, MemoryTokenStore())
    await registry["corp"].source.get()
    endpoint.status = 400
    with pytest.raises(IssuerRefuses) as caught:
        await registry["other"].source.get()
    told = f"{section!r} {oauth2_recipe(section)!r} {lines} " + "".join(
        traceback.format_exception(caught.value)
    )
    assert {line["event"] for line in lines} == {"token_fetched", "token_fetch_failed"}
    assert "canary" not in told
    assert not any(line in told for line in pem("p256").splitlines()[1:-1])
    for form in forms(endpoint):
        assert form["x"] == "canary-param"
        for field in ("assertion", "client_assertion"):
            assert field not in form or form[field] not in told
    await registry.close()
