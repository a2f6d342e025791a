"""The main job: OpenAI requests through the proxy to a gateway that requires a current token."""

import asyncio
from dataclasses import replace

import aiohttp
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.conftest import KEY, RunningGateway, RunningProxy, RunProxy
from tests.loopback import until
from tests.pace import PATIENCE, paced
from tests.raw_upstream import Conversation, raw_upstream

WHO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "你是谁"}]
ECHO = "As a mock AI Assitant, I can only echo your last message:你是谁"


def caller_session(proxy: RunningProxy) -> aiohttp.ClientSession:
    """A small client for many concurrent requests."""
    return aiohttp.ClientSession(
        proxy.url, headers={"Authorization": f"Bearer {KEY}"}, connector=aiohttp.TCPConnector(limit=0)
    )


async def ask(session: aiohttp.ClientSession) -> str:
    """Send one chat, and return the words of the answer."""
    async with session.post("/v1/chat/completions", json={"model": "m", "messages": WHO}) as response:
        answer = await response.json()
    assert response.status == 200, answer
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("path", ["/v1", "/agent/api/llm_proxy/v1", "/agent/api/llm_proxy", "", "/v1/v1"])
async def test_chat_arrives_at_every_mount(run_proxy: RunProxy, gateway: RunningGateway, path: str) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        answer = await proxy.client(path=path).chat.completions.create(model="m", messages=WHO)
    assert answer.choices[0].message.content == ECHO


