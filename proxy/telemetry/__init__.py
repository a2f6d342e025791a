"""Logs, metrics, and the record of each exchange."""

from proxy.telemetry.exchange_record import BodyLog, ExchangeRecord
from proxy.telemetry.exchange_totals import ExchangeTotals, OffloadKey
from proxy.telemetry.log_writer import writing_to
from proxy.telemetry.logs import bind_context, configure_logs, get_logger, request_context
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.readings import (
    CallerReading,
    TokenLife,
    TokenReading,
    TokenState,
    TokenStats,
    UpstreamReading,
    UsageTotals,
    WorkerReading,
)
from proxy.telemetry.traffic import Traffic

__all__ = [
    "BodyLog",
    "CallerReading",
    "ExchangeRecord",
    "ExchangeTotals",
    "Metrics",
    "OffloadKey",
    "TokenLife",
    "TokenReading",
    "TokenState",
    "TokenStats",
    "Traffic",
    "UpstreamReading",
    "UsageTotals",
    "WorkerReading",
    "bind_context",
    "configure_logs",
    "get_logger",
    "request_context",
    "writing_to",
]
