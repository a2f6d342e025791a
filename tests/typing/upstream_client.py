"""The client takes a request with held or streamed bytes, and returns an unread response."""

from collections.abc import AsyncIterator
from typing import assert_type

from proxy.credentials import UpstreamCredential
from proxy.settings import Upstream
from proxy.telemetry import ExchangeRecord
from proxy.upstream.client import UpstreamClient
from proxy.upstream.requests import UpstreamRequest
from proxy.upstream.transport import UpstreamResponse
from proxy.upstream.websocket import ArrivingMessages


async def opens(section: Upstream, credential: UpstreamCredential, record: ExchangeRecord) -> None:
    client = UpstreamClient("chat", section, credential)
    UpstreamClient("chat", section, None)
    request = UpstreamRequest(method="POST", path=b"/models", query=b"", headers=[(b"a", b"b")], body=b"{}")
    response = await client.open(request, record)
    assert_type(response, UpstreamResponse)
    assert_type(response.status, int)
    assert_type(await response.read(), bytes)
    assert_type(response.headers, list[tuple[bytes, bytes]])
    assert_type(response.socket, ArrivingMessages | None)


def requests_are_bytes_and_immutable(body: AsyncIterator[bytes], request: UpstreamRequest) -> None:
    UpstreamRequest(method="PUT", path=b"/files", query=b"", headers=[], body=body)
    UpstreamRequest(method="PUT", path="/files", query=b"", headers=[], body=b"")  # type: ignore[arg-type]
    UpstreamRequest(method="PUT", path=b"/files", query=b"", headers={}, body=b"")  # type: ignore[arg-type]
    request.body = b""  # type: ignore[misc]
