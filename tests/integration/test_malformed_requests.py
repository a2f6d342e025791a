"""Any bytes in the request line and headers get a well-formed response, which is not a failure of ours."""

import asyncio
import contextlib
import json
from http.client import HTTPMessage, parse_headers
from io import BytesIO

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import KEY, RunProxy
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

PATH = b"/v1/chat/completions"
BODY = b"{}"


async def ok(talk: Conversation) -> None:
    """Answer anything."""
    await talk.answer(b"{}", "Content-Type: application/json")


def request(
    method: bytes = b"POST", target: bytes = PATH, host: bytes = b"localhost", extra: bytes = b""
) -> bytes:
    """Return a request of these parts with the key of the caller."""
    return (
        b"%b %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n%b\r\n%b"
    ) % (method, target, host, KEY.encode(), extra, BODY)


async def exchange(url: str, sent: bytes) -> bytes:
    """Send bytes on a new connection, and return everything that the server sends back."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


def check(answer: bytes, *, is_head: bool = False) -> int:
    """Check that a response is well-formed, with errors in the envelope; return its status."""
    head, found, body = answer.partition(b"\r\n\r\n")
    assert found, answer
    status_line, _, lines = head.partition(b"\r\n")
    version, code, *_ = status_line.split(b" ")
    assert version == b"HTTP/1.1"
    status = int(code)
    headers: HTTPMessage = parse_headers(BytesIO(lines + b"\r\n\r\n"))
    assert not headers.defects
    assert status < 500 or status == 501, answer  # 501: a method that no server knows
    if status >= 400 and not is_head:
        assert headers["content-type"] == "application/json"
        assert len(body) == int(headers["content-length"])
        error = json.loads(body)["error"]
        assert error["message"]
        assert {*error} == {"message", "type", "param", "code"}
        assert headers["x-request-id"]
    return status


TARGETS = [
    b"?x", b"http://[", b"http://", b"http://[::1", b"http://a/v1/models", b"*", b"//", b"/\\", b"/%",
    b"/%zz", b"/v1/%00",
    b"/v1/%ff%fe", b"/v1/models?%ff", b"/v1/models?\xff", b"/v1/\xff", b"/v1/\x7f", b"/v1/a#b", b"/v1/..",
    b"/" + b"a" * 20_000,
    b"/" * 5000, b"/v1/" + b"a/" * 5000, b"a:b", b":", b"@", b"[", b"/v1/models?" + b"&" * 10_000,
    b"/chat/stream?channel=%ff",
    b"/livez?\xff", b"/metrics?%", b"javascript:alert(1)", b"/v1/;", b"/;", b"/.", b"/..", b"/%2e",
    b"/v1/realtime?model=%ff",
]  # fmt: skip
HOSTS = [
    b".", b"a..b", b"..", b"a" * 64, b"a" * 64 + b".b", b".a", b"-", b"a:b", b":", b":80", b"a:99999",
    b"a:-1", b"[", b"]", b"[::1",
    b"[x]", b"::1", b"\xff", b"xn--\xff", b"xn--a", b"\xe4\xbd\xa0", b"a b", b"a,b", b"a/b", b"a@b", b"%",
    b"%00", b"a\x01", b"a\x7f", b"",
    b"a" * 5000, b"localhost:0", b"127.1", b"0x7f.1", b"localhost.", b"LOCALHOST", b"*",
]  # fmt: skip
VALUES = [
    b"\x01", b"\x02", b"\x1b[2J", b"\x7f", b"\x80", b"\xff", b"\x85", b"\xe2\x80\xae",
    b"", b"\t", b"a" * 10_000,
]  # fmt: skip
HEADERS = [b"X-A: %b\r\n" % value for value in VALUES] + [
    b"X-Request-Id: \xff\r\n", b"Cookie: \xff=;=;;\r\n", b"Cookie: " + b";" * 5000 + b"\r\n",
    b"Accept: \xff;q=x\r\n",
    b"Content-Type: \xff\r\n", b"Content-Type: multipart/form-data; boundary=\xff\r\n",
    b"Content-Encoding: \xff\r\n",
    b"Range: bytes=\xff\r\n", b"If-None-Match: \xff\r\n", b"Authorization: \xff\r\n",
    b"Authorization: Basic =\r\n",
    b"X-Api-Key: \xff\r\n", b"Origin: \xff\r\n", b"Origin: http://[\r\n", b"Referer: http://[\r\n",
    b"Connection: \xff, x-a\r\n",
    b"X-Forwarded-For: \xff\r\n", b"X-Forwarded-For: [::1, %\r\n", b"X-Forwarded-Host: a..b\r\n",
    b"Forwarded: for=\xff\r\n",
    b"Last-Event-ID: \xff\r\n", b"Upgrade: \xff\r\n", b"Accept-Language: \xff\r\n", b"\xff: a\r\n",
    b": a\r\n", b"a b: c\r\n", b"a\r\n",
    b" a: b\r\n", b"X-A: b\n", b"X-A: b\r\r\n", b"X-A\x00: b\r\n", b"X-A: \x00\r\n", b"Host: b\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: \xff\r\n", b"Expect: \xff\r\n",
    b"Expect: 100-continue\r\n", b"TE: \xff\r\n",
    b"Sec-Fetch-Site: \xff\r\n", b"OpenAI-Organization: \xff\r\n", b"X-Should-Retry: \xff\r\n",
    b"Keep-Alive: \xff\r\n", b"Trailer: \xff\r\n",
]  # fmt: skip
CASES = (
    [request(target=target) for target in TARGETS]
    + [request(b"GET", target) for target in TARGETS]
    + [request(host=host) for host in HOSTS]
    + [request(b"GET", b"/livez", host) for host in HOSTS]
    + [request(b"GET", b"/nothing", host) for host in HOSTS]
    + [request(extra=extra) for extra in HEADERS]
    + [request(method) for method in (b"get", b"TRACE", b"CONNECT", b"BREW", b"\xff", b"M" * 40, b"PRI", b"")]
)


async def test_no_odd_target_host_or_header_is_a_500(run_proxy: RunProxy) -> None:
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        failed = []
        for sent in CASES:
            answer = await exchange(proxy.url, sent)
            try:
                check(answer)
            except (AssertionError, ValueError, KeyError, IndexError) as error:
                failed.append((sent[:120], answer[:120], repr(error)[:80]))
    assert failed == []


@pytest.mark.parametrize("byte", [0x01, 0x02, 0x1B, 0x7F])
async def test_a_control_character_in_a_header_is_rejected_or_relayed(run_proxy: RunProxy, byte: int) -> None:
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:
        status = check(await exchange(proxy.url, request(extra=b"X-A: a%cb\r\n" % byte)))
    assert status in {200, 400}
    assert len(upstream.requests) == (status == 200)


ANY_BYTES = st.binary(max_size=40)
TOKENS = st.lists(
    st.sampled_from([*b"/?#%:@[].;=&\\ \t", *range(0x21), 0x7F, 0x80, 0xFF, *b"aZ09-_~"]), max_size=30
).map(bytes)


async def test_any_bytes_get_a_well_formed_response(run_proxy: RunProxy) -> None:
    loop = asyncio.get_running_loop()
    async with raw_upstream(ok) as upstream, run_proxy(upstream.url) as proxy:

        @settings(
            max_examples=300,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(
            st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"]),
            st.one_of(st.just(PATH), TOKENS.map(lambda more: b"/" + more), TOKENS, ANY_BYTES),
            st.one_of(st.just(b"localhost"), TOKENS, ANY_BYTES),
            st.one_of(
                st.just(b""), st.tuples(TOKENS, TOKENS | ANY_BYTES).map(lambda pair: b"X%b: %b\r\n" % pair)
            ),
        )
        def answered(method: bytes, target: bytes, host: bytes, extra: bytes) -> None:
            sent = request(method, target, host, extra)
            running = asyncio.run_coroutine_threadsafe(exchange(proxy.url, sent), loop)
            # An empty line ends the head. The rest is another request, and only the first response counts.
            answer = running.result(2 * PATIENCE)
            head, _, rest = answer.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                len(rest),
            )
            check(head + b"\r\n\r\n" + rest[:length])

        await asyncio.to_thread(answered)
