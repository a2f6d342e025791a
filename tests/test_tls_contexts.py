"""TLS contexts of outgoing connections: which share one, when another is built, and when one is dropped."""

import asyncio
import gc
import ssl
import threading
from pathlib import Path

import pytest

from proxy import tls_contexts
from proxy.tls_contexts import TlsContexts, TlsFiles, build_context
from tests.loopback import until
from tests.pace import PATIENCE
from tests.terminal import make_encrypted_pair, run_on_terminal
from tests.tls_servers import make_certificate


async def test_the_same_files_give_the_same_context(tmp_path: Path) -> None:
    one, other = make_certificate(tmp_path), make_certificate(tmp_path)
    copy = tmp_path / "copy.pem"
    copy.write_bytes(one.read_bytes())
    contexts = TlsContexts()
    first = await contexts.get(TlsFiles(one))
    assert await contexts.get(TlsFiles(one)) is first
    assert await contexts.get(TlsFiles(copy)) is first
    others = [
        await contexts.get(files)
        for files in (TlsFiles(other), TlsFiles(), TlsFiles(one, one), TlsFiles(one, one, one))
    ]
    assert len({id(context) for context in (first, *others)}) == 5
    assert [context.get_ca_certs() == first.get_ca_certs() for context in others] == [
        False, False, True, True,
    ]  # fmt: skip


async def test_a_changed_file_gives_another_context(tmp_path: Path) -> None:
    path, contexts = tmp_path / "ca.pem", TlsContexts()
    path.write_bytes(make_certificate(tmp_path).read_bytes())
    before = await contexts.get(TlsFiles(path))
    path.write_bytes(make_certificate(tmp_path).read_bytes())
    assert (await contexts.get(TlsFiles(path))).get_ca_certs() != before.get_ca_certs()


async def test_changed_certificates_of_the_system_give_another_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, contexts = make_certificate(tmp_path), TlsContexts()
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    before = await contexts.get(TlsFiles())
    assert await contexts.get(TlsFiles()) is before
    make_certificate(tmp_path).replace(path)
    assert (await contexts.get(TlsFiles())).get_ca_certs() != before.get_ca_certs()


async def test_an_unused_context_is_dropped(tmp_path: Path) -> None:
    path, contexts = make_certificate(tmp_path), TlsContexts()
    used, unused = await contexts.get(TlsFiles(path)), await contexts.get(TlsFiles(path, path))

    def kept() -> int:
        gc.collect()
        return len(contexts)

    assert kept() == 2
    del unused
    await until(lambda: kept() == 1)  # asyncio itself refers to it for a moment
    assert await contexts.get(TlsFiles(path)) is used


async def test_a_context_is_built_outside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = list[threading.Thread]()

    def build(files: TlsFiles) -> ssl.SSLContext:
        built_in.append(threading.current_thread())
        return build_context(files)

    monkeypatch.setattr(tls_contexts, "build_context", build)
    await TlsContexts().get(TlsFiles(make_certificate(tmp_path)))
    assert len(built_in) == 1
    assert built_in[0] is not threading.current_thread()


async def test_files_that_cannot_be_used_are_reported_each_time(tmp_path: Path) -> None:
    path, contexts = tmp_path / "ca.pem", TlsContexts()
    for error in (FileNotFoundError, ssl.SSLError, ssl.SSLError):
        with pytest.raises(error):
            await contexts.get(TlsFiles(path))
        path.write_text("no certificate")


async def test_both_kinds_of_clients_speak_http_1_1(tmp_path: Path) -> None:
    """httpx2 sets the protocol on the contexts that it uses; shared ones have it from the beginning."""
    certificate = make_certificate(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    ours.set_alpn_protocols(["h2", "http/1.1"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours)
    async with server, asyncio.timeout(PATIENCE):
        host, port = server.sockets[0].getsockname()
        context = await TlsContexts().get(TlsFiles(certificate))
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        await writer.wait_closed()


BUILD = """
import sys
from pathlib import Path
from proxy.tls_contexts import TlsFiles, build_context
build_context(TlsFiles(None, *map(Path, sys.argv[1:])))
"""


def test_an_encrypted_key_fails_and_does_not_ask_the_terminal(tmp_path: Path) -> None:
    ended = run_on_terminal(BUILD, *make_encrypted_pair(tmp_path))
    assert ended.returncode == 1
    assert b"SSLError" in ended.stderr
