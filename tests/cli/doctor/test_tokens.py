"""The check of a credential: one fetch, and what the doctor reads in the token and in the reply."""

import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from pydantic import TypeAdapter

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.tokens import SKEW_SECONDS_MAX, check_credential, endpoint_of, trust_of
from proxy.credentials.token import FetchedToken
from proxy.settings import CredentialSettings
from tests.cli.doctor.gateways import JSON, TOKEN, page, refusal, reply, says
from tests.raw_upstream import Conversation, raw_upstream

SECTION: TypeAdapter[CredentialSettings] = TypeAdapter(CredentialSettings)
FIELDS = {"source": "http", "token": "token", "expires": [{"path": "expires_in", "as": "seconds"}]}
CANARY = "canary-app-secret-3f"


def section(url: str = "http://127.0.0.1:1/token", **more: object) -> CredentialSettings:
    """A credential whose token endpoint is there."""
    return SECTION.validate_python({"url": url, "json": {"secret": CANARY}, **FIELDS, **more})


async def checked(script: Any, **more: object) -> tuple[list[Finding], FetchedToken | None]:
    """The findings about a token endpoint, and its token."""
    async with raw_upstream(script) as issuer:
        result = await check_credential({"corp": section(f"{issuer.url}/token", **more)}, "corp")
    assert len(issuer.requests) <= 1  # some issuers revoke the previous token
    for finding in result[0]:
        assert finding.subject == "credentials.corp"
        assert CANARY not in repr(finding)
        assert TOKEN not in repr(finding)
    return result


def ids(found: list[Finding]) -> list[str]:
    return [finding.id for finding in found]


async def test_a_token_is_returned_with_its_lifetime() -> None:
    found, token = await checked(says(reply()))
    assert ids(found) == ["token_works"]
    assert found[0].values["life"] == "5 min"
    assert token is not None
    assert token.secret.reveal() == TOKEN


@pytest.mark.parametrize(
    ("answer", "more", "finding"),
    [
        (reply(expires_in=1), {}, "lifetime_too_short"),
        (reply(), {"reissue": "revokes_previous"}, "token_revoked_previous"),
        ({"token": TOKEN}, {}, "lifetime_unreadable"),
        (reply(token=f"bearer {TOKEN}"), {}, "token_has_prefix"),
        ({"token": f"Bearer {TOKEN}"}, {"expires": [], "default_ttl": 300}, "token_has_prefix"),
        (reply(expires_in=300_000), {}, "lifetime_doubtful"),
    ],
)
async def test_a_token_that_works_may_have_a_remark(
    answer: object, more: dict[str, object], finding: str
) -> None:
    found, token = await checked(says(answer), **more)
    assert finding in ids(found)
    assert token is not None


@pytest.mark.parametrize(
    ("script", "more", "finding"),
    [
        (refusal("401 Unauthorized", "no"), {}, "token_refused"),
        (refusal("404 Not Found", "no"), {}, "token_path_unknown"),
        (refusal("405 Method Not Allowed", "no"), {}, "token_path_unknown"),
        (refusal("429 Too Many Requests", "no"), {}, "token_rate_limited"),
        (refusal("503 Service Unavailable", "no"), {}, "token_endpoint_failed"),
        (says(b"", "Location: https://sso.corp.example/", status="302 Found"), {}, "token_redirected"),
        (says(b"  "), {}, "token_reply_empty"),
        (page(), {}, "token_reply_html"),
        (says(b"it works!"), {}, "token_reply_not_json"),
        (says({"data": {}}), {}, "token_missing"),
        (says({"token": ""}), {}, "token_missing"),
        (says({"token": TOKEN}), {"token": None, "token_header": "x-token"}, "token_missing"),
        (
            says({"code": 7, "token": TOKEN}),
            {"success": {"path": "code", "equals": 0}},
            "token_no_success",
        ),
    ],
)
async def test_a_reply_without_a_token_is_explained(
    script: Any, more: dict[str, object], finding: str
) -> None:
    fields = {name: value for name, value in more.items() if value is not None}
    if "token_header" in more:
        async with raw_upstream(script) as issuer:
            without = {name: value for name, value in FIELDS.items() if name != "token"}
            corp = SECTION.validate_python({"url": f"{issuer.url}/token", **without, **fields})
            found, token = await check_credential({"corp": corp}, "corp")
    else:
        found, token = await checked(script, **fields)
    assert ids(found) == [finding]
    assert token is None


@pytest.mark.parametrize(
    ("ahead", "finding"),
    [
        (-60.0, "clock_ahead"),
        (60.0, "clock_behind"),
        (SKEW_SECONDS_MAX - 3, None),  # the Date header has whole seconds
        (None, None),
    ],
)
async def test_the_clock_of_the_issuer_is_compared_with_ours(
    ahead: float | None, finding: str | None
) -> None:
    async def dated(talk: Conversation) -> None:
        date = [] if ahead is None else [f"Date: {formatdate(time.time() + ahead, usegmt=True)}"]
        await talk.answer(json.dumps(reply()).encode(), JSON, *date)

    found, _ = await checked(dated)
    assert [each for each in ids(found) if each.startswith("clock_")] == ([finding] if finding else [])


async def test_the_clocks_are_compared_even_if_there_is_no_token() -> None:
    old = f"Date: {formatdate(1_700_000_000, usegmt=True)}"
    found, _ = await checked(says({}, JSON, old))
    assert ids(found) == ["token_missing", "clock_ahead"]


async def test_an_endpoint_that_is_not_reached_is_a_finding_about_its_connection() -> None:
    found, token = await check_credential({"corp": section()}, "corp")
    assert (ids(found), token) == (["refused"], None)


async def test_a_token_that_never_expires_needs_no_clock() -> None:
    static = SECTION.validate_python({"source": "static", "value": TOKEN})
    found, token = await check_credential({"corp": static}, "corp")
    assert ids(found) == ["token_endless"]
    assert token is not None


def test_only_sources_that_send_requests_have_an_endpoint_and_a_forward_proxy() -> None:
    url, proxy = "https://sso.corp.example/token", "http://proxy.corp.example:3128"
    http = section(url, proxy=proxy)
    oauth2 = SECTION.validate_python(
        {"source": "oauth2", "token_url": url, "client_id": "c", "client_secret": CANARY}
    )
    static = SECTION.validate_python({"source": "static", "value": TOKEN})
    assert [endpoint_of(each) for each in (http, oauth2, static)] == [url, url, None]
    assert [trust_of(each) for each in (http, oauth2, static)] == [(None, proxy), (None, None), (None, None)]
