"""The parts of the application that its views use while it serves."""

from dataclasses import dataclass
from typing import Final, cast

from quart import Quart, current_app

from proxy.api_docs.page import Style
from proxy.config_snapshots import ConfigSnapshots
from proxy.status.service import StatusService
from proxy.telemetry.worker_reports import WorkerReports

EXTENSION: Final = "proxy"
"""The name of the parts among the extensions of the application, from the start of its lifespan."""


@dataclass(frozen=True, slots=True)
class AppParts:
    """What one worker opens once, and every view may use."""

    snapshots: ConfigSnapshots
    status: StatusService
    worker_reports: WorkerReports | None
    """How `/metrics` and `/status` include the other workers, if there are several."""
    api_docs_style: Style


def app_parts(app: Quart = current_app) -> AppParts:
    """Return the parts of an application that serves; by default the one of the current request."""
    return cast(AppParts, app.extensions[EXTENSION])
