"""The routes of the status page: absent without `[status]`, closed without the key and to other sites."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.app import reload
from proxy.app_parts import app_parts
from proxy.secret import Secret
from proxy.settings import load_settings
from proxy.status import service
from proxy.status.service import READERS_MAX
from proxy.status.session import SECONDS, new_session
from tests.conftest import KEY, RunningGateway, RunningProxy, RunProxy
from tests.loopback import until
from tests.raw_caller import RawAnswer, RawCaller, raw_caller
from tests.raw_upstream import Conversation, raw_upstream

NOWHERE = "http://127.0.0.1:1"
STATUS_KEY = "status-key-8f3a-5b20-91c7"
ON = f'[status]\nkey = "{STATUS_KEY}"\n'
BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
FORM = "Content-Type: application/x-www-form-urlencoded"
WITH_KEY = f"Authorization: Bearer {STATUS_KEY}"
PATHS = ("/status", "/status/events", "/status/page/status.css", "/status/page/tokens.css")


def session(key: str = STATUS_KEY, age: float = 0.0) -> str:
    """Return the header of a browser that has signed in."""
    return f"Cookie: llm_status={new_session(Secret(key), time.time() - age)}"


async def ask(
    proxy: RunningProxy, method: str, path: str, *headers: str, body: bytes = b""
) -> tuple[RawAnswer, str]:
    """Send a request without a caller's key."""
    async with raw_caller(proxy.url) as caller:
        await caller.send(method, path, *headers, body=body, key=None)
        answer = await caller.answer()
        whole = b"" if method == "HEAD" else await caller.body(answer)
        return answer, whole.decode()


async def sign_in(proxy: RunningProxy, key: str, *headers: str) -> tuple[RawAnswer, str]:
    """Sign in with the form."""
    return await ask(proxy, "POST", "/status/sign-in", FORM, *headers, body=f"key={key}".encode())


# --- on and off


async def test_without_its_key_there_is_no_page_and_nothing_is_counted(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE) as proxy:
        for path in PATHS:
            assert (await ask(proxy, "GET", path, WITH_KEY))[0].status == 404
        assert (await sign_in(proxy, STATUS_KEY))[0].status == 404
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", "/v1/chat/completions", body=b"{}")
            assert (await caller.answer()).status == 502
        assert proxy.services.traffic is None
        assert '"/status"' not in (await ask(proxy, "GET", "/", BROWSER))[1]


