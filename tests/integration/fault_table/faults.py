"""The faults of upstreams: each changes the correct response of a call in one way."""

import gzip
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from tests.integration.fault_table.calls import SOUND, TEXT, TOOL_CALLS, USAGE, ClientCall, chunk, in_base64
from tests.integration.fault_table.replies import DONE, EVENTS_TYPE, Json, Reply, as_json, as_stream, event

Change = Callable[[ClientCall], Reply | None]
ANSWERS: Final = frozenset({"chat", "embeddings", "rerank", "transcription"})
EVERY: Final = ANSWERS | {"stream", "speech"}
JSON_ASKED: Final = frozenset({"chat", "stream", "embeddings", "rerank"})


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: For the table.
        kinds: The kinds of answers that it can befall.
        change: Gives the response of a call; None where the fault does not apply.
    """

    name: str
    kinds: frozenset[str]
    change: Change
    expected: Any = None
    """The expected result, if the fault changes it."""

    def reply(self, call: ClientCall) -> Reply | None:
        """Return the response with the fault."""
        return self.change(call) if call.kind in self.kinds else None


FAULTS: Final[list[Fault]] = []


def fault(name: str, *kinds: str, expected: Any = None) -> Callable[[Change], Change]:
    """Register a fault."""

    def register(change: Change) -> Change:
        FAULTS.append(Fault(name, frozenset(kinds) or EVERY, change, expected))
        return change

    return register


def same(name: str, reply: Reply, *kinds: str) -> None:
    """Register a fault that is the same for every call."""
    fault(name, *kinds)(lambda _: reply)


def in_answer(
    name: str, *kinds: str, expected: Any = None
) -> Callable[[Callable[[Json], Any]], Callable[[Json], Any]]:
    """Register a change of the correct answer."""

    def register(change: Callable[[Json], Any]) -> Callable[[Json], Any]:
        def reply(call: ClientCall) -> Reply | None:
            answer = deepcopy(call.answer())
            changed = change(answer)
            changed = answer if changed is None else changed
            return None if changed == call.answer() else as_json(changed)

        fault(name, *kinds, expected=expected)(reply)
        return change

    return register


def in_chunks(name: str) -> Callable[[Callable[[list[Any]], Any]], Callable[[list[Any]], Any]]:
    """Register a change of the correct chunks."""

    def register(change: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        def reply(call: ClientCall) -> Reply | None:
            chunks = deepcopy(call.chunks())
            changed = change(chunks)
            changed = chunks if changed is None else changed
            return None if changed == call.chunks() else as_stream(*changed, DONE)

        fault(name, "stream")(reply)
        return change

    return register


def in_bytes(name: str, *kinds: str) -> Callable[[Callable[[bytes], Any]], Callable[[bytes], Any]]:
    """Register a change of the bytes of the correct response; a tuple also has its end."""

    def register(change: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def reply(call: ClientCall) -> Reply:
            right = call.right()
            changed = change(right.body)
            body, ends = changed if isinstance(changed, tuple) else (changed, "well")
            return replace(right, pieces=[body], ends=ends)

        fault(name, *kinds)(reply)
        return change

    return register


HTML: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n\n<body>Please sign in</body></html>\n"
)

# --- no fault: for comparison

fault("none")(ClientCall.right)


@fault("pretty printed", *ANSWERS)
def _pretty(call: ClientCall) -> Reply:
    return Reply([b"\n\n  " + json.dumps(call.answer(), indent=2).encode() + b"\n"])


@fault("piece by piece")
def _by_the_byte(call: ClientCall) -> Reply:
    right = call.right()
    return replace(
        right,
        pieces=[right.body[n : n + 7] for n in range(0, min(len(right.body), 7000), 7)] + [right.body[7000:]],
    )


@fault("compressed")
def _compressed(call: ClientCall) -> Reply:
    right = call.right()
    return replace(right, pieces=[gzip.compress(right.body)], headers=("Content-Encoding: gzip",))


# --- HTTP

same("HTML, labelled as HTML", Reply([HTML], content_type="text/html"))
same("HTML, labelled as JSON", Reply([HTML]))
same("HTML, labelled as an event stream", Reply([HTML], content_type=EVENTS_TYPE))
same("HTML, labelled as nothing", Reply([HTML], content_type=None))
same("HTML, labelled as audio", Reply([HTML], content_type="audio/mpeg"), "speech")
same(
    "text of a proxy",
    Reply([b"upstream connect error or disconnect/reset before headers"], content_type="text/plain"),
)
same(
    "text of a proxy, labelled as an event stream", Reply([b"no healthy upstream"], content_type=EVENTS_TYPE)
)
same("text of a proxy, labelled as JSON", Reply([b"no healthy upstream"]))
same("empty body", Reply([]))
same("empty body, labelled as an event stream", Reply([], content_type=EVENTS_TYPE))
same("empty body, labelled as nothing", Reply([], content_type=None))
same("blank body", Reply([b"\n \n"]))
same("status 204", Reply([], content_type=None, status="204 No Content"))
same("status 202 with a job", as_json({"id": "job-1", "status": "queued"}, status="202 Accepted"))
same("JSON null", Reply([b"null"]))
same("JSON true", Reply([b"true"]))
same("JSON number", Reply([b"42"]))
same("JSON text", Reply([b'"overloaded"']))
same("JSON {}", Reply([b"{}"]))
same("JSON []", Reply([b"[]"]))
same("a redirect", Reply([], content_type=None, status="302 Found", headers=("Location: /login",)))
same("no answer", Reply([], ends="nothing"))
same("status 500 as JSON", as_json({"error": {"message": "boom"}}, status="500 Oops"))
same("status 500 without a body", Reply([], status="500 Oops", content_type=None))
same("status 503 as HTML", Reply([HTML], content_type="text/html", status="503 Unavailable"))
same(
    "status 429", as_json({"error": {"message": "slow down"}}, status="429 Many", headers=("Retry-After: 1",))
)
same("status 400 of a vendor", as_json({"code": 10013, "message": "audit"}, status="400 Bad"))
same("status 404 as text", Reply([b"404 page not found"], content_type="text/plain", status="404 Not Found"))
in_bytes("cut inside the body")(lambda body: (body[: len(body) // 2], "cut"))
in_bytes("cut after the body")(lambda body: (body, "cut"))
in_bytes("ended inside the body", "chat", "stream", "embeddings", "rerank", "transcription")(
    lambda body: body[: len(body) // 2]
)
in_bytes("ended before the last byte", *ANSWERS)(lambda body: body[:-1])
in_bytes("twice the same", *ANSWERS)(lambda body: body + body)
in_bytes("a byte order mark", *ANSWERS, "stream")(lambda body: b"\xef\xbb\xbf" + body)
in_bytes("not UTF-8, the model", *JSON_ASKED)(lambda body: body.replace(b'"m"', b'"m\xe4\xbd"', 1))
in_bytes("not UTF-8, the text", "chat", "stream")(lambda body: body.replace(b"there", b"th\xe4\xbdere"))
in_bytes("not UTF-8, the arguments", "chat", "stream")(lambda body: body.replace(b"1}", b"1\xe4\xbd}"))
in_bytes("text behind the JSON", *ANSWERS)(lambda body: body + b"\nbye")


@fault("right, status 201")
def _created(call: ClientCall) -> Reply:
    return replace(call.right(), status="201 Created")


for _label in ("text/plain", "text/html", "application/octet-stream", None, "application/json;charset=GBK"):

    def _labelled(call: ClientCall, label: str | None = _label) -> Reply:
        return replace(call.right(), content_type=label)

    fault(f"labelled as {_label}")(_labelled)

same("labelled as an event stream", as_json({"text": TEXT}, content_type=EVENTS_TYPE), "transcription")


@fault("JSON labelled as an event stream", "chat", "embeddings", "rerank")
def _as_events(call: ClientCall) -> Reply:
    return as_json(call.answer(), content_type=EVENTS_TYPE)


# --- errors with status 200

_ERRORS: Final[dict[str, Any]] = {
    "of OpenAI": {
        "error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}
    },
    "of OpenAI, with a number": {"error": {"message": "slow down", "code": 429}},
    "of OpenAI, without a cause": {"error": {"message": "boom"}},
    "as a text": {"error": "model not loaded"},
    "as an empty object": {"error": {"code": "x"}},
    "of Anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "of Spark": {"code": 10012, "message": "EngineInternalError", "sid": "cha000"},
    "of Spark, header": {"header": {"code": 10907, "message": "too many tokens", "sid": "x", "status": 2}},
    "of Baidu": {"error_code": 336003, "error_msg": "bad", "id": "as-1"},
    "of MiniMax": {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
    "of MiniMax, with choices": {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "login"}},
    "of Zhipu": {"code": 500, "msg": "404 NOT_FOUND", "success": False},
    "of DashScope": {"code": "InvalidApiKey", "message": "no", "request_id": "a"},
    "of Tencent": {"Response": {"Error": {"Code": "LimitExceeded", "Message": "busy"}, "RequestId": "r"}},
    "of vLLM": {"object": "error", "message": "long", "type": "BadRequestError", "code": 400},
    "of Cloudflare": {"success": False, "errors": [{"code": 7003, "message": "route"}], "result": None},
    "of FastAPI": {"detail": "Not authenticated"},
    "of FastAPI, a list": {"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]},
    "of AWS": {"message": "Internal server error"},
    "of WeChat": {"errcode": 40001, "errmsg": "invalid credential"},
    "of a company": {"retcode": 5001, "msg": "quota exceeded", "data": None},
    "of a company, with data": {"code": 401, "msg": "token expired", "data": {}},
    "of a company, status": {"status": "error", "message": "backend is down"},
    "of Spring": {"timestamp": 1, "status": 500, "error": "Internal Server Error", "path": "/v1"},
    "beside null choices": {"choices": None, "error": {"message": "boom"}},
    "beside no choices": {"choices": [], "error": {"message": "boom"}, "usage": None},
}
for _kind, _error in _ERRORS.items():
    same(f"error {_kind}", as_json(_error))
    same(f"error {_kind}, as an event", as_stream(_error), "stream")

    def _after_words(call: ClientCall, error: Any = _error) -> Reply:
        return as_stream(*call.chunks()[:2], error)

    fault(f"error {_kind}, after words", "stream")(_after_words)


@fault("error as text, as an event", "stream")
def _text_event(call: ClientCall) -> Reply:
    return as_stream(b"data: upstream exploded\n\n")


@fault("error as text, after words", "stream")
def _text_event_later(call: ClientCall) -> Reply:
    return as_stream(*call.chunks()[:2], b"data: upstream exploded\n\n")


@fault("error event with a name, after words", "stream")
def _named_error(call: ClientCall) -> Reply:
    return as_stream(*call.chunks()[:2], b'event: error\ndata: {"error": {"message": "boom"}}\n\n')


@fault("error without its blank line, after words", "stream")
def _unfinished_error(call: ClientCall) -> Reply:
    return as_stream(*call.chunks()[:2], b'data: {"error": {"message": "boom"}}')


@fault("error of OpenRouter, after words", "stream")
def _openrouter(call: ClientCall) -> Reply:
    failed = {**chunk({"content": ""}, "error"), "error": {"code": 502, "message": "provider disconnected"}}
    return as_stream(*call.chunks()[:2], failed, DONE)


@fault("error in a choice, after words", "stream")
def _choice_error(call: ClientCall) -> Reply:
    failed = chunk({"content": ""}, "error")
    failed["choices"][0]["error"] = {"code": 502, "message": "provider disconnected"}
    return as_stream(*call.chunks()[:2], failed, DONE)


@in_answer("error in a choice", "chat")
def _whole_choice_error(answer: Json) -> None:
    answer["choices"][0].update(finish_reason="error", error={"code": 502, "message": "gone"})
    answer["choices"][0]["message"] = {"role": "assistant", "content": "Hel"}


# --- another kind of response than requested


@fault("a stream where none was asked for", "chat")
def _unasked_stream(call: ClientCall) -> Reply:
    return as_stream(*replace(call, kind="stream").chunks(), DONE)


@fault("a stream where none was asked for, labelled as JSON", "chat")
def _unasked_stream_as_json(call: ClientCall) -> Reply:
    return as_stream(*replace(call, kind="stream").chunks(), DONE, content_type="application/json")


@fault("a stream where none was asked for, cut", "chat")
def _unasked_stream_cut(call: ClientCall) -> Reply:
    return as_stream(*replace(call, kind="stream").chunks()[:2])


@fault("a stream where none was asked for, with an error", "chat")
def _unasked_stream_error(call: ClientCall) -> Reply:
    return as_stream(*replace(call, kind="stream").chunks()[:2], {"error": {"message": "boom"}})


@fault("a whole answer to a stream", "stream")
def _whole_answer(call: ClientCall) -> Reply:
    return as_json(call.answer())


@fault("a whole answer to a stream, labelled as a stream", "stream")
def _whole_answer_as_stream(call: ClientCall) -> Reply:
    return as_json(call.answer(), content_type=EVENTS_TYPE)


@fault("a whole answer in one event", "stream")
def _whole_event(call: ClientCall) -> Reply:
    return as_stream(call.answer(), DONE)


@fault("lines of JSON", "stream")
def _lines(call: ClientCall) -> Reply:
    return Reply(
        [json.dumps(each).encode() + b"\n" for each in call.chunks()], content_type="application/x-ndjson"
    )


@fault("lines of JSON, labelled as a stream", "stream")
def _lines_as_stream(call: ClientCall) -> Reply:
    return Reply([json.dumps(each).encode() + b"\n" for each in call.chunks()], content_type=EVENTS_TYPE)


# --- streams: framing

in_bytes("CRLF", "stream")(lambda body: body.replace(b"\n", b"\r\n"))
in_bytes("CR", "stream")(lambda body: body.replace(b"\n", b"\r"))
in_bytes("mixed line ends", "stream")(lambda body: body.replace(b"}\n\n", b"}\r\n\n"))
in_bytes("no space after data:", "stream")(lambda body: body.replace(b"data: ", b"data:"))
in_bytes("two spaces after data:", "stream")(lambda body: body.replace(b"data: ", b"data:  "))
in_bytes("event lines", "stream")(lambda body: body.replace(b"data: {", b"event: message\ndata: {"))
in_bytes("id lines", "stream")(lambda body: body.replace(b"data: {", b"id: 1\ndata: {"))
in_bytes("retry line", "stream")(lambda body: b"retry: 3000\n\n" + body)
in_bytes("comments between", "stream")(lambda body: body.replace(b"\n\n", b"\n\n: keep-alive\n\n"))
in_bytes("comments in the events", "stream")(lambda body: body.replace(b"data: {", b": keep-alive\ndata: {"))
in_bytes("comments behind the data", "stream")(lambda body: body.replace(b"}\n\n", b"}\n: keep-alive\n\n"))
in_bytes("a comment first", "stream")(lambda body: b": OPENROUTER PROCESSING\n\n" + body)
in_bytes("blank lines between", "stream")(lambda body: body.replace(b"\n\n", b"\n\n\n\n"))
in_bytes("blank lines first", "stream")(lambda body: b"\n\n\n" + body)
in_bytes("no blank lines", "stream")(lambda body: body.replace(b"\n\n", b"\n"))
in_bytes("JSON over several lines", "stream")(lambda body: body.replace(b', "', b',\ndata: "'))
in_bytes("a ping event", "stream")(lambda body: b'event: ping\ndata: {"type": "ping"}\n\n' + body)
in_bytes("empty events", "stream")(lambda body: b"data:\n\n" + body.replace(b"\n\n", b"\n\ndata: \n\n"))
in_bytes("an event {}", "stream")(lambda body: b"data: {}\n\n" + body)
in_bytes("an event null", "stream")(lambda body: b"data: null\n\n" + body)
in_bytes("an event []", "stream")(lambda body: b"data: []\n\n" + body)
in_bytes("a broken event", "stream")(lambda body: body.replace(b'"finish_reason": null}]}', b'"finish_re', 1))
in_bytes("a cut event in the middle", "stream")(
    lambda body: body[: body.index(b"\n\n", 300) - 40] + body[body.index(b"\n\n", 300) :]
)
in_bytes("control characters", "stream")(lambda body: body.replace(b'"model": "m"', b'"model": "m\\u0000"'))

# --- streams: the end

in_bytes("no [DONE]", "stream")(lambda body: body.removesuffix(DONE))
in_bytes("[DONE] without its blank line", "stream")(lambda body: body[:-2])
in_bytes("[DONE] without its line end", "stream")(lambda body: body[:-1])
in_bytes("[DONE] in small letters", "stream")(lambda body: body.replace(b"[DONE]", b"[done]"))
in_bytes("[DONE] without brackets", "stream")(lambda body: body.replace(b"[DONE]", b"DONE"))
in_bytes("[DONE] in quotes", "stream")(lambda body: body.replace(b"[DONE]", b'"[DONE]"'))
in_bytes("[DONE] with spaces", "stream")(lambda body: body.replace(b"[DONE]", b" [DONE] "))
in_bytes("[DONE] without data:", "stream")(lambda body: body.replace(b"data: [DONE]", b"[DONE]"))
in_bytes("[DONE] twice", "stream")(lambda body: body + DONE)
in_bytes("words after [DONE]", "stream")(lambda body: body + event({"trace": "x"}))
in_bytes("text after [DONE]", "stream")(lambda body: body + b"data: bye\n\n")
in_bytes("open after [DONE], then cut", "stream")(lambda body: (body, "cut"))
same("[DONE] alone", as_stream(DONE), "stream")
same("comments and [DONE]", as_stream(b": wait\n\n", DONE), "stream")
same("comments alone", as_stream(b": wait\n\n", b": wait\n\n"), "stream")
same("usage alone", as_stream({**chunk({}), "choices": [], "usage": USAGE}, DONE), "stream")


@fault("no blank line after the last event", "stream")
def _last_event(call: ClientCall) -> Reply:
    chunks = [each for each in call.chunks() if each["choices"]]
    *first, last, end = chunks
    last["choices"][0]["finish_reason"] = end["choices"][0]["finish_reason"]
    body = as_stream(*first, last).body
    return Reply([body.rstrip(b"\n")], content_type=EVENTS_TYPE)


@fault("no finish_reason and no [DONE]", "stream")
def _no_end(call: ClientCall) -> Reply:
    return as_stream(*(each for each in call.chunks() if each["choices"] and each["choices"][0]["delta"]))


@fault("no finish_reason, but [DONE]", "stream")
def _no_finish(call: ClientCall) -> Reply:
    return as_stream(
        *(each for each in call.chunks() if not each["choices"] or each["choices"][0]["delta"]), DONE
    )


# --- streams: chunks


def _each_choice(chunks: list[Any], change: Callable[[Json], None]) -> None:
    for each in chunks:
        for choice in each["choices"]:
            change(choice)


in_chunks("a null delta at first")(lambda chunks: [chunk(None), *chunks])
in_chunks("an absent delta at first")(lambda chunks: [{**chunk({}), "choices": [{"index": 0}]}, *chunks])
in_chunks("a null delta at the end")(
    lambda chunks: _each_choice(chunks, lambda c: c.update(delta=c["delta"] or None))
)


@in_chunks("an absent delta at the end")
def _absent_at_end(chunks: list[Any]) -> None:
    _each_choice(chunks, lambda choice: None if choice["delta"] else choice.pop("delta"))


in_chunks("a delta that is a list")(lambda chunks: [chunk([]), *chunks])


@in_chunks("messages in place of deltas")
def _messages(chunks: list[Any]) -> None:
    _each_choice(chunks, lambda choice: choice.update(message=choice.pop("delta")))


@in_chunks("null deltas beside messages")
def _messages_beside(chunks: list[Any]) -> None:
    _each_choice(chunks, lambda choice: choice.update(message=choice["delta"], delta=None))


@in_chunks("text in place of deltas")
def _texts(chunks: list[Any]) -> list[Any] | None:
    if any("tool_calls" in choice["delta"] for each in chunks for choice in each["choices"]):
        return chunks
    _each_choice(chunks, lambda choice: choice.update(text=choice.pop("delta").get("content") or ""))
    return None


@in_chunks("content as a list")
def _listed(chunks: list[Any]) -> None:
    def change(choice: Json) -> None:
        if choice["delta"].get("content"):
            choice["delta"]["content"] = [{"type": "text", "text": choice["delta"]["content"]}]

    _each_choice(chunks, change)


@in_chunks("content as a list of texts")
def _listed_texts(chunks: list[Any]) -> None:
    def change(choice: Json) -> None:
        if choice["delta"].get("content"):
            choice["delta"]["content"] = [choice["delta"]["content"]]

    _each_choice(chunks, change)


@in_chunks("thoughts as parts")
def _thoughts(chunks: list[Any]) -> list[Any]:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    return [chunk({"content": [thought]}), *chunks]


in_chunks("a number as content")(lambda chunks: [*chunks[:1], chunk({"content": 0}), *chunks[1:]])
in_chunks("null content")(lambda chunks: [chunk({"content": None}), *chunks])
in_chunks("no choices at first, as Azure")(
    lambda chunks: [{"id": "", "choices": [], "prompt_filter_results": [{}], "model": ""}, *chunks]
)
in_chunks("null choices at first")(lambda chunks: [{"id": "", "choices": None}, *chunks])
in_chunks("absent choices at first")(lambda chunks: [{"id": "", "object": "chat.completion.chunk"}, *chunks])
in_chunks("choices that are an object")(lambda chunks: [{"id": "", "choices": {}}, *chunks])
in_chunks("null choices in the middle")(lambda chunks: [chunks[0], {"id": "", "choices": None}, *chunks[1:]])


@in_chunks("usage that was not asked for")
def _usage_chunk(chunks: list[Any]) -> list[Any]:
    return chunks if not chunks[-1]["choices"] else [*chunks, {**chunk({}), "choices": [], "usage": USAGE}]


in_chunks("usage without choices")(
    lambda chunks: [each for each in chunks if each["choices"]] + [{"id": "c-1", "usage": USAGE}]
)
in_chunks("usage with null choices")(
    lambda chunks: (
        [each for each in chunks if each["choices"]] + [{"id": "c-1", "choices": None, "usage": USAGE}]
    )
)
in_chunks("usage on every chunk")(lambda chunks: [{**each, "usage": USAGE} for each in chunks])
in_chunks("usage as text")(
    lambda chunks: [*chunks[:-1], {**chunks[-1], "usage": {n: str(v) for n, v in USAGE.items()}}]
)
in_chunks("usage with null numbers")(
    lambda chunks: [*chunks[:-1], {**chunks[-1], "usage": dict.fromkeys(USAGE)}]
)
in_chunks("usage under other names")(
    lambda chunks: [*chunks[:-1], {**chunks[-1], "usage": {"input_tokens": 5, "output_tokens": 7}}]
)
in_chunks("error: null in each chunk")(lambda chunks: [{**each, "error": None} for each in chunks])
in_chunks("code 0 in each chunk")(
    lambda chunks: [{"code": 0, "message": "Success", "sid": "x", **each} for each in chunks]
)
in_chunks("base_resp in each chunk")(
    lambda chunks: [{**each, "base_resp": {"status_code": 0, "status_msg": ""}} for each in chunks]
)
in_chunks("finish_reason empty")(
    lambda chunks: _each_choice(chunks, lambda c: c.update(finish_reason=c["finish_reason"] or ""))
)


@in_chunks("finish_reason absent until the end")
def _no_null_finish(chunks: list[Any]) -> None:
    _each_choice(
        chunks, lambda choice: choice.pop("finish_reason") if choice["finish_reason"] is None else None
    )


@in_chunks("words and end in one chunk")
def _joined_end(chunks: list[Any]) -> list[Any]:
    said = [each for each in chunks if each["choices"] and each["choices"][0]["delta"]]
    rest = [each for each in chunks if not each["choices"]]
    said[-1]["choices"][0]["finish_reason"] = chunks[len(said)]["choices"][0]["finish_reason"]
    return [*said, *rest]


in_chunks("index absent")(lambda chunks: _each_choice(chunks, lambda c: c.pop("index")))
in_chunks("id, object, created and model absent")(
    lambda chunks: [{"choices": each["choices"]} for each in chunks]
)
in_chunks("in an envelope")(lambda chunks: [{"code": 0, "data": each} for each in chunks])
in_chunks("in DashScope's output")(lambda chunks: [{"output": each, "request_id": "r"} for each in chunks])
in_chunks("the role in every chunk")(
    lambda chunks: _each_choice(chunks, lambda c: c["delta"].update(role="assistant"))
)

# --- streams: tool calls


def in_parts(name: str) -> Callable[[Callable[[list[Json]], Any]], Callable[[list[Json]], Any]]:
    """Register a change of the parts of tool calls in a stream."""

    def register(change: Callable[[list[Json]], Any]) -> Callable[[list[Json]], Any]:
        def reply(call: ClientCall) -> Reply | None:
            if not call.tools:
                return None
            chunks = deepcopy(call.chunks())
            holders = [c["delta"] for e in chunks for c in e["choices"] if "tool_calls" in c["delta"]]
            parts = [holder["tool_calls"][0] for holder in holders]
            change(parts)
            for holder, each in zip(holders, parts, strict=True):
                holder["tool_calls"] = each if isinstance(each, list) else [each]
                if isinstance(each, dict) and each.pop("alone", False):
                    holder["tool_calls"] = each
            return as_stream(*chunks, DONE)

        fault(name, "stream")(reply)
        return change

    return register


def _all(parts: list[Json], **values: Any) -> None:
    for each in parts:
        each.update(values)


in_parts("tool calls: index absent")(lambda parts: [each.pop("index") for each in parts])
in_parts("tool calls: index null")(lambda parts: _all(parts, index=None))
in_parts("tool calls: index as text")(lambda parts: [each.update(index=str(each["index"])) for each in parts])
in_parts("tool calls: index 0 for all")(lambda parts: _all(parts, index=0))
in_parts("tool calls: index from 1")(lambda parts: [each.update(index=each["index"] + 1) for each in parts])
in_parts("tool calls: null id in later parts")(lambda parts: [each.setdefault("id", None) for each in parts])
in_parts("tool calls: empty id in later parts")(lambda parts: [each.setdefault("id", "") for each in parts])
in_parts("tool calls: null type in later parts")(
    lambda parts: [each.setdefault("type", None) for each in parts]
)
in_parts("tool calls: null name in later parts")(
    lambda parts: [each["function"].setdefault("name", None) for each in parts]
)
in_parts("tool calls: id absent")(lambda parts: [each.pop("id", None) for each in parts])
in_parts("tool calls: id null")(lambda parts: _all(parts, id=None))
in_parts("tool calls: type absent")(lambda parts: [each.pop("type", None) for each in parts])
in_parts("tool calls: arguments null")(lambda parts: parts[0]["function"].update(arguments=None))
in_parts("tool calls: arguments absent at first")(lambda parts: parts[0]["function"].pop("arguments"))
in_parts("tool calls: not in a list")(lambda parts: _all(parts, alone=True))


@in_parts("tool calls: id and name in every part")
def _repeated(parts: list[Json]) -> None:
    for each in parts[1:3]:
        each.update(id="call_a", type="function")
        each["function"]["name"] = "f"


@in_parts("tool calls: id in every part, index absent")
def _by_id(parts: list[Json]) -> None:
    for each in parts:
        each["id"] = "call_b" if each["index"] else "call_a"
        del each["index"]


@in_parts("tool calls: no arguments at all for one")
def _without_arguments(parts: list[Json]) -> None:
    del parts[3]["function"]["arguments"]


@in_parts("tool calls: empty arguments for one")
def _empty_arguments(parts: list[Json]) -> None:
    parts[3]["function"]["arguments"] = ""


@fault("tool calls: arguments as an object", "stream")
def _object_arguments(call: ClientCall) -> Reply | None:
    if not call.tools:
        return None
    calls = [
        {
            **each,
            "index": n,
            "function": {
                "name": each["function"]["name"],
                "arguments": json.loads(each["function"]["arguments"]),
            },
        }
        for n, each in enumerate(deepcopy(TOOL_CALLS))
    ]
    usage = call.chunks()[-1:] if call.usage_requested else []
    return as_stream(chunk({"role": "assistant", "tool_calls": calls}), chunk({}, "tool_calls"), *usage, DONE)


@fault("tool calls: both in one chunk", "stream")
def _both(call: ClientCall) -> Reply | None:
    if not call.tools:
        return None
    calls = [{**each, "index": n} for n, each in enumerate(TOOL_CALLS)]
    return as_stream(chunk({"role": "assistant", "tool_calls": calls}, "tool_calls"), DONE)


@fault("tool calls: finish_reason stop", "stream")
def _stop(call: ClientCall) -> Reply | None:
    if not call.tools:
        return None
    chunks = call.chunks()
    _each_choice(
        chunks, lambda choice: choice.update(finish_reason="stop") if choice["finish_reason"] else None
    )
    return as_stream(*chunks, DONE)


# --- whole answers


def in_message(name: str, expected: Any = None) -> Callable[[Callable[[Json], Any]], Callable[[Json], Any]]:
    """Register a change of the message of a whole answer."""

    def register(change: Callable[[Json], Any]) -> Callable[[Json], Any]:
        in_answer(name, "chat", expected=expected)(
            lambda answer: change(answer["choices"][0]["message"]) and None
        )
        return change

    return register


def of_choice(name: str) -> Callable[[Callable[[Json], Any]], Callable[[Json], Any]]:
    """Register a change of the choice of a whole answer."""

    def register(change: Callable[[Json], Any]) -> Callable[[Json], Any]:
        in_answer(name, "chat")(lambda answer: change(answer["choices"][0]) and None)
        return change

    return register


def _set(answer: Json, name: str, value: Any) -> None:
    answer[name] = value


def _set_arguments(calls: list[Json], value: Any) -> None:
    calls[1]["function"]["arguments"] = value


_NO_CHOICES: Final[tuple[Any, ...]] = (None, [], {}, "x")
for _value in _NO_CHOICES:
    in_answer(f"choices: {_value!r}", "chat")(partial(_set, name="choices", value=_value))
in_answer("choices absent", "chat")(lambda answer: answer.pop("choices") and None)
in_answer("choices of null", "chat")(lambda answer: answer.update(choices=[None]))
of_choice("message: null")(lambda choice: choice.update(message=None))
of_choice("message absent")(lambda choice: choice.pop("message"))
of_choice("delta in place of the message")(lambda choice: choice.update(delta=choice.pop("message")))


@of_choice("text in place of the message")
def _text(choice: Json) -> None:
    if choice["message"]["content"]:
        choice["text"] = choice.pop("message")["content"]


in_message("content: null", expected="")(lambda message: message.update(content=None))
in_message("content absent", expected="")(
    lambda message: message.pop("content") if message["content"] else None
)
in_message("content absent beside tool calls")(
    lambda message: None if message["content"] else message.pop("content")
)
in_message("content: 0")(lambda message: message.update(content=0) if message["content"] else None)


@in_message("content as a list")
def _whole_listed(message: Json) -> None:
    if message["content"]:
        message["content"] = [
            {"type": "text", "text": message["content"][:5]},
            {"type": "text", "text": message["content"][5:]},
        ]


@in_message("content as an object")
def _whole_object(message: Json) -> None:
    if message["content"]:
        message["content"] = {"type": "text", "text": message["content"]}


@in_message("thoughts as parts")
def _whole_thoughts(message: Json) -> None:
    if message["content"]:
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
        message["content"] = [thought, {"type": "text", "text": message["content"]}]


in_message("role absent")(lambda message: message.pop("role"))
of_choice("finish_reason: null")(lambda choice: choice.update(finish_reason=None))
of_choice("finish_reason absent")(lambda choice: choice.pop("finish_reason"))
of_choice("choice without an index")(lambda choice: choice.pop("index"))
_NO_USAGE: Final[tuple[Any, ...]] = (
    None,
    {},
    [],
    "x",
    {"total_tokens": None},
    {"total_tokens": "12", "prompt_tokens": "5", "completion_tokens": "7"},
)
for _value in _NO_USAGE:
    in_answer(f"usage: {json.dumps(_value)}", "chat", "embeddings")(partial(_set, name="usage", value=_value))
in_answer("usage absent", "chat", "embeddings")(lambda answer: answer.pop("usage") and None)
in_answer("usage with fractions", "chat", "embeddings")(
    lambda answer: answer.update(usage={"total_tokens": 12.0})
)
in_answer("usage under other names", "chat", "embeddings")(
    lambda answer: answer.update(usage={"input_tokens": 5, "output_tokens": 7})
)
in_answer("id, created and model absent", "chat", "embeddings", "rerank")(
    lambda answer: {key: value for key, value in answer.items() if key not in {"id", "created", "model"}}
)
in_answer("object absent", "chat", "embeddings")(lambda answer: answer.pop("object") and None)
in_answer("object: null", "chat", "embeddings")(lambda answer: answer.update(object=None))
in_answer("object of a chunk", "chat")(lambda answer: answer.update(object="chat.completion.chunk"))
in_answer("error: null", *ANSWERS)(lambda answer: answer.update(error=None))
in_answer("error: {}", *ANSWERS)(lambda answer: answer.update(error={}))
in_answer("code 0 and a message", *ANSWERS)(lambda answer: {"code": 0, "message": "ok", **answer})
in_answer("in an envelope, data", "chat", "embeddings", "rerank")(
    lambda answer: {"code": 0, "msg": "ok", "data": answer}
)
in_answer("in an envelope, result", "chat", "embeddings", "rerank")(
    lambda answer: {"success": True, "result": answer}
)
in_answer("in DashScope's output", "chat", "embeddings", "rerank")(
    lambda answer: {"output": answer, "request_id": "r"}
)
in_answer("unknown members", *ANSWERS)(lambda answer: {**answer, "trace": {"x": [1.0e-5, None]}, "z": "é"})

# --- whole answers: tool calls


def of_calls(name: str) -> Callable[[Callable[[list[Json]], Any]], Callable[[list[Json]], Any]]:
    """Register a change of the tool calls of a whole answer."""

    def register(change: Callable[[list[Json]], Any]) -> Callable[[list[Json]], Any]:
        def alter(message: Json) -> None:
            if message.get("tool_calls"):
                changed = change(message["tool_calls"])
                message["tool_calls"] = message["tool_calls"] if changed is None else changed

        in_message(f"tool calls: {name}")(alter)
        return change

    return register


of_calls("no index")(lambda calls: [{k: v for k, v in each.items() if k != "index"} for each in calls])
of_calls("id absent")(lambda calls: [{k: v for k, v in each.items() if k != "id"} for each in calls])
of_calls("id: null")(lambda calls: [{**each, "id": None} for each in calls])
of_calls("type absent")(lambda calls: [{k: v for k, v in each.items() if k != "type"} for each in calls])
of_calls("type: null")(lambda calls: [{**each, "type": None} for each in calls])
of_calls("index: null")(lambda calls: [{**each, "index": None} for each in calls])


@of_calls("arguments as an object")
def _whole_objects(calls: list[Json]) -> None:
    for each in calls:
        each["function"]["arguments"] = json.loads(each["function"]["arguments"])


_NO_ARGUMENTS: Final[tuple[Any, ...]] = (None, "", {})
for _arguments in _NO_ARGUMENTS:
    of_calls(f"arguments: {_arguments!r}")(partial(_set_arguments, value=_arguments))
of_calls("arguments absent")(lambda calls: calls[1]["function"].pop("arguments") and None)


@in_message("function_call in place of tool calls", expected=[("f", {"a": 1})])
def _function_call(message: Json) -> None:
    if message.get("tool_calls"):
        message["function_call"] = message.pop("tool_calls")[0]["function"]


@in_message("an empty text beside the tool calls")
def _empty_text(message: Json) -> None:
    if message.get("tool_calls"):
        message["content"] = ""


# --- embeddings


def of_items(name: str) -> Callable[[Callable[[list[Json]], Any]], Callable[[list[Json]], Any]]:
    """Register a change of the items of embeddings."""

    def register(change: Callable[[list[Json]], Any]) -> Callable[[list[Json]], Any]:
        def alter(answer: Json) -> None:
            changed = change(answer["data"])
            answer["data"] = answer["data"] if changed is None else changed

        in_answer(f"embeddings: {name}", "embeddings")(alter)
        return change

    return register


def _with_vectors(items: list[Json], change: Callable[[Any], Any]) -> list[Json]:
    return [{**item, "embedding": change(item["embedding"])} for item in items]


of_items("reversed")(lambda items: [*reversed(items)])
of_items("index absent")(lambda items: [{k: v for k, v in item.items() if k != "index"} for item in items])
of_items("index: null")(lambda items: [{**item, "index": None} for item in items])
of_items("index 0 for all")(lambda items: [{**item, "index": 0} for item in items])
of_items("index as text, reversed")(
    lambda items: [{**item, "index": str(item["index"])} for item in reversed(items)]
)
of_items("in base64")(lambda items: _with_vectors(items, in_base64))
of_items("in a list of one list")(lambda items: _with_vectors(items, lambda vector: [vector]))
of_items("in a list of many lists")(lambda items: _with_vectors(items, lambda vector: [vector, vector]))
of_items("as text")(lambda items: _with_vectors(items, json.dumps))
of_items("of texts")(lambda items: _with_vectors(items, lambda vector: [str(each) for each in vector]))
of_items("of nulls")(lambda items: _with_vectors(items, lambda vector: [None for _ in vector]))
of_items("null vectors")(lambda items: _with_vectors(items, lambda _: None))
of_items("empty vectors")(lambda items: _with_vectors(items, lambda _: []))
of_items("vectors absent")(lambda items: [{"index": item["index"]} for item in items])
of_items("under `vector`")(
    lambda items: [{"index": item["index"], "vector": item["embedding"]} for item in items]
)
of_items("with `values`, as Gemini")(lambda items: _with_vectors(items, lambda vector: {"values": vector}))
of_items("one fewer")(lambda items: items[:-1])
of_items("one more")(lambda items: [*items, {**items[0], "index": 3}])
of_items("none")(lambda _: [])
of_items("bare lists under data")(lambda items: [item["embedding"] for item in items])
in_answer("embeddings: bare lists, as TEI", "embeddings")(
    lambda answer: [item["embedding"] for item in answer["data"]]
)
in_answer("embeddings: a bare list, as llama.cpp", "embeddings")(
    lambda answer: [{"index": item["index"], "embedding": [item["embedding"]]} for item in answer["data"]]
)
in_answer("embeddings: as Ollama", "embeddings")(
    lambda answer: {"model": "m", "embeddings": [item["embedding"] for item in answer["data"]]}
)
in_answer("embeddings: as Cohere", "embeddings")(
    lambda answer: {"id": "x", "embeddings": {"float": [item["embedding"] for item in answer["data"]]}}
)
in_answer("embeddings: as DashScope", "embeddings")(
    lambda answer: {
        "output": {
            "embeddings": [{"text_index": i["index"], "embedding": i["embedding"]} for i in answer["data"]]
        },
        "usage": {"total_tokens": 5},
    }
)
in_answer("embeddings: data null", "embeddings")(lambda answer: answer.update(data=None))
in_bytes("embeddings: NaN", "embeddings")(lambda body: body.replace(b"0.125", b"NaN"))

# --- rerank


def of_ranks(name: str) -> Callable[[Callable[[list[Json]], Any]], Callable[[list[Json]], Any]]:
    """Register a change of the results of rerank."""

    def register(change: Callable[[list[Json]], Any]) -> Callable[[list[Json]], Any]:
        def alter(answer: Json) -> None:
            changed = change(answer["results"])
            answer["results"] = answer["results"] if changed is None else changed

        in_answer(f"rerank: {name}", "rerank")(alter)
        return change

    return register


def _ranks(answer: Json, name: str = "relevance_score") -> list[Json]:
    return [{"index": rank["index"], name: rank["relevance_score"]} for rank in answer["results"]]


of_ranks("`score`")(lambda ranks: [{"index": r["index"], "score": r["relevance_score"]} for r in ranks])
of_ranks("scores as text")(lambda ranks: [{**r, "relevance_score": str(r["relevance_score"])} for r in ranks])
of_ranks("index as text")(lambda ranks: [{**r, "index": str(r["index"])} for r in ranks])
of_ranks("index absent")(lambda ranks: [{"relevance_score": r["relevance_score"]} for r in ranks])
of_ranks("index too large")(lambda ranks: [{**r, "index": r["index"] + 5} for r in ranks])
of_ranks("index negative")(lambda ranks: [{**r, "index": -1 - r["index"]} for r in ranks])
of_ranks("score absent")(lambda ranks: [{"index": r["index"]} for r in ranks])
of_ranks("null scores")(lambda ranks: [{**r, "relevance_score": None} for r in ranks])
of_ranks("no results")(lambda _: [])
in_answer("rerank: null results", "rerank")(lambda answer: answer.update(results=None))
of_ranks("documents as texts")(lambda ranks: [{**r, "document": "one"} for r in ranks])
of_ranks("documents as objects")(lambda ranks: [{**r, "document": {"text": "one"}} for r in ranks])
in_answer("rerank: under data", "rerank")(lambda answer: {"object": "list", "data": _ranks(answer)})
in_answer("rerank: under data, `score`", "rerank")(lambda answer: {"data": _ranks(answer, "score")})
in_answer("rerank: under output", "rerank")(lambda answer: {"output": {"results": _ranks(answer)}})
in_answer("rerank: rankings and logits", "rerank")(lambda answer: {"rankings": _ranks(answer, "logit")})
in_answer("rerank: a list of scores", "rerank")(
    lambda answer: {
        "scores": [r["relevance_score"] for r in sorted(answer["results"], key=lambda r: r["index"])]
    }
)
in_answer("rerank: a bare list, as TEI", "rerank")(lambda answer: _ranks(answer, "score"))

# --- speech

same("speech: JSON with the sound in base64", as_json({"audio": "SUQzBA=="}), "speech")
same(
    "speech: an error labelled as audio",
    as_json({"error": {"message": "no voice"}}, content_type="audio/mpeg"),
    "speech",
)
same("speech: labelled as octets", Reply([SOUND], content_type="application/octet-stream"), "speech")
fault("speech: silence, raw", "speech", expected=bytes(4000))(
    lambda _: Reply([bytes(4000)], content_type="audio/pcm")
)
same("transcription: plain text", Reply([TEXT.encode()], content_type="text/plain"), "transcription")
in_answer("transcription: null text", "transcription")(lambda answer: answer.update(text=None))
in_answer("transcription: text absent", "transcription")(lambda answer: {"result": answer["text"]})

# --- strict upstreams: requests that they reject

_REFUSED: Final[dict[str, tuple[bytes, tuple[str, ...]]]] = {
    "drop_params": (rb'"drop_params"', ("embeddings",)),
    "an empty list of tools": (rb'"tools": ?\[\]', ("chat",)),
    "an index in the history": (rb'"index": ?(null|\d)', ("chat", "stream")),
    "nulls in the history": (rb'"messages": ?\[.*: ?null', ("chat", "stream")),
}
for _what, (_pattern, _kinds) in _REFUSED.items():

    def _refusing(call: ClientCall, pattern: bytes = _pattern) -> Reply | None:
        reply = replace(call.right(), refuses=re.compile(pattern))
        body = json.dumps(call.request).encode()
        return reply if re.search(pattern, body) else None

    fault(f"refuses {_what}", *_kinds)(_refusing)
