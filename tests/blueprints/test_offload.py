"""The route that gives nginx a token: to whom, for which requests, and for how long."""

import json

import pytest

from tests.conftest import KEY, RunProxy
from tests.raw_caller import RawAnswer, RawCaller, raw_caller

ROUTE = "/internal/credential"
CHAT = "/v1/chat/completions"
NOWHERE = "http://127.0.0.1:9"
SECRET = "offload-secret-of-the-tests"
OFFLOAD = f'[offload]\nsecret = "{SECRET}"\nupstreams = ["chat"]\ncache_seconds = 7\n'
LIMITED_KEY = "sk-limited-1b7a90"
LIMITED = f'[[access.keys]]\nname = "limited"\nkey = "{LIMITED_KEY}"\nmodels = ["m"]\n'


async def ask(
    caller: RawCaller, path: str = CHAT, *, key: str | None = KEY, secret: str = SECRET
) -> tuple[RawAnswer, str]:
    """Ask as nginx does; return the response and the code of its error."""
    await caller.send("GET", ROUTE, f"X-Offload-Secret: {secret}", f"X-Offload-Path: {path}", key=key)
    answer = await caller.answer()
    if answer.status == 204:
        return answer, ""
    return answer, json.loads(await caller.body(answer))["error"]["code"]


async def test_without_the_section_the_route_does_not_exist(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy, raw_caller(proxy.url) as nginx:
        answer, _ = await ask(nginx)
    assert answer.status == 404


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], SECRET + "x"])
async def test_only_the_secret_gives_the_token(run_proxy: RunProxy, secret: str) -> None:
    async with run_proxy(NOWHERE, more=OFFLOAD) as proxy, raw_caller(proxy.url) as nginx:
        await nginx.send("GET", ROUTE, f"X-Offload-Secret: {secret}", f"X-Offload-Path: {CHAT}")
        answer = await nginx.answer()
        assert answer.status == 401
        assert "static-upstream-token" not in repr(answer) + (await nginx.body(answer)).decode()


@pytest.mark.parametrize("key", [None, "sk-unknown"])
async def test_the_secret_does_not_replace_the_key_of_the_caller(
    run_proxy: RunProxy, key: str | None
) -> None:
    async with run_proxy(NOWHERE, more=OFFLOAD) as proxy, raw_caller(proxy.url) as nginx:
        answer, code = await ask(nginx, key=key)
    assert (answer.status, code) == (401, "invalid_api_key")


async def test_nginx_gets_the_token_the_upstream_and_the_fields_of_its_log(run_proxy: RunProxy) -> None:
    caller = '[[access.keys]]\nname = "团队 a"\nkey = "sk-of-team-a-5b1d"\n'
    async with (
        run_proxy("http://127.0.0.1:9/mount", more=OFFLOAD + caller) as proxy,
        raw_caller(proxy.url) as nginx,
    ):
        answer, _ = await ask(nginx, key="sk-of-team-a-5b1d")
    assert answer.status == 204
    assert answer.header("upstream-offload") == ["chat"]
    assert answer.header("caller-offload") == ["%E5%9B%A2%E9%98%9F%20a"]  # a header holds only ASCII
    assert answer.header("endpoint-offload") == ["chat/completions"]
    assert answer.header("cache-control") == ["max-age=6, stale-while-revalidate=1, stale-if-error=61"]
    assert "Bearer static-upstream-token" in [value for _, value in answer.headers]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/embeddings", 403),  # goes to an upstream that [offload] does not name
        ("/v1/models", 403),
        ("/v1/./chat/completions", 400),
        ("/v1/chat%2Fcompletions", 400),
        ("", 400),
    ],
)
async def test_the_proxy_keeps_what_nginx_may_not_relay(run_proxy: RunProxy, path: str, status: int) -> None:
    async with run_proxy(NOWHERE, more=OFFLOAD) as proxy, raw_caller(proxy.url) as nginx:
        answer, _ = await ask(nginx, path)
    assert answer.status == status
    assert "static-upstream-token" not in repr(answer)


async def test_nginx_remembers_for_how_long_the_proxy_relays(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=OFFLOAD + LIMITED) as proxy, raw_caller(proxy.url) as nginx:
        answer, code = await ask(nginx, key=LIMITED_KEY)
    assert (answer.status, code) == (403, "endpoint_forbidden")
    assert answer.header("cache-control") == ["max-age=6, stale-while-revalidate=1"]


async def test_before_the_service_ends_nginx_gets_no_more_tokens(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=OFFLOAD) as proxy, raw_caller(proxy.url) as nginx:
        assert (await ask(nginx))[0].status == 204
        proxy.drain.announced = True
        assert (await ask(nginx))[0].status == 403


async def test_answers_to_nginx_are_counted_by_caller(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=OFFLOAD + LIMITED) as proxy, raw_caller(proxy.url) as nginx:
        keys = (KEY, KEY, LIMITED_KEY, "sk-unknown")
        assert [(await ask(nginx, key=key))[0].status for key in keys] == [204, 204, 403, 401]
        text = proxy.services.metrics.render()[0].decode()
    counted = [line for line in text.splitlines() if line.startswith("llm_proxy_offload_answers_total{")]
    assert counted == [
        'llm_proxy_offload_answers_total{caller="tester",result="granted"} 2.0',
        'llm_proxy_offload_answers_total{caller="limited",result="refused"} 1.0',
    ]


async def test_the_status_page_names_the_callers_that_nginx_may_serve(run_proxy: RunProxy) -> None:
    page_key = "status-key-8f3a-5b20-91c7"
    more = f'{OFFLOAD}{LIMITED}[status]\nkey = "{page_key}"\n'
    async with run_proxy(NOWHERE, more=more) as proxy, raw_caller(proxy.url) as nginx:
        assert [(await ask(nginx, key=key))[0].status for key in (KEY, LIMITED_KEY)] == [204, 403]
        await nginx.send("GET", "/status", key=page_key)
        html = (await nginx.body(await nginx.answer())).decode()
    assert html.count("+ nginx</span>") == 1
    assert 'tester <span class="quiet">+ nginx</span>' in html
