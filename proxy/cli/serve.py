"""`serve`: bind, build the application, serve until a signal, drain."""

import argparse
import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from proxy.access import is_loopback, uses_default_keys, uses_original_key
from proxy.app import create_app, reload
from proxy.cli.banner import print_banner
from proxy.cli.gateway import embedded_gateway
from proxy.cli.reload import reloading
from proxy.cli.serve_workers import check_workers, supervise
from proxy.cli.server import (
    HARD_STOP_SECONDS,
    address_of,
    inherited_sockets,
    load_server_config,
    open_slots,
)
from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.errors import SettingsError
from proxy.server.certificates import Certificates, open_certificates
from proxy.server.config import ServerConfig
from proxy.server.event_loop import run
from proxy.server.other_servers import OURS, check_server, serve_on
from proxy.server.serve import serve as serve_application
from proxy.server.signals import Signals, Stop, handled_signals
from proxy.server.supervisor import Lifeline
from proxy.settings import Access, Settings, load_settings
from proxy.settings.access import weak_keys
from proxy.telemetry import configure_logs, get_logger, writing_to
from proxy.telemetry.readings import HttpServerReading
from proxy.telemetry.worker_reports import WorkerReports
from proxy.token_ids import load_token_texts

GC_THRESHOLDS: Final = (2_000, 5, 50)
"""Some 10,000 objects at most are walked in the middle generation, and the oldest one is walked rarely."""


@dataclass(frozen=True, slots=True)
class SharedByWorkers:
    """What one worker among several has in common with the others."""

    lifeline: Lifeline
    token_folder: TokenFolder
    reports: WorkerReports


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a process serves, and how it stops.

    Args:
        server: The server's options; `graceful_timeout` is the time that running exchanges get.
        sockets: Where to listen.
        signals: The signals, handled since before the sockets were opened.
        load: Reads the settings again, at SIGHUP.
        file: The file that `load` reads.
        certificates: The certificates for TLS; None for plain HTTP.
        shared: What this worker shares with others, if there are several.
        kind: Which server: hypercorn (ours), uvicorn or granian.
        hard_stop_seconds: Extra seconds after the grace period, after which the process exits regardless.
    """

    server: ServerConfig
    sockets: list[socket.socket]
    signals: Signals = field(default_factory=Signals)
    load: Callable[[], Settings] | None = None
    file: Path | None = None
    certificates: Certificates | None = None
    shared: SharedByWorkers | None = None
    kind: str = OURS
    hard_stop_seconds: float = HARD_STOP_SECONDS

    @property
    def scheme(self) -> str:
        """The scheme of the URLs that callers use."""
        return "http" if self.certificates is None else "https"


def serve(options: argparse.Namespace) -> int:
    """Serve the proxy; returns when it has drained."""
    settings = load_settings(options.config, os.environ)
    server = load_server_config(options.bind)
    workers = options.workers or server.workers
    with contextlib.ExitStack() as stack:
        shared = None
        inherited = inherited_sockets(os.environ)
        if options.assignment is not None:
            lifeline = stack.enter_context(Lifeline(options.assignment))
            assignment = lifeline.read_assignment()
            workers = assignment.workers
            inherited = [socket.socket(fileno=descriptor) for descriptor in assignment.descriptors]
            folder = Path(assignment.folder)
            shared = SharedByWorkers(
                lifeline,
                TokenFolder(folder, assignment.sealing_key),
                WorkerReports(folder, assignment.worker, workers),
            )
        binds = [*map(address_of, inherited)] or [*server.bind]
        check_workers(settings, workers)
        check_traces(settings)
        check_server(options.server, server, workers, inherited)
        check_binds(settings, binds)
        load_token_texts(settings)  # a missing encoding is reported before the port opens
        log = stack.enter_context(writing_to(sys.stderr))
        stack.enter_context(contextlib.redirect_stderr(log))
        configure_logs(settings.logs, log, permanent=True)
        logging.captureWarnings(capture=True)
        signals = stack.enter_context(handled_signals())
        if shared is not None:
            shared.lifeline.report_signal_handling()
        certificates = open_certificates(server)
        slots = [inherited] * workers if inherited else open_slots(server.bind, server.backlog, workers)
        for listener in {*itertools.chain(*slots)}:
            stack.enter_context(listener)
        if workers > 1 and shared is None:
            announce(settings, slots[0], "http" if certificates is None else "https")
            return supervise(options, server, slots, signals)

        def load() -> Settings:
            loaded = load_settings(options.config, os.environ)
            check_workers(loaded, workers)
            check_binds(loaded, binds)
            return loaded

        serving = ServeOptions(
            server, slots[0], signals, load, options.config, certificates, shared, options.server
        )
        run(functools.partial(serve_until_stopped, settings, serving))
    return 0


def check_traces(settings: Settings) -> None:
    """Reject `[traces]` if its packages are not installed.

    Raises:
        SettingsError: They are missing.
    """
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if settings.traces is not None and found is None:
        raise SettingsError("traces: a package is missing: pip install 'llm-token-proxy[opentelemetry]'")


def check_binds(settings: Settings, binds: Sequence[str]) -> None:
    """Reject the runnable default's well-known keys wherever others could use them.

    Raises:
        SettingsError: One of the addresses is not a loopback one.
    """
    exposed = [bind for bind in binds if not is_loopback(bind.rpartition(":")[0].strip("[]"))]
    if exposed and settings.access.mode == "keys" and uses_default_keys(settings.access):
        raise SettingsError(
            f"access.keys: the default keys are known to everybody and rejected on {', '.join(exposed)}; "
            "set keys of your own, or bind to 127.0.0.1"
        )


async def serve_until_stopped(settings: Settings, options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT, then report not ready and let running exchanges finish."""
    drain, log, server, shared = Drain(), get_logger("proxy"), options.server, options.shared
    hard_stop = asyncio.timeout(None)
    stop = options.signals.stop()
    if shared is not None:
        shared.lifeline.watch(functools.partial(stop.signalled, signal.SIGTERM))
    stopped = functools.partial(_stopped, options, stop, drain, server.graceful_timeout, hard_stop)
    # At the end of the grace period streams get an error event, and this much later the server cuts the rest.
    server.graceful_timeout += options.hard_stop_seconds / 2
    async with embedded_gateway(settings) as resolve:
        resolved = resolve(settings)
        if shared is None:
            announce(resolved, options.sockets, options.scheme)
        token_folder, reports = (None, None) if shared is None else (shared.token_folder, shared.reports)
        reading = HttpServerReading(listeners=options.sockets)
        app = create_app(resolved, drain, token_folder, reports, reading)
        reloads = reloading(
            options.signals.hangup(), functools.partial(reload, app), options.load or (lambda: settings),
            resolve, options.file, options.certificates,
        )  # fmt: skip
        max_connections = resolved.limits.max_connections
        try:
            async with hard_stop, reloads:
                if options.kind == OURS:
                    await serve_application(
                        app, server, options.sockets, stopped, max_connections=max_connections,
                        is_leaving=lambda: drain.announced, certificates=options.certificates,
                        rejections=reading.rejections,
                    )  # fmt: skip
                else:
                    await serve_on(
                        options.kind, app, server, options.sockets, stopped, max_connections=max_connections
                    )
        except (TimeoutError, asyncio.InvalidStateError):  # Hypercorn raises the latter when cancelled
            log.warning("drain_incomplete", running=drain.running)
    log.info("stopped")


