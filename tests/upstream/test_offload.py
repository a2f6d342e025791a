"""Requests that nginx may relay itself: every obstacle, and the headers that nginx gets."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from proxy.access import Caller
from proxy.credentials import UpstreamCredential
from proxy.settings import Inject, Settings
from proxy.settings.load import load_settings
from proxy.upstream.client import UpstreamClient
from proxy.upstream.offload import STALE_SECONDS_MAX, cache_control, find_obstacle, grant
from proxy.upstream.routing import Routing
from proxy.wire.endpoints import CHAT_COMPLETIONS, EMBEDDINGS, MODELS, Endpoint
from tests.credentials.fakes import FakeIssuer, build_machine, virtually

OFFLOAD_CONF = Path(__file__).parents[2] / "config/nginx/offload.conf"
CLOSED = {408, 444}
"""nginx accepts these in its list, but closes the connection."""

SETTINGS = """
[upstreams.main]
base_url = "http://127.0.0.1:9/v1"
credential = "corp"

[credentials.corp]
source = "static"
value = "s3cret-canary"

[[access.keys]]
name = "app"
key = "sk-app-1234567890abcdef"

[offload]
secret = "0123456789abcdef"
upstreams = ["main"]
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Settings]:
    """Load settings from a text."""

    def loaded(text: str) -> Settings:
        file = tmp_path / "proxy.toml"
        file.write_text(text, encoding="utf-8")
        return load_settings(file, {})

    return loaded


def obstacle(settings: Settings, endpoint: Endpoint = CHAT_COMPLETIONS) -> str:
    """Return why nginx may not relay a chat of the first caller."""
    assert settings.offload is not None
    idle = cast(UpstreamClient, SimpleNamespace(running=0))  # is chosen, but never called
    clients = dict.fromkeys(settings.upstreams, idle)
    caller = Caller.of(settings.access.keys[0])
    plan = Routing(settings, clients).plan(endpoint, "m", caller)
    return find_obstacle(settings, settings.offload, plan, caller)


def test_a_plain_request_has_no_obstacle(load: Callable[[str], Settings]) -> None:
    assert obstacle(load(SETTINGS)) == ""


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('name = "app"', 'name = "app"\nmodels = ["m"]', "its key has limits"),
        ('name = "app"', 'name = "app"\nrate = "5/minute"', "its key has limits"),
        ('name = "app"', 'name = "app"\nmax_streams = 3', "its key has limits"),
        ('name = "app"', 'name = "app"\nrepairs = ["ragflow"]', "its key or its upstream has repairs"),
        ('credential = "corp"', 'credential = "corp"\nrenames = {m = "n"}', "its upstream renames models"),
        (
            'credential = "corp"',
            'credential = "corp"\nheaders = {x-team = "a"}',
            "its upstream has configured headers",
        ),
        ('credential = "corp"', 'credential = "corp"\nretries.attempts = 2', "its upstream has retries"),
        (
            "[upstreams.main]",
            '[upstreams.other]\nbase_url = "http://a.test/v1"\n[routes]\ndefault = "other"\n[upstreams.main]',
            "[offload] upstreams does not name its upstream",
        ),
        (
            "[upstreams.main]",
            '[[routes.models]]\nmatch = "m"\nupstream = "main"\n[routes]\ndefault = "main"\n[upstreams.main]',
            "its model decides which upstream it goes to",
        ),
        (
            'value = "s3cret-canary"',
            'value = "s3cret-canary"\ninject = {query = "k"}',
            "nginx cannot write its token",
        ),
    ],
)
def test_requests_that_need_the_proxy_are_not_offloaded(
    load: Callable[[str], Settings], before: str, after: str, reason: str
) -> None:
    assert before in SETTINGS
    assert obstacle(load(SETTINGS.replace(before, after))) == reason


def test_an_endpoint_whose_model_is_not_in_the_body_needs_the_proxy(
    load: Callable[[str], Settings],
) -> None:
    settings = load(SETTINGS)
    assert obstacle(settings, EMBEDDINGS) == ""
    assert obstacle(settings, MODELS) == "its endpoint needs the proxy"


def listed_statuses() -> dict[int, str]:
    """Return where nginx sends a request by the status of its upstream: the `error_page` lines of offload.conf."""
    location = re.search(r"^location ~.*?^}$", OFFLOAD_CONF.read_text(), re.MULTILINE | re.DOTALL)
    assert location is not None
    lines = re.findall(r"^ +error_page ([\d ]+) = (@\w+);$", location[0], re.MULTILINE)
    return {int(status): target for statuses, target in lines for status in statuses.split()}


def test_nginx_returns_no_error_of_the_upstream_as_it_is() -> None:
    assert set(listed_statuses()) == set(range(300, 600)) - {499}  # nginx does not accept 499


def test_tokens_are_renewed_after_every_status_that_rejects_them(load: Callable[[str], Settings]) -> None:
    proxy = {"@llm_token_proxy"}
    renewed = {status for status, target in listed_statuses().items() if target in proxy} - CLOSED
    text = SETTINGS.replace(
        'value = "s3cret-canary"',
        'value = "s3cret-canary"\ninvalidate_on = [{status = 401}, {status = %d, www_authenticate = "x"}]',
    )
    reason = "its token may be rejected with a status that nginx does not hand to the proxy"
    for status in range(200, 600):
        assert obstacle(load(text % status)) == ("" if status in renewed else reason), status


@virtually
async def test_nginx_gets_the_target_and_the_token_for_the_lifetime_of_the_token() -> None:
    machine = build_machine(FakeIssuer(lifetime=12.5))
    used = UpstreamCredential(machine, Inject())
    found = await grant("corp", "https://llm.example/api/v1/", b"/chat/completions", used, 60)
    assert {name: value for name, value in found.headers.items() if name != "authorization-Offload"} == {
        "Host-Offload": "llm.example",
        "Upstream-Offload": "corp",
        "Url-Offload": "https://corp/api/v1/chat/completions",
    }
    assert found.headers["authorization-Offload"].startswith("Bearer ")
    assert 0 < found.seconds <= 12
    assert found.seconds + found.stale_seconds <= 12.5


async def test_without_a_credential_only_the_cache_time_counts() -> None:
    found = await grant("corp", "http://127.0.0.1:9/v1", b"/embeddings", None, 5)
    assert (found.seconds, found.stale_seconds) == (5, math.floor(STALE_SECONDS_MAX))
    assert "authorization-Offload" not in found.headers


@pytest.mark.parametrize(
    ("seconds", "stale", "header"),
    [
        (0, 0, "no-store"),
        (1, 0, "max-age=1"),
        (1, 60, "max-age=1, stale-if-error=60"),
        (5, 0, "max-age=4, stale-while-revalidate=1"),
        (5, 60, "max-age=4, stale-while-revalidate=1, stale-if-error=61"),
    ],
)
def test_the_cache_time_includes_the_second_in_which_nginx_asks_again(
    seconds: int, stale: int, header: str
) -> None:
    assert cache_control(seconds, stale) == header
