"""RAGFlow's contract: the requests of its releases, case by case, with `repairs = ["ragflow"]`.

Tested elsewhere:

- a mount for every way to join URLs: `tests/blueprints/test_llm_proxy.py::test_every_mount_and_version_...`
- headers that are forwarded, and others: `test_bytes.py::test_headers_are_forwarded_with_the_live_...`
- a key in any of its headers, a wrong key: `test_requests.py::test_a_key_is_accepted_in_any_of_...`
- any method with a body: `test_bytes.py::test_any_method_is_forwarded_with_its_body`
- each event as soon as it is whole: `test_repairs.py::test_a_repaired_stream_is_not_held_back`
- a revoked token is replaced unnoticed: `test_main_job.py::test_a_revoked_token_is_replaced_unnoticed`
- adding a model: `test_ragflow_checks.py`; faults, row by row: `test_ragflow_faults.py`
"""

import base64
import json
import re

import openai
import pytest

from tests.conftest import RunningGateway, RunProxy
from tests.integration import ragflow
from tests.integration.ragflow import (
    CHAT,
    DONE,
    EMBEDDINGS,
    HI,
    JSON,
    RAGFLOW,
    USAGE,
    chunk,
    message,
    ragflow_before,
    streamed,
    whole,
)
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation

HELLO = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hello! How are you doing!"}],
    "temperature": 0.9,
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40).decode()

MOUNT = "/agent/api/llm_proxy"

# --- URLs: the base that a user enters, the release, and the requested path

JOINED = [
    ("http://h", "v0.27", CHAT, EMBEDDINGS, "/v1/models", "/rerank"),
    ("http://h", "v0.20.5 to v0.26.4", "/chat/completions", CHAT, EMBEDDINGS, "/rerank"),
    ("http://h/v1", "v0.27", CHAT, EMBEDDINGS, "/v1/models", "/v1/rerank"),
    ("http://h/v1", "v0.20.5 to v0.23.1", CHAT, EMBEDDINGS, "/rerank"),
    ("http://h/v1/", "v0.27", CHAT, EMBEDDINGS, "/v1/models", "/v1/rerank"),
    ("http://h/v1/", "v0.24 to v0.26.4", CHAT, "/v1/v1/chat/completions", "/v1/v1/embeddings", "/v1/rerank"),
    ("http://h/v1/", "v0.20.5 to v0.23.1", CHAT, "/v1/v1/chat/completions", "/v1/v1/embeddings", "/rerank"),
    ("http://h/v1/rerank", "all", "/v1/rerank"),
    (
        "http://h/agent/api/llm_proxy/v1",
        "all",
        f"{MOUNT}{CHAT}",
        f"{MOUNT}{EMBEDDINGS}",
        f"{MOUNT}/v1/rerank",
    ),
    ("http://h/v1", "Go", CHAT, EMBEDDINGS, "/v1/models", "/v1/audio/speech", "/v1/audio/transcriptions"),
]


async def test_every_release_joins_its_url_to_a_path_that_is_served(run_proxy: RunProxy) -> None:
    paths = sorted({path for _, _, *asked in JOINED for path in asked})
    answers = {
        "data": [{"index": 0, "embedding": [0.5]}],
        "results": [{"index": 0, "relevance_score": 0.5}],
        **message(content="Hi"),
    }

    async def script(talk: Conversation) -> None:
        speech = talk.request.target.endswith(b"/audio/speech")
        body = b"\xff\xfb" if speech else json.dumps(answers).encode()
        await talk.answer(body, "Content-Type: audio/mpeg" if speech else JSON)

    async with ragflow_before(run_proxy, script) as place:
        for path in paths:
            method = "GET" if path.endswith("models") else "POST"
            await place.caller.send(method, path, JSON, body=b"{}")  # Go sends a body with its GET, too
            answer = await place.caller.answer()
            assert answer.status == 200, path
            await place.caller.body(answer)
    ends = [request.target.decode() for request in place.upstream.requests]
    assert ends == [f"/v1/{_end(path)}" for path in paths]


def _end(path: str) -> str:
    return re.sub(r"^(/v1)*/", "", path.removeprefix(MOUNT))


# --- chat


async def test_requests_of_ragflow_are_forwarded_unchanged(run_proxy: RunProxy) -> None:
    said = {
        **HI,
        "enable_thinking": False,
        "top_p": 0.30,
        "max_completion_tokens": 512,
        "stop": None,
        "seed": 1,
    }
    events = [b": wait\n\n", chunk(content="Hi"), chunk("length")]  # no end marker, which it does not require
    async with ragflow_before(run_proxy, streamed(*events)) as place:
        _, body = await place.ask(said)
    assert place.upstream.requests[0].body == json.dumps(said).encode()
    assert ragflow.chat_stream(body) == ("Hi", 0)
    assert body.startswith(b": wait\n\n")


