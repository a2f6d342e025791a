"""Configure structlog: one JSON line per event, masked secrets, no local variables in tracebacks."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import Token
from typing import Final, TextIO, cast

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
_MULTILINE_FIELDS: Final = frozenset({"exception", "stack"})
_LONG_FIELDS: Final = {
    "exception": 16_000,
    "stack": 16_000,
    "body": None,  # BodyLog limits it.
}
# C0 and C1 controls, line separators, bidirectional marks, invisible characters, lone surrogates.
_UNSAFE_RANGES: Final = (
    "\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e0fff"
)
_UNSAFE: Final = re.compile(f"[\x00-\x1f{_UNSAFE_RANGES}]")
_UNSAFE_IN_TRACEBACK: Final = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSAFE_RANGES}]")


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose lines have `component=name`. Event names are constants in snake_case."""
    return cast(FilteringBoundLogger, structlog.get_logger(component=name))


def configure_logs(
    settings: Logs, stream: TextIO | LogWriter | None = None, *, permanent: bool = False
) -> None:
    """Send every log line, including those of the standard library, to one stream.

    Args:
        settings: The `[logs]` section. `format = "auto"` means JSON unless the stream is a terminal.
        stream: The stream; by default standard error.
        permanent: Whether the process keeps this configuration to its end, so that loggers can keep it too.
    """
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # As plain text, because a structured traceback contains local variables, which may hold tokens.
        structlog.processors.format_exc_info,
        protect,
    ]
    renderers = _renderers(stream, as_json=as_json)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=permanent,
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
    """Return how many lines were dropped, because the log was full or too slow."""
    streams = [getattr(handler, "stream", None) for handler in logging.getLogger().handlers]
    return sum(stream.dropped for stream in streams if isinstance(stream, LogWriter))


class request_context:  # noqa: N801 - used as a function; a generator would cost several times as much
    """Add the request id to every line that is logged in the block."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._tokens: Mapping[str, Token[object]] = {}

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(request_id=self._request_id)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)
        self._tokens = {}  # They refer to the context, which refers to the request.


def bind_context(**values: str) -> None:
    """Add values to every further line that is logged in the current context."""
    structlog.contextvars.bind_contextvars(**values)


def protect(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask the values of sensitive fields, also one level deep in mappings, and truncate long strings.

    Callers and upstreams choose many of the strings.
    """
    for name, value in event.items():
        if name.lower() in _SENSITIVE:
            event[name] = MASK
        elif isinstance(value, str):
            if len(value) > FIELD_CHARACTERS_MAX:
                event[name] = _shortened(name, value)
        elif isinstance(value, dict):
            event[name] = {
                key: MASK if str(key).lower() in _SENSITIVE else item for key, item in value.items()
            }
    return event


def _shortened(name: str, value: str) -> str:
    longest = _LONG_FIELDS.get(name, FIELD_CHARACTERS_MAX)
    if longest is None or len(value) <= longest:
        return value
    return f"{value[:longest]}... ({len(value)} characters)"


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape characters that control or reorder terminal output, such as ESC and bidirectional marks."""
    for name, value in event.items():
        if isinstance(value, str):
            unsafe = _UNSAFE_IN_TRACEBACK if name in _MULTILINE_FIELDS else _UNSAFE
            event[name] = unsafe.sub(lambda found: ascii(found[0])[1:-1], value)
    return event


def _renderers(stream: TextIO | LogWriter, *, as_json: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.JSONRenderer(serializer=_to_json)]
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [escape_controls, console]


def _to_json(event: EventDict, **_options: object) -> str:
    try:
        line = msgspec.json.encode(event, enc_hook=repr).decode()
    except UnicodeEncodeError:  # A lone surrogate, for example in a file name that is not UTF-8.
        return json.dumps(event, default=repr)
    # The encoder escapes only characters below U+0020, but terminals obey others too.
    return line if line.isascii() and "\x7f" not in line else _UNSAFE.sub(_escape_in_json, line)


def _escape_in_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"
