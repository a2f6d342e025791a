"""The routes of the chat: who may use which channel, from which page, how often; headers, files, errors."""

import asyncio
import json

import pytest

from proxy.chat.channels import Ownership
from proxy.redis_connection import StoreUnavailable
from tests.blueprints.chat_visits import FREE, NOWHERE, OK, chatting, send, use_files
from tests.chat.visitor import Visitor, chat_of, states, visitor
from tests.conftest import KEY, RunProxy
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

# --- there, or not


async def test_without_the_section_only_the_api_is_served(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy:
        for path in ("/chat/", "/chat", "/chat/stream", "/chat/session", "/chat/dialogue", "/chat/drawer.js"):
            assert (await send(proxy.url, "GET", path))[0].status == 404
        assert (await send(proxy.url, "POST", "/chat/completions"))[0].status == 401


async def test_with_the_section_the_api_does_not_change(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (_, proxy):
        answer, body = await send(proxy.url, "POST", "/chat/completions", body=b"{}")
        assert answer.status == 401
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
        keyed, body = await send(
            proxy.url, "POST", "/chat/completions", f"Authorization: Bearer {KEY}", body=b"{}"
        )
        assert json.loads(body)["error"]["code"] == "upstream_unreachable"
        assert keyed.header("set-cookie") == []


async def test_no_key_is_required(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (someone, proxy):
        assert await someone.get("dialogue") == (200, b"Hello Flask-sse !")
        assert (await send(proxy.url, "GET", "/chat/session", "Authorization: Bearer nonsense"))[
            0
        ].status == 200


# --- sessions and channels


async def test_a_visitor_has_conversations_that_are_listed_renamed_and_deleted(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, FREE) as (someone, proxy), visitor(proxy.url) as stranger:
        assert await listed(someone) == []
        for channel, question in (("a", "first\nline"), ("b", "second")):
            async with someone.listen(channel=channel) as stream:
                await Visitor(someone.url, someone.http, channel).ask(question)
                await stream.turn()
        assert await listed(someone) == [("b", "second"), ("a", "first line")]
        assert await listed(stranger) == []
        assert await listed(someone, "?search=line") == [("a", "first line")]
        assert await listed(someone, "?search=%20") == [("b", "second"), ("a", "first line")]
        assert await listed(stranger, "?search=line") == []
        assert await someone.post("rename", channel="a", title=" renamed\u202e ") == OK
        async with someone.listen(channel="a") as stream:
            await Visitor(someone.url, someone.http, "a").ask("again")
            await stream.turn()
            await stream.turn()
        assert await listed(someone) == [("a", "renamed"), ("b", "second")]
        assert await someone.post("reset", channel="a") == OK
        assert await listed(someone) == [("b", "second")]
        for title in ("x", " "):
            assert (await someone.post("rename", channel="a", title=title))[0] == 404


async def test_only_own_conversations_and_offered_models_are_accepted(
    run_proxy: RunProxy,
) -> None:
    chat = FREE + 'models = ["x1", "x2"]\ntitle = "问答"\n'
    async with chatting(run_proxy, chat) as (someone, proxy), visitor(proxy.url) as stranger:
        session = (await someone.get("session"))[1]
        assert (session["title"], session["models"], session["model"]) == ("问答", ["x1", "x2"], "x1")
        async with someone.listen() as stream:
            assert (await someone.json("dialogue", prompt="hi", model="x2"))[0] == 200
            heard = await stream.turn()
        assert heard[-1].data["model"] == "x2"
        assert (await someone.json("dialogue", prompt="hi", model="x3"))[0] == 400
        assert (await someone.json("regenerate", model="x3"))[0] == 400
        edited = {"prompt": "hi", "source": someone.channel, "before": heard[0].id}
        assert (await stranger.json("dialogue", **edited))[0] == 403
        assert (await someone.json("dialogue", "new", **{**edited, "before": "x"}))[0] == 400
        assert await someone.json("dialogue", "new", **edited) == OK
        async with someone.listen(channel="new") as stream:
            heard = await stream.turn()
        assert heard[0].data["branch_of"] == someone.channel


async def listed(someone: Visitor, query: str = "") -> list[tuple[str, str]]:
    """Return the channels and titles of a visitor's conversations."""
    found = (await someone.get(f"conversations{query}"))[1]["conversations"]
    assert [entry["at"] for entry in found] == sorted((entry["at"] for entry in found), reverse=True)
    return [(entry["channel"], entry["title"]) for entry in found]


async def test_a_stream_that_began_before_the_channel_had_an_owner_ends_when_another_session_asks(
    run_proxy: RunProxy,
) -> None:
    async with (
        chatting(run_proxy, FREE) as (someone, proxy),
        visitor(proxy.url) as stranger,
        someone.listen(channel="sse") as own,
        stranger.listen(channel="sse") as foreign,
    ):
        assert await someone.post("dialogue", "你好", "sse") == OK
        assert states(await own.turn())
        with pytest.raises(EOFError):
            await foreign.turn()


async def test_a_visit_claims_no_channel_and_is_counted(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, '[chat]\nrate = "1/minute"\n') as (someone, proxy):
        visits = [(await someone.get("session?channel=c"))[0] for _ in range(10)]
        assert visits == [200] * 9 + [429]  # The visitor's first request was a visit as well.
        assert not await chat_of(proxy).channels.owned("c")
        assert not await chat_of(proxy).channels.owned(someone.channel)


async def test_no_log_contains_channels_or_prompts(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (someone, proxy):
        async with someone.listen() as stream:
            await someone.ask("a-secret-question")
            await stream.turn()
        lines = repr(proxy.lines)
        quiet = [line for line in proxy.exchanges if line.get("caller") is None]
    assert someone.channel not in lines
    assert "a-secret-question" not in lines
    assert {line["log_level"] for line in quiet} == {"debug"}


# --- POST requests


async def test_a_question_may_have_the_configured_length(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, FREE + "max_prompt_chars = 10\n") as (someone, _):
        assert await someone.post("dialogue", "问" * 10) == OK
        status, answer = await someone.post("dialogue", "问" * 11)
        assert (status, answer["code"]) == (200, 1)
        assert "10 characters at most" in answer["msg"]
        status, answer = await someone.post("dialogue", "x" * 100_000)
        assert (status, answer["code"]) == (413, 0)


@pytest.mark.parametrize("prompt", ["", "  \n", "\u200e\x00"])
async def test_an_empty_question_is_accepted_and_nothing_published(run_proxy: RunProxy, prompt: str) -> None:
    async with chatting(run_proxy) as (someone, proxy):
        assert await someone.post("dialogue", prompt) == OK
        assert not await chat_of(proxy).broker.has_events(someone.channel)


# --- rate limits


async def test_a_third_request_in_a_second_is_rejected(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, "[chat]\n") as (someone, proxy):
        for _ in range(2):
            assert await someone.post("dialogue", "") == OK
        assert await someone.post("dialogue", "") == (429, {"code": 0, "msg": "Too many requests!"})
        answer, _ = await send(proxy.url, "POST", "/chat/reset?channel=c")
        assert answer.status == 429
        assert answer.header("retry-after") == ["1"]
        assert await someone.post("stop") == OK  # a stop is never rate limited


async def test_a_forged_forwarded_for_is_ignored(run_proxy: RunProxy) -> None:
    settings = '[chat]\nrate = "2/hour"\n'
    async with chatting(run_proxy, settings) as (_, proxy):

        async def post(number: int, address: str) -> int:
            forged = f"X-Forwarded-For: 6.6.6.{number}, {address}"
            path = f"/chat/dialogue?channel=c{number}"
            answer, _ = await send(
                proxy.url, "POST", path, forged, "Content-Type: application/json", body=b'{"prompt": ""}'
            )
            return answer.status

        # The rightmost address, which the trusted proxy added, is counted.
        assert [await post(number, "198.51.100.1") for number in range(4)] == [200, 200, 429, 429]
        assert await post(9, "198.51.100.2") == 200


async def test_a_forged_forwarded_for_of_an_untrusted_peer_is_ignored(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY__ACCESS__TRUSTED_PROXIES", '["10.9.9.9"]')
    async with chatting(run_proxy, '[chat]\nrate = "2/hour"\n') as (someone, _):
        forged = [{"X-Forwarded-For": f"6.6.6.{number}"} for number in range(4)]
        statuses = [(await someone.post("dialogue", "", **headers))[0] for headers in forged]
    assert statuses == [200, 200, 429, 429]


# --- streams


async def test_reconnecting_to_an_expired_channel_without_owner_ends(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (someone, _):
        assert (await someone.get("stream?channel=gone&last_event_id=17-0"))[0] == 204
        assert (await someone.get("stream?channel=gone", **{"Last-Event-ID": "17-0"}))[0] == 204
        for after in ("0-0", None, "nonsense"):
            async with someone.listen(after=after, channel="new") as stream:
                assert await stream.block() == b"retry:2000\n"


async def test_an_open_page_reconnects_to_its_channel_after_its_events_expired(
    run_proxy: RunProxy,
) -> None:
    async with (
        chatting(run_proxy, FREE + 'public_channels = ["sse"]\n') as (someone, _),
        someone.listen(after="17-0") as own,
        someone.listen(after="42-0", channel="sse") as public,
    ):
        assert await own.block() == await public.block() == b"retry:2000\n"


async def test_streams_and_dialogues_per_address_are_limited(run_proxy: RunProxy) -> None:
    async def endless(talk: Conversation) -> None:
        await talk.caller_left()

    chat = FREE + "max_streams = 2\nmax_dialogues = 1\n"
    async with (
        raw_upstream(endless) as upstream,
        run_proxy(upstream.url, more=chat) as proxy,
        visitor(proxy.url) as one,
        visitor(proxy.url) as other,
    ):
        async with one.listen(), other.listen():
            assert (await one.get(f"stream?channel={one.channel}"))[0] == 429
        assert await one.post("dialogue", "hi") == OK
        assert (await other.post("dialogue", "hi"))[0] == 429
        await one.post("stop")
        async with asyncio.timeout(PATIENCE):
            while (await other.post("dialogue", "hi"))[0] == 429:
                pass


async def test_head_of_a_stream_is_answered_at_once(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (_, proxy):
        answer, _ = await send(proxy.url, "HEAD", "/chat/stream?channel=c")
        assert answer.status == 200
        assert answer.header("content-type") == ["text/event-stream; charset=utf-8"]


async def test_a_stream_survives_a_short_redis_outage_and_is_503_after_a_long_one(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chatting(run_proxy) as (someone, proxy):
        channels = chat_of(proxy).channels
        ownership, away = channels.ownership, ["once"]

        async def failing(channel: str, session: str) -> Ownership:
            if away:
                away[:] = away[:-1] if away == ["once"] else away
                raise StoreUnavailable("away")
            return await ownership(channel, session)

        monkeypatch.setattr(channels, "ownership", failing)
        monkeypatch.setattr(channels, "claim", failing)
        async with someone.listen() as stream:
            assert await stream.block() == b"retry:2000\n"
        away[:] = ["for", "ever"]
        status, answer = await someone.post("dialogue", "hi")
        assert (status, answer["code"]) == (503, 0)


# --- the page


async def test_the_page_and_its_files(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (_, proxy):
        use_files(proxy, index_html="<p>", drawer_js="1", icons__send_js="2")
        answer, body = await send(proxy.url, "GET", "/chat/")
        assert (answer.status, body) == (200, b"<p>")
        assert answer.header("content-type") == ["text/html; charset=utf-8"]
        assert answer.header("etag") == ['"<p>"']
        assert answer.header("cache-control") == ["no-cache"]
        assert (await send(proxy.url, "GET", "/chat/drawer.js"))[1] == b"1"
        assert (await send(proxy.url, "GET", "/chat/page/icons/send.js"))[1] == b"2"
        same, _ = await send(proxy.url, "GET", "/chat/drawer.js", 'If-None-Match: "1"')
        assert same.status == 304
        bare, _ = await send(proxy.url, "GET", "/chat")
        assert (bare.status, bare.header("location")) == (302, ["/chat/"])
        for path in ("/chat/page/none.js", "/chat/page/index", "/chat/page/%2e%2e/service.py"):
            assert (await send(proxy.url, "GET", path))[0].status in {400, 404}, path


async def test_errors_are_in_the_articles_shape(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (_, proxy):
        answer, body = await send(proxy.url, "GET", "/chat/page/none.js")
        assert (answer.status, json.loads(body)) == (404, {"code": 0, "msg": "no such file"})
