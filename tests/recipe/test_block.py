"""The printed block: it loads as settings, contains no secret, and fetches the token."""

import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.build import build_source
from proxy.credentials.sources.reply import Reply
from proxy.gateway import GatewayOptions, create_gateway
from proxy.recipe.block import credential_block, exports, request_block
from proxy.recipe.curl_line import CurlRequest, parse_curl
from proxy.recipe.draft import take_secrets_out
from proxy.recipe.expiries import Candidate
from proxy.recipe.reply import Reading, read_reply
from proxy.settings import CredentialSettings, load_settings
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback
from tests.recipe import replies
from tests.recipe.replies import RANDOM, jwt, reply

URL = "https://auth.corp.example/token"
CANARY = "canary-91bc"
AROUND = (
    '\n[access]\nmode = "open"\n[upstreams.chat]\nbase_url = "http://127.0.0.1/v1"\ncredential = "corp"\n'
)


def block_of(line: str, of: Reply) -> tuple[str, dict[str, str]]:
    """Return the block, and the environment that it needs."""
    draft = take_secrets_out(parse_curl(line), "corp")
    environ = {variable.name: variable.value.reveal() for variable in draft.variables if variable.value}
    return credential_block("corp", draft, read_reply(of)), environ


def load(block: str, environ: dict[str, str], folder: Path) -> CredentialSettings:
    path = folder / "x.toml"
    path.write_text(block + AROUND)
    return load_settings(path, environ).credentials["corp"]


def table_of(block: str) -> dict[str, Any]:
    table = tomllib.loads(block)["credentials"]["corp"]
    assert isinstance(table, dict)
    return table


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    """Serve a token endpoint that answers like a company's."""
    endpoint = TokenEndpoint(headers={"Date": replies.DATE}, body=reply(replies.COMPANY).text.encode())
    async with serve_on_loopback(endpoint.app()) as endpoint.url:
        yield endpoint


async def test_the_company_endpoint_gets_the_request_that_curl_sent(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    line = f"""curl -X PUT '{endpoint.url}/token?tenant=a%20b' -u 'id:{CANARY}' -H 'X-Key: {CANARY}-2' \
        -H 'Content-Type: application/json; charset=utf-8' \
        -d '{{"appId": "${{x}}", "appSecret": "{CANARY}-3", "d": {{"list": [1, 2.5, true, "é\\n\\""]}}}}'"""
    block, environ = block_of(line, reply(replies.COMPANY))
    assert CANARY not in block
    source = build_source(load(block, environ, tmp_path))
    fetched = await source.fetch()
    await source.close()
    assert fetched.secret.reveal() == replies.COMPANY["data"]["token"]  # type: ignore[index]
    (asked,) = endpoint.asked
    assert (asked.method, asked.target) == ("PUT", "/token?tenant=a+b")
    assert asked.headers["authorization"] == "Basic aWQ6Y2FuYXJ5LTkxYmM="
    assert asked.headers["x-key"] == f"{CANARY}-2"
    assert asked.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(asked.body) == {
        "appId": "${x}",
        "appSecret": f"{CANARY}-3",
        "d": {"list": [1, 2.5, True, 'é\n"']},
    }


@pytest.mark.parametrize(
    ("options", "auth"),
    [
        (f"-u demo:{CANARY} -d grant_type=client_credentials -d scope=llm", "basic"),
        (
            f"-d grant_type=client_credentials -d client_id=demo -d client_secret={CANARY} -d resource=r",
            "post",
        ),
    ],
)
async def test_client_credentials_become_oauth2_and_work(tmp_path: Path, options: str, auth: str) -> None:
    app = create_gateway(GatewayOptions(app_secret=CANARY))
    async with serve_on_loopback(app) as url:
        block, environ = block_of(f"curl {url}/oauth/token {options}", reply(replies.KEYCLOAK))
        table = table_of(block)
        assert (table["source"], table["auth"], table["client_id"]) == ("oauth2", auth, "demo")
        source = build_source(load(block, environ, tmp_path))
        fetched = await source.fetch()
        await source.close()
    assert CANARY not in block
    assert fetched.lifetime == 300


@pytest.mark.parametrize(
    "options",
    [
        "-u 'a b:c' -d grant_type=client_credentials",
        "-u id:p%w -d grant_type=client_credentials",
        "-u id:pw -d grant_type=client_credentials -d client_id=other",
        "-u id:pw -d grant_type=password",
        "-u id:pw -d grant_type=client_credentials -H 'X-Tenant: a'",
        "-d grant_type=client_credentials -d client_id=id",
        "-G -u id:pw -d grant_type=client_credentials",
    ],
)
def test_other_requests_stay_http_recipes(options: str) -> None:
    assert table_of(block_of(f"curl {URL} {options}", reply(replies.KEYCLOAK))[0])["source"] == "http"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (
            replies.COMPANY,
            {},
            {
                "success": {"path": "code", "equals": 0},
                "token": "data.token",
                "expires": [{"path": "data.expireTime", "as": "epoch_ms"}],
            },
        ),
        (
            replies.IBM,
            {},
            {
                "token": "access_token",
                "expires": [{"path": "expires_in", "as": "seconds"}, {"path": "expiration", "as": "epoch"}],
            },
        ),
        (
            replies.VAULT,
            {},
            {
                "token": "auth.client_token",
                "expires": [{"path": "auth.lease_duration", "as": "seconds"}],
                "max_ttl": 3041280,
            },
        ),
        (
            replies.HUAWEI,
            {"x-subject-token": RANDOM},
            {
                "token_header": "x-subject-token",
                "expires": [{"path": "token.expires_at", "as": "iso8601"}],
                "inject": {"header": "X-Auth-Token", "template": "{token}"},
            },
        ),
        (jwt(600), {}, {"token_text": True, "default_ttl": 600}),
        ({"token": RANDOM}, {}, {"token": "token", "default_ttl": 300}),
        (
            {"token": f"Bearer {RANDOM}", "ttl": 60},
            {},
            {
                "token": "token",
                "expires": [{"path": "ttl", "as": "seconds"}],
                "inject": {"header": "Authorization", "template": "{token}"},
            },
        ),
    ],
)
def test_the_block_contains_the_findings_of_the_reply(
    tmp_path: Path, body: Any, headers: dict[str, str], expected: dict[str, object]
) -> None:
    block, environ = block_of(f"curl {URL} --json {{}}", reply(body, headers))
    table = table_of(block)
    for key in ("source", "url", "method", "json", "headers"):
        del table[key]
    assert table == expected
    assert load(block, environ, tmp_path).source == "http"
    assert RANDOM not in block


