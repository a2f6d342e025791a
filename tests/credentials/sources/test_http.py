"""Requests to a token endpoint, exactly as the recipe describes them."""

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, unquote_plus

import pytest

from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.oauth2 import oauth2_recipe
from proxy.gateway import DemoGateway, GatewayOptions, create_gateway
from proxy.secret import Secret
from proxy.settings import OAuth2Credential
from tests.credentials.sources.token_endpoint import TokenEndpoint, failure_of, fetch, recipe_of
from tests.loopback import serve_on_loopback
from tests.raw_upstream import Conversation, raw_upstream

SECRET = "s3cret é&=+%41 你"


async def test_json_arrives_with_its_secrets_at_any_depth(endpoint: TokenEndpoint) -> None:
    body: Mapping[str, object] = MappingProxyType(
        {
            "appId": "demo",
            "appSecret": Secret(SECRET),
            "deep": MappingProxyType({"list": ("a", Secret("b"), 1, 1.5, True, None)}),
        }
    )
    await fetch(recipe_of(url=endpoint.url + "/token", json=body))
    asked = endpoint.asked[0]
    assert (asked.method, asked.target) == ("POST", "/token")
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {
        "appId": "demo",
        "appSecret": SECRET,
        "deep": {"list": ["a", "b", 1, 1.5, True, None]},
    }


async def test_an_empty_json_body_is_sent_and_an_absent_one_is_not(endpoint: TokenEndpoint) -> None:
    await fetch(recipe_of(url=endpoint.url, json={}))
    await fetch(recipe_of(url=endpoint.url))
    assert [asked.body for asked in endpoint.asked] == [b"{}", b""]
    assert "content-type" not in endpoint.asked[1].headers
    assert endpoint.asked[1].headers["content-length"] == "0"


async def test_a_form_arrives_urlencoded(endpoint: TokenEndpoint) -> None:
    form = {"grant_type": "client_credentials", "client_secret": Secret(SECRET), "scope": "a b"}
    await fetch(recipe_of(url=endpoint.url, method="PUT", form=form))
    asked = endpoint.asked[0]
    assert asked.method == "PUT"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qsl(asked.body.decode(), strict_parsing=True) == [
        ("grant_type", "client_credentials"),
        ("client_secret", SECRET),
        ("scope", "a b"),
    ]


@pytest.mark.parametrize("own", ["", "?tenant=a%20b&flag"])
async def test_a_query_is_added_to_the_urls_own(endpoint: TokenEndpoint, own: str) -> None:
    query = {"client_secret": Secret(SECRET), "grant": "x/y"}
    await fetch(recipe_of(url=f"{endpoint.url}/oauth/2.0/token{own}", method="GET", query=query))
    path, _, sent = endpoint.asked[0].target.partition("?")
    assert (endpoint.asked[0].method, path) == ("GET", "/oauth/2.0/token")
    own_pairs = [("tenant", "a b"), ("flag", "")] if own else []
    assert parse_qsl(sent, keep_blank_values=True) == [
        *own_pairs,
        ("client_secret", SECRET),
        ("grant", "x/y"),
    ]


async def test_a_url_without_additions_is_sent_byte_for_byte(endpoint: TokenEndpoint) -> None:
    await fetch(recipe_of(url=endpoint.url + "/a%2Fb/?x=%20+&flag&y=%e4"))
    assert endpoint.asked[0].target == "/a%2Fb/?x=%20+&flag&y=%e4"


async def test_headers_arrive_without_traces_of_another_fetch(endpoint: TokenEndpoint) -> None:
    endpoint.headers["Set-Cookie"] = "session=1"
    recipe = recipe_of(
        url=endpoint.url, headers={"X-Api-Key": Secret("s3cret"), "Accept": "application/json"}
    )
    source = HttpTokenSource(recipe)
    await source.fetch()
    await source.fetch()
    await source.close()
    for asked in endpoint.asked:
        assert asked.headers["x-api-key"] == "s3cret"
        assert asked.headers["accept"] == "application/json"
        assert "authorization" not in asked.headers
        assert "cookie" not in asked.headers


