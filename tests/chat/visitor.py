"""A visitor without a browser: a cookie jar, an event stream and POST requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from proxy.app_parts import app_parts
from proxy.chat.service import ChatService
from tests.conftest import RunningProxy
from tests.pace import PATIENCE


@dataclass(frozen=True)
class Heard:
    """One event as EventSource would dispatch it."""

    type: str
    data: Any
    id: str

    @property
    def html(self) -> str:
        """The HTML of a message; empty for other events."""
        return str(self.data.get("message", "")) if isinstance(self.data, dict) else ""

    @property
    def state(self) -> str:
        """The state of a state event; empty for other events."""
        return str(self.data.get("state", "")) if self.type == "state_event" else ""


@dataclass
class Stream:
    """An open event stream."""

    response: aiohttp.ClientResponse
    raw: bytearray = field(default_factory=bytearray)
    comments: list[str] = field(default_factory=list)
    last_id: str = ""

    async def block(self) -> bytes:
        """Return the lines before the next blank line.

        Raises:
            EOFError: the stream ended.
        """
        lines = b""
        async with asyncio.timeout(PATIENCE):
            while line := await self.response.content.readline():
                self.raw += line
                if line == b"\n":
                    return lines
                lines += line
        raise EOFError

    async def next(self) -> Heard:
        """Return the next event; skip comments and `retry`."""
        while True:
            fields: dict[str, list[str]] = {}
            for line in (await self.block()).decode().splitlines():
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value)
            self.comments += fields.get("", [])
            if "data" not in fields:
                continue
            self.last_id = fields.get("id", [self.last_id])[-1]
            text = "\n".join(fields["data"])
            try:
                data = json.loads(text)
            except ValueError:
                data = text
            return Heard(fields.get("event", ["message"])[-1], data, self.last_id)

    async def until(self, *states: str) -> list[Heard]:
        """Return all events up to the first of these states."""
        heard = [await self.next()]
        while heard[-1].state not in states:
            heard.append(await self.next())
        return heard

    async def turn(self) -> list[Heard]:
        """Return all events of one turn."""
        return await self.until("done", "stopped", "failed")


@dataclass
class Visitor:
    """A visitor of a service."""

    url: str
    http: aiohttp.ClientSession
    channel: str = ""

    async def enter(self) -> None:
        """Request the session, as the page does first."""
        self.channel = (await self.get("session"))[1]["channel"]

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Send a GET request; return its status and its JSON or bytes."""
        async with self.http.get(f"{self.url}/chat/{path}", headers=headers) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(body) if is_json else body

    async def post(
        self,
        action: str,
        prompt: str | None = None,
        channel: str | None = None,
        title: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, Any]]:
        """Send a POST request; return its status and response."""
        address = f"{self.url}/chat/{action}?channel={self.channel if channel is None else channel}"
        given = {"prompt": prompt, "title": title}
        body = {name: text for name, text in given.items() if text is not None}
        async with self.http.post(address, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def json(self, action: str, channel: str | None = None, **body: str) -> tuple[int, dict[str, Any]]:
        """Send a request with this body; return its status and response."""
        address = f"{self.url}/chat/{action}?channel={channel or self.channel}"
        async with self.http.post(address, json=body) as response:
            return response.status, await response.json()

    async def ask(self, prompt: str) -> None:
        """Ask a question, which must be accepted."""
        assert await self.post("dialogue", prompt) == (200, {"code": 1, "msg": ""})

    @asynccontextmanager
    async def listen(self, after: str | None = "0-0", channel: str | None = None) -> AsyncIterator[Stream]:
        """Open the stream."""
        query = {"channel": self.channel if channel is None else channel}
        if after is not None:
            query["last_event_id"] = after
        async with self.http.get(f"{self.url}/chat/stream", params=query) as response:
            assert response.status == 200, response.status
            yield Stream(response)


@asynccontextmanager
async def visitor(url: str, *, socket: str | None = None) -> AsyncIterator[Visitor]:
    """A visitor who has entered.

    Args:
        url: Of the service.
        socket: Where nginx listens, if the service is behind it.
    """
    connector = aiohttp.TCPConnector(limit=0) if socket is None else aiohttp.UnixConnector(socket, limit=0)
    jar = aiohttp.CookieJar(unsafe=True)  # of a host that is an address
    timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, timeout=timeout) as http:
        found = Visitor(url, http)
        await found.enter()
        yield found


def chat_of(proxy: RunningProxy) -> ChatService:
    """Return the chat of a service."""
    chat = app_parts(proxy.app).snapshots.chat
    assert isinstance(chat, ChatService)
    return chat


def blocks(heard: list[Heard]) -> list[str]:
    """Return the blocks among some events."""
    return [event.html for event in heard if event.type == "message_event"]


def states(heard: list[Heard]) -> list[str]:
    """Return the states among some events."""
    return [event.state for event in heard if event.state]
