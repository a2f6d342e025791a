"""Set-ups that do not work: each ends with a message that names the place, the cause and the cure.

`pytest -rP tests/integration/test_broken_setups.py` prints all messages, to be read aloud.
"""

# ruff: noqa: E501, T201 - one set-up a line, and messages to be read
import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from tests.pace import PATIENCE
from tests.ports import refusing_port
from tests.tls_servers import listening, make_certificate

SECRET = "canary-secret-91bc"
"""A secret in the body and query of every request for a token, which no message may contain."""

ACCESS = '[[access.keys]]\nname = "ragflow"\nkey = "sk-a-long-key-of-mine"\n'
UPSTREAM = '[upstreams.chat]\nbase_url = "http://127.0.0.1:9/v1"\ncredential = "corp"\n'
STATIC = '[credentials.corp]\nsource = "static"\nvalue = "a-static-token"\n'
SOUND = ACCESS + UPSTREAM + STATIC


def corp(url: str, *lines: str) -> str:
    """Return a credential with a token endpoint."""
    more = "".join(f"{line}\n" for line in lines)
    return (
        f'[credentials.corp]\nsource = "http"\nurl = "{url}/token?s={SECRET}"\njson = {{ appSecret = "{SECRET}" }}\n'
        f'token = "data.token"\ntimeout = 1\n{more}'
    )


def upstream(url: str, *lines: str) -> str:
    """Return an upstream with a static token."""
    return (
        ACCESS
        + UPSTREAM.replace("http://127.0.0.1:9/v1", url)
        + "".join(f"{line}\n" for line in lines)
        + STATIC
    )


@dataclass(frozen=True)
class Setup:
    """A set-up: its configuration, the command to run, and the words that the output must contain."""

    name: str
    text: str | None
    says: tuple[str, ...]
    command: tuple[str, ...] = ("check",)
    status: int = 2


def token(name: str, url: str, *says: str, more: tuple[str, ...] = (), status: int = 1) -> Setup:
    """Return a set-up of the command `token` with this endpoint."""
    return Setup(name, ACCESS + UPSTREAM + corp(url, *more), says, ("token", "corp"), status)


def online(name: str, url: str, *says: str, more: tuple[str, ...] = ()) -> Setup:
    """Return a set-up of the command `check --online` with this upstream."""
    return Setup(name, upstream(url, *more), says, ("check", "--online"), 1)


