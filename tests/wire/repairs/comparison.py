"""What repairs may make of a stream, by their documents: nothing here is the proxy's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.wire.repairs.reading import (
    DONE,
    Block,
    Json,
    read_blocks,
    read_object,
    refusal,
    something,
    tells_error,
)

# --- what each event becomes


@dataclass(frozen=True)
class Expected:
    """What must stand in the place of one event: the same text, these chunks, an error, in this order."""

    same: str | None = None
    chunks: tuple[Json, ...] = ()
    error: bool = False


def expect(data: str, names: frozenset[str], *, asked: bool) -> Expected:
    """Read one event's data as the documents of the repairs say."""
    chunk = read_object(data)
    if chunk is None:
        return Expected(same=data)
    if tells_error(chunk):
        return Expected(error=True)
    refused = refusal(chunk)
    if refused:
        chunk = {name: value for name, value in chunk.items() if name != "base_resp"}
    if "drop_unasked_chunks" in names and not asked and _says_nothing(chunk):
        return Expected(error=refused)
    return Expected(chunks=tuple(_parted(_plain(chunk), names)), error=refused)


def _says_nothing(chunk: Json) -> bool:
    if chunk.get("choices") not in (None, []) or something(chunk.get("error")):
        return False
    return "choices" in chunk or isinstance(chunk.get("usage"), dict)


def _parted(chunk: Json, names: frozenset[str]) -> list[Json]:
    choices = chunk.get("choices")
    if "split_finish" not in names or not isinstance(choices, list):
        return [chunk]
    ending = [choice for choice in choices if _ends_with_content(choice)]
    if not ending:
        return [chunk]
    first = [{**choice, "finish_reason": None} if choice in ending else choice for choice in choices]
    last = [
        {**choice, "delta": {}, **({"logprobs": None} if "logprobs" in choice else {})} for choice in ending
    ]
    return [{**chunk, "choices": first}, {**chunk, "choices": last}]


def _ends_with_content(choice: Any) -> bool:
    if not isinstance(choice, dict) or not isinstance(choice.get("delta"), dict):
        return False
    content, reason = choice["delta"].get("content"), choice.get("finish_reason")
    return isinstance(content, str) and content != "" and isinstance(reason, str) and reason != ""


def _plain(chunk: Json) -> Json:
    """A chunk without what repairs may add: `{}` for a null delta, lists and indexes of tool calls."""
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return chunk
    return {**chunk, "choices": [_plain_choice(choice) for choice in choices]}


def _plain_choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    delta = choice.get("delta")
    if delta is None and "delta" in choice:
        return {**choice, "delta": {}}
    if not isinstance(delta, dict) or not delta.get("tool_calls"):
        return choice
    calls = delta["tool_calls"]
    listed = calls if isinstance(calls, list) else [calls]
    bare = [_without_index(call) for call in listed]
    return {**choice, "delta": {**delta, "tool_calls": bare}}


