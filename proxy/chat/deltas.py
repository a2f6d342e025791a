"""Reads an upstream's event stream as deltas of reasoning and of the answer, and the way it ends (pure).

Framing: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation. Shapes:
https://platform.openai.com/docs/api-reference/chat-streaming, Spark's `reasoning_content` and flat errors
(https://www.xfyun.cn/doc/spark/X1http.html), Mistral's `thinking` parts, OpenRouter's `reasoning`, and
`<think>` tags inside the content.
"""

import re
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from proxy.chat.notices import Failure, find_failure, finish_failure
from proxy.wire.event_stream import BOM, END_MARKER
from proxy.wire.repairs.shallow_json import Members, TooManyItems, open_list, open_object, read_value

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024

_LINE_ENDS: Final = re.compile(rb"(?:\r\n|\n|\r)((?:\r\n|\n|\r)++)?+")
"""The end of a line, and the blank lines after it."""
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_REASONING_PARTS: Final = ("thinking", "reasoning", "reasoning_text", "summary_text")
_PARTS_DEPTH_MAX: Final = 4
_BLANKS: Final = " \t\r\n"  # not the ideographic space, which is an indentation
_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"
_CODE: Final = "`"

DeltaKind = Literal["reasoning", "answer"]


class Delta(msgspec.Struct, frozen=True):
    """The next part of a text."""

    kind: DeltaKind
    text: str


class Finish(msgspec.Struct, frozen=True):
    """The end of the answer, as announced by the model.

    Args:
        reason: The vendor's word for it: `stop`, `length`, `tool_calls`, ...
    """

    reason: str


