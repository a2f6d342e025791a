"""Traces: the spans that a collector receives, and the headers at callers and upstreams."""

import importlib.util
import time
from typing import Any, Final

import aiohttp
import pytest

from proxy.wire.request_json import MODEL_CHARACTERS_MAX
from tests.conftest import CANARIES, KEY, RunProxy, require
from tests.pace import paced
from tests.ports import free_port
from tests.raw_caller import RawAnswer, raw_caller
from tests.raw_upstream import Conversation, RawUpstream, raw_upstream
from tests.socket_upstream import socket_upstream

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
CONTEXT: Final = f"traceparent: 00-{TRACE}-{PARENT}-01"
JSON: Final = "Content-Type: application/json"
QUESTION: Final = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "a secret prompt"}]}'
ANSWER: Final = b'{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}'
SERVER, CLIENT = 2, 3
"""Kinds of spans in OTLP."""

has_opentelemetry = importlib.util.find_spec("opentelemetry") is not None


async def answer(talk: Conversation) -> None:
    await talk.answer(ANSWER, "Content-Type: application/json")


async def collect(talk: Conversation) -> None:
    await talk.answer(b"", "Content-Type: application/x-protobuf")


def section(url: str) -> str:
    """Return the settings of traces."""
    return f'[traces]\nendpoint = "{url}/v1/traces"\nservice = "proxy-test"\n'


