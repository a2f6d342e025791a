"""Send a request to one upstream, and relay its response, whole or as a stream.

Nothing reaches the caller before the upstream's first body byte, so that a failure before it has a true
status. After it, a broken event stream ends with one error event and without an end marker; any other broken
body is aborted, so that no cut response looks like a whole one.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec.structs import replace

from proxy.errors import (
    Aborted,
    BadResponse,
    Draining,
    InvalidResponse,
    ProxyError,
    UpstreamError,
    UpstreamTimeout,
)
from proxy.settings import Limits
from proxy.telemetry import ExchangeRecord
from proxy.upstream.clock import ExchangeClock
from proxy.upstream.repaired import RepairedStart, ResponseRepairs, repair_events
from proxy.upstream.requests import UpstreamRequest
from proxy.upstream.routing import NO_REPAIRS, Route
from proxy.upstream.transport import UpstreamResponse
from proxy.wire.endpoints import Charge, StreamEnd
from proxy.wire.error_envelope import error_body, error_event
from proxy.wire.event_stream import END_MARKER, HEARTBEAT, EventFramer, count_events, is_event_stream
from proxy.wire.headers import Headers, content_coding, find_header, response_headers
from proxy.wire.repairs import Call, EmbeddedError
from proxy.wire.statuses import NO_CONTENT, OK, SUCCESSES
from proxy.wire.stream_errors import ERROR_WORD, find_error_code
from proxy.wire.usage import TAIL_BYTES, Usage, read_stream_usage, read_usage, read_usage_in_tail

ENDED_EARLY: Final = "the response was cut off: the upstream ended it early"
NOT_IN_TIME: Final = "the response was cut off: the upstream did not send the rest in time"
END_SECONDS: Final = 1.0
"""The timeout for the end of the body after the end marker."""
NO_RESPONSE_REPAIRS: Final = ResponseRepairs(NO_REPAIRS, Call(None))


def _not_known() -> bool:
    return False


class RelayedResponse(msgspec.Struct, frozen=True):
    """The response for the caller; a body that is a generator aborts the connection if it fails."""

    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes]
    concerns_request: bool = False
    """Whether a status of failure may concern this request only, although the upstream works."""
    redact: Callable[[bytes], bytes] = bytes
    """Masks the secrets that were sent to the upstream, if an error has to be made of the body."""
    has_arrived: Callable[[], bool] = _not_known
    """Whether the upstream's whole body has arrived, so that the generator will not wait for it again."""


