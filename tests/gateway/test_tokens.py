"""Both token endpoints."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from proxy.gateway import GatewayOptions
from proxy.gateway.tokens import FORM
from tests.gateway.caller import Caller, ManualClock
from tests.loopback import until
from tests.pace import PATIENCE

RIGHT = {"appId": "demo", "appSecret": "demo-secret"}
GRANT = {"grant_type": "client_credentials", "client_id": "demo", "client_secret": "demo-secret"}


async def status_with(caller: Caller, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await caller.client.get("/v1/models", headers=headers)).status_code


async def test_the_company_endpoint_issues_a_token_that_expires(caller: Caller, clock: ManualClock) -> None:
    response = await caller.client.post("/token", json=RIGHT)
    reply = await response.get_json()
    assert (reply["code"], reply["msg"]) == (0, "success")
    assert reply["data"]["expireTime"] == pytest.approx((time.time() + 300) * 1000, abs=1000 * PATIENCE)
    assert response.headers["Cache-Control"] == "no-store"
    assert await status_with(caller, reply["data"]["token"]) == 200
    clock.now += 300
    assert await status_with(caller, reply["data"]["token"]) == 401


async def test_a_wrong_secret_is_a_code_in_a_200(caller: Caller) -> None:
    response = await caller.client.post("/token", json={**RIGHT, "appSecret": "错"})
    assert response.status_code == 200
    assert await response.get_json() == {"code": 10401, "msg": "wrong appId or appSecret", "data": None}


@pytest.mark.parametrize("body", [b"", b"appId=demo", b"\xff", b'"', b'{"appId": "demo"}', b"[" * 10_000])
async def test_an_invalid_token_request_is_400(caller: Caller, body: bytes) -> None:
    response = await caller.client.post("/token", data=body)
    assert response.status_code == 400
    assert (await response.get_json())["code"] == 10400


async def test_the_oauth_endpoint_issues_a_token(caller: Caller) -> None:
    response = await caller.client.post("/oauth/token", form=GRANT)
    reply = await response.get_json()
    assert response.headers["Cache-Control"] == "no-store"
    assert reply.keys() == {"access_token", "token_type", "expires_in"}
    assert reply["token_type"] == "Bearer"
    assert reply["expires_in"] == 300
    assert await status_with(caller, reply["access_token"]) == 200


@pytest.mark.parametrize(("ttl", "shown"), [(300.0, b'"expires_in":300}'), (0.25, b'"expires_in":0.25}')])
async def test_whole_lifetimes_are_integers(caller: Caller, ttl: float, shown: bytes) -> None:
    caller.gateway.options = GatewayOptions(token_ttl=ttl)
    response = await caller.client.post("/oauth/token", form=GRANT)
    assert (await response.get_data(as_text=False)).endswith(shown)


async def test_oauth_errors_have_the_shape_of_the_rfc(caller: Caller) -> None:
    response = await caller.client.post("/oauth/token", form={**GRANT, "client_secret": "wrong"})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert (await response.get_json())["error"] == "invalid_client"
    response = await caller.client.post("/oauth/token", data=b"{}", headers={"Content-Type": FORM})
    assert response.status_code == 400
    assert (await response.get_json())["error"] == "invalid_request"


@pytest.mark.parametrize("path", ["/token", "/oauth/token"])
async def test_the_token_status_option_fails_both_endpoints(caller: Caller, path: str) -> None:
    caller.gateway.options = replace(caller.gateway.options, token_status=503)
    response = await caller.client.post(path, json=RIGHT)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert caller.gateway.stats.token_fetches == 1
    assert len(caller.gateway.tokens) == 0


async def test_concurrent_fetches_are_counted(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    async def sleep(_: float) -> None:
        await released.wait()

    monkeypatch.setattr("proxy.gateway.tokens.asyncio", SimpleNamespace(sleep=sleep))
    stats = caller.gateway.stats
    async with asyncio.TaskGroup() as group:
        for path in ("/token", "/token", "/oauth/token"):
            group.create_task(caller.client.post(path, json=RIGHT))
        await until(lambda: stats.token_fetches_in_flight == 3)
        released.set()
    assert (stats.token_fetches, stats.token_fetches_in_flight, stats.token_fetches_at_once_max) == (3, 0, 3)
    await caller.client.post("/token", json=RIGHT)
    assert stats.token_fetches_at_once_max == 3
