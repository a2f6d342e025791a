"""A scripted chat service: the real page and headers, and events that the test publishes."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from quart import Quart, Response, request

from proxy.blueprints.chat_guard import PAGE_HEADERS
from proxy.chat.page_files import read_page_files
from proxy.chat.render import Kind, render_block
from tests.browser.samples import blocks

BEGINNING = "0-0"
PAGE_FILES = read_page_files()


@dataclass(frozen=True, slots=True)
class Resumed:
    """The id with which a stream was opened: reconnecting browsers send the header, pages the parameter."""

    header: str | None
    parameter: str | None


@dataclass(slots=True)
class Refusal:
    """The response to the next POST request."""

    status: int
    words: str
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, object] = field(default_factory=dict)


class ScriptedChat:
    """One channel, in which a test publishes and reads requests.

    Attributes:
        prompts: What visitors sent, in order.
        posts: The names of all requests to do something.
        resumed: How each stream began.
        down: Whether every request is answered 503.
        asked: How often a page has asked for the session.
        deaf: Whether a stop has no effect.
        ends_for_good: Whether streams are answered 204.
        headers: Those of the page and its files.
        refusal: What the next post is refused with.
        pages: Pages of the site around the chat, by path: HTML, and a policy where they have one.
    """

    def __init__(self, channel: str = "0b0ab0b6-8e54-4c0f-9a5e-3d2f6c1b7a10") -> None:
        self.channel = channel
        self.prompts: list[str] = []
        self.posts: list[str] = []
        self.resumed: list[Resumed] = []
        self.down = False
        self.ends_for_good = False
        self.busy = False
        self.asked = 0
        self.deaf = False
        self.headers = dict(PAGE_HEADERS)
        self.refusal: Refusal | None = None
        self.pages: dict[str, tuple[str, str | None]] = {}
        self._kept: list[tuple[str, bytes]] = []
        self._ids = itertools.count(1)
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self.app = self._build()

    # What a test does

    def publish(self, kind: str, data: object, *, with_id: bool = True) -> None:
        """Send an event to every stream, and keep it for those to come."""
        lines = f"event:{kind}\ndata:{json.dumps(data)}\n"
        if with_id:
            event_id = f"{int(time.time() * 1000)}-{next(self._ids)}"
            event = f"{lines}id:{event_id}\n\n".encode()
            self._kept.append((event_id, event))
        else:  # published into Redis by somebody else: live only
            event = f"{lines}\n".encode()
        for queue in self._streams:
            queue.put_nowait(event)

    def message(self, message: str, *, with_id: bool = True, **fields: object) -> None:
        """Send a block of HTML as it stands."""
        self.publish("message_event", {"message": message, **fields}, with_id=with_id)

    def say(self, kind: str, *pieces: str) -> None:
        """Send pieces of HTML, each in the div of its kind."""
        for piece in pieces:
            self.message(f"<div class='{kind}'>{piece}</div>")

    def write(self, kind: Kind, markdown: str) -> None:
        """Send a text as the service cuts and renders it."""
        for block in blocks(kind, markdown):
            self.message(block)

    def ask(self, prompt: str) -> None:
        """Put a question into the channel, as the service does for every dialogue."""
        self.busy = True
        self.message(render_block("right", prompt))
        self.state("waiting")

    def state(self, state: str, **more: object) -> None:
        """Send a change of state."""
        self.busy = state in {"waiting", "thinking", "answering", "regenerating"}
        self.publish("state_event", {"state": state, "at": int(time.time() * 1000), **more})

    def turn(self, prompt: str, answer: str, reasoning: str = "") -> None:
        """A whole turn at once, its texts in Markdown."""
        self.ask(prompt)
        if reasoning:
            self.state("thinking")
            self.write("describe", reasoning)
        self.state("answering")
        self.write("left", answer)
        self.state("done", seconds=2.4)

    def drop(self) -> None:
        """Cut every stream."""
        for queue in self._streams:
            queue.put_nowait(None)

    def cut_silently(self) -> None:
        """Leave the streams open, but send nothing more on them."""
        self._streams.clear()

    def forget(self) -> None:
        """Delete the stored events."""
        self._kept.clear()

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    # What the page gets

    def _build(self) -> Quart:
        app = Quart(__name__, static_folder=None)
        app.config.update(RESPONSE_TIMEOUT=None)
        app.before_request(self._refuse)
        app.add_url_rule("/site/<path:name>", view_func=self._site)
        app.add_url_rule("/chat/", view_func=self._index)
        app.add_url_rule("/chat/drawer.js", view_func=self._drawer)
        app.add_url_rule("/chat/page/<path:name>", view_func=self._file)
        app.add_url_rule("/chat/session", view_func=self._session)
        app.add_url_rule("/chat/stream", view_func=self._stream)
        app.add_url_rule("/chat/<action>", view_func=self._post, methods=["POST"])
        return app

    async def _refuse(self) -> Response | None:
        if self.down and not request.path.startswith("/chat/page"):
            return Response("down", status=503)
        if self.refusal is not None and request.method == "POST":
            refusal, self.refusal = self.refusal, None
            code = int(refusal.status == 200)
            body = json.dumps({"code": code, "msg": refusal.words, **refusal.fields})
            return Response(body, refusal.status, refusal.headers, content_type="application/json")
        return None

    async def _index(self) -> Response:
        return self._static("index.html")

    async def _drawer(self) -> Response:
        return self._static("drawer.js")

    async def _file(self, name: str) -> Response:
        return self._static(name)

    async def _site(self, name: str) -> Response:
        body, policy = self.pages[name]
        content_type = "text/css" if name.endswith(".css") else "text/html"
        response = Response(body, content_type=f"{content_type}; charset=utf-8")
        if policy is not None:
            response.headers["Content-Security-Policy"] = policy
        return response

    async def _session(self) -> Response:
        if request.args.get("channel", self.channel) != self.channel:
            return Response('{"code": 0, "msg": "not your channel"}', 403, content_type="application/json")
        self.asked += 1
        body = json.dumps({"channel": self.channel, "busy": self.busy})
        return Response(body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _stream(self) -> Response:
        header, parameter = request.headers.get("Last-Event-ID"), request.args.get("last_event_id")
        self.resumed.append(Resumed(header, parameter))
        after = header or parameter
        if self.ends_for_good and after != BEGINNING:
            return Response(status=204)
        if request.args["channel"] != self.channel:
            return Response(status=403)
        response = Response(self._events(after), content_type="text/event-stream; charset=utf-8")
        response.timeout = None
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _events(self, after: str | None) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for event_id, event in self._kept:
            if after is not None and _order(event_id) > _order(after):
                queue.put_nowait(event)
        self._streams.add(queue)
        try:
            yield b"retry:200\n: open\n\n"
            while True:
                coming = await queue.get()
                if coming is None:
                    return
                yield coming
        finally:
            self._streams.discard(queue)

    async def _post(self, action: str) -> Response:
        body = await request.get_json()
        self.posts.append(action)
        words = ""
        if action == "dialogue":
            self.prompts.append(body["prompt"])
            self.ask(body["prompt"])
        elif action == "stop":
            if not self.deaf:
                self.state("stopped")
        elif action == "regenerate":
            self.state("regenerating")
            self.state("waiting")
        elif action == "reset":
            self.forget()
            self.state("reset")
        else:
            words = "?"
        return Response(json.dumps({"code": 1, "msg": words}), content_type="application/json")

    def _static(self, name: str) -> Response:
        file = PAGE_FILES[name]
        return Response(file.body, headers=self.headers, content_type=file.content_type)


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event_id.split("-"))
