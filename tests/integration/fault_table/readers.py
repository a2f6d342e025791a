"""How RAGFlow and Dify read responses: with the libraries that they use, and as they use them.

RAGFlow reads with OpenAI's SDK and with `requests`, Dify with `requests`. Each function returns what the user
gets, and raises whatever the client shows as an error.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx2
import openai
import requests
import urllib3

from tests.integration.fault_table.replies import Arrived, Json

Reader = Callable[[Arrived, Json], Any]
"""Returns what the user gets, from a response and its request."""


class ErrorShown(Exception):
    """An error that the client shows."""


# --- libraries


class _Body(httpx2.SyncByteStream):
    """The body of a response, which raises if the connection broke."""

    def __init__(self, arrived: Arrived) -> None:
        self._arrived = arrived

    def __iter__(self) -> Iterator[bytes]:
        yield self._arrived.body
        if self._arrived.cut:
            raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")


class _Answers(httpx2.BaseTransport):
    """A transport that returns a prepared response to any request."""

    def __init__(self) -> None:
        self.arrived = Arrived(500)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response."""
        arrived = self.arrived
        pairs = [(name, value) for name, value in arrived.headers if name.lower() != "transfer-encoding"]
        return httpx2.Response(arrived.status, headers=pairs, stream=_Body(arrived))


_ANSWERS: Final = _Answers()
_SDK: Final = openai.OpenAI(
    api_key="sk-any",
    base_url="http://proxy.test/v1",
    max_retries=0,
    http_client=httpx2.Client(transport=_ANSWERS),
)
"""Create the client only once, because that takes milliseconds."""


def sdk(arrived: Arrived) -> openai.OpenAI:
    """Return OpenAI's SDK, which gets this response to its next request."""
    _ANSWERS.arrived = arrived
    return _SDK


class _Raw(io.BytesIO):
    """The body of a response for `requests`."""

    def __init__(self, arrived: Arrived) -> None:
        gzipped = arrived.header("content-encoding") == "gzip"
        super().__init__(gzip.decompress(arrived.body) if gzipped else arrived.body)
        self._cut = arrived.cut

    def stream(self, size: int, *, decode_content: bool) -> Iterator[bytes]:
        """Yield the body as urllib3 does."""
        while piece := self.read(size):
            yield piece
        if self._cut:
            raise urllib3.exceptions.ProtocolError("Response ended prematurely")

    def release_conn(self) -> None:
        """Nothing to release."""


def requests_response(arrived: Arrived) -> requests.Response:
    """Return the response as `requests` does."""
    response = requests.Response()
    response.status_code = arrived.status
    response.headers.update(dict(arrived.headers))
    response.encoding = requests.utils.get_encoding_from_headers(response.headers)
    response.raw = _Raw(arrived)
    return response


# --- RAGFlow


def ragflow_chat(arrived: Arrived, request: Json) -> str:
    """Read a whole answer; without content it is an empty text."""
    response = sdk(arrived).chat.completions.create(model="m", messages=[])
    message: Any = response.choices[0].message if response.choices else None
    if not message or not message.content:
        return ""
    text: str = message.content.strip()
    return text + (" (cut)" if response.choices[0].finish_reason == "length" else "")


def ragflow_chat_stream(arrived: Arrived, request: Json) -> tuple[str, bool]:
    """Read the text of a stream, and whether no more tokens are counted than were used."""
    text, billed, thinking = "", 0, ""
    for chunk in sdk(arrived).chat.completions.create(model="m", messages=[], stream=True):
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        if not choice.delta.content:
            choice.delta.content = ""
        thinking += getattr(choice.delta, "reasoning_content", None) or ""
        text += choice.delta.content
        billed += getattr(chunk.usage, "total_tokens", 0) or 0
    return text, billed <= _used(request)


def ragflow_tools(arrived: Arrived, request: Json) -> Any:
    """Read the tool calls of a whole answer, or its text."""
    response = sdk(arrived).chat.completions.create(model="m", messages=[])
    message: Any = response.choices[0].message if response.choices else None
    if not message:
        raise ErrorShown(f"500 response structure error. Response: {response}")
    if not getattr(message, "tool_calls", None):
        text: str = "" + message.content
        return text + (" (cut)" if response.choices[0].finish_reason == "length" else "")
    return [_ragflow_call(call) for call in message.tool_calls or ()]


def ragflow_tools_before_v0_25(arrived: Arrived, request: Json) -> Any:
    """Read the same; each tool call needs its index."""
    response = sdk(arrived).chat.completions.create(model="m", messages=[])
    message: Any = response.choices[0].message
    for call in message.tool_calls or ():
        call.index  # noqa: B018
    return ragflow_tools(arrived, request)


