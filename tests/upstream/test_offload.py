"""Requests that nginx may relay itself: every obstacle, and the headers that nginx gets."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from proxy.access import Caller
from proxy.credentials import UpstreamCredential
from proxy.errors import BadResponse, Draining, ProxyError, UpstreamTimeout
from proxy.settings import (
    Access,
    CallerKey,
    CredentialSection,
    Inject,
    Invalidation,
    Limits,
    Logs,
    Routes,
    Settings,
    Timeouts,
    Upstream,
    load_settings,
)
from proxy.settings.section import Section
from proxy.upstream.client import UpstreamClient
from proxy.upstream.offload import STALE_SECONDS_MAX, cache_control, find_obstacle, grant
from proxy.upstream.routing import Routing
from proxy.wire.endpoints import CHAT_COMPLETIONS, EMBEDDINGS, MODELS, Endpoint
from tests.credentials.fakes import FakeIssuer, build_machine, virtually
from tests.tls_servers import make_certificate

ROOT = Path(__file__).parents[2]
OFFLOAD_CONF = ROOT / "config/nginx/offload.conf"
CLOSED = {408, 444}
"""nginx accepts these in its list, but closes the connection."""
NOT_RENEWED = "its token may be rejected with a status that nginx does not hand to the proxy"

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

OTHER = """
[upstreams.other]
base_url = "http://a.test/v1"

[routes]
default = %s

[upstreams.main]
"""

SECTIONS: dict[str, type[Section]] = {
    "": Settings,
    "Settings.access": Access,
    "Access.keys": CallerKey,
    "Settings.routes": Routes,
    "Settings.upstreams": Upstream,
    "Upstream.timeouts": Timeouts,
    "Settings.credentials": CredentialSection,
    "CredentialSection.inject": Inject,
    "CredentialSection.invalidate_on": Invalidation,
    "Settings.limits": Limits,
    "Settings.logs": Logs,
}
"""The sections whose settings are decided one by one. What a kind of credential adds to `CredentialSection`
says only how the proxy fetches the token."""


def of_key(line: str, reason: str) -> tuple[str, str, str]:
    """Return an obstacle that a line in the key's table makes."""
    return 'name = "app"', f'name = "app"\n{line}', reason


def of_upstream(line: str, reason: str) -> tuple[str, str, str]:
    """Return an obstacle that a line in the upstream's table makes."""
    return 'credential = "corp"', f'credential = "corp"\n{line}', reason


def of_credential(line: str, reason: str) -> tuple[str, str, str]:
    """Return an obstacle that a line in the credential's table makes."""
    return 'value = "s3cret-canary"', f'value = "s3cret-canary"\n{line}', reason


