"""The session of a visitor: a signed cookie, and its attributes behind TLS and for other sites."""

import json

import pytest

from tests.blueprints.chat_visits import FREE, chatting, send
from tests.conftest import RunProxy


@pytest.mark.parametrize(
    ("proto", "kind"), [("https", {"SameSite=None", "Secure", "Partitioned"}), ("http", {"SameSite=Lax"})]
)
async def test_the_cookie_is_cross_site_over_tls_if_other_sites_may_use_the_chat(
    run_proxy: RunProxy, proto: str, kind: set[str]
) -> None:
    async with chatting(run_proxy, FREE + 'origins = ["https://blog.example"]\n') as (_, proxy):
        answer, _ = await send(proxy.url, "GET", "/chat/session", f"X-Forwarded-Proto: {proto}")
        parts = {part.strip() for part in answer.header("set-cookie")[0].split(";")[1:]}
        assert kind <= parts


async def test_the_session_is_a_signed_cookie_for_the_path_of_the_chat(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (someone, proxy):
        answer, body = await send(proxy.url, "GET", "/chat/session")
        (cookie,) = answer.header("set-cookie")
        assert cookie.startswith("llm_chat=")
        assert {part.strip() for part in cookie.split(";")[1:]} == {"HttpOnly", "Path=/chat", "SameSite=Lax"}
        assert answer.header("cache-control") == ["no-store"]
        channel = json.loads(body)["channel"]
        value = cookie.partition(";")[0]
        again, body = await send(proxy.url, "GET", "/chat/session", f"Cookie: {value}")
        assert json.loads(body) == {"channel": channel, "busy": False}
        assert again.header("set-cookie") == []
        _, body = await send(proxy.url, "GET", "/chat/session", f"Cookie: {value[:-2]}xx")
        assert json.loads(body)["channel"] != channel
        assert channel != someone.channel


@pytest.mark.parametrize(("proto", "secure"), [("https", True), ("http", False)])
async def test_behind_tls_the_cookie_is_secure(run_proxy: RunProxy, proto: str, *, secure: bool) -> None:
    async with chatting(run_proxy) as (_, proxy):
        answer, _ = await send(proxy.url, "GET", "/chat/session", f"X-Forwarded-Proto: {proto}")
        assert ("Secure" in answer.header("set-cookie")[0]) is secure
