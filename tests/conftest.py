"""Fixtures that run the service on loopback, with a real server, in front of the upstream of a test."""

import gc
import json
import logging
import os
import signal
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import hypothesis
import pytest
import structlog
from openai import AsyncOpenAI
from structlog.testing import capture_logs
from structlog.typing import EventDict

from proxy.app import create_app
from proxy.app_parts import app_parts
from proxy.asgi import Application
from proxy.drain import Drain
from proxy.gateway import DemoGateway, GatewayOptions
from proxy.server.other_servers import OURS
from proxy.services import Services
from proxy.settings import Settings, load_settings
from tests.held_gateway import HeldGateway
from tests.loopback import serve_on_loopback, until
from tests.odd_gateway import create_odd_gateway
from tests.pace import PACE, PATIENCE, paced

hypothesis.settings.register_profile(
    "tests",
    deadline=None,  # a busy machine is not a failure
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    database=None,
    derandomize="CI" in os.environ,
    print_blob=True,
)
hypothesis.settings.load_profile("tests")


ROOT = Path(__file__).parents[1]
PIECE = 10
"""How many tests of a module stay together in a whole run."""
TALLY_VARIABLE = "PROXY_TEST_TALLY"
"""Names the file to which pytest writes how many tests ended in which way."""


def pytest_configure() -> None:
    """Handle signals that this process inherited as ignored, as in the background and under nohup.

    The processes of tests would inherit that, and not react to the signals that tests send.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting thousands of tests again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count for `python -m tests`."""
    if path := os.environ.get(TALLY_VARIABLE):
        kinds = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
        counts = {kind: len(terminalreporter.stats.get(kind, ())) for kind in kinds}
        Path(path).write_text(json.dumps(counts))


def pytest_report_header() -> str:
    """Show how long the deadlines are."""
    return f"pace: {PACE:.1f} times the deadlines of a quiet machine"


def _mix(items: list[pytest.Item]) -> None:
    """Put pieces of modules into an order that looks random and is the same in each process.

    Tests beside each other resemble each other: those of the server wait for timeouts, those of the parsers
    compute. Mixed, both cores are busy from the first test to the last. A piece shares a module's fixtures.
    A long test comes first, since at the end all processes but one would wait for it.
    """
    seen = Counter[Path]()
    order = dict[str, int]()
    for item in items:
        name = f"{item.path.relative_to(ROOT).as_posix()} {seen[item.path] // PIECE}"
        order[item.nodeid] = -1 if item.get_closest_marker("long") else zlib.crc32(name.encode())
        seen[item.path] += 1
    items.sort(key=lambda item: order[item.nodeid])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stretch the time that each test may take, and mix the tests of a whole run."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        _mix(items)
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds = limit.args[0] if limit is not None else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(paced(seconds)), append=False)


KEY = "sk-test-7c1f0a"

SETTINGS = """
[access]
[[access.keys]]
name = "tester"
key = "{key}"

[routes]
default = "chat"
embeddings = "embed"

[upstreams.chat]
base_url = "{upstream}/v1"
credential = "corp"
{options}

[upstreams.embed]
base_url = "{upstream}/v1"
credential = "corp"

[credentials.corp]
{credential}

{more}
"""

RECIPE = """
source = "http"
url = "{issuer}/token"
json = {{ appId = "demo", appSecret = "demo-secret" }}
success = {{ path = "code", equals = 0 }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]
"""

STATIC = """
source = "static"
value = "static-upstream-token"
"""


@dataclass(frozen=True)
class RunningProxy:
    """The service under test."""

    url: str
    app: Application
    drain: Drain
    lines: list[EventDict]
    clients: list[AsyncOpenAI]

    @property
    def services(self) -> Services:
        """Its long-lived objects."""
        return app_parts(self.app).snapshots.current

    @property
    def exchanges(self) -> list[EventDict]:
        """The log lines of the exchanges that have ended."""
        return [line for line in self.lines if line["event"] == "exchange"]

    def client(self, key: str = KEY, path: str = "/v1") -> AsyncOpenAI:
        """The SDK, pointed here, without retries; it is closed with the service."""
        client = AsyncOpenAI(api_key=key, base_url=self.url + path, max_retries=0, timeout=PATIENCE)
        self.clients.append(client)
        return client


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo the log configuration of a test, so that the next one does not write to a closed stream."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


CANARIES = (KEY, "static-upstream-token", "demo-secret")
"""Secrets that no log line and no metric may contain, whatever a test does."""