def ragflow_tools_stream(arrived: Arrived, request: Json) -> Any:
    """Read the tool calls of a stream, joined by their index, or its text."""
    calls: dict[Any, Any] = {}
    text, billed = "", 0
    for chunk in sdk(arrived).chat.completions.create(model="m", messages=[], stream=True):
        total = int(getattr(chunk.usage, "total_tokens", 0) or 0)
        billed = total or billed
        if not hasattr(chunk, "choices") or not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        if getattr(delta, "tool_calls", None):
            for call in delta.tool_calls or ():
                if call.index not in calls:
                    if not call.function.arguments:  # type: ignore[union-attr]
                        call.function.arguments = ""  # type: ignore[union-attr]
                    calls[call.index] = call
                else:
                    calls[call.index].function.arguments += call.function.arguments or ""  # type: ignore[union-attr]
            continue
        if getattr(delta, "content", None) is None:
            delta.content = ""
        text += delta.content or ""
    return [_ragflow_call(call) for call in calls.values()] if calls else text


def _ragflow_call(call: Any) -> tuple[str, Any]:
    """Return a tool call as RAGFlow builds it; the upstream gets its id back, and accepts only a text."""
    if not isinstance(call.id, str) or not call.id:
        raise ErrorShown("Error code: 400 - messages[1].tool_calls[0].id: invalid")
    try:
        arguments = json.loads(call.function.arguments)
    except ValueError:
        arguments = None
    return call.function.name, arguments if isinstance(arguments, dict) else "tool call failed"


def ragflow_embeddings(arrived: Arrived, request: Json) -> Any:
    """Read the vectors, sorted by their index."""
    response = sdk(arrived).embeddings.create(input=request["input"], model="m", encoding_format="float")
    items = sorted(response.data, key=lambda item: getattr(item, "index", 0))
    vectors = [item.embedding for item in items]
    total = getattr(response.usage, "total_tokens", 0) if hasattr(response, "usage") else 0
    0 + total
    return vectors


def ragflow_embeddings_before_v0_26(arrived: Arrived, request: Json) -> Any:
    """Read the vectors in the order of the list."""
    response = sdk(arrived).embeddings.create(input=request["input"], model="m", encoding_format="float")
    return [item.embedding for item in response.data]


def ragflow_rerank(arrived: Arrived, request: Json) -> list[float]:
    """Read a score for each document; zero if there is none."""
    response = requests_response(arrived)
    response.raise_for_status()
    answer = response.json()
    scores = [0.0] * len(request["documents"])
    for result in answer.get("results", []):
        scores[result["index"]] = float(result["relevance_score"])
    return scores


def ragflow_vision(arrived: Arrived, request: Json) -> str:
    """Read the text of a whole answer about a picture."""
    response = sdk(arrived).chat.completions.create(model="m", messages=[])
    text = response.choices[0].message.content.strip()  # type: ignore[union-attr]
    response.usage.total_tokens  # type: ignore[union-attr]  # noqa: B018
    return text


def ragflow_vision_stream(arrived: Arrived, request: Json) -> str:
    """Read the text of a stream about a picture."""
    text, tokens = "", 0
    for chunk in sdk(arrived).chat.completions.create(model="m", messages=[], stream=True):
        choice = chunk.choices[0]
        if not choice.delta.content:
            continue
        text += choice.delta.content
        if choice.finish_reason == "stop":
            tokens += chunk.usage.total_tokens  # type: ignore[union-attr]
    return text


def ragflow_speech(arrived: Arrived, request: Json) -> bytes:
    """Read the bytes of an audio file."""
    response = requests_response(arrived)
    if response.status_code != 200:
        raise ErrorShown(f"**Error**: {response.status_code}, {response.text}")
    return b"".join(response.iter_content(4096))


def ragflow_transcription(arrived: Arrived, request: Json) -> str:
    """Read the text of an audio file."""
    answer = sdk(arrived).audio.transcriptions.create(model="m", file=("a.wav", b"RIFF"))
    return answer.text.strip()


# --- Dify


def dify_validation(arrived: Arrived, request: Json) -> str:
    """The chat that is sent when a model is saved."""
    response = requests_response(arrived)
    if response.status_code != 200:
        raise ErrorShown(f"status code {response.status_code} and response body {response.text}")
    answer = response.json()
    if answer.get("object", "") not in {"", "chat.completion"}:
        raise ErrorShown("invalid response object")
    try:
        answers = dify_chat(arrived, request) in {"Hello there.", "", None}
    except Exception:  # the model is saved, and fails when it is used
        answers = False
    return "saved" if answers else "saved, although it does not answer"


def dify_chat(arrived: Arrived, request: Json) -> Any:
    """Read a whole answer."""
    response = _dify_response(arrived)
    answer = response.json()
    output = answer["choices"][0]
    content = output.get("message", {})["content"]
    calls = output.get("message", {}).get("tool_calls") if request.get("tools") else None
    usage = answer.get("usage")
    if usage:
        _number(usage["prompt_tokens"])
        _number(usage["completion_tokens"])
    found = _dify_calls(calls) if calls else []
    if found:
        return [(call["name"], _dify_arguments(call["arguments"])) for call in found]
    return _text_or_none(content)


