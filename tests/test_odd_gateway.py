"""The test gateway: each oddity changes only what its description says."""

import json
from typing import Any

import pytest
from quart import Quart

from proxy.gateway import GatewayOptions
from proxy.gateway.echo import LAST_MESSAGE
from tests.gateway.caller import Caller
from tests.loopback import until
from tests.odd_gateway import ODDITIES, PREFIX, create_odd_gateway, is_known

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
HI = [{"role": "user", "content": "hi"}]
WORDS = ["As ", "a "]


@pytest.fixture
def app() -> Quart:
    return create_odd_gateway(GatewayOptions(word_delay=0.0))


@pytest.fixture
def caller(app: Quart) -> Caller:
    return Caller(app.test_client(), app.extensions["gateway"])


async def asked(caller: Caller, oddity: str, path: str = CHAT, **body: Any) -> tuple[int, bytes]:
    """Send a request to a model; return the status and the body of the response."""
    said = {"model": f"{PREFIX}{oddity}", **({"messages": HI} if path == CHAT else {}), **body}
    async with caller.asking(path, json.dumps(said).encode()) as connection:
        pass
    response = await connection.as_response()
    return response.status_code, await response.get_data(as_text=False)


def chunks(body: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line.strip() != b"[DONE]"]


async def streamed(caller: Caller, oddity: str) -> bytes:
    status, body = await asked(caller, oddity, stream=True)
    assert status == 200
    return body


async def test_azures_first_chunk_has_no_choices(caller: Caller) -> None:
    first, second, *_ = chunks(await streamed(caller, "azure_first_chunk"))
    assert (first["choices"], len(second["choices"])) == ([], 1)
    assert first["prompt_filter_results"]


async def test_usage_is_everywhere_or_in_a_separate_chunk(caller: Caller) -> None:
    assert all(each["usage"] for each in chunks(await streamed(caller, "usage_everywhere")))
    *others, last = chunks(await streamed(caller, "usage_unasked"))
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 3)
    assert all(each["choices"] and "usage" not in each for each in others)


async def test_a_first_delta_is_null(caller: Caller) -> None:
    first, *others = chunks(await streamed(caller, "null_delta"))
    assert first["choices"][0]["delta"] is None
    assert all(each["choices"][0]["delta"] is not None for each in others)


async def test_the_last_chunk_has_both_text_and_finish_reason(caller: Caller) -> None:
    last = chunks(await streamed(caller, "finish_with_content"))[-1]["choices"][0]
    assert (last["delta"]["content"], last["finish_reason"]) == ("message:hi", "stop")


async def test_odd_lines_do_not_change_the_words(caller: Caller) -> None:
    assert b"[DONE]" not in await streamed(caller, "no_end_marker")
    crlf = await streamed(caller, "crlf")
    assert crlf.count(b"\r\n") == crlf.count(b"\n") > 0
    assert (await streamed(caller, "event_lines")).startswith(b"event: message\nid: 0\ndata: {")
    kept = await streamed(caller, "keep_alives")
    assert kept.count(b": keep-alive\n\n") == kept.count(b"data: ")
    for oddity in ("no_end_marker", "crlf", "event_lines", "keep_alives", "finish_with_content"):
        told = chunks(await streamed(caller, oddity))
        assert "".join(each["choices"][0]["delta"].get("content", "") for each in told) == LAST_MESSAGE + "hi"


@pytest.mark.parametrize(
    ("oddity", "last"), [("error_midway", "error"), ("vendor_error_midway", "code"), ("cut", "choices")]
)
async def test_a_stream_fails_after_two_words(caller: Caller, oddity: str, last: str) -> None:
    told = chunks(await streamed(caller, oddity))
    assert [each["choices"][0]["delta"]["content"] for each in told[:2]] == WORDS
    assert len(told) == (2 if oddity == "cut" else 3)
    assert last in told[-1]


async def test_a_held_stream_lasts_until_the_caller_leaves(caller: Caller) -> None:
    body = json.dumps({"model": "odd:held", "messages": HI, "stream": True}).encode()
    async with caller.asking(CHAT, body) as connection:
        for word in WORDS:
            assert word.encode() in await connection.receive()
        await connection.disconnect()
        await until(lambda: caller.gateway.stats.streams_closed_early == 1)


async def test_complete_responses_lack_fields_that_clients_need(caller: Caller) -> None:
    _, body = await asked(caller, "no_usage")
    assert "usage" not in json.loads(body)
    _, body = await asked(caller, "null_content")
    assert json.loads(body)["choices"][0]["message"]["content"] is None
    _, body = await asked(caller, "reversed", EMBEDDINGS, input=["a", "b"])
    assert [item["index"] for item in json.loads(body)["data"]] == [1, 0]
    _, body = await asked(caller, "no_index", EMBEDDINGS, input=["a", "b"])
    assert [sorted(item) for item in json.loads(body)["data"]] == [["embedding", "object"]] * 2


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize(
    ("oddity", "begins"), [("error_in_200", b'{"error"'), ("html_in_200", b"<html>"), ("empty_200", b"")]
)
async def test_a_200_may_have_no_answer(caller: Caller, path: str, oddity: str, begins: bytes) -> None:
    status, body = await asked(caller, oddity, path, stream=True, **({"input": "a"} if path != CHAT else {}))
    assert status == 200
    assert body[: len(begins) or 1] == begins


async def test_a_status_and_a_temporary_fault(app: Quart, caller: Caller) -> None:
    assert (await asked(caller, "status_429"))[0] == 429
    assert [(await asked(caller, "flaky"))[0] for _ in range(3)] == [500, 200, 200]
    assert app.extensions["oddities_played"] == {"status_429": 1, "flaky": 3}


@pytest.mark.parametrize("name", ["", "other", "status_", "status_200", "status_x", "status_99999"])
async def test_an_unknown_oddity_is_rejected(caller: Caller, name: str) -> None:
    assert not is_known(name)
    assert (await asked(caller, name))[0] == 404


def test_every_oddity_is_known() -> None:
    assert all(map(is_known, ODDITIES))