@contextmanager
def caught_standard_logs() -> Iterator[list[str]]:
    """Collect the messages of the standard library's loggers, at the finest level."""
    records: list[str] = []

    class Catcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(f"{record.name} {record.getMessage()} {record.exc_info or ''}")

    root, catcher = logging.getLogger(), Catcher()
    level = root.level
    root.addHandler(catcher)
    root.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.setLevel(level)
        root.removeHandler(catcher)


def look_for_canaries(texts: list[str]) -> None:
    """Fail if a text contains a secret of the tests."""
    for text in texts:
        for canary in CANARIES:
            assert canary not in text, text


RunProxy = Callable[..., AbstractAsyncContextManager[RunningProxy]]


@pytest.fixture
def server() -> str:
    """The server under the service; `tests/integration/test_other_servers.py` names others."""
    return OURS


def patient(settings: Settings) -> Settings:
    """Let connections take as long as the tests do, except where a test sets how long they may take.

    The loop of a test is also that of its callers and upstreams: many at once on a busy machine take seconds.
    """
    upstreams, credentials = dict(settings.upstreams), dict(settings.credentials)
    for name, upstream in upstreams.items():
        if "connect" not in upstream.timeouts.model_fields_set:
            timeouts = upstream.timeouts.model_copy(update={"connect": PATIENCE})
            upstreams[name] = upstream.model_copy(update={"timeouts": timeouts})
    for name, credential in credentials.items():
        if "connect_timeout" in type(credential).model_fields.keys() - credential.model_fields_set:
            credentials[name] = credential.model_copy(update={"connect_timeout": PATIENCE})
    return settings.model_copy(update={"upstreams": upstreams, "credentials": credentials})


@pytest.fixture
def run_proxy(tmp_path: Path, server: str) -> RunProxy:
    """Return a context manager that serves the proxy in front of an upstream."""

    @asynccontextmanager
    async def run(
        upstream: str, *, credential: str = STATIC, options: str = "", access: str = "", more: str = ""
    ) -> AsyncIterator[RunningProxy]:
        path = tmp_path / "proxy.toml"
        text = SETTINGS.format(key=KEY, upstream=upstream, credential=credential, options=options, more=more)
        text = text.replace("[access]", f"[access]\n{access}", 1)
        path.write_text(text)
        drain = Drain()
        app = create_app(patient(load_settings(path, {})), drain)
        with capture_logs() as lines, caught_standard_logs() as standard:
            async with serve_on_loopback(app, server=server) as url:
                await until(app.serving.is_set)
                proxy = RunningProxy(url, app, drain, lines, [])
                try:
                    yield proxy
                    scraped, _ = proxy.services.metrics.render()
                finally:
                    for client in proxy.clients:
                        await client.close()
        look_for_canaries([*map(repr, lines), *standard, scraped.decode()])

    return run


@dataclass(frozen=True)
class RunningGateway:
    """The demonstration gateway behind the proxy."""

    url: str
    gateway: DemoGateway

    @property
    def credential(self) -> str:
        """The section that fetches tokens from it."""
        return RECIPE.format(issuer=self.url)


@pytest.fixture
def held_gateway() -> HeldGateway:
    """The app of the gateway, for tests that look at an answer in progress."""
    return HeldGateway()


@pytest.fixture
async def gateway(held_gateway: HeldGateway) -> AsyncIterator[RunningGateway]:
    """A demonstration gateway without pauses."""
    async with serve_on_loopback(held_gateway) as url:
        yield RunningGateway(url, held_gateway.app.extensions["gateway"])


@dataclass(frozen=True)
class RunningOddGateway(RunningGateway):
    """A demonstration gateway with the oddities of `tests/odd_gateway.py`, and how often each was used."""

    played: Counter[str]


@pytest.fixture
async def odd_gateway() -> AsyncIterator[RunningOddGateway]:
    """A gateway without pauses that behaves oddly where a model name asks for it."""
    app = create_odd_gateway(GatewayOptions(word_delay=0.0))
    async with serve_on_loopback(app) as url:
        yield RunningOddGateway(url, app.extensions["gateway"], app.extensions["oddities_played"])


def require(part: str, found: bool) -> None:  # noqa: FBT001
    """Skip the test if a program is missing; fail if `PROXY_TEST_REQUIRE=all` requires it."""
    if found:
        return
    if os.environ.get("PROXY_TEST_REQUIRE") == "all":
        pytest.fail(f"{part} is not installed")
    pytest.skip(f"{part} is not installed")