def dify_stream(arrived: Arrived, request: Json) -> Any:
    """Read the text of a stream, or its tool calls."""
    response = _dify_response(arrived)
    text, calls, usage = "", list[Json](), None
    lines: Iterator[Any] = response.iter_lines(decode_unicode=True, delimiter="\n\n")
    for raw in lines:
        chunk: str = raw.strip()
        if not chunk or chunk.startswith(":"):
            continue
        data = chunk.removeprefix("data:").lstrip()
        if data == "[DONE]":
            continue
        try:
            read = json.loads(data)
            if not isinstance(read, dict):
                raise TypeError(data)
        except (TypeError, ValueError):
            break  # counts as the end
        if read.get("error") and read.get("choices") is None:
            raise ErrorShown(str(read["error"]))
        usage = read.get("usage") or usage
        if not read or len(read["choices"]) == 0:
            continue
        text += _dify_delta(read["choices"][0], request, calls)
    if usage:
        for name in ("prompt_tokens", "completion_tokens"):
            if usage.get(name) is not None:
                _number(usage[name])
    if calls:
        return [(call["name"], _dify_arguments(call["arguments"])) for call in calls]
    return text


def _dify_delta(choice: Json, request: Json, calls: list[Json]) -> str:
    if "delta" not in choice:
        return str(choice.get("text", ""))
    delta = choice["delta"]
    delta.get("reasoning_content")
    if request.get("tools") and delta.get("tool_calls"):
        _dify_join(_dify_calls(delta["tool_calls"]), calls)
    content = delta.get("content")
    return "" if content is None else "" + content


def _dify_join(new: list[Json], calls: list[Json]) -> None:
    """Join the parts of tool calls by their id."""
    for part in new:
        if part["name"] and not part["id"]:
            part["id"] = f"made-up-{len(calls)}-{id(part)}"
        if not part["id"]:
            call = calls[-1]
        else:
            found = next((each for each in calls if each["id"] == part["id"]), None)
            call = found or {"id": part["id"], "name": "", "arguments": ""}
            if found is None:
                calls.append(call)
        call["name"] = part["name"] or call["name"]
        call["arguments"] += part["arguments"]


def _dify_calls(calls: Any) -> list[Json]:
    """Check parts of tool calls: id, type, name and arguments are texts."""
    found = []
    for call in calls:
        if not call.get("function"):
            continue
        function = call.get("function", {})
        part = {
            "id": call.get("id", ""),
            "type": call.get("type", ""),
            "name": function.get("name", ""),
            "arguments": function.get("arguments", ""),
        }
        if not all(isinstance(value, str) for value in part.values()):
            raise ErrorShown(f"validation error for ToolCall: {part}")
        found.append(part)
    return found


def _dify_arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return "tool call failed"


def dify_embeddings(arrived: Arrived, request: Json) -> Any:
    """Read the vectors in the order of the list; the response must name its model when a model is saved."""
    response = requests_response(arrived)
    response.raise_for_status()
    answer = response.json()
    vectors = [item["embedding"] for item in answer["data"]]
    0 + answer["usage"]["total_tokens"]
    if "model" not in answer:
        raise ErrorShown("Credentials validation failed: invalid response")
    return vectors


def dify_rerank(arrived: Arrived, request: Json) -> list[float]:
    """Read a score from 0 to 1 for each document; Dify sorts them by score, and this keeps their order."""
    response = requests_response(arrived)
    response.raise_for_status()
    answer = response.json()
    scores = [result["relevance_score"] for result in answer["results"]]
    lowest, highest = min(scores), max(scores)
    found = {}
    for result in answer["results"]:
        request["documents"][result["index"]]
        found[result["index"]] = (result["relevance_score"] - lowest) / ((highest - lowest) or 1.0)
    return [round(found[index], 6) for index in sorted(found)]


def dify_speech(arrived: Arrived, request: Json) -> bytes:
    """Read the bytes of an audio file."""
    return ragflow_speech(arrived, request)


def dify_transcription(arrived: Arrived, request: Json) -> Any:
    """Read the text of an audio file."""
    response = requests_response(arrived)
    if response.status_code != 200:
        raise ErrorShown(response.text)
    return _text_or_none(response.json()["text"])


def _dify_response(arrived: Arrived) -> requests.Response:
    response = requests_response(arrived)
    if response.encoding is None or response.encoding == "ISO-8859-1":
        response.encoding = "utf-8"
    if response.status_code != 200:
        raise ErrorShown(f"API request failed with status code {response.status_code}: {response.text}")
    return response


def _text_or_none(content: Any) -> Any:
    if content is not None and not isinstance(content, str):
        raise ErrorShown(f"validation error for AssistantPromptMessage: {content}")
    return content


def _number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ErrorShown(f"validation error for LLMUsage: {value}")


_USED: Final = 12


def _used(request: Json) -> int:
    return _USED


RETRYING: Final = frozenset(
    {ragflow_chat, ragflow_chat_stream, ragflow_tools, ragflow_tools_before_v0_25, ragflow_tools_stream}
)
"""Calls that retry by the words of an error; all calls through the SDK retry by the status."""
WITHOUT_SDK: Final = frozenset(
    {
        ragflow_rerank,
        ragflow_speech,
        dify_validation,
        dify_chat,
        dify_stream,
        dify_embeddings,
        dify_rerank,
        dify_speech,
        dify_transcription,
    }
)
