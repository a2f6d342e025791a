"""Requests that the chat rejects: foreign pages and channels, malformed bodies; and the response headers."""

import json

import pytest

from proxy.chat.event import Event
from tests.blueprints.chat_visits import FREE, OK, chatting, send, use_files
from tests.chat.visitor import chat_of, visitor
from tests.conftest import RunProxy


async def test_a_public_channel_is_readable_and_accepts_no_questions(run_proxy: RunProxy) -> None:
    async with (
        chatting(run_proxy, FREE + 'public_channels = ["sse"]\n') as (one, proxy),
        visitor(proxy.url) as other,
        one.listen(channel="sse") as first,
        other.listen(channel="") as second,  # a reader without a channel reads this one
    ):
        await chat_of(proxy).broker.publish("sse", Event({"message": "to all"}, "message_event"))
        assert [(await stream.next()).html for stream in (first, second)] == ["to all"] * 2
        for path in ("dialogue", "regenerate", "stop", "reset"):
            assert (await one.post(path, "hi", "sse"))[0] == 403


async def test_another_sessions_channel_is_403_on_every_route(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, FREE) as (someone, proxy), visitor(proxy.url) as stranger:
        assert await someone.post("dialogue", "") == OK
        for action in ("dialogue", "stop", "reset", "regenerate"):
            assert (await stranger.post(action, "x", someone.channel))[0] == 403, action
        status, answer = await stranger.get(f"stream?channel={someone.channel}")
        assert (status, answer["code"]) == (403, 0)
        assert (await stranger.get(f"session?channel={someone.channel}"))[0] == 403
        assert (await stranger.post("rename", channel=someone.channel, title="x"))[0] == 403


async def test_what_nobody_owns_cannot_be_deleted_or_claimed(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy, FREE) as (someone, proxy):
        await chat_of(proxy).broker.publish("queue", Event("of another program"))
        assert await someone.post("reset", channel="queue") == OK
        assert (await someone.post("dialogue", "hi", "queue"))[0] == 403
        assert (await someone.post("regenerate", channel="queue"))[0] == 403
        async with someone.listen(channel="queue") as stream:
            assert (await stream.next()).data == "of another program"


async def test_a_page_of_another_site_owns_the_channel_that_it_sends(run_proxy: RunProxy) -> None:
    async with (
        chatting(run_proxy) as (someone, proxy),
        visitor(proxy.url) as stranger,
        someone.listen(channel="5f2c-of-a-flask-site"),
    ):
        assert await someone.post("dialogue", "", "5f2c-of-a-flask-site") == OK
        assert (await stranger.get("stream?channel=5f2c-of-a-flask-site"))[0] == 403


async def test_no_channel_is_flask_sses_default(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (someone, proxy), visitor(proxy.url) as stranger:
        async with someone.http.get(f"{proxy.url}/chat/stream") as response:
            assert response.status == 200
        assert await someone.post("dialogue", "", "") == OK
        assert (await stranger.get("stream?channel=sse"))[0] == 403
        assert (await stranger.get("stream?channel="))[0] == 403


@pytest.mark.parametrize("channel", ["x" * 129, "%00", "a%0Ab"])
async def test_an_invalid_channel_name_is_400(run_proxy: RunProxy, channel: str) -> None:
    async with chatting(run_proxy) as (someone, _):
        assert (await someone.get(f"stream?channel={channel}"))[0] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "{own}"}, 200),
        ({"Origin": "{own}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://blog.example", "Sec-Fetch-Site": "same-site"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[x"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://chat.example", "X-Forwarded-Host": "chat.example"}, 200),
        ({"Origin": "https://chat.example", "X-Forwarded-Host": "chat.example:443"}, 200),
        ({"Origin": "https://chat.example", "X-Forwarded-Host": "chat.example:80"}, 403),
        ({"Origin": "https://chat.example:8443", "X-Forwarded-Host": "chat.example:8443"}, 200),
        ({"Origin": "https://chat.example:x", "X-Forwarded-Host": "chat.example"}, 403),
    ],
)
@pytest.mark.parametrize("action", ["dialogue", "stop", "reset"])
async def test_only_own_and_configured_pages_may_post(
    run_proxy: RunProxy, action: str, headers: dict[str, str], status: int
) -> None:
    async with chatting(run_proxy, FREE + 'origins = ["https://blog.example"]\n') as (someone, proxy):
        sent = {name: value.format(own=proxy.url) for name, value in headers.items()}
        assert (await someone.post(action, "", **sent))[0] == status


@pytest.mark.parametrize(
    "api", ["", '[cors]\norigins = ["https://app.example"]\n', '[cors]\norigins = ["*"]\n']
)
async def test_only_configured_pages_may_read(run_proxy: RunProxy, api: str) -> None:
    """`[cors]`, which is for the API, neither lets others read nor keeps these from reading."""
    async with chatting(run_proxy, FREE + 'origins = ["https://blog.example"]\n' + api) as (_, proxy):
        answer, _ = await send(
            proxy.url, "OPTIONS", "/chat/dialogue", "Origin: https://blog.example",
            "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type",
        )  # fmt: skip
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") == ["https://blog.example"]
        assert answer.header("access-control-allow-credentials") == ["true"]
        assert answer.header("access-control-allow-headers") == ["Content-Type"]
        other, _ = await send(proxy.url, "GET", "/chat/session", "Origin: https://evil.example")
        assert other.header("access-control-allow-origin") == []


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b'{"prompt": ""}', 200),
        ("application/json; charset=utf-8", b'{"prompt": null, "more": 1}', 200),
        ("application/json", b"{}", 200),
        ("application/json", b"[]", 400),
        ("application/json", b'{"prompt": 1}', 400),
        ("application/json", b"", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 4000, 400),
        ("text/plain", b'{"prompt": ""}', 415),
        ("application/x-www-form-urlencoded", b"prompt=x", 415),
    ],
)
async def test_a_question_must_be_json_with_a_prompt(
    run_proxy: RunProxy, kind: str, body: bytes, status: int
) -> None:
    async with chatting(run_proxy) as (_, proxy):
        answer, text = await send(
            proxy.url, "POST", "/chat/dialogue?channel=c", f"Content-Type: {kind}", body=body
        )
        assert answer.status == status
        assert json.loads(text)["code"] == (1 if status == 200 else 0)
        assert await chat_of(proxy).channels.owned("c") == (status == 200)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("dialogue", {"prompt": "x", "model": "other"}),
        ("dialogue", {"prompt": "x", "source": "elsewhere", "before": "1-1"}),
        ("regenerate", {"model": "other"}),
    ],
)
async def test_a_rejected_request_claims_no_channel(
    run_proxy: RunProxy, path: str, body: dict[str, str]
) -> None:
    async with chatting(run_proxy) as (_, proxy):
        data = json.dumps(body).encode()
        answer, _ = await send(
            proxy.url, "POST", f"/chat/{path}?channel=c", "Content-Type: application/json", body=data
        )
        assert answer.status in {400, 403}
        assert not await chat_of(proxy).channels.owned("c")


async def test_every_response_forbids_active_content(run_proxy: RunProxy) -> None:
    async with chatting(run_proxy) as (_, proxy):
        use_files(proxy, index_html="<p>")
        for path in ("/chat/", "/chat/session", "/chat/page/none.js", "/chat/dialogue"):
            answer, _ = await send(proxy.url, "GET", path)
            (policy,) = answer.header("content-security-policy")
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert answer.header("x-content-type-options") == ["nosniff"]
            assert answer.header("referrer-policy") == ["no-referrer"]
