"""Traces of exchanges and of their attempts at upstreams, sent to a collector by OTLP over HTTP.

A thread of the SDK sends them in batches, so no request waits for the collector. Attributes have the
names of OpenTelemetry's conventions for HTTP and GenAI. Prompts, answers, keys and tokens are not recorded.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NoOpTracer,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy import __version__
from proxy.settings import Traces
from proxy.telemetry.spans import Fields, FieldValue
from proxy.wire.headers import Headers

SEND_SECONDS: Final = 5
"""How long the collector may take for one batch."""
CLOSE_SECONDS: Final = 3.0
"""How long the last batch may take at the end; then it is lost."""
TEXT_CHARACTERS_MAX: Final = 1000
"""Longer names and attributes are truncated. Callers choose models and paths, and thousands of spans wait."""

_CONTEXT_HEADERS: Final = (b"traceparent", b"tracestate")
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_OPERATIONS: Final = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "chat",
}
"""Names of GenAI operations; other endpoints keep their names."""
_ATTRIBUTES: Final = {
    "caller": "llm_proxy.caller",
    "outcome": "llm_proxy.outcome",
    "request_id": "llm_proxy.request_id",
    "attempts": "llm_proxy.attempts",
    "replays": "llm_proxy.replays",
    "events": "llm_proxy.events",
    "time_to_first_byte_ms": "llm_proxy.time_to_first_byte_ms",
    "status": "http.response.status_code",
    "model": "gen_ai.request.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
}
"""Attributes by the fields of the log line that they repeat."""
_ATTEMPT_ATTRIBUTES: Final = ("model", "events", "replays", "prompt_tokens", "completion_tokens")


class _DirectSession(requests.Session):
    """Sends to the collector and nowhere else: the headers of `[traces]` may contain its key."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # proxies and .netrc

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, so that no redirect is followed."""
        del resp


class ExchangeTracer:
    """Starts the span of each exchange, and exports ended spans.

    Args:
        settings: The `[traces]` section.
    """

    def __init__(self, settings: Traces) -> None:
        exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers=dict(settings.headers),
            timeout=SEND_SECONDS,
            session=_DirectSession(),
        )
        resource = Resource.create({"service.name": settings.service, "service.version": __version__})
        sampler = ParentBased(TraceIdRatioBased(settings.sample))
        self._provider = TracerProvider(
            sampler=sampler,
            resource=resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=TEXT_CHARACTERS_MAX),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("llm-token-proxy", __version__)
        self._is_disabled = isinstance(self._tracer, NoOpTracer)

    def begin(self, method: str, path: str, headers: Headers) -> "_ExchangeSpan | None":
        """Start the span of an exchange, below the one that the caller names in its headers.

        None if the environment disables the SDK (`OTEL_SDK_DISABLED`): the spans that it returns then have no
        context, which would replace the caller's.
        """
        if self._is_disabled:
            return None
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        parent = _PROPAGATOR.extract({name: carrier[name] for name in carrier if name.startswith("trace")})
        attributes = {"http.request.method": method, "url.path": path}
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)
        return _ExchangeSpan(self._tracer, span, method)

    async def close(self) -> None:
        """Export the remaining spans, for a limited time."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # The loop closed before the export ended.
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=shut_down, name="traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await sent.wait()


class _ExchangeSpan:
    def __init__(self, tracer: Tracer, span: Span, method: str) -> None:
        self._tracer = tracer
        self._span = span
        self._method = method
        self.trace_id = format_trace_id(span.get_span_context().trace_id)

    @contextlib.contextmanager
    def attempt(
        self, upstream: str, endpoint: str, model: str | None, fields: Fields
    ) -> Iterator["_AttemptSpan"]:
        operation = _OPERATIONS.get(endpoint, endpoint)
        context = set_span_in_context(self._span, Context())
        attributes = {"gen_ai.operation.name": operation, "gen_ai.provider.name": upstream}
        name = operation if model is None else f"{operation} {model}"
        span = self._tracer.start_span(name[:TEXT_CHARACTERS_MAX], context, SpanKind.CLIENT, attributes)
        attempt = _AttemptSpan(span)
        try:
            yield attempt
        finally:
            known = fields()
            kind = attempt.error or str(known["outcome"]).removeprefix("ok")
            if not kind and attempt.status is not None and attempt.status >= HTTPStatus.BAD_REQUEST:
                kind = str(attempt.status)
            if kind:
                _fail(span, kind)
            _describe(span, {name: known[name] for name in _ATTEMPT_ATTRIBUTES if name in known})
            if attempt.status is not None:
                span.set_attribute("http.response.status_code", attempt.status)
            span.end()

    def end(self, fields: Mapping[str, FieldValue]) -> None:
        if endpoint := fields.get("endpoint"):
            self._span.update_name(f"{self._method} {endpoint}")
        _describe(self._span, fields)
        if fields["outcome"] != "ok":
            _fail(self._span, str(fields["outcome"]))
        self._span.end()


class _AttemptSpan:
    def __init__(self, span: Span) -> None:
        self.status: int | None = None
        self.error: str | None = None
        self._context = set_span_in_context(span, Context())

    def propagate(self, headers: Headers) -> Headers:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, self._context)
        kept = [pair for pair in headers if pair[0].lower() not in _CONTEXT_HEADERS]
        return [*kept, *((name.encode(), value.encode("latin-1")) for name, value in carrier.items())]


def _describe(span: Span, fields: Mapping[str, FieldValue]) -> None:
    for name, value in fields.items():
        if name in _ATTRIBUTES and value is not None:
            span.set_attribute(_ATTRIBUTES[name], value)


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, kind)
