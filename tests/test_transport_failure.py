"""Every reason for a request without a response is explained, with a cure and without secrets."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from proxy.transport_failure import FailureKind, explain, origin_of
from proxy.upstream.transport import UpstreamTransport
from tests.pace import PATIENCE, paced
from tests.ports import refusing_port
from tests.tls_servers import listening, make_certificate

CANARY = "canary-query-5d1f"
SHORT = paced(0.5)
Ask = Callable[..., Awaitable[BaseException]]


async def ask_by_httpx2(url: str, *, trust: ssl.SSLContext | bool) -> BaseException:
    """Send a request as the token sources do."""
    timeout = httpx2.Timeout(SHORT)
    async with httpx2.AsyncClient(verify=trust, timeout=timeout, trust_env=False) as client:
        try:
            await client.post(f"{url}/token?secret={CANARY}", json={"a": 1})
        except httpx2.HTTPError as error:
            return error
    raise AssertionError("it was answered")


async def ask_by_transport(url: str, *, trust: ssl.SSLContext | bool) -> BaseException:
    """Send a request as to an upstream."""
    async with UpstreamTransport(tls=trust) as transport:
        target = f"/v1/x?token={CANARY}".encode()
        try:
            async with asyncio.timeout(PATIENCE):
                response = await transport.send("POST", url, target, [], b"{}", connect=SHORT)
                async with contextlib.aclosing(response):
                    while await response.read():
                        pass
        except httpx2.TransportError as error:
            return error
    raise AssertionError("it was answered")


@pytest.fixture(params=[ask_by_httpx2, ask_by_transport], ids=["httpx2", "transport"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each of the two HTTP libraries."""
    ask: Ask = request.param
    return ask


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    linger = b"\1\0\0\0\0\0\0\0"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def is_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def sends_a_tls_alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"\x15\x03\x01\x00\x02\x02\x46")
    await writer.drain()


async def speaks_ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(f"{CANARY}\r\n\r\n".encode())
    await writer.drain()
    await reader.read()


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{CANARY}".encode())
    await writer.drain()


def told(error: BaseException, url: str, proxy: str | None = None) -> tuple[FailureKind, str]:
    """Explain a failure, and check what every explanation must and must not contain."""
    failure = explain(error, f"{url}/v1?key={CANARY}", proxy)
    words = str(failure)
    assert failure.happened
    assert failure.cure
    assert CANARY not in words
    assert "?" not in words
    return failure.kind, words


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("expired", FailureKind.CERTIFICATE_EXPIRED, "has expired; the server's operator must renew it"),
        ("early", FailureKind.CERTIFICATE_NOT_YET_VALID, "not valid yet; check the clocks"),
        ("self-signed", FailureKind.CERTIFICATE_SELF_SIGNED, "in ca_file"),
        ("unknown CA", FailureKind.CERTIFICATE_UNKNOWN_ISSUER, "in ca_file"),
        ("other name", FailureKind.CERTIFICATE_WRONG_NAME, "for another host name"),
    ],
)
async def test_certificates(ask: Ask, tmp_path: Path, fault: str, kind: FailureKind, words: str) -> None:
    if fault == "unknown CA":
        shown = make_certificate(tmp_path, issuer=make_certificate(tmp_path, "ca.example"))
    elif fault == "other name":
        shown = make_certificate(tmp_path, "other.example")
    else:
        valid = {"expired": (-9, -1), "early": (1, 9)}.get(fault, (-1, 9))
        shown = make_certificate(tmp_path, valid=valid)
    trusted = fault in {"expired", "early", "other name"}
    trust = ssl.create_default_context(cafile=str(shown) if trusted else None)
    async with listening(certificate=shown) as port:
        url = f"https://127.0.0.1:{port}"
        found = told(await ask(url, trust=trust), url)
    assert found[0] is kind
    assert found[1].startswith(f"{url}: ")
    assert words in found[1]


async def test_a_missing_client_certificate_is_suggested(ask: Ask, tmp_path: Path) -> None:
    shown = make_certificate(tmp_path)
    async with listening(certificate=shown, client_ca=shown) as port:
        url = f"https://127.0.0.1:{port}"
        _, words = told(await ask(url, trust=ssl.create_default_context(cafile=str(shown))), url)
    assert "client certificate" in words
    assert "client_cert" in words


@pytest.mark.parametrize(
    ("serve", "kinds", "words"),
    [
        (closes, {FailureKind.CLOSED, FailureKind.RESET}, "if this port speaks TLS, write https://"),
        (resets, {FailureKind.RESET}, "the connection was reset"),
        (sends_a_tls_alert, {FailureKind.TLS_EXPECTED}, "the port speaks TLS; write https:// instead"),
        (breaks_off, {FailureKind.CUT_OFF}, "the response broke off"),
    ],
)
async def test_plain_http(ask: Ask, serve: Any, kinds: set[FailureKind], words: str) -> None:
    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}"
        kind, said = told(await ask(url, trust=False), url)
    assert kind in kinds
    assert words in said


async def test_a_response_that_is_not_http(ask: Ask) -> None:
    async with listening(speaks_ssh) as port:
        url = f"http://127.0.0.1:{port}"
        kind, said = told(await ask(url, trust=False), url)
    assert kind is FailureKind.NOT_HTTP
    assert "another kind of server listens there" in said