class EventSplitter:
    """Extracts the payloads from an event stream, regardless of how its bytes are split."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._payload = bytearray()
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the payloads of the events that end in this chunk, including `[DONE]`.

        Raises:
            ValueError: An event is larger than `EVENT_BYTES_MAX`.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        payloads: list[bytes] = []
        start = 0
        for ends in _LINE_ENDS.finditer(chunk):
            self._line += chunk[start : ends.start()]
            start = ends.end()
            payloads += self._end_line()
            if ends.lastindex:
                payloads += self._end_line()  # However many blank lines there are, they end one event.
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        self._line += chunk[start:]
        if len(self._payload) + len(self._line) > EVENT_BYTES_MAX:
            raise ValueError("an event is too large")
        return payloads

    def flush(self) -> list[bytes]:
        """Return the last event of a stream that ended without a blank line, as some gateways do."""
        payloads = self._end_line() if self._line else []
        return payloads + self._end_line()

    def _end_line(self) -> list[bytes]:
        line = bytes(self._line)
        self._line.clear()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(BOM)
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._payload += value.removeprefix(b" ") + b"\n"
            return []
        payload = bytes(self._payload).removesuffix(b"\n")
        self._payload.clear()
        return [payload] if payload.strip() else []


class ThinkTags:
    """Separates reasoning between `<think>` and `</think>` from the answer, however the text is split.

    A tag right after a backtick is part of the answer's text. A closing tag without an opening one is
    dropped, because some chat templates put the opening one into the prompt.
    """

    def __init__(self) -> None:
        self._held = ""
        self._before = ""
        self._thinking = False

    def feed(self, text: str) -> Iterator[tuple[DeltaKind, str]]:
        """Yield the text without tags, in pieces of one kind. Hold back the beginning of a possible tag."""
        text = self._held + text
        self._held = ""
        done = 0
        start = text.find("<")
        while start >= 0:
            rest = text[start : start + len(_CLOSE)]
            if self._is_quoted(text, start):
                tag = None
            elif (_OPEN.startswith(rest) or _CLOSE.startswith(rest)) and rest not in {_OPEN, _CLOSE}:
                self._held = rest  # the text ends within a possible tag
                break
            else:
                tag = next((tag for tag in self._tags() if rest.startswith(tag)), None)
            if tag is not None:
                yield from self._piece(text[done:start])
                self._thinking = tag == _OPEN
                done = start + len(tag)
                self._before = ""
            start = text.find("<", start + len(tag or "<"))
        yield from self._piece(text[done : len(text) - len(self._held)])

    def flush(self) -> tuple[DeltaKind, str]:
        """Return the text that was held back."""
        held, self._held = self._held, ""
        return ("reasoning" if self._thinking else "answer"), held

    def _tags(self) -> tuple[str, ...]:
        return (_CLOSE,) if self._thinking else (_OPEN, _CLOSE)

    def _is_quoted(self, text: str, start: int) -> bool:
        return not self._thinking and (text[start - 1] if start else self._before) == _CODE

    def _piece(self, text: str) -> Iterator[tuple[DeltaKind, str]]:
        if text:
            self._before = text[-1]
            yield ("reasoning" if self._thinking else "answer"), text


class DeltaReader:
    """Reads the payloads of one answer, in order."""

    def __init__(self) -> None:
        self._tags = ThinkTags()
        self._started: set[DeltaKind] = set()

    def read(self, data: bytes) -> list[Delta | Failure | Finish]:
        """Return the content of a payload: first the text, then the end of the answer, if it is there.

        Args:
            data: The payload of an event, or a whole answer that was not streamed.

        Raises:
            ValueError: It is not a JSON object, or holds too much to be read.
        """
        if not data.strip() or data.strip() == END_MARKER:
            return []
        try:
            return self._read(data)
        except TooManyItems:
            raise ValueError("a payload holds too much") from None

    def _read(self, data: bytes) -> list[Delta | Failure | Finish]:
        members = open_object(data)
        if members is None:
            raise ValueError("a payload is not a JSON object")
        choice = _choice(members)
        items: list[Delta | Failure | Finish] = list(self._texts(choice))
        baidu = read_value(members.get("result"))
        if isinstance(baidu, str):  # Qianfan's first interface
            items += self._split(baidu)
        failure = find_failure(members)
        reason = read_value(choice.get("finish_reason"))
        if failure is None and isinstance(reason, str) and reason:
            failure = finish_failure(reason)
            if failure is None:
                items += [*self.finish(), Finish(reason)]
        if failure is not None:
            items += [*self.finish(), failure]
        return items

    def finish(self) -> list[Delta]:
        """Return text that was held back because it could have become a tag."""
        return list(self._emit(*self._tags.flush()))

    def _texts(self, choice: Members) -> Iterator[Delta]:
        delta = open_object(choice.get("delta"))
        if delta is None:
            delta = open_object(choice.get("message"))
        if delta is None:
            delta = {"content": choice["text"]} if "text" in choice else {}
        thoughts = (read_value(delta.get(name)) for name in _REASONING)
        reasoning = next((text for thought in thoughts if (text := "".join(_texts_of(thought)))), "")
        yield from self._emit("reasoning", reasoning)
        yield from self._parts(read_value(delta.get("content")))
        refusal = read_value(delta.get("refusal"))
        if isinstance(refusal, str):
            yield from self._emit("answer", refusal)

    def _parts(self, content: object) -> Iterator[Delta]:
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") in _REASONING_PARTS:
                yield from self._emit("reasoning", "".join(_texts_of(part)))
            else:
                yield from self._split("".join(_texts_of(part)))

    def _split(self, text: str) -> Iterator[Delta]:
        for kind, piece in self._tags.feed(text):
            yield from self._emit(kind, piece)

    def _emit(self, kind: DeltaKind, text: str) -> Iterator[Delta]:
        """Yield the text without leading blanks of a kind: some models send empty reasoning."""
        if kind not in self._started:
            text = text.lstrip(_BLANKS)
        if text:
            self._started.add(kind)
            yield Delta(kind, text)


def _choice(members: Members) -> Members:
    """Return the first choice, or an empty one."""
    for item in open_list(members.get("choices")) or ():
        choice = open_object(item)
        if choice is not None and read_value(choice.get("index")) in (0, None):
            return choice
    return {}


def _texts_of(content: object, depth: int = 0) -> Iterator[str]:
    """Yield the texts of a string, of a content part, or of a list of them."""
    if isinstance(content, str):
        yield content
    elif depth >= _PARTS_DEPTH_MAX:
        return
    elif isinstance(content, list):
        for part in content:
            yield from _texts_of(part, depth + 1)
    elif isinstance(content, dict):
        for name in ("text", "thinking", "content", "summary", "refusal"):
            yield from _texts_of(content.get(name), depth + 1)
