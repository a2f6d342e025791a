"""What one worker reports to the status page, and its encoding between workers."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from proxy.services import Services
from proxy.telemetry import TokenReading, UpstreamReading
from proxy.telemetry.traffic import TrafficReading

KIND: Final = "status"
"""The name of the reports between workers."""


class StatusReport(msgspec.Struct, frozen=True):
    """The state of one worker at one moment."""

    ready: bool
    draining: bool
    running: int
    """Exchanges in progress."""
    streams: Mapping[str, int]
    """Streams in progress, by caller."""
    offloaded: Mapping[str, int]
    """How often nginx was given a token since start-up, by caller."""
    traffic: TrafficReading
    credentials: Sequence[TokenReading]
    upstreams: Sequence[UpstreamReading]


def read_report(services: Services) -> StatusReport | None:
    """Return the report of this worker; None if nothing is counted."""
    if services.traffic is None:
        return None
    return StatusReport(
        ready=services.ready,
        draining=services.worker.drain.announced,
        running=services.worker.drain.running,
        streams=services.worker.limits.streams.running(),
        offloaded=services.worker.exchanges.offloaded(),
        traffic=services.traffic.reading(),
        credentials=services.credentials.readings(),
        upstreams=services.routing.readings(),
    )


def encode(report: StatusReport | None) -> bytes:
    """Encode a report as MessagePack, which has infinite numbers; nothing for None."""
    return b"" if report is None else msgspec.msgpack.encode(report)


def decode(report: bytes) -> StatusReport:
    """Decode the report of another worker."""
    return msgspec.msgpack.decode(report, type=StatusReport)
