"""What repairs may change in a stream according to their documentation, written without the proxy's code."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.wire.repairs.reading import (
    DONE,
    END_WORDS,
    Block,
    Json,
    read_blocks,
    read_leniently,
    read_object,
    refusal,
    tells_error,
)

# --- what each event becomes


@dataclass(frozen=True)
class Expected:
    """What must replace one event: the same text, these chunks, an error, in this order."""

    same: str | None = None
    chunks: tuple[Json, ...] = ()
    error: bool = False
    last: bool = False
    """Whether nothing may follow."""


@dataclass
class Seen:
    """The state after the events so far."""

    answered: bool = False
    ended: bool = False


def expand(data: str, names: frozenset[str]) -> list[str]:
    """Return the events in the data of one block: one per line if blank lines between them are missing."""
    lines = [line for line in data.split("\n") if line.strip()]
    if "data_lines" not in names or len(lines) < 2 or _reads_as_json(data):
        return [data]
    return lines if all(read_object(line) is not None or line.strip() == DONE for line in lines) else [data]


def expect(data: str, names: frozenset[str], seen: Seen, *, asked: bool, chat: bool) -> Expected:
    """Return what one event must become according to the documentation of the repairs."""
    if not data.strip():
        return Expected() if "drop_unasked_chunks" in names else Expected(same=data)
    if data.strip().lower() in END_WORDS:
        if not seen.answered and "true_errors" in names:
            return Expected(error=True, last=True)
        seen.ended = True
        return Expected(same=DONE if "end_stream" in names else data)
    chunk = read_object(data)
    if chunk is None and "true_errors" in names:
        chunk = read_leniently(data)
        if chunk is None and _reads_as_json(data) and data.lstrip().startswith("{"):
            seen.answered = True
            return Expected(same=data)
    if chunk is None:
        return _expect_other(data, names, seen)
    if tells_error(chunk):
        seen.answered = True
        return Expected(error=True)
    refused = refusal(chunk)
    if refused:
        chunk = {name: value for name, value in chunk.items() if name != "base_resp"}
    seen.answered = seen.answered or refused or bool(chunk.get("choices"))
    seen.ended = seen.ended or any(
        isinstance(choice, dict) and choice.get("finish_reason")
        for choice in chunk.get("choices") or ()
        if isinstance(chunk.get("choices"), list)
    )
    if "drop_unasked_chunks" in names and _is_dropped(chunk, asked=asked):
        return Expected(error=refused)
    if refused and not chunk.get("choices"):
        return Expected(error=True)
    return Expected(chunks=tuple(_parted(_plain(chunk, chat=chat), names)), error=refused)


def _expect_other(data: str, names: frozenset[str], seen: Seen) -> Expected:
    if "true_errors" not in names:
        return Expected(same=data)
    if _reads_as_json(data):
        return Expected() if "drop_unasked_chunks" in names else Expected(same=data)
    return Expected() if seen.ended else Expected(error=True, last=True)


def _reads_as_json(data: str) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _is_dropped(chunk: Json, *, asked: bool) -> bool:
    if chunk.get("choices") not in (None, []) or chunk.get("error"):
        return False
    if not asked:
        return True
    return chunk.get("choices") is None and not isinstance(chunk.get("usage"), dict)


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


def _plain(chunk: Json, *, chat: bool = True) -> Json:
    """Return a chunk in a normal form that is the same with and without repairs."""
    choices = chunk.get("choices")
    if choices is None and isinstance(chunk.get("usage"), dict):
        return {**chunk, "choices": []}
    if not isinstance(choices, list) or not chat:
        return chunk
    return {**chunk, "choices": [_plain_choice(choice) for choice in choices]}


def _plain_choice(choice: Any) -> Any:
    if not isinstance(choice, dict):
        return choice
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        text = choice.get("text")
        moved = {"content": text} if isinstance(text, str) and text else {}
        delta = choice["message"] if isinstance(choice.get("message"), dict) else moved
        choice = {name: value for name, value in choice.items() if name not in {"message", "text"}}
    delta = dict(delta)
    content = delta.get("content")
    if isinstance(content, list) and not _holds_more_than_texts(content):
        delta["content"] = "".join(part["text"] for part in content)
    if delta.get("tool_calls") is not None:
        calls = delta["tool_calls"]
        listed = calls if isinstance(calls, list) else [calls]
        delta["tool_calls"] = [_plain_call(call) for call in listed]
    return {**choice, "delta": delta}


def _holds_more_than_texts(content: object) -> bool:
    parts = content if isinstance(content, list) else []
    return any(not isinstance(part, dict) or not isinstance(part.get("text"), str) for part in parts)


def _plain_call(call: Any) -> Any:
    """Return a part of a tool call without the members that repairs add or drop."""
    if not isinstance(call, dict):
        return call
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    kept = {
        key: value
        for key, value in call.items()
        if key not in {"index", "id", "type", "function"} and value is not None
    }
    others = {key: value for key, value in function.items() if key not in {"name", "arguments"}}
    return {**kept, "function": {**others, "arguments": function.get("arguments") or ""}}


# --- compare two streams


class Comparison:
    """Compares a stream with the repaired one.

    Args:
        names: The repairs that are enabled.
        asked: Whether the client asked for usage.
    """

    def __init__(self, names: frozenset[str], *, asked: bool, chat: bool = True) -> None:
        self._names = names
        self._asked = asked
        self._chat = chat

    def check(self, before: bytes, after: bytes) -> None:
        """Compare both streams.

        Raises:
            AssertionError: They differ.
        """
        arrived, left = read_blocks(before), read_blocks(after)
        if "data_lines" in self._names:
            arrived = [part for block in arrived for part in separated(block)]
        if "utf8" in self._names:
            arrived = [block if block.sound else replaced(block) for block in arrived]
        sound = next((n for n, block in enumerate(arrived) if not block.sound), len(arrived))
        whole = sound == len(arrived) or "utf8" not in self._names
        if not whole:
            arrived = arrived[:sound]
        assert all(block.sound for block in left) or "utf8" not in self._names
        events = [block for block in arrived if block.data is not None]
        whole = self._walk(events, left, whole=whole) and whole
        if whole:
            assert _comments(arrived) == _comments(left)
        if self._asked and whole:
            parts = [data for block in events for data in expand(block.data or "", self._names)]
            assert _fits(_last_usage(parts), _last_usage([block.data or "" for block in left]))
        if "lf_newlines" in self._names:
            assert b"\r" not in after
        if "drop_event_lines" in self._names:
            assert not any(block.fields(name) for block in left for name in ("event", "id", "retry"))
            assert all(not block.comments or len(block.comments) == len(block.lines) for block in left)
        if "index_tool_calls" in self._names:
            _check_indexes(left)

    def _walk(self, arrived: list[Block], left: list[Block], *, whole: bool) -> bool:
        """Compare event by event; return whether the stream was not ended by an error of ours."""
        out = iter([block for block in left if block.data is not None])
        seen, ended = Seen(), False
        for block in arrived:
            for data in expand(block.data or "", self._names):
                expected = expect(data, self._names, seen, asked=self._asked, chat=self._chat)
                ended = self._compare(block if data == block.data else None, expected, out)
                if ended:
                    break
            if ended:
                break
        if not whole and not ended:
            assert _is_error(self._next(out).data), "no error for what is not UTF-8"
            ended = True
        rest = [block for block in out if not self._is_owed(block)]
        if "accept_missing_end" in self._names and rest and not seen.ended:
            assert (rest.pop().data or "") == DONE
        assert rest == [], "more came out than went in"
        return not ended

    def _compare(self, block: Block | None, expected: Expected, out: Iterator[Block]) -> bool:
        if expected.same is not None:
            found = self._next(out, marker=expected.same.strip() == DONE)
            assert found.data == expected.same
            if block is not None:  # Of several events in one block only the first has its name.
                self._check_name(block, found)
        for chunk in expected.chunks:
            self._check_chunk(chunk, self._next(out))
        if expected.error:
            assert _is_error(self._next(out).data)
        return expected.last

    def _next(self, out: Iterator[Block], *, marker: bool = False) -> Block:
        block = next(out, None)
        if marker and block is not None and self._is_owed(block):
            block = next(out, None)
        assert block is not None, "fewer came out than went in"
        return block

    def _check_chunk(self, chunk: Json, block: Block) -> None:
        found = read_object(block.data)
        assert found is not None
        usage, left = chunk.get("usage"), found.get("usage")
        assert _fits(usage, left) or (left is None and not self._usage_stays())
        assert _without_usage(_plain(found, chat=self._chat)) == _without_usage(chunk)
        self._check_cured(found)

    def _check_cured(self, chunk: Json) -> None:
        """Check that a repaired chunk no longer has the faults that the repairs cure."""
        choices = chunk.get("choices")
        choices = (
            [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        )
        if "fill_delta" in self._names:
            assert all(isinstance(choice.get("delta"), dict) for choice in choices)
        if "flat_content" in self._names:
            deltas = [choice.get("delta") for choice in choices]
            contents = [delta.get("content") for delta in deltas if isinstance(delta, dict)]
            assert not any(
                isinstance(content, list | dict) and not _holds_more_than_texts(content)
                for content in contents
            )
        if "split_finish" in self._names:
            assert not any(map(_ends_with_content, choices))
        if "usage_once" in self._names and isinstance(chunk.get("usage"), dict) and choices:
            assert any(choice.get("finish_reason") for choice in choices), "usage before the end"

    def _check_name(self, before: Block, after: Block) -> None:
        assert after.name == ("" if "drop_event_lines" in self._names else before.name)

    def _usage_stays(self) -> bool:
        return not self._names & {"usage_once", "split_finish"}

    def _is_owed(self, block: Block) -> bool:
        """Check the usage that only chunks with content had, if the client asked for it."""
        chunk = read_object(block.data)
        return (
            self._asked
            and "usage_once" in self._names
            and chunk is not None
            and chunk.get("choices") == []
            and isinstance(chunk.get("usage"), dict)
        )


def separated(block: Block) -> list[Block]:
    """Return the events of a block without blank lines between them, if it holds only data."""
    parts = list[list[bytes]]()
    for line in block.lines:
        begins = line.removeprefix(b"data:").lstrip(b" ").startswith((b"{", b"[DONE]"))
        if parts and not (begins and parts[-1][-1].endswith(b"}")):
            parts[-1].append(line)
        else:
            parts.append([line])
    of_data = all(line.startswith(b"data:") for line in block.lines)
    return [Block(tuple(part)) for part in parts] if of_data else [block]


def replaced(block: Block) -> Block:
    """Return the block with U+FFFD for invalid UTF-8, if that does not affect its choices."""
    valid = Block(tuple(line.decode("utf-8", "replace").encode() for line in block.lines))
    choices = (read_object(valid.data) or {}).get("choices")
    broken = choices is None or "\ufffd" in json.dumps(choices, ensure_ascii=False)
    return block if valid.data is not None and broken else valid


def _fits(before: Any, after: Any) -> bool:
    """Whether the usage is the same except for the numbers that `fill_usage` adds."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return bool(before == after)
    added = {name for name in after.keys() - before.keys() if name.endswith("_tokens")}
    return before == {name: value for name, value in after.items() if name not in added}


