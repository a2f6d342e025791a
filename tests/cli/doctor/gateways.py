"""A gateway and a token endpoint with a fault, chosen by the first segment of the path: `/FAULT/v1/models`.

Faults that need a port of their own, such as a broken certificate, are in `places`.
"""

import asyncio
import gzip
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from email.utils import formatdate
from pathlib import Path
from threading import Thread
from typing import Final

from tests.conftest import require
from tests.nginx import find_nginx, nginx_serving
from tests.ports import free_port
from tests.raw_upstream import Conversation, raw_upstream
from tests.redis_server import redis_server
from tests.tls_servers import listening, make_certificate
from tests.waiting import delay

Fault = Callable[[Conversation], Awaitable[None]]

WORDS: Final = ("one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")
GAP_SECONDS: Final = 0.03
HOLD_SECONDS: Final = 0.3
JSON: Final = "Content-Type: application/json"
REDIS_PASSWORD: Final = "canary-redis-5b1d77"
TOKEN: Final = "canary-token-77ac01b2"


def chunk(text: str | None = None, **more: object) -> bytes:
    """Return an event with a chunk of a chat."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"object": "chat.completion.chunk", "choices": [choice], **more})


def event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


LAST: Final = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE: Final = b"data: [DONE]\n\n"
WHOLE_STREAM: Final = b"".join(map(chunk, WORDS)) + LAST + DONE


def says(value: object, *headers: str, status: str = "200 OK") -> Fault:
    """Return a fault that sends this response at once."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()

    async def fault(talk: Conversation) -> None:
        await talk.answer(body, *(headers or (JSON,)), status=status)

    return fault


def page(status: str = "200 OK") -> Fault:
    return says(b"<!doctype html><title>Sign in</title>", "Content-Type: text/html", status=status)


def streams(
    *events: bytes, gap: float = GAP_SECONDS, then: Fault | None = None, whole: object = None
) -> Fault:
    """Return a fault that streams events; chats without a stream get a whole response."""

    async def fault(talk: Conversation) -> None:
        if not wants_stream(talk):
            await says(whole or ANSWER)(talk)
            return
        is_old = b" HTTP/1.0\r\n" in talk.request.head  # nginx's default
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        await (talk.say(head) if is_old else talk.start_stream())
        for each in events:
            await (talk.say(each) if is_old else talk.chunk(each))
            await delay(gap)
        if is_old:
            talk.writer.close()
            return
        await (then or Conversation.end)(talk)

    return fault


def at_once(*headers: str, version: str = "1.1", coded: bool = False, cut: int = 0) -> Fault:
    """Return a fault that sends the whole stream in one piece, or all but the last bytes of it."""

    async def fault(talk: Conversation) -> None:
        if not wants_stream(talk):
            await says(ANSWER)(talk)
            return
        await delay(HOLD_SECONDS)
        body = gzip.compress(WHOLE_STREAM) if coded else WHOLE_STREAM
        body = body[: len(body) - cut]
        framing = "Connection: close" if version == "1.0" else f"Content-Length: {len(body)}"
        lines = [f"HTTP/{version} 200 OK", "Content-Type: text/event-stream", framing, *headers, "", ""]
        await talk.say("\r\n".join(lines).encode() + body)
        if version == "1.0":
            talk.writer.close()

    return fault


def wants_stream(talk: Conversation) -> bool:
    return b'"stream": true' in talk.request.body or b'"stream":true' in talk.request.body


async def resets(talk: Conversation) -> None:
    talk.reset()


async def waits(talk: Conversation) -> None:
    await talk.caller_left()


MODELS: Final = {"object": "list", "data": [{"id": "m-chat"}, {"id": "m-embed"}]}
ANSWER: Final = {
    "choices": [{"message": {"role": "assistant", "content": "one"}, "finish_reason": "stop"}],
    "usage": {"total_tokens": 3},
}
WRAPPED: Final = {"code": 0, "data": ANSWER}
VECTORS: Final = {"data": [{"index": 0, "embedding": [0.1, 0.2]}], "usage": {"total_tokens": 1}}
EVENTS: Final = (*map(chunk, WORDS), LAST, DONE)
SOUND: Final[dict[str, Fault]] = {
    "GET /models": says(MODELS),
    "POST /chat/completions": streams(*EVENTS),
    "POST /embeddings": says(VECTORS),
    "POST /rerank": says({"results": [{"index": 0, "relevance_score": 0.9}]}),
}
NOT_FOUND: Final = says({"error": {"message": "no such path"}}, status="404 Not Found")


def chat(fault: Fault) -> dict[str, Fault]:
    return {"POST /chat/completions": fault}


def everything(fault: Fault) -> dict[str, Fault]:
    return dict.fromkeys(SOUND, fault)


