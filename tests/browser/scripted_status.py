"""The status page of a real service in states that a test chooses by replacing the report of the worker."""

import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.app import create_app
from proxy.app_parts import app_parts
from proxy.errors import Draining
from proxy.settings import load_settings
from proxy.status import service
from proxy.status.overview import Overview, merge
from proxy.status.report import StatusReport
from proxy.telemetry import TokenLife, TokenReading, TokenStats, UpstreamReading
from proxy.telemetry.readings import TokenState
from proxy.telemetry.traffic import CallerTraffic, ExchangeProblem, MinuteReading, TrafficReading, bucket_of
from tests.conftest import KEY, SETTINGS, STATIC
from tests.loopback import serve_on_loopback, until

STATUS_KEY = "status-key-8f3a-5b20-91c7"
NOW = 1_795_700_000.0
AT = 7_200.0
"""The current time on the clock of the counters."""


def token(name: str, state: TokenState, age: float, life: float = 300.0, **more: float) -> TokenReading:
    """Return a token with a lifetime of five minutes by default."""
    stats = TokenStats(fetches=12, fetches_failed_passing=int(more.pop("failed", 0)))
    expiry = life - min(10, 0.05 * life)
    return TokenReading(
        credential=name,
        state=state,
        remaining_seconds=max(expiry - age, 0.0),
        generation=3,
        waiters=int(more.get("waiters", 0)),
        backoff_seconds=more.get("backoff", 0.0),
        lifetime_seconds=life,
        learned_life_seconds=0.0,
        counts=stats,
        life=None if state == "empty" else TokenLife(age, 0.68 * life, expiry, life),
    )


def upstream(name: str, circuit: str | None, **attempts: int) -> UpstreamReading:
    """Return an upstream with its attempts by result; `_5xx` means `5xx`."""
    return UpstreamReading(name, circuit, {result.lstrip("_"): count for result, count in attempts.items()})


def traffic(
    minutes: Mapping[int, MinuteReading],
    callers: Mapping[str, CallerTraffic],
    outcomes: Mapping[str, int],
    *problems: ExchangeProblem,
    rate: float = 0.0,
) -> TrafficReading:
    """Return the traffic of an hour, with requests per second around a rate."""
    draw = random.Random(5)
    step = int(AT / 2)
    steps = {step - back: int(2 * rate * draw.uniform(0.6, 1.4)) for back in range(150)} if rate else {}
    return TrafficReading(
        at=AT, steps=steps, minutes=minutes, callers=callers, outcomes=outcomes, problems=[*problems]
    )


def busy_minute(draw: random.Random, failed: int = 0) -> MinuteReading:
    """Return a minute of a busy hour."""
    results = {
        "ok": draw.randint(400, 700),
        "left": draw.randint(0, 12),
        "rejected": draw.randint(0, 12),
        "failed": failed,
    }
    times = [draw.lognormvariate(-0.6, 0.7) for _ in range(200)]
    return MinuteReading(results, Counter(map(bucket_of, times)))


def problem(
    number: int, result: str, outcome: str, status: int | None, reason: str | None = None
) -> ExchangeProblem:
    """Return an exchange that did not succeed."""
    return ExchangeProblem(
        at=NOW - 37 * number,
        result="failed" if result == "failed" else "rejected",
        request_id=f"{0x9F1C33AD07E54B1C80 + number * 7919:032x}",
        outcome=outcome,
        status=status,
        caller="ragflow" if result == "failed" else "batch-jobs",
        endpoint="chat/completions",
        upstream="chat" if result == "failed" else None,
        reason=reason,
    )


EMPTY = StatusReport(
    ready=True,
    draining=False,
    running=0,
    streams={},
    offloaded={},
    traffic=traffic({}, {}, {}),
    credentials=[token("corp", "fresh", 12)],
    upstreams=[upstream("chat", "closed"), upstream("embed", None)],
)
"""A service that has just started."""


