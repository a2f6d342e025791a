"""Streams: headers, pauses, counters, cuts and stalls."""

from dataclasses import replace

import pytest

from proxy.gateway.echo import LAST_MESSAGE, split_pieces
from tests.gateway.caller import Caller
from tests.loopback import until

ASKED = b'{"stream": true, "messages": [{"role": "user", "content": "hi"}]}'
PIECES = len(split_pieces(LAST_MESSAGE + "hi"))
EVENTS = PIECES + 3  # the role, the reason, the end marker


async def test_a_stream_is_an_event_stream(caller: Caller) -> None:
    response = await caller.client.post("/v1/chat/completions", data=ASKED, headers=caller.headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    body = await response.get_data(as_text=False)
    assert body.endswith(b"data: [DONE]\n\n")
    assert body.count(b"\n\n") == EVENTS
    assert (caller.gateway.stats.streams_open, caller.gateway.stats.streams_closed_early) == (0, 0)


async def test_there_is_a_pause_between_pieces(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("proxy.gateway.answers.asyncio.sleep", sleep)
    caller.gateway.options = replace(caller.gateway.options, word_delay=0.1)
    await caller.client.post("/v1/chat/completions", data=ASKED, headers=caller.headers)
    assert waits == [0.1] * (PIECES - 1)
    await caller.client.post(
        "/v1/chat/completions", data=ASKED.replace(b"true", b"false"), headers=caller.headers
    )
    assert len(waits) == PIECES - 1


@pytest.mark.parametrize("after", [0, 1, 4, EVENTS])
async def test_a_stalled_stream_lasts_until_the_caller_leaves(caller: Caller, after: int) -> None:
    caller.gateway.options = replace(caller.gateway.options, stall_after=after)
    stats = caller.gateway.stats
    async with caller.asking("/v1/chat/completions", ASKED) as connection:
        for _ in range(after):
            assert (await connection.receive()).startswith(b"data: ")
        await until(lambda: stats.streams_open == 1)
        assert stats.streams_closed_early == 0
        await connection.disconnect()
        await until(lambda: stats.streams_open == 0)
    assert stats.streams_closed_early == 1


@pytest.mark.parametrize("after", [0, 1, 4, EVENTS])
async def test_a_cut_stream_has_so_many_events_and_no_end(caller: Caller, after: int) -> None:
    caller.gateway.options = replace(caller.gateway.options, cut_after=after)
    async with caller.asking("/v1/chat/completions", ASKED) as connection:
        pass
    response = await connection.as_response()
    assert (await response.get_data(as_text=False)).count(b"\n\n") == after
    assert (caller.gateway.stats.streams_open, caller.gateway.stats.streams_closed_early) == (0, 0)
