"""The parts of the application that its views use while it serves."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from quart import Quart, current_app

from proxy.api_docs.page import Style
from proxy.config_snapshots import ConfigSnapshots, open_snapshots
from proxy.credentials.sharing.host import TokenFolder
from proxy.drain import Drain
from proxy.settings import Settings
from proxy.status.service import StatusService
from proxy.telemetry.readings import HttpServerReading
from proxy.telemetry.worker_reports import WorkerReports

EXTENSION: Final = "proxy"
"""The name of the parts among the extensions of the application, from the start of its lifespan."""


class AppParts(msgspec.Struct, frozen=True):
    """What one worker opens once, and every view may use."""

    snapshots: ConfigSnapshots
    status: StatusService
    worker_reports: WorkerReports | None
    """How `/metrics` and `/status` include the other workers, if there are several."""
    api_docs_style: Style


@contextlib.asynccontextmanager
async def open_app_parts(
    settings: Settings,
    drain: Drain,
    api_docs_style: Style,
    token_folder: TokenFolder | None = None,
    worker_reports: WorkerReports | None = None,
    server: HttpServerReading | None = None,
) -> AsyncIterator[AppParts]:
    """Open the services of a configuration and the status page, and offer their readings to other workers.

    Args:
        settings: The configuration to begin with.
        drain: Shared with the code that stops the server.
        api_docs_style: The style of the description of the API.
        token_folder: Where the workers of the service share tokens, if there are several.
        worker_reports: How this worker and the others read each other's numbers.
        server: What the HTTP server lets the application see.

    Raises:
        Exception: The services cannot be built.
    """
    async with (
        open_snapshots(settings, drain, token_folder, server) as snapshots,
        contextlib.AsyncExitStack() as stack,
    ):
        status = StatusService(lambda: snapshots.current, worker_reports, drain)
        await stack.enter_async_context(status.offered())
        if worker_reports is not None:
            metrics = worker_reports.offered("metrics", lambda: snapshots.current.metrics.render()[0])
            await stack.enter_async_context(metrics)
        yield AppParts(snapshots, status, worker_reports, api_docs_style)


def app_parts(app: Quart = current_app) -> AppParts:
    """Return the parts of an application that serves; by default the one of the current request."""
    parts: AppParts = app.extensions[EXTENSION]
    return parts