SETUPS = [
    # --- the settings file
    Setup("no settings file", None, ("my.toml: cannot be read: No such file or directory", "--config FILE")),
    Setup("a quote is not closed", ACCESS.replace('mine"', "mine"), ("my.toml:3: not valid TOML", "a quote is not closed on this line")),
    Setup("curly quotes", ACCESS.replace('"ragflow"', "“ragflow”"), ("my.toml:2: not valid TOML", "replace the curly quotes with straight ones")),
    Setup("a value without quotes", SOUND.replace('"corp"\n', "corp\n", 1), ("my.toml:6: not valid TOML", "text needs quotes around it")),
    Setup("a section twice", SOUND + STATIC, ("my.toml:10: not valid TOML", "the section exists twice")),
    Setup("a backslash in a path", SOUND + 'x = "C:\\Users"\n', ("not valid TOML", "double the backslash, or use single quotes")),
    Setup("a key that is misspelt", SOUND.replace("base_url", "base_ulr"), ("my.toml:5: upstreams.chat.base_ulr: unknown key", 'did you mean "base_url"?')),
    Setup("no upstream", ACCESS, ("upstreams: is required", "add [upstreams.NAME] with a base_url")),
    Setup("nobody may call", UPSTREAM + STATIC, ("no caller would be accepted", 'add [[access.keys]] with name and key, or set mode = "open"')),
    Setup("a credential that is not there", SOUND.replace("[credentials.corp]", "[credentials.crop]"), ("my.toml:6: upstreams.chat.credential: is not the name of a credential", 'did you mean "crop"?')),
    Setup("a variable that is not set", SOUND.replace("sk-a-long-key-of-mine", "${env:NOT_SET_ANYWHERE}"), ("my.toml:3: access.keys.0.key: the environment variable NOT_SET_ANYWHERE is not set", "has no default")),
    Setup("a secret file that is not there", SOUND.replace("a-static-token", "${file:/run/absent/token}"), ("credentials.corp.value: the file /run/absent/token cannot be read", "No such file")),
    Setup("a CA file that is not there", upstream("https://127.0.0.1:9/v1", 'ca_file = "corp-ca.pem"'), ("upstreams.chat.ca_file: the file", "corp-ca.pem cannot be read: No such file")),
    Setup("a CA file without a certificate", upstream("https://127.0.0.1:9/v1", 'ca_file = "my.toml"'), ("my.toml contains no certificate in PEM form", "-----BEGIN CERTIFICATE-----")),
    Setup("a placeholder for a key", SOUND.replace("sk-a-long-key-of-mine", "your-api-key"), ("my.toml:3: access.keys.0.key: is a placeholder", "replace it with the real")),
    Setup("a base_url with the endpoint", upstream("http://127.0.0.1:9/v1/chat/completions"), ("base_url: must not include /chat/completions", "is appended")),
    Setup("a base_url without a scheme", upstream("llm.corp.example/v1"), ("base_url: must be an http:// or https:// URL with a host",)),
    Setup("a credential of an unknown kind", SOUND.replace('"static"', '"https"'), ("credentials.corp.source: must be one of", "http")),
    Setup("a command that is not there", ACCESS + UPSTREAM + '[credentials.corp]\nsource = "exec"\ncommand = ["no-such-helper"]\n', ("was not found on PATH", "give its path, or install it")),
    Setup("Redis without a section", SOUND.replace("value", 'sharing = "redis"\nvalue').replace('"static"', '"exec"\ncommand = ["true"]').replace('value = "a-static-token"\n', ""), ("credentials.corp.sharing: needs a [shared] section", "redis_url")),
    Setup("a key that could be guessed", SOUND.replace("sk-a-long-key-of-mine", "abc"), ('the key of "ragflow" has fewer than 16 characters', "openssl rand -hex 24"), status=0),
    # --- the address
    Setup("a port in use", SOUND, ("bind: 127.0.0.1:{taken}: Address already in use", "another program listens there; stop it, or take another port with --bind"), ("serve", "--bind", "127.0.0.1:{taken}")),
    Setup("an address of another machine", SOUND, ("bind: 192.0.2.1:5002: Cannot assign requested address", "this machine has no such address"), ("serve", "--bind", "192.0.2.1:5002")),
    Setup("a folder for a socket that is not there", SOUND, ("No such file or directory", "the folder of the socket does not exist"), ("serve", "--bind", "unix:/nowhere/at/all.sock")),
    Setup("the default keys for everybody", SOUND.replace("sk-a-long-key-of-mine", "sk-local"), ("access.keys: the default keys are known to everybody and rejected on 0.0.0.0:0", "set keys of your own, or bind to 127.0.0.1"), ("serve", "--bind", "0.0.0.0:0")),
    # --- the token endpoint
    token("nobody listens", "http://127.0.0.1:{closed}", "the token endpoint http://127.0.0.1:{closed}: connection refused", "check the host and the port, and that the server is running"),
    token("an unknown host", "http://auth.corp.invalid", "http://auth.corp.invalid:80: the host name is unknown", "check its spelling, and this machine's DNS"),
    token("a port that never answers", "http://127.0.0.1:{silent}", "connected, but no response in time", "look at the server, or raise the timeout"),
    token("TLS to a plain port", "https://127.0.0.1:{plain}", "the port does not speak TLS", "write http:// instead of https://"),
    token("plain HTTP to a TLS port", "http://127.0.0.1:{tls}", "the connection was ", "if this port speaks TLS, write https:// instead of http://"),
    token("a certificate that has expired", "https://127.0.0.1:{expired}", "its certificate has expired", "the server's operator must renew it", more=('ca_file = "{expired_ca}"',)),
    token("a self-signed certificate", "https://127.0.0.1:{tls}", "its certificate is self-signed", "name that certificate, or the one of your company's CA, in ca_file"),
    token("a certificate for another name", "https://127.0.0.1:{other}", "its certificate is for another host name", "write the name that the certificate has", more=('ca_file = "{other_ca}"',)),
    token("another kind of server", "http://127.0.0.1:{ssh}", "the response is not HTTP", "another kind of server listens there"),
    token("a wrong secret", "http://127.0.0.1:{refuses}", "answered 401 (invalid_client)", "check the id, the secret and all other fields of the request", 'error_description  "the client is unknown"'),
    token("a wrong path", "http://127.0.0.1:{missing}", "answered 404", "check the path of the URL"),
    token("a redirect", "http://127.0.0.1:{moved}", "answered 302; redirects are not followed", "set the final URL"),
    token("a login page", "http://127.0.0.1:{page}", "has no token at 'data.token': it is an HTML page", "check the URL", 'titled "Sign in"'),
    token("an error inside a 200", "http://127.0.0.1:{error}", "signals no success at 'ret': it is 4003, but 0 is expected", 'errmsg  "bad signature"', more=('success = {{ path = "ret", equals = 0 }}',)),
    token("a wrong path to the token", "http://127.0.0.1:{gives}", "has no token at 'data.token'", "check the path", "  access_token  ********"),
    token("a wrong path to the life", "http://127.0.0.1:{nested}", 'warning: credentials.corp: the token\'s lifetime cannot be read (expires at "data.ttl" as seconds: the reply has no such value)', "default_ttl", more=('expires = [{{ path = "data.ttl", as = "seconds" }}]',), status=0),
    token("a wrong unit", "http://127.0.0.1:{nested}", 'expires at "data.life" as seconds is 3 d 11 h, more than 24 h', 'as = "milliseconds" would make it 5 min', more=('expires = [{{ path = "data.life", as = "seconds" }}]',), status=0),
    token("a time without a zone", "http://127.0.0.1:{nested}", 'expires at "data.end" has no time zone', 'offset = "+08:00"', more=('expires = [{{ path = "data.end", as = "iso8601" }}]', "max_ttl = 1e12"), status=0),
    token("an outbound proxy that is down", "https://auth.corp.example", "http://127.0.0.1:{closed}: connection refused (this is the proxy to https://auth.corp.example:443)", "check the host and the port", more=('proxy = "http://u:canary-secret-91bc@127.0.0.1:{closed}"',)),
    Setup("a command that fails", ACCESS + UPSTREAM + '[credentials.corp]\nsource = "exec"\ncommand = ["sh", "-c", "exit 7"]\n', ("credentials.corp: the command ended with status 7", "run it by hand"), ("token", "corp"), 1),
    Setup("a credential of another name", SOUND, ("crop: names no credential", 'did you mean "corp"?'), ("token", "crop")),
    Setup("a Redis that is down", ACCESS + UPSTREAM + '[credentials.corp]\nsource = "exec"\ncommand = ["echo", "a-token"]\nsharing = "redis_required"\n[shared]\nredis_url = "redis://:canary-secret-91bc@127.0.0.1:{closed}/0"\nencryption_key = "' + "ab" * 32 + '"\n', ("warning: shared: redis://127.0.0.1:{closed}: connection refused", "the service has no token until Redis is back"), ("token", "corp"), 1),
    # --- the upstream
    online("an upstream that is down", "http://127.0.0.1:{closed}/v1", "FAILED  upstreams.chat: http://127.0.0.1:{closed}: connection refused", "check the host and the port"),
    online("an upstream with a certificate of its own", "https://127.0.0.1:{tls}/v1", "its certificate is self-signed", "in ca_file"),
    online("an upstream by TLS on a plain port", "https://127.0.0.1:{plain}/v1", "the port does not speak TLS", "write http:// instead of https://"),
    online("an upstream that refuses the token", "http://127.0.0.1:{refuses}/v1", "rejects the token", "check the credential: its scope, its audience"),
    online("a base_url without its version", "http://127.0.0.1:{missing}", "answered 404 with an HTML page", "check that base_url has its version, such as /v1"),
    online("an upstream that never answers", "http://127.0.0.1:{silent}/v1", "http://127.0.0.1:{silent}: connected, but no response in time", "look at the server", more=("timeouts = {{ first_byte = 0.3 }}",)),
]  # fmt: skip


