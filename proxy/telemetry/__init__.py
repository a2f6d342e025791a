"""Logs, metrics, and the record of each exchange."""

from proxy.telemetry.exchange_record import BodyLog, ExchangeRecord
from proxy.telemetry.log_writer import writing_to
from proxy.telemetry.logs import bind_context, configure_logs, get_logger, request_context
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.readings import State, TokenReading, TokenStats, UpstreamReading, UsageTotals

__all__ = [
    "BodyLog",
    "ExchangeRecord",
    "Metrics",
    "State",
    "TokenReading",
    "TokenStats",
    "UpstreamReading",
    "UsageTotals",
    "bind_context",
    "configure_logs",
    "get_logger",
    "request_context",
    "writing_to",
]