async def test_a_stream_arrives_piece_by_piece(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        stream = await proxy.client().chat.completions.create(model="m", messages=WHO, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == ECHO
    assert len(pieces) > len(ECHO.split())


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings_go_to_their_own_upstream(
    run_proxy: RunProxy, gateway: RunningGateway, encoding: str
) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        answer = await proxy.client().embeddings.create(
            model="e",
            input=["一", "二"],
            encoding_format=encoding,  # type: ignore[arg-type]
        )
        line = proxy.exchanges[-1]
    assert [item.index for item in answer.data] == [0, 1]
    assert line["upstream"] == "embed"


async def test_models_and_every_other_path_are_relayed(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        models = await proxy.client().models.list()
        echo = await proxy.client().post("/echo/deep?x=1", cast_to=object, body={"a": 1})
    assert len(models.data) == 2
    assert isinstance(echo, dict)
    assert echo["target"] == "/v1/echo/deep?x=1"


async def test_a_thousand_cold_requests_fetch_one_token(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, token_delay=0.2)
    credential = gateway.credential + f"timeout = {PATIENCE}\nconnect_timeout = {PATIENCE}\n"
    options = f"timeouts = {{ connect = {PATIENCE} }}"
    async with (
        run_proxy(gateway.url, credential=credential, options=options) as proxy,
        caller_session(proxy) as session,
    ):
        answers = await asyncio.gather(*(ask(session) for _ in range(1000)))
    assert answers == [ECHO] * 1000
    assert gateway.gateway.stats.token_fetches == 1


async def test_a_chat_that_finds_no_token_yet_is_answered_within_its_clients_timeout(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, token_delay=0.3)
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        client = proxy.client().with_options(timeout=paced(5.0))  # after it the client hangs up
        assert gateway.gateway.stats.token_fetches == 0
        answer = await client.chat.completions.create(model="m", messages=WHO)
    assert answer.choices[0].message.content == ECHO
    assert gateway.gateway.stats.token_fetches == 1


async def test_tokens_that_expire_under_load_fail_no_caller(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    lifetime, lives = paced(1.0), 3
    gateway.gateway.options = replace(gateway.gateway.options, token_ttl=lifetime)
    credential = gateway.credential + f"timeout = {PATIENCE}\nconnect_timeout = {PATIENCE}\n"
    options = f"timeouts = {{ connect = {PATIENCE} }}"
    stop = asyncio.get_running_loop().time() + lifetime * lives
    asked = 0
    async with (
        run_proxy(gateway.url, credential=credential, options=options) as proxy,
        caller_session(proxy) as session,
    ):

        async def caller() -> None:
            nonlocal asked
            while asyncio.get_running_loop().time() < stop:
                assert await ask(session) == ECHO
                asked += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(caller())
    stats = gateway.gateway.stats
    assert asked > 20
    assert lives - 1 <= stats.token_fetches <= lives / 0.6 + 2
    assert stats.token_fetches_at_once_max == 1


async def test_a_revoked_token_is_replaced_unnoticed(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy, proxy.client() as client:
        await client.chat.completions.create(model="m", messages=WHO)
        gateway.gateway.tokens.revoke_all()
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="m", messages=WHO) for _ in range(50))
        )
        lines = proxy.exchanges
    assert all(answer.choices[0].message.content == ECHO for answer in answers)
    assert gateway.gateway.stats.token_fetches == 2
    assert {line["generation"] for line in lines[1:]} == {2}
    assert 1 <= sum(line.get("replays", 0) for line in lines) <= 50


async def test_a_gateway_that_rejects_every_token_gives_502_and_bounded_fetches(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, reject_tokens=True)
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy, proxy.client() as client:
        for _ in range(10):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="m", messages=WHO)
            assert caught.value.status_code == 502
            assert caught.value.response.headers["x-should-retry"] == "false"
    assert gateway.gateway.stats.token_fetches <= 2
    assert gateway.gateway.stats.tokens_rejected <= 2 * 10


async def test_a_rejection_inside_a_200_is_repaired_and_not_forwarded(run_proxy: RunProxy) -> None:
    bodies = [b'{"error_code": 110, "error_msg": "Access token invalid"}', b'{"choices": [], "n": 1.10}']

    async def script(talk: Conversation) -> None:
        await talk.answer(bodies[min(len(upstream.requests) - 1, 1)], "Content-Type: application/json")

    async def issue(talk: Conversation) -> None:
        token = b'{"access_token": "token-%d", "expires_in": 300}' % len(issuer.requests)
        await talk.answer(token, "Content-Type: application/json")

    async with raw_upstream(issue) as issuer, raw_upstream(script) as upstream:
        credential = f"""
            source = "http"
            url = "{issuer.url}/token"
            token = "access_token"
            invalidate_on = [{{ status = 200, path = "error_code", in = [110, 111] }}]
            inject = {{ query = "access_token" }}
        """
        async with (
            run_proxy(upstream.url, credential=credential) as proxy,
            caller_session(proxy) as session,
            session.post("/v1/chat/completions", json={"model": "m", "messages": WHO}) as response,
        ):
            assert await response.read() == bodies[1]
    assert [request.target.rpartition(b"=")[2] for request in upstream.requests] == [b"token-1", b"token-2"]
    assert upstream.requests[0].body == upstream.requests[1].body
    assert len(issuer.requests) == 2


async def test_without_a_token_the_response_is_503_at_once(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, token_status=500)
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy, proxy.client() as client:
        for _ in range(20):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="m", messages=WHO)
            assert caught.value.status_code == 503
            assert int(caught.value.response.headers["retry-after"]) >= 1
            assert "temporarily unavailable" in caught.value.message
    assert gateway.gateway.stats.token_fetches <= 2
    assert gateway.gateway.stats.chat_requests == 0