def answers(
    head: str, body: str = ""
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a server that answers every request with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        text = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        writer.write(text.encode())
        await writer.drain()

    return serve


async def answers_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer like a server without TLS, for which the first bytes of a TLS client are a bad request."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def is_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def speaks_no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await writer.drain()
    await reader.read(65536)


JSON = "\r\nContent-Type: application/json"
HTML = "\r\nContent-Type: text/html"
SERVERS: dict[str, Any] = {
    "silent": is_silent,
    "ssh": speaks_no_http,
    "plain": answers_at_once,
    "refuses": answers(
        f"401 Unauthorized{JSON}", '{"error": "invalid_client", "error_description": "the client is unknown"}'
    ),
    "missing": answers(f"404 Not Found{HTML}", "<html><title>404</title></html>"),
    "moved": answers("302 Found\r\nLocation: https://sso.corp.example/"),
    "page": answers(f"200 OK{HTML}", "<!doctype html><title>Sign in</title>"),
    "error": answers(f"200 OK{JSON}", '{"ret": 4003, "errmsg": "bad signature"}'),
    "gives": answers(f"200 OK{JSON}", '{"access_token": "t-1234567890"}'),
    "nested": answers(
        f"200 OK{JSON}", '{"data": {"token": "t-1234567890", "life": 300000, "end": "2099-01-01 00:00:00"}}'
    ),
}


@pytest.fixture
async def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, object]]:
    """Serve all kinds of failures; yield the ports, and the certificates of servers with TLS."""
    known = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    certificates = {
        "tls": make_certificate(tmp_path),
        "expired": make_certificate(tmp_path, valid=(-9, -1)),
        "other": make_certificate(tmp_path, "other.corp.example"),
    }
    with refusing_port() as closed, socket.create_server(("127.0.0.1", 0)) as taken:
        found: dict[str, object] = {"closed": closed, "taken": taken.getsockname()[1]}
        async with AsyncExitStack() as stack:
            for name, serve in SERVERS.items():
                found[name] = await stack.enter_async_context(listening(serve))
            for name, certificate in certificates.items():
                found[name] = await stack.enter_async_context(listening(certificate=certificate))
                found[f"{name}_ca"] = certificate
            yield found


