"""TLS: `certfile` and `keyfile` of `hypercorn.toml`, with real clients, and a new pair at SIGHUP."""

import asyncio
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from proxy.errors import SettingsError
from proxy.server.certificates import TlsContents, open_certificates
from proxy.server.config import ServerConfig
from tests.cli.processes import ROOT, read_until, running
from tests.pace import PATIENCE
from tests.tls_servers import make_certificate

SERVER = """
bind = ["127.0.0.1:0"]
certfile = "pair.pem"
keyfile = "pair.pem"
"""


@dataclass
class Secure:
    """A service with TLS."""

    process: asyncio.subprocess.Process
    url: str
    folder: Path

    def show(self, certificate: Path | bytes) -> None:
        """Write another pair to the files, and let the service reload them."""
        content = certificate if isinstance(certificate, bytes) else certificate.read_bytes()
        (self.folder / "pair.pem").write_bytes(content)
        self.process.send_signal(signal.SIGHUP)

    async def shown(self, certificate: Path) -> bool:
        """Return whether the service presents this certificate to a new connection."""
        context = ssl.create_default_context(cafile=certificate)
        port = int(self.url.rpartition(":")[2])
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True


def write_server(folder: Path, certificate: Path) -> None:
    """Write the configuration of the server, and its certificate and key."""
    (folder / "hypercorn.toml").write_text(SERVER)
    (folder / "pair.pem").write_bytes(certificate.read_bytes())


@asynccontextmanager
async def secure(folder: Path, certificate: Path) -> AsyncIterator[Secure]:
    """Serve the runnable default with TLS."""
    write_server(folder, certificate)
    serve = f"cd {shlex.quote(str(folder))}; exec {sys.executable} -m proxy serve 2>&1"
    async with running("sh", "-c", serve, PYTHONPATH=str(ROOT)) as process:
        said = await read_until(process, r"base URL +https://127\.0\.0\.1:\d+")
        yield Secure(process, re.findall(r"https://127\.0\.0\.1:\d+", said)[0], folder)


async def test_the_openai_client_streams_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    trusting = DefaultAsyncHttpxClient(
        verify=ssl.create_default_context(cafile=certificate), timeout=PATIENCE
    )
    async with (
        secure(tmp_path, certificate) as service,
        AsyncOpenAI(api_key="sk-local", base_url=f"{service.url}/v1", http_client=trusting) as client,
    ):
        stream = await client.chat.completions.create(
            model="mock-gpt-model", messages=[{"role": "user", "content": "a b c"}], stream=True
        )
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"


async def test_curl_speaks_http_1_1_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with secure(tmp_path, certificate) as service:
        curl = await asyncio.create_subprocess_exec(
            "curl", "--silent", "--cacert", certificate, "--write-out", "%{http_code} %{http_version}",
            f"{service.url}/livez", stdout=subprocess.PIPE,
        )  # fmt: skip
        said, _ = await curl.communicate()
    assert said == b"ok\n200 1.1"


async def test_a_hangup_shows_a_new_certificate_and_keeps_the_old_one_for_a_bad_pair(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path), make_certificate(tmp_path)
    half = second.read_bytes().partition(b"-----BEGIN PRIVATE")[0] + b"-----BEGIN PRIVATE KEY-----\n"
    other_key = b"-----BEGIN PRIVATE" + first.read_bytes().partition(b"-----BEGIN PRIVATE")[2]
    async with secure(tmp_path, first) as service:
        assert [await service.shown(first), await service.shown(second)] == [True, False]
        for bad in (half, second.read_bytes().partition(b"-----BEGIN PRIVATE")[0] + other_key, b""):
            service.show(bad)
            await read_until(service.process, "certificate_rejected")
            await read_until(service.process, "reloaded")
            assert [await service.shown(first), await service.shown(second)] == [True, False]
        service.show(second)
        await read_until(service.process, "reloaded")
        assert [await service.shown(first), await service.shown(second)] == [False, True]


def configured(certfile: str | None, keyfile: str | None) -> ServerConfig:
    """Return a configuration with these files."""
    config = ServerConfig()
    config.certfile, config.keyfile = certfile, keyfile
    return config


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    assert open_certificates(configured(None, None)) is None
    with pytest.raises(SettingsError, match="needs both"):
        open_certificates(configured("a.pem", None))
    absent = str(tmp_path / "absent.pem")
    with pytest.raises(SettingsError, match=r"absent\.pem cannot be used: No such file"):
        open_certificates(configured(absent, absent))


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    path = make_certificate(tmp_path)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(key.private_bytes(pem, pkcs8, encryption))
    config = configured(str(path), str(encrypted))
    with pytest.raises(SettingsError, match="cannot be used"):
        open_certificates(config)
    config.keyfile_password = "secret"
    assert open_certificates(config) is not None


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_contents_that_were_accepted_are_used_whatever_the_files_contain_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_memory_files: bool
) -> None:
    if not has_memory_files:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    path = make_certificate(tmp_path)
    config = configured(str(path), str(path))
    accepted = TlsContents.read(config)
    assert "PRIVATE KEY" not in repr(accepted)
    path.write_text("half a file")
    with pytest.raises(SettingsError, match="cannot be used"):
        TlsContents.read(config)
    certificates = open_certificates(config, accepted)
    assert certificates is not None
    certificates.reload(accepted)
    with pytest.raises(SettingsError, match="cannot be used"):
        certificates.reload()
