"""An event stream as a response body: paced, counted, and broken where the options say so."""

import asyncio
from collections.abc import AsyncIterator

from quart import Response

from proxy.gateway.answers import EventStream
from proxy.gateway.options import GatewayOptions
from proxy.gateway.state import Gateway

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class StreamCut(TimeoutError):
    """Ends a response in the middle: no last chunk, the connection closes, nothing is logged.

    That is what Quart does with a TimeoutError while it sends a body (its own response timeout, `asgi.py`);
    Hypercorn then finds the response unfinished and closes. Any other exception is logged as a defect.
    """


def stream_response(gateway: Gateway, stream: EventStream) -> Response:
    """A response that sends the events one by one, however long that takes."""
    body = _paced(gateway, stream)
    response = Response(body, headers=STREAM_HEADERS, content_type="text/event-stream")
    response.timeout = None
    return response


async def _paced(gateway: Gateway, stream: EventStream) -> AsyncIterator[bytes]:
    """Yield the events, pausing between pieces; a caller who leaves is counted."""
    options, stats = gateway.options, gateway.stats
    sent = 0
    stats.streams_open += 1
    try:
        for event in stream.events:
            await _break_off(options, sent)
            if sent in stream.pieces[1:]:
                await asyncio.sleep(options.word_delay)  # also with 0: others get their turn
            yield event
            sent += 1
        await _break_off(options, sent)
    except (asyncio.CancelledError, GeneratorExit):
        stats.streams_closed_early += 1
        raise
    finally:
        stats.streams_open -= 1


async def _break_off(options: GatewayOptions, sent: int) -> None:
    if sent == options.cut_after:
        raise StreamCut
    if sent == options.stall_after:
        await asyncio.Event().wait()  # until the caller leaves and this task is cancelled
