"""Chat and plain completions."""

from proxy.gateway.answers import ChatAnswer
from proxy.gateway.completions import ChatMessage, ChatRequest, compose
from proxy.gateway.echo import LAST_MESSAGE, NO_MESSAGES
from tests.gateway.caller import Caller

HELLO = [{"role": "user", "content": "你好 world"}]


def test_max_tokens_counts_pieces() -> None:
    messages = [ChatMessage("user", "one two three")]
    cut = compose(ChatRequest(messages=messages, max_tokens=2), ChatAnswer)
    assert (cut.pieces, cut.finish_reason) == (["As ", "a "], "length")
    full = compose(ChatRequest(messages=messages, max_tokens=None), ChatAnswer)
    assert ("".join(full.pieces), full.finish_reason) == (LAST_MESSAGE + "one two three", "stop")
    assert full.prompt_tokens == 3
    exact = compose(ChatRequest(messages=messages, max_tokens=len(full.pieces)), ChatAnswer)
    assert exact.finish_reason == "stop"


async def test_a_plain_chat_answer_echoes(caller: Caller) -> None:
    body = {"model": "some-model", "messages": HELLO}
    response = await caller.client.post("/v1/chat/completions", json=body, headers=caller.headers)
    reply = await response.get_json()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert reply["choices"][0]["message"]["content"] == LAST_MESSAGE + "你好 world"
    assert reply["model"] == "some-model"
    assert caller.gateway.stats.chat_requests == 1


async def test_text_stays_utf8(caller: Caller) -> None:
    response = await caller.client.post(
        "/v1/chat/completions", json={"messages": HELLO}, headers=caller.headers
    )
    assert "你好 world".encode() in await response.get_data(as_text=False)


async def test_an_empty_conversation_gets_its_own_sentence(caller: Caller) -> None:
    response = await caller.client.post("/v1/chat/completions", json={"messages": []}, headers=caller.headers)
    assert (await response.get_json())["choices"][0]["message"]["content"] == NO_MESSAGES


async def test_a_plain_completion_echoes_the_last_prompt(caller: Caller) -> None:
    body = {"prompt": ["a", "b"]}
    response = await caller.client.post("/v1/completions", json=body, headers=caller.headers)
    reply = await response.get_json()
    assert reply["object"] == "text_completion"
    assert reply["choices"][0]["text"] == LAST_MESSAGE + "b"
    assert caller.gateway.stats.chat_requests == 0


async def test_a_bad_body_is_400_in_the_envelope(caller: Caller) -> None:
    response = await caller.client.post(
        "/v1/chat/completions", json={"messages": [{"content": "?"}]}, headers=caller.headers
    )
    assert response.status_code == 400
    error = (await response.get_json())["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "messages[0]"
