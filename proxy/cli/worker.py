"""The process that serves requests: it builds the application, serves until a signal, and drains."""

import asyncio
import contextlib
import functools
import gc
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import msgspec

from proxy.app import create_app, reload
from proxy.cli.announcement import announce
from proxy.cli.gateway import embedded_gateway
from proxy.cli.reload import (
    ServeBy,
    certificate_failures_logged,
    failures_logged,
    reloading,
    running,
)
from proxy.cli.server import HARD_STOP_SECONDS
from proxy.cli.worker_configuration import unpack
from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.server.certificates import Certificates, TlsContents
from proxy.server.config import ServerConfig
from proxy.server.limits import fit_connections
from proxy.server.other_servers import OURS, serve_on
from proxy.server.serve import serve as serve_application
from proxy.server.signals import Signals, Stop
from proxy.server.supervisor import Assignment, Lifeline
from proxy.settings import Settings
from proxy.telemetry import get_logger
from proxy.telemetry.readings import HttpServerReading
from proxy.telemetry.worker_reports import WorkerReports

GC_THRESHOLDS: Final = (2_000, 5, 50)
"""Some 10,000 objects at most are walked in the middle generation, and the oldest one is walked rarely."""


class SharedByWorkers(msgspec.Struct, frozen=True):
    """What one worker among several has in common with the others."""

    lifeline: Lifeline
    token_folder: TokenFolder
    reports: WorkerReports

    @classmethod
    def of(cls, lifeline: Lifeline, assignment: Assignment) -> Self:
        """Build it from what the supervisor assigns."""
        folder = Path(assignment.folder)
        return cls(
            lifeline,
            TokenFolder(folder, assignment.sealing_key),
            WorkerReports(folder, assignment.worker, assignment.workers),
        )


class ServeOptions(msgspec.Struct, frozen=True):
    """How a process serves, and how it stops.

    Args:
        server: The server's options; `graceful_timeout` is the time that running exchanges get.
        sockets: Where to listen.
        signals: The signals, handled since before the sockets were opened.
        load: Reads the settings again, at SIGHUP. One worker among several gets them from its supervisor.
        file: The file that `load` reads.
        certificates: The certificates for TLS; None for plain HTTP.
        shared: What this worker shares with others, if there are several.
        kind: Which server: hypercorn (ours), uvicorn or granian.
        hard_stop_seconds: Extra seconds after the grace period, after which the process exits regardless.
    """

    server: ServerConfig
    sockets: list[socket.socket]
    signals: Signals = msgspec.field(default_factory=Signals)
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


async def serve_until_stopped(settings: Settings, options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT, then report not ready and let running exchanges finish."""
    drain, log, server, shared = Drain(), get_logger("proxy"), options.server, options.shared
    hard_stop = asyncio.timeout(None)
    stop = options.signals.stop()
    offers: asyncio.Queue[bytes] = asyncio.Queue()
    if shared is not None:
        shared.lifeline.watch(functools.partial(stop.signalled, signal.SIGTERM), offers.put_nowait)
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

        async def serve_by(new: Settings) -> None:
            await reload(app, resolve(new))

        if shared is None:
            reloads = reloading(
                options.signals.hangup(), serve_by, options.load or (lambda: settings), options.file,
                options.certificates,
            )  # fmt: skip
        else:
            reloads = running(_accept_offers(offers, serve_by, options.certificates, shared.lifeline))
        max_connections = fit_connections(resolved.limits.max_connections)
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


async def _accept_offers(
    offers: asyncio.Queue[bytes], serve_by: ServeBy, certificates: Certificates | None, lifeline: Lifeline
) -> None:
    """Put into effect what the supervisor offers, and report whether that succeeded."""
    while True:
        offer: Settings | TlsContents = unpack(await offers.get())
        succeeded = False
        if isinstance(offer, Settings):
            with failures_logged():
                await serve_by(offer)
                get_logger("proxy").info("reloaded")
                succeeded = True
        elif certificates is not None:
            with certificate_failures_logged():
                await asyncio.to_thread(certificates.reload, offer)
                succeeded = True
        lifeline.report_reload(succeeded=succeeded)


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
