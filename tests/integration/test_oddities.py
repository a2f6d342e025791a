"""Odd gateways behind the proxy: clients read the whole echo, or an error."""

import json
from collections.abc import Callable

import pytest

from proxy.gateway.echo import LAST_MESSAGE
from tests.conftest import RunningOddGateway, RunProxy
from tests.integration import ragflow
from tests.integration.ragflow import CHAT, JSON, ErrorShown
from tests.odd_gateway import ODDITIES
from tests.raw_caller import RawAnswer, raw_caller

ECHO = LAST_MESSAGE + "hi"
BROKEN = {"error_midway", "vendor_error_midway", "cut"}
INSTEAD = {"error_in_200": 503, "html_in_200": 502, "empty_200": 502}
WHOLE = [name for name in ODDITIES if name not in {*BROKEN, *INSTEAD, "held", "flaky"}]


async def answer(
    run_proxy: RunProxy, odd_gateway: RunningOddGateway, oddity: str, repairs: str
) -> tuple[RawAnswer, bytes]:
    """Send a streamed chat to the model of this name."""
    body = {"model": f"odd:{oddity}", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    options = f'repairs = ["{repairs}"]'
    async with (
        run_proxy(odd_gateway.url, credential=odd_gateway.credential, options=options) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=json.dumps(body).encode())
        head = await caller.answer()
        return head, await caller.body(head)


def dify(body: bytes) -> str:
    """Read as Dify does: split at two LF, skip comments, and end silently at anything that is not JSON."""
    text = ""
    for block in body.decode().split("\n\n"):
        said = block.strip().removeprefix("data:").strip()
        if not said or block.startswith(":"):
            continue
        try:
            chunk = json.loads(said)
        except ValueError:
            break
        if chunk["choices"]:
            text += (chunk["choices"][0]["delta"] or {}).get("content") or ""
    return text


READERS: list[tuple[str, Callable[[bytes], object], object]] = [
    ("ragflow", lambda body: ragflow.chat_stream(body)[0], ECHO),
    ("ragflow", ragflow.vision_stream, ECHO),
    ("dify", dify, ECHO),
]


@pytest.mark.parametrize(("repairs", "reader", "expected"), READERS, ids=["chat", "vision", "dify"])
@pytest.mark.parametrize("oddity", WHOLE)
async def test_an_odd_stream_is_read_completely(
    run_proxy: RunProxy,
    odd_gateway: RunningOddGateway,
    oddity: str,
    repairs: str,
    reader: Callable[[bytes], object],
    expected: object,
) -> None:
    head, body = await answer(run_proxy, odd_gateway, oddity, repairs)
    assert head.status == 200
    assert reader(body) == expected


@pytest.mark.parametrize("oddity", sorted(BROKEN))
async def test_a_stream_that_fails_shows_one_error(
    run_proxy: RunProxy, odd_gateway: RunningOddGateway, oddity: str
) -> None:
    _, body = await answer(run_proxy, odd_gateway, oddity, "ragflow")
    assert b"As " in body
    with pytest.raises(ErrorShown):
        ragflow.chat_stream(body)
    assert body.count(b'"error"') == 1


@pytest.mark.parametrize(("oddity", "status"), INSTEAD.items())
async def test_a_200_without_an_answer_is_an_error(
    run_proxy: RunProxy, odd_gateway: RunningOddGateway, oddity: str, status: int
) -> None:
    head, body = await answer(run_proxy, odd_gateway, oddity, "ragflow")
    assert head.status == status
    assert json.loads(body)["error"]["message"]
