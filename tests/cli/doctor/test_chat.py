"""The checks of a chat: what they send, when they stop reading, and what they find in an answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from proxy.cli.doctor.api import Api
from proxy.cli.doctor.chat import TEMPERATURE, check_first_piece, check_path, check_stream, check_whole
from proxy.cli.doctor.findings import Finding
from proxy.settings import Upstream
from tests.cli.doctor.gateways import DONE, LAST, WORDS, chunk, event, refusal, says, streams
from tests.pace import PATIENCE, paced
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream

Script = Callable[[Conversation], Awaitable[None]]
MODEL = "m-chat"


async def found(
    script: Script, check: Callable[[Api], Awaitable[Finding | list[Finding]]], *, seconds: float = PATIENCE
) -> tuple[list[str], RawUpstream]:
    """The ids of the findings about an upstream, and the upstream."""
    async with raw_upstream(script) as upstream, asyncio.timeout(PATIENCE):
        section = Upstream.model_validate({"base_url": f"{upstream.url}/v1"})
        async with Api("url", section, seconds=seconds) as api:
            result = await check(api)
    return [each.id for each in (result if isinstance(result, list) else [result])], upstream


def sent(upstream: RawUpstream) -> dict[str, object]:
    """The body of the only request."""
    (request,) = upstream.requests
    body: dict[str, object] = json.loads(request.body)
    return body


# --- the first piece


async def test_the_first_piece_is_enough() -> None:
    async def one_piece(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(chunk("one"))
        await talk.caller_left()  # otherwise the check would wait until its time limit

    ids, upstream = await found(one_piece, lambda api: check_first_piece(api, MODEL))
    assert ids == ["first_piece"]
    body = sent(upstream)
    assert (body["model"], body["stream"], body["temperature"]) == (MODEL, True, TEMPERATURE)


async def test_an_event_that_arrives_in_two_parts_is_read_as_one() -> None:
    whole = chunk("one")

    async def in_two_parts(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(event({"choices": []}) + whole[:20])
        await talk.chunk(whole[20:])
        await talk.caller_left()

    assert (await found(in_two_parts, lambda api: check_first_piece(api, MODEL)))[0] == ["first_piece"]


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
async def test_thoughts_count_as_text(name: str) -> None:
    said = event({"choices": [{"delta": {name: "hm"}}]})
    assert (await found(streams(said, LAST, DONE), lambda api: check_first_piece(api, MODEL)))[0] == [
        "first_piece"
    ]


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        (streams(LAST, DONE), "stream_empty"),
        (streams(event({"error": {"message": "no"}})), "stream_error"),
        (refusal("429 Too Many Requests", "slow down"), "rate_limited"),
        (says(b"<!doctype html>", "Content-Type: text/html"), "answered_html"),
    ],
)
async def test_a_stream_without_text_is_a_failure(script: Script, finding: str) -> None:
    assert (await found(script, lambda api: check_first_piece(api, MODEL)))[0] == [finding]


@pytest.mark.parametrize(("events", "finding"), [((), "no_response"), ((LAST,), "stream_stalled")])
async def test_a_stream_that_stalls_ends_with_the_time_limit(events: tuple[bytes, ...], finding: str) -> None:
    stalls = streams(*events, then=Conversation.caller_left)
    ids, _ = await found(stalls, lambda api: check_first_piece(api, MODEL), seconds=paced(0.5))
    assert ids == [finding]


# --- without a model


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        (refusal("404 Not Found", "no such path"), "path_unknown"),
        (refusal("401 Unauthorized", "unknown"), "key_rejected"),
        (refusal("400 Bad Request", "no such model"), "no_chat_model"),
        (refusal("404 Not Found", "the model does not exist"), "no_chat_model"),
        (
            refusal("500 Internal Server Error", "boom"),
            "no_chat_model",
        ),  # the made-up model may be the reason
        (says({"choices": []}), "no_chat_model"),
    ],
)
async def test_without_a_model_only_faults_that_any_model_would_have_are_found(
    script: Script, finding: str
) -> None:
    assert (await found(script, check_path))[0] == [finding]


# --- a whole answer


ANSWER: dict[str, object] = {"choices": [{"message": {"role": "assistant", "content": "one"}}]}
USAGE = {"usage": {"total_tokens": 3}}


@pytest.mark.parametrize(
    ("value", "findings"),
    [
        ({**ANSWER, **USAGE}, ["chat_works"]),
        (ANSWER, ["chat_works", "usage_missing"]),
        ({"choices": [{"message": {"content": ""}}]}, ["answer_empty"]),
        ({"choices": [{"message": None}]}, ["answer_empty"]),
        ({"error": {"message": "used up"}}, ["error_in_200"]),
    ],
)
async def test_a_whole_answer_needs_text_and_should_have_a_usage(value: object, findings: list[str]) -> None:
    ids, upstream = await found(says(value), lambda api: check_whole(api, MODEL))
    assert ids == findings
    assert "stream" not in sent(upstream)


async def test_an_answer_that_is_cut_is_not_judged_by_its_beginning() -> None:
    async def cut(talk: Conversation) -> None:
        body = json.dumps({**ANSWER, **USAGE}).encode()
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
        await talk.say(body)
        talk.writer.close()

    assert (await found(cut, lambda api: check_whole(api, MODEL)))[0] == ["stream_broken"]


# --- a streamed answer


PIECES = tuple(map(chunk, WORDS))


@pytest.mark.parametrize(
    ("events", "findings"),
    [
        ((*PIECES, LAST, DONE), ["stream_works"]),
        ((*PIECES, LAST), ["stream_works", "stream_without_done"]),
        (PIECES, ["stream_unfinished"]),
    ],
)
async def test_a_stream_has_an_end(events: tuple[bytes, ...], findings: list[str]) -> None:
    ids, _ = await found(streams(*events), lambda api: check_stream(api, MODEL, for_clients=True))
    assert ids == findings


@pytest.mark.parametrize("for_clients", [False, True])
async def test_what_only_clients_cannot_read_is_a_fault_only_for_them(*, for_clients: bool) -> None:
    odd = (event({"choices": [{"delta": None}]}), event({"choices": []}))
    counted = tuple(chunk(word, **USAGE) for word in WORDS)
    ids, _ = await found(
        streams(*odd, *counted, LAST, DONE),
        lambda api: check_stream(api, MODEL, for_clients=for_clients),
    )
    trouble = ["delta_null", "choices_empty", "usage_repeated"] if for_clients else []
    assert ids == ["stream_works", *trouble]


async def test_a_gateway_that_never_streams_is_named() -> None:
    ids, _ = await found(says({**ANSWER, **USAGE}), lambda api: check_stream(api, MODEL, for_clients=True))
    assert ids == ["not_streamed"]