async def test_plain_http_to_a_tls_port(ask: Ask, tmp_path: Path) -> None:
    async with listening(certificate=make_certificate(tmp_path)) as port:
        url = f"http://127.0.0.1:{port}"
        _, said = told(await ask(url, trust=False), url)
    assert "if this port speaks TLS, write https:// instead of http://" in said


@pytest.mark.parametrize(
    ("serve", "kind", "words"),
    [
        (sends_a_tls_alert, None, "TLS"),
        (breaks_off, FailureKind.NOT_TLS, "the port does not speak TLS; write http:// instead of https://"),
        (closes, FailureKind.TLS_FAILED, "broke during the TLS handshake"),
        (resets, FailureKind.TLS_FAILED, "broke during the TLS handshake"),
        (is_silent, FailureKind.CONNECT_TIMEOUT, "check that this port speaks TLS"),
    ],
)
async def test_tls_to_a_port_without_tls(ask: Ask, serve: Any, kind: FailureKind | None, words: str) -> None:
    if serve is breaks_off:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    async with listening(serve) as port:
        url = f"https://127.0.0.1:{port}"
        found, said = told(await ask(url, trust=ssl.create_default_context()), url)
    assert kind is None or found is kind
    assert words in said


async def test_a_refused_connection(ask: Ask) -> None:
    with refusing_port() as port:
        for url in (f"http://127.0.0.1:{port}", f"https://localhost:{port}"):
            kind, said = told(await ask(url, trust=ssl.create_default_context()), url)
            assert kind is FailureKind.REFUSED
            assert said.startswith(f"{url}: connection refused; check the host and the port")


async def test_a_slow_response() -> None:
    async with listening(is_silent) as port:
        url = f"http://127.0.0.1:{port}"
        kind, said = told(await ask_by_httpx2(url, trust=False), url)
    assert kind is FailureKind.READ_TIMEOUT
    assert "connected, but no response in time" in said


async def test_an_unknown_name(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    url = "http://nowhere.invalid:80"
    kind, said = told(await ask(url, trust=False), url)
    assert kind is FailureKind.UNKNOWN_NAME
    assert said.startswith("http://nowhere.invalid:80: the host name is unknown; ")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_AGAIN, CANARY), FailureKind.NAME_SERVER_SILENT),
        (OSError(errno.EHOSTUNREACH, CANARY), FailureKind.UNREACHABLE),
        (OSError(errno.ENETUNREACH, CANARY), FailureKind.UNREACHABLE),
        (PermissionError(errno.EACCES, CANARY), FailureKind.FORBIDDEN_HERE),
        (OSError(errno.EMFILE, CANARY), FailureKind.TOO_MANY_FILES),
        (TimeoutError(errno.ETIMEDOUT, CANARY), FailureKind.CONNECT_TIMEOUT),
        (TimeoutError(), FailureKind.READ_TIMEOUT),
        (httpx2.InvalidURL(CANARY), FailureKind.BAD_URL),
        (httpx2.ProxyError(f"407 {CANARY}"), FailureKind.PROXY_REFUSED),
        (ExceptionGroup("all failed", [ConnectionRefusedError(), OSError(CANARY)]), FailureKind.REFUSED),
        (RuntimeError(CANARY), FailureKind.OTHER),
    ],
)
def test_errors_that_do_not_occur_on_loopback(error: BaseException, kind: FailureKind) -> None:
    assert told(error, "https://a.example:443")[0] is kind


def test_every_kind_has_its_own_message() -> None:
    from proxy.transport_failure import FAILURE_WORDS

    assert {*FAILURE_WORDS} == {*FailureKind}
    assert len({happened for happened, _ in FAILURE_WORDS.values()}) == len(FailureKind)


@asynccontextmanager
async def behind_a_proxy(answer: bytes) -> AsyncIterator[str]:
    """A forward proxy that sends the same response to every CONNECT."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(serve))
        yield f"http://user:{CANARY}@127.0.0.1:{port}"


async def test_a_proxy_that_refuses_is_named_with_its_status() -> None:
    url = "https://a.example:443"
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with behind_a_proxy(refusal) as proxy:
        async with httpx2.AsyncClient(proxy=proxy, trust_env=False, timeout=PATIENCE) as client:
            with pytest.raises(httpx2.ProxyError) as by_httpx2:
                await client.get(url)
        async with UpstreamTransport(tls=ssl.create_default_context(), proxy=proxy) as transport:
            with pytest.raises(httpx2.ProxyError) as by_transport:
                await transport.send("GET", url, b"/", [], b"", connect=PATIENCE)
        for caught in (by_httpx2, by_transport):
            _, said = told(caught.value, url, proxy)
            assert f"through the proxy {origin_of(proxy)}): it answered 407" in said


async def test_an_unreachable_proxy_is_named_as_the_cause() -> None:
    with refusing_port() as port:
        proxy = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(proxy=proxy, trust_env=False, timeout=PATIENCE) as client:
            with pytest.raises(httpx2.ConnectError) as caught:
                await client.get("https://a.example")
    kind, said = told(caught.value, "https://a.example", proxy)
    assert kind is FailureKind.REFUSED
    assert said.startswith(f"{proxy}: connection refused (this is the proxy to https://a.example:443); ")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://u:p@Auth.Example/token?x=1#y", "https://auth.example:443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://10.0.0.1", "http://10.0.0.1:80"),
        ("http://a:99999/", "(no valid URL)"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert origin_of(url) == origin
