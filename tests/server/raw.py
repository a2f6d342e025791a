"""Requests and responses as bytes, and the messages of an application."""

import json
import re

from tests.server.conftest import Message

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HOST = b"Host: x"
END = b"0\r\n\r\n"


def head(*lines: bytes, first: bytes = b"POST /p HTTP/1.1") -> bytes:
    """A head with these lines behind the request line."""
    return b"\r\n".join([first, *lines, b"", b""])


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of a refusal; it must be whole, in the envelope, with a request id, and close."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:])
    assert fields["connection"] == "close"
    assert re.fullmatch("[0-9a-f]{32}", fields["x-request-id"])
    assert int(fields["content-length"]) == len(body)
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return int(lines[0].split()[1]), error["code"]


def bodies(answer: bytes) -> list[bytes]:
    """The bodies of responses that have a length."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        found.append(answer[:length])
        answer = answer[length:]
    return found


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
