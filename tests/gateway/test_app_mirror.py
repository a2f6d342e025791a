"""The description of a request by `/v1/echo`."""

from hashlib import sha256

import pytest

from proxy.gateway.app import MIRRORED_METHODS
from tests.gateway.caller import Caller


@pytest.mark.parametrize("method", MIRRORED_METHODS)
@pytest.mark.parametrize("path", ["/v1/echo", "/v1/echo/", "/v1/echo/a/b.c"])
async def test_every_method_and_path_is_described(caller: Caller, method: str, path: str) -> None:
    body = b"\x00\xff" * 50_000
    async with caller.asking(f"{path}?q=%20&q", body, method=method) as connection:
        pass
    response = await connection.as_response()
    reply = await response.get_json()
    assert response.status_code == 200
    assert reply["method"] == method
    assert reply["target"] == f"{path}?q=%20&q"
    assert ["user-agent", "Quart"] in reply["headers"]
    assert reply["body_sha256"] == sha256(body).hexdigest()
    assert reply["body_bytes"] == len(body)


async def test_a_streamed_body_is_counted_to_its_end(caller: Caller) -> None:
    parts = [bytes([number]) * 1000 for number in range(20)]
    async with caller.asking("/v1/echo", *parts, method="PUT") as connection:
        pass
    reply = await (await connection.as_response()).get_json()
    assert reply["body_sha256"] == sha256(b"".join(parts)).hexdigest()
    assert reply["body_bytes"] == 20_000


async def test_head_is_answered(caller: Caller) -> None:
    assert (await caller.client.head("/v1/echo", headers=caller.headers)).status_code == 200
