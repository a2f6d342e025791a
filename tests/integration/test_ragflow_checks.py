"""RAGFlow's checks when a model is added: each has ten seconds, the fetch of a token included.

Tested elsewhere:

- a wait for a token on a single chat: `test_main_job.py::test_a_chat_that_finds_no_token_yet_is_answered_...`
- no token available, 503 at once: `test_main_job.py::test_without_a_token_the_response_is_503_at_once`
- no ids in an error's text: `test_faults.py::test_a_request_id_is_logged_and_never_part_of_an_error`
- words that no error may contain: `tests/test_app.py::test_every_error_has_a_status_a_code_and_a_...`
- lists of models without nulls: `tests/wire/test_model_list.py`, `tests/upstream/test_model_list.py`
"""

import asyncio
import json
from asyncio import TaskGroup
from dataclasses import replace

import pytest

from proxy.errors import (
    Aborted,
    BadResponse,
    InvalidResponse,
    Overloaded,
    ProxyError,
    TokenUnavailable,
    Unauthenticated,
)
from tests.conftest import RunningGateway, RunProxy
from tests.integration import ragflow
from tests.integration.ragflow import (
    CHAT,
    HI,
    JSON,
    RAGFLOW,
    chunk,
    kind_of,
    message,
    ragflow_before,
    whole,
)
from tests.loopback import until
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation
from tests.virtual_time import leap

HELLO = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hello! How are you doing!"}],
    "temperature": 0.9,
}
FETCH_SECONDS = 5.0
"""Half of RAGFlow's time limit when a model is added, which includes the fetch of a token."""


async def test_a_check_gets_its_first_chunk_at_once_and_its_disconnect_is_forwarded(
    run_proxy: RunProxy,
) -> None:
    gone = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: " + json.dumps(chunk(content="Hello")).encode() + b"\n\n")
        await talk.caller_left()
        gone.set()

    async with ragflow_before(run_proxy, script) as place:
        async with raw_caller(place.proxy.url) as checker:
            await checker.send("POST", CHAT, JSON, "Accept: application/json", body=json.dumps(HI).encode())
            assert (await checker.answer()).header("content-type") == ["text/event-stream"]
            assert ragflow.chat_stream(await checker.chunk()) == ("Hello", 0)  # passes here, and closes
        await asyncio.wait_for(gone.wait(), PATIENCE)
        await until(lambda: bool(place.proxy.exchanges))
        line = place.proxy.exchanges[-1]
    assert (line["outcome"], line["status"]) == ("client_gone", 200)
    assert line["log_level"] == "info"


async def test_the_check_of_older_releases_finds_text_and_tokens(run_proxy: RunProxy) -> None:
    async with ragflow_before(run_proxy, whole(message(content="Fine"))) as place:
        _, body = await place.ask(HELLO)
    assert ragflow.vision(body) == ("Fine", 12)


async def test_checks_with_a_cold_token_wait_for_one_fetch_and_for_nothing_else(
    run_proxy: RunProxy, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, token_delay=FETCH_SECONDS)
    credential = f"{gateway.credential}\ntimeout = {PATIENCE}"
    async with run_proxy(gateway.url, credential=credential, options=RAGFLOW) as proxy, TaskGroup() as group:
        client = proxy.client().with_options(timeout=PATIENCE)
        source = proxy.services.credentials["corp"].source

        async def first_words() -> str:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}], stream=True, temperature=0.9
            )
            async with stream:
                async for each in stream:
                    if each.choices[0].delta.content:
                        return each.choices[0].delta.content
            return ""

        async def first_vector() -> list[float]:
            text = "Test if the api key is available"
            vectors = await client.embeddings.create(model="e", input=[text], encoding_format="float")
            return vectors.data[0].embedding

        async def first_model() -> str:
            return (await client.models.list()).data[0].id

        checks = [group.create_task(check()) for check in (first_words, first_vector, first_model)]
        await until(lambda: source.reading().waiters == len(checks))
        leap(monkeypatch, FETCH_SECONDS)
        assert all([await check for check in checks])
    assert gateway.gateway.stats.token_fetches == 1
    assert not any("attempts" in line or "replays" in line for line in proxy.exchanges)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_busy_upstream_returns_a_retry_after(run_proxy: RunProxy, status: str) -> None:
    busy = {"error": {"message": "busy", "type": "server_error", "param": None, "code": None}}
    async with ragflow_before(run_proxy, whole(busy, status, "Retry-After: 7")) as place:
        head, body = await place.ask(HI)
    assert head.status == int(status[:3])
    assert head.header("retry-after") == ["7"]
    assert json.loads(body) == busy
    assert len(place.upstream.requests) == 1  # RAGFlow and its SDK multiply by 18 as it is


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TokenUnavailable(), "SERVER"),
        (Overloaded(), "RATE_LIMIT"),
        (BadResponse(), "SERVER"),
        (InvalidResponse("HTML with status 200"), "INVALID"),
        (Unauthenticated(), "AUTH"),
        (Aborted(), "CONNECTION"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProxyError) else value,
)
def test_ragflow_classifies_our_errors_correctly(error: ProxyError, kind: str) -> None:
    streamed_error = isinstance(error, Aborted)  # the SDK shows only the message of an error event
    told = str(error) if streamed_error else f"Error code: {error.status} - {error.envelope()}"
    assert kind_of(told) == kind


async def test_the_list_of_models_is_strict_and_has_context_lengths(run_proxy: RunProxy) -> None:
    listed = """[models]
list = "configured"
[[models.known]]
id = "chat-large"
context_length = 32768
"""
    async with ragflow_before(run_proxy, whole({}), more=listed) as place:
        await place.caller.send("GET", "/v1/models", JSON, body=b"{}")
        body = await place.caller.body(await place.caller.answer())
    assert json.loads(body) == {
        "object": "list",
        "data": [
            {
                "id": "chat-large",
                "object": "model",
                "created": 0,
                "owned_by": "llm-token-proxy",
                "context_length": 32768,
                "max_model_len": 32768,
            }
        ],
    }