def refusal(status: str, message: str, code: str = "") -> Fault:
    return says({"error": {"message": message, "code": code}}, status=status)


async def refuses_drop_params(talk: Conversation) -> None:
    if b"drop_params" in talk.request.body:
        await refusal("400 Bad Request", "Extra inputs are not permitted: drop_params")(talk)
    else:
        await says(VECTORS)(talk)


async def quotes(talk: Conversation) -> None:
    """Reject the key, and quote it."""
    (given,) = talk.request.header("authorization")
    await refusal("401 Unauthorized", f"\x1b[31m{given} is unknown")(talk)


async def lists_in_http_1_0(talk: Conversation) -> None:
    await talk.say(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(MODELS).encode())
    talk.writer.close()


NULL_DELTA: Final = event({"choices": [{"index": 0, "delta": None, "finish_reason": None}]})
GATEWAYS: Final[dict[str, dict[str, Fault]]] = {
    "sound": {},
    "refuses": everything(quotes),
    "page": everything(page()),
    "empty": everything(says(b"")),
    "moved": everything(says(b"", "Location: https://elsewhere.example/", status="301 Moved")),
    "old": {"GET /models": lists_in_http_1_0},
    "nowhere": everything(NOT_FOUND),
    "no_list": {"GET /models": NOT_FOUND, **chat(refusal("400 Bad Request", "Model Not Exist"))},
    "hangs": chat(waits),
    "no_model": chat(refusal("404 Not Found", "The model does not exist", "model_not_found")),
    "limit": chat(refusal("429 Too Many Requests", "slow down")),
    "broken": chat(refusal("500 Internal Server Error", "boom")),
    "strict": chat(refusal("400 Bad Request", "temperature is not supported")),
    "dead_behind": chat(refusal("502 Bad Gateway", "the upstream cannot be reached", "upstream_unreachable")),
    "no_token_behind": chat(refusal("502 Bad Gateway", "refused", "upstream_auth_failed")),
    "limited_key": chat(refusal("403 Forbidden", "no", "model_forbidden")),
    "error_inside": chat(says({"error": {"message": "quota is used up"}})),
    "silent": chat(streams(*(event({"choices": [{"delta": {}, "finish_reason": "stop"}]}), DONE))),
    "whole_only": chat(says(ANSWER)),
    "unfinished": chat(streams(*map(chunk, WORDS))),
    "cut": chat(streams(*map(chunk, WORDS), then=resets)),
    "cut_at_once": chat(streams(then=resets)),
    "never_begins": chat(streams(then=waits)),
    "stalls": chat(streams(*map(chunk, WORDS[:2]), then=waits)),
    "fails_inside": chat(streams(chunk("one"), event({"error": {"message": "overloaded"}}))),
    "no_done": chat(streams(*EVENTS[:-1])),
    "null_delta": chat(streams(NULL_DELTA, *EVENTS)),
    "no_choices": chat(streams(event({"choices": []}), *EVENTS)),
    "usage_everywhere": chat(streams(*(chunk(word, usage=ANSWER["usage"]) for word in WORDS), LAST, DONE)),
    "collected": chat(at_once()),
    "gzipped": chat(at_once("Content-Encoding: gzip", coded=True)),
    "gzip_cut": chat(at_once("Content-Encoding: gzip", coded=True, cut=8)),
    "brotli": chat(at_once("Content-Encoding: br")),
    "http_1_0": chat(at_once(version="1.0")),
    "cdn": chat(at_once("CF-Ray: 8f2-FRA")),
    "peculiar": {
        **chat(streams(NULL_DELTA, event({"choices": []}), *EVENTS, whole=WRAPPED)),
        "POST /embeddings": says({"data": [{"embedding": [0.1]}]}),
    },
    "no_vectors": {"POST /embeddings": says({"data": []})},
    "no_index": {"POST /embeddings": says({"data": [{"embedding": [0.1]}]})},
    "base64": {"POST /embeddings": says({"data": [{"index": 0, "embedding": "AAAA"}]})},
    "no_drop_params": {"POST /embeddings": refuses_drop_params},
    "tei": {"POST /rerank": says([{"index": 0, "score": 0.5}])},
}  # fmt: skip


def reply(**more: object) -> dict[str, object]:
    return {"token": TOKEN, "expires_in": 300, **more}


def slowly(value: object, seconds: float) -> Fault:
    async def fault(talk: Conversation) -> None:
        await delay(seconds)
        await says(value)(talk)

    return fault