OBSTACLES = {
    "Access.mode": (
        "[[access.keys]]",
        '[access]\nmode = "open"\n[[access.keys]]',
        "no key is required, so the proxy has to check which page sent it",
    ),
    "CallerKey.models": of_key('models = ["m"]', "its key has limits"),
    "CallerKey.rate": of_key('rate = "5/minute"', "its key has limits"),
    "CallerKey.tokens": of_key('tokens = "5/minute"', "its key has limits"),
    "CallerKey.max_streams": of_key("max_streams = 3", "its key has limits"),
    "CallerKey.heartbeat": of_key("heartbeat = 5", "its streams have a heartbeat"),
    "CallerKey.repairs": of_key('repairs = ["ragflow"]', "its key or its upstream has repairs"),
    "Routes.default": (
        "[upstreams.main]",
        OTHER % "{ main = 1, other = 1 }",
        "several upstreams can take it",
    ),
    "Routes.models": (
        "[upstreams.main]",
        '[[routes.models]]\nmatch = "m"\nupstream = "main"\n[routes]\ndefault = "main"\n[upstreams.main]',
        "its model decides which upstream it goes to",
    ),
    "Upstream.headers": of_upstream('headers = {x-team = "a"}', "its upstream has configured headers"),
    "Upstream.forward_openai_account": of_upstream(
        "forward_openai_account = true", "its upstream has configured headers"
    ),
    "Upstream.repairs": of_upstream('repairs = ["ragflow"]', "its key or its upstream has repairs"),
    "Upstream.renames": of_upstream('renames = {m = "n"}', "its upstream renames models"),
    "Upstream.fallback": (
        "[upstreams.main]",
        OTHER % '"main"' + 'fallback = "other"',
        "several upstreams can take it",
    ),
    "Upstream.retries": of_upstream("retries.attempts = 2", "its upstream has retries"),
    "Upstream.heartbeat": of_upstream("heartbeat = 5", "its streams have a heartbeat"),
    "Upstream.ca_file": of_upstream('ca_file = "CERTIFICATE"', "its upstream has certificates of its own"),
    "Upstream.proxy": of_upstream(
        'proxy = "http://a.test:9"', "its upstream is reached through an HTTP proxy"
    ),
    "Timeouts.total": of_upstream("timeouts.total = 600", "its upstream has a total timeout"),
    "Inject.header": of_credential('inject = {header = "x-k"}', "nginx cannot write its token"),
    "Inject.query": of_credential('inject = {query = "k"}', "nginx cannot write its token"),
    "Invalidation.status": of_credential("invalidate_on = [{status = 504}]", NOT_RENEWED),
    "Logs.bodies": ("[offload]", "[logs]\nbodies = true\n[offload]", "its body is logged"),
}
"""The settings for which the proxy has to relay: what to replace in `SETTINGS`, by what, and the obstacle."""
COPIED = {
    "Upstream.max_connections": "max_conns",
    "Timeouts.connect": "proxy_connect_timeout",
    "Timeouts.first_byte": "proxy_read_timeout",
    "Timeouts.idle": "proxy_read_timeout",
    "Limits.max_body_bytes": "client_max_body_size",
    "Limits.body_timeout": "client_body_timeout",
    "Limits.max_connections": "worker_connections",
}
"""The settings in whose place nginx has a directive of its own."""
GIVEN_UP = {
    "Settings.status",
    "Settings.traces",
    "Upstream.breaker",
    "Limits.max_event_bytes",
    "Limits.total_held_bytes",
    "Limits.held_bytes_per_caller",
}
"""The settings that take no notice of what nginx relays."""
WITHOUT_EFFECT = {
    # They concern other requests; those with an Origin go to the proxy.
    *("Settings.models", "Settings.cors", "Settings.chat", "Settings.gateway", "Access.trusted_proxies"),
    *("Access.hosts", "Upstream.fallback_statuses", "Limits.max_loop_lag", "Limits.held_body_bytes"),
    # The proxy obeys them before it gives nginx a token, or when it takes over.
    *("Settings.offload", "Settings.shared", "Access.sharing", "CallerKey.name", "CallerKey.key"),
    *("CallerKey.sha256", "CallerKey.endpoints", "Routes.endpoints", "Upstream.base_url"),
    *("Upstream.credential", "CredentialSection.source", "CredentialSection.default_ttl"),
    *("CredentialSection.timeout", "CredentialSection.reissue", "CredentialSection.sharing"),
    *("Inject.template", "Invalidation.www_authenticate", "Invalidation.path", "Invalidation.values"),
    # They shape the proxy's own log.
    *("Logs.level", "Logs.format", "Logs.body_bytes"),
}


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


@pytest.mark.parametrize("setting", OBSTACLES)
def test_requests_that_need_the_proxy_are_not_offloaded(
    load: Callable[[str], Settings], tmp_path: Path, setting: str
) -> None:
    before, after, reason = OBSTACLES[setting]
    assert before in SETTINGS
    certificate = make_certificate(tmp_path, "localhost") if "CERTIFICATE" in after else ""
    text = SETTINGS.replace(before, after.replace("CERTIFICATE", str(certificate)))
    assert obstacle(load(text)) == reason