CALLERS = {
    "ragflow": CallerTraffic(2_213, {"ok": 24_126, "left": 293, "failed": 507}),
    "chat": CallerTraffic(81, {"ok": 951, "left": 44}),
    "batch-jobs": CallerTraffic(615, {"ok": 7_953, "rejected": 392}),
}
OUTCOMES = {"ok": 32_998, "client_gone": 369, "rate_limit_exceeded": 392, "upstream_timeout": 507}


def loaded(failing: int = 0, *problems: ExchangeProblem) -> StatusReport:
    """A service under load, with failures in the last minutes."""
    draw, last = random.Random(4), int(AT / 60)
    minutes = {
        last - back: busy_minute(draw, failing * draw.randint(20, 60) if back < 12 else 0)
        for back in range(59, -1, -1)
    }
    return replace(
        EMPTY,
        running=44,
        streams={"ragflow": 31, "chat": 3},
        offloaded={"batch-jobs": 7},
        traffic=traffic(minutes, CALLERS, OUTCOMES, *problems, rate=9.0),
        credentials=[
            token("corp", "fresh", 118),
            token("embed", "stale", 2700, 3600.0),
            token("static", "fresh", 500, math.inf),
        ],
        upstreams=[
            upstream("chat", "closed", _2xx=24_110, _4xx=31),
            upstream("backup", "closed", _2xx=12),
            upstream("embed", None, _2xx=98_003),
        ],
    )


SOME_PROBLEMS = [
    problem(0, "failed", "upstream_timeout", 504, "no first byte within 120 s"),
    problem(1, "failed", "upstream_aborted", 200, "the connection was lost after 41 events"),
    problem(2, "rejected", "rate_limit_exceeded", 429, "request rate"),
    problem(3, "rejected", "model_forbidden", 403),
]
ERRORS = loaded(1, *SOME_PROBLEMS)
CIRCUIT_OPEN = replace(
    ERRORS,
    upstreams=[
        upstream("chat", "opened", _2xx=24_110, upstream_timeout=311, upstream_unreachable=18),
        upstream("backup", "half-opened", _2xx=210, _5xx=4),
        upstream("embed", None, _2xx=98_003),
    ],
)
EXPIRED = replace(
    loaded(1, problem(0, "failed", "upstream_unavailable", 503, "no token: the token endpoint answered 500")),
    ready=False,
    credentials=[
        token("corp", "expired", 296, failed=4, backoff=1.2, waiters=17),
        token("embed", "suspect", 900, 3600.0),
        token("new", "empty", 0, failed=3, backoff=44.0),
    ],
)
SHUTTING_DOWN = replace(loaded(), draining=True, ready=False)
STATES: Mapping[str, StatusReport] = {
    "1-empty": EMPTY,
    "2-loaded": loaded(),
    "3-errors": ERRORS,
    "4-circuit-open": CIRCUIT_OPEN,
    "5-token-expired": EXPIRED,
    "6-shutting-down": SHUTTING_DOWN,
}


@dataclass
class ScriptedStatus:
    """A running service, and what its status page shows."""

    url: str
    folder: Path
    report: StatusReport
    is_broken: bool = False

    async def overview(self) -> Overview:
        """The overview that the page shows."""
        if self.is_broken:
            raise Draining
        return merge([self.report], 1)


@contextmanager
def quick_stream() -> Iterator[None]:
    """Send changes at once, and let browsers reconnect at once, so that no test has to wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "PERIOD_SECONDS", 0.02)
        patch.setattr(service, "OPENING", b"retry: 50\n\n")
        yield


@asynccontextmanager
async def scripted_status(folder: Path) -> AsyncIterator[ScriptedStatus]:
    """Serve the page."""
    path = folder / "proxy.toml"
    more = f'[status]\nkey = "{STATUS_KEY}"\n'
    text = SETTINGS.format(key=KEY, upstream="http://127.0.0.1:9", credential=STATIC, options="", more=more)
    path.write_text(text)
    app = create_app(load_settings(path, {}))
    with quick_stream():
        async with serve_on_loopback(app) as url:
            await until(app.serving.is_set)
            scripted = ScriptedStatus(url, folder, EMPTY)
            app_parts(app).status.overview = scripted.overview  # type: ignore[method-assign]
            yield scripted
