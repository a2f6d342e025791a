"""LangChain, LlamaIndex, Cohere's client and the Vercel AI SDK, unchanged but for the base URL."""

import pytest

from tests.clients.answers import (
    CUT,
    ECHO,
    HELD,
    USAGE,
    arrived_in_pieces,
    vectors,
)
from tests.clients.client_process import NODE, find_environment, run_client
from tests.clients.conftest import Place
from tests.conftest import KEY, RunningOddGateway, RunProxy


async def test_langchain(place: Place, subtests: pytest.Subtests) -> None:
    said = await run_client("frameworks", "langchain_client.py", place.url, KEY)

    with subtests.test("a chat arrives"):
        assert said["chat"] == ECHO
        assert said["asynchronous"] == [ECHO, ECHO]
    with subtests.test("a stream arrives piece by piece, with its usage where asked for"):
        assert arrived_in_pieces(said["stream"])
        assert [said["usage"]["input_tokens"], said["usage"]["output_tokens"]] == USAGE
    with subtests.test("texts are embedded as texts, or by the numbers of their tokens"):
        assert said["embeddings"]["by_texts"] == vectors("一", "two words")
        assert said["embeddings"]["by_tokens"] == vectors(*said["embeddings"]["tokens"])
    with subtests.test("a wrong key is an authentication error"):
        assert said["wrong_key"][0] == "OpenAIAuthenticationError"
    with subtests.test("a stream that is cut is an error"):
        assert said["cut"] == ["APIError", CUT]


async def test_the_token_ids_of_langchain_are_decoded_if_configured(
    run_proxy: RunProxy, odd_gateway: RunningOddGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    (encodings,) = find_environment("frameworks").glob(
        "lib/*/site-packages/llama_index/core/_static/tiktoken_cache"
    )
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(encodings))
    key = "sk-langchain-51c0"
    caller = (
        f'[[access.keys]]\nname = "langchain"\nkey = "{key}"\nrepairs = ["langchain", "decode_token_ids"]'
    )
    async with run_proxy(odd_gateway.url, credential=odd_gateway.credential, more=caller) as proxy:
        said = (await run_client("frameworks", "langchain_client.py", proxy.url, key))["embeddings"]
    assert said["by_tokens"] == said["by_texts"] == vectors("一", "two words")


async def test_llama_index(place: Place, subtests: pytest.Subtests) -> None:
    said = await run_client("frameworks", "llama_index_client.py", place.url, KEY)

    with subtests.test("a chat arrives"):
        assert said["chat"] == ECHO
        assert said["asynchronous"] == [ECHO, ECHO]
    with subtests.test("a stream arrives piece by piece"):
        assert arrived_in_pieces(said["stream"])
    with subtests.test("plain completions arrive"):
        assert said["complete"] == ECHO
    with subtests.test("a wrong key is an authentication error"):
        assert said["wrong_key"][0] == "AuthenticationError"
    with subtests.test("a stream that is cut is an error"):
        assert said["cut"] == ["APIError", CUT]


@pytest.mark.parametrize("environment", ["frameworks", "oldest"])
async def test_cohere_reranks(place: Place, environment: str) -> None:
    said = await run_client(environment, "cohere_client.py", place.url, KEY)

    ranks = [[2, 1.0], [1, 0.667], [0, 0.333]]
    assert said.pop("wrong_key")[1] == 401
    assert said.pop("second_version", [ranks, ranks]) == [ranks, ranks]  # newer releases have it
    assert said == {"root": ranks, "v1": ranks}


async def test_the_vercel_ai_sdk(place: Place, subtests: pytest.Subtests) -> None:
    said = await run_client(NODE, "ai_sdk.mjs", place.url, KEY)

    with subtests.test("a chat arrives, with its usage"):
        assert said["chat"] == {"text": ECHO, "usage": USAGE}
    with subtests.test("a stream arrives piece by piece, with its usage"):
        assert arrived_in_pieces(said["stream"]["pieces"])
        assert said["stream"]["usage"] == USAGE
    with subtests.test("vectors arrive"):
        assert said["embeddings"] == vectors("一", "二")
    with subtests.test("a wrong key is the gateway's own error"):
        assert said["wrong_key"] == ["AI_APICallError", 401, "Invalid API key"]
    with subtests.test("a stream that is cut is an error after its pieces"):
        assert said["cut"] == {"pieces": HELD, "errors": [CUT]}
    with subtests.test("pieces arrive at once, and a client who leaves closes the upstream"):
        assert said["leave"] == HELD
        assert await place.client_has_left()