@pytest.mark.parametrize("key", ["wrong", KEY + "x", KEY[:-1]])
async def test_a_wrong_key_is_401_in_the_envelope(
    run_proxy: RunProxy, gateway: RunningGateway, key: str
) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        with pytest.raises(openai.AuthenticationError) as caught:
            await proxy.client(key=key).chat.completions.create(model="m", messages=WHO)
    assert caught.value.body == {
        "message": "Invalid API key",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert gateway.gateway.stats.chat_requests == 0


async def test_an_upstream_error_status_is_a_response(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, status=429)
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        with pytest.raises(openai.RateLimitError) as caught:
            await proxy.client().chat.completions.create(model="m", messages=WHO)
    assert caught.value.response.headers["retry-after"] == "1"


async def test_a_caller_who_leaves_mid_stream_closes_the_upstream(
    run_proxy: RunProxy, gateway: RunningGateway
) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, stall_after=3)
    stats = gateway.gateway.stats
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy, proxy.client() as client:
        stream = await client.chat.completions.create(model="m", messages=WHO, stream=True)
        await anext(aiter(stream))
        assert stats.streams_open == 1
        await stream.close()
        await until(lambda: stats.streams_open == 0)
        await until(lambda: bool(proxy.exchanges))
        line = proxy.exchanges[-1]
    assert stats.streams_closed_early == 1
    assert line["outcome"] == "client_gone"


async def test_a_stream_that_is_cut_ends_with_an_error(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    gateway.gateway.options = replace(gateway.gateway.options, cut_after=3)
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy, proxy.client() as client:
        stream = await client.chat.completions.create(model="m", messages=WHO, stream=True)
        for _ in range(3):
            await anext(aiter(stream))
        with pytest.raises(openai.APIError, match="the response was cut off"):
            await anext(aiter(stream))
        line = proxy.exchanges[-1]
    assert line["outcome"] == "upstream_aborted"
    assert line["status"] == 200


async def test_a_model_is_routed_to_its_upstream_and_renamed(run_proxy: RunProxy) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b"{}", "Content-Type: application/json")

    async with raw_upstream(answer) as upstream, raw_upstream(answer) as other:
        more = f"""
            [[routes.models]]
            match = "bge-*"
            upstream = "other"
            rename = "bge-m3-corp"
            [upstreams.other]
            base_url = "{other.url}/v1"
        """
        async with run_proxy(upstream.url, more=more) as proxy, caller_session(proxy) as session:
            for body in (b'{ "n": 1.10, "model": "bge-m3" }', b'{"model": "gpt-4o"}'):
                headers = {"Content-Type": "application/json"}
                async with session.post("/v1/embeddings", data=body, headers=headers) as response:
                    assert response.status == 200
            lines = proxy.exchanges
    assert [request.body for request in other.requests] == [b'{ "n": 1.10, "model": "bge-m3-corp" }']
    assert [request.body for request in upstream.requests] == [b'{"model": "gpt-4o"}']
    assert [(line["model"], line["upstream"]) for line in lines] == [("bge-m3", "other"), ("gpt-4o", "embed")]


async def test_usage_is_in_the_log_and_in_the_metrics(run_proxy: RunProxy, gateway: RunningGateway) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential) as proxy:
        client = proxy.client()
        whole = await client.chat.completions.create(model="m", messages=WHO)
        stream = await client.chat.completions.create(
            model="m", messages=WHO, stream=True, stream_options={"include_usage": True}
        )
        last = [chunk async for chunk in stream][-1]
        await client.embeddings.create(model="e", input=["一", "二"])
        await until(lambda: len(proxy.exchanges) == 3)
        text = proxy.services.metrics.render()[0].decode()
    assert whole.usage is not None
    assert last.usage is not None
    counted = [(line["prompt_tokens"], line["completion_tokens"]) for line in proxy.exchanges]
    told = [(used.prompt_tokens, used.completion_tokens) for used in (whole.usage, last.usage)]
    assert counted[:2] == told
    prompt, completion = (sum(pair[part] for pair in counted[:2]) for part in (0, 1))
    labels = 'caller="tester",kind="{}",model="m",upstream="chat"'
    assert f"llm_proxy_tokens_total{{{labels.format('prompt')}}} {prompt}.0" in text
    assert f"llm_proxy_tokens_total{{{labels.format('completion')}}} {completion}.0" in text
