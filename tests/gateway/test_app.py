"""The application: its public pages, errors and counters."""

import logging
from dataclasses import asdict

import pytest
from quart import Quart, Response

from proxy.gateway import DemoGateway, GatewayOptions, create_gateway
from proxy.gateway.state import GatewayStats
from tests.gateway.caller import Caller


def test_each_app_has_a_gateway_of_its_own() -> None:
    options = GatewayOptions(token_ttl=1.0)
    one, two = create_gateway(options), create_gateway(GatewayOptions())
    assert isinstance(one.extensions["gateway"], DemoGateway)
    assert one.extensions["gateway"] is not two.extensions["gateway"]
    assert one.extensions["gateway"].options is options


async def test_the_root_describes_the_gateway(caller: Caller) -> None:
    response = await caller.client.get("/")
    assert (await response.get_data(as_text=True)).count("\n") == 1
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_stats_are_numbers_only(caller: Caller) -> None:
    await caller.client.get("/v1/models")
    reply = await (await caller.client.get("/stats")).get_json()
    assert reply == asdict(GatewayStats(tokens_rejected=1))
    assert set(reply) == {
        "token_fetches",
        "token_fetches_in_flight",
        "token_fetches_at_once_max",
        "tokens_rejected",
        "chat_requests",
        "embedding_requests",
        "streams_open",
        "streams_closed_early",
    }


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1//models", "/v1/", "/v1/models/", "/nothing"])
async def test_unknown_paths_are_404_in_the_envelope(caller: Caller, path: str) -> None:
    response = await caller.client.get(path, headers=caller.headers)
    assert response.status_code == 404
    error = (await response.get_json())["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


async def test_a_wrong_method_is_405_with_allow(caller: Caller) -> None:
    response = await caller.client.get("/v1/chat/completions", headers=caller.headers)
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    assert (await response.get_json())["error"]["type"] == "invalid_request_error"


async def test_a_defect_is_500_in_the_envelope_and_logged(
    app: Quart, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> Response:
        raise LookupError("a defect")

    app.add_url_rule("/v1/broken", view_func=broken)
    with caplog.at_level(logging.ERROR):
        response = await caller.client.get("/v1/broken", headers=caller.headers)
    assert response.status_code == 500
    error = (await response.get_json())["error"]
    assert error["type"] == "server_error"
    assert "a defect" not in error["message"]
    assert any(record.exc_info for record in caplog.records)
