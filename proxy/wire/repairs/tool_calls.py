"""Find the tool call that each part in a stream belongs to."""

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from proxy.wire.repairs.shallow_json import (
    NULL,
    Members,
    first_byte,
    is_null,
    is_text,
    open_object,
    read_value,
)

CALLS_MAX: Final = 1024
"""How many tool calls of one choice are tracked. After that, tracking starts over."""
KEPT_BYTES_MAX: Final = 256
"""A longer id, name or index of an upstream is kept as a digest until the stream ends."""
INDEX_MAX: Final = 1 << 31
"""A larger number is no index."""

_TOOLS: Final = (("function", "arguments"), ("custom", "input"))
"""The members of a tool call that hold its name, each with the name of its arguments there."""


class ToolCall(msgspec.Struct):
    """The parts of one tool call that have been received so far."""

    index: int
    id: bytes = b""
    """The id, or its digest; see `fingerprint`."""
    name: bytes = b""
    """The name in the first part, or its digest."""
    has_arguments: bool = False
    is_function: bool = True
    """Whether it calls a function, and not a tool of another type."""

    def is_other(self, identity: bytes, name: bytes) -> bool:
        """Whether a part with the index of this call has the id or the name of another one."""
        if identity and self.id:
            return identity != self.id
        return self.has_arguments and bool(name) and bool(self.name) and name != self.name


PartChange = Callable[[Members, ToolCall, bool], Members | None]
"""Takes a part, its tool call, and whether the part begins the call; returns the new part or None."""


class ToolCalls(msgspec.Struct):
    """The tool calls of one choice of a stream."""

    calls: list[ToolCall] = msgspec.field(default_factory=list)
    _by_id: dict[bytes, ToolCall] = msgspec.field(default_factory=dict)
    _by_index: dict[int, ToolCall] = msgspec.field(default_factory=dict)
    """The latest call by the upstream's index."""
    _taken: set[int] = msgspec.field(default_factory=set)
    """The indices that calls have been given."""
    _next: int = 0

    def find(self, part: Members) -> tuple[ToolCall, bool]:
        """Return the tool call that a part belongs to, and whether the part begins it.

        The index decides. But some upstreams write the index 0 into every call. So a part with both another
        id and a name begins another call, and so does one without an id that has another name than a call
        whose arguments have begun. Without an index, a known id continues its call, another id or a name
        begins one, and any other part continues the last call.
        """
        identity = fingerprint(part["id"]) if is_text(part.get("id")) else b""
        name, has_arguments = _read_function(part)
        index = read_index(part)
        known = self._by_id.get(identity)
        if index is None:
            call = known or (None if identity or name or not self.calls else self.calls[-1])
        else:
            call = self._by_index.get(index)
            if call is not None and call.is_other(identity, name):
                call = known if known is not None or name else call
        begins = call is None
        if call is None:
            call = self._begin(index)
            call.is_function = calls_function(part)
            call.name = name
        if identity and not call.id:
            call.id = identity
            self._by_id[identity] = call
        if index is not None:
            self._by_index[index] = call
        call.has_arguments = call.has_arguments or has_arguments
        return call, begins

    def _begin(self, index: int | None) -> ToolCall:
        if len(self.calls) >= CALLS_MAX:
            self.calls.clear()
            self._by_id.clear()
            self._by_index.clear()
            self._taken.clear()
        call = ToolCall(self._next if index is None or index in self._taken else index)
        self._taken.add(call.index)
        self._next = max(self._next, call.index + 1)
        self.calls.append(call)
        return call


def _read_function(part: Members) -> tuple[bytes, bool]:
    """Return the fingerprint of the name in a part, empty if it has none, and whether it has arguments."""
    tools = [(open_object(part.get(tool)) or {}, arguments) for tool, arguments in _TOOLS]
    name = next((fingerprint(tool["name"]) for tool, _ in tools if is_text(tool.get("name"))), b"")
    return name, any(_has_value(tool.get(arguments)) for tool, arguments in tools)


def _has_value(written: msgspec.Raw | None) -> bool:
    return is_text(written) if first_byte(written) == b'"' else not is_null(written)


def calls_function(call: Members) -> bool:
    """Whether a tool call, or its first part, calls a function, and not for example OpenAI's custom tools."""
    if open_object(call.get("function")) is not None:
        return True
    kind = call.get("type")
    return "custom" not in call and (kind is None or not is_text(kind) or bytes(kind) == b'"function"')


def read_index(part: Members) -> int | None:
    """Return the index of a tool call or a choice; None if it is not a whole number, or too large."""
    value = read_value(part.get("index", NULL))
    if isinstance(value, float) and value.is_integer():  # Gson writes 1.0 for each 1 of a map.
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= INDEX_MAX else None


def fingerprint(value: bytes | msgspec.Raw) -> bytes:
    """Return what distinguishes a JSON value from others: its bytes, or a digest, which is not JSON."""
    written = bytes(value)
    return written if len(written) <= KEPT_BYTES_MAX else b"#" + hashlib.sha256(written).digest()


def is_whole(kept: bytes) -> bool:
    """Whether a fingerprint is the value itself."""
    return not kept.startswith(b"#")
