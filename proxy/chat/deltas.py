"""What an upstream streams, told as what was thought, what was answered, and how it ended (pure).

Framing: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation. Shapes:
https://platform.openai.com/docs/api-reference/chat-streaming, Spark's `reasoning_content` and flat errors
(https://www.xfyun.cn/doc/spark/X1http.html), Mistral's `thinking` parts, OpenRouter's `reasoning`, and
`<think>` tags inside the content.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from proxy.chat.failures import Failure, find_failure, finish_failure
from proxy.chat.think_tags import ThinkTags
from proxy.wire.repairs.shallow_json import open_object, read_value

DONE: Final = b"[DONE]"
EVENT_BYTES_MAX: Final = 16 * 1024 * 1024

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_REASONING_PARTS: Final = ("thinking", "reasoning", "reasoning_text", "summary_text")
_PARTS_DEEP_MAX: Final = 4
_BLANKS: Final = " \t\r\n"  # an ideographic space is an indentation, and stays

Kind = Literal["reasoning", "answer"]


@dataclass(frozen=True, slots=True)
class Delta:
    """Some more text, as it came."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The model says that it is done.

    Args:
        reason: As the vendor calls it: `stop`, `length`, `tool_calls`, ...
    """

    reason: str


class EventSplitter:
    """Take the payloads out of an event stream, however its bytes are cut."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._payload: list[bytes] = []
        self._bytes = 0
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Give the payloads of the events that end in this chunk; `[DONE]` is one of them.

        Raises:
            ValueError: an event is larger than `EVENT_BYTES_MAX`.
        """
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        payloads: list[bytes] = []
        start = 0
        for end in _LINE_END.finditer(chunk):
            self._line += chunk[start : end.start()]
            start = end.end()
            payloads += self._end_line()
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        self._line += chunk[start:]
        if self._bytes + len(self._line) > EVENT_BYTES_MAX:
            raise ValueError("an event is too large")
        return payloads

    def flush(self) -> list[bytes]:
        """The last event of a stream that ended without a blank line, which some gateways leave out."""
        payloads = self._end_line() if self._line else []
        return payloads + self._end_line()

    def _end_line(self) -> list[bytes]:
        line = bytes(self._line)
        self._line.clear()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._payload.append(value.removeprefix(b" "))
                self._bytes += len(value) + 1
            return []
        payload = b"\n".join(self._payload)
        self._payload.clear()
        self._bytes = 0
        return [payload] if payload.strip() else []


class DeltaReader:
    """Read the payloads of one answer, in their order."""

    def __init__(self) -> None:
        self._tags = ThinkTags()
        self._begun: set[Kind] = set()

    def read(self, data: bytes) -> list[Delta | Failure | Finish]:
        """Tell what one payload says: first the text, then how it ended.

        Args:
            data: The payload of one event, or a whole answer that was not streamed.

        Raises:
            ValueError: it is no JSON object.
        """
        if not data.strip() or data.strip() == DONE:
            return []
        members = open_object(data)
        if members is None:
            raise ValueError("a payload is no JSON object")
        choice = _choice(read_value(members.get("choices")))
        told: list[Delta | Failure | Finish] = list(self._texts(choice))
        baidu = read_value(members.get("result"))
        if isinstance(baidu, str):  # Qianfan's first interface
            told += self._split(baidu)
        failure = find_failure(members)
        reason = choice.get("finish_reason")
        if failure is None and isinstance(reason, str) and reason:
            failure = finish_failure(reason)
            if failure is None:
                told += [*self.finish(), Finish(reason)]
        if failure is not None:
            told += [*self.finish(), failure]
        return told

    def finish(self) -> list[Delta]:
        """What was held back, since it could have become a tag."""
        return list(self._emit(*self._tags.flush()))

    def _texts(self, choice: dict[str, Any]) -> Iterator[Delta]:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = choice.get("message")
        if not isinstance(delta, dict):
            delta = {"content": choice.get("text")}
        reasoning = next((text for name in _REASONING if (text := "".join(_texts_of(delta.get(name))))), "")
        yield from self._emit("reasoning", reasoning)
        yield from self._parts(delta.get("content"))
        refusal = delta.get("refusal")
        if isinstance(refusal, str):
            yield from self._emit("answer", refusal)

    def _parts(self, content: Any) -> Iterator[Delta]:
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, dict) and part.get("type") in _REASONING_PARTS:
                yield from self._emit("reasoning", "".join(_texts_of(part)))
            else:
                yield from self._split("".join(_texts_of(part)))

    def _split(self, text: str) -> Iterator[Delta]:
        for kind, piece in self._tags.feed(text):
            yield from self._emit(kind, piece)

    def _emit(self, kind: Kind, text: str) -> Iterator[Delta]:
        """The text, but for blanks before anything was said: some models send an empty thought."""
        if kind not in self._begun:
            text = text.lstrip(_BLANKS)
        if text:
            self._begun.add(kind)
            yield Delta(kind, text)


def _choice(choices: Any) -> dict[str, Any]:
    """The first choice; an empty one where there is none."""
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and choice.get("index") in (0, None):
            return choice
    return {}


def _texts_of(content: Any, depth: int = 0) -> Iterator[str]:
    """The texts of a string, of a part, or of a list of them."""
    if isinstance(content, str):
        yield content
    elif depth >= _PARTS_DEEP_MAX:
        return
    elif isinstance(content, list):
        for part in content:
            yield from _texts_of(part, depth + 1)
    elif isinstance(content, dict):
        for name in ("text", "thinking", "content", "summary", "refusal"):
            yield from _texts_of(content.get(name), depth + 1)
