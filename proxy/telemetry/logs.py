"""Set structlog up: one JSON line an event, secrets masked, no local variables in tracebacks."""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from proxy.secret import MASK
from proxy.settings import Logs
from proxy.telemetry.log_writer import LogWriter

_SENSITIVE: Final = frozenset(
    {
        "access_token",
        "api_key",
        "api-key",
        "app_secret",
        "authorization",
        "client_secret",
        "cookie",
        "key",
        "password",
        "proxy-authorization",
        "secret",
        "set-cookie",
        "token",
        "x-api-key",
    }
)

FIELD_CHARACTERS_MAX: Final = 1000
_OF_LINES: Final = frozenset({"exception", "stack"})
_LONG_FIELDS: Final = {
    "exception": 16_000,
    "stack": 16_000,
    "body": None,  # has a limit of its own
}
# C0 and C1 controls, line separators, bidirectional marks, invisible characters, lone surrogates.
_UNSAFE_RANGES: Final = (
    "\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e0fff"
)
_UNSAFE: Final = re.compile(f"[\x00-\x1f{_UNSAFE_RANGES}]")
_UNSAFE_IN_TRACEBACK: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE_RANGES}]")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `component=name`. Event names are constants in snake_case."""
    return cast(FilteringBoundLogger, structlog.get_logger(component=name))


def configure_logs(settings: Logs, stream: TextIO | LogWriter | None = None) -> None:
    """Send every log line, the standard library's too, to one stream.

    Args:
        settings: The `[logs]` section. `format = "auto"` is JSON unless the stream is a terminal.
        stream: Standard error by default, so that standard output stays free.
    """
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Formatted as plain text: a structured traceback would carry local variables, tokens among them.
        structlog.processors.format_exc_info,
        redact,
        shorten,
    ]
    renderers = _renderers(stream, as_json=as_json)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def dropped_lines() -> int:
    """How many lines were lost, because the log was full, or too slow for too long."""
    streams = [getattr(handler, "stream", None) for handler in logging.getLogger().handlers]
    return sum(stream.dropped for stream in streams if isinstance(stream, LogWriter))


@contextlib.contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Bind the request id to every line that is written inside."""
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        yield


def bind_context(**values: str) -> None:
    """Bind values to every line that is written in the current context, for good."""
    structlog.contextvars.bind_contextvars(**values)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask the values of sensitive names, one level deep into mappings."""
    for name, value in event.items():
        if name.lower() in _SENSITIVE:
            event[name] = MASK
        elif isinstance(value, dict):
            event[name] = {
                key: MASK if str(key).lower() in _SENSITIVE else item for key, item in value.items()
            }
    return event


def shorten(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut long texts: callers and upstreams choose paths, models, reasons and more."""
    for name, value in event.items():
        longest = _LONG_FIELDS.get(name, FIELD_CHARACTERS_MAX)
        if isinstance(value, str) and longest is not None and len(value) > longest:
            event[name] = f"{value[:longest]}... ({len(value)} characters)"
    return event


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what a terminal would obey or reorder, such as ESC, C1 controls and bidirectional marks."""
    for name, value in event.items():
        if isinstance(value, str):
            unsafe = _UNSAFE_IN_TRACEBACK if name in _OF_LINES else _UNSAFE
            event[name] = unsafe.sub(lambda found: ascii(found[0])[1:-1], value)
    return event


def _renderers(stream: TextIO | LogWriter, *, as_json: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.JSONRenderer(serializer=_to_json)]
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [escape_controls, console]


def _to_json(event: EventDict, **_options: Any) -> str:
    try:
        line = msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # a lone surrogate, such as the operating system makes of an odd file name
        return json.dumps(event, default=repr)
    # Below U+0020 the encoder has escaped everything. A log is also read on terminals.
    return line if line.isascii() and "\x7f" not in line else _UNSAFE.sub(_escape_in_json, line)


def _escape_in_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"