async def test_the_index_links_the_page(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        assert 'href="/status"' in (await ask(proxy, "GET", "/", BROWSER))[1]


async def test_paths_of_the_same_name_below_v1_are_relayed(run_proxy: RunProxy) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b"{}", "Content-Type: application/json")

    async with (
        raw_upstream(answer) as upstream,
        run_proxy(upstream.url, more=ON) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        for path in ("/v1/status", "/v1/status/events", "/agent/api/llm_proxy/v1/status/sign-in"):
            await caller.send("POST", path, body=b"{}")
            found = await caller.answer()
            assert (found.status, await caller.body(found)) == (200, b"{}")
        targets = [request.target for request in upstream.requests]
    assert targets == [b"/v1/status", b"/v1/status/events", b"/v1/status/sign-in"]


async def test_a_reload_changes_the_key_and_turns_the_page_off(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        path = tmp_path / "proxy.toml"
        text = path.read_text()
        path.write_text(text.replace(STATUS_KEY, "another-status-key-0"))
        await reload(proxy.app, load_settings(path, {}))
        assert (await ask(proxy, "GET", "/status", WITH_KEY))[0].status == 401
        assert (await ask(proxy, "GET", "/status", session()))[0].status == 401
        assert (await ask(proxy, "GET", "/status", session("another-status-key-0")))[0].status == 200
        path.write_text(text.replace(ON, ""))
        await reload(proxy.app, load_settings(path, {}))
        assert (await ask(proxy, "GET", "/status", session("another-status-key-0")))[0].status == 404


# --- the key


async def test_only_its_own_key_opens_the_page(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        for path in ("/status", "/status/events"):
            for headers in (
                [],
                [f"Authorization: Bearer {KEY}"],
                [f"Authorization: Basic {STATUS_KEY}"],
                ["Authorization: Bearer"],
                ["Cookie: llm_status="],
                [f"Cookie: llm_status={STATUS_KEY}"],
                [session("another-status-key-0")],
                [session(age=SECONDS + 1)],
                [session(), "Authorization: Bearer wrong"],
            ):
                answer, body = await ask(proxy, "GET", path, *headers)
                assert answer.status == 401, headers
                assert answer.header("www-authenticate") == ["Bearer"]
                assert "tester" not in body
        assert (await ask(proxy, "GET", "/status", WITH_KEY))[0].status == 200
        assert (await ask(proxy, "GET", "/status", session()))[0].status == 200
        assert (await ask(proxy, "GET", f"/status?key={STATUS_KEY}"))[0].status == 401


async def test_the_key_of_the_page_is_not_an_api_key(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        assert (await ask(proxy, "POST", "/v1/embeddings", WITH_KEY, body=b"{}"))[0].status == 401


async def test_a_browser_gets_a_form_and_a_session_for_the_key(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, form = await ask(proxy, "GET", "/status", BROWSER)
        assert answer.status == 401
        assert 'action="/status/sign-in' in form
        answer, _ = await sign_in(proxy, STATUS_KEY)
        assert (answer.status, answer.header("location")) == (303, ["/status?lang=en"])
        (cookie,) = answer.header("set-cookie")
        value, *attributes = [part.strip() for part in cookie.split(";")]
        assert {*attributes} >= {"HttpOnly", "SameSite=Strict", "Path=/status", f"Max-Age={SECONDS}"}
        assert STATUS_KEY not in cookie
        assert (await ask(proxy, "GET", "/status", f"Cookie: {value}"))[0].status == 200


@pytest.mark.parametrize(("proto", "is_secure"), [("https", True), ("http", False)])
async def test_over_tls_the_cookie_is_never_sent_without_it(
    run_proxy: RunProxy, proto: str, *, is_secure: bool
) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, _ = await sign_in(proxy, STATUS_KEY, f"X-Forwarded-Proto: {proto}")
        assert ("Secure" in answer.header("set-cookie")[0]) is is_secure


async def test_a_wrong_key_is_logged_and_never_shown(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, form = await sign_in(proxy, "wrong%3Cb%3E")
        assert answer.status == 401
        assert answer.header("set-cookie") == []
        assert "wrong<b>" not in form
        await until(lambda: len(proxy.exchanges) == 1)
        (line,) = proxy.exchanges
        assert (line["log_level"], line["outcome"]) == ("info", "invalid_api_key")
        assert STATUS_KEY not in str(proxy.lines)


@pytest.mark.parametrize("key", ["%C3%A9", "%FF", "%00", "%", "é", "密码", "%ED%A0%80", "&key=x", "=", ";"])
async def test_any_other_key_is_a_wrong_key(run_proxy: RunProxy, key: str) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, form = await sign_in(proxy, key)
    assert answer.status == 401
    assert 'role="alert"' in form


async def test_a_form_that_is_too_large_is_rejected(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        assert (await sign_in(proxy, "x" * 10_000))[0].status == 413


async def test_signing_out_removes_the_cookie(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, _ = await ask(proxy, "POST", "/status/sign-out", session())
        assert answer.status == 303
        assert answer.header("set-cookie")[0].startswith("llm_status=;")
        assert "Max-Age=0" in answer.header("set-cookie")[0]


# --- other sites


async def test_a_page_that_rebinds_its_name_is_rejected(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy, raw_caller(proxy.url) as caller:
        for path in PATHS:
            await caller.write(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n{WITH_KEY}\r\n\r\n".encode())
            answer = await caller.answer()
            assert answer.status == 403
            await caller.body(answer)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Origin: http://proxy.localhost", 303),
        ("Sec-Fetch-Site: same-origin", 303),
    ],
)
async def test_forms_of_other_sites_are_rejected(run_proxy: RunProxy, header: str, status: int) -> None:
    more = ON + '[cors]\norigins = ["*"]\n'  # those pages may call the API, but not sign in
    async with run_proxy(NOWHERE, more=more) as proxy:
        assert (await sign_in(proxy, STATUS_KEY, header))[0].status == status


@pytest.mark.parametrize("path", PATHS)
async def test_every_response_forbids_active_content_and_frames(run_proxy: RunProxy, path: str) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, _ = await ask(proxy, "HEAD", path, WITH_KEY)
        assert answer.status == 200
        (policy,) = answer.header("content-security-policy")
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.header("x-content-type-options") == ["nosniff"]


# --- the content of the page


async def test_it_shows_who_called_and_how_that_ended(gateway: RunningGateway, run_proxy: RunProxy) -> None:
    async with run_proxy(gateway.url, credential=gateway.credential, more=ON) as proxy:
        stream = await proxy.client().chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        async for _ in stream:
            pass
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", "/v1/chat/completions", "X-Request-Id: find-me-1", body=b"[]")
            assert (await caller.answer()).status == 400
        await until(lambda: len(proxy.exchanges) == 2)
        _, html = await ask(proxy, "GET", "/status", WITH_KEY)
        assert '<th scope="row" role="rowheader">tester</th>' in html
        assert "find-me-1" in html
        assert "<code>2xx</code>&nbsp;1" in html
        assert re.search(r"left of (5\smin|4\smin\s59\ss)", html)
        assert "no\N{NO-BREAK SPACE}streams" not in html
        for secret in (KEY, STATUS_KEY, "demo-secret"):
            assert secret not in html


async def test_a_running_stream_is_shown(run_proxy: RunProxy) -> None:
    go_on = asyncio.Event()

    async def hold(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(b"data: {}\n\n")
        await go_on.wait()
        await talk.end()

    async with (
        raw_upstream(hold) as upstream,
        run_proxy(upstream.url, more=ON) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", "/v1/chat/completions", body=b'{"stream": true}')
        answer = await caller.answer()
        overview = await app_parts(proxy.app).status.overview()
        assert (overview.streams, overview.running) == (1, 1)
        assert [(row.name, row.streams) for row in overview.callers] == [("tester", 1)]
        go_on.set()
        await caller.body(answer)


# --- events


@asynccontextmanager
async def reader(proxy: RunningProxy, *headers: str) -> AsyncIterator[RawCaller]:
    """Open a stream of events as a reader."""
    async with raw_caller(proxy.url) as caller:
        await caller.send("GET", "/status/events", *(headers or (session(),)), key=None)
        answer = await caller.answer()
        assert answer.status == 200
        assert answer.header("content-type") == ["text/event-stream; charset=utf-8"]
        assert answer.header("x-accel-buffering") == ["no"]
        yield caller


async def test_events_begin_with_all_parts_and_go_on_with_what_changes(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PERIOD_SECONDS", 0.0)
    async with run_proxy(NOWHERE, more=ON) as proxy, reader(proxy) as events:
        read = await events.chunk() + await events.chunk()
        assert read.startswith(b"retry: 2000\n\n")
        assert read.count(b"event: part\n") == 6
        async with raw_caller(proxy.url) as caller:
            await caller.send("POST", "/v1/chat/completions", body=b"{}")
            await caller.answer()
        while b'id="callers"' not in (read := await events.chunk()):
            assert b'id="upstreams"' not in read
        assert b"tester" in read


async def test_events_end_when_the_key_changes(
    run_proxy: RunProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PERIOD_SECONDS", 0.0)
    async with (
        run_proxy(NOWHERE, more=ON) as proxy,
        reader(proxy) as by_session,
        reader(proxy, WITH_KEY) as by_key,
    ):
        path = tmp_path / "proxy.toml"
        path.write_text(path.read_text().replace(STATUS_KEY, "another-status-key-0"))
        await reload(proxy.app, load_settings(path, {}))
        for events in (by_session, by_key):
            while await events.chunk():
                pass


async def test_a_reader_holds_no_old_configuration(run_proxy: RunProxy, tmp_path: Path) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy, reader(proxy):
        before = proxy.services
        await reload(proxy.app, load_settings(tmp_path / "proxy.toml", {}))
        assert before.users.may_close


async def test_events_end_at_once_when_the_service_drains(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy, reader(proxy) as events:
        await events.chunk()
        proxy.drain.started = True
        while await events.chunk():
            pass


async def test_the_number_of_readers_is_limited(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        callers = [reader(proxy) for _ in range(READERS_MAX)]
        for caller in callers:
            await caller.__aenter__()
        answer, _ = await ask(proxy, "GET", "/status/events", session())
        assert answer.status == 503
        for caller in callers:
            await caller.__aexit__(None, None, None)
        await until(lambda: not app_parts(proxy.app).status._readers)
        async with reader(proxy):
            pass


async def test_files_are_cached_by_their_content(run_proxy: RunProxy) -> None:
    async with run_proxy(NOWHERE, more=ON) as proxy:
        answer, body = await ask(proxy, "GET", "/status/page/status.js")
        assert answer.header("content-type") == ["text/javascript; charset=utf-8"]
        assert "EventSource" in body
        async with raw_caller(proxy.url) as caller:
            tag = f"If-None-Match: {answer.header('etag')[0]}"
            await caller.send("GET", "/status/page/status.js", tag, key=None)
            assert (await caller.answer()).status == 304
        assert (await ask(proxy, "GET", "/status/page/page.css"))[0].status == 404