def _without_usage(chunk: Json) -> Json:
    return {key: value for key, value in chunk.items() if key != "usage"}


def _comments(blocks: list[Block]) -> list[bytes]:
    return [comment for block in blocks for comment in block.comments]


def _is_error(data: str | None) -> bool:
    error = (read_object(data) or {}).get("error")
    return isinstance(error, dict) and isinstance(error.get("message"), str)


def _last_usage(events: list[str]) -> Any:
    chunks = (read_object(data) or {} for data in events)
    usages = [chunk["usage"] for chunk in chunks if isinstance(chunk.get("usage"), dict) and chunk["usage"]]
    return usages[-1] if usages else None


# --- tool calls


def _check_indexes(left: list[Block]) -> None:
    """Every call has an index, and the parts of one call have the same one."""
    ids: dict[tuple[str, object], str] = {}
    names: dict[tuple[str, object], str] = {}
    """Of the calls that have arguments."""
    for choice, call, arguments in _calls(left):
        index, identity = call.get("index"), call.get("id")
        assert isinstance(index, int), f"choice {choice}: a call without an index"
        function = call.get("function")
        if isinstance(identity, str) and identity and isinstance(function, dict) and function.get("name"):
            assert ids.setdefault((choice, index), identity) == identity, "two calls with one index"
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and name:
            assert names.get((choice, index), name) == name, "two calls with one index"
            if arguments:
                names[choice, index] = name


def _calls(blocks: list[Block]) -> Iterator[tuple[str, Json, str]]:
    """Yield the parts of all tool calls, with their choice and arguments."""
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
