"""`serve`: check the settings, bind, and serve in this process or supervise several workers."""

import argparse
import contextlib
import functools
import gc
import itertools
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from proxy.access import is_loopback, uses_default_keys
from proxy.cli.announcement import announce
from proxy.cli.serve_workers import check_workers, supervise
from proxy.cli.server import address_of, inherited_sockets, load_server_config, open_slots, split_bind
from proxy.cli.worker_configuration import WorkerConfiguration, unpack
from proxy.errors import SettingsError
from proxy.server.certificates import TlsContents, open_certificates, uses_tls
from proxy.server.event_loop import run
from proxy.server.other_servers import check_server
from proxy.server.signals import Signals, handled_signals
from proxy.server.supervisor import Lifeline
from proxy.settings import Settings, load_settings
from proxy.shipped import install_command
from proxy.telemetry import configure_logs, writing_to
from proxy.token_ids import load_token_texts


def serve(options: argparse.Namespace, early: Sequence[int] = ()) -> int:
    """Serve the proxy; returns when it has drained.

    Args:
        options: Those of the command line.
        early: The signals that were received until now; more may follow until they are handled here.
    """
    if options.assignment is not None:
        return _serve_as_worker(options, early)
    settings = load_settings(options.config, os.environ)
    server = load_server_config(options.bind)
    workers = options.workers or server.workers
    if workers == 1:
        import_worker()
    inherited = inherited_sockets(os.environ)
    binds = [*map(address_of, inherited)] or [*server.bind]
    check_workers(settings, workers)
    check_traces(settings)
    check_server(options.server, server, workers, inherited)
    check_binds(settings, binds)
    load_token_texts(settings)  # a missing encoding is reported before the port opens

    def load() -> Settings:
        loaded = load_settings(options.config, os.environ)
        check_workers(loaded, workers)
        check_binds(loaded, binds)
        return loaded

    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(_logging_and_handling_signals(settings, early))
        certificates = open_certificates(server) if workers == 1 else None
        tls_contents = TlsContents.read(server) if workers > 1 and uses_tls(server) else None
        slots = [inherited] * workers if inherited else open_slots(server.bind, server.backlog, workers)
        for listener in {*itertools.chain(*slots)}:
            stack.enter_context(listener)
        if workers > 1:
            announce(settings, slots[0], "http" if tls_contents is None else "https")
            configuration = WorkerConfiguration(server, settings, tls_contents)
            return supervise(options, configuration, slots, signals, load)

        from proxy.cli.worker import ServeOptions, serve_until_stopped

        serving = ServeOptions(
            server, slots[0], signals, load, options.config, certificates, kind=options.server
        )
        run(functools.partial(serve_until_stopped, settings, serving))
    return 0


def _serve_as_worker(options: argparse.Namespace, early: Sequence[int]) -> int:
    """Serve with what the supervisor passes, and read no settings."""
    import_worker()
    from proxy.cli.worker import ServeOptions, SharedByWorkers, serve_until_stopped

    with contextlib.ExitStack() as stack:
        lifeline = stack.enter_context(Lifeline(options.assignment))
        assignment, packed = lifeline.read_assignment()
        configuration: WorkerConfiguration = unpack(packed)
        settings, server = configuration.settings, configuration.server
        load_token_texts(settings)
        signals = stack.enter_context(_logging_and_handling_signals(settings, early))
        lifeline.report_signal_handling()
        certificates = open_certificates(server, configuration.tls_contents)
        listeners = [socket.socket(fileno=descriptor) for descriptor in assignment.descriptors]
        for listener in listeners:
            stack.enter_context(listener)
        shared = SharedByWorkers.of(lifeline, assignment)
        serving = ServeOptions(
            server, listeners, signals, certificates=certificates, shared=shared, kind=options.server
        )
        run(functools.partial(serve_until_stopped, settings, serving))
    return 0


@contextlib.contextmanager
def _logging_and_handling_signals(settings: Settings, early: Sequence[int]) -> Iterator[Signals]:
    """Write everything on standard error to the log, and handle signals."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(writing_to(sys.stderr))
        stack.enter_context(contextlib.redirect_stderr(log))
        configure_logs(settings.logs, log, permanent=True)
        logging.captureWarnings(capture=True)
        yield stack.enter_context(handled_signals(early))


def import_worker() -> None:
    """Import what serves requests, before the port opens.

    It takes half of a worker's memory, which the process that only supervises workers does not need.
    """
    gc.disable()  # see proxy.cli
    import proxy.cli.worker  # noqa: F401

    gc.freeze()
    gc.enable()


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
        raise SettingsError(f"traces: a package is missing: {install_command('opentelemetry')}")


def check_binds(settings: Settings, binds: Sequence[str]) -> None:
    """Reject the runnable default's well-known keys wherever others could use them.

    Raises:
        SettingsError: One of the addresses is not a loopback one, or not an address.
    """
    exposed = [bind for bind in binds if bind.startswith("unix:") or not is_loopback(split_bind(bind)[0])]
    if exposed and settings.access.mode == "keys" and uses_default_keys(settings.access):
        raise SettingsError(
            f"access.keys: the default keys are known to everybody and rejected on {', '.join(exposed)}; "
            "set keys of your own, or bind to 127.0.0.1"
        )