async def test_a_cookie_of_the_recipe_arrives(endpoint: TokenEndpoint) -> None:
    await fetch(recipe_of(url=endpoint.url, headers={"Cookie": Secret("session=s3cret")}))
    assert endpoint.asked[0].headers["cookie"] == "session=s3cret"


async def test_headers_arrive_as_utf_8(endpoint: TokenEndpoint) -> None:
    await fetch(recipe_of(url=endpoint.url, headers={"X-Team": "équipe"}))
    assert endpoint.asked[0].headers["x-team"].encode("latin-1").decode() == "équipe"


async def test_basic_authorization_is_the_unchanged_pair(endpoint: TokenEndpoint) -> None:
    await fetch(recipe_of(url=endpoint.url, basic=("i d", Secret(SECRET))))
    scheme, _, pair = endpoint.asked[0].headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", f"i d:{SECRET}")


async def test_secrets_are_unwrapped_in_the_request_only(endpoint: TokenEndpoint) -> None:
    recipe = recipe_of(
        url=endpoint.url,
        headers={"X-Key": Secret("s3cret")},
        form={"key": Secret("s3cret")},
        query={"key": Secret("s3cret")},
        basic=(Secret("s3cret"), Secret("s3cret")),
    )
    await fetch(recipe)
    assert "s3cret" not in repr(recipe)
    assert endpoint.asked[0].body == b"key=s3cret"


def section(url: str, auth: str, **more: object) -> OAuth2Credential:
    """Return a `[credentials]` section whose id and secret need every kind of escape."""
    return OAuth2Credential.model_validate(
        {
            "source": "oauth2",
            "token_url": url,
            "client_id": "demo:é +1",
            "client_secret": SECRET,
            "auth": auth,
            **more,
        }
    )


async def test_oauth2_basic_is_form_encoded_inside(endpoint: TokenEndpoint) -> None:
    """RFC 6749 2.3.1."""
    await fetch(oauth2_recipe(section(endpoint.url, "basic")))
    asked = endpoint.asked[0]
    name, _, secret = base64.b64decode(asked.headers["authorization"][6:]).decode("ascii").partition(":")
    assert (unquote_plus(name), unquote_plus(secret)) == ("demo:é +1", SECRET)
    assert ":" not in name
    assert asked.body == b"grant_type=client_credentials"


async def test_oauth2_post_has_all_in_the_form(endpoint: TokenEndpoint) -> None:
    more = {"scope": "a b", "audience": "aud", "params": {"resource": "r"}}
    await fetch(oauth2_recipe(section(endpoint.url, "post", **more)))
    asked = endpoint.asked[0]
    assert "authorization" not in asked.headers
    assert dict(parse_qsl(asked.body.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "demo:é +1",
        "client_secret": SECRET,
        "scope": "a b",
        "audience": "aud",
        "resource": "r",
    }


@pytest.mark.parametrize("auth", ["basic", "post"])
async def test_the_demonstration_gateway_issues_a_token_either_way(auth: str) -> None:
    app = create_gateway(GatewayOptions(app_id="demo:é +1", app_secret=SECRET, token_ttl=120.0))
    gateway = app.extensions["gateway"]
    assert isinstance(gateway, DemoGateway)
    async with serve_on_loopback(app) as url:
        fetched = await fetch(oauth2_recipe(section(url + "/oauth/token", auth)))
        assert gateway.tokens.accepts(fetched.secret.reveal())
        assert fetched.lifetime == 120.0
        wrong = section(url + "/oauth/token", auth).model_copy(update={"client_secret": Secret("wrong")})
        error = await failure_of(oauth2_recipe(wrong))
    assert error.permanent
    assert error.reason.startswith(f"the token endpoint {url} answered 401 (invalid_client); ")


async def test_a_configured_proxy_is_used_and_those_of_the_environment_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def forward(talk: Conversation) -> None:
        await talk.answer(b'{"access_token": "through-the-proxy"}', "Content-Type: application/json")

    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"", status="502 Bad Gateway")

    async with raw_upstream(forward) as proxy, raw_upstream(refuse) as other:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        fetched = await fetch(recipe_of(url="http://auth.test/token", proxy=proxy.url))
    assert fetched.secret.reveal() == "through-the-proxy"
    assert proxy.requests[0].target == b"http://auth.test/token"
    assert other.requests == []
