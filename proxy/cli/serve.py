"""`serve`: bind, build the application, serve until a signal, drain."""

import argparse
import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Sequence

from hypercorn.config import Config

from proxy.access import is_loopback, uses_default_keys
from proxy.app import create_app
from proxy.cli.gateway import embedded_gateway
from proxy.cli.server import (
    HARD_STOP_SECONDS,
    load_server_config,
    on_hangup,
    open_sockets,
    run,
    run_server,
    stop_signal,
)
from proxy.drain import Drain
from proxy.errors import SettingsError
from proxy.settings import Settings, load_settings
from proxy.telemetry import configure_logs, get_logger
from proxy.token_ids import load_token_texts


def serve(options: argparse.Namespace) -> int:
    """Serve the proxy; returns when it has drained."""
    if options.workers != 1:
        raise SettingsError("--workers: several workers are not supported yet; run with --workers 1")
    settings = load_settings(options.config, os.environ)
    server = load_server_config(options.bind)
    check_binds(settings, server.bind)
    load_token_texts(settings)  # what is missing is told before anything listens; tiktoken keeps it
    configure_logs(settings.logs)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(opened) for opened in open_sockets(server.bind, server.backlog)]
        run(functools.partial(serve_until_stopped, settings, server, sockets))
    return 0


def check_binds(settings: Settings, binds: Sequence[str]) -> None:
    """Refuse the runnable default's well-known keys wherever others could use them."""
    exposed = [bind for bind in binds if not is_loopback(bind.rpartition(":")[0].strip("[]"))]
    if exposed and settings.access.mode == "keys" and uses_default_keys(settings.access):
        raise SettingsError(
            f"access.keys: the default keys are known to everybody and refused on {', '.join(exposed)}; "
            "set keys of your own, or bind to 127.0.0.1"
        )


async def serve_until_stopped(
    settings: Settings,
    server: Config,
    sockets: list[socket.socket],
    hard_stop_seconds: float = HARD_STOP_SECONDS,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: readiness turns first, running exchanges get their time.

    Args:
        settings: What to serve.
        server: Hypercorn's knobs; `graceful_timeout` is the time that running exchanges get.
        sockets: Where to listen.
        hard_stop_seconds: After that time more, whatever still hangs is left behind.
    """
    drain, stop = Drain(), stop_signal()
    log = get_logger("proxy")
    on_hangup(lambda: log.warning("hangup_ignored", meaning="settings are read at start only"))
    grace = server.graceful_timeout
    # We end streams politely at `grace`; then Hypercorn cuts what is left, on Python 3.11 at least.
    server.graceful_timeout = grace + hard_stop_seconds / 2
    hard_stop = asyncio.timeout(None)

    async def stopped() -> None:
        await stop.wait()
        drain.started = True
        log.info("draining", running=drain.running, grace_s=grace)
        loop = asyncio.get_running_loop()
        loop.call_later(grace, drain.stop_all)
        hard_stop.reschedule(loop.time() + grace + hard_stop_seconds)

    async with embedded_gateway(settings) as resolved:
        _announce(resolved, sockets)
        try:
            async with hard_stop:
                await run_server(create_app(resolved, drain), server, sockets, stopped)
        except (TimeoutError, asyncio.InvalidStateError):  # the latter is how Hypercorn takes a cancellation
            log.warning("drain_incomplete", running=drain.running)
    log.info("stopped")


def _announce(settings: Settings, sockets: list[socket.socket]) -> None:
    log = get_logger("proxy")
    addresses = [_url(listener) for listener in sockets]
    log.info("serving", addresses=addresses, upstreams={n: u.base_url for n, u in settings.upstreams.items()})
    if settings.access.mode == "open":
        log.warning("access_open", meaning="no key is asked: whoever reaches this address uses the upstream")
    if settings.logs.bodies:
        log.warning("bodies_logged", meaning="prompts and answers are written to the log")
    if settings.gateway is not None and addresses and settings.access.keys:
        key = settings.access.keys[0].key
        print(_welcome(addresses[0], key.reveal() if key else "...", settings.gateway.token_ttl), flush=True)


def _welcome(address: str, key: str, token_ttl: float) -> str:
    return f"""
LLM token proxy, in front of its demonstration gateway.

  base URL   {address}/v1   (the original's: {address}/agent/api/llm_proxy/v1)
  key        {key}
  token      fetched and renewed by the proxy; each lives {token_ttl:g} s

Try it:

  curl -N {address}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "mock-gpt-model", "stream": true, "messages": [{{"role": "user", "content": "你是谁"}}]}}'
"""


def _url(listener: socket.socket) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
