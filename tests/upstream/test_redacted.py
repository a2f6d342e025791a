"""An upstream that quotes the current token in any form: the caller does not see it."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from aiohttp import WSMsgType, web

from proxy.credentials import UpstreamCredential
from proxy.secret_detection import random_parts
from proxy.upstream.redacted import TOKENS_REMEMBERED, SentSecrets, mask
from proxy.wire.event_stream import HEARTBEAT
from proxy.wire.headers import find_header
from proxy.wire.redaction import PIECE_BYTES_MAX, Redactor
from tests.blueprints.test_realtime import HANDSHAKE, connected
from tests.conftest import KEY, RunProxy
from tests.credentials.fakes import FakeIssuer, build_machine
from tests.loopback import until
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream
from tests.socket_upstream import socket_upstream
from tests.upstream.build import build_client, build_record, build_request, read_all
from tests.waiting import delay

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
TOKEN = "static/upstream+token=="
CREDENTIAL = f'source = "static"\nvalue = "{TOKEN}"'
QUERY = f'source = "static"\nvalue = "{TOKEN}"\ninject = {{ query = "access_token" }}'
SPECIAL = "".join(f"\\u{ord(char):04x}" if char in "/+=" else char for char in TOKEN)
FORMS = {
    "plain": TOKEN,
    "with its scheme": f"Bearer {TOKEN}",
    "in JSON": TOKEN.replace("/", "\\/"),
    "in escapes": SPECIAL,
    "in a URL": quote(TOKEN, safe=""),
    "in base64": base64.b64encode(f"Bearer {TOKEN}".encode()).decode(),
}


def is_clean(text: bytes) -> bool:
    """Return whether a text contains no form of the token."""
    found = [form for form in FORMS.values() if form.removeprefix("Bearer ").encode() in text]
    core = base64.b64encode(f"Bearer {TOKEN}".encode())[12:36]
    return not found and core not in text and b"upstream+token" not in text


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_headers_of_any_response_do_not_contain_it(run_proxy: RunProxy, form: str, status: int) -> None:
    async def script(talk: Conversation) -> None:
        headers = [f"X-Debug: sent {form}, thanks", f"WWW-Authenticate: Bearer error={form}", "X-Other: 1"]
        await talk.answer(b"{}", *headers, status=f"{status} X")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status == status
        (debug,) = answer.header("x-debug")
        assert is_clean(repr(answer.headers).encode())
        assert (debug[:5], debug[-8:], len(debug)) == ("sent ", ", thanks", len(f"sent {form}, thanks"))
        assert answer.header("x-other") == ["1"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("cut", [None, 40])
@pytest.mark.parametrize("chunked", [True, False])
async def test_the_body_of_an_error_does_not_contain_it_wherever_it_is_split(
    run_proxy: RunProxy, form: str, cut: int | None, chunked: bool  # noqa: FBT001
) -> None:  # fmt: skip
    body = b'{"error": {"message": "refused: %s, sorry"}}' % form.encode()
    pieces = [body] if cut is None else [body[:cut], body[cut:]]

    async def script(talk: Conversation) -> None:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        await talk.say(f"HTTP/1.1 400 No\r\n{JSON}\r\n{framing}\r\n\r\n".encode())
        for piece in pieces:
            await (talk.chunk(piece) if chunked else talk.say(piece))
            await delay(0.01)  # so that it arrives in a separate read
        if chunked:
            await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        got = await caller.body(answer)
        assert answer.status == 400
        assert is_clean(got)
        assert len(got) == len(body)
        message = json.loads(got)["error"]["message"]
        assert (message[:9], message[-7:]) == ("refused: ", ", sorry")


async def test_a_token_in_the_query_is_masked_too(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(talk.request.target, "X-Url: " + talk.request.target.decode(), status="404 No")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=QUERY) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("GET", "/v1/models/x?a=1")
        answer = await caller.answer()
        body = await caller.body(answer)
        assert body.startswith(b"/v1/models/x?a=1&access_token=*")
        assert is_clean(body + repr(answer.headers).encode())


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_an_error_that_is_compressed_is_expanded(
    run_proxy: RunProxy, coding: str, compress: object
) -> None:
    assert callable(compress)
    body = b'{"error": {"message": "%s"}}' % TOKEN.encode()

    async def script(talk: Conversation) -> None:
        await talk.answer(compress(body), f"Content-Encoding: {coding}", JSON, status="400 No")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert not answer.header("content-encoding")
        assert await caller.body(answer) == body.replace(TOKEN.encode(), b"*" * len(TOKEN))


@pytest.mark.parametrize("text", [b"short", b"long" * 100_000], ids=["short", "long"])
async def test_a_compressed_error_that_is_cut_does_not_look_complete(
    run_proxy: RunProxy, text: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(gzip.compress(text)[:-4], "Content-Encoding: gzip", status="400 No")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        if text == b"short":
            assert answer.status == 502
            return
        assert answer.status == 400
        with pytest.raises((asyncio.IncompleteReadError, ValueError)):
            await caller.body(answer)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "identity\r\nContent-Encoding: gzip"])
async def test_an_error_that_cannot_be_expanded_is_not_relayed(run_proxy: RunProxy, coding: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(b"\x0b\x02\x80abc\x03", f"Content-Encoding: {coding}", status="400 No")

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert (answer.status, answer.header("x-should-retry")) == (502, ["false"])


@pytest.mark.parametrize(
    "value",
    [
        "user7:pa55word-Zx84f9aK2mN7pQ1rS8tV3-tail99",
        "sk-corp_9dK3_aB3dE5fG7hJ9kL1mN3pQ5r_TAIL77xx",
        "Basic dXNlcjpwYXNz+abcDEF12345678901234==",
    ],
)
def test_a_header_is_masked_as_a_whole_although_a_part_of_it_looks_random(value: str) -> None:
    redactor = SentSecrets({"X-Api-Key": value}).add(None)
    assert random_parts(value)
    body = f"bad key {value}, sorry".encode()
    stars = f"bad key {'*' * len(value)}, sorry".encode()
    assert redactor.redact(body) == stars
    for cut in range(len(body)):
        stream = redactor.stream()
        assert stream.feed(body[:cut]) + stream.feed(body[cut:]) + stream.flush() == stars


async def test_other_tasks_run_while_long_data_is_masked() -> None:
    redactor, turns, ended = Redactor([TOKEN]), 0, False

    async def count_turns() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    data = (b"." * PIECE_BYTES_MAX + TOKEN.encode()) * 8
    async with asyncio.TaskGroup() as group:
        group.create_task(count_turns())
        assert await mask(redactor, data) == redactor.redact(data)
        ended = True
    assert turns >= 8


async def test_a_short_text_is_masked_at_once() -> None:
    redactor = Redactor([TOKEN])
    assert await mask(redactor, TOKEN.encode()) == b"*" * len(TOKEN)
    body = b"nothing to hide"
    assert await mask(redactor, body) is body


async def test_a_late_response_does_not_contain_its_own_token() -> None:
    late = asyncio.Event()

    async def script(talk: Conversation) -> None:
        (sent,) = talk.request.header("authorization")
        if talk.request.target.endswith(b"late"):
            await late.wait()
        await talk.answer(f"refused: {sent}".encode(), f"X-Debug: {sent}", status="400 No")

    now = 0.0
    machine = build_machine(FakeIssuer(prefix="secret-token-", lifetime=60), clock=lambda: now)
    async with raw_upstream(script) as upstream, asyncio.TaskGroup() as group:
        client = build_client(upstream.url, UpstreamCredential(machine))
        waiting = group.create_task(client.open(build_request(path=b"/late"), build_record()))
        await until(lambda: len(upstream.requests) == 1)
        for _ in range(2 * TOKENS_REMEMBERED):
            now += 100
            await read_all(await client.open(build_request(), build_record()))
        late.set()
        response = await waiting
        assert find_header(response.headers, b"x-debug") == b"Bearer " + b"*" * 14
        assert await read_all(response) == b"refused: Bearer " + b"*" * 14
        await client.close()
    assert (
        len({*(request.header("authorization")[0] for request in upstream.requests)})
        == 1 + 2 * TOKENS_REMEMBERED
    )


async def test_the_body_of_a_success_is_forwarded_unchanged(run_proxy: RunProxy) -> None:
    body = json.dumps({"echo": TOKEN}).encode()

    async def script(talk: Conversation) -> None:
        await talk.answer(body, JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        assert await caller.body(await caller.answer()) == body


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "%s", "code": null}}\n\n',
        b'event: error\ndata: {"type": "error", "message": "%s"}\n\n',
        b'event: response.failed\ndata: {"response": {"error": {"message": "%s"}}}\n\n',
        b'data: {"object": "error", "message": "%s"}\n\n',
    ],
)
async def test_an_error_event_does_not_contain_it(run_proxy: RunProxy, event: bytes) -> None:
    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        whole = b'data: {"choices": []}\n\n' + event % TOKEN.encode()
        for piece in (whole[:60], whole[60:]):
            await talk.chunk(piece)
            await delay(0.01)
        await talk.end()

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream": true}')
        body = await caller.body(await caller.answer())
        assert b"error" in body
        assert is_clean(body)


async def test_a_vendors_error_inside_a_success_does_not_contain_it(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(json.dumps({"error_code": 110, "error_msg": f"bad {TOKEN}"}).encode(), JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL, options='repairs = ["vendor_errors"]') as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        answer = await caller.answer()
        assert answer.status >= 400
        assert answer.header("x-content-type-options") == ["nosniff"]
        assert is_clean(await caller.body(answer))


async def test_a_long_error_inside_a_success_does_not_end_with_a_part_of_it(run_proxy: RunProxy) -> None:
    async def script(talk: Conversation) -> None:
        message = "x" * (2000 - len(TOKEN) // 2) + TOKEN
        await talk.answer(json.dumps({"error_code": 110, "error_msg": message}).encode(), JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL, options='repairs = ["vendor_errors"]') as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b"{}")
        body = await caller.body(await caller.answer())
    assert b"xxx***" in body
    assert TOKEN[:8].encode() not in body


EVENTS = "Content-Type: text/event-stream"
CHUNK = '{"choices": [{"index": 0, "delta": {"content": "a"}}]}'
ERROR = (
    f'{{"error": {{"message": "bad {TOKEN}", "code": "bad {TOKEN}", "type": "bad {TOKEN}"}}, "choices": []}}'
)
ERRORS_INSIDE = {
    "openai": (ERROR, JSON),
    "vendor": (f'{{"error_code": 110, "error_msg": "bad {TOKEN}"}}', JSON),
    "vendor without a number": (f'{{"errcode": "bad {TOKEN}", "errmsg": "bad {TOKEN}"}}', JSON),
    "first event": (f"data: {ERROR}\n\n", EVENTS),
    "second event": (f"data: {CHUNK}\n\ndata: {ERROR}\n\n", EVENTS),
    "second line": (f"{CHUNK}\n{ERROR}\n", "Content-Type: application/x-ndjson"),
    "in a choice": (f'{{"choices": [{{"finish_reason": "error", "error": {ERROR}}}]}}', JSON),
}


@pytest.mark.parametrize("stream", [b"true", b"false"])
@pytest.mark.parametrize(("said", "kind"), ERRORS_INSIDE.values(), ids=ERRORS_INSIDE)
async def test_an_error_inside_a_success_shows_it_neither_to_the_caller_nor_in_the_log(
    run_proxy: RunProxy, said: str, kind: str, stream: bytes
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(said.encode(), kind)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL, options='repairs = ["ragflow"]') as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream": %s}' % stream)
        answer = await caller.answer()
        body = await caller.body(answer)
        assert answer.status >= 400 or b"error" in body
        assert is_clean(body)
        await until(lambda: bool(proxy.exchanges))
    assert is_clean(repr(proxy.exchanges).encode())


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_error_inside_a_success_does_not_contain_it_after_a_heartbeat(
    run_proxy: RunProxy, chunked: bool  # noqa: FBT001
) -> None:  # fmt: skip
    beaten = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await beaten.wait()
        if chunked:
            await talk.start_stream(content_type="application/json")
            await talk.chunk(ERROR.encode())
            await talk.end()
        else:
            await talk.answer(ERROR.encode(), JSON)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL, options="heartbeat = 0.05") as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream": true}')
        answer = await caller.answer()
        assert await caller.chunk() == HEARTBEAT
        beaten.set()
        body = (await caller.body(answer)).replace(HEARTBEAT, b"")
        assert body.startswith(b'data: {"error"')
        assert b"bad ***" in body
        assert is_clean(body)


async def test_a_rejected_handshake_and_a_closed_websocket_do_not_reveal_it(run_proxy: RunProxy) -> None:
    def refuse(request: web.Request) -> web.Response | None:
        if "refuse" not in request.query:
            return None
        return web.Response(status=403, text=f"no: {TOKEN}", headers={"X-Debug": TOKEN})

    async def script(socket: web.WebSocketResponse) -> None:
        await socket.close(code=4001, message=f"bad {TOKEN}".encode())

    async with (
        socket_upstream(script, refuse) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
    ):
        async with raw_caller(proxy.url) as raw:
            path, key = "/v1/realtime?model=m&refuse=1", f"Authorization: Bearer {KEY}\r\n"
            await raw.write(HANDSHAKE.format(path=path, more=key).encode())
            answer = await raw.answer()
            assert answer.status == 403
            assert is_clean(await raw.body(answer) + repr(answer.headers).encode())
        async with connected(proxy) as caller:
            message = await caller.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 4001)
            assert message.extra == "bad " + "*" * len(TOKEN)


@pytest.mark.parametrize(
    "error",
    ['{"type": "error", "error": {"message": "bad %s"}}', '{"response": {"error": {"message": "é %s"}}}'],
)
@pytest.mark.parametrize("kind", [str, str.encode], ids=["text", "binary"])
async def test_an_error_on_a_websocket_does_not_reveal_it(
    run_proxy: RunProxy, error: str, kind: Callable[[str], str | bytes]
) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for text in ('{"type": "session.created"}', error % TOKEN, error % FORMS["in JSON"]):
            message = kind(text)
            await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
        await socket.close()

    async with (
        socket_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL) as proxy,
        connected(proxy) as caller,
    ):
        assert (await caller.receive()).data == kind('{"type": "session.created"}')
        assert (await caller.receive()).data == kind(error % ("*" * len(TOKEN)))
        assert (await caller.receive()).data == kind(error % ("*" * len(FORMS["in JSON"])))


async def test_public_words_of_fixed_headers_are_not_masked(run_proxy: RunProxy) -> None:
    content = "The standard of 2024-06-01: no error"
    text = f'data: {{"choices": [{{"delta": {{"content": "{content}"}}}}]}}\n\n'
    error = f'data: {{"error": {{"message": "bad {TOKEN} by standard of 2024-06-01"}}}}\n\n'

    async def script(talk: Conversation) -> None:
        await talk.answer((text + error).encode(), EVENTS, "X-Standard: standard")

    options = 'headers = { x-auth-mode = "standard", x-token-version = "2024-06-01" }'
    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL, options=options) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream": true}')
        answer = await caller.answer()
        assert answer.header("x-standard") == ["standard"]
        assert await caller.body(answer) == (text + error.replace(TOKEN, "*" * len(TOKEN))).encode()


@pytest.mark.parametrize(
    "payload",
    [
        '{"code": "InvalidApiKey", "message": "error: invalid key %s"}',
        '{"detail": "auth error: %s"}',
        '{"success": false, "msg": "error: %s"}',
        '{"base_resp": {"status_code": 1004, "status_msg": "login error: %s"}}',
        '{"choices": [], "message": "error: %s"}',
        '{"data": {"error": "%s"}}',
        '{"response": {"body": {"error": "%s"}}}',
        '{"choices": [{"delta": {"error": {"message": "%s"}}}]}',
        '{"type": "response.completed", "response": {"output": [{"type": "mcp_call", "error": "%s"}]}}',
        "error: %s",
    ],
)
@pytest.mark.parametrize("repairs", ["", 'repairs = ["ragflow"]'])
async def test_an_error_event_is_masked_whatever_its_shape(
    run_proxy: RunProxy, payload: str, repairs: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.answer(f"data: {payload % TOKEN}\n\ndata: [DONE]\n\n".encode(), EVENTS)

    async with (
        raw_upstream(script) as upstream,
        run_proxy(upstream.url, credential=CREDENTIAL, options=repairs) as proxy,
        raw_caller(proxy.url) as caller,
    ):
        await caller.send("POST", CHAT, JSON, body=b'{"stream": true}')
        assert TOKEN.encode() not in await caller.body(await caller.answer())
