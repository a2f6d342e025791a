"""An event stream as a response body: paced, counted, and broken where the options say so."""

import asyncio
from collections.abc import AsyncIterator

from quart import Response

from proxy.gateway.answers import EventStream
from proxy.gateway.connection import StreamCut
from proxy.gateway.options import GatewayOptions
from proxy.gateway.state import Gateway, GatewayStats

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def stream_response(gateway: Gateway, stream: EventStream, options: GatewayOptions) -> Response:
    """A response that sends the events one by one, paced and broken off as the options say."""
    body = _paced(gateway.stats, stream, options)
    response = Response(body, headers=STREAM_HEADERS, content_type="text/event-stream")
    response.timeout = None
    return response


async def _paced(stats: GatewayStats, stream: EventStream, options: GatewayOptions) -> AsyncIterator[bytes]:
    """Yield the events, pausing between pieces; a caller who leaves is counted."""
    pauses = stream.pieces[1:]
    sent = 0
    stats.streams_open += 1
    try:
        for event in stream.events:
            await _break_off(options, sent)
            if sent in pauses:
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
