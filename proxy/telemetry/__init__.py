"""What the service says about itself: logs, and the record of each exchange."""

from proxy.telemetry.body_log import BodyLog
from proxy.telemetry.exchange_record import ExchangeRecord
from proxy.telemetry.logs import configure_logs, get_logger, request_context

__all__ = ["BodyLog", "ExchangeRecord", "configure_logs", "get_logger", "request_context"]