def spans_of(collector: RawUpstream) -> list[Any]:
    """Return the spans that a collector has received."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []
    for request in collector.requests:
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            assert "proxy-test" in str(resource.resource)
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    return spans


def attributes(span: Any) -> dict[str, object]:
    """Return the attributes of a span."""
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


async def ask(
    url: str,
    *headers: str,
    key: str | None = KEY,
    path: str = "/v1/chat/completions",
    question: bytes = QUESTION,
) -> RawAnswer:
    """Send one question."""
    async with raw_caller(url) as caller:
        await caller.send("POST", path, JSON, *headers, body=question, key=key)
        answer = await caller.answer()
        await caller.body(answer)
        return answer


@pytest.fixture
def _installed() -> None:
    require("opentelemetry", found=has_opentelemetry)


@pytest.mark.usefixtures("_installed")
async def test_only_the_collector_gets_spans_and_its_headers(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def redirect(talk: Conversation) -> None:
        await talk.answer(b"", f"Location: {other.url}/v1/traces", status="307 Temporary Redirect")

    async with (
        raw_upstream(answer) as upstream,
        raw_upstream(collect) as other,
        raw_upstream(redirect) as collector,
    ):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with run_proxy(upstream.url, more=section(collector.url)) as proxy:
            await ask(proxy.url)
    assert spans_of(collector)
    assert not other.requests


@pytest.mark.usefixtures("_installed")
async def test_an_exchange_and_its_attempt_belong_to_the_trace_of_the_caller(run_proxy: RunProxy) -> None:
    async with raw_upstream(answer) as upstream, raw_upstream(collect) as collector:
        async with run_proxy(upstream.url, more=section(collector.url)) as proxy:
            assert (await ask(proxy.url, CONTEXT, "tracestate: vendor=1")).status == 200
            async with raw_caller(proxy.url) as caller:
                await caller.send("GET", "/readyz", key=None)
                await caller.answer()
        client, server = sorted(spans_of(collector), key=lambda span: -span.kind)
        (line,) = (line for line in proxy.exchanges if line["path"].startswith("/v1"))
    assert (client.kind, server.kind) == (CLIENT, SERVER)
    assert client.trace_id.hex() == server.trace_id.hex() == line["trace_id"] == TRACE
    assert server.parent_span_id.hex() == PARENT
    assert client.parent_span_id == server.span_id
    assert upstream.requests[0].header("traceparent") == [f"00-{TRACE}-{client.span_id.hex()}-01"]
    assert upstream.requests[0].header("tracestate") == ["vendor=1"]
    assert (server.name, client.name) == ("POST chat/completions", "chat gpt-4o")
    assert (
        attributes(client).items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 5,
            "http.response.status_code": 200,
        }.items()
    )
    assert (
        attributes(server).items()
        >= {
            "llm_proxy.caller": "tester",
            "llm_proxy.outcome": "ok",
            "llm_proxy.request_id": line["request_id"],
            "url.path": "/v1/chat/completions",
        }.items()
    )
    sent = b"".join(request.body for request in collector.requests)
    for secret in (*CANARIES, "a secret prompt"):
        assert secret.encode() not in sent


@pytest.mark.usefixtures("_installed")
async def test_errors_are_named_in_their_spans(run_proxy: RunProxy) -> None:
    async with raw_upstream(collect) as collector:
        async with run_proxy(f"http://127.0.0.1:{free_port()}", more=section(collector.url)) as proxy:
            assert (await ask(proxy.url)).status == 502
            assert (await ask(proxy.url, key="sk-unknown")).status == 401
        errors = [(span.kind, attributes(span)["error.type"]) for span in spans_of(collector)]
    assert sorted(errors) == [
        (SERVER, "invalid_api_key"),
        (SERVER, "upstream_unreachable"),
        (CLIENT, "upstream_unreachable"),
    ]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("place", ["path", "model"])
async def test_no_text_of_a_caller_makes_a_span_long(run_proxy: RunProxy, place: str) -> None:
    from proxy.telemetry.traces import TEXT_CHARACTERS_MAX

    longest = MODEL_CHARACTERS_MAX if place == "model" else 10 * TEXT_CHARACTERS_MAX
    text = "x" * longest
    path = f"/v1/files/{text}" if place == "path" else "/v1/chat/completions"
    question = QUESTION.replace(b"gpt-4o", text.encode()) if place == "model" else QUESTION
    async with raw_upstream(answer) as upstream, raw_upstream(collect) as collector:
        async with run_proxy(upstream.url, more=section(collector.url)) as proxy:
            assert (await ask(proxy.url, path=path, question=question)).status == 200
        spans = spans_of(collector)
    assert len(spans) == 2
    texts = [str(text) for span in spans for text in (span.name, *attributes(span).values())]
    assert max(map(len, texts)) == TEXT_CHARACTERS_MAX


@pytest.mark.usefixtures("_installed")
async def test_each_attempt_has_a_span_of_its_own(run_proxy: RunProxy) -> None:
    async def overloaded(talk: Conversation) -> None:
        await talk.answer(b"", status="503 Service Unavailable")

    async with (
        raw_upstream(overloaded) as first,
        raw_upstream(answer) as second,
        raw_upstream(collect) as collector,
    ):
        more = f'[upstreams.backup]\nbase_url = "{second.url}/v1"\n{section(collector.url)}'
        async with run_proxy(first.url, options='fallback = "backup"', more=more) as proxy:
            assert (await ask(proxy.url)).status == 200
        found = [(span.kind, attributes(span)) for span in spans_of(collector)]
    attempts = [each for kind, each in found if kind == CLIENT]
    assert [each["gen_ai.provider.name"] for each in attempts] == ["chat", "backup"]
    assert [each["http.response.status_code"] for each in attempts] == [503, 200]
    assert [each.get("error.type") for each in attempts] == ["503", None]
    (server,) = (each for kind, each in found if kind == SERVER)
    assert server["llm_proxy.attempts"] == 2
    assert "error.type" not in server


@pytest.mark.usefixtures("_installed")
async def test_the_handshake_of_a_websocket_belongs_to_the_trace(run_proxy: RunProxy) -> None:
    async with socket_upstream() as upstream, raw_upstream(collect) as collector:
        headers = {"Authorization": f"Bearer {KEY}", "traceparent": CONTEXT.removeprefix("traceparent: ")}
        async with (
            run_proxy(upstream.url, more=section(collector.url)) as proxy,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{proxy.url}/v1/realtime?model=m", headers=headers) as caller,
        ):
            await caller.send_str("hello")
            assert (await caller.receive()).data == "hello"
        client, _ = sorted(spans_of(collector), key=lambda span: -span.kind)
        context = upstream.handshakes[0].headers["traceparent"]
    assert context == f"00-{TRACE}-{client.span_id.hex()}-01"


@pytest.mark.usefixtures("_installed")
async def test_the_sampling_decision_of_the_caller_is_followed(run_proxy: RunProxy) -> None:
    async with raw_upstream(answer) as upstream, raw_upstream(collect) as collector:
        async with run_proxy(upstream.url, more=section(collector.url)) as proxy:
            await ask(proxy.url, CONTEXT.removesuffix("1") + "0")
        assert spans_of(collector) == []
        (context,) = upstream.requests[0].header("traceparent")
    assert context.startswith(f"00-{TRACE}-")
    assert context.endswith("-00")


@pytest.mark.usefixtures("_installed")
async def test_a_dead_collector_delays_no_request_and_no_end(run_proxy: RunProxy) -> None:
    from proxy.telemetry.traces import CLOSE_SECONDS

    async def silence(talk: Conversation) -> None:
        await talk.caller_left()

    async with raw_upstream(answer) as upstream, raw_upstream(silence) as collector:
        async with run_proxy(upstream.url, more=section(collector.url)) as proxy:
            for _ in range(5):
                assert (await ask(proxy.url)).status == 200
            began = time.monotonic()
        assert time.monotonic() - began < CLOSE_SECONDS + paced(5)


async def test_without_traces_the_context_of_the_caller_is_forwarded_unchanged(run_proxy: RunProxy) -> None:
    async with raw_upstream(answer) as upstream, run_proxy(upstream.url) as proxy:
        await ask(proxy.url, CONTEXT)
        assert upstream.requests[0].header("traceparent") == [CONTEXT.removeprefix("traceparent: ")]
        assert "trace_id" not in proxy.exchanges[0]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    "context",
    [
        [],
        [CONTEXT],
        [CONTEXT, "tracestate: vendor=1, other=2"],
        [CONTEXT.removesuffix("1") + "0"],
        ["traceparent: not a context", "tracestate: vendor=1"],
    ],
)
async def test_a_disabled_sdk_leaves_the_context_of_the_caller_unchanged(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch, context: list[str]
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with raw_upstream(answer) as upstream, raw_upstream(collect) as collector:
        async with run_proxy(upstream.url, more=section(collector.url)) as proxy:
            assert (await ask(proxy.url, *context)).status == 200
            assert "trace_id" not in proxy.exchanges[0]
        assert spans_of(collector) == []
        for name in ("traceparent", "tracestate"):
            sent = [line.partition(": ")[2] for line in context if line.startswith(name)]
            assert upstream.requests[0].header(name) == sent


@pytest.mark.usefixtures("_installed")
async def test_a_disabled_sdk_leaves_the_context_of_a_websocket_unchanged(
    run_proxy: RunProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    sent = CONTEXT.removeprefix("traceparent: ")
    async with (
        socket_upstream() as upstream,
        run_proxy(upstream.url, more=section("http://127.0.0.1:1")) as proxy,
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{proxy.url}/v1/realtime?model=m",
            headers={"Authorization": f"Bearer {KEY}", "traceparent": sent},
        ),
    ):
        assert upstream.handshakes[0].headers["traceparent"] == sent