ISSUERS: Final[dict[str, Fault]] = {
    "sound": says(reply()),
    "refuses": refusal("401 Unauthorized", "invalid_client"),
    "missing": page("404 Not Found"),
    "moved": says(b"", "Location: https://sso.corp.example/", status="302 Found"),
    "limit": refusal("429 Too Many Requests", "slow down"),
    "fails": refusal("503 Service Unavailable", "down"),
    "empty": says(b""),
    "page": page(),
    "text": says(b"it works!", "Content-Type: text/plain"),
    "error": says({"code": 4003, "msg": "bad signature"}),
    "elsewhere": says({"data": {"token": TOKEN}}),
    "expired": says(reply(expires_at=1_000_000_000)),
    "short": says(reply(expires_in=1)),
    "hurried": slowly(reply(expires_in=3), 0.9),
    "slow": slowly(reply(), 0.5),
    "hangs": waits,
    "no_life": says({"token": TOKEN}),
    "odd_life": says(reply(expires_in=300_000)),
    "behind": says(reply(), JSON, f"Date: {formatdate(1_700_000_000, usegmt=True)}"),
    "ahead": says(reply(), JSON, f"Date: {formatdate(4_000_000_000, usegmt=True)}"),
}
TARGET: Final = re.compile(rb"/(\w+)(/v1)?(/.*)")


async def answer(talk: Conversation) -> None:
    """Answer with the fault that the first segment of the path names."""
    found = TARGET.fullmatch(talk.request.target)
    method = talk.request.head.split(b" ", 1)[0].decode()
    if found is None:
        await NOT_FOUND(talk)
        return
    fault, version, rest = found[1].decode(), found[2], found[3].decode()
    if rest == "/token":
        await ISSUERS[fault](talk)
    elif version is None and fault != "unversioned":
        await NOT_FOUND(talk)
    elif version is not None and fault == "unversioned":
        await page("404 Not Found")(talk)
    else:
        await {**SOUND, **GATEWAYS.get(fault, {})}.get(f"{method} {rest}", NOT_FOUND)(talk)


# --- ports of their own


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def other_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await writer.drain()


NGINX: Final = """
    gzip_types text/event-stream;
    server {{
        listen unix:{home}/nginx.sock;
        listen 127.0.0.1:{port};
        location /buffered/ {{ proxy_pass {gateway}/sound/; proxy_buffering on; }}
        location /gzipped/ {{
            proxy_pass {gateway}/sound/; proxy_buffering off; proxy_http_version 1.1;
            gzip on; gzip_proxied any; gzip_min_length 1;
        }}
        location /right/ {{
            proxy_pass {gateway}/sound/; proxy_buffering off; proxy_http_version 1.1; gzip off;
        }}
        location /v1/ {{ proxy_pass {gateway}/sound/v1/; }}
        location /nobody/ {{ proxy_pass http://127.0.0.1:{closed}/; }}
    }}
"""


@asynccontextmanager
async def places(home: Path) -> AsyncIterator[dict[str, object]]:
    """Serve everything; yield addresses, ports and files by the names that set-ups use."""
    authority = make_certificate(home, "ca.corp.example")
    certificates = {
        "tls": make_certificate(home),
        "expired": make_certificate(home, valid=(-9, -1)),
        "other_name": make_certificate(home, "other.corp.example"),
        "soon": make_certificate(home, valid=(-9, 5)),
        "issued": make_certificate(home, issuer=authority),
    }
    closed, port = free_port(), free_port()
    async with AsyncExitStack() as stack:
        gateway = (await stack.enter_async_context(raw_upstream(answer))).url
        found: dict[str, object] = {"gateway": gateway, "closed": closed}
        for name, serve in {"plain": plain, "mute": mute, "ssh": other_protocol}.items():
            found[name] = await stack.enter_async_context(listening(serve))
        for name, certificate in certificates.items():
            found[name] = await stack.enter_async_context(listening(certificate=certificate))
            found[f"{name}_ca"] = certificate
        (home / "redis").mkdir()
        password = ("--requirepass", REDIS_PASSWORD)
        redis_port = free_port()
        await stack.enter_async_context(redis_server(home / "redis", *password, port=redis_port))
        found["redis"] = redis_port
        (home / "nginx").mkdir()
        servers = NGINX.format(home=home / "nginx", port=port, gateway=gateway, closed=closed)
        await stack.enter_async_context(nginx_serving(home / "nginx", servers))
        found["nginx"] = f"http://127.0.0.1:{port}"
        yield found


@contextmanager
def serving_in_a_thread(home: Path) -> Iterator[dict[str, object]]:
    """Serve everything in a thread, so that all set-ups share it."""
    require("nginx", found=find_nginx() is not None)
    require("redis-server", found=shutil.which("redis-server") is not None)
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        opening = stack.enter_async_context(places(home))
        yield asyncio.run_coroutine_threadsafe(opening, loop).result(60)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
