"""`health`: 0 if the probe answers 200, and 1 with the reason otherwise."""

import asyncio

import pytest

from proxy.cli import main
from tests.pace import PATIENCE
from tests.ports import free_port
from tests.raw_upstream import Conversation, raw_upstream
from tests.waiting import delay


async def health(url: str) -> int:
    """Run the command, which waits for the answer, in a thread."""
    return await asyncio.to_thread(main, ["health", "--url", url])


@pytest.mark.parametrize(("status", "code"), [("200 OK", 0), ("503 Service Unavailable", 1)])
async def test_the_exit_status_is_that_of_the_probe(
    status: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(talk: Conversation) -> None:
        await talk.answer(b"a word\n", status=status)

    async with raw_upstream(answer) as upstream:
        assert await health(f"{upstream.url}/readyz") == code
        assert [request.target for request in upstream.requests] == [b"/readyz"]
    assert capsys.readouterr().out == f"{status.split()[0]} a word\n"


async def test_a_service_that_does_not_answer_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert await health(f"http://127.0.0.1:{free_port()}/readyz") == 1
    message = capsys.readouterr().err
    assert ": Connection refused; is the service running there?" in message
    assert "Errno" not in message


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:5002/readyz", "/readyz", "ftp://127.0.0.1/", "http:///readyz", "http://[::1/readyz"),
        *("http://127.0.0.1:http/", "http://127.0.0.1:70000/", "http://127.0.0.1:0/", "http://a b/"),
        *("http://user:s3cretpw@127.0.0.1:9/", "http://s3cretpw@127.0.0.1/"),
    ],
)
async def test_an_address_that_is_not_a_url_is_wrong_use(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await health(url) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("--url: must be an http:// or https:// URL")
    assert "s3cretpw" not in printed.out + printed.err


async def test_a_response_that_is_not_http_is_not_ready() -> None:
    async def answer(talk: Conversation) -> None:
        await talk.say(b"no HTTP\r\n\r\n")

    async with raw_upstream(answer) as upstream:
        assert await health(f"{upstream.url}/readyz") == 1


async def test_a_server_that_sends_a_header_now_and_then_does_not_keep_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.cli.health.WAIT_SECONDS", 0.1)

    async def answer(talk: Conversation) -> None:
        await talk.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await delay(0.02)
            await talk.say(b"X-More: x\r\n")

    async with asyncio.timeout(PATIENCE), raw_upstream(answer) as upstream:
        assert await health(f"{upstream.url}/readyz") == 1
    assert "timed out; is the service running there?" in capsys.readouterr().err
