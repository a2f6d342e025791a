"""Authentication: which credentials are accepted, and the error for all others."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.app import bearer_token
from tests.gateway.caller import Caller

REFUSED = {
    "error": {
        "message": "token expired or unknown",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_token",
    }
}


@given(st.text(st.sampled_from("aZ09-._~+/="), min_size=1))
def test_the_scheme_has_any_case(token: str) -> None:
    assert bearer_token(f"Bearer {token}") == bearer_token(f"bearer  {token}") == token
    assert bearer_token(f"Basic {token}") == ""


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer made-up", "Basic ZGVtbzpkZW1v"])
async def test_without_a_live_token_it_is_401(caller: Caller, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await caller.client.post("/v1/chat/completions", data=b"x" * 100_000, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert await response.get_json() == REFUSED
    assert caller.gateway.stats.tokens_rejected == 1
    assert caller.gateway.stats.chat_requests == 0


async def test_unknown_paths_are_guarded_too(caller: Caller) -> None:
    assert (await caller.client.get("/v1/nothing")).status_code == 401


async def test_revoked_and_invalid_tokens_are_rejected(caller: Caller) -> None:
    headers = caller.headers
    assert (await caller.client.get("/v1/models", headers=headers)).status_code == 200
    caller.gateway.tokens.revoke_all()
    assert (await caller.client.get("/v1/models", headers=headers)).status_code == 401
    caller.gateway.options = replace(caller.gateway.options, reject_tokens=True)
    assert (await caller.client.get("/v1/models", headers=caller.headers)).status_code == 401
    assert caller.gateway.stats.tokens_rejected == 2


async def test_with_a_configured_key_only_that_key_is_accepted(caller: Caller) -> None:
    caller.gateway.options = replace(caller.gateway.options, api_key="123")
    good = await caller.client.get("/v1/models", headers={"Authorization": "Bearer 123"})
    assert good.status_code == 200
    for headers in ({}, {"Authorization": "Bearer 1234"}, {"Authorization": "Bearer é"}, caller.headers):
        response = await caller.client.get("/v1/models", headers=headers)
        assert response.status_code == 401
        assert (await response.get_json())["error"]["message"] == "Invalid API key"


@pytest.mark.parametrize(
    ("status", "kind", "retry_after"),
    [
        (400, "invalid_request_error", None),
        (429, "rate_limit_error", "1"),
        (500, "server_error", None),
        (503, "server_error", "1"),
    ],
)
async def test_the_status_option_fails_every_path_under_v1(
    caller: Caller, status: int, kind: str, retry_after: str | None
) -> None:
    caller.gateway.options = replace(caller.gateway.options, status=status)
    response = await caller.client.get("/v1/models", headers=caller.headers)
    assert response.status_code == status
    assert response.headers.get("Retry-After") == retry_after
    assert (await response.get_json())["error"]["type"] == kind
    assert (await caller.client.get("/stats")).status_code == 200


async def test_the_first_byte_is_delayed(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("proxy.gateway.app.asyncio.sleep", sleep)
    caller.gateway.options = replace(caller.gateway.options, first_byte_delay=2.5)
    await caller.client.get("/v1/models", headers=caller.headers)
    await caller.client.get("/v1/models")
    await caller.client.get("/stats")
    assert waits == [2.5, 2.5]