class Attempt(msgspec.Struct, frozen=True):
    """One try at one upstream: the request, the route, the timeouts, and the repairs of the response."""

    request: UpstreamRequest
    route: Route
    clock: ExchangeClock
    record: ExchangeRecord
    limits: Limits
    repairs: ResponseRepairs = NO_RESPONSE_REPAIRS
    heartbeat: float = 0.0
    """Seconds of silence in an event stream after which the caller gets a comment; 0 is never."""

    async def open(self, closing: contextlib.AsyncExitStack) -> RelayedResponse:
        """Send the request and wait for the first byte of the response.

        Args:
            closing: Closes a response that is a stream when the exchange ends. It belongs to the task of the
                request, because the body never starts if the caller disconnects before it.

        Raises:
            ProxyError: The attempt failed before the first byte.
        """
        response: UpstreamResponse | None = None
        is_stream = False
        try:
            async with self.clock.first_byte():
                response = await self.route.client.open(self.request, self.record)
                self.record.headers_at = self.record.now()
                # Before the first byte, because a caller who leaves before it may have run a model, too.
                self.record.succeeded = response.status in SUCCESSES
                first, start = await self._begin(response)
            self.record.first_byte_at = self.record.now()
            upstream_id = find_header(response.headers, b"x-request-id")
            self.record.upstream_request_id = (
                None if upstream_id is None else upstream_id.decode("latin-1")[:128]
            )
            relayed = self._relay(response, first, start, closing)
            if not isinstance(relayed.body, bytes):
                is_stream = True
                closing.push_async_callback(response.aclose)
            return relayed
        except Exception as error:  # Also a defect of ours, which is not charged.
            cut_off = isinstance(error, UpstreamError | Draining) and not isinstance(error, InvalidResponse)
            if self.record.succeeded and cut_off:
                self.record.note_unanswered()
            self.record.succeeded = False
            raise
        finally:
            if response is not None and not is_stream:
                await response.aclose()

    async def _begin(self, response: UpstreamResponse) -> tuple[bytes, RepairedStart | EmbeddedError | None]:
        """Return the first bytes of a response, and what repairs have made of them."""
        max_event_bytes = self.limits.max_event_bytes
        beginning = self.repairs.beginning(self.request.method, response.status, response.headers)
        try:
            first = chunk = await response.read()
            if beginning is None:
                return first, None
            beginning.feed(chunk)
            while chunk and not beginning.has_enough(max_event_bytes):
                chunk = await response.read()
                beginning.feed(chunk)
        except Aborted as error:
            raise BadResponse(reason=error.reason) from error
        self.clock.suspend()  # The upstream has answered; what follows is our work, or a wait for a thread.
        start = await beginning.start(max_event_bytes)
        if isinstance(start, EmbeddedError):
            # A message is shortened: if that cuts a secret in two, it can no longer be recognised.
            await beginning.mask(response.mask)
            start = await beginning.start(max_event_bytes)
        return b"" if isinstance(start, EmbeddedError) else start.body, start

    def _relay(
        self,
        response: UpstreamResponse,
        first: bytes,
        start: RepairedStart | EmbeddedError | None,
        closing: contextlib.AsyncExitStack,
    ) -> RelayedResponse:
        if isinstance(start, EmbeddedError):
            return self._embedded_error(start, response)
        upstream_headers = response.headers
        is_events = is_event_stream(upstream_headers)
        if start is not None:
            is_events = start.is_events
            if start.content_type is not None:
                upstream_headers = [pair for pair in upstream_headers if pair[0].lower() != b"content-type"]
                upstream_headers.append((b"content-type", start.content_type))
        headers = response_headers(upstream_headers, event_stream=is_events)
        if response.status == NO_CONTENT:  # It must not have a length (RFC 9110 8.6).
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        if start is not None and start.is_whole:
            if start.usage is not None and self._is_counted:
                self.record.prompt_tokens, self.record.completion_tokens = start.usage
            self.record.events = count_events(first) if is_events else None
            if is_events and first.find(ERROR_WORD) >= 0:
                first = response.redact(first)
                self._note_error(first)
            return self._whole(response.status, headers, first)
        length = find_header(upstream_headers, b"content-length")
        # A compressed stream is passed as it is: its events cannot be seen.
        watched = is_events and response.status == OK and not content_coding(upstream_headers)
        is_head = self.request.method == "HEAD"  # Its response has no body.
        if watched and not first and self._requires_end_marker and not is_head:
            raise InvalidResponse("an event stream without an event")
        if not first or (not watched and length is not None and int(length) == len(first)):
            self.record.count_bytes_sent(first)
            self._note_usage(read_usage, first)
            return RelayedResponse(response.status, headers, first, redact=response.redact)
        self.clock.watch(response.fail)
        closing.callback(self.clock.close)
        if not watched:
            body = self._bytes(first, response)
            return self._stream(response, headers, body)
        framer = EventFramer(self.limits.max_event_bytes)
        # Not at the end of the body: a disconnected caller never reaches it.
        closing.callback(lambda: self._note_usage_of_stream(framer))
        events = self._events(first, response, framer)
        return self._stream(response, headers, events)

    @staticmethod
    def _stream(response: UpstreamResponse, headers: Headers, body: AsyncGenerator[bytes]) -> RelayedResponse:
        return RelayedResponse(
            response.status, headers, body, redact=response.redact, has_arrived=response.has_arrived
        )

    def _whole(self, status: int, headers: Headers, body: bytes) -> RelayedResponse:
        """Return a response whose length differs from the upstream's."""
        kept = [pair for pair in headers if pair[0] != b"content-length"]
        self.record.count_bytes_sent(body)
        return RelayedResponse(status, [*kept, (b"content-length", str(len(body)).encode())], body)

    def _embedded_error(self, error: EmbeddedError, response: UpstreamResponse) -> RelayedResponse:
        """Return an error inside a 200 with the status that it should have had."""
        code = None if error.code is None else response.redact(error.code.encode(errors="replace")).decode()
        self.record.end("error_inside", code)
        self.record.succeeded = False
        headers = response_headers([(b"content-type", b"application/json")], event_stream=False)
        is_unclear = error.status == HTTPStatus.BAD_GATEWAY
        if is_unclear:
            # The upstream reported success, so nothing suggests that a retry would help.
            headers.append((b"x-should-retry", b"false"))
            message = f"{InvalidResponse.message}, an error with status 200: {error.message}"
            error = replace(error, message=message)
        body = response.redact(error_body(error.envelope()))
        whole = self._whole(error.status, headers, body)
        return msgspec.structs.replace(whole, concerns_request=is_unclear)

    async def _events(
        self, first: bytes, response: UpstreamResponse, framer: EventFramer
    ) -> AsyncGenerator[bytes]:
        """Yield complete events as they arrive; end a broken stream with one error event."""
        repairer = self.repairs.stream() if self.repairs else None
        record, clock, has_error = self.record, self.clock, False
        try:
            chunk = first
            while chunk:
                whole = framer.feed(chunk)
                if repairer is not None:
                    whole = await repair_events(repairer, whole)
                    if repairer.ended:
                        record.end("error_inside", repairer.ended)
                if whole.find(ERROR_WORD) >= 0:
                    whole = await response.mask(whole)
                    has_error = self._note_error(whole) or has_error
                if whole:
                    record.count_bytes_sent(whole)
                    record.events = framer.events
                    yield whole
                if repairer is not None and repairer.ended:
                    return
                if framer.too_large:
                    raise Aborted(reason="an event was over the limit")
                if whole.find(END_MARKER) >= 0 and framer.marked:
                    clock.expect_end(END_SECONDS)
                clock.start_waiting()
                if not self.heartbeat or framer.marked:
                    chunk = await response.read()
                else:
                    while (arrived := await self._next_unless_silent(response)) is None:
                        record.count_heartbeat(HEARTBEAT)
                        yield HEARTBEAT
                    chunk = arrived
                clock.stop_waiting()
            tail = framer.flush(drop_cut=self._requires_end_marker)
            if repairer is not None:
                tail = await repair_events(repairer, tail) + repairer.finish()
            is_error = False
            if tail.find(ERROR_WORD) >= 0:
                tail = await response.mask(tail)
                is_error = self._note_error(tail)
            accepted = repairer is not None and repairer.accepts_missing_end and not framer.cut
            if self._requires_end_marker and not (framer.finished or has_error or is_error or accepted):
                raise Aborted(ENDED_EARLY, reason="ended without [DONE] and without a finish_reason")
            if tail:
                # Clients ignore an event without a blank line after it, so an error must have one.
                tail = tail.rstrip(b"\r\n") + b"\n\n" if is_error else tail
                record.count_bytes_sent(tail)
                yield tail
        except ProxyError as error:
            if not framer.marked:  # After the end marker, an open or broken connection loses nothing.
                yield self._last_event(error)

    async def _bytes(self, first: bytes, response: UpstreamResponse) -> AsyncGenerator[bytes]:
        """Yield any other body as it arrives."""
        chunk, tail = first, b""
        while chunk:
            self.record.count_bytes_sent(chunk)
            yield chunk
            tail = (tail + chunk)[-TAIL_BYTES:] if self._is_counted else b""
            self.clock.start_waiting()
            chunk = await response.read()
            self.clock.stop_waiting()
        self._note_usage(read_usage_in_tail, tail)

    async def _next_unless_silent(self, response: UpstreamResponse) -> bytes | None:
        """Return the next bytes, or None when it is time for a heartbeat."""
        try:
            async with asyncio.timeout(self.heartbeat):
                return await response.read()
        except TimeoutError:
            return None

    def _note_error(self, whole_events: bytes) -> bool:
        """Record the first error of the upstream's own among these events; return whether there is one."""
        code = find_error_code(whole_events)
        if code is not None:
            self.record.end("error_inside", code)
        return code is not None

    @property
    def _is_counted(self) -> bool:
        return self.route.endpoint.charge is not Charge.NOTHING

    def _note_usage(self, read: Callable[[bytes], Usage | None], body: bytes) -> None:
        if self._is_counted and (usage := read(body)) is not None:
            self.record.prompt_tokens, self.record.completion_tokens = usage

    def _note_usage_of_stream(self, framer: EventFramer) -> None:
        self._note_usage(read_stream_usage, framer.recent)
        completion = self.record.completion_tokens
        if completion is not None and self._requires_end_marker and not (framer.flushed or framer.finished):
            # The caller left early, so the usage so far is not that of the whole stream.
            self.record.events_unreported = max(0, framer.events - completion)

    @property
    def _requires_end_marker(self) -> bool:
        """Whether a stream that ends without an end marker or a finish_reason has been cut."""
        return self.route.endpoint.stream is StreamEnd.FINISH

    def _last_event(self, error: ProxyError) -> bytes:
        self.record.fail(error)
        shown = Aborted(NOT_IN_TIME) if isinstance(error, UpstreamTimeout) else error
        event = error_event(shown.envelope(), named=self.route.endpoint.stream is StreamEnd.RESPONSE)
        self.record.count_bytes_sent(event)
        return event