def test_doubts_are_marked_with_the_alternatives() -> None:
    block, _ = block_of(f"curl {URL}", reply({"token": RANDOM, "jwt": jwt(), "expires_in": 300000}))
    lines = block.splitlines()
    at = lines.index('token = "token"')
    assert lines[at - 2].startswith("# unsure: ")
    assert lines[at - 1].startswith('# or: "jwt"')
    assert any(line.startswith("# unsure:") and "milliseconds" in line for line in lines)
    sure, _ = block_of(f"curl {URL}", reply(replies.COMPANY))
    assert "unsure" not in sure


def test_a_lifetime_in_minutes_is_fixed_and_marked(tmp_path: Path) -> None:
    block, environ = block_of(f"curl {URL}", reply({"token": RANDOM, "expires_in_minutes": 90}))
    lines = block.splitlines()
    assert lines[lines.index("default_ttl = 5400") - 1].startswith("# unsure: ")
    assert "expires = " not in block
    assert load(block, environ, tmp_path).source == "http"


def test_exports_name_the_variables_and_mask_the_values() -> None:
    draft = take_secrets_out(parse_curl(f'curl {URL} -d password={CANARY} -d "x=$MINE"'), "corp")
    first, second = exports(draft.variables)
    assert {first, second} == {
        "# MINE is read from the environment, as in the command line",
        "export CORP_PASSWORD='********'  # \"password\" of the form, 11 characters",
    }


def test_no_name_of_the_reply_ends_a_comment(tmp_path: Path) -> None:
    names = {'token\n[access]\nmode = "open"\n#': RANDOM, "expires\r\nin": 300, "\x1bcode": 0}
    block, environ = block_of(f"curl {URL}", reply(names))
    assert table_of(block).keys() >= {"source", "url", "token"}
    assert set(tomllib.loads(block)) == {"credentials"}
    assert "\x1b" not in block
    assert load(block, environ, tmp_path).source == "http"


TEXT = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=8)
BODIES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("secret"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, BODIES, max_size=4), st.dictionaries(TEXT, TEXT, max_size=4), TEXT)
def test_any_block_is_toml_that_says_the_same(body: dict[str, Any], query: dict[str, str], why: str) -> None:
    draft = take_secrets_out(CurlRequest(method="POST", url=URL, query=query, headers={}, json=body), "corp")
    reading = Reading((Candidate("path", "a", why, 100, value="b"),), ())
    assert table_of(credential_block("corp", draft, reading)).get("json") == draft.table["json"]
    assert table_of(request_block("corp", draft)).get("query", {}) == draft.table.get("query", {})
