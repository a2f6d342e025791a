"""The token endpoint must prove its identity before it receives a secret."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.credentials.sources.http import tls_needs
from proxy.secret import Secret
from proxy.tls_contexts import TlsFiles
from tests.credentials.sources.token_endpoint import failure_of, fetch, recipe_of
from tests.tls_servers import make_certificate

REPLY = b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"access_token": "t"}'


@dataclass
class TlsEndpoint:
    """A token endpoint over TLS with an unknown certificate."""

    port: int
    certificate: Path
    asked: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, after the handshake."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        writer.write(REPLY)
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new self-signed certificate for 127.0.0.1, with its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def tls_endpoint(certificate: Path) -> AsyncIterator[TlsEndpoint]:
    endpoint = TlsEndpoint(0, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=context)
    endpoint.port = server.sockets[0].getsockname()[1]
    yield endpoint
    server.close()
    await server.wait_closed()


@pytest.fixture
async def mutual_endpoint(certificate: Path) -> AsyncIterator[TlsEndpoint]:
    """A token endpoint that requires a client certificate, and trusts only this one."""
    endpoint = TlsEndpoint(0, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0, ssl=context)
    endpoint.port = server.sockets[0].getsockname()[1]
    yield endpoint
    server.close()
    await server.wait_closed()


async def test_a_client_certificate_is_presented(mutual_endpoint: TlsEndpoint) -> None:
    own = mutual_endpoint.certificate
    recipe = recipe_of(
        url=f"https://127.0.0.1:{mutual_endpoint.port}/",
        ca_file=own,
        client_cert=own,
        client_key=own,
    )
    assert (await fetch(recipe)).secret.reveal() == "t"
    error = await failure_of(recipe.model_copy(update={"client_cert": None, "client_key": None}))
    assert "client certificate" in error.reason
    assert mutual_endpoint.asked == 1


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "hTTps"])
async def test_an_untrusted_certificate_is_rejected_however_the_scheme_is_written(
    tls_endpoint: TlsEndpoint, scheme: str
) -> None:
    url = f"{scheme}://127.0.0.1:{tls_endpoint.port}/"
    error = await failure_of(recipe_of(url=url, basic=("id", Secret("s3cret"))))
    asked = f"https://127.0.0.1:{tls_endpoint.port}"
    assert error.reason.startswith(f"the token endpoint {asked}: its certificate is self-signed; ")
    assert not error.permanent
    assert tls_endpoint.asked == 0


async def test_a_configured_certificate_is_trusted(tls_endpoint: TlsEndpoint) -> None:
    url = f"https://127.0.0.1:{tls_endpoint.port}/"
    fetched = await fetch(recipe_of(url=url, ca_file=tls_endpoint.certificate))
    assert fetched.secret.reveal() == "t"


async def test_a_certificate_is_trusted_only_for_its_own_name(tls_endpoint: TlsEndpoint) -> None:
    url = f"https://localhost:{tls_endpoint.port}/"
    error = await failure_of(recipe_of(url=url, ca_file=tls_endpoint.certificate))
    assert "its certificate is for another host name" in error.reason
    assert tls_endpoint.asked == 0


def test_the_host_and_the_proxy_of_an_endpoint_need_tls_contexts() -> None:
    own = Path("own.pem")

    def needed(url: str, proxy: str | None) -> list[TlsFiles]:
        return tls_needs(recipe_of(url=url).model_copy(update={"client_cert": own, "proxy": proxy}), url)

    assert needed("http://a.test", None) == needed("http://a.test", "http://b.test") == []
    assert needed("HTTPS://a.test", "http://b.test") == [TlsFiles(client_cert=own)]
    assert needed("https://a.test", "https://b.test") == [TlsFiles(client_cert=own), TlsFiles()]