async def test_a_caller_that_asks_for_usage_like_the_go_back_end_gets_it(run_proxy: RunProxy) -> None:
    asked = {**HI, "stream_options": {"include_usage": True}, "thinking": {"type": "disabled"}}
    events = [chunk(content="Hi"), chunk("stop"), {**chunk(), "choices": [], "usage": USAGE}, DONE]
    async with ragflow_before(run_proxy, streamed(*events)) as place:
        _, body = await place.ask(asked)
    assert ragflow.chat_stream(body) == ("Hi", 12)
    assert body.endswith(DONE)


@pytest.mark.parametrize("index", [0, None])
async def test_a_second_round_of_tools_is_forwarded_without_an_index(
    run_proxy: RunProxy, index: int | None
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [
        {"role": "assistant", "content": None, "tool_calls": [{**call, "index": index}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "4"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    body = {**HELLO, "messages": history, "tools": tools, "tool_choice": "auto"}
    async with ragflow_before(run_proxy, whole(message(content="4"))) as place:
        await place.ask(body)
    assert place.sent_up["messages"][0]["tool_calls"] == [call]
    assert (place.sent_up["tools"], place.sent_up["tool_choice"]) == (tools, "auto")


# --- embeddings, rerank


async def test_a_batch_of_sixteen_texts_returns_sixteen_vectors(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    texts = [f"chunk {number} 一段文字" for number in range(15)] + ["None"]
    async with run_proxy(gateway.url, credential=gateway.credential, options=RAGFLOW) as proxy:
        client = proxy.client()
        batch = await client.embeddings.create(
            model="e", input=texts, encoding_format="float", extra_body={"drop_params": True}
        )
        each = [await client.embeddings.create(model="e", input=[text]) for text in texts[:2]]  # in base64
    assert [item.index for item in batch.data] == [*range(16)]
    assert batch.usage.total_tokens > 0
    # Base64 has four bytes for each number, so the values are only nearly equal.
    assert each[1].data[0].embedding == pytest.approx(batch.data[1].embedding, abs=1e-6)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_rerank_passes_with_its_scores(run_proxy: RunProxy, path: str) -> None:
    documents = ["Is it sunny today?"]
    asked = {"model": "m", "query": "What's the weather?", "documents": documents, "top_n": 1}
    ranks = {"results": [{"index": 0, "relevance_score": 0.125}], "meta": {}}
    async with ragflow_before(run_proxy, whole(ranks)) as place:
        _, body = await place.ask({**asked, "return_documents": False}, path)
    assert place.sent_up == {**asked, "return_documents": False}
    assert body == json.dumps(ranks).encode()


# --- pictures and speech


@pytest.mark.parametrize("kind", ["png", "jpeg"])
async def test_an_image_is_forwarded_unchanged_and_its_description_returned(
    run_proxy: RunProxy, kind: str
) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{PIXEL * 100}"}}
    asked = {
        **HELLO,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "描述图片"}, picture]}],
    }
    async with ragflow_before(run_proxy, whole(message(content="一个像素"))) as place:
        _, body = await place.ask(asked)
    assert ragflow.vision(body) == ("一个像素", 12)
    assert place.sent_up == asked


async def test_speech_is_returned_byte_for_byte(run_proxy: RunProxy) -> None:
    sound = bytes(range(256)) * 300

    async def script(talk: Conversation) -> None:
        await talk.start_stream(content_type="audio/mpeg")
        for place in range(0, len(sound), 7000):
            await talk.chunk(sound[place : place + 7000])
        await talk.end()

    async with ragflow_before(run_proxy, script) as place:
        head, body = await place.ask({"model": "m", "voice": "alloy", "input": "你好"}, "/v1/audio/speech")
    assert (head.status, head.header("content-type"), body) == (200, ["audio/mpeg"], sound)


async def test_half_a_second_of_silence_is_transcribed(run_proxy: RunProxy) -> None:
    silence = b"RIFF" + (36 + 16000).to_bytes(4, "little") + b"WAVEfmt " + bytes(16 + 16000)
    async with ragflow_before(run_proxy, whole({"text": ""})) as place:
        client = openai.AsyncOpenAI(
            api_key="sk-test-7c1f0a", base_url=f"{place.proxy.url}/v1", max_retries=0, timeout=PATIENCE
        )
        async with client:
            told = await client.audio.transcriptions.create(model="asr", file=("silence.wav", silence))
    assert told.text == ""
    assert silence in place.upstream.requests[0].body