async def _stopped(
    options: ServeOptions, stop: Stop, drain: Drain, grace: float, hard_stop: asyncio.Timeout
) -> None:
    """Wait for the signal and until load balancers stop sending requests, then start the shutdown timers."""
    tune_garbage_collection()
    if options.shared is not None:
        options.shared.lifeline.report_ready()
    delay = options.server.readiness_delay
    await stop.requested.wait()
    if delay and not stop.without_delay.is_set():
        drain.announced = True
        get_logger("proxy").info("not_ready", running=drain.running, delay_s=delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await stop.without_delay.wait()
    drain.started = True
    get_logger("proxy").info("draining", running=drain.running, grace_s=grace)
    loop = asyncio.get_running_loop()
    loop.call_later(grace, drain.stop_all)
    hard_stop.reschedule(loop.time() + grace + options.hard_stop_seconds)


def tune_garbage_collection() -> None:
    """Keep collections short, because each stalls every stream.

    What exists now lives to the end and need not be walked again. What requests leave behind is freed by
    reference counting, so that hardly anything waits for the collection of the oldest generation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def announce(settings: Settings, sockets: list[socket.socket], scheme: str = "http") -> None:
    """Log the address and unsafe settings; print a banner on a terminal."""
    log = get_logger("proxy")
    addresses = [_url(listener, scheme) for listener in sockets]
    log.info("serving", addresses=addresses, upstreams={n: u.base_url for n, u in settings.upstreams.items()})
    if settings.access.mode == "open":
        log.warning(
            "access_open",
            meaning="no key is required: anyone who can reach this address can use the upstream",
        )
    if settings.chat is not None and settings.chat.secret is None and settings.gateway is None:
        log.warning("chat_secret_unset", meaning="visitors are forgotten at every restart")
    if settings.logs.bodies:
        log.warning("bodies_logged", meaning="prompts and answers are written to the log")
    _announce_keys(settings.access)
    if addresses:
        print_banner(settings, addresses[0])


def _announce_keys(access: Access) -> None:
    """Warn about weak keys and about default keys."""
    log = get_logger("proxy")
    for caller in weak_keys(access):
        log.warning(
            "weak_key", caller=caller, meaning="the key has fewer than 16 characters and could be guessed",
            cure="set a longer one: `openssl rand -hex 24`",
        )  # fmt: skip
    if access.mode == "open":
        return
    if uses_default_keys(access):
        log.warning(
            "default_keys", meaning="`sk-local` and `fake key` are public: they work only for programs that "
            "connect directly from this machine; behind nginx and from other machines they are answered 401",
            cure='add a key of your own to [[access.keys]], or set mode = "open"',
        )  # fmt: skip
    if not uses_original_key(access):
        log.info(
            "original_key_rejected",
            meaning="callers that send the key of the Flask original, `fake key`, are answered 401",
            cure='give them a key of [[access.keys]], or set mode = "open"',
        )


def _url(listener: socket.socket, scheme: str) -> str:
    address = address_of(listener)
    return address if listener.family == socket.AF_UNIX else f"{scheme}://{address}"