def test_enough_broken_setups_are_tested() -> None:
    assert len({setup.name for setup in SETUPS}) == len(SETUPS) >= 40
    assert ssl.OPENSSL_VERSION_INFO >= (1, 1, 1)


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
async def test_a_broken_setup_says_what_is_wrong_and_what_to_do(
    setup: Setup, places: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my.toml"
    if setup.text is not None:
        text = setup.text.replace("{{", "\0").replace("}}", "\1") if "{{" in setup.text else setup.text
        for name, place in places.items():
            text = text.replace(f"{{{name}}}", str(place))
        path.write_text(text.replace("\0", "{").replace("\1", "}"))
    arguments = [argument.format(**places) for argument in setup.command]
    async with asyncio.timeout(PATIENCE):
        status, out, said = await run([*arguments, "--config", str(path)], capsys)
    print(f"\n{setup.name}:\n{said}")
    for words in setup.says:
        assert words.format(**places) in said
    assert status == setup.status
    assert SECRET not in out + said
    assert "Traceback" not in said


async def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command; return exit status, output and messages. `serve` runs in a process, because it handles signals."""
    if arguments[0] != "serve":
        status = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return status, said.out, said.err
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said_bytes = await process.communicate()
    return process.returncode or 0, out.decode(), said_bytes.decode()
