"""The real chat application with a scripted model: the test publishes events, and chooses faults."""

import contextlib
import json
import tempfile
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from proxy.app import create_app
from proxy.app_parts import app_parts
from proxy.blueprints import chat_session
from proxy.chat.broker import Mailbox
from proxy.chat.channels import MemoryChannels
from proxy.chat.dialogues import Branch, Dialogues
from proxy.chat.event import Event
from proxy.chat.memory_broker import MemoryBroker
from proxy.chat.notices import Notice
from proxy.chat.render import BlockKind, render_block
from proxy.settings import load_settings
from tests.browser.samples import blocks
from tests.conftest import KEY, SETTINGS, STATIC

T = TypeVar("T")
BEGINNING = "0-0"
CHAT = '[chat]\nrate = "1000/second"\n'
RETRY = b"retry:50\n\n"
NOWHERE = "http://127.0.0.1:9"


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


class _Broker(MemoryBroker):
    """A broker whose readers a test can cut off."""

    @property
    def mailboxes(self) -> list[Mailbox[Event]]:
        """The subscriptions of all readers."""
        return [mailbox for mailboxes in self._readers.values() for mailbox in mailboxes]

    def deliver(self, channel: str, event: Event) -> None:
        """Send an event as another service does: it is neither numbered nor stored."""
        for mailbox in self._readers.get(channel, ()):
            mailbox.put(event)

    def cut_silently(self) -> None:
        """Send the readers nothing more, without closing their streams."""
        for mailboxes in self._readers.values():
            mailboxes.clear()


class ScriptedChat:
    """One channel, in which a test publishes and reads requests.

    Attributes:
        prompts: What visitors sent, in order.
        posts: The names of all requests to do something.
        resumed: How each stream began.
        down: Whether every request is answered 503.
        asked: How often a page has asked for the session.
        deaf: Whether a stop has no effect.
        busy: Whether the service says that it works on an answer.
        ends_for_good: Whether streams are answered 204.
        has_policy: Whether the page and its files have a Content-Security-Policy.
        refusal: What the next post is refused with.
        pages: Pages of the site around the chat, by path: HTML, and a policy where they have one.
        ids: Those of the published events.
    """

    def __init__(self, channel: str = "0b0ab0b6-8e54-4c0f-9a5e-3d2f6c1b7a10") -> None:
        self.channel = channel
        self.prompts: list[str] = []
        self.posts: list[str] = []
        self.resumed: list[Resumed] = []
        self.ids: list[str] = []
        self.down = self.ends_for_good = self.busy = self.deaf = False
        self.has_policy = True
        self.asked = 0
        self.refusal: Refusal | None = None
        self.pages: dict[str, tuple[str, str | None]] = {}
        self.broker = _Broker()
        self.channels = _Channels(self)
        self.app = _Application(self)

    # Actions of a test

    def publish(self, kind: str, data: object, *, with_id: bool = True) -> None:
        """Send an event to every stream, and store it for later ones."""
        event = Event(data, kind)
        if not with_id:  # published to Redis by another program: live only
            self.broker.deliver(self.channel, event)
            return
        self.ids.append(_finish(self.broker.publish(self.channel, event)))

    def message(self, message: str, *, with_id: bool = True, **fields: object) -> None:
        """Send a block of HTML unchanged."""
        self.publish("message_event", {"message": message, **fields}, with_id=with_id)

    def say(self, kind: str, *pieces: str) -> None:
        """Send pieces of HTML, each in the div of its kind."""
        for piece in pieces:
            self.message(f"<div class='{kind}'>{piece}</div>")

    def write(self, kind: BlockKind, markdown: str) -> None:
        """Send a text as the service cuts and renders it."""
        for block in blocks(kind, markdown):
            self.message(block)

    def ask(self, prompt: str) -> None:
        """Publish a question, as the service does for every dialogue."""
        self.busy = True
        self.message(render_block("right", prompt))
        self.state("waiting")

    def state(self, state: str, **more: object) -> None:
        """Send a change of state."""
        self.busy = state in {"waiting", "thinking", "answering", "regenerating"}
        self.publish("state_event", {"state": state, "at": int(time.time() * 1000), **more})

    def turn(self, prompt: str, answer: str, reasoning: str = "") -> None:
        """Publish a whole turn at once, with its texts in Markdown."""
        self.ask(prompt)
        if reasoning:
            self.state("thinking")
            self.write("describe", reasoning)
        self.state("answering")
        self.write("left", answer)
        self.state("done", seconds=2.4)

    def drop(self) -> None:
        """Cut every stream."""
        for mailbox in self.broker.mailboxes:
            mailbox.close()

    def cut_silently(self) -> None:
        """Leave the streams open, but send nothing more on them."""
        self.broker.cut_silently()

    def forget(self) -> None:
        """Delete the stored events."""
        _finish(self.broker.forget(self.channel))

    async def give_away(self, channel: str) -> None:
        """Make another visitor the owner of a channel."""
        assert await self.channels.claim(channel, "somebody else")

    @property
    def readers(self) -> int:
        """The number of open streams."""
        return len(self.broker.mailboxes)

    @contextlib.contextmanager
    def visited(self) -> Iterator[None]:
        """Give every new visitor the session of this channel during the block."""
        with mock.patch.object(chat_session, "uuid4", side_effect=lambda: UUID(self.channel)):
            yield


