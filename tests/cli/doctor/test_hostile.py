"""Servers that answer anything at all: the doctor finds something, and neither fails nor hangs."""

import asyncio
import json

import pytest

from proxy.cli import main
from tests.pace import PATIENCE
from tests.raw_upstream import Conversation, raw_upstream

KEY = "sk-canary-key-77b1"
DEEP = b"[" * 100_000
BODIES = {
    "numbers": b"1",
    "a list": b"[1, 2]",
    "a deep list": DEEP,
    "wrong types": b'{"data": [1, {"id": {}}, {"id": 7}], "choices": [1], "results": "x", "code": []}',
    "odd errors": b'{"error": {"message": {"a": 1}, "code": ["x"]}, "code": {}}',
    "odd choices": b'{"choices": [{"message": [], "delta": 3}], "data": [{"embedding": {}}], "usage": {}}',
    "controls": json.dumps({"data": [{"id": "a\x1b[31m\u202e\ud800{x}%s"}], "error": "\x07{0}"}).encode(),
    "braces": b'{"data": [{"id": "{0}{host}{{"}]}',
    "invalid UTF-8": b'{"data": "\xff\xfe"}',
    "odd events": b'data: 1\n\ndata: {"choices": 3}\n\ndata: {"choices": [null]}\n\n\r\r\r\ndata:\n\n',
    "many names": json.dumps({"data": [{"id": "x" * 99} for _ in range(20_000)]}).encode(),
    "an endless line": b"data: " + b"x" * 3_000_000,
}
HEADS = {
    "json": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
    "events": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
    "a coding that is none": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n",
    "an error": b"HTTP/1.1 404 \x1b[31m\r\nContent-Type: application/json\r\n",
    "an odd status": b"HTTP/1.1 999 Odd\r\nContent-Type: \xff\r\n",
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("head", HEADS)
async def test_any_response_gets_a_finding(head: str, body: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def say(talk: Conversation) -> None:
        content = BODIES[body]
        await talk.say(HEADS[head] + b"Content-Length: %d\r\n\r\n" % len(content) + content)

    async with raw_upstream(say) as upstream, asyncio.timeout(PATIENCE):
        arguments = ["doctor", "--json", "--url", f"{upstream.url}/v1", "--key", KEY, "--timeout", "5"]
        models = ["--model", "m", "--model", "m-vl", "--embedding-model", "e", "--rerank-model", "r"]
        assert await asyncio.to_thread(main, [*arguments, *models]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    text = json.loads(printed.out)["findings"]
    assert all(value.isprintable() for finding in text for value in finding.values())
