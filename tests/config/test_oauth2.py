"""The `oauth2` examples with endpoints that act as their servers."""

import base64
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from tests.config.examples import Brought, Surroundings, bring, value_of
from tests.config.vendor import Says, Vendor, form_of, path_of
from tests.credentials.sources.token_endpoint import Asked
from tests.pace import PATIENCE
from tests.signing_keys import certificate, pem, public_for

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
REPLY = {"access_token": "issued", "token_type": "Bearer", "expires_in": 3599}
LONG_SECRET = "a-client-secret-of-32-bytes-or-more"


async def exchanged(
    vendor: Vendor, around: Surroundings, example: str, path: str, *, name: str = "oauth", reply: Any = REPLY
) -> tuple[Asked, dict[str, str], Brought]:
    """Fetch a token; return the only request, its form, and the result."""
    around.origin = vendor.url
    vendor.replies[path] = Says(reply)
    brought = await bring(around.example(example), name)
    (asked,) = vendor.asked
    assert (asked.method, path_of(asked), asked.target) == ("POST", path, path)
    assert brought.token == reply["access_token"]
    assert brought.fetched.lifetime == reply["expires_in"]
    assert brought.headers == {"authorization": f"Bearer {brought.token}"}
    return asked, form_of(asked), brought


def basic(client: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()


async def test_client_credentials(vendor: Vendor, around: Surroundings) -> None:
    asked, form, _ = await exchanged(vendor, around, "oauth2-client-credentials.toml", "/oauth2/token")

    assert form == {"grant_type": "client_credentials", "scope": "llm"}
    assert asked.headers["authorization"] == basic("ragflow", value_of("OAUTH_CLIENT_SECRET"))


async def test_keycloak(vendor: Vendor, around: Surroundings) -> None:
    reply = {
        "access_token": "eyJrYw", "expires_in": 300, "refresh_expires_in": 0, "token_type": "Bearer",
        "not-before-policy": 0, "scope": "email profile",
    }  # fmt: skip
    path = "/realms/corp/protocol/openid-connect/token"
    asked, form, _ = await exchanged(vendor, around, "keycloak.toml", path, name="keycloak", reply=reply)

    assert form == {"grant_type": "client_credentials"}
    assert asked.headers["authorization"] == basic("ragflow", value_of("KEYCLOAK_CLIENT_SECRET"))


async def test_password(vendor: Vendor, around: Surroundings) -> None:
    reply = {**REPLY, "refresh_token": "r", "refresh_expires_in": 1800}
    asked, form, _ = await exchanged(vendor, around, "oauth2-password.toml", "/oauth2/token", reply=reply)

    assert form == {
        "grant_type": "password",
        "client_id": "ragflow",
        "client_secret": value_of("OAUTH_CLIENT_SECRET"),
        "username": value_of("OAUTH_USERNAME"),
        "password": value_of("OAUTH_PASSWORD"),
        "scope": "llm",
    }
    assert "authorization" not in asked.headers


async def test_client_secret_jwt(vendor: Vendor, around: Surroundings) -> None:
    around.environ = {"OAUTH_CLIENT_SECRET": LONG_SECRET}
    asked, form, _ = await exchanged(vendor, around, "oauth2-client-secret-jwt.toml", "/oauth2/token")

    audience = vendor.url + "/oauth2/token"
    claims = jwt.decode(form.pop("client_assertion"), LONG_SECRET, ["HS256"], audience=audience)
    assert (claims["iss"], claims["sub"]) == ("ragflow", "ragflow")
    assert claims["exp"] - claims["iat"] == 60
    assert claims["jti"]
    assert form == {
        "grant_type": "client_credentials",
        "client_id": "ragflow",
        "client_assertion_type": ASSERTION,
    }
    assert "authorization" not in asked.headers
    assert LONG_SECRET.encode() not in asked.body


async def test_private_key_jwt_at_entra(vendor: Vendor, around: Surroundings) -> None:
    reply = {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "eyJlbnRyYQ"}
    path = f"/{value_of('ENTRA_TENANT_ID')}/oauth2/v2.0/token"
    example = "oauth2-private-key-jwt.toml"
    asked, form, _ = await exchanged(vendor, around, example, path, name="entra", reply=reply)

    signed = form.pop("client_assertion")
    client = value_of("ENTRA_CLIENT_ID")
    claims = jwt.decode(signed, public_for("PS256"), ["PS256"], audience=vendor.url + path)  # type: ignore[arg-type]
    digest = bytes.fromhex(fingerprint())
    assert jwt.get_unverified_header(signed) == {
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
    }
    assert (claims["iss"], claims["sub"], claims["exp"] - claims["iat"]) == (client, client, 300)
    assert form == {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_assertion_type": ASSERTION,
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    assert "authorization" not in asked.headers


def fingerprint() -> str:
    return certificate("rsa").fingerprint(SHA256()).hex()


async def test_jwt_bearer_at_google(vendor: Vendor, around: Surroundings) -> None:
    asked, form, _ = await exchanged(vendor, around, "oauth2-jwt-bearer.toml", "/token", name="google")

    signed = form.pop("assertion")
    claims = jwt.decode(signed, public_for("RS256"), ["RS256"], audience=vendor.url + "/token")  # type: ignore[arg-type]
    assert jwt.get_unverified_header(signed) == {
        "alg": "RS256",
        "typ": "JWT",
        "kid": value_of("GOOGLE_KEY_ID"),
    }
    assert claims["iss"] == value_of("GOOGLE_CLIENT_EMAIL")
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["iat"] == pytest.approx(time.time(), abs=PATIENCE)
    assert "sub" not in claims
    assert form == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
    assert "authorization" not in asked.headers


async def test_a_key_in_the_environment_may_have_its_line_ends_written_out(
    vendor: Vendor, around: Surroundings
) -> None:
    around.environ = {"GOOGLE_PRIVATE_KEY": pem("rsa").replace("\n", "\\n")}
    await exchanged(vendor, around, "oauth2-jwt-bearer.toml", "/token", name="google")


async def test_token_exchange(vendor: Vendor, around: Surroundings) -> None:
    subject = jwt.encode({"exp": int(time.time()) + 600, "aud": "sts"}, LONG_SECRET)
    around.files = {"sts-token": subject}
    reply = {**REPLY, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    example = "oauth2-token-exchange.toml"
    asked, form, _ = await exchanged(vendor, around, example, "/token", name="exchanged", reply=reply)

    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": subject,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": "llm-gateway",
        "scope": "llm",
    }
    assert "authorization" not in asked.headers