def _without_index(call: Any) -> Any:
    return {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call


# --- two streams compared


class Comparison:
    """What went in beside what came out.

    Args:
        names: The repairs that are on.
        asked: Whether the client asked for usage.
    """

    def __init__(self, names: frozenset[str], *, asked: bool) -> None:
        self._names = names
        self._asked = asked

    def check(self, before: bytes, after: bytes) -> None:
        """Walk through both.

        Raises:
            AssertionError: they do not say the same.
        """
        arrived, left = read_blocks(before), read_blocks(after)
        sound = next((n for n, block in enumerate(arrived) if not block.sound), len(arrived))
        whole = sound == len(arrived) or "utf8" not in self._names
        if not whole:
            arrived = arrived[:sound]
            assert _is_error(left.pop().data), "no error for what is not UTF-8"
        assert all(block.sound for block in left) or "utf8" not in self._names
        self._walk(
            [block for block in arrived if block.data is not None], [b for b in left if b.data is not None]
        )
        assert _comments(arrived) == _comments(left)
        if self._asked and whole:
            assert _last_usage(arrived) == _last_usage(left)
        if "lf_newlines" in self._names:
            assert b"\r" not in after
        if "drop_event_lines" in self._names:
            assert not any(block.fields(name) for block in left for name in ("event", "id", "retry"))
            assert all(not block.comments or len(block.comments) == len(block.lines) for block in left)
        if "index_tool_calls" in self._names:
            _check_indexes(arrived, left)

    def _walk(self, arrived: list[Block], left: list[Block]) -> None:
        out = iter([block for block in left if block.data is not None])
        for block in arrived:
            if block.data is None:
                continue
            expected = expect(block.data, self._names, asked=self._asked)
            if expected.same is not None:
                found = self._next(out, marker=expected.same.strip() == DONE)
                assert found.data == expected.same
                self._check_name(block, found)
            for chunk in expected.chunks:
                self._check_chunk(chunk, self._next(out))
            if expected.error:
                assert _is_error(self._next(out).data)
        rest = [block for block in out if not self._is_owed(block)]
        assert rest == [], "more came out than went in"

    def _next(self, out: Iterator[Block], *, marker: bool = False) -> Block:
        block = next(out, None)
        if marker and block is not None and self._is_owed(block):
            block = next(out, None)
        assert block is not None, "fewer came out than went in"
        return block

    def _check_chunk(self, chunk: Json, block: Block) -> None:
        found = read_object(block.data)
        assert found is not None
        usage, told = chunk.get("usage"), found.get("usage")
        assert told == usage or (told is None and not self._usage_stays())
        assert _without_usage(_plain(found)) == _without_usage(chunk)
        self._check_cured(found)

    def _check_cured(self, chunk: Json) -> None:
        """What the repairs are for is gone from a chunk that came out."""
        choices = chunk.get("choices")
        choices = (
            [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        )
        if "fill_delta" in self._names:
            assert all(choice.get("delta", {}) is not None for choice in choices)
        if "split_finish" in self._names:
            assert not any(map(_ends_with_content, choices))
        if "usage_once" in self._names and isinstance(chunk.get("usage"), dict) and choices:
            assert any(choice.get("finish_reason") for choice in choices), "usage before the end"

    def _check_name(self, before: Block, after: Block) -> None:
        assert after.name == ("" if "drop_event_lines" in self._names else before.name)

    def _usage_stays(self) -> bool:
        return not self._names & {"usage_once", "split_finish"}

    def _is_owed(self, block: Block) -> bool:
        """Usage that stood on content only, for a client who asked."""
        chunk = read_object(block.data)
        return (
            self._asked
            and "usage_once" in self._names
            and chunk is not None
            and chunk.get("choices") == []
            and isinstance(chunk.get("usage"), dict)
        )


def _without_usage(chunk: Json) -> Json:
    return {key: value for key, value in chunk.items() if key != "usage"}


def _comments(blocks: list[Block]) -> list[bytes]:
    return [comment for block in blocks for comment in block.comments]


def _is_error(data: str | None) -> bool:
    error = (read_object(data) or {}).get("error")
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def _last_usage(blocks: list[Block]) -> Any:
    told = (read_object(block.data) or {} for block in blocks)
    usages = [chunk["usage"] for chunk in told if isinstance(chunk.get("usage"), dict)]
    return usages[-1] if usages else None


# --- tool calls


def _check_indexes(arrived: list[Block], left: list[Block]) -> None:
    """Every call has an index, and the calls that it makes are those that ids and names make."""
    for choice, call, _ in _calls(left):
        index = call.get("index")
        assert isinstance(index, int | float), f"choice {choice}: a call without an index"
    told = [(choice, call.get("index")) for choice, call, _ in _calls(arrived)]
    if any(index is not None for _, index in told):
        return  # what upstreams tell is theirs to answer for
    by_index: dict[tuple[str, object], str] = {}
    for choice, call, arguments in _calls(left):
        place = (choice, call["index"])
        by_index[place] = by_index.get(place, "") + arguments
    assert by_index == _joined(arrived)


def _joined(blocks: list[Block]) -> dict[tuple[str, object], str]:
    """The arguments of each call: a known id goes on, another id or a name begins, anything else goes on."""
    joined: dict[tuple[str, object], str] = {}
    known: dict[tuple[str, str], int] = {}
    last: dict[str, int] = {}
    count: dict[str, int] = {}
    for choice, call, arguments in _calls(blocks):
        identity = call.get("id") if isinstance(call.get("id"), str) else ""
        function = call.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if identity and (choice, identity) in known:
            place = known[choice, identity]
        elif identity or (isinstance(name, str) and name):
            place = count.get(choice, 0)
        else:
            place = last.get(choice, 0)
        count[choice] = max(count.get(choice, 0), place + 1)
        last[choice] = place
        if identity:
            known[choice, identity] = place
        joined[choice, place] = joined.get((choice, place), "") + arguments
    return joined


def _calls(blocks: list[Block]) -> Iterator[tuple[str, Json, str]]:
    """Every tool call's part, with the choice that it belongs to and its arguments."""
    for block in blocks:
        chunk = read_object(block.data) or {}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            calls = delta.get("tool_calls") if isinstance(delta, dict) else None
            for call in calls if isinstance(calls, list) else [calls]:
                if isinstance(call, dict):
                    function = call.get("function")
                    arguments = function.get("arguments") if isinstance(function, dict) else None
                    yield (
                        json.dumps(choice.get("index", 0)),
                        call,
                        arguments if isinstance(arguments, str) else "",
                    )