def test_an_upstream_that_offload_does_not_name_needs_the_proxy(load: Callable[[str], Settings]) -> None:
    settings = load(SETTINGS.replace("[upstreams.main]", OTHER % '"other"'))
    assert obstacle(settings) == "[offload] upstreams does not name its upstream"


def test_what_becomes_of_every_setting_behind_nginx_is_decided() -> None:
    """A new setting has to become an obstacle, or to be added to one of the lists."""
    fields = {f"{section.__name__}.{name}" for section in SECTIONS.values() for name in section.model_fields}
    decided = Counter([*SECTIONS, *OBSTACLES, *COPIED, *GIVEN_UP, *WITHOUT_EFFECT])
    assert fields ^ set(decided) == {""}
    assert decided.total() == len(decided)


@pytest.mark.parametrize("name", ["nginx.md", "nginx.zh-CN.md"])
def test_the_document_names_every_setting_that_matters_behind_nginx(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    words = set(re.findall(r"\w+", code))
    for setting in [*OBSTACLES, *COPIED, *GIVEN_UP]:
        section, _, field = setting.partition(".")
        assert {"Inject": "inject", "Invalidation": "invalidate_on"}.get(section, field) in words, setting
    assert set(COPIED.values()) <= words


def test_the_copied_settings_are_those_that_nginx_is_shipped_with() -> None:
    shipped = dict(re.findall(r"^    (\w+) (\d+)[sm];", relaying_location(), re.MULTILINE))
    timeouts, limits = Timeouts(), Limits()
    assert float(shipped["proxy_connect_timeout"]) == timeouts.connect
    assert float(shipped["proxy_read_timeout"]) == max(timeouts.first_byte, timeouts.idle)
    assert int(shipped["client_max_body_size"]) - 1 == limits.max_body_bytes >> 20


def test_an_endpoint_whose_model_is_not_in_the_body_needs_the_proxy(
    load: Callable[[str], Settings],
) -> None:
    settings = load(SETTINGS)
    assert obstacle(settings, EMBEDDINGS) == ""
    assert obstacle(settings, MODELS) == "its endpoint needs the proxy"


def relaying_location() -> str:
    """Return the location of offload.conf in which nginx relays."""
    location = re.search(r"^location ~.*?^}$", OFFLOAD_CONF.read_text(), re.MULTILINE | re.DOTALL)
    assert location is not None
    return location[0]


def listed_statuses() -> dict[int, str]:
    """Return the location that takes over by the status of the upstream."""
    lines = re.findall(r"^ +error_page ([\d ]+) = (@\w+);$", relaying_location(), re.MULTILINE)
    return {int(status): target for statuses, target in lines for status in statuses.split()}


def test_nginx_returns_no_error_of_the_upstream_as_it_is() -> None:
    assert set(listed_statuses()) == set(range(300, 600)) - {499}  # nginx does not accept 499


def test_tokens_are_renewed_after_every_status_that_rejects_them(load: Callable[[str], Settings]) -> None:
    proxy = {"@llm_token_proxy", "@llm_bad_gateway"}
    renewed = {status for status, target in listed_statuses().items() if target in proxy} - CLOSED
    text = SETTINGS.replace(
        'value = "s3cret-canary"',
        'value = "s3cret-canary"\ninvalidate_on = [{status = 401}, {status = %d, www_authenticate = "x"}]',
    )
    for status in range(200, 600):
        assert obstacle(load(text % status)) == ("" if status in renewed else NOT_RENEWED), status


@pytest.mark.parametrize(
    "error",
    [BadResponse(), UpstreamTimeout(), Draining("the proxy is restarting")],
    ids=lambda error: error.code,
)
def test_an_error_of_nginx_is_written_as_the_proxy_would(error: ProxyError) -> None:
    bodies = re.findall(r"return (\d+) '(.+)';", OFFLOAD_CONF.read_text())
    assert (error.status, error.envelope()) in [(int(status), json.loads(body)) for status, body in bodies]


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