class _Channels(MemoryChannels):
    """Channels for which the test decides whether an answer is in progress."""

    def __init__(self, script: ScriptedChat) -> None:
        super().__init__()
        self._script = script

    async def busy(self, channel: str) -> bool:
        return self._script.busy


class _Dialogues:
    """The dialogues of the scripted model."""

    def __init__(self, script: ScriptedChat) -> None:
        self._script = script

    async def ask(
        self, _channel: str, prompt: str, *_: str, model: str | None, branch: Branch | None
    ) -> Notice | None:
        assert (model, branch) == (None, None)
        self._script.posts.append("dialogue")
        self._script.prompts.append(prompt)
        self._script.ask(prompt)
        return None

    async def regenerate(self, *_: str, model: str | None) -> Notice | None:
        assert model is None
        self._script.posts.append("regenerate")
        self._script.state("regenerating")
        self._script.state("waiting")
        return None

    async def stop(self, _channel: str) -> None:
        self._script.posts.append("stop")
        if not self._script.deaf:
            self._script.state("stopped")


class _Application:
    """The application, and around it the site and the faults of the script.

    Args:
        script: What happens.
    """

    def __init__(self, script: ScriptedChat) -> None:
        self._script = script
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "proxy.toml"
            path.write_text(
                SETTINGS.format(key=KEY, upstream=NOWHERE, credential=STATIC, options="", more=CHAT)
            )
            self._app = create_app(load_settings(path, {}))
        self._is_scripted = False

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not self._is_scripted:
            self._hand_over()
        path, method = scope["path"], scope["method"]
        answer = self._answer(path, method, dict(scope["headers"]), scope["query_string"])
        if answer is None:
            sending = _reconnecting_soon(send) if path == "/chat/stream" else self._without_policy(send)
            await self._app(scope, receive, cast(ASGISendCallable, sending))
            return
        status, headers, body = answer
        named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        start: Any = {"type": "http.response.start", "status": status, "headers": named}
        await send(start)
        end: Any = {"type": "http.response.body", "body": body, "more_body": False}
        await send(end)

    def _hand_over(self) -> None:
        """Replace the model by the script."""
        snapshots = app_parts(self._app).snapshots
        assert snapshots.chat is not None
        script = self._script
        snapshots.chat = msgspec.structs.replace(
            snapshots.chat,
            broker=script.broker,
            channels=script.channels,
            dialogues=cast(Dialogues, _Dialogues(script)),
        )
        self._is_scripted = True

    def _answer(
        self, path: str, method: str, headers: dict[bytes, bytes], query: bytes
    ) -> tuple[int, dict[str, str], bytes] | None:
        """Return the response of the site or of a fault; None if the application answers."""
        script = self._script
        if path.startswith("/site/"):
            body, policy = script.pages[path.removeprefix("/site/")]
            kind = "text/css" if path.endswith(".css") else "text/html"
            policies = {} if policy is None else {"Content-Security-Policy": policy}
            return 200, {"Content-Type": f"{kind}; charset=utf-8", **policies}, body.encode()
        if script.down and not path.startswith("/chat/page"):
            return 503, {}, b"down"
        if script.refusal is not None and method == "POST":
            refusal, script.refusal = script.refusal, None
            reply = {"code": int(refusal.status == 200), "msg": refusal.words, **refusal.fields}
            kinds = {"Content-Type": "application/json", **refusal.headers}
            return refusal.status, kinds, json.dumps(reply).encode()
        script.asked += path == "/chat/session"
        if path == "/chat/stream":
            header = headers.get(b"last-event-id", b"").decode() or None
            parameter = parse_qs(query.decode()).get("last_event_id", [None])[0]
            script.resumed.append(Resumed(header, parameter))
            if script.ends_for_good and (header or parameter) != BEGINNING:
                return 204, {}, b""
        return None

    def _without_policy(self, send: ASGISendCallable) -> Any:
        if self._script.has_policy:
            return send

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].lower() != b"content-security-policy"]
                message = {**message, "headers": kept}
            await send(message)

        return sending


def _reconnecting_soon(send: ASGISendCallable) -> Any:
    """Send with each piece of a stream that a browser may reconnect at once; Chromium would wait for 3 s."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            message = {**message, "body": message["body"] + RETRY}
        await send(message)

    return sending


def _finish(working: Coroutine[Any, Any, T]) -> T:
    """Run a method of a broker in memory, which never waits, and return its result."""
    try:
        while True:
            working.send(None)
    except StopIteration as end:
        return cast(T, end.value)
