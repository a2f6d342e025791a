"""`gateway`: serve the demonstration gateway alone, or next to the proxy on a separate loopback port."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from proxy.cli.output import announce
from proxy.cli.server import load_server_config, open_sockets
from proxy.server.config import ServerConfig
from proxy.server.event_loop import run
from proxy.server.serve import serve
from proxy.server.signals import Signals, handled_signals
from proxy.settings import Settings, resolve_embedded
from proxy.task_groups import task_group

DEFAULT_BIND = "127.0.0.1:5003"


def serve_gateway(options: argparse.Namespace) -> int:
    """Serve the gateway until a signal stops it."""
    with handled_signals() as signals:
        return _serve_gateway(options, signals)


def _serve_gateway(options: argparse.Namespace, signals: Signals) -> int:
    from proxy.gateway import GatewayOptions, create_gateway

    server = load_server_config(options.bind or DEFAULT_BIND)
    sockets = open_sockets(server.bind, server.backlog)
    gateway = GatewayOptions(
        token_ttl=options.token_ttl,
        word_delay=options.word_delay,
        api_key=options.api_key,
        first_byte_delay=options.first_byte_delay,
        token_delay=options.token_delay,
        token_status=options.token_status,
        status=options.status,
        cut_after=options.cut_after,
        stall_after=options.stall_after,
        reject_tokens=options.reject_tokens,
    )
    host, port = sockets[0].getsockname()[:2]
    announce(f"demonstration gateway on http://{host}:{port}; tokens live {gateway.token_ttl:g} s")

    async def main() -> None:
        await serve(create_gateway(gateway), server, sockets, signals.stop().requested.wait)

    run(main)
    return 0


@contextlib.asynccontextmanager
async def embedded_gateway(settings: Settings) -> AsyncIterator[Callable[[Settings], Settings]]:
    """Serve the gateway of `[gateway]`, if there is one; yield a function that points settings to it."""
    if settings.gateway is None:
        yield lambda settings: settings
        return
    # Imported here because most services have real upstreams.
    from proxy.gateway import GatewayOptions, create_gateway

    section = settings.gateway
    options = GatewayOptions(
        token_ttl=section.token_ttl,
        word_delay=section.word_delay,
        app_id=section.app_id,
        app_secret=section.app_secret.reveal(),
    )
    sockets = open_sockets(["127.0.0.1:0"], backlog=1024)
    origin = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    server = ServerConfig()
    server.accesslog, server.errorlog = None, None
    server.graceful_timeout = 1.0
    server.keep_alive_timeout = 75.0
    stop = asyncio.Event()
    async with task_group() as group:
        group.create_task(serve(create_gateway(options), server, sockets, stop.wait))
        try:
            yield lambda settings: resolve_embedded(settings, origin)
        finally:
            stop.set()
